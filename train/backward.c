#include "train/backward.h"

#include <string.h>

#include "core/mem.h"
#include "core/vecmath.h"

int tower_gradient_init(struct tower_gradient *g, const struct tower_spec *spec, size_t capacity, struct err *e)
{
    *g = (struct tower_gradient){0};
    size_t in = spec->input_width;
    g->input = mem_array(capacity * in, sizeof(float));
    g->output = g->input;
    bool complete = g->input != NULL;
    for (uint32_t i = 0; i < spec->n_layers; i++) {
        size_t n = spec->layers[i];
        g->layer[i] = mem_array(capacity * n, sizeof(float));
        g->weight[i] = mem_array(n * in, sizeof(float));
        g->bias[i] = mem_array(n, sizeof(float));
        complete = complete && g->layer[i] != NULL && g->weight[i] != NULL && g->bias[i] != NULL;
        g->output = g->layer[i];
        in = n;
    }
    if (!complete) {
        tower_gradient_release(g);
        return err_nomem(e);
    }
    return 0;
}

void tower_gradient_release(struct tower_gradient *g)
{
    mem_free(g->input);
    for (size_t i = 0; i < SCHEMA_MAX_LAYERS; i++) {
        mem_free(g->layer[i]);
        mem_free(g->weight[i]);
        mem_free(g->bias[i]);
    }
    *g = (struct tower_gradient){0};
}

static void sum_rows(float *sums, const float *x, size_t rows, size_t n)
{
    memset(sums, 0, n * sizeof *sums);
    for (size_t r = 0; r < rows; r++) {
        vec_add_scaled(sums, x + r * n, 1.0f, n);
    }
}

/* Relu passes the gradient where its output was positive. */
static void relu_backward(float *gradient, const float *activation, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        gradient[i] = activation[i] > 0 ? gradient[i] : 0.0f;
    }
}

void tower_backward(const struct tower *t, const struct tower_pass *p, size_t count, struct tower_gradient *g)
{
    const struct tower_spec *spec = t->spec;
    for (uint32_t i = spec->n_layers; i-- > 0;) {
        size_t n = spec->layers[i];
        size_t in = i > 0 ? spec->layers[i - 1] : spec->input_width;
        const float *x = i > 0 ? p->layer[i - 1] : p->input;
        float *dx = i > 0 ? g->layer[i - 1] : g->input;
        if (i + 1 < spec->n_layers) {
            relu_backward(g->layer[i], p->layer[i], count * n);
        }
        mat_mul_tn(g->weight[i], g->layer[i], x, n, in, count, false);
        sum_rows(g->bias[i], g->layer[i], count, n);
        mat_mul_nn(dx, g->layer[i], t->weight[i], count, in, n, false);
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
