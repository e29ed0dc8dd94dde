/*
 * train/backward.h: from the gradient of a tower's vectors to the gradients of its parameters.
 *
 * The pass is one thread's share of a batch: `struct tower_pass` holds the activations that tower_forward left, and
 * tower_backward fills a `struct tower_gradient` of the same thread. Dense gradients are summed over the rows; the
 * gradient of the input [rows, input_width] is kept whole, because the embedding tables' sparse gradients are made from
 * it, table by table, by the thread that owns each table row (train/trainer.c).
 */
#ifndef TRAIN_BACKWARD_H
#define TRAIN_BACKWARD_H

#include <stddef.h>

#include "core/err.h"
#include "core/tower.h"

struct tower_gradient {
    float *value[NETWORK_MAX_LAYERS + 1]; /* by the pass's values, shaped like them: scratch */
    float
        *second[NETWORK_MAX_LAYERS + 1]; /* what layers that take a value as second input say of it; NULL: none does */
    float *dense[NETWORK_MAX_DENSE];     /* by the tower's dense parameters, shaped like them */
    float *input;                        /* value[0]: [capacity, input_width] */
    float *output; /* the last value: where the caller puts dL/d output [capacity, output_dim]; destroyed */
};

int tower_gradient_init(struct tower_gradient *g, const struct tower_spec *spec, size_t capacity, struct err *e);
void tower_gradient_release(struct tower_gradient *g);

/* g->output [count, output_dim] holds dL/d(p->output); fills the rest. */
void tower_backward(const struct tower *t, const struct tower_pass *p, size_t count, struct tower_gradient *g);

/* Through y = x / |x|: turns gradient [rows, n] of the unit vectors y into that of x, given |x| [rows]. */
void normalize_backward(float *gradient, const float *unit, const float *norms, size_t rows, size_t n);

#endif
