/*
 * What each layer is known to do, apart from the oracles of test_tower.c and train/test_backward.c: activations against
 * libm, normalised rows, what dropout drops, cross layers that multiply, and the list of layers a declaration becomes.
 */
#include "tests/unit/core/support.h"

#include <float.h>
#include <math.h>

#include "core/mem.h"
#include "core/network.h"
#include "core/rng.h"

static void activations_against_libm(void **state)
{
    (void)state;
    enum { N = 1003 };
    float y[N], slope[N];
    const float bias[N] = {0};
    double worst = 0;
    double worst_slope = 0;
    for (int round = 0; round < 200; round++) {
        float z[N];
        for (int i = 0; i < N; i++) {
            z[i] = (float)(round * N + i) / (100.0f * N) * 15 - 15; /* -15 .. 15 */
        }
        memcpy(y, z, sizeof y);
        activation_forward(ACTIVATION_GELU, y, bias, 1, N, slope);
        for (int i = 0; i < N; i++) {
            double x = (double)z[i];
            double phi = 0.5 * erfc(-x / sqrt(2));
            worst = fmax(worst, fabs((double)y[i] - x * phi) / (1 + fabs(x)));
            worst_slope = fmax(worst_slope, fabs((double)slope[i] - phi - x * exp(-x * x / 2) / sqrt(2 * acos(-1))));
        }
    }
    assert_true(worst < 2e-7);
    assert_true(worst_slope < 5e-7);
    float ends[8] = {0, -0.0f, 100, -100, FLT_MAX, -FLT_MAX, NAN, INFINITY};
    const float wanted[6] = {0, 0, 100, 0, FLT_MAX, 0};
    activation_forward(ACTIVATION_GELU, ends, bias, 1, 8, slope);
    for (int i = 0; i < 6; i++) {
        assert_true(ends[i] == wanted[i]);
    }
    assert_true(isnan(ends[6]) && ends[7] == INFINITY);
    float a[4] = {1, -1, 2, NAN};
    float b[4] = {1, -1, 2, NAN};
    const float shift[4] = {0, 0.5f, -3, 0};
    activation_forward(ACTIVATION_RELU, a, shift, 1, 4, NULL);
    activation_forward(ACTIVATION_LEAKY_RELU, b, shift, 1, 4, NULL);
    assert_true(a[0] == 1 && a[1] == 0 && a[2] == 0 && isnan(a[3])); /* a NaN is not hidden */
    assert_true(b[0] == 1 && b[1] == -0.005f && b[2] == -0.01f && isnan(b[3]));
}

/* One layer over `rows` rows of random x, forward only. */
static void run_layer(const struct layer *l, const float *const *weight, const float *x, const float *second, float *y,
                      size_t rows, const uint64_t *keys)
{
    float *kept = mem_array(rows * l->kept, sizeof *kept);
    struct layer_run run = {
        .rows = rows, .weight = weight, .x = x, .second = second, .y = y, .kept = kept, .row_key = keys, .draw = 3};
    l->kind->forward(l, &run);
    mem_free(kept);
}

static void normalised_rows(void **state)
{
    (void)state;
    const uint32_t widths[] = {2, 7, 8, 19, 64, 4096};
    struct rng r;
    rng_seed(&r, 31, 0);
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
        uint32_t n = widths[k];
        enum { ROWS = 5 };
        float *x = mem_array(ROWS * n, sizeof *x);
        float *y = mem_array(ROWS * n, sizeof *y);
        float *ones = mem_array(n, sizeof *ones);
        float *zeros = mem_array(n, sizeof *zeros);
        for (size_t i = 0; i < ROWS * n; i++) {
            x[i] = 1000 + 10 * rng_normal(&r); /* far from 0: the variance is no difference of squares */
        }
        for (size_t i = 0; i < n; i++) {
            ones[i] = 1;
            x[i] = 3; /* row 0: nothing to tell apart */
        }
        struct network_layers unused = {0};
        struct layer l = {.kind = &layer_norm, .in = n, .out = n, .activation = ACTIVATION_NONE};
        l.kind->declare(&l, &unused);
        run_layer(&l, (const float *[]){ones, zeros}, x, NULL, y, ROWS, NULL);
        for (size_t row = 0; row < ROWS; row++) {
            double mean = 0;
            double square = 0;
            for (size_t i = 0; i < n; i++) {
                mean += (double)y[row * n + i] / n;
                square += (double)y[row * n + i] * (double)y[row * n + i] / n;
            }
            check_near(mean, 0, 1, 1e-4);
            check_near(square, row == 0 ? 0 : 1, 1, 1e-3);
        }
        mem_free(x);
        mem_free(y);
        mem_free(ones);
        mem_free(zeros);
    }
}

static void what_dropout_drops(void **state)
{
    (void)state;
    enum { ROWS = 400, N = 257 };
    static float x[ROWS * N], again[ROWS * N];
    static uint64_t keys[ROWS];
    const double rates[] = {0.05, 0.25, 0.5, 0.95};
    for (size_t i = 0; i < ROWS; i++) {
        keys[i] = rng_mix(i + 1);
    }
    for (size_t k = 0; k < 4; k++) {
        double zeros = 0;
        double column[N] = {0};
        for (size_t i = 0; i < ROWS * N; i++) {
            again[i] = x[i] = 1;
        }
        layer_drop(x, ROWS, N, 0, N, (float)rates[k], keys, 7);
        for (size_t i = 0; i < ROWS * N; i++) {
            zeros += x[i] == 0;
            column[i % N] += x[i] == 0;
            assert_true(x[i] == 0 || fabs((double)x[i] * (1 - rates[k]) - 1) < 1e-6);
        }
        double variance = rates[k] * (1 - rates[k]);
        assert_true(fabs(zeros / (ROWS * N) - rates[k]) < 5 * sqrt(variance / (ROWS * N)));
        for (size_t i = 0; i < N; i++) {
            assert_true(fabs(column[i] / ROWS - rates[k]) < 6 * sqrt(variance / ROWS));
        }
        /* the same, in parts: rows by other hands, columns by features */
        layer_drop(again, 100, N, 0, N, (float)rates[k], keys, 7);
        layer_drop(again + (size_t)100 * N, ROWS - 100, N, 0, 13, (float)rates[k], keys + 100, 7);
        layer_drop(again + (size_t)100 * N, ROWS - 100, N, 13, N - 13, (float)rates[k], keys + 100, 7);
        assert_memory_equal(x, again, sizeof x);
        for (size_t i = 0; i < ROWS * N; i++) {
            again[i] = 1;
        }
        layer_drop(again, ROWS, N, 0, N, (float)rates[k], keys, 8); /* another layer drops others */
        size_t same = 0;
        for (size_t i = 0; i < ROWS * N; i++) {
            same += (x[i] == 0) == (again[i] == 0);
        }
        double share = (double)same / (ROWS * N); /* as independent draws agree */
        assert_true(fabs(share - (1 - 2 * variance)) < 0.01);
    }
    struct layer l = {.kind = &layer_dropout, .in = N, .out = N, .rate = 0.5f};
    run_layer(&l, NULL, x, NULL, again, ROWS, NULL); /* not training */
    assert_memory_equal(x, again, sizeof x);
    run_layer(&l, NULL, x, NULL, again, ROWS, keys);
    assert_memory_not_equal(x, again, sizeof x);
}

/* W picks the other number: two numbers become their product, which no linear layer can say. */
static void a_cross_layer_multiplies(void **state)
{
    (void)state;
    const float w[4] = {0, 1, 0, 0};
    const float b[2] = {0, -1};
    const float u[2] = {1, 0};
    const float v[2] = {0, 1};
    const float x0[4] = {3, 5, -2, 7};
    const float x[4] = {10, 20, 30, 40};
    float y[4];
    struct network_layers unused = {0};
    struct layer full = {.kind = &layer_cross, .in = 2, .out = 2};
    struct layer low = {.kind = &layer_cross, .in = 2, .out = 2, .rank = 1};
    full.kind->declare(&full, &unused);
    low.kind->declare(&low, &unused);
    const float wanted[4] = {3 * 20 + 10, 5 * -1 + 20, -2 * 40 + 30, 7 * -1 + 40};
    run_layer(&full, (const float *[]){w, b}, x, x0, y, 2, NULL);
    assert_memory_equal(y, wanted, sizeof y);
    run_layer(&low, (const float *[]){u, b, v}, x, x0, y, 2, NULL);
    assert_memory_equal(y, wanted, sizeof y);
}

static void check_list(const struct network *network, uint32_t in, const char *wanted)
{
    static struct network_layers layers;
    struct err e = ERR_INIT;
    char text[500] = "";
    check_ok(&e, network_build(&layers, network, in, &e));
    for (uint32_t i = 0; i < layers.n; i++) {
        const struct layer *l = &layers.layer[i];
        const char *kind = l->kind == &layer_linear     ? "linear"
                           : l->kind == &layer_norm     ? "norm"
                           : l->kind == &layer_dropout  ? "dropout"
                           : l->kind == &layer_residual ? "residual"
                                                        : "cross";
        char item[40];
        snprintf(item, sizeof item, "%s %u", kind, l->out);
        strcat(text, i > 0 ? ", " : "");
        strcat(text, item);
        if (l->second >= 0) {
            snprintf(item, sizeof item, " of %d", l->second);
            strcat(text, item);
        }
        assert_int_equal(l->in, i == 0 ? in : layers.layer[i - 1].out);
    }
    assert_string_equal(text, wanted);
    assert_int_equal(layers.output_width, layers.n == 0 ? in : layers.layer[layers.n - 1].out);
}

static void lists_of_layers(void **state)
{
    (void)state;
    const struct network all = {.type = NETWORK_DCN,
                                .widths = {6, 6, 6, 4, 4},
                                .n_widths = 5,
                                .layer_norm = true,
                                .residual = true,
                                .dropout = 0.1,
                                .cross_layers = 2};
    check_list(&(struct network){.type = NETWORK_NONE}, 9, "");
    check_list(&(struct network){.type = NETWORK_MLP, .widths = {5, 4}, .n_widths = 2}, 9, "linear 5, linear 4");
    /* the first layer has no layer before it, though the input is as wide */
    check_list(&all, 6,
               "cross 6 of 0, cross 6 of 0, linear 6, norm 6, dropout 6, linear 6, norm 6, dropout 6, residual 6 of 5, "
               "linear 6, norm 6, dropout 6, residual 6 of 9, linear 4, norm 4, dropout 4, linear 4, residual 4 of 16");
    struct network most = {.type = NETWORK_DCN,
                           .layer_norm = true,
                           .residual = true,
                           .dropout = 0.1,
                           .cross_layers = NETWORK_MAX_CROSS,
                           .cross_rank = 1};
    while (most.n_widths < NETWORK_MAX_WIDTHS) {
        most.widths[most.n_widths++] = 3;
    }
    static struct network_layers layers;
    struct err e = ERR_INIT;
    check_ok(&e, network_build(&layers, &most, 3, &e));
    assert_true(layers.n <= NETWORK_MAX_LAYERS && layers.n_dense <= NETWORK_MAX_DENSE);
}

static void widths_that_make_no_sense(void **state)
{
    (void)state;
    static struct network_layers layers;
    struct network n = {.type = NETWORK_DCN, .widths = {4}, .n_widths = 1, .cross_layers = 1, .cross_rank = 8};
    struct err e = ERR_INIT;
    assert_int_equal(network_build(&layers, &n, 8, &e), -1);
    check_error(&e, "cross_rank 8 saves nothing over an input of 8 columns");
    e = (struct err)ERR_INIT;
    check_ok(&e, network_build(&layers, &n, 9, &e));
    n.cross_rank = 0;
    assert_int_equal(network_build(&layers, &n, 4097, &e), -1);
    check_error(&e, "4097 columns, 4096 are possible");
    n.cross_rank = 8;
    e = (struct err)ERR_INIT;
    check_ok(&e, network_build(&layers, &n, 65536, &e));
    assert_int_equal(network_build(&layers, &n, 65537, &e), -1);
    check_error(&e, "65537 columns, 65536 are possible");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_against_libm), cmocka_unit_test(normalised_rows),
        cmocka_unit_test(what_dropout_drops),       cmocka_unit_test(a_cross_layer_multiplies),
        cmocka_unit_test(lists_of_layers),          cmocka_unit_test(widths_that_make_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
