/*
 * Phase 1: each thread encodes its share of the batch's users and items (phase_encode), and runs both towers forward.
 *
 * A thread's items are its share of the positives, then its share of the batch's shared negatives, then its rows' own
 * negatives. In the shared candidate matrix the positives of all threads come first, so that in-batch negatives are its
 * first rows; a row's own negatives stay with the thread that has the row.
 */
#include "train/phase.h"

#include <math.h>
#include <string.h>

#include "core/feature_pack.h"
#include "core/rng.h"
#include "core/vecmath.h"

/* Hides values of the last row as the configuration's unknown_rate says, half as unknown, half as missing. */
static int hide_values(struct feature_rows *rows, const struct tower_config *config, struct rng *r)
{
    size_t row = rows->n - 1;
    for (size_t i = 0; i < config->n_features; i++) {
        double rate = config->features[i].unknown_rate;
        if (rate <= 0) {
            continue;
        }
        float draw = rng_uniform(r);
        if (draw >= (float)rate) {
            continue;
        }
        const struct feature *f = &rows->spec->features[i];
        bool unknown = draw < 0.5f * (float)rate;
        if (feature_is_bag(f)) {
            int32_t index = SCHEMA_UNKNOWN;
            if (feature_rows_set_bag(rows, (uint32_t)i, &index, unknown ? 1 : 0) < 0) {
                return -1;
            }
        } else if (f->rows > 0) {
            rows->columns[i].index[row] = unknown && f->type != FEATURE_NUMERIC ? SCHEMA_UNKNOWN : SCHEMA_MISSING;
        } else {
            rows->columns[i].number[row] = NAN;
        }
    }
    return 0;
}

static int encode_user(struct worker *w, uint32_t user, size_t event)
{
    const struct trainer *t = w->t;
    struct feature_rows *rows = &w->rows[SIDE_USER];
    if (feature_rows_copy(rows, &t->d->rows[SIDE_USER], user) < 0) {
        return -1;
    }
    if (t->d->history < 0) {
        return 0;
    }
    size_t n = dataset_history(t->d, t->events, user, event, w->history);
    return feature_rows_set_bag(rows, (uint32_t)t->d->history, w->history, n);
}

/* What dropout of a row and hiding of a negative's values draw from, the same on whatever thread; `row` counts from the
 * batch's first. */
static uint64_t row_key(const struct trainer *t, enum side side, size_t row)
{
    uint64_t key = rng_mix(t->config->seed + 0x64726f706f757401u);
    key = rng_mix(key + ((uint64_t)t->epoch << 1 | (uint64_t)side));
    key = rng_mix(key + t->batch);
    return rng_mix(key + row);
}

static void draw_keys(struct worker *w)
{
    size_t n = range_size(w->users);
    for (size_t i = 0; i < n; i++) {
        w->row_key[SIDE_USER][i] = row_key(w->t, SIDE_USER, w->users.begin + i);
        w->row_key[SIDE_ITEM][i] = row_key(w->t, SIDE_ITEM, w->users.begin + i);
    }
    for (size_t i = 0; i < range_size(w->negatives); i++) {
        w->row_key[SIDE_ITEM][n + i] = row_key(w->t, SIDE_ITEM, w->t->count + w->negatives.begin + i);
    }
    size_t first_own = n + range_size(w->negatives);
    for (size_t i = 0; i < n && w->t->sampler.own_max > 0; i++) {
        size_t place = w->t->count + w->t->n_negatives + (w->users.begin + i) * w->t->sampler.own_max;
        for (size_t j = w->own.start[i]; j < w->own.start[i + 1]; j++) {
            w->row_key[SIDE_ITEM][first_own + j] = row_key(w->t, SIDE_ITEM, place + j - w->own.start[i]);
        }
    }
}

static bool is_taken(const void *arg, uint32_t item)
{
    const struct own_negatives *own = arg;
    return own->taken[item] == own->now;
}

/* Marks what the row's user must not meet as a negative: the positive itself and, by the configuration, all he knows. */
static void mark_taken(struct worker *w, uint32_t user, uint32_t positive)
{
    const struct interactions *events = w->t->events;
    w->own.now++;
    w->own.taken[positive] = w->own.now;
    if (w->t->config->negatives.mask_seen) {
        struct range known = known_events(events, user);
        for (size_t i = known.begin; i < known.end; i++) {
            w->own.taken[events->item[i]] = w->own.now;
        }
    }
}

static int encode_item(struct worker *w, uint32_t item, struct rng *r)
{
    struct feature_rows *rows = &w->rows[SIDE_ITEM];
    return feature_rows_copy(rows, &w->t->d->rows[SIDE_ITEM], item) < 0 ||
                   hide_values(rows, &w->t->config->item_tower, r) < 0
               ? -1
               : 0;
}

/* Drawn negatives hide their values as positives do: were they only hidden in positives, "unknown" would be the mark of one,
 * and items that are new would score high for everybody. `key` is the row's. */
static int encode_negative(struct worker *w, uint32_t item, uint64_t key)
{
    struct rng r;
    rng_seed(&r, key, 0);
    return encode_item(w, item, &r);
}

/* The row's user, positive and own negatives; the latter two in order behind what is there. */
static int encode_row(struct worker *w, size_t i)
{
    struct trainer *t = w->t;
    size_t local = i - w->users.begin;
    uint32_t item = t->items[i];
    struct rng r;
    sampler_row_rng(&t->sampler, t->epoch, t->batch * t->batch_size + i, &r);
    if (encode_user(w, t->user[i], t->event[i]) < 0 ||
        hide_values(&w->rows[SIDE_USER], &t->config->user_tower, &r) < 0 || encode_item(w, item, &r) < 0) {
        return -1;
    }
    if (t->sampler.own_max > 0) {
        size_t begin = w->own.start[local];
        mark_taken(w, t->user[i], item);
        w->own.start[local + 1] = begin + sampler_draw_own(&t->sampler, t->user[i], &r, is_taken, &w->own,
                                                           w->own.item + begin, w->own.log_q + begin);
    }
    return 0;
}

/* Which events the share is about. Events stand in the memory in another order than that of the epoch: each is asked for
 * before any is needed. */
static void find_events(struct worker *w)
{
    struct trainer *t = w->t;
    for (size_t i = w->users.begin; i < w->users.end; i++) {
        t->event[i] = sampler_event(&t->sampler, t->batch * t->batch_size + i);
        __builtin_prefetch(t->events->item + t->event[i]);
        event_users_prefetch(&t->sampler.users, t->event[i]);
    }
    for (size_t i = w->users.begin; i < w->users.end; i++) {
        t->user[i] = event_users_find(&t->sampler.users, t->event[i]);
        t->items[i] = t->events->item[t->event[i]];
    }
}

enum { ROWS_AHEAD = 8 };

static int encode_share(struct worker *w)
{
    struct trainer *t = w->t;
    find_events(w);
    feature_rows_clear(&w->rows[SIDE_USER]);
    feature_rows_clear(&w->rows[SIDE_ITEM]);
    for (size_t i = w->users.begin; i < w->users.end; i++) {
        if (i + ROWS_AHEAD < w->users.end) {
            feature_rows_prefetch(&t->d->rows[SIDE_USER], t->user[i + ROWS_AHEAD]);
            feature_rows_prefetch(&t->d->rows[SIDE_ITEM], t->items[i + ROWS_AHEAD]);
        }
        if (encode_row(w, i) < 0) {
            return -1;
        }
    }
    draw_keys(w);
    const uint64_t *key = w->row_key[SIDE_ITEM] + range_size(w->users);
    for (size_t i = w->negatives.begin; i < w->negatives.end; i++) {
        if (encode_negative(w, t->items[t->count + i], *key++) < 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < own_count(w); i++) {
        if (encode_negative(w, w->own.item[i], *key++) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Copies vectors to their place in the batch, normalising the copy: the pass keeps the raw output for its layers. */
static void publish_vectors(struct worker *w, enum side side, size_t local, float *to, size_t n)
{
    struct trainer *t = w->t;
    memcpy(to, w->pass[side].output + local * t->dim, n * t->dim * sizeof *to);
    if (t->d->schema.similarity == SIMILARITY_COSINE) {
        vec_normalize_rows(to, n, t->dim, w->norms[side] + local);
    }
}

static void publish_log_q(struct trainer *t, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++) {
        t->log_q[i] = sampler_log_q(&t->sampler, t->items[i]);
    }
}

void phase_encode(struct worker *w)
{
    if (encode_share(w) < 0) {
        atomic_store(&w->t->out_of_memory, true);
    }
}

void phase_forward(struct worker *w)
{
    struct trainer *t = w->t;
    size_t n = range_size(w->users);
    size_t negatives = range_size(w->negatives);
    size_t first = t->count + w->negatives.begin;
    if (atomic_load(&t->out_of_memory)) { /* rows may be incomplete */
        return;
    }
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        tower_forward(&t->model->towers[side], &w->rows[side], 0, w->rows[side].n, &w->pass[side]);
    }
    publish_vectors(w, SIDE_USER, 0, t->user_vectors + w->users.begin * t->dim, n);
    publish_vectors(w, SIDE_ITEM, 0, t->item_vectors + w->users.begin * t->dim, n);
    publish_vectors(w, SIDE_ITEM, n, t->item_vectors + first * t->dim, negatives);
    publish_vectors(w, SIDE_ITEM, n + negatives, w->own.vector, own_count(w));
    publish_log_q(t, w->users.begin, w->users.end);
    publish_log_q(t, first, first + negatives);
}
