/*
 * Phase 3: each thread adds up what all threads found for its items (those of its rows' own negatives are its
 * alone), and runs both towers backward over its share.
 */
#include "train/phase.h"

#include <string.h>

#include "core/vecmath.h"

/* Adds all workers' partial sums for `n` rows of the batch's items from `global` on, in worker order. */
static void gather_item_gradient(struct worker *w, size_t global, size_t local, size_t n)
{
    struct trainer *t = w->t;
    float *sum = w->gradient[SIDE_ITEM].output + local * t->dim;
    memcpy(sum, t->workers[0].item_partial + global * t->dim, n * t->dim * sizeof *sum);
    for (unsigned i = 1; i < t->n_workers; i++) {
        vec_add_scaled(sum, t->workers[i].item_partial + global * t->dim, 1.0f, n * t->dim);
    }
}

void phase_backward(struct worker *w)
{
    struct trainer *t = w->t;
    size_t n = range_size(w->users);
    size_t negatives = range_size(w->negatives);
    size_t own = own_count(w);
    float *user_gradient = w->gradient[SIDE_USER].output;
    float *item_gradient = w->gradient[SIDE_ITEM].output;
    gather_item_gradient(w, w->users.begin, 0, n);
    gather_item_gradient(w, t->count + w->negatives.begin, n, negatives);
    if (t->d->schema.similarity == SIMILARITY_COSINE) {
        normalize_backward(user_gradient, t->user_vectors + w->users.begin * t->dim, w->norms[SIDE_USER], n, t->dim);
        normalize_backward(item_gradient, t->item_vectors + w->users.begin * t->dim, w->norms[SIDE_ITEM], n, t->dim);
        normalize_backward(item_gradient + n * t->dim, t->item_vectors + (t->count + w->negatives.begin) * t->dim,
                           w->norms[SIDE_ITEM] + n, negatives, t->dim);
        normalize_backward(item_gradient + (n + negatives) * t->dim, w->own.vector, w->norms[SIDE_ITEM] + n + negatives,
                           own, t->dim);
    }
    tower_backward(&t->model->towers[SIDE_USER], &w->pass[SIDE_USER], n, &w->gradient[SIDE_USER]);
    tower_backward(&t->model->towers[SIDE_ITEM], &w->pass[SIDE_ITEM], n + negatives + own, &w->gradient[SIDE_ITEM]);
}
