/* Inputs to integers, for kernels without instructions of their own for it. */
#ifndef EDGELSTM_QUANTIZE_H
#define EDGELSTM_QUANTIZE_H

#include "float_mode.h"
#include "kernel.h"

#define QUANTIZED_LARGEST 32512.0f /* 127 · 256: both digits fit int8 */
#define ROUNDING 12582912.0f       /* 1.5 · 2^23: a float plus this has the float's rounded value in its low bits */

/* What one unit of q stands for, and its inverse. A NaN or an infinity makes it NaN, so that none is lost. */
static inline float quantized_unit(const float *x, uint32_t n, float *inverse) {
    float largest = 0.0f, probe = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        const float size = x[i] < 0 ? -x[i] : x[i];
        largest = size > largest ? size : largest;
        probe += 0.0f * x[i];
    }
    if (!(largest > 1e-30f)) largest = 1e-30f; /* Its inverse is finite, and nothing so small counts. */
    *inverse = QUANTIZED_LARGEST / largest;
    return largest / QUANTIZED_LARGEST + probe;
}

static inline int32_t quantized_value(float x, float inverse) {
    float scaled = x * inverse;
    scaled = scaled > QUANTIZED_LARGEST ? QUANTIZED_LARGEST : scaled;
    scaled = scaled < -QUANTIZED_LARGEST ? -QUANTIZED_LARGEST : scaled;
    return (int16_t)(uint16_t)float_bits(scaled + ROUNDING);
}

static inline void quantize_int16(const float *x, uint32_t n, quantized *out) {
    int16_t *q = (int16_t *)out->q;
    float inverse;
    out->scale = quantized_unit(x, n, &inverse);
    for (uint32_t i = 0; i < n; i++) q[i] = (int16_t)quantized_value(x[i], inverse);
    for (uint32_t i = n; i < round_up(n, 4); i++) q[i] = 0;
}

/* High digits first, then as many low ones; each to a multiple of 32. */
static inline void quantize_digits(const float *x, uint32_t n, quantized *out) {
    int8_t *high = (int8_t *)out->q, *low = high + round_up(n, 32);
    float inverse;
    out->scale = quantized_unit(x, n, &inverse);
    for (uint32_t i = 0; i < n; i++) {
        const int32_t q = quantized_value(x[i], inverse), digit = (int8_t)(uint8_t)((uint32_t)q & 255u);
        low[i] = (int8_t)digit;
        high[i] = (int8_t)((q - digit) / 256);
    }
    for (uint32_t i = n; i < round_up(n, 32); i++) high[i] = low[i] = 0;
}

#endif
