#include <math.h>

#include "core/mem.h"
#include "train/alias.h"
#include "train/negative.h"

static double popularity_rate(const struct train_config *config, double easy)
{
    (void)easy;
    return config->negatives.popularity;
}

static int popularity_init(struct negative_source *s, const struct train_config *config, const struct dataset *d,
                           const struct interactions *events, struct err *e)
{
    (void)d;
    uint32_t *count = interactions_count_items(events, s->n_items);
    double *weights = mem_array(s->n_items, sizeof *weights);
    for (uint32_t i = 0; count != NULL && weights != NULL && i < s->n_items; i++) {
        weights[i] = count[i] > 0 ? pow((double)count[i], config->negatives.popularity_alpha) : 0;
    }
    s->alias = count != NULL && weights != NULL ? alias_new(weights, s->n_items) : NULL;
    mem_free(weights);
    mem_free(count);
    return s->alias == NULL ? err_nomem(e) : 0;
}

static uint32_t popularity_draw(const struct negative_source *s, uint32_t user, struct rng *r)
{
    (void)user;
    return alias_draw(s->alias, r);
}

static double popularity_probability(const struct negative_source *s, uint32_t item)
{
    return alias_probability(s->alias, item);
}

const struct negative_kind negative_popularity = {
    "popularity", popularity_rate, popularity_init, popularity_draw, popularity_probability,
};
