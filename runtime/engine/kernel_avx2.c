/* The kernel for x86 processors with AVX2, FMA and F16C (Haswell, Zen, and later). */
#include "kernel.h"

#ifdef EDGELSTM_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>

#define VW 8
#include "compiler.h"
#include "quantize.h"
#define SINGLE 2
#define FLEET 3
#define FLEET_VECTORS 1
#define DELAY(PRECISION) 0
#define SMALL 0
#define KERNEL edgelstm_kernel_avx2
#define KERNEL_NAME "avx2"

typedef __m256 V;

static INLINE V v_set1(float x) { return _mm256_set1_ps(x); }
static INLINE V v_load(const float *p, unsigned lanes) { return (void)lanes, _mm256_loadu_ps(p); }
static INLINE void v_store(float *p, V x, unsigned lanes) { (void)lanes, _mm256_storeu_ps(p, x); }
static INLINE V v_add(V a, V b) { return _mm256_add_ps(a, b); }
static INLINE V v_sub(V a, V b) { return _mm256_sub_ps(a, b); }
static INLINE V v_mul(V a, V b) { return _mm256_mul_ps(a, b); }
static INLINE V v_div(V a, V b) { return _mm256_div_ps(a, b); }
static INLINE V v_fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
static INLINE V v_min(V limit, V x) { return _mm256_min_ps(limit, x); }
static INLINE V v_max(V limit, V x) { return _mm256_max_ps(limit, x); }
static INLINE V v_round(V x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static INLINE int v_any_nan(V x) { return _mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)); }
static INLINE V v_pow2(V n, V p) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
static INLINE V v_half(const uint16_t *p, unsigned lanes) {
    return (void)lanes, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static void quantize_row(const float *x, uint32_t n, quantized *out) {
    quantize_int16(x, n, out);
}

/* Weights are widened to 16 bits and multiplied in pairs; every output has two partial sums until the end, which are
 * emptied before they could overflow: 256 pairs of 2 · 127 · 32512 each are below 2^31. */
static INLINE void dot_int8(const unsigned char *w, unsigned lanes, unsigned gates, unsigned first, unsigned vectors,
                            const quantized *x, uint32_t inputs, const float *scales, V (*sum)[MAX_VECTORS]) {
    const int16_t *q = (const int16_t *)x->q;
    const size_t row = (size_t)4 * lanes * gates;
    const V unit = v_set1(x->scale);
    UNROLL EACH(v, vectors) {
        const size_t lane = first + v * VW;
        for (uint32_t start = 0; start < inputs; start += 1024) {
            const uint32_t stop = inputs - start > 1024 ? start + 1024 : inputs;
            __m256i low[4], high[4]; /* Lanes 0 to 3 and 4 to 7. */
            UNROLL EACH(g, gates) low[g] = high[g] = _mm256_setzero_si256();
            for (uint32_t k = start; k < stop; k += 4) {
                int64_t four;
                memcpy(&four, q + k, 8);
                const __m256i values = _mm256_set1_epi64x(four);
                UNROLL EACH(g, gates) {
                    const __m128i *at = (const __m128i *)(const void *)(w + k / 4 * row + 4 * (g * lanes + lane));
                    const __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128(at));
                    const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128(at + 1));
                    low[g] = _mm256_add_epi32(low[g], _mm256_madd_epi16(a, values));
                    high[g] = _mm256_add_epi32(high[g], _mm256_madd_epi16(b, values));
                }
            }
            UNROLL EACH(g, gates) {
                const V pairs_low = _mm256_cvtepi32_ps(low[g]), pairs_high = _mm256_cvtepi32_ps(high[g]);
                const __m256d mixed = _mm256_castps_pd(_mm256_hadd_ps(pairs_low, pairs_high));
                const V total = _mm256_castpd_ps(_mm256_permute4x64_pd(mixed, _MM_SHUFFLE(3, 1, 2, 0)));
                sum[g][v] = v_fma(total, v_mul(v_load(scales + g * lanes + lane, lanes), unit), sum[g][v]);
            }
        }
    }
}

#include "kernel_template.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int edgelstm_no_avx2; /* An empty file is none in ISO C. */
#endif
