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
#include "tests/unit/naive_network.h"
#include "train/backward.h"

enum { ROWS = 6, IN = 9, WIDEST = 11 };

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
    float dense[NETWORK_MAX_DENSE][WIDEST * WIDEST];
    float wanted[ROWS * WIDEST]; /* f = sum of wanted * output */
};

static const struct network networks[] = {
    {.type = NETWORK_NONE},
    {.type = NETWORK_MLP, .widths = {11}, .n_widths = 1},
    {.type = NETWORK_MLP, .widths = {11, 7}, .n_widths = 2},
    {.type = NETWORK_MLP, .widths = {11, 7, 5}, .n_widths = 3},
    {.type = NETWORK_MLP, .widths = {11, 7, 5}, .n_widths = 3, .activation = ACTIVATION_LEAKY_RELU},
    {.type = NETWORK_MLP, .widths = {11, 8, 5}, .n_widths = 3, .activation = ACTIVATION_GELU},
    {.type = NETWORK_MLP, .widths = {11, 8, 5}, .n_widths = 3, .layer_norm = true},
    {.type = NETWORK_MLP, .widths = {9, 10, 5}, .n_widths = 3, .activation = ACTIVATION_GELU, .layer_norm = true},
    {.type = NETWORK_MLP, .widths = {7, 7, 7, 5, 5}, .n_widths = 5, .residual = true},
    {.type = NETWORK_MLP, .widths = {9, 9, 9}, .n_widths = 3, .layer_norm = true, .residual = true},
    {.type = NETWORK_DCN, .widths = {5}, .n_widths = 1, .cross_layers = 1},
    {.type = NETWORK_DCN, .widths = {11, 5}, .n_widths = 2, .cross_layers = 3},
    {.type = NETWORK_DCN, .widths = {11, 5}, .n_widths = 2, .cross_layers = 3, .cross_rank = 2},
    {.type = NETWORK_DCN,
     .widths = {9, 9, 5},
     .n_widths = 3,
     .activation = ACTIVATION_GELU,
     .layer_norm = true,
     .residual = true,
     .cross_layers = 2,
     .cross_rank = 1},
};
enum { NETWORKS = sizeof networks / sizeof *networks };

static size_t dense_size(const struct dense *d)
{
    return (size_t)d->rows * (d->columns > 0 ? d->columns : 1);
}

static void rig_open(struct rig *g, const struct network *network, size_t capacity)
{
    struct err e = ERR_INIT;
    struct rng r;
    rng_seed(&r, 2, (uint64_t)(network - networks));
    *g = (struct rig){.spec = {.network = *network, .input_width = IN}};
    assert_int_equal(network_build(&g->spec.layers, network, IN, &e), 0);
    g->spec.output_dim = g->spec.layers.output_width;
    g->tower.spec = &g->spec;
    for (uint32_t i = 0; i < g->spec.layers.n_dense; i++) {
        g->tower.dense[i] = g->dense[i];
        for (size_t j = 0; j < dense_size(&g->spec.layers.dense[i]); j++) {
            g->dense[i][j] = 0.5f * rng_normal(&r);
        }
    }
    for (size_t i = 0; i < ROWS * WIDEST; i++) {
        g->wanted[i] = rng_normal(&r);
    }
    assert_int_equal(tower_pass_init(&g->pass, &g->spec, capacity, &e), 0);
    assert_int_equal(tower_gradient_init(&g->gradient, &g->spec, capacity, &e), 0);
    for (size_t i = 0; i < ROWS * IN; i++) {
        g->pass.input[i] = rng_normal(&r);
    }
}

static void rig_close(struct rig *g)
{
    tower_pass_release(&g->pass);
    tower_gradient_release(&g->gradient);
}

/* Forward and backward. There are no features: the input is what rig_open has put there. */
static void rig_run(struct rig *g, size_t rows)
{
    tower_forward(&g->tower, &(struct feature_rows){.spec = &g->spec}, 0, rows, &g->pass);
    memcpy(g->gradient.output, g->wanted, rows * g->spec.output_dim * sizeof(float));
    tower_backward(&g->tower, &g->pass, rows, &g->gradient);
}

/* f in double precision. */
static double rig_naive(const struct rig *g)
{
    double f = 0;
    for (size_t row = 0; row < ROWS; row++) {
        double x[NAIVE_WIDEST] = {0};
        for (size_t i = 0; i < IN; i++) {
            x[i] = (double)g->pass.input[row * IN + i];
        }
        naive_network(&g->tower, x);
        for (size_t o = 0; o < g->spec.output_dim; o++) {
            f += x[o] * (double)g->wanted[row * g->spec.output_dim + o];
        }
    }
    return f;
}

static void check_slope(struct rig *g, float *parameter, float analytic, const char *name)
{
    const float h = 1.0f / 16384;
    float kept = *parameter;
    *parameter = kept + h;
    double up = rig_naive(g);
    double span = (double)*parameter;
    *parameter = kept - h;
    double down = rig_naive(g);
    span -= (double)*parameter;
    *parameter = kept;
    double slope = (up - down) / span;
    if (!(fabs((double)analytic - slope) <= 2e-4 + 1e-4 * fabs(slope))) {
        fail_msg("network %s: %.9g, by differences %.9g", name, (double)analytic, slope);
    }
}

static void check_tower(const struct network *network, size_t capacity)
{
    static struct rig g;
    rig_open(&g, network, capacity);
    rig_run(&g, ROWS);
    for (uint32_t i = 0; i < g.spec.layers.n_dense; i++) {
        const struct dense *d = &g.spec.layers.dense[i];
        for (size_t j = 0; j < dense_size(d); j++) {
            check_slope(&g, &g.dense[i][j], g.gradient.dense[i][j], d->name);
        }
    }
    for (size_t i = 0; i < ROWS * IN; i++) {
        check_slope(&g, &g.pass.input[i], g.gradient.input[i], "input");
    }
    rig_close(&g);
}

static void test_tower_by_differences(void **state)
{
    (void)state;
    for (size_t i = 0; i < NETWORKS; i++) {
        check_tower(&networks[i], ROWS);
        check_tower(&networks[i], ROWS + 5); /* room for more rows than there are */
    }
}

/* A thread without a share of a small batch: its dense gradients are zero, not what was there before. */
static void test_no_rows(void **state)
{
    (void)state;
    static struct rig g;
    for (size_t k = 0; k < NETWORKS; k++) {
        rig_open(&g, &networks[k], ROWS);
        rig_run(&g, ROWS);
        rig_run(&g, 0);
        for (uint32_t i = 0; i < g.spec.layers.n_dense; i++) {
            for (size_t j = 0; j < dense_size(&g.spec.layers.dense[i]); j++) {
                assert_true(g.gradient.dense[i][j] == 0);
            }
        }
        rig_close(&g);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    const struct network network = {
        .type = NETWORK_DCN, .widths = {5, 5}, .n_widths = 2, .cross_layers = 1, .residual = true};
    struct tower_spec spec = {.input_width = 4};
    struct err none = ERR_INIT;
    assert_int_equal(network_build(&spec.layers, &network, 4, &none), 0);
    for (long n = 1;; n++) {
        struct tower_gradient g;
        struct err e = ERR_INIT;
        mem_fail_at(n);
        int result = tower_gradient_init(&g, &spec, 8, &e);
        mem_fail_at(0);
        if (result == 0) {
            assert_int_equal(n, 5 + 2 + 6 + 1); /* values, second inputs, parameters, each failed once */
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
