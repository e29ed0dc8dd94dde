/*
 * Slices, bootstrap and exposure: against oracles that count by the definitions, by hand, and by what theory says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "train/exposure.h"
#include "train/slices.h"

/* --- bootstrap --------------------------------------------------------------------------------------------------------*/

static void test_counts(void **state)
{
    (void)state;
    struct bootstrap b = {0}, again = {0}, other = {0}, large = {0};
    struct err e = ERR_INIT;
    assert_int_equal(bootstrap_init(&b, 50, 3, &e), 0);
    assert_int_equal(bootstrap_init(&again, 50, 3, &e), 0);
    assert_int_equal(bootstrap_init(&other, 50, 4, &e), 0);
    assert_int_equal(bootstrap_init(&large, 100000, 4, &e), 0);
    assert_int_equal(b.groups, 50);
    assert_int_equal(large.groups, BOOTSTRAP_GROUPS);
    assert_memory_equal(b.counts, again.counts, BOOTSTRAP_REPLICATES * 50 * sizeof(float));
    assert_memory_not_equal(b.counts, other.counts, BOOTSTRAP_REPLICATES * 50 * sizeof(float));
    for (size_t r = 0; r < BOOTSTRAP_REPLICATES; r++) { /* as many draws as there are groups */
        float sum = 0;
        for (size_t g = 0; g < 50; g++) {
            sum += b.counts[r * 50 + g];
        }
        assert_true(sum == 50);
    }
    bootstrap_release(&b);
    bootstrap_release(&again);
    bootstrap_release(&other);
    bootstrap_release(&large);
}

/* The interval of a mean is near mean +- 1.96 standard errors, and covers the true mean as often as it says. */
static void test_coverage_of_intervals(void **state)
{
    (void)state;
    enum { USERS = 200, WORLDS = 300 };
    float *sums = calloc(USERS, sizeof *sums);
    float *totals = calloc(BOOTSTRAP_REPLICATES, sizeof *totals);
    double *values = calloc(BOOTSTRAP_REPLICATES, sizeof *values);
    int covered = 0;
    struct rng r;
    rng_seed(&r, 5, 5);
    for (int world = 0; world < WORLDS; world++) {
        struct bootstrap b = {0};
        struct err e = ERR_INIT;
        double mean = 0, square = 0;
        for (size_t i = 0; i < USERS; i++) {
            sums[i] = rng_uniform(&r); /* true mean 1/2, standard deviation sqrt(1/12) */
            mean += sums[i] / USERS;
            square += sums[i] * sums[i] / USERS;
        }
        assert_int_equal(bootstrap_init(&b, USERS, (uint64_t)world, &e), 0);
        bootstrap_sums(&b, sums, 1, totals);
        for (size_t i = 0; i < BOOTSTRAP_REPLICATES; i++) {
            values[i] = totals[i] / USERS;
        }
        struct interval interval = bootstrap_interval(values);
        double error = sqrt((square - mean * mean) / USERS);
        assert_true(fabs(interval.low - (mean - 1.96 * error)) < 0.5 * error);
        assert_true(fabs(interval.high - (mean + 1.96 * error)) < 0.5 * error);
        covered += interval.low <= 0.5 && interval.high >= 0.5;
        bootstrap_release(&b);
    }
    assert_in_range(covered, WORLDS * 90 / 100, WORLDS * 99 / 100);
    free(sums);
    free(totals);
    free(values);
}

static void test_interval_of_odd_values(void **state)
{
    (void)state;
    double *values = calloc(BOOTSTRAP_REPLICATES, sizeof *values);
    for (size_t i = 0; i < BOOTSTRAP_REPLICATES; i++) {
        values[i] = NAN;
    }
    assert_true(isnan(bootstrap_interval(values).low) && isnan(bootstrap_interval(values).high));
    for (size_t i = 0; i < BOOTSTRAP_REPLICATES; i++) { /* 0 .. 999, backwards */
        values[i] = (double)(BOOTSTRAP_REPLICATES - 1 - i);
    }
    struct interval all = bootstrap_interval(values);
    assert_true(all.low == 25 && all.high == 974);
    for (size_t i = 0; i < BOOTSTRAP_REPLICATES; i++) { /* a quarter is missing: 0 .. 749 */
        values[i] = i % 4 == 0 ? NAN : (double)(i - i / 4 - 1);
    }
    struct interval some = bootstrap_interval(values);
    assert_true(some.low == 18 && some.high == 731);
    free(values);
}

/* --- exposure ---------------------------------------------------------------------------------------------------------*/

/* Gini by its definition: half the mean absolute difference over the mean. */
static double gini_naive(const uint32_t *x, size_t n)
{
    double differences = 0, total = 0;
    for (size_t i = 0; i < n; i++) {
        total += x[i];
        for (size_t j = 0; j < n; j++) {
            differences += fabs((double)x[i] - (double)x[j]);
        }
    }
    return differences / (2 * (double)n * total);
}

static void test_exposure(void **state)
{
    (void)state;
    struct exposure x;
    struct err e = ERR_INIT;
    const uint32_t even[4] = {3, 3, 3, 3}, one[4] = {0, 0, 8, 0}, none[4] = {0}, events[4] = {10, 20, 30, 40};
    assert_int_equal(exposure_of(even, events, 4, &x, &e), 0);
    assert_true(x.gini == 0 && x.average_popularity == 25 && x.coverage == 1);
    assert_int_equal(exposure_of(one, events, 4, &x, &e), 0);
    assert_true(fabs(x.gini - 0.75) < 1e-12 && x.average_popularity == 30 && x.coverage == 0.25);
    assert_int_equal(exposure_of(none, events, 4, &x, &e), 0);
    assert_true(x.gini == 0 && x.average_popularity == 0 && x.coverage == 0);
    struct rng r;
    rng_seed(&r, 1, 1);
    uint32_t many[100], counts[100];
    for (size_t i = 0; i < 100; i++) {
        many[i] = rng_below(&r, 3) == 0 ? rng_below(&r, 1000) : 0;
        counts[i] = rng_below(&r, 50);
    }
    assert_int_equal(exposure_of(many, counts, 100, &x, &e), 0);
    assert_true(fabs(x.gini - gini_naive(many, 100)) < 1e-12);
    mem_fail_at(1);
    assert_true(exposure_of(many, counts, 100, &x, &e) < 0 && err_isset(&e));
    mem_fail_at(0);
}

/* --- a random world ---------------------------------------------------------------------------------------------------*/

enum { USERS = 400, ITEMS = 120, COLOURS = 5, TAGS = 7, K = 20 };

/* Two features: a colour each user has (one of COLOURS), and tags each item has (any number of TAGS, some twice). */
struct world {
    struct outcomes o;
    size_t user_start[USERS + 1]; /* train events of users, only how many matters */
    uint32_t item_count[ITEMS];
    struct feature features[2];
    struct tower_spec specs[2];
    struct feature_column columns[2];
    struct feature_rows rows[2];
    int32_t colour[USERS], tags[ITEMS * 5];
    size_t tag_start[ITEMS + 1];
    struct buf vocab[2];
};

static void make_vocab(struct world *w, enum side side, const char *letters)
{
    struct span spans[TAGS];
    struct err e = ERR_INIT;
    size_t n = strlen(letters);
    for (size_t i = 0; i < n; i++) {
        spans[i] = (struct span){letters + i, 1};
    }
    strtab_write(&w->vocab[side], spans, n);
    assert_int_equal(strtab_view(&w->features[side].vocab, w->vocab[side].data, w->vocab[side].len, true, &e), 0);
    w->features[side].rows = SCHEMA_FIRST + (uint32_t)n;
    w->specs[side] = (struct tower_spec){.features = &w->features[side], .n_features = 1};
    w->rows[side] = (struct feature_rows){.spec = &w->specs[side], .columns = &w->columns[side]};
}

static void make_outcomes(struct world *w, struct rng *r)
{
    struct outcomes *o = &w->o;
    o->at = metric_default_cutoffs;
    o->n_items = ITEMS;
    o->n_users = USERS / 2; /* every other user */
    o->user = calloc(o->n_users, sizeof *o->user);
    o->n_relevant = calloc(o->n_users, sizeof *o->n_relevant);
    o->start = calloc(o->n_users + 1, sizeof *o->start);
    o->found = calloc(o->n_users * 10, sizeof *o->found);
    for (size_t i = 0; i < o->n_users; i++) {
        uint32_t n = 1 + rng_below(r, 9), first = rng_below(r, ITEMS - 10);
        size_t at = o->start[i];
        o->user[i] = (uint32_t)(2 * i);
        for (uint32_t j = 0; j < n; j++) { /* distinct ranks: 1 + j * 13 at most, some beyond everything */
            o->found[at++] = (struct found){first + j, rng_below(r, 3) == 0 ? 0 : 1 + 7 * j + rng_below(r, 6)};
        }
        o->start[i + 1] = at;
        o->n_relevant[i] = n + (rng_below(r, 4) == 0 ? rng_below(r, 3) : 0);
    }
}

static struct world *world_new(uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    struct rng r;
    rng_seed(&r, seed, 2);
    assert_non_null(w);
    strcpy(w->features[0].name, "colour");
    strcpy(w->features[1].name, "tags");
    w->features[0].type = FEATURE_ONEHOT;
    w->features[1].type = FEATURE_CATEGORICAL;
    w->features[1].multi = '|';
    make_vocab(w, SIDE_USER, "abcde");
    make_vocab(w, SIDE_ITEM, "tuvwxyz");
    for (size_t u = 0; u < USERS; u++) {
        w->colour[u] = (int32_t)rng_below(&r, SCHEMA_FIRST + COLOURS);
        w->user_start[u + 1] = w->user_start[u] + (rng_below(&r, 3) == 0 ? 0 : 1 + rng_below(&r, 5));
    }
    for (size_t i = 0; i < ITEMS; i++) {
        uint32_t n = rng_below(&r, 6);
        w->item_count[i] = rng_below(&r, 4) == 0 ? 0 : 1 + rng_below(&r, 20) * rng_below(&r, 20);
        w->tag_start[i + 1] = w->tag_start[i] + n;
        for (uint32_t j = 0; j < n; j++) {
            w->tags[w->tag_start[i] + j] = (int32_t)rng_below(&r, SCHEMA_FIRST + TAGS);
        }
    }
    w->columns[0].index = w->colour;
    w->columns[1].index = w->tags;
    w->columns[1].start = w->tag_start;
    make_outcomes(w, &r);
    return w;
}

static void world_free(struct world *w)
{
    free(w->o.user);
    free(w->o.n_relevant);
    free(w->o.start);
    free(w->o.found);
    buf_release(&w->vocab[0]);
    buf_release(&w->vocab[1]);
    free(w);
}

static void slice_world(struct world *w, struct slicing *s)
{
    struct err e = ERR_INIT;
    assert_int_equal(slicing_add_events(s, w->user_start, USERS, w->item_count, ITEMS, &e), 0);
    slicing_add_features(s, SIDE_USER, &w->rows[SIDE_USER], NULL);
    slicing_add_features(s, SIDE_ITEM, &w->rows[SIDE_ITEM], NULL);
}

/* --- the oracle -------------------------------------------------------------------------------------------------------*/

static bool item_is(const struct world *w, const char *by, const char *value, uint32_t item)
{
    if (strcmp(by, "new_items") == 0) {
        return (w->item_count[item] == 0) == (strcmp(value, "new") == 0);
    }
    for (size_t i = w->tag_start[item]; i < w->tag_start[item + 1]; i++) {
        const char *name = w->tags[i] == 0 ? "(unknown)" : w->tags[i] == 1 ? "(missing)" : "";
        if (strcmp(name, value) == 0 || (*name == '\0' && value[1] == '\0' && "tuvwxyz"[w->tags[i] - 2] == value[0])) {
            return true;
        }
    }
    return w->tag_start[item] == w->tag_start[item + 1] && strcmp(value, "(missing)") == 0;
}

static bool user_is(const struct world *w, const char *by, const char *value, uint32_t user)
{
    if (strcmp(by, "new_users") == 0) {
        return (w->user_start[user] == w->user_start[user + 1]) == (strcmp(value, "new") == 0);
    }
    int32_t c = w->colour[user];
    return c < 2 ? strcmp(value, c == 0 ? "(unknown)" : "(missing)") == 0 : "abcde"[c - 2] == value[0] && !value[1];
}

/* Of one user: relevant items of the slice, and what was gained with them. */
static uint32_t judge(const struct world *w, const struct slice *s, size_t i, double *recall, double *ndcg)
{
    const struct outcomes *o = &w->o;
    bool users = s->dimension->side == SIDE_USER;
    uint32_t relevant = 0, hits = 0;
    double gain = 0, ideal = 0;
    if (users && !user_is(w, s->dimension->by, s->label, o->user[i])) {
        return 0;
    }
    for (size_t j = o->start[i]; j < o->start[i + 1]; j++) {
        if (users || item_is(w, s->dimension->by, s->label, o->found[j].item)) {
            bool hit = o->found[j].rank >= 1 && o->found[j].rank <= K;
            relevant++;
            hits += hit;
            gain += hit ? 1 / log2(o->found[j].rank + 1.0) : 0;
        }
    }
    if (users || (strcmp(s->dimension->by, "new_items") == 0 && strcmp(s->label, "new") == 0)) {
        relevant += o->n_relevant[i] - (uint32_t)(o->start[i + 1] - o->start[i]);
    }
    for (uint32_t rank = 1; rank <= K && rank <= relevant; rank++) {
        ideal += 1 / log2(rank + 1.0);
    }
    *recall = relevant > 0 ? (double)hits / relevant : 0;
    *ndcg = relevant > 0 ? gain / ideal : 0;
    return relevant;
}

static void test_oracle(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5; seed++) {
        struct world *w = world_new(seed);
        struct slicing s = {0};
        struct slice *slices;
        struct err e = ERR_INIT;
        size_t n, by_oracle = 0, events[SLICE_DIMENSIONS] = {0};
        slice_world(w, &s);
        assert_int_equal(s.n, 5);
        assert_int_equal(slices_of(&s, &w->o, 1, NULL, &slices, &n, &e), 0);
        for (size_t i = 0; i < n; i++) {
            double recall = 0, ndcg = 0;
            size_t users = 0, total = 0;
            events[slices[i].dimension - s.dimensions] += slices[i].events;
            if (strcmp(slices[i].dimension->by, "popularity") == 0) {
                continue; /* see below */
            }
            for (size_t u = 0; u < w->o.n_users; u++) {
                double r, g;
                uint32_t relevant = judge(w, &slices[i], u, &r, &g);
                users += relevant > 0;
                total += relevant;
                recall += relevant > 0 ? r : 0;
                ndcg += relevant > 0 ? g : 0;
            }
            assert_int_equal(slices[i].users, users);
            assert_int_equal(slices[i].events, total);
            assert_true(fabs(slices[i].recall - recall / (double)users) < 1e-12);
            assert_true(fabs(slices[i].ndcg - ndcg / (double)users) < 1e-12);
            by_oracle++;
        }
        assert_int_equal(by_oracle, 2 + 2 + SCHEMA_FIRST + COLOURS + SCHEMA_FIRST + TAGS);
        assert_int_equal(events[0], events[1]); /* partitions of the same events */
        assert_int_equal(events[0], events[3]);
        assert_true(events[2] < events[1]); /* without new items */
        mem_free(slices);
        slicing_release(&s);
        world_free(w);
    }
}

/* Groups of about a tenth of the events each, rising, equals together. */
static void test_popularity_groups(void **state)
{
    (void)state;
    struct slicing s = {0};
    struct err e = ERR_INIT;
    const size_t start[2] = {0, 1};
    uint32_t counts[1000], mass[POPULARITY_GROUPS] = {0}, total = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        counts[i] = i % 10 == 0 ? 0 : 1 + 20000 / (i + 1);
        total += counts[i];
    }
    assert_int_equal(slicing_add_events(&s, start, 1, counts, 1000, &e), 0);
    const struct dimension *d = &s.dimensions[2];
    assert_string_equal(d->by, "popularity");
    for (uint32_t i = 0; i < 1000; i++) {
        assert_true(counts[i] == 0 ? d->index[i] == -1 : d->index[i] >= 0 && d->index[i] < POPULARITY_GROUPS);
        for (uint32_t j = 0; j < i; j++) {
            assert_true(counts[i] != counts[j] || d->index[i] == d->index[j]);
            assert_true(counts[i] <= counts[j] || d->index[i] >= d->index[j]);
        }
        if (counts[i] > 0) {
            mass[d->index[i]] += counts[i];
            assert_in_range(counts[i], d->events[d->index[i]][0], d->events[d->index[i]][1]);
        }
    }
    for (size_t g = 0; g + 2 < POPULARITY_GROUPS; g++) { /* the last are few items, which cannot be divided */
        assert_in_range(mass[g], total / 10 - total / 25, total / 10 + total / 25);
    }
    slicing_release(&s);
}

/* Intervals hold the mean, are wider for fewer users, and are those of a bootstrap done the slow way. */
static void test_intervals(void **state)
{
    (void)state;
    struct world *w = world_new(8);
    struct slicing s = {0};
    struct slice *slices;
    struct bootstrap b = {0};
    struct err e = ERR_INIT;
    size_t n;
    double values[BOOTSTRAP_REPLICATES];
    slice_world(w, &s);
    assert_int_equal(bootstrap_init(&b, w->o.n_users, 1, &e), 0);
    assert_int_equal(slices_of(&s, &w->o, 1, &b, &slices, &n, &e), 0);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(slices[i].dimension->by, "popularity") == 0) {
            continue;
        }
        assert_int_equal(isnan(slices[i].recall_ci.low), slices[i].users < SLICE_MIN_USERS);
        for (size_t r = 0; r < BOOTSTRAP_REPLICATES; r++) {
            double sum = 0, users = 0;
            for (size_t u = 0; u < w->o.n_users; u++) {
                double recall, ndcg;
                if (judge(w, &slices[i], u, &recall, &ndcg) > 0) {
                    sum += (double)b.counts[r * b.groups + u] * recall;
                    users += (double)b.counts[r * b.groups + u];
                }
            }
            values[r] = sum / users;
        }
        struct interval naive = bootstrap_interval(values);
        if (slices[i].users >= SLICE_MIN_USERS) {
            assert_true(fabs(naive.low - slices[i].recall_ci.low) < 1e-5);
            assert_true(fabs(naive.high - slices[i].recall_ci.high) < 1e-5);
            assert_true(naive.low <= slices[i].recall && slices[i].recall <= naive.high);
        }
    }
    mem_free(slices);
    bootstrap_release(&b);
    slicing_release(&s);
    world_free(w);
}

/* Only what was asked for; a feature of too many values is left out unless it was. */
static void test_names(void **state)
{
    (void)state;
    struct world *w = world_new(9);
    struct slicing s = {0};
    char colour[] = "colour", other[] = "other";
    char *const names[] = {other, colour, NULL}, *const none[] = {NULL};
    slicing_add_features(&s, SIDE_USER, &w->rows[SIDE_USER], names);
    slicing_add_features(&s, SIDE_ITEM, &w->rows[SIDE_ITEM], names);
    slicing_add_features(&s, SIDE_USER, &w->rows[SIDE_USER], none);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.dimensions[0].by, "colour");
    w->features[1].vocab.count = SLICE_LOW_CARDINALITY + 1;
    slicing_add_features(&s, SIDE_ITEM, &w->rows[SIDE_ITEM], NULL);
    assert_int_equal(s.n, 1);
    w->features[1].type = FEATURE_NUMERIC;
    w->features[1].vocab.count = 0;
    slicing_add_features(&s, SIDE_ITEM, &w->rows[SIDE_ITEM], NULL);
    assert_int_equal(s.n, 1);
    slicing_release(&s);
    world_free(w);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct world *w = world_new(10);
    long n;
    for (n = 1;; n++) {
        struct slicing s = {0};
        struct bootstrap b = {0};
        struct slice *slices = NULL;
        struct err e = ERR_INIT;
        size_t count;
        mem_fail_at(n);
        int result = slicing_add_events(&s, w->user_start, USERS, w->item_count, ITEMS, &e);
        slicing_add_features(&s, SIDE_ITEM, &w->rows[SIDE_ITEM], NULL);
        result = result == 0 ? bootstrap_init(&b, w->o.n_users, 1, &e) : result;
        result = result == 0 ? slices_of(&s, &w->o, 1, &b, &slices, &count, &e) : result;
        mem_fail_at(0);
        mem_free(slices);
        slicing_release(&s);
        bootstrap_release(&b);
        if (result == 0) {
            break;
        }
        assert_true(err_isset(&e));
    }
    assert_true(n > 20);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_coverage_of_intervals),
        cmocka_unit_test(test_interval_of_odd_values),
        cmocka_unit_test(test_exposure),
        cmocka_unit_test(test_oracle),
        cmocka_unit_test(test_popularity_groups),
        cmocka_unit_test(test_intervals),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
