/*
 * Phase 1: each thread encodes its share of the batch's users and items (phase_encode), and runs both towers forward.
 *
 * A thread's items are its share of the positives, then its share of the batch's uniform negatives; in the shared
 * candidate matrix the positives of all threads come first, so that in-batch negatives are its first rows.
 */
#include "train/phase.h"

#include <math.h>
#include <string.h>

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

static int encode_user(struct worker *w, size_t event)
{
    const struct trainer *t = w->t;
    struct feature_rows *rows = &w->rows[SIDE_USER];
    uint32_t user = t->sampler.user_of[event];
    if (feature_rows_copy(rows, &t->d->rows[SIDE_USER], user) < 0) {
        return -1;
    }
    if (t->d->history < 0) {
        return 0;
    }
    size_t n = dataset_history(t->d, t->events, user, event, w->history);
    return feature_rows_set_bag(rows, (uint32_t)t->d->history, w->history, n);
}

/* What dropout of a row draws from, the same on whatever thread; `row` counts from the batch's first. */
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
}

static int encode_share(struct worker *w)
{
    struct trainer *t = w->t;
    struct rng r;
    feature_rows_clear(&w->rows[SIDE_USER]);
    feature_rows_clear(&w->rows[SIDE_ITEM]);
    for (size_t i = w->users.begin; i < w->users.end; i++) {
        size_t event = t->sampler.order[t->batch * t->batch_size + i];
        t->items[i] = t->events->item[event];
        sampler_row_rng(&t->sampler, t->epoch, t->batch * t->batch_size + i, &r);
        if (encode_user(w, event) < 0 || hide_values(&w->rows[SIDE_USER], &t->config->user_tower, &r) < 0 ||
            feature_rows_copy(&w->rows[SIDE_ITEM], &t->d->rows[SIDE_ITEM], t->items[i]) < 0 ||
            hide_values(&w->rows[SIDE_ITEM], &t->config->item_tower, &r) < 0) {
            return -1;
        }
    }
    for (size_t i = w->negatives.begin; i < w->negatives.end; i++) {
        if (feature_rows_copy(&w->rows[SIDE_ITEM], &t->d->rows[SIDE_ITEM], t->items[t->count + i]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Runs a side's tower over the share and leaves vectors in pass.output, normalised under cosine. */
static void forward_side(struct worker *w, enum side side)
{
    struct tower_pass *p = &w->pass[side];
    size_t n = w->rows[side].n;
    tower_forward(&w->t->model->towers[side], &w->rows[side], 0, n, p);
}

/* Copies vectors to their place in the batch, normalising the copy: the pass keeps the raw output for its layers. */
static void publish_vectors(struct worker *w, enum side side, const float *from, size_t local, float *to, size_t n)
{
    struct trainer *t = w->t;
    memcpy(to, from + local * t->dim, n * t->dim * sizeof *to);
    if (t->d->schema.similarity == SIMILARITY_COSINE) {
        vec_normalize_rows(to, n, t->dim, w->norms[side] + local);
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
    if (atomic_load(&t->out_of_memory)) { /* rows may be incomplete */
        return;
    }
    draw_keys(w);
    forward_side(w, SIDE_USER);
    forward_side(w, SIDE_ITEM);
    publish_vectors(w, SIDE_USER, w->pass[SIDE_USER].output, 0, t->user_vectors + w->users.begin * t->dim, n);
    publish_vectors(w, SIDE_ITEM, w->pass[SIDE_ITEM].output, 0, t->item_vectors + w->users.begin * t->dim, n);
    publish_vectors(w, SIDE_ITEM, w->pass[SIDE_ITEM].output, n,
                    t->item_vectors + (t->count + w->negatives.begin) * t->dim, range_size(w->negatives));
    for (size_t i = w->users.begin; i < w->users.end; i++) {
        t->log_q[i] = t->config->loss.logq ? t->sampler.item_log_q[t->items[i]] : 0.0f;
    }
    for (size_t i = t->count + w->negatives.begin; i < t->count + w->negatives.end; i++) {
        t->log_q[i] = t->config->loss.logq ? t->sampler.item_log_q[t->items[i]] : 0.0f;
    }
}
