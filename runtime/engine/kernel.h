/* What differs from processor to processor. Every kernel is the template compiled for one instruction set. */
#ifndef EDGELSTM_KERNEL_H
#define EDGELSTM_KERNEL_H

#include "format.h"

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "compile without -ffast-math and -ffinite-math-only: they remove the checks for NaN and infinity"
#endif

/* A build for a small device may leave out what its models do not need: EDGELSTM_PORTABLE all kernels but the portable
 * one, EDGELSTM_NO_FLOAT32, EDGELSTM_NO_FLOAT16 and EDGELSTM_NO_INT8 the kernels' parts for a precision, and
 * EDGELSTM_NO_FUNCTIONS all activations but linear, sigmoid and tanh. Models that need what was left out are refused. */
#ifdef EDGELSTM_NO_FUNCTIONS
#define HAS_FUNCTIONS 0
#else
#define HAS_FUNCTIONS 1
#endif
#ifdef EDGELSTM_NO_FLOAT32
#define HAS_FLOAT32 0
#else
#define HAS_FLOAT32 1
#endif
#ifdef EDGELSTM_NO_FLOAT16
#define HAS_FLOAT16 0
#else
#define HAS_FLOAT16 1
#endif
#ifdef EDGELSTM_NO_INT8
#define HAS_INT8 0
#else
#define HAS_INT8 1
#endif

/* Streams that go through a layer together. More share a reading of the weights; these share registers. */
#ifndef EDGELSTM_TILE
#define EDGELSTM_TILE 48
#endif

/* A row of inputs as integers: value = scale · q, |q| ≤ 32512, q = 256 · high + low with both within int8. Kernels
 * keep either the int16 values or the bytes of both digits, and the digits' sums. */
typedef struct quantized {
    void *q;
    float scale;
    int32_t high_sum, low_sum;
} quantized;

/* One row of inputs per stream. */
typedef struct rows {
    const float *row[EDGELSTM_TILE];
    quantized q[EDGELSTM_TILE]; /* Only in int8. */
} rows;

typedef struct kernel {
    const char *name;
    /* z[gate · stride + unit] = bias + a · weights + b · weights, for n streams. */
    void (*product)(const matrix *m, uint32_t n, const rows *a, const rows *b, float *const *z, size_t stride);
    /* The same of an LSTM's four gates, with tanh and sigmoid behind it: c in place, and the next h. */
    void (*lstm)(const matrix *m, uint32_t n, const rows *a, const rows *b, float *const *c, float *const *h);
    /* Fill `q` of a row; its room is for 2 · round_up(n, 32) bytes. */
    void (*quantize)(const float *x, uint32_t n, quantized *q);
    void (*sigmoid)(float *x, size_t n);
    void (*tanh)(float *x, size_t n);
    /* h = z · h_last + (1 - z) · candidate */
    void (*gru)(size_t n, const float *z, const float *candidate, const float *last, float *h);
    int (*is_finite)(const float *x, size_t n);
} kernel;

extern const kernel edgelstm_kernel_portable;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(EDGELSTM_PORTABLE)
#define EDGELSTM_X86 1
extern const kernel edgelstm_kernel_avx2, edgelstm_kernel_avx512;
#endif
/* Clang's arm_neon.h offers only what the whole build is for, before version 16 also of single functions. GCC's offers
 * everything, so that a build for ARMv6, as compilers on 32-bit Raspberry Pi OS make, has NEON where it runs on more. */
#if defined(__arm__) && defined(__linux__) && defined(__ARM_PCS_VFP) && !defined(__clang__)
#define EDGELSTM_ARM_32 1
#elif defined(__arm__) && defined(__clang__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
#define EDGELSTM_ARM_32 1
#endif
#if (defined(__aarch64__) || defined(EDGELSTM_ARM_32)) && defined(__GNUC__) && !defined(EDGELSTM_PORTABLE)
#define EDGELSTM_ARM 1
extern const kernel edgelstm_kernel_neon;
#if defined(__aarch64__) && (!defined(__clang__) || defined(__ARM_FEATURE_DOTPROD) || __clang_major__ >= 16)
#define EDGELSTM_ARM_DOT 1
extern const kernel edgelstm_kernel_neondot;
#endif
#endif

/* The kernel of a name, or the fastest for NULL; NULL where this processor or build has none. */
const kernel *edgelstm_find_kernel(const char *name);

/* Every activation function of Keras over the n values of one row, in place. */
void edgelstm_activate(const kernel *k, const elm_function *function, float *x, size_t n);

#endif
