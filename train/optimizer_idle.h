/*
 * train/optimizer_idle.h: rows of tables that no batch touches, under optimizers that move them all the same (adam, sgd).
 *
 * Moving every row at every step would cost more than all the rest of training. Instead a row's drift (optimizer_kind.h) is
 * made up for when it is needed: before a batch reads the row, and for all rows at the end of an epoch. Between times the
 * table keeps, for every step of the epoch, how long the drift of a row that was last current then has become; each step adds to
 * the latest `window` of them, after which drifts have died away (to 1e-12). Making up for any number of steps
 * thus costs no more than one update, and the work does not depend on the size of tables.
 *
 * Steps are counted from the epoch's begin: 0 is before its first step.
 */
#ifndef TRAIN_OPTIMIZER_IDLE_H
#define TRAIN_OPTIMIZER_IDLE_H

#include "core/err.h"
#include "train/optimizer.h"

struct idle {
    const struct optimizer *optimizer; /* borrowed */
    uint64_t first;                    /* the optimizer's step before the epoch */
    size_t window, capacity, n;        /* n: steps of the epoch so far */
    double *power;                     /* [window + 1] shrink^j */
    double *length;                    /* [capacity + 1] of the drift since step i, until `window` steps later */
    double *kept;                      /* [capacity + 1] log of what decay has left of a weight up to step i */
};

/* Whether rows at rest move: otherwise none of this is needed. */
bool optimizer_moves_idle(const struct optimizer *o);

/* For epochs of at most `steps` steps. Zeroed storage may be released. */
int idle_init(struct idle *idle, const struct optimizer *o, size_t steps, struct err *e);
void idle_release(struct idle *idle);

void idle_begin_epoch(struct idle *idle);

/* Counts the optimizer's step, after it was made. */
void idle_add_step(struct idle *idle);

/* Brings weights that were current at step `last` of the epoch to idle->n. Thread-safe for different weights. */
void idle_catch_up(const struct idle *idle, struct weights w, size_t last);

#endif
