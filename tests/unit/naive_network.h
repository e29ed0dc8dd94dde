/*
 * A tower's network in double precision, straight from docs/bundle.md: the oracle of the layers in core/. It reads the
 * declaration and finds parameters by name; of the list of layers it knows nothing. Include behind <cmocka.h>.
 */
#ifndef TESTS_UNIT_NAIVE_NETWORK_H
#define TESTS_UNIT_NAIVE_NETWORK_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/tower.h"

enum { NAIVE_WIDEST = 256 };

/* The parameter `stem`.`number`.`rest`, which must have this shape. */
static inline const float *naive_dense(const struct tower *t, const char *stem, uint32_t number, const char *rest,
                                       size_t rows, size_t columns)
{
    char name[80];
    snprintf(name, sizeof name, "%s.%u.%s", stem, number, rest);
    for (uint32_t i = 0; i < t->spec->layers.n_dense; i++) {
        const struct dense *d = &t->spec->layers.dense[i];
        if (strcmp(d->name, name) == 0) {
            assert_int_equal(d->rows, rows);
            assert_int_equal(d->columns, columns);
            return t->dense[i];
        }
    }
    fail_msg("no parameter %s", name);
    return NULL;
}

/* y [out] = x [in] W^T + b; b may be NULL */
static inline void naive_linear(double *y, const double *x, const float *w, const float *b, size_t out, size_t in)
{
    for (size_t o = 0; o < out; o++) {
        y[o] = b == NULL ? 0 : (double)b[o];
        for (size_t i = 0; i < in; i++) {
            y[o] += (double)w[o * in + i] * x[i];
        }
    }
}

static inline void naive_norm(double *x, const float *w, const float *b, size_t n)
{
    double mean = 0;
    double variance = 0;
    for (size_t i = 0; i < n; i++) {
        mean += x[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        variance += (x[i] - mean) * (x[i] - mean) / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = (x[i] - mean) / sqrt(variance + 1e-5) * (double)w[i] + (double)b[i];
    }
}

static inline double naive_activation(enum activation a, double z)
{
    switch (a) {
    case ACTIVATION_RELU:
        return z > 0 ? z : 0;
    case ACTIVATION_LEAKY_RELU:
        return z > 0 ? z : 0.01 * z;
    case ACTIVATION_GELU:
        return z * 0.5 * (1 + erf(z / sqrt(2)));
    default:
        return z;
    }
}

static inline void naive_cross(const struct tower *t, uint32_t l, double *x, const double *x0, size_t n)
{
    size_t rank = t->spec->network.cross_rank;
    double v[NAIVE_WIDEST], z[NAIVE_WIDEST];
    if (rank == 0) {
        naive_linear(z, x, naive_dense(t, "cross", l, "weight", n, n), naive_dense(t, "cross", l, "bias", n, 0), n, n);
    } else {
        naive_linear(v, x, naive_dense(t, "cross", l, "v.weight", rank, n), NULL, rank, n);
        naive_linear(z, v, naive_dense(t, "cross", l, "u.weight", n, rank), naive_dense(t, "cross", l, "u.bias", n, 0),
                     n, rank);
    }
    for (size_t i = 0; i < n; i++) {
        x[i] += x0[i] * z[i];
    }
}

/* One row: x [input_width], which becomes the tower's vector [output_dim]. */
static inline void naive_network(const struct tower *t, double x[NAIVE_WIDEST])
{
    const struct network *network = &t->spec->network;
    size_t in = t->spec->input_width;
    double kept[NAIVE_WIDEST], y[NAIVE_WIDEST];
    memcpy(kept, x, sizeof kept);
    for (uint32_t l = 0; l < network->cross_layers; l++) {
        naive_cross(t, l, x, kept, in);
    }
    for (uint32_t l = 0; l < network->n_widths; l++) {
        size_t n = network->widths[l];
        naive_linear(y, x, naive_dense(t, "network", l, "weight", n, in), naive_dense(t, "network", l, "bias", n, 0), n,
                     in);
        if (l + 1 < network->n_widths) {
            if (network->layer_norm) {
                naive_norm(y, naive_dense(t, "norm", l, "weight", n, 0), naive_dense(t, "norm", l, "bias", n, 0), n);
            }
            for (size_t i = 0; i < n; i++) {
                y[i] = naive_activation(network->activation, y[i]);
            }
        }
        for (size_t i = 0; i < n; i++) {
            x[i] = y[i] + (network->residual && l > 0 && n == in ? x[i] : 0);
        }
        in = n;
    }
}

#endif
