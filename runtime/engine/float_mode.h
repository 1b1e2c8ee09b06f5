/* Numbers so small that processors take a hundred times as long over them, below 2^-126: denormals. A step takes them
 * for zero. States that decay after an input has gone silent would otherwise end there, and stay.
 *
 * Where the processor has a mode for it, a call sets it and gives the caller's back, exception flags and all. In
 * between every exception is masked and rounding is to nearest, whatever the caller has set. Where it has none, or
 * EDGELSTM_NO_FLUSH says so, products and quotients below 2^-110 (8e-34) are left out by looking at exponents. */
#ifndef EDGELSTM_FLOAT_MODE_H
#define EDGELSTM_FLOAT_MODE_H

#include <stdint.h>
#include <string.h>

#include "compiler.h"

#if defined(EDGELSTM_NO_FLUSH)
#define FLUSHES 0
#elif defined(__GNUC__) && (defined(__x86_64__) || (defined(__SSE_MATH__) && defined(__SSE3__)))
#define FLUSHES 1 /* Processors before SSE3 need not have the mode for operands. */
typedef uint32_t float_mode;
#define OUR_MODE 0x9fc0u /* MXCSR: results and operands flushed, exceptions masked, rounding to nearest */
#define READ_MODE(MODE) __asm__ volatile("stmxcsr %0" : "=m"(MODE) : : "memory")
#define WRITE_MODE(MODE) __asm__ volatile("ldmxcsr %0" : : "m"(MODE) : "memory")
#elif defined(_M_X64)
#define FLUSHES 1
#include <xmmintrin.h>
typedef uint32_t float_mode;
#define OUR_MODE 0x9fc0u
#define READ_MODE(MODE) (MODE) = _mm_getcsr()
#define WRITE_MODE(MODE) _mm_setcsr(MODE)
#elif defined(__GNUC__) && defined(__aarch64__)
#define FLUSHES 1
typedef struct float_mode {
    uint64_t control, status; /* FPCR, FPSR */
} float_mode;
#elif defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP)
#define FLUSHES 1
typedef uint32_t float_mode;
#define OUR_MODE 0x01000000u /* FPSCR: the same */
#define READ_MODE(MODE) __asm__ volatile("vmrs %0, fpscr" : "=r"(MODE) : : "memory")
#define WRITE_MODE(MODE) __asm__ volatile("vmsr fpscr, %0" : : "r"(MODE) : "memory")
#else
#define FLUSHES 0
#endif

#if FLUSHES && defined(__aarch64__)
static INLINE void enter_float_mode(float_mode *callers) {
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(callers->control), "=r"(callers->status) : : "memory");
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0x01000000u) : "memory");
}

static INLINE void leave_float_mode(const float_mode *callers) {
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(callers->control), "r"(callers->status) : "memory");
}
#elif FLUSHES
static INLINE void enter_float_mode(float_mode *callers) {
    static const float_mode ours = OUR_MODE;
    READ_MODE(*callers);
    WRITE_MODE(ours);
}

static INLINE void leave_float_mode(const float_mode *callers) { WRITE_MODE(*callers); }
#elif defined(__GNUC__) && defined(__riscv_flen)
typedef unsigned long float_mode; /* Flags and rounding; it has no other modes. */
static INLINE void enter_float_mode(float_mode *callers) {
    __asm__ volatile("fscsr %0, zero" : "=r"(*callers) : : "memory");
}

static INLINE void leave_float_mode(const float_mode *callers) {
    __asm__ volatile("fscsr %0" : : "r"(*callers) : "memory");
}
#else
typedef int float_mode;
static INLINE void enter_float_mode(float_mode *callers) { *callers = 0; }
static INLINE void leave_float_mode(const float_mode *callers) { (void)callers; }
#endif

static INLINE uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static INLINE float bits_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x's place among all floats: comparisons of denormals, which in our mode are comparisons of zeros. */
static INLINE int32_t order_of(float x) {
    const uint32_t size = float_bits(x) & 0x7fffffffu;
    return float_bits(x) == size ? (int32_t)size : -(int32_t)size;
}

#define LEAST_EXPONENT 17u /* Biased, of 2^-110. */

static INLINE uint32_t exponent_of(float x) { return float_bits(x) >> 23 & 255u; }

/* x, a · b and a / b, or zero where they are too small. Not of denormals: those come in with inputs and weights only. */
static INLINE float settled(float x) { return !FLUSHES && exponent_of(x) < LEAST_EXPONENT ? 0.0f : x; }

static INLINE float times(float a, float b) {
    return !FLUSHES && exponent_of(a) + exponent_of(b) < LEAST_EXPONENT + 127u ? 0.0f : a * b;
}

static INLINE float quotient(float a, float b) {
    if (!FLUSHES && exponent_of(b) < 255u && exponent_of(a) + 127u < exponent_of(b) + LEAST_EXPONENT + 1u) return 0.0f;
    return a / b;
}

/* Where a square of something small stands beside something smaller still, both are raised: x · 2^80, and e · 2^160 for
 * an e that is not negative, exact even of a denormal. */
#define RAISING 1.2089258196146292e24f
#define IS_SMALL(X, E) ((X) < 9.0e-13f && (E) < 8.0e-19f)
static INLINE float raised_square(float e) {
    return float_bits(e) < 1u << 23 ? (float)float_bits(e) * 2048.0f : e * RAISING * RAISING;
}

#endif
