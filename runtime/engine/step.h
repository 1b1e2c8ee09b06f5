/* The streams that go through the layers together, and their room to work in. */
#ifndef EDGELSTM_STEP_H
#define EDGELSTM_STEP_H

#include <string.h>

#include "float_mode.h"
#include "state.h"

typedef struct tile {
    const edgelstm_model *model;
    const edgelstm_state *state;
    const kernel *k;
    uint32_t n;
    int frozen; /* Masked timesteps: states stay as they are. */
    stream *streams[EDGELSTM_TILE];
    float *spare[2][EDGELSTM_TILE], *gates[EDGELSTM_TILE];
    rows a, b;
} tile;

static inline void place_work(tile *t) {
    for (uint32_t i = 0; i < t->n; i++) {
        unsigned char *at = t->state->work + i * t->state->work_size;
        t->spare[0][i] = (float *)(void *)at;
        t->spare[1][i] = t->spare[0][i] + t->model->row;
        t->gates[i] = t->spare[1][i] + t->model->row;
        t->a.q[i].q = t->gates[i] + t->model->gates;
        t->b.q[i].q = (unsigned char *)t->a.q[i].q + 2 * (size_t)t->model->digits;
    }
}

static inline int is_masked(const edgelstm_model *model, const float *x) {
    if (!model->masked) return 0;
    for (uint32_t j = 0; j < model->features; j++) {
        if (order_of(x[j]) != order_of(model->mask_value)) return 0;
    }
    return 1;
}

/* A masked timestep is a row of zeros to the layers before the first recurrent one, as in Keras. */
static inline const float *input_of(const tile *t, uint32_t i, const float *x) {
    if (FLUSHES && !t->frozen) return x;
    for (size_t j = 0; j < t->model->features; j++) t->spare[1][i][j] = t->frozen ? 0.0f : settled(x[j]);
    return t->spare[1][i];
}

static inline int are_finite(const edgelstm_model *model, const float *xs, size_t rows) {
    const kernel *const k = (const kernel *)model->kernel;
    for (size_t i = 0; i < rows; i++) {
        if (!k->is_finite(xs + i * model->features, model->features)) return 0;
    }
    return 1;
}

/* So many layers, from the rows in t->b to the rows in it; what the first of them reads may lie in t->spare[1]. Where
 * not t->frozen, all of the streams' recurrent layers must be among them, for their states go on by one timestep. */
void edgelstm_forward(tile *t, const operation *o, uint32_t count);

#endif
