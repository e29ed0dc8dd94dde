/* The product against the naive one: all four layouts, sizes around every tile, panel and block, adding or not; with the
 * instructions of every level that this processor has. */
#include "tests/unit/core/support.h"

#include <assert.h>
#include <math.h>

#include "core/cpu.h"
#include "core/mem.h"
#include "core/sgemm.h"

static struct rng rng;

/* Element (i, p) of a matrix [., columns], or of its transpose. */
static double element(const float *x, bool transposed, size_t rows, size_t columns, size_t i, size_t p)
{
    return (double)(transposed ? x[p * rows + i] : x[i * columns + p]);
}

static void compare(bool a_transposed, bool b_transposed, size_t m, size_t n, size_t k, bool accumulate)
{
    float *a = mem_array(m * k, sizeof *a);
    float *b = mem_array(k * n, sizeof *b);
    float *c = mem_array(m * n + 1, sizeof *c);
    float *before = mem_array(m * n, sizeof *before);
    assert_true(a != NULL && b != NULL && c != NULL && before != NULL);
    fill_random(&rng, a, m * k);
    fill_random(&rng, b, k * n);
    fill_random(&rng, before, m * n);
    memcpy(c, before, m * n * sizeof *c);
    c[m * n] = 1234.5f; /* nothing is written behind the result */
    sgemm_multiply(c, a, a_transposed, b, b_transposed, m, n, k, accumulate);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = accumulate ? (double)before[i * n + j] : 0.0;
            for (size_t p = 0; p < k; p++) {
                sum += element(a, a_transposed, m, k, i, p) * element(b, b_transposed, k, n, p, j);
            }
            if (!(fabs((double)c[i * n + j] - sum) <= 1e-6 * (1.0 + (double)k))) {
                fail_msg("[%zu, %zu] x [%zu, %zu] (%d%d) at %zu, %zu: %g, not %g", m, k, k, n, a_transposed,
                         b_transposed, i, j, (double)c[i * n + j], sum);
            }
        }
    }
    assert_true(c[m * n] == 1234.5f);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(before);
}

static void compare_layouts(size_t m, size_t n, size_t k)
{
    for (int layout = 0; layout < 8; layout++) {
        compare((layout & 1) != 0, (layout & 2) != 0, m, n, k, (layout & 4) != 0);
    }
}

static void small_sizes(void **state)
{
    (void)state;
    for (size_t m = 1; m <= 13; m++) {
        for (size_t n = 1; n <= 33; n += n % 16 == 1 ? 1 : 5) {
            compare_layouts(m, n, 1 + (m * n) % 19);
        }
    }
}

/* Around the groups of rows, the panels, the blocks of k, and more columns than one packed block holds. */
static void sizes_around_blocks(void **state)
{
    (void)state;
    compare_layouts(47, 16, 127);
    compare_layouts(48, 17, 128);
    compare_layouts(49, 31, 129);
    compare_layouts(97, 64, 257);
    compare_layouts(6, 255, 128);
    compare_layouts(7, 256, 130);
    compare_layouts(5, 529, 128);
    compare_layouts(2, 33000, 1);
}

static void random_sizes(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        compare_layouts(1 + rng_below(&rng, 150), 1 + rng_below(&rng, 150), 1 + rng_below(&rng, 300));
    }
}

/* A row's bits do not depend on the rows around it. */
static void rows_are_independent(void **state)
{
    (void)state;
    enum { M = 101, N = 43, K = 200 };
    static float a[M * K], b[N * K], all[M * N], one[N];
    fill_random(&rng, a, M * K);
    fill_random(&rng, b, N * K);
    sgemm_multiply(all, a, false, b, true, M, N, K, false);
    for (size_t i = 0; i < M; i++) {
        sgemm_multiply(one, a + i * K, false, b, true, 1, N, K, false);
        assert_memory_equal(one, all + i * N, sizeof one);
    }
}

/* What is not finite stays in its row and column, padding or not. */
static void infinities_stay_in_place(void **state)
{
    (void)state;
    enum { M = 7, N = 19, K = 9 };
    static float a[M * K], b[K * N], c[M * N];
    fill_random(&rng, a, M * K);
    fill_random(&rng, b, K * N);
    a[3 * K + 2] = INFINITY;
    b[4 * N + 18] = NAN;
    sgemm_multiply(c, a, false, b, false, M, N, K, false);
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j < N; j++) {
            assert_true(isfinite(c[i * N + j]) == (i != 3 && j != 18));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_sizes),
        cmocka_unit_test(sizes_around_blocks),
        cmocka_unit_test(random_sizes),
        cmocka_unit_test(rows_are_independent),
        cmocka_unit_test(infinities_stay_in_place),
    };
    rng_seed(&rng, 3, 4);
    int failed = 0;
    for (enum cpu_level level = CPU_AVX2; level < CPU_LEVELS; level++) {
        cpu_limit(level);
        if (cpu_level() == level) {
            assert(sgemm_available());
            failed += cmocka_run_group_tests_name(cpu_level_name(level), tests, NULL, NULL);
        } else {
            printf("1..1\nok 1 # SKIP sgemm with %s\n", cpu_level_name(level));
        }
    }
    cpu_limit(CPU_SSE42);
    return failed + sgemm_available();
}
