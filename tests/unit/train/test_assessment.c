/*
 * What a report says about a model and its baselines: known answers, the same for any number of threads, and failing paths.
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
#include "train/assessment.h"

enum { USERS = 500, ITEMS = 100 };

/* Every user has one relevant item, u % ITEMS, and has seen the next one. */
struct world {
    struct interactions seen, relevant;
    uint32_t item_count[ITEMS];
};

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    log_setup(LOG_LEVEL_ERROR, false);
    struct interactions *parts[] = {&w->relevant, &w->seen};
    for (size_t p = 0; p < 2; p++) {
        parts[p]->start = calloc(USERS + 1, sizeof(size_t));
        parts[p]->item = calloc(USERS, sizeof(uint32_t));
        parts[p]->n = USERS;
        for (uint32_t u = 0; u < USERS; u++) {
            parts[p]->item[u] = (u + (uint32_t)p) % ITEMS;
            parts[p]->start[u + 1] = u + 1;
        }
    }
    for (uint32_t u = 0; u < USERS; u++) {
        w->item_count[w->seen.item[u]]++;
    }
    return w;
}

static void world_free(struct world *w)
{
    free(w->seen.start);
    free(w->seen.item);
    free(w->relevant.start);
    free(w->relevant.item);
    free(w);
}

/* Puts the relevant item first for the first `share` percent of users (arg), last for the others. */
static void score(void *arg, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n, float *out)
{
    (void)worker;
    const unsigned *share = arg;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < n; j++) {
            bool relevant = first + j == users[i] % ITEMS;
            out[i * n + j] = !relevant ? 0 : users[i] * 100 < *share * USERS ? 1 : -1;
        }
    }
}

static struct evaluation evaluation_of(const struct world *w, unsigned threads)
{
    return (struct evaluation){.n_users = USERS,
                               .n_items = ITEMS,
                               .seen = &w->seen,
                               .relevant = &w->relevant,
                               .seed = 3,
                               .at = metric_default_cutoffs,
                               .threads = threads};
}

/* The whole report of rankers that are right for these shares of users. */
static json_t *assess(const struct world *w, const struct evaluation *ev, const unsigned *shares, size_t n,
                      struct err *e)
{
    static const char *const names[] = {"model", "one", "two"};
    struct slicing slicing = {0};
    json_t *report = NULL;
    struct assessment *a = assessment_new(ev, w->item_count, e);
    int result = a == NULL ? -1 : 0;
    for (size_t i = 0; i < n && result == 0; i++) {
        struct ranker ranker = {NULL, score, (void *)(uintptr_t)&shares[i]};
        result = assessment_add(a, names[i], &ranker, e);
    }
    if (result == 0 && slicing_add_events(&slicing, w->seen.start, USERS, w->item_count, ITEMS, e) == 0) {
        report = assessment_report(a, &slicing, e);
    }
    slicing_release(&slicing);
    assessment_free(a);
    return report;
}

static double at(const json_t *report, const char *a, const char *b, const char *c, const char *d)
{
    const json_t *o = json_object_get(json_object_get(report, a), b);
    o = c == NULL ? o : json_object_get(o, c);
    o = d == NULL ? o : json_object_get(o, d);
    assert_true(json_is_number(o));
    return json_number_value(o);
}

static const json_t *pair_at(const json_t *report, const char *a, const char *b, const char *c, const char *d)
{
    const json_t *o = json_object_get(json_object_get(report, a), b);
    o = c == NULL ? o : json_object_get(o, c);
    o = d == NULL ? o : json_object_get(o, d);
    assert_int_equal(json_array_size(o), 2);
    return o;
}

static double low(const json_t *pair)
{
    return json_number_value(json_array_get(pair, 0));
}

static double high(const json_t *pair)
{
    return json_number_value(json_array_get(pair, 1));
}

/* The model is right for 60 % of the users, one for 50 % of the same users, two is the model again. */
static void test_known(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct evaluation ev = evaluation_of(w, 2);
    const unsigned shares[] = {60, 50, 60};
    struct err e = ERR_INIT;
    json_t *report = assess(w, &ev, shares, 3, &e);
    if (report == NULL) {
        fail_msg("%s", e.message);
    }
    assert_true(at(report, "metrics", "recall@20", NULL, NULL) == 0.6);
    assert_true(at(report, "baselines", "one", "ndcg@10", NULL) == 0.5);
    /* a share of .6 of 500: standard error sqrt(.6 * .4 / 500) = .0219 */
    const json_t *ci = pair_at(report, "metrics_ci", "recall@20", NULL, NULL);
    assert_true(fabs(low(ci) - (0.6 - 1.96 * 0.0219)) < 0.006 && fabs(high(ci) - (0.6 + 1.96 * 0.0219)) < 0.006);
    /* the difference is 1 for a tenth of the users, else 0: standard error sqrt(.1 * .9 / 500) = .0134, less than half of what
     * two independent shares would have */
    ci = pair_at(report, "comparison", "one", "recall@20", "interval");
    assert_true(fabs(at(report, "comparison", "one", "recall@20", "difference") - 0.1) < 1e-9);
    assert_true(fabs(low(ci) - (0.1 - 1.96 * 0.0134)) < 0.004 && fabs(high(ci) - (0.1 + 1.96 * 0.0134)) < 0.004);
    assert_true(at(report, "comparison", "one", "recall@20", "better") == 1);
    assert_true(at(report, "comparison", "two", "recall@20", "difference") == 0);
    assert_true(at(report, "comparison", "two", "ndcg@20", "better") == 0.5);
    ci = pair_at(report, "comparison", "two", "recall@20", "interval");
    assert_true(low(ci) == 0 && high(ci) == 0);
    assert_true(at(report, "popularity_bias", "test", "average_popularity", NULL) == 5);
    assert_true(at(report, "popularity_bias", "test", "gini", NULL) == 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(report, "evaluation"), "k")), 20);
    json_decref(report);
    world_free(w);
}

static void test_threads_and_seeds(void **state)
{
    (void)state;
    struct world *w = world_new();
    const unsigned shares[] = {70, 65, 40};
    char *texts[4];
    for (size_t i = 0; i < 4; i++) {
        struct evaluation ev = evaluation_of(w, i == 1 ? 4 : 1);
        struct err e = ERR_INIT;
        ev.seed = i == 2 ? 99 : 3;
        ev.max_users = i == 3 ? 200 : 0;
        json_t *report = assess(w, &ev, shares, 3, &e);
        assert_non_null(report);
        assert_int_equal(json_is_true(json_object_get(json_object_get(report, "evaluation"), "sampled")), i == 3);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(report, "evaluation"), "sampled_from")),
                         USERS);
        json_object_del(report, "evaluation");
        texts[i] = json_dumps(report, JSON_SORT_KEYS);
        json_decref(report);
    }
    assert_string_equal(texts[0], texts[1]);
    assert_string_not_equal(texts[0], texts[2]); /* other resamples */
    for (size_t i = 0; i < 4; i++) {
        free(texts[i]);
    }
    world_free(w);
}

/* Fewer than ten users: no intervals, but everything else. */
static void test_few_users(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct evaluation ev = evaluation_of(w, 1);
    const unsigned shares[] = {60, 50};
    struct err e = ERR_INIT;
    ev.max_users = 7;
    json_t *report = assess(w, &ev, shares, 2, &e);
    assert_non_null(report);
    assert_true(json_is_null(json_object_get(json_object_get(report, "metrics_ci"), "mrr")));
    const json_t *c = json_object_get(json_object_get(json_object_get(report, "comparison"), "one"), "recall@20");
    assert_true(json_is_null(json_object_get(c, "interval")) && json_is_null(json_object_get(c, "better")));
    assert_true(json_is_number(json_object_get(c, "difference")));
    json_decref(report);
    world_free(w);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct world *w = world_new();
    const unsigned shares[] = {60, 50};
    long n;
    for (n = 1;; n++) {
        struct evaluation ev = evaluation_of(w, 2);
        struct err e = ERR_INIT;
        mem_fail_at(n);
        json_t *report = assess(w, &ev, shares, 2, &e);
        mem_fail_at(0);
        if (report != NULL) {
            json_decref(report);
            break;
        }
        assert_true(err_isset(&e));
    }
    assert_true(n > 50);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_threads_and_seeds),
        cmocka_unit_test(test_few_users),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
