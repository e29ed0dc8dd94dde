/*
 * Scanning codes: a byte shuffle looks 16 codes up at once (Andre et al., VLDB 2015), one kernel for each level of
 * core/cpu.h.
 *
 * Sums are of 16-bit lanes: a shuffle gives bytes, of two rows in a lane. `mixed` adds lanes whole, so that its low byte's
 * carries spoil the high one; `high` adds the high bytes alone, and mixed - (high << 8) is then the sum of the low. Rows 0
 * to 15 of a block (the low halves of its bytes) and 16 to 31 have accumulators [0] and [1] of their own.
 */
#include "ann/pq.h"
#include "core/cpu.h"

/* --- the plain kernel: oracle of the others ----------------------------------------------------------------------- */

void pq_scan_naive(const struct pq *pq, const struct pq_table *table, const uint8_t *block, uint16_t *sums)
{
    for (size_t i = 0; i < PQ_BLOCK; i++) {
        unsigned sum = 0;
        for (uint32_t p = 0; p < pq->parts; p++) {
            uint8_t byte = block[(size_t)(p / 2) * PQ_BLOCK + (p % 2) * 16 + i % 16];
            sum += table->byte[(size_t)p * PQ_CENTERS + (i < 16 ? byte & 15u : byte >> 4)];
        }
        sums[i] = (uint16_t)sum;
    }
}

/* What a scan found, of `room` places. */
struct found {
    uint32_t *place;
    uint16_t *sum;
    size_t n;
};

static inline void keep(struct found *found, const uint16_t *sums, uint32_t mask, size_t first)
{
    for (; mask != 0; mask &= mask - 1) {
        unsigned i = (unsigned)__builtin_ctz(mask);
        found->place[found->n] = (uint32_t)(first + i);
        found->sum[found->n++] = sums[i];
    }
}

static void scan_plain(const struct pq *pq, const struct pq_table *table, const uint8_t *codes, size_t blocks,
                       int floor, struct found *found)
{
    for (size_t b = 0; b < blocks; b++) {
        uint16_t sums[PQ_BLOCK];
        uint32_t mask = 0;
        pq_scan_naive(pq, table, codes + b * pq_block_bytes(pq), sums);
        for (size_t i = 0; i < PQ_BLOCK; i++) {
            mask |= (uint32_t)(sums[i] > floor) << i;
        }
        keep(found, sums, mask, b * PQ_BLOCK);
    }
}

#if defined(__x86_64__)

#include <immintrin.h>

/* --- SSE4.2 --------------------------------------------------------------------------------------------------------- */

__attribute__((target("sse4.2,ssse3"))) static void scan_sse(const struct pq *pq, const struct pq_table *table,
                                                             const uint8_t *codes, size_t blocks, int floor,
                                                             struct found *found)
{
    const __m128i nibble = _mm_set1_epi8(15);
    const __m128i limit = _mm_set1_epi16((short)floor);
    for (size_t b = 0; b < blocks; b++) {
        __m128i mixed[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
        __m128i high[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
        for (size_t p = 0; p < pq->parts; p++, codes += 16) {
            __m128i code = _mm_loadu_si128((const __m128i *)(const void *)codes);
            __m128i look = _mm_load_si128((const __m128i *)(const void *)(table->byte + p * PQ_CENTERS));
            __m128i low_rows = _mm_shuffle_epi8(look, _mm_and_si128(code, nibble));
            __m128i high_rows = _mm_shuffle_epi8(look, _mm_and_si128(_mm_srli_epi16(code, 4), nibble));
            mixed[0] = _mm_add_epi16(mixed[0], low_rows);
            high[0] = _mm_add_epi16(high[0], _mm_srli_epi16(low_rows, 8));
            mixed[1] = _mm_add_epi16(mixed[1], high_rows);
            high[1] = _mm_add_epi16(high[1], _mm_srli_epi16(high_rows, 8));
        }
        uint16_t sums[PQ_BLOCK] __attribute__((aligned(16)));
        uint32_t mask = 0;
        for (unsigned half = 0; half < 2; half++) {
            __m128i even = _mm_sub_epi16(mixed[half], _mm_slli_epi16(high[half], 8));
            __m128i first = _mm_unpacklo_epi16(even, high[half]);
            __m128i second = _mm_unpackhi_epi16(even, high[half]);
            _mm_store_si128((__m128i *)(void *)(sums + half * 16), first);
            _mm_store_si128((__m128i *)(void *)(sums + half * 16 + 8), second);
            __m128i above = _mm_packs_epi16(_mm_cmpgt_epi16(first, limit), _mm_cmpgt_epi16(second, limit));
            mask |= (uint32_t)_mm_movemask_epi8(above) << (half * 16);
        }
        keep(found, sums, mask, b * PQ_BLOCK);
    }
}

/* --- AVX2: two parts at once ---------------------------------------------------------------------------------------- */

__attribute__((target("avx2"))) static void scan_avx2(const struct pq *pq, const struct pq_table *table,
                                                      const uint8_t *codes, size_t blocks, int floor,
                                                      struct found *found)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i limit = _mm256_set1_epi16((short)floor);
    for (size_t b = 0; b < blocks; b++) {
        __m256i mixed[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        __m256i high[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (size_t p = 0; p < pq->parts; p += 2, codes += PQ_BLOCK) {
            __m256i code = _mm256_loadu_si256((const __m256i *)(const void *)codes);
            __m256i look = _mm256_load_si256((const __m256i *)(const void *)(table->byte + p * PQ_CENTERS));
            __m256i low_rows = _mm256_shuffle_epi8(look, _mm256_and_si256(code, nibble));
            __m256i high_rows = _mm256_shuffle_epi8(look, _mm256_and_si256(_mm256_srli_epi16(code, 4), nibble));
            mixed[0] = _mm256_add_epi16(mixed[0], low_rows);
            high[0] = _mm256_add_epi16(high[0], _mm256_srli_epi16(low_rows, 8));
            mixed[1] = _mm256_add_epi16(mixed[1], high_rows);
            high[1] = _mm256_add_epi16(high[1], _mm256_srli_epi16(high_rows, 8));
        }
        __m256i sums[2]; /* rows 0 .. 15 and 16 .. 31 in order */
        for (int half = 0; half < 2; half++) {
            __m256i even = _mm256_sub_epi16(mixed[half], _mm256_slli_epi16(high[half], 8));
            __m128i evens = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
            __m128i odds = _mm_add_epi16(_mm256_castsi256_si128(high[half]), _mm256_extracti128_si256(high[half], 1));
            sums[half] = _mm256_setr_m128i(_mm_unpacklo_epi16(evens, odds), _mm_unpackhi_epi16(evens, odds));
        }
        __m256i above = _mm256_packs_epi16(_mm256_cmpgt_epi16(sums[0], limit), _mm256_cmpgt_epi16(sums[1], limit));
        uint32_t mask = (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(above, 0xd8));
        if (mask != 0) {
            uint16_t all[PQ_BLOCK] __attribute__((aligned(32)));
            _mm256_store_si256((__m256i *)(void *)all, sums[0]);
            _mm256_store_si256((__m256i *)(void *)(all + 16), sums[1]);
            keep(found, all, mask, b * PQ_BLOCK);
        }
    }
}

/* --- AVX-512: four parts at once ------------------------------------------------------------------------------------ */

enum { PREFETCH = 2048 };

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))

/* Word order of rows 0 .. 31 in lanes [even rows of half 0, odd rows of half 0, even of half 1, odd of half 1]. */
static const uint16_t ROW_ORDER[PQ_BLOCK]
    __attribute__((aligned(64))) = {0,  8,  1,  9,  2,  10, 3,  11, 4,  12, 5,  13, 6,  14, 7,  15,
                                    16, 24, 17, 25, 18, 26, 19, 27, 20, 28, 21, 29, 22, 30, 23, 31};

AVX512 static inline __attribute__((always_inline)) void add_parts(__m512i mixed[2], __m512i high[2], __m512i code,
                                                                   __m512i look)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i low_rows = _mm512_shuffle_epi8(look, _mm512_and_si512(code, nibble));
    __m512i high_rows = _mm512_shuffle_epi8(look, _mm512_and_si512(_mm512_srli_epi16(code, 4), nibble));
    mixed[0] = _mm512_add_epi16(mixed[0], low_rows);
    high[0] = _mm512_add_epi16(high[0], _mm512_srli_epi16(low_rows, 8));
    mixed[1] = _mm512_add_epi16(mixed[1], high_rows);
    high[1] = _mm512_add_epi16(high[1], _mm512_srli_epi16(high_rows, 8));
}

/* a's lanes 0 + 2 and 1 + 3, then b's. */
AVX512 static inline __attribute__((always_inline)) __m512i add_halves(__m512i a, __m512i b)
{
    return _mm512_add_epi16(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
}

/* As keep, of 16 rows, without a loop whose end nobody foresees: writes 16 places, of which only those of the mask count. */
AVX512 static inline __attribute__((always_inline)) void keep_half(struct found *found, __m256i sums, __mmask16 mask,
                                                                   size_t first)
{
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i place = _mm512_add_epi32(_mm512_set1_epi32((int)first), count);
    __m512i sum = _mm512_maskz_compress_epi32(mask, _mm512_cvtepu16_epi32(sums));
    _mm512_storeu_si512(found->place + found->n, _mm512_maskz_compress_epi32(mask, place));
    _mm256_storeu_si256((__m256i *)(void *)(found->sum + found->n), _mm512_cvtepi32_epi16(sum));
    found->n += (size_t)__builtin_popcount(mask);
}

AVX512 static void scan_avx512(const struct pq *pq, const struct pq_table *table, const uint8_t *codes, size_t blocks,
                               int floor, struct found *found)
{
    const __m512i limit = _mm512_set1_epi16((short)floor);
    const __m512i order = _mm512_load_si512(ROW_ORDER);
    const __mmask16 one_pair = 0xff; /* what is left when the number of pairs is odd: 8 of 16 words of 4 bytes */
    for (size_t b = 0; b < blocks; b++) {
        __m512i mixed[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        __m512i high[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        size_t p = 0;
        for (; p + 4 <= pq->parts; p += 4, codes += 64) {
            _mm_prefetch((const char *)codes + PREFETCH, _MM_HINT_T0);
            add_parts(mixed, high, _mm512_loadu_si512(codes), _mm512_load_si512(table->byte + p * PQ_CENTERS));
        }
        if (p < pq->parts) {
            add_parts(mixed, high, _mm512_maskz_loadu_epi32(one_pair, codes),
                      _mm512_maskz_loadu_epi32(one_pair, table->byte + p * PQ_CENTERS));
            codes += PQ_BLOCK;
        }
        __m512i even[2] = {_mm512_sub_epi16(mixed[0], _mm512_slli_epi16(high[0], 8)),
                           _mm512_sub_epi16(mixed[1], _mm512_slli_epi16(high[1], 8))};
        __m512i half[2] = {add_halves(even[0], high[0]), add_halves(even[1], high[1])};
        __m512i sums = _mm512_add_epi16(_mm512_shuffle_i64x2(half[0], half[1], 0x88),
                                        _mm512_shuffle_i64x2(half[0], half[1], 0xdd));
        sums = _mm512_permutexvar_epi16(order, sums);
        uint32_t mask = _mm512_cmpgt_epi16_mask(sums, limit);
        if (mask != 0) {
            keep_half(found, _mm512_castsi512_si256(sums), (__mmask16)mask, b * PQ_BLOCK);
            keep_half(found, _mm512_extracti64x4_epi64(sums, 1), (__mmask16)(mask >> 16), b * PQ_BLOCK + 16);
        }
    }
}

#endif

/* --- the choice ----------------------------------------------------------------------------------------------------- */

size_t pq_scan(const struct pq *pq, const struct pq_table *table, const uint8_t *codes, size_t blocks, int floor,
               size_t room, uint32_t *place, uint16_t *sum, size_t *done)
{
    struct found found = {place, sum, 0};
    floor = floor < -1 ? -1 : floor > INT16_MAX ? INT16_MAX : floor;
    *done = 0;
    /* As many blocks as fit if every place is reported; since few are, a second round is rare. */
    while (*done < blocks && found.n + PQ_BLOCK <= room) {
        size_t some = (room - found.n) / PQ_BLOCK;
        size_t before = found.n;
        some = some < blocks - *done ? some : blocks - *done;
        const uint8_t *from = codes + *done * pq_block_bytes(pq);
        switch (cpu_level()) {
#if defined(__x86_64__)
        case CPU_AVX512:
            scan_avx512(pq, table, from, some, floor, &found);
            break;
        case CPU_AVX2:
            scan_avx2(pq, table, from, some, floor, &found);
            break;
        case CPU_SSE42:
            scan_sse(pq, table, from, some, floor, &found);
            break;
#endif
        default:
            scan_plain(pq, table, from, some, floor, &found);
        }
        for (size_t i = before; i < found.n; i++) {
            place[i] += (uint32_t)(*done * PQ_BLOCK);
        }
        *done += some;
    }
    return found.n;
}
