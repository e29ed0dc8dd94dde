/* Product codes: tables against inner products of decoded rows, and every scan against the plain one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ann/pq.h"
#include "core/cpu.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/vecmath.h"

static const uint32_t DIMS[] = {1, 2, 3, 7, 32, 64, 100, 255, 256, 257, 2048};
enum { N_DIMS = sizeof DIMS / sizeof DIMS[0], ROWS = 300 };

struct coded {
    struct pq pq;
    float *x;       /* [ROWS, dim] */
    float *centers; /* of pq */
    uint8_t *code;  /* [ROWS, parts] */
};

static struct coded coded_new(uint32_t dim)
{
    struct coded c = {.pq = pq_shape(dim)};
    struct rng r;
    struct err e = ERR_INIT;
    rng_seed(&r, 3, dim);
    c.x = mem_array((size_t)ROWS * dim, sizeof *c.x);
    for (size_t i = 0; i < (size_t)ROWS * dim; i++) {
        c.x[i] = rng_normal(&r);
    }
    c.centers = mem_array(pq_centers_size(&c.pq), sizeof *c.centers);
    c.pq.centers = c.centers;
    assert_int_equal(pq_train(&c.pq, c.centers, c.x, ROWS, 1, &e), 0);
    c.code = mem_array(ROWS, c.pq.parts);
    for (size_t i = 0; i < ROWS; i++) {
        pq_encode(&c.pq, c.x + i * dim, c.code + i * c.pq.parts);
    }
    return c;
}

static void coded_free(struct coded *c)
{
    mem_free(c->x);
    mem_free(c->centers);
    mem_free(c->code);
}

/* The row that a code stands for, [parts * width]. */
static void decode(const struct pq *pq, const uint8_t *code, float *x)
{
    for (uint32_t p = 0; p < pq->parts; p++) {
        memcpy(x + (size_t)p * pq->width, pq->centers + ((size_t)p * PQ_CENTERS + code[p]) * pq->width,
               pq->width * sizeof *x);
    }
}

static void codes_name_the_nearest_center(void **state)
{
    (void)state;
    for (size_t d = 0; d < N_DIMS; d++) {
        struct coded c = coded_new(DIMS[d]);
        for (size_t i = 0; i < ROWS; i += 37) {
            for (uint32_t p = 0; p < c.pq.parts; p++) {
                double best = INFINITY;
                double chosen = 0;
                for (uint32_t k = 0; k < PQ_CENTERS; k++) {
                    double sum = 0;
                    for (uint32_t j = 0; j < c.pq.width; j++) {
                        size_t at = (size_t)p * c.pq.width + j;
                        double value = at < DIMS[d] ? (double)c.x[i * DIMS[d] + at] : 0;
                        double difference = (double)c.centers[((size_t)p * PQ_CENTERS + k) * c.pq.width + j] - value;
                        sum += difference * difference;
                    }
                    best = fmin(best, sum);
                    chosen = k == c.code[i * c.pq.parts + p] ? sum : chosen;
                }
                assert_true(chosen <= best + 1e-5);
            }
        }
        coded_free(&c);
    }
}

static void make_table(const struct pq *pq, struct pq_table *table, const float *query)
{
    float *columns = mem_array(pq_centers_size(pq), sizeof *columns);
    pq_columns(pq, columns);
    pq_table_make(pq, columns, table, query);
    mem_free(columns);
}

/* Codes keep what 16 centers a part can: of pieces of two numbers more than four fifths of the squares. */
static void codes_are_close(void **state)
{
    (void)state;
    struct coded c = coded_new(64);
    double error = 0;
    double all = 0;
    for (size_t i = 0; i < ROWS; i++) {
        float x[64];
        decode(&c.pq, c.code + i * c.pq.parts, x);
        for (size_t j = 0; j < 64; j++) {
            double difference = (double)(x[j] - c.x[i * 64 + j]);
            error += difference * difference;
            all += (double)(c.x[i * 64 + j] * c.x[i * 64 + j]);
        }
    }
    assert_true(error < 0.2 * all);
    coded_free(&c);
}

static void sums_are_inner_products(void **state)
{
    (void)state;
    for (size_t d = 0; d < N_DIMS; d++) {
        struct coded c = coded_new(DIMS[d]);
        size_t length = (size_t)c.pq.parts * c.pq.width;
        float *decoded = mem_array(length, sizeof *decoded);
        float *query = mem_array(length, sizeof *query); /* zeros behind dim */
        memcpy(query, c.x, DIMS[d] * sizeof *query);
        struct pq_table table;
        make_table(&c.pq, &table, query);
        uint8_t *block = mem_array(pq_block_bytes(&c.pq), 1);
        for (size_t i = 0; i < PQ_BLOCK; i++) {
            pq_put(&c.pq, block, i, c.code + i * c.pq.parts);
        }
        uint16_t sums[PQ_BLOCK];
        pq_scan_naive(&c.pq, &table, block, sums);
        for (size_t i = 0; i < PQ_BLOCK; i++) {
            decode(&c.pq, c.code + i * c.pq.parts, decoded);
            double exact = (double)vec_dot(query, decoded, length);
            double found = (double)table.base + (double)table.step * sums[i];
            assert_true(fabs(exact - found) <= (double)table.step * (0.5 * c.pq.parts + 1)); /* half a byte a part */
        }
        mem_free(decoded);
        mem_free(query);
        mem_free(block);
        coded_free(&c);
    }
}

static void compare_scans(void)
{
    enum { BLOCKS = 9, PLACES = BLOCKS * PQ_BLOCK };
    for (size_t d = 0; d < N_DIMS; d++) {
        struct coded c = coded_new(DIMS[d]);
        size_t bytes = pq_block_bytes(&c.pq);
        uint8_t *codes = mem_array(BLOCKS, bytes);
        for (size_t i = 0; i < PLACES; i++) {
            pq_put(&c.pq, codes + i / PQ_BLOCK * bytes, i % PQ_BLOCK, c.code + i * c.pq.parts);
        }
        struct pq_table table;
        make_table(&c.pq, &table, c.x);
        uint16_t sums[PLACES];
        int most = 0;
        for (size_t b = 0; b < BLOCKS; b++) {
            pq_scan_naive(&c.pq, &table, codes + b * bytes, sums + b * PQ_BLOCK);
        }
        for (size_t i = 0; i < PLACES; i++) {
            most = sums[i] > most ? sums[i] : most;
        }
        const int floors[] = {-1, 0, most / 2, most - most / 8, most - 1, most, INT16_MAX};
        for (size_t f = 0; f < sizeof floors / sizeof floors[0]; f++) {
            uint32_t place[PLACES];
            uint16_t sum[PLACES];
            size_t done;
            size_t n = pq_scan(&c.pq, &table, codes, BLOCKS, floors[f], PLACES, place, sum, &done);
            assert_int_equal(done, BLOCKS);
            size_t expected = 0;
            for (size_t i = 0; i < PLACES; i++) {
                if (sums[i] > floors[f]) {
                    assert_true(expected < n);
                    assert_int_equal(place[expected], i);
                    assert_int_equal(sum[expected], sums[i]);
                    expected++;
                }
            }
            assert_int_equal(n, expected);
            size_t some = pq_scan(&c.pq, &table, codes, BLOCKS, -1, 3 * PQ_BLOCK + 5, place, sum, &done);
            assert_int_equal(done, 3); /* a fourth might not fit */
            assert_int_equal(some, 3 * PQ_BLOCK);
        }
        mem_free(codes);
        coded_free(&c);
    }
}

static void scans_equal_the_plain_one(void **state)
{
    (void)state;
    for (enum cpu_level level = CPU_PLAIN; level < CPU_LEVELS; level++) {
        cpu_limit(level); /* a processor that has less does the same once more */
        compare_scans();
    }
}

static void rows_that_are_all_equal(void **state)
{
    (void)state;
    float x[40 * 8];
    for (size_t i = 0; i < 40 * 8; i++) {
        x[i] = (float)(i % 8);
    }
    struct pq pq = pq_shape(8);
    float centers[8 * PQ_CENTERS];
    struct err e = ERR_INIT;
    assert_int_equal(pq_train(&pq, centers, x, 40, 1, &e), 0);
    pq.centers = centers;
    uint8_t code[8];
    float decoded[8];
    pq_encode(&pq, x, code);
    decode(&pq, code, decoded);
    assert_memory_equal(decoded, x, sizeof decoded);
    struct pq_table table;
    float zero[8] = {0};
    make_table(&pq, &table, zero); /* all products are 0: no division by their range */
    uint8_t block[128] = {0};
    uint16_t sums[PQ_BLOCK];
    pq_scan_naive(&pq, &table, block, sums);
    assert_true(table.base == 0 && sums[0] == 0);
}

/* Products beyond a float's range, and so small that their step is none: bytes stay 0. make ubsan sees what is converted. */
static void products_out_of_range(void **state)
{
    (void)state;
    static const float pairs[][2] = {{3e38f, 1e30f}, {-3e38f, 1e30f}, {1e-30f, 1e-15f}};
    struct pq pq = pq_shape(2);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        float centers[2 * PQ_CENTERS] = {0};
        float query[2] = {pairs[i][1], 0};
        struct pq_table table;
        centers[1] = pairs[i][0];
        pq.centers = centers;
        make_table(&pq, &table, query);
        for (size_t j = 0; j < 2 * PQ_CENTERS; j++) {
            assert_int_equal(table.byte[j], 0);
        }
    }
}

/* A product that is no number hides the least of its part: what is below what passes for the least is 0, too. */
static void products_beside_nan(void **state)
{
    (void)state;
    struct pq pq = pq_shape(64);
    float query[64] = {1e30f, -1e30f};
    struct pq_table table;
    float *centers = mem_array(pq_centers_size(&pq), sizeof *centers);
    assert_int_equal(pq.width, 2);
    centers[2 * 1] = -10; /* center 9 shares its lane */
    centers[2 * 9] = 3e38f;
    centers[2 * 9 + 1] = 3e38f;
    pq.centers = centers;
    make_table(&pq, &table, query);
    for (size_t j = 0; j < PQ_CENTERS; j++) {
        assert_int_equal(table.byte[j], 0);
    }
    mem_free(centers);
}

static void short_memory(void **state)
{
    (void)state;
    float x[40 * 8] = {0};
    float centers[8 * PQ_CENTERS];
    struct pq pq = pq_shape(8);
    for (long n = 1; n <= 2; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        assert_int_equal(pq_train(&pq, centers, x, 40, 1, &e), -1);
        mem_fail_at(0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_name_the_nearest_center), cmocka_unit_test(codes_are_close),
        cmocka_unit_test(sums_are_inner_products),       cmocka_unit_test(scans_equal_the_plain_one),
        cmocka_unit_test(rows_that_are_all_equal),       cmocka_unit_test(products_out_of_range),
        cmocka_unit_test(products_beside_nan),           cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
