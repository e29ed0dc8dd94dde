/*
 * ann/engine.h: what an index engine is to ann.c. Only the files of ann/ include this.
 *
 * An engine proposes candidates: rows that are likely to be among the best `depth` for a query. Everything else
 * (exclusions, floors, exact scores, ties, too few candidates) is decided once, in ann.c. To add an engine: one file
 * with a `struct ann_engine`, one row in ann.c's table.
 */
#ifndef ANN_ENGINE_H
#define ANN_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ann/ann.h"
#include "ann/sq8.h"
#include "core/err.h"
#include "core/topk.h"

/* Efforts a tuner may try, both ends included. */
struct ann_effort_range {
    size_t first;
    size_t last;
};

/* What ann.c asks an engine for. */
struct engine_request {
    const float *vector;
    size_t effort; /* the search's, raised in proportion when more candidates are needed than depth() says */
    size_t depth;
    const uint64_t *allow; /* as in ann_query */
    size_t n_allow;        /* n without `allow` */
    size_t n;              /* rows that the engine has, and added ones */
    size_t end;            /* row numbers are below */
};

struct ann_engine {
    const char *name;
    bool has_file;
    bool exact; /* no proposals: ann.c scans. The functions below are NULL, except those that a comment requires */

    /* Fill index->state and index->bytes. On failure nothing is left behind. */
    int (*build)(struct ann *index, const struct ann_build_options *options, struct err *e);
    int (*open)(struct ann *index, const char *path, struct err *e);
    int (*save)(const struct ann *index, const char *path, struct err *e);
    void (*close)(struct ann *index); /* after a failed build or open, too: state may be NULL */

    /* Puts an effort into force and returns it, bounded to what makes sense; 0 asks for the engine's own default. */
    size_t (*set_effort)(struct ann *index, size_t effort);
    bool (*has_knob)(const struct ann *index); /* whether it is in force for all searches; NULL: it never is */
    struct ann_effort_range (*effort_range)(const struct ann *index, size_t k);

    /* How many candidates to ask for, for k results at this effort (>= 1). */
    size_t (*depth)(const struct ann *index, size_t k, size_t effort);

    /* What a search costs, in rows of an exact scan. */
    size_t (*cost)(const struct ann *index, const struct engine_request *request);

    /* Scratch memory beyond the common fields of the workspace, and set-up of the calling thread. */
    int (*workspace_init)(const struct ann *index, struct ann_workspace *ws, struct err *e);
    void (*workspace_release)(
        struct ann_workspace *ws); /* of a type of its own, also after a failed init; may be NULL */

    /* Fills ws->candidates with `depth` (<= ws->capacity) distinct rows or so in any order, and sets *scored when their
     * scores are exact inner products. Returns how many; 0 also when the engine failed (no memory). Without `masks`, rows
     * that are not allowed may be among them. */
    size_t (*search)(const struct ann *index, struct ann_workspace *ws, const struct engine_request *request,
                     bool *scored);
    bool masks;

    /* Changes while others search. make_room sets index->in_engine if the engine will find added rows itself; NULL, or not set:
     * ann.c scans them. `add` can't fail. */
    int (*make_room)(struct ann *index, struct err *e);
    void (*add)(struct ann *index, const float *vectors, size_t n, uint32_t first_row);

    /* Builds index->state anew from some rows: vectors [n, dim], whose numbers are rows [n], ascending. With make_room only. */
    int (*build_rows)(struct ann *index, const struct ann_vectors *vectors, const uint32_t *rows,
                      const struct ann_build_options *options, struct err *e);
};

/* What was added to an index and removed from it since it was built or opened. Shared by an index and those made of it by
 * ann_compact. */
struct ann_changes {
    atomic_uint owners;
    size_t room;    /* rows that can be added in all */
    size_t first;   /* number of the first of them: n, rounded up to whole words of a mask */
    float *vectors; /* [room, dim] */
    size_t dim;
    _Atomic size_t n_added;
    _Atomic size_t n_removed;
    _Atomic size_t generation; /* of replacements; odd while one is being made */
    _Atomic uint64_t *removed; /* [(first + room) / 64, rounded up] bit row % 64 of word row / 64 */
};

struct ann {
    const struct ann_engine *engine;
    struct ann_vectors vectors;
    size_t effort; /* the default of searches */
    size_t bytes;
    void *state;                 /* the engine's own */
    struct sq8 *codes;           /* of all rows, for scans of few; NULL: none */
    struct ann_changes *changes; /* NULL: the index never changes */
    bool in_engine;              /* added rows are, too */
    size_t given, built;         /* added rows that the engine has, and those of them that it was built with */
    size_t left_out;             /* removed rows that the engine does not have */
};

enum { ANN_SCAN_ROWS = 1024 }; /* rows scored at once by a scan: the scores stay in the first-level cache */

struct ann_workspace {
    size_t max_k;
    size_t capacity;           /* most candidates of one search */
    struct scored *candidates; /* [capacity] */
    float *scores;             /* [ANN_SCAN_ROWS] */

    struct scored *frontier; /* [2 * capacity], graph search: rows to expand */
    uint8_t *visited;        /* [n], graph search: equal to epoch when seen in this search */
    uint8_t epoch;

    int64_t *labels;  /* [capacity], faiss */
    float *distances; /* [capacity], faiss */

    struct native_scratch *native;
    const struct ann_engine *engine;
};

extern const struct ann_engine ann_flat_engine;
extern const struct ann_engine ann_faiss_engine;
extern const struct ann_engine ann_native_engine;

void changes_free(struct ann *index); /* index->changes, if there are any */

/* What every query must be: k, finite numbers, ascending exclusions. */
int query_check(const struct ann *index, const struct ann_workspace *ws, const struct ann_query *query, struct err *e);

/* Rows whose vectors stand together: those that the index was made of, and those that were added. */
struct ann_piece {
    const float *data; /* [n, dim] */
    size_t first, n;   /* row numbers first .. first + n - 1; `first` is a multiple of 64 */
};
enum { ANN_PIECES = 2 };
void index_pieces(const struct ann *index, size_t end, struct ann_piece piece[ANN_PIECES]);

/* Scores the rows of picked [n], as vec_dot_picked does; changes their order. */
void index_score(const struct ann *index, const float *query, struct scored *picked, size_t n);

/* Makes index->codes, of all rows. */
int index_encode(struct ann *index, unsigned threads, struct err *e);

/* The exact scan: the best k of the rows below `end` that the query wants, sorted, into hits [k]; returns how many. */
size_t flat_scan(const struct ann *index, size_t end, const struct ann_query *query, float *scores,
                 struct scored *hits);

/* The same of one piece, offered to `best`. */
void flat_scan_piece(const struct ann *index, const struct ann_piece *piece, const struct ann_query *query,
                     float *scores, struct topk *best);

/* Puts NaN in place of scores [rows], of rows from `first` on, that the query does not want: excluded ones, from number
 * *next_excluded on, which moves, those that are not allowed, and those that were removed. `first` is a multiple of 64. */
void scores_blank(const struct ann *index, float *scores, size_t first, size_t rows, const struct ann_query *query,
                  size_t *next_excluded);

/* Removed rows of a word of a mask. */
static inline uint64_t removed_word(const struct ann *index, size_t word)
{
    return index->changes == NULL ? 0 : atomic_load_explicit(&index->changes->removed[word], memory_order_acquire);
}

static inline bool row_is_removed(const struct ann *index, uint32_t row)
{
    return (removed_word(index, row / 64) >> row % 64 & 1) != 0;
}

/* Removed rows that the engine has. */
static inline size_t removed_since(const struct ann *index)
{
    size_t removed =
        index->changes == NULL ? 0 : atomic_load_explicit(&index->changes->n_removed, memory_order_relaxed);
    return removed < index->left_out ? 0 : removed - index->left_out; /* less: not seen yet by this thread */
}

static inline bool has_removed(const struct ann *index)
{
    return index->changes != NULL && atomic_load_explicit(&index->changes->n_removed, memory_order_relaxed) > 0;
}

static inline bool row_is_allowed(const uint64_t *allow, uint32_t row)
{
    return allow == NULL || (allow[row / 64] >> row % 64 & 1) != 0;
}

#endif
