/*
 * recall-train ann-bench: which engine suits my vectors?
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/schema.h"
#include "core/vecmath.h"
#include "train/ann_bench.h"
#include "train/command.h"
#include "train/npy.h"
#include "train/report_file.h"

static const char help[] =
    "usage: recall-train ann-bench BASE.npy QUERIES.npy [--engine flat|faiss|native] [--factory STR]\n"
    "                              [--metric dot|cosine] [--k 100] [--recall 0.9,0.95,0.98] [--threads 1]\n"
    "                              [--report FILE.json]\n"
    "\n"
    "Builds every engine's index (or one's) over the vectors of BASE, float32 [n, dim], and measures recall@k against "
    "the\n"
    "exact answers for QUERIES [m, dim] (recall-train embed writes both). Prints, tab-separated, for each target what\n"
    "reaches it: effort, recall, microseconds a query, build time, bytes a vector. All processors build, --threads "
    "search.\n"
    "--report writes everything measured, and beside it FILE.html with recall against time.\n";

struct options {
    const char *base, *queries, *report;
    bool cosine;
    struct ann_bench_options bench;
};

static int compare_descending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x < y) - (x > y);
}

/* "0.9,0.95,0.98"; 0 or the exit status. */
static int parse_targets(const char *text, struct ann_bench_options *o)
{
    o->n_targets = 0;
    for (const char *at = text;; at++) {
        char *end;
        double target = strtod(at, &end);
        if (end == at || (*end != ',' && *end != '\0') || !(target > 0 && target <= 1)) {
            return command_usage("ann-bench",
                                 "--recall must be numbers above 0 and at most 1 with commas between, not '%s'", text);
        }
        if (o->n_targets == ANN_BENCH_TARGETS) {
            return command_usage("ann-bench", "--recall takes at most %d numbers", ANN_BENCH_TARGETS);
        }
        o->targets[o->n_targets++] = target;
        at = end;
        if (*end == '\0') {
            qsort(o->targets, o->n_targets, sizeof *o->targets, compare_descending);
            return 0;
        }
    }
}

/* 0, or the exit status. */
static int parse_option(int c, char **argv, struct options *o)
{
    unsigned long long n = 0;
    switch (c) {
    case 'e':
        o->bench.engine = optarg;
        return word_find(ann_engine_names, optarg) < 0 ? command_usage("ann-bench", "no engine '%s'", optarg) : 0;
    case 'f':
        o->bench.factory = optarg;
        return 0;
    case 'm':
        o->cosine = strcmp(optarg, "cosine") == 0;
        return o->cosine || strcmp(optarg, "dot") == 0 ? 0 : command_usage("ann-bench", "no metric '%s'", optarg);
    case 'k':
        if (parse_count("ann-bench", "--k", optarg, 1, 10000, &n) < 0) {
            return STATUS_USAGE;
        }
        o->bench.k = (size_t)n;
        return 0;
    case 'R':
        return parse_targets(optarg, &o->bench);
    case 'n':
        if (parse_count("ann-bench", "--threads", optarg, 1, 1024, &n) < 0) {
            return STATUS_USAGE;
        }
        o->bench.threads = (unsigned)n;
        return 0;
    case 'r':
        o->report = optarg;
        return 0;
    default:
        return command_bad_option("ann-bench", c, argv);
    }
}

/* -1: go on; otherwise the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"engine", required_argument, NULL, 'e'},
                                          {"factory", required_argument, NULL, 'f'},
                                          {"metric", required_argument, NULL, 'm'},
                                          {"k", required_argument, NULL, 'k'},
                                          {"recall", required_argument, NULL, 'R'},
                                          {"threads", required_argument, NULL, 'n'},
                                          {"report", required_argument, NULL, 'r'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return STATUS_DONE;
        }
        int status = parse_option(c, argv, o);
        if (status != 0) {
            return status;
        }
    }
    if (argc - optind != 2) {
        return command_usage("ann-bench", "two files are needed: BASE.npy and QUERIES.npy");
    }
    if (o->bench.factory != NULL && o->bench.engine != NULL && strcmp(o->bench.engine, "faiss") != 0) {
        return command_usage("ann-bench", "only the faiss engine has factories");
    }
    o->base = argv[optind];
    o->queries = argv[optind + 1];
    return -1;
}

/* The vectors of a file, normalised for cosine into *copy (mem_free); NULL with an error. */
static const float *vectors_of(const struct npy *npy, const char *path, bool cosine, float **copy, struct err *e)
{
    for (size_t i = 0; i < npy->rows; i++) {
        if (!vec_is_finite(npy->data + i * npy->dim, npy->dim)) {
            err_set(e, "%s: row %zu has numbers that are not finite", path, i);
            return NULL;
        }
    }
    if (!cosine) {
        return npy->data;
    }
    *copy = mem_array(npy->rows, npy->dim * sizeof **copy);
    if (*copy == NULL) {
        err_nomem(e);
        return NULL;
    }
    memcpy(*copy, npy->data, npy->rows * npy->dim * sizeof **copy);
    vec_normalize_rows(*copy, npy->rows, npy->dim, NULL);
    return *copy;
}

static json_t *measure(const struct options *o, const struct npy *base, const struct npy *queries, struct err *e)
{
    float *copies[2] = {NULL, NULL};
    json_t *record = NULL;
    if (base->rows == 0 || queries->rows == 0) {
        err_set(e, "%s: there are no vectors in it", base->rows == 0 ? o->base : o->queries);
        return NULL;
    }
    if (base->dim != queries->dim) {
        err_set(e, "%s has vectors of %u numbers, %s of %u", o->base, base->dim, o->queries, queries->dim);
        return NULL;
    }
    const float *x = vectors_of(base, o->base, o->cosine, &copies[0], e);
    const float *q = x == NULL ? NULL : vectors_of(queries, o->queries, o->cosine, &copies[1], e);
    if (q != NULL) {
        struct ann_vectors vectors = {x, base->rows, base->dim};
        record = ann_bench(&o->bench, &vectors, q, queries->rows, e);
    }
    mem_free(copies[0]);
    mem_free(copies[1]);
    return record;
}

static int run(const struct options *o, struct err *e)
{
    struct npy base = {0};
    struct npy queries = {0};
    json_t *record = NULL;
    if (check_report(o->report, e) == 0 && npy_open(&base, o->base, e) == 0 && npy_open(&queries, o->queries, e) == 0) {
        record = measure(o, &base, &queries, e);
    }
    struct buf table = BUF_INIT;
    int rc = record == NULL ? -1 : 0;
    if (rc == 0) {
        ann_bench_table(&table, record);
        rc = buf_failed(&table) ? err_nomem(e) : 0;
    }
    if (rc == 0 && o->report != NULL) {
        rc = record_write(o->report, record, ann_bench_page, e);
    }
    if (rc == 0 && (o->report == NULL || strcmp(o->report, "-") != 0)) {
        fputs(table.data, stdout);
    }
    buf_release(&table);
    json_decref(record);
    npy_close(&base);
    npy_close(&queries);
    return rc;
}

int cmd_ann_bench(int argc, char **argv)
{
    struct options o = {
        .bench = {
            .k = 100, .targets = {0.98, 0.95, 0.9}, .n_targets = 3, .threads = 1, .build_threads = count_processors()}};
    struct err e = ERR_INIT;
    int status = parse_options(argc, argv, &o);
    if (status >= 0) {
        return status;
    }
    return run(&o, &e) < 0 ? command_failed(&e) : STATUS_DONE;
}
