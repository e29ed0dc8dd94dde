#include "train/loss.h"

#include "train/loss_kinds.h"

static const struct {
    double (*row)(const struct loss *, struct loss_row *, float);
    double (*naive)(const struct loss *, struct loss_row *, float);
    bool has_scale;
} losses[] = {
    [LOSS_BILATERAL] = {bilateral_row, bilateral_row_naive, false},
    [LOSS_POINTWISE] = {pointwise_row, pointwise_row_naive, true},
    [LOSS_TRIPLET_HINGE] = {triplet_hinge_row, triplet_hinge_row_naive, false},
    [LOSS_TRIPLET_LOGISTIC] = {triplet_logistic_row, triplet_logistic_row_naive, false},
    [LOSS_SOFTMAX] = {softmax_row, softmax_row_naive, true},
};

struct loss loss_make(const struct train_config *config)
{
    const double scales[] = {
        [LOSS_POINTWISE] = config->loss.scale,           [LOSS_TRIPLET_HINGE] = 1,
        [LOSS_TRIPLET_LOGISTIC] = config->loss.sigma,    [LOSS_SOFTMAX] = 1 / config->loss.temperature,
        [LOSS_BILATERAL] = 1 / config->loss.temperature,
    };
    bool bilateral = config->loss.type == LOSS_BILATERAL;
    return (struct loss){
        .type = config->loss.type,
        .scale = (float)scales[config->loss.type],
        .margin = (float)config->loss.margin,
        .ratio = (float)(bilateral ? config->loss.balance : config->loss.negatives_per_positive),
    };
}

bool loss_has_scale(enum loss_type type)
{
    return losses[type].has_scale;
}

double loss_row(const struct loss *l, struct loss_row *r, float weight)
{
    return losses[l->type].row(l, r, weight);
}

double loss_row_naive(const struct loss *l, struct loss_row *r, float weight)
{
    return losses[l->type].naive(l, r, weight);
}
