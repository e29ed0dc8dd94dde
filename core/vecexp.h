/*
 * core/vecexp.h: exponentials of many numbers at once, for losses. libm does them one by one: a batch of 4,096 has 17
 * million of them, as much work as its matrix products.
 *
 * Accurate to a few units in the last place of float32 for results that matter; exp is 0 below exp(-87). The oracles are
 * expf and log1p. Functions are pure.
 */
#ifndef CORE_VECEXP_H
#define CORE_VECEXP_H

#include <stddef.h>

/* x[i] = exp(x[i] - shift); returns the sum. x[i] - shift must be below 88; -INFINITY gives 0. */
float vec_exp_sum(float *x, float shift, size_t n);

/* With z = scale x[i] - shift: x[i] = 1 / (1 + exp(-z)); returns the sum of log(1 + exp(z)). -INFINITY gives 0 to both,
 * for scale > 0. */
double vec_sigmoid_softplus(float *x, float scale, float shift, size_t n);

#endif
