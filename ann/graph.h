/*
 * ann/graph.h: a hierarchical navigable small world graph (Malkov & Yashunin, TPAMI 2020) to search.
 *
 * faiss builds the graph (ann/faiss.c); this holds its links, checks them, and walks them. Vectors are not part of it:
 * they are the index's borrowed ones. Searching is read-only and allocates nothing.
 */
#ifndef ANN_GRAPH_H
#define ANN_GRAPH_H

#include <stddef.h>
#include <stdint.h>

#include "ann/engine.h"
#include "core/err.h"

struct graph {
    size_t n;
    uint32_t width;              /* links of a row at level 0; at every upper level half of it */
    uint32_t max_level;          /* 0: only the ground level */
    uint32_t entry;              /* a row that has max_level levels above the ground */
    const int32_t *links;        /* [n, width] at level 0; -1: none, and none behind it */
    const uint32_t *upper_start; /* [n + 1] where a row's upper links begin in `upper`; ascending */
    const int32_t *upper;        /* [upper_start[n]]: width / 2 links for each upper level of each row */
};

/* Takes the links out of a serialised faiss index of type HNSW,Flat ("IHNf"): the first bytes of it, at least up to
 * the storage. Fills `links`, `upper_start` and `upper` with new arrays (graph_release). */
int graph_from_faiss(struct graph *g, const unsigned char *bytes, size_t size, size_t n, struct err *e);
void graph_release(struct graph *g); /* only what graph_from_faiss made */

/* Every link and offset in range and on the right level: then no search leaves the arrays. */
int graph_check(const struct graph *g, struct err *e);

/* Bytes of the three arrays, which stand one behind the other in a file. */
size_t graph_bytes(const struct graph *g);

/* The best `depth` rows that a search of this beam width finds, with exact scores, into ws->candidates, unsorted. */
size_t graph_search(const struct graph *g, const struct ann_vectors *vectors, struct ann_workspace *ws,
                    const float *query, size_t depth);

#endif
