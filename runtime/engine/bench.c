/* What a step costs, in C: `bench MODEL.elm …`. Beside each model stands the physical limit for one stream: how long a
 * plain sum over a buffer of the same size takes in the same process, in turn with the steps; how many times as long a
 * step takes behind a long silence, and on inputs of 1e-37 to 1e-45, the least of bursts in turn; and beside a step of
 * windows in flight, of WINDOW timesteps with an answer for each, what it takes to go through the window again. Times are
 * the thread's own on the processor. EDGELSTM_KERNEL chooses the kernel. Prints a table, or with --json one object per
 * line. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "edgelstm.h"

#define ROUNDS 31
#define WINDOW 30
#define SETTLING 5000 /* Timesteps of silence before silence is measured. */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void *aligned(size_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, EDGELSTM_ALIGNMENT, (size + 63) / 64 * 64)) exit(2);
    return memory;
}

/* The fastest plain sum that GCC's vectors give: eight sums side by side, as wide as the processor has them. Every .elm
 * file is whole cache lines, and so is the buffer. */
typedef float sixteen __attribute__((vector_size(64), aligned(64)));
#if defined(__x86_64__) && !defined(__clang__)
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
static float sum(const float *values, size_t n) {
    const sixteen *at = (const sixteen *)(const void *)values, *const end = at + n / 16;
    sixteen a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (; end - at >= 8; at += 8) {
        a += at[0];
        b += at[1];
        c += at[2];
        d += at[3];
        e += at[4];
        f += at[5];
        g += at[6];
        h += at[7];
    }
    for (; at < end; at++) a += *at;
    a = ((a + b) + (c + d)) + ((e + f) + (g + h));
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7])) + ((a[8] + a[9]) + (a[10] + a[11])) +
           ((a[12] + a[13]) + (a[14] + a[15]));
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

/* µs a step on so many rows of inputs in turn, one stream. */
static double burst(const edgelstm_model *model, edgelstm_state *state, const float *xs, size_t rows, size_t steps,
                    float *y) {
    const size_t features = edgelstm_features(model);
    const double begin = now();
    for (size_t i = 0; i < steps; i++) edgelstm_step(model, state, xs + i % rows * features, y);
    return (now() - begin) / (double)steps;
}

static double least(const double *values, size_t n) {
    double smallest = values[0];
    for (size_t i = 1; i < n; i++) smallest = values[i] < smallest ? values[i] : smallest;
    return smallest;
}

static void *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    void *bytes;
    if (file == NULL || fseek(file, 0, SEEK_END)) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    *size = (size_t)ftell(file);
    rewind(file);
    bytes = aligned(*size);
    if (fread(bytes, 1, *size, file) != *size) exit(2);
    fclose(file);
    return bytes;
}

static void measure(const char *path, int json, size_t streams) {
    size_t size;
    void *bytes = read_file(path, &size);
    edgelstm_model model;
    edgelstm_state *state, *fleet, *silent, *tiny;
    const char *name = getenv("EDGELSTM_KERNEL");
    int error = edgelstm_open(&model, bytes, size);
    if (!error && name) error = edgelstm_use_kernel(&model, name);
    if (error) {
        fprintf(stderr, "%s: %s\n", path, edgelstm_error_text(error));
        exit(2);
    }
    const size_t room = edgelstm_state_size(&model, 1), fleet_room = edgelstm_state_size(&model, streams);
    const size_t features = edgelstm_features(&model), outputs = edgelstm_outputs(&model);
    void *memory = aligned(room), *fleet_memory = aligned(fleet_room);
    void *silent_memory = aligned(room), *tiny_memory = aligned(room);
    float *xs = aligned(4 * streams * features), *ys = aligned(4 * streams * outputs);
    float *zeros = aligned(4 * streams * features), *denormals = aligned(4 * streams * features);
    float *buffer = aligned(size);
    const size_t windows_room = edgelstm_windows_size(&model, 1, WINDOW, 1);
    void *windows_memory = aligned(windows_room);
    edgelstm_windows *windows;
    int due;
    if (edgelstm_init(&model, memory, room, 1, &state)) exit(2);
    if (edgelstm_init(&model, fleet_memory, fleet_room, streams, &fleet)) exit(2);
    if (edgelstm_windows_init(&model, windows_memory, windows_room, 1, WINDOW, 1, 0, &windows)) exit(2);
    if (edgelstm_init(&model, silent_memory, room, 1, &silent)) exit(2);
    if (edgelstm_init(&model, tiny_memory, room, 1, &tiny)) exit(2);
    for (size_t i = 0; i < streams * features; i++) {
        static const float sizes[] = {1e-37f, -1e-39f, 1e-41f, 1e-45f};
        xs[i] = (float)(i * 7919 % 201) / 100.0f - 1.0f;
        zeros[i] = 0.0f;
        denormals[i] = sizes[i % 4];
    }
    for (size_t i = 0; i < size / 4; i++) buffer[i] = 1.0f;
    const double once = burst(&model, state, xs, streams, 200, ys);
    burst(&model, silent, xs, streams, 200, ys);
    burst(&model, silent, zeros, streams, SETTLING, ys);
    const size_t steps = (size_t)(3000.0 / once) + 10;
    double step[ROUNDS], limit[ROUNDS], ratio[ROUNDS], together[ROUNDS], silence[ROUNDS], denormal[ROUNDS];
    double in_flight[ROUNDS], replay[ROUNDS], faster[ROUNDS];
    float unused = 0.0f;
    for (size_t r = 0; r < ROUNDS; r++) {
        step[r] = burst(&model, state, xs, streams, steps, ys);
        silence[r] = burst(&model, silent, zeros, streams, steps, ys);
        denormal[r] = burst(&model, tiny, denormals, streams, steps, ys);
        double begin = now();
        for (size_t i = 0; i < steps; i++) {
            unused += sum(buffer, size / 4);
            __asm__ volatile("" ::: "memory");
        }
        limit[r] = (now() - begin) / (double)steps;
        ratio[r] = limit[r] / step[r];
        const size_t turns = steps / streams / 2 + 1;
        begin = now();
        for (size_t i = 0; i < turns; i++) edgelstm_fleet_step(&model, fleet, NULL, streams, xs, ys);
        together[r] = (now() - begin) / (double)(turns * streams);
        const size_t answers = steps / WINDOW + 1;
        if (r == 0) {
            for (size_t i = 0; i < WINDOW; i++) edgelstm_windows_step(&model, windows, xs, ys, &due);
        }
        begin = now();
        for (size_t i = 0; i < answers; i++)
            edgelstm_windows_step(&model, windows, xs + i % streams * features, ys, &due);
        in_flight[r] = (now() - begin) / (double)answers;
        begin = now();
        for (size_t i = 0; i < answers; i++) {
            edgelstm_reset(&model, state, 0);
            edgelstm_run(&model, state, xs + i % (streams - WINDOW) * features, WINDOW, ys);
        }
        replay[r] = (now() - begin) / (double)answers;
        faster[r] = replay[r] / in_flight[r];
    }
    const double noise = least(step, ROUNDS), silent_ratio = least(silence, ROUNDS) / noise;
    const double denormal_ratio = least(denormal, ROUNDS) / noise;
    const double median_step = median(step, ROUNDS), median_limit = median(limit, ROUNDS);
    const double median_fleet = median(together, ROUNDS), median_faster = median(faster, ROUNDS);
    const double median_window = median(in_flight, ROUNDS), median_replay = median(replay, ROUNDS);
    printf(json ? "{\"file\": \"%s\", \"kernel\": \"%s\", \"bytes\": %zu, \"step_us\": %.5f, \"sum_us\": %.5f, "
                  "\"bandwidth\": %.4f, \"streams\": %zu, \"fleet_us\": %.5f, \"silence\": %.3f, \"denormals\": %.3f, "
                  "\"window\": %d, \"window_us\": %.5f, \"replay_us\": %.5f, \"faster\": %.4f}\n"
                : "%-28s %-9s %9zu bytes %9.4f us/step %9.4f us/sum  %5.1f %% of its bandwidth; %zu streams: %.4f us; "
                  "silence %.2f, denormals %.2f times; window of %d: %.4f us, replayed %.4f us, %.2f times\n",
           path, edgelstm_kernel(&model), size, median_step, median_limit,
           median(ratio, ROUNDS) * (json ? 1.0 : 100.0), streams, median_fleet, silent_ratio, denormal_ratio, WINDOW,
           median_window, median_replay, median_faster);
    if (unused == 1.5f) puts("");
    free(bytes);
    free(memory);
    free(fleet_memory);
    free(windows_memory);
    free(silent_memory);
    free(tiny_memory);
    free(zeros);
    free(denormals);
    free(xs);
    free(ys);
    free(buffer);
}

int main(int count, char **arguments) {
    int json = 0;
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--json") == 0) json = 1;
        else measure(arguments[i], json, 256);
    }
    return count > 1 ? 0 : 2;
}
