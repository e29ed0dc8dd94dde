/*
 * train/optimizer.h: how a gradient changes a parameter.
 *
 *   adagrad  Duchi et al. (JMLR 2011):  s += g^2;  w -= lr g / (sqrt(s) + 1e-10)
 *   adam     Kingma & Ba (ICLR 2015), beta 0.9 / 0.999, eps 1e-8, bias-corrected. Rows of embedding tables that a batch
 *            does not touch keep their moments as they are ("lazy"): decaying every row of every table at every step
 *            would cost more than all the rest of training.
 *
 * To add one: a row in the table of optimizer.c and a word in config/train_config.h. Updates of different slices may run
 * on different threads.
 */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"

struct optimizer {
    enum optimizer_type type;
    float lr;
    uint64_t step; /* of the update being made, from 1; the trainer counts */
};

/* How many state arrays a parameter needs (0 to 2). */
int optimizer_states(enum optimizer_type type);

/* Updates value [n] with its gradient [n]. state0 and state1 [n] are NULL where the optimizer keeps fewer. */
void optimizer_update(const struct optimizer *o, float *value, float *state0, float *state1, const float *gradient,
                      size_t n);

#endif
