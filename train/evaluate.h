/*
 * train/evaluate.h: ranking the whole catalogue for every user with a test item.
 *
 * Protocol: all items are ranked, the user's seen items left out; a user counts who has at least one relevant item, seen
 * ones not counting. Ties go by item id. No sampling of negatives: metrics on samples are inconsistent with the real
 * ones (Krichene & Rendle, KDD 2020).
 *
 * One pass gives the *outcomes*: for each user the relevant items and the rank at which each was found. Everything that a
 * report says is computed from them: metrics (train/metrics.h), slices (train/slices.h), confidence intervals.
 */
#ifndef TRAIN_EVALUATE_H
#define TRAIN_EVALUATE_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "train/dataset.h"
#include "train/metrics.h"
#include "train/ranker.h"

struct evaluation {
    size_t n_users, n_items;
    const struct interactions *seen; /* left out of the ranking; NULL: nothing */
    const struct interactions *relevant;
    const uint32_t *unreachable; /* [n_users] relevant items outside the catalogue; may be NULL */
    size_t max_users;            /* 0: all; else a random choice of that many, the same for the same seed */
    uint64_t seed;
    struct metric_cutoffs at;
    unsigned threads;
};

struct found {
    uint32_t item; /* a relevant, unseen item */
    uint32_t rank; /* from 1; 0: beyond the deepest rank that any metric looks at */
};

struct outcomes {
    struct metric_cutoffs at;
    size_t n_items;
    size_t n_candidates;  /* users with a relevant item before max_users chose */
    size_t n_users;       /* ranked, and with something relevant left */
    uint32_t *user;       /* [n_users] ascending */
    uint32_t *n_relevant; /* [n_users] at least 1, with those outside the catalogue */
    size_t *start;        /* [n_users + 1] into found */
    struct found *found;  /* [start[n_users]] */
    uint32_t *shown;      /* [at.n, n_items]: in how many users' first at.k[c] the item is */
};

/* Ranks; *out is new (outcomes_release), the same whatever the number of threads. */
int evaluate_outcomes(const struct evaluation *ev, const struct ranker *ranker, const char *label, struct outcomes *out,
                      struct err *e);
void outcomes_release(struct outcomes *o); /* zeroed storage is fine */

/* The metrics alone. */
int evaluate(const struct evaluation *ev, const struct ranker *ranker, const char *label, struct metrics *m,
             struct err *e);

#endif
