/*
 * What the report draws: scores of positives against random items, and the picture of items.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/vecmath.h"
#include "tests/unit/train/lab.h"
#include "train/evaluate.h"
#include "train/report_figures.h"

enum { USERS = 150, ITEMS = 120, EVENTS = 3000 };

struct drawn {
    struct lab lab;
    float *vectors;
    struct tower_ranker *ranker;
};

static void drawn_open(struct drawn *f, const char *yaml, const char *const *sets, uint32_t epochs)
{
    struct err e = ERR_INIT;
    struct epoch_result result;
    lab_synth(&f->lab, yaml, sets, USERS, ITEMS, EVENTS);
    struct trainer *t = trainer_new(f->lab.config, f->lab.d, &f->lab.d->train, f->lab.m, 1, &e);
    assert_non_null(t);
    for (uint32_t epoch = 1; epoch <= epochs; epoch++) {
        assert_int_equal(trainer_epoch(t, epoch, "test", &result, &e), 0);
    }
    trainer_free(t);
    const struct dataset *d = f->lab.d;
    const struct tower *items = &f->lab.m->towers[SIDE_ITEM];
    f->vectors = mem_array(d->n_items * items->spec->output_dim, sizeof *f->vectors);
    assert_int_equal(embed_rows(items, d->schema.similarity, &d->rows[SIDE_ITEM], 1, f->vectors, &e), 0);
    f->ranker = tower_ranker_new(d, &d->train, &f->lab.m->towers[SIDE_USER], f->vectors, 1, &e);
    assert_non_null(f->ranker);
}

static void drawn_close(struct drawn *f)
{
    tower_ranker_free(f->ranker);
    mem_free(f->vectors);
    lab_close(&f->lab);
}

static json_t *histogram(struct drawn *f, uint64_t seed)
{
    struct err e = ERR_INIT;
    json_t *json = figure_histogram(f->lab.d, f->ranker, f->vectors, seed, &e);
    if (json == NULL) {
        fail_msg("%s", e.message);
    }
    return json;
}

static json_t *projection(struct drawn *f, uint64_t seed)
{
    struct err e = ERR_INIT;
    json_t *json = figure_projection(f->lab.d, f->vectors, seed, &e);
    if (json == NULL) {
        fail_msg("%s", e.message);
    }
    return json;
}

static double number(const json_t *json, const char *key)
{
    assert_true(json_is_number(json_object_get(json, key)));
    return json_number_value(json_object_get(json, key));
}

static void expect_counts(const json_t *group)
{
    json_int_t sum = 0;
    const json_t *counts = json_object_get(group, "counts");
    assert_int_equal(json_array_size(counts), FIGURE_BINS);
    for (size_t i = 0; i < FIGURE_BINS; i++) {
        sum += json_integer_value(json_array_get(counts, i));
    }
    assert_int_equal(sum, json_integer_value(json_object_get(group, "n")));
    assert_true(sum > 0);
}

static void scale(struct drawn *f, float by)
{
    size_t n = f->lab.d->n_items * f->lab.d->schema.towers[SIDE_ITEM].output_dim;
    for (size_t i = 0; i < n; i++) {
        f->vectors[i] *= by;
    }
}

static void test_histogram(void **state)
{
    (void)state;
    struct drawn f;
    drawn_open(&f, lab_full, NULL, 8);
    json_t *json = histogram(&f, 3);
    const json_t *positives = json_object_get(json, "positives");
    const json_t *random = json_object_get(json, "random");
    assert_string_equal(json_string_value(json_object_get(json, "part")), "test");
    expect_counts(positives);
    expect_counts(random);
    assert_true(number(positives, "n") == (double)f.lab.d->test.n); /* one a user */
    assert_true(number(random, "n") <= FIGURE_RANDOM * number(positives, "n"));
    assert_true(number(positives, "mean") > number(random, "mean"));
    assert_true(number(json, "low") < number(random, "mean") && number(json, "high") > number(positives, "mean"));
    double auc = number(json, "auc");
    assert_true(auc > 0.6 && auc < 1);

    json_t *again = histogram(&f, 3);
    json_t *other = histogram(&f, 4);
    assert_true(json_equal(json, again));
    assert_false(json_equal(json, other));
    json_decref(again);
    json_decref(other);

    scale(&f, -1); /* the same pairs, all upside down */
    again = histogram(&f, 3);
    assert_true(fabs(number(again, "auc") + auc - 1) < 1e-12);
    json_decref(again);
    scale(&f, 0); /* ties only */
    again = histogram(&f, 3);
    assert_true(number(again, "auc") == 0.5);
    expect_counts(json_object_get(again, "positives"));
    json_decref(again);
    json_decref(json);
    drawn_close(&f);
}

/* Without a test part: of the train part, at most FIGURE_POSITIVES a user. */
static void test_histogram_of_train(void **state)
{
    (void)state;
    struct drawn f;
    const char *sets[] = {"data.split={method: none}", NULL};
    drawn_open(&f, lab_full, sets, 1);
    json_t *json = histogram(&f, 3);
    assert_string_equal(json_string_value(json_object_get(json, "part")), "train");
    expect_counts(json_object_get(json, "positives"));
    assert_true(number(json_object_get(json, "positives"), "n") <= FIGURE_POSITIVES * USERS);
    json_decref(json);
    drawn_close(&f);
}

/* Name of the group of the point with this id. */
static const char *group_name(const json_t *projection, const json_t *point)
{
    size_t group = (size_t)json_integer_value(json_array_get(point, 2));
    const char *name = json_string_value(json_array_get(json_object_get(projection, "groups"), group));
    assert_non_null(name);
    return name;
}

static void expect_category(const struct dataset *d, const json_t *json, const json_t *point)
{
    const struct tower_spec *spec = &d->schema.towers[SIDE_ITEM];
    int at = tower_spec_find(spec, "category");
    const char *id = json_string_value(json_array_get(point, 3));
    int64_t item = strtab_find(&d->item_ids, id, strlen(id));
    assert_true(item >= 0);
    int32_t row = d->rows[SIDE_ITEM].columns[at].index[item];
    const char *name = group_name(json, point);
    if (row >= SCHEMA_FIRST && strcmp(name, "other") != 0) {
        size_t n;
        const char *value = strtab_get(&spec->features[at].vocab, (size_t)(row - SCHEMA_FIRST), &n);
        assert_int_equal(strlen(name), n);
        assert_memory_equal(name, value, n);
    } else if (row == SCHEMA_MISSING) {
        assert_string_equal(name, "(missing)");
    }
}

/* The share of nearest neighbours in the same group, the slow way: points in the order of all items. */
static double neighbours_alike(const struct drawn *f, const json_t *points)
{
    size_t n = f->lab.d->n_items;
    size_t dim = f->lab.d->schema.towers[SIDE_ITEM].output_dim;
    size_t alike = 0;
    for (size_t i = 0; i < n; i++) {
        bool taken[ITEMS] = {false};
        taken[i] = true;
        for (int k = 0; k < FIGURE_NEIGHBOURS; k++) {
            size_t best = n;
            float highest = -2;
            for (size_t j = 0; j < n; j++) {
                const float *a = f->vectors + i * dim;
                const float *b = f->vectors + j * dim;
                float cosine = vec_dot_naive(a, b, dim) / (vec_norm(a, dim) * vec_norm(b, dim));
                if (!taken[j] && cosine > highest) {
                    highest = cosine;
                    best = j;
                }
            }
            taken[best] = true;
            alike += (size_t)json_equal(json_array_get(json_array_get(points, i), 2),
                                        json_array_get(json_array_get(points, best), 2));
        }
    }
    return (double)alike / (double)(n * FIGURE_NEIGHBOURS);
}

static void test_projection(void **state)
{
    (void)state;
    struct drawn f;
    drawn_open(&f, lab_full, NULL, 4);
    json_t *json = projection(&f, 3);
    const json_t *points = json_object_get(json, "points");
    assert_string_equal(json_string_value(json_object_get(json, "by")), "category"); /* tags are hashed */
    assert_int_equal(json_array_size(points), f.lab.d->n_items);
    assert_true(number(json, "named") <= FIGURE_CATEGORIES);
    for (size_t i = 0; i < json_array_size(points); i++) {
        const json_t *point = json_array_get(points, i);
        assert_true(fabs(json_number_value(json_array_get(point, 0))) <= 1);
        assert_true(fabs(json_number_value(json_array_get(point, 1))) <= 1);
        expect_category(f.lab.d, json, point);
    }
    const json_t *neighbours = json_object_get(json, "neighbours");
    assert_true(fabs(number(neighbours, "same") - neighbours_alike(&f, points)) < 0.005); /* near ties may differ */
    assert_true(number(neighbours, "chance") > 0 && number(neighbours, "chance") < number(neighbours, "same"));
    json_t *again = projection(&f, 3);
    assert_true(json_equal(json, again));
    json_decref(again);
    json_decref(json);
    drawn_close(&f);
}

static uint32_t events_of(const struct dataset *d, const json_t *point)
{
    const char *id = json_string_value(json_array_get(point, 3));
    return d->item_count[strtab_find(&d->item_ids, id, strlen(id))];
}

/* Ids only: tenths by popularity, the more popular the higher. */
static void test_projection_by_popularity(void **state)
{
    (void)state;
    struct drawn f;
    drawn_open(&f, lab_ids, NULL, 1);
    json_t *json = projection(&f, 3);
    const json_t *points = json_object_get(json, "points");
    size_t n = json_array_size(points);
    size_t most = 0;
    assert_string_equal(json_string_value(json_object_get(json, "by")), "popularity");
    assert_int_equal(json_array_size(json_object_get(json, "groups")), 10);
    for (size_t i = 0; i < n; i++) {
        const json_t *a = json_array_get(points, i);
        json_int_t group = json_integer_value(json_array_get(a, 2));
        most += group == 9;
        for (size_t j = 0; j < n; j++) {
            const json_t *b = json_array_get(points, j);
            if (events_of(f.lab.d, a) < events_of(f.lab.d, b)) {
                assert_true(group <= json_integer_value(json_array_get(b, 2)));
            }
        }
    }
    assert_true(most >= n / 20 && most <= n / 8); /* about a tenth */
    json_decref(json);
    drawn_close(&f);
}

/* More items than a picture has room for: a choice that the seed makes. */
static void test_projection_of_many(void **state)
{
    (void)state;
    struct drawn f;
    struct lab *lab = &f.lab;
    lab_synth(lab, lab_ids, NULL, 300, 2500, 20000);
    size_t dim = lab->d->schema.towers[SIDE_ITEM].output_dim;
    assert_true(lab->d->n_items > FIGURE_ITEMS);
    f.vectors = mem_array(lab->d->n_items * dim, sizeof *f.vectors);
    f.ranker = NULL;
    json_t *json = projection(&f, 3);
    json_t *other = projection(&f, 4);
    assert_int_equal(json_array_size(json_object_get(json, "points")), FIGURE_ITEMS);
    assert_true(number(json, "of") == (double)lab->d->n_items);
    assert_false(json_equal(json, other));
    json_decref(json);
    json_decref(other);
    drawn_close(&f);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct drawn f;
    drawn_open(&f, lab_full, NULL, 1);
    for (int which = 0; which < 2; which++) {
        bool done = false;
        for (long at = 1; !done && at < 500; at++) {
            struct err e = ERR_INIT;
            mem_fail_at(at);
            json_t *json = which == 0 ? figure_histogram(f.lab.d, f.ranker, f.vectors, 1, &e)
                                      : figure_projection(f.lab.d, f.vectors, 1, &e);
            mem_fail_at(0);
            done = json != NULL && at > 4;
            assert_true(json != NULL || err_isset(&e));
            json_decref(json);
        }
        assert_true(done);
    }
    drawn_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram),          cmocka_unit_test(test_histogram_of_train),
        cmocka_unit_test(test_projection),         cmocka_unit_test(test_projection_by_popularity),
        cmocka_unit_test(test_projection_of_many), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
