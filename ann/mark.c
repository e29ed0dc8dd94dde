#include "ann/mark.h"

#include "core/cpu.h"

uint32_t rows_allowed_plain(const uint64_t *allow, const uint32_t *rows, size_t n)
{
    uint32_t mark = 0;
    for (size_t i = 0; i < n; i++) {
        mark |= (uint32_t)(allow[rows[i] / 64] >> rows[i] % 64 & 1) << i;
    }
    return mark;
}

#if defined(__x86_64__)

#include <immintrin.h>

/* A row's bit becomes the sign of its 32-bit word, which is shifted by 31 less the row's low 5 bits. Little endian: the words of
 * 64 bits are pairs of such. */

__attribute__((target("avx2"))) static uint32_t allowed_avx2(const uint64_t *allow, const uint32_t *rows)
{
    uint32_t mark = 0;
    for (unsigned i = 0; i < MARK_ROWS; i += 8) {
        __m256i row = _mm256_loadu_si256((const __m256i *)(const void *)(rows + i));
        __m256i words = _mm256_i32gather_epi32((const int *)(const void *)allow, _mm256_srli_epi32(row, 5), 4);
        __m256i left = _mm256_andnot_si256(row, _mm256_set1_epi32(31));
        __m256 sign = _mm256_castsi256_ps(_mm256_sllv_epi32(words, left));
        mark |= (uint32_t)_mm256_movemask_ps(sign) << i;
    }
    return mark;
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) static uint32_t allowed_avx512(const uint64_t *allow,
                                                                                             const uint32_t *rows)
{
    uint32_t mark = 0;
    for (unsigned i = 0; i < MARK_ROWS; i += 16) {
        __m512i row = _mm512_loadu_si512(rows + i);
        __m512i words = _mm512_i32gather_epi32(_mm512_srli_epi32(row, 5), (const void *)allow, 4);
        __m512i left = _mm512_andnot_si512(row, _mm512_set1_epi32(31));
        mark |= (uint32_t)_mm512_movepi32_mask(_mm512_sllv_epi32(words, left)) << i;
    }
    return mark;
}

#endif

uint32_t rows_allowed(const uint64_t *allow, const uint32_t *rows, size_t n)
{
#if defined(__x86_64__)
    if (n == MARK_ROWS && cpu_level() >= CPU_AVX512) {
        return allowed_avx512(allow, rows);
    }
    if (n == MARK_ROWS && cpu_level() >= CPU_AVX2) {
        return allowed_avx2(allow, rows);
    }
#endif
    return rows_allowed_plain(allow, rows, n);
}
