/*
 * A cross layer of the Deep & Cross Network, DCN-v2 (Wang et al., WWW 2021): with x0 the network's input, [n] as x is,
 *
 *   y = x0 * (W x + b) + x          W [n, n], or of low rank: W = U V^T with U and V [n, rank]; b [n]
 *
 * Layer l's result holds the products of up to l + 1 of the input's numbers. In code, by rows, z = x W^T + b; of low rank
 * v = x V, z = v U^T + b. Backward:  dz = dy * x0;  dx0 = dy * z;  db = the sum of dz's rows;  dx = dz W + dy;
 * dW = dz^T x; of low rank dv = dz U;  dU = dz^T v;  dV^T = dv^T x;  dx = dv V^T + dy.
 *
 * V is stored transposed, [rank, n], as the weight of the nn.Linear(n, rank) that it is to PyTorch.
 */
#include <string.h>

#include "core/network.h"
#include "core/simd.h"
#include "core/vecmath.h"

/* Kept: z [rows, n], then v [rows, rank]. */
static void declare(struct layer *l, struct network_layers *network)
{
    l->kept = l->in + l->rank;
    if (l->rank == 0) {
        network_declare(network, "cross.%u.weight", l->number, l->in, l->in, START_GLOROT);
        network_declare(network, "cross.%u.bias", l->number, l->in, 0, START_ZERO);
    } else {
        network_declare(network, "cross.%u.u.weight", l->number, l->in, l->rank, START_GLOROT);
        network_declare(network, "cross.%u.u.bias", l->number, l->in, 0, START_ZERO);
        network_declare(network, "cross.%u.v.weight", l->number, l->rank, l->in, START_GLOROT);
    }
}

/* z += b;  y = x0 * z + x */
SIMD_CLONES static void cross_rows(float *restrict y, float *restrict z, const float *restrict b,
                                   const float *restrict x0, const float *restrict x, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++, y += n, z += n, x0 += n, x += n) {
        for (size_t i = 0; i < n; i++) {
            z[i] += b[i];
            y[i] = x0[i] * z[i] + x[i];
        }
    }
}

static void forward(const struct layer *l, const struct layer_run *r)
{
    size_t n = l->in;
    float *z = r->kept;
    if (l->rank == 0) {
        mat_mul_nt(z, r->x, r->weight[0], r->rows, n, n, false);
    } else {
        float *v = z + r->rows * n;
        mat_mul_nt(v, r->x, r->weight[2], r->rows, l->rank, n, false);
        mat_mul_nt(z, v, r->weight[0], r->rows, n, l->rank, false);
    }
    cross_rows(r->y, z, r->weight[1], r->second, r->x, r->rows, n);
}

/* dx0 += dy * z;  z becomes dz = dy * x0;  db += its rows;  dx = dy */
SIMD_CLONES static void uncross_rows(float *restrict dx, float *restrict dx0, float *restrict z, float *restrict db,
                                     const float *restrict dy, const float *restrict x0, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++, dx += n, dx0 += n, z += n, dy += n, x0 += n) {
        for (size_t i = 0; i < n; i++) {
            dx0[i] += dy[i] * z[i];
            z[i] = dy[i] * x0[i];
            db[i] += z[i];
            dx[i] = dy[i];
        }
    }
}

static void backward(const struct layer *l, const struct layer_run *r)
{
    size_t n = l->in;
    float *dz = r->kept;
    memset(r->dweight[1], 0, n * sizeof(float));
    uncross_rows(r->dx, r->dsecond, dz, r->dweight[1], r->dy, r->second, r->rows, n);
    if (l->rank == 0) {
        mat_mul_tn(r->dweight[0], dz, r->x, n, n, r->rows, false);
        mat_mul_nn(r->dx, dz, r->weight[0], r->rows, n, n, true);
        return;
    }
    float *v = dz + r->rows * n;
    mat_mul_tn(r->dweight[0], dz, v, n, l->rank, r->rows, false);
    mat_mul_nn(v, dz, r->weight[0], r->rows, l->rank, n, false); /* v becomes dv */
    mat_mul_tn(r->dweight[2], v, r->x, l->rank, n, r->rows, false);
    mat_mul_nn(r->dx, v, r->weight[2], r->rows, n, l->rank, true);
}

const struct layer_kind layer_cross = {declare, forward, backward};
