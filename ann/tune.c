/*
 * Recall by measurement: the exact answers once, then the engine's answers at each effort, spread over threads.
 *
 * The truth is kept as one number a query, the score of its k-th best row: a row found is a true one if it scores at
 * least that. Comparing row numbers would call the members of a tie wrong, and catalogues have duplicates by the
 * thousand. Scores are the same to the bit both ways (see ann/flat.c), so no tolerance is needed.
 */
#include <math.h>
#include <stdatomic.h>

#include "ann/engine.h"
#include "core/mem.h"
#include "core/parallel.h"

struct measurement {
    const struct ann *index;
    const float *queries; /* [count, dim] */
    size_t count;
    size_t k;
    size_t effort;
    bool exact;    /* fill in truth, instead of comparing with it */
    float *truth;  /* [count] score of the k-th best row */
    size_t true_k; /* min(k, n) */
    atomic_size_t next;
    atomic_size_t found;
};

struct worker {
    struct measurement *m;
    struct err err;
    int rc;
};

static int measure_query(struct measurement *m, size_t i, struct ann_workspace *ws, struct scored *hits, struct err *e)
{
    struct ann_query query = {.vector = m->queries + i * m->index->vectors.dim,
                              .k = m->k,
                              .effort = m->effort,
                              .exact = m->exact,
                              .min_score = -INFINITY};
    struct ann_answer answer;
    if (ann_search(m->index, ws, &query, hits, &answer, e) != 0) {
        return err_prefix(e, "query %zu", i);
    }
    if (m->exact) {
        m->truth[i] = answer.n > 0 ? hits[answer.n - 1].score : 0;
        return 0;
    }
    size_t found = 0;
    while (found < answer.n && found < m->true_k && hits[found].score >= m->truth[i]) {
        found++;
    }
    atomic_fetch_add(&m->found, found);
    return 0;
}

static void work(void *arg, unsigned number)
{
    struct worker *w = (struct worker *)arg + number;
    struct measurement *m = w->m;
    struct ann_workspace *ws = ann_workspace_new(m->index, m->k, &w->err);
    struct scored *hits = mem_array(m->k, sizeof *hits);
    if (ws == NULL || hits == NULL) {
        w->rc = err_nomem(&w->err);
    }
    for (size_t i = 0; w->rc == 0 && (i = atomic_fetch_add(&m->next, 1)) < m->count;) {
        w->rc = measure_query(m, i, ws, hits, &w->err);
    }
    mem_free(hits);
    ann_workspace_free(ws);
}

/* Runs all queries once, on this thread and threads - 1 more; those that can't be started leave their share to it. */
static int measure(struct measurement *m, unsigned threads, struct err *e)
{
    struct worker *workers = mem_array(threads, sizeof *workers);
    if (workers == NULL) {
        return err_nomem(e);
    }
    atomic_store(&m->next, 0);
    atomic_store(&m->found, 0);
    for (unsigned i = 0; i < threads; i++) {
        workers[i].m = m;
    }
    parallel_run(threads, work, workers);
    int rc = 0;
    for (unsigned i = 0; i < threads; i++) {
        if (workers[i].rc != 0) {
            rc = err_set(e, "%s", workers[i].err.message);
        }
    }
    mem_free(workers);
    return rc;
}

static double measured_recall(const struct measurement *m)
{
    return m->count * m->true_k == 0 ? 1.0 : (double)atomic_load(&m->found) / (double)(m->count * m->true_k);
}

/* The exact half. m->truth is new memory (mem_free), also on failure. */
static int measure_truth(struct measurement *m, unsigned threads, struct err *e)
{
    size_t n = m->index->vectors.n;
    m->true_k = m->k < n ? m->k : n;
    m->truth = mem_array(m->count, sizeof *m->truth);
    if (m->truth == NULL) {
        return err_nomem(e);
    }
    m->exact = true;
    int rc = measure(m, threads, e);
    m->exact = false;
    return rc;
}

int ann_measure_recall(const struct ann *index, const float *queries, size_t count, size_t k, size_t effort,
                       unsigned threads, double *recall, struct err *e)
{
    struct measurement m = {.index = index, .queries = queries, .count = count, .k = k, .effort = effort};
    int rc = measure_truth(&m, threads, e);
    if (rc == 0) {
        rc = measure(&m, threads, e);
    }
    *recall = rc == 0 ? measured_recall(&m) : 0;
    mem_free(m.truth);
    return rc;
}

int ann_tune(struct ann *index, const float *queries, size_t count, size_t k, double target, unsigned threads,
             struct ann_tuning *result, struct err *e)
{
    *result = (struct ann_tuning){.effort = ann_effort(index), .recall = 1};
    if (index->engine->exact || index->vectors.n == 0) {
        return 0;
    }
    struct measurement m = {.index = index, .queries = queries, .count = count, .k = k};
    struct ann_effort_range range = index->engine->effort_range(index, k);
    int rc = measure_truth(&m, threads, e);
    bool reached = false;
    size_t beyond = 0;
    for (size_t next = range.first; rc == 0 && result->n < ANN_TUNE_POINTS; next *= 2) {
        ann_set_effort(index, next < range.last ? next : range.last);
        rc = measure(&m, threads, e);
        double recall = rc == 0 ? measured_recall(&m) : 0;
        result->points[result->n].effort = ann_effort(index);
        result->points[result->n++].recall = recall;
        if (!reached) {
            result->effort = ann_effort(index);
            result->recall = recall;
        }
        beyond += reached;
        reached = reached || recall >= target;
        if (next >= range.last || (reached && (recall >= 1 || beyond == ANN_TUNE_BEYOND))) {
            break;
        }
    }
    ann_set_effort(index, result->effort);
    mem_free(m.truth);
    return rc;
}
