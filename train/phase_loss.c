/*
 * Phase 2: each thread takes its users against all candidates: similarities by one matrix product a block, the loss and
 * its gradient (train/loss.h), and from that the gradients of its user vectors and its partial sums for the item vectors.
 */
#include "train/phase.h"

#include <math.h>
#include <string.h>

#include "core/vecmath.h"

enum { MASK_LIMIT = 1024 };

/* Makes first_of and next_of chains of the positions of each item among the batch's candidates, or takes them back. */
static void chain_candidates(struct worker *w, const uint32_t *items, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        w->next_of[j] = w->first_of[items[j]];
        w->first_of[items[j]] = (int32_t)j;
    }
}

static void unchain_candidates(struct worker *w, const uint32_t *items, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        w->first_of[items[j]] = NO_SLOT;
    }
}

/* Sets the similarities of what a user is known to like to -infinity: a false negative teaches the wrong thing. Only the
 * latest MASK_LIMIT of his events are looked at, so that a user with a million of them costs no more. */
static void mask_seen(const struct worker *w, uint32_t user, float *scores)
{
    const struct interactions *events = w->t->events;
    size_t end = events->start[user + 1];
    size_t begin = end - events->start[user] > MASK_LIMIT ? end - MASK_LIMIT : events->start[user];
    for (size_t i = begin; i < end; i++) {
        for (int32_t j = w->first_of[events->item[i]]; j != NO_SLOT; j = w->next_of[j]) {
            scores[j] = -INFINITY;
        }
    }
}

static void loss_of_block(struct worker *w, size_t begin, size_t rows, size_t first_candidate, size_t candidates)
{
    struct trainer *t = w->t;
    const float *users = t->user_vectors + begin * t->dim;
    const float *positives = t->item_vectors + begin * t->dim;
    const float *others = t->item_vectors + first_candidate * t->dim;
    float *user_gradient = w->gradient[SIDE_USER].output + (begin - w->users.begin) * t->dim;

    mat_mul_nt(w->scores, users, others, rows, candidates, t->dim, false);
    for (size_t i = 0; i < rows; i++) {
        w->positive[i] = vec_dot(users + i * t->dim, positives + i * t->dim, t->dim);
        if (t->config->negatives.mask_seen) {
            size_t event = t->sampler.order[t->batch * t->batch_size + begin + i];
            mask_seen(w, t->sampler.user_of[event], w->scores + i * candidates);
        }
    }
    struct loss_block block = {
        .rows = rows,
        .candidates = candidates,
        .positive = w->positive,
        .negative = w->scores,
        .positive_item = t->items + begin,
        .candidate_item = t->items + first_candidate,
        .positive_log_q = t->log_q + begin,
        .candidate_log_q = t->log_q + first_candidate,
        .batch_scale = 1.0f / (float)t->count,
    };
    w->loss += loss_compute(&t->loss, &block);
    mat_mul_nn(user_gradient, w->scores, others, rows, t->dim, candidates, false);
    mat_mul_tn(w->item_partial + first_candidate * t->dim, w->scores, users, candidates, t->dim, rows, true);
    for (size_t i = 0; i < rows; i++) {
        vec_add_scaled(user_gradient + i * t->dim, positives + i * t->dim, w->positive[i], t->dim);
        vec_add_scaled(w->item_partial + (begin + i) * t->dim, users + i * t->dim, w->positive[i], t->dim);
    }
}

void phase_loss(struct worker *w)
{
    struct trainer *t = w->t;
    size_t first = t->config->negatives.in_batch ? 0 : t->count;
    size_t candidates = t->count + t->n_negatives - first;
    memset(w->item_partial, 0, (t->count + t->n_negatives) * t->dim * sizeof *w->item_partial);
    w->loss = 0;
    if (t->config->negatives.mask_seen) {
        chain_candidates(w, t->items + first, candidates);
    }
    for (size_t i = w->users.begin; i < w->users.end; i += SCORE_BLOCK) {
        size_t rows = w->users.end - i < SCORE_BLOCK ? w->users.end - i : SCORE_BLOCK;
        loss_of_block(w, i, rows, first, candidates);
    }
    if (t->config->negatives.mask_seen) {
        unchain_candidates(w, t->items + first, candidates);
    }
}
