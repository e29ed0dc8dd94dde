/*
 * train/sampler.h: which events and which negatives a batch sees, and how likely each item was to be seen.
 *
 * Events: every epoch is a fresh permutation of all train events (train/permutation.h), the same for the same seed and
 * epoch.
 * Negatives, by the configuration: the batch's other positives (in-batch, not drawn), items drawn for the batch and shared
 * by its rows (Yang et al., WWW 2020, mixes both), and items drawn for each row (train/negative.h). All random numbers
 * come from (seed, epoch, batch) or (seed, epoch, row), so results do not depend on which thread asks.
 */
#ifndef TRAIN_SAMPLER_H
#define TRAIN_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"
#include "core/err.h"
#include "core/rng.h"
#include "train/dataset.h"
#include "train/event_users.h"
#include "train/frequency.h"
#include "train/negative.h"
#include "train/permutation.h"

enum { SAMPLER_SOURCES = 8 };

struct sampler {
    uint64_t seed;
    size_t n_events;
    struct permutation order; /* this epoch's */
    struct event_users users;
    uint32_t n_items;
    size_t n_shared; /* drawn for a batch */
    size_t own_max;  /* drawn for a row, at most */
    struct negative_source shared[SAMPLER_SOURCES], own[SAMPLER_SOURCES];
    size_t n_shared_sources, n_own_sources;
    bool in_batch, corrects; /* corrects: loss.logq */
    size_t batch_size;
    bool streaming;             /* in-batch probabilities are estimated, else counted */
    struct frequency frequency; /* streaming */
    float *item_log_q;          /* [n_items] counted; NULL when streaming */
};

/* `d` and `events` (a part of it) are borrowed. */
int sampler_init(struct sampler *s, const struct train_config *config, const struct dataset *d,
                 const struct interactions *events, size_t batch_size, struct err *e);
void sampler_release(struct sampler *s);

/* Begins an epoch. */
void sampler_shuffle(struct sampler *s, uint32_t epoch);

/* The event at a place (< n_events) of the epoch, as an index of the events' part. */
static inline uint32_t sampler_event(const struct sampler *s, size_t place)
{
    return permutation_at(&s->order, (uint32_t)place);
}

/* The negatives that a batch shares: items [n_shared]. */
void sampler_draw_shared(const struct sampler *s, uint32_t epoch, size_t batch, uint32_t *items);

/* A generator for row `row` of the epoch: for the row's own negatives and for hiding values. */
void sampler_row_rng(const struct sampler *s, uint32_t epoch, uint64_t row, struct rng *r);

/* A row's own negatives: items [at most own_max], none of them refused by `taken` (may be NULL; `arg` is its own), and
 * the log q of each (0 without correction). Returns how many. */
size_t sampler_draw_own(const struct sampler *s, uint32_t user, struct rng *r,
                        bool (*taken)(const void *arg, uint32_t item), const void *arg, uint32_t *items, float *log_q);

/* Streaming: tells the estimator what batch `step` (from 1, over all epochs) holds. Else nothing to do. */
void sampler_observe(struct sampler *s, uint32_t step, const uint32_t *positives, size_t n);

/* log of the expected appearances of an item among a row's candidates: batch_size p for in-batch negatives, n p' for n
 * drawn ones; 0 for an item that can never be a candidate, and without correction. */
float sampler_log_q(const struct sampler *s, uint32_t item);

#endif
