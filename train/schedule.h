/*
 * train/schedule.h: the learning rate of every step.
 *
 *   warm-up   linear from 0 over the first `warmup` steps (Goyal et al., 2017); what follows counts the steps after it
 *   constant  lr
 *   step      lr factor^k, k = epochs before this one / every, rounded down
 *   cosine    end_lr + (lr - end_lr) (1 + cos(pi x)) / 2, x the share of the steps that is done (Loshchilov & Hutter, ICLR 2017,
 *             without restarts)
 *
 * All steps are those of optimizer.epochs epochs, also when early stopping ends before, or when the best number of epochs is
 * trained again on the whole train part: an epoch has the learning rates it had when it was found to be the best.
 */
#ifndef TRAIN_SCHEDULE_H
#define TRAIN_SCHEDULE_H

#include <stdint.h>

#include "config/train_config.h"

/* The rate of step `step` (from 1) of config->optimizer.epochs * batches. */
double schedule_lr(const struct train_config *config, uint64_t step, uint64_t batches);

#endif
