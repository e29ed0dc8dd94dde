/*
 * Pairwise losses: the positive must be ahead of each negative.
 *
 * The hinge is averaged over a row's triplets, so that the loss and the gradient's size do not depend on how many
 * negatives are drawn. The logistic loss of several negatives is that of the sum of their exponentials (Sohn, NIPS 2016).
 * Rejected: the mean over triplets. A triplet that is in order weighs exp(-sigma * lead), so that soon the few positives
 * which cannot be put in order have all the weight: on Gowalla, four epochs of it end below popularity (recall@20 .034 to
 * .057 with 4 to 1,023 negatives, sigma 10), and of the sum at .091.
 */
#include <math.h>

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

/* log(1 + x) of the sum x of all negatives' exponentials: softmax without a correction. */
double triplet_logistic_row(const struct loss *l, struct loss_row *r, float weight)
{
    struct loss_row plain = *r;
    plain.positive_log_q = 0;
    for (size_t p = 0; p < LOSS_PARTS; p++) {
        plain.part[p].log_q = NULL;
    }
    double loss = softmax_row(l, &plain, weight);
    r->positive = plain.positive;
    return loss;
}

double triplet_logistic_row_naive(const struct loss *l, struct loss_row *r, float weight)
{
    double sigma = (double)l->scale;
    double sum = 0;
    double slope = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t p = 0; p < LOSS_PARTS; p++) {
            for (size_t j = 0; j < r->part[p].n; j++) {
                if (pass == 0) {
                    sum += exp(sigma * ((double)r->part[p].score[j] - (double)r->positive));
                    continue;
                }
                double x = exp(sigma * ((double)r->part[p].score[j] - (double)r->positive));
                double gradient = (double)weight * sigma * x / (1 + sum);
                r->part[p].score[j] = (float)gradient;
                slope += gradient;
            }
        }
    }
    r->positive = (float)-slope;
    return log1p(sum);
}
