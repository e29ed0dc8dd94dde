#include "train/negative.h"

static double uniform_rate(const struct train_config *config, double easy)
{
    (void)easy;
    return config->negatives.uniform;
}

static uint32_t uniform_draw(const struct negative_source *s, uint32_t user, struct rng *r)
{
    (void)user;
    return rng_below(r, s->n_items);
}

static double uniform_probability(const struct negative_source *s, uint32_t item)
{
    (void)item;
    return 1.0 / (double)s->n_items;
}

const struct negative_kind negative_uniform = {
    "uniform", uniform_rate, NULL, uniform_draw, uniform_probability,
};
