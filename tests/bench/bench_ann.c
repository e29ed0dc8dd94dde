/*
 * What a search costs inside one process, with nothing around it: the limit that the daemon is compared with.
 *
 *   bench_ann [-n vectors] [-d dim] [-k k] [-q queries] [-c clusters] [-z noise] [-s spread of lengths] [-e engine]
 *             [-f factory] [-t build threads] [-x exclusions] [-o efforts, comma separated]
 *
 * One line an effort: recall@k against the exact scan, mean and 99th percentile in microseconds, one thread, one query
 * at a time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ann/ann.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/vecmath.h"
#include "tests/bench/bench.h"
#include "tests/unit/ann/data.h"

struct options {
    size_t n, k, queries, exclusions;
    struct data_shape shape;
    struct ann_build_options build;
    const char *efforts;
};

/* Rows to exclude for a query: what an exact search puts first, as after a day of recommendations. */
static size_t excluded_rows(const struct ann *index, struct ann_workspace *ws, const float *vector, size_t count,
                            uint32_t *rows, uint8_t *marks, size_t n, struct scored *hits, struct err *e)
{
    struct ann_query query = {.vector = vector, .k = count, .exact = true, .min_score = -INFINITY};
    struct ann_answer answer;
    if (count == 0) {
        return 0;
    }
    if (ann_search(index, ws, &query, hits, &answer, e) != 0) {
        fail(e);
    }
    memset(marks, 0, n);
    for (size_t i = 0; i < answer.n; i++) {
        marks[hits[i].row] = 1;
    }
    size_t at = 0;
    for (uint32_t row = 0; row < n; row++) {
        if (marks[row]) {
            rows[at++] = row;
        }
    }
    return at;
}

static void measure(const struct ann *index, const struct options *o, const float *queries, size_t effort, bool exact)
{
    struct err e = ERR_INIT;
    size_t most = o->k > o->exclusions ? o->k : o->exclusions;
    struct ann_workspace *ws = ann_workspace_new(index, most, &e);
    struct scored *hits = mem_array(most, sizeof *hits);
    struct scored *truth = mem_array(most, sizeof *truth);
    double *times = mem_array(o->queries, sizeof *times);
    uint32_t *rows = mem_array(o->exclusions, sizeof *rows);
    uint8_t *marks = mem_array(o->n, 1);
    size_t found = 0;
    size_t possible = 0;
    size_t strategies[3] = {0};
    double total = 0;
    for (size_t i = 0; i < o->queries; i++) {
        const float *vector = queries + i * o->shape.dim;
        size_t n_exclude = excluded_rows(index, ws, vector, o->exclusions, rows, marks, o->n, hits, &e);
        struct ann_query query = {.vector = vector,
                                  .k = o->k,
                                  .effort = effort,
                                  .exact = exact,
                                  .min_score = -INFINITY,
                                  .exclude = rows,
                                  .n_exclude = n_exclude};
        struct ann_answer answer;
        struct ann_answer all;
        double start = monotonic_seconds();
        if (ann_search(index, ws, &query, hits, &answer, &e) != 0) {
            fail(&e);
        }
        times[i] = monotonic_seconds() - start;
        total += times[i];
        strategies[answer.strategy]++;
        if (!exact) { /* recall, outside the clock; it evicts caches about as a catalogue's other users do */
            query.exact = true;
            if (ann_search(index, ws, &query, truth, &all, &e) != 0) {
                fail(&e);
            }
            for (size_t j = 0; j < answer.n && all.n > 0; j++) {
                found += hits[j].score >= truth[all.n - 1].score;
            }
            possible += all.n;
        }
    }
    qsort(times, o->queries, sizeof *times, ascending);
    printf("%-7s %6zu  recall@%zu %.4f  mean %8.1f us  p99 %8.1f us  ann %zu filtered %zu exact %zu\n",
           exact ? "exact" : "effort", effort, o->k, exact ? 1.0 : (double)found / (double)possible,
           1e6 * total / (double)o->queries, 1e6 * times[o->queries * 99 / 100], strategies[0], strategies[1],
           strategies[2]);
    fflush(stdout);
    ann_workspace_free(ws);
    mem_free(hits);
    mem_free(truth);
    mem_free(times);
    mem_free(rows);
    mem_free(marks);
}

static void options_read(struct options *o, int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "n:d:k:q:c:z:s:e:f:t:x:o:")) != -1;) {
        size_t number = strtoul(optarg != NULL ? optarg : "0", NULL, 10);
        switch (c) {
        case 'n':
            o->n = number;
            break;
        case 'd':
            o->shape.dim = number;
            break;
        case 'k':
            o->k = number;
            break;
        case 'q':
            o->queries = number;
            break;
        case 'c':
            o->shape.clusters = number;
            break;
        case 'z':
            o->shape.noise = strtof(optarg, NULL);
            break;
        case 's':
            o->shape.spread = strtof(optarg, NULL);
            break;
        case 'e':
            o->build.engine = optarg;
            break;
        case 'f':
            o->build.factory = optarg;
            break;
        case 't':
            o->build.threads = (unsigned)number;
            break;
        case 'x':
            o->exclusions = number;
            break;
        case 'o':
            o->efforts = optarg;
            break;
        default:
            fprintf(stderr, "usage: see the head of tests/bench/bench_ann.c\n");
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = {.n = 100000,
                        .k = 100,
                        .queries = 500,
                        .shape = {.dim = 64, .clusters = 1000, .noise = 0.7f, .spread = 1},
                        .build = {.engine = "faiss", .threads = 1},
                        .efforts = "100,200,400,800"};
    struct err e = ERR_INIT;
    options_read(&o, argc, argv);
    if (blas_setup(&e) != 0) {
        fail(&e);
    }
    float *data = data_new(&o.shape, o.n, 1, 0);
    float *queries = data_new(&o.shape, o.queries, 1, 1);
    struct ann_vectors vectors = {data, o.n, (uint32_t)o.shape.dim};
    double start = monotonic_seconds();
    struct ann *index = ann_build(&vectors, &o.build, &e);
    if (index == NULL) {
        fail(&e);
    }
    printf("%s %s: %zu x %zu, clusters %zu, noise %.2f, lengths 1:%.0f, built in %.1f s, %.1f bytes a vector\n",
           o.build.engine, o.build.factory != NULL ? o.build.factory : "", o.n, o.shape.dim, o.shape.clusters,
           (double)o.shape.noise, (double)o.shape.spread, monotonic_seconds() - start,
           (double)ann_bytes(index) / (double)o.n);
    measure(index, &o, queries, 0, true);
    for (const char *at = o.efforts; at != NULL && *at != '\0'; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        ann_set_effort(index, strtoul(at, NULL, 10));
        measure(index, &o, queries, 0, false);
    }
    ann_free(index);
    mem_free(data);
    mem_free(queries);
    return 0;
}
