/*
 * The index over item vectors: the record, recall as measured here, a target that is missed, errors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "train/index_build.h"

enum { N = 2000, DIM = 16, QUERIES = 50 };

static float vectors[N * DIM], queries[QUERIES * DIM];

static int fill(void **state)
{
    (void)state;
    struct rng r;
    rng_seed(&r, 5, 0);
    log_setup(LOG_LEVEL_ERROR, false);
    for (size_t i = 0; i < N * DIM; i++) {
        vectors[i] = rng_normal(&r);
    }
    for (size_t i = 0; i < QUERIES * DIM; i++) {
        queries[i] = rng_normal(&r);
    }
    vec_normalize_rows(vectors, N, DIM, NULL);
    vec_normalize_rows(queries, QUERIES, DIM, NULL);
    return 0;
}

/* On one thread: TSan cannot see how faiss' own threads (libgomp) wait for each other. */
static struct ann *build(const char *engine, const char *factory, size_t n, double target, json_t **record)
{
    struct err e = ERR_INIT;
    struct ann_vectors v = {vectors, n, DIM};
    struct index_options options = {.engine = engine, .factory = factory, .target_recall = target, .threads = 1};
    struct ann *index = index_build(&options, &v, queries, QUERIES, record, &e);
    if (index == NULL) {
        fail_msg("%s", e.message);
    }
    return index;
}

static double number(const json_t *record, const char *name)
{
    assert_true(json_is_number(json_object_get(record, name)));
    return json_number_value(json_object_get(record, name));
}

static void test_flat(void **state)
{
    (void)state;
    json_t *record = NULL;
    struct ann *index = build("flat", "", N, 0.98, &record);
    assert_string_equal(json_string_value(json_object_get(record, "engine")), "flat");
    assert_true(number(record, "recall@100") == 1.0);
    assert_true(number(record, "bytes_per_item") == 0);
    assert_int_equal(json_array_size(json_object_get(record, "curve")), 0);
    json_decref(record);
    ann_free(index);
}

/* Its points are what was measured, the chosen one among them. */
static void expect_curve(const json_t *record)
{
    size_t i;
    json_t *point;
    bool found = false;
    json_array_foreach(json_object_get(record, "curve"), i, point)
    {
        found |= number(point, "effort") == number(record, "effort") &&
                 number(point, "recall") == number(record, "recall@100");
    }
    assert_true(found);
}

static void test_faiss(void **state)
{
    (void)state;
    const char *factories[] = {"HNSW16", "IVF16,Flat", "SQ8"};
    for (size_t i = 0; i < 3; i++) {
        json_t *record = NULL;
        struct ann *index = build("faiss", factories[i], N, 0.95, &record);
        assert_string_equal(json_string_value(json_object_get(record, "factory")), factories[i]);
        assert_true(number(record, "recall@100") >= 0.95 && number(record, "recall@100") <= 1);
        assert_true(number(record, "bytes_per_item") > 0 && number(record, "build_seconds") >= 0);
        assert_true(number(record, "target_recall") == 0.95);
        expect_curve(record);
        json_decref(record);
        ann_free(index);
    }
}

/* Small catalogues can always be searched exhaustively, hence a target beyond 1. */
static void test_missed_target(void **state)
{
    (void)state;
    struct index_options options = {.engine = "faiss", .factory = "PQ4x4", .target_recall = 1.5, .threads = 1};
    struct ann_vectors v = {vectors, N, DIM};
    struct err e = ERR_INIT;
    json_t *record = NULL;
    assert_null(index_build(&options, &v, queries, QUERIES, &record, &e));
    assert_null(record);
    assert_non_null(strstr(e.message, "index PQ4x4: recall@100 against exact is "));
    assert_non_null(strstr(e.message, "below the target of 1.5000; use another engine or factory, or a lower target"));
}

/* Fewer items than the recall is measured at. */
static void test_few(void **state)
{
    (void)state;
    for (size_t n = 1; n < 5; n++) {
        for (int flat = 0; flat < 2; flat++) {
            json_t *record = NULL;
            struct ann *index = build(flat ? "flat" : "faiss", flat ? "" : "HNSW32", n, 0.98, &record);
            assert_true(number(record, "recall@100") == 1.0);
            json_decref(record);
            ann_free(index);
        }
    }
}

static void test_errors(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    json_t *record = NULL;
    struct ann_vectors v = {vectors, N, DIM};
    struct index_options options = {.engine = "faiss", .factory = "Nonsense", .target_recall = 0.9, .threads = 1};
    assert_null(index_build(&options, &v, queries, QUERIES, &record, &e));
    assert_non_null(strstr(e.message, "Nonsense"));
    assert_null(record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flat), cmocka_unit_test(test_faiss),  cmocka_unit_test(test_missed_target),
        cmocka_unit_test(test_few),  cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
