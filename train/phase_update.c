/*
 * Phase 4: each thread updates what it owns: a slice of every dense parameter, every n-th row of every table.
 *
 * Clipping (Pascanu et al., ICML 2013) scales all gradients by the length of the whole, so it is the one thing that needs
 * all of them, and a barrier, before the first update. The length is a sum in the order of workers, parameters and rows.
 *
 * Updates are dealt by row number because two threads that updated the same table row would have to lock it, or lose
 * updates (Hogwild) and with them repeatability. Gradients of one row are summed over the batch before the optimizer sees
 * them, in the order of workers and rows: the sum is the same in every run.
 */
#include "train/phase.h"

#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/vecmath.h"

enum { UPDATES_AHEAD = 4 };

/* Hands a finished gradient of value[offset .. offset + n) to the optimizer, or to the collector of a test. */
static void apply(struct trainer *t, int parameter, size_t offset, const float *gradient, size_t n, float scale)
{
    if (t->gradients != NULL) {
        memcpy(t->gradients[parameter] + offset, gradient, n * sizeof *gradient);
        return;
    }
    optimizer_update(&t->optimizer, parameter_weights(&t->model->parameters[parameter], offset, n), gradient, scale);
}

static int row_sums_add(struct row_sums *s, int32_t *slot, int32_t row, const float *gradient, float scale,
                        uint32_t dim)
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

/* Asks for the slots of a row's values: those of a large table are in no cache. */
static void prefetch_slots(const struct feature *f, const struct feature_column *c, size_t r, const int32_t *slot)
{
    size_t n;
    const int32_t *rows = feature_values(f, c, r, &n);
    for (size_t i = 0; i < n; i++) {
        __builtin_prefetch(slot + rows[i]);
    }
}

/* Adds what `from`'s rows say about the table rows that `w` owns. */
static int collect_feature(struct worker *w, const struct worker *from, enum side side, uint32_t feature,
                           struct row_sums *sums)
{
    struct trainer *t = w->t;
    const struct tower_spec *spec = &t->d->schema.towers[side];
    const struct feature *f = &spec->features[feature];
    const struct feature_column *c = &from->rows[side].columns[feature];
    const float *gradient = from->gradient[side].input + f->offset;
    int32_t *slot = t->slot[t->model->table[side][feature]];
    for (size_t r = 0; r < from->rows[side].n; r++) {
        enum { AHEAD = 8 };
        size_t n;
        if (r + AHEAD < from->rows[side].n) {
            prefetch_slots(f, c, r + AHEAD, slot);
        }
        const int32_t *rows = feature_values(f, c, r, &n);
        struct value_weights weights = feature_weights(f, n);
        const float *g = gradient + r * spec->input_width;
        for (size_t i = n; i-- > 0;) {
            bool owned = (uint32_t)rows[i] % t->n_workers == w->id;
            if (owned && row_sums_add(sums, slot, rows[i], g, (float)weights.latest, f->dim) < 0) {
                return -1;
            }
            weights.latest *= weights.decay;
        }
    }
    return 0;
}

static bool clips(const struct trainer *t)
{
    return t->config->optimizer.clip_norm > 0;
}

static struct row_sums *sums_of(struct worker *w, int parameter)
{
    return &w->sums[clips(w->t) ? parameter : 0];
}

/* The gradients of this worker's rows of a table, from all features that use it. */
static void collect_table(struct worker *w, int parameter)
{
    struct trainer *t = w->t;
    struct row_sums *sums = sums_of(w, parameter);
    size_t dim = t->model->parameters[parameter].columns;
    sums->n = 0;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        for (uint32_t f = 0; f < t->d->schema.towers[side].n_features; f++) {
            for (unsigned i = 0; t->model->table[side][f] == parameter && i < t->n_workers; i++) {
                if (collect_feature(w, &t->workers[i], (enum side)side, f, sums) < 0) {
                    atomic_store(&t->out_of_memory, true);
                    break;
                }
            }
        }
    }
    for (size_t i = 0; i < sums->n; i++) {
        t->slot[parameter][sums->row[i]] = NO_SLOT;
    }
    for (size_t i = 0; clips(t) && i < sums->n; i++) {
        w->square += (double)vec_dot(sums->sum + i * dim, sums->sum + i * dim, dim);
    }
}

/* Asks for a table row and its optimizer state: rows of a batch are anywhere in a table that no cache holds. */
static void prefetch_row(const struct parameter *p, size_t row)
{
    enum { LINE = 64 / sizeof(float) };
    const float *arrays[] = {p->value, p->state[0], p->state[1]};
    for (size_t a = 0; a < sizeof arrays / sizeof arrays[0]; a++) {
        for (size_t i = 0; arrays[a] != NULL && i < p->columns; i += LINE) {
            __builtin_prefetch(arrays[a] + row * p->columns + i, 1);
        }
    }
}

static void apply_table(struct worker *w, int parameter, float scale)
{
    struct trainer *t = w->t;
    const struct row_sums *sums = sums_of(w, parameter);
    size_t dim = t->model->parameters[parameter].columns;
    if (atomic_load(&t->out_of_memory)) {
        return;
    }
    for (size_t i = 0; i < sums->n; i++) {
        if (i + UPDATES_AHEAD < sums->n) {
            prefetch_row(&t->model->parameters[parameter], (size_t)sums->row[i + UPDATES_AHEAD]);
        }
        apply(t, parameter, (size_t)sums->row[i] * dim, sums->sum + i * dim, dim, scale);
        if (t->moves_idle) {
            t->current[parameter][sums->row[i]] = (uint32_t)t->batch + 1;
        }
    }
}

/* Where a worker has its part of a dense gradient. */
static float *dense_gradient(struct worker *w, int parameter)
{
    const struct model *m = w->t->model;
    if (parameter == m->loss_scale) {
        return &w->scale_gradient;
    }
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        for (uint32_t i = 0; i < m->schema->towers[side].layers.n_dense; i++) {
            if (m->dense[side][i] == parameter) {
                return w->gradient[side].dense[i];
            }
        }
    }
    return NULL;
}

static struct range dense_slice(struct worker *w, int parameter)
{
    return range_share(parameter_size(&w->t->model->parameters[parameter]), w->id, w->t->n_workers);
}

/* Sums this worker's slice of a dense gradient over all workers, in place of worker 0's. */
static void collect_dense(struct worker *w, int parameter)
{
    struct trainer *t = w->t;
    struct range slice = dense_slice(w, parameter);
    size_t n = range_size(slice);
    float *sum = dense_gradient(&t->workers[0], parameter) + slice.begin;
    for (unsigned i = 1; i < t->n_workers; i++) {
        vec_add_scaled(sum, dense_gradient(&t->workers[i], parameter) + slice.begin, 1.0f, n);
    }
    if (clips(t)) {
        w->square += (double)vec_dot(sum, sum, n);
    }
}

static void apply_dense(struct worker *w, int parameter, float scale)
{
    struct range slice = dense_slice(w, parameter);
    const float *sum = dense_gradient(&w->t->workers[0], parameter) + slice.begin;
    apply(w->t, parameter, slice.begin, sum, range_size(slice), scale);
}

static void collect(struct worker *w, int parameter)
{
    if (w->t->model->parameters[parameter].is_table) {
        collect_table(w, parameter);
    } else {
        collect_dense(w, parameter);
    }
}

static void update(struct worker *w, int parameter, float scale)
{
    if (w->t->model->parameters[parameter].is_table) {
        apply_table(w, parameter, scale);
    } else {
        apply_dense(w, parameter, scale);
    }
}

/* Every worker adds the same numbers in the same order. */
static float clip_scale(const struct trainer *t)
{
    double square = 0;
    for (unsigned i = 0; i < t->n_workers; i++) {
        square += t->workers[i].square;
    }
    double length = sqrt(square);
    return length > t->config->optimizer.clip_norm ? (float)(t->config->optimizer.clip_norm / length) : 1.0f;
}

void phase_update(struct worker *w)
{
    struct trainer *t = w->t;
    int n = (int)t->model->n_parameters;
    w->square = 0;
    if (clips(t)) {
        for (int p = 0; p < n; p++) {
            collect(w, p);
        }
        pthread_barrier_wait(&t->barrier);
        float scale = clip_scale(t);
        for (int p = 0; p < n; p++) {
            update(w, p, scale);
        }
        return;
    }
    for (int p = 0; p < n; p++) {
        collect(w, p);
        update(w, p, 1.0f);
    }
}
