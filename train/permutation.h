/*
 * train/permutation.h: a keyed permutation of [0, n), computed place by place: an epoch's order of events without an
 * array of them.
 *
 * The generalized Feistel cipher with cycle walking of Black & Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA
 * 2002): x = a * right + left on [0, a) x [0, b) with a b >= n, in each round left' = right and right' = (left +
 * F(right)) mod its size; what leaves [0, n) goes through again. With a and b near sqrt(n) that happens to one place in
 * sqrt(n). Read-only after permutation_init, and then thread-safe.
 */
#ifndef TRAIN_PERMUTATION_H
#define TRAIN_PERMUTATION_H

#include <stdint.h>

enum { PERMUTATION_ROUNDS = 8 }; /* even: halves end up where they began */

struct permutation {
    uint32_t n, a, b;
    uint64_t key[PERMUTATION_ROUNDS];
};

/* n >= 1. The same n, seed and stream give the same permutation. */
void permutation_init(struct permutation *p, uint32_t n, uint64_t seed, uint64_t stream);

/* What stands at `place` (< n); every number below n stands at one place. */
uint32_t permutation_at(const struct permutation *p, uint32_t place);

#endif
