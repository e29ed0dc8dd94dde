/*
 * core/cpu.h: which instructions hand-written kernels may use. (What the compiler makes by itself: core/simd.h.)
 *
 * The processor's level is found once, when first asked for. It can be lowered, so that every kernel is tested and measured
 * on one machine: by cpu_limit, or for a whole program by RECALLD_SIMD=plain|sse4.2|avx2|avx512 in the environment.
 */
#ifndef CORE_CPU_H
#define CORE_CPU_H

/* Each includes those before it. */
enum cpu_level {
    CPU_PLAIN,
    CPU_SSE42,  /* SSE4.2 and SSSE3 */
    CPU_AVX2,   /* AVX2 and FMA */
    CPU_AVX512, /* F, BW, DQ, VL */
    CPU_LEVELS
};

/* Thread-safe. */
enum cpu_level cpu_level(void);

/* From now on cpu_level is the processor's, but no more than this. Not while other threads compute. */
void cpu_limit(enum cpu_level most);

/* As in RECALLD_SIMD. */
const char *cpu_level_name(enum cpu_level level);

#endif
