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
static INLINE V v_mul(V a, V b) { EACH_LANE(a.f[j] * b.f[j]) }
static INLINE V v_div(V a, V b) { EACH_LANE(a.f[j] / b.f[j]) }
static INLINE V v_fma(V a, V b, V c) { EACH_LANE(a.f[j] * b.f[j] + c.f[j]) }
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

/* 2^112 puts right the exponent of the bits moved into place, of subnormal numbers too. */
static INLINE float half_value(uint16_t half) {
    const float size = bits_float((uint32_t)(half & 0x7fffu) << 13) * 5.192296858534828e33f;
    return bits_float(float_bits(size) | (uint32_t)(half & 0x8000u) << 16);
}
static INLINE V v_half(const uint16_t *p, unsigned lanes) { (void)lanes; EACH_LANE(half_value(p[j])) }

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
            const V scale = v_mul(v_load(scales + g * lanes + first, lanes), v_set1(x->scale));
            UNROLL EACH(j, 4) sum[g][0].f[j] += scale.f[j] * (float)total[g][j];
        }
    }
}

#include "kernel_template.h"
