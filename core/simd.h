/*
 * core/simd.h: one source, several instruction sets.
 *
 * A function marked SIMD_CLONES is compiled for AVX-512, AVX2 + FMA and baseline x86-64; the loader picks one by the
 * processor it finds (GNU ifunc). Its body is plain C over `vec8`, one AVX register. (Wider vectors than the
 * processor's registers are a trap: GCC 12 moves every operation on 16 floats through the stack under AVX2, ten times
 * slower.) Sanitizer builds define RECALLD_NO_CLONES: ifunc resolvers run before the sanitizer is ready.
 */
#ifndef CORE_SIMD_H
#define CORE_SIMD_H

#include <stdint.h>

#ifdef RECALLD_NO_CLONES
#define SIMD_CLONES
#else
#define SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t ivec8 __attribute__((vector_size(32), aligned(4), may_alias));

/* The larger of two, number by number; `b` where one is NaN. */
#define VEC8_MAX(a, b) ((vec8)(((ivec8)(a) & ((a) > (b))) | ((ivec8)(b) & ~((a) > (b)))))

/* exp of 8 numbers in (-87.3, 88): 2^n * p(r) with x = n ln 2 + r. A macro since vectors wider than the baseline's
 * registers can't be passed to functions. */
#define VEC8_EXP(result, x)                                               \
    do {                                                                  \
        vec8 shifted_ = (x)*1.44269504088896341f + 12582912.0f;           \
        vec8 whole_ = shifted_ - 12582912.0f;                             \
        vec8 r_ = (x)-whole_ * 0.693359375f - whole_ * -2.12194440e-4f;   \
        vec8 p_ = 1.3888889e-3f * r_ + 8.3333333e-3f;                     \
        p_ = p_ * r_ + 4.1666667e-2f;                                     \
        p_ = p_ * r_ + 1.6666667e-1f;                                     \
        p_ = p_ * r_ + 0.5f;                                              \
        p_ = p_ * r_ + 1.0f;                                              \
        p_ = p_ * r_ + 1.0f;                                              \
        ivec8 bits_ = (ivec8)p_ + (((ivec8)shifted_ - 0x4b400000) << 23); \
        (result) = (vec8)bits_;                                           \
    } while (0)

#endif
