/* The kernel for ARM processors with NEON: every 64-bit one, and 32-bit ones with VFPv4 (Cortex-A7, A15, A53 …). */
#include "kernel.h"

#ifdef EDGELSTM_ARM
#if defined(__arm__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("neon,vfp4,fp16"))), apply_to = function)
#else
#pragma GCC target("arch=armv7-a+neon-vfpv4", "fpu=neon-vfpv4")
#endif
#endif
#define KERNEL edgelstm_kernel_neon
#define KERNEL_NAME "neon"
#include "kernel_neon.h"

static void quantize_row(const float *x, uint32_t n, quantized *out) {
    quantize_int16(x, n, out);
}

static INLINE int32x4_t pair_sums(int32x4_t a, int32x4_t b) {
    return vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)), vpadd_s32(vget_low_s32(b), vget_high_s32(b)));
}

/* Four weights of one output are multiplied by the four inputs at once and each has a partial sum of its own, which is
 * emptied before it could overflow: 512 products of 127 · 32512 are below 2^31, and so are the sums of all four then. */
static INLINE void dot_int8(const unsigned char *w, unsigned lanes, unsigned gates, unsigned first, unsigned vectors,
                            const quantized *x, uint32_t inputs, const float *scales, V (*sum)[MAX_VECTORS]) {
    const int16_t *q = (const int16_t *)x->q;
    const size_t row = (size_t)4 * lanes * gates;
    UNROLL EACH(v, vectors) {
        const size_t lane = first + v * VW;
        UNROLL EACH(g, gates) {
            const int8_t *column = (const int8_t *)w + 4 * (g * lanes + lane);
            const V scale = vmulq_n_f32(vld1q_f32(scales + g * lanes + lane), x->scale);
            for (uint32_t start = 0; start < inputs; start += 512) {
                const uint32_t stop = inputs - start > 512 ? start + 512 : inputs;
                int32x4_t s0 = vdupq_n_s32(0), s1 = s0, s2 = s0, s3 = s0;
                for (uint32_t k = start; k < stop; k += 4) {
                    const int8x16_t weights = vld1q_s8(column + k / 4 * row);
                    const int16x8_t low = vmovl_s8(vget_low_s8(weights)), high = vmovl_s8(vget_high_s8(weights));
                    const int16x4_t values = vld1_s16(q + k);
                    s0 = vmlal_s16(s0, vget_low_s16(low), values);
                    s1 = vmlal_s16(s1, vget_high_s16(low), values);
                    s2 = vmlal_s16(s2, vget_low_s16(high), values);
                    s3 = vmlal_s16(s3, vget_high_s16(high), values);
                }
                const int32x4_t total = pair_sums(pair_sums(s0, s1), pair_sums(s2, s3));
                sum[g][v] = v_fma(vcvtq_f32_s32(total), scale, sum[g][v]);
            }
        }
    }
}

#include "kernel_template.h"

#if defined(__arm__) && defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int edgelstm_no_neon; /* An empty file is none in ISO C. */
#endif
