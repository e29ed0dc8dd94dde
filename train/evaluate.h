/*
 * train/evaluate.h: ranking the whole catalogue for every user with a test item.
 *
 * Protocol: all items are ranked, the user's seen items left out; metrics are means over the users that have at least
 * one relevant item, seen ones not counting. Ties go by item id. No sampling of negatives: metrics on samples are
 * inconsistent with the real ones (Krichene & Rendle, KDD 2020).
 *   recall@k    hits in the first k / relevant items
 *   ndcg@k      binary gains 1 / log2(rank + 1), ideal over min(relevant, k)
 *   hit_rate@k  share of users with at least one hit in the first k
 *   mrr         1 / rank of the first hit, 0 beyond rank 100
 *   coverage@k  share of the catalogue that is in anybody's first k
 * A ranker gives scores; how it comes by them is its own business (towers, popularity, ...).
 */
#ifndef TRAIN_EVALUATE_H
#define TRAIN_EVALUATE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/tower.h"
#include "train/dataset.h"

enum { METRIC_MAX_KS = 16, METRIC_MAX_K = 1000 };

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

/* Fills scores [count, n_items] for some users. Called from several threads at once, `worker` (0 .. threads - 1) says
 * which. -1 with an error. */
struct ranker {
    int (*score)(void *arg, unsigned worker, const uint32_t *users, size_t count, float *scores, struct err *e);
    void *arg;
};

struct evaluation {
    size_t n_users, n_items;
    const struct interactions *seen; /* left out of the ranking; NULL: nothing */
    const struct interactions *relevant;
    const uint32_t *unreachable; /* [n_users] relevant items outside the catalogue; may be NULL */
    size_t max_users;            /* 0: all; else an evenly spaced choice of that many */
    struct metric_cutoffs at;
    unsigned threads;
};

int evaluate(const struct evaluation *ev, const struct ranker *ranker, const char *label, struct metrics *m,
             struct err *e);

/* "recall@20": {...} as an object; one value by such a name (NaN: no such metric). */
json_t *metrics_to_json(const struct metrics *m);
double metrics_get(const struct metrics *m, const char *name);

/* A ranker that scores with two towers. `history` is the part that users' sequences are taken from. */
struct tower_ranker; /* opaque */
struct tower_ranker *tower_ranker_new(const struct dataset *d, const struct interactions *history,
                                      const struct tower *user_tower, const float *item_vectors, unsigned threads,
                                      struct err *e);
void tower_ranker_free(struct tower_ranker *r);
int tower_ranker_score(void *ranker, unsigned worker, const uint32_t *users, size_t count, float *scores,
                       struct err *e);

/* Vectors of some users, [count, dim], as tower_ranker_score uses them; at most RANK_BLOCK at once. */
enum { RANK_BLOCK = 64 };
int tower_ranker_vectors(struct tower_ranker *r, unsigned worker, const uint32_t *users, size_t count, float *vectors,
                         struct err *e);

/* The baseline: items by their number of train events. arg: uint32_t counts [n_items] and n_items. */
struct popularity {
    const uint32_t *count; /* [n_items] */
    size_t n_items;
};
int popularity_score(void *popularity, unsigned worker, const uint32_t *users, size_t count, float *scores,
                     struct err *e);

/* Vectors of all rows of a side, [rows->n, dim], normalised under cosine, on several threads. */
int embed_rows(const struct tower *t, enum similarity similarity, const struct feature_rows *rows, unsigned threads,
               float *out, struct err *e);

#endif
