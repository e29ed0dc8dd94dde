/*
 * Phase 2: each thread takes its rows against all shared candidates: similarities by one matrix product a block, the loss
 * and its gradient a row (train/loss.h), and from that the gradients of its user vectors and its partial sums for the item
 * vectors. A row's own negatives are a few dot products more.
 */
#include "train/phase.h"

#include <math.h>
#include <string.h>

#include "core/vecmath.h"

/* Makes first_of and next_of chains of the positions of each item among the batch's candidates, and notes which items are
 * there at all; or takes it back. */
static void chain_candidates(struct worker *w, const uint32_t *items, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        w->next_of[j] = w->first_of[items[j]];
        w->first_of[items[j]] = (int32_t)j;
        w->among[items[j] / 64] |= UINT64_C(1) << items[j] % 64;
    }
}

static void unchain_candidates(struct worker *w, const uint32_t *items, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        w->first_of[items[j]] = NO_SLOT;
        w->among[items[j] / 64] = 0;
    }
}

/* Few of the items that users know are candidates: the bits say so from the first-level cache, the chains are not there. */
static void mask_item(const struct worker *w, uint32_t item, float *scores)
{
    if ((w->among[item / 64] >> item % 64 & 1) == 0) {
        return;
    }
    for (int32_t j = w->first_of[item]; j != NO_SLOT; j = w->next_of[j]) {
        scores[j] = -INFINITY;
    }
}

/* Sets the similarities of candidates that are no negatives of the row to -infinity: the positive's own item (the row
 * itself among in-batch negatives, and accidental hits) and what the user is known to like: a false negative teaches the
 * wrong thing. */
static void mask_row(const struct worker *w, size_t i, float *scores)
{
    const struct trainer *t = w->t;
    mask_item(w, t->items[i], scores);
    if (t->config->negatives.mask_seen) {
        struct range known = known_events(t->events, t->user[i]);
        for (size_t k = known.begin; k < known.end; k++) {
            mask_item(w, t->events->item[k], scores);
        }
    }
}

/* Asks for the first of the items that each row's user knows: they come while the similarities are computed. */
static void prefetch_known(const struct worker *w, size_t begin, size_t rows)
{
    const struct trainer *t = w->t;
    enum { LINE = 64 / sizeof(uint32_t) };
    for (size_t i = begin; t->config->negatives.mask_seen && i < begin + rows; i++) {
        struct range known = known_events(t->events, t->user[i]);
        for (size_t k = known.begin; k < known.end && k < known.begin + 4 * LINE; k += LINE) {
            __builtin_prefetch(t->events->item + k);
        }
    }
}

/* Row `i` of the batch: similarities with the positive and the row's own negatives, the loss, and the gradients that do
 * not go through the shared candidates. `shared` are the similarities with those, then their gradients. */
static void loss_of_row(struct worker *w, size_t i, struct loss_part shared)
{
    struct trainer *t = w->t;
    size_t local = i - w->users.begin;
    size_t first_own = t->sampler.own_max == 0 ? 0 : w->own.start[local];
    size_t n_own = t->sampler.own_max == 0 ? 0 : w->own.start[local + 1] - first_own;
    const float *user = t->user_vectors + i * t->dim;
    const float *positive = t->item_vectors + i * t->dim;
    float *user_gradient = w->gradient[SIDE_USER].output + local * t->dim;
    float *own_gradient =
        w->gradient[SIDE_ITEM].output + (range_size(w->users) + range_size(w->negatives) + first_own) * t->dim;
    const float *weights = t->events->weight;
    float weight = weights == NULL ? 1.0f : weights[t->event[i]] * t->weight_scale;

    struct loss_part own = {w->own.score + first_own, w->own.log_q + first_own, n_own};
    for (size_t j = 0; j < n_own; j++) {
        own.score[j] = vec_dot(user, w->own.vector + (first_own + j) * t->dim, t->dim);
    }
    struct loss_row row = {vec_dot(user, positive, t->dim), t->log_q[i], {shared, own}};
    w->loss += (double)weight * loss_row(&t->loss, &row, weight / (float)t->count);

    memset(own_gradient, 0, n_own * t->dim * sizeof *own_gradient);
    for (size_t j = 0; j < n_own; j++) {
        vec_add_scaled(own_gradient + j * t->dim, user, own.score[j], t->dim);
        vec_add_scaled(user_gradient, w->own.vector + (first_own + j) * t->dim, own.score[j], t->dim);
    }
    vec_add_scaled(user_gradient, positive, row.positive, t->dim);
    vec_add_scaled(w->item_partial + i * t->dim, user, row.positive, t->dim);
}

static void loss_of_block(struct worker *w, size_t begin, size_t rows, size_t first_candidate, size_t candidates)
{
    struct trainer *t = w->t;
    const float *users = t->user_vectors + begin * t->dim;
    const float *others = t->item_vectors + first_candidate * t->dim;
    float *user_gradient = w->gradient[SIDE_USER].output + (begin - w->users.begin) * t->dim;

    memset(user_gradient, 0, rows * t->dim * sizeof *user_gradient);
    if (candidates > 0) {
        prefetch_known(w, begin, rows);
        mat_mul_nt(w->scores, users, others, rows, candidates, t->dim, false);
    }
    for (size_t i = 0; i < rows; i++) {
        float *scores = w->scores + i * candidates;
        if (candidates > 0) {
            mask_row(w, begin + i, scores);
        }
        loss_of_row(w, begin + i, (struct loss_part){scores, t->log_q + first_candidate, candidates});
    }
    if (candidates > 0) {
        mat_mul_nn(user_gradient, w->scores, others, rows, t->dim, candidates, true);
        mat_mul_tn(w->item_partial + first_candidate * t->dim, w->scores, users, candidates, t->dim, rows, true);
    }
    if (t->model->loss_scale >= 0) { /* see loss_has_scale */
        w->scale_gradient += vec_dot(users, user_gradient, rows * t->dim);
    }
}

void phase_loss(struct worker *w)
{
    struct trainer *t = w->t;
    size_t first = t->config->negatives.in_batch ? 0 : t->count;
    size_t candidates = t->count + t->n_negatives - first;
    memset(w->item_partial, 0, (t->count + t->n_negatives) * t->dim * sizeof *w->item_partial);
    w->loss = 0;
    w->scale_gradient = 0;
    chain_candidates(w, t->items + first, candidates);
    for (size_t i = w->users.begin; i < w->users.end; i += SCORE_BLOCK) {
        size_t rows = w->users.end - i < SCORE_BLOCK ? w->users.end - i : SCORE_BLOCK;
        loss_of_block(w, i, rows, first, candidates);
    }
    unchain_candidates(w, t->items + first, candidates);
}
