/*
 * The ranking pass: users in blocks of RANK_BLOCK, blocks dealt to threads by an atomic counter. A block goes over the
 * catalogue in tiles of RANK_TILE items: the scores of a tile are made, the seen ones crossed out, and what is left is
 * offered to each user's top-k. A tile of scores stays in the cache, and memory does not grow with the catalogue.
 *
 * Each user's outcome has its own place, and how often an item was shown is a sum of whole numbers, so nothing depends
 * on scheduling. Means are taken afterwards, in the order of users.
 *
 * A user costs one row of a matrix product and one top-k over the catalogue; on 40,000 items that is some 50
 * microseconds, so ranking everything is affordable, and the sampled protocols that others use for speed are not needed.
 */
#include "train/evaluate.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/topk.h"
#include "train/progress.h"

enum { RANK_TILE = 4096, RNG_CHOICE = 0x6576 };

struct run {
    const struct evaluation *ev;
    const struct ranker *ranker;
    struct outcomes *out; /* found has room for all relevant events of the users, start says where each user's begin */
    uint32_t *n_found;    /* [out->n_users] */
    size_t depth, n_tiles, n_blocks;
    atomic_size_t next_block;
    atomic_bool failed;
    _Atomic(uint32_t) *shown; /* [at.n, n_items]: first shown between one cut-off and the next */
    struct progress progress;
};

struct seen_pair {
    uint32_t item, row; /* row: of the block */
};

struct run_thread {
    struct run *run;
    unsigned worker;
    float *scores;          /* [RANK_BLOCK, RANK_TILE] */
    struct scored *entries; /* [RANK_BLOCK, depth] */
    uint32_t *mark;         /* [n_items] of one user: SEEN, or 1 + position among the relevant; 0 between users */
    struct seen_pair *seen; /* pairs of the block, by tile */
    size_t seen_capacity;
    size_t *tile_start; /* [n_tiles + 1] into seen */
    struct err error;
};

#define SEEN UINT32_MAX

/* --- one block ------------------------------------------------------------------------------------------------------*/

static const uint32_t *events_of(const struct interactions *part, uint32_t user, size_t *n)
{
    *n = part == NULL ? 0 : part->start[user + 1] - part->start[user];
    return part == NULL ? NULL : part->item + part->start[user];
}

/* The block's seen pairs, sorted by tile (counting sort). */
static int gather_seen(struct run_thread *t, const uint32_t *users, size_t count)
{
    const struct run *run = t->run;
    size_t n_tiles = run->n_tiles;
    size_t n;
    memset(t->tile_start, 0, (n_tiles + 1) * sizeof *t->tile_start);
    for (size_t i = 0; i < count; i++) {
        const uint32_t *items = events_of(run->ev->seen, users[i], &n);
        for (size_t j = 0; j < n; j++) {
            t->tile_start[items[j] / RANK_TILE + 1]++;
        }
    }
    for (size_t tile = 0; tile < n_tiles; tile++) {
        t->tile_start[tile + 1] += t->tile_start[tile];
    }
    size_t total = t->tile_start[n_tiles];
    if (total > t->seen_capacity) {
        mem_free(t->seen);
        t->seen = mem_array(total, sizeof *t->seen);
        t->seen_capacity = t->seen == NULL ? 0 : total;
        if (t->seen == NULL) {
            return err_nomem(&t->error);
        }
    }
    for (size_t i = count; i-- > 0;) { /* fills each tile from its end, so that the starts are right afterwards */
        const uint32_t *items = events_of(run->ev->seen, users[i], &n);
        for (size_t j = 0; j < n; j++) {
            size_t tile = items[j] / RANK_TILE;
            t->seen[--t->tile_start[tile + 1]] = (struct seen_pair){items[j], (uint32_t)i};
        }
    }
    memmove(t->tile_start, t->tile_start + 1, n_tiles * sizeof *t->tile_start);
    t->tile_start[n_tiles] = total;
    return 0;
}

static void rank_tile(struct run_thread *t, size_t tile, const uint32_t *users, size_t count, struct topk *best)
{
    const struct run *run = t->run;
    size_t first = tile * RANK_TILE;
    size_t n = run->ev->n_items - first < RANK_TILE ? run->ev->n_items - first : RANK_TILE;
    run->ranker->score(run->ranker->arg, t->worker, users, count, first, n, t->scores);
    for (size_t i = t->tile_start[tile]; i < t->tile_start[tile + 1]; i++) {
        t->scores[t->seen[i].row * n + t->seen[i].item - first] = NAN; /* never kept by the top-k */
    }
    for (size_t i = 0; i < count; i++) {
        topk_push_block(&best[i], t->scores + i * n, n, (uint32_t)first);
    }
}

static void count_shown(struct run *run, const struct topk *best)
{
    const struct metric_cutoffs *at = &run->ev->at;
    size_t rank = 0;
    for (size_t c = 0; c < at->n; c++) {
        for (; rank < best->n && rank < at->k[c]; rank++) {
            atomic_fetch_add_explicit(&run->shown[c * run->ev->n_items + best->entries[rank].row], 1,
                                      memory_order_relaxed);
        }
    }
}

/* Writes down which relevant items the user's ranking found, and where. */
static void note_outcome(struct run_thread *t, size_t i, uint32_t user, const struct topk *best)
{
    struct run *run = t->run;
    const struct evaluation *ev = run->ev;
    struct found *found = run->out->found + run->out->start[i];
    size_t n_seen, n_relevant;
    const uint32_t *seen = events_of(ev->seen, user, &n_seen);
    const uint32_t *relevant = events_of(ev->relevant, user, &n_relevant);
    uint32_t n = 0;
    for (size_t j = 0; j < n_seen; j++) {
        t->mark[seen[j]] = SEEN;
    }
    for (size_t j = 0; j < n_relevant; j++) {
        if (t->mark[relevant[j]] == 0) { /* a repeated pair counts once */
            found[n++] = (struct found){relevant[j], 0};
            t->mark[relevant[j]] = n;
        }
    }
    for (size_t rank = 0; rank < best->n; rank++) {
        uint32_t mark = t->mark[best->entries[rank].row];
        if (mark != 0 && mark != SEEN) {
            found[mark - 1].rank = (uint32_t)rank + 1;
        }
    }
    for (size_t j = 0; j < n_seen; j++) {
        t->mark[seen[j]] = 0;
    }
    for (size_t j = 0; j < n_relevant; j++) {
        t->mark[relevant[j]] = 0;
    }
    run->n_found[i] = n;
    run->out->n_relevant[i] = n + (ev->unreachable == NULL ? 0 : ev->unreachable[user]);
    if (run->out->n_relevant[i] > 0) {
        count_shown(run, best);
    }
}

static int rank_block(struct run_thread *t, size_t block)
{
    struct run *run = t->run;
    size_t first = block * RANK_BLOCK;
    size_t count = run->out->n_users - first < RANK_BLOCK ? run->out->n_users - first : RANK_BLOCK;
    const uint32_t *users = run->out->user + first;
    struct topk best[RANK_BLOCK];
    if (run->ranker->begin != NULL && run->ranker->begin(run->ranker->arg, t->worker, users, count, &t->error) < 0) {
        return -1;
    }
    if (gather_seen(t, users, count) < 0) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        topk_init(&best[i], t->entries + i * run->depth, run->depth);
    }
    for (size_t tile = 0; tile < run->n_tiles; tile++) {
        rank_tile(t, tile, users, count, best);
    }
    for (size_t i = 0; i < count; i++) {
        topk_sort(&best[i]);
        note_outcome(t, first + i, users[i], &best[i]);
    }
    return 0;
}

static void run_blocks(void *arg, unsigned worker)
{
    struct run_thread *t = (struct run_thread *)arg + worker;
    struct run *run = t->run;
    for (;;) {
        size_t block = atomic_fetch_add(&run->next_block, 1);
        if (block >= run->n_blocks || atomic_load(&run->failed)) {
            return;
        }
        if (rank_block(t, block) < 0) {
            atomic_store(&run->failed, true);
        }
        if (t->worker == 0) {
            progress_update(&run->progress, (double)(block * RANK_BLOCK));
        }
    }
}

/* --- threads --------------------------------------------------------------------------------------------------------*/

static int thread_init(struct run_thread *t, struct run *run, unsigned worker)
{
    t->run = run;
    t->worker = worker;
    t->scores = mem_array((size_t)RANK_BLOCK * RANK_TILE, sizeof *t->scores);
    t->entries = mem_array(RANK_BLOCK * run->depth, sizeof *t->entries);
    t->mark = mem_array(run->ev->n_items, sizeof *t->mark);
    t->tile_start = mem_array(run->n_tiles + 1, sizeof *t->tile_start);
    return t->scores == NULL || t->entries == NULL || t->mark == NULL || t->tile_start == NULL ? -1 : 0;
}

static void thread_release(struct run_thread *t)
{
    mem_free(t->scores);
    mem_free(t->entries);
    mem_free(t->mark);
    mem_free(t->seen);
    mem_free(t->tile_start);
}

static int run_threads(struct run *run, struct run_thread *threads, unsigned n, struct err *e)
{
    for (unsigned i = 0; i < n; i++) {
        if (thread_init(&threads[i], run, i) < 0) {
            return err_nomem(e);
        }
    }
    parallel_run(n, run_blocks, threads);
    for (unsigned i = 0; i < n; i++) {
        if (err_isset(&threads[i].error)) {
            return err_set(e, "%s", threads[i].error.message);
        }
    }
    return 0;
}

static int run_all(struct run *run, const char *label, struct err *e)
{
    unsigned n = run->ev->threads > 0 ? run->ev->threads : 1;
    struct run_thread *threads = mem_array(n, sizeof *threads);
    int result = -1;
    if (threads == NULL) {
        err_nomem(e);
    } else {
        progress_begin(&run->progress, label, "users", (double)run->out->n_users);
        result = run_threads(run, threads, n, e);
        progress_end(&run->progress);
    }
    for (unsigned i = 0; threads != NULL && i < n; i++) {
        thread_release(&threads[i]);
    }
    mem_free(threads);
    return result;
}

/* --- before and after -----------------------------------------------------------------------------------------------*/

static bool has_relevant(const struct evaluation *ev, size_t user)
{
    return ev->relevant->start[user + 1] > ev->relevant->start[user] ||
           (ev->unreachable != NULL && ev->unreachable[user] > 0);
}

/* The users to rank, ascending: all that have something relevant, or a random choice of max_users of them (selection
 * sampling: Knuth, TAOCP volume 2, algorithm 3.4.2 S). */
static int choose_users(const struct evaluation *ev, struct outcomes *out, struct err *e)
{
    for (size_t u = 0; u < ev->n_users; u++) {
        out->n_candidates += has_relevant(ev, u);
    }
    size_t wanted = ev->max_users > 0 && ev->max_users < out->n_candidates ? ev->max_users : out->n_candidates;
    size_t left = out->n_candidates;
    struct rng rng;
    rng_seed(&rng, ev->seed, RNG_CHOICE);
    out->user = mem_array(wanted, sizeof *out->user);
    if (out->user == NULL) {
        return err_nomem(e);
    }
    for (size_t u = 0; u < ev->n_users && out->n_users < wanted; u++) {
        if (has_relevant(ev, u) && rng_below(&rng, (uint32_t)left--) < wanted - out->n_users) {
            out->user[out->n_users++] = (uint32_t)u;
        }
    }
    return wanted > 0 ? 0 : err_set(e, "no user has an item to test with");
}

static int make_room(struct run *run, struct err *e)
{
    const struct evaluation *ev = run->ev;
    struct outcomes *out = run->out;
    out->start = mem_array(out->n_users + 1, sizeof *out->start);
    out->n_relevant = mem_array(out->n_users, sizeof *out->n_relevant);
    run->n_found = mem_array(out->n_users, sizeof *run->n_found);
    out->shown = mem_array(ev->at.n * ev->n_items, sizeof *out->shown);
    run->shown = mem_array(ev->at.n * ev->n_items, sizeof *run->shown);
    if (out->start == NULL || out->n_relevant == NULL || run->n_found == NULL || out->shown == NULL ||
        run->shown == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < out->n_users; i++) {
        size_t user = out->user[i];
        out->start[i + 1] = out->start[i] + ev->relevant->start[user + 1] - ev->relevant->start[user];
    }
    out->found = mem_array(out->start[out->n_users], sizeof *out->found);
    return out->found == NULL ? err_nomem(e) : 0;
}

/* Leaves out the users that have seen all that was relevant, and the gaps; adds up what was shown. */
static void tidy(const struct run *run)
{
    struct outcomes *out = run->out;
    size_t users = 0, n = 0;
    for (size_t i = 0; i < out->n_users; i++) {
        if (out->n_relevant[i] == 0) {
            continue;
        }
        size_t from = out->start[i];
        out->user[users] = out->user[i];
        out->n_relevant[users] = out->n_relevant[i];
        out->start[users++] = n;
        memmove(out->found + n, out->found + from, run->n_found[i] * sizeof *out->found);
        n += run->n_found[i];
    }
    out->start[users] = n;
    out->n_users = users;
    for (size_t i = 0; i < out->n_items; i++) {
        uint32_t sum = 0;
        for (size_t c = 0; c < out->at.n; c++) {
            sum += atomic_load_explicit(&run->shown[c * out->n_items + i], memory_order_relaxed);
            out->shown[c * out->n_items + i] = sum;
        }
    }
}

int evaluate_outcomes(const struct evaluation *ev, const struct ranker *ranker, const char *label, struct outcomes *out,
                      struct err *e)
{
    struct run run = {.ev = ev, .ranker = ranker, .out = out};
    *out = (struct outcomes){.at = ev->at, .n_items = ev->n_items};
    run.depth = metric_depth(&ev->at) < ev->n_items ? metric_depth(&ev->at) : ev->n_items;
    run.n_tiles = (ev->n_items + RANK_TILE - 1) / RANK_TILE;
    int result = choose_users(ev, out, e) < 0 || make_room(&run, e) < 0 ? -1 : 0;
    if (result == 0) {
        run.n_blocks = (out->n_users + RANK_BLOCK - 1) / RANK_BLOCK;
        result = run_all(&run, label, e);
    }
    if (result == 0) {
        tidy(&run);
    } else {
        outcomes_release(out);
    }
    mem_free(run.n_found);
    mem_free((void *)run.shown);
    return result;
}

void outcomes_release(struct outcomes *o)
{
    mem_free(o->user);
    mem_free(o->n_relevant);
    mem_free(o->start);
    mem_free(o->found);
    mem_free(o->shown);
    *o = (struct outcomes){0};
}

int evaluate(const struct evaluation *ev, const struct ranker *ranker, const char *label, struct metrics *m,
             struct err *e)
{
    struct outcomes out;
    if (evaluate_outcomes(ev, ranker, label, &out, e) < 0) {
        return -1;
    }
    metrics_of(&out, m);
    outcomes_release(&out);
    return 0;
}
