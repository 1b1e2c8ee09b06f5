/* A state's memory: this header, the plan, the streams, and room to work in for as many of them as go through a layer
 * at once. */
#ifndef EDGELSTM_STATE_H
#define EDGELSTM_STATE_H

#include "layers.h"

#define STATE_MAGIC 0x454c5354u

/* What a step needs of a layer, worked out once. */
typedef struct operation {
    const elm_layer *layer;
    const float *vectors; /* The section, for layers without a matrix. */
    uint64_t floats;      /* Where the layer's state lies in every stream. */
    matrix m[2];
} operation;

struct edgelstm_state {
    const unsigned char *file; /* That the plan is for. */
    uint32_t magic, checksum, tile, operations;
    uint64_t streams, stream_size, work_size;
    operation *plan;
    unsigned char *first, *work;
};

#define STATE_HEADER 128 /* Bytes; it takes fewer on machines of 32 bits. */
typedef char state_header_fits[sizeof(edgelstm_state) <= STATE_HEADER ? 1 : -1];

/* One stream: this, and then for every recurrent layer h, h and c. */
typedef struct stream {
    uint32_t newest; /* Which of both h is the last one written. */
    uint32_t named;  /* Used while a fleet's list of streams is checked. */
    uint32_t reserved[14];
} stream;

static inline stream *stream_of(const edgelstm_state *state, size_t i) {
    return (stream *)(void *)(state->first + i * state->stream_size);
}

/* Room for one stream to work in: two rows, the gates, and the integers of two rows. */
static inline uint64_t work_size(const edgelstm_model *model) {
    return 8 * (uint64_t)model->row + 4 * (uint64_t)model->gates + 4 * (uint64_t)model->digits;
}

/* Whether `state` is one of this model's; where the model was opened from bytes elsewhere, it is made to fit them. */
int edgelstm_adopt(const edgelstm_model *model, edgelstm_state *state);

/* To or from the bytes at `at`: h and c of every layer, without the room between. */
void edgelstm_copy_state(const edgelstm_model *model, stream *s, unsigned char *at, int restore);

/* EDGELSTM_OK where `state` is one of this model's. */
static inline int check_state(const edgelstm_model *model, edgelstm_state *state) {
    if (model == NULL || state == NULL || model->kernel == NULL) return EDGELSTM_NULL;
    if (state->magic == STATE_MAGIC && state->file == model->file && state->checksum == model->checksum)
        return EDGELSTM_OK;
    return edgelstm_adopt(model, state);
}

uint32_t edgelstm_crc32(const unsigned char *bytes, size_t size);

#endif
