/*
 * The one way into every engine, and the planner of a search.
 *
 * An engine proposes candidates. The planner decides how many to ask for, and whether to ask at all:
 *
 *   base = what k results at the wanted effort take. When x excluded rows stand before the last result, the results lie at
 *   ranks up to k + x, and a search is only as good as its candidates are many for the rank it has to reach: so base * (k + x)
 *   / k candidates are needed to keep the recall of the effort. x is not known beforehand. The first attempt makes room for an
 *   eighth of base more; when more excluded rows turn up, the next one asks for what they need and a quarter more, as it will
 *   find more of them. An eighth too few is let pass: it costs a few thousandths of recall, another attempt as much time as
 *   the first. Of thousands of excluded rows most are nowhere near the top, and then cost nothing: only what stands among the best
 *   is looked up. Fewer candidates than were asked for don't mean that there are no more: the native engine merges the copies
 *   of a row. Removed rows are dropped like excluded ones; their share of all is made room for at once.
 *
 *   Under a filter, engines that can (`masks`) propose allowed rows only, and look wider for them by themselves; of others the
 *   candidates that are not allowed are dropped like excluded ones.
 *
 *   An exact scan answers instead when it is cheaper than the candidates (small catalogues, large k, thousands of
 *   exclusions that are all near), and when the results are fewer than k although rows may be left. That last rule is
 *   what makes `complete` honest: an approximate search that found 7 rows above a floor can't know that there is no
 *   eighth.
 *
 * Rejected: passing exclusions into the engines. faiss's C API has no way to, and a native walk that tests each row
 * it meets pays for the test on every row; dropping a few candidates afterwards is cheaper for the thousands of
 * exclusions a request may carry. Rejected too: trusting an engine's scores. Codes are approximate, and sums in another
 * order differ in the last bits, so that equal rows would change places between two ways of answering.
 */
#include "ann/ann.h"

#include <math.h>
#include <string.h>

#include "ann/engine.h"
#include "core/mem.h"
#include "core/simd.h"
#include "core/vecmath.h"

static const struct ann_engine *const ENGINES[] = {&ann_flat_engine, &ann_faiss_engine, &ann_native_engine};
enum {
    N_ENGINES = sizeof ENGINES / sizeof ENGINES[0],
    RERANK_ROOM = 12,
    FIRST_ROOM = 8,
    NEXT_ROOM = 4,
    SHORT = 8,       /* candidates may be so small a part too few */
    CODES_A_ROW = 2, /* ann/sq8.h */
    SCORED_TIMES = 6 /* k ln(n / k): how often a row enters the best k of n on the way through them */
};

const char *const ann_engine_names[] = {"flat", "faiss", "native", NULL}; /* as ENGINES */
const char *const ann_strategy_words[] = {"ann", "filtered_ann", "exact"};

/* --- life of an index ---------------------------------------------------------------------------------------------- */

static const struct ann_engine *engine_find(const char *name)
{
    for (size_t i = 0; i < N_ENGINES; i++) {
        if (strcmp(ENGINES[i]->name, name) == 0) {
            return ENGINES[i];
        }
    }
    return NULL;
}

static struct ann *index_new(const char *engine, const struct ann_vectors *vectors, struct err *e)
{
    const struct ann_engine *found = engine_find(engine);
    if (found == NULL) {
        err_set(e, "unknown index engine \"%s\": use flat, faiss or native", engine);
        return NULL;
    }
    if (vectors->n >= (size_t)1 << 31 || vectors->dim == 0 || vectors->dim > (uint32_t)1 << 20) {
        err_set(e, "%zu vectors of dimension %u can't be indexed (fewer than 2^31, of 1 to 2^20 numbers)", vectors->n,
                vectors->dim);
        return NULL;
    }
    struct ann *index = mem_array(1, sizeof *index);
    if (index == NULL) {
        err_nomem(e);
        return NULL;
    }
    index->engine = found;
    index->vectors = *vectors;
    return index;
}

static int vectors_check(const struct ann_vectors *v, struct err *e)
{
    for (size_t i = 0; i < v->n; i++) {
        if (!vec_is_finite(v->data + i * v->dim, v->dim)) {
            return err_set(e, "the vector of row %zu is not finite", i);
        }
    }
    return 0;
}

struct ann *ann_build(const struct ann_vectors *vectors, const struct ann_build_options *options, struct err *e)
{
    struct ann *index = index_new(options->engine, vectors, e);
    if (index == NULL) {
        return NULL;
    }
    if (vectors_check(vectors, e) != 0 ||
        (index->engine->build != NULL && index->engine->build(index, options, e) != 0)) {
        ann_free(index);
        return NULL;
    }
    ann_set_effort(index, 0);
    return index;
}

struct ann *ann_open(const char *engine, const char *path, const struct ann_vectors *vectors, size_t effort,
                     struct err *e)
{
    struct ann *index = index_new(engine, vectors, e);
    if (index == NULL) {
        return NULL;
    }
    if (index->engine->has_file && path == NULL) {
        err_set(e, "the %s engine needs an index file", engine);
        ann_free(index);
        return NULL;
    }
    if (index->engine->open != NULL && index->engine->open(index, path, e) != 0) {
        ann_free(index);
        return NULL;
    }
    ann_set_effort(index, effort);
    return index;
}

void ann_free(struct ann *index)
{
    if (index == NULL) {
        return;
    }
    if (index->engine->close != NULL) {
        index->engine->close(index);
    }
    changes_free(index);
    sq8_release(index->codes);
    mem_free(index);
}

int ann_save(const struct ann *index, const char *path, struct err *e)
{
    return index->engine->save != NULL ? index->engine->save(index, path, e) : 0;
}

bool ann_has_file(const char *engine)
{
    const struct ann_engine *found = engine_find(engine);
    return found != NULL && found->has_file;
}

const char *ann_engine_name(const struct ann *index)
{
    return index->engine->name;
}

size_t ann_bytes(const struct ann *index)
{
    return index->bytes;
}

size_t ann_effort(const struct ann *index)
{
    return index->effort;
}

bool ann_effort_is_free(const struct ann *index)
{
    return !index->engine->exact && (index->engine->has_knob == NULL || !index->engine->has_knob(index));
}

void ann_set_effort(struct ann *index, size_t effort)
{
    index->effort = index->engine->set_effort != NULL ? index->engine->set_effort(index, effort) : 0;
}

/* --- workspaces ---------------------------------------------------------------------------------------------------- */

struct ann_workspace *ann_workspace_new(const struct ann *index, size_t max_k, struct err *e)
{
    struct ann_workspace *ws = mem_array(1, sizeof *ws);
    if (ws == NULL) {
        err_nomem(e);
        return NULL;
    }
    ws->engine = index->engine;
    ws->max_k = max_k;
    ws->capacity = max_k > ANN_EFFORT_MAX / RERANK_ROOM ? max_k * RERANK_ROOM : ANN_EFFORT_MAX;
    if (ws->capacity > ann_rows_most(index)) {
        ws->capacity = ann_rows_most(index);
    }
    ws->scores = mem_array(ANN_SCAN_ROWS, sizeof *ws->scores);
    size_t scanned = max_k < ann_rows_most(index) ? max_k : ann_rows_most(index); /* of the added rows */
    ws->candidates = index->engine->exact ? NULL : mem_array(ws->capacity + scanned, sizeof *ws->candidates);
    if (ws->scores == NULL || (!index->engine->exact && ws->candidates == NULL)) {
        err_nomem(e);
    } else if (index->engine->workspace_init == NULL || index->engine->workspace_init(index, ws, e) == 0) {
        return ws;
    }
    ann_workspace_free(ws);
    return NULL;
}

void ann_workspace_free(struct ann_workspace *ws)
{
    if (ws == NULL) {
        return;
    }
    if (ws->engine->workspace_release != NULL) {
        ws->engine->workspace_release(ws);
    }
    mem_free(ws->candidates);
    mem_free(ws->scores);
    mem_free(ws->frontier);
    mem_free(ws->visited);
    mem_free(ws->labels);
    mem_free(ws->distances);
    mem_free(ws);
}

/* --- searching ----------------------------------------------------------------------------------------------------- */

/* Without a branch in the loop: there are thousands of rows, and all are in order. */
SIMD_CLONES static bool ascend(const uint32_t *rows, size_t n)
{
    enum { SOME = 8 };
    ivec8 wrong = {0};
    bool bad = false;
    size_t i = 1;
    for (; i + SOME <= n; i += SOME) {
        ivec8 before = *(const ivec8 *)(const void *)(rows + i - 1);
        ivec8 here = *(const ivec8 *)(const void *)(rows + i);
        wrong |= before >= here; /* rows are below 2^31 */
    }
    for (size_t j = 0; j < SOME; j++) {
        bad |= wrong[j] != 0;
    }
    for (; i < n; i++) {
        bad |= rows[i - 1] >= rows[i];
    }
    return !bad;
}

int query_check(const struct ann *index, const struct ann_workspace *ws, const struct ann_query *query, struct err *e)
{
    if (query->k == 0 || (query->k > ws->max_k && !query->exact)) {
        return err_set(e, "k is %zu, must be 1 to %zu", query->k, ws->max_k);
    }
    if (isnan(query->min_score)) {
        return err_set(e, "min_score is not a number");
    }
    if (!vec_is_finite(query->vector, index->vectors.dim)) {
        return err_set(e, "the query vector has numbers that are not finite");
    }
    return ascend(query->exclude, query->n_exclude) ? 0 : err_set(e, "excluded rows must be ascending and unique");
}

/* Halves without a branch: which way a search turns can't be foreseen. */
static bool is_excluded(const struct ann_query *query, uint32_t row)
{
    const uint32_t *from = query->exclude;
    for (size_t n = query->n_exclude; n > 1; n -= n / 2) {
        from += from[n / 2 - 1] < row ? n / 2 : 0;
    }
    return query->n_exclude > 0 && *from == row;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Removes rows that are not allowed, below the floor, or too new from the candidates; returns how many are left. */
static size_t candidates_filter(struct scored *candidates, size_t n, const struct ann_query *query, size_t end)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct scored c = candidates[i];
        candidates[kept] = c;
        kept += c.score >= query->min_score && c.row < end && row_is_allowed(query->allow, c.row); /* not so: NaN */
    }
    return kept;
}

/* The k best candidates that are neither excluded nor removed, sorted, into hits; *excluded counts those that stood before the
 * last of them. Candidates change their order. */
static size_t candidates_select(const struct ann *index, const struct ann_query *query, struct scored *candidates,
                                size_t n, struct scored *hits, size_t *excluded)
{
    bool all = query->n_exclude == 0 && !has_removed(index);
    size_t some = all ? query->k : query->k + query->k / 4 + 8; /* then all */
    for (;; some = n) {
        struct topk best = {candidates, n, smaller(some, n)};
        size_t found = 0;
        *excluded = 0;
        topk_select(candidates, n, best.n);
        topk_sort(&best);
        for (size_t i = 0; i < best.n && found < query->k; i++) {
            bool keep = all || (!is_excluded(query, candidates[i].row) && !row_is_removed(index, candidates[i].row));
            hits[found] = candidates[i];
            found += keep;
            *excluded += !keep;
        }
        if (found == query->k || best.n == n) {
            return found;
        }
    }
}

/* Whether an exact scan costs no more than the request, or there is no room for its candidates. */
static bool scan_is_cheaper(const struct ann *index, const struct ann_workspace *ws, const struct ann_query *query,
                            const struct engine_request *request)
{
    size_t scan = request->n;
    if (query->allow != NULL) {
        size_t rows = index->codes == NULL ? query->n_allow : query->n_allow / CODES_A_ROW + SCORED_TIMES * query->k;
        scan = smaller(scan, rows + request->n / 2048);
    }
    return request->depth > ws->capacity || request->depth >= request->n_allow ||
           index->engine->cost(index, request) >= scan;
}

/* Candidates that ranks up to k + x take, if k take `base`. */
static size_t depth_for_rank(size_t base, size_t k, size_t x)
{
    size_t extra;
    return __builtin_mul_overflow(base, x, &extra) ? SIZE_MAX : base + (extra + k - 1) / k;
}

/* a * b / c, without overflow. */
static size_t in_proportion(size_t a, size_t b, size_t c)
{
    return (size_t)fmin((double)a * (double)b / (double)c, (double)(SIZE_MAX / 2));
}

/* Adds the best of the added rows to n candidates: of engines that don't find them by themselves. */
static size_t scan_added(const struct ann *index, struct ann_workspace *ws, const struct ann_query *query, size_t end,
                         size_t n)
{
    struct ann_piece piece[ANN_PIECES];
    struct topk best;
    index_pieces(index, end, piece);
    topk_init(&best, ws->candidates + n, smaller(query->k, ann_rows_most(index)));
    flat_scan_piece(index, &piece[1], query, ws->scores, &best);
    return n + candidates_filter(ws->candidates + n, best.n, query, end);
}

/* Answers with an engine's candidates. Returns the number of hits; fewer than k means: nothing can be concluded. */
static size_t search_candidates(const struct ann *index, struct ann_workspace *ws, const struct ann_query *query,
                                size_t end, struct scored *hits, bool *filtered)
{
    const struct ann_engine *engine = index->engine;
    const struct ann_changes *changes = index->changes;
    size_t added = changes == NULL ? 0 : end - changes->first;
    size_t removed = removed_since(index);
    size_t n = index->vectors.n + added - index->left_out;
    size_t effort = query->effort > 0 ? smaller(query->effort, ANN_EFFORT_MAX) : index->effort;
    size_t base = engine->depth(index, query->k, effort);
    struct engine_request request = {query->vector, effort, 0, query->allow, n, n, end};
    size_t unwanted = query->n_exclude + removed;
    size_t depth = base + (query->n_exclude > 0 ? base / FIRST_ROOM : 0);
    if (query->allow != NULL) {
        if (query->n_allow == 0) {
            return 0;
        }
        request.n_allow = query->n_allow;
        if (!engine->masks) { /* candidates that are not allowed are dropped afterwards, like excluded ones */
            request.n_allow = n;
            unwanted += n - query->n_allow;
            depth = in_proportion(depth, n, query->n_allow);
        }
    }
    if (removed > 0) {
        if (removed >= n) {
            return 0;
        }
        depth = in_proportion(depth, n, n - removed);
    }
    size_t most = depth_for_rank(base, query->k, unwanted);
    request.depth = smaller(depth, most);
    for (;;) {
        bool scored = false;
        size_t excluded;
        request.effort = in_proportion(effort, request.depth, base);
        if (scan_is_cheaper(index, ws, query, &request)) {
            return 0;
        }
        size_t found = engine->search(index, ws, &request, &scored);
        if (!scored) {
            index_score(index, query->vector, ws->candidates, found);
        }
        size_t kept = candidates_filter(ws->candidates, found, query, end);
        size_t dropped = query->allow == NULL || engine->masks ? 0 : found - kept;
        if (added > 0 && !index->in_engine) {
            kept = scan_added(index, ws, query, end, kept);
        }
        size_t chosen = candidates_select(index, query, ws->candidates, kept, hits, &excluded);
        size_t needed = depth_for_rank(base, query->k, excluded + dropped);
        if (request.depth + request.depth / SHORT >= smaller(needed, most)) { /* > most: rows were removed meanwhile */
            *filtered = query->allow != NULL || excluded > 0;
            return chosen;
        }
        request.depth = smaller(needed + needed / NEXT_ROOM, most); /* grows: needed > depth */
    }
}

int ann_search(const struct ann *index, struct ann_workspace *ws, const struct ann_query *query, struct scored *hits,
               struct ann_answer *answer, struct err *e)
{
    if (query_check(index, ws, query, e) != 0) {
        return -1;
    }
    bool filtered = false;
    size_t end = ann_rows(index);
    answer->n = query->exact || index->engine->exact ? 0 : search_candidates(index, ws, query, end, hits, &filtered);
    if (answer->n == query->k) {
        answer->strategy = filtered ? ANN_STRATEGY_FILTERED_ANN : ANN_STRATEGY_ANN;
    } else {
        answer->n = flat_scan(index, end, query, ws->scores, hits);
        answer->strategy = ANN_STRATEGY_EXACT;
    }
    answer->complete = answer->n == query->k;
    return 0;
}

/* Scores rows from `at` on that stand in one piece, or are none; returns the end. */
static size_t score_run(const struct ann *index, const float *vector, struct scored *picked, size_t at, size_t n)
{
    size_t first = index->changes == NULL ? SIZE_MAX : index->changes->first;
    bool added = picked[at].row >= first;
    size_t end = at;
    if (picked[at].row == ANN_NO_ROW) {
        picked[at].score = NAN;
        return at + 1;
    }
    for (; end < n && picked[end].row != ANN_NO_ROW && (picked[end].row >= first) == added; end++) {
        picked[end].row -= added ? (uint32_t)first : 0;
    }
    vec_dot_picked(picked + at, end - at, added ? index->changes->vectors : index->vectors.data, index->vectors.dim,
                   vector);
    for (size_t i = at; i < end; i++) {
        picked[i].row += added ? (uint32_t)first : 0;
    }
    return end;
}

void ann_score(const struct ann *index, const float *vector, struct scored *picked, size_t n)
{
    for (size_t at = 0; at < n;) {
        at = score_run(index, vector, picked, at, n);
    }
}
