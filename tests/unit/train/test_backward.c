/*
 * Gradients of towers and of normalisation by finite differences, against a forward pass in double precision.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"
#include "train/backward.h"

enum { ROWS = 6, IN = 9, WIDEST = 11, LAYERS = 3 };
static const uint32_t widths[LAYERS] = {11, 7, 5};

static void expect_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%.9g is not %.9g (+- %.3g)", a, b, tolerance);
    }
}

/* --- normalisation ----------------------------------------------------------------------------------------------------*/

static void test_normalize_by_differences(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 7, 8, 17, 64};
    struct rng r;
    rng_seed(&r, 1, 1);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s];
        float x[3 * 64] = {0}, unit[3 * 64], norms[3], weight[3 * 64], gradient[3 * 64];
        for (size_t i = 0; i < 3 * n; i++) {
            x[i] = rng_normal(&r) * (i < n ? 1.0f : i < 2 * n ? 100.0f : 0.01f);
            gradient[i] = weight[i] = rng_normal(&r);
        }
        memcpy(unit, x, sizeof x);
        vec_normalize_rows(unit, 3, n, norms);
        normalize_backward(gradient, unit, norms, 3, n);
        for (size_t i = 0; i < 3 * n; i++) { /* f = sum_j weight_j x_j / |x|, by double differences */
            const float *row = x + i / n * n;
            double f[2];
            double h = 1e-4 * (double)norms[i / n];
            for (int side = 0; side < 2; side++) {
                double dot = 0;
                double square = 0;
                for (size_t j = 0; j < n; j++) {
                    double v = (double)row[j] + (j == i % n ? (side == 0 ? -h : h) : 0);
                    dot += v * (double)weight[i / n * n + j];
                    square += v * v;
                }
                f[side] = dot / sqrt(square);
            }
            double slope = (f[1] - f[0]) / (2 * h);
            expect_near((double)gradient[i], slope, 1e-5 / (double)norms[i / n]);
        }
    }
}

/* A vector without a direction has no gradient; its neighbours keep theirs. */
static void test_normalize_zero(void **state)
{
    (void)state;
    float x[6] = {3, 4, 0, 0, 0, 2};
    float norms[3];
    float gradient[6] = {1, 0, 5, 5, 1, 1};
    vec_normalize_rows(x, 3, 2, norms);
    normalize_backward(gradient, x, norms, 3, 2);
    assert_true(gradient[2] == 0 && gradient[3] == 0);
    expect_near((double)gradient[0], (1 - 0.36) / 5, 1e-6);
    expect_near((double)gradient[1], -0.48 / 5, 1e-6);
    expect_near((double)gradient[4], 0.5, 1e-6);
    expect_near((double)gradient[5], 0, 1e-6);
}

/* --- towers ---------------------------------------------------------------------------------------------------------*/

struct rig {
    struct tower_spec spec;
    struct tower tower;
    struct tower_pass pass;
    struct tower_gradient gradient;
    float weight[LAYERS][WIDEST * WIDEST], bias[LAYERS][WIDEST], input[ROWS * IN];
    float wanted[ROWS * WIDEST]; /* f = sum of wanted * output */
};

static void rig_open(struct rig *g, uint32_t layers, size_t capacity)
{
    struct err e = ERR_INIT;
    struct rng r;
    rng_seed(&r, 2, layers);
    *g = (struct rig){
        .spec = {.network = layers > 0 ? NETWORK_MLP : NETWORK_NONE, .n_layers = layers, .input_width = IN}};
    g->spec.output_dim = IN;
    g->tower.spec = &g->spec;
    for (uint32_t l = 0; l < layers; l++) {
        g->spec.layers[l] = g->spec.output_dim = widths[l];
        g->tower.weight[l] = g->weight[l];
        g->tower.bias[l] = g->bias[l];
        for (size_t i = 0; i < WIDEST * WIDEST; i++) {
            g->weight[l][i] = 0.5f * rng_normal(&r);
        }
        for (size_t i = 0; i < WIDEST; i++) {
            g->bias[l][i] = 0.5f * rng_normal(&r);
        }
    }
    for (size_t i = 0; i < ROWS * IN; i++) {
        g->input[i] = rng_normal(&r);
    }
    for (size_t i = 0; i < ROWS * WIDEST; i++) {
        g->wanted[i] = rng_normal(&r);
    }
    assert_int_equal(tower_pass_init(&g->pass, &g->spec, capacity, &e), 0);
    assert_int_equal(tower_gradient_init(&g->gradient, &g->spec, capacity, &e), 0);
}

static void rig_close(struct rig *g)
{
    tower_pass_release(&g->pass);
    tower_gradient_release(&g->gradient);
}

/* f in double precision, leaving the activations in the pass when there is one. */
static double rig_forward(const struct rig *g, struct tower_pass *pass)
{
    double f = 0;
    for (size_t row = 0; row < ROWS; row++) {
        double x[WIDEST], y[WIDEST];
        size_t in = IN;
        for (size_t i = 0; i < IN; i++) {
            x[i] = (double)g->input[row * IN + i];
        }
        for (uint32_t l = 0; l < g->spec.n_layers; l++) {
            size_t n = g->spec.layers[l];
            for (size_t o = 0; o < n; o++) {
                y[o] = (double)g->bias[l][o];
                for (size_t i = 0; i < in; i++) {
                    y[o] += (double)g->weight[l][o * in + i] * x[i];
                }
                y[o] = l + 1 < g->spec.n_layers && y[o] < 0 ? 0 : y[o];
                if (pass != NULL) {
                    pass->layer[l][row * n + o] = (float)y[o];
                }
            }
            memcpy(x, y, sizeof x);
            in = n;
        }
        for (size_t o = 0; o < in; o++) {
            f += x[o] * (double)g->wanted[row * in + o];
        }
    }
    return f;
}

static void check_slope(struct rig *g, float *parameter, float analytic)
{
    const float h = 1.0f / 4096;
    float kept = *parameter;
    *parameter = kept + h;
    double up = rig_forward(g, NULL);
    double span = (double)*parameter;
    *parameter = kept - h;
    double down = rig_forward(g, NULL);
    span -= (double)*parameter;
    *parameter = kept;
    expect_near((double)analytic, (up - down) / span, 2e-4 + 1e-4 * fabs((double)analytic));
}

static void check_tower(uint32_t layers, size_t capacity)
{
    static struct rig g;
    rig_open(&g, layers, capacity);
    memcpy(g.pass.input, g.input, sizeof g.input);
    rig_forward(&g, &g.pass);
    memcpy(g.gradient.output, g.wanted, ROWS * g.spec.output_dim * sizeof(float));
    tower_backward(&g.tower, &g.pass, ROWS, &g.gradient);
    size_t in = IN;
    for (uint32_t l = 0; l < layers; l++) {
        size_t n = widths[l];
        for (size_t i = 0; i < n * in; i++) {
            check_slope(&g, &g.weight[l][i], g.gradient.weight[l][i]);
        }
        for (size_t i = 0; i < n; i++) {
            check_slope(&g, &g.bias[l][i], g.gradient.bias[l][i]);
        }
        in = n;
    }
    for (size_t i = 0; i < ROWS * IN; i++) {
        check_slope(&g, &g.input[i], g.gradient.input[i]);
    }
    rig_close(&g);
}

static void test_tower_by_differences(void **state)
{
    (void)state;
    for (uint32_t layers = 0; layers <= LAYERS; layers++) {
        check_tower(layers, ROWS);
        check_tower(layers, ROWS + 5); /* room for more rows than there are */
    }
}

/* A thread without a share of a small batch: its dense gradients are zero, not what was there before. */
static void test_no_rows(void **state)
{
    (void)state;
    static struct rig g;
    rig_open(&g, 2, ROWS);
    memcpy(g.pass.input, g.input, sizeof g.input);
    rig_forward(&g, &g.pass);
    memcpy(g.gradient.output, g.wanted, ROWS * g.spec.output_dim * sizeof(float));
    tower_backward(&g.tower, &g.pass, ROWS, &g.gradient);
    tower_backward(&g.tower, &g.pass, 0, &g.gradient);
    size_t in = IN;
    for (uint32_t l = 0; l < 2; l++) {
        for (size_t i = 0; i < widths[l] * in; i++) {
            assert_true(g.gradient.weight[l][i] == 0);
        }
        for (size_t i = 0; i < widths[l]; i++) {
            assert_true(g.gradient.bias[l][i] == 0);
        }
        in = widths[l];
    }
    rig_close(&g);
}

static void test_no_memory(void **state)
{
    (void)state;
    const struct tower_spec spec = {.n_layers = 2, .layers = {5, 3}, .input_width = 4, .output_dim = 3};
    for (long n = 1;; n++) {
        struct tower_gradient g;
        struct err e = ERR_INIT;
        mem_fail_at(n);
        int result = tower_gradient_init(&g, &spec, 8, &e);
        mem_fail_at(0);
        if (result == 0) {
            assert_int_equal(n, 8); /* 1 + 3 a layer, each failed once */
            tower_gradient_release(&g);
            return;
        }
        assert_true(err_isset(&e));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalize_by_differences),
        cmocka_unit_test(test_normalize_zero),
        cmocka_unit_test(test_tower_by_differences),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
