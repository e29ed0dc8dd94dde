#include "core/cpu.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[CPU_LEVELS] = {"plain", "sse4.2", "avx2", "avx512"};

/* Level + 1; 0: not found yet. Threads that meet here find the same. */
static atomic_int known;

static enum cpu_level of_processor(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("ssse3")) {
        return CPU_PLAIN;
    }
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return CPU_SSE42;
    }
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return wide ? CPU_AVX512 : CPU_AVX2;
#else
    return CPU_PLAIN;
#endif
}

static enum cpu_level of_environment(void)
{
    const char *name = getenv("RECALLD_SIMD");
    enum cpu_level level = CPU_PLAIN;
    while (name != NULL && level < CPU_LEVELS && strcmp(name, names[level]) != 0) {
        level++;
    }
    return name == NULL || level == CPU_LEVELS ? CPU_AVX512 : level;
}

static enum cpu_level lower(enum cpu_level a, enum cpu_level b)
{
    return a < b ? a : b;
}

enum cpu_level cpu_level(void)
{
    int level = atomic_load_explicit(&known, memory_order_relaxed);
    if (level == 0) {
        level = (int)lower(of_processor(), of_environment()) + 1;
        atomic_store_explicit(&known, level, memory_order_relaxed);
    }
    return (enum cpu_level)(level - 1);
}

void cpu_limit(enum cpu_level most)
{
    atomic_store_explicit(&known, (int)lower(of_processor(), most) + 1, memory_order_relaxed);
}

const char *cpu_level_name(enum cpu_level level)
{
    return names[level];
}
