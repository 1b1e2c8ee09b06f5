/* States: their memory, their start, and their snapshots. */
#include "state.h"

#include <string.h>

#define SNAPSHOT_MAGIC 0x53534c45u /* "ELSS" */

static uint64_t plan_size(const edgelstm_model *model) {
    return (model->layers * sizeof(operation) + EDGELSTM_ALIGNMENT - 1) / EDGELSTM_ALIGNMENT * EDGELSTM_ALIGNMENT;
}

size_t edgelstm_state_size(const edgelstm_model *model, size_t streams) {
    if (model == NULL || model->kernel == NULL || streams == 0) return 0;
    const uint64_t tile = streams < EDGELSTM_TILE ? streams : EDGELSTM_TILE, each = sizeof(stream) + 4 * model->state_floats;
    const uint64_t rest = STATE_HEADER + plan_size(model) + tile * work_size(model);
    if (streams > ((uint64_t)SIZE_MAX - rest) / each) return 0;
    return (size_t)(rest + streams * each);
}

static void make_plan(const edgelstm_model *model, edgelstm_state *state) {
    uint64_t floats = 0;
    for (uint32_t i = 0; i < model->layers; i++) {
        operation *o = &state->plan[i];
        o->layer = layer_of(model, i);
        o->vectors = (const float *)(const void *)(model->file + o->layer->offset);
        o->floats = floats;
        matrices_of(o->layer, model->file + o->layer->offset, o->m);
        if (is_recurrent(o->layer)) floats += state_floats(o->layer);
    }
    state->file = model->file;
}

int edgelstm_adopt(const edgelstm_model *model, edgelstm_state *state) {
    if (state->magic != STATE_MAGIC || state->checksum != model->checksum || state->operations != model->layers ||
        state->stream_size != sizeof(stream) + 4 * model->state_floats || state->work_size != work_size(model))
        return EDGELSTM_FOREIGN;
    make_plan(model, state);
    return EDGELSTM_OK;
}

int edgelstm_init(const edgelstm_model *model, void *memory, size_t size, size_t streams, edgelstm_state **state) {
    if (model == NULL || memory == NULL || state == NULL || model->kernel == NULL) return EDGELSTM_NULL;
    *state = NULL;
    if ((uintptr_t)memory % EDGELSTM_ALIGNMENT) return EDGELSTM_MISALIGNED;
    const size_t needed = edgelstm_state_size(model, streams);
    if (needed == 0) return EDGELSTM_RANGE;
    if (size < needed) return EDGELSTM_TOO_SMALL;
    memset(memory, 0, needed);
    edgelstm_state *made = (edgelstm_state *)memory;
    made->magic = STATE_MAGIC;
    made->checksum = model->checksum;
    made->tile = streams < EDGELSTM_TILE ? (uint32_t)streams : EDGELSTM_TILE;
    made->operations = model->layers;
    made->streams = streams;
    made->stream_size = sizeof(stream) + 4 * model->state_floats;
    made->work_size = work_size(model);
    made->plan = (operation *)(void *)((unsigned char *)memory + STATE_HEADER);
    made->first = (unsigned char *)memory + STATE_HEADER + plan_size(model);
    made->work = made->first + streams * made->stream_size;
    make_plan(model, made);
    *state = made;
    return EDGELSTM_OK;
}

int edgelstm_reset(const edgelstm_model *model, edgelstm_state *state, size_t i) {
    const int error = check_state(model, state);
    if (error) return error;
    if (i >= state->streams) return EDGELSTM_RANGE;
    memset(stream_of(state, i), 0, (size_t)state->stream_size);
    return EDGELSTM_OK;
}

size_t edgelstm_snapshot_size(const edgelstm_model *model) {
    if (model == NULL || model->kernel == NULL) return 0;
    size_t floats = 0;
    for (uint32_t i = 0; i < model->layers; i++) {
        const elm_layer *layer = layer_of(model, i);
        if (is_recurrent(layer)) floats += (size_t)layer->units * (layer->kind == ELM_LSTM ? 2 : 1);
    }
    return 12 + 4 * floats;
}

void edgelstm_copy_state(const edgelstm_model *model, stream *s, unsigned char *at, int restore) {
    float *kept = (float *)(void *)(s + 1);
    for (uint32_t i = 0; i < model->layers; i++) {
        const elm_layer *layer = layer_of(model, i);
        if (!is_recurrent(layer)) continue;
        const size_t row = round_up(layer->units, 16), bytes = 4 * (size_t)layer->units;
        for (unsigned part = 0; part < (layer->kind == ELM_LSTM ? 2u : 1u); part++, at += bytes) {
            float *values = part ? kept + 2 * row : kept + s->newest * row;
            if (restore) memcpy(values, at, bytes);
            else memcpy(at, values, bytes);
        }
        kept += state_floats(layer);
    }
}

/* A snapshot: magic, the model's checksum, the state, and a CRC-32 of it all. */
int edgelstm_snapshot(const edgelstm_model *model, edgelstm_state *state, size_t i, void *snapshot, size_t size) {
    const int error = check_state(model, state);
    if (error) return error;
    if (snapshot == NULL) return EDGELSTM_NULL;
    if (i >= state->streams) return EDGELSTM_RANGE;
    const size_t needed = edgelstm_snapshot_size(model);
    if (size < needed) return EDGELSTM_TOO_SMALL;
    unsigned char *bytes = (unsigned char *)snapshot;
    const uint32_t head[2] = {SNAPSHOT_MAGIC, model->checksum};
    memcpy(bytes, head, sizeof head);
    edgelstm_copy_state(model, stream_of(state, i), bytes + sizeof head, 0);
    const uint32_t checksum = edgelstm_crc32(bytes, needed - 4);
    memcpy(bytes + needed - 4, &checksum, 4);
    return EDGELSTM_OK;
}

int edgelstm_restore(const edgelstm_model *model, edgelstm_state *state, size_t i, const void *snapshot, size_t size) {
    const int error = check_state(model, state);
    if (error) return error;
    if (snapshot == NULL) return EDGELSTM_NULL;
    if (i >= state->streams) return EDGELSTM_RANGE;
    if (size != edgelstm_snapshot_size(model)) return EDGELSTM_FOREIGN;
    unsigned char *bytes = (unsigned char *)(uintptr_t)snapshot; /* Only read: edgelstm_copy_state goes both ways. */
    uint32_t head[2], checksum;
    memcpy(head, bytes, sizeof head);
    memcpy(&checksum, bytes + size - 4, 4);
    if (head[0] != SNAPSHOT_MAGIC || head[1] != model->checksum) return EDGELSTM_FOREIGN;
    if (checksum != edgelstm_crc32(bytes, size - 4)) return EDGELSTM_DAMAGED;
    edgelstm_copy_state(model, stream_of(state, i), bytes + sizeof head, 1);
    return EDGELSTM_OK;
}
