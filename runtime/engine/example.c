/* Steps a model: `example MODEL.elm`, and prints an answer for ones. */
#include <stdio.h>
#include <stdlib.h>

#include "edgelstm.h"

static EDGELSTM_ALIGNED unsigned char file[1 << 20], memory[1 << 16];
static float x[64], y[64];

int main(int count, char **arguments) {
    edgelstm_model model;
    edgelstm_state *state;
    FILE *opened = count == 2 ? fopen(arguments[1], "rb") : NULL;
    const size_t size = opened ? fread(file, 1, sizeof file, opened) : 0;
    int error = edgelstm_open(&model, file, size);
    if (!error) error = edgelstm_init(&model, memory, sizeof memory, 1, &state);
    for (size_t i = 0; i < 64; i++) x[i] = 1.0f;
    if (!error && edgelstm_features(&model) <= 64 && edgelstm_outputs(&model) <= 64)
        error = edgelstm_step(&model, state, x, y);
    if (!error) printf("%s: %g\n", edgelstm_kernel(&model), (double)y[0]);
    else fprintf(stderr, "%s\n", edgelstm_error_text(error));
    return error;
}
