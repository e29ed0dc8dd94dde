/*
 * A fully connected layer with its activation: y = f(x W^T + b), W [out, in], b [out], as PyTorch's nn.Linear.
 * With z = x W^T + b:  dz = dy f'(z);  dW = dz^T x;  db = the sum of dz's rows;  dx = dz W.
 */
#include "core/network.h"
#include "core/vecmath.h"

static void declare(struct layer *l, struct network_layers *network)
{
    l->kept = activation_keeps_slope(l->activation) ? l->out : 0;
    network_declare(network, "network.%u.weight", l->number, l->out, l->in, l->is_hidden ? START_HE : START_GLOROT);
    network_declare(network, "network.%u.bias", l->number, l->out, 0, START_ZERO);
}

static void forward(const struct layer *l, const struct layer_run *r)
{
    mat_mul_nt(r->y, r->x, r->weight[0], r->rows, l->out, l->in, false);
    activation_forward(l->activation, r->y, r->weight[1], r->rows, l->out, r->kept);
}

static void backward(const struct layer *l, const struct layer_run *r)
{
    activation_backward(l->activation, r->dy, r->y, r->kept, r->rows, l->out, r->dweight[1]);
    mat_mul_tn(r->dweight[0], r->dy, r->x, l->out, l->in, r->rows, false);
    mat_mul_nn(r->dx, r->dy, r->weight[0], r->rows, l->in, l->out, false);
}

const struct layer_kind layer_linear = {declare, forward, backward};
