/*
 * train/optimizer.h: how a gradient changes a parameter.
 *
 *   adagrad    Duchi et al. (JMLR 2011):  s += g^2;  w -= lr g / (sqrt(s) + 1e-10)
 *   adam       Kingma & Ba (ICLR 2015), beta 0.9 / 0.999, eps 1e-8, bias-corrected. Every row of every table moves at
 *              every step, those that the batch does not touch by what is left of their momentum: the same model as dense
 *              gradients would give (torch.optim.Adam).
 *   lazy_adam  the same formula for the rows that a batch touches; the others keep their moments as they are
 *              (torch.optim.SparseAdam, with the global step in the bias correction).
 *   sgd        with momentum (Polyak, 1964; as torch.optim.SGD):  b = momentum b + g;  w -= lr b. Every row moves, as in adam.
 *
 * Weight decay is decoupled from the gradient (AdamW and SGDW: Loshchilov & Hutter, ICLR 2019):  w -= lr weight_decay w
 * before the step. As a part of the gradient (L2) it would go through the adaptive denominators of adagrad and adam, and decay
 * rare rows, whose gradients are small, the most. Vectors (biases) do not decay. Where every row moves, every row decays at
 * every step; in adagrad and lazy_adam a table's row decays when a batch touches it.
 *
 * Rows at rest in adam and sgd are not visited: what their momentum has done since is made up for before the next batch reads
 * them (train/optimizer_idle.h).
 *
 * To add one: a file with its `struct optimizer_kind`, a row in the table of optimizer.c, a word in config/train_config.*.
 * Updates of different slices may run on different threads.
 */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"

/* A piece of a parameter. */
struct weights {
    float *value;
    float *state[2]; /* shaped like value; NULL where the optimizer keeps fewer */
    size_t n;
    bool decays;
};

struct optimizer {
    enum optimizer_type type;
    double momentum, weight_decay;
    uint64_t step; /* of the update being made, from 1 */
    double lr;     /* of this step */

    /* what every weight of this step needs */
    float rate;         /* lr, for adam corrected for the bias of its first moment */
    float square_scale; /* adam: the correction of the second moment */
    float keep;         /* 1 - lr weight_decay */
};

/* Before the first step. */
struct optimizer optimizer_make(const struct train_config *config);

/* How many state arrays a parameter needs (0 to 2). */
int optimizer_states(enum optimizer_type type);

/* Goes on to the next step, which has this learning rate. */
void optimizer_begin_step(struct optimizer *o, double lr);

/* Updates the weights with gradient [w.n] times `scale`. */
void optimizer_update(const struct optimizer *o, struct weights w, const float *gradient, float scale);

#endif
