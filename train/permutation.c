/*
 * The order must look random to stochastic gradient descent and be as cheap as the memory access it replaces: a round is
 * two multiplications and one multiply-high, places do not depend on each other, so that a processor overlaps them. Eight
 * rounds, since the three and four of the classical results (Luby & Rackoff 1988) hold for large halves only, and a
 * hundred events have halves of ten. From 25 events on, places and neighbours come evenly, as far as a hundred thousand
 * keys can tell; of fewer, some orders come a little more often than others, which no training will notice.
 *
 * Rejected: an array that is shuffled (4 bytes an event, 400 MB at a hundred million, and as many cache misses to make),
 * and a Feistel network over the next power of four, which walks up to four times as long.
 */
#include "train/permutation.h"

#include <math.h>

#include "core/rng.h"

void permutation_init(struct permutation *p, uint32_t n, uint64_t seed, uint64_t stream)
{
    struct rng r;
    rng_seed(&r, seed, stream);
    p->n = n;
    p->a = (uint32_t)ceil(sqrt((double)n));
    p->b = (uint32_t)(((uint64_t)n + p->a - 1) / p->a);
    for (int i = 0; i < PERMUTATION_ROUNDS; i++) {
        p->key[i] = rng_u64(&r);
    }
}

/* A number below `size` that depends on key and x. */
static uint32_t round_value(uint64_t key, uint32_t x, uint32_t size)
{
    uint64_t h = (key ^ x) * 0x9e3779b97f4a7c15U;
    h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93U;
    return (uint32_t)((h >> 32) * size >> 32);
}

/* (x + y) mod size, for x and y below it. */
static uint32_t add_modulo(uint32_t x, uint32_t y, uint32_t size)
{
    uint32_t rest = size - y;
    return x >= rest ? x - rest : x + y;
}

uint32_t permutation_at(const struct permutation *p, uint32_t place)
{
    uint64_t x = place;
    do {
        uint32_t left = (uint32_t)(x % p->a), right = (uint32_t)(x / p->a);
        for (int i = 0; i < PERMUTATION_ROUNDS; i += 2) {
            left = add_modulo(left, round_value(p->key[i], right, p->a), p->a);
            right = add_modulo(right, round_value(p->key[i + 1], left, p->b), p->b);
        }
        x = (uint64_t)right * p->a + left;
    } while (x >= p->n);
    return (uint32_t)x;
}
