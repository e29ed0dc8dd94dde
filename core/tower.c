#include "core/tower.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/vecmath.h"

/* A tensor of the given shape, every number of it finite: one NaN would make all of a user's scores disappear. */
static const float *get_weights(const struct safetensors *weights, const char *name, size_t rows, size_t columns,
                                struct err *e)
{
    const float *data = safetensors_get(weights, name, rows, columns, e);
    if (data != NULL && !vec_is_finite(data, rows * (columns > 0 ? columns : 1))) {
        err_set(e, "tensor %s holds a value that is not finite", name);
        return NULL;
    }
    return data;
}

int tower_bind(struct tower *t, const struct tower_spec *spec, enum side side, const struct safetensors *weights,
               struct err *e)
{
    char name[SCHEMA_MAX_NAME + 40];
    *t = (struct tower){.spec = spec};
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        if (!feature_is_embedded(f)) {
            continue;
        }
        t->embedding[i] = get_weights(weights, f->table, f->rows, f->dim, e);
        if (t->embedding[i] == NULL) {
            return -1;
        }
    }
    for (uint32_t i = 0; i < spec->layers.n_dense; i++) {
        const struct dense *d = &spec->layers.dense[i];
        snprintf(name, sizeof name, "%s.%s", side_words[side], d->name);
        t->dense[i] = get_weights(weights, name, d->rows, d->columns, e);
        if (t->dense[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

int tower_pass_init(struct tower_pass *p, const struct tower_spec *spec, size_t capacity, struct err *e)
{
    *p = (struct tower_pass){.capacity = capacity};
    p->value[0] = mem_array(capacity, spec->input_width * sizeof(float));
    bool complete = p->value[0] != NULL;
    for (uint32_t i = 0; i < spec->layers.n; i++) {
        const struct layer *l = &spec->layers.layer[i];
        p->value[i + 1] = mem_array(capacity, l->out * sizeof(float));
        complete = complete && p->value[i + 1] != NULL;
        if (l->kept > 0) {
            p->kept[i] = mem_array(capacity, l->kept * sizeof(float));
            complete = complete && p->kept[i] != NULL;
        }
    }
    if (!complete) {
        tower_pass_release(p);
        return err_nomem(e);
    }
    p->input = p->value[0];
    p->output = p->value[spec->layers.n];
    return 0;
}

void tower_pass_release(struct tower_pass *p)
{
    mem_free(p->value[0]);
    for (size_t i = 0; i < NETWORK_MAX_LAYERS; i++) {
        mem_free(p->value[i + 1]);
        mem_free(p->kept[i]);
    }
    *p = (struct tower_pass){0};
}

enum { ROWS_AHEAD = 8, BAGS_AHEAD = 1 };

/* Pools the table rows of a bag into out [dim]. An empty bag gives zeros. */
static void pool(float *out, const float *table, const int32_t *index, size_t count, const struct feature *f)
{
    struct value_weights w = feature_weights(f, count);
    memset(out, 0, f->dim * sizeof *out);
    for (size_t i = count; i-- > 0;) {
        vec_add_scaled(out, table + (size_t)index[i] * f->dim, (float)w.latest, f->dim);
        w.latest *= w.decay;
    }
}

/* One feature of one row into its columns out [width] of the input. */
static void put_feature(float *out, const struct feature *f, const float *table, const struct feature_column *c,
                        size_t row)
{
    size_t count = 0;
    const int32_t *index = f->rows > 0 ? feature_values(f, c, row, &count) : NULL;
    if (feature_is_embedded(f)) {
        if (feature_is_bag(f)) {
            pool(out, table, index, count, f);
        } else {
            memcpy(out, table + (size_t)*index * f->dim, f->dim * sizeof *out);
        }
    } else if (f->type == FEATURE_ONEHOT) {
        memset(out, 0, f->width * sizeof *out);
        for (size_t i = 0; i < count; i++) {
            out[index[i]] = 1.0f;
        }
    } else {
        bool missing = isnan(c->number[row]);
        out[0] = missing ? 0.0f : c->number[row];
        out[1] = missing ? 1.0f : 0.0f;
    }
}

/* Asks for the table rows of one feature of one row: tables are larger than the caches, and rows anywhere in them. */
static void prefetch_feature(const struct feature *f, const float *table, const struct feature_column *c, size_t row)
{
    enum { LINE = 64 / sizeof(float) };
    size_t count;
    const int32_t *index = feature_values(f, c, row, &count);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < f->dim; j += LINE) {
            __builtin_prefetch(table + (size_t)index[i] * f->dim + j);
        }
    }
}

void tower_drop_input(const struct tower_spec *spec, float *x, size_t rows, const uint64_t *row_key)
{
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        if (f->dropout > 0) {
            layer_drop(x, rows, spec->input_width, f->offset, f->width, (float)f->dropout, row_key, 0);
        }
    }
}

struct layer_run tower_layer_run(const struct tower *t, const struct tower_pass *p, uint32_t i, size_t rows)
{
    const struct layer *l = &t->spec->layers.layer[i];
    return (struct layer_run){
        .rows = rows,
        .weight = t->dense + l->first_dense,
        .x = p->value[i],
        .second = l->second >= 0 ? p->value[l->second] : NULL,
        .y = p->value[i + 1],
        .kept = p->kept[i],
        .row_key = p->row_key,
        .draw = i + 1, /* 0 is the input's */
    };
}

void tower_forward(const struct tower *t, const struct feature_rows *rows, size_t first, size_t count,
                   struct tower_pass *p)
{
    const struct tower_spec *spec = t->spec;
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        float *out = p->input + f->offset;
        size_t ahead = feature_is_bag(f) ? BAGS_AHEAD : ROWS_AHEAD;
        for (size_t r = 0; r < count; r++) {
            if (feature_is_embedded(f) && r + ahead < count) {
                prefetch_feature(f, t->embedding[i], &rows->columns[i], first + r + ahead);
            }
            put_feature(out + r * spec->input_width, f, t->embedding[i], &rows->columns[i], first + r);
        }
    }
    if (p->row_key != NULL) {
        tower_drop_input(spec, p->input, count, p->row_key);
    }
    for (uint32_t i = 0; i < spec->layers.n; i++) {
        const struct layer *l = &spec->layers.layer[i];
        struct layer_run run = tower_layer_run(t, p, i, count);
        l->kind->forward(l, &run);
    }
}

void tower_embed_block(const struct tower *t, enum similarity similarity, const struct feature_rows *rows, size_t first,
                       size_t count, struct tower_pass *p, float *out)
{
    size_t dim = t->spec->output_dim;
    tower_forward(t, rows, first, count, p);
    memcpy(out, p->output, count * dim * sizeof *out);
    if (similarity == SIMILARITY_COSINE) {
        vec_normalize_rows(out, count, dim, NULL);
    }
}

void tower_embed(const struct tower *t, enum similarity similarity, const struct feature_rows *rows,
                 struct tower_pass *p, float *out)
{
    for (size_t first = 0; first < rows->n; first += p->capacity) {
        size_t count = rows->n - first < p->capacity ? rows->n - first : p->capacity;
        tower_embed_block(t, similarity, rows, first, count, p, out + first * t->spec->output_dim);
    }
}
