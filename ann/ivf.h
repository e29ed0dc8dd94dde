/*
 * ann/ivf.h: vectors in lists around centroids, with product codes of what is left (an inverted file: Jegou et al.,
 * TPAMI 2011).
 *
 * Every row is in the list of its nearest centroid, and a second time in the list whose residual is short and at right
 * angles to the first's (SOAR, Sun et al., NeurIPS 2023): a query that the first list serves badly is served well by the
 * second. Codes are of the residual, ann/pq.h.
 *
 * Building is deterministic for a seed, whatever the number of threads. What is built never changes; rows that come later stand in
 * tails (ann/tail.h).
 */
#ifndef ANN_IVF_H
#define ANN_IVF_H

#include <stddef.h>
#include <stdint.h>

#include "ann/ann.h"
#include "ann/pq.h"
#include "core/err.h"

enum { IVF_LISTS_MAX = 1 << 16, IVF_ASSIGN_ROWS = 128 };

#define IVF_NO_ROW UINT32_MAX /* a place at the end of a list that is not used */

struct ivf {
    size_t n;
    uint32_t dim, n_lists;
    struct pq pq;
    const float *centroids;      /* [n_lists, dim] */
    const uint32_t *block_start; /* [n_lists + 1] in blocks of PQ_BLOCK places; ascending */
    const uint32_t *list_size;   /* [n_lists] places in use, from the first on; in every block at least one */
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

/* Row i of what ivf_build made becomes row number[i]; [n] ascending. */
void ivf_renumber(struct ivf *f, const uint32_t *number);

/* Which lists rows belong to. One thread at a time. */
struct ivf_assign {
    const float *centroids, *half_norm; /* borrowed */
    uint32_t n_lists, dim;
    float *scores; /* [2 * IVF_ASSIGN_ROWS, n_lists] */
    float *unit;   /* [IVF_ASSIGN_ROWS, dim] */
};
int ivf_assign_init(struct ivf_assign *a, const float *centroids, const float *half_norm, uint32_t n_lists,
                    uint32_t dim, struct err *e);
void ivf_assign_release(struct ivf_assign *a); /* also after a failed init */

/* First and second list of each of x [rows <= IVF_ASSIGN_ROWS, dim]; twice the same where there is only one. */
void ivf_assign_rows(const struct ivf_assign *a, const float *x, size_t rows, uint32_t *first, uint32_t *second);

/* Half of each centroid's squared length, into half_norm [n_lists]. */
void ivf_half_norms(const float *centroids, uint32_t n_lists, uint32_t dim, float *half_norm);

/* x [dim] less a list's centroid: what is coded. */
void ivf_residual(const struct ivf *f, const float *x, uint32_t list, float *to);

/* Whatever a file says, no search may leave the arrays: lists ascend up to `blocks`, rows exist, numbers are finite. */
int ivf_check(const struct ivf *f, size_t blocks, struct err *e);

#endif
