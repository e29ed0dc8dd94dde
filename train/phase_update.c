/*
 * Phase 4: each thread updates what it owns: a slice of every dense parameter, every n-th row of every table.
 *
 * Updates are dealt by row number because two threads that updated the same table row would have to lock it, or lose
 * updates (Hogwild) and with them repeatability. Gradients of one row are summed over the batch before the optimizer sees
 * them, in the order of workers and rows: the sum is the same in every run.
 */
#include "train/phase.h"

#include <string.h>

#include "core/mem.h"
#include "core/vecmath.h"

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

void phase_update(struct worker *w)
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
