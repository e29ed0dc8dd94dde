/*
 * A residual connection (He et al., CVPR 2016): y = x + second, the second input being what went into the layers that x
 * came out of. dx = dy; dsecond = dy.
 */
#include <string.h>

#include "core/network.h"
#include "core/vecmath.h"

static void declare(struct layer *l, struct network_layers *network)
{
    (void)network;
    l->kept = 0;
}

static void forward(const struct layer *l, const struct layer_run *r)
{
    size_t n = r->rows * l->out;
    memcpy(r->y, r->x, n * sizeof *r->y);
    vec_add_scaled(r->y, r->second, 1.0f, n);
}

static void backward(const struct layer *l, const struct layer_run *r)
{
    size_t n = r->rows * l->out;
    memcpy(r->dx, r->dy, n * sizeof *r->dx);
    vec_add_scaled(r->dsecond, r->dy, 1.0f, n);
}

const struct layer_kind layer_residual = {declare, forward, backward};
