/* Keras's activation functions. The formulas are those of keras.activations, but for hard_sigmoid_keras2, which is what
 * Keras 2 computed under the name of hard_sigmoid. */
#include <math.h>

#include "float_mode.h"
#include "kernel.h"

#if HAS_FUNCTIONS
static float clip(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

/* exp(-76) is 1e-33. */
static float exponential(float x) { return !FLUSHES && x < -76.0f ? 0.0f : expf(x); }

static float sigmoid(float x) { return quotient(1.0f, 1.0f + expf(-x)); }

static float softplus(float x) { return (x > 0 ? x : 0.0f) + log1pf(exponential(x > 0 ? -x : x)); }

/* Where x / alpha is taken for zero, the function is x. */
static float celu(float x, float alpha) {
    const float ratio = x >= 0 ? 0.0f : quotient(x, alpha);
    return ratio == 0.0f ? x : times(alpha, expm1f(ratio));
}

static float squareplus(float x, float b) {
    if (!IS_SMALL(fabsf(x), b)) return 0.5f * (x + sqrtf(times(x, x) + b));
    const float raised = x * RAISING;
    return quotient(raised + sqrtf(times(raised, raised) + raised_square(b)), 2.0f * RAISING);
}

/* Keras's general ReLU: x above the threshold, capped, and a line of slope p[0] below it. Without a maximum, p[1] is
 * the largest float there is. */
static float relu(float x, const float *p) {
    float y = x > p[2] ? x : times(0.0f, x);
    if (p[1] < 3.4028234e38f) y = clip(y, 0.0f, p[1]);
    return y - times(p[0], p[2] > x ? p[2] - x : 0.0f);
}

static float gelu(float x, float approximate) {
    if (approximate != 0.0f) return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + times(times(0.044715f * x, x), x))));
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

static float value_of(uint32_t code, const float *p, float x) {
    switch (code) {
        case ELM_RELU: return relu(x, p);
        case ELM_ELU: return x > 0 ? x : times(p[0], expm1f(x));
        case ELM_SELU: return 1.05070099f * (x > 0 ? x : 1.67326324f * expm1f(x));
        case ELM_CELU: return celu(x, p[0]);
        case ELM_SOFTPLUS: return softplus(x);
        case ELM_SOFTSIGN: return x / (1.0f + fabsf(x));
        case ELM_EXPONENTIAL: return exponential(x);
        case ELM_SILU: return times(x, sigmoid(x));
        case ELM_MISH: return times(x, tanhf(softplus(x)));
        case ELM_GELU: return gelu(x, p[0]);
        case ELM_HARD_SIGMOID: return clip(x / 6.0f + 0.5f, 0.0f, 1.0f);
        case ELM_HARD_SIGMOID_KERAS2: return clip(0.2f * x + 0.5f, 0.0f, 1.0f);
        case ELM_HARD_SILU: return x * clip(x / 6.0f + 0.5f, 0.0f, 1.0f);
        case ELM_HARD_TANH: return clip(x, -1.0f, 1.0f);
        case ELM_TANH_SHRINK: return x - tanhf(x);
        case ELM_LOG_SIGMOID: return -softplus(-x);
        case ELM_SPARSE_PLUS: return x <= -1.0f ? 0.0f : x < 1.0f ? 0.25f * (x + 1.0f) * (x + 1.0f) : x;
        case ELM_SPARSE_SIGMOID: return clip(0.5f * (x + 1.0f), 0.0f, 1.0f);
        case ELM_HARD_SHRINK: return fabsf(x) <= p[0] ? 0.0f : x;
        case ELM_SOFT_SHRINK: return x > p[0] ? x - p[0] : x < -p[0] ? x + p[0] : 0.0f * x;
        case ELM_SQUAREPLUS: return squareplus(x, p[0]);
        case ELM_THRESHOLD: return order_of(x) <= order_of(p[0]) ? p[1] : x; /* Which jumps. */
        default: return x;
    }
}

static void softmax(float *x, size_t n, int logarithm) {
    float largest = x[0], sum = 0.0f;
    for (size_t i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    for (size_t i = 0; i < n; i++) sum += exponential(x[i] - largest);
    for (size_t i = 0; i < n; i++) {
        const float shifted = x[i] - largest;
        x[i] = logarithm ? shifted - logf(sum) : quotient(exponential(shifted), sum);
    }
}

#endif

void edgelstm_activate(const kernel *k, const elm_function *function, float *x, size_t n) {
    switch (function->code) {
        case ELM_LINEAR: return;
        case ELM_SIGMOID: k->sigmoid(x, n); return;
        case ELM_TANH: k->tanh(x, n); return;
#if HAS_FUNCTIONS
        case ELM_SOFTMAX: softmax(x, n, 0); return;
        case ELM_LOG_SOFTMAX: softmax(x, n, 1); return;
        default:
            for (size_t i = 0; i < n; i++) x[i] = value_of(function->code, function->parameters, x[i]);
#else
        default: return; /* edgelstm_open refuses a model that would come here. */
#endif
    }
}
