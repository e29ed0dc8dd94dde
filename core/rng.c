#include "core/rng.h"

#include <math.h>

uint64_t rng_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void rng_seed(struct rng *r, uint64_t seed, uint64_t stream)
{
    uint64_t x = rng_mix(seed + 0x9e3779b97f4a7c15u) ^ rng_mix(~stream);
    for (int i = 0; i < 4; i++) {
        x += 0x9e3779b97f4a7c15u;
        r->state[i] = rng_mix(x);
    }
}

static uint64_t rotate_left(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint32_t rng_below(struct rng *r, uint32_t n)
{
    uint64_t product = (rng_u64(r) >> 32) * n;
    uint32_t low = (uint32_t)product;
    if (low < n) {
        uint32_t threshold = (0u - n) % n;
        while (low < threshold) {
            product = (rng_u64(r) >> 32) * n;
            low = (uint32_t)product;
        }
    }
    return (uint32_t)(product >> 32);
}

float rng_uniform(struct rng *r)
{
    return (float)(rng_u64(r) >> 40) * 0x1p-24f;
}

float rng_normal(struct rng *r)
{
    double u = ((double)(rng_u64(r) >> 11) + 1.0) * 0x1p-53; /* (0, 1]: its logarithm is finite */
    double v = (double)(rng_u64(r) >> 11) * 0x1p-53;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}
