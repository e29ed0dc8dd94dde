/*
 * train/sampler.h: which events and which negatives a batch sees, and how likely each item was to be seen.
 *
 * Events: every epoch is a fresh permutation of all train events (Fisher-Yates), the same for the same seed and epoch.
 * Negatives: `uniform` draws a batch, from all items alike, shared by the batch's rows; in-batch negatives are the other
 * rows' positives and need no drawing. All random numbers come from (seed, epoch, batch), so results do not depend on
 * which thread asks.
 */
#ifndef TRAIN_SAMPLER_H
#define TRAIN_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/rng.h"
#include "train/dataset.h"

struct sampler {
    uint64_t seed;
    size_t n_events;
    uint32_t *user_of; /* [n_events] of the events' part: user of each event */
    uint32_t *order;   /* [n_events] this epoch's permutation */
    float *item_log_q; /* [n_items] log of the expected appearances among a batch's candidates (train/loss.h) */
    uint32_t n_items;
    uint32_t uniform;
};

/* `events` is borrowed. in_batch, uniform and batch_size say how candidates arise. */
int sampler_init(struct sampler *s, const struct interactions *events, size_t n_users, size_t n_items, bool in_batch,
                 uint32_t uniform, uint32_t batch_size, uint64_t seed, struct err *e);
void sampler_release(struct sampler *s);

void sampler_shuffle(struct sampler *s, uint32_t epoch);

/* The uniform negatives of a batch, items [s->uniform]. */
void sampler_negatives(const struct sampler *s, uint32_t epoch, size_t batch, uint32_t *items);

/* A generator for row `row` of a batch: for hiding values. */
void sampler_row_rng(const struct sampler *s, uint32_t epoch, uint64_t row, struct rng *r);

#endif
