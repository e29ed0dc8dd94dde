#include "train/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"

/* Adds a parameter; returns its index or -1. */
static int add_parameter(struct model *m, int n_states, size_t rows, size_t columns, bool is_table, struct err *e)
{
    struct parameter *p = &m->parameters[m->n_parameters];
    p->rows = rows;
    p->columns = columns;
    p->is_table = is_table;
    p->value = mem_array(parameter_size(p), sizeof *p->value);
    bool complete = p->value != NULL;
    for (int i = 0; i < n_states; i++) {
        p->state[i] = mem_array(parameter_size(p), sizeof *p->state[i]);
        complete = complete && p->state[i] != NULL;
    }
    m->n_parameters++; /* counted even when incomplete, so that model_free sees it */
    if (!complete) {
        return err_set(e, "out of memory for a table of %zu x %zu", rows, columns);
    }
    return (int)m->n_parameters - 1;
}

static int add_tower(struct model *m, enum side side, int n_states, struct err *e)
{
    const struct tower_spec *spec = &m->schema->towers[side];
    struct tower *t = &m->towers[side];
    *t = (struct tower){.spec = spec};
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        m->table[side][i] = -1;
        if (!feature_is_embedded(f) || f->shared) {
            continue;
        }
        int p = add_parameter(m, n_states, f->rows, f->dim, true, e);
        if (p < 0) {
            return -1;
        }
        snprintf(m->parameters[p].name, sizeof m->parameters[p].name, "%s", f->table);
        m->table[side][i] = p;
        t->embedding[i] = m->parameters[p].value;
    }
    for (uint32_t i = 0; i < spec->layers.n_dense; i++) {
        const struct dense *d = &spec->layers.dense[i];
        int p = add_parameter(m, n_states, d->rows, d->columns, false, e);
        if (p < 0) {
            return -1;
        }
        snprintf(m->parameters[p].name, sizeof m->parameters[p].name, "%s.%s", side_words[side], d->name);
        m->parameters[p].start = d->start;
        m->dense[side][i] = p;
        t->dense[i] = m->parameters[p].value;
    }
    return 0;
}

/* Points shared features at the table that they read, once all tables are there. */
static void link_shared(struct model *m, enum side side)
{
    const struct tower_spec *spec = &m->schema->towers[side];
    for (uint32_t i = 0; i < spec->n_features; i++) {
        for (size_t p = 0; spec->features[i].shared && p < m->n_parameters; p++) {
            if (strcmp(m->parameters[p].name, spec->features[i].table) == 0) {
                m->table[side][i] = (int)p;
                m->towers[side].embedding[i] = m->parameters[p].value;
            }
        }
    }
}

struct model *model_new(const struct schema *schema, int n_states, struct err *e)
{
    struct model *m = mem_array(1, sizeof *m);
    if (m == NULL) {
        err_nomem(e);
        return NULL;
    }
    size_t limit = 1; /* the loss's scale */
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        limit += schema->towers[side].n_features + schema->towers[side].layers.n_dense;
    }
    m->schema = schema;
    m->loss_scale = -1;
    m->parameters = mem_array(limit, sizeof *m->parameters);
    if (m->parameters == NULL) {
        err_nomem(e);
    } else if (add_tower(m, SIDE_USER, n_states, e) == 0 && add_tower(m, SIDE_ITEM, n_states, e) == 0) {
        link_shared(m, SIDE_USER);
        link_shared(m, SIDE_ITEM);
        return m;
    }
    model_free(m);
    return NULL;
}

int model_add_loss_scale(struct model *m, int n_states, float scale, struct err *e)
{
    m->loss_scale = add_parameter(m, n_states, 1, 0, false, e);
    if (m->loss_scale < 0) {
        return -1;
    }
    struct parameter *p = &m->parameters[m->loss_scale];
    snprintf(p->name, sizeof p->name, "loss.log_scale");
    p->is_private = true;
    m->loss_scale_start = logf(scale);
    return 0;
}

void model_drop_state(struct model *m)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        for (size_t s = 0; s < 2; s++) {
            mem_free(m->parameters[i].state[s]);
            m->parameters[i].state[s] = NULL;
        }
    }
}

void model_free(struct model *m)
{
    if (m == NULL) {
        return;
    }
    model_drop_state(m);
    for (size_t i = 0; i < m->n_parameters; i++) {
        mem_free(m->parameters[i].value);
    }
    mem_free(m->parameters);
    mem_free(m);
}

/* Standard deviation of a parameter's values at the start; 0: they are constant. */
static double start_deviation(const struct parameter *p, double init_scale)
{
    if (p->is_table) {
        return init_scale;
    }
    switch (p->start) {
    case START_HE:
        return sqrt(2.0 / (double)p->columns);
    case START_GLOROT:
        return sqrt(2.0 / (double)(p->rows + p->columns));
    default:
        return 0;
    }
}

void model_initialize(struct model *m, double init_scale, uint64_t seed)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        struct parameter *p = &m->parameters[i];
        struct rng r;
        rng_seed(&r, seed, i);
        float deviation = (float)start_deviation(p, init_scale);
        float constant = !p->is_table && p->start == START_ONE ? 1.0f : 0.0f;
        size_t n = parameter_size(p);
        for (size_t j = 0; j < n; j++) {
            p->value[j] = deviation > 0 ? deviation * rng_normal(&r) : constant;
        }
        if ((int)i == m->loss_scale) {
            p->value[0] = m->loss_scale_start;
        }
        for (int s = 0; s < 2; s++) {
            if (p->state[s] != NULL) {
                memset(p->state[s], 0, n * sizeof *p->state[s]);
            }
        }
    }
}

void model_copy_values(struct model *to, const struct model *from)
{
    for (size_t i = 0; i < from->n_parameters; i++) {
        const struct parameter *p = &from->parameters[i];
        memcpy(to->parameters[i].value, p->value, parameter_size(p) * sizeof *p->value);
    }
}

int model_write(const struct model *m, const char *path, struct err *e)
{
    struct tensor *tensors = mem_array(m->n_parameters, sizeof *tensors);
    if (tensors == NULL) {
        return err_nomem(e);
    }
    size_t n = 0;
    for (size_t i = 0; i < m->n_parameters; i++) {
        const struct parameter *p = &m->parameters[i];
        if (!p->is_private) {
            tensors[n++] = (struct tensor){p->name, p->rows, p->columns, p->value};
        }
    }
    int result = safetensors_write(path, tensors, n, e);
    mem_free(tensors);
    return result;
}

const struct parameter *model_find_bad(const struct model *m)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        if (!vec_is_finite(m->parameters[i].value, parameter_size(&m->parameters[i]))) {
            return &m->parameters[i];
        }
    }
    return NULL;
}
