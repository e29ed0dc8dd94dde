/*
 * What adding and removing a tenth of an index costs, and does to those who search meanwhile.
 *
 *   bench_changes BASE.npy QUERIES.npy ENGINE K TARGET_RECALL ADDED_AT_ONCE
 *
 * Builds an index of the first ten elevenths of the vectors and tunes it. Then one thread adds the rest and removes as many of
 * the old rows, as fast as it can, while another searches. Lines of name and value: added and removed rows a second (of the
 * time in those calls alone), percentiles of a search's microseconds before, meanwhile, afterwards and in the index compacted (which is built anew),
 * recall@k of the two.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ann/ann.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "tests/bench/bench.h"
#include "train/npy.h"

enum { ROUNDS = 5, LATENCIES = 1 << 20 };

static struct npy base, queries;
static size_t k;

/* --- searching ---------------------------------------------------------------------------------------------------- */

struct searcher {
    const struct ann *index;
    struct ann_workspace *ws;
    struct scored *hits;
    double *latency; /* [LATENCIES] microseconds */
    size_t n;
    _Atomic bool stop;
};

static void search_once(struct searcher *s, size_t number, bool exact, struct scored *hits)
{
    struct err e = ERR_INIT;
    struct ann_answer answer;
    struct ann_query q = {
        .vector = queries.data + number % queries.rows * base.dim, .k = k, .exact = exact, .min_score = -INFINITY};
    if (ann_search(s->index, s->ws, &q, hits, &answer, &e) != 0) {
        fail(&e);
    }
}

static void *search_until_stopped(void *arg)
{
    struct searcher *s = arg;
    for (s->n = 0; s->n < LATENCIES && !atomic_load(&s->stop); s->n++) {
        double started = monotonic_seconds();
        search_once(s, s->n, false, s->hits);
        s->latency[s->n] = 1e6 * (monotonic_seconds() - started);
    }
    return NULL;
}

static void searcher_init(struct searcher *s, const struct ann *index)
{
    struct err e = ERR_INIT;
    *s = (struct searcher){.index = index};
    s->ws = ann_workspace_new(index, k, &e);
    s->hits = mem_array(k, sizeof *s->hits);
    s->latency = mem_array(LATENCIES, sizeof *s->latency);
    if (s->ws == NULL || s->hits == NULL || s->latency == NULL) {
        fail(&e);
    }
}

static void print_latency(const char *name, struct searcher *s)
{
    qsort(s->latency, s->n, sizeof *s->latency, ascending);
    printf("us %s: p50, p99, searches\t%.1f\t%.1f\t%zu\n", name, s->latency[s->n / 2], s->latency[s->n * 99 / 100],
           s->n);
}

static void measure_quiet(const char *name, struct searcher *s)
{
    for (s->n = 0; s->n < ROUNDS * queries.rows && s->n < LATENCIES; s->n++) {
        double started = monotonic_seconds();
        search_once(s, s->n, false, s->hits);
        s->latency[s->n] = 1e6 * (monotonic_seconds() - started);
    }
    print_latency(name, s);
}

static double recall_of(struct searcher *s)
{
    struct scored *truth = mem_array(k, sizeof *truth);
    size_t found = 0;
    for (size_t i = 0; i < queries.rows; i++) {
        search_once(s, i, true, truth);
        search_once(s, i, false, s->hits);
        for (size_t j = 0; j < k; j++) {
            found += s->hits[j].score >= truth[k - 1].score;
        }
    }
    mem_free(truth);
    return (double)found / (double)(k * queries.rows);
}

/* --- changing ----------------------------------------------------------------------------------------------------- */

static void change_all(struct ann *index, size_t old, size_t at_once)
{
    struct rng r;
    struct err e = ERR_INIT;
    double adding = 0;
    double removing = 0;
    size_t fresh = base.rows - old;
    rng_seed(&r, 1, 0);
    for (size_t done = 0; done < fresh; done += at_once) {
        size_t n = at_once < fresh - done ? at_once : fresh - done;
        uint32_t row;
        double started = monotonic_seconds();
        if (ann_add(index, base.data + (old + done) * base.dim, n, &row, &e) != 0) {
            fail(&e);
        }
        double added = monotonic_seconds();
        for (size_t i = 0; i < n; i++) {
            while (!ann_remove(index, rng_below(&r, (uint32_t)old))) {}
        }
        adding += added - started;
        removing += monotonic_seconds() - added;
    }
    printf("rows\t%zu\nadded and removed\t%zu\nadded a second\t%.0f\nremoved a second\t%.0f\n", old, fresh,
           (double)fresh / adding, (double)fresh / removing);
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    if (argc != 7) {
        fprintf(stderr, "usage: bench_changes BASE.npy QUERIES.npy ENGINE K TARGET_RECALL ADDED_AT_ONCE\n");
        return 2;
    }
    k = strtoul(argv[4], NULL, 10);
    double target = strtod(argv[5], NULL);
    size_t at_once = strtoul(argv[6], NULL, 10);
    if (blas_setup(&e) != 0 || npy_open(&base, argv[1], &e) != 0 || npy_open(&queries, argv[2], &e) != 0) {
        fail(&e);
    }
    size_t old = base.rows * 10 / 11;
    struct ann_vectors v = {base.data, old, base.dim};
    struct ann_build_options options = {.engine = argv[3], .threads = 2};
    struct ann *index = ann_build(&v, &options, &e);
    struct ann_truth *truth = index == NULL ? NULL : ann_truth_new(&v, queries.data, queries.rows, k, 2, &e);
    struct ann_tuning tuning;
    if (truth == NULL || ann_tune(index, truth, &target, 1, 2, &tuning, &e) != 0 ||
        ann_make_room(index, base.rows - old, &e) != 0) {
        fail(&e);
    }
    printf("effort\t%zu\nrecall before\t%.4f\n", tuning.effort, tuning.recall);

    struct searcher s;
    pthread_t thread;
    searcher_init(&s, index);
    measure_quiet("before", &s);
    if (pthread_create(&thread, NULL, search_until_stopped, &s) != 0) {
        return 1;
    }
    change_all(index, old, at_once);
    atomic_store(&s.stop, true);
    pthread_join(thread, NULL);
    print_latency("meanwhile", &s);

    double started = monotonic_seconds();
    struct ann *anew = ann_compact(index, &options, &e);
    if (anew == NULL) {
        fail(&e);
    }
    printf("seconds to compact\t%.1f\n", monotonic_seconds() - started);
    struct searcher fresh;
    searcher_init(&fresh, anew);
    measure_quiet("afterwards", &s);
    measure_quiet("compacted", &fresh);
    printf("recall afterwards\t%.4f\nrecall compacted\t%.4f\n", recall_of(&s), recall_of(&fresh));
    return 0;
}
