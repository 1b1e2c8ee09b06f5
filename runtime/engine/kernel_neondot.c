/* The kernel for 64-bit ARM processors that multiply four pairs of bytes at once (Cortex-A55, A75 and later). */
#include "kernel.h"

#ifdef EDGELSTM_ARM_DOT
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define KERNEL edgelstm_kernel_neondot
#define KERNEL_NAME "neondot"
#include "kernel_neon.h"

static void quantize_row(const float *x, uint32_t n, quantized *out) {
    quantize_digits(x, n, out);
}

static INLINE void dot_int8(const unsigned char *w, unsigned lanes, unsigned gates, unsigned first, unsigned vectors,
                            const quantized *x, uint32_t inputs, const float *scales, V (*sum)[MAX_VECTORS]) {
    const int8_t *high = (const int8_t *)x->q, *low = high + round_up(inputs, 32);
    const size_t row = (size_t)4 * lanes * gates;
    UNROLL EACH(v, vectors) {
        const size_t lane = first + v * VW;
        int32x4_t of_high[4], of_low[4];
        UNROLL EACH(g, gates) of_high[g] = of_low[g] = vdupq_n_s32(0);
        for (uint32_t k = 0; k < inputs; k += 4) {
            int32_t four[2];
            memcpy(&four[0], high + k, 4);
            memcpy(&four[1], low + k, 4);
            const int8x16_t h = vreinterpretq_s8_s32(vdupq_n_s32(four[0]));
            const int8x16_t l = vreinterpretq_s8_s32(vdupq_n_s32(four[1]));
            UNROLL EACH(g, gates) {
                const int8x16_t weights = vld1q_s8((const int8_t *)w + k / 4 * row + 4 * (g * lanes + lane));
                of_high[g] = vdotq_s32(of_high[g], weights, h);
                of_low[g] = vdotq_s32(of_low[g], weights, l);
            }
        }
        UNROLL EACH(g, gates) {
            const V total = v_fma(vcvtq_f32_s32(of_high[g]), v_set1(256.0f), vcvtq_f32_s32(of_low[g]));
            const V scale = vmulq_n_f32(vld1q_f32(scales + g * lanes + lane), x->scale);
            sum[g][v] = v_fma(total, scale, sum[g][v]);
        }
    }
}

#include "kernel_template.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int edgelstm_no_neondot; /* An empty file is none in ISO C. */
#endif
