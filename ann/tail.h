/*
 * ann/tail.h: rows added to the lists of an inverted file while it is searched.
 *
 * Every list has a tail: runs of a few blocks, laid out like the list's own, one after the other. A row is written behind the
 * last one, and then the tail's size is raised; searches look at as many rows as the size says. A full block is never
 * written again. In the last one codes share bytes with those of rows to come, so that searches copy it, word by word, before
 * they scan it.
 *
 * One thread at a time adds; any number search meanwhile, without locks. Memory is reserved at first and taken as it is needed.
 */
#ifndef ANN_TAIL_H
#define ANN_TAIL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "ann/ivf.h"
#include "core/err.h"

enum { TAIL_BLOCKS = 4, TAIL_PLACES = TAIL_BLOCKS * PQ_BLOCK }; /* of a run */

struct tail_list {
    _Atomic uint32_t size; /* places in use */
    uint32_t first_run;    /* defined where size > 0 */
    uint32_t last_run;     /* of the thread that adds */
};

struct tail {
    const struct ivf *f; /* borrowed */
    size_t runs_most;
    struct tail_list *lists; /* [n_lists] */
    uint32_t *next_run;      /* [runs_most] defined where the list goes on */
    uint32_t *rows;          /* [runs_most, TAIL_PLACES] */
    _Atomic uint64_t *codes; /* [runs_most, TAIL_BLOCKS, pq_block_bytes / 8] */

    /* of the thread that adds */
    uint32_t n_runs;
    float *half_norm; /* [n_lists] */
    struct ivf_assign assign;
    uint32_t list[2][IVF_ASSIGN_ROWS];
    uint8_t *block; /* [pq_block_bytes] */
};

/* For up to `room` rows. */
int tail_init(struct tail *t, const struct ivf *f, size_t room, struct err *e);
void tail_release(struct tail *t); /* also after a failed init, or zeroed */

/* Adds rows first_row, first_row + 1, ... with vectors x [n <= IVF_ASSIGN_ROWS, dim], no more in all than there is room for; then
 * t->list [2][n] has the lists they went to. */
void tail_add(struct tail *t, const float *x, size_t n, uint32_t first_row);

/* A piece of a list whose blocks stand together. */
struct stretch {
    const uint8_t *codes;
    const uint32_t *rows;
    size_t places;  /* in use; the last block may be part empty */
    uint32_t place; /* number of the first one: counted through all lists, then through all runs */
};

/* Goes through a list: its own blocks, and then its tail's. */
struct stretches {
    const struct ivf *f;
    const struct tail *t; /* NULL: no tails */
    uint32_t list;
    uint8_t *copy; /* [pq_block_bytes] for a block that is being written; 64-byte aligned */
    bool begun;
    size_t left; /* places of the tail */
    uint32_t run;
    size_t at; /* places of the run that were given */
};
bool stretches_next(struct stretches *s, struct stretch *stretch);

/* Asks for what tells where the tail is, and for its beginning. */
void tail_prefetch_head(const struct tail *t, uint32_t list);
void tail_prefetch(const struct tail *t, uint32_t list);

/* How many places of a list are in use. */
size_t tail_list_size(const struct ivf *f, const struct tail *t, uint32_t list);

/* The row at a place. */
static inline const uint32_t *place_row(const struct ivf *f, const struct tail *t, uint32_t place)
{
    size_t own = ivf_blocks(f) * PQ_BLOCK;
    return place < own ? &f->rows[place] : &t->rows[place - own];
}

#endif
