/* Which kernels this processor runs. */
#include <string.h>

#include "kernel.h"

#ifdef EDGELSTM_X86
#include <cpuid.h>
#endif
#if defined(EDGELSTM_ARM) && defined(__linux__)
#include <sys/auxv.h> /* The one place that asks an operating system: user code on ARM cannot ask the processor. */
#endif

#ifdef EDGELSTM_X86
static int has_f16c(void) { /* Which clang's __builtin_cpu_supports does not know. */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
#endif

static int runs(const kernel *k) {
#ifdef EDGELSTM_X86
    __builtin_cpu_init();
    if (k == &edgelstm_kernel_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (k == &edgelstm_kernel_avx512)
        return runs(&edgelstm_kernel_avx2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#endif
#if defined(EDGELSTM_ARM) && defined(__linux__) && defined(__arm__)
    if (k == &edgelstm_kernel_neon) return (getauxval(AT_HWCAP) >> 12 & 1) && (getauxval(AT_HWCAP) >> 16 & 1);
#endif
#ifdef EDGELSTM_ARM_DOT
#if defined(__linux__)
    if (k == &edgelstm_kernel_neondot) return (getauxval(AT_HWCAP) >> 20 & 1) != 0;
#elif !defined(__APPLE__)
    if (k == &edgelstm_kernel_neondot) return 0;
#endif
#endif
    return k != NULL;
}

const kernel *edgelstm_find_kernel(const char *name) {
    static const kernel *const fastest_first[] = {
#ifdef EDGELSTM_X86
        &edgelstm_kernel_avx512, &edgelstm_kernel_avx2,
#endif
#ifdef EDGELSTM_ARM_DOT
        &edgelstm_kernel_neondot,
#endif
#ifdef EDGELSTM_ARM
        &edgelstm_kernel_neon,
#endif
        &edgelstm_kernel_portable};
    for (size_t i = 0; i < sizeof fastest_first / sizeof fastest_first[0]; i++) {
        if ((name == NULL || strcmp(name, fastest_first[i]->name) == 0) && runs(fastest_first[i]))
            return fastest_first[i];
    }
    return NULL;
}
