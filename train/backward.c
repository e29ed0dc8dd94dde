#include "train/backward.h"

#include <string.h>

#include "core/mem.h"
#include "core/vecmath.h"

/* Columns of value i: the input or the result of layer i - 1. */
static size_t value_width(const struct tower_spec *spec, uint32_t i)
{
    return i == 0 ? spec->input_width : spec->layers.layer[i - 1].out;
}

int tower_gradient_init(struct tower_gradient *g, const struct tower_spec *spec, size_t capacity, struct err *e)
{
    const struct network_layers *layers = &spec->layers;
    *g = (struct tower_gradient){0};
    bool complete = true;
    for (uint32_t i = 0; i <= layers->n; i++) {
        g->value[i] = mem_array(capacity * value_width(spec, i), sizeof(float));
        complete = complete && g->value[i] != NULL;
    }
    for (uint32_t i = 0; i < layers->n; i++) {
        int second = layers->layer[i].second;
        if (second >= 0 && g->second[second] == NULL) {
            g->second[second] = mem_array(capacity * value_width(spec, (uint32_t)second), sizeof(float));
            complete = complete && g->second[second] != NULL;
        }
    }
    for (uint32_t i = 0; i < layers->n_dense; i++) {
        const struct dense *d = &layers->dense[i];
        g->dense[i] = mem_array((size_t)d->rows * (d->columns > 0 ? d->columns : 1), sizeof(float));
        complete = complete && g->dense[i] != NULL;
    }
    if (!complete) {
        tower_gradient_release(g);
        return err_nomem(e);
    }
    g->input = g->value[0];
    g->output = g->value[layers->n];
    return 0;
}

void tower_gradient_release(struct tower_gradient *g)
{
    for (size_t i = 0; i <= NETWORK_MAX_LAYERS; i++) {
        mem_free(g->value[i]);
        mem_free(g->second[i]);
    }
    for (size_t i = 0; i < NETWORK_MAX_DENSE; i++) {
        mem_free(g->dense[i]);
    }
    *g = (struct tower_gradient){0};
}

void tower_backward(const struct tower *t, const struct tower_pass *p, size_t count, struct tower_gradient *g)
{
    const struct network_layers *layers = &t->spec->layers;
    for (uint32_t i = 0; i <= layers->n; i++) {
        if (g->second[i] != NULL) {
            memset(g->second[i], 0, count * value_width(t->spec, i) * sizeof(float));
        }
    }
    for (uint32_t i = layers->n; i-- > 0;) {
        const struct layer *l = &layers->layer[i];
        struct layer_run run = tower_layer_run(t, p, i, count);
        run.dy = g->value[i + 1];
        run.dx = g->value[i];
        run.dsecond = l->second >= 0 ? g->second[l->second] : NULL;
        run.dweight = g->dense + l->first_dense;
        l->kind->backward(l, &run);
        if (g->second[i] != NULL) { /* all who take value i have been heard */
            vec_add_scaled(g->value[i], g->second[i], 1.0f, count * value_width(t->spec, i));
        }
    }
    if (p->row_key != NULL) {
        tower_drop_input(t->spec, g->input, count, p->row_key);
    }
}

void normalize_backward(float *gradient, const float *unit, const float *norms, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++) {
        float *d = gradient + r * n;
        const float *y = unit + r * n;
        float norm = norms[r];
        if (norm < 1e-12f) {
            memset(d, 0, n * sizeof *d);
            continue;
        }
        vec_add_scaled(d, y, -vec_dot(d, y, n), n);
        vec_scale(d, 1.0f / norm, n);
    }
}
