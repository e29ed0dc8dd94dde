/*
 * ann/pool.h: the best of many candidates, of which each is worth little thought.
 *
 * Holds up to POOL_TIMES as many as are wanted, and room for what is added at once. When it is full the best `wanted` stay, by
 * counting scores into bins, which takes a fraction of the time of a selection by comparisons, whose branches nobody can
 * foresee; and the floor rises: whoever adds may leave out what is not above it. A candidate is a place, a number of the caller's.
 *
 * Kernels are chosen by core/cpu.h. One thread at a time.
 */
#ifndef ANN_POOL_H
#define ANN_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum { POOL_TIMES = 3 };

struct pool {
    float *score;    /* [n] */
    uint32_t *place; /* [n] */
    uint32_t *bin, *count;
    size_t n, wanted;
    float floor; /* lower scores are not wanted any more */
};

/* For up to `most` wanted candidates, of which `at_once` are added at once. */
int pool_init(struct pool *p, size_t most, size_t at_once, struct err *e);
void pool_release(struct pool *p); /* also after a failed init; zeroed is fine */

/* Empties it. `wanted` >= 1. */
void pool_begin(struct pool *p, size_t wanted);

/* Adds candidates base + step * sum[i] at places first + place[i]; not when it is full. */
void pool_add(struct pool *p, const uint32_t *place, const uint16_t *sum, size_t n, uint32_t first, float base,
              float step);

static inline bool pool_is_full(const struct pool *p)
{
    return p->n >= POOL_TIMES * p->wanted;
}

/* Leaves the `wanted` best, but for the order within a bin, of which there are 512 between the worst and the best. Candidates keep their
 * order. NaN counts as the worst. */
void pool_shrink(struct pool *p);

#endif
