/* check_allocations MODEL.elm …: every allocation of the process is counted (glibc), and a million steps, runs and
 * fleet steps after the first, and windows in flight, must add none; neither may opening or making states. */
#include <stdio.h>
#include <stdlib.h>

#include "edgelstm.h"

static unsigned long allocations;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocations++;
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}

static EDGELSTM_ALIGNED unsigned char file[1 << 22], memory[1 << 20];
static float xs[50 * 64], ys[50 * 64];

int main(int count, char **arguments) {
    free(malloc(1));
    if (allocations != 1) return 2; /* Or nothing is counted. */
    for (int i = 1; i < count; i++) {
        FILE *opened = fopen(arguments[i], "rb");
        const size_t size = opened ? fread(file, 1, sizeof file, opened) : 0;
        edgelstm_model model;
        edgelstm_state *state;
        edgelstm_windows *windows;
        unsigned char due[50];
        size_t answers;
        int answered;
        if (opened) fclose(opened);
        const unsigned long before = allocations;
        if (edgelstm_open(&model, file, size) || edgelstm_features(&model) > 64 || edgelstm_outputs(&model) > 64) return 2;
        if (edgelstm_init(&model, memory, sizeof memory, 50, &state)) return 2;
        for (size_t j = 0; j < sizeof xs / sizeof *xs; j++) xs[j] = (float)(j * 31 % 17) / 8.0f - 1.0f;
        for (size_t t = 0; t < 800000; t++) edgelstm_step(&model, state, xs + t % 50, ys);
        for (size_t t = 0; t < 100000; t += 10) edgelstm_run(&model, state, xs, 10, ys);
        for (size_t t = 0; t < 100000; t += 50) edgelstm_fleet_step(&model, state, NULL, 50, xs, ys);
        if (edgelstm_windows_init(&model, memory, sizeof memory, 50, 8, 3, 0, &windows)) return 2;
        for (size_t t = 0; t < 50000; t++) edgelstm_windows_step(&model, windows, xs + t % 50, ys, &answered);
        for (size_t t = 0; t < 1000; t++) edgelstm_windows_run(&model, windows, xs, 10, ys, 10, &answers);
        for (size_t t = 0; t < 1000; t++) edgelstm_windows_fleet_step(&model, windows, NULL, 50, xs, ys, due);
        if (allocations != before) {
            printf("%s: %lu allocations\n", arguments[i], allocations - before);
            return 1;
        }
    }
    return 0;
}
