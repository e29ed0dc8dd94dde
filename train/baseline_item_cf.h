/*
 * train/baseline_item_cf.h: item-based collaborative filtering, the baseline that is hard to beat.
 *
 * Items are alike when the same users have them: cosine of their columns in the user-item matrix,
 *     similarity(i, j) = users with both / (sqrt(users with i * users with j) + shrink)
 * where `shrink` takes from what few users say (Bell & Koren, "Improved neighborhood-based collaborative filtering", KDD
 * Cup workshop 2007).
 * Each item keeps its most similar ones, and a user's score of an item is the sum over those of them that are in the
 * user's history (Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001; Deshpande &
 * Karypis, "Item-based top-N recommendation algorithms", TOIS 2004). Items that nothing in the history leads to follow
 * behind all others, by popularity: what is shown to a user without a history.
 */
#ifndef TRAIN_BASELINE_ITEM_CF_H
#define TRAIN_BASELINE_ITEM_CF_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/topk.h"
#include "train/dataset.h"
#include "train/ranker.h"

struct item_cf_options {
    uint32_t neighbours; /* kept of each item */
    uint32_t history;    /* a user's latest distinct items that count: bounds the pairs that a user makes */
    size_t events;       /* more events than this (capped so): a random sample of users is counted */
    uint64_t seed;
    unsigned threads;
    double shrink;
};

/* What reports use: 200 neighbours (fewer in a large catalogue, for 200 MB at most, and as much again while they are made), 500 items of history, 20 million
 * events, shrink 20. */
struct item_cf_options item_cf_defaults(size_t n_items, uint64_t seed, unsigned threads);

struct item_cf; /* opaque */

/* Counts what users of `part` have together; item_count [n_items] is popularity. Both are borrowed. The same whatever the
 * number of threads. */
struct item_cf *item_cf_new(const struct interactions *part, size_t n_users, size_t n_items, const uint32_t *item_count,
                            const struct item_cf_options *options, struct err *e);
void item_cf_free(struct item_cf *cf); /* NULL is fine */

/* Where an item leads to: the items that have it among their most similar ones, with the similarity, in the order of
 * items; borrowed. */
size_t item_cf_leads(const struct item_cf *cf, uint32_t item, const struct scored **leads);

/* Ranks for users of `part`, with at most options->threads workers. */
struct ranker item_cf_ranker(struct item_cf *cf);

#endif
