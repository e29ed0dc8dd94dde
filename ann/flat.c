/*
 * The exact engine: score every row, keep the best. Oracle of the others and their last resort.
 *
 * A scan of a million vectors reads hundreds of megabytes once, so memory bandwidth is the limit and everything else
 * has to stay out of its way: rows are scored in blocks whose scores fit the first-level cache, and the heap is only
 * touched by scores above its current threshold. Excluded rows are scored like the others and then overwritten with
 * NaN, which the heap never keeps: a test per row would cost more than the wasted products, as users exclude
 * thousands of rows and a catalogue has millions.
 *
 * A row's score is computed by vec_dot_rows and by nothing else, here and where candidates are re-scored: the same
 * row then has the same bits whichever way a query was answered, and ties break the same way.
 */
#include <math.h>
#include <stdlib.h>

#include "ann/engine.h"
#include "core/vecmath.h"

void scores_blank(float *scores, size_t first, size_t rows, const struct ann_query *query, size_t *next_excluded)
{
    while (*next_excluded < query->n_exclude && query->exclude[*next_excluded] < first + rows) {
        scores[query->exclude[(*next_excluded)++] - first] = NAN;
    }
    for (size_t word = 0; query->allow != NULL && word * 64 < rows; word++) {
        uint64_t unwanted = ~query->allow[first / 64 + word];
        for (; unwanted != 0; unwanted &= unwanted - 1) {
            size_t i = word * 64 + (size_t)__builtin_ctzll(unwanted);
            if (i >= rows) { /* of the last word */
                break;
            }
            scores[i] = NAN;
        }
    }
}

static void scan_all(const struct ann_vectors *vectors, const struct ann_query *query, float *scores, struct topk *best)
{
    size_t next_excluded = 0;
    for (size_t first = 0; first < vectors->n; first += ANN_SCAN_ROWS) {
        size_t rows = vectors->n - first < ANN_SCAN_ROWS ? vectors->n - first : ANN_SCAN_ROWS;
        vec_dot_rows(scores, vectors->data + first * vectors->dim, rows, vectors->dim, query->vector);
        scores_blank(scores, first, rows, query, &next_excluded);
        topk_push_block(best, scores, rows, (uint32_t)first);
    }
}

static void score_picked(const struct ann_vectors *vectors, const struct ann_query *query, struct scored *picked,
                         size_t n, struct topk *best)
{
    vec_dot_picked(picked, n, vectors->data, vectors->dim, query->vector);
    for (size_t i = 0; i < n; i++) {
        topk_push(best, picked[i].score, picked[i].row);
    }
}

/* Only the rows that are allowed: few. */
static void scan_allowed(const struct ann_vectors *vectors, const struct ann_query *query, struct topk *best)
{
    enum { PICKED = 256, WORDS = 8 };
    struct scored picked[PICKED];
    const uint64_t *allow = query->allow;
    size_t words = (vectors->n + 63) / 64;
    size_t n = 0;
    size_t next_excluded = 0;
    for (size_t word = 0; word < words; word++) {
        while (word + WORDS <= words && (allow[word] | allow[word + 1] | allow[word + 2] | allow[word + 3] |
                                         allow[word + 4] | allow[word + 5] | allow[word + 6] | allow[word + 7]) == 0) {
            word += WORDS;
        }
        if (word == words) {
            break;
        }
        for (uint64_t bits = allow[word]; bits != 0; bits &= bits - 1) {
            uint32_t row = (uint32_t)(word * 64) + (uint32_t)__builtin_ctzll(bits);
            while (next_excluded < query->n_exclude && query->exclude[next_excluded] < row) {
                next_excluded++;
            }
            if (next_excluded == query->n_exclude || query->exclude[next_excluded] != row) {
                picked[n++].row = row;
            }
            if (n == PICKED) {
                score_picked(vectors, query, picked, n, best);
                n = 0;
            }
        }
    }
    score_picked(vectors, query, picked, n, best);
}

size_t flat_scan(const struct ann_vectors *vectors, const struct ann_query *query, float *scores, struct scored *hits)
{
    enum { FEW = 4 }; /* a row read by itself takes longer than one in order */
    struct topk best;
    topk_init(&best, hits, query->k);
    if (query->allow != NULL && query->n_allow < vectors->n / FEW) {
        scan_allowed(vectors, query, &best);
    } else {
        scan_all(vectors, query, scores, &best);
    }
    topk_sort(&best);
    while (best.n > 0 && hits[best.n - 1].score < query->min_score) {
        best.n--;
    }
    return best.n;
}

const struct ann_engine ann_flat_engine = {.name = "flat", .has_file = false, .exact = true};
