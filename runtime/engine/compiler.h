/* What compilers spell differently. */
#ifndef EDGELSTM_COMPILER_H
#define EDGELSTM_COMPILER_H

#if defined(__clang__)
#define INLINE inline __attribute__((always_inline, unused))
#define NOINLINE __attribute__((noinline))
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define INLINE inline __attribute__((always_inline, unused))
#define NOINLINE __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 16")
#else
#define INLINE inline
#define NOINLINE
#define UNROLL
#endif

#define MAX_VECTORS (16 / VW)
#define EACH(v, n) for (unsigned v = 0; v < (n); v++)

#endif
