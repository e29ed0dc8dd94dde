/*
 * Sampled softmax, and its bilateral form. The positive is kept apart from the negatives: then a negative that is the positive's own item can
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
    vec8 most = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vec8 logit = *(vec8 *)(row + i) * scale;
        if (log_q != NULL) {
            logit -= *(const vec8 *)(log_q + i);
        }
        *(vec8 *)(row + i) = logit;
        most = VEC8_MAX(logit, most);
    }
    float largest = -INFINITY;
    for (int lane = 0; lane < 8; lane++) {
        largest = most[lane] > largest ? most[lane] : largest;
    }
    for (; i < n; i++) {
        row[i] = row[i] * scale - (log_q == NULL ? 0.0f : log_q[i]);
        largest = row[i] > largest ? row[i] : largest;
    }
    return largest;
}

/* exp(logit - largest) in place of the negatives' similarities; returns their sum. *largest: at least what it was. */
static float exponentiate(const struct loss *l, struct loss_row *r, float *largest)
{
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        float other = make_logits(r->part[p].score, r->part[p].n, l->scale, r->part[p].log_q);
        *largest = other > *largest ? other : *largest;
    }
    float sum = 0;
    for (size_t p = 0; p<LOSS_PARTS && * largest> - INFINITY; p++) {
        sum += vec_exp_sum(r->part[p].score, *largest, r->part[p].n);
    }
    return sum;
}

static void scale_negatives(struct loss_row *r, float gradient)
{
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        vec_scale(r->part[p].score, gradient, r->part[p].n);
    }
}

double softmax_row(const struct loss *l, struct loss_row *r, float weight)
{
    float positive = r->positive * l->scale - r->positive_log_q;
    float largest = positive;
    float sum = exponentiate(l, r, &largest);
    float own = expf(positive - largest);
    float gradient = weight * l->scale / (sum + own);
    scale_negatives(r, gradient);
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

/* Nothing to compare with: no loss. */
static double bilateral_nothing(struct loss_row *r)
{
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        for (size_t j = 0; j < r->part[p].n; j++) {
            r->part[p].score[j] = 0;
        }
    }
    r->positive = 0;
    return 0;
}

double bilateral_row(const struct loss *l, struct loss_row *r, float weight)
{
    float largest = -INFINITY;
    float sum = exponentiate(l, r, &largest);
    if (sum <= 0) {
        return bilateral_nothing(r);
    }
    double loss = (double)l->ratio * ((double)largest + log((double)sum)) - (double)(l->scale * r->positive);
    scale_negatives(r, weight * l->scale * l->ratio / sum);
    r->positive = -weight * l->scale;
    return loss;
}

double bilateral_row_naive(const struct loss *l, struct loss_row *r, float weight)
{
    double scale = (double)l->scale;
    double largest = -INFINITY;
    double sum = 0;
    for (int pass = 0; pass < 3; pass++) {
        for (size_t p = 0; p < LOSS_PARTS; p++) {
            for (size_t j = 0; j < r->part[p].n; j++) {
                double logit = (double)r->part[p].score[j] * scale - (double)r->part[p].log_q[j];
                if (pass == 0) {
                    largest = fmax(largest, logit);
                } else if (pass == 1) {
                    sum += exp(logit - largest);
                } else {
                    double share = exp(logit - largest) / sum;
                    r->part[p].score[j] = (float)(share * scale * (double)l->ratio * (double)weight);
                }
            }
        }
        if (largest == -INFINITY) {
            return bilateral_nothing(r);
        }
    }
    double loss = (double)l->ratio * (largest + log(sum)) - scale * (double)r->positive;
    r->positive = (float)(-scale * (double)weight);
    return loss;
}
