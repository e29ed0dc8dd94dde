#include "train/ann_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpu.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/chart.h"
#include "train/html.h"
#include "train/index_build.h"
#include "train/progress.h"
#include "train/report.h"
#include "train/report_view.h"

enum { ROUNDS = 5, ENGINES_MAX = 8, CURVE_MAX = 64 };

/* --- measuring ------------------------------------------------------------------------------------------------------ */

struct contestant {
    const char *engine, *factory;
    struct ann *index;
    double build_seconds;
    struct ann_tuning tuning;
    bool reached[ANN_BENCH_TARGETS];
    struct ann_point point[ANN_BENCH_TARGETS];
    double times[ANN_BENCH_TARGETS][ROUNDS];
};

static int build(struct contestant *c, const struct ann_bench_options *o, const struct ann_vectors *vectors,
                 struct err *e)
{
    struct index_options options = {.engine = c->engine, .factory = c->factory, .threads = o->build_threads};
    c->index = index_build_shown(c->engine, &options, vectors, &c->build_seconds, e);
    return c->index == NULL ? err_prefix(e, "%s", c->engine) : 0;
}

/* The effort for each target; an engine without one (flat) has one point that reaches them all. */
static int tune(struct contestant *c, const struct ann_bench_options *o, const struct ann_truth *truth, struct err *e)
{
    struct ann_tuning *t = &c->tuning;
    if (ann_tune(c->index, truth, o->targets, o->n_targets, o->threads, t, e) != 0) {
        return -1;
    }
    if (t->n == 0) {
        if (ann_measure(c->index, truth, 0, o->threads, &t->points[0], e) != 0) {
            return -1;
        }
        t->n = 1;
    }
    for (size_t i = 0; i < o->n_targets; i++) {
        size_t found = ann_tuning_find(t, o->targets[i]);
        c->reached[i] = found < t->n;
        c->point[i] = t->points[c->reached[i] ? found : t->n - 1];
    }
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All engines at all targets in turns, so that whatever else the machine does hits them alike. */
static int take_turns(struct contestant *contestants, size_t n, const struct ann_bench_options *o,
                      const struct ann_truth *truth, struct err *e)
{
    struct progress progress;
    progress_begin(&progress, "measuring", "runs", (double)(ROUNDS * o->n_targets * n));
    size_t done = 0;
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < o->n_targets; i++) {
            for (struct contestant *c = contestants; c < contestants + n; c++) {
                struct ann_point point;
                ann_set_effort(c->index, c->point[i].effort); /* some engines have no effort of a search */
                if (ann_measure(c->index, truth, 0, o->threads, &point, e) != 0) {
                    progress_end(&progress);
                    return -1;
                }
                c->times[i][round] = point.microseconds;
                progress_update(&progress, (double)++done);
            }
        }
    }
    for (struct contestant *c = contestants; c < contestants + n; c++) {
        for (size_t i = 0; i < o->n_targets; i++) {
            qsort(c->times[i], ROUNDS, sizeof *c->times[i], compare_numbers);
            c->point[i].microseconds = c->times[i][ROUNDS / 2];
        }
    }
    progress_end(&progress);
    return 0;
}

/* --- the record ----------------------------------------------------------------------------------------------------- */

static double tenths(double x)
{
    return round(x * 10) / 10;
}

static json_t *contestant_to_json(const struct contestant *c, const struct ann_bench_options *o, size_t n)
{
    json_t *targets = json_array();
    for (size_t i = o->n_targets; i-- > 0;) {
        const struct ann_point *p = &c->point[i];
        json_array_append_new(targets, json_pack("{s:f, s:b, s:I, s:f, s:f, s:f}", "target", o->targets[i], "reached",
                                                 c->reached[i], "effort", (json_int_t)p->effort, "recall", p->recall,
                                                 "microseconds", tenths(p->microseconds), "queries_per_second",
                                                 round(1e6 * o->threads / p->microseconds)));
    }
    return json_pack("{s:s, s:s, s:f, s:f, s:o, s:o}", "engine", c->engine, "factory",
                     c->factory == NULL ? "" : c->factory, "build_seconds", round(c->build_seconds * 1e3) / 1e3,
                     "bytes_per_vector", n == 0 ? 0.0 : tenths((double)ann_bytes(c->index) / (double)n), "curve",
                     index_curve_to_json(&c->tuning), "targets", targets);
}

static json_t *record_of(const struct contestant *contestants, size_t n, const struct ann_bench_options *o,
                         const struct ann_vectors *vectors, size_t count, struct err *e)
{
    json_t *engines = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(engines, contestant_to_json(&contestants[i], o, vectors->n));
    }
    json_t *record =
        json_pack("{s:{s:I, s:I, s:I, s:I, s:I, s:s, s:o}}", "ann_bench", "vectors", (json_int_t)vectors->n, "dim",
                  (json_int_t)vectors->dim, "queries", (json_int_t)count, "k", (json_int_t)o->k, "threads",
                  (json_int_t)o->threads, "simd", cpu_level_name(cpu_level()), "engines", engines);
    if (record == NULL || json_array_size(engines) != n) {
        json_decref(record);
        err_nomem(e);
        return NULL;
    }
    return record;
}

json_t *ann_bench(const struct ann_bench_options *options, const struct ann_vectors *vectors, const float *queries,
                  size_t count, struct err *e)
{
    struct contestant *contestants = mem_array(ENGINES_MAX, sizeof *contestants);
    struct ann_truth *truth = ann_truth_new(vectors, queries, count, options->k, options->build_threads, e);
    json_t *record = NULL;
    size_t n = 0;
    int rc = contestants == NULL ? err_nomem(e) : truth == NULL ? -1 : 0;
    for (size_t i = 0; rc == 0 && ann_engine_names[i] != NULL; i++) {
        if (options->engine == NULL || strcmp(options->engine, ann_engine_names[i]) == 0) {
            struct contestant *c = &contestants[n++];
            c->engine = ann_engine_names[i];
            c->factory = strcmp(c->engine, "faiss") == 0 ? options->factory : NULL;
            rc = build(c, options, vectors, e);
            rc = rc == 0 ? tune(c, options, truth, e) : rc;
            if (rc == 0) {
                log_info("%s: built in %.1f s", c->engine, c->build_seconds);
            }
        }
    }
    if (rc == 0 && take_turns(contestants, n, options, truth, e) == 0) {
        record = record_of(contestants, n, options, vectors, count, e);
    }
    for (size_t i = 0; i < n; i++) {
        ann_free(contestants[i].index);
    }
    mem_free(contestants);
    ann_truth_free(truth);
    return record;
}

/* --- for people ----------------------------------------------------------------------------------------------------- */

void ann_bench_table(struct buf *out, const json_t *record)
{
    const json_t *bench = json_object_get(record, "ann_bench");
    int k = (int)json_number_at(bench, "k");
    buf_printf(out,
               "engine\tfactory\ttarget\treached\teffort\trecall@%d\tus a query\tqueries/s\tbuild s\tbytes a vector\n",
               k);
    size_t i, j;
    json_t *engine, *target;
    json_array_foreach(json_object_get(bench, "engines"), i, engine)
    {
        json_array_foreach(json_object_get(engine, "targets"), j, target)
        {
            buf_printf(out, "%s\t%s\t%g\t%s\t%.0f\t%.4f\t%.1f\t%.0f\t%.2f\t%.1f\n", json_text_at(engine, "engine"),
                       json_text_at(engine, "factory"), json_number_at(target, "target"),
                       json_is_true(json_object_get(target, "reached")) ? "yes" : "no",
                       json_number_at(target, "effort"), json_number_at(target, "recall"),
                       json_number_at(target, "microseconds"), json_number_at(target, "queries_per_second"),
                       json_number_at(engine, "build_seconds"), json_number_at(engine, "bytes_per_vector"));
        }
    }
}

/* The table as HTML: its first line is the head. */
static void put_table(struct buf *out, const char *text)
{
    buf_puts(out, "<table>\n");
    const char *cell = "th";
    while (*text != '\0') {
        size_t line = strcspn(text, "\n");
        buf_puts(out, "<tr>");
        for (const char *end = text + line; text <= end;) {
            size_t n = strcspn(text, "\t\n");
            buf_printf(out, "<%s>", cell);
            html_text(out, text, n);
            buf_printf(out, "</%s>", cell);
            text += n + 1;
        }
        buf_puts(out, "</tr>\n");
        cell = "td";
    }
    buf_puts(out, "</table>\n");
}

/* The upper part of each curve: below LEAST nobody serves. */
static void put_curves(struct buf *out, const json_t *engines)
{
    static const double least = 0.8;
    double x[ENGINES_MAX][CURVE_MAX];
    double y[ENGINES_MAX][CURVE_MAX];
    struct chart_series series[ENGINES_MAX];
    size_t n = 0;
    size_t i, j;
    json_t *engine, *point;
    json_array_foreach(engines, i, engine)
    {
        size_t points = 0;
        if (json_array_size(json_object_get(engine, "curve")) < 2) {
            continue;
        }
        json_array_foreach(json_object_get(engine, "curve"), j, point)
        {
            double recall = json_number_at(point, "recall");
            if (recall >= least && points < CURVE_MAX && (points == 0 || recall > x[n][points - 1])) {
                x[n][points] = recall;
                y[n][points++] = json_number_at(point, "microseconds");
            }
        }
        series[n] = (struct chart_series){json_text_at(engine, "engine"), x[n], y[n], points, (unsigned)n};
        n += n + 1 < ENGINES_MAX;
    }
    chart_lines(out, &(struct chart_lines){.title = "Microseconds a query against recall",
                                           .x_label = "recall",
                                           .y_label = "microseconds",
                                           .series = series,
                                           .n = n,
                                           .decimals = 1,
                                           .from_zero = true,
                                           .mark_x = NAN,
                                           .rule_y = NAN});
}

int ann_bench_page(const json_t *record, struct buf *out, struct err *e)
{
    const json_t *bench = json_object_get(record, "ann_bench");
    struct buf table = BUF_INIT;
    ann_bench_table(&table, record);
    page_begin(out, "Index engines", "");
    buf_puts(out, "<header>\n<h1>Index engines</h1>\n<p class=\"lead\">");
    html_number(out, json_number_at(bench, "vectors"), 0);
    buf_printf(out,
               " vectors of %.0f numbers, %.0f queries, the %.0f nearest of each, %.0f searching thread(s), %s</p>\n",
               json_number_at(bench, "dim"), json_number_at(bench, "queries"), json_number_at(bench, "k"),
               json_number_at(bench, "threads"), json_text_at(bench, "simd"));
    buf_puts(out, "</header>\n<section><h2>Microseconds a query against recall</h2>\n");
    put_curves(out, json_object_get(bench, "engines"));
    buf_puts(out, "</section>\n<section><h2>At the targets</h2>\n");
    put_table(out, table.len > 0 ? table.data : "");
    buf_puts(out, "</section>\n");
    page_end(out);
    out->failed |= buf_failed(&table);
    buf_release(&table);
    return buf_failed(out) ? err_nomem(e) : 0;
}
