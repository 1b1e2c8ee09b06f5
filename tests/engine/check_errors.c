/* check_errors MODEL.elm OTHER.elm: whatever is wrong with an argument has its error, and leaves the state as it was;
 * a file that is cut short or changed anywhere is refused. Returns 0, or says where it fails and returns 1. */
#include <math.h>
#include <string.h>

#include "check.h"

static int failures;

#define EXPECT(WANT, CALL)                                                                                           \
    do {                                                                                                             \
        const int got = (CALL);                                                                                      \
        if (got != (WANT)) {                                                                                         \
            printf("line %d: %s is %d (%s), not %s\n", __LINE__, #CALL, got, edgelstm_error_text(got), #WANT);       \
            failures++;                                                                                              \
        }                                                                                                            \
    } while (0)

static void check_windows(const edgelstm_model *model, const edgelstm_model *other) {
    static edgelstm_model unopened;
    edgelstm_windows *windows = NULL, *others = NULL, *twin = NULL, *none;
    const size_t features = edgelstm_features(model), outputs = edgelstm_outputs(model), most = (size_t)-1;
    const size_t room = edgelstm_windows_size(model, 3, 5, 2);
    unsigned char *memory = aligned(room), *before = aligned(room), *second = aligned(room);
    float *x = aligned(12 * features), *y = aligned(12 * outputs), *answer = aligned(12 * outputs);
    unsigned char due[3] = {7, 7, 7};
    size_t answers = 0;
    uint64_t steps = 0;
    int answered = 7;

    if (edgelstm_windows_size(NULL, 1, 5, 2) || edgelstm_windows_size(&unopened, 1, 5, 2)) failures++;
    if (edgelstm_windows_size(model, 0, 5, 2) || edgelstm_windows_size(model, most, 5, 2)) failures++;
    if (edgelstm_windows_size(model, 1, 0, 2) || edgelstm_windows_size(model, 1, 5, 0)) failures++;
    if (edgelstm_windows_size(model, most / 2, 5, 2) || edgelstm_windows_size(model, most / 64, 5, 1)) failures++;
    if (sizeof(size_t) > 4 && edgelstm_windows_size(model, 1, most, most)) failures++;
    if (edgelstm_windows_size(model, most / 4, UINT32_MAX, 1)) failures++;
    EXPECT(EDGELSTM_NULL, edgelstm_windows_init(NULL, memory, room, 3, 5, 2, 0, &windows));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_init(&unopened, memory, room, 3, 5, 2, 0, &windows));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_init(model, NULL, room, 3, 5, 2, 0, &windows));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_init(model, memory, room, 3, 5, 2, 0, NULL));
    EXPECT(EDGELSTM_MISALIGNED, edgelstm_windows_init(model, memory + 4, room, 3, 5, 2, 0, &windows));
    EXPECT(EDGELSTM_TOO_SMALL, edgelstm_windows_init(model, memory, room - 1, 3, 5, 2, 0, &windows));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_init(model, memory, room, 0, 5, 2, 0, &windows));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_init(model, memory, room, 3, 0, 2, 0, &windows));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_init(model, memory, room, 3, 5, 0, 0, &windows));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_init(model, memory, room, most, 5, 2, 0, &windows));
    if (windows != NULL) failures++;
    EXPECT(EDGELSTM_OK, edgelstm_windows_init(model, memory, room, 3, 5, 2, 1, &windows));
    const size_t other_room = edgelstm_windows_size(other, 1, 5, 2), twin_room = edgelstm_windows_size(model, 1, 6, 2);
    EXPECT(EDGELSTM_OK, edgelstm_windows_init(other, aligned(other_room), other_room, 1, 5, 2, 0, &others));
    EXPECT(EDGELSTM_OK, edgelstm_windows_init(model, aligned(twin_room), twin_room, 1, 6, 2, 0, &twin));
    none = (edgelstm_windows *)aligned(room);
    memset((void *)none, 0, room);

    for (size_t i = 0; i < 3 * features; i++) x[i] = (float)(i % 5) / 4.0f - 0.5f;
    for (size_t t = 0; t < 7; t++) EXPECT(EDGELSTM_OK, edgelstm_windows_fleet_step(model, windows, NULL, 3, x, y, due));
    memcpy(before, memory, room);
    const size_t twice[] = {1, 0, 1}, beyond[] = {0, 3};
    EXPECT(EDGELSTM_NULL, edgelstm_windows_step(NULL, windows, x, y, &answered));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_step(&unopened, windows, x, y, &answered));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_step(model, NULL, x, y, &answered));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_step(model, windows, NULL, y, &answered));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_step(model, windows, x, NULL, &answered));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_step(model, windows, x, y, NULL));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_windows_step(model, others, x, y, &answered));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_windows_step(other, windows, x, y, &answered));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_windows_step(model, none, x, y, &answered));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_run(model, NULL, x, 1, y, 1, &answers));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_run(model, windows, NULL, 1, y, 1, &answers));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_run(model, windows, x, 1, NULL, 1, &answers));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_run(model, windows, x, 1, y, 1, NULL));
    EXPECT(EDGELSTM_OK, edgelstm_windows_run(model, windows, NULL, 0, NULL, 0, &answers));
    EXPECT(EDGELSTM_TOO_SMALL, edgelstm_windows_run(model, windows, x, 3, y, 0, &answers));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_fleet_step(model, windows, NULL, 1, NULL, y, due));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_fleet_step(model, windows, NULL, 1, x, NULL, due));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_fleet_step(model, windows, NULL, 1, x, y, NULL));
    EXPECT(EDGELSTM_OK, edgelstm_windows_fleet_step(model, windows, NULL, 0, NULL, NULL, NULL));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_fleet_step(model, windows, NULL, 4, x, y, due));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_fleet_step(model, windows, twice, 3, x, y, due));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_fleet_step(model, windows, beyond, 2, x, y, due));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_reset(model, NULL, 0));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_reset(model, windows, 3));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_seek(model, windows, 3, 1));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_seek(model, windows, 0, ((uint64_t)1 << 62) + 1));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_steps(model, windows, 3, &steps));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_steps(model, windows, 0, NULL));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_answers(model, windows, 3, 1, &answers));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_answers(model, windows, 0, 1, NULL));
    x[2 * features] = NAN; /* In the last row: no stream moves, no timestep is taken. */
    EXPECT(EDGELSTM_NOT_FINITE, edgelstm_windows_fleet_step(model, windows, NULL, 3, x, y, due));
    EXPECT(EDGELSTM_NOT_FINITE, edgelstm_windows_run(model, windows, x, 3, y, 3, &answers));
    EXPECT(EDGELSTM_NOT_FINITE, edgelstm_windows_step(model, windows, x + 2 * features, y, &answered));
    x[2 * features] = 0.25f;

    const size_t length = edgelstm_windows_snapshot_size(model, windows);
    unsigned char *snapshot = aligned(length);
    if (edgelstm_windows_snapshot_size(NULL, windows) || edgelstm_windows_snapshot_size(model, none)) failures++;
    EXPECT(EDGELSTM_NULL, edgelstm_windows_snapshot(model, windows, 0, NULL, length));
    EXPECT(EDGELSTM_TOO_SMALL, edgelstm_windows_snapshot(model, windows, 0, snapshot, length - 1));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_snapshot(model, windows, 3, snapshot, length));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_windows_snapshot(model, others, 0, snapshot, length));
    EXPECT(EDGELSTM_OK, edgelstm_windows_snapshot(model, windows, 0, snapshot, length));
    EXPECT(EDGELSTM_NULL, edgelstm_windows_restore(model, windows, 0, NULL, length));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_windows_restore(model, windows, 0, snapshot, length - 1));
    EXPECT(EDGELSTM_RANGE, edgelstm_windows_restore(model, windows, 3, snapshot, length));
    /* As many states in flight, but of another window. */
    EXPECT(EDGELSTM_FOREIGN, edgelstm_windows_restore(model, twin, 0, snapshot, length));
    for (size_t i = 0; i < length; i++) {
        snapshot[i] ^= 4;
        const int want = i < 16 ? EDGELSTM_FOREIGN : EDGELSTM_DAMAGED;
        EXPECT(want, edgelstm_windows_restore(model, windows, 1, snapshot, length));
        snapshot[i] ^= 4;
    }
    if (memcmp(before, memory, room)) {
        printf("a refused call changed the windows\n");
        failures++;
    }
    /* And all of it still works, whatever was in the memory before. */
    memset(second, 0xff, room);
    EXPECT(EDGELSTM_OK, edgelstm_windows_init(model, second, room, 3, 5, 2, 0, &twin));
    EXPECT(EDGELSTM_OK, edgelstm_windows_restore(model, twin, 2, snapshot, length));
    EXPECT(EDGELSTM_OK, edgelstm_windows_steps(model, twin, 2, &steps));
    if (steps != 7) failures++;
    const size_t third[] = {2};
    for (size_t t = 7; t < 15; t++) {
        EXPECT(EDGELSTM_OK, edgelstm_windows_step(model, windows, x, answer, &answered));
        EXPECT(EDGELSTM_OK, edgelstm_windows_fleet_step(model, twin, third, 1, x, y, due));
        if (*due != answered || answered != (t % 2 == 0)) failures++;
        if (answered && memcmp(answer, y, 4 * outputs)) failures++;
    }
}

int main(int count, char **arguments) {
    static edgelstm_model model, other, unopened;
    edgelstm_state *state, *others, *none;
    size_t size, other_size;
    if (count != 3) return 2;
    unsigned char *file = read_file(arguments[1], &size, 8); /* Room to move it, below. */
    unsigned char *second = read_file(arguments[2], &other_size, 0);
    const unsigned char *shifted = file + 4;

    EXPECT(EDGELSTM_NULL, edgelstm_open(NULL, file, size));
    EXPECT(EDGELSTM_NULL, edgelstm_open(&model, NULL, size));
    EXPECT(EDGELSTM_NOT_A_MODEL, edgelstm_open(&model, file, 0));
    EXPECT(EDGELSTM_NOT_A_MODEL, edgelstm_open(&model, shifted, size - 4));
    memcpy(file + size, "", 1);
    EXPECT(EDGELSTM_DAMAGED, edgelstm_open(&model, file, size + 1));
    memmove(file + 8, file, size);
    EXPECT(EDGELSTM_MISALIGNED, edgelstm_open(&model, file + 8, size));
    memmove(file, file + 8, size);
    for (size_t length = 0; length < size; length++) {
        const int error = edgelstm_open(&model, file, length);
        if (error != EDGELSTM_DAMAGED && error != EDGELSTM_NOT_A_MODEL) EXPECT(EDGELSTM_DAMAGED, error);
    }
    for (size_t i = 0; i < size; i++) { /* Behind the checksum every bit counts; before it lie magic and version. */
        file[i] ^= (unsigned char)(1u << i % 8);
        const int error = edgelstm_open(&model, file, size);
        if (i < 8) EXPECT(EDGELSTM_NOT_A_MODEL, error);
        else if (i < 12) EXPECT(file[i] > 1 || i > 8 ? EDGELSTM_TOO_NEW : EDGELSTM_DAMAGED, error);
        else EXPECT(EDGELSTM_DAMAGED, error);
        file[i] ^= (unsigned char)(1u << i % 8);
    }
    if (edgelstm_state_size(&model, 1) != 0) failures++; /* Not open: the last open failed. */
    EXPECT(EDGELSTM_OK, edgelstm_open(&model, file, size));
    EXPECT(EDGELSTM_OK, edgelstm_open(&other, second, other_size));

    EXPECT(EDGELSTM_NULL, edgelstm_use_kernel(NULL, NULL));
    EXPECT(EDGELSTM_NO_KERNEL, edgelstm_use_kernel(&model, "abacus"));
    EXPECT(EDGELSTM_OK, edgelstm_use_kernel(&model, "portable"));
    EXPECT(EDGELSTM_OK, edgelstm_use_kernel(&model, NULL));

    if (edgelstm_features(NULL) || edgelstm_outputs(NULL) || edgelstm_snapshot_size(NULL)) failures++;
    if (edgelstm_state_size(NULL, 1) || edgelstm_state_size(&unopened, 1)) failures++;
    if (edgelstm_state_size(&model, 0) || edgelstm_state_size(&model, (size_t)-1)) failures++;
    if (edgelstm_snapshot_size(&unopened) || *edgelstm_kernel(NULL)) failures++;

    const size_t room = edgelstm_state_size(&model, 3);
    unsigned char *memory = aligned(room);
    EXPECT(EDGELSTM_NULL, edgelstm_init(NULL, memory, room, 3, &state));
    EXPECT(EDGELSTM_NULL, edgelstm_init(&unopened, memory, room, 3, &state));
    EXPECT(EDGELSTM_NULL, edgelstm_init(&model, NULL, room, 3, &state));
    EXPECT(EDGELSTM_NULL, edgelstm_init(&model, memory, room, 3, NULL));
    EXPECT(EDGELSTM_MISALIGNED, edgelstm_init(&model, memory + 4, room, 3, &state));
    EXPECT(EDGELSTM_TOO_SMALL, edgelstm_init(&model, memory, room - 1, 3, &state));
    EXPECT(EDGELSTM_RANGE, edgelstm_init(&model, memory, room, 0, &state));
    EXPECT(EDGELSTM_RANGE, edgelstm_init(&model, memory, room, (size_t)-1, &state));
    if (state != NULL) failures++;
    EXPECT(EDGELSTM_OK, edgelstm_init(&model, memory, room, 3, &state));
    const size_t other_room = edgelstm_state_size(&other, 1);
    EXPECT(EDGELSTM_OK, edgelstm_init(&other, aligned(other_room), other_room, 1, &others));
    none = (edgelstm_state *)aligned(room);
    memset((void *)none, 0, room);

    const size_t features = edgelstm_features(&model), outputs = edgelstm_outputs(&model);
    float *x = aligned(12 * features), *y = aligned(12 * outputs), *want = aligned(12 * outputs);
    for (size_t i = 0; i < 3 * features; i++) x[i] = (float)(i % 5) / 4.0f - 0.5f;
    EXPECT(EDGELSTM_OK, edgelstm_fleet_step(&model, state, NULL, 3, x, y));
    unsigned char *before = aligned(room), *after = aligned(room);
    memcpy(before, memory, room);

    const size_t twice[] = {1, 0, 1}, beyond[] = {0, 3};
    EXPECT(EDGELSTM_NULL, edgelstm_step(NULL, state, x, y));
    EXPECT(EDGELSTM_NULL, edgelstm_step(&unopened, state, x, y));
    EXPECT(EDGELSTM_NULL, edgelstm_step(&model, NULL, x, y));
    EXPECT(EDGELSTM_NULL, edgelstm_step(&model, state, NULL, y));
    EXPECT(EDGELSTM_NULL, edgelstm_step(&model, state, x, NULL));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_step(&model, others, x, y));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_step(&other, state, x, y));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_step(&model, none, x, y));
    EXPECT(EDGELSTM_NULL, edgelstm_run(&model, NULL, x, 1, y));
    EXPECT(EDGELSTM_NULL, edgelstm_run(&model, state, NULL, 1, y));
    EXPECT(EDGELSTM_NULL, edgelstm_run(&model, state, x, 1, NULL));
    EXPECT(EDGELSTM_OK, edgelstm_run(&model, state, NULL, 0, NULL));
    EXPECT(EDGELSTM_NULL, edgelstm_fleet_step(&model, state, NULL, 1, NULL, y));
    EXPECT(EDGELSTM_NULL, edgelstm_fleet_step(&model, state, NULL, 1, x, NULL));
    EXPECT(EDGELSTM_OK, edgelstm_fleet_step(&model, state, NULL, 0, NULL, NULL));
    EXPECT(EDGELSTM_RANGE, edgelstm_fleet_step(&model, state, NULL, 4, x, y));
    EXPECT(EDGELSTM_RANGE, edgelstm_fleet_step(&model, state, twice, 3, x, y));
    EXPECT(EDGELSTM_RANGE, edgelstm_fleet_step(&model, state, beyond, 2, x, y));
    EXPECT(EDGELSTM_RANGE, edgelstm_reset(&model, state, 3));
    EXPECT(EDGELSTM_NULL, edgelstm_reset(&model, NULL, 0));
    x[2 * features] = NAN; /* In the last row: no stream moves, no timestep is taken. */
    EXPECT(EDGELSTM_NOT_FINITE, edgelstm_fleet_step(&model, state, NULL, 3, x, y));
    EXPECT(EDGELSTM_NOT_FINITE, edgelstm_run(&model, state, x, 3, y));
    EXPECT(EDGELSTM_NOT_FINITE, edgelstm_step(&model, state, x + 2 * features, y));
    x[2 * features] = 0.25f;

    const size_t length = edgelstm_snapshot_size(&model);
    unsigned char *snapshot = aligned(length);
    EXPECT(EDGELSTM_NULL, edgelstm_snapshot(&model, state, 0, NULL, length));
    EXPECT(EDGELSTM_TOO_SMALL, edgelstm_snapshot(&model, state, 0, snapshot, length - 1));
    EXPECT(EDGELSTM_RANGE, edgelstm_snapshot(&model, state, 3, snapshot, length));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_snapshot(&model, others, 0, snapshot, length));
    EXPECT(EDGELSTM_OK, edgelstm_snapshot(&model, state, 0, snapshot, length));
    EXPECT(EDGELSTM_NULL, edgelstm_restore(&model, state, 0, NULL, length));
    EXPECT(EDGELSTM_FOREIGN, edgelstm_restore(&model, state, 0, snapshot, length - 1));
    EXPECT(EDGELSTM_RANGE, edgelstm_restore(&model, state, 3, snapshot, length));
    for (size_t i = 0; i < length; i++) {
        snapshot[i] ^= 4;
        EXPECT(i < 8 ? EDGELSTM_FOREIGN : EDGELSTM_DAMAGED, edgelstm_restore(&model, state, 1, snapshot, length));
        snapshot[i] ^= 4;
    }
    memcpy(after, memory, room);
    if (memcmp(before, after, room)) {
        printf("a refused call changed the state\n");
        failures++;
    }

    /* And all of it still works: stream 1 takes over from stream 0. */
    EXPECT(EDGELSTM_OK, edgelstm_restore(&model, state, 1, snapshot, length));
    EXPECT(EDGELSTM_OK, edgelstm_step(&model, state, x, want));
    const size_t first[] = {1};
    EXPECT(EDGELSTM_OK, edgelstm_fleet_step(&model, state, first, 1, x, y));
    if (memcmp(want, y, 4 * outputs)) failures++;
    check_windows(&model, &other);
    for (int error = -1; error < 20; error++) {
        if (edgelstm_error_text(error) == NULL || strlen(edgelstm_error_text(error)) < 5) failures++;
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
