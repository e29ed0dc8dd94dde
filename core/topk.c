#include "core/topk.h"

#include <math.h>
#include <stdbool.h>

#include "core/simd.h"

/* --- the heap --------------------------------------------------------------------------------------------------------- */

void topk_init(struct topk *t, struct scored *entries, size_t k)
{
    t->entries = entries;
    t->capacity = k;
    t->n = 0;
}

float topk_threshold(const struct topk *t)
{
    if (t->capacity == 0) {
        return INFINITY;
    }
    return t->n < t->capacity ? -INFINITY : t->entries[0].score;
}

static void sift_down(struct scored *heap, size_t n, struct scored value)
{
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && scored_before(heap[child], heap[child + 1])) {
            child++; /* the worse of the two */
        }
        if (!scored_before(value, heap[child])) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = value;
}

void topk_push(struct topk *t, float score, uint32_t row)
{
    struct scored value = {score, row};
    if (isnan(score) || t->capacity == 0) {
        return;
    }
    if (t->n == t->capacity) {
        if (scored_before(value, t->entries[0])) {
            sift_down(t->entries, t->n, value);
        }
        return;
    }
    size_t i = t->n++;
    while (i > 0 && scored_before(t->entries[(i - 1) / 2], value)) {
        t->entries[i] = t->entries[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->entries[i] = value;
}

/* The first i in [i, n) whose score is at least the threshold; n without one. Scores are mostly below it: GROUP are looked at
 * together. */
SIMD_CLONES static size_t next_reaching(const float *scores, size_t i, size_t n, float threshold)
{
    enum { GROUP = 32 };
    typedef int64_t wide __attribute__((vector_size(32), aligned(4), may_alias));
    for (; i + GROUP <= n; i += GROUP) {
        const vec8 *x = (const vec8 *)(const void *)(scores + i);
        ivec8 some = (x[0] >= threshold) | (x[1] >= threshold) | (x[2] >= threshold) | (x[3] >= threshold);
        wide any = (wide)some;
        if ((any[0] | any[1] | any[2] | any[3]) != 0) {
            break;
        }
    }
    while (i < n && !(scores[i] >= threshold)) {
        i++;
    }
    return i;
}

void topk_push_block(struct topk *t, const float *scores, size_t n, uint32_t first_row)
{
    for (size_t i = 0; (i = next_reaching(scores, i, n, topk_threshold(t))) < n;
         i++) { /* equal: a smaller row may win */
        topk_push(t, scores[i], first_row + (uint32_t)i);
    }
}

/* --- order ---------------------------------------------------------------------------------------------------------- */

static void swap(struct scored *a, struct scored *b)
{
    struct scored kept = *a;
    *a = *b;
    *b = kept;
}

/* A range of entries, both ends included; empty when last < first. */
struct span {
    ptrdiff_t first, last;
};

/* Splits a span of two at least by the value of one of them (Hoare; the median of three against sorted input): what is in
 * `before` is not after what is in `after`; what is in neither is where it belongs. */
static void split(struct scored *entries, struct span all, struct span *before, struct span *after)
{
    ptrdiff_t i = all.first;
    ptrdiff_t j = all.last;
    struct scored *middle = &entries[i + (j - i) / 2];
    if (scored_before(*middle, entries[i])) {
        swap(middle, &entries[i]);
    }
    if (scored_before(entries[j], entries[i])) {
        swap(&entries[j], &entries[i]);
    }
    if (scored_before(entries[j], *middle)) {
        swap(&entries[j], middle);
    }
    struct scored pivot = *middle;
    while (i <= j) {
        while (scored_before(entries[i], pivot)) {
            i++;
        }
        while (scored_before(pivot, entries[j])) {
            j--;
        }
        if (i <= j) {
            swap(&entries[i++], &entries[j--]);
        }
    }
    *before = (struct span){all.first, j};
    *after = (struct span){i, all.last};
}

static void sort(struct scored *entries, struct span all)
{
    enum { FEW = 16 };
    while (all.last - all.first >= FEW) { /* the smaller part by a call of its own: depth is logarithmic */
        struct span before, after;
        split(entries, all, &before, &after);
        bool first_smaller = before.last - before.first < after.last - after.first;
        sort(entries, first_smaller ? before : after);
        all = first_smaller ? after : before;
    }
    for (ptrdiff_t i = all.first + 1; i <= all.last; i++) {
        struct scored value = entries[i];
        ptrdiff_t j = i;
        for (; j > all.first && scored_before(value, entries[j - 1]); j--) {
            entries[j] = entries[j - 1];
        }
        entries[j] = value;
    }
}

/* Moves the entries of bin `least` and above to the front, without a branch; returns how many. */
static size_t move_bins(struct scored *entries, size_t n, float low, float scale, int least)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct scored here = entries[i];
        entries[i] = entries[kept];
        entries[kept] = here;
        kept += (int)((here.score - low) * scale) >= least;
    }
    return kept;
}

/* Narrows the span in which the last wanted entry lies by counting scores in bins between the least and the largest: comparing, a
 * processor guesses half of all branches wrongly. What it leaves are the entries of one bin. */
static struct span narrow(struct scored *entries, size_t n, size_t wanted)
{
    enum { BINS = 512 };
    uint16_t count[BINS] = {0};
    float low = entries[0].score;
    float high = low;
    for (size_t i = 1; i < n; i++) {
        low = entries[i].score < low ? entries[i].score : low;
        high = entries[i].score > high ? entries[i].score : high;
    }
    float scale = high > low ? (float)(BINS - 1) / (high - low) : 0;
    if (!isfinite(scale) || scale == 0) {
        return (struct span){0, (ptrdiff_t)n - 1};
    }
    for (size_t i = 0; i < n; i++) {
        count[(int)((entries[i].score - low) * scale)]++;
    }
    int border = BINS - 1; /* the bin of the last wanted one */
    for (size_t left = wanted; count[border] < left; border--) {
        left -= count[border];
    }
    size_t kept = move_bins(entries, n, low, scale, border);
    size_t above = move_bins(entries, kept, low, scale, border + 1);
    return (struct span){(ptrdiff_t)above, (ptrdiff_t)kept - 1};
}

void topk_select(struct scored *entries, size_t n, size_t wanted)
{
    enum { FEW = 64, MANY = UINT16_MAX };
    struct span all = {0, (ptrdiff_t)n - 1};
    ptrdiff_t border = (ptrdiff_t)wanted - 1; /* the last wanted one */
    if (wanted == 0 || wanted >= n) {
        return;
    }
    if (n >= FEW && n <= MANY) {
        all = narrow(entries, n, wanted);
    }
    while (all.first < all.last) {
        struct span before, after;
        split(entries, all, &before, &after);
        if (border <= before.last) {
            all = before;
        } else if (border >= after.first) {
            all = after;
        } else {
            return;
        }
    }
}

void topk_sort(struct topk *t)
{
    sort(t->entries, (struct span){0, (ptrdiff_t)t->n - 1});
}

size_t topk_naive(struct scored *out, size_t k, const float *scores, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct scored value = {scores[i], (uint32_t)i};
        if (isnan(scores[i])) {
            continue;
        }
        size_t at = kept;
        while (at > 0 && scored_before(value, out[at - 1])) {
            at--;
        }
        if (at >= k) {
            continue;
        }
        kept += kept < k;
        for (size_t j = kept - 1; j > at; j--) {
            out[j] = out[j - 1];
        }
        out[at] = value;
    }
    return kept;
}
