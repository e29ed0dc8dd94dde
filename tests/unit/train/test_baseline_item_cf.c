/*
 * Item-based collaborative filtering: by hand, against an oracle that compares all pairs of items and users, with its
 * bounds, and where it must win: a world of groups with items of their own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/rng.h"
#include "train/baseline_item_cf.h"
#include "train/evaluate.h"

struct world {
    size_t n_users, n_items;
    struct interactions part;
    uint32_t *item_count;
};

static struct world *world_new(size_t n_users, size_t n_items, size_t most)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->n_users = n_users;
    w->n_items = n_items;
    w->part.start = calloc(n_users + 1, sizeof *w->part.start);
    w->part.item = calloc(n_users * most + 1, sizeof *w->part.item);
    w->item_count = calloc(n_items, sizeof *w->item_count);
    log_setup(LOG_LEVEL_ERROR, false);
    return w;
}

static void add_event(struct world *w, size_t user, uint32_t item)
{
    w->part.item[w->part.n++] = item;
    w->item_count[item]++;
    w->part.start[user + 1] = w->part.n;
}

/* Repeated events, users without any, popular and rare items. */
static struct world *random_world(uint64_t seed, size_t n_users, size_t n_items, uint32_t most)
{
    struct world *w = world_new(n_users, n_items, most);
    struct rng r;
    rng_seed(&r, seed, 1);
    for (size_t u = 0; u < n_users; u++) {
        uint32_t n = rng_below(&r, 5) == 0 ? 0 : rng_below(&r, most + 1);
        w->part.start[u + 1] = w->part.n;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t below = 1 + rng_below(&r, (uint32_t)n_items);
            add_event(w, u, rng_below(&r, below));
        }
    }
    return w;
}

static void world_free(struct world *w)
{
    free(w->part.start);
    free(w->part.item);
    free(w->item_count);
    free(w);
}

static struct item_cf *make(const struct world *w, const struct item_cf_options *options)
{
    struct err e = ERR_INIT;
    struct item_cf *cf = item_cf_new(&w->part, w->n_users, w->n_items, w->item_count, options, &e);
    if (cf == NULL) {
        fail_msg("%s", e.message);
    }
    return cf;
}

/* --- the oracle -------------------------------------------------------------------------------------------------------*/

/* Whether the item is among the user's latest `history` distinct ones. */
static bool has(const struct world *w, size_t user, uint32_t item, uint32_t history)
{
    uint32_t distinct = 0;
    for (size_t i = w->part.start[user + 1]; i-- > w->part.start[user];) {
        bool later = false;
        for (size_t j = i + 1; j < w->part.start[user + 1]; j++) {
            later = later || w->part.item[j] == w->part.item[i];
        }
        distinct += !later;
        if (distinct > history) {
            return false;
        }
        if (w->part.item[i] == item) {
            return true;
        }
    }
    return false;
}

/* [n_items, n_items] */
static float *similarities(const struct world *w, uint32_t history, double shrink)
{
    float *s = calloc(w->n_items * w->n_items, sizeof *s);
    bool *in = calloc(w->n_users * w->n_items, sizeof *in);
    for (size_t u = 0; u < w->n_users; u++) {
        for (uint32_t i = 0; i < w->n_items; i++) {
            in[u * w->n_items + i] = has(w, u, i, history);
        }
    }
    for (size_t i = 0; i < w->n_items; i++) {
        for (size_t j = 0; j < w->n_items; j++) {
            double both = 0, one = 0, other = 0;
            for (size_t u = 0; u < w->n_users; u++) {
                one += in[u * w->n_items + i];
                other += in[u * w->n_items + j];
                both += in[u * w->n_items + i] && in[u * w->n_items + j];
            }
            s[i * w->n_items + j] = i != j && both > 0 ? (float)(both / (sqrt(one * other) + shrink)) : 0;
        }
    }
    free(in);
    return s;
}

/* Leaves in each row only its `neighbours` best. */
static void keep_best(const struct world *w, uint32_t neighbours, float *s)
{
    struct scored *best = calloc(w->n_items, sizeof *best);
    for (uint32_t i = 0; i < w->n_items; i++) {
        float *row = s + i * w->n_items;
        size_t n = topk_naive(best, neighbours, row, w->n_items);
        memset(row, 0, w->n_items * sizeof *row);
        for (size_t j = 0; j < n; j++) {
            row[best[j].row] = best[j].score;
        }
    }
    free(best);
}

static void check_leads(const struct world *w, const struct item_cf *cf, const float *s)
{
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct scored *leads;
        size_t n = item_cf_leads(cf, i, &leads), at = 0;
        for (uint32_t j = 0; j < w->n_items; j++) {
            if (s[j * w->n_items + i] > 0) {
                assert_true(at < n && leads[at].row == j && leads[at].score == s[j * w->n_items + i]);
                at++;
            }
        }
        assert_int_equal(at, n);
    }
}

static void check_scores(const struct world *w, struct item_cf *cf, const struct item_cf_options *o, const float *s)
{
    struct ranker r = item_cf_ranker(cf);
    struct err e = ERR_INIT;
    float *scores = calloc(RANK_BLOCK * w->n_items, sizeof *scores);
    uint32_t users[RANK_BLOCK];
    for (uint32_t first = 0; first < w->n_users; first += RANK_BLOCK) {
        size_t count = w->n_users - first < RANK_BLOCK ? w->n_users - first : RANK_BLOCK;
        for (uint32_t i = 0; i < count; i++) {
            users[i] = first + i;
        }
        unsigned worker = first / RANK_BLOCK % o->threads;
        assert_int_equal(r.begin(r.arg, worker, users, count, &e), 0);
        for (size_t tile = 0, n; tile < w->n_items; tile += n) { /* tiles of an odd size */
            n = w->n_items - tile < 7 ? w->n_items - tile : 7;
            r.score(r.arg, worker, users, count, tile, n, scores);
            for (size_t i = 0; i < count; i++) {
                for (size_t j = 0; j < n; j++) {
                    double sum = 0;
                    for (uint32_t k = 0; k < w->n_items; k++) {
                        sum += has(w, users[i], k, o->history) ? (double)s[(tile + j) * w->n_items + k] : 0;
                    }
                    float got = scores[i * n + j];
                    assert_true(sum > 0 ? fabs((double)got - sum) < 1e-5 : got >= -1 && got < 0);
                }
            }
        }
    }
    free(scores);
}

static void test_oracle(void **state)
{
    (void)state;
    const struct item_cf_options options[] = {{1000, 1000, 1000000, 1, 1, 0},
                                              {5, 1000, 1000000, 1, 2, 3.5},
                                              {8, 6, 1000000, 1, 3, 20},
                                              {1, 1, 1000000, 1, 2, 0}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        struct world *w = random_world(i, 150, 70, 30);
        struct item_cf *cf = make(w, &options[i]);
        float *s = similarities(w, options[i].history, options[i].shrink);
        keep_best(w, options[i].neighbours, s);
        check_leads(w, cf, s);
        check_scores(w, cf, &options[i], s);
        free(s);
        item_cf_free(cf);
        world_free(w);
    }
}

/* Users {0, 1}, {0, 1, 2}, {0}, {3}, {}: similarity of 0 and 1 is 2 / sqrt(3 * 2), of 0 and 2 is 1 / sqrt(3 * 1), of 1 and
 * 2 is 1 / sqrt(2 * 1); 3 is alone. */
static void test_by_hand(void **state)
{
    (void)state;
    struct world *w = world_new(5, 5, 4);
    const struct item_cf_options options = {10, 10, 1000, 1, 1, 0};
    add_event(w, 0, 0);
    add_event(w, 0, 1);
    add_event(w, 0, 0); /* again: counts once */
    add_event(w, 1, 2);
    add_event(w, 1, 0);
    add_event(w, 1, 1);
    add_event(w, 2, 0);
    add_event(w, 3, 3);
    w->part.start[5] = w->part.n;
    struct item_cf *cf = make(w, &options);
    struct ranker r = item_cf_ranker(cf);
    const uint32_t users[3] = {0, 2, 4};
    float s[15];
    struct err e = ERR_INIT;
    assert_int_equal(r.begin(r.arg, 0, users, 3, &e), 0);
    r.score(r.arg, 0, users, 3, 0, 5, s);
    assert_true(fabs((double)s[2] - (1 / sqrt(3) + 1 / sqrt(2))) < 1e-6); /* user 0: item 2 from both of his */
    assert_true(fabs((double)s[5 + 1] - 2 / sqrt(6)) < 1e-6);             /* user 2: 1 before 2, from 0 */
    assert_true(fabs((double)s[5 + 2] - 1 / sqrt(3)) < 1e-6);
    assert_true(s[5 + 3] < 0 && s[5 + 4] < s[5 + 3]); /* nothing leads there: by popularity */
    assert_true(s[10] < 0 && s[10] > s[11] && s[11] > s[12] && s[12] == s[13] && s[13] > s[14]); /* no history */
    item_cf_free(cf);
    world_free(w);
}

/* Users of a group like the group's items only, so all that is relevant is found first; popularity finds a share. */
static void test_groups(void **state)
{
    (void)state;
    enum { GROUPS = 6, USERS = 240, ITEMS = 60 };
    struct world *w = world_new(USERS, ITEMS, 10);
    struct interactions relevant = {0};
    struct rng r;
    rng_seed(&r, 3, 3);
    relevant.start = calloc(USERS + 1, sizeof *relevant.start);
    relevant.item = calloc(USERS * 10, sizeof *relevant.item);
    for (uint32_t u = 0; u < USERS; u++) { /* half of the group's ten items each; the rest is what to find */
        uint32_t group = u % GROUPS;
        for (uint32_t i = 0; i < 10; i++) {
            if (rng_below(&r, 2) == 0) {
                add_event(w, u, group * 10 + i);
            } else {
                relevant.item[relevant.n++] = group * 10 + i;
            }
        }
        w->part.start[u + 1] = w->part.n;
        relevant.start[u + 1] = relevant.n;
    }
    const struct item_cf_options options = item_cf_defaults(ITEMS, 1, 2);
    struct item_cf *cf = make(w, &options);
    struct ranker ours = item_cf_ranker(cf), popular = popularity_ranker(w->item_count);
    struct evaluation ev = {USERS, ITEMS, &w->part, &relevant, NULL, 0, 0, {1, {10}}, 2};
    struct metrics m, p;
    struct err e = ERR_INIT;
    assert_int_equal(evaluate(&ev, &ours, "test", &m, &e), 0);
    assert_int_equal(evaluate(&ev, &popular, "test", &p, &e), 0);
    assert_true(m.recall[0] > 0.99 && m.ndcg[0] > 0.99 && p.recall[0] < 0.3);
    item_cf_free(cf);
    free(relevant.start);
    free(relevant.item);
    world_free(w);
}

static void expect_same(const struct world *w, const struct item_cf *a, const struct item_cf *b)
{
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct scored *x, *y;
        size_t n = item_cf_leads(a, i, &x);
        assert_int_equal(n, item_cf_leads(b, i, &y));
        assert_true(n == 0 || memcmp(x, y, n * sizeof *x) == 0);
    }
}

static void test_threads(void **state)
{
    (void)state;
    struct world *w = random_world(9, 300, 500, 60);
    struct item_cf_options options = {20, 100, 1000000, 1, 1, 5};
    struct item_cf *one = make(w, &options);
    for (int again = 0; again < 3; again++) {
        options.threads = 4;
        struct item_cf *four = make(w, &options);
        expect_same(w, one, four);
        item_cf_free(four);
    }
    item_cf_free(one);
    world_free(w);
}

/* With a tenth of the events, similarities are about what they were; the same seed gives the same sample. */
static void test_sample(void **state)
{
    (void)state;
    struct world *w = world_new(40000, 4, 2);
    struct rng r;
    rng_seed(&r, 4, 4);
    for (size_t u = 0; u < w->n_users; u++) { /* items 0 and 1 together, half of the time with 2 and 3 instead */
        uint32_t pair = 2 * rng_below(&r, 2);
        w->part.start[u + 1] = w->part.n;
        add_event(w, u, pair);
        if (rng_below(&r, 4) != 0) {
            add_event(w, u, pair + 1);
        }
    }
    struct item_cf_options options = {3, 10, w->part.n / 10, 1, 2, 0};
    struct item_cf *cf = make(w, &options), *same = make(w, &options);
    const struct scored *near;
    expect_same(w, cf, same);
    assert_int_equal(item_cf_leads(cf, 0, &near), 1);
    assert_int_equal(near[0].row, 1);
    assert_true(fabsf(near[0].score - sqrtf(0.75f)) < 0.02f); /* 3/4 / sqrt(1 * 3/4) */
    item_cf_free(cf);
    item_cf_free(same);
    world_free(w);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(item_cf_defaults(1, 0, 1).neighbours, 200);
    assert_int_equal(item_cf_defaults(41000, 0, 1).neighbours, 200);
    assert_int_equal(item_cf_defaults(1000000, 0, 1).neighbours, 25);
    assert_int_equal(item_cf_defaults(100000000, 0, 1).neighbours, 10);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct world *w = random_world(5, 60, 40, 20);
    const struct item_cf_options options = {10, 10, 1000000, 1, 2, 0};
    const uint32_t users[2] = {1, 2};
    long n;
    for (n = 1;; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        struct item_cf *cf = item_cf_new(&w->part, w->n_users, w->n_items, w->item_count, &options, &e);
        struct ranker r = item_cf_ranker(cf);
        int result = cf == NULL ? -1 : r.begin(r.arg, 0, users, 2, &e);
        mem_fail_at(0);
        item_cf_free(cf);
        if (result == 0) {
            break;
        }
        assert_true(err_isset(&e));
    }
    assert_true(n > 15);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle),    cmocka_unit_test(test_by_hand), cmocka_unit_test(test_groups),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_sample),  cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
