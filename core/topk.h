/*
 * core/topk.h: the k best of a stream of scored rows.
 *
 * Order, everywhere in recalld: higher score first, equal scores by smaller row (rows are sorted by item id, so ties
 * go by item id). NaN scores are never kept. The caller owns `entries` [k]; nothing allocates. Not thread-safe.
 */
#ifndef CORE_TOPK_H
#define CORE_TOPK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct scored {
    float score;
    uint32_t row;
};

struct topk {
    struct scored *entries; /* [capacity], borrowed; a heap with the worst entry first until topk_sort */
    size_t capacity;
    size_t n;
};

/* True when a comes before b in the order above. */
static inline bool scored_before(struct scored a, struct scored b)
{
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

void topk_init(struct topk *t, struct scored *entries, size_t k);
void topk_push(struct topk *t, float score, uint32_t row);

/* Scores below this can't enter any more; -inf until the heap is full. For skipping in tight loops. */
float topk_threshold(const struct topk *t);

/* Offers scores[i] as row first_row + i. */
void topk_push_block(struct topk *t, const float *scores, size_t n, uint32_t first_row);

/* Sorts entries best first. The heap is spent: only reading t->entries[0 .. t->n) makes sense afterwards. */
void topk_sort(struct topk *t);

/* Moves the `wanted` first of entries [n], in the order above, to the front, themselves in any order. No NaN. */
void topk_select(struct scored *entries, size_t n, size_t wanted);

/* Oracle: sorts all n scores and returns how many of the first k were written to out [k]. */
size_t topk_naive(struct scored *out, size_t k, const float *scores, size_t n);

#endif
