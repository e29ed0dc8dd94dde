/*
 * train/metrics.h: what the outcomes of a ranking are worth. Means over users:
 *   recall@k    hits in the first k / relevant items
 *   ndcg@k      binary gains 1 / log2(rank + 1), ideal over min(relevant, k)
 *   hit_rate@k  share of users with at least one hit in the first k
 *   mrr         1 / rank of the first hit, 0 beyond rank 100
 * and of all users together:
 *   coverage@k  share of the catalogue that is in anybody's first k
 */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { METRIC_MAX_KS = 16, METRIC_MAX_K = 1000, METRIC_MRR_DEPTH = 100 };

struct metric_cutoffs {
    size_t n;
    uint32_t k[METRIC_MAX_KS]; /* ascending, 1 to METRIC_MAX_K */
};
extern const struct metric_cutoffs metric_default_cutoffs; /* 10, 20, 50, 100 */

struct metrics {
    struct metric_cutoffs at;
    size_t users; /* with a relevant item */
    double recall[METRIC_MAX_KS], ndcg[METRIC_MAX_KS], hit_rate[METRIC_MAX_KS], coverage[METRIC_MAX_KS];
    double mrr;
};

struct outcomes;

/* The last rank that any metric looks at. */
size_t metric_depth(const struct metric_cutoffs *at);

/* 1 / log2(rank + 1), rank from 1; and the sum of the first n of them: what a perfect ranking gains. */
double metric_gain(size_t rank);
double metric_ideal(size_t n);

/* One user's values (coverage stays 0); then the means over all users of the outcomes, with coverage. */
void metrics_of_user(const struct outcomes *o, size_t i, struct metrics *m);
void metrics_of(const struct outcomes *o, struct metrics *m);

/* "recall@20": {...} as an object; one value by such a name (NaN: no such metric). */
json_t *metrics_to_json(const struct metrics *m);
double metrics_get(const struct metrics *m, const char *name);

#endif
