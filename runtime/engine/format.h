/* The file as it lies in memory: see FORMAT.md. Everything is little-endian, and so are all machines that this runs
 * on; edgelstm_open refuses a file elsewhere by its version field. */
#ifndef EDGELSTM_FORMAT_H
#define EDGELSTM_FORMAT_H

#include "edgelstm.h"

#define ELM_MAGIC "EDGELSTM"
#define ELM_VERSION 1u
#define ELM_MAX_LAYERS 1024u
#define ELM_MAX_WIDTH 65536u

typedef struct elm_header {
    char magic[8];
    uint32_t version, checksum, size, layers, features, outputs, metadata, metadata_size;
    uint32_t masked;
    float mask_value;
    uint32_t reserved[4];
} elm_header;

enum { ELM_LSTM = 1, ELM_GRU, ELM_GRU_RESET_BEFORE, ELM_SIMPLE_RNN, ELM_DENSE, ELM_AFFINE, ELM_LAYER_NORMALIZATION,
       ELM_ACTIVATION, ELM_PRELU };
enum { ELM_FLOAT32 = 0, ELM_FLOAT16, ELM_INT8 };

enum { ELM_LINEAR = 0, ELM_SIGMOID, ELM_TANH, ELM_RELU, ELM_ELU, ELM_SELU, ELM_CELU, ELM_SOFTPLUS, ELM_SOFTSIGN,
       ELM_EXPONENTIAL, ELM_SILU, ELM_MISH, ELM_GELU, ELM_HARD_SIGMOID, ELM_HARD_SIGMOID_KERAS2, ELM_HARD_SILU,
       ELM_HARD_TANH, ELM_TANH_SHRINK, ELM_LOG_SIGMOID, ELM_SPARSE_PLUS, ELM_SPARSE_SIGMOID, ELM_SOFTMAX,
       ELM_LOG_SOFTMAX, ELM_HARD_SHRINK, ELM_SOFT_SHRINK, ELM_SQUAREPLUS, ELM_THRESHOLD, ELM_FUNCTIONS };

typedef struct elm_function {
    uint32_t code;
    float parameters[3];
} elm_function;

typedef struct elm_layer {
    uint32_t kind, inputs, units, precision;
    elm_function activation, recurrent_activation;
    float epsilon;
    uint32_t offset, size, reserved;
} elm_layer;

/* The weights of some gates of all units, for one or two rows of inputs: `a`, then `b`. They lie in blocks of 16
 * units, the last of 16 or 8; a block has its biases, in int8 its scales for a and for b, and then its weights. */
typedef struct matrix {
    const unsigned char *data;
    size_t block; /* Bytes of a block of 16 units. */
    uint32_t gates, units, a, b, precision;
} matrix;

static inline uint32_t round_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

/* Units of the block that starts at `unit`. */
static inline uint32_t block_lanes(uint32_t units, uint32_t unit) { return units - unit > 8 ? 16 : 8; }

/* Bytes of the weights of one row in a block of so many lanes; in int8 a row of `inputs` is rounded up to fours. */
static inline uint64_t rows_size(uint32_t precision, uint64_t lanes, uint64_t gates, uint32_t inputs) {
    if (precision == ELM_INT8) return lanes * gates * round_up(inputs, 4);
    return lanes * gates * inputs * (precision == ELM_FLOAT16 ? 2 : 4);
}

static inline uint64_t block_size(const matrix *m, uint64_t lanes) {
    const uint64_t floats = lanes * m->gates * (m->precision == ELM_INT8 ? 3 : 1);
    return 4 * floats + rows_size(m->precision, lanes, m->gates, m->a) + rows_size(m->precision, lanes, m->gates, m->b);
}

static inline uint64_t matrix_size(const matrix *m) {
    const uint32_t tail = m->units % 16;
    uint64_t size = (m->units / 16) * block_size(m, 16);
    if (tail) size += block_size(m, tail > 8 ? 16 : 8);
    return size;
}

#endif
