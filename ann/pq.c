#include "ann/pq.h"

#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

/* Two numbers a part suit the rows of an index that re-ranks; short rows would have too few bits of that. */
struct pq pq_shape(uint32_t dim)
{
    enum { SHORT = 32 };
    uint32_t width = dim <= SHORT ? 1 : dim <= 2 * PQ_PARTS_MAX ? 2 : (dim + PQ_PARTS_MAX - 1) / PQ_PARTS_MAX;
    uint32_t parts = (dim + width - 1) / width;
    return (struct pq){.dim = dim, .width = width, .parts = (parts + 1) / 2 * 2};
}

/* Part `p` of a row into piece [width], zeros behind its end. */
static void take_piece(const struct pq *pq, const float *x, uint32_t p, float *piece)
{
    for (uint32_t i = 0; i < pq->width; i++) {
        size_t at = (size_t)p * pq->width + i;
        piece[i] = at < pq->dim ? x[at] : 0.0f;
    }
}

static uint8_t nearest(const float *centers, const float *piece, uint32_t width, float *distance)
{
    uint8_t best = 0;
    *distance = INFINITY;
    for (uint32_t c = 0; c < PQ_CENTERS; c++) {
        float sum = 0;
        for (uint32_t i = 0; i < width; i++) {
            float d = centers[c * width + i] - piece[i];
            sum += d * d;
        }
        if (sum < *distance) {
            *distance = sum;
            best = (uint8_t)c;
        }
    }
    return best;
}

/* --- training ----------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 10 };

/* Centers of one part's pieces [n, width]: begins with k-means++ (Arthur & Vassilvitskii, SODA 2007), then Lloyd. */
static void train_part(float *centers, const float *pieces, float *distance, size_t n, uint32_t width, struct rng *r)
{
    for (size_t i = 0; i < n; i++) {
        distance[i] = INFINITY;
    }
    memset(centers, 0, (size_t)PQ_CENTERS * width * sizeof *centers);
    size_t chosen = rng_below(r, (uint32_t)n);
    for (size_t c = 0; c < PQ_CENTERS; c++) {
        memcpy(centers + c * width, pieces + chosen * width, width * sizeof *centers);
        double total = 0;
        for (size_t i = 0; i < n; i++) {
            float sum = 0;
            for (uint32_t j = 0; j < width; j++) {
                float d = centers[c * width + j] - pieces[i * width + j];
                sum += d * d;
            }
            distance[i] = fminf(distance[i], sum);
            total += (double)distance[i];
        }
        double left = (double)rng_uniform(r) * total;
        for (chosen = 0; chosen + 1 < n && left > (double)distance[chosen]; chosen++) {
            left -= (double)distance[chosen];
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        double sum[PQ_CENTERS][64] = {{0}};
        size_t count[PQ_CENTERS] = {0};
        for (size_t i = 0; i < n; i++) {
            float ignored;
            uint8_t c = nearest(centers, pieces + i * width, width, &ignored);
            count[c]++;
            for (uint32_t j = 0; j < width; j++) {
                sum[c][j] += (double)pieces[i * width + j];
            }
        }
        for (size_t c = 0; c < PQ_CENTERS; c++) {
            for (uint32_t j = 0; count[c] > 0 && j < width; j++) {
                centers[c * width + j] = (float)(sum[c][j] / (double)count[c]);
            }
        }
    }
}

int pq_train(const struct pq *pq, float *centers, const float *x, size_t n, uint64_t seed, struct err *e)
{
    float *pieces = mem_array(n * pq->width, sizeof *pieces);
    float *distance = mem_array(n, sizeof *distance);
    if (pieces == NULL || distance == NULL) {
        mem_free(pieces);
        mem_free(distance);
        return err_nomem(e);
    }
    for (uint32_t p = 0; p < pq->parts; p++) {
        struct rng r;
        rng_seed(&r, seed, p);
        for (size_t i = 0; i < n; i++) {
            take_piece(pq, x + i * pq->dim, p, pieces + i * pq->width);
        }
        train_part(centers + (size_t)p * PQ_CENTERS * pq->width, pieces, distance, n, pq->width, &r);
    }
    mem_free(pieces);
    mem_free(distance);
    return 0;
}

/* --- codes -------------------------------------------------------------------------------------------------------- */

void pq_encode(const struct pq *pq, const float *x, uint8_t *code)
{
    float piece[64];
    for (uint32_t p = 0; p < pq->parts; p++) {
        float distance;
        take_piece(pq, x, p, piece);
        code[p] = nearest(pq->centers + (size_t)p * PQ_CENTERS * pq->width, piece, pq->width, &distance);
    }
}

void pq_put(const struct pq *pq, uint8_t *block, size_t at, const uint8_t *code)
{
    for (uint32_t p = 0; p < pq->parts; p++) {
        uint8_t *byte = block + (size_t)(p / 2) * PQ_BLOCK + (p % 2) * 16 + at % 16;
        *byte |= (uint8_t)(at < 16 ? code[p] : code[p] << 4);
    }
}

void pq_table_make(const struct pq *pq, struct pq_table *table, const float *query)
{
    float product[PQ_PARTS_MAX * PQ_CENTERS];
    float least[PQ_PARTS_MAX];
    float widest = 0;
    float piece[64];
    table->base = 0;
    for (uint32_t p = 0; p < pq->parts; p++) {
        const float *center = pq->centers + (size_t)p * PQ_CENTERS * pq->width;
        float *out = product + (size_t)p * PQ_CENTERS;
        float most = -INFINITY;
        take_piece(pq, query, p, piece);
        least[p] = INFINITY;
        for (size_t c = 0; c < PQ_CENTERS; c++) {
            float sum = 0;
            for (uint32_t i = 0; i < pq->width; i++) {
                sum += piece[i] * center[c * pq->width + i];
            }
            out[c] = sum;
            least[p] = fminf(least[p], sum);
            most = fmaxf(most, sum);
        }
        widest = fmaxf(widest, most - least[p]);
        table->base += least[p];
    }
    table->step = widest > 0 ? widest / 255.0f : 1.0f;
    float scale = 1.0f / table->step;
    for (size_t i = 0; i < (size_t)pq->parts * PQ_CENTERS; i++) {
        table->byte[i] = (uint8_t)((product[i] - least[i / PQ_CENTERS]) * scale + 0.5f);
    }
}

/* --- scanning ----------------------------------------------------------------------------------------------------- */

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

static size_t keep_naive(const uint16_t *sums, int floor, size_t first, uint32_t *place, uint16_t *sum)
{
    size_t n = 0;
    for (size_t i = 0; i < PQ_BLOCK; i++) {
        if (sums[i] > floor) {
            place[n] = (uint32_t)(first + i);
            sum[n++] = sums[i];
        }
    }
    return n;
}

static size_t scan_plain(const struct pq *pq, const struct pq_table *table, const uint8_t *codes, size_t blocks,
                         int floor, size_t room, uint32_t *place, uint16_t *sum, size_t *done)
{
    uint16_t sums[PQ_BLOCK];
    size_t n = 0;
    size_t b = 0;
    for (; b < blocks && n + PQ_BLOCK <= room; b++) {
        pq_scan_naive(pq, table, codes + b * pq_block_bytes(pq), sums);
        n += keep_naive(sums, floor, b * PQ_BLOCK, place + n, sum + n);
    }
    *done = b;
    return n;
}

#if defined(__x86_64__)

#include <immintrin.h>

/* Sums of 16-bit lanes: a shuffle gives bytes, two rows' in a lane. `mixed` adds lanes whole, so that its low byte's
 * carries spoil the high one; `high` adds the high bytes alone, and mixed - (high << 8) is then the sum of the low. */
__attribute__((target("avx2"))) static size_t scan_avx2(const struct pq *pq, const struct pq_table *table,
                                                        const uint8_t *codes, size_t blocks, int floor, size_t room,
                                                        uint32_t *place, uint16_t *sum, size_t *done)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i limit = _mm256_set1_epi16((short)(floor < -1 ? -1 : floor > INT16_MAX ? INT16_MAX : floor));
    size_t pairs = pq->parts / 2;
    size_t n = 0;
    size_t b = 0;
    for (; b < blocks && n + PQ_BLOCK <= room; b++) {
        __m256i mixed[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        __m256i high[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (size_t p = 0; p < pairs; p++) {
            __m256i code = _mm256_loadu_si256((const __m256i *)(const void *)codes);
            __m256i look = _mm256_load_si256((const __m256i *)(const void *)(table->byte + p * 2 * PQ_CENTERS));
            __m256i low_rows = _mm256_shuffle_epi8(look, _mm256_and_si256(code, nibble));
            __m256i high_rows = _mm256_shuffle_epi8(look, _mm256_and_si256(_mm256_srli_epi16(code, 4), nibble));
            mixed[0] = _mm256_add_epi16(mixed[0], low_rows);
            high[0] = _mm256_add_epi16(high[0], _mm256_srli_epi16(low_rows, 8));
            mixed[1] = _mm256_add_epi16(mixed[1], high_rows);
            high[1] = _mm256_add_epi16(high[1], _mm256_srli_epi16(high_rows, 8));
            codes += PQ_BLOCK;
        }
        __m256i sums[2]; /* rows 0 .. 15 and 16 .. 31 in order */
        for (int half = 0; half < 2; half++) {
            __m256i even = _mm256_sub_epi16(mixed[half], _mm256_slli_epi16(high[half], 8));
            __m128i evens = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
            __m128i odds = _mm_add_epi16(_mm256_castsi256_si128(high[half]), _mm256_extracti128_si256(high[half], 1));
            sums[half] = _mm256_setr_m128i(_mm_unpacklo_epi16(evens, odds), _mm_unpackhi_epi16(evens, odds));
        }
        __m256i above = _mm256_packs_epi16(_mm256_cmpgt_epi16(sums[0], limit), _mm256_cmpgt_epi16(sums[1], limit));
        unsigned mask = (unsigned)_mm256_movemask_epi8(_mm256_permute4x64_epi64(above, 0xd8));
        if (mask == 0) {
            continue;
        }
        uint16_t all[PQ_BLOCK] __attribute__((aligned(32)));
        _mm256_store_si256((__m256i *)(void *)all, sums[0]);
        _mm256_store_si256((__m256i *)(void *)(all + 16), sums[1]);
        for (; mask != 0; mask &= mask - 1) {
            unsigned i = (unsigned)__builtin_ctz(mask);
            place[n] = (uint32_t)(b * PQ_BLOCK + i);
            sum[n++] = all[i];
        }
    }
    *done = b;
    return n;
}

#endif

size_t pq_scan(const struct pq *pq, const struct pq_table *table, const uint8_t *codes, size_t blocks, int floor,
               size_t room, uint32_t *place, uint16_t *sum, size_t *done)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        return scan_avx2(pq, table, codes, blocks, floor, room, place, sum, done);
    }
#endif
    return scan_plain(pq, table, codes, blocks, floor, room, place, sum, done);
}
