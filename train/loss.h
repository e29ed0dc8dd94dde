/*
 * train/loss.h: what training minimises, and its gradient with respect to every similarity of a row.
 *
 * A row is one positive s+ and its negatives s_j: those that the batch's rows share, and the row's own. With n of them
 * that count, and w the row's weight:
 *
 *   pointwise         binary cross-entropy on the scaled similarity:
 *                       -log sigmoid(c s+) - r/n sum_j log(1 - sigmoid(c s_j))
 *                     c the scale, r negatives_per_positive: negatives weigh as many as r for each positive
 *   triplet_hinge     1/n sum_j max(0, margin + s_j - s+)                              Schroff et al. (CVPR 2015)
 *   triplet_logistic  log(1 + sum_j exp(sigma (s_j - s+)))                             one negative: Huang et al. (KDD
 *                     2020), and with sigma 1 and dot products BPR, Rendle et al. (UAI 2009); several: Sohn (NIPS 2016)
 *   softmax           sampled softmax cross-entropy with the sampling-bias correction of Yi et al. (RecSys 2019, eq. 5
 *                     and 6): l = s / temperature - log q, q the item's expected number of appearances among a row's
 *                     candidates (train/sampler.h);  -log(exp(l+) / (exp(l+) + sum_j exp(l_j)))
 *
 *   bilateral         bilateral softmax, Wu et al. (ICDE 2024), for one positive a row: -s+ / temperature +
 *                     balance log(sum_j exp(l_j)). The positive is not in its own sum, so it is pulled as hard when it is
 *                     ahead already, and the balance says how robust to noise in the positives against the negatives
 *
 * A negative with similarity -INFINITY does not count: it is the positive's own item, or known to be liked.
 *
 * To add one: a file loss_<name>.c with its row function and the same in double precision, a row in the table of loss.c,
 * and a word in config/train_config.h. Functions are pure: any thread may call them on its own rows.
 */
#ifndef TRAIN_LOSS_H
#define TRAIN_LOSS_H

#include <stddef.h>

#include "config/train_config.h"

struct loss {
    enum loss_type type;
    float scale;  /* of similarities: softmax and bilateral 1 / temperature, pointwise scale, triplet_logistic sigma */
    float margin; /* triplet_hinge */
    float ratio;  /* pointwise: negatives_per_positive; bilateral: balance */
};

/* Some of a row's negatives: similarities in, gradients out, in place; 0 where one did not count. */
struct loss_part {
    float *score;       /* [n] */
    const float *log_q; /* [n]; zeros, or NULL, without correction */
    size_t n;
};

enum { LOSS_SHARED, LOSS_OWN, LOSS_PARTS };

struct loss_row {
    float positive; /* similarity in, gradient out */
    float positive_log_q;
    struct loss_part part[LOSS_PARTS]; /* shared by the batch; the row's own */
};

struct loss loss_make(const struct train_config *config);

/* True for losses whose scale may be learned (config loss.learn). dL/d log(scale) is the sum over rows of the row's
 * user vector times its gradient, because the scale and the user vector enter each similarity as factors. */
bool loss_has_scale(enum loss_type type);

/* Returns the row's loss; gradients are those of `weight` times it. Without a negative that counts: of the positive's
 * part, if it has one of its own (pointwise), else 0. */
double loss_row(const struct loss *l, struct loss_row *r, float weight);

/* The same by the formula, in double precision: the oracle. */
double loss_row_naive(const struct loss *l, struct loss_row *r, float weight);

#endif
