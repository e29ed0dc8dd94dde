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
    uint32_t in = spec->input_width;
    for (uint32_t i = 0; i < spec->n_layers; i++) {
        int w = add_parameter(m, n_states, spec->layers[i], in, false, e);
        int b = w < 0 ? -1 : add_parameter(m, n_states, spec->layers[i], 0, false, e);
        if (b < 0) {
            return -1;
        }
        snprintf(m->parameters[w].name, sizeof m->parameters[w].name, "%s.network.%u.weight", side_words[side], i);
        snprintf(m->parameters[b].name, sizeof m->parameters[b].name, "%s.network.%u.bias", side_words[side], i);
        m->weight[side][i] = w;
        m->bias[side][i] = b;
        t->weight[i] = m->parameters[w].value;
        t->bias[i] = m->parameters[b].value;
        in = spec->layers[i];
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
    size_t limit = 0;
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        limit += schema->towers[side].n_features + 2 * (size_t)schema->towers[side].n_layers;
    }
    m->schema = schema;
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

void model_free(struct model *m)
{
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < m->n_parameters; i++) {
        mem_free(m->parameters[i].value);
        mem_free(m->parameters[i].state[0]);
        mem_free(m->parameters[i].state[1]);
    }
    mem_free(m->parameters);
    mem_free(m);
}

static bool is_last_layer(const struct model *m, size_t index)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        uint32_t n = m->schema->towers[side].n_layers;
        if (n > 0 && m->weight[side][n - 1] == (int)index) {
            return true;
        }
    }
    return false;
}

void model_initialize(struct model *m, double init_scale, uint64_t seed)
{
    for (size_t i = 0; i < m->n_parameters; i++) {
        struct parameter *p = &m->parameters[i];
        struct rng r;
        rng_seed(&r, seed, i);
        double scale = 0;
        if (p->is_table) {
            scale = init_scale;
        } else if (p->columns > 0) {
            scale = is_last_layer(m, i) ? sqrt(2.0 / (double)(p->rows + p->columns)) : sqrt(2.0 / (double)p->columns);
        }
        size_t n = parameter_size(p);
        for (size_t j = 0; j < n; j++) {
            p->value[j] = scale > 0 ? (float)scale * rng_normal(&r) : 0.0f;
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
    for (size_t i = 0; i < m->n_parameters; i++) {
        const struct parameter *p = &m->parameters[i];
        tensors[i] = (struct tensor){p->name, p->rows, p->columns, p->value};
    }
    int result = safetensors_write(path, tensors, m->n_parameters, e);
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
