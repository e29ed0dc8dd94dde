/*
 * train/loss_kinds.h: the row functions of each loss (train/loss.h), for the table in loss.c, and what they share.
 */
#ifndef TRAIN_LOSS_KINDS_H
#define TRAIN_LOSS_KINDS_H

#include <math.h>

#include "train/loss.h"

double softmax_row(const struct loss *l, struct loss_row *r, float weight);
double softmax_row_naive(const struct loss *l, struct loss_row *r, float weight);
double bilateral_row(const struct loss *l, struct loss_row *r, float weight);
double bilateral_row_naive(const struct loss *l, struct loss_row *r, float weight);
double pointwise_row(const struct loss *l, struct loss_row *r, float weight);
double pointwise_row_naive(const struct loss *l, struct loss_row *r, float weight);
double triplet_hinge_row(const struct loss *l, struct loss_row *r, float weight);
double triplet_hinge_row_naive(const struct loss *l, struct loss_row *r, float weight);
double triplet_logistic_row(const struct loss *l, struct loss_row *r, float weight);
double triplet_logistic_row_naive(const struct loss *l, struct loss_row *r, float weight);

/* How many of a row's negatives count. */
static inline size_t loss_row_count(const struct loss_row *r)
{
    size_t n = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        for (size_t j = 0; j < r->part[p].n; j++) {
            n += r->part[p].score[j] > -INFINITY;
        }
    }
    return n;
}

#endif
