#include "ann/ivf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/simd.h"
#include "core/topk.h"
#include "core/vecmath.h"

enum {
    SEED = 1,
    ROWS_A_LIST = 64, /* of the sample that centroids are found with */
    LLOYD_ROUNDS = 8,
    CODED_ROWS = 32768, /* of the sample that the centers of codes are found with */
};

/* Weight of the part of the second residual that points along the first; the paper's lambda. */
static const float SPILL = 1.0f;

struct build {
    const struct ann_vectors *v;
    unsigned threads;
    uint32_t n_lists;
    float *centroids; /* [n_lists, dim] */
    float *half_norm; /* [n_lists] half of each centroid's squared length */
    float *sample;    /* [n_sample, dim] */
    size_t n_sample;
    uint32_t *list[2];         /* [n] first and second list of each row */
    struct ivf_assign *assign; /* by worker */
};

/* A search reads the codes of all centroids and those of the rows of some lists: least when there are about sqrt(2 n lists that
 * are looked into), and these grow with n, too. */
static uint32_t lists_for(size_t n)
{
    double root = cbrt((double)n);
    double lists = fmin(root * root / 2.5 + 1, (double)n / 32 + 1);
    return (uint32_t)fmin(lists, IVF_LISTS_MAX);
}

/* --- which lists rows belong to ------------------------------------------------------------------------------------ */

void ivf_half_norms(const float *centroids, uint32_t n_lists, uint32_t dim, float *half_norm)
{
    for (uint32_t j = 0; j < n_lists; j++) {
        const float *c = centroids + (size_t)j * dim;
        half_norm[j] = 0.5f * vec_dot(c, c, dim);
    }
}

int ivf_assign_init(struct ivf_assign *a, const float *centroids, const float *half_norm, uint32_t n_lists,
                    uint32_t dim, struct err *e)
{
    *a = (struct ivf_assign){centroids, half_norm, n_lists, dim, NULL, NULL};
    a->scores = mem_array((size_t)2 * IVF_ASSIGN_ROWS * n_lists, sizeof *a->scores);
    a->unit = mem_array((size_t)IVF_ASSIGN_ROWS * dim, sizeof *a->unit);
    return a->scores != NULL && a->unit != NULL ? 0 : err_nomem(e);
}

void ivf_assign_release(struct ivf_assign *a)
{
    mem_free(a->scores);
    mem_free(a->unit);
}

/* The least of lanes, the first where several are, into best and value if it is less, or as little and earlier. */
#define LEAST_OF_LANES(least, where, best, value)                                                                  \
    for (size_t lane_ = 0; lane_ < 8; lane_++) {                                                                   \
        bool less_ = (least)[lane_] < (value) || ((least)[lane_] == (value) && (uint32_t)(where)[lane_] < (best)); \
        (best) = less_ ? (uint32_t)(where)[lane_] : (best);                                                        \
        (value) = less_ ? (least)[lane_] : (value);                                                                \
    }

/* The list whose half_norm - score is least: the nearest. */
SIMD_CLONES static uint32_t nearest_list(const float *score, const float *half_norm, uint32_t n)
{
    ivec8 where = {0};
    ivec8 here = {0, 1, 2, 3, 4, 5, 6, 7};
    vec8 least = {0};
    least += INFINITY;
    uint32_t j = 0;
    for (; j + 8 <= n; j += 8, here += 8) {
        vec8 cost = *(const vec8 *)(const void *)(half_norm + j) - *(const vec8 *)(const void *)(score + j);
        ivec8 less = cost < least;
        least = (vec8)((less & (ivec8)cost) | (~less & (ivec8)least));
        where = (less & here) | (~less & where);
    }
    uint32_t best = 0;
    float value = INFINITY;
    LEAST_OF_LANES(least, where, best, value);
    for (; j < n; j++) {
        float cost = half_norm[j] - score[j];
        best = cost < value ? j : best;
        value = cost < value ? cost : value;
    }
    return best;
}

/* The nearest centroid of each row of x [rows, dim]. */
static void find_nearest(const struct ivf_assign *a, const float *x, size_t rows, uint32_t *list)
{
    mat_mul_nt(a->scores, x, a->centroids, rows, a->n_lists, a->dim, false);
    for (size_t i = 0; i < rows; i++) {
        list[i] = nearest_list(a->scores + i * a->n_lists, a->half_norm, a->n_lists);
    }
}

/* The list that complements `first` best for x, whose unit residual is u: |x - c|^2 + SPILL (u.(x - c))^2 is least. */
SIMD_CLONES static uint32_t find_second(const struct ivf_assign *a, const float *score, const float *along, float own,
                                        uint32_t first)
{
    ivec8 where = {0};
    ivec8 here = {0, 1, 2, 3, 4, 5, 6, 7};
    vec8 least = {0};
    least += INFINITY;
    uint32_t n = a->n_lists;
    uint32_t j = 0;
    for (; j + 8 <= n; j += 8, here += 8) {
        vec8 parallel = own - *(const vec8 *)(const void *)(along + j);
        vec8 cost = 2 * (*(const vec8 *)(const void *)(a->half_norm + j) - *(const vec8 *)(const void *)(score + j)) +
                    SPILL * parallel * parallel;
        ivec8 less = (cost < least) & (here != (int32_t)first);
        least = (vec8)((less & (ivec8)cost) | (~less & (ivec8)least));
        where = (less & here) | (~less & where);
    }
    uint32_t best = first;
    float value = INFINITY;
    LEAST_OF_LANES(least, where, best, value);
    for (; j < n; j++) {
        float parallel = own - along[j];
        float cost = 2 * (a->half_norm[j] - score[j]) + SPILL * parallel * parallel;
        bool less = cost < value && j != first;
        best = less ? j : best;
        value = less ? cost : value;
    }
    return best;
}

void ivf_assign_rows(const struct ivf_assign *a, const float *x, size_t rows, uint32_t *first, uint32_t *second)
{
    size_t dim = a->dim;
    float *along = a->scores + (size_t)IVF_ASSIGN_ROWS * a->n_lists;
    find_nearest(a, x, rows, first);
    for (size_t i = 0; i < rows; i++) {
        memcpy(a->unit + i * dim, x + i * dim, dim * sizeof *a->unit);
        vec_add_scaled(a->unit + i * dim, a->centroids + first[i] * dim, -1.0f, dim);
    }
    vec_normalize_rows(a->unit, rows, dim, NULL);
    mat_mul_nt(along, a->unit, a->centroids, rows, a->n_lists, dim, false);
    for (size_t i = 0; i < rows; i++) {
        second[i] = find_second(a, a->scores + i * a->n_lists, along + i * a->n_lists,
                                vec_dot(a->unit + i * dim, x + i * dim, dim), first[i]);
    }
}

/* --- centroids ---------------------------------------------------------------------------------------------------- */

static void draw_sample(struct build *b)
{
    struct rng r;
    rng_seed(&r, SEED, 0);
    size_t left = b->n_sample;
    for (size_t i = 0; i < b->v->n && left > 0; i++) { /* Knuth's selection sampling: each row equally likely */
        if ((double)rng_uniform(&r) * (double)(b->v->n - i) < (double)left) {
            memcpy(b->sample + (b->n_sample - left) * b->v->dim, b->v->data + i * b->v->dim,
                   b->v->dim * sizeof *b->sample);
            left--;
        }
    }
    b->n_sample -= left;
}

static void assign_sample(void *arg, unsigned worker, size_t begin, size_t end)
{
    const struct build *b = arg;
    find_nearest(&b->assign[worker], b->sample + begin * b->v->dim, end - begin, b->list[0] + begin);
}

/* Means of the sample's rows by list; a list without rows gets a row of the largest one, nudged by the next round. */
static void move_centroids(struct build *b, uint32_t *count, struct rng *r)
{
    size_t dim = b->v->dim;
    memset(b->centroids, 0, b->n_lists * dim * sizeof *b->centroids);
    memset(count, 0, b->n_lists * sizeof *count);
    for (size_t i = 0; i < b->n_sample; i++) {
        count[b->list[0][i]]++;
        vec_add_scaled(b->centroids + b->list[0][i] * dim, b->sample + i * dim, 1.0f, dim);
    }
    for (uint32_t j = 0; j < b->n_lists; j++) {
        float *c = b->centroids + (size_t)j * dim;
        if (count[j] > 0) {
            vec_scale(c, 1.0f / (float)count[j], dim);
        } else {
            memcpy(c, b->sample + rng_below(r, (uint32_t)b->n_sample) * dim, dim * sizeof *c);
        }
    }
    ivf_half_norms(b->centroids, b->n_lists, b->v->dim, b->half_norm);
}

static int find_centroids(struct build *b, struct err *e)
{
    struct rng r;
    uint32_t *count = mem_array(b->n_lists, sizeof *count);
    if (count == NULL) {
        return err_nomem(e);
    }
    rng_seed(&r, SEED, 1);
    for (uint32_t j = 0; j < b->n_lists; j++) { /* the sample is in row order: evenly spread over it */
        size_t i = (size_t)j * b->n_sample / b->n_lists;
        memcpy(b->centroids + (size_t)j * b->v->dim, b->sample + i * b->v->dim, b->v->dim * sizeof(float));
    }
    ivf_half_norms(b->centroids, b->n_lists, b->v->dim, b->half_norm);
    for (int round = 0; round < LLOYD_ROUNDS; round++) {
        parallel_for(b->threads, b->n_sample, IVF_ASSIGN_ROWS, assign_sample, b);
        move_centroids(b, count, &r);
    }
    mem_free(count);
    return 0;
}

/* --- lists -------------------------------------------------------------------------------------------------------- */

static void assign_rows(void *arg, unsigned worker, size_t begin, size_t end)
{
    const struct build *b = arg;
    ivf_assign_rows(&b->assign[worker], b->v->data + begin * b->v->dim, end - begin, b->list[0] + begin,
                    b->list[1] + begin);
}

/* Where lists begin, and their rows, by row number; the second list counts only where it is another one. */
static int fill_lists(const struct build *b, struct ivf *f, struct err *e)
{
    uint32_t *start = mem_array((size_t)b->n_lists + 1, sizeof *start);
    uint32_t *next = mem_array((size_t)b->n_lists + 1, sizeof *next);
    uint32_t *size = mem_array(b->n_lists, sizeof *size);
    f->block_start = start;
    f->list_size = size;
    if (start == NULL || next == NULL || size == NULL) {
        mem_free(next);
        return err_nomem(e);
    }
    for (int copy = 0; copy < 2; copy++) {
        for (size_t i = 0; i < b->v->n; i++) {
            next[b->list[copy][i]] += copy == 0 || b->list[1][i] != b->list[0][i];
        }
    }
    for (uint32_t j = 0; j < b->n_lists; j++) {
        size[j] = next[j];
        start[j + 1] = start[j] + (next[j] + PQ_BLOCK - 1) / PQ_BLOCK;
        next[j] = start[j] * PQ_BLOCK; /* 2 n + 32 lists < 2^32 */
    }
    size_t places = (size_t)start[b->n_lists] * PQ_BLOCK;
    uint32_t *rows = mem_array(places, sizeof *rows);
    f->rows = rows;
    if (rows != NULL) {
        memset(rows, 0xff, places * sizeof *rows); /* IVF_NO_ROW */
        for (size_t i = 0; i < b->v->n; i++) {
            rows[next[b->list[0][i]]++] = (uint32_t)i;
            if (b->list[1][i] != b->list[0][i]) {
                rows[next[b->list[1][i]]++] = (uint32_t)i;
            }
        }
    }
    mem_free(next);
    return rows == NULL ? err_nomem(e) : 0;
}

/* --- codes -------------------------------------------------------------------------------------------------------- */

void ivf_residual(const struct ivf *f, const float *x, uint32_t list, float *to)
{
    memcpy(to, x, f->dim * sizeof *to);
    vec_add_scaled(to, f->centroids + (size_t)list * f->dim, -1.0f, f->dim);
}

static int train_codes(const struct build *b, struct ivf *f, struct err *e)
{
    size_t step = b->v->n / CODED_ROWS + 1;
    size_t n = (b->v->n + step - 1) / step;
    float *centers = mem_array(pq_centers_size(&f->pq), sizeof *centers);
    float *residual = mem_array(n * b->v->dim, sizeof *residual);
    f->pq.centers = centers;
    int rc = centers == NULL || residual == NULL ? err_nomem(e) : 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t row = i * step;
        ivf_residual(f, b->v->data + row * b->v->dim, b->list[i % 2][row], residual + i * b->v->dim);
    }
    if (rc == 0) {
        rc = pq_train(&f->pq, centers, residual, n, SEED, e);
    }
    mem_free(residual);
    return rc;
}

struct encoding {
    const struct ivf *f;
    const struct ann_vectors *v;
    uint8_t *codes;
    const struct ivf_assign *assign; /* by worker, for scratch memory */
};

static void encode_lists(void *arg, unsigned worker, size_t begin, size_t end)
{
    const struct encoding *job = arg;
    const struct ivf *f = job->f;
    uint8_t code[PQ_PARTS_MAX];
    for (size_t j = begin; j < end; j++) {
        for (size_t at = (size_t)f->block_start[j] * PQ_BLOCK; at < (size_t)f->block_start[j + 1] * PQ_BLOCK; at++) {
            if (f->rows[at] != IVF_NO_ROW) {
                float *residual = job->assign[worker].unit;
                ivf_residual(f, job->v->data + (size_t)f->rows[at] * f->dim, (uint32_t)j, residual);
                pq_encode(&f->pq, residual, code);
                pq_put(&f->pq, job->codes + at / PQ_BLOCK * pq_block_bytes(&f->pq), at % PQ_BLOCK, code);
            }
        }
    }
}

static int encode_rows(struct build *b, struct ivf *f, struct err *e)
{
    uint8_t *codes = mem_array(ivf_blocks(f), pq_block_bytes(&f->pq));
    f->codes = codes;
    if (codes == NULL) {
        return err_nomem(e);
    }
    struct encoding job = {f, b->v, codes, b->assign};
    parallel_for(b->threads, b->n_lists, 8, encode_lists, &job);
    return 0;
}

/* --- spread ------------------------------------------------------------------------------------------------------- */

enum { SPREAD_QUERIES = 96, SPREAD_FEW = 100, SPREAD_TIMES = 10, SPREAD_ROWS = 1024 };

struct spread {
    const struct build *b;
    size_t few, many; /* results */
    size_t n_queries;
    float *queries;         /* [n_queries, dim] rows of the index */
    float *scores;          /* [n_queries, SPREAD_ROWS or n_lists] */
    struct scored *nearest; /* [n_queries, many] */
    struct topk *best;      /* [n_queries] */
    uint32_t *rank;         /* [n_lists] of one query */
    struct scored *order;   /* [n_lists] */
};

static int compare_ranks(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* In how many lists, best centroid first, nine tenths of the first `n` results of a query are. `ranks` [n]. */
static double lists_needed(const struct spread *s, const struct topk *best, size_t n, uint32_t *ranks)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t first = s->rank[s->b->list[0][best->entries[i].row]];
        uint32_t second = s->rank[s->b->list[1][best->entries[i].row]];
        ranks[i] = first < second ? first : second;
    }
    qsort(ranks, n, sizeof *ranks, compare_ranks);
    size_t most = n * 9 / 10;
    return 1 + (double)ranks[most];
}

static void find_results(struct spread *s)
{
    const struct ann_vectors *v = s->b->v;
    for (size_t first = 0; first < v->n; first += SPREAD_ROWS) {
        size_t rows = v->n - first < SPREAD_ROWS ? v->n - first : SPREAD_ROWS;
        mat_mul_nt(s->scores, s->queries, v->data + first * v->dim, s->n_queries, rows, v->dim, false);
        for (size_t i = 0; i < s->n_queries; i++) {
            topk_push_block(&s->best[i], s->scores + i * rows, rows, (uint32_t)first);
        }
    }
}

static float measure(struct spread *s, uint32_t *ranks)
{
    const struct build *b = s->b;
    double few = 0;
    double many = 0;
    find_results(s);
    mat_mul_nt(s->scores, s->queries, b->centroids, s->n_queries, b->n_lists, b->v->dim, false);
    for (size_t i = 0; i < s->n_queries; i++) {
        struct topk order;
        topk_init(&order, s->order, b->n_lists);
        topk_push_block(&order, s->scores + i * b->n_lists, b->n_lists, 0);
        topk_sort(&order);
        topk_sort(&s->best[i]);
        memset(s->rank, 0, b->n_lists * sizeof *s->rank); /* of centroids without an order (NaN) */
        for (size_t j = 0; j < order.n; j++) {
            s->rank[s->order[j].row] = (uint32_t)j;
        }
        if (s->best[i].n == s->many) {
            few += lists_needed(s, &s->best[i], s->few, ranks);
            many += lists_needed(s, &s->best[i], s->many, ranks);
        }
    }
    double spread = few > 0 ? log(many / few) / log((double)s->many / (double)s->few) : 0;
    return (float)fmin(fmax(spread, 0), 1);
}

/* How results spread over lists, measured with rows of the index as queries. */
static int measure_spread(struct build *b, struct ivf *f, struct err *e)
{
    size_t many = SPREAD_FEW * SPREAD_TIMES < b->v->n / 2 ? SPREAD_FEW * SPREAD_TIMES : b->v->n / 2;
    struct spread s = {.b = b, .few = many / SPREAD_TIMES, .many = many};
    s.n_queries = SPREAD_QUERIES < b->v->n ? SPREAD_QUERIES : b->v->n;
    size_t wide = b->n_lists > SPREAD_ROWS ? b->n_lists : SPREAD_ROWS;
    float *spread = mem_array(1, sizeof *spread);
    uint32_t *ranks = mem_array(many, sizeof *ranks);
    f->spread = spread;
    s.queries = mem_array(s.n_queries * b->v->dim, sizeof *s.queries);
    s.scores = mem_array(s.n_queries * wide, sizeof *s.scores);
    s.nearest = mem_array(s.n_queries * many, sizeof *s.nearest);
    s.best = mem_array(s.n_queries, sizeof *s.best);
    s.rank = mem_array(b->n_lists, sizeof *s.rank);
    s.order = mem_array(b->n_lists, sizeof *s.order);
    bool complete = spread != NULL && ranks != NULL && s.queries != NULL && s.scores != NULL && s.nearest != NULL &&
                    s.best != NULL && s.rank != NULL && s.order != NULL;
    if (complete) {
        for (size_t i = 0; i < s.n_queries; i++) {
            size_t row = i * b->v->n / s.n_queries;
            memcpy(s.queries + i * b->v->dim, b->v->data + row * b->v->dim, b->v->dim * sizeof *s.queries);
            topk_init(&s.best[i], s.nearest + i * many, many);
        }
        *spread = s.few > 0 ? measure(&s, ranks) : 0;
    }
    mem_free(ranks);
    mem_free(s.queries);
    mem_free(s.scores);
    mem_free(s.nearest);
    mem_free(s.best);
    mem_free(s.rank);
    mem_free(s.order);
    return complete ? 0 : err_nomem(e);
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */

static void build_release(struct build *b)
{
    for (unsigned i = 0; b->assign != NULL && i < b->threads; i++) {
        ivf_assign_release(&b->assign[i]);
    }
    mem_free(b->assign);
    mem_free(b->half_norm);
    mem_free(b->sample);
    mem_free(b->list[0]);
    mem_free(b->list[1]);
}

static int build_init(struct build *b, struct err *e)
{
    size_t dim = b->v->dim;
    b->n_sample = (size_t)b->n_lists * ROWS_A_LIST < b->v->n ? (size_t)b->n_lists * ROWS_A_LIST : b->v->n;
    b->half_norm = mem_array(b->n_lists, sizeof *b->half_norm);
    b->sample = mem_array(b->n_sample * dim, sizeof *b->sample);
    b->list[0] = mem_array(b->v->n, sizeof *b->list[0]);
    b->list[1] = mem_array(b->v->n, sizeof *b->list[1]);
    b->assign = mem_array(b->threads, sizeof *b->assign);
    bool complete = b->centroids != NULL && b->half_norm != NULL && b->sample != NULL && b->list[0] != NULL &&
                    b->list[1] != NULL && b->assign != NULL;
    for (unsigned i = 0; complete && i < b->threads; i++) {
        complete = ivf_assign_init(&b->assign[i], b->centroids, b->half_norm, b->n_lists, b->v->dim, e) == 0;
    }
    return complete ? 0 : err_nomem(e);
}

int ivf_build(struct ivf *f, const struct ann_vectors *vectors, const struct ann_build_options *options, struct err *e)
{
    *f = (struct ivf){.n = vectors->n, .dim = vectors->dim, .n_lists = lists_for(vectors->n)};
    f->pq = pq_shape(vectors->dim);
    struct build b = {.v = vectors, .threads = options->threads, .n_lists = f->n_lists};
    f->centroids = b.centroids = mem_array((size_t)f->n_lists * vectors->dim, sizeof *b.centroids);
    int rc = build_init(&b, e);
    if (rc == 0) {
        draw_sample(&b);
        rc = find_centroids(&b, e);
    }
    if (rc == 0) {
        parallel_for(b.threads, vectors->n, IVF_ASSIGN_ROWS, assign_rows, &b);
        rc = fill_lists(&b, f, e);
    }
    rc = rc == 0 ? measure_spread(&b, f, e) : rc;
    rc = rc == 0 ? train_codes(&b, f, e) : rc;
    rc = rc == 0 ? encode_rows(&b, f, e) : rc;
    build_release(&b);
    if (rc != 0) {
        ivf_release(f);
    }
    return rc;
}

void ivf_release(struct ivf *f)
{
    mem_free((void *)(uintptr_t)f->centroids);
    mem_free((void *)(uintptr_t)f->block_start);
    mem_free((void *)(uintptr_t)f->list_size);
    mem_free((void *)(uintptr_t)f->rows);
    mem_free((void *)(uintptr_t)f->codes);
    mem_free((void *)(uintptr_t)f->spread);
    mem_free((void *)(uintptr_t)f->pq.centers);
    *f = (struct ivf){0};
}

void ivf_renumber(struct ivf *f, const uint32_t *number)
{
    uint32_t *rows = (void *)(uintptr_t)f->rows;
    for (size_t place = 0; place < ivf_blocks(f) * PQ_BLOCK; place++) {
        rows[place] = rows[place] == IVF_NO_ROW ? IVF_NO_ROW : number[rows[place]];
    }
}

int ivf_check(const struct ivf *f, size_t blocks, struct err *e)
{
    if (blocks > UINT32_MAX / PQ_BLOCK) {
        return err_set(e, "the index has more than 2^32 places");
    }
    for (uint32_t j = 0; j < f->n_lists; j++) {
        if (f->block_start[j] > f->block_start[j + 1] || f->block_start[j + 1] > blocks) {
            return err_set(e, "list %u of the index ends before it begins, or behind the others", j);
        }
        size_t places = (size_t)(f->block_start[j + 1] - f->block_start[j]) * PQ_BLOCK;
        const uint32_t *rows = f->rows + (size_t)f->block_start[j] * PQ_BLOCK;
        if (f->list_size[j] > places || places - f->list_size[j] >= PQ_BLOCK) {
            return err_set(e, "the size of list %u of the index is not that of its blocks", j);
        }
        for (size_t i = 0; i < f->list_size[j]; i++) {
            if (rows[i] >= f->n) {
                return err_set(e, "row %u of the index does not exist", rows[i]);
            }
        }
    }
    if (f->block_start[0] != 0 || f->block_start[f->n_lists] != blocks) {
        return err_set(e, "the lists of the index do not fill its file");
    }
    if (!vec_is_finite(f->centroids, (size_t)f->n_lists * f->dim) ||
        !vec_is_finite(f->pq.centers, pq_centers_size(&f->pq))) {
        return err_set(e, "the index has numbers that are not finite");
    }
    if (!(*f->spread >= 0 && *f->spread <= 1)) {
        return err_set(e, "the spread of the index is not between 0 and 1");
    }
    return 0;
}
