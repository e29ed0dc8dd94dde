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

size_t flat_scan(const struct ann_vectors *vectors, const struct ann_query *query, float *scores, struct scored *hits)
{
    struct topk best;
    topk_init(&best, hits, query->k);
    size_t next_excluded = 0;
    for (size_t first = 0; first < vectors->n; first += ANN_SCAN_ROWS) {
        size_t rows = vectors->n - first < ANN_SCAN_ROWS ? vectors->n - first : ANN_SCAN_ROWS;
        vec_dot_rows(scores, vectors->data + first * vectors->dim, rows, vectors->dim, query->vector);
        while (next_excluded < query->n_exclude && query->exclude[next_excluded] < first + rows) {
            scores[query->exclude[next_excluded++] - first] = NAN;
        }
        topk_push_block(&best, scores, rows, (uint32_t)first);
    }
    topk_sort(&best);
    while (best.n > 0 && hits[best.n - 1].score < query->min_score) {
        best.n--;
    }
    return best.n;
}

const struct ann_engine ann_flat_engine = {.name = "flat", .has_file = false, .exact = true};
