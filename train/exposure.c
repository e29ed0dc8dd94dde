#include "train/exposure.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int exposure_of(const uint32_t *shown, const uint32_t *item_count, size_t n_items, struct exposure *x, struct err *e)
{
    double total = 0, popularity = 0, ranked = 0;
    size_t covered = 0;
    uint32_t *sorted = mem_array(n_items, sizeof *sorted);
    *x = (struct exposure){0};
    if (sorted == NULL) {
        return err_nomem(e);
    }
    memcpy(sorted, shown, n_items * sizeof *sorted);
    qsort(sorted, n_items, sizeof *sorted, compare);
    for (size_t i = 0; i < n_items; i++) {
        total += shown[i];
        popularity += (double)shown[i] * item_count[i];
        covered += shown[i] > 0;
        ranked += (2.0 * (double)i + 1.0 - (double)n_items) * sorted[i]; /* 2 i - n - 1 with i from 1 */
    }
    if (total > 0) {
        x->average_popularity = popularity / total;
        x->gini = ranked / ((double)n_items * total);
        x->coverage = (double)covered / (double)n_items;
    }
    mem_free(sorted);
    return 0;
}
