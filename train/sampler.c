#include "train/sampler.h"

#include <math.h>

#include "core/mem.h"
#include "train/alias.h"

/* Streams of one seed, apart from each other. */
enum stream { STREAM_SHUFFLE = 1, STREAM_NEGATIVES, STREAM_ROWS };

/* Easy kinds first: how many hard ones there are depends on them. */
static const struct negative_kind *const kinds[] = {&negative_uniform, &negative_popularity, &negative_exposed,
                                                    &negative_hard};
#define KINDS (sizeof kinds / sizeof kinds[0])
_Static_assert(KINDS <= SAMPLER_SOURCES, "room for every kind");

/* A draw that the user is known to like is made anew, so often. */
enum { DRAW_TRIES = 8 };

static void seed_stream(struct rng *r, uint64_t seed, enum stream stream, uint32_t epoch, uint64_t index)
{
    rng_seed(r, seed ^ ((uint64_t)stream << 56), rng_mix(index + 1) ^ epoch);
}

/* --- set-up -----------------------------------------------------------------------------------------------------------*/

/* Expected appearances of an item among what is drawn. */
static double expect_drawn(const struct sampler *s, uint32_t item)
{
    double expected = 0;
    for (size_t i = 0; i < s->n_shared_sources; i++) {
        expected += s->shared[i].rate * s->shared[i].kind->probability(&s->shared[i], item);
    }
    for (size_t i = 0; i < s->n_own_sources; i++) {
        const struct negative_source *own = &s->own[i];
        expected += own->kind->probability != NULL ? own->rate * own->kind->probability(own, item) : 0;
    }
    return expected;
}

/* An item that can never be a candidate has no correction to make. */
static float log_expected(double expected)
{
    return expected > 0 ? (float)log(expected) : 0.0f;
}

static int count_log_q(struct sampler *s, const struct interactions *events)
{
    uint32_t *count = interactions_count_items(events, s->n_items);
    if (count == NULL) {
        return -1;
    }
    for (uint32_t i = 0; i < s->n_items; i++) {
        double share = (double)count[i] / (double)events->n;
        s->item_log_q[i] = log_expected((s->in_batch ? (double)s->batch_size * share : 0.0) + expect_drawn(s, i));
    }
    mem_free(count);
    return 0;
}

static int open_sources(struct sampler *s, const struct train_config *config, const struct dataset *d,
                        const struct interactions *events, struct err *e)
{
    double easy = s->in_batch ? (double)(s->batch_size - 1) : 0;
    for (size_t i = 0; i < KINDS; i++) {
        double rate = kinds[i]->rate(config, easy);
        if (rate <= 0) {
            continue;
        }
        bool shared = kinds[i]->probability != NULL && config->negatives.draw == DRAW_BATCH;
        struct negative_source *source = shared ? &s->shared[s->n_shared_sources++] : &s->own[s->n_own_sources++];
        *source = (struct negative_source){.kind = kinds[i], .rate = rate, .n_items = s->n_items};
        if (kinds[i]->init != NULL && kinds[i]->init(source, config, d, events, e) < 0) {
            return -1;
        }
        s->n_shared += shared ? (size_t)rate : 0;
        s->own_max += shared ? 0 : (size_t)ceil(rate);
        easy += rate;
    }
    return 0;
}

int sampler_init(struct sampler *s, const struct train_config *config, const struct dataset *d,
                 const struct interactions *events, size_t batch_size, struct err *e)
{
    *s = (struct sampler){.seed = config->seed,
                          .n_events = events->n,
                          .n_items = (uint32_t)d->n_items,
                          .in_batch = config->negatives.in_batch,
                          .corrects = config->loss.logq,
                          .batch_size = batch_size,
                          .streaming = config->loss.logq && config->loss.logq_estimator == LOGQ_STREAMING};
    if (events->n > UINT32_MAX) {
        return err_set(e, "%zu train events; 2^32 - 1 are possible", events->n);
    }
    s->item_log_q = s->streaming ? NULL : mem_array(s->n_items, sizeof *s->item_log_q);
    bool complete = event_users_init(&s->users, events, d->n_users, e) == 0;
    complete = complete && (s->streaming || s->item_log_q != NULL);
    complete = complete && (!s->streaming || frequency_init(&s->frequency, s->n_items, batch_size) == 0);
    if (!complete || open_sources(s, config, d, events, e) < 0) {
        sampler_release(s);
        return complete ? -1 : err_nomem(e);
    }
    if (!s->streaming && count_log_q(s, events) < 0) {
        sampler_release(s);
        return err_nomem(e);
    }
    return 0;
}

void sampler_release(struct sampler *s)
{
    for (size_t i = 0; i < SAMPLER_SOURCES; i++) {
        alias_free(s->shared[i].alias);
        alias_free(s->own[i].alias);
    }
    event_users_release(&s->users);
    mem_free(s->item_log_q);
    frequency_release(&s->frequency);
    *s = (struct sampler){0};
}

/* --- drawing ----------------------------------------------------------------------------------------------------------*/

void sampler_shuffle(struct sampler *s, uint32_t epoch)
{
    permutation_init(&s->order, (uint32_t)s->n_events, s->seed, (uint64_t)STREAM_SHUFFLE << 56 | epoch);
}

void sampler_draw_shared(const struct sampler *s, uint32_t epoch, size_t batch, uint32_t *items)
{
    struct rng r;
    size_t n = 0;
    seed_stream(&r, s->seed, STREAM_NEGATIVES, epoch, batch);
    for (size_t i = 0; i < s->n_shared_sources; i++) {
        for (size_t j = 0; j < (size_t)s->shared[i].rate; j++) {
            items[n++] = s->shared[i].kind->draw(&s->shared[i], NEGATIVE_NONE, &r);
        }
    }
}

void sampler_row_rng(const struct sampler *s, uint32_t epoch, uint64_t row, struct rng *r)
{
    seed_stream(r, s->seed, STREAM_ROWS, epoch, row);
}

static size_t round_rate(double rate, struct rng *r)
{
    double whole = floor(rate);
    bool more = rate > whole && (double)rng_uniform(r) < rate - whole;
    return (size_t)whole + (more ? 1 : 0);
}

size_t sampler_draw_own(const struct sampler *s, uint32_t user, struct rng *r,
                        bool (*taken)(const void *arg, uint32_t item), const void *arg, uint32_t *items, float *log_q)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_own_sources; i++) {
        const struct negative_source *source = &s->own[i];
        for (size_t left = round_rate(source->rate, r); left > 0; left--) {
            uint32_t item = NEGATIVE_NONE;
            for (int tries = 0; tries < DRAW_TRIES; tries++) {
                item = source->kind->draw(source, user, r);
                if (item == NEGATIVE_NONE || taken == NULL || !taken(arg, item)) {
                    break;
                }
                item = NEGATIVE_NONE;
            }
            if (item != NEGATIVE_NONE) {
                items[n] = item;
                log_q[n++] = source->kind->probability != NULL ? sampler_log_q(s, item) : 0.0f;
            }
        }
    }
    return n;
}

void sampler_observe(struct sampler *s, uint32_t step, const uint32_t *positives, size_t n)
{
    if (s->streaming) {
        frequency_observe(&s->frequency, step, positives, n);
    }
}

float sampler_log_q(const struct sampler *s, uint32_t item)
{
    if (!s->corrects) {
        return 0;
    }
    if (!s->streaming) {
        return s->item_log_q[item];
    }
    double in_batch = s->in_batch ? frequency_get(&s->frequency, item) : 0;
    return log_expected(in_batch + expect_drawn(s, item));
}
