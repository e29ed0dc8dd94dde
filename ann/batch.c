/*
 * Several queries at once.
 *
 * Approximate ones are searched one after the other: what they could share, the scores of all centroids, takes longer for all of
 * them by one product than finding the best few for each by codes.
 *
 * Exact ones share the scan: a block of rows times all queries is a matrix product, which reads the rows once and keeps the
 * processor's multipliers busy, where one query at a time waits for memory. But a product's sums differ from vec_dot_rows's
 * in their last bits, and a row must have the same score whichever way a query was answered. So the product only proposes:
 * each query keeps the best KEPT(k) rows by it, these are scored as everywhere else, and the k best of them are the answer if
 * no dropped row can belong to it: both sums are within dim * 2^-24 * |q| |x| of the true one (Higham, Accuracy and
 * Stability of Numerical Algorithms, 2002, 3.5), so a dropped row has at most the worst kept score and twice that. Where
 * too many rows are that close (duplicates by the thousand), the query is scanned by itself. So is one whose filter lets few
 * rows through: reading those takes less than its share of the product.
 */
#include <math.h>
#include <string.h>

#include "ann/engine.h"
#include "core/mem.h"
#include "core/vecmath.h"

enum {
    SHARED_QUERIES = 64,
    SHARED_ROWS = 1024,
    SHARED_KEPT = 1 << 17, /* rows kept by all queries of a scan together, unless one alone needs more */
    FEW_ALLOWED = 32       /* a filter that lets one row in so many through, or fewer, is better scanned by itself */
};

struct ann_batch {
    struct ann_workspace *ws;
    size_t max_k;
    float *vectors;        /* [SHARED_QUERIES, dim] */
    float *scores;         /* [SHARED_QUERIES, SHARED_ROWS] */
    struct scored *kept;   /* [kept_room(max_k)] */
    size_t *shared;        /* [SHARED_QUERIES] numbers of the queries that share a scan */
    struct topk *best;     /* [SHARED_QUERIES] */
    size_t *next_excluded; /* [SHARED_QUERIES] */
};

static size_t kept_for(size_t k)
{
    return k + k / 4 + 32;
}

static size_t kept_room(size_t max_k)
{
    size_t one = kept_for(max_k);
    size_t all = one < SHARED_KEPT / SHARED_QUERIES ? one * SHARED_QUERIES : SHARED_KEPT;
    return one > all ? one : all;
}

struct ann_batch *ann_batch_new(const struct ann *index, size_t max_k, struct err *e)
{
    struct ann_batch *b = mem_array(1, sizeof *b);
    if (b == NULL) {
        err_nomem(e);
        return NULL;
    }
    b->max_k = max_k;
    b->ws = ann_workspace_new(index, max_k, e);
    b->vectors = mem_array((size_t)SHARED_QUERIES * index->vectors.dim, sizeof *b->vectors);
    b->scores = mem_array((size_t)SHARED_QUERIES * SHARED_ROWS, sizeof *b->scores);
    b->kept = mem_array(kept_room(max_k), sizeof *b->kept);
    b->shared = mem_array(SHARED_QUERIES, sizeof *b->shared);
    b->best = mem_array(SHARED_QUERIES, sizeof *b->best);
    b->next_excluded = mem_array(SHARED_QUERIES, sizeof *b->next_excluded);
    if (b->ws == NULL || b->vectors == NULL || b->scores == NULL || b->kept == NULL || b->shared == NULL ||
        b->best == NULL || b->next_excluded == NULL) {
        err_nomem(e);
        ann_batch_free(b);
        return NULL;
    }
    return b;
}

void ann_batch_free(struct ann_batch *b)
{
    if (b == NULL) {
        return;
    }
    ann_workspace_free(b->ws);
    mem_free(b->vectors);
    mem_free(b->scores);
    mem_free(b->kept);
    mem_free(b->shared);
    mem_free(b->best);
    mem_free(b->next_excluded);
    mem_free(b);
}

/* Offers a block of rows to one query. */
static void offer_rows(const struct ann *index, struct ann_batch *b, const struct ann_query *query, size_t i,
                       size_t first, size_t rows)
{
    float *scores = b->scores + i * rows;
    scores_blank(index, scores, first, rows, query, &b->next_excluded[i]);
    topk_push_block(&b->best[i], scores, rows, (uint32_t)first);
}

/* The exact answer from what one query kept, or by a scan of its own. */
static size_t settle(const struct ann *index, size_t end, const struct ann_batch *b, const struct ann_query *query,
                     size_t i, float longest, struct scored *hits)
{
    uint32_t dim = index->vectors.dim;
    struct topk *kept = &b->best[i];
    struct topk best;
    float worst = topk_threshold(kept); /* of the kept; -INFINITY when no row was dropped */
    index_score(index, query->vector, kept->entries, kept->n);
    topk_init(&best, hits, query->k);
    for (size_t j = 0; j < kept->n; j++) {
        topk_push(&best, kept->entries[j].score, kept->entries[j].row);
    }
    float error = 2.02f * (float)dim * 0x1p-24f * vec_norm(query->vector, dim) * longest;
    bool dropped = worst > -INFINITY;
    if (!isfinite(error) || (dropped && !(topk_threshold(&best) > worst + error))) {
        return flat_scan(index, end, query, b->ws->scores, hits);
    }
    topk_sort(&best);
    while (best.n > 0 && hits[best.n - 1].score < query->min_score) {
        best.n--;
    }
    return best.n;
}

static void gather(struct ann_batch *b, const struct ann_vectors *v, const struct ann_query *queries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        memcpy(b->vectors + i * v->dim, queries[b->shared[i]].vector, v->dim * sizeof *b->vectors);
    }
}

/* Offers all rows of a piece to n queries; *longest is the largest squared length of a row so far. */
static void scan_piece(const struct ann *index, struct ann_batch *b, const struct ann_piece *piece,
                       const struct ann_query *queries, size_t n, float *longest)
{
    size_t dim = index->vectors.dim;
    memset(b->next_excluded, 0, n * sizeof *b->next_excluded);
    for (size_t at = 0; at < piece->n; at += SHARED_ROWS) {
        size_t rows = piece->n - at < SHARED_ROWS ? piece->n - at : SHARED_ROWS;
        const float *x = piece->data + at * dim;
        mat_mul_nt(b->scores, b->vectors, x, n, rows, dim, false);
        for (size_t i = 0; i < rows; i++) {
            *longest = fmaxf(*longest, vec_dot(x + i * dim, x + i * dim, dim));
        }
        for (size_t i = 0; i < n; i++) {
            offer_rows(index, b, &queries[b->shared[i]], i, piece->first + at, rows);
        }
    }
}

/* n <= SHARED_QUERIES queries, those that b->shared names; what they keep fits. */
static void scan_shared(const struct ann *index, struct ann_batch *b, const struct ann_query *queries, size_t n,
                        struct scored *const *hits, struct ann_answer *answers)
{
    float longest = 0;
    size_t end = ann_rows(index);
    struct scored *kept = b->kept;
    struct ann_piece piece[ANN_PIECES];
    gather(b, &index->vectors, queries, n);
    for (size_t i = 0; i < n; i++) {
        size_t wanted = kept_for(queries[b->shared[i]].k);
        topk_init(&b->best[i], kept, wanted);
        kept += wanted;
    }
    index_pieces(index, end, piece);
    for (size_t i = 0; i < ANN_PIECES; i++) {
        scan_piece(index, b, &piece[i], queries, n, &longest);
    }
    for (size_t i = 0; i < n; i++) {
        size_t number = b->shared[i];
        size_t found = settle(index, end, b, &queries[number], i, sqrtf(longest), hits[number]);
        answers[number] = (struct ann_answer){found, found == queries[number].k, ANN_STRATEGY_EXACT};
    }
}

/* Whether an exact answer comes from a shared scan. */
static bool is_scanned(const struct ann *index, const struct ann_query *query)
{
    return (query->exact || index->engine->exact) &&
           (query->allow == NULL || query->n_allow > index->vectors.n / FEW_ALLOWED);
}

/* Names in b->shared the next queries, from *next on, whose scan is shared and that fit together; returns how many. */
static size_t pick(const struct ann *index, struct ann_batch *b, const struct ann_query *queries, size_t count,
                   size_t *next)
{
    size_t n = 0;
    size_t kept = 0;
    for (; *next < count && n < SHARED_QUERIES; (*next)++) {
        const struct ann_query *query = &queries[*next];
        if (!is_scanned(index, query)) {
            continue;
        }
        kept += kept_for(query->k);
        if (n > 0 && kept > kept_room(b->max_k)) {
            break;
        }
        b->shared[n++] = *next;
    }
    return n;
}

int ann_search_batch(const struct ann *index, struct ann_batch *b, const struct ann_query *queries, size_t count,
                     struct scored *const *hits, struct ann_answer *answers, struct err *e)
{
    size_t scanned = 0;
    for (size_t i = 0; i < count; i++) {
        if (query_check(index, b->ws, &queries[i], e) != 0) {
            return err_prefix(e, "query %zu", i);
        }
        scanned += is_scanned(index, &queries[i]);
    }
    for (size_t i = 0; i < count; i++) {
        if ((scanned < 2 || !is_scanned(index, &queries[i])) &&
            ann_search(index, b->ws, &queries[i], hits[i], &answers[i], e) != 0) {
            return -1;
        }
    }
    size_t n;
    for (size_t next = 0; scanned >= 2 && (n = pick(index, b, queries, count, &next)) > 0;) {
        scan_shared(index, b, queries, n, hits, answers);
    }
    return 0;
}
