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

#ifdef RECALLD_NO_CLONES
#define SIMD_CLONES
#else
#define SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));

#endif
