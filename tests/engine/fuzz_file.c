/* A libFuzzer target: any bytes as a file, and any bytes as a snapshot. The size and the checksum are put right first,
 * or no change would get past them. What opens is stepped, so that sizes which do not fit are caught. */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "state.h"

#define LARGEST_STATE (16u << 20)

static void *aligned(size_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, EDGELSTM_ALIGNMENT, size)) abort();
    return memory;
}

/* Windows of any length and hop, and any bytes as their snapshot behind its head and before its checksum. */
static void use_windows(const edgelstm_model *model, const unsigned char *bytes, size_t size, const float *xs,
                        float *ys) {
    const size_t window = 1 + bytes[size - 1] % 9, hop = 1 + bytes[size - 2] % 11;
    const size_t room = edgelstm_windows_size(model, 2, window, hop);
    edgelstm_windows *windows;
    unsigned char due[2];
    size_t answers;
    if (room > LARGEST_STATE) return;
    void *memory = aligned(room);
    if (edgelstm_windows_init(model, memory, room, 2, window, hop, bytes[size - 3] & 1, &windows)) abort();
    const size_t length = edgelstm_windows_snapshot_size(model, windows);
    unsigned char *snapshot = malloc(length);
    for (size_t t = 0; t < 12; t++) edgelstm_windows_fleet_step(model, windows, NULL, 2, xs, ys, due);
    if (edgelstm_windows_snapshot(model, windows, 1, snapshot, length)) abort();
    for (size_t i = 0; i < length - 20; i++) snapshot[16 + i] = bytes[i % size];
    const uint32_t checksum = edgelstm_crc32(snapshot, length - 4);
    memcpy(snapshot + length - 4, &checksum, 4);
    edgelstm_windows_restore(model, windows, 0, snapshot, length);
    edgelstm_windows_answers(model, windows, 0, 3, &answers);
    if (answers > 3) abort();
    if (edgelstm_windows_run(model, windows, xs, 3, ys, answers, &answers)) abort();
    if (edgelstm_windows_snapshot(model, windows, 0, snapshot, length)) abort();
    if (edgelstm_windows_restore(model, windows, 1, snapshot, length)) abort();
    if (edgelstm_windows_fleet_step(model, windows, NULL, 2, xs, ys, due)) abort();
    free(snapshot);
    free(memory);
}

static void use(const unsigned char *bytes, size_t size) {
    edgelstm_model model;
    edgelstm_state *state;
    if (edgelstm_open(&model, bytes, size)) return;
    const size_t room = edgelstm_state_size(&model, 3), length = edgelstm_snapshot_size(&model);
    const size_t features = edgelstm_features(&model), outputs = edgelstm_outputs(&model);
    if (room > LARGEST_STATE) return;
    /* As large as they must be and no larger, so that AddressSanitizer sees one byte too many. */
    void *memory = aligned(room);
    float *xs = malloc(12 * features), *ys = malloc(12 * outputs);
    unsigned char *snapshot = malloc(length);
    for (size_t i = 0; i < 3 * features; i++) xs[i] = (float)(i % 7) - 3.0f;
    if (edgelstm_init(&model, memory, room, 3, &state)) abort();
    if (edgelstm_step(&model, state, xs, ys)) abort();
    if (edgelstm_use_kernel(&model, "portable")) abort();
    edgelstm_run(&model, state, xs, 3, ys);
    edgelstm_fleet_step(&model, state, NULL, 3, xs, ys);
    if (edgelstm_snapshot(&model, state, 1, snapshot, length)) abort();
    if (edgelstm_restore(&model, state, 2, snapshot, length)) abort();
    if (size >= length) edgelstm_restore(&model, state, 0, bytes + size - length, length);
    use_windows(&model, bytes, size, xs, ys);
    free(memory);
    free(xs);
    free(ys);
    free(snapshot);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    unsigned char *bytes = aligned(size);
    memcpy(bytes, data, size);
    use(bytes, size);
    if (size >= sizeof(elm_header)) {
        const uint32_t whole = (uint32_t)size;
        memcpy(bytes + 16, &whole, 4);
        const uint32_t checksum = edgelstm_crc32(bytes + 16, size - 16);
        memcpy(bytes + 12, &checksum, 4);
        use(bytes, size);
    }
    free(bytes);
    return 0;
}
