/*
 * train/loss.h: what training minimises, and its gradient with respect to every similarity of a block.
 *
 *   softmax  Sampled softmax cross-entropy of one positive against the block's candidates, with the sampling-bias
 *            correction of Yi et al. (RecSys 2019, eq. 5 and 6): logit = similarity / temperature - log q, where q is the
 *            candidate's expected number of appearances in a batch. For in-batch negatives q = B p (p the item's share of
 *            the train events); with N uniform negatives beside them q = B p + N / n_items (Yang et al., WWW 2020).
 *            L = -log(exp(l+) / (exp(l+) + sum_j exp(l_j))), averaged over the batch.
 *
 * A candidate that is the positive's own item (the row itself among in-batch negatives, or an accidental hit) does not
 * count, nor does one whose similarity the caller has set to -INFINITY. To add a loss: a row in the table of loss.c and a word in config/train_config.h.
 */
#ifndef TRAIN_LOSS_H
#define TRAIN_LOSS_H

#include <stddef.h>
#include <stdint.h>

#include "config/train_config.h"

/* A block of a batch: similarities in, gradients out, in place. */
struct loss_block {
    size_t rows, candidates;
    float *positive;                /* [rows] similarity with the positive -> dL/d that */
    float *negative;                /* [rows, candidates] row-major -> dL/d each; 0 where it did not count */
    const uint32_t *positive_item;  /* [rows] */
    const uint32_t *candidate_item; /* [candidates] */
    const float *positive_log_q;    /* [rows]; zeros without correction */
    const float *candidate_log_q;   /* [candidates]; zeros without correction */
    float batch_scale;              /* 1 / rows of the whole batch: gradients of the mean */
};

struct loss {
    enum loss_type type;
    float temperature;
};

/* Returns the block's summed (not averaged) loss. */
double loss_compute(const struct loss *l, struct loss_block *b);

/* The same by the formula, in double precision: the oracle. */
double loss_compute_naive(const struct loss *l, struct loss_block *b);

/* x[i] = exp(x[i] - shift), returns the sum; exact to a few units in the last place for results that matter, 0 below
 * exp(-87). The oracle is expf. */
float vec_exp_sum(float *x, float shift, size_t n);

#endif
