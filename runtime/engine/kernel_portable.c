/* The kernel for any processor: vectors are four floats, which a compiler may keep in four registers or in one. */
#include "kernel.h"

#define VW 4
#include "compiler.h"
#include "quantize.h"
#define SINGLE 1
#define FLEET 1
#define FLEET_VECTORS 1
#define DELAY(PRECISION) 0
#define SMALL 1
#define KERNEL edgelstm_kernel_portable
#define KERNEL_NAME "portable"

typedef struct V {
    float f[4];
} V;

#define EACH_LANE(EXPRESSION)                                                                                        \
    V y;                                                                                                             \
    UNROLL EACH(j, 4) y.f[j] = (EXPRESSION);                                                                         \
    return y;

static INLINE V v_set1(float x) { EACH_LANE(x) }
static INLINE V v_load(const float *p, unsigned lanes) { (void)lanes; EACH_LANE(p[j]) }
static INLINE void v_store(float *p, V x, unsigned lanes) {
    (void)lanes;
    UNROLL EACH(j, 4) p[j] = x.f[j];
}
static INLINE V v_add(V a, V b) { EACH_LANE(a.f[j] + b.f[j]) }
static INLINE V v_sub(V a, V b) { EACH_LANE(a.f[j] - b.f[j]) }
static INLINE V v_mul(V a, V b) { EACH_LANE(times(a.f[j], b.f[j])) }
static INLINE V v_div(V a, V b) { EACH_LANE(quotient(a.f[j], b.f[j])) }
static INLINE V v_fma(V a, V b, V c) { EACH_LANE(times(a.f[j], b.f[j]) + c.f[j]) }
static INLINE V v_min(V limit, V x) { EACH_LANE(x.f[j] > limit.f[j] ? limit.f[j] : x.f[j]) }
static INLINE V v_max(V limit, V x) { EACH_LANE(x.f[j] < limit.f[j] ? limit.f[j] : x.f[j]) }
static INLINE V v_round(V x) { EACH_LANE((x.f[j] + ROUNDING) - ROUNDING) }
static INLINE int v_any_nan(V x) {
    const float sum = (x.f[0] + x.f[1]) + (x.f[2] + x.f[3]);
    return sum != sum;
}
static INLINE V v_pow2(V n, V p) {
    EACH_LANE(p.f[j] * bits_float((float_bits(n.f[j] + ROUNDING) - float_bits(ROUNDING) + 127u) << 23))
}

/* The bits moved into place and the exponent put right. A subnormal number m · 2^-24 is (1 + m / 2^10) · 2^-14 and 2^-14 too
 * much: so no step of this is a denormal, which would count as zero. */
static INLINE float half_value(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, size = (uint32_t)(half & 0x7fffu) << 13;
    const uint32_t subnormal = size < 1u << 23 ? 113u << 23 : 0u;
    return bits_float(sign | (size + (subnormal ? subnormal : 112u << 23))) - bits_float(subnormal ? sign | subnormal : 0u);
}
static INLINE V v_half(const uint16_t *p, unsigned lanes) { (void)lanes; EACH_LANE(half_value(p[j])) }

#if !FLUSHES
/* One stream's sums. Weights are looked at only where an input is below 2^-63: trained ones are far above that, and where
 * neither is below, no product is a denormal. 16-bit weights are never below 2^-24. */
#define DOT_FLOAT dot_above
static INLINE V v_above(V x, uint32_t least) { EACH_LANE((float_bits(x.f[j]) & 0x7fffffffu) < least ? 0.0f : x.f[j]) }

static INLINE void dot_above(const unsigned char *w, int half, unsigned lanes, unsigned gates, unsigned first,
                             const float *x, uint32_t inputs, V (*sum)[MAX_VECTORS]) {
    const size_t row = (size_t)lanes * gates;
    for (uint32_t k = 0; k < inputs; k++) {
        const float value = settled(x[k]);
        const uint32_t exponent = exponent_of(value), enough = half ? 25u : 64u;
        const uint32_t least = exponent > 0 && exponent < enough ? (LEAST_EXPONENT + 127u - exponent) << 23 : 0;
        UNROLL EACH(g, gates) {
            const void *at = w + (k * row + g * lanes + first) * (half ? 2 : 4);
            V weights = half ? v_half((const uint16_t *)at, lanes) : v_load((const float *)at, lanes);
            if (least) weights = v_above(weights, least);
            UNROLL EACH(j, 4) sum[g][0].f[j] += weights.f[j] * value;
        }
    }
}
#endif

static void quantize_row(const float *x, uint32_t n, quantized *out) {
    quantize_int16(x, n, out);
}

/* 512 products of 127 · 32512 are below 2^31. */
static INLINE void dot_int8(const unsigned char *w, unsigned lanes, unsigned gates, unsigned first, unsigned vectors,
                            const quantized *x, uint32_t inputs, const float *scales, V (*sum)[MAX_VECTORS]) {
    const int16_t *q = (const int16_t *)x->q;
    const size_t row = (size_t)4 * lanes * gates;
    (void)vectors; /* SINGLE is one. */
    for (uint32_t start = 0; start < inputs; start += 512) {
        const uint32_t stop = inputs - start > 512 ? start + 512 : inputs;
        int32_t total[4][4] = {{0}};
        for (uint32_t k = start; k < stop; k += 4) {
            UNROLL EACH(g, gates) {
                const int8_t *at = (const int8_t *)(w + k / 4 * row + 4 * (g * lanes + first));
                UNROLL EACH(j, 4) {
                    total[g][j] += at[4 * j] * q[k] + at[4 * j + 1] * q[k + 1] + at[4 * j + 2] * q[k + 2] +
                                   at[4 * j + 3] * q[k + 3];
                }
            }
        }
        UNROLL EACH(g, gates) {
            UNROLL EACH(j, 4) {
                const float scale = scales[g * lanes + first + j], unit = x->scale;
                const int counts = FLUSHES || exponent_of(scale) + exponent_of(unit) > 127u;
                sum[g][0].f[j] += counts ? times(scale * unit, (float)total[g][j]) : 0.0f;
            }
        }
    }
}

#include "kernel_template.h"
