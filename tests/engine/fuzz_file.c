/* A libFuzzer target: any bytes as a file, and any bytes as a snapshot. The size and the checksum are put right first,
 * or no change would get past them. What opens is stepped with every kernel, so that sizes which do not fit are caught,
 * and floats that no trained model has. */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "state.h"

#define LARGEST_STATE (16u << 20)

size_t LLVMFuzzerMutate(unsigned char *data, size_t size, size_t most);

static const char *const KERNELS[] = {"portable", "avx2", "avx512", "neon", "neondot"};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static void repair(unsigned char *bytes, size_t size) {
    const uint32_t whole = (uint32_t)size;
    if (size < sizeof(elm_header)) return;
    memcpy(bytes + 16, &whole, 4);
    const uint32_t checksum = edgelstm_crc32(bytes + 16, size - 16);
    memcpy(bytes + 12, &checksum, 4);
}

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
    static const float extremes[] = {0.0f, -3.0f, 1e-41f, 3.4e38f, -3.4e38f, 1.0f, -1e-38f};
    for (size_t i = 0; i < 3 * features; i++) xs[i] = size % 2 ? extremes[i % 7] : (float)(i % 7) - 3.0f;
    for (size_t k = 0; k < COUNT(KERNELS); k++) {
        if (edgelstm_use_kernel(&model, KERNELS[k])) continue;
        if (edgelstm_init(&model, memory, room, 3, &state)) abort();
        if (edgelstm_step(&model, state, xs, ys)) abort();
        edgelstm_run(&model, state, xs, 3, ys);
        edgelstm_fleet_step(&model, state, NULL, 3, xs, ys);
        if (edgelstm_snapshot(&model, state, 1, snapshot, length)) abort();
        if (edgelstm_restore(&model, state, 2, snapshot, length)) abort();
        if (size >= length) edgelstm_restore(&model, state, 0, bytes + size - length, length);
        use_windows(&model, bytes, size, xs, ys);
    }
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
        repair(bytes, size);
        use(bytes, size);
    }
    free(bytes);
    return 0;
}

static uint32_t next(uint32_t *random) {
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

/* What libFuzzer is to try: as often as not what it likes, else a field of the header or of a layer, or some weights. */
size_t LLVMFuzzerCustomMutator(unsigned char *data, size_t size, size_t most, unsigned seed) {
    static const uint32_t fields[] = {0, 1, 2, 15, 16, 17, 64, 65535, 65536, 65537, 0x7fffffff, 0x80000000, 0xffffffff};
    static const uint32_t floats[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f7fffff, 0xff7fffff, 1, 0x80000001,
                                      0x007fffff, 0x80000000};
    uint32_t random = seed * 2654435761u + 1u;
    const unsigned kind = next(&random) % 4;
    if (kind < 2 || size < sizeof(elm_header) + sizeof(elm_layer)) {
        size = LLVMFuzzerMutate(data, size, most);
    } else if (kind == 2) {
        const size_t layers = (size - sizeof(elm_header)) / sizeof(elm_layer);
        const size_t described = sizeof(elm_header) + (layers < 8 ? layers : 8) * sizeof(elm_layer);
        const size_t at = next(&random) % (described / 4) * 4;
        memcpy(data + at, &fields[next(&random) % COUNT(fields)], 4);
    } else {
        const size_t first = sizeof(elm_header), words = (size - first) / 4;
        for (unsigned i = next(&random) % 16; i < 16; i++) {
            const size_t at = first + next(&random) % words * 4;
            memcpy(data + at, &floats[next(&random) % COUNT(floats)], 4);
        }
    }
    if (size >= sizeof(elm_header)) memcpy(data, ELM_MAGIC, 8);
    repair(data, size);
    return size;
}
