/*
 * Searching the HNSW graph that faiss built.
 *
 * Why not faiss's own search. In faiss 1.7.3 the width of a search is a field of the index: the walk stops after
 * efSearch nearer rows were expanded, whatever number of results is asked for, and the C API has no per-search
 * parameters. An effort that is an argument of a search, with other threads searching at other efforts, is therefore
 * impossible through it (writing the field per search is a data race, a copy of the index per effort costs gigabytes).
 * It also clears a table of n bytes and opens an OpenMP region per query, finds its next row by a linear pass, and
 * trusts every link it reads from a file. The graph is the expensive part, and that faiss builds well; the walk is a
 * page of code.
 *
 * The walk is Algorithm 5 of the paper. `best` holds the `depth` best rows seen (a heap, worst first), the frontier
 * those of them not yet expanded (a heap, best first); it ends when the best of the frontier is worse than the worst of
 * a full `best`. Invariants:
 *   - A row enters the frontier only together with `best`, so a frontier row that is worse than the worst of a full
 *     `best` can never be expanded. Dropping those rows leaves at most `depth`, so a frontier of 2 * depth that is
 *     pruned when full never overflows, and pruning costs O(1) per pushed row.
 *   - visited[row] == epoch means seen; raising the epoch forgets all rows, and only every 255th search clears the
 *     table.
 *   - graph_check was passed: ids are rows, upper offsets are inside.
 */
#include "ann/graph.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/mem.h"
#include "core/vecmath.h"

enum { MAX_WIDTH = 1024, MAX_LEVELS = 64 };

/* --- reading faiss's serialised form ------------------------------------------------------------------------------ */

struct cursor {
    const unsigned char *at;
    size_t left;
};

/* The next `size` bytes, or NULL when there are fewer. */
static const unsigned char *cursor_take(struct cursor *c, size_t size)
{
    if (size > c->left) {
        return NULL;
    }
    const unsigned char *bytes = c->at;
    c->at += size;
    c->left -= size;
    return bytes;
}

/* A vector: its length in elements (64 bits), then the elements. */
static const unsigned char *cursor_vector(struct cursor *c, size_t element, size_t *count)
{
    const unsigned char *length = cursor_take(c, sizeof(uint64_t));
    if (length == NULL) {
        return NULL;
    }
    uint64_t n;
    memcpy(&n, length, sizeof n);
    *count = (size_t)n;
    return n > c->left / element ? NULL : cursor_take(c, (size_t)n * element);
}

static int32_t read_i32(const unsigned char *array, size_t i)
{
    int32_t value;
    memcpy(&value, array + i * sizeof value, sizeof value);
    return value;
}

/* What matters of an "IHNf": unaligned arrays inside the serialised bytes. */
struct faiss_hnsw {
    const unsigned char *per_level; /* int32: links of levels 0 .. i-1 */
    const unsigned char *levels;    /* int32 [n]: how many levels a row has, >= 1 */
    const unsigned char *offsets;   /* uint64 [n + 1] */
    const unsigned char *neighbors; /* int32 */
    size_t n_per_level, n_levels, n_offsets, n_neighbors;
    int32_t entry;
    int32_t max_level;
};

static bool faiss_hnsw_parse(struct faiss_hnsw *h, const unsigned char *bytes, size_t size)
{
    enum { INDEX_HEADER = 4 + 8 + 8 + 8 + 1 + 4 }; /* d, ntotal, two unused, is_trained, metric */
    struct cursor c = {bytes, size};
    size_t n_probas;
    const unsigned char *magic = cursor_take(&c, 4);
    if (magic == NULL || memcmp(magic, "IHNf", 4) != 0 || cursor_take(&c, INDEX_HEADER) == NULL ||
        cursor_vector(&c, sizeof(double), &n_probas) == NULL) {
        return false;
    }
    h->per_level = cursor_vector(&c, sizeof(int32_t), &h->n_per_level);
    h->levels = h->per_level ? cursor_vector(&c, sizeof(int32_t), &h->n_levels) : NULL;
    h->offsets = h->levels ? cursor_vector(&c, sizeof(uint64_t), &h->n_offsets) : NULL;
    h->neighbors = h->offsets ? cursor_vector(&c, sizeof(int32_t), &h->n_neighbors) : NULL;
    const unsigned char *tail = h->neighbors ? cursor_take(&c, 2 * sizeof(int32_t)) : NULL;
    if (tail == NULL) {
        return false;
    }
    h->entry = read_i32(tail, 0);
    h->max_level = read_i32(tail, 1);
    return true;
}

/* Sizes that agree with each other; row i's links then are neighbors[offsets[i] ..] for all its levels. */
static bool faiss_hnsw_plausible(const struct faiss_hnsw *h, size_t n, uint32_t *width, uint64_t *n_upper)
{
    if (h->n_levels != n || h->n_offsets != n + 1 || h->n_per_level < 2) {
        return false;
    }
    int32_t ground = read_i32(h->per_level, 1);
    if (ground < 2 || ground > MAX_WIDTH || ground % 2 != 0) {
        return false;
    }
    *width = (uint32_t)ground;
    *n_upper = 0;
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t levels = read_i32(h->levels, i);
        uint64_t offset;
        memcpy(&offset, h->offsets + i * sizeof offset, sizeof offset);
        if (levels < 1 || levels > MAX_LEVELS || offset != total) {
            return false;
        }
        uint64_t upper = (uint64_t)(levels - 1) * (*width / 2);
        *n_upper += upper;
        total += *width + upper;
    }
    return total == h->n_neighbors && *n_upper <= UINT32_MAX;
}

static void graph_copy_links(const struct faiss_hnsw *h, size_t n, uint32_t width, int32_t *links, uint32_t *start,
                             int32_t *upper)
{
    const unsigned char *from = h->neighbors;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t above = (uint32_t)(read_i32(h->levels, i) - 1) * (width / 2);
        memcpy(links + i * width, from, width * sizeof *links);
        from += width * sizeof *links;
        memcpy(upper + at, from, above * sizeof *upper);
        from += above * sizeof *upper;
        start[i] = at;
        at += above;
    }
    start[n] = at;
}

int graph_from_faiss(struct graph *g, const unsigned char *bytes, size_t size, size_t n, struct err *e)
{
    struct faiss_hnsw h;
    uint32_t width;
    uint64_t n_upper;
    memset(g, 0, sizeof *g);
    if (!faiss_hnsw_parse(&h, bytes, size) || !faiss_hnsw_plausible(&h, n, &width, &n_upper) || h.entry < 0 ||
        h.max_level < 0) {
        return err_set(e, "this version of faiss serialises HNSW graphs in a form that is not understood");
    }
    int32_t *links = mem_array(n * width, sizeof *links);
    uint32_t *start = mem_array(n + 1, sizeof *start);
    int32_t *upper = mem_array((size_t)n_upper, sizeof *upper);
    *g = (struct graph){n, width, (uint32_t)h.max_level, (uint32_t)h.entry, links, start, upper};
    if (links == NULL || start == NULL || upper == NULL) {
        graph_release(g);
        return err_nomem(e);
    }
    graph_copy_links(&h, n, width, links, start, upper);
    if (graph_check(g, e) != 0) {
        graph_release(g);
        return -1;
    }
    return 0;
}

void graph_release(struct graph *g)
{
    mem_free((void *)g->links);
    mem_free((void *)g->upper_start);
    mem_free((void *)g->upper);
    memset(g, 0, sizeof *g);
}

/* --- checking ------------------------------------------------------------------------------------------------------ */

static uint32_t levels_above(const struct graph *g, size_t row)
{
    return (g->upper_start[row + 1] - g->upper_start[row]) / (g->width / 2);
}

/* The links of one row at one level: rows that exist on that level. */
static bool links_are_valid(const struct graph *g, const int32_t *links, size_t count, uint32_t level)
{
    for (size_t i = 0; i < count && links[i] != -1; i++) {
        if (links[i] < 0 || (size_t)links[i] >= g->n) {
            return false;
        }
        if (level > 0 && levels_above(g, (size_t)links[i]) < level) {
            return false;
        }
    }
    return true;
}

int graph_check(const struct graph *g, struct err *e)
{
    if (g->n == 0 || g->width < 2 || g->width > MAX_WIDTH || g->width % 2 != 0 || g->max_level >= MAX_LEVELS ||
        g->entry >= g->n || g->upper_start[0] != 0) {
        return err_set(e, "damaged graph: sizes out of range");
    }
    uint32_t half = g->width / 2;
    for (size_t i = 0; i < g->n; i++) {
        if (g->upper_start[i + 1] < g->upper_start[i] || (g->upper_start[i + 1] - g->upper_start[i]) % half != 0) {
            return err_set(e, "damaged graph: offsets of row %zu", i);
        }
    }
    if (levels_above(g, g->entry) < g->max_level) {
        return err_set(e, "damaged graph: entry point %u", g->entry);
    }
    for (size_t i = 0; i < g->n; i++) {
        bool ok = links_are_valid(g, g->links + i * g->width, g->width, 0);
        for (uint32_t level = 1; ok && level <= levels_above(g, i); level++) {
            ok = links_are_valid(g, g->upper + g->upper_start[i] + (level - 1) * half, half, level);
        }
        if (!ok) {
            return err_set(e, "damaged graph: links of row %zu", i);
        }
    }
    return 0;
}

size_t graph_bytes(const struct graph *g)
{
    return g->n * g->width * sizeof *g->links + (g->n + 1) * sizeof *g->upper_start +
           g->upper_start[g->n] * sizeof *g->upper;
}

/* --- searching ----------------------------------------------------------------------------------------------------- */

/* A heap with the best entry first. */
struct frontier {
    struct scored *entries;
    size_t n;
    size_t capacity;
};

static void frontier_sift_down(struct frontier *f, size_t i, struct scored value)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= f->n) {
            break;
        }
        if (child + 1 < f->n && scored_before(f->entries[child + 1], f->entries[child])) {
            child++;
        }
        if (!scored_before(f->entries[child], value)) {
            break;
        }
        f->entries[i] = f->entries[child];
        i = child;
    }
    f->entries[i] = value;
}

static struct scored frontier_pop(struct frontier *f)
{
    struct scored top = f->entries[0];
    struct scored last = f->entries[--f->n];
    if (f->n > 0) {
        frontier_sift_down(f, 0, last);
    }
    return top;
}

/* Drops what can't be expanded any more: rows behind the worst of a full `best`. */
static void frontier_prune(struct frontier *f, struct scored worst)
{
    size_t kept = 0;
    for (size_t i = 0; i < f->n; i++) {
        if (!scored_before(worst, f->entries[i])) {
            f->entries[kept++] = f->entries[i];
        }
    }
    f->n = kept;
    for (size_t i = kept / 2; i-- > 0;) {
        frontier_sift_down(f, i, f->entries[i]);
    }
}

static void frontier_push(struct frontier *f, struct scored value)
{
    size_t i = f->n++;
    while (i > 0 && scored_before(value, f->entries[(i - 1) / 2])) {
        f->entries[i] = f->entries[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    f->entries[i] = value;
}

static float row_score(const struct ann_vectors *v, size_t row, const float *query)
{
    float score;
    vec_dot_rows(&score, v->data + row * v->dim, 1, v->dim, query);
    return score;
}

/* From the entry point down to level 1, each time to the best row that links lead to. */
static struct scored descend(const struct graph *g, const struct ann_vectors *v, const float *query)
{
    struct scored at = {row_score(v, g->entry, query), g->entry};
    for (uint32_t level = g->max_level; level > 0; level--) {
        for (bool moved = true; moved;) {
            moved = false;
            const int32_t *links = g->upper + g->upper_start[at.row] + (level - 1) * (g->width / 2);
            for (size_t i = 0; i < g->width / 2 && links[i] != -1; i++) {
                struct scored next = {row_score(v, (size_t)links[i], query), (uint32_t)links[i]};
                if (scored_before(next, at)) {
                    at = next;
                    moved = true;
                }
            }
        }
    }
    return at;
}

static void visited_clear(struct ann_workspace *ws, size_t n)
{
    if (++ws->epoch == 0) {
        memset(ws->visited, 0, n);
        ws->epoch = 1;
    }
}

static void prefetch_row(const struct ann_vectors *v, size_t row)
{
    const char *bytes = (const char *)(v->data + row * v->dim);
    size_t size = v->dim * sizeof(float);
    for (size_t i = 0; i < size && i < 512; i += 64) { /* the processor follows longer rows by itself */
        __builtin_prefetch(bytes + i);
    }
}

/* The unseen neighbours of a row, now marked as seen and on their way into the cache. */
static size_t neighbours_fetch(const struct graph *g, const struct ann_vectors *v, struct ann_workspace *ws,
                               uint32_t row, uint32_t fresh[MAX_WIDTH])
{
    const int32_t *links = g->links + (size_t)row * g->width;
    size_t n = 0;
    for (size_t i = 0; i < g->width && links[i] != -1; i++) {
        uint32_t neighbour = (uint32_t)links[i];
        if (ws->visited[neighbour] != ws->epoch) {
            ws->visited[neighbour] = ws->epoch;
            fresh[n++] = neighbour;
            prefetch_row(v, neighbour);
        }
    }
    return n;
}

size_t graph_search(const struct graph *g, const struct ann_vectors *vectors, struct ann_workspace *ws,
                    const float *query, size_t depth)
{
    uint32_t fresh[MAX_WIDTH];
    struct topk best;
    struct frontier frontier = {ws->frontier, 0, 2 * depth};
    topk_init(&best, ws->candidates, depth);
    visited_clear(ws, g->n);

    struct scored start = descend(g, vectors, query);
    ws->visited[start.row] = ws->epoch;
    topk_push(&best, start.score, start.row);
    frontier_push(&frontier, start);
    while (frontier.n > 0) {
        struct scored at = frontier_pop(&frontier);
        if (best.n == depth && scored_before(best.entries[0], at)) {
            break;
        }
        size_t n = neighbours_fetch(g, vectors, ws, at.row, fresh);
        for (size_t i = 0; i < n; i++) {
            struct scored next = {row_score(vectors, fresh[i], query), fresh[i]};
            if (isnan(next.score) || (best.n == depth && !scored_before(next, best.entries[0]))) {
                continue; /* NaN never enters `best`, so it must not enter the frontier */
            }
            topk_push(&best, next.score, next.row);
            if (frontier.n == frontier.capacity) {
                frontier_prune(&frontier, best.entries[0]);
            }
            frontier_push(&frontier, next);
        }
    }
    return best.n;
}
