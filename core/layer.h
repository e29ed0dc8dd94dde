/*
 * core/layer.h: the layers a network is made of. Each kind is one file, layer_<kind>.c, with its formula, its forward
 * pass and its derivative beside each other:
 *
 *   linear    y = f(x W^T + b)                 f: an activation (core/activation.h)
 *   norm      y = f(w * (x - mean) / sqrt(variance + 1e-5) + b), by row
 *   dropout   y = x with some numbers 0, the others larger; only while training
 *   residual  y = x + second
 *   cross     y = second * (W x + b) + x       also with W = U V^T
 *
 * A layer turns x [rows, in] into y [rows, out]; kinds that need one take a second input, the result of an earlier layer
 * or the network's input. What a layer learns are its dense parameters, which it declares when a network is built
 * (core/network.h); whoever allocates, binds, initialises, updates or writes them goes over one list and knows no kinds.
 *
 * To add a kind: its file, a line at the end here, and the place in network.c where a configuration asks for it.
 * All functions are pure but for their outputs: any number of threads may run a layer, each with arrays of its own.
 */
#ifndef CORE_LAYER_H
#define CORE_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/activation.h"

/* How training starts a parameter: zeros, ones, or normal with mean 0 and variance 2 / columns (He et al., ICCV 2015)
 * or 2 / (rows + columns) (Glorot & Bengio, AISTATS 2010). */
enum dense_start { START_ZERO, START_ONE, START_HE, START_GLOROT };

/* A parameter whose gradient is dense: anything but an embedding table. */
struct dense {
    char name[32];          /* "network.0.weight": of the tensor, behind "<side>." */
    uint32_t rows, columns; /* columns 0: a vector */
    enum dense_start start;
};

struct layer {
    const struct layer_kind *kind;
    uint32_t in, out;           /* columns of x and y */
    uint32_t number;            /* in the names of its parameters */
    enum activation activation; /* linear, norm */
    bool is_hidden;             /* linear: not the last one */
    uint32_t rank;              /* cross: columns of U and V, 0: a full W */
    float rate;                 /* dropout: share of zeros */
    int second; /* where the second input is from: 0 the network's input, i + 1 layer i; -1: there is none */

    /* declared by the kind */
    uint32_t first_dense; /* its first parameter in the network's list; the others follow */
    uint32_t kept;        /* numbers a row that forward leaves for backward, beside y */
};

/* One layer's part in a pass. Arrays are [rows, columns] row-major and do not overlap. */
struct layer_run {
    size_t rows;
    const float *const *weight; /* its parameters, in the order it declares them */
    const float *x;             /* [rows, in] */
    const float *second;        /* [rows, columns as declared]; NULL without one */
    float *y;                   /* [rows, out] */
    float *kept;                /* [rows * kept]; backward may destroy it */
    const uint64_t *row_key;    /* dropout: [rows] what each row draws from; NULL: not training, nothing is dropped */
    uint32_t draw;              /* dropout: the layer's own share of a row's draws */

    /* backward only: derivatives of the loss by the above */
    float *dy;             /* [rows, out], destroyed */
    float *dx;             /* [rows, in], set */
    float *dsecond;        /* added to */
    float *const *dweight; /* shaped like weight, set: sums over the rows */
};

struct network_layers;

struct layer_kind {
    /* Sets l->kept and declares parameters with network_declare. */
    void (*declare)(struct layer *l, struct network_layers *network);
    void (*forward)(const struct layer *l, const struct layer_run *r);
    /* After forward with the same rows. */
    void (*backward)(const struct layer *l, const struct layer_run *r);
};

extern const struct layer_kind layer_linear;
extern const struct layer_kind layer_norm;
extern const struct layer_kind layer_dropout;
extern const struct layer_kind layer_residual;
extern const struct layer_kind layer_cross;

/* Dropout of `width` columns from `first` on of x [rows, stride], in place: each becomes 0 with probability `rate`, else
 * grows by 1 / (1 - rate) (Srivastava et al., JMLR 2014, inverted). Which ones depends on nothing but the row's key,
 * `draw` and the column; so the derivative is the same function of dy. */
void layer_drop(float *x, size_t rows, size_t stride, size_t first, size_t width, float rate, const uint64_t *row_key,
                uint32_t draw);

#endif
