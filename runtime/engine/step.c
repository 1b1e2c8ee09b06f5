/* A timestep: the layers one after another, each for all streams of a tile. */
#include "step.h"

#include <math.h>

static void quantize(const tile *t, const matrix *m, rows *r, uint32_t width) {
    if (m->precision != ELM_INT8) return;
    for (uint32_t i = 0; i < t->n; i++) t->k->quantize(r->row[i], width, &r->q[i]);
}

static void activate(const tile *t, const elm_function *f, float *const *x, size_t offset, size_t n) {
    if (f->code == ELM_LINEAR) return;
    for (uint32_t i = 0; i < t->n; i++) edgelstm_activate(t->k, f, x[i] + offset, n);
}

static void lstm(tile *t, const elm_layer *layer, const matrix *m, float *const *c, float *const *h) {
    const size_t n = layer->units, row = round_up(layer->units, 16);
    float *copy[EDGELSTM_TILE];
    if (layer->activation.code == ELM_TANH && layer->recurrent_activation.code == ELM_SIGMOID) {
        t->k->lstm(m, t->n, &t->a, &t->b, c, h);
        return;
    }
    t->k->product(m, t->n, &t->a, &t->b, t->gates, row);
    activate(t, &layer->recurrent_activation, t->gates, 0, n);
    activate(t, &layer->recurrent_activation, t->gates, row, n);
    activate(t, &layer->activation, t->gates, 2 * row, n);
    activate(t, &layer->recurrent_activation, t->gates, 3 * row, n);
    for (uint32_t s = 0; s < t->n; s++) {
        const float *i = t->gates[s], *f = i + row, *g = f + row;
        for (size_t j = 0; j < n; j++) h[s][j] = c[s][j] = times(f[j], c[s][j]) + times(i[j], g[j]);
        copy[s] = h[s];
    }
    activate(t, &layer->activation, copy, 0, n);
    for (uint32_t s = 0; s < t->n; s++) {
        const float *o = t->gates[s] + 3 * row;
        for (size_t j = 0; j < n; j++) h[s][j] = times(h[s][j], o[j]);
    }
}

static void gru(tile *t, const elm_layer *layer, const matrix *m, float *const *h) {
    const size_t n = layer->units, row = round_up(layer->units, 16);
    float *from_x[EDGELSTM_TILE], *candidate[EDGELSTM_TILE];
    if (layer->kind == ELM_GRU) { /* z, r and the candidate from h; then the same from x. */
        t->k->product(&m[0], t->n, &t->a, &t->b, t->gates, row);
        for (uint32_t s = 0; s < t->n; s++) from_x[s] = t->gates[s] + 3 * row;
        t->k->product(&m[1], t->n, &t->a, &t->b, from_x, row);
        for (uint32_t s = 0; s < t->n; s++) {
            for (size_t j = 0; j < 2 * row; j++) t->gates[s][j] += from_x[s][j];
        }
    } else {
        t->k->product(&m[0], t->n, &t->a, &t->b, t->gates, row);
    }
    activate(t, &layer->recurrent_activation, t->gates, 0, n);
    activate(t, &layer->recurrent_activation, t->gates, row, n);
    for (uint32_t s = 0; s < t->n; s++) candidate[s] = t->gates[s] + 2 * row;
    if (layer->kind == ELM_GRU) {
        for (uint32_t s = 0; s < t->n; s++) {
            const float *r = t->gates[s] + row, *x = from_x[s] + 2 * row;
            for (size_t j = 0; j < n; j++) candidate[s][j] = x[j] + times(r[j], candidate[s][j]);
        }
    } else {
        const float *last[EDGELSTM_TILE] = {NULL};
        for (uint32_t s = 0; s < t->n; s++) {
            float *reset = t->gates[s] + 3 * row;
            const float *r = t->gates[s] + row;
            last[s] = t->a.row[s];
            for (size_t j = 0; j < n; j++) reset[j] = times(r[j], last[s][j]);
            t->a.row[s] = reset;
        }
        quantize(t, &m[1], &t->a, layer->units);
        t->k->product(&m[1], t->n, &t->a, &t->b, candidate, row);
        for (uint32_t s = 0; s < t->n; s++) t->a.row[s] = last[s];
    }
    activate(t, &layer->activation, candidate, 0, n);
    for (uint32_t s = 0; s < t->n; s++) t->k->gru(n, t->gates[s], candidate[s], t->a.row[s], h[s]);
}

/* A layer with a state. Its answer is its new h. */
static void recurrent(tile *t, const operation *o) {
    const elm_layer *layer = o->layer;
    const size_t row = round_up(layer->units, 16);
    float *h[EDGELSTM_TILE], *c[EDGELSTM_TILE];
    for (uint32_t i = 0; i < t->n; i++) {
        float *kept = (float *)(void *)(t->streams[i] + 1) + o->floats;
        t->a.row[i] = kept + t->streams[i]->newest * row;
        h[i] = kept + (1 - t->streams[i]->newest) * row;
        c[i] = kept + 2 * row;
    }
    if (!t->frozen) {
        quantize(t, o->m, &t->a, layer->units);
        quantize(t, o->m, &t->b, layer->inputs);
        if (layer->kind == ELM_LSTM) {
            lstm(t, layer, o->m, c, h);
        } else if (layer->kind == ELM_SIMPLE_RNN) {
            t->k->product(o->m, t->n, &t->a, &t->b, h, row);
            activate(t, &layer->activation, h, 0, layer->units);
        } else {
            gru(t, layer, o->m, h);
        }
    }
    for (uint32_t i = 0; i < t->n; i++) t->b.row[i] = t->frozen ? t->a.row[i] : h[i];
}

/* For an epsilon beside which squares count that would be taken for zero. */
static float raise_small(float *x, size_t n, float epsilon) {
    for (size_t j = 0; j < n; j++) {
        if (!IS_SMALL(fabsf(x[j]), epsilon)) return epsilon;
    }
    for (size_t j = 0; j < n; j++) x[j] *= RAISING;
    return raised_square(epsilon);
}

static void normalize(const elm_layer *layer, const float *gamma, const float *x, float *y) {
    const float *beta = gamma + round_up(layer->units, 16);
    const size_t n = layer->units;
    float mean = 0.0f, variance = 0.0f;
    for (size_t j = 0; j < n; j++) mean += x[j];
    mean = quotient(mean, (float)n);
    for (size_t j = 0; j < n; j++) y[j] = x[j] - mean;
    const float epsilon = raise_small(y, n, layer->epsilon);
    for (size_t j = 0; j < n; j++) variance += times(y[j], y[j]);
    const float scale = 1.0f / sqrtf(quotient(variance, (float)n) + epsilon);
    for (size_t j = 0; j < n; j++) y[j] = times(times(y[j], scale), gamma[j]) + beta[j];
}

/* A layer without a state: from t->b to `out`, which is then the next layer's t->b. */
static void stateless(tile *t, const operation *o, float *const *out) {
    const elm_layer *layer = o->layer;
    const float *weights = o->vectors;
    const size_t n = layer->units, row = round_up(layer->units, 16);
    switch (layer->kind) {
        case ELM_DENSE:
            quantize(t, o->m, &t->b, layer->inputs);
            t->k->product(o->m, t->n, &t->a, &t->b, out, row);
            break;
        case ELM_AFFINE: /* center, scale, offset */
            for (uint32_t i = 0; i < t->n; i++) {
                for (size_t j = 0; j < n; j++)
                    out[i][j] = times(t->b.row[i][j] - weights[j], weights[row + j]) + weights[2 * row + j];
            }
            break;
        case ELM_LAYER_NORMALIZATION:
            for (uint32_t i = 0; i < t->n; i++) normalize(layer, weights, t->b.row[i], out[i]);
            break;
        case ELM_PRELU:
            for (uint32_t i = 0; i < t->n; i++) {
                for (size_t j = 0; j < n; j++) {
                    const float x = t->b.row[i][j];
                    out[i][j] = x < 0 ? times(weights[j], x) : x;
                }
            }
            break;
        default:
            for (uint32_t i = 0; i < t->n; i++) memcpy(out[i], t->b.row[i], 4 * n);
    }
    activate(t, &layer->activation, out, 0, n);
    for (uint32_t i = 0; i < t->n; i++) t->b.row[i] = out[i];
}

void edgelstm_forward(tile *t, const operation *o, uint32_t count) {
    unsigned turn = 0;
    for (; count; count--, o++) {
        if (is_recurrent(o->layer)) {
            recurrent(t, o);
        } else {
            stateless(t, o, t->spare[turn]);
            turn ^= 1;
        }
    }
    if (!t->frozen) {
        for (uint32_t i = 0; i < t->n; i++) t->streams[i]->newest ^= 1;
    }
}

/* Stream 0, on inputs that are finite, in our mode. */
static void step_one(const edgelstm_model *model, const edgelstm_state *state, const float *x, float *y) {
    tile t;
    t.k = (const kernel *)model->kernel;
    t.model = model;
    t.state = state;
    t.n = 1;
    t.frozen = is_masked(model, x);
    t.streams[0] = stream_of(state, 0);
    place_work(&t);
    t.b.row[0] = input_of(&t, 0, x);
    edgelstm_forward(&t, state->plan, state->operations);
    memcpy(y, t.b.row[0], 4 * (size_t)model->outputs);
}

int edgelstm_step(const edgelstm_model *model, edgelstm_state *state, const float *x, float *y) {
    const int error = check_state(model, state);
    if (error) return error;
    if (x == NULL || y == NULL) return EDGELSTM_NULL;
    float_mode callers;
    enter_float_mode(&callers);
    const int finite = are_finite(model, x, 1);
    if (finite) step_one(model, state, x, y);
    leave_float_mode(&callers);
    return finite ? EDGELSTM_OK : EDGELSTM_NOT_FINITE;
}

int edgelstm_run(const edgelstm_model *model, edgelstm_state *state, const float *xs, size_t timesteps, float *ys) {
    const int error = check_state(model, state);
    if (error) return error;
    if (timesteps == 0) return EDGELSTM_OK;
    if (xs == NULL || ys == NULL) return EDGELSTM_NULL;
    float_mode callers;
    enter_float_mode(&callers);
    const int finite = are_finite(model, xs, timesteps);
    for (size_t t = 0; finite && t < timesteps; t++)
        step_one(model, state, xs + t * model->features, ys + t * model->outputs);
    leave_float_mode(&callers);
    return finite ? EDGELSTM_OK : EDGELSTM_NOT_FINITE;
}

/* Each number of a list once, and each a stream's; the marks are gone afterwards. */
static int check_streams(const edgelstm_state *state, const size_t *streams, size_t count) {
    size_t marked = 0;
    if (count > state->streams) return EDGELSTM_RANGE;
    if (streams == NULL) return EDGELSTM_OK;
    for (; marked < count; marked++) {
        if (streams[marked] >= state->streams || stream_of(state, streams[marked])->named) break;
        stream_of(state, streams[marked])->named = 1;
    }
    for (size_t i = 0; i < marked; i++) stream_of(state, streams[i])->named = 0;
    return marked == count ? EDGELSTM_OK : EDGELSTM_RANGE;
}

/* The streams of a list that was checked, on inputs that are finite, in our mode. */
static void step_fleet(const edgelstm_model *model, const edgelstm_state *state, const size_t *streams, size_t count,
                       const float *xs, float *ys) {
    tile t;
    size_t rows_of[EDGELSTM_TILE] = {0};
    t.model = model;
    t.state = state;
    t.k = (const kernel *)model->kernel;
    /* First the streams that go on, then those whose timestep is masked. */
    for (t.frozen = 0; t.frozen <= (model->masked ? 1 : 0); t.frozen++) {
        size_t i = 0;
        while (i < count) {
            for (t.n = 0; i < count && t.n < state->tile; i++) {
                if (is_masked(model, xs + i * model->features) == t.frozen) rows_of[t.n++] = i;
            }
            place_work(&t);
            for (uint32_t j = 0; j < t.n; j++) {
                t.streams[j] = stream_of(state, streams == NULL ? rows_of[j] : streams[rows_of[j]]);
                t.b.row[j] = input_of(&t, j, xs + rows_of[j] * model->features);
            }
            if (t.n) edgelstm_forward(&t, state->plan, state->operations);
            for (uint32_t j = 0; j < t.n; j++)
                memcpy(ys + rows_of[j] * model->outputs, t.b.row[j], 4 * (size_t)model->outputs);
        }
    }
}

int edgelstm_fleet_step(const edgelstm_model *model, edgelstm_state *state, const size_t *streams, size_t count,
                        const float *xs, float *ys) {
    int error = check_state(model, state);
    if (error) return error;
    if (count == 0) return EDGELSTM_OK;
    if (xs == NULL || ys == NULL) return EDGELSTM_NULL;
    error = check_streams(state, streams, count);
    if (error) return error;
    float_mode callers;
    enter_float_mode(&callers);
    const int finite = are_finite(model, xs, count);
    if (finite) step_fleet(model, state, streams, count, xs, ys);
    leave_float_mode(&callers);
    return finite ? EDGELSTM_OK : EDGELSTM_NOT_FINITE;
}
