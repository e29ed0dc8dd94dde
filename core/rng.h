/*
 * core/rng.h: reproducible random numbers: xoshiro256** (Blackman & Vigna, 2018), seeded by splitmix64.
 *
 * One `struct rng` belongs to one thread. Streams with the same seed and another `stream` number are independent,
 * so that every thread and purpose has its own and a run is repeatable whatever the scheduling.
 */
#ifndef CORE_RNG_H
#define CORE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state[4];
};

void rng_seed(struct rng *r, uint64_t seed, uint64_t stream);
uint64_t rng_u64(struct rng *r);
uint32_t rng_below(struct rng *r, uint32_t n); /* uniform in [0, n), without modulo bias (Lemire, 2019); n > 0 */
float rng_uniform(struct rng *r);              /* uniform in [0, 1) */
float rng_normal(struct rng *r);               /* mean 0, variance 1 (Box-Muller) */

/* Mixes 64 bits well (splitmix64's finaliser): hashing of integers. */
uint64_t rng_mix(uint64_t x);

#endif
