/*
 * Dropout: while training, y = m * x / (1 - rate) with m 0 at random with probability `rate`, else 1; otherwise y = x.
 * Its derivative is dx = m * dy / (1 - rate) with the same m.
 *
 * m is not stored but computed again: a hash of the row's key, the layer and the column (the finaliser of MurmurHash3 over
 * a counter). The key is the trainer's, from seed, epoch and row, never from a thread, so a run is repeatable; and eight
 * columns a step need no state to be carried from one to the next, as a sequence of random numbers would.
 */
#include <string.h>

#include "core/layer.h"
#include "core/network.h"
#include "core/rng.h"
#include "core/simd.h"

SIMD_CLONES static void drop_row(float *x, uint32_t first, size_t n, uint32_t low, uint32_t high, uint32_t threshold,
                                 float scale)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t h = low ^ (first + (uint32_t)i) * 0x9e3779b1u;
        h = (h ^ h >> 16) * 0x85ebca6bu + high;
        h = (h ^ h >> 13) * 0xc2b2ae35u;
        h ^= h >> 16;
        x[i] = h >= threshold ? x[i] * scale : 0.0f;
    }
}

void layer_drop(float *x, size_t rows, size_t stride, size_t first, size_t width, float rate, const uint64_t *row_key,
                uint32_t draw)
{
    uint32_t threshold = (uint32_t)((double)rate * 4294967296.0);
    for (size_t r = 0; r < rows; r++) {
        uint64_t key = rng_mix(row_key[r] + draw * 0x9e3779b97f4a7c15u);
        drop_row(x + r * stride + first, (uint32_t)first, width, (uint32_t)key, (uint32_t)(key >> 32), threshold,
                 1.0f / (1.0f - rate));
    }
}

static void declare(struct layer *l, struct network_layers *network)
{
    (void)network;
    l->kept = 0;
}

static void forward(const struct layer *l, const struct layer_run *r)
{
    memcpy(r->y, r->x, r->rows * l->in * sizeof *r->y);
    if (r->row_key != NULL) {
        layer_drop(r->y, r->rows, l->in, 0, l->in, l->rate, r->row_key, r->draw);
    }
}

static void backward(const struct layer *l, const struct layer_run *r)
{
    memcpy(r->dx, r->dy, r->rows * l->in * sizeof *r->dx);
    if (r->row_key != NULL) {
        layer_drop(r->dx, r->rows, l->in, 0, l->in, l->rate, r->row_key, r->draw);
    }
}

const struct layer_kind layer_dropout = {declare, forward, backward};
