/*
 * train/optimizer_kind.h: what an optimizer is made of; the rows of the table in optimizer.c.
 *
 * A weight at rest, without a gradient, goes on in one direction d that shrinks geometrically: step s, s - t steps after the
 * last gradient at step t, moves it by  -pace(s) shrink^(s - t) d.  sgd: d is its momentum b, shrink the momentum factor, the
 * pace lr. adam: d = m / (sqrt(v) + eps'), shrink beta1 / sqrt(beta2), the pace lr sqrt(1 - beta2^s) / (1 - beta1^s).
 */
#ifndef TRAIN_OPTIMIZER_KIND_H
#define TRAIN_OPTIMIZER_KIND_H

#include "train/optimizer.h"

struct optimizer_kind {
    int states;
    void (*begin_step)(struct optimizer *o); /* sets what its updates need besides lr and keep; NULL: nothing */
    void (*update)(const struct optimizer *o, struct weights w, const float *gradient, float scale);

    /* NULL where weights without a gradient rest. */
    double (*shrink)(const struct optimizer *o);
    double (*pace)(const struct optimizer *o); /* of the step being made */
    /* Lets a weight at rest drift for `steps` steps after step `last`: value = keep value - length d, and the states become
     * what they are then. */
    void (*drift)(const struct optimizer *o, struct weights w, uint64_t last, uint64_t steps, double keep,
                  double length);
};

extern const struct optimizer_kind optimizer_adagrad, optimizer_adam, optimizer_lazy_adam, optimizer_sgd;

const struct optimizer_kind *optimizer_kind(enum optimizer_type type);

/* The decay of this step. */
static inline float optimizer_keep(const struct optimizer *o, const struct weights *w)
{
    return w->decays ? o->keep : 1.0f;
}

#endif
