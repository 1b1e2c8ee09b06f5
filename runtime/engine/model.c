/* Opening a model: every number of the file is checked before anything relies on it. */
#include <string.h>

#include "layers.h"

const char *edgelstm_error_text(int error) {
    switch (error) {
        case EDGELSTM_OK: return "no error";
        case EDGELSTM_NULL: return "an argument is a null pointer";
        case EDGELSTM_MISALIGNED: return "memory must lie on a border of 64 bytes";
        case EDGELSTM_TOO_SMALL: return "the memory given is too small";
        case EDGELSTM_RANGE: return "no such stream, a stream named twice, or a number out of range";
        case EDGELSTM_NOT_A_MODEL: return "not an .elm model";
        case EDGELSTM_TOO_NEW: return "the model is of a later version";
        case EDGELSTM_DAMAGED: return "the model is damaged";
        case EDGELSTM_NOT_FINITE: return "an input is not a finite number";
        case EDGELSTM_FOREIGN: return "the state or snapshot is of another model";
        case EDGELSTM_NO_KERNEL: return "this processor or this build has no kernel for it";
        default: return "unknown error";
    }
}

/* CRC-32 as in zlib, four bits at a time. */
uint32_t edgelstm_crc32(const unsigned char *bytes, size_t size) {
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* Bytes that a layer's section must have, or 0 for a layer that cannot be. */
static uint64_t section_size(const elm_layer *layer) {
    matrix m[2];
    uint64_t size = 0;
    unsigned count;
    switch (layer->kind) {
        case ELM_ACTIVATION: return layer->precision == ELM_FLOAT32 ? 64 : 0;
        case ELM_PRELU: return layer->precision == ELM_FLOAT32 ? 4 * (uint64_t)round_up(layer->units, 16) : 0;
        case ELM_LAYER_NORMALIZATION:
            return layer->precision == ELM_FLOAT32 ? 8 * (uint64_t)round_up(layer->units, 16) : 0;
        case ELM_AFFINE: return layer->precision == ELM_FLOAT32 ? 12 * (uint64_t)round_up(layer->units, 16) : 0;
        default: break;
    }
    if (layer->kind < ELM_LSTM || layer->kind > ELM_DENSE || layer->precision > ELM_INT8) return 0;
    /* The second matrix's place is not looked at, so that no section is needed here. */
    count = matrices_of(layer, (const unsigned char *)layer, m);
    for (unsigned i = 0; i < count; i++) size += matrix_size(&m[i]);
    return (size + 63) / 64 * 64;
}

/* Whether this build can compute such a layer. */
static int is_built(const elm_layer *layer) {
    if (!HAS_FUNCTIONS && (layer->activation.code > ELM_TANH || layer->recurrent_activation.code > ELM_TANH)) return 0;
    if (layer->kind > ELM_DENSE) return 1;
    return layer->precision == ELM_FLOAT32 ? HAS_FLOAT32 : layer->precision == ELM_FLOAT16 ? HAS_FLOAT16 : HAS_INT8;
}

static int check_layer(const elm_layer *layer, const elm_header *header, uint32_t width) {
    const int keeps_width = layer->kind >= ELM_AFFINE;
    if (layer->inputs != width || layer->units == 0 || layer->units > ELM_MAX_WIDTH) return EDGELSTM_DAMAGED;
    if (keeps_width && layer->units != width) return EDGELSTM_DAMAGED;
    if (layer->activation.code >= ELM_FUNCTIONS || layer->recurrent_activation.code >= ELM_FUNCTIONS)
        return EDGELSTM_DAMAGED;
    if (layer->offset % 64 || layer->offset > header->size || layer->size > header->size - layer->offset)
        return EDGELSTM_DAMAGED;
    if (layer->size == 0 || section_size(layer) != layer->size) return EDGELSTM_DAMAGED;
    return is_built(layer) ? EDGELSTM_OK : EDGELSTM_NO_KERNEL;
}

int edgelstm_open(edgelstm_model *model, const void *file, size_t size) {
    elm_header header;
    edgelstm_model opened;
    uint32_t width;
    if (model == NULL || file == NULL) return EDGELSTM_NULL;
    memset(model, 0, sizeof *model);
    if (size < sizeof header) return EDGELSTM_NOT_A_MODEL;
    memcpy(&header, file, sizeof header);
    if (memcmp(header.magic, ELM_MAGIC, sizeof header.magic) != 0) return EDGELSTM_NOT_A_MODEL;
    if (header.version > ELM_VERSION) return EDGELSTM_TOO_NEW;
    if ((uintptr_t)file % EDGELSTM_ALIGNMENT) return EDGELSTM_MISALIGNED;
    if (header.version != ELM_VERSION || header.size != size) return EDGELSTM_DAMAGED;
    if (edgelstm_crc32((const unsigned char *)file + 16, size - 16) != header.checksum) return EDGELSTM_DAMAGED;
    if (header.layers > ELM_MAX_LAYERS || (header.size - sizeof header) / sizeof(elm_layer) < header.layers)
        return EDGELSTM_DAMAGED;
    if (header.features == 0 || header.features > ELM_MAX_WIDTH) return EDGELSTM_DAMAGED;
    if (header.metadata > header.size || header.metadata_size > header.size - header.metadata) return EDGELSTM_DAMAGED;
    memset(&opened, 0, sizeof opened);
    opened.file = (const unsigned char *)file;
    opened.kernel = edgelstm_find_kernel(NULL);
    opened.features = width = header.features;
    opened.row = round_up(width, 16);
    for (uint32_t i = 0; i < header.layers; i++) {
        const elm_layer *layer = layer_of(&opened, i);
        const int error = check_layer(layer, &header, width);
        if (error) return error;
        const uint32_t row = round_up(layer->units, 16);
        if (layer->precision == ELM_INT8)
            opened.digits = larger(opened.digits, larger(round_up(layer->inputs, 32), round_up(layer->units, 32)));
        if (layer->kind == ELM_LSTM) opened.gates = larger(opened.gates, 4 * row);
        else if (is_recurrent(layer)) opened.gates = larger(opened.gates, 6 * row);
        if (is_recurrent(layer)) opened.state_floats += state_floats(layer);
        opened.row = larger(opened.row, row);
        width = layer->units;
    }
    if (header.outputs != width) return EDGELSTM_DAMAGED;
    opened.outputs = width;
    opened.layers = header.layers;
    opened.masked = header.masked != 0;
    opened.mask_value = header.mask_value;
    opened.checksum = header.checksum;
    *model = opened;
    return EDGELSTM_OK;
}

size_t edgelstm_features(const edgelstm_model *model) { return model == NULL ? 0 : model->features; }

size_t edgelstm_outputs(const edgelstm_model *model) { return model == NULL ? 0 : model->outputs; }

int edgelstm_use_kernel(edgelstm_model *model, const char *name) {
    const kernel *found = edgelstm_find_kernel(name);
    if (model == NULL) return EDGELSTM_NULL;
    if (found == NULL) return EDGELSTM_NO_KERNEL;
    model->kernel = found;
    return EDGELSTM_OK;
}

const char *edgelstm_kernel(const edgelstm_model *model) {
    return model == NULL || model->kernel == NULL ? "" : ((const kernel *)model->kernel)->name;
}
