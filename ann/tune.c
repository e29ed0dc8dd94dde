/*
 * Recall by measurement: the exact answers once, then the engine's answers at each effort, spread over threads.
 *
 * The truth is kept as one number a query, the score of its k-th best row: a row found is a true one if it scores at
 * least that. Comparing row numbers would call the members of a tie wrong, and catalogues have duplicates by the
 * thousand. Scores are the same to the bit both ways (see ann/flat.c), so no tolerance is needed.
 */
#include <math.h>
#include <stdatomic.h>
#include <time.h>

#include "ann/engine.h"
#include "core/mem.h"
#include "core/parallel.h"

struct measurement {
    const struct ann *index;
    const float *queries; /* [count, dim] */
    size_t count;
    size_t k;
    size_t effort;
    float *truth;   /* [count] score of the k-th best row */
    size_t true_k;  /* min(k, n) */
    uint32_t *hit;  /* [count] how many of the true rows were found */
    double seconds; /* of searching, all threads together */
};

struct worker {
    struct measurement *m;
    atomic_size_t *next;
    double seconds;
    struct err err;
    int rc;
};

enum { TRUTH_QUERIES = 64 }; /* that share an exact scan */

/* --- the exact half ------------------------------------------------------------------------------------------------- */

static void find_truth(struct worker *w, size_t first, size_t n, struct ann_batch *batch, struct scored *hits)
{
    struct measurement *m = w->m;
    struct ann_query queries[TRUTH_QUERIES];
    struct ann_answer answers[TRUTH_QUERIES];
    struct scored *to[TRUTH_QUERIES];
    for (size_t i = 0; i < n; i++) {
        queries[i] = (struct ann_query){.vector = m->queries + (first + i) * m->index->vectors.dim,
                                        .k = m->k,
                                        .exact = true,
                                        .min_score = -INFINITY};
        to[i] = hits + i * m->k;
    }
    w->rc = ann_search_batch(m->index, batch, queries, n, to, answers, &w->err);
    for (size_t i = 0; w->rc == 0 && i < n; i++) {
        m->truth[first + i] = answers[i].n > 0 ? to[i][answers[i].n - 1].score : 0;
    }
}

static void work_on_truth(void *arg, unsigned number)
{
    struct worker *w = (struct worker *)arg + number;
    struct measurement *m = w->m;
    struct ann_batch *batch = ann_batch_new(m->index, m->k, &w->err);
    struct scored *hits = mem_array(TRUTH_QUERIES * m->k, sizeof *hits);
    if (batch == NULL || hits == NULL) {
        w->rc = err_nomem(&w->err);
    }
    for (size_t i = 0; w->rc == 0 && (i = atomic_fetch_add(w->next, TRUTH_QUERIES)) < m->count;) {
        find_truth(w, i, m->count - i < TRUTH_QUERIES ? m->count - i : TRUTH_QUERIES, batch, hits);
    }
    mem_free(hits);
    ann_batch_free(batch);
}

/* --- the index's own half ------------------------------------------------------------------------------------------- */

static void measure_query(struct worker *w, size_t i, struct ann_workspace *ws, struct scored *hits)
{
    struct measurement *m = w->m;
    struct ann_query query = {.vector = m->queries + i * m->index->vectors.dim,
                              .k = m->k,
                              .effort = m->effort,
                              .min_score = -INFINITY};
    struct ann_answer answer;
    w->rc = ann_search(m->index, ws, &query, hits, &answer, &w->err);
    uint32_t found = 0;
    while (w->rc == 0 && found < answer.n && found < m->true_k && hits[found].score >= m->truth[i]) {
        found++;
    }
    m->hit[i] = found;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void work_on_queries(void *arg, unsigned number)
{
    struct worker *w = (struct worker *)arg + number;
    struct measurement *m = w->m;
    struct ann_workspace *ws = ann_workspace_new(m->index, m->k, &w->err);
    struct scored *hits = mem_array(m->k, sizeof *hits);
    if (ws == NULL || hits == NULL) {
        w->rc = err_nomem(&w->err);
    }
    double started = now();
    for (size_t i = 0; w->rc == 0 && (i = atomic_fetch_add(w->next, 1)) < m->count;) {
        measure_query(w, i, ws, hits);
    }
    w->seconds = now() - started;
    mem_free(hits);
    ann_workspace_free(ws);
}

/* --- both ----------------------------------------------------------------------------------------------------------- */

/* Runs all queries once, on this thread and threads - 1 more; those that can't be started leave their share to it. */
static int run(struct measurement *m, parallel_work *work, unsigned threads, struct err *e)
{
    struct worker *workers = mem_array(threads, sizeof *workers);
    if (workers == NULL) {
        return err_nomem(e);
    }
    atomic_size_t next = 0;
    for (unsigned i = 0; i < threads; i++) {
        workers[i].m = m;
        workers[i].next = &next;
    }
    parallel_run(threads, work, workers);
    int rc = 0;
    m->seconds = 0;
    for (unsigned i = 0; i < threads; i++) {
        m->seconds += workers[i].seconds;
        if (workers[i].rc != 0) {
            rc = err_set(e, "%s", workers[i].err.message);
        }
    }
    mem_free(workers);
    return rc;
}

static int measurement_begin(struct measurement *m, unsigned threads, struct err *e)
{
    size_t n = m->index->vectors.n;
    m->true_k = m->k < n ? m->k : n;
    m->truth = mem_array(m->count, sizeof *m->truth);
    m->hit = mem_array(m->count, sizeof *m->hit);
    if (m->truth == NULL || m->hit == NULL) {
        return err_nomem(e);
    }
    return run(m, work_on_truth, threads, e);
}

static void measurement_end(struct measurement *m)
{
    mem_free(m->truth);
    mem_free(m->hit);
}

/* One point of the curve: mean recall, what is left of it after its standard error, and the time. */
static int measure_point(struct measurement *m, unsigned threads, struct ann_point *point, struct err *e)
{
    if (run(m, work_on_queries, threads, e) != 0) {
        return -1;
    }
    double count = (double)m->count;
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < m->count; i++) {
        double recall = m->true_k == 0 ? 1.0 : (double)m->hit[i] / (double)m->true_k;
        sum += recall;
        squares += recall * recall;
    }
    double mean = m->count == 0 ? 1.0 : sum / count;
    double variance = m->count < 2 ? 0 : fmax(squares / count - mean * mean, 0) / (count - 1);
    *point = (struct ann_point){.effort = m->effort,
                                .recall = mean,
                                .low = mean - sqrt(variance),
                                .microseconds = m->count == 0 ? 0 : 1e6 * m->seconds / count};
    return 0;
}

int ann_measure(const struct ann *index, const float *queries, size_t count, size_t k, size_t effort, unsigned threads,
                struct ann_point *point, struct err *e)
{
    struct measurement m = {.index = index, .queries = queries, .count = count, .k = k, .effort = effort};
    int rc = measurement_begin(&m, threads, e);
    if (rc == 0) {
        rc = measure_point(&m, threads, point, e);
    }
    measurement_end(&m);
    return rc;
}

int ann_measure_recall(const struct ann *index, const float *queries, size_t count, size_t k, size_t effort,
                       unsigned threads, double *recall, struct err *e)
{
    struct ann_point point = {0};
    int rc = ann_measure(index, queries, count, k, effort, threads, &point, e);
    *recall = point.recall;
    return rc;
}

/* --- tuning --------------------------------------------------------------------------------------------------------- */

static int add_point(struct ann *index, struct measurement *m, size_t effort, unsigned threads,
                     struct ann_tuning *result, struct err *e)
{
    ann_set_effort(index, effort);
    m->effort = ann_effort(index);
    size_t at = result->n;
    while (at > 0 && result->points[at - 1].effort > m->effort) {
        result->points[at] = result->points[at - 1];
        at--;
    }
    result->n++;
    return measure_point(m, threads, &result->points[at], e);
}

/* The first point that reaches the target; n without one. */
static size_t first_reaching(const struct ann_tuning *t, double target)
{
    size_t i = 0;
    while (i < t->n && t->points[i].low < target) {
        i++;
    }
    return i;
}

/* Up the ladder: past the target, and on while that says something about more effort. */
static int climb(struct ann *index, struct measurement *m, double target, unsigned threads, struct ann_tuning *result,
                 struct err *e)
{
    enum { BEYOND = 4 }; /* times the effort that reached the target */
    const double enough = 0.998;
    struct ann_effort_range range = index->engine->effort_range(index, m->k);
    for (size_t next = range.first; result->n < ANN_LADDER_POINTS; next += next / 2 + 1) {
        next = next < range.last ? next : range.last;
        if (add_point(index, m, next, threads, result, e) != 0) {
            return -1;
        }
        size_t reached = first_reaching(result, target);
        bool far = reached < result->n && next >= BEYOND * result->points[reached].effort;
        if (next == range.last || (reached < result->n && (far || result->points[result->n - 1].low >= enough))) {
            return 0;
        }
    }
    return 0;
}

int ann_tune(struct ann *index, const float *queries, size_t count, size_t k, double target, unsigned threads,
             struct ann_tuning *result, struct err *e)
{
    *result = (struct ann_tuning){.effort = ann_effort(index), .recall = 1, .reached = true};
    if (index->engine->exact || index->vectors.n == 0) {
        return 0;
    }
    struct measurement m = {.index = index, .queries = queries, .count = count, .k = k};
    int rc = measurement_begin(&m, threads, e);
    rc = rc == 0 ? climb(index, &m, target, threads, result, e) : rc;
    /* the step of the ladder that crosses the target, halved until it is small */
    for (size_t i = first_reaching(result, target); rc == 0 && result->n < ANN_TUNE_POINTS && i > 0 && i < result->n;
         i = first_reaching(result, target)) {
        size_t below = result->points[i - 1].effort;
        size_t step = result->points[i].effort - below;
        if (step <= 1 + below / 16) {
            break;
        }
        rc = add_point(index, &m, below + step / 2, threads, result, e);
    }
    if (rc == 0) {
        size_t chosen = first_reaching(result, target);
        result->reached = chosen < result->n;
        chosen = result->reached ? chosen : result->n - 1;
        result->effort = result->points[chosen].effort;
        result->recall = result->points[chosen].recall;
    }
    ann_set_effort(index, result->effort);
    measurement_end(&m);
    return rc;
}
