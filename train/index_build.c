#include "train/index_build.h"

#include <math.h>

#include "core/clock.h"
#include "core/log.h"
#include "train/progress.h"

static void show_progress(void *arg, size_t done, size_t total)
{
    struct progress *p = arg;
    p->total = (double)total;
    progress_update(p, (double)done);
}

json_t *index_curve_to_json(const struct ann_tuning *tuning)
{
    json_t *curve = json_array();
    for (size_t i = 0; i < tuning->n; i++) {
        const struct ann_point *point = &tuning->points[i];
        json_array_append_new(curve, json_pack("{s:I, s:f, s:f, s:f}", "effort", (json_int_t)point->effort, "recall",
                                               point->recall, "recall_low", point->low, "microseconds",
                                               round(point->microseconds * 10) / 10));
    }
    return curve;
}

struct ann *index_build_shown(const char *label, const struct index_options *options, const struct ann_vectors *vectors,
                              double *seconds, struct err *e)
{
    struct progress progress;
    struct ann_build_options build = {
        .engine = options->engine,
        .factory = options->factory,
        .threads = options->threads,
        .progress = show_progress,
        .progress_arg = &progress,
    };
    double started = monotonic_seconds();
    progress_begin(&progress, label, "vectors", (double)vectors->n);
    struct ann *index = ann_build(vectors, &build, e);
    progress_end(&progress);
    *seconds = monotonic_seconds() - started;
    return index;
}

struct ann *index_build(const struct index_options *options, const struct ann_vectors *vectors, const float *queries,
                        size_t n_queries, json_t **record, struct err *e)
{
    double seconds;
    struct ann *index = index_build_shown("index", options, vectors, &seconds, e);
    if (index == NULL) {
        return NULL;
    }
    size_t k = vectors->n < INDEX_RECALL_K ? vectors->n : INDEX_RECALL_K;
    struct ann_tuning tuning;
    struct ann_truth *truth = ann_truth_new(vectors, queries, n_queries, k, options->threads, e);
    int rc = truth == NULL ? -1 : ann_tune(index, truth, &options->target_recall, 1, options->threads, &tuning, e);
    ann_truth_free(truth);
    if (rc < 0) {
        ann_free(index);
        return NULL;
    }
    if (!tuning.reached) {
        const char *factory = options->factory[0] != '\0' ? options->factory : options->engine;
        err_set(e,
                "index %s: recall@%zu against exact is %.4f at the largest effort tried, below the target of %.4f; use "
                "another engine or factory, or a lower target (index.target_recall, --target-recall)",
                factory, k, tuning.recall, options->target_recall);
        ann_free(index);
        return NULL;
    }
    double bytes = (double)ann_bytes(index) / (double)vectors->n;
    *record = json_pack("{s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:o}", "engine", options->engine, "factory",
                        options->factory, "effort", (json_int_t)tuning.effort, "recall@100", tuning.recall,
                        "target_recall", options->target_recall, "build_seconds", round(seconds * 1e3) / 1e3,
                        "bytes_per_item", round(bytes * 10) / 10, "curve", index_curve_to_json(&tuning));
    if (*record == NULL) {
        err_nomem(e);
        ann_free(index);
        return NULL;
    }
    return index;
}
