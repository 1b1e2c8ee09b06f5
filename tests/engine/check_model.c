/* check_model MODEL.elm GOLDEN.bin LEAST_SNR_DB [KERNEL …]: on these kernels, or on every one that this processor has,
 * the answers are the expected ones, and chunks, fleets, snapshots and refused inputs give what single steps give, to
 * the last bit. Prints a line for each kernel and returns 0, or says what differs and returns 1.
 *
 * GOLDEN.bin: uint32 timesteps, features, outputs; then inputs and expected outputs, float32, row by row. */
#include <math.h>
#include <string.h>

#include "check.h"

#define STREAMS 101 /* More than two tiles, and a rest. */

static const char *const kernels[] = KERNELS;

static edgelstm_state *new_state(const edgelstm_model *model, size_t streams) {
    const size_t size = edgelstm_state_size(model, streams);
    edgelstm_state *state = NULL;
    if (edgelstm_init(model, aligned(size), size, streams, &state)) exit(2);
    return state;
}

static int failed(const char *kernel, const char *what, size_t at) {
    printf("%s: %s differs, timestep %zu\n", kernel, what, at);
    return 1;
}

static int check(const edgelstm_model *model, const float *xs, const float *want, size_t T, double least) {
    const char *name = edgelstm_kernel(model);
    const size_t features = edgelstm_features(model), outputs = edgelstm_outputs(model), row = 4 * outputs;
    edgelstm_state *state = new_state(model, 1), *other = new_state(model, 1), *fleet = new_state(model, STREAMS);
    float *ys = aligned(T * row), *again = aligned(T * row), *y = aligned(STREAMS * row);
    float *x = aligned(4 * STREAMS * features);
    size_t streams[STREAMS], count;
    double signal = 0, noise = 0;

    for (size_t t = 0; t < T; t++) {
        if (edgelstm_step(model, state, xs + t * features, ys + t * outputs)) return failed(name, "a step's error", t);
    }
    for (size_t i = 0; i < T * outputs; i++) {
        const double difference = (double)want[i] - (double)ys[i];
        signal += (double)want[i] * (double)want[i];
        noise += difference * difference;
    }
    const double snr = noise > 0 ? 10 * log10(signal / noise) : 200;
    if (!(snr >= least)) {
        printf("%s: %.1f dB, less than %.1f\n", name, snr, least);
        return 1;
    }

    /* In chunks. */
    for (size_t t = 0, chunk = 1; t < T; t += chunk, chunk = chunk % 17 + 1) {
        if (chunk > T - t) chunk = T - t;
        if (edgelstm_run(model, other, xs + t * features, chunk, again + t * outputs)) return failed(name, "run", t);
    }
    if (memcmp(ys, again, T * row)) return failed(name, "run in chunks", T);

    /* A fleet: stream i starts i timesteps late, so that no two are at the same place; every stream is a single one's
     * equal. Some are reset half-way, and then start again. */
    const size_t reset_at = T / 2;
    for (size_t t = 0; t < T; t++) {
        if (t == reset_at) {
            for (size_t i = 0; i < STREAMS; i += 7) edgelstm_reset(model, fleet, i);
        }
        count = 0;
        for (size_t j = 0; j < STREAMS; j++) {
            const size_t i = (j * 37 + t) % STREAMS; /* In another order each time. */
            const size_t start = i % 7 == 0 && t >= reset_at ? reset_at : i;
            if (t < start) continue;
            memcpy(x + count * features, xs + (t - start) * features, 4 * features);
            streams[count++] = i;
        }
        if (edgelstm_fleet_step(model, fleet, streams, count, x, y)) return failed(name, "a fleet's error", t);
        for (size_t k = 0; k < count; k++) {
            const size_t i = streams[k], start = i % 7 == 0 && t >= reset_at ? reset_at : i;
            if (memcmp(y + k * outputs, ys + (t - start) * outputs, row)) return failed(name, "a fleet's row", t);
        }
    }

    /* A refused input changes nothing; a snapshot continues elsewhere. */
    const size_t size = edgelstm_snapshot_size(model), middle = T / 3;
    unsigned char *snapshot = aligned(size);
    edgelstm_reset(model, state, 0);
    edgelstm_run(model, state, xs, middle, again);
    memcpy(x, xs, 4 * features);
    for (size_t j = 0; j < features; j++) {
        x[j] = j % 2 ? NAN : -INFINITY;
        if (edgelstm_step(model, state, x, y) != EDGELSTM_NOT_FINITE) return failed(name, "a NaN's error", middle);
        x[j] = xs[j];
    }
    if (edgelstm_snapshot(model, state, 0, snapshot, size)) return failed(name, "a snapshot's error", middle);
    if (edgelstm_restore(model, fleet, 5, snapshot, size)) return failed(name, "a restore's error", middle);
    streams[0] = 5;
    for (size_t t = middle; t < T; t++) {
        edgelstm_step(model, state, xs + t * features, y);
        if (memcmp(y, ys + t * outputs, row)) return failed(name, "after a refused input", t);
        edgelstm_fleet_step(model, fleet, streams, 1, xs + t * features, y);
        if (memcmp(y, ys + t * outputs, row)) return failed(name, "after a restored snapshot", t);
    }
    printf("%s %.2f\n", name, snr);
    return 0;
}

int main(int count, char **arguments) {
    size_t size, golden_size, ran = 0;
    uint32_t shape[3];
    edgelstm_model model;
    int status = 0;
    if (count < 4) return 2;
    const unsigned char *file = read_file(arguments[1], &size, 0), *golden = read_file(arguments[2], &golden_size, 0);
    memcpy(shape, golden, sizeof shape);
    float *xs = aligned(4 * (size_t)shape[0] * shape[1]), *want = aligned(4 * (size_t)shape[0] * shape[2]);
    memcpy(xs, golden + 12, 4 * (size_t)shape[0] * shape[1]);
    memcpy(want, golden + 12 + 4 * (size_t)shape[0] * shape[1], 4 * (size_t)shape[0] * shape[2]);
    const int error = edgelstm_open(&model, file, size);
    if (error) {
        printf("%s: %s\n", arguments[1], edgelstm_error_text(error));
        return 1;
    }
    if (edgelstm_features(&model) != shape[1] || edgelstm_outputs(&model) != shape[2]) return 2;
    const char *const *names = count > 4 ? (const char *const *)arguments + 4 : kernels;
    const size_t named = count > 4 ? (size_t)count - 4 : sizeof kernels / sizeof kernels[0];
    for (size_t k = 0; k < named; k++) {
        const int missing = edgelstm_use_kernel(&model, names[k]);
        if (missing && count > 4) status = failed(names[k], "its presence", 0);
        if (missing) continue;
        status |= check(&model, xs, want, shape[0], atof(arguments[3]));
        ran++;
    }
    return ran ? status : 1;
}
