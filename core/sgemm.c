/*
 * A matrix product after Goto & van de Geijn (ACM TOMS 2008), with less around it.
 *
 * Why not OpenBLAS: training multiplies a block of 128 users with a batch of 1,024 or more items, 64 to 128 long, and back.
 * OpenBLAS's kernel reaches three quarters of the processor there; the rest goes into zeroing or scaling the result in a
 * pass of its own before the kernel adds to it, and into copies made for larger products. (Measured: docs/benchmarks.md.)
 *
 * A tile of 6 x 16 results stays in 12 registers while the loop runs over k: two loads of b and six broadcasts of a for
 * twelve multiplications. b is packed into panels of 16 columns, [k][16], padded with zeros, so that the loop reads it in
 * order whatever b's layout; a block of them, [K_BLOCK][n] and PACKED numbers at most, stays in the second-level cache.
 * GROUP rows of a go through a whole block of b and stay in the first-level cache. They are read where they are; only a
 * transposed a is packed, since its rows are often a page apart and would fall into one set of that cache.
 *
 * Rejected: blocks for the third-level cache (no operand of ours is that large); packing b once a batch instead of once a
 * block of users (3 % less time, and one more thing that callers would have to own).
 */
#include "core/sgemm.h"

#include <string.h>

#include "core/simd.h"

#if defined(__x86_64__)

#include <immintrin.h>

enum { TILE_ROWS = 6, PANEL = 16, K_BLOCK = 128, GROUP = 48, PACKED = 1 << 15 };

#define AVX2 __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline))

bool sgemm_available(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !__builtin_cpu_supports("avx512f");
}

/* A matrix seen through strides: element (i, p) at data[i * row + p * column]. */
struct view {
    const float *data;
    size_t row, column;
};

/* c [rows, PANEL] (+)= a [rows, k] x panel [k, PANEL]. `rows` is a constant at every call, so that the sums are registers. */
AVX2 INLINE void tile(float *c, size_t ldc, struct view a, const float *panel, size_t rows, size_t k, bool accumulate)
{
    vec8 sum[TILE_ROWS][2] = {{{0}}};
    for (size_t p = 0; p < k; p++) {
        vec8 left = *(const vec8 *)(panel + p * PANEL);
        vec8 right = *(const vec8 *)(panel + p * PANEL + 8);
#pragma GCC unroll 6
        for (size_t i = 0; i < rows; i++) {
            float x = a.data[i * a.row + p * a.column];
            sum[i][0] += x * left;
            sum[i][1] += x * right;
        }
    }
#pragma GCC unroll 6
    for (size_t i = 0; i < rows; i++) {
        vec8 *out = (vec8 *)(c + i * ldc);
        if (accumulate) {
            sum[i][0] += out[0];
            sum[i][1] += out[1];
        }
        out[0] = sum[i][0];
        out[1] = sum[i][1];
    }
}

/* The same for any number of rows up to TILE_ROWS. */
AVX2 INLINE void tile_of_rows(float *c, size_t ldc, struct view a, const float *panel, size_t rows, size_t k,
                              bool accumulate)
{
    switch (rows) {
    case 6:
        tile(c, ldc, a, panel, 6, k, accumulate);
        break;
    case 5:
        tile(c, ldc, a, panel, 5, k, accumulate);
        break;
    case 4:
        tile(c, ldc, a, panel, 4, k, accumulate);
        break;
    case 3:
        tile(c, ldc, a, panel, 3, k, accumulate);
        break;
    case 2:
        tile(c, ldc, a, panel, 2, k, accumulate);
        break;
    default:
        tile(c, ldc, a, panel, 1, k, accumulate);
    }
}

/* The last columns, fewer than a panel's: by way of a whole tile. */
AVX2 INLINE void tile_of_columns(float *c, size_t ldc, struct view a, const float *panel, size_t rows, size_t columns,
                                 size_t k, bool accumulate)
{
    float whole[TILE_ROWS * PANEL];
    tile_of_rows(whole, PANEL, a, panel, rows, k, false);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            float sum = whole[i * PANEL + j];
            c[i * ldc + j] = accumulate ? c[i * ldc + j] + sum : sum;
        }
    }
}

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

/* Packs b [k, n], stored in rows `ldb` apart, into panels. */
AVX2 INLINE void pack_rows(float *packed, const float *b, size_t ldb, size_t n, size_t k)
{
    for (size_t j = 0; j < n; j += PANEL) {
        size_t columns = n - j < PANEL ? n - j : PANEL;
        for (size_t p = 0; p < k; p++) {
            float *to = packed + j * k + p * PANEL;
            const float *from = b + p * ldb + j;
            if (columns == PANEL) {
                ((vec8 *)to)[0] = *(const vec8 *)from;
                ((vec8 *)to)[1] = *(const vec8 *)(from + 8);
            } else {
                memset(to, 0, PANEL * sizeof *to);
                memcpy(to, from, columns * sizeof *to);
            }
        }
    }
}

/* The same of b stored transposed, [n, k] in rows `ldb` apart. */
AVX2 INLINE void pack_columns(float *packed, const float *b, size_t ldb, size_t n, size_t k)
{
    for (size_t j = 0; j < n; j += PANEL) {
        size_t columns = n - j < PANEL ? n - j : PANEL;
        float *panel = packed + j * k;
        size_t p = 0;
        for (; columns == PANEL && p + 8 <= k; p += 8) {
            transpose8(panel + p * PANEL, PANEL, b + j * ldb + p, ldb);
            transpose8(panel + p * PANEL + 8, PANEL, b + (j + 8) * ldb + p, ldb);
        }
        for (; p < k; p++) {
            for (size_t i = 0; i < PANEL; i++) {
                panel[p * PANEL + i] = i < columns ? b[(j + i) * ldb + p] : 0.0f;
            }
        }
    }
}

/* GROUP columns of a stored transposed, [k, .] in rows `lda` apart, to [k][GROUP]. */
AVX2 INLINE void pack_group(float *group, const float *a, size_t lda, size_t rows, size_t k)
{
    for (size_t p = 0; p < k; p++) {
        float *to = group + p * GROUP;
        const float *from = a + p * lda;
        if (rows < GROUP) {
            memcpy(to, from, rows * sizeof *to);
            continue;
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < GROUP; i += 8) {
            *(vec8 *)(to + i) = *(const vec8 *)(from + i);
        }
    }
}

/* Rows [i, i + rows) of c, all columns of the packed block. */
AVX2 INLINE void multiply_group(float *c, size_t ldc, struct view a, const float *packed, size_t rows, size_t n,
                                size_t k, bool accumulate)
{
    for (size_t j = 0; j < n; j += PANEL) {
        size_t columns = n - j < PANEL ? n - j : PANEL;
        for (size_t i = 0; i < rows; i += TILE_ROWS) {
            size_t some = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
            struct view from = {a.data + i * a.row, a.row, a.column};
            if (columns == PANEL) {
                tile_of_rows(c + i * ldc + j, ldc, from, packed + j * k, some, k, accumulate);
            } else {
                tile_of_columns(c + i * ldc + j, ldc, from, packed + j * k, some, columns, k, accumulate);
            }
        }
    }
}

/* One block of b against all of a: c [m, n] (+)= a [m, k] x the packed block. */
AVX2 static void multiply_direct(float *c, size_t ldc, const float *a, size_t lda, const float *packed, size_t m,
                                 size_t n, size_t k, bool accumulate)
{
    for (size_t i = 0; i < m; i += GROUP) {
        size_t rows = m - i < GROUP ? m - i : GROUP;
        multiply_group(c + i * ldc, ldc, (struct view){a + i * lda, lda, 1}, packed, rows, n, k, accumulate);
    }
}

AVX2 static void multiply_transposed(float *c, size_t ldc, const float *a, size_t lda, const float *packed, size_t m,
                                     size_t n, size_t k, bool accumulate)
{
    float group[K_BLOCK * GROUP] __attribute__((aligned(64)));
    for (size_t i = 0; i < m; i += GROUP) {
        size_t rows = m - i < GROUP ? m - i : GROUP;
        pack_group(group, a + i, lda, rows, k);
        multiply_group(c + i * ldc, ldc, (struct view){group, 1, GROUP}, packed, rows, n, k, accumulate);
    }
}

AVX2 void sgemm_multiply(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m,
                         size_t n, size_t k, bool accumulate)
{
    float packed[PACKED] __attribute__((aligned(64)));
    for (size_t p = 0; p < k; p += K_BLOCK) {
        size_t depth = k - p < K_BLOCK ? k - p : K_BLOCK;
        size_t width = PACKED / depth / PANEL * PANEL;
        for (size_t j = 0; j < n; j += width) {
            size_t columns = n - j < width ? n - j : width;
            bool add = accumulate || p > 0;
            if (b_transposed) {
                pack_columns(packed, b + j * k + p, k, columns, depth);
            } else {
                pack_rows(packed, b + p * n + j, n, columns, depth);
            }
            if (a_transposed) {
                multiply_transposed(c + j, n, a + p * m, m, packed, m, columns, depth, add);
            } else {
                multiply_direct(c + j, n, a + p, k, packed, m, columns, depth, add);
            }
        }
    }
}

#else

bool sgemm_available(void)
{
    return false;
}

void sgemm_multiply(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m, size_t n,
                    size_t k, bool accumulate)
{
    (void)c, (void)a, (void)a_transposed, (void)b, (void)b_transposed, (void)m, (void)n, (void)k, (void)accumulate;
}

#endif
