/* check_denormals MODEL.elm [KERNEL …]: on these kernels, or on every one that this processor has, what a timestep costs
 * where denormals are, beside what it costs on noise. Prints for each kernel its name and the ratios on silence, on
 * inputs of 1e-37 to 1e-45, on states that small, and of the slowest part of the way from noise down to silence; and,
 * since some processors hardly mind denormals, how many were found in states on that way.
 *
 * Bursts in turn, in the thread's own time, and the least of each, so that other processes do not count. Before that,
 * steps, chunks and fleets are compared to the last bit on such inputs, and the caller's floating-point environment must
 * be behind every call what it was before, with every rounding and every exception raised or let raise signals. */
#include <fenv.h>
#include <string.h>
#include <time.h>

#include "check.h"

#define ROUNDS 7
#define PARTS 64       /* Of the way down. */
#define MAX_STEPS 20000 /* A state that is multiplied by 0.99 has come from 1 to 1e-45 in half as many. */
#define FLEET 5

uint32_t edgelstm_crc32(const unsigned char *bytes, size_t size);

static const char *const kernels[] = KERNELS;
static const float tiny[] = {1e-37f, 1e-39f, -1e-41f, 1e-45f};

static edgelstm_state *new_state(const edgelstm_model *model, size_t streams) {
    const size_t size = edgelstm_state_size(model, streams);
    edgelstm_state *state = NULL;
    if (edgelstm_init(model, aligned(size), size, streams, &state)) exit(2);
    return state;
}

static double now(void) { /* ns */
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Rows of inputs: noise, silence, tiny ones. */
enum { NOISE, SILENCE, TINY, KINDS = TINY + sizeof tiny / sizeof tiny[0] };

static void fill(float *xs, size_t n, int kind) {
    for (size_t i = 0; i < n; i++)
        xs[i] = kind == NOISE ? (float)(i * 7919 % 201) / 100.0f - 1.0f : kind == SILENCE ? 0.0f : tiny[kind - TINY];
}

/* ns for each of `steps` timesteps on the same 64 rows. */
static double burst(const edgelstm_model *model, edgelstm_state *state, const float *xs, size_t steps, float *y) {
    const size_t features = edgelstm_features(model);
    const double begin = now();
    for (size_t i = 0; i < steps; i++) {
        if (edgelstm_step(model, state, xs + i % 64 * features, y)) exit(2);
    }
    return (now() - begin) / (double)steps;
}

static void keep_least(double *least, double value) {
    if (*least == 0 || value < *least) *least = value;
}

/* The stream's own state, its values replaced by ones of that size, their signs kept. */
static void shrink(unsigned char *snapshot, size_t size, float to) {
    for (size_t at = 8; at < size - 4; at += 4) {
        float value;
        memcpy(&value, snapshot + at, 4);
        value = value < 0 ? -to : to;
        memcpy(snapshot + at, &value, 4);
    }
    const uint32_t checksum = edgelstm_crc32(snapshot, size - 4);
    memcpy(snapshot + size - 4, &checksum, 4);
}

static size_t denormals_in(const unsigned char *snapshot, size_t size) {
    size_t found = 0;
    for (size_t at = 8; at < size - 4; at += 4) {
        uint32_t bits;
        memcpy(&bits, snapshot + at, 4);
        bits &= 0x7fffffffu;
        found += bits != 0 && bits < 0x00800000u;
    }
    return found;
}

static void measure(const edgelstm_model *model) {
    const size_t features = edgelstm_features(model), size = edgelstm_snapshot_size(model);
    edgelstm_state *states[KINDS], *state = new_state(model, 1);
    float *xs[KINDS], *y = aligned(4 * edgelstm_outputs(model));
    unsigned char *noisy = aligned(size), *shrunk = aligned(size);
    double least[KINDS] = {0}, decayed[2] = {0}, decay[PARTS] = {0};
    for (int kind = 0; kind < KINDS; kind++) {
        states[kind] = new_state(model, 1);
        xs[kind] = aligned(4 * 64 * features);
        fill(xs[kind], 64 * features, kind);
    }
    const size_t steps = (size_t)(1e6 / burst(model, state, xs[NOISE], 200, y)) / 64 * 64 + 64;
    if (edgelstm_snapshot(model, state, 0, noisy, size)) exit(2);
    /* Silence is what comes behind noise and a long time. */
    size_t found = 0;
    burst(model, states[SILENCE], xs[NOISE], 200, y);
    for (int i = 0; i < MAX_STEPS; i += 10) {
        burst(model, states[SILENCE], xs[SILENCE], 10, y);
        if (edgelstm_snapshot(model, states[SILENCE], 0, shrunk, size)) exit(2);
        found += denormals_in(shrunk, size);
    }
    for (int r = 0; r < ROUNDS; r++) {
        for (int kind = 0; kind < KINDS; kind++) keep_least(&least[kind], burst(model, states[kind], xs[kind], steps, y));
        for (int i = 0; i < 2; i++) { /* So short that the states do not grow meanwhile. */
            memcpy(shrunk, noisy, size);
            shrink(shrunk, size, i ? 1e-39f : 1e-37f);
            if (edgelstm_restore(model, state, 0, shrunk, size)) exit(2);
            keep_least(&decayed[i], burst(model, state, xs[SILENCE], 64, y));
        }
        if (edgelstm_restore(model, state, 0, noisy, size)) exit(2);
        for (int part = 0; part < PARTS; part++)
            keep_least(&decay[part], burst(model, state, xs[SILENCE], MAX_STEPS / PARTS, y));
    }
    double slowest[4] = {least[SILENCE], 0, decayed[0] > decayed[1] ? decayed[0] : decayed[1], 0};
    for (int kind = TINY; kind < KINDS; kind++) slowest[1] = least[kind] > slowest[1] ? least[kind] : slowest[1];
    for (int part = 0; part < PARTS; part++) slowest[3] = decay[part] > slowest[3] ? decay[part] : slowest[3];
    printf("%s", edgelstm_kernel(model));
    for (int i = 0; i < 4; i++) printf(" %.2f", slowest[i] / least[NOISE]);
    printf(" %zu\n", found);
}

/* Environments that a caller has set: every rounding, with no flag, with all of them, with signals. A build that sets no
 * mode of its own keeps none. */
#ifdef EDGELSTM_NO_FLUSH
#define ENVIRONMENTS 1
#else
#define ENVIRONMENTS 12
#endif

static int same_environment(int rounding, int flags, int unmasked) {
    int same = ENVIRONMENTS == 1 || (fegetround() == rounding && fetestexcept(FE_ALL_EXCEPT) == flags);
#ifdef __GLIBC__
    same = same && fegetexcept() == unmasked;
#endif
    (void)unmasked;
    return same;
}

static void default_environment(void) {
#ifdef __GLIBC__
    fedisableexcept(FE_ALL_EXCEPT);
#endif
    fesetround(FE_TONEAREST);
    feclearexcept(FE_ALL_EXCEPT);
}

/* Whether steps, a run, a fleet's steps and a window give the same over all kinds of input, and in every environment. */
static int same_answers(const edgelstm_model *model, const float *xs, size_t T, float *want) {
    static const int roundings[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    const size_t features = edgelstm_features(model), outputs = edgelstm_outputs(model);
    float *ys = aligned(4 * T * outputs), *many = aligned(4 * FLEET * outputs), *rows = aligned(4 * FLEET * features);
    float *infinite = aligned(4 * features);
    for (size_t j = 0; j < features; j++) infinite[j] = 1.0f;
    infinite[features - 1] = (float)(1e300 * 1e300);
    for (int mode = 0; mode < ENVIRONMENTS; mode++) {
        const size_t room = edgelstm_windows_size(model, 1, T, 1);
        edgelstm_windows *windows = NULL;
        if (edgelstm_windows_init(model, aligned(room), room, 1, T, 1, 1, &windows)) exit(2);
        edgelstm_state *one = new_state(model, 1), *chunk = new_state(model, 1), *fleet = new_state(model, FLEET);
        const int rounding = roundings[mode % 4], flags = mode / 4 == 1 ? FE_ALL_EXCEPT : 0;
        int unmasked = 0, error = 0, same = 1, differs = 0;
        default_environment();
        fesetround(rounding);
        if (flags) feraiseexcept(FE_ALL_EXCEPT);
#ifdef __GLIBC__
        if (mode / 4 == 2 && feenableexcept(FE_ALL_EXCEPT) != -1) unmasked = fegetexcept();
#endif
        for (size_t t = 0; t < T; t++) {
            error |= edgelstm_step(model, one, xs + t * features, ys + t * outputs);
            same = same && same_environment(rounding, flags, unmasked);
        }
        if (mode == 0) memcpy(want, ys, 4 * T * outputs);
        differs |= memcmp(want, ys, 4 * T * outputs) != 0;
        error |= edgelstm_run(model, chunk, xs, T, ys);
        same = same && same_environment(rounding, flags, unmasked);
        differs |= memcmp(want, ys, 4 * T * outputs) != 0;
        for (size_t t = 0; t < T; t++) {
            for (size_t i = 0; i < FLEET; i++) memcpy(rows + i * features, xs + t * features, 4 * features);
            error |= edgelstm_fleet_step(model, fleet, NULL, FLEET, rows, many);
            same = same && same_environment(rounding, flags, unmasked);
            for (size_t i = 0; i < FLEET; i++)
                differs |= memcmp(want + t * outputs, many + i * outputs, 4 * outputs) != 0;
        }
        for (size_t t = 0; t < T; t++) { /* Of the first of them an answer is every timestep's. */
            int due;
            error |= edgelstm_windows_step(model, windows, xs + t * features, many, &due) || !due;
            same = same && same_environment(rounding, flags, unmasked);
            differs |= memcmp(want + t * outputs, many, 4 * outputs) != 0;
        }
        error |= edgelstm_windows_step(model, windows, infinite, many, &(int){0}) != EDGELSTM_NOT_FINITE;
        error |= edgelstm_step(model, one, infinite, ys) != EDGELSTM_NOT_FINITE;
        error |= edgelstm_run(model, one, infinite, 1, ys) != EDGELSTM_NOT_FINITE;
        error |= edgelstm_fleet_step(model, fleet, NULL, 1, infinite, ys) != EDGELSTM_NOT_FINITE;
        same = same && same_environment(rounding, flags, unmasked);
        default_environment();
        if (error || differs || !same) {
            printf("%s: in mode %d: error %d, answers differ %d, environment kept %d\n", edgelstm_kernel(model), mode,
                   error, differs, same);
            return 0;
        }
    }
    return 1;
}

int main(int count, char **arguments) {
    const int unmeasured = count > 1 && strcmp(arguments[1], "--unmeasured") == 0; /* Where an emulator computes. */
    arguments += unmeasured;
    count -= unmeasured;
    if (count < 2) return 2;
    size_t size;
    const unsigned char *file = read_file(arguments[1], &size, 0);
    edgelstm_model model;
    if (edgelstm_open(&model, file, size)) return 2;
    const size_t features = edgelstm_features(&model), T = 12 * KINDS;
    float *xs = aligned(4 * T * features), *want = aligned(4 * T * edgelstm_outputs(&model));
    for (int kind = 0; kind < KINDS; kind++) fill(xs + (size_t)kind * 12 * features, 12 * features, kind);
    const char *const *names = count > 2 ? (const char *const *)arguments + 2 : kernels;
    const size_t named = count > 2 ? (size_t)count - 2 : sizeof kernels / sizeof kernels[0];
    for (size_t k = 0; k < named; k++) {
        if (edgelstm_use_kernel(&model, names[k])) {
            if (count > 2) return 1;
            continue;
        }
        if (!same_answers(&model, xs, T, want)) return 1;
        if (unmeasured) printf("%s\n", edgelstm_kernel(&model));
        else measure(&model);
    }
    return 0;
}
