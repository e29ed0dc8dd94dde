#include "ann/pool.h"

#include <math.h>
#include <string.h>

#include "core/cpu.h"
#include "core/mem.h"
#include "core/simd.h"

enum {
    POOL_BINS = 512,
    LANES = 16, /* kernels read and write whole registers */
};

int pool_init(struct pool *p, size_t most, size_t at_once, struct err *e)
{
    size_t size = POOL_TIMES * most + at_once + LANES;
    *p = (struct pool){.score = mem_array(size, sizeof *p->score),
                       .place = mem_array(size, sizeof *p->place),
                       .bin = mem_array(size, sizeof *p->bin),
                       .count = mem_array(POOL_BINS, sizeof *p->count)};
    return p->score != NULL && p->place != NULL && p->bin != NULL && p->count != NULL ? 0 : err_nomem(e);
}

void pool_release(struct pool *p)
{
    mem_free(p->score);
    mem_free(p->place);
    mem_free(p->bin);
    mem_free(p->count);
}

void pool_begin(struct pool *p, size_t wanted)
{
    p->n = 0;
    p->wanted = wanted;
    p->floor = -INFINITY;
}

SIMD_CLONES void pool_add(struct pool *p, const uint32_t *place, const uint16_t *sum, size_t n, uint32_t first,
                          float base, float step)
{
    float *score = p->score + p->n;
    uint32_t *to = p->place + p->n;
    for (size_t i = 0; i < n; i++) {
        score[i] = base + step * (float)sum[i];
        to[i] = first + place[i];
    }
    p->n += n;
}

/* --- shrinking ---------------------------------------------------------------------------------------------------- */

/* The range of scores; NaN does not count. */
SIMD_CLONES static void find_range(const float *score, size_t n, float *least, float *most)
{
    vec8 high = {0};
    high -= INFINITY;
    vec8 low = high; /* of negated scores */
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vec8 x = *(const vec8 *)(const void *)(score + i);
        high = VEC8_MAX(x, high);
        low = VEC8_MAX(-x, low);
    }
    *most = -INFINITY;
    *least = INFINITY;
    for (size_t j = 0; j < 8; j++) {
        *most = high[j] > *most ? high[j] : *most;
        *least = -low[j] < *least ? -low[j] : *least;
    }
    for (; i < n; i++) {
        *most = score[i] > *most ? score[i] : *most;
        *least = score[i] < *least ? score[i] : *least;
    }
}

/* bin[i] = (score[i] - least) * scale within [0, POOL_BINS); NaN: 0. Rounds n up to a multiple of 8. */
SIMD_CLONES static void find_bins(const float *score, size_t n, float least, float scale, uint32_t *bin)
{
    const vec8 zero = {0};
    const vec8 last = zero - (float)(POOL_BINS - 1);
    for (size_t i = 0; i < n; i += 8) {
        vec8 x = (*(const vec8 *)(const void *)(score + i) - least) * scale;
        x = VEC8_MAX(x, zero);
        x = -VEC8_MAX(-x, last);
        *(ivec8 *)(void *)(bin + i) = __builtin_convertvector(x, ivec8);
    }
}

/* Four counts beside each other: scores crowd near the worst, and a count must not wait for the one before it. */
static void count_bins(struct pool *p)
{
    enum { PARTS = 4 };
    uint32_t part[PARTS][POOL_BINS];
    size_t i = 0;
    memset(part, 0, sizeof part);
    for (; i + PARTS <= p->n; i += PARTS) {
        for (size_t j = 0; j < PARTS; j++) {
            part[j][p->bin[i + j]]++;
        }
    }
    for (; i < p->n; i++) {
        part[0][p->bin[i]]++;
    }
    for (size_t j = 0; j < POOL_BINS; j++) {
        p->count[j] = part[0][j] + part[1][j] + part[2][j] + part[3][j];
    }
}

/* Leaves candidates of bins above the border, and the first `left` of those on it. Returns how many. */
static size_t keep_plain(struct pool *p, uint32_t border, size_t left)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i++) {
        bool on_border = p->bin[i] == border && left > 0;
        p->score[kept] = p->score[i];
        p->place[kept] = p->place[i];
        kept += p->bin[i] > border || on_border;
        left -= on_border;
    }
    return kept;
}

#if defined(__x86_64__)

#include <immintrin.h>

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,popcnt"))) static size_t
keep_avx512(struct pool *p, uint32_t border, size_t left)
{
    const __m512i edge = _mm512_set1_epi32((int)border);
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i += LANES) {
        uint32_t rest = p->n - i < LANES ? (uint32_t)(p->n - i) : LANES;
        __mmask16 there = (__mmask16)((1u << rest) - 1);
        __m512i bin = _mm512_loadu_si512(p->bin + i);
        __m512 score = _mm512_loadu_ps(p->score + i);
        __m512i place = _mm512_loadu_si512(p->place + i);
        uint32_t keep = _mm512_mask_cmpgt_epu32_mask(there, bin, edge);
        uint32_t on_border = _mm512_mask_cmpeq_epu32_mask(there, bin, edge);
        for (; on_border != 0 && left > 0; on_border &= on_border - 1, left--) {
            keep |= on_border & -on_border;
        }
        _mm512_storeu_ps(p->score + kept, _mm512_maskz_compress_ps((__mmask16)keep, score));
        _mm512_storeu_si512(p->place + kept, _mm512_maskz_compress_epi32((__mmask16)keep, place));
        kept += (size_t)__builtin_popcount(keep);
    }
    return kept;
}

#endif

static size_t keep_best(struct pool *p, uint32_t border, size_t left)
{
#if defined(__x86_64__)
    if (cpu_level() >= CPU_AVX512) {
        return keep_avx512(p, border, left);
    }
#endif
    return keep_plain(p, border, left);
}

void pool_shrink(struct pool *p)
{
    if (p->n <= p->wanted) {
        return;
    }
    float least, most;
    find_range(p->score, p->n, &least, &most);
    float scale = most > least ? (float)(POOL_BINS - 1) / (most - least) : 0;
    scale = isfinite(scale) ? scale : 0;
    find_bins(p->score, p->n, least, scale, p->bin);
    count_bins(p);
    uint32_t border = POOL_BINS - 1;
    size_t left = p->wanted; /* of the border's bin */
    while (p->count[border] < left) {
        left -= p->count[border--];
    }
    p->n = keep_best(p, border, left);
    p->floor = fmaxf(p->floor, scale > 0 ? least + (float)border / scale : least);
}
