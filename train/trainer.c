/*
 * The training loop. Read trainer.h for the four phases of a batch.
 *
 * Why threads split rows and not parameters: similarities of a batch are one large matrix product whose rows are
 * independent, so threads meet only at barriers. Why updates are dealt by row number: two threads that updated the same
 * table row would have to lock it, or lose updates (Hogwild) and with them repeatability.
 *
 * A thread's items are its share of the positives, then its share of the batch's uniform negatives; in the shared
 * candidate matrix the positives of all threads come first, so that in-batch negatives are its first rows.
 *
 * Rejected: one optimizer step per example (no matrix products), and asynchronous updates (not repeatable).
 */
#include "train/trainer.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "train/backward.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/progress.h"
#include "train/sampler.h"

enum { SCORE_BLOCK = 128, NO_SLOT = -1, MASK_LIMIT = 1024 };

/* A half-open range of rows. */
struct range {
    size_t begin, end;
};

static size_t range_size(struct range r)
{
    return r.end - r.begin;
}

/* Part `i` of `n` of [0, total). */
static struct range range_share(size_t total, unsigned i, unsigned n)
{
    return (struct range){total * i / n, total * (i + 1) / n};
}

/* Sums of the gradients of the table rows that one thread owns and a batch touches. */
struct row_sums {
    float *sum;   /* [capacity, dim of the table at hand] */
    int32_t *row; /* [capacity] */
    size_t n, capacity, sum_size;
};

struct worker {
    struct trainer *t;
    unsigned id;
    struct range users, negatives;   /* its share of the batch */
    struct feature_rows rows[2];     /* encoded share; items: positives, then negatives */
    struct tower_pass pass[2];
    struct tower_gradient gradient[2];
    float *norms[2];                 /* [share] */
    float *scores;                   /* [SCORE_BLOCK, candidates] */
    float *positive;                 /* [SCORE_BLOCK] */
    float *item_partial;             /* [batch + negatives, dim] */
    int32_t *history;
    int32_t *first_of, *next_of; /* [n_items], [candidates]: where an item is among the candidates, NO_SLOT: nowhere */
    struct row_sums sums;
    double loss;
};

struct trainer {
    const struct train_config *config;
    const struct dataset *d;
    const struct interactions *events;
    struct model *model;
    struct sampler sampler;
    struct loss loss;
    struct optimizer optimizer;
    unsigned n_workers;
    struct worker *workers;
    size_t dim, batch_size, max_candidates;
    int32_t **slot; /* by parameter: [rows] of a table, where its sum is, NO_SLOT between batches */

    /* the batch at hand */
    uint32_t epoch;
    size_t batch, count, n_negatives; /* count: positives */
    float *user_vectors;              /* [batch_size, dim] */
    float *item_vectors;              /* [batch_size + uniform, dim] positives, then negatives */
    uint32_t *items;                  /* [batch_size + uniform] */
    float *log_q;                     /* [batch_size + uniform] */

    pthread_barrier_t barrier;
    bool has_barrier;
    pthread_mutex_t gate; /* held while threads are started: they begin when all are there, or not at all */
    bool called_off;
    atomic_bool out_of_memory;
    float **gradients; /* not NULL: collect gradients instead of updating (trainer_gradients) */
    struct progress progress;
    double loss_sum;
    size_t examples, bad_batch; /* bad_batch: 1 + the first batch whose loss is not finite */
    size_t first_batch, last_batch;
};

/* --- phase 1: encode and run forward ----------------------------------------------------------------------------------*/

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

static void phase_forward(struct worker *w)
{
    struct trainer *t = w->t;
    size_t n = range_size(w->users);
    if (encode_share(w) < 0) {
        atomic_store(&t->out_of_memory, true);
        return;
    }
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

/* --- phase 2: similarities and loss -----------------------------------------------------------------------------------*/

/* Makes first_of and next_of chains of the positions of each item among the batch's candidates, or takes them back. */
static void chain_candidates(struct worker *w, const uint32_t *items, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        w->next_of[j] = w->first_of[items[j]];
        w->first_of[items[j]] = (int32_t)j;
    }
}

static void unchain_candidates(struct worker *w, const uint32_t *items, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        w->first_of[items[j]] = NO_SLOT;
    }
}

/* Sets the similarities of what a user is known to like to -infinity: a false negative teaches the wrong thing. Only the
 * latest MASK_LIMIT of his events are looked at, so that a user with a million of them costs no more. */
static void mask_seen(const struct worker *w, uint32_t user, float *scores)
{
    const struct interactions *events = w->t->events;
    size_t end = events->start[user + 1];
    size_t begin = end - events->start[user] > MASK_LIMIT ? end - MASK_LIMIT : events->start[user];
    for (size_t i = begin; i < end; i++) {
        for (int32_t j = w->first_of[events->item[i]]; j != NO_SLOT; j = w->next_of[j]) {
            scores[j] = -INFINITY;
        }
    }
}

static void loss_of_block(struct worker *w, size_t begin, size_t rows, size_t first_candidate, size_t candidates)
{
    struct trainer *t = w->t;
    const float *users = t->user_vectors + begin * t->dim;
    const float *positives = t->item_vectors + begin * t->dim;
    const float *others = t->item_vectors + first_candidate * t->dim;
    float *user_gradient = w->gradient[SIDE_USER].output + (begin - w->users.begin) * t->dim;

    mat_mul_nt(w->scores, users, others, rows, candidates, t->dim, false);
    for (size_t i = 0; i < rows; i++) {
        w->positive[i] = vec_dot(users + i * t->dim, positives + i * t->dim, t->dim);
        if (t->config->negatives.mask_seen) {
            size_t event = t->sampler.order[t->batch * t->batch_size + begin + i];
            mask_seen(w, t->sampler.user_of[event], w->scores + i * candidates);
        }
    }
    struct loss_block block = {
        .rows = rows,
        .candidates = candidates,
        .positive = w->positive,
        .negative = w->scores,
        .positive_item = t->items + begin,
        .candidate_item = t->items + first_candidate,
        .positive_log_q = t->log_q + begin,
        .candidate_log_q = t->log_q + first_candidate,
        .batch_scale = 1.0f / (float)t->count,
    };
    w->loss += loss_compute(&t->loss, &block);
    mat_mul_nn(user_gradient, w->scores, others, rows, t->dim, candidates, false);
    mat_mul_tn(w->item_partial + first_candidate * t->dim, w->scores, users, candidates, t->dim, rows, true);
    for (size_t i = 0; i < rows; i++) {
        vec_add_scaled(user_gradient + i * t->dim, positives + i * t->dim, w->positive[i], t->dim);
        vec_add_scaled(w->item_partial + (begin + i) * t->dim, users + i * t->dim, w->positive[i], t->dim);
    }
}

static void phase_loss(struct worker *w)
{
    struct trainer *t = w->t;
    size_t first = t->config->negatives.in_batch ? 0 : t->count;
    size_t candidates = t->count + t->n_negatives - first;
    memset(w->item_partial, 0, (t->count + t->n_negatives) * t->dim * sizeof *w->item_partial);
    w->loss = 0;
    if (t->config->negatives.mask_seen) {
        chain_candidates(w, t->items + first, candidates);
    }
    for (size_t i = w->users.begin; i < w->users.end; i += SCORE_BLOCK) {
        size_t rows = w->users.end - i < SCORE_BLOCK ? w->users.end - i : SCORE_BLOCK;
        loss_of_block(w, i, rows, first, candidates);
    }
    if (t->config->negatives.mask_seen) {
        unchain_candidates(w, t->items + first, candidates);
    }
}

/* --- phase 3: backward ------------------------------------------------------------------------------------------------*/

/* Adds all workers' partial sums for `n` rows of the batch's items from `global` on, in worker order. */
static void gather_item_gradient(struct worker *w, size_t global, size_t local, size_t n)
{
    struct trainer *t = w->t;
    float *sum = w->gradient[SIDE_ITEM].output + local * t->dim;
    memcpy(sum, t->workers[0].item_partial + global * t->dim, n * t->dim * sizeof *sum);
    for (unsigned i = 1; i < t->n_workers; i++) {
        vec_add_scaled(sum, t->workers[i].item_partial + global * t->dim, 1.0f, n * t->dim);
    }
}

static void phase_backward(struct worker *w)
{
    struct trainer *t = w->t;
    size_t n = range_size(w->users);
    size_t negatives = range_size(w->negatives);
    float *user_gradient = w->gradient[SIDE_USER].output;
    float *item_gradient = w->gradient[SIDE_ITEM].output;
    gather_item_gradient(w, w->users.begin, 0, n);
    gather_item_gradient(w, t->count + w->negatives.begin, n, negatives);
    if (t->d->schema.similarity == SIMILARITY_COSINE) {
        normalize_backward(user_gradient, t->user_vectors + w->users.begin * t->dim, w->norms[SIDE_USER], n, t->dim);
        normalize_backward(item_gradient, t->item_vectors + w->users.begin * t->dim, w->norms[SIDE_ITEM], n, t->dim);
        normalize_backward(item_gradient + n * t->dim,
                           t->item_vectors + (t->count + w->negatives.begin) * t->dim, w->norms[SIDE_ITEM] + n,
                           negatives, t->dim);
    }
    tower_backward(&t->model->towers[SIDE_USER], &w->pass[SIDE_USER], n, &w->gradient[SIDE_USER]);
    tower_backward(&t->model->towers[SIDE_ITEM], &w->pass[SIDE_ITEM], n + negatives, &w->gradient[SIDE_ITEM]);
}

/* --- phase 4: update --------------------------------------------------------------------------------------------------*/

/* Hands a finished gradient of value[offset .. offset + n) to the optimizer, or to the collector of a test. */
static void apply(struct trainer *t, int parameter, size_t offset, const float *gradient, size_t n)
{
    struct parameter *p = &t->model->parameters[parameter];
    if (t->gradients != NULL) {
        memcpy(t->gradients[parameter] + offset, gradient, n * sizeof *gradient);
        return;
    }
    optimizer_update(&t->optimizer, p->value + offset, p->state[0] == NULL ? NULL : p->state[0] + offset,
                     p->state[1] == NULL ? NULL : p->state[1] + offset, gradient, n);
}

static int row_sums_add(struct row_sums *s, int32_t *slot, int32_t row, const float *gradient, float scale, uint32_t dim)
{
    if (slot[row] == NO_SLOT) {
        if (s->n == s->capacity || (s->n + 1) * dim > s->sum_size) {
            size_t capacity = s->capacity < 256 ? 256 : s->capacity * 2;
            int32_t *rows = mem_resize(s->row, s->n, capacity, sizeof *rows);
            s->row = rows == NULL ? s->row : rows;
            float *sum = mem_resize(s->sum, s->n * dim, capacity * dim, sizeof *sum);
            s->sum = sum == NULL ? s->sum : sum;
            if (rows == NULL || sum == NULL) {
                return -1;
            }
            s->capacity = capacity;
            s->sum_size = capacity * dim;
        }
        slot[row] = (int32_t)s->n;
        s->row[s->n] = row;
        memset(s->sum + s->n * dim, 0, dim * sizeof *s->sum);
        s->n++;
    }
    vec_add_scaled(s->sum + (size_t)slot[row] * dim, gradient, scale, dim);
    return 0;
}

/* Adds what `from`'s rows say about the table rows that `w` owns. */
static int collect_table(struct worker *w, const struct worker *from, enum side side, uint32_t feature)
{
    struct trainer *t = w->t;
    const struct tower_spec *spec = &t->d->schema.towers[side];
    const struct feature *f = &spec->features[feature];
    const struct feature_column *c = &from->rows[side].columns[feature];
    const float *gradient = from->gradient[side].input + f->offset;
    int32_t *slot = t->slot[t->model->table[side][feature]];
    bool bag = feature_is_bag(f);
    for (size_t r = 0; r < from->rows[side].n; r++) {
        size_t begin = bag ? c->start[r] : r;
        size_t end = bag ? c->start[r + 1] : r + 1;
        float scale = bag && f->pooling == POOLING_MEAN && end > begin ? 1.0f / (float)(end - begin) : 1.0f;
        for (size_t i = begin; i < end; i++) {
            int32_t row = c->index[i];
            if ((uint32_t)row % t->n_workers == w->id &&
                row_sums_add(&w->sums, slot, row, gradient + r * spec->input_width, scale, f->dim) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int update_table(struct worker *w, enum side side, uint32_t feature)
{
    struct trainer *t = w->t;
    int parameter = t->model->table[side][feature];
    uint32_t dim = t->d->schema.towers[side].features[feature].dim;
    int result = 0;
    w->sums.n = 0;
    for (unsigned i = 0; i < t->n_workers && result == 0; i++) {
        result = collect_table(w, &t->workers[i], side, feature);
    }
    for (size_t i = 0; i < w->sums.n; i++) {
        int32_t row = w->sums.row[i];
        if (result == 0) {
            apply(t, parameter, (size_t)row * dim, w->sums.sum + i * dim, dim);
        }
        t->slot[parameter][row] = NO_SLOT;
    }
    return result;
}

/* Sums this worker's slice of a dense gradient over all workers, in place of worker 0's, and applies it. */
static void update_dense(struct worker *w, int parameter, enum side side, uint32_t layer, bool bias, size_t size)
{
    struct trainer *t = w->t;
    struct range slice = range_share(size, w->id, t->n_workers);
    size_t n = range_size(slice);
    float *sum = NULL;
    for (unsigned i = 0; i < t->n_workers; i++) {
        struct tower_gradient *g = &t->workers[i].gradient[side];
        float *part = (bias ? g->bias[layer] : g->weight[layer]) + slice.begin;
        if (i == 0) {
            sum = part;
        } else {
            vec_add_scaled(sum, part, 1.0f, n);
        }
    }
    apply(t, parameter, slice.begin, sum, n);
}

static void phase_update(struct worker *w)
{
    struct trainer *t = w->t;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        const struct tower_spec *spec = &t->d->schema.towers[side];
        for (uint32_t i = 0; i < spec->n_features; i++) {
            if (t->model->table[side][i] >= 0 && update_table(w, (enum side)side, i) < 0) {
                atomic_store(&t->out_of_memory, true);
            }
        }
        size_t in = spec->input_width;
        for (uint32_t i = 0; i < spec->n_layers; i++) {
            update_dense(w, t->model->weight[side][i], (enum side)side, i, false, spec->layers[i] * in);
            update_dense(w, t->model->bias[side][i], (enum side)side, i, true, spec->layers[i]);
            in = spec->layers[i];
        }
    }
}

/* --- the loop ---------------------------------------------------------------------------------------------------------*/

/* Thread 0 alone, between barriers: what the batch consists of. */
static void begin_batch(struct trainer *t, size_t batch)
{
    size_t first = batch * t->batch_size;
    size_t left = t->sampler.n_events - first;
    t->batch = batch;
    t->count = left < t->batch_size ? left : t->batch_size;
    sampler_negatives(&t->sampler, t->epoch, batch, t->items + t->count);
    for (unsigned i = 0; i < t->n_workers; i++) {
        t->workers[i].users = range_share(t->count, i, t->n_workers);
        t->workers[i].negatives = range_share(t->n_negatives, i, t->n_workers);
    }
    t->optimizer.step++;
}

static void end_batch(struct trainer *t)
{
    double loss = 0;
    for (unsigned i = 0; i < t->n_workers; i++) {
        loss += t->workers[i].loss;
    }
    if (!isfinite(loss) && t->bad_batch == 0) {
        t->bad_batch = t->batch + 1;
    }
    t->loss_sum += loss;
    t->examples += t->count;
    progress_update(&t->progress, (double)t->examples);
}

static void *run_worker(void *arg)
{
    struct worker *w = arg;
    struct trainer *t = w->t;
    pthread_mutex_lock(&t->gate);
    bool called_off = t->called_off;
    pthread_mutex_unlock(&t->gate);
    if (called_off) {
        return NULL;
    }
    for (size_t batch = t->first_batch; batch < t->last_batch; batch++) {
        if (w->id == 0) {
            begin_batch(t, batch);
        }
        pthread_barrier_wait(&t->barrier);
        phase_forward(w);
        pthread_barrier_wait(&t->barrier);
        if (atomic_load(&t->out_of_memory) || t->bad_batch > 0) { /* everyone sees the same here */
            return NULL;
        }
        phase_loss(w);
        pthread_barrier_wait(&t->barrier);
        phase_backward(w);
        pthread_barrier_wait(&t->barrier);
        phase_update(w);
        if (w->id == 0) {
            end_batch(t);
        }
        pthread_barrier_wait(&t->barrier);
    }
    return NULL;
}

static int run_threads(struct trainer *t, struct err *e)
{
    pthread_t *ids = mem_array(t->n_workers, sizeof *ids);
    if (ids == NULL) {
        return err_nomem(e);
    }
    pthread_mutex_lock(&t->gate);
    unsigned started = 1;
    while (started < t->n_workers && pthread_create(&ids[started], NULL, run_worker, &t->workers[started]) == 0) {
        started++;
    }
    t->called_off = started < t->n_workers;
    pthread_mutex_unlock(&t->gate);
    run_worker(&t->workers[0]);
    for (unsigned i = 1; i < started; i++) {
        pthread_join(ids[i], NULL);
    }
    mem_free(ids);
    if (t->called_off) {
        return err_set(e, "cannot start %u threads; lower `threads` or raise the limit of processes", t->n_workers);
    }
    return atomic_load(&t->out_of_memory) ? err_nomem(e) : 0;
}

static size_t count_batches(const struct trainer *t)
{
    return (t->sampler.n_events + t->batch_size - 1) / t->batch_size;
}

int trainer_epoch(struct trainer *t, uint32_t epoch, const char *label, struct epoch_result *result, struct err *e)
{
    double started = monotonic_seconds();
    t->epoch = epoch;
    t->loss_sum = 0;
    t->examples = 0;
    t->first_batch = 0;
    t->last_batch = count_batches(t);
    sampler_shuffle(&t->sampler, epoch);
    progress_begin(&t->progress, label, "examples", (double)t->sampler.n_events);
    int ran = run_threads(t, e);
    progress_end(&t->progress);
    if (ran < 0) {
        return -1;
    }
    if (t->bad_batch > 0) {
        return err_set(e,
                       "epoch %u, batch %zu: the loss is not a finite number; the learning rate (optimizer.lr %g) is "
                       "probably too high, or loss.temperature (%g) too low",
                       epoch, t->bad_batch, t->config->optimizer.lr, t->config->loss.temperature);
    }
    result->examples = t->examples;
    result->loss = t->loss_sum / (double)t->examples;
    result->seconds = monotonic_seconds() - started;
    return 0;
}

int trainer_gradients(struct trainer *t, uint32_t epoch, double *loss, float **gradients, struct err *e)
{
    t->epoch = epoch;
    t->loss_sum = 0;
    t->examples = 0;
    t->first_batch = 0;
    t->last_batch = 1;
    t->gradients = gradients;
    sampler_shuffle(&t->sampler, epoch);
    progress_begin(&t->progress, "gradients", "examples", 0);
    int result = run_threads(t, e);
    t->gradients = NULL;
    *loss = t->loss_sum / (double)(t->examples > 0 ? t->examples : 1);
    return result;
}

/* --- set-up -----------------------------------------------------------------------------------------------------------*/

static int worker_init(struct worker *w, struct trainer *t, unsigned id, struct err *e)
{
    size_t share = t->batch_size / t->n_workers + 1;
    size_t item_share = share + t->n_negatives / t->n_workers + 1;
    size_t capacity[2] = {share, item_share};
    w->t = t;
    w->id = id;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        const struct tower_spec *spec = &t->d->schema.towers[side];
        w->norms[side] = mem_array(capacity[side], sizeof(float));
        if (w->norms[side] == NULL || feature_rows_init(&w->rows[side], spec) < 0) {
            return err_nomem(e);
        }
        if (tower_pass_init(&w->pass[side], spec, capacity[side], e) < 0 ||
            tower_gradient_init(&w->gradient[side], spec, capacity[side], e) < 0) {
            return -1;
        }
    }
    size_t last = t->d->history >= 0 ? t->d->schema.towers[SIDE_USER].features[t->d->history].last : 1;
    w->scores = mem_array(SCORE_BLOCK * t->max_candidates, sizeof *w->scores);
    w->positive = mem_array(SCORE_BLOCK, sizeof *w->positive);
    w->item_partial = mem_array((t->batch_size + t->n_negatives) * t->dim, sizeof *w->item_partial);
    w->history = mem_array(last, sizeof *w->history);
    w->first_of = mem_array(t->d->n_items, sizeof *w->first_of);
    w->next_of = mem_array(t->max_candidates, sizeof *w->next_of);
    bool complete = w->scores != NULL && w->positive != NULL && w->item_partial != NULL && w->history != NULL &&
                    w->first_of != NULL && w->next_of != NULL;
    if (!complete) {
        return err_nomem(e);
    }
    memset(w->first_of, 0xff, t->d->n_items * sizeof *w->first_of); /* NO_SLOT */
    return 0;
}

static void worker_release(struct worker *w)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        feature_rows_release(&w->rows[side]);
        tower_pass_release(&w->pass[side]);
        tower_gradient_release(&w->gradient[side]);
        mem_free(w->norms[side]);
    }
    mem_free(w->scores);
    mem_free(w->positive);
    mem_free(w->item_partial);
    mem_free(w->history);
    mem_free(w->first_of);
    mem_free(w->next_of);
    mem_free(w->sums.sum);
    mem_free(w->sums.row);
}

static int make_slots(struct trainer *t, struct err *e)
{
    t->slot = mem_array(t->model->n_parameters, sizeof(int32_t *));
    for (size_t i = 0; t->slot != NULL && i < t->model->n_parameters; i++) {
        const struct parameter *p = &t->model->parameters[i];
        if (!p->is_table) {
            continue;
        }
        t->slot[i] = mem_array(p->rows, sizeof *t->slot[i]);
        if (t->slot[i] == NULL) {
            return err_nomem(e);
        }
        memset(t->slot[i], 0xff, p->rows * sizeof *t->slot[i]); /* NO_SLOT */
    }
    return t->slot == NULL ? err_nomem(e) : 0;
}

static int make_batch_arrays(struct trainer *t, struct err *e)
{
    size_t n = t->batch_size + t->n_negatives;
    t->user_vectors = mem_array(t->batch_size * t->dim, sizeof *t->user_vectors);
    t->item_vectors = mem_array(n * t->dim, sizeof *t->item_vectors);
    t->items = mem_array(n, sizeof *t->items);
    t->log_q = mem_array(n, sizeof *t->log_q);
    bool complete = t->user_vectors != NULL && t->item_vectors != NULL && t->items != NULL && t->log_q != NULL;
    return complete ? 0 : err_nomem(e);
}

struct trainer *trainer_new(const struct train_config *config, const struct dataset *d,
                            const struct interactions *events, struct model *m, unsigned threads, struct err *e)
{
    struct trainer *t = mem_array(1, sizeof *t);
    if (t == NULL) {
        err_nomem(e);
        return NULL;
    }
    t->config = config;
    t->d = d;
    t->events = events;
    t->model = m;
    t->loss = (struct loss){config->loss.type, (float)config->loss.temperature};
    t->optimizer = (struct optimizer){config->optimizer.type, (float)config->optimizer.lr, 0};
    t->dim = d->schema.towers[SIDE_USER].output_dim;
    t->batch_size = config->optimizer.batch_size < events->n ? config->optimizer.batch_size : events->n;
    t->n_negatives = config->negatives.uniform;
    t->max_candidates = t->n_negatives + (config->negatives.in_batch ? t->batch_size : 0);
    t->workers = mem_array(threads, sizeof *t->workers);
    bool ready = t->workers != NULL || err_nomem(e) == 0;
    ready = ready && sampler_init(&t->sampler, events, d->n_users, d->n_items, config->negatives.in_batch,
                                  config->negatives.uniform, (uint32_t)t->batch_size, config->seed, e) == 0;
    ready = ready && make_slots(t, e) == 0 && make_batch_arrays(t, e) == 0;
    t->n_workers = threads;
    pthread_mutex_init(&t->gate, NULL);
    t->has_barrier = pthread_barrier_init(&t->barrier, NULL, threads) == 0;
    ready = ready && (t->has_barrier || err_nomem(e) == 0);
    for (unsigned i = 0; ready && i < threads; i++) {
        ready = worker_init(&t->workers[i], t, i, e) == 0;
    }
    if (!ready) {
        trainer_free(t);
        return NULL;
    }
    return t;
}

void trainer_free(struct trainer *t)
{
    if (t == NULL) {
        return;
    }
    for (unsigned i = 0; t->workers != NULL && i < t->n_workers; i++) {
        worker_release(&t->workers[i]);
    }
    mem_free(t->workers);
    for (size_t i = 0; t->slot != NULL && i < t->model->n_parameters; i++) {
        mem_free(t->slot[i]);
    }
    mem_free((void *)t->slot);
    mem_free(t->user_vectors);
    mem_free(t->item_vectors);
    mem_free(t->items);
    mem_free(t->log_q);
    sampler_release(&t->sampler);
    if (t->has_barrier) {
        pthread_barrier_destroy(&t->barrier);
    }
    pthread_mutex_destroy(&t->gate);
    mem_free(t);
}
