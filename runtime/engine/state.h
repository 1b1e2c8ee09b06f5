/* A state's memory: this header, the streams, and room to work in for as many of them as go through a layer at once. */
#ifndef EDGELSTM_STATE_H
#define EDGELSTM_STATE_H

#include "layers.h"

#define STATE_MAGIC 0x454c5354u

struct edgelstm_state {
    uint32_t magic, checksum, tile, digits;
    uint64_t streams, stream_size;
    unsigned char *first, *work;
};

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

/* EDGELSTM_OK where `state` is one of this model's. */
static inline int check_state(const edgelstm_model *model, const edgelstm_state *state) {
    if (model == NULL || state == NULL || model->kernel == NULL) return EDGELSTM_NULL;
    return state->magic == STATE_MAGIC && state->checksum == model->checksum ? EDGELSTM_OK : EDGELSTM_FOREIGN;
}

uint32_t edgelstm_crc32(const unsigned char *bytes, size_t size);

#endif
