/*
 * PCA: known directions, the same as an eigen decomposition of the covariance matrix done the slow way, and the edges.
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
#include "train/projection.h"

enum { N = 400, DIM = 24 };

static float rows[N * DIM];
static double points[N * 2];
static double explained[2];

static void project(size_t n, size_t dim)
{
    struct err e = ERR_INIT;
    assert_int_equal(projection_pca(rows, n, dim, points, explained, &e), 0);
    for (size_t i = 0; i < 2 * n; i++) {
        assert_true(isfinite(points[i]));
    }
}

/* Two directions of three; the mean goes. Variances 9 * 2/3 : 4 * 2/3 : 0. */
static void test_known_answer(void **state)
{
    (void)state;
    static const float known[6][3] = {{5, 1, 10}, {5, 1, 16}, {5, 1, 13}, {5, 1, 13}, {5, 3, 13}, {5, -1, 13}};
    memcpy(rows, known, sizeof known);
    project(6, 3);
    static const double expected[6][2] = {{-3, 0}, {3, 0}, {0, 0}, {0, 0}, {0, 2}, {0, -2}};
    for (size_t i = 0; i < 6; i++) {
        assert_true(fabs(points[2 * i] - expected[i][0]) < 1e-5 && fabs(points[2 * i + 1] - expected[i][1]) < 1e-5);
    }
    assert_true(fabs(explained[0] - 18.0 / 26) < 1e-6 && fabs(explained[1] - 8.0 / 26) < 1e-6);
}

/* The oracle: power iteration on the covariance matrix with deflation, in double precision. */
static void oracle(double values[2], double *total)
{
    static double covariance[DIM][DIM];
    double mean[DIM] = {0};
    *total = 0;
    for (size_t j = 0; j < DIM; j++) {
        for (size_t i = 0; i < N; i++) {
            mean[j] += (double)rows[i * DIM + j] / N;
        }
    }
    for (size_t a = 0; a < DIM; a++) {
        for (size_t b = 0; b < DIM; b++) {
            covariance[a][b] = 0;
            for (size_t i = 0; i < N; i++) {
                covariance[a][b] += ((double)rows[i * DIM + a] - mean[a]) * ((double)rows[i * DIM + b] - mean[b]);
            }
        }
        *total += covariance[a][a];
    }
    for (int axis = 0; axis < 2; axis++) {
        double v[DIM];
        double w[DIM];
        for (size_t j = 0; j < DIM; j++) {
            v[j] = 1.0 / (double)(j + 2);
        }
        for (int round = 0; round < 5000; round++) {
            double norm = 0;
            for (size_t a = 0; a < DIM; a++) {
                w[a] = 0;
                for (size_t b = 0; b < DIM; b++) {
                    w[a] += covariance[a][b] * v[b];
                }
                norm += w[a] * w[a];
            }
            norm = sqrt(norm);
            for (size_t a = 0; a < DIM; a++) {
                v[a] = w[a] / norm;
            }
            values[axis] = norm;
        }
        for (size_t a = 0; a < DIM; a++) {
            for (size_t b = 0; b < DIM; b++) {
                covariance[a][b] -= values[axis] * v[a] * v[b];
            }
        }
    }
}

static void test_oracle(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct rng r;
        double values[2];
        double total;
        rng_seed(&r, seed, 0);
        for (size_t i = 0; i < N; i++) {
            float common = rng_normal(&r);
            float second = rng_normal(&r);
            for (size_t j = 0; j < DIM; j++) { /* eigenvalues close to each other: the hard case */
                rows[i * DIM + j] = 3 + rng_normal(&r) + 0.3F * common + (j % 2 ? 0.28F : -0.28F) * second;
            }
        }
        project(N, DIM);
        oracle(values, &total);
        for (size_t axis = 0; axis < 2; axis++) {
            double sum = 0;
            double squares = 0;
            for (size_t i = 0; i < N; i++) {
                sum += points[2 * i + axis];
                squares += points[2 * i + axis] * points[2 * i + axis];
            }
            assert_true(fabs(sum / N) < 1e-4);
            assert_true(fabs(squares / values[axis] - 1) < 1e-3);
            assert_true(fabs(explained[axis] - values[axis] / total) < 1e-4);
        }
    }
}

static void test_edges(void **state)
{
    (void)state;
    memset(rows, 0, sizeof rows);
    project(1, DIM); /* no variance at all */
    assert_true(points[0] == 0 && points[1] == 0 && explained[0] == 0);
    project(N, DIM);
    assert_true(explained[0] == 0 && explained[1] == 0);
    rows[0] = -1;
    rows[1] = 1;
    project(2, 1); /* one dimension */
    assert_true(fabs(points[0] + 1) < 1e-6 && fabs(points[2] - 1) < 1e-6 && points[1] == 0 && points[3] == 0);
    assert_true(fabs(explained[0] - 1) < 1e-6 && explained[1] == 0);
    project(2, 2); /* two rows vary in one direction only */
    assert_true(explained[0] > 0.999 && explained[1] < 1e-6);
}

static void test_repeatable(void **state)
{
    (void)state;
    struct rng r;
    double before[N * 2];
    rng_seed(&r, 7, 0);
    for (size_t i = 0; i < N * DIM; i++) {
        rows[i] = rng_normal(&r);
    }
    project(N, DIM);
    memcpy(before, points, sizeof before);
    project(N, DIM);
    assert_memory_equal(before, points, sizeof before);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (long at = 1; at <= 4; at++) {
        struct err e = ERR_INIT;
        mem_fail_at(at);
        assert_true(projection_pca(rows, N, DIM, points, explained, &e) < 0);
        assert_true(err_isset(&e));
    }
    mem_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answer), cmocka_unit_test(test_oracle),    cmocka_unit_test(test_edges),
        cmocka_unit_test(test_repeatable),   cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
