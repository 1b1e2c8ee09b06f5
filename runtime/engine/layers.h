/* How layers lie in a model's file. */
#ifndef EDGELSTM_LAYERS_H
#define EDGELSTM_LAYERS_H

#include "kernel.h"

static inline const elm_layer *layer_of(const edgelstm_model *model, uint32_t i) {
    return (const elm_layer *)(const void *)(model->file + sizeof(elm_header)) + i;
}

static inline int is_recurrent(const elm_layer *layer) { return layer->kind <= ELM_SIMPLE_RNN; }

/* Floats of an LSTM's or another's state: h twice, because the new one is written while the old is read, and c. */
static inline uint64_t state_floats(const elm_layer *layer) {
    return (layer->kind == ELM_LSTM ? 3u : 2u) * (uint64_t)round_up(layer->units, 16);
}

/* The matrices of a layer, 0 to 2 of them, in the order in which they lie in its section. */
static inline unsigned matrices_of(const elm_layer *layer, const unsigned char *section, matrix *m) {
    const uint32_t gates = layer->kind == ELM_LSTM ? 4 : layer->kind == ELM_GRU ? 3 : 1;
    unsigned count = 1;
    m[0].data = section;
    m[0].gates = gates;
    m[0].units = layer->units;
    m[0].a = layer->kind == ELM_DENSE ? 0 : layer->units;
    m[0].b = layer->inputs;
    m[0].precision = layer->precision;
    m[1] = m[0];
    switch (layer->kind) {
        case ELM_LSTM:
        case ELM_SIMPLE_RNN:
        case ELM_DENSE: break;
        case ELM_GRU: /* The candidate's parts from h and from x are needed apart. */
            m[0].b = 0;
            m[1].a = 0;
            count = 2;
            break;
        case ELM_GRU_RESET_BEFORE: /* The gates z and r first; the candidate takes r · h. */
            m[0].gates = 2;
            count = 2;
            break;
        default: return 0;
    }
    for (unsigned i = 0; i < count; i++) m[i].block = (size_t)block_size(&m[i], 16);
    if (count == 2) m[1].data = section + matrix_size(&m[0]);
    return count;
}

#endif
