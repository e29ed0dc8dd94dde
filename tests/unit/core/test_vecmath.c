/* Every kernel against its naive twin, on random numbers and on lengths around each unrolling step. */
#include "tests/unit/core/support.h"

#include <float.h>
#include <math.h>

#include "core/mem.h"
#include "core/vecmath.h"

static struct rng rng;

static float *random_array(size_t n)
{
    float *x = mem_array(n, sizeof *x);
    assert_non_null(x);
    fill_random(&rng, x, n);
    return x;
}

/* A copy that starts at an odd multiple of 4 bytes: kernels may not assume more. */
static float *misaligned(const float *x, size_t n, float **owner)
{
    *owner = mem_array(n + 1, sizeof **owner);
    assert_non_null(*owner);
    if (n > 0) {
        memcpy(*owner + 1, x, n * sizeof *x);
    }
    return *owner + 1;
}

static void dot_equals_naive(void **state)
{
    (void)state;
    for (size_t s = 0; s < ODD_SIZES; s++) {
        size_t n = odd_sizes[s];
        float *a = random_array(n);
        float *b = random_array(n);
        float *owner;
        float *shifted = misaligned(b, n, &owner);
        check_near((double)vec_dot(a, b, n), (double)vec_dot_naive(a, b, n), 1.0 + sqrt((double)n), 1e-6);
        assert_true(vec_dot(a, b, n) == vec_dot(a, shifted, n));
        mem_free(a);
        mem_free(b);
        mem_free(owner);
    }
    float x[3] = {1, 2, 3};
    float y[3] = {4, -5, 6};
    assert_true(vec_dot(x, y, 3) == 12.0f);
    assert_true(vec_dot(x, y, 0) == 0.0f);
}

/* A scan gives the bits that one dot product gives: rows scored in blocks and alone must compare equal. */
static void dot_rows_equals_dot(void **state)
{
    (void)state;
    for (size_t s = 0; s < ODD_SIZES; s++) {
        for (size_t rows = 0; rows < 10; rows++) {
            size_t n = odd_sizes[s];
            float *m = random_array(rows * n);
            float *q = random_array(n);
            float scores[10];
            vec_dot_rows(scores, m, rows, n, q);
            for (size_t r = 0; r < rows; r++) {
                assert_true(scores[r] == vec_dot(m + r * n, q, n));
                check_near((double)scores[r], (double)vec_dot_naive(m + r * n, q, n), 1.0 + sqrt((double)n), 1e-6);
            }
            mem_free(m);
            mem_free(q);
        }
    }
}

/* Blocks of rows, the last one part empty. */
static void blocked_rows_give_their_products(void **state)
{
    (void)state;
    for (size_t s = 0; s < ODD_SIZES; s++) {
        for (size_t rows = 1; rows < 40; rows += 5) {
            size_t n = odd_sizes[s];
            size_t places = vec_blocks(rows) * VEC_BLOCK;
            float *m = random_array(rows * n);
            float *q = random_array(n);
            float *blocked = random_array(places * n);
            float scores[48];
            vec_block(blocked, m, rows, n);
            vec_dot_blocks(scores, blocked, vec_blocks(rows), n, q);
            for (size_t r = 0; r < places; r++) {
                double expected = r < rows ? (double)vec_dot_naive(m + r * n, q, n) : 0;
                check_near((double)scores[r], expected, 1.0 + sqrt((double)n), 1e-6);
            }
            mem_free(m);
            mem_free(q);
            mem_free(blocked);
        }
    }
}

static void picked_rows_equal_rows(void **state)
{
    (void)state;
    enum { ROWS = 40, PICKED = 70 };
    for (size_t s = 0; s < ODD_SIZES; s++) {
        size_t n = odd_sizes[s];
        float *matrix = mem_array(ROWS * n + 1, sizeof *matrix);
        float *query = mem_array(n + 1, sizeof *query);
        float scores[ROWS];
        struct scored picked[PICKED];
        fill_random(&rng, matrix, ROWS * n);
        fill_random(&rng, query, n);
        vec_dot_rows(scores, matrix, ROWS, n, query);
        for (size_t count = 0; count <= PICKED; count += 7) {
            for (size_t i = 0; i < count; i++) {
                picked[i] = (struct scored){NAN, rng_below(&rng, ROWS)};
            }
            vec_dot_picked(picked, count, matrix, n, query);
            for (size_t i = 0; i < count; i++) {
                assert_memory_equal(&picked[i].score, &scores[picked[i].row], sizeof(float));
            }
        }
        mem_free(matrix);
        mem_free(query);
    }
}

static void elementwise_equals_loop(void **state)
{
    (void)state;
    for (size_t s = 0; s < ODD_SIZES; s++) {
        size_t n = odd_sizes[s];
        float *x = random_array(n);
        float *y = random_array(n + 1);
        float *z = random_array(n + 1);
        memcpy(z, y, (n + 1) * sizeof *y);
        vec_add_scaled(y, x, -1.5f, n);
        for (size_t i = 0; i < n; i++) {
            check_near((double)y[i], (double)z[i] - 1.5 * (double)x[i], fabs((double)z[i]) + fabs((double)x[i]), 3e-7);
        }
        assert_true(y[n] == z[n]); /* nothing behind the end is touched */
        memcpy(z, y, (n + 1) * sizeof *y);
        vec_scale(y, 0.25f, n);
        for (size_t i = 0; i < n; i++) {
            assert_true(y[i] == z[i] * 0.25f);
        }
        assert_true(y[n] == z[n]);
        mem_free(x);
        mem_free(y);
        mem_free(z);
    }
}

static void finite_sees_every_position(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t s = 0; s < ODD_SIZES; s++) {
        size_t n = odd_sizes[s];
        float *x = random_array(n);
        assert_true(vec_is_finite(x, n));
        for (size_t i = 0; i < n; i++) {
            float kept = x[i];
            for (size_t b = 0; b < 3; b++) {
                x[i] = bad[b];
                assert_false(vec_is_finite(x, n));
            }
            x[i] = kept;
        }
        mem_free(x);
    }
    float extremes[] = {FLT_MAX, -FLT_MAX, FLT_MIN, FLT_TRUE_MIN, -0.0f, FLT_MAX, FLT_MAX, FLT_MAX, FLT_MAX};
    assert_true(vec_is_finite(extremes, 9));
}

/* Lengths that a float sum of squares cannot hold: too small and too large for it. */
static void norm_survives_extremes(void **state)
{
    (void)state;
    for (size_t n = 1; n < 70; n++) {
        float x[70];
        const float values[] = {1e-30f, 1e-44f, 1e-19f, 1.0f, 3e18f, 1e25f};
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            for (size_t i = 0; i < n; i++) {
                x[i] = values[v];
            }
            double wanted = (double)values[v] * sqrt((double)n);
            check_near((double)vec_norm(x, n), wanted, wanted + 1.5e-45, 1e-6 + (values[v] < 1e-40f ? 0.2 : 0));
        }
    }
    assert_true(vec_norm(NULL, 0) == 0.0f);
    float nan[2] = {1, NAN};
    float infinite[2] = {1, INFINITY};
    assert_true(isnan(vec_norm(nan, 2)));
    assert_true(isinf(vec_norm(infinite, 2)));
}

static void normalized_rows_have_length_one(void **state)
{
    (void)state;
    const float scales[] = {1e-11f, 1e-6f, 1.0f, 1e10f, 1e19f, 1e29f, 1e31f, 1e37f};
    for (size_t s = 1; s < ODD_SIZES; s++) {
        for (size_t k = 0; k < sizeof scales / sizeof *scales; k++) {
            size_t n = odd_sizes[s];
            float *x = random_array(3 * n);
            float norms[3];
            vec_scale(x, scales[k], 3 * n);
            x[0] = x[n] = x[2 * n] = scales[k];
            double wanted = sqrt((double)vec_dot_naive(x + n, x + n, n));
            vec_normalize_rows(x, 3, n, norms);
            for (size_t r = 0; r < 3; r++) {
                check_near(sqrt((double)vec_dot_naive(x + r * n, x + r * n, n)), 1.0, 1.0, 1e-6);
            }
            if (scales[k] < 1e15f && scales[k] > 1e-10f) {
                check_near((double)norms[1], wanted, wanted, 1e-5);
            }
            mem_free(x);
        }
    }
    float huge[4] = {FLT_MAX, FLT_MAX, -FLT_MAX, FLT_MAX};
    vec_normalize_rows(huge, 1, 4, NULL);
    assert_true(fabsf(huge[0] - 0.5f) < 1e-6f && fabsf(huge[2] + 0.5f) < 1e-6f);
}

static void short_rows_become_zero(void **state)
{
    (void)state;
    float x[3][4] = {{0, 0, 0, 0}, {1e-13f, 0, 0, 0}, {1e-45f, -1e-45f, 0, 0}};
    float norms[3] = {9, 9, 9};
    vec_normalize_rows(&x[0][0], 3, 4, norms);
    for (size_t i = 0; i < 12; i++) {
        assert_true((&x[0][0])[i] == 0.0f);
    }
    assert_true(norms[0] == 0.0f && norms[1] > 0 && norms[2] > 0);
    float nan[2] = {NAN, 1};
    vec_normalize_rows(nan, 1, 2, NULL);
    assert_false(vec_is_finite(nan, 2)); /* a broken row stays visibly broken */
}

typedef void product(float *c, const float *a, const float *b, size_t m, size_t n, size_t k, bool accumulate);

static void compare_product(product *fast, product *naive, size_t m, size_t n, size_t k)
{
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        float *a = random_array(m * k);
        float *b = random_array(n * k);
        float *c = random_array(m * n + 1);
        float *d = random_array(m * n + 1);
        memcpy(d, c, (m * n + 1) * sizeof *c);
        fast(c, a, b, m, n, k, accumulate);
        naive(d, a, b, m, n, k, accumulate);
        for (size_t i = 0; i < m * n; i++) {
            check_near((double)c[i], (double)d[i], 2.0 + (double)k, 1e-6);
        }
        assert_true(c[m * n] == d[m * n]);
        mem_free(a);
        mem_free(b);
        mem_free(c);
        mem_free(d);
    }
}

static void products_equal_naive(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 2, 15, 16, 17, 31, 33, 64};
    const size_t count = sizeof sizes / sizeof *sizes;
    for (size_t i = 0; i < count * count * count; i++) {
        size_t m = sizes[i % count];
        size_t n = sizes[i / count % count];
        size_t k = sizes[i / count / count];
        compare_product(mat_mul_nt, mat_mul_nt_naive, m, n, k);
        compare_product(mat_mul_nn, mat_mul_nn_naive, m, n, k);
        compare_product(mat_mul_tn, mat_mul_tn_naive, m, n, k);
    }
}

static void products_by_hand(void **state)
{
    (void)state;
    float a[6] = {1, 2, 3, 4, 5, 6};    /* [2, 3] */
    float b[6] = {7, 8, 9, 10, 11, 12}; /* [2, 3] or [3, 2] */
    float c[9];
    mat_mul_nt(c, a, b, 2, 2, 3, false);
    assert_true(c[0] == 50 && c[1] == 68 && c[2] == 122 && c[3] == 167);
    mat_mul_nn(c, a, b, 2, 2, 3, false);
    assert_true(c[0] == 58 && c[1] == 64 && c[2] == 139 && c[3] == 154);
    mat_mul_tn(c, a, b, 3, 3, 2, false);
    assert_true(c[0] == 47 && c[1] == 52 && c[2] == 57 && c[8] == 99);
}

static void setup_accepts_this_blas(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    check_ok(&e, blas_setup(&e));
}

int main(void)
{
    rng_seed(&rng, 1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(setup_accepts_this_blas),
        cmocka_unit_test(dot_equals_naive),
        cmocka_unit_test(dot_rows_equals_dot),
        cmocka_unit_test(blocked_rows_give_their_products),
        cmocka_unit_test(picked_rows_equal_rows),
        cmocka_unit_test(elementwise_equals_loop),
        cmocka_unit_test(finite_sees_every_position),
        cmocka_unit_test(norm_survives_extremes),
        cmocka_unit_test(normalized_rows_have_length_one),
        cmocka_unit_test(short_rows_become_zero),
        cmocka_unit_test(products_equal_naive),
        cmocka_unit_test(products_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
