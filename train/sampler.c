#include "train/sampler.h"

#include <math.h>

#include "core/mem.h"

/* Streams of one seed, apart from each other. */
enum stream { STREAM_SHUFFLE = 1, STREAM_NEGATIVES, STREAM_ROWS };

static void seed_stream(struct rng *r, uint64_t seed, enum stream stream, uint32_t epoch, uint64_t index)
{
    rng_seed(r, seed ^ ((uint64_t)stream << 56), rng_mix(index + 1) ^ epoch);
}

static int set_log_q(struct sampler *s, const struct interactions *events, bool in_batch, uint32_t batch_size)
{
    uint32_t *count = mem_array(s->n_items, sizeof *count); /* a float stops counting at 2^24 */
    if (count == NULL) {
        return -1;
    }
    for (size_t i = 0; i < events->n; i++) {
        count[events->item[i]]++;
    }
    double each = (double)s->uniform / (double)s->n_items;
    for (size_t i = 0; i < s->n_items; i++) {
        double share = (double)count[i] / (double)events->n;
        double expected = (in_batch ? (double)batch_size * share : 0.0) + each;
        /* an item that can never be a candidate has no correction to make */
        s->item_log_q[i] = expected > 0 ? (float)log(expected) : 0.0f;
    }
    mem_free(count);
    return 0;
}

int sampler_init(struct sampler *s, const struct interactions *events, size_t n_users, size_t n_items, bool in_batch,
                 uint32_t uniform, uint32_t batch_size, uint64_t seed, struct err *e)
{
    *s = (struct sampler){.seed = seed, .n_events = events->n, .n_items = (uint32_t)n_items, .uniform = uniform};
    if (events->n > UINT32_MAX) {
        return err_set(e, "%zu train events; 2^32 - 1 are possible", events->n);
    }
    s->user_of = mem_array(events->n, sizeof *s->user_of);
    s->order = mem_array(events->n, sizeof *s->order);
    s->item_log_q = mem_array(n_items, sizeof *s->item_log_q);
    if (s->user_of == NULL || s->order == NULL || s->item_log_q == NULL) {
        sampler_release(s);
        return err_nomem(e);
    }
    for (size_t u = 0; u < n_users; u++) {
        for (size_t i = events->start[u]; i < events->start[u + 1]; i++) {
            s->user_of[i] = (uint32_t)u;
        }
    }
    if (set_log_q(s, events, in_batch, batch_size) < 0) {
        sampler_release(s);
        return err_nomem(e);
    }
    return 0;
}

void sampler_release(struct sampler *s)
{
    mem_free(s->user_of);
    mem_free(s->order);
    mem_free(s->item_log_q);
    *s = (struct sampler){0};
}

void sampler_shuffle(struct sampler *s, uint32_t epoch)
{
    struct rng r;
    seed_stream(&r, s->seed, STREAM_SHUFFLE, epoch, 0);
    for (size_t i = 0; i < s->n_events; i++) {
        s->order[i] = (uint32_t)i;
    }
    for (size_t i = s->n_events; i > 1; i--) {
        size_t j = rng_below(&r, (uint32_t)i);
        uint32_t swapped = s->order[i - 1];
        s->order[i - 1] = s->order[j];
        s->order[j] = swapped;
    }
}

void sampler_negatives(const struct sampler *s, uint32_t epoch, size_t batch, uint32_t *items)
{
    struct rng r;
    seed_stream(&r, s->seed, STREAM_NEGATIVES, epoch, batch);
    for (uint32_t i = 0; i < s->uniform; i++) {
        items[i] = rng_below(&r, s->n_items);
    }
}

void sampler_row_rng(const struct sampler *s, uint32_t epoch, uint64_t row, struct rng *r)
{
    seed_stream(r, s->seed, STREAM_ROWS, epoch, row);
}
