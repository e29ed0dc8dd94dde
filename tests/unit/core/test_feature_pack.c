/*
 * Packed rows: everything that is read from them is what the plain rows hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/feature_pack.h"
#include "core/mem.h"
#include "core/rng.h"

enum { ROWS = 3000, FEATURES = 9, TAGS = 6, HISTORY = 7 };

static struct feature features[FEATURES] = {
    {.name = "id", .type = FEATURE_ID, .rows = ROWS + SCHEMA_FIRST},
    {.name = "small", .type = FEATURE_CATEGORICAL, .rows = 256},
    {.name = "middle", .type = FEATURE_ONEHOT, .rows = 257},
    {.name = "number", .type = FEATURE_NUMERIC, .transform = TRANSFORM_LOG},
    {.name = "large", .type = FEATURE_CATEGORICAL, .buckets = 1, .rows = 1 << 20},
    {.name = "bucket", .type = FEATURE_NUMERIC, .transform = TRANSFORM_BUCKETIZE, .rows = 5},
    {.name = "tags", .type = FEATURE_CATEGORICAL, .multi = '|', .rows = 300},
    {.name = "history", .type = FEATURE_SEQUENCE, .rows = 10},
    {.name = "other_id", .type = FEATURE_ID, .rows = 70000},
};

/* Random rows; bags of up to `most` values. */
static void fill(struct feature_rows *rows, const struct tower_spec *spec, size_t n, uint32_t most)
{
    struct rng r;
    rng_seed(&r, 3, most);
    assert_int_equal(feature_rows_init(rows, spec), 0);
    for (uint32_t i = 0; i < spec->n_features; i++) {
        struct feature_column *c = &rows->columns[i];
        const struct feature *f = &spec->features[i];
        c->number = f->rows == 0 ? mem_array(n, sizeof *c->number) : NULL;
        c->index = f->rows == 0 ? NULL : mem_array(n * (most + 1), sizeof *c->index);
        if (feature_is_bag(f)) {
            mem_free(c->start);
            c->start = mem_array(n + 1, sizeof *c->start);
        }
        for (size_t row = 0; row < n; row++) {
            uint32_t count = f->type == FEATURE_SEQUENCE ? 0 : rng_below(&r, most + 1);
            if (f->rows == 0) {
                c->number[row] = rng_below(&r, 5) == 0 ? NAN : rng_normal(&r);
            } else if (feature_is_bag(f)) {
                c->start[row + 1] = c->start[row] + count;
                for (size_t j = c->start[row]; j < c->start[row + 1]; j++) {
                    c->index[j] = (int32_t)rng_below(&r, f->rows);
                }
            } else {
                c->index[row] = i == 0 ? (int32_t)(SCHEMA_FIRST + row) : (int32_t)rng_below(&r, f->rows);
            }
        }
    }
    rows->n = rows->capacity = n;
}

static void expect_same_column(const struct feature *f, const struct feature_column *a, const struct feature_column *b,
                               size_t n)
{
    if (f->rows == 0) {
        assert_memory_equal(a->number, b->number, n * sizeof *a->number);
    } else if (feature_is_bag(f)) {
        assert_memory_equal(a->start, b->start, (n + 1) * sizeof *a->start);
        if (a->start[n] > 0) {
            assert_memory_equal(a->index, b->index, a->start[n] * sizeof *a->index);
        }
    } else {
        assert_memory_equal(a->index, b->index, n * sizeof *a->index);
    }
}

static void expect_faithful(const struct tower_spec *spec, uint32_t most)
{
    struct feature_rows plain, packed, from_plain, from_packed;
    fill(&plain, spec, ROWS, most);
    fill(&packed, spec, ROWS, most);
    assert_int_equal(feature_rows_pack(&packed), 0);
    assert_true(packed.pack != NULL && packed.columns == NULL && packed.n == ROWS);
    assert_int_equal(feature_rows_init(&from_plain, spec), 0);
    assert_int_equal(feature_rows_init(&from_packed, spec), 0);
    for (size_t i = 0; i < ROWS; i++) {
        size_t row = i * 1009 % ROWS;
        feature_rows_prefetch(&packed, row);
        assert_int_equal(feature_rows_copy(&from_plain, &plain, row), 0);
        assert_int_equal(feature_rows_copy(&from_packed, &packed, row), 0);
    }
    for (uint32_t i = 0; i < spec->n_features; i++) {
        struct feature_column a, b;
        expect_same_column(&spec->features[i], &from_plain.columns[i], &from_packed.columns[i], ROWS);
        assert_int_equal(feature_rows_column(&plain, i, &a), 0);
        assert_int_equal(feature_rows_column(&packed, i, &b), 0);
        expect_same_column(&spec->features[i], &a, &plain.columns[i], ROWS);
        expect_same_column(&spec->features[i], &b, &plain.columns[i], ROWS);
        feature_column_release(&a);
        feature_column_release(&b);
    }
    feature_rows_release(&plain);
    feature_rows_release(&packed);
    feature_rows_release(&from_plain);
    feature_rows_release(&from_packed);
}

static void test_faithful(void **state)
{
    (void)state;
    const struct tower_spec all = {.features = features, .n_features = FEATURES};
    expect_faithful(&all, 3);
    expect_faithful(&all, 300); /* counts of two bytes */
    expect_faithful(&all, 0);   /* every bag is empty: rows of one length */
    const struct tower_spec singles = {.features = features, .n_features = TAGS};
    expect_faithful(&singles, 1);
    const struct tower_spec bags = {.features = features + TAGS, .n_features = 2};
    expect_faithful(&bags, 40);
    const struct tower_spec id = {.features = features, .n_features = 1}; /* nothing is stored */
    expect_faithful(&id, 1);
}

static void test_no_rows(void **state)
{
    (void)state;
    const struct tower_spec all = {.features = features, .n_features = FEATURES};
    struct feature_rows rows;
    assert_int_equal(feature_rows_init(&rows, &all), 0);
    assert_int_equal(feature_rows_pack(&rows), 0);
    assert_int_equal(rows.n, 0);
    feature_rows_release(&rows);
}

static void test_memory(void **state)
{
    (void)state;
    const struct tower_spec all = {.features = features, .n_features = FEATURES};
    struct feature_rows rows;
    fill(&rows, &all, 10, 3);
    long n = 1;
    for (;; n++) {
        mem_fail_at(n);
        int result = feature_rows_pack(&rows);
        mem_fail_at(0);
        if (result == 0) {
            break;
        }
        assert_true(rows.pack == NULL && rows.n == 10 && rows.columns != NULL);
    }
    assert_int_equal(n, 4);
    struct feature_column column;
    for (n = 1;; n++) {
        mem_fail_at(n);
        int result = feature_rows_column(&rows, TAGS, &column);
        mem_fail_at(0);
        if (result == 0) {
            break;
        }
        assert_null(column.start);
    }
    assert_true(n > 1);
    feature_column_release(&column);
    feature_rows_release(&rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faithful),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
