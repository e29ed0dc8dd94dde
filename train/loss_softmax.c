/*
 * Sampled softmax. The positive is kept apart from the negatives: then a negative that is the positive's own item can
 * simply be left out, which makes in-batch negatives (where the diagonal is the positive) and drawn ones the same thing.
 */
#include <math.h>

#include "core/simd.h"
#include "core/vecexp.h"
#include "core/vecmath.h"
#include "train/loss_kinds.h"

/* logits [n] in place of similarities. Returns the largest. */
SIMD_CLONES static float make_logits(float *row, size_t n, float scale, const float *log_q)
{
    float largest = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        float logit = row[j] * scale - log_q[j];
        row[j] = logit;
        largest = logit > largest ? logit : largest;
    }
    return largest;
}

double softmax_row(const struct loss *l, struct loss_row *r, float weight)
{
    float positive = r->positive * l->scale - r->positive_log_q;
    float largest = positive;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        float other = make_logits(r->part[p].score, r->part[p].n, l->scale, r->part[p].log_q);
        largest = other > largest ? other : largest;
    }
    float sum = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        sum += vec_exp_sum(r->part[p].score, largest, r->part[p].n);
    }
    float own = expf(positive - largest);
    float gradient = weight * l->scale / (sum + own);
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        vec_scale(r->part[p].score, gradient, r->part[p].n);
    }
    r->positive = -gradient * sum; /* (p+ - 1) scale, without the cancellation */
    return (double)(largest - positive) + log((double)sum + (double)own);
}

double softmax_row_naive(const struct loss *l, struct loss_row *r, float weight)
{
    double scale = (double)l->scale;
    double positive = (double)r->positive * scale - (double)r->positive_log_q;
    double others = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t p = 0; p < LOSS_PARTS; p++) {
            for (size_t j = 0; j < r->part[p].n; j++) {
                double logit = (double)r->part[p].score[j] * scale - (double)r->part[p].log_q[j];
                if (pass == 0) {
                    others += exp(logit - positive);
                } else {
                    r->part[p].score[j] = (float)(exp(logit - positive) / (1 + others) * scale * (double)weight);
                }
            }
        }
    }
    r->positive = (float)(-others / (1 + others) * scale * (double)weight);
    return log1p(others);
}
