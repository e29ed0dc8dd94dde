/*
 * The native engine: an inverted file with 4-bit codes (ann/ivf.h), scanned in registers; ann.c re-ranks what it proposes
 * by exact scores.
 *
 * Effort is the number of lists that a search looks into, an argument of every search. What is re-ranked grows with it: a
 * list more is worth little when the codes, and not the lists, are what loses the best rows. Asked for more candidates
 * (excluded rows stood among them), a search looks into more lists in proportion; and into more when the lists are short.
 *
 * Which lists are best is found like the rows themselves: centroids have codes of 4 bits, too, a scan proposes several times as many
 * lists as are looked into, and exact scores choose among these. Reading all centroids would take a fifth of a search in a million
 * rows, and half of one in ten million.
 *
 * Lists come best centroid first, so that the candidates' threshold is high from the first list on and later ones are
 * mostly compared and passed over. The pool of candidates is three times as large as what is wanted; when it is full, the best
 * third stays, by counting, and the threshold rises. It holds places; what their rows are is looked up at the end, for those that
 * stayed. A row that stands in two lists may come twice: the copies are found then, in a small hash table.
 *
 * Under a filter only allowed rows enter the pool, which is why the search does not end after `effort` lists but when as many
 * lists with their share of allowed rows were seen as such a search takes.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "ann/engine.h"
#include "ann/indexfile.h"
#include "ann/ivf.h"
#include "ann/tail.h"
#include "ann/mark.h"
#include "ann/pool.h"
#include "core/mem.h"
#include "core/simd.h"
#include "core/vecmath.h"

enum {
    RERANK_LEAST = 32,
    RERANK_LISTS = 12, /* for each of so many lists, as many candidates as results are wanted are re-ranked more */
    COARSE_TIMES = 4,  /* lists that codes propose, for one that is looked into, ... */
    COARSE_LEAST = 64, /* ... and so many more; */
    COARSE_PART = 2,   /* if they are a smaller part of all */
    CODES_SEED = 1,
    DIM_MAX = SQ8_DIM_MAX
};

/* The centroids once more, for finding lists; zeroed where there are few. */
struct coarse {
    struct pq pq;
    float *centers, *columns; /* as struct pq and pq_table_make want them */
    uint8_t *codes;           /* [n_lists / PQ_BLOCK, rounded up, pq_block_bytes] */
};

struct native_state {
    struct ivf ivf;
    struct coarse coarse;
    struct tail tail;  /* rows that were added; zeroed without room for any */
    uint16_t *list_of; /* [n_list_of: rows that there is room for] one of the lists of each row */
    size_t n_list_of;
    float *centroids;    /* as vec_dot_blocks reads them */
    float *columns;      /* as pq_table_make reads the centers of codes */
    struct file_map map; /* where the arrays are, if it was opened */
};

/* The tails of the lists; NULL: none can have any. */
static const struct tail *tails(const struct native_state *state)
{
    return state->tail.f == NULL ? NULL : &state->tail;
}

/* --- searching ---------------------------------------------------------------------------------------------------- */

enum { ROOM = 1024 }; /* places that one call of the scan may report */

struct native_scratch {
    float *centroid_scores; /* [n_lists, rounded up to blocks] */
    bool scored;            /* they are the query's */
    struct scored *lists;   /* [n_lists] */
    struct pool lists_pool; /* of lists */
    struct pool pool;       /* of rows */
    uint32_t *copies;       /* [copies_size] */
    size_t copies_size;
    struct pq_table table;        /* of rows */
    struct pq_table coarse_table; /* of lists */
    uint32_t place[ROOM];
    uint16_t sum[ROOM];
    uint8_t *copy;  /* [pq_block_bytes] see ann/tail.h */
    uint32_t *mark; /* [blocks of the longest stretch] allowed places */
    bool *holds;    /* [n_lists] an allowed row */
};

/* The rows at the places, each once, the first of its copies, into rows; `table` [size] is a power of two and at least twice
 * as many as places. */
static size_t resolve(const struct native_state *state, const struct pool *p, uint32_t *table, size_t size,
                      struct scored *rows)
{
    enum { AHEAD = 16 };
    size_t kept = 0;
    memset(table, 0xff, size * sizeof *table); /* IVF_NO_ROW */
    for (size_t i = 0; i < p->n; i++) {
        if (i + AHEAD < p->n) {
            __builtin_prefetch(place_row(&state->ivf, &state->tail, p->place[i + AHEAD]));
        }
        uint32_t row = *place_row(&state->ivf, &state->tail, p->place[i]);
        size_t slot = (row * 0x9E3779B1u) & (size - 1);
        while (table[slot] != IVF_NO_ROW && table[slot] != row) {
            slot = (slot + 1) & (size - 1);
        }
        if (table[slot] == IVF_NO_ROW) {
            table[slot] = row;
            rows[kept++] = (struct scored){p->score[i], row};
        }
    }
    return kept;
}

/* The sum of bytes that a candidate must be above, for its score to be above the floor. */
static int sum_floor(const struct pq_table *table, float centroid_score, float floor)
{
    float sum = (floor - centroid_score - table->base) / table->step;
    return !(sum >= 0) ? -1 : sum > INT16_MAX ? INT16_MAX : (int)sum; /* NaN: everything */
}

/* Places ascend: those beyond the last that is in use are at the end. */
static size_t drop_unused(const uint32_t *place, size_t n, size_t places)
{
    while (n > 0 && place[n - 1] >= places) {
        n--;
    }
    return n;
}

/* Leaves the places that are marked, a word a block. */
static size_t keep_marked(uint32_t *place, uint16_t *sum, size_t n, const uint32_t *mark)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t at = place[i];
        place[kept] = at;
        sum[kept] = sum[i];
        kept += mark[at / PQ_BLOCK] >> at % PQ_BLOCK & 1;
    }
    return kept;
}

/* Blocks [block, end) of a stretch; with `mark` [blocks] only the places that it marks. */
static void scan_blocks(const struct pq *pq, const struct pq_table *table, struct native_scratch *s,
                        const struct stretch *stretch, size_t block, size_t end, const uint32_t *mark,
                        float centroid_score, struct pool *p)
{
    float base = centroid_score + table->base;
    while (block < end) {
        size_t done;
        size_t n = pq_scan(pq, table, stretch->codes + block * pq_block_bytes(pq), end - block,
                           sum_floor(table, centroid_score, p->floor), ROOM, s->place, s->sum, &done);
        uint32_t first = (uint32_t)(block * PQ_BLOCK);
        n = mark == NULL ? drop_unused(s->place, n, stretch->places - first)
                         : keep_marked(s->place, s->sum, n, mark + block);
        pool_add(p, s->place, s->sum, n, stretch->place + first, base, table->step);
        if (pool_is_full(p)) {
            pool_shrink(p);
        }
        block += done;
    }
}

static size_t stretch_blocks(const struct stretch *stretch)
{
    return (stretch->places + PQ_BLOCK - 1) / PQ_BLOCK;
}

static struct stretches list_stretches(const struct native_state *state, const struct native_scratch *s, uint32_t list)
{
    return (struct stretches){.f = &state->ivf, .t = tails(state), .list = list, .copy = s->copy};
}

/* Returns the list's places. */
static size_t scan_list(const struct native_state *state, struct native_scratch *s, uint32_t list, float centroid_score,
                        struct pool *p)
{
    struct stretch stretch;
    struct stretches pieces = list_stretches(state, s, list);
    size_t places = 0;
    while (stretches_next(&pieces, &stretch)) {
        scan_blocks(&state->ivf.pq, &s->table, s, &stretch, 0, stretch_blocks(&stretch), NULL, centroid_score, p);
        places += stretch.places;
    }
    return places;
}

/* Asks for the beginning of a list's codes; the scan asks for the rest as it goes. */
static void prefetch_list(const struct native_state *state, uint32_t list)
{
    enum { LINE = 64, BYTES = 2048 };
    const struct ivf *f = &state->ivf;
    if (tails(state) != NULL) {
        tail_prefetch(&state->tail, list);
    }
    const uint8_t *codes = f->codes + f->block_start[list] * pq_block_bytes(&f->pq);
    for (size_t i = 0; i < BYTES; i += LINE) {
        __builtin_prefetch(codes + i);
    }
}

/* Marks the places of a stretch whose rows are allowed, a word a block; returns how many. */
SIMD_CLONES static size_t mark_stretch(struct native_scratch *s, const struct stretch *stretch, const uint64_t *allow)
{
    size_t n = stretch->places;
    size_t count = 0;
    for (size_t first = 0; first < n; first += PQ_BLOCK) {
        uint32_t mark = rows_allowed(allow, stretch->rows + first, n - first < PQ_BLOCK ? n - first : PQ_BLOCK);
        s->mark[first / PQ_BLOCK] = mark;
        count += (size_t)__builtin_popcount(mark);
    }
    return count;
}

/* The allowed places of a list; blocks without one are passed over. Returns how many there are. */
static size_t scan_allowed(const struct native_state *state, struct native_scratch *s, uint32_t list,
                           float centroid_score, const uint64_t *allow, struct pool *p)
{
    struct stretch stretch;
    struct stretches pieces = list_stretches(state, s, list);
    size_t marked = 0;
    while (stretches_next(&pieces, &stretch)) {
        size_t here = mark_stretch(s, &stretch, allow);
        size_t blocks = stretch_blocks(&stretch);
        marked += here;
        for (size_t block = 0; here > 0 && block < blocks; block++) {
            size_t end = block;
            while (end < blocks && s->mark[end] != 0) {
                end++;
            }
            scan_blocks(&state->ivf.pq, &s->table, s, &stretch, block, end, s->mark, centroid_score, p);
            block = end;
        }
    }
    return marked;
}

/* --- which lists -------------------------------------------------------------------------------------------------- */

static void score_lists(const struct native_state *state, struct native_scratch *s, const float *vector)
{
    if (!s->scored) {
        vec_dot_blocks(s->centroid_scores, state->centroids, vec_blocks(state->ivf.n_lists), state->ivf.dim, vector);
        s->scored = true;
    }
}

/* The best `most` lists by s->centroid_scores; those with NaN are left out. */
static size_t pick_scored(const struct native_state *state, struct native_scratch *s, size_t most)
{
    struct topk best;
    topk_init(&best, s->lists, most);
    topk_push_block(&best, s->centroid_scores, state->ivf.n_lists, 0);
    topk_sort(&best);
    return best.n;
}

/* The best `most` of the lists by their exact scores, of the `some` that their codes propose. */
static size_t pick_coded(const struct native_state *state, struct native_scratch *s, const float *vector, size_t some,
                         size_t most)
{
    const struct ivf *f = &state->ivf;
    const struct coarse *c = &state->coarse;
    struct pool *pool = &s->lists_pool;
    pool_begin(pool, some);
    struct stretch all = {.codes = c->codes, .places = f->n_lists};
    pq_table_make(&c->pq, c->columns, &s->coarse_table, vector);
    scan_blocks(&c->pq, &s->coarse_table, s, &all, 0, stretch_blocks(&all), NULL, 0, pool);
    pool_shrink(pool);
    for (size_t i = 0; i < pool->n; i++) {
        s->lists[i].row = pool->place[i];
    }
    vec_dot_picked(s->lists, pool->n, f->centroids, f->dim, vector);
    struct topk best = {s->lists, pool->n, most < pool->n ? most : pool->n};
    topk_select(s->lists, pool->n, best.n);
    topk_sort(&best);
    return best.n;
}

/* Sorts the best `most` lists into s->lists. */
static size_t order_lists(const struct native_state *state, struct native_scratch *s, const float *vector, size_t most)
{
    size_t n_lists = state->ivf.n_lists;
    size_t some = COARSE_TIMES * most + COARSE_LEAST;
    most = most < n_lists ? most : n_lists;
    size_t n;
    if (!s->scored && state->coarse.codes != NULL && some < n_lists / COARSE_PART) {
        n = pick_coded(state, s, vector, some, most);
    } else {
        score_lists(state, s, vector);
        n = pick_scored(state, s, most);
    }
    for (size_t i = 0; tails(state) != NULL && i < n; i++) {
        tail_prefetch_head(&state->tail, s->lists[i].row);
    }
    return n;
}

/* --- under a filter ------------------------------------------------------------------------------------------------ */

/* Finds lists that hold allowed rows, by a sample of these; lists that hold few may be missed. Words of the mask are sampled, and
 * of each as many rows as make a good sample of all. */
SIMD_CLONES static void find_holders(const struct native_state *state, struct native_scratch *s,
                                     const struct engine_request *r)
{
    enum { SAMPLE = 4096 };
    size_t words = (r->end + 63) / 64;
    size_t step = words / SAMPLE + 1;
    size_t set = 1;
    for (size_t word = 0; word < words; word += step) {
        set += r->allow[word] != 0;
    }
    size_t most = SAMPLE / set + 1; /* rows of a word */
    memset(s->holds, 0, state->ivf.n_lists * sizeof *s->holds);
    for (size_t word = 0; word < words; word += step) {
        uint64_t bits = r->allow[word];
        for (size_t i = 0; i < most && bits != 0; i++, bits &= bits - 1) {
            s->holds[state->list_of[word * 64 + (size_t)__builtin_ctzll(bits)]] = true;
        }
    }
}

/* How far a search under a filter is. */
struct progress_of {
    double goal, seen; /* lists; one with fewer allowed rows than its share counts as a part of one */
};

/* Looks into ordered lists [begin, end), until the goal is reached. */
static void scan_allowed_lists(const struct native_state *state, struct native_scratch *s, size_t begin, size_t end,
                               const struct engine_request *r, struct progress_of *progress, struct pool *pool)
{
    double share = (double)r->n_allow / (double)r->n;
    for (size_t i = begin; i < end && progress->seen < progress->goal; i++) {
        uint32_t list = s->lists[i].row;
        if (i + 1 < end) {
            prefetch_list(state, s->lists[i + 1].row);
        }
        size_t marked = scan_allowed(state, s, list, s->lists[i].score, r->allow, pool);
        if (marked > 0) {
            double size = (double)tail_list_size(&state->ivf, tails(state), list);
            progress->seen += fmin(1, (double)marked / (share * size));
        }
    }
}

/* The share of allowed rows in the first n ordered lists, in times of their share in all, by the first rows of each. */
static double share_near(const struct native_state *state, struct native_scratch *s, const struct engine_request *r,
                         size_t n)
{
    enum { ROWS = 4 * PQ_BLOCK };
    size_t looked = 0;
    size_t allowed = 0;
    for (size_t i = 0; i < n; i++) {
        struct stretch stretch;
        struct stretches pieces = list_stretches(state, s, s->lists[i].row);
        if (stretches_next(&pieces, &stretch)) {
            stretch.places = stretch.places < ROWS ? stretch.places : ROWS;
            looked += stretch.places;
            allowed += mark_stretch(s, &stretch, r->allow);
        }
    }
    return looked == 0 ? 1 : (double)allowed * (double)r->n / ((double)looked * (double)r->n_allow);
}

/* Lists that a search under a filter looks into. Its results lie as deep as (rows / allowed rows) times as many without it, in more
 * lists: how many more was measured when the index was built. A little less of that exponent keeps the recall, since results that lie
 * apart are easier for codes to tell (docs/benchmarks.md). */
static double lists_under_filter(const struct ivf *f, const struct engine_request *r)
{
    double wider = pow((double)r->n / (double)r->n_allow, 0.85 * (double)*f->spread);
    return fmin(ceil((double)r->effort * wider), (double)f->n_lists);
}

/* The rows that are allowed may be fewer near the query than elsewhere, or all far away. Then more lists are looked into: far away
 * which centroid is nearest says less; and more candidates are kept: results there lie closer together. Lists that hold none need not be. */
static void search_allowed(const struct native_state *state, struct native_scratch *s, const struct engine_request *r,
                           size_t most, struct pool *pool)
{
    enum { FAR = 3, DEEP = 3, SOME = 8 };
    const double FEW_NEAR = 0.25;
    const struct ivf *f = &state->ivf;
    struct progress_of progress = {lists_under_filter(f, r), 0};
    size_t lists = order_lists(state, s, r->vector, (size_t)progress.goal + (size_t)progress.goal / 4 + SOME);
    double near = share_near(state, s, r, (size_t)progress.goal < lists ? (size_t)progress.goal : lists);
    double apart = 1 - fmin(near, 1);
    progress.goal *= 1 + (FAR - 1) * apart;
    pool->wanted = (size_t)((double)pool->wanted * (1 + (DEEP - 1) * apart));
    pool->wanted = pool->wanted < most ? pool->wanted : most;
    size_t begin = 0;
    if (near > FEW_NEAR) {
        scan_allowed_lists(state, s, 0, lists, r, &progress, pool);
        begin = lists;
    }
    if (progress.seen < progress.goal && lists < f->n_lists) {
        score_lists(state, s, r->vector);
        for (size_t i = 0; i < begin; i++) { /* done */
            s->centroid_scores[s->lists[i].row] = NAN;
        }
        find_holders(state, s, r);
        for (uint32_t j = 0; j < f->n_lists; j++) {
            s->centroid_scores[j] = s->holds[j] ? s->centroid_scores[j] : NAN;
        }
        lists = order_lists(state, s, r->vector, (size_t)(progress.goal - progress.seen) + SOME);
        scan_allowed_lists(state, s, 0, lists, r, &progress, pool);
    }
}

/* The best `effort` lists, and more until as many places were seen as candidates are wanted: lists of rows much longer than
 * the others are short, and a search that came back with too few rows would be repeated as an exact scan. */
static void search_all(const struct native_state *state, struct native_scratch *s, const struct engine_request *r,
                       struct pool *pool)
{
    size_t seen = 0;
    for (size_t done = 0, most = r->effort;; most *= 2) {
        size_t lists = order_lists(state, s, r->vector, most);
        for (; done < lists && (done < r->effort || seen < pool->wanted); done++) {
            if (done + 1 < lists) {
                prefetch_list(state, s->lists[done + 1].row);
            }
            seen += scan_list(state, s, s->lists[done].row, s->lists[done].score, pool);
        }
        if (seen >= pool->wanted || lists < most) {
            return;
        }
    }
}

static size_t engine_search(const struct ann *index, struct ann_workspace *ws, const struct engine_request *r,
                            bool *scored)
{
    const struct native_state *state = index->state;
    const struct ivf *f = &state->ivf;
    struct native_scratch *s = ws->native;
    *scored = false;
    if (f->n == 0) {
        return 0;
    }
    s->scored = false;
    pq_table_make(&f->pq, state->columns, &s->table, r->vector);
    struct pool *pool = &s->pool;
    pool_begin(pool, r->depth);
    if (r->allow != NULL) {
        search_allowed(state, s, r, ws->capacity, pool);
    } else {
        search_all(state, s, r, pool);
    }
    pool_shrink(pool);
    size_t size = 64;
    while (size < 2 * pool->n) {
        size *= 2;
    }
    return resolve(state, pool, s->copies, size, ws->candidates);
}

/* In blocks. */
static size_t longest_stretch(const struct ivf *f)
{
    size_t blocks = TAIL_BLOCKS;
    for (uint32_t j = 0; j < f->n_lists; j++) {
        size_t n = f->block_start[j + 1] - f->block_start[j];
        blocks = n > blocks ? n : blocks;
    }
    return blocks;
}

static int engine_workspace_init(const struct ann *index, struct ann_workspace *ws, struct err *e)
{
    const struct ivf *f = &((const struct native_state *)index->state)->ivf;
    struct native_scratch *s = ws->native = mem_array(1, sizeof *s);
    if (s == NULL) {
        return err_nomem(e);
    }
    for (s->copies_size = 64; s->copies_size < 2 * ws->capacity; s->copies_size *= 2) {}
    s->centroid_scores = mem_array(vec_blocks(f->n_lists) * VEC_BLOCK, sizeof *s->centroid_scores);
    s->lists = mem_array(f->n_lists, sizeof *s->lists);
    if (pool_init(&s->lists_pool, f->n_lists / COARSE_PART, ROOM, e) != 0 ||
        pool_init(&s->pool, ws->capacity, ROOM, e) != 0) {
        return -1;
    }
    s->copies = mem_array(s->copies_size, sizeof *s->copies);
    s->copy = mem_array(pq_block_bytes(&f->pq), 1);
    s->mark = mem_array(longest_stretch(f), sizeof *s->mark);
    s->holds = mem_array(f->n_lists, sizeof *s->holds);
    bool complete = s->copy != NULL && s->mark != NULL && s->holds != NULL && s->centroid_scores != NULL &&
                    s->lists != NULL && s->copies != NULL;
    return complete ? 0 : err_nomem(e);
}

static void engine_workspace_release(struct ann_workspace *ws)
{
    if (ws->native != NULL) {
        mem_free(ws->native->centroid_scores);
        mem_free(ws->native->lists);
        pool_release(&ws->native->lists_pool);
        pool_release(&ws->native->pool);
        mem_free(ws->native->copy);
        mem_free(ws->native->mark);
        mem_free(ws->native->holds);
        mem_free(ws->native->copies);
        mem_free(ws->native);
    }
}

static size_t engine_set_effort(struct ann *index, size_t effort)
{
    const struct native_state *s = index->state;
    size_t usual = s->ivf.n_lists / 32 + 4;
    effort = effort == 0 ? usual : effort;
    return effort < ANN_EFFORT_MAX ? effort : ANN_EFFORT_MAX;
}

/* Beyond all lists only the re-ranking grows, up to where a scan of everything is cheaper (see ann.c): recall 1. */
static struct ann_effort_range engine_effort_range(const struct ann *index, size_t k)
{
    size_t last = RERANK_LISTS * (index->vectors.n / k + 1);
    return (struct ann_effort_range){1, last < ANN_EFFORT_MAX ? last : ANN_EFFORT_MAX};
}

static size_t engine_depth(const struct ann *index, size_t k, size_t effort)
{
    (void)index;
    return 2 * k + RERANK_LEAST + effort * k / RERANK_LISTS;
}

/* Centroids and codes are small and read in order, candidates are read row by row. */
static size_t engine_cost(const struct ann *index, const struct engine_request *request)
{
    const struct ivf *f = &((const struct native_state *)index->state)->ivf;
    enum { CODES_A_ROW = 8, CENTROIDS_A_ROW = 4 };
    if (f->n == 0) {
        return 0;
    }
    double lists = request->allow == NULL ? fmin((double)request->effort, f->n_lists) : lists_under_filter(f, request);
    double marking = request->allow == NULL ? 1 : 1.5;
    double codes = lists * 2 * (double)f->n / f->n_lists / CODES_A_ROW * marking;
    return (size_t)(codes + 1.5 * (double)request->depth + (double)f->n_lists / CENTROIDS_A_ROW);
}

/* --- memory ------------------------------------------------------------------------------------------- */

static size_t ivf_bytes(const struct ivf *f)
{
    if (f->n == 0) {
        return 0;
    }
    return (size_t)f->n_lists * f->dim * sizeof(float) + pq_centers_size(&f->pq) * sizeof(float) +
           (2 * (size_t)f->n_lists + 1) * sizeof(uint32_t) + sizeof(float) +
           ivf_blocks(f) * (PQ_BLOCK * sizeof(uint32_t) + pq_block_bytes(&f->pq));
}

static void note_bytes(struct ann *index)
{
    const struct native_state *s = index->state;
    size_t codes = index->codes == NULL ? 0 : s->ivf.n * index->codes->stride;
    size_t copies =
        s->centroids == NULL
            ? 0
            : (vec_blocks(s->ivf.n_lists) * VEC_BLOCK * s->ivf.dim + pq_centers_size(&s->ivf.pq)) * sizeof(float);
    index->bytes = ivf_bytes(&s->ivf) + s->n_list_of * sizeof *s->list_of + codes + copies;
}

/* Few centroids are read as fast as their codes. */
static int code_centroids(struct coarse *c, const struct ivf *f, struct err *e)
{
    enum { FEW = 512, SAMPLE = 4096 };
    if (f->n_lists < FEW) {
        return 0;
    }
    uint8_t code[PQ_PARTS_MAX];
    size_t sample = f->n_lists < SAMPLE ? f->n_lists : SAMPLE; /* the first ones: they are in no order */
    c->pq = pq_shape(f->dim);
    c->centers = mem_array(pq_centers_size(&c->pq), sizeof *c->centers);
    c->columns = mem_array(pq_centers_size(&c->pq), sizeof *c->columns);
    c->codes = mem_array((f->n_lists + PQ_BLOCK - 1) / PQ_BLOCK, pq_block_bytes(&c->pq));
    if (c->centers == NULL || c->columns == NULL || c->codes == NULL) {
        return err_nomem(e);
    }
    if (pq_train(&c->pq, c->centers, f->centroids, sample, CODES_SEED, e) != 0) {
        return -1;
    }
    c->pq.centers = c->centers;
    for (size_t j = 0; j < f->n_lists; j++) {
        pq_encode(&c->pq, f->centroids + j * f->dim, code);
        pq_put(&c->pq, c->codes + j / PQ_BLOCK * pq_block_bytes(&c->pq), j % PQ_BLOCK, code);
    }
    pq_columns(&c->pq, c->columns);
    return 0;
}

/* What searches read besides the lists: centroids and centers in the order in which they are read; where rows are, for searches that
 * look for some of them. */
static int prepare(struct native_state *s, size_t rows_most, struct err *e)
{
    const struct ivf *f = &s->ivf;
    s->n_list_of = rows_most;
    s->list_of = mem_array(rows_most, sizeof *s->list_of);
    s->centroids = mem_array(vec_blocks(f->n_lists) * VEC_BLOCK * f->dim, sizeof *s->centroids);
    s->columns = mem_array(pq_centers_size(&f->pq), sizeof *s->columns);
    if (s->list_of == NULL || s->centroids == NULL || s->columns == NULL) {
        return err_nomem(e);
    }
    vec_block(s->centroids, f->centroids, f->n_lists, f->dim);
    if (code_centroids(&s->coarse, f, e) != 0) {
        return -1;
    }
    pq_columns(&f->pq, s->columns);
    for (uint32_t j = 0; j < f->n_lists; j++) {
        const uint32_t *rows = f->rows + (size_t)f->block_start[j] * PQ_BLOCK;
        for (size_t i = 0; i < f->list_size[j]; i++) {
            s->list_of[rows[i]] = (uint16_t)j;
        }
    }
    return 0;
}

/* --- changes ------------------------------------------------------------------------------------------------------ */

static int engine_make_room(struct ann *index, struct err *e)
{
    struct native_state *s = index->state;
    size_t rows = ann_rows_most(index);
    if (s->ivf.n == 0) {
        return 0;
    }
    if (s->n_list_of < rows) {
        uint16_t *list_of = mem_resize(s->list_of, s->n_list_of, rows, sizeof *list_of);
        if (list_of == NULL) {
            return err_nomem(e);
        }
        s->list_of = list_of;
        s->n_list_of = rows;
    }
    if (tail_init(&s->tail, &s->ivf, index->changes->room, e) != 0) {
        tail_release(&s->tail);
        return -1;
    }
    index->in_engine = true;
    return 0;
}

static int engine_build_rows(struct ann *index, const struct ann_vectors *vectors, const uint32_t *rows,
                             const struct ann_build_options *options, struct err *e)
{
    struct native_state *s = index->state = mem_array(1, sizeof *s);
    if (s == NULL) {
        return err_nomem(e);
    }
    if (vectors->n == 0) {
        return 0;
    }
    if (ivf_build(&s->ivf, vectors, options, e) != 0) {
        return -1;
    }
    ivf_renumber(&s->ivf, rows);
    if (prepare(s, ann_rows_most(index), e) != 0) {
        return -1;
    }
    note_bytes(index);
    return 0;
}

static void engine_add(struct ann *index, const float *vectors, size_t n, uint32_t first_row)
{
    struct native_state *s = index->state;
    for (size_t done = 0; done < n; done += IVF_ASSIGN_ROWS) {
        size_t rows = n - done < IVF_ASSIGN_ROWS ? n - done : IVF_ASSIGN_ROWS;
        tail_add(&s->tail, vectors + done * s->ivf.dim, rows, first_row + (uint32_t)done);
        for (size_t i = 0; i < rows; i++) {
            s->list_of[first_row + done + i] = (uint16_t)s->tail.list[0][i];
        }
    }
}

/* --- building ----------------------------------------------------------------------------------------------------- */

static int engine_build(struct ann *index, const struct ann_build_options *options, struct err *e)
{
    if (options->factory != NULL && options->factory[0] != '\0') {
        return err_set(e, "the native engine has no factory; remove it, or use engine: faiss");
    }
    if (index->vectors.dim > DIM_MAX) {
        return err_set(e, "vectors of %u numbers are too long for the native engine (%d at most)", index->vectors.dim,
                       DIM_MAX);
    }
    struct native_state *s = index->state = mem_array(1, sizeof *s);
    if (s == NULL) {
        return err_nomem(e);
    }
    if (index->vectors.n > 0 &&
        (ivf_build(&s->ivf, &index->vectors, options, e) != 0 || prepare(s, index->vectors.n, e) != 0 ||
         index_encode(index, options->threads, e) != 0)) {
        return -1;
    }
    note_bytes(index);
    return 0;
}

static void engine_close(struct ann *index)
{
    struct native_state *s = index->state;
    if (s == NULL) {
        return;
    }
    if (s->map.data != NULL) {
        file_map_close(&s->map);
    } else {
        ivf_release(&s->ivf);
    }
    tail_release(&s->tail);
    mem_free(s->list_of);
    mem_free(s->centroids);
    mem_free(s->columns);
    mem_free(s->coarse.centers);
    mem_free(s->coarse.columns);
    mem_free(s->coarse.codes);
    mem_free(s);
    index->state = NULL;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

/* The arrays of an index in the order of its file. */
struct piece {
    const void *data;
    size_t bytes;
};
enum { PIECES = 7 };

static void list_pieces(const struct ivf *f, size_t blocks, struct piece *piece)
{
    piece[0] = (struct piece){f->codes, blocks * pq_block_bytes(&f->pq)};
    piece[1] = (struct piece){f->centroids, (size_t)f->n_lists * f->dim * sizeof(float)};
    piece[2] = (struct piece){f->pq.centers, pq_centers_size(&f->pq) * sizeof(float)};
    piece[3] = (struct piece){f->rows, blocks * PQ_BLOCK * sizeof(uint32_t)};
    piece[4] = (struct piece){f->block_start, ((size_t)f->n_lists + 1) * sizeof(uint32_t)};
    piece[5] = (struct piece){f->list_size, (size_t)f->n_lists * sizeof(uint32_t)};
    piece[6] = (struct piece){f->spread, sizeof(float)};
}

static int engine_save(const struct ann *index, const char *path, struct err *e)
{
    const struct ivf *f = &((const struct native_state *)index->state)->ivf;
    struct indexfile_header header = {.kind = f->n == 0 ? INDEXFILE_EMPTY : INDEXFILE_NATIVE, .width = f->n_lists};
    FILE *file = indexfile_create(path, e);
    if (file == NULL) {
        return -1;
    }
    int rc = 0;
    struct piece piece[PIECES];
    if (f->n > 0) {
        list_pieces(f, ivf_blocks(f), piece);
    }
    for (size_t i = 0; f->n > 0 && rc == 0 && i < PIECES; i++) {
        if (fwrite(piece[i].data, 1, piece[i].bytes, file) != piece[i].bytes) {
            rc = err_set(e, "%s: %s", path, strerror(errno));
        }
    }
    return indexfile_finish(file, path, rc, &header, &index->vectors, e);
}

static int open_ivf(struct native_state *s, const struct indexfile_header *h, struct err *e)
{
    struct ivf *f = &s->ivf;
    *f = (struct ivf){.n = h->n, .dim = h->dim, .n_lists = h->width, .pq = pq_shape(h->dim)};
    struct piece piece[PIECES];
    list_pieces(f, 0, piece);
    size_t fixed = piece[1].bytes + piece[2].bytes + piece[4].bytes + piece[5].bytes + piece[6].bytes;
    size_t block = pq_block_bytes(&f->pq) + PQ_BLOCK * sizeof(uint32_t);
    if (h->dim > DIM_MAX || h->width == 0 || h->width > IVF_LISTS_MAX || fixed > h->payload ||
        (h->payload - fixed) % block != 0) {
        return err_set(e, "the index does not fit its file");
    }
    size_t blocks = (h->payload - fixed) / block;
    list_pieces(f, blocks, piece);
    const unsigned char *at = s->map.data + INDEXFILE_HEADER;
    const void *start[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        start[i] = at;
        at += piece[i].bytes;
    }
    f->codes = start[0];
    f->centroids = start[1];
    f->pq.centers = start[2];
    f->rows = start[3];
    f->block_start = start[4];
    f->list_size = start[5];
    f->spread = start[6];
    return ivf_check(f, blocks, e);
}

static int engine_open(struct ann *index, const char *path, struct err *e)
{
    struct indexfile_header header;
    struct native_state *s = index->state = mem_array(1, sizeof *s);
    if (s == NULL) {
        return err_nomem(e);
    }
    if (indexfile_open(&s->map, &header, path, &index->vectors, e) != 0) {
        s->map = (struct file_map){NULL, 0};
        return -1;
    }
    int rc = 0;
    if (header.kind == INDEXFILE_NATIVE) {
        rc = open_ivf(s, &header, e);
        rc = rc == 0 ? prepare(s, index->vectors.n, e) : rc;
        rc = rc == 0 ? index_encode(index, 1, e) : rc;
    } else if (header.kind != INDEXFILE_EMPTY || index->vectors.n > 0) {
        rc = err_set(e, "not an index of the native engine");
    }
    if (rc != 0) {
        return err_prefix(e, "%s", path);
    }
    note_bytes(index);
    return 0;
}

const struct ann_engine ann_native_engine = {
    .name = "native",
    .has_file = true,
    .exact = false,
    .build = engine_build,
    .open = engine_open,
    .save = engine_save,
    .close = engine_close,
    .set_effort = engine_set_effort,
    .effort_range = engine_effort_range,
    .depth = engine_depth,
    .cost = engine_cost,
    .workspace_init = engine_workspace_init,
    .workspace_release = engine_workspace_release,
    .search = engine_search,
    .masks = true,
    .make_room = engine_make_room,
    .add = engine_add,
    .build_rows = engine_build_rows,
};
