/* Rows added and removed: every engine against an oracle, recall against an index built anew, searches meanwhile. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ann/ann.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/unit/ann/data.h"

enum { ROWS = 6001, ROOM = 3000, DIM = 24, QUERIES = 80, K = 20, MOST = ROWS + 64 + ROOM };

static const struct data_shape SHAPE = {DIM, 60, 0.7f, 3};
static struct ann_vectors v;
static float *fresh;   /* [ROOM, DIM] to be added */
static float *queries; /* [QUERIES, DIM] */
static struct rng rng;

static int setup(void **state)
{
    (void)state;
    v = (struct ann_vectors){data_new(&SHAPE, ROWS, 1, 0), ROWS, DIM};
    fresh = data_new(&SHAPE, ROOM, 1, 1);
    queries = data_new(&SHAPE, QUERIES, 1, 2);
    rng_seed(&rng, 1, 1);
    return blas_setup(NULL);
}

static int teardown(void **state)
{
    (void)state;
    mem_free((void *)(uintptr_t)v.data);
    mem_free(fresh);
    mem_free(queries);
    return 0;
}

static struct ann *build_with_room(const char *engine, const struct ann_vectors *vectors, size_t room)
{
    struct err e = ERR_INIT;
    struct ann_build_options options = {.engine = engine, .threads = 2};
    struct ann *index = ann_build(vectors, &options, &e);
    if (index == NULL || ann_make_room(index, room, &e) != 0) {
        fail_msg("%s: %s", engine, e.message);
    }
    return index;
}

static uint32_t add(struct ann *index, const float *x, size_t n)
{
    struct err e = ERR_INIT;
    uint32_t row = 0;
    if (ann_add(index, x, n, &row, &e) != 0) {
        fail_msg("%s", e.message);
    }
    return row;
}

/* --- against an oracle -------------------------------------------------------------------------------------------- */

/* What should be in the index. */
struct model {
    float vectors[MOST * DIM];
    bool lives[MOST];
    size_t end, live;
};

static size_t oracle(const struct model *m, const struct ann_query *q, struct scored *out)
{
    static float scores[MOST];
    vec_dot_rows(scores, m->vectors, m->end, DIM, q->vector);
    size_t next = 0;
    for (size_t row = 0; row < m->end; row++) {
        bool excluded = next < q->n_exclude && q->exclude[next] == row;
        next += excluded;
        bool allowed = q->allow == NULL || (q->allow[row / 64] >> row % 64 & 1) != 0;
        if (excluded || !allowed || !m->lives[row] || scores[row] < q->min_score) {
            scores[row] = NAN;
        }
    }
    return topk_naive(out, q->k, scores, m->end);
}

static void change(struct ann *index, struct model *m)
{
    size_t n = rng_below(&rng, 100);
    n = n < ann_room(index) ? n : ann_room(index);
    size_t done = ROOM - ann_room(index);
    uint32_t row = add(index, fresh + done * DIM, n);
    assert_int_equal(row, m->end);
    memcpy(m->vectors + m->end * DIM, fresh + done * DIM, n * DIM * sizeof(float));
    memset(m->lives + m->end, true, n);
    m->end += n;
    m->live += n;
    for (int i = 0; i < 60; i++) {
        row = rng_below(&rng, MOST);
        assert_int_equal(ann_remove(index, row), row < m->end && m->lives[row]);
        m->live -= row < m->end && m->lives[row];
        m->lives[row] = false;
    }
    assert_int_equal(ann_rows(index), m->end);
    assert_int_equal(ann_rows_live(index), m->live);
}

/* One query, exactly and not, alone: every mix of a filter, exclusions, a floor. */
static double ask(const struct ann *index, struct ann_workspace *ws, const struct model *m, size_t number)
{
    static uint64_t bits[(MOST + 63) / 64];
    uint32_t exclude[64];
    struct scored truth[K], hits[K];
    struct ann_answer a;
    struct err e = ERR_INIT;
    struct ann_query q = {.vector = queries + number % QUERIES * DIM, .k = K, .effort = 64, .min_score = -INFINITY};
    if (number % 2 == 1) {
        memset(bits, 0, sizeof bits);
        uint32_t one_in = number % 4 == 1 ? 2 : 50;
        for (size_t row = 0; row < m->end; row++) {
            bits[row / 64] |= (uint64_t)(rng_below(&rng, one_in) == 0) << row % 64;
        }
        q.allow = bits;
        for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
            q.n_allow += (size_t)__builtin_popcountll(bits[i]);
        }
    }
    if (number % 3 == 1) {
        for (uint32_t row = rng_below(&rng, 100); row < MOST && q.n_exclude < 64; row += 1 + rng_below(&rng, 200)) {
            exclude[q.n_exclude++] = row; /* some do not exist */
        }
        q.exclude = exclude;
    }
    if (number % 5 == 1) {
        oracle(m, &q, truth);
        q.min_score = truth[K / 2].score;
    }
    size_t expected = oracle(m, &q, truth);
    q.exact = true;
    assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
    assert_int_equal(a.n, expected);
    assert_memory_equal(hits, truth, expected * sizeof *hits);
    q.exact = false;
    assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
    assert_int_equal(a.n, expected);
    size_t found = 0;
    for (size_t i = 0; i < a.n; i++) {
        assert_true(hits[i].row < m->end && m->lives[hits[i].row]);
        assert_true(q.allow == NULL || (q.allow[hits[i].row / 64] >> hits[i].row % 64 & 1) != 0);
        float score;
        vec_dot_rows(&score, m->vectors + hits[i].row * (size_t)DIM, 1, DIM, q.vector);
        assert_true(hits[i].score == score);
        found += score >= truth[expected - 1].score;
    }
    return expected == 0 ? 1 : (double)found / (double)expected;
}

static void engines_answer_as_the_oracle(void **state)
{
    (void)state;
    static const char *const engines[] = {"flat", "faiss", "native"};
    static struct model m;
    for (size_t i = 0; i < 3; i++) {
        struct err e = ERR_INIT;
        struct ann *index = build_with_room(engines[i], &v, ROOM);
        struct ann_workspace *ws = ann_workspace_new(index, K, &e);
        memset(&m, 0, sizeof m);
        memcpy(m.vectors, v.data, ROWS * DIM * sizeof(float));
        memset(m.lives, true, ROWS);
        m.end = (ROWS + 63) / 64 * 64;
        m.live = ROWS;
        assert_int_equal(ann_rows(index), m.end);
        double recall = 0;
        enum { ROUNDS = 60, ASKED = 10 };
        for (size_t round = 0; round < ROUNDS; round++) {
            change(index, &m);
            for (size_t j = 0; j < ASKED; j++) {
                recall += ask(index, ws, &m, round * ASKED + j) / (ROUNDS * ASKED);
            }
        }
        if (recall < 0.97) {
            fail_msg("%s: recall %.3f", engines[i], recall);
        }
        ann_workspace_free(ws);
        ann_free(index);
    }
}

/* A batch of exact queries, which share a scan, gives what each gives alone. */
static void batches_see_changes(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct ann *index = build_with_room("native", &v, ROOM);
    add(index, fresh, ROOM / 2);
    for (int i = 0; i < 1000; i++) {
        ann_remove(index, rng_below(&rng, (uint32_t)ann_rows(index)));
    }
    static struct scored alone[QUERIES][K], together[QUERIES][K];
    struct scored *hits[QUERIES];
    struct ann_query q[QUERIES];
    struct ann_answer a[QUERIES];
    struct ann_batch *batch = ann_batch_new(index, K, &e);
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    for (size_t i = 0; i < QUERIES; i++) {
        q[i] = (struct ann_query){.vector = queries + i * DIM, .k = K, .exact = i % 4 > 0, .min_score = -INFINITY};
        hits[i] = together[i];
        assert_int_equal(ann_search(index, ws, &q[i], alone[i], &a[i], &e), 0);
    }
    assert_int_equal(ann_search_batch(index, batch, q, QUERIES, hits, a, &e), 0);
    for (size_t i = 0; i < QUERIES; i++) {
        assert_int_equal(a[i].n, K);
        if (q[i].exact) {
            assert_memory_equal(alone[i], together[i], sizeof alone[i]);
        }
    }
    ann_workspace_free(ws);
    ann_batch_free(batch);
    ann_free(index);
}

/* --- recall ------------------------------------------------------------------------------------------------------- */

/* Recall of what a search at `effort` finds, against the same index's exact answers. */
static double recall_of(const struct ann *index, size_t effort)
{
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    double recall = 0;
    for (size_t i = 0; i < QUERIES; i++) {
        struct scored truth[K], hits[K];
        struct ann_answer a;
        struct ann_query q = {.vector = queries + i * DIM, .k = K, .exact = true, .min_score = -INFINITY};
        assert_int_equal(ann_search(index, ws, &q, truth, &a, &e), 0);
        q.exact = false;
        q.effort = effort;
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
        for (size_t j = 0; j < K; j++) {
            recall += (double)(hits[j].score >= truth[K - 1].score) / (K * QUERIES);
        }
    }
    ann_workspace_free(ws);
    return recall;
}

/* What is added is found at once by who looks for it. */
static void assert_found(const struct ann *index, struct ann_workspace *ws, uint32_t row)
{
    struct scored hits[K];
    struct ann_answer a;
    struct err e = ERR_INIT;
    float unit[DIM];
    memcpy(unit, ann_vector(index, row), sizeof unit);
    vec_normalize_rows(unit, 1, DIM, NULL);
    struct ann_query q = {.vector = unit, .k = K, .effort = 100, .min_score = -INFINITY};
    assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
    size_t at = 0;
    while (at < a.n && hits[at].row != row) {
        at++;
    }
    float own;
    vec_dot_rows(&own, ann_vector(index, row), 1, DIM, unit);
    assert_true(at < a.n || own < hits[a.n - 1].score); /* longer vectors may be above it */
}

/* What is left of an index, as one built of nothing else. */
static struct ann *build_of_live(const struct ann *index, struct ann_vectors *live, uint32_t *rows)
{
    float *x = mem_array(ann_rows_live(index) * DIM, sizeof *x);
    *live = (struct ann_vectors){x, 0, DIM};
    for (uint32_t row = 0; row < ann_rows(index); row++) {
        if (ann_is_live(index, row)) {
            memcpy(x + live->n * DIM, ann_vector(index, row), DIM * sizeof *x);
            rows[live->n++] = row;
        }
    }
    assert_int_equal(live->n, ann_rows_live(index));
    return build_with_room("native", live, 1);
}

/* A tenth added and a tenth removed: as good as an index built from what is left, which has the same exact answers. */
static void recall_stays(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    static uint32_t rows[MOST];
    struct ann_vectors live;
    struct ann *index = build_with_room("native", &v, ROOM);
    add(index, fresh, ROWS / 10);
    for (uint32_t row = 0; row < ann_rows(index); row += 10) {
        ann_remove(index, row);
    }
    struct ann *anew = build_of_live(index, &live, rows);
    for (size_t effort = 4; effort <= 16; effort *= 2) {
        double now = recall_of(index, effort);
        double then = recall_of(anew, effort);
        if (now < then - 0.01 || then < 0.5) {
            fail_msg("effort %zu: recall %.3f after changes, %.3f built anew", effort, now, then);
        }
    }
    struct ann_workspace *ws[] = {ann_workspace_new(index, K, &e), ann_workspace_new(anew, K, &e)};
    for (size_t i = 0; i < QUERIES; i++) {
        struct scored a[K], b[K];
        struct ann_answer answer;
        struct ann_query q = {.vector = queries + i * DIM, .k = K, .exact = true, .min_score = -INFINITY};
        assert_int_equal(ann_search(index, ws[0], &q, a, &answer, &e), 0);
        assert_int_equal(ann_search(anew, ws[1], &q, b, &answer, &e), 0);
        for (size_t j = 0; j < K; j++) {
            assert_true(a[j].row % 10 != 0 && a[j].row == rows[b[j].row] && a[j].score == b[j].score);
        }
    }
    ann_workspace_free(ws[0]);
    ann_workspace_free(ws[1]);
    ann_free(index);
    ann_free(anew);
    mem_free((void *)(uintptr_t)live.data);
}

/* Compaction: the same rows by the same numbers, at no overhead, and what happened meanwhile is not lost. */
static void compaction(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    static uint32_t rows[MOST];
    struct ann_vectors live;
    struct ann_build_options options = {.threads = 2};
    struct ann *index = build_with_room("native", &v, ROOM);
    ann_set_effort(index, 7);
    add(index, fresh, 1000);
    for (uint32_t row = 0; row < ann_rows(index); row += 3) {
        ann_remove(index, row);
    }
    assert_true(ann_can_compact(index));
    struct ann *anew = ann_compact(index, &options, &e);
    assert_non_null(anew);
    assert_int_equal(ann_effort(anew), 7);
    assert_int_equal(ann_overhead(anew), 0);
    uint32_t late = add(index, fresh + 1000 * DIM, 500);
    assert_true(ann_remove(index, 1));
    assert_true(ann_remove(index, late + 1));
    ann_catch_up(anew);
    assert_int_equal(ann_rows(anew), ann_rows(index));
    assert_int_equal(ann_rows_live(anew), ann_rows_live(index));
    assert_int_equal(ann_overhead(anew), 502);
    ann_free(index);

    struct ann *oracle = build_of_live(anew, &live, rows);
    struct ann_workspace *ws[] = {ann_workspace_new(anew, K, &e), ann_workspace_new(oracle, K, &e)};
    double recall = 0;
    for (size_t i = 0; i < QUERIES; i++) {
        struct scored a[K], b[K];
        struct ann_answer answer;
        struct ann_query q = {.vector = queries + i * DIM, .k = K, .exact = true, .min_score = -INFINITY};
        assert_int_equal(ann_search(oracle, ws[1], &q, b, &answer, &e), 0);
        assert_int_equal(ann_search(anew, ws[0], &q, a, &answer, &e), 0);
        for (size_t j = 0; j < K; j++) {
            assert_true(a[j].row == rows[b[j].row] && a[j].score == b[j].score);
        }
        q.exact = false;
        q.effort = 16;
        assert_int_equal(ann_search(anew, ws[0], &q, a, &answer, &e), 0);
        for (size_t j = 0; j < K; j++) {
            assert_true(ann_is_live(anew, a[j].row));
            recall += (double)(a[j].score >= b[K - 1].score) / (K * QUERIES);
        }
    }
    assert_true(recall >= recall_of(oracle, 16) - 0.01);
    assert_found(anew, ws[0], late);
    uint32_t later = add(anew, fresh + 1500 * DIM, 1);
    assert_found(anew, ws[0], later);
    assert_true(ann_remove(anew, later));
    struct ann *again = ann_compact(anew, &options, &e);
    assert_non_null(again);
    ann_free(anew);
    ann_catch_up(again);
    assert_int_equal(ann_rows_live(again), live.n);
    assert_int_equal(ann_overhead(again), 0);
    ann_workspace_free(ws[0]);
    ann_workspace_free(ws[1]);
    ann_free(again);
    ann_free(oracle);
    mem_free((void *)(uintptr_t)live.data);
}

/* A whole cluster's rows removed, all near the queries: still the best of the others, and all of them. */
static void removed_neighbours(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    static struct scored near[ROWS];
    struct ann *index = build_with_room("native", &v, ROOM);
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    float score[ROWS];
    vec_dot_rows(score, v.data, ROWS, DIM, queries);
    size_t n = topk_naive(near, ROWS, score, ROWS);
    for (size_t i = 0; i + K < n; i++) { /* all but the last K */
        assert_true(ann_remove(index, near[i].row));
        if (i == 500 || i + K + 1 == n) {
            struct scored hits[K];
            struct ann_answer a;
            struct ann_query q = {.vector = queries, .k = K, .min_score = -INFINITY};
            assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
            assert_int_equal(a.n, K);
            size_t found = 0;
            for (size_t j = 0; j < K; j++) {
                found += hits[j].score >= near[i + K].score;
            }
            assert_true(found >= K - 2);
        }
    }
    ann_workspace_free(ws);
    ann_free(index);
}

/* --- meanwhile ---------------------------------------------------------------------------------------------------- */

struct meanwhile {
    struct ann *_Atomic index;
    _Atomic bool gone[MOST]; /* set after the removal */
    _Atomic bool stop;
    _Atomic size_t searches, wrong;
};

/* Nothing that was gone before a search began is in its answer, nor anything that was not there when it ended. */
static void *search_meanwhile(void *arg)
{
    struct meanwhile *m = arg;
    struct err e = ERR_INIT;
    struct ann *index = NULL;
    struct ann_workspace *ws = NULL;
    static _Thread_local bool gone[MOST];
    for (size_t i = 0; !atomic_load(&m->stop); i++) {
        if (index != m->index) {
            index = m->index;
            ann_workspace_free(ws);
            ws = ann_workspace_new(index, K, &e);
        }
        struct scored hits[K];
        struct ann_answer a;
        struct ann_query q = {
            .vector = queries + i % QUERIES * DIM, .k = K, .exact = i % 16 == 0, .min_score = -INFINITY};
        for (size_t row = 0; row < MOST; row++) {
            gone[row] = atomic_load_explicit(&m->gone[row], memory_order_acquire);
        }
        size_t before = ann_rows(index);
        bool ok = ann_search(index, ws, &q, hits, &a, &e) == 0 && a.n == K;
        size_t after = ann_rows(index);
        for (size_t j = 0; ok && j < a.n; j++) {
            float score = 0;
            const float *x = ann_vector(index, hits[j].row);
            vec_dot_rows(&score, x == NULL ? queries : x, 1, DIM, q.vector);
            ok = x != NULL && hits[j].row < after && !gone[hits[j].row] && score == hits[j].score;
        }
        atomic_fetch_add(&m->wrong, !ok || before > after);
        atomic_fetch_add(&m->searches, 1);
    }
    ann_workspace_free(ws);
    return NULL;
}

struct compacting {
    const struct ann *index;
    struct ann *anew;
    atomic_bool done;
};

static void *compact_meanwhile(void *arg)
{
    struct compacting *c = arg;
    struct err e = ERR_INIT;
    struct ann_build_options options = {.threads = 1};
    c->anew = ann_compact(c->index, &options, &e);
    atomic_store(&c->done, true);
    return NULL;
}

/* One thread changes, three search, a fifth compacts again and again. */
static void changes_while_others_search(void **state)
{
    (void)state;
    static struct meanwhile m;
    enum { THREADS = 3, KEPT = 64 };
    pthread_t threads[THREADS], compactor;
    struct compacting c = {.done = true};
    struct ann *old[KEPT];
    size_t n_old = 0;
    struct err e = ERR_INIT;
    struct ann *index = build_with_room("native", &v, ROOM);
    struct ann_workspace *ws = ann_workspace_new(index, K, &e);
    m.index = index;
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, search_meanwhile, &m), 0);
    }
    for (size_t done = 0; done < ROOM || n_old < 2;) {
        size_t n = done % 7 == 0 ? 130 : 1;
        n = n < ROOM - done ? n : ROOM - done;
        uint32_t row = add(index, fresh + done * DIM, n);
        if (n > 0) {
            assert_found(index, ws, row + (uint32_t)n - 1);
        }
        done += n;
        for (size_t i = 0; i < n; i++) {
            row = rng_below(&rng, (uint32_t)ann_rows(index));
            if (ann_rows_live(index) > 2 * K && ann_remove(index, row)) {
                atomic_store_explicit(&m.gone[row], true, memory_order_release);
            }
        }
        if (atomic_load(&c.done) && n_old < KEPT) {
            if (c.anew != NULL) {
                pthread_join(compactor, NULL);
                ann_catch_up(c.anew);
                old[n_old++] = index;
                index = c.anew;
                m.index = index;
            }
            c = (struct compacting){.index = index};
            assert_int_equal(pthread_create(&compactor, NULL, compact_meanwhile, &c), 0);
        }
    }
    pthread_join(compactor, NULL);
    while (atomic_load(&m.searches) < 100) {}
    atomic_store(&m.stop, true);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&m.wrong), 0);
    ann_workspace_free(ws);
    ann_free(index);
    ann_free(c.anew);
    for (size_t i = 0; i < n_old; i++) {
        ann_free(old[i]);
    }
}

/* --- what can go wrong -------------------------------------------------------------------------------------------- */

/* --- replacing while others search --------------------------------------------------------------------------------- */

enum { VERSIONS = 2000, READERS = 2 };

struct replaced {
    struct ann *index;
    const float *vector;
    atomic_bool done;
    atomic_size_t settled;
};

/* Of one vector there is always one version, if the answer is settled. */
static void *search_versions(void *arg)
{
    struct replaced *r = arg;
    struct err e = ERR_INIT;
    struct ann_workspace *ws = ann_workspace_new(r->index, K, &e);
    const struct ann_query query = {.vector = r->vector, .k = K, .min_score = -INFINITY};
    size_t wrong = ws == NULL;
    while (wrong == 0 && !atomic_load(&r->done)) {
        struct scored hits[K];
        struct ann_answer answer;
        size_t generation = ann_generation(r->index);
        wrong += ann_search(r->index, ws, &query, hits, &answer, &e) != 0;
        if (ann_is_settled(r->index, generation)) {
            size_t versions = 0;
            for (size_t i = 0; i < answer.n; i++) {
                versions += hits[i].row >= v.n;
            }
            wrong += versions != 1;
            atomic_fetch_add(&r->settled, 1);
        }
    }
    ann_workspace_free(ws);
    return (void *)(uintptr_t)wrong;
}

static void replaced_while_others_search(void **state)
{
    (void)state;
    for (const char *const *engine = ann_engine_names; *engine != NULL; engine++) {
        struct replaced r = {.index = build_with_room(*engine, &v, VERSIONS), .vector = fresh};
        pthread_t readers[READERS];
        struct err e = ERR_INIT;
        uint32_t row = add(r.index, fresh, 1);
        uint32_t first = row;
        for (size_t i = 0; i < READERS; i++) {
            assert_int_equal(pthread_create(&readers[i], NULL, search_versions, &r), 0);
        }
        for (size_t i = 1; i < VERSIONS; i++) {
            uint32_t old = row;
            assert_int_equal(ann_replace(r.index, fresh, 1, &old, 1, &row, &e), 0);
            assert_int_equal(row, first + i);
            assert_false(ann_is_live(r.index, old));
        }
        while (atomic_load(&r.settled) < 10) {}
        atomic_store(&r.done, true);
        for (size_t i = 0; i < READERS; i++) {
            void *wrong = NULL;
            pthread_join(readers[i], &wrong);
            assert_null(wrong);
        }
        assert_true(ann_is_settled(r.index, ann_generation(r.index)));
        assert_false(ann_is_settled(r.index, ann_generation(r.index) - 2));
        assert_int_equal(ann_rows_live(r.index), v.n + 1);
        ann_free(r.index);
    }
}

static void refusals(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    uint32_t row;
    struct ann_build_options options = {.engine = "native", .threads = 1};
    struct ann *index = ann_build(&v, &options, &e);
    assert_int_equal(ann_add(index, fresh, 1, &row, &e), -1);
    assert_string_equal(e.message, "there is room for 0 more rows, not for 1");
    e = (struct err)ERR_INIT;
    assert_false(ann_remove(index, 0));
    assert_int_equal(ann_make_room(index, (size_t)1 << 31, &e), -1);
    e = (struct err)ERR_INIT;
    assert_int_equal(ann_make_room(index, 4, &e), 0);
    assert_int_equal(ann_room(index), 4);
    assert_int_equal(ann_add(index, fresh, 5, &row, &e), -1);
    assert_string_equal(e.message, "there is room for 4 more rows, not for 5");
    float bad[2 * DIM] = {[DIM + 3] = NAN};
    assert_int_equal(ann_add(index, bad, 2, &row, &e), -1);
    bad[DIM + 3] = INFINITY;
    assert_int_equal(ann_add(index, bad, 2, &row, &e), -1);
    assert_int_equal(ann_room(index), 4);
    assert_int_equal(ann_add(index, fresh, 0, &row, &e), 0);
    assert_int_equal(row, ann_rows(index));
    assert_false(ann_remove(index, ROWS)); /* a gap */
    assert_null(ann_vector(index, ROWS));
    assert_false(ann_remove(index, UINT32_MAX));
    assert_int_equal(add(index, fresh, 4), (ROWS + 63) / 64 * 64);
    assert_true(ann_remove(index, (ROWS + 63) / 64 * 64 + 3));
    assert_false(ann_remove(index, (ROWS + 63) / 64 * 64 + 3));
    assert_int_equal(ann_rows_live(index), ROWS + 3);
    ann_free(index);
}

/* An index of nothing grows; one of everything removed answers with nothing. */
static void from_nothing_to_nothing(void **state)
{
    (void)state;
    static const char *const engines[] = {"flat", "faiss", "native"};
    for (size_t i = 0; i < 3; i++) {
        struct err e = ERR_INIT;
        struct ann_vectors none = {v.data, 0, DIM};
        struct ann *index = build_with_room(engines[i], &none, 100);
        struct ann_workspace *ws = ann_workspace_new(index, K, &e);
        struct scored hits[K];
        struct ann_answer a;
        struct ann_query q = {.vector = fresh + 30 * DIM, .k = K, .min_score = -INFINITY};
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
        assert_int_equal(a.n, 0);
        assert_int_equal(add(index, fresh, 100), 0);
        assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
        assert_int_equal(a.n, K);
        for (uint32_t row = 0; row < 100; row++) {
            assert_true(ann_remove(index, row));
            assert_int_equal(ann_search(index, ws, &q, hits, &a, &e), 0);
            assert_int_equal(a.n, 99 - row < K ? 99 - row : K);
            assert_int_equal(a.complete, 99 - row >= K);
        }
        ann_workspace_free(ws);
        ann_free(index);
    }
}

/* After a failed ann_make_room the index answers as before. */
static void short_memory(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct ann_build_options options = {.engine = "native", .threads = 1};
    struct ann *index = ann_build(&v, &options, &e);
    int rc = -1;
    for (long n = 1; rc != 0; n++) {
        mem_fail_at(n);
        rc = ann_make_room(index, ROOM, &e);
        mem_fail_at(0);
        assert_true(n < 100);
        assert_int_equal(ann_rows_most(index), rc == 0 ? (ROWS + 63) / 64 * 64 + ROOM : ROWS);
        assert_true(recall_of(index, 16) > 0.5);
    }
    struct ann *anew = NULL;
    for (long n = 1; anew == NULL; n++) {
        mem_fail_at(n);
        anew = ann_compact(index, &options, &e);
        mem_fail_at(0);
        assert_true(n < 200);
    }
    ann_free(anew);
    assert_true(recall_of(index, 16) > 0.5);
    ann_free(index);
}

/* Scores by ann_score are those of an exact search, to the bit, in any order, of rows given and added. */
static void test_scores_of_named_rows(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct ann *index = build_with_room("native", &v, ROOM);
    add(index, fresh, ROOM / 2);
    struct ann_workspace *ws = ann_workspace_new(index, MOST, &e);
    struct scored *hits = mem_array(MOST, sizeof *hits);
    struct scored *picked = mem_array(MOST, sizeof *picked);
    for (size_t q = 0; q < 10; q++) {
        struct ann_answer answer;
        const struct ann_query query = {.vector = queries + q * DIM, .k = MOST, .exact = true, .min_score = -INFINITY};
        assert_int_equal(ann_search(index, ws, &query, hits, &answer, &e), 0);
        assert_int_equal(answer.n, ROWS + ROOM / 2);
        for (size_t i = answer.n; i > 1; i--) {
            size_t j = rng_below(&rng, (uint32_t)i);
            struct scored other = hits[i - 1];
            hits[i - 1] = hits[j];
            hits[j] = other;
        }
        for (size_t i = 0; i < answer.n; i++) {
            picked[i].row = i % 7 == 3 ? ANN_NO_ROW : hits[i].row;
        }
        ann_score(index, query.vector, picked, answer.n);
        for (size_t i = 0; i < answer.n; i++) {
            assert_int_equal(picked[i].row, i % 7 == 3 ? ANN_NO_ROW : hits[i].row);
            assert_true(i % 7 == 3 ? isnan(picked[i].score) : picked[i].score == hits[i].score);
        }
    }
    ann_score(index, queries, picked, 0);
    mem_free(hits);
    mem_free(picked);
    ann_workspace_free(ws);
    ann_free(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_of_named_rows),
        cmocka_unit_test(engines_answer_as_the_oracle),
        cmocka_unit_test(batches_see_changes),
        cmocka_unit_test(recall_stays),
        cmocka_unit_test(compaction),
        cmocka_unit_test(removed_neighbours),
        cmocka_unit_test(changes_while_others_search),
        cmocka_unit_test(replaced_while_others_search),
        cmocka_unit_test(refusals),
        cmocka_unit_test(from_nothing_to_nothing),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
