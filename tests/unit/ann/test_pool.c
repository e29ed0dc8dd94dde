/* The pool: what stays are the best, by every kernel, whatever the scores; the floor rises and never above what stays. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ann/pool.h"
#include "core/cpu.h"
#include "core/rng.h"

enum { MOST = 300, AT_ONCE = 100, BINS = 512 };

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Fills a pool with `n` candidates of a kind; place i has the i-th score of `scores`. */
static void fill(struct pool *p, struct rng *r, int kind, size_t n, float *scores)
{
    for (size_t i = 0; i < n; i++) {
        float x = rng_normal(r);
        scores[i] = kind == 0 ? x : kind == 1 ? expf(3 * x) : kind == 2 ? (float)(int)x : kind == 3 ? 7.0f : 1e38f * x;
        p->score[i] = scores[i];
        p->place[i] = (uint32_t)i;
    }
    p->n = n;
}

static void the_best_stay(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct pool p;
    struct rng r;
    static float scores[3 * MOST + AT_ONCE], sorted[3 * MOST + AT_ONCE];
    static uint32_t plain[MOST];
    assert_int_equal(pool_init(&p, MOST, AT_ONCE, &e), 0);
    for (int kind = 0; kind < 5; kind++) {
        for (size_t wanted = 1; wanted <= MOST; wanted += 23) {
            size_t n = wanted + wanted * 17 % (2 * wanted + AT_ONCE); /* of every remainder */
            for (enum cpu_level level = CPU_PLAIN; level < CPU_LEVELS; level++) {
                cpu_limit(level);
                rng_seed(&r, wanted, (uint64_t)kind);
                pool_begin(&p, wanted);
                fill(&p, &r, kind, n, scores);
                pool_shrink(&p);
                assert_int_equal(p.n, wanted < n ? wanted : n);
                memcpy(sorted, scores, n * sizeof *sorted);
                qsort(sorted, n, sizeof *sorted, descending);
                float bin = (sorted[0] - sorted[n - 1]) / (BINS - 1);
                for (size_t i = 0; i < p.n; i++) {
                    assert_true(p.score[i] == scores[p.place[i]]);
                    assert_true(i == 0 || p.place[i] > p.place[i - 1]);
                    assert_true(!isfinite(bin) || p.score[i] >= sorted[p.n - 1] - 1.01f * bin);
                    assert_true(n == p.n || p.score[i] >= p.floor - 1e-3f * fabsf(p.floor));
                    plain[i] = level == CPU_PLAIN ? p.place[i] : plain[i];
                    assert_int_equal(p.place[i], plain[i]);
                }
            }
        }
    }
    pool_release(&p);
}

static void candidates_are_added(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct pool p;
    uint32_t place[AT_ONCE];
    uint16_t sum[AT_ONCE];
    assert_int_equal(pool_init(&p, 60, AT_ONCE, &e), 0);
    pool_begin(&p, 60);
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        place[i] = 3 * i;
        sum[i] = (uint16_t)(65535 - 7 * i);
    }
    pool_add(&p, place, sum, 33, 1000, -5.0f, 0.5f);
    pool_add(&p, place, sum, AT_ONCE, 2000, 1.0f, 2.0f);
    assert_int_equal(p.n, 33 + AT_ONCE);
    assert_false(pool_is_full(&p));
    for (uint32_t i = 0; i < 33; i++) {
        assert_true(p.score[i] == -5.0f + 0.5f * (float)(65535 - 7 * i));
        assert_int_equal(p.place[i], 1000 + 3 * i);
    }
    for (uint32_t i = 0; i < AT_ONCE; i++) {
        assert_true(p.score[33 + i] == 1.0f + 2.0f * (float)(65535 - 7 * i));
        assert_int_equal(p.place[33 + i], 2000 + 3 * i);
    }
    pool_add(&p, place, sum, AT_ONCE, 0, 0, 1);
    assert_true(pool_is_full(&p));
    pool_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_stay),
        cmocka_unit_test(candidates_are_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
