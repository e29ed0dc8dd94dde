/*
 * ann/ivf.h: vectors in lists around centroids, with product codes of what is left (an inverted file: Jegou et al.,
 * TPAMI 2011).
 *
 * Every row is in the list of its nearest centroid, and a second time in the list whose residual is short and at right
 * angles to the first's (SOAR, Sun et al., NeurIPS 2023): a query that the first list serves badly is served well by the
 * second. Codes are of the residual, ann/pq.h.
 *
 * Building is deterministic for a seed, whatever the number of threads. What is built never changes.
 */
#ifndef ANN_IVF_H
#define ANN_IVF_H

#include <stddef.h>
#include <stdint.h>

#include "ann/ann.h"
#include "ann/pq.h"
#include "core/err.h"

enum { IVF_LISTS_MAX = 1 << 16 };

#define IVF_NO_ROW UINT32_MAX /* a place at the end of a list that is not used */

struct ivf {
    size_t n;
    uint32_t dim, n_lists;
    struct pq pq;
    const float *centroids;      /* [n_lists, dim] */
    const uint32_t *block_start; /* [n_lists + 1] in blocks of PQ_BLOCK places; ascending */
    const uint32_t *list_size;   /* [n_lists] places in use, from the first on */
    const uint32_t *rows;        /* [blocks, PQ_BLOCK] */
    const uint8_t *codes;        /* [blocks, pq_block_bytes] */
    const float *spread; /* [1] results x times as many lie in lists x^spread times as many: 0 to 1, by measurement */
};

static inline size_t ivf_blocks(const struct ivf *f)
{
    return f->block_start[f->n_lists];
}

/* n > 0 rows. Arrays are new: ivf_release. */
int ivf_build(struct ivf *f, const struct ann_vectors *vectors, const struct ann_build_options *options, struct err *e);
void ivf_release(struct ivf *f); /* only what ivf_build made; zeroed is fine */

/* Whatever a file says, no search may leave the arrays: lists ascend up to `blocks`, rows exist, numbers are finite. */
int ivf_check(const struct ivf *f, size_t blocks, struct err *e);

#endif
