/*
 * Binary cross-entropy: is it a positive? The negatives' share is averaged over those that count and weighed by the
 * ratio, so that in-batch negatives (hundreds) and a few drawn ones stand in the same proportion to the positive.
 */
#include <math.h>

#include "core/vecexp.h"
#include "core/vecmath.h"
#include "train/loss_kinds.h"

double pointwise_row(const struct loss *l, struct loss_row *r, float weight)
{
    size_t n = loss_row_count(r);
    float each = n > 0 ? l->ratio / (float)n : 0.0f;
    double negatives = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        negatives += vec_sigmoid_softplus(r->part[p].score, l->scale, 0, r->part[p].n);
        vec_scale(r->part[p].score, weight * each * l->scale, r->part[p].n);
    }
    float own = r->positive;
    double positive = vec_sigmoid_softplus(&own, -l->scale, 0, 1);
    r->positive = -weight * l->scale * own;
    return positive + (double)each * negatives;
}

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

double pointwise_row_naive(const struct loss *l, struct loss_row *r, float weight)
{
    size_t n = loss_row_count(r);
    double scale = (double)l->scale;
    double each = n > 0 ? (double)l->ratio / (double)n : 0;
    double loss = softplus(-scale * (double)r->positive);
    r->positive = (float)(-(double)weight * scale * sigmoid(-scale * (double)r->positive));
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        for (size_t j = 0; j < r->part[p].n; j++) {
            double x = scale * (double)r->part[p].score[j];
            loss += each * softplus(x);
            r->part[p].score[j] = (float)((double)weight * each * scale * sigmoid(x));
        }
    }
    return loss;
}
