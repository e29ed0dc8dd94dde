/*
 * A query is rounded to whole numbers of 16 bits (fewer for very long vectors, so that no sum leaves 32 bits): products of whole
 * numbers are what processors sum fastest, two at once, and their sums are exact. What the rounding misses is part of the bound.
 * Codes are filled up with zeros to whole groups of 32, and so is the query.
 */
#include "ann/sq8.h"

#include <math.h>
#include <string.h>

#include "core/cpu.h"
#include "core/mem.h"
#include "core/simd.h"
#include "core/vecmath.h"

struct row_head {
    float step, error;
};

enum { GROUP = 32 };

struct sq8 *sq8_new(uint32_t dim, size_t room)
{
    struct sq8 *s = mem_array(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    *s = (struct sq8){.owners = 1, .dim = dim, .room = room};
    s->stride = sizeof(struct row_head) + (dim + GROUP - 1) / GROUP * (size_t)GROUP;
    s->codes = mem_reserve(room, s->stride);
    if (s->codes == NULL) {
        mem_free(s);
        return NULL;
    }
    return s;
}

struct sq8 *sq8_own(struct sq8 *s)
{
    atomic_fetch_add(&s->owners, 1);
    return s;
}

void sq8_release(struct sq8 *s)
{
    if (s != NULL && atomic_fetch_sub(&s->owners, 1) == 1) {
        mem_unreserve(s->codes, s->room, s->stride);
        mem_free(s);
    }
}

SIMD_CLONES static float largest(const float *x, size_t n)
{
    vec8 most = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vec8 v = *(const vec8 *)(const void *)(x + i);
        most = VEC8_MAX(v, most);
        most = VEC8_MAX(-v, most);
    }
    float all = 0;
    for (size_t j = 0; j < 8; j++) {
        all = most[j] > all ? most[j] : all;
    }
    for (; i < n; i++) {
        all = fabsf(x[i]) > all ? fabsf(x[i]) : all;
    }
    return all;
}

/* Writes the codes; returns the squared length of what they miss. */
SIMD_CLONES static float encode(const float *x, size_t n, float step, int8_t *code)
{
    float scale = step > 0 ? 1.0f / step : 0;
    float missed = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (int)lrintf(x[i] * scale);
        float left = x[i] - step * (float)c;
        code[i] = (int8_t)c;
        missed += left * left;
    }
    return missed;
}

/* No code with that step is longer. */
static float longest(const struct sq8 *s, float step)
{
    return 1.01f * sqrtf((float)s->dim) * 127.0f * step;
}

void sq8_put(struct sq8 *s, size_t first, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++, x += s->dim) {
        uint8_t *row = s->codes + (first + i) * s->stride;
        struct row_head head = {.step = largest(x, s->dim) / 127.0f};
        if (!(head.step >= 1e-12f && head.step <= 1e12f)) { /* squares could leave the range of floats */
            head = (struct row_head){0, INFINITY};
        } else {
            float missed = sqrtf(encode(x, s->dim, head.step, (int8_t *)row + sizeof head));
            /* A score is within dim 2^-24 |q| |x| of the true one (Higham, 2002, 3.5), a bound's last steps within 8. */
            head.error = 1.001f * missed + ((float)s->dim + 8) * 0x1p-24f * longest(s, head.step);
        }
        memcpy(row, &head, sizeof head);
    }
}

static inline __attribute__((always_inline)) void prefetch_code(const struct sq8 *s, uint32_t row)
{
    enum { LINE = 64, MOST = 8 * LINE };
    const uint8_t *code = s->codes + row * s->stride;
    for (size_t i = 0; i < s->stride && i < MOST; i += LINE) {
        __builtin_prefetch(code + i);
    }
}

/* --- the query ----------------------------------------------------------------------------------------------------- */

struct rounded {
    int16_t number[SQ8_DIM_MAX] __attribute__((aligned(64)));
    float step;  /* of numbers; 0: all are 0 */
    float error; /* length of what they miss */
};

/* Returns false if the query is too short or too long for its squares to be floats. */
static bool round_query(const struct sq8 *s, const float *query, struct rounded *to)
{
    enum { LARGEST_CODE = 127 };
    size_t padded = s->stride - sizeof(struct row_head);
    float most = largest(query, s->dim);
    int most_number = INT32_MAX / (LARGEST_CODE * (int)s->dim);
    most_number = most_number < INT16_MAX ? most_number : INT16_MAX;
    to->step = most / (float)most_number;
    to->error = 0;
    float missed = 0;
    float scale = most > 0 ? 1.0f / to->step : 0;
    for (size_t i = 0; i < s->dim; i++) {
        to->number[i] = (int16_t)lrintf(query[i] * scale);
        float left = query[i] - to->step * (float)to->number[i];
        missed += left * left;
    }
    memset(to->number + s->dim, 0, (padded - s->dim) * sizeof *to->number);
    to->error = 1.001f * sqrtf(missed);
    return most == 0 || (most >= 1e-12f && most <= 1e12f);
}

/* --- products ------------------------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void set_bound(const struct sq8 *s, const struct rounded *q, float norm,
                                                            const uint8_t *row, int sum, struct scored *to)
{
    struct row_head head;
    memcpy(&head, row, sizeof head);
    float product = head.step * (q->step * (float)sum);
    float bound = product + 1.001f * (head.error * norm + q->error * longest(s, head.step));
    to->score = bound == bound ? bound : INFINITY; /* NaN: anything */
}

static inline __attribute__((always_inline)) const uint8_t *next_row(const struct sq8 *s, const struct scored *picked,
                                                                     size_t i, size_t n)
{
    enum { AHEAD = 20 };
    if (i + AHEAD < n) {
        prefetch_code(s, picked[i + AHEAD].row);
    }
    return s->codes + picked[i].row * s->stride;
}

static void bound_plain(const struct sq8 *s, const struct rounded *q, float norm, struct scored *picked, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *row = next_row(s, picked, i, n);
        const int8_t *code = (const int8_t *)row + sizeof(struct row_head);
        int sum = 0;
        for (size_t j = 0; j < s->dim; j++) {
            sum += code[j] * q->number[j];
        }
        set_bound(s, q, norm, row, sum, &picked[i]);
    }
}

#if defined(__x86_64__)

#include <immintrin.h>

__attribute__((target("avx2"))) static void bound_avx2(const struct sq8 *s, const struct rounded *q, float norm,
                                                       struct scored *picked, size_t n)
{
    size_t padded = s->stride - sizeof(struct row_head);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *row = next_row(s, picked, i, n);
        const uint8_t *code = row + sizeof(struct row_head);
        __m256i sum = _mm256_setzero_si256();
        for (size_t j = 0; j < padded; j += 16) {
            __m256i c = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(code + j)));
            __m256i number = _mm256_load_si256((const __m256i *)(const void *)(q->number + j));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(c, number));
        }
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
        set_bound(s, q, norm, row, _mm_cvtsi128_si32(four), &picked[i]);
    }
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) static void
bound_avx512(const struct sq8 *s, const struct rounded *q, float norm, struct scored *picked, size_t n)
{
    size_t padded = s->stride - sizeof(struct row_head);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *row = next_row(s, picked, i, n);
        const uint8_t *code = row + sizeof(struct row_head);
        __m512i sum = _mm512_setzero_si512();
        for (size_t j = 0; j < padded; j += GROUP) {
            __m512i c = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(code + j)));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(c, _mm512_load_si512(q->number + j)));
        }
        set_bound(s, q, norm, row, _mm512_reduce_add_epi32(sum), &picked[i]);
    }
}

#endif

void sq8_bound(const struct sq8 *s, const float *query, float norm, struct scored *picked, size_t n)
{
    struct rounded q;
    if (!round_query(s, query, &q)) {
        for (size_t i = 0; i < n; i++) {
            picked[i].score = INFINITY;
        }
        return;
    }
    switch (cpu_level()) {
#if defined(__x86_64__)
    case CPU_AVX512:
        bound_avx512(s, &q, norm, picked, n);
        break;
    case CPU_AVX2:
        bound_avx2(s, &q, norm, picked, n);
        break;
#endif
    default:
        bound_plain(s, &q, norm, picked, n);
    }
}
