/*
 * core/sgemm_kernel.h: the product of core/sgemm.c for vectors of one width. Included once for each, with
 *   LANES          numbers in a vector: 8 (AVX2) or 16 (AVX-512)
 *   TILE_ROWS      rows of a tile: 6 or 12, as many as there are registers for
 *   KERNEL_TARGET  the target attribute
 *   NAME(x)        x with the width's name behind it
 */
enum { NAME(panel) = 2 * LANES };
#define PANEL NAME(panel)

typedef float NAME(vec) __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/* c [rows, PANEL] (+)= a [rows, k] x panel [k, PANEL]. `rows` is a constant at every call, so that the sums are registers. */
KERNEL_TARGET INLINE void NAME(tile)(float *c, size_t ldc, struct view a, const float *panel, size_t rows, size_t k,
                                     bool accumulate)
{
    NAME(vec) sum[TILE_ROWS][2] = {{{0}}};
    for (size_t p = 0; p < k; p++) {
        NAME(vec) left = *(const NAME(vec) *)(panel + p * PANEL);
        NAME(vec) right = *(const NAME(vec) *)(panel + p * PANEL + LANES);
#pragma GCC unroll 12
        for (size_t i = 0; i < rows; i++) {
            float x = a.data[i * a.row + p * a.column];
            sum[i][0] += x * left;
            sum[i][1] += x * right;
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++) {
        NAME(vec) *out = (NAME(vec) *)(c + i * ldc);
        if (accumulate) {
            sum[i][0] += out[0];
            sum[i][1] += out[1];
        }
        out[0] = sum[i][0];
        out[1] = sum[i][1];
    }
}

/* The same for any number of rows up to TILE_ROWS. */
KERNEL_TARGET INLINE void NAME(tile_of_rows)(float *c, size_t ldc, struct view a, const float *panel, size_t rows,
                                             size_t k, bool accumulate)
{
#define ROWS(n)                                         \
    case n:                                             \
        NAME(tile)(c, ldc, a, panel, n, k, accumulate); \
        break;
    switch (rows) {
#if TILE_ROWS == 12
        ROWS(12)
        ROWS(11)
        ROWS(10)
        ROWS(9)
        ROWS(8)
        ROWS(7)
#endif
        ROWS(6)
        ROWS(5)
        ROWS(4)
        ROWS(3)
        ROWS(2)
        ROWS(1)
    }
#undef ROWS
}

/* The last columns, fewer than a panel's: by way of a whole tile. */
KERNEL_TARGET INLINE void NAME(tile_of_columns)(float *c, size_t ldc, struct view a, const float *panel, size_t rows,
                                                size_t columns, size_t k, bool accumulate)
{
    float whole[TILE_ROWS * PANEL];
    NAME(tile_of_rows)(whole, PANEL, a, panel, rows, k, false);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            float sum = whole[i * PANEL + j];
            c[i * ldc + j] = accumulate ? c[i * ldc + j] + sum : sum;
        }
    }
}

/* Packs b [k, n], stored in rows `ldb` apart, into panels. */
KERNEL_TARGET INLINE void NAME(pack_rows)(float *packed, const float *b, size_t ldb, size_t n, size_t k)
{
    for (size_t j = 0; j < n; j += PANEL) {
        size_t columns = n - j < PANEL ? n - j : PANEL;
        for (size_t p = 0; p < k; p++) {
            float *to = packed + j * k + p * PANEL;
            const float *from = b + p * ldb + j;
            if (columns == PANEL) {
                ((NAME(vec) *)to)[0] = *(const NAME(vec) *)from;
                ((NAME(vec) *)to)[1] = *(const NAME(vec) *)(from + LANES);
            } else {
                memset(to, 0, PANEL * sizeof *to);
                memcpy(to, from, columns * sizeof *to);
            }
        }
    }
}

/* The same of b stored transposed, [n, k] in rows `ldb` apart. */
KERNEL_TARGET INLINE void NAME(pack_columns)(float *packed, const float *b, size_t ldb, size_t n, size_t k)
{
    for (size_t j = 0; j < n; j += PANEL) {
        size_t columns = n - j < PANEL ? n - j : PANEL;
        float *panel = packed + j * k;
        size_t p = 0;
        for (; columns == PANEL && p + 8 <= k; p += 8) {
#pragma GCC unroll 4
            for (size_t i = 0; i < PANEL; i += 8) {
                transpose8(panel + p * PANEL + i, PANEL, b + (j + i) * ldb + p, ldb);
            }
        }
        for (; p < k; p++) {
            for (size_t i = 0; i < PANEL; i++) {
                panel[p * PANEL + i] = i < columns ? b[(j + i) * ldb + p] : 0.0f;
            }
        }
    }
}

/* GROUP columns of a stored transposed, [k, .] in rows `lda` apart, to [k][GROUP]. */
KERNEL_TARGET INLINE void NAME(pack_group)(float *group, const float *a, size_t lda, size_t rows, size_t k)
{
    for (size_t p = 0; p < k; p++) {
        float *to = group + p * GROUP;
        const float *from = a + p * lda;
        if (rows < GROUP) {
            memcpy(to, from, rows * sizeof *to);
            continue;
        }
#pragma GCC unroll 6
        for (size_t i = 0; i < GROUP; i += LANES) {
            *(NAME(vec) *)(to + i) = *(const NAME(vec) *)(from + i);
        }
    }
}

/* Rows [i, i + rows) of c, all columns of the packed block. */
KERNEL_TARGET INLINE void NAME(multiply_group)(float *c, size_t ldc, struct view a, const float *packed, size_t rows,
                                               size_t n, size_t k, bool accumulate)
{
    for (size_t j = 0; j < n; j += PANEL) {
        size_t columns = n - j < PANEL ? n - j : PANEL;
        for (size_t i = 0; i < rows; i += TILE_ROWS) {
            size_t some = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
            struct view from = {a.data + i * a.row, a.row, a.column};
            if (columns == PANEL) {
                NAME(tile_of_rows)(c + i * ldc + j, ldc, from, packed + j * k, some, k, accumulate);
            } else {
                NAME(tile_of_columns)(c + i * ldc + j, ldc, from, packed + j * k, some, columns, k, accumulate);
            }
        }
    }
}

/* One block of b against all of a: c [m, n] (+)= a [m, k] x the packed block. */
KERNEL_TARGET static void NAME(multiply_direct)(float *c, size_t ldc, const float *a, size_t lda, const float *packed,
                                                size_t m, size_t n, size_t k, bool accumulate)
{
    for (size_t i = 0; i < m; i += GROUP) {
        size_t rows = m - i < GROUP ? m - i : GROUP;
        NAME(multiply_group)(c + i * ldc, ldc, (struct view){a + i * lda, lda, 1}, packed, rows, n, k, accumulate);
    }
}

KERNEL_TARGET static void NAME(multiply_transposed)(float *c, size_t ldc, const float *a, size_t lda,
                                                    const float *packed, size_t m, size_t n, size_t k, bool accumulate)
{
    float group[K_BLOCK * GROUP] __attribute__((aligned(64)));
    for (size_t i = 0; i < m; i += GROUP) {
        size_t rows = m - i < GROUP ? m - i : GROUP;
        NAME(pack_group)(group, a + i, lda, rows, k);
        NAME(multiply_group)(c + i * ldc, ldc, (struct view){group, 1, GROUP}, packed, rows, n, k, accumulate);
    }
}

KERNEL_TARGET static void NAME(multiply)(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed,
                                         size_t m, size_t n, size_t k, bool accumulate)
{
    float packed[PACKED] __attribute__((aligned(64)));
    for (size_t p = 0; p < k; p += K_BLOCK) {
        size_t depth = k - p < K_BLOCK ? k - p : K_BLOCK;
        size_t width = PACKED / depth / PANEL * PANEL;
        for (size_t j = 0; j < n; j += width) {
            size_t columns = n - j < width ? n - j : width;
            bool add = accumulate || p > 0;
            if (b_transposed) {
                NAME(pack_columns)(packed, b + j * k + p, k, columns, depth);
            } else {
                NAME(pack_rows)(packed, b + p * n + j, n, columns, depth);
            }
            if (a_transposed) {
                NAME(multiply_transposed)(c + j, n, a + p * m, m, packed, m, columns, depth, add);
            } else {
                NAME(multiply_direct)(c + j, n, a + p, k, packed, m, columns, depth, add);
            }
        }
    }
}

#undef PANEL
#undef LANES
#undef TILE_ROWS
#undef KERNEL_TARGET
#undef NAME
