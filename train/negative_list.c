/*
 * Negatives from lists of the row's user: hard ones and exposed ones.
 */
#include "train/negative.h"

static double hard_rate(const struct train_config *config, double easy)
{
    return config->negatives.hard.source == HARD_NONE ? 0 : easy / config->negatives.hard.easy_per_hard;
}

static int hard_init(struct negative_source *s, const struct train_config *config, const struct dataset *d,
                     const struct interactions *events, struct err *e)
{
    (void)config;
    (void)events;
    s->lists = &d->hard;
    return d->hard.start != NULL ? 0 : err_set(e, "negatives.hard: there are no lists of hard negatives");
}

static double exposed_rate(const struct train_config *config, double easy)
{
    (void)easy;
    return config->negatives.exposed;
}

static int exposed_init(struct negative_source *s, const struct train_config *config, const struct dataset *d,
                        const struct interactions *events, struct err *e)
{
    (void)config;
    (void)events;
    s->lists = &d->exposed;
    return d->exposed.start != NULL ? 0 : err_set(e, "negatives.exposed: there are no lists of exposed items");
}

static uint32_t list_draw(const struct negative_source *s, uint32_t user, struct rng *r)
{
    size_t begin = s->lists->start[user];
    size_t n = s->lists->start[user + 1] - begin;
    return n == 0 ? NEGATIVE_NONE : s->lists->item[begin + rng_below(r, (uint32_t)n)];
}

const struct negative_kind negative_hard = {"hard", hard_rate, hard_init, list_draw, NULL};
const struct negative_kind negative_exposed = {"exposed", exposed_rate, exposed_init, list_draw, NULL};
