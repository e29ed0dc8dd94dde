/*
 * Losses over blocks of similarities.
 *
 * The trainer computes similarities with one matrix product a block and asks here for the gradient of each. The positive
 * is kept apart from the candidates: then a candidate that is the positive's own item can simply be left out, which makes
 * in-batch negatives (where the diagonal is the positive) and sampled ones the same thing.
 *
 * A batch of 4,096 has 17 million exponentials, as much work as the matrix products if libm does them one by one; hence
 * vec_exp_sum: range reduction by round-to-nearest with a magic constant and a polynomial of degree 6 on [-ln2/2, ln2/2].
 */
#include "train/loss.h"

#include <math.h>
#include <string.h>

#include "core/simd.h"
#include "core/vecmath.h"

typedef int32_t ivec8 __attribute__((vector_size(32), aligned(4), may_alias));

/* exp of 8 numbers in (-87.3, 88): 2^n * p(r) with x = n ln 2 + r. A macro since vectors wider than the baseline's
 * registers can't be passed to functions. */
#define VEC8_EXP(result, x)                                               \
    do {                                                                  \
        vec8 shifted_ = (x)*1.44269504088896341f + 12582912.0f;           \
        vec8 whole_ = shifted_ - 12582912.0f;                             \
        vec8 r_ = (x)-whole_ * 0.693359375f - whole_ * -2.12194440e-4f;   \
        vec8 p_ = 1.3888889e-3f * r_ + 8.3333333e-3f;                     \
        p_ = p_ * r_ + 4.1666667e-2f;                                     \
        p_ = p_ * r_ + 1.6666667e-1f;                                     \
        p_ = p_ * r_ + 0.5f;                                              \
        p_ = p_ * r_ + 1.0f;                                              \
        p_ = p_ * r_ + 1.0f;                                              \
        ivec8 bits_ = (ivec8)p_ + (((ivec8)shifted_ - 0x4b400000) << 23); \
        (result) = (vec8)bits_;                                           \
    } while (0)

static const float EXP_FLOOR = -87.0f;

SIMD_CLONES float vec_exp_sum(float *x, float shift, size_t n)
{
    vec8 sums = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        vec8 v = *(vec8 *)(x + i) - shift;
        ivec8 keep = v > EXP_FLOOR;
        v = (vec8)((ivec8)v & keep);
        vec8 y;
        VEC8_EXP(y, v);
        y = (vec8)((ivec8)y & keep);
        *(vec8 *)(x + i) = y;
        sums += y;
    }
    float sum = 0;
    for (int lane = 0; lane < 8; lane++) {
        sum += sums[lane];
    }
    for (; i < n; i++) {
        float v = x[i] - shift;
        x[i] = v > EXP_FLOOR ? expf(v) : 0.0f;
        sum += x[i];
    }
    return sum;
}

/* logits [n] in place of similarities; own item to -inf. Returns the largest. */
SIMD_CLONES static float make_logits(float *row, size_t n, float scale, const float *candidate_log_q,
                                     const uint32_t *candidate_item, uint32_t own)
{
    float largest = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        float logit = row[j] * scale - candidate_log_q[j];
        logit = candidate_item[j] == own ? -INFINITY : logit;
        row[j] = logit;
        largest = logit > largest ? logit : largest;
    }
    return largest;
}

static double softmax_compute(const struct loss *l, struct loss_block *b)
{
    float scale = 1.0f / l->temperature;
    double total = 0;
    for (size_t i = 0; i < b->rows; i++) {
        float *row = b->negative + i * b->candidates;
        uint32_t own = b->positive_item[i];
        float positive = b->positive[i] * scale - b->positive_log_q[i];
        float largest = make_logits(row, b->candidates, scale, b->candidate_log_q, b->candidate_item, own);
        largest = positive > largest ? positive : largest;
        float sum = vec_exp_sum(row, largest, b->candidates);
        float own_exp = expf(positive - largest);
        total += (double)(largest - positive) + log((double)sum + (double)own_exp);
        float gradient = b->batch_scale * scale / (sum + own_exp);
        vec_scale(row, gradient, b->candidates);
        b->positive[i] = -gradient * sum; /* (p+ - 1) / temperature, without the cancellation */
    }
    return total;
}

static double softmax_naive(const struct loss *l, struct loss_block *b)
{
    double total = 0;
    for (size_t i = 0; i < b->rows; i++) {
        float *row = b->negative + i * b->candidates;
        uint32_t own = b->positive_item[i];
        double positive = (double)b->positive[i] / (double)l->temperature;
        positive -= (double)b->positive_log_q[i];
        double others = 0;
        for (size_t j = 0; j < b->candidates; j++) {
            uint32_t item = b->candidate_item[j];
            double logit = (double)row[j] / (double)l->temperature - (double)b->candidate_log_q[j];
            others += item == own ? 0.0 : exp(logit - positive);
        }
        for (size_t j = 0; j < b->candidates; j++) {
            uint32_t item = b->candidate_item[j];
            double logit = (double)row[j] / (double)l->temperature - (double)b->candidate_log_q[j];
            double p = item == own ? 0.0 : exp(logit - positive) / (1.0 + others);
            row[j] = (float)(p * (double)b->batch_scale / (double)l->temperature);
        }
        b->positive[i] = (float)(-others / (1.0 + others) * (double)b->batch_scale / (double)l->temperature);
        total += log1p(others);
    }
    return total;
}

static const struct {
    double (*compute)(const struct loss *, struct loss_block *);
    double (*naive)(const struct loss *, struct loss_block *);
} losses[] = {
    [LOSS_SOFTMAX] = {softmax_compute, softmax_naive},
};

double loss_compute(const struct loss *l, struct loss_block *b)
{
    return losses[l->type].compute(l, b);
}

double loss_compute_naive(const struct loss *l, struct loss_block *b)
{
    return losses[l->type].naive(l, b);
}
