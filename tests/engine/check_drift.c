/* check_drift MODEL.elm WEIGHTS.bin STEPS: so many steps of a stack of LSTMs and a Dense layer, and the same in double
 * precision with the plain formulas, from the same start on the same inputs. Prints the largest difference of the last
 * thousand steps, and how much memory the process gained behind the first tenth, in KiB.
 *
 * WEIGHTS.bin: uint32 layers, features, units of each layer, outputs; then float32 kernel, recurrent_kernel and bias of
 * each LSTM as in Keras, and kernel and bias of the Dense layer. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edgelstm.h"

#define LAST 1000
#define MAX_WIDTH 64

static EDGELSTM_ALIGNED unsigned char file[1 << 20], memory[1 << 16];
static float weights[1 << 18];

static size_t read_into(const char *path, void *to, size_t room) {
    FILE *opened = fopen(path, "rb");
    const size_t size = opened ? fread(to, 1, room, opened) : 0;
    if (size == 0 || size == room) exit(2);
    fclose(opened);
    return size;
}

static long resident_kib(void) {
    long pages = 0, ignored;
    FILE *opened = fopen("/proc/self/statm", "r");
    if (opened == NULL || fscanf(opened, "%ld %ld", &ignored, &pages) != 2) exit(2);
    fclose(opened);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* out += in · w, w (inputs, width). */
static void add_product(double *restrict out, const double *in, const float *restrict w, size_t inputs, size_t width) {
    for (size_t k = 0; k < inputs; k++) {
        for (size_t j = 0; j < width; j++) out[j] += in[k] * (double)w[k * width + j];
    }
}

static void lstm(size_t inputs, size_t units, const float **w, const double *x, double *h, double *c) {
    double z[4 * MAX_WIDTH];
    const float *kernel = *w, *recurrent = kernel + inputs * 4 * units, *bias = recurrent + units * 4 * units;
    for (size_t j = 0; j < 4 * units; j++) z[j] = (double)bias[j];
    add_product(z, x, kernel, inputs, 4 * units);
    add_product(z, h, recurrent, units, 4 * units);
    for (size_t j = 0; j < units; j++) {
        const double i = 1 / (1 + exp(-z[j])), f = 1 / (1 + exp(-z[units + j])), o = 1 / (1 + exp(-z[3 * units + j]));
        c[j] = f * c[j] + i * tanh(z[2 * units + j]);
        h[j] = o * tanh(c[j]);
    }
    *w = bias + 4 * units;
}

int main(int count, char **arguments) {
    uint32_t shape[8];
    edgelstm_model model;
    edgelstm_state *state;
    double h[4][MAX_WIDTH] = {{0}}, c[4][MAX_WIDTH] = {{0}}, input[MAX_WIDTH], want[MAX_WIDTH], largest = 0;
    float x[MAX_WIDTH], y[MAX_WIDTH];
    uint64_t random = 1;
    long before = 0;
    if (count != 4) return 2;
    const size_t size = read_into(arguments[1], file, sizeof file), steps = (size_t)atoll(arguments[3]);
    read_into(arguments[2], weights, sizeof weights);
    memcpy(shape, weights, sizeof shape);
    const size_t layers = shape[0], features = shape[1], outputs = shape[2 + layers];
    if (edgelstm_open(&model, file, size) || edgelstm_init(&model, memory, sizeof memory, 1, &state)) return 2;
    if (edgelstm_features(&model) != features || edgelstm_outputs(&model) != outputs) return 2;
    for (size_t t = 0; t < steps; t++) {
        for (size_t j = 0; j < features; j++) { /* Noise around slow waves. */
            random = random * 6364136223846793005u + 1442695040888963407u;
            const double noise = (double)(random >> 40) / (double)(1 << 24) - 0.5;
            x[j] = (float)(sin(1e-3 * (double)t * (double)(j + 1)) + noise);
            input[j] = (double)x[j];
        }
        if (edgelstm_step(&model, state, x, y)) return 2;
        const float *w = weights + 3 + layers;
        const double *from = input;
        size_t width = features;
        for (size_t i = 0; i < layers; i++) {
            lstm(width, shape[2 + i], &w, from, h[i], c[i]);
            from = h[i];
            width = shape[2 + i];
        }
        for (size_t j = 0; j < outputs; j++) want[j] = (double)w[width * outputs + j];
        add_product(want, from, w, width, outputs);
        for (size_t j = 0; t + LAST >= steps && j < outputs; j++) largest = fmax(largest, fabs(want[j] - (double)y[j]));
        if (t == steps / 10) before = resident_kib();
    }
    printf("%.3g %ld\n", largest, resident_kib() - before);
    return 0;
}
