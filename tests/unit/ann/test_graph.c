/* Graph links: faiss's form read, every damage noticed, no search leaves the arrays. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ann/graph.h"
#include "core/mem.h"
#include "core/rng.h"

enum { N = 5, M = 2, WIDTH = 2 * M };

/* Five rows on a line, row 2 on one upper level, row 4 on two. */
static const int32_t LEVELS[N] = {1, 1, 2, 1, 3};

struct bytes {
    unsigned char data[2048];
    size_t n;
};

static void put(struct bytes *b, const void *what, size_t size)
{
    memcpy(b->data + b->n, what, size);
    b->n += size;
}

static void put_vector(struct bytes *b, const void *what, size_t count, size_t element)
{
    uint64_t length = count;
    put(b, &length, sizeof length);
    put(b, what, count * element);
}

/* What faiss writes for such a graph, up to the stored vectors. */
static struct bytes faiss_form(void)
{
    struct bytes b = {.n = 0};
    unsigned char header[37] = {0};
    double probas[3] = {0.8, 0.1, 0.1};
    int32_t per_level[4] = {0, WIDTH, WIDTH + M, WIDTH + 2 * M};
    uint64_t offsets[N + 1] = {0};
    int32_t neighbors[64];
    size_t n = 0;
    for (int32_t i = 0; i < N; i++) {
        int32_t ground[WIDTH] = {i > 0 ? i - 1 : i + 1, i > 0 && i + 1 < N ? i + 1 : -1, -1, -1};
        memcpy(neighbors + n, ground, sizeof ground);
        n += WIDTH;
        for (int32_t level = 1; level < LEVELS[i]; level++) {
            neighbors[n++] = level > 1 ? -1 : (i == 2 ? 4 : 2);
            neighbors[n++] = -1;
        }
        offsets[i + 1] = n;
    }
    int32_t tail[5] = {4, 2, 40, 16, 1};
    put(&b, "IHNf", 4);
    put(&b, header, 33);
    put_vector(&b, probas, 3, sizeof probas[0]);
    put_vector(&b, per_level, 4, sizeof per_level[0]);
    put_vector(&b, LEVELS, N, sizeof LEVELS[0]);
    put_vector(&b, offsets, N + 1, sizeof offsets[0]);
    put_vector(&b, neighbors, n, sizeof neighbors[0]);
    put(&b, tail, sizeof tail);
    return b;
}

/* Input of exactly its size, so that AddressSanitizer sees a read beyond it. */
static int from_faiss(struct graph *g, const struct bytes *b, size_t size)
{
    struct err e = ERR_INIT;
    unsigned char *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, b->data, size);
    int rc = graph_from_faiss(g, copy, size, N, &e);
    free(copy);
    assert_int_equal(rc != 0, err_isset(&e));
    return rc;
}

/* A search that reads outside would be seen by AddressSanitizer. */
static size_t walk(const struct graph *g, struct scored out[N])
{
    float data[N] = {1, 2, 3, 4, 5};
    float query = 1;
    struct scored frontier[2 * N];
    uint8_t visited[N] = {0};
    struct ann_vectors v = {data, N, 1};
    struct ann_workspace ws = {.capacity = N, .candidates = out, .frontier = frontier, .visited = visited};
    return graph_search(g, &v, &ws, &query, N);
}

static void read_and_walked(void **state)
{
    (void)state;
    struct graph g;
    struct bytes b = faiss_form();
    struct scored out[N];
    assert_int_equal(from_faiss(&g, &b, b.n), 0);
    assert_int_equal(g.width, WIDTH);
    assert_int_equal(g.entry, 4);
    assert_int_equal(g.max_level, 2);
    assert_int_equal(g.upper_start[N], 3 * M);
    assert_int_equal(graph_bytes(&g), (N * WIDTH + N + 1 + 3 * M) * 4);
    assert_int_equal(walk(&g, out), N);
    graph_release(&g);
}

static void faiss_form_cut_anywhere(void **state)
{
    (void)state;
    struct bytes b = faiss_form();
    size_t enough = b.n - 3 * sizeof(int32_t); /* efConstruction and what follows it is not needed */
    for (size_t size = 0; size < enough; size++) {
        struct graph g;
        assert_int_equal(from_faiss(&g, &b, size), -1);
    }
}

static void faiss_form_flipped_anywhere(void **state)
{
    (void)state;
    struct bytes good = faiss_form();
    for (size_t bit = 0; bit < good.n * 8; bit++) {
        struct bytes b = good;
        struct graph g;
        struct scored out[N];
        b.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (from_faiss(&g, &b, b.n) == 0) { /* a flip may also make another valid graph */
            assert_in_range(walk(&g, out), 1, N);
            graph_release(&g);
        }
    }
}

static void damaged_links_are_found(void **state)
{
    (void)state;
    struct graph good;
    struct bytes b = faiss_form();
    assert_int_equal(from_faiss(&good, &b, b.n), 0);
    int32_t *links = (int32_t *)good.links;
    int32_t *upper = (int32_t *)good.upper;
    uint32_t *start = (uint32_t *)good.upper_start;
    struct {
        int32_t *at;
        int32_t value;
    } cases[] = {
        {&links[0], N},
        {&links[0], -2},
        {&links[N * WIDTH - 4], INT32_MAX},
        {&upper[0], 0},
        {&upper[4], 2},
        {&upper[0], N},
        {(int32_t *)&start[0], 1},
        {(int32_t *)&start[1], 2},
        {(int32_t *)&start[3], 1},
        {(int32_t *)&start[4], -2},
        {(int32_t *)&start[5], 0},
    };
    assert_int_equal(graph_check(&good, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = ERR_INIT;
        int32_t before = *cases[i].at;
        *cases[i].at = cases[i].value;
        assert_int_equal(graph_check(&good, &e), -1);
        assert_true(err_isset(&e));
        *cases[i].at = before;
    }
    struct graph fields[] = {good, good, good, good, good, good};
    fields[0].entry = N;
    fields[1].entry = 0; /* has no upper level */
    fields[2].max_level = 3;
    fields[3].width = 3;
    fields[4].width = 2048;
    fields[5].n = 0;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        assert_int_equal(graph_check(&fields[i], NULL), -1);
    }
    graph_release(&good);
}

/* NaN scores (an overflow of infinities) neither end nor derail a walk. */
static void scores_that_are_not_numbers(void **state)
{
    (void)state;
    struct graph g;
    struct bytes b = faiss_form();
    assert_int_equal(from_faiss(&g, &b, b.n), 0);
    float data[N * 2] = {1, 1, INFINITY, -INFINITY, 3, 3, 4, 4, INFINITY, -INFINITY};
    float query[2] = {1, 1};
    struct scored out[1];
    struct scored frontier[2];
    uint8_t visited[N] = {0};
    struct ann_vectors v = {data, N, 2};
    struct ann_workspace ws = {.capacity = 1, .candidates = out, .frontier = frontier, .visited = visited};
    for (int i = 0; i < 600; i++) { /* the epoch of the visited table wraps twice */
        size_t n = graph_search(&g, &v, &ws, query, 1);
        assert_in_range(n, 0, 1);
        assert_true(n == 0 || out[0].row == 3);
    }
    graph_release(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_and_walked),
        cmocka_unit_test(faiss_form_cut_anywhere),
        cmocka_unit_test(faiss_form_flipped_anywhere),
        cmocka_unit_test(damaged_links_are_found),
        cmocka_unit_test(scores_that_are_not_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
