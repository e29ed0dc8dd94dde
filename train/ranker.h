/*
 * train/ranker.h: what evaluation asks for scores, and the two simplest answers: a pair of towers, and popularity.
 *
 * Scores come tile by tile, a range of items for a block of users, so that memory does not grow with the catalogue.
 */
#ifndef TRAIN_RANKER_H
#define TRAIN_RANKER_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/tower.h"
#include "train/dataset.h"

enum { RANK_BLOCK = 64 }; /* users at once, at most */

/* Both functions are called from several threads at once; `worker` (0 .. threads - 1) says which. */
struct ranker {
    /* Makes ready for a block of users; NULL: nothing to do. -1 with an error. */
    int (*begin)(void *arg, unsigned worker, const uint32_t *users, size_t count, struct err *e);
    /* Fills scores [count, n] of the items first .. first + n - 1 for the users of the last `begin`. NaN: never shown. */
    void (*score)(void *arg, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n,
                  float *scores);
    void *arg;
};

/* Scores with two towers. `history` is the part that users' sequences are taken from (NULL: they are empty);
 * item_vectors [n_items, dim] are borrowed. */
struct tower_ranker; /* opaque */
struct tower_ranker *tower_ranker_new(const struct dataset *d, const struct interactions *history,
                                      const struct tower *user_tower, const float *item_vectors, unsigned threads,
                                      struct err *e);
void tower_ranker_free(struct tower_ranker *r); /* NULL is fine */
struct ranker tower_ranker_of(struct tower_ranker *r);

/* Vectors of some users, [count, dim], as the ranker uses them; at most RANK_BLOCK at once. */
int tower_ranker_vectors(struct tower_ranker *r, unsigned worker, const uint32_t *users, size_t count, float *vectors,
                         struct err *e);

/* The baseline that everything has to beat: items by their number of train events, counts [n_items], borrowed. */
struct ranker popularity_ranker(const uint32_t *counts);

/* Vectors of all rows of a side, [rows->n, dim], normalised under cosine, on several threads. */
int embed_rows(const struct tower *t, enum similarity similarity, const struct feature_rows *rows, unsigned threads,
               float *out, struct err *e);

#endif
