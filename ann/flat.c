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
#include "core/simd.h"
#include "core/vecmath.h"

void scores_blank(const struct ann *index, float *scores, size_t first, size_t rows, const struct ann_query *query,
                  size_t *next_excluded)
{
    for (; *next_excluded < query->n_exclude && query->exclude[*next_excluded] < first + rows; ++*next_excluded) {
        if (query->exclude[*next_excluded] >= first) {
            scores[query->exclude[*next_excluded] - first] = NAN;
        }
    }
    if (query->allow == NULL && !has_removed(index)) {
        return;
    }
    for (size_t word = 0; word * 64 < rows; word++) {
        uint64_t unwanted = removed_word(index, first / 64 + word);
        unwanted |= query->allow == NULL ? 0 : ~query->allow[first / 64 + word];
        for (; unwanted != 0; unwanted &= unwanted - 1) {
            size_t i = word * 64 + (size_t)__builtin_ctzll(unwanted);
            if (i >= rows) { /* of the last word */
                break;
            }
            scores[i] = NAN;
        }
    }
}

void flat_scan_piece(const struct ann *index, const struct ann_piece *piece, const struct ann_query *query,
                     float *scores, struct topk *best)
{
    size_t dim = index->vectors.dim;
    size_t next_excluded = 0;
    for (size_t at = 0; at < piece->n; at += ANN_SCAN_ROWS) {
        size_t rows = piece->n - at < ANN_SCAN_ROWS ? piece->n - at : ANN_SCAN_ROWS;
        vec_dot_rows(scores, piece->data + at * dim, rows, dim, query->vector);
        scores_blank(index, scores, piece->first + at, rows, query, &next_excluded);
        topk_push_block(best, scores, rows, (uint32_t)(piece->first + at));
    }
}

/* Leaves only the rows that their codes do not rule out. */
static size_t drop_hopeless(const struct ann *index, const struct ann_query *query, float norm, struct scored *picked,
                            size_t n, const struct topk *best)
{
    float floor = fmaxf(topk_threshold(best), query->min_score);
    size_t kept = 0;
    if (index->codes == NULL || floor == -INFINITY) {
        return n;
    }
    sq8_bound(index->codes, query->vector, norm, picked, n);
    for (size_t i = 0; i < n; i++) {
        picked[kept] = picked[i];
        kept += picked[i].score >= floor;
    }
    return kept;
}

/* `norm`: the query's length. */
static void score_picked(const struct ann *index, const struct ann_query *query, float norm, struct scored *picked,
                         size_t n, struct topk *best)
{
    n = drop_hopeless(index, query, norm, picked, n, best);
    index_score(index, query->vector, picked, n);
    for (size_t i = 0; i < n; i++) {
        topk_push(best, picked[i].score, picked[i].row);
    }
}

/* Appends the rows of a mask's word to rows, which has room for 64; returns how many. The first `few` are written whether they are
 * there or not: a processor can't foresee how many bits of a word are set. */
static inline __attribute__((always_inline)) size_t take_rows(uint64_t bits, size_t few, size_t word,
                                                              struct scored *rows)
{
    size_t n = (size_t)__builtin_popcountll(bits);
    uint32_t first = (uint32_t)(word * 64);
    for (size_t i = 0; i < few; i++) {
        rows[i].row = first + (uint32_t)__builtin_ctzll(bits | (uint64_t)1 << 63);
        bits &= bits - 1;
    }
    for (size_t i = few; i < n; i++) {
        rows[i].row = first + (uint32_t)__builtin_ctzll(bits);
        bits &= bits - 1;
    }
    return n;
}

/* Leaves out excluded rows; both ascend. */
static size_t drop_excluded(const struct ann_query *query, size_t *next_excluded, struct scored *picked, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        while (*next_excluded < query->n_exclude && query->exclude[*next_excluded] < picked[i].row) {
            ++*next_excluded;
        }
        picked[kept] = picked[i];
        kept += *next_excluded == query->n_exclude || query->exclude[*next_excluded] != picked[i].row;
    }
    return kept;
}

/* Only the rows that are allowed: few. (Clones: for the instructions that count and find bits.) */
SIMD_CLONES static void scan_allowed(const struct ann *index, size_t end, const struct ann_query *query,
                                     struct topk *best)
{
    enum { PICKED = 256, WORDS = 8 };
    struct scored picked[PICKED + 64];
    const uint64_t *allow = query->allow;
    float norm = vec_norm(query->vector, index->vectors.dim);
    size_t words = (end + 63) / 64;
    bool sparse = query->n_allow < words; /* one a word */
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
        uint64_t exists = end - word * 64 >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << (end - word * 64)) - 1;
        uint64_t wanted = allow[word] & exists & ~removed_word(index, word);
        n += sparse ? take_rows(wanted, 2, word, picked + n) : take_rows(wanted, 6, word, picked + n);
        if (n >= PICKED) {
            n = query->n_exclude == 0 ? n : drop_excluded(query, &next_excluded, picked, n);
            score_picked(index, query, norm, picked, n, best);
            n = 0;
        }
    }
    n = query->n_exclude == 0 ? n : drop_excluded(query, &next_excluded, picked, n);
    score_picked(index, query, norm, picked, n, best);
}

size_t flat_scan(const struct ann *index, size_t end, const struct ann_query *query, float *scores, struct scored *hits)
{
    enum { FEW = 4 }; /* a row read by itself takes longer than one in order */
    struct topk best;
    topk_init(&best, hits, query->k);
    if (query->allow != NULL && query->n_allow < end / FEW) {
        scan_allowed(index, end, query, &best);
    } else {
        struct ann_piece piece[ANN_PIECES];
        index_pieces(index, end, piece);
        for (size_t i = 0; i < ANN_PIECES; i++) {
            flat_scan_piece(index, &piece[i], query, scores, &best);
        }
    }
    topk_sort(&best);
    while (best.n > 0 && hits[best.n - 1].score < query->min_score) {
        best.n--;
    }
    return best.n;
}

const struct ann_engine ann_flat_engine = {.name = "flat", .has_file = false, .exact = true};
