/*
 * Codes stand in words, so that shifts of eight words at once unpack them, without a shuffle: in every group of 32 numbers byte k
 * of word w has number 8 k + w. The last group is filled up with zeros.
 */
#include "ann/sq8.h"

#include <math.h>
#include <string.h>

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
        code[i / GROUP * GROUP + i % 8 * 4 + i % GROUP / 8] = (int8_t)c;
        missed += left * left;
    }
    return missed;
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
            /* both sums are within dim 2^-24 |q| |x| of the true ones (Higham, 2002, 3.5); |x| <= sqrt(dim) 127 step */
            float dim = (float)s->dim;
            head.error = 1.001f * missed + 2.1f * dim * 0x1p-24f * sqrtf(dim) * 127.0f * head.step;
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

static inline __attribute__((always_inline)) float dot_code(const int8_t *code, const float *query, size_t n)
{
    vec8 sum[4] = {{0}};
    float rest = 0;
    for (size_t i = 0; i < n; i += GROUP) {
        ivec8 words = *(const ivec8 *)(const void *)(code + i);
        size_t here = n - i < GROUP ? n - i : GROUP;
        for (size_t j = 0; j < here / 8; j++) {
            ivec8 c = (words << (24 - 8 * (int)j)) >> 24;
            sum[j] += __builtin_convertvector(c, vec8) * *(const vec8 *)(const void *)(query + i + 8 * j);
        }
        for (size_t j = here / 8 * 8; j < here; j++) {
            int8_t c = code[i + j % 8 * 4 + j / 8];
            rest += (float)c * query[i + j];
        }
    }
    vec8 all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    return ((all[0] + all[4]) + (all[2] + all[6])) + ((all[1] + all[5]) + (all[3] + all[7])) + rest;
}

SIMD_CLONES void sq8_bound(const struct sq8 *s, const float *query, float norm, struct scored *picked, size_t n)
{
    enum { AHEAD = 12 };
    for (size_t i = 0; i < n; i++) {
        struct row_head head;
        if (i + AHEAD < n) {
            prefetch_code(s, picked[i + AHEAD].row);
        }
        const uint8_t *row = s->codes + picked[i].row * s->stride;
        memcpy(&head, row, sizeof head);
        float product = head.step * dot_code((const int8_t *)row + sizeof head, query, s->dim);
        float bound = product + head.error * norm * 1.0001f;
        picked[i].score = bound == bound ? bound : INFINITY; /* NaN: anything */
    }
}
