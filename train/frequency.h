/*
 * train/frequency.h: how often an item turns up in a batch, estimated from the stream of batches in fixed memory.
 *
 * Yi et al. (RecSys 2019), algorithm 2: for each hash bucket the batch that last held one of its items, and a moving
 * average of the gaps between such batches; the estimate is 1 / gap. Items that share a bucket look more frequent than
 * they are; so there are several arrays with different hash functions, and the smallest estimate counts (their section
 * 4.2).
 *
 * One thread observes, between barriers; then any may read.
 */
#ifndef TRAIN_FREQUENCY_H
#define TRAIN_FREQUENCY_H

#include <stddef.h>
#include <stdint.h>

enum { FREQUENCY_ARRAYS = 3 };

struct frequency {
    uint32_t buckets; /* a power of two */
    uint32_t *last;   /* [FREQUENCY_ARRAYS, buckets] batch (from 1) that last held an item of the bucket; 0: none */
    float *gap;       /* [FREQUENCY_ARRAYS, buckets] batches between two; 0: not known yet */
    float first_gap;  /* for items never seen */
};

/* Room for n_items with few collisions, bounded; batch_size for what is assumed of items not seen yet: that all are alike.
 * -1 without memory. */
int frequency_init(struct frequency *f, size_t n_items, size_t batch_size);
void frequency_release(struct frequency *f);

/* Batch `step` (from 1, ascending) holds these items. */
void frequency_observe(struct frequency *f, uint32_t step, const uint32_t *items, size_t n);

/* Expected appearances of an item in a batch; above 0. */
double frequency_get(const struct frequency *f, uint32_t item);

#endif
