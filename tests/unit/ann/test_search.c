/* The planner and the exact engine, against topk_naive; rules that hold for every engine. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/unit/ann/data.h"

static struct ann *build(const char *engine, const char *factory, const struct ann_vectors *v)
{
    struct err e = ERR_INIT;
    struct ann_build_options options = {.engine = engine, .factory = factory, .threads = 1};
    struct ann *index = ann_build(v, &options, &e);
    if (index == NULL) {
        fail_msg("%s", e.message);
    }
    return index;
}

static struct ann_workspace *workspace(const struct ann *index, size_t max_k)
{
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, max_k, &e);
    assert_non_null(ws);
    return ws;
}

static struct ann_answer search(const struct ann *index, struct ann_workspace *ws, const struct ann_query *query,
                                struct scored *hits)
{
    struct err e = ERR_INIT;
    struct ann_answer answer;
    if (ann_search(index, ws, query, hits, &answer, &e) != 0) {
        fail_msg("%s", e.message);
    }
    return answer;
}

/* What the contract says, spelled out: all scores, exclusions and floor taken out, sorted. */
static size_t oracle(const struct ann_vectors *v, const struct ann_query *q, struct scored *out)
{
    float *scores = mem_array(v->n, sizeof *scores);
    for (size_t i = 0; i < v->n; i++) {
        vec_dot_rows(&scores[i], v->data + i * v->dim, 1, v->dim, q->vector);
        if (scores[i] < q->min_score) {
            scores[i] = NAN;
        }
    }
    for (size_t i = 0; i < q->n_exclude; i++) {
        if (q->exclude[i] < v->n) {
            scores[q->exclude[i]] = NAN;
        }
    }
    size_t n = topk_naive(out, q->k, scores, v->n);
    mem_free(scores);
    return n;
}

static void assert_hits_equal(const struct scored *a, const struct scored *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a[i].row, b[i].row);
        assert_true(a[i].score == b[i].score);
    }
}

/* Each of n rows with probability one in `one_in`; returns how many. */
static size_t random_rows(struct rng *r, uint32_t *rows, size_t n, uint32_t one_in)
{
    size_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (rng_below(r, one_in) == 0) {
            rows[count++] = i;
        }
    }
    return count;
}

static void flat_equals_the_oracle(void **state)
{
    (void)state;
    static const size_t dims[] = {1, 2, 7, 64, 513};
    static const size_t counts[] = {1, 5, 1023, 1024, 1025, 3000};
    struct rng r;
    rng_seed(&r, 7, 0);
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            struct data_shape shape = {dims[d], 10, 0.5f, 10};
            float *data = data_new(&shape, counts[c], 3, 0);
            float *query = data_new(&shape, 1, 3, 1);
            if (counts[c] > 10) { /* duplicates at both ends of the array, for ties across blocks */
                memcpy(data + (counts[c] - 1) * dims[d], data, dims[d] * sizeof *data);
                memcpy(data + (counts[c] - 2) * dims[d], data, dims[d] * sizeof *data);
            }
            uint32_t *rows = mem_array(counts[c], sizeof *rows);
            struct ann_vectors v = {data, counts[c], (uint32_t)dims[d]};
            struct ann *index = build("flat", NULL, &v);
            struct ann_workspace *ws = workspace(index, 5000);
            struct scored *hits = mem_array(5000, sizeof *hits);
            struct scored *expected = mem_array(5000, sizeof *expected);
            for (int trial = 0; trial < 8; trial++) {
                struct ann_query q = {.vector = query,
                                      .k = trial == 0 ? 5000 : 1 + rng_below(&r, 200),
                                      .min_score = trial % 3 == 1 ? 0.05f : -INFINITY,
                                      .exclude = rows,
                                      .n_exclude = trial < 2 ? 0 : random_rows(&r, rows, counts[c], (uint32_t)trial)};
                struct ann_answer a = search(index, ws, &q, hits);
                assert_int_equal(a.n, oracle(&v, &q, expected));
                assert_int_equal(a.complete, a.n == q.k);
                assert_int_equal(a.strategy, ANN_STRATEGY_EXACT);
                assert_hits_equal(hits, expected, a.n);
            }
            mem_free(hits);
            mem_free(expected);
            mem_free(rows);
            ann_workspace_free(ws);
            ann_free(index);
            mem_free(query);
            mem_free(data);
        }
    }
}

static void ties_go_by_row(void **state)
{
    (void)state;
    enum { N = 4000 };
    static float data[N * 2];
    for (size_t i = 0; i < N; i++) {
        data[2 * i] = 1; /* all the same */
    }
    struct ann_vectors v = {data, N, 2};
    static const char *const engines[] = {"flat", "faiss"};
    for (size_t i = 0; i < 2; i++) {
        struct ann *index = build(engines[i], NULL, &v);
        struct ann_workspace *ws = workspace(index, 100);
        struct scored hits[100];
        float vector[2] = {1, 1};
        struct ann_query q = {.vector = vector, .k = 100, .exact = true, .min_score = -INFINITY};
        struct ann_answer a = search(index, ws, &q, hits);
        assert_int_equal(a.n, 100);
        for (uint32_t j = 0; j < 100; j++) {
            assert_int_equal(hits[j].row, j);
        }
        q.exact = false;
        a = search(index, ws, &q, hits);
        assert_int_equal(a.n, 100);
        for (size_t j = 1; j < 100; j++) {
            assert_true(scored_before(hits[j - 1], hits[j]));
        }
        ann_workspace_free(ws);
        ann_free(index);
    }
}

static void no_vectors(void **state)
{
    (void)state;
    static const char *const engines[] = {"flat", "faiss"};
    float vector[3] = {1, 2, 3};
    uint32_t excluded[2] = {0, 7};
    struct ann_vectors v = {NULL, 0, 3};
    for (size_t i = 0; i < 2; i++) {
        struct ann *index = build(engines[i], "IVF64,Flat", &v);
        struct ann_workspace *ws = workspace(index, 5);
        struct scored hits[5];
        struct ann_query q = {.vector = vector, .k = 5, .min_score = -INFINITY, .exclude = excluded, .n_exclude = 2};
        struct ann_answer a = search(index, ws, &q, hits);
        assert_int_equal(a.n, 0);
        assert_false(a.complete);
        struct ann_tuning tuned;
        assert_int_equal(tune(index, &v, vector, 1, 5, 0.9, &tuned), 0);
        assert_true(tuned.recall == 1 && tuned.n == 0);
        ann_workspace_free(ws);
        ann_free(index);
    }
}

static void refused_queries(void **state)
{
    (void)state;
    float data[4] = {1, 0, 0, 1};
    struct ann_vectors v = {data, 2, 2};
    struct ann *index = build("flat", NULL, &v);
    struct ann_workspace *ws = workspace(index, 10);
    float good[2] = {1, 1};
    float nan[2] = {NAN, 1};
    float inf[2] = {1, -INFINITY};
    uint32_t descending[2] = {1, 0};
    uint32_t twice[2] = {1, 1};
    struct ann_query bad[] = {
        {.vector = good, .k = 0, .min_score = -INFINITY},
        {.vector = good, .k = 11, .min_score = -INFINITY},
        {.vector = nan, .k = 1, .min_score = -INFINITY},
        {.vector = inf, .k = 1, .min_score = -INFINITY},
        {.vector = good, .k = 1, .min_score = NAN},
        {.vector = good, .k = 1, .min_score = -INFINITY, .exclude = descending, .n_exclude = 2},
        {.vector = good, .k = 1, .min_score = -INFINITY, .exclude = twice, .n_exclude = 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = ERR_INIT;
        struct scored hit = {42, 42};
        struct ann_answer a;
        assert_int_equal(ann_search(index, ws, &bad[i], &hit, &a, &e), -1);
        assert_true(err_isset(&e));
        assert_int_equal(hit.row, 42);
    }
    ann_workspace_free(ws);
    ann_free(index);
}

static void refused_builds(void **state)
{
    (void)state;
    float data[4] = {1, 0, 0, INFINITY};
    struct ann_build_options flat = {.engine = "flat", .threads = 1};
    struct ann_build_options unknown = {.engine = "annoy", .threads = 1};
    struct {
        struct ann_vectors vectors;
        const struct ann_build_options *options;
        const char *says;
    } cases[] = {
        {{data, 2, 2}, &flat, "row 1"},
        {{data, 1, 2}, &unknown, "annoy"},
        {{data, 1, 0}, &flat, "dimension 0"},
        {{data, (size_t)1 << 31, 2}, &flat, "2^31"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = ERR_INIT;
        assert_null(ann_build(&cases[i].vectors, cases[i].options, &e));
        assert_non_null(strstr(e.message, cases[i].says));
    }
    struct err e = ERR_INIT;
    struct ann_vectors v = {data, 1, 2};
    assert_null(ann_open("faiss", NULL, &v, 0, &e));
    assert_null(ann_open("annoy", NULL, &v, 0, NULL));
    assert_false(ann_has_file("flat"));
    assert_true(ann_has_file("faiss"));
    assert_false(ann_has_file("annoy"));
}

/* --- a graph big enough that the planner asks it ------------------------------------------------------------------- */

enum { GRAPH_N = 30000, GRAPH_DIM = 16, QUERIES = 50, K = 20 };

struct world {
    struct ann_vectors v;
    float *queries; /* [QUERIES, GRAPH_DIM] */
    struct ann *index;
    struct ann_workspace *ws;
};

static int world_setup(void **state)
{
    static struct world w;
    if (blas_setup(NULL) != 0) {
        return -1;
    }
    struct data_shape shape = {GRAPH_DIM, 300, 0.6f, 3};
    w.v = (struct ann_vectors){data_new(&shape, GRAPH_N, 11, 0), GRAPH_N, GRAPH_DIM};
    w.queries = data_new(&shape, QUERIES, 11, 1);
    w.index = build("faiss", "HNSW16", &w.v);
    w.ws = workspace(w.index, 200);
    *state = &w;
    return 0;
}

static int world_teardown(void **state)
{
    struct world *w = *state;
    ann_workspace_free(w->ws);
    ann_free(w->index);
    mem_free((void *)w->v.data);
    mem_free(w->queries);
    return 0;
}

static size_t common(const struct scored *a, const struct scored *b, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += a[i].score >= b[n - 1].score;
    }
    return count;
}

static void exclusions_on_a_graph(void **state)
{
    struct world *w = *state;
    static uint32_t rows[GRAPH_N];
    static uint8_t marks[GRAPH_N];
    static const size_t tops[] = {0, 1, K, 100, 200};
    struct scored hits[K], expected[K], top[200];
    struct rng r;
    rng_seed(&r, 5, 0);
    for (size_t t = 0; t < sizeof tops / sizeof tops[0]; t++) {
        size_t good = 0;
        size_t by_graph = 0;
        for (size_t i = 0; i < QUERIES; i++) {
            struct ann_query q = {
                .vector = w->queries + i * GRAPH_DIM, .k = 200, .exact = true, .min_score = -INFINITY};
            search(w->index, w->ws, &q, top);
            memset(marks, 0, sizeof marks);
            for (size_t j = 0; j < tops[t]; j++) {
                marks[top[j].row] = 1;
            }
            for (size_t j = 0; t % 2 == 1 && j < 1000; j++) { /* and some anywhere */
                marks[rng_below(&r, GRAPH_N)] = 1;
            }
            q.k = K;
            q.exact = false;
            q.effort = 150;
            q.exclude = rows;
            for (uint32_t row = 0; row < GRAPH_N; row++) {
                rows[q.n_exclude] = row;
                q.n_exclude += marks[row];
            }
            struct ann_answer a = search(w->index, w->ws, &q, hits);
            assert_int_equal(a.n, K);
            assert_true(a.complete);
            by_graph += a.strategy != ANN_STRATEGY_EXACT;
            assert_true(a.strategy != ANN_STRATEGY_FILTERED_ANN || q.n_exclude > 0);
            for (size_t j = 0; j < K; j++) {
                assert_false(marks[hits[j].row]);
                assert_true(j == 0 || scored_before(hits[j - 1], hits[j]));
            }
            assert_int_equal(oracle(&w->v, &q, expected), K);
            good += common(hits, expected, K);
        }
        if (tops[t] <= K) {
            assert_true(by_graph > QUERIES * 3 / 4);
        } else {
            assert_int_equal(by_graph, 0); /* so many candidates take longer than a scan */
        }
        assert_true((double)good / (QUERIES * K) > 0.95);
    }
}

static void excluding_almost_everything(void **state)
{
    struct world *w = *state;
    static uint32_t rows[GRAPH_N];
    struct scored hits[K], expected[K];
    for (size_t left = 0; left <= K + 1; left += 7) {
        struct ann_query q = {.vector = w->queries, .k = K, .min_score = -INFINITY, .exclude = rows};
        for (uint32_t row = (uint32_t)left; row < GRAPH_N; row++) {
            rows[q.n_exclude++] = row;
        }
        struct ann_answer a = search(w->index, w->ws, &q, hits);
        assert_int_equal(a.n, left < K ? left : K);
        assert_int_equal(a.complete, left >= K);
        oracle(&w->v, &q, expected);
        assert_hits_equal(hits, expected, a.n);
    }
    uint32_t beyond[2] = {GRAPH_N, UINT32_MAX}; /* rows that do not exist are excluded without effect */
    struct ann_query q = {.vector = w->queries, .k = K, .min_score = -INFINITY, .exclude = beyond, .n_exclude = 2};
    assert_true(search(w->index, w->ws, &q, hits).complete);
}

/* Whatever the floor, the results are those above it, and `complete` tells the truth. */
static void floors(void **state)
{
    struct world *w = *state;
    struct scored hits[K], expected[K];
    for (size_t i = 0; i < QUERIES; i++) {
        struct ann_query q = {.vector = w->queries + i * GRAPH_DIM, .k = K, .exact = true, .min_score = -INFINITY};
        search(w->index, w->ws, &q, expected);
        for (size_t cut = 0; cut < K; cut += 6) {
            q.exact = false;
            q.min_score = expected[cut].score;
            struct ann_answer a = search(w->index, w->ws, &q, hits);
            assert_true(a.n >= cut + 1 && a.n < K);
            assert_false(a.complete);
            assert_int_equal(a.strategy, ANN_STRATEGY_EXACT);
            assert_hits_equal(hits, expected, a.n);
        }
        q.min_score = INFINITY;
        assert_int_equal(search(w->index, w->ws, &q, hits).n, 0);
    }
}

static void large_k_and_effort_are_answered_exactly(void **state)
{
    struct world *w = *state;
    struct scored hits[200], expected[200];
    struct ann_query q = {.vector = w->queries, .k = 200, .effort = SIZE_MAX, .min_score = -INFINITY};
    struct ann_answer a = search(w->index, w->ws, &q, hits);
    assert_int_equal(a.strategy, ANN_STRATEGY_EXACT);
    assert_int_equal(oracle(&w->v, &q, expected), 200);
    assert_hits_equal(hits, expected, 200);
}

/* Ascending; the chosen point is the first that reaches the target, close above one that does not. */
static void expect_curve(const struct ann_tuning *tuned, double target)
{
    size_t chosen = 0;
    while (chosen < tuned->n && tuned->points[chosen].low < target) {
        chosen++;
    }
    assert_true(tuned->reached && chosen < tuned->n);
    assert_int_equal(tuned->points[chosen].effort, tuned->effort);
    assert_true(tuned->points[chosen].recall == tuned->recall);
    for (size_t i = 0; i < tuned->n; i++) {
        assert_true(i == 0 || tuned->points[i].effort > tuned->points[i - 1].effort);
        assert_true(tuned->points[i].low <= tuned->points[i].recall && tuned->points[i].microseconds > 0);
    }
    size_t below = chosen > 0 ? tuned->points[chosen - 1].effort : tuned->effort;
    assert_true(tuned->effort - below <= 1 + below / 16);
    assert_true(tuned->points[tuned->n - 1].low >= 0.998 || tuned->points[tuned->n - 1].effort >= 4 * tuned->effort);
}

static void tuning_reaches_its_target(void **state)
{
    struct world *w = *state;
    struct err e = ERR_INIT;
    size_t least = 0;
    static const double targets[] = {0.5, 0.9, 0.99, 1.0};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        struct ann_tuning tuned;
        double again;
        assert_int_equal(tune(w->index, &w->v, w->queries, QUERIES, K, targets[i], &tuned), 0);
        assert_true(tuned.recall >= targets[i]);
        assert_true(tuned.effort >= least);
        assert_int_equal(ann_effort(w->index), tuned.effort);
        assert_int_equal(ann_measure_recall(w->index, w->queries, QUERIES, K, 0, 3, &again, &e), 0);
        assert_true(fabs(again - tuned.recall) < 1e-12); /* any number of threads gives the same */
        least = tuned.effort;
        expect_curve(&tuned, targets[i]);
    }
    ann_set_effort(w->index, 0);
}

/* Of the recalls of single queries. */
static void the_low_end_of_recall(void **state)
{
    struct world *w = *state;
    struct err e = ERR_INIT;
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < QUERIES; i++) {
        double recall;
        assert_int_equal(ann_measure_recall(w->index, w->queries + i * GRAPH_DIM, 1, K, 20, 1, &recall, &e), 0);
        sum += recall;
        squares += recall * recall;
    }
    double mean = sum / QUERIES;
    double deviation = sqrt((squares - QUERIES * mean * mean) / (QUERIES - 1));
    struct ann_truth *truth = ann_truth_new(&w->v, w->queries, QUERIES, K, 1, &e);
    struct ann_point point;
    assert_int_equal(ann_measure(w->index, truth, 20, 1, &point, &e), 0);
    assert_true(fabs(point.recall - mean) < 1e-9 && mean < 1);
    assert_true(fabs(point.low - (mean - 1.645 * deviation / sqrt(QUERIES))) < 1e-9);
    ann_truth_free(truth);
}

/* Every allocation fails once: an error, nothing leaked, and the next try works. */
static void short_memory(void **state)
{
    struct world *w = *state;
    struct err e = ERR_INIT;
    struct ann_vectors few = {w->v.data, 500, GRAPH_DIM};
    struct ann_build_options options = {.engine = "faiss", .factory = "HNSW8", .threads = 1};
    long failures = 0;
    for (long n = 1;; n++) {
        err_clear(&e);
        mem_fail_at(n);
        struct ann *index = ann_build(&few, &options, &e);
        struct ann_workspace *ws = index != NULL ? ann_workspace_new(index, 10, &e) : NULL;
        double recall;
        int rc = ws != NULL ? ann_measure_recall(index, w->queries, QUERIES, 10, 0, 1, &recall, &e) : -1;
        mem_fail_at(0);
        assert_int_equal(rc != 0, err_isset(&e));
        ann_workspace_free(ws);
        ann_free(index);
        if (rc == 0) {
            break;
        }
        failures++;
    }
    assert_true(failures >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flat_equals_the_oracle),
        cmocka_unit_test(ties_go_by_row),
        cmocka_unit_test(no_vectors),
        cmocka_unit_test(refused_queries),
        cmocka_unit_test(refused_builds),
        cmocka_unit_test(exclusions_on_a_graph),
        cmocka_unit_test(excluding_almost_everything),
        cmocka_unit_test(floors),
        cmocka_unit_test(large_k_and_effort_are_answered_exactly),
        cmocka_unit_test(tuning_reaches_its_target),
        cmocka_unit_test(the_low_end_of_recall),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
