/*
 * The training loop. trainer.h tells of the four phases of a batch, phase.h of what they share.
 *
 * Why threads split rows and not parameters: similarities of a batch are one large matrix product whose rows are
 * independent, so threads meet only at barriers.
 *
 * Rejected: one optimizer step per example (no matrix products), and asynchronous updates (not repeatable).
 */
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "train/phase.h"
#include "train/schedule.h"

struct range range_share(size_t total, unsigned i, unsigned n)
{
    return (struct range){total * i / n, total * (i + 1) / n};
}

static size_t count_batches(const struct trainer *t)
{
    return t->batch_size == 0 ? 0 : (t->sampler.n_events + t->batch_size - 1) / t->batch_size;
}

static void ask_watch(struct trainer *t, size_t batch)
{
    const struct trainer_position at = {t->epoch, batch, t->loss_sum, t->examples};
    if (t->watch != NULL && batch > t->first_batch && t->bad_batch == 0 && t->gradients == NULL) {
        t->stopped = t->watch(t->watch_context, &at, &t->why) < 0;
    }
}

/* Tells the estimator of frequencies what a batch holds. */
static void observe_batch(struct trainer *t)
{
    if (t->sampler.streaming) {
        for (size_t i = 0; i < t->count; i++) {
            t->items[i] = t->events->item[sampler_event(&t->sampler, t->batch * t->batch_size + i)];
        }
        size_t step = (t->epoch - 1) * count_batches(t) + t->batch + 1;
        sampler_observe(&t->sampler, (uint32_t)step, t->items, t->count);
    }
}

/* Thread 0 alone, between barriers: what the batch consists of. */
static void begin_batch(struct trainer *t, size_t batch)
{
    ask_watch(t, batch);
    size_t first = batch * t->batch_size;
    size_t left = t->sampler.n_events - first;
    t->batch = batch;
    t->count = left < t->batch_size ? left : t->batch_size;
    sampler_draw_shared(&t->sampler, t->epoch, batch, t->items + t->count);
    observe_batch(t);
    for (unsigned i = 0; i < t->n_workers; i++) {
        t->workers[i].users = range_share(t->count, i, t->n_workers);
        t->workers[i].negatives = range_share(t->n_negatives, i, t->n_workers);
    }
    optimizer_begin_step(&t->optimizer, schedule_lr(t->config, t->optimizer.step + 1, count_batches(t)));
    if (t->model->loss_scale >= 0) {
        t->loss.scale = expf(t->model->parameters[t->model->loss_scale].value[0]);
    }
}

/* No softmax that learns has a mean loss beyond this: similarities have run away, and the model is worth nothing. */
static const double LOSS_LIMIT = 1e6;

static void end_batch(struct trainer *t)
{
    double loss = 0;
    for (unsigned i = 0; i < t->n_workers; i++) {
        loss += t->workers[i].loss;
    }
    if (!(loss <= LOSS_LIMIT * (double)t->count) && t->bad_batch == 0) {
        t->bad_batch = t->batch + 1;
        t->bad_loss = loss / (double)t->count;
    }
    t->loss_sum += loss;
    t->examples += t->count;
    if (t->moves_idle && t->gradients == NULL) {
        idle_add_step(&t->idle);
    }
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
        phase_encode(w);
        if (t->moves_idle) {
            pthread_barrier_wait(&t->barrier);
            phase_catch_up(w);
            pthread_barrier_wait(&t->barrier);
        }
        phase_forward(w);
        pthread_barrier_wait(&t->barrier);
        if (atomic_load(&t->out_of_memory) || t->bad_batch > 0 || t->stopped) { /* everyone sees the same here */
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
    if (t->moves_idle) {
        phase_catch_up_all(w);
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

/* An epoch from its begin, or (first > 0) from where trainer_resume has put it. */
static void begin_epoch(struct trainer *t, uint32_t epoch, size_t first)
{
    t->epoch = epoch;
    t->first_batch = first;
    sampler_shuffle(&t->sampler, epoch);
    if (first > 0) {
        return;
    }
    t->loss_sum = 0;
    t->examples = 0;
    if (t->moves_idle) {
        idle_begin_epoch(&t->idle);
    }
}

void trainer_watch(struct trainer *t, int (*watch)(void *, const struct trainer_position *, struct err *),
                   void *context)
{
    t->watch = watch;
    t->watch_context = context;
}

size_t trainer_arrays_max(const struct trainer *t)
{
    return t->model->n_parameters + 2;
}

static void add_array(struct checkpoint_array *array, const char *name, void *data, size_t bytes)
{
    snprintf(array->name, sizeof array->name, "%s", name);
    array->data = data;
    array->bytes = bytes;
}

size_t trainer_arrays(struct trainer *t, struct checkpoint_array *arrays)
{
    size_t n = 0;
    for (size_t i = 0; t->current != NULL && i < t->model->n_parameters; i++) {
        const struct parameter *p = &t->model->parameters[i];
        if (t->current[i] != NULL) {
            snprintf(arrays[n].name, sizeof arrays[n].name, "current.%s", p->name);
            arrays[n].data = t->current[i];
            arrays[n].bytes = p->rows * sizeof *t->current[i];
            n++;
        }
    }
    if (t->sampler.streaming) {
        struct frequency *f = &t->sampler.frequency;
        size_t buckets = (size_t)FREQUENCY_ARRAYS * f->buckets;
        add_array(&arrays[n++], "frequency.last", f->last, buckets * sizeof *f->last);
        add_array(&arrays[n++], "frequency.gap", f->gap, buckets * sizeof *f->gap);
    }
    return n;
}

void trainer_resume(struct trainer *t, const struct trainer_position *at)
{
    uint64_t batches = count_batches(t);
    t->optimizer.step = (at->epoch - 1) * batches;
    if (t->moves_idle) {
        idle_begin_epoch(&t->idle);
    }
    for (size_t i = 0; i < at->batch; i++) { /* what steps leave behind besides weights */
        optimizer_begin_step(&t->optimizer, schedule_lr(t->config, t->optimizer.step + 1, batches));
        if (t->moves_idle) {
            idle_add_step(&t->idle);
        }
    }
    t->resume_batch = at->batch;
    t->loss_sum = at->loss_sum;
    t->examples = at->examples;
}

int trainer_epoch(struct trainer *t, uint32_t epoch, const char *label, struct epoch_result *result, struct err *e)
{
    double started = monotonic_seconds();
    size_t before = t->resume_batch > 0 ? t->examples : 0;
    begin_epoch(t, epoch, t->resume_batch);
    t->last_batch = count_batches(t);
    t->resume_batch = 0;
    progress_begin(&t->progress, label, "examples", (double)t->sampler.n_events);
    t->progress.skipped = (double)before;
    int ran = run_threads(t, e);
    progress_end(&t->progress);
    if (ran < 0) {
        return -1;
    }
    if (t->stopped) {
        return err_set(e, "%s", t->why.message);
    }
    if (t->bad_batch > 0) {
        return err_set(e,
                       "epoch %u, batch %zu (step %zu): the loss is %g: training has diverged; the learning rate "
                       "(optimizer.lr %g) "
                       "is probably too high, or loss.temperature (%g) too low%s",
                       epoch, t->bad_batch, (epoch - 1) * count_batches(t) + t->bad_batch, t->bad_loss,
                       t->config->optimizer.lr, t->config->loss.temperature,
                       t->config->optimizer.clip_norm > 0 ? "" : "; optimizer.clip_norm can help");
    }
    result->examples = t->examples - before;
    result->loss = t->loss_sum / (double)t->examples;
    result->seconds = monotonic_seconds() - started;
    return 0;
}

int trainer_gradients(struct trainer *t, uint32_t epoch, double *loss, float **gradients, struct err *e)
{
    return trainer_batch_gradients(t, epoch, 0, loss, gradients, e);
}

int trainer_batch_gradients(struct trainer *t, uint32_t epoch, size_t batch, double *loss, float **gradients,
                            struct err *e)
{
    begin_epoch(t, epoch, 0);
    t->first_batch = batch;
    t->last_batch = batch + 1;
    t->gradients = gradients;
    progress_begin(&t->progress, "gradients", "examples", 0);
    int result = run_threads(t, e);
    t->gradients = NULL;
    *loss = t->loss_sum / (double)(t->examples > 0 ? t->examples : 1);
    return result;
}

/* --- set-up -----------------------------------------------------------------------------------------------------------*/

static int own_negatives_init(struct own_negatives *own, const struct trainer *t, size_t share)
{
    size_t n = share * t->sampler.own_max;
    own->start = mem_array(share + 1, sizeof *own->start);
    own->item = mem_array(n, sizeof *own->item);
    own->log_q = mem_array(n, sizeof *own->log_q);
    own->vector = mem_array(n * t->dim, sizeof *own->vector);
    own->score = mem_array(n, sizeof *own->score);
    own->taken = mem_array(t->d->n_items, sizeof *own->taken);
    bool complete = own->start != NULL && own->item != NULL && own->log_q != NULL && own->vector != NULL &&
                    own->score != NULL && own->taken != NULL;
    return complete ? 0 : -1;
}

static void own_negatives_release(struct own_negatives *own)
{
    mem_free(own->start);
    mem_free(own->item);
    mem_free(own->log_q);
    mem_free(own->vector);
    mem_free(own->score);
    mem_free(own->taken);
}

static int worker_init(struct worker *w, struct trainer *t, unsigned id, struct err *e)
{
    size_t share = t->batch_size / t->n_workers + 1;
    size_t own = share * t->sampler.own_max;
    size_t item_share = share + t->n_negatives / t->n_workers + 1 + own;
    size_t capacity[2] = {share, item_share};
    w->t = t;
    w->id = id;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        const struct tower_spec *spec = &t->d->schema.towers[side];
        w->norms[side] = mem_array(capacity[side], sizeof(float));
        w->row_key[side] = mem_array(capacity[side], sizeof(uint64_t));
        if (w->norms[side] == NULL || w->row_key[side] == NULL || feature_rows_init(&w->rows[side], spec) < 0) {
            return err_nomem(e);
        }
        if (tower_pass_init(&w->pass[side], spec, capacity[side], e) < 0 ||
            tower_gradient_init(&w->gradient[side], spec, capacity[side], e) < 0) {
            return -1;
        }
        w->pass[side].row_key = w->row_key[side];
    }
    size_t last = t->d->history >= 0 ? t->d->schema.towers[SIDE_USER].features[t->d->history].last : 1;
    w->scores = mem_array(SCORE_BLOCK * t->max_candidates, sizeof *w->scores);
    w->item_partial = mem_array((t->batch_size + t->n_negatives) * t->dim, sizeof *w->item_partial);
    w->history = mem_array(last, sizeof *w->history);
    w->sums = mem_array(t->model->n_parameters, sizeof *w->sums);
    w->first_of = mem_array(t->d->n_items, sizeof *w->first_of);
    w->next_of = mem_array(t->max_candidates, sizeof *w->next_of);
    w->among = mem_array(t->d->n_items / 64 + 1, sizeof *w->among);
    bool complete = w->scores != NULL && w->item_partial != NULL && w->history != NULL && w->first_of != NULL &&
                    w->next_of != NULL && w->among != NULL && w->sums != NULL;
    if (!complete) {
        return err_nomem(e);
    }
    memset(w->first_of, 0xff, t->d->n_items * sizeof *w->first_of); /* NO_SLOT */
    return t->sampler.own_max == 0 || own_negatives_init(&w->own, t, share) == 0 ? 0 : err_nomem(e);
}

static void worker_release(struct worker *w)
{
    for (size_t i = 0; w->sums != NULL && i < w->t->model->n_parameters; i++) {
        mem_free(w->sums[i].sum);
        mem_free(w->sums[i].row);
    }
    mem_free(w->sums);
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        feature_rows_release(&w->rows[side]);
        tower_pass_release(&w->pass[side]);
        tower_gradient_release(&w->gradient[side]);
        mem_free(w->norms[side]);
        mem_free(w->row_key[side]);
    }
    own_negatives_release(&w->own);
    mem_free(w->scores);
    mem_free(w->item_partial);
    mem_free(w->history);
    mem_free(w->first_of);
    mem_free(w->next_of);
    mem_free(w->among);
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

/* What optimizers need that move rows at rest. */
static int make_idle(struct trainer *t, struct err *e)
{
    if (!t->moves_idle) {
        return 0;
    }
    t->current = mem_array(t->model->n_parameters, sizeof(uint32_t *));
    for (size_t i = 0; t->current != NULL && i < t->model->n_parameters; i++) {
        const struct parameter *p = &t->model->parameters[i];
        t->current[i] = p->is_table ? mem_array(p->rows, sizeof *t->current[i]) : NULL;
        if (p->is_table && t->current[i] == NULL) {
            return err_nomem(e);
        }
    }
    return t->current == NULL ? err_nomem(e) : idle_init(&t->idle, &t->optimizer, count_batches(t), e);
}

static int make_batch_arrays(struct trainer *t, struct err *e)
{
    size_t n = t->batch_size + t->n_negatives;
    t->user_vectors = mem_array(t->batch_size * t->dim, sizeof *t->user_vectors);
    t->item_vectors = mem_array(n * t->dim, sizeof *t->item_vectors);
    t->items = mem_array(n, sizeof *t->items);
    t->event = mem_array(t->batch_size, sizeof *t->event);
    t->user = mem_array(t->batch_size, sizeof *t->user);
    t->log_q = mem_array(n, sizeof *t->log_q);
    bool complete = t->user_vectors != NULL && t->item_vectors != NULL && t->items != NULL && t->log_q != NULL &&
                    t->event != NULL && t->user != NULL;
    return complete ? 0 : err_nomem(e);
}

/* Weights are relative: they are scaled to a mean of 1, so that a file of weights changes no learning rate. */
static float weight_scale(const struct interactions *events)
{
    double sum = 0;
    for (size_t i = 0; events->weight != NULL && i < events->n; i++) {
        sum += (double)events->weight[i];
    }
    return sum > 0 ? (float)((double)events->n / sum) : 1.0f;
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
    t->loss = loss_make(config);
    t->optimizer = optimizer_make(config);
    t->moves_idle = optimizer_moves_idle(&t->optimizer);
    t->dim = d->schema.towers[SIDE_USER].output_dim;
    t->batch_size = config->optimizer.batch_size < events->n ? config->optimizer.batch_size : events->n;
    t->workers = mem_array(threads, sizeof *t->workers);
    bool ready = t->workers != NULL || err_nomem(e) == 0;
    ready = ready && sampler_init(&t->sampler, config, d, events, t->batch_size, e) == 0;
    t->n_negatives = t->sampler.n_shared;
    t->max_candidates = t->n_negatives + (config->negatives.in_batch ? t->batch_size : 0);
    t->weight_scale = weight_scale(events);
    ready = ready && make_slots(t, e) == 0 && make_idle(t, e) == 0 && make_batch_arrays(t, e) == 0;
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
    for (size_t i = 0; t->current != NULL && i < t->model->n_parameters; i++) {
        mem_free(t->current[i]);
    }
    mem_free((void *)t->current);
    idle_release(&t->idle);
    mem_free(t->user_vectors);
    mem_free(t->item_vectors);
    mem_free(t->items);
    mem_free(t->event);
    mem_free(t->user);
    mem_free(t->log_q);
    sampler_release(&t->sampler);
    if (t->has_barrier) {
        pthread_barrier_destroy(&t->barrier);
    }
    pthread_mutex_destroy(&t->gate);
    mem_free(t);
}
