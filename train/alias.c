/*
 * Every column of the table has the same area, filled by one outcome up to `keep` and by another above it. Columns are
 * made by pairing an outcome that has too little for its column with one that has too much.
 */
#include "train/alias.h"

#include "core/mem.h"

struct alias {
    uint32_t n;
    float *keep;
    uint32_t *other;
    float *probability;
};

/* `share` [n] is scaled so that 1 is the area of a column; used up. `stack` [n]: small ones from the front, large ones
 * from the back. */
static void fill_columns(struct alias *a, double *share, uint32_t *stack)
{
    uint32_t small = 0;
    uint32_t large = a->n;
    for (uint32_t i = 0; i < a->n; i++) {
        if (share[i] < 1) {
            stack[small++] = i;
        } else {
            stack[--large] = i;
        }
    }
    while (small > 0 && large < a->n) {
        uint32_t low = stack[--small];
        uint32_t high = stack[large];
        a->keep[low] = (float)share[low];
        a->other[low] = high;
        share[high] -= 1 - share[low];
        if (share[high] < 1) {
            stack[small++] = high;
            large++;
        }
    }
    /* what is left is 1 but for rounding: those columns belong to one outcome */
}

struct alias *alias_new(const double *weights, uint32_t n)
{
    struct alias *a = mem_array(1, sizeof *a);
    double *share = mem_array(n, sizeof *share);
    uint32_t *stack = mem_array(n, sizeof *stack);
    double total = 0;
    if (a != NULL) {
        a->n = n;
        a->keep = mem_array(n, sizeof *a->keep);
        a->other = mem_array(n, sizeof *a->other);
        a->probability = mem_array(n, sizeof *a->probability);
    }
    if (a == NULL || share == NULL || stack == NULL || a->keep == NULL || a->other == NULL || a->probability == NULL) {
        alias_free(a);
        a = NULL;
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) {
        total += weights[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        a->probability[i] = (float)(weights[i] / total);
        share[i] = weights[i] / total * n;
        a->keep[i] = 1;
        a->other[i] = i;
    }
    fill_columns(a, share, stack);
out:
    mem_free(share);
    mem_free(stack);
    return a;
}

void alias_free(struct alias *a)
{
    if (a == NULL) {
        return;
    }
    mem_free(a->keep);
    mem_free(a->other);
    mem_free(a->probability);
    mem_free(a);
}

uint32_t alias_draw(const struct alias *a, struct rng *r)
{
    uint32_t column = rng_below(r, a->n);
    return rng_uniform(r) < a->keep[column] ? column : a->other[column];
}

double alias_probability(const struct alias *a, uint32_t i)
{
    return (double)a->probability[i];
}
