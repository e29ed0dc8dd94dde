/*
 * Pairwise losses: the positive must be ahead of each negative. Both are averaged over the triplets of a row, so that
 * the loss and the gradient's size do not depend on how many negatives are drawn.
 */
#include <math.h>

#include "core/vecexp.h"
#include "train/loss_kinds.h"

double triplet_hinge_row(const struct loss *l, struct loss_row *r, float weight)
{
    size_t n = loss_row_count(r);
    float each = n > 0 ? weight / (float)n : 0.0f;
    float limit = r->positive - l->margin; /* a negative beyond it costs something */
    double sum = 0;
    size_t active = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        float *score = r->part[p].score;
        for (size_t j = 0; j < r->part[p].n; j++) {
            bool costs = score[j] > limit;
            sum += costs ? (double)(score[j] - limit) : 0;
            active += costs;
            score[j] = costs ? each : 0.0f;
        }
    }
    r->positive = -each * (float)active;
    return n > 0 ? sum / (double)n : 0;
}

double triplet_hinge_row_naive(const struct loss *l, struct loss_row *r, float weight)
{
    size_t n = loss_row_count(r);
    double each = n > 0 ? 1 / (double)n : 0;
    double loss = 0;
    double slope = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        for (size_t j = 0; j < r->part[p].n; j++) {
            double x = (double)l->margin + (double)r->part[p].score[j] - (double)r->positive;
            loss += each * fmax(0, x);
            r->part[p].score[j] = x > 0 ? (float)((double)weight * each) : 0.0f;
            slope += (double)r->part[p].score[j];
        }
    }
    r->positive = (float)-slope;
    return loss;
}

double triplet_logistic_row(const struct loss *l, struct loss_row *r, float weight)
{
    size_t n = loss_row_count(r);
    float each = n > 0 ? weight * l->scale / (float)n : 0.0f;
    double sum = 0;
    float slope = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        float *score = r->part[p].score;
        sum += vec_sigmoid_softplus(score, l->scale, l->scale * r->positive, r->part[p].n);
        for (size_t j = 0; j < r->part[p].n; j++) {
            score[j] *= each;
            slope += score[j];
        }
    }
    r->positive = -slope;
    return n > 0 ? sum / (double)n : 0;
}

double triplet_logistic_row_naive(const struct loss *l, struct loss_row *r, float weight)
{
    size_t n = loss_row_count(r);
    double each = n > 0 ? 1 / (double)n : 0;
    double sigma = (double)l->scale;
    double loss = 0;
    double slope = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        for (size_t j = 0; j < r->part[p].n; j++) {
            double x = sigma * ((double)r->part[p].score[j] - (double)r->positive);
            loss += each * (x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)));
            double gradient = (double)weight * sigma * each / (1 + exp(-x));
            r->part[p].score[j] = (float)gradient;
            slope += gradient;
        }
    }
    r->positive = (float)-slope;
    return loss;
}
