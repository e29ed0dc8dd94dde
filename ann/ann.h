/*
 * ann/ann.h: the contract of every index engine: the rows of a matrix with the largest inner products.
 *
 * Cosine needs no metric of its own: its vectors are normalised before they come here. An engine is a row of the table
 * in ann.c and a file of its own; ann_search is the one way in, and adds what no engine has to know: exclusions, score
 * floors, exact re-scoring, the fall-back to an exact scan.
 *
 *   flat    exact: scans all vectors. The oracle of the others, and the way of last resort.
 *   native  ours: lists around centroids, 4-bit codes scanned in registers, exact re-ranking (ann/native.c).
 *   faiss   any index that faiss's index_factory makes (HNSW32, IVF1024,Flat, OPQ16,IVF1024,PQ16, ...).
 *
 * Vectors are borrowed, float32 [n, dim] row-major, n < 2^31, all finite, and must outlive the index. Scores returned
 * are inner products of the float vectors, whatever codes the engine keeps; order as in core/topk.h. A row has the same
 * score, to the bit, whichever way a query was answered on one machine.
 *
 * Effort is what a search spends for recall. For HNSW<M> graphs it is the width of the beam (efSearch), an argument of
 * every search, as is the number of lists that the native engine looks into. For other faiss factories the search
 * parameter (nprobe of IVF, efSearch of coded graphs) belongs to the index: ann_open, ann_set_effort and ann_tune set
 * it, and the effort of one search only deepens the re-ranking.
 *
 * Thread-safety: an open index is read-only; any number of threads may search it, each with its own workspace. Searching
 * allocates nothing, except inside faiss for factories other than HNSW<M>.
 *
 * Reproducible: the same vectors and factory, built with one thread, give the same file. faiss inserts into an HNSW
 * graph in whatever order its threads run, so with several the graphs differ, and some results with them.
 */
#ifndef ANN_ANN_H
#define ANN_ANN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/topk.h"

enum { ANN_EFFORT_MAX = 16384 }; /* larger efforts count as this one */

struct ann;           /* an index, opaque */
struct ann_workspace; /* what one searching thread needs, opaque */

struct ann_vectors {
    const float *data; /* [n, dim] row-major */
    size_t n;
    uint32_t dim;
};

/* NULL-terminated names of the engines compiled in: for configuration checks and --help. */
extern const char *const ann_engine_names[];

/* Called now and then during a build, from the building thread; done <= total, rows. May be NULL. */
typedef void ann_progress(void *arg, size_t done, size_t total);

struct ann_build_options {
    const char *engine;  /* one of ann_engine_names */
    const char *factory; /* faiss factory string; NULL or "": the engine's default */
    unsigned threads;    /* >= 1 */
    ann_progress *progress;
    void *progress_arg;
};

/* NULL on failure: unknown engine or factory, a vector that is not finite, too few of them to train, no memory. */
struct ann *ann_build(const struct ann_vectors *vectors, const struct ann_build_options *options, struct err *e);

/* Writes the index to a new file (an existing one is an error) and fsyncs it; an engine without a file (flat) writes
 * none. On failure no file is left. */
int ann_save(const struct ann *index, const char *path, struct err *e);
bool ann_has_file(const char *engine);

/* Opens a saved index over the same vectors: their number, dimension and a fingerprint of their values must match, and
 * the file's checksums. path is NULL for flat. `effort` is the default of searches that do not say one (0: the
 * engine's own). Graphs stay mapped, other faiss indexes are read into memory. */
struct ann *ann_open(const char *engine, const char *path, const struct ann_vectors *vectors, size_t effort,
                     struct err *e);
void ann_free(struct ann *index);

const char *ann_engine_name(const struct ann *index);
size_t ann_bytes(const struct ann *index);             /* memory of the index itself, without the borrowed vectors */
size_t ann_effort(const struct ann *index);            /* the effort in force: never 0, except for flat */
bool ann_effort_is_free(const struct ann *index);      /* it is an argument of each search, see above */
void ann_set_effort(struct ann *index, size_t effort); /* before the index is shared between threads */

/* For searches of this index, of up to max_k results. NULL without memory. Belongs to the thread that calls this: make
 * it there (faiss keeps its number of threads per calling thread; it is set to one). */
struct ann_workspace *ann_workspace_new(const struct ann *index, size_t max_k, struct err *e);
void ann_workspace_free(struct ann_workspace *ws);

enum ann_strategy { ANN_STRATEGY_ANN, ANN_STRATEGY_FILTERED_ANN, ANN_STRATEGY_EXACT };
extern const char *const ann_strategy_words[]; /* "ann", "filtered_ann", "exact" */

struct ann_query {
    const float *vector;     /* [dim] */
    size_t k;                /* 1 .. max_k of the workspace; an exact query may ask for more */
    size_t effort;           /* see above; 0: the index's default */
    bool exact;              /* scan everything */
    float min_score;         /* -INFINITY: no floor */
    const uint32_t *exclude; /* rows never to return: ascending, unique; [n_exclude] */
    size_t n_exclude;
    const uint64_t *allow; /* rows that may be returned: bit row % 64 of word row / 64; NULL: all. No bits beyond n */
    size_t n_allow;        /* how many bits are set */
};

struct ann_answer {
    size_t n;                   /* results written */
    bool complete;              /* n == k; false only when fewer than k rows satisfy the query at all */
    enum ann_strategy strategy; /* ANN, FILTERED_ANN (under `allow`, or excluded candidates were dropped), EXACT */
};

/* hits [k], best first. Fails only on a query that breaks the rules above (k, NaN or infinity, order of exclusions),
 * with nothing written. The engine proposes, this function decides: an exact scan of the allowed rows answers when it is cheaper
 * than enough candidates would be, and whenever the candidates leave fewer than k results (few rows above min_score, for
 * example), so that `complete` can be relied on. */
int ann_search(const struct ann *index, struct ann_workspace *ws, const struct ann_query *query, struct scored *hits,
               struct ann_answer *answer, struct err *e);

/* Scores picked [n] rows that the index has, or had: what searches say of them, to the bit. Their order stays. A row that is
 * ANN_NO_ROW gets NaN. */
#define ANN_NO_ROW UINT32_MAX
void ann_score(const struct ann *index, const float *vector, struct scored *picked, size_t n);

/* Several queries at once, for callers that have them: the same answers as one by one, exact ones to the bit; of approximate ones
 * the native engine may look into another list where two centroids are as near. Exact queries share a scan, at a fraction of its
 * cost each. hits[i] has room for queries[i].k. A batch belongs to one thread, like a workspace, and holds one: a caller that has one
 * query now and several then needs nothing else. */
struct ann_batch;
struct ann_batch *ann_batch_new(const struct ann *index, size_t max_k, struct err *e);
void ann_batch_free(struct ann_batch *b);
int ann_search_batch(const struct ann *index, struct ann_batch *b, const struct ann_query *queries, size_t count,
                     struct scored *const *hits, struct ann_answer *answers, struct err *e);

/* --- changes while others search ---
 *
 * Rows are added behind the others and removed by their number. A search sees the rows that were there when it began: all that had
 * been added, without any that had been removed. Changes are made by one thread at a time; searches go on meanwhile, without
 * locks. They are not part of the index's file. */

/* Makes room for that many rows to come: their memory is taken as it is needed. Once, before the index is shared between threads and
 * before workspaces are made for it. After a failure the index is as it was. */
int ann_make_room(struct ann *index, size_t room, struct err *e);

/* Row numbers are below ann_rows, now, and below ann_rows_most for ever: so large are `allow` masks. Not each is a row: added ones
 * begin at a multiple of 64, and removed ones keep their number. */
size_t ann_rows(const struct ann *index);
size_t ann_rows_most(const struct ann *index);
size_t ann_rows_live(const struct ann *index); /* neither removed nor gaps */
size_t ann_room(const struct ann *index);      /* rows that can still be added */

/* Adds vectors [n, dim], as rows *first_row, *first_row + 1, ...: the value of ann_rows before. They become visible together. On
 * failure (no room, a number that is not finite) nothing was added. */
int ann_add(struct ann *index, const float *vectors, size_t n, uint32_t *first_row, struct err *e);

/* ann_add that removes the rows old [n_old] in the same moment: they are earlier versions of some of the vectors. */
int ann_replace(struct ann *index, const float *vectors, size_t n, const uint32_t *old, size_t n_old,
                uint32_t *first_row, struct err *e);

/* A search during which rows are replaced may see the old one and the new, or neither. Who can't have that asks for the generation
 * before the search, and after it whether it is settled: if not, search again. */
size_t ann_generation(const struct ann *index);
bool ann_is_settled(const struct ann *index, size_t generation);

/* No search that begins from now on returns the row. False if it is none, or was removed before. */
bool ann_remove(struct ann *index, uint32_t row);

bool ann_is_live(const struct ann *index, uint32_t row); /* neither removed nor a gap nor still to come */

/* [dim] of a row, removed or not; borrowed. NULL if there is no such row. */
const float *ann_vector(const struct ann *index, uint32_t row);

/* Whether ann_compact can do something for the index: native ones with room. Of others added rows are scanned. */
bool ann_can_compact(const struct ann *index);
size_t ann_overhead(const struct ann *index); /* rows that were added or removed since it was built */

/* A new index over the same rows, with the same numbers, built from those that live: searches cost what they did before any changes.
 * As long as ann_build, on options->threads; other threads may search and change `index` meanwhile. Then the thread that
 * makes changes calls ann_catch_up for the new one, and makes all further changes to that. Either may be freed first; both
 * borrow the vectors that the first was made of. NULL without memory. */
struct ann *ann_compact(const struct ann *index, const struct ann_build_options *options, struct err *e);
void ann_catch_up(struct ann *index);

/* What one effort gives. Recall is against the exact engine: the share of a query's true k rows (or n, if less) that were
 * found, averaged over queries; a row that ties with the last true one counts as true. */
struct ann_point {
    size_t effort;
    double recall;
    double low; /* lower end of its one-sided 95 % interval over the queries: what fresh ones may be promised */
    double microseconds; /* a query, of one thread, while as many as were asked for searched */
};

/* The exact answers to queries, found once, for measuring any number of indexes over the same vectors. Borrows both. */
struct ann_truth; /* opaque */
struct ann_truth *ann_truth_new(const struct ann_vectors *vectors, const float *queries, size_t count, size_t k,
                                unsigned threads, struct err *e);
void ann_truth_free(struct ann_truth *truth);

/* Searches all queries at an effort (0: the default). threads >= 1; the calling thread is one of them. */
int ann_measure(const struct ann *index, const struct ann_truth *truth, size_t effort, unsigned threads,
                struct ann_point *point, struct err *e);

/* All in one: recall of `count` queries [count, dim]. */
int ann_measure_recall(const struct ann *index, const float *queries, size_t count, size_t k, size_t effort,
                       unsigned threads, double *recall, struct err *e);

/* What ann_tune found, and measured on its way. */
enum { ANN_LADDER_POINTS = 32, ANN_TUNE_POINTS = 48 };
struct ann_tuning {
    size_t effort;                            /* the index's default from now on; 0 for flat */
    double recall;                            /* what it gives */
    bool reached;                             /* the target */
    size_t n;                                 /* 0 for flat */
    struct ann_point points[ANN_TUNE_POINTS]; /* effort ascending */
};

/* The first point whose `low` reaches a target; n without one. */
size_t ann_tuning_find(const struct ann_tuning *tuning, double target);

/* Finds the least efforts whose `low` reaches each of the targets, on a ladder whose steps grow by half, and sets that of the
 * first as the index's default. The ladder goes on until recall has nothing left to gain, so that efforts for other targets
 * can be read from the points. When no effort reaches the first target, the largest tried is set. Not while other threads
 * search the index. */
int ann_tune(struct ann *index, const struct ann_truth *truth, const double *targets, size_t n_targets,
             unsigned threads, struct ann_tuning *result, struct err *e);

#endif
