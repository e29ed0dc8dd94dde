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
#include "core/clock.h"
#include "core/mem.h"
#include "core/parallel.h"

struct ann_truth {
    struct ann_vectors vectors;
    const float *queries; /* [count, dim] */
    size_t count;
    size_t k;
    float *score;  /* [count] of the k-th best row */
    size_t true_k; /* min(k, n) */
};

struct measurement {
    const struct ann *index;
    const struct ann_truth *truth;
    size_t effort;
    uint32_t *hit; /* [count] how many of the true rows were found */
};

struct worker {
    const struct ann *index;
    struct ann_truth *truth; /* to be found out, or */
    struct measurement *m;   /* to be measured */
    atomic_size_t *next;
    double seconds;
    struct err err;
    int rc;
};

/* Runs all queries once, on this thread and threads - 1 more; those that can't be started leave their share to it. */
static int run(const struct worker *job, parallel_work *work, unsigned threads, double *seconds, struct err *e)
{
    struct worker *workers = mem_array(threads, sizeof *workers);
    if (workers == NULL) {
        return err_nomem(e);
    }
    atomic_size_t next = 0;
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = *job;
        workers[i].next = &next;
    }
    parallel_run(threads, work, workers);
    int rc = 0;
    *seconds = 0;
    for (unsigned i = 0; i < threads; i++) {
        *seconds += workers[i].seconds;
        if (workers[i].rc != 0) {
            rc = err_set(e, "%s", workers[i].err.message);
        }
    }
    mem_free(workers);
    return rc;
}

enum { TRUTH_QUERIES = 64 }; /* that share an exact scan */

/* --- the exact half ------------------------------------------------------------------------------------------------- */

static void find_truth(struct worker *w, size_t first, size_t n, struct ann_batch *batch, struct scored *hits)
{
    struct ann_truth *t = w->truth;
    struct ann_query queries[TRUTH_QUERIES] = {{0}};
    struct ann_answer answers[TRUTH_QUERIES] = {{0}};
    struct scored *to[TRUTH_QUERIES] = {NULL};
    for (size_t i = 0; i < n; i++) {
        queries[i] = (struct ann_query){
            .vector = t->queries + (first + i) * t->vectors.dim, .k = t->k, .exact = true, .min_score = -INFINITY};
        to[i] = hits + i * t->k;
    }
    w->rc = ann_search_batch(w->index, batch, queries, n, to, answers, &w->err);
    for (size_t i = 0; w->rc == 0 && i < n; i++) {
        t->score[first + i] = answers[i].n > 0 ? to[i][answers[i].n - 1].score : 0;
    }
}

static void work_on_truth(void *arg, unsigned number)
{
    struct worker *w = (struct worker *)arg + number;
    const struct ann_truth *t = w->truth;
    struct ann_batch *batch = ann_batch_new(w->index, t->k, &w->err);
    struct scored *hits = mem_array(TRUTH_QUERIES * t->k, sizeof *hits);
    if (batch == NULL || hits == NULL) {
        w->rc = err_nomem(&w->err);
    }
    for (size_t i = 0; w->rc == 0 && (i = atomic_fetch_add(w->next, TRUTH_QUERIES)) < t->count;) {
        find_truth(w, i, t->count - i < TRUTH_QUERIES ? t->count - i : TRUTH_QUERIES, batch, hits);
    }
    mem_free(hits);
    ann_batch_free(batch);
}

struct ann_truth *ann_truth_new(const struct ann_vectors *vectors, const float *queries, size_t count, size_t k,
                                unsigned threads, struct err *e)
{
    struct ann_truth *t = mem_array(1, sizeof *t);
    struct ann *flat = ann_open("flat", NULL, vectors, 0, e);
    double ignored;
    if (t != NULL) {
        *t = (struct ann_truth){
            *vectors, queries, count, k, mem_array(count, sizeof(float)), k < vectors->n ? k : vectors->n};
    }
    if (t == NULL || t->score == NULL) {
        err_nomem(e);
    } else if (flat != NULL &&
               run(&(struct worker){.index = flat, .truth = t}, work_on_truth, threads, &ignored, e) == 0) {
        ann_free(flat);
        return t;
    }
    ann_free(flat);
    ann_truth_free(t);
    return NULL;
}

void ann_truth_free(struct ann_truth *t)
{
    if (t != NULL) {
        mem_free(t->score);
        mem_free(t);
    }
}

/* --- the index's own half ------------------------------------------------------------------------------------------- */

static void measure_query(struct worker *w, size_t i, struct ann_workspace *ws, struct scored *hits)
{
    const struct measurement *m = w->m;
    const struct ann_truth *t = m->truth;
    struct ann_query query = {
        .vector = t->queries + i * t->vectors.dim, .k = t->k, .effort = m->effort, .min_score = -INFINITY};
    struct ann_answer answer;
    w->rc = ann_search(w->index, ws, &query, hits, &answer, &w->err);
    uint32_t found = 0;
    while (w->rc == 0 && found < answer.n && found < t->true_k && hits[found].score >= t->score[i]) {
        found++;
    }
    m->hit[i] = found;
}

static void work_on_queries(void *arg, unsigned number)
{
    struct worker *w = (struct worker *)arg + number;
    const struct ann_truth *t = w->m->truth;
    struct ann_workspace *ws = ann_workspace_new(w->index, t->k, &w->err);
    struct scored *hits = mem_array(t->k, sizeof *hits);
    if (ws == NULL || hits == NULL) {
        w->rc = err_nomem(&w->err);
    }
    double started = monotonic_seconds();
    for (size_t i = 0; w->rc == 0 && (i = atomic_fetch_add(w->next, 1)) < t->count;) {
        measure_query(w, i, ws, hits);
    }
    w->seconds = monotonic_seconds() - started;
    mem_free(hits);
    ann_workspace_free(ws);
}

/* --- measuring ------------------------------------------------------------------------------------------------------ */

/* Standard errors from the mean to the low end: recall is below that five times in a hundred. With one it was one time in six, and
 * once in 150 tunings .005 below the target (tests/bench/bench_targets.c). */
static const double BOUND = 1.645;

static int measure(struct measurement *m, unsigned threads, struct ann_point *point, struct err *e)
{
    const struct ann_truth *t = m->truth;
    double count = (double)t->count;
    double sum = 0;
    double squares = 0;
    double seconds;
    if (run(&(struct worker){.index = m->index, .m = m}, work_on_queries, threads, &seconds, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < t->count; i++) {
        double recall = t->true_k == 0 ? 1.0 : (double)m->hit[i] / (double)t->true_k;
        sum += recall;
        squares += recall * recall;
    }
    double mean = t->count == 0 ? 1.0 : sum / count;
    double variance = t->count < 2 ? 0 : fmax(squares / count - mean * mean, 0) / (count - 1);
    *point = (struct ann_point){.effort = m->effort > 0 ? m->effort : ann_effort(m->index),
                                .recall = mean,
                                .low = mean - BOUND * sqrt(variance),
                                .microseconds = t->count == 0 ? 0 : 1e6 * seconds / count};
    return 0;
}

int ann_measure(const struct ann *index, const struct ann_truth *truth, size_t effort, unsigned threads,
                struct ann_point *point, struct err *e)
{
    struct measurement m = {index, truth, effort, mem_array(truth->count, sizeof(uint32_t))};
    int rc = m.hit == NULL ? err_nomem(e) : measure(&m, threads, point, e);
    mem_free(m.hit);
    return rc;
}

int ann_measure_recall(const struct ann *index, const float *queries, size_t count, size_t k, size_t effort,
                       unsigned threads, double *recall, struct err *e)
{
    struct ann_point point = {0};
    struct ann_truth *truth = ann_truth_new(&index->vectors, queries, count, k, threads, e);
    int rc = truth == NULL ? -1 : ann_measure(index, truth, effort, threads, &point, e);
    ann_truth_free(truth);
    *recall = point.recall;
    return rc;
}

/* --- tuning --------------------------------------------------------------------------------------------------------- */

struct tuning {
    struct ann *index;
    const struct ann_truth *truth;
    unsigned threads;
    struct ann_tuning *result;
};

static int add_point(const struct tuning *t, size_t effort, struct err *e)
{
    struct ann_tuning *r = t->result;
    struct ann_point point;
    ann_set_effort(t->index, effort);
    if (ann_measure(t->index, t->truth, 0, t->threads, &point, e) != 0) {
        return -1;
    }
    size_t at = r->n++;
    for (; at > 0 && r->points[at - 1].effort > point.effort; at--) {
        r->points[at] = r->points[at - 1];
    }
    r->points[at] = point;
    return 0;
}

size_t ann_tuning_find(const struct ann_tuning *t, double target)
{
    size_t i = 0;
    while (i < t->n && t->points[i].low < target) {
        i++;
    }
    return i;
}

/* Up the ladder: past the target, and on while that says something about more effort. */
static int climb(const struct tuning *t, double target, struct err *e)
{
    enum { BEYOND = 4 }; /* times the effort that reached the target */
    const double enough = 0.998;
    struct ann_tuning *r = t->result;
    struct ann_effort_range range = t->index->engine->effort_range(t->index, t->truth->k);
    for (size_t next = range.first; r->n < ANN_LADDER_POINTS; next += next / 2 + 1) {
        next = next < range.last ? next : range.last;
        if (add_point(t, next, e) != 0) {
            return -1;
        }
        size_t reached = ann_tuning_find(r, target);
        bool far = reached < r->n && next >= BEYOND * r->points[reached].effort;
        if (next == range.last || (reached < r->n && (far || r->points[r->n - 1].low >= enough))) {
            return 0;
        }
    }
    return 0;
}

/* Halves the step of the ladder that crosses a target until it is small. */
static int refine(const struct tuning *t, double target, struct err *e)
{
    struct ann_tuning *r = t->result;
    for (size_t i = ann_tuning_find(r, target); r->n < ANN_TUNE_POINTS && i > 0 && i < r->n;
         i = ann_tuning_find(r, target)) {
        size_t below = r->points[i - 1].effort;
        size_t step = r->points[i].effort - below;
        if (step <= 1 + below / 16) {
            break;
        }
        if (add_point(t, below + step / 2, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int ann_tune(struct ann *index, const struct ann_truth *truth, const double *targets, size_t n_targets,
             unsigned threads, struct ann_tuning *result, struct err *e)
{
    *result = (struct ann_tuning){.effort = ann_effort(index), .recall = 1, .reached = true};
    if (index->engine->exact || index->vectors.n == 0) {
        return 0;
    }
    struct tuning t = {index, truth, threads, result};
    double highest = targets[0];
    for (size_t i = 1; i < n_targets; i++) {
        highest = fmax(highest, targets[i]);
    }
    int rc = climb(&t, highest, e);
    for (size_t i = 0; rc == 0 && i < n_targets; i++) {
        rc = refine(&t, targets[i], e);
    }
    if (rc == 0) {
        size_t chosen = ann_tuning_find(result, targets[0]);
        result->reached = chosen < result->n;
        chosen = result->reached ? chosen : result->n - 1;
        result->effort = result->points[chosen].effort;
        result->recall = result->points[chosen].recall;
    }
    ann_set_effort(index, result->effort);
    return rc;
}
