/* The kernel for x86 processors with AVX-512 and its instructions for neural networks (Ice Lake, Zen 4, and later). */
#include "kernel.h"

#ifdef EDGELSTM_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* GCC 12 says both of its own immintrin.h, as C++. */
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#define VW 16
#include "compiler.h"
#include "quantize.h"
#define SINGLE 1
#define FLEET 6
#define FLEET_VECTORS 1
#define SMALL 0
#define DELAY(PRECISION) ((PRECISION) != ELM_FLOAT32)
#define KERNEL edgelstm_kernel_avx512
#define KERNEL_NAME "avx512"

typedef __m512 V;

static INLINE __mmask16 mask_of(unsigned lanes) { return (__mmask16)((1u << lanes) - 1u); }
static INLINE V v_set1(float x) { return _mm512_set1_ps(x); }
static INLINE V v_load(const float *p, unsigned lanes) {
    return lanes >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(mask_of(lanes), p);
}
static INLINE void v_store(float *p, V x, unsigned lanes) {
    if (lanes >= 16) _mm512_storeu_ps(p, x);
    else _mm512_mask_storeu_ps(p, mask_of(lanes), x);
}
static INLINE V v_add(V a, V b) { return _mm512_add_ps(a, b); }
static INLINE V v_sub(V a, V b) { return _mm512_sub_ps(a, b); }
static INLINE V v_mul(V a, V b) { return _mm512_mul_ps(a, b); }
static INLINE V v_div(V a, V b) { return _mm512_div_ps(a, b); }
static INLINE V v_fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
static INLINE V v_min(V limit, V x) { return _mm512_min_ps(limit, x); }
static INLINE V v_max(V limit, V x) { return _mm512_max_ps(limit, x); }
static INLINE V v_round(V x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static INLINE int v_any_nan(V x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0; }
static INLINE V v_pow2(V n, V p) { return _mm512_scalef_ps(p, n); }
static INLINE V v_half(const uint16_t *p, unsigned lanes) {
    return lanes >= 16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p))
                       : _mm512_castps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

/* One stream's sums from 16-bit floats. Conversions to half a register are twice as fast on Zen 4 as to a whole one,
 * and as fast elsewhere. */
#define DOT_HALF dot_half
static INLINE __m256 upper(V x) { return _mm512_extractf32x8_ps(x, 1); }
static INLINE __m256 half8(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }

static INLINE void dot_half(const uint16_t *w, unsigned lanes, unsigned gates, const float *x, uint32_t inputs,
                            V (*sum)[MAX_VECTORS]) {
    __m256 low[4], high[4];
    UNROLL EACH(g, gates) {
        low[g] = _mm512_castps512_ps256(sum[g][0]);
        high[g] = upper(sum[g][0]);
    }
    for (uint32_t k = 0; k < inputs; k++, w += (size_t)lanes * gates) {
        const __m256 value = _mm256_set1_ps(x[k]);
        UNROLL EACH(g, gates) {
            low[g] = _mm256_fmadd_ps(value, half8(w + g * lanes), low[g]);
            if (lanes > 8) high[g] = _mm256_fmadd_ps(value, half8(w + g * lanes + 8), high[g]);
        }
    }
    UNROLL EACH(g, gates) sum[g][0] = _mm512_insertf32x8(_mm512_castps256_ps512(low[g]), high[g], 1);
}

static void quantize_row(const float *x, uint32_t n, quantized *out) {
    int8_t *high = (int8_t *)out->q, *low = high + round_up(n, 32);
    __m512 probe = _mm512_setzero_ps(), most = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 16) {
        const __m512 value = v_load(x + i, n - i < 16 ? n - i : 16);
        probe = _mm512_fmadd_ps(value, _mm512_setzero_ps(), probe);
        most = _mm512_max_ps(most, _mm512_abs_ps(value));
    }
    float largest = _mm512_reduce_max_ps(most);
    if (!(largest > 1e-30f)) largest = 1e-30f;
    out->scale = largest / QUANTIZED_LARGEST + _mm512_reduce_add_ps(probe);
    const __m512 inverse = _mm512_set1_ps(QUANTIZED_LARGEST / largest), limit = _mm512_set1_ps(QUANTIZED_LARGEST);
    __m512i high_sum = _mm512_setzero_si512(), low_sum = high_sum;
    for (uint32_t i = 0; i < round_up(n, 32); i += 16) {
        const __m512 value = v_load(x + (i < n ? i : 0), i >= n ? 0 : n - i < 16 ? n - i : 16);
        const __m512 scaled = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(value, inverse), limit),
                                            _mm512_sub_ps(_mm512_setzero_ps(), limit));
        const __m512i q = _mm512_cvtps_epi32(scaled);
        const __m512i digit = _mm512_srai_epi32(_mm512_slli_epi32(q, 24), 24);
        const __m512i rest = _mm512_srai_epi32(_mm512_sub_epi32(q, digit), 8);
        _mm_storeu_si128((__m128i *)(void *)(high + i), _mm512_cvtepi32_epi8(rest));
        _mm_storeu_si128((__m128i *)(void *)(low + i), _mm512_cvtepi32_epi8(digit));
        high_sum = _mm512_add_epi32(high_sum, rest);
        low_sum = _mm512_add_epi32(low_sum, digit);
    }
    out->high_sum = _mm512_reduce_add_epi32(high_sum);
    out->low_sum = _mm512_reduce_add_epi32(low_sum);
}

/* The instruction multiplies unsigned by signed: the weights get 128 added, and the sums 128 times the inputs off. */
static INLINE void dot_int8(const unsigned char *w, unsigned lanes, unsigned gates, unsigned first, unsigned vectors,
                            const quantized *x, uint32_t inputs, const float *scales, V (*sum)[MAX_VECTORS]) {
    const __m512i flip = _mm512_set1_epi8((char)-128);
    const int8_t *high = (const int8_t *)x->q, *low = high + round_up(inputs, 32);
    const size_t row = (size_t)4 * lanes * gates;
    __m512i of_high[4], of_low[4];
    (void)first; /* A block is one vector. */
    (void)vectors;
    UNROLL EACH(g, gates) of_high[g] = of_low[g] = _mm512_setzero_si512();
    for (uint32_t k = 0; k < inputs; k += 4, w += row) {
        int32_t four[2];
        memcpy(&four[0], high + k, 4);
        memcpy(&four[1], low + k, 4);
        const __m512i h = _mm512_set1_epi32(four[0]), l = _mm512_set1_epi32(four[1]);
        UNROLL EACH(g, gates) {
            const void *at = w + (size_t)4 * g * lanes;
            const __m512i stored = lanes >= 16 ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi32(mask_of(lanes), at);
            const __m512i weights = _mm512_xor_si512(stored, flip);
            of_high[g] = _mm512_dpbusd_epi32(of_high[g], weights, h);
            of_low[g] = _mm512_dpbusd_epi32(of_low[g], weights, l);
        }
    }
    const __m512i high_off = _mm512_set1_epi32(128 * x->high_sum), low_off = _mm512_set1_epi32(128 * x->low_sum);
    UNROLL EACH(g, gates) {
        const V of_256 = _mm512_cvtepi32_ps(_mm512_sub_epi32(of_high[g], high_off));
        const V total = v_fma(of_256, v_set1(256.0f), _mm512_cvtepi32_ps(_mm512_sub_epi32(of_low[g], low_off)));
        sum[g][0] = v_fma(total, v_mul(v_load(scales + g * lanes, lanes), v_set1(x->scale)), sum[g][0]);
    }
}

#include "kernel_template.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int edgelstm_no_avx512; /* An empty file is none in ISO C. */
#endif
