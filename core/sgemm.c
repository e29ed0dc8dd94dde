/*
 * A matrix product after Goto & van de Geijn (ACM TOMS 2008), with less around it.
 *
 * Why not OpenBLAS: training multiplies a block of 128 users with a batch of 1,024 or more items, 64 to 128 long, and back.
 * OpenBLAS's kernel reaches three quarters of the processor there; the rest goes into zeroing or scaling the result in a
 * pass of its own before the kernel adds to it, and into copies made for larger products. And it chooses its kernels by the
 * processor's model, not by what the processor can do: a model younger than the library gets those of 2004, a quarter as
 * fast. (Measured: docs/benchmarks.md.)
 *
 * A tile of 6 x 16 results (AVX-512: 12 x 32) stays in 12 (24) registers while the loop runs over k: two loads of b and a
 * broadcast of a for each row. b is packed into panels as wide as the tile, padded with zeros, so that the loop reads it in
 * order whatever b's layout; a block of them, [K_BLOCK][n] and PACKED numbers at most, stays in the second-level cache.
 * GROUP rows of a go through a whole block of b and stay in the first-level cache. They are read where they are; only a
 * transposed a is packed, since its rows are often a page apart and would fall into one set of that cache.
 *
 * Rejected: blocks for the third-level cache (no operand of ours is that large); packing b once a batch instead of once a
 * block of users (3 % less time, and one more thing that callers would have to own).
 */
#include "core/sgemm.h"

#include <string.h>

#include "core/cpu.h"
#include "core/simd.h"

bool sgemm_available(void)
{
    return cpu_level() >= CPU_AVX2;
}

#if defined(__x86_64__)

#include <immintrin.h>

enum { K_BLOCK = 128, GROUP = 48, PACKED = 1 << 15 };

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define INLINE static inline __attribute__((always_inline))

/* A matrix seen through strides: element (i, p) at data[i * row + p * column]. */
struct view {
    const float *data;
    size_t row, column;
};

/* 8 x 8 numbers transposed: 24 shuffles of registers. */
AVX2 INLINE void transpose8(float *to, size_t ldt, const float *from, size_t ldf)
{
    __m256 r[8];
    __m256 s[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++) {
        r[i] = _mm256_loadu_ps(from + i * ldf);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * ldt, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * ldt, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

#define LANES 8
#define TILE_ROWS 6
#define KERNEL_TARGET AVX2
#define NAME(x) x##_avx2
#include "core/sgemm_kernel.h"

#define LANES 16
#define TILE_ROWS 12
#define KERNEL_TARGET AVX512
#define NAME(x) x##_avx512
#include "core/sgemm_kernel.h"

void sgemm_multiply(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m, size_t n,
                    size_t k, bool accumulate)
{
    if (cpu_level() >= CPU_AVX512) {
        multiply_avx512(c, a, a_transposed, b, b_transposed, m, n, k, accumulate);
    } else {
        multiply_avx2(c, a, a_transposed, b, b_transposed, m, n, k, accumulate);
    }
}

#else

void sgemm_multiply(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m, size_t n,
                    size_t k, bool accumulate)
{
    (void)c, (void)a, (void)a_transposed, (void)b, (void)b_transposed, (void)m, (void)n, (void)k, (void)accumulate;
}

#endif
