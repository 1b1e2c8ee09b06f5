/* What both kernels for ARM share. */
#include <arm_neon.h>

#define VW 4
#include "compiler.h"
#include "quantize.h"
#define FLEET_VECTORS 1
#define DELAY(PRECISION) 0
#define SMALL 0
#if defined(__aarch64__)
#define SINGLE 4
#define FLEET 4
#else
#define SINGLE 2
#define FLEET 2
#endif

typedef float32x4_t V;

static INLINE V v_set1(float x) { return vdupq_n_f32(x); }
static INLINE V v_load(const float *p, unsigned lanes) { return (void)lanes, vld1q_f32(p); }
static INLINE void v_store(float *p, V x, unsigned lanes) { (void)lanes, vst1q_f32(p, x); }
static INLINE V v_add(V a, V b) { return vaddq_f32(a, b); }
static INLINE V v_sub(V a, V b) { return vsubq_f32(a, b); }
static INLINE V v_mul(V a, V b) { return vmulq_f32(a, b); }
static INLINE V v_fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
static INLINE V v_min(V limit, V x) { return vminq_f32(limit, x); }
static INLINE V v_max(V limit, V x) { return vmaxq_f32(limit, x); }
#if defined(__aarch64__)
static INLINE V v_half(const uint16_t *p, unsigned lanes) {
    return (void)lanes, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static INLINE V v_div(V a, V b) { return vdivq_f32(a, b); }
static INLINE V v_round(V x) { return vrndnq_f32(x); }
#else
static INLINE V v_half(const uint16_t *p, unsigned lanes) {
    V y; /* GCC has the intrinsic only under -mfp16-format=ieee, which is not this header's to ask for. */
    __asm__("vcvt.f32.f16 %q0, %P1" : "=w"(y) : "w"(vld1_u16(p)));
    return (void)lanes, y;
}
/* Two Newton steps for the inverse, and one for the quotient's own rounding. */
static INLINE V v_div(V a, V b) {
    V inverse = vrecpeq_f32(b);
    inverse = vmulq_f32(inverse, vrecpsq_f32(b, inverse));
    inverse = vmulq_f32(inverse, vrecpsq_f32(b, inverse));
    const V quotient = vmulq_f32(a, inverse);
    return vfmaq_f32(quotient, vfmsq_f32(a, b, quotient), inverse);
}
static INLINE V v_round(V x) { return vsubq_f32(vaddq_f32(x, vdupq_n_f32(ROUNDING)), vdupq_n_f32(ROUNDING)); }
#endif
static INLINE int v_any_nan(V x) {
    const uint32x4_t numbers = vceqq_f32(x, x);
    const uint32x2_t both = vand_u32(vget_low_u32(numbers), vget_high_u32(numbers));
    return (vget_lane_u32(both, 0) & vget_lane_u32(both, 1)) == 0;
}
static INLINE V v_pow2(V n, V p) {
    const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}
