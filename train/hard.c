/*
 * Mining: each user's vector by the bundle's towers, one search in its index, a window of the ranks, a draw from it.
 *
 * The window begins behind the best ranks: those hold most of what the user would like and was never shown, and teaching that
 * these are wrong takes recall away (Huang et al. found ranks 101 to 500 better than the top). What lies far behind is told apart
 * anyway.
 *
 * The bundle's own index answers: approximate, and in the ranks of a window nobody misses an item. Its towers see
 * today's users through a temporary model that is warm-started (train/warm_start.h). Its rows begin as the bundle's
 * unknown value, which is what the daemon would take for a value that is new; at random they would be noise, and so
 * would the lists of new users. Encoding the users anew by the bundle's vocabulary would need the files a second time.
 *
 * Every user with events has a slot of per_user numbers, so that threads need no lock and the result no order; gaps are closed at
 * the end. A user's draw begins with his candidates in ascending order, so it depends on nothing but them and the seed.
 */
#include "train/hard.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/bundle.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "train/bundle_index.h"
#include "train/model.h"
#include "train/progress.h"
#include "train/ranker.h"
#include "train/warm_start.h"

enum { RNG_MINE = 0x6d69 };
#define NO_ITEM UINT32_MAX

struct mining {
    const struct train_config *config;
    const struct dataset *d;
    unsigned threads;
    struct bundle *bundle;
    struct ann *index;
    struct model *model; /* today's rows, the bundle's weights */
    struct tower_ranker *users;
    uint32_t *item; /* [bundle->n_items]: today's number of each, or NO_ITEM */
    struct interactions *hard;
    uint32_t *count; /* [n_users]: how much of a user's slot of `hard` is filled */
    atomic_size_t next;
    atomic_bool failed;
    struct progress progress;
};

struct miner {
    struct mining *m;
    unsigned worker;
    struct ann_workspace *ws;
    struct scored *hits;  /* [ranks[1]] */
    uint32_t *candidates; /* [ranks[1]], ascending */
    bool *own;            /* [ranks[1]]: the user has this candidate in train; all false between users */
    float *vectors;       /* [RANK_BLOCK, dim] */
    struct err error;
};

/* --- one user --------------------------------------------------------------------------------------------------------- */

static int compare_items(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Takes out what the user has in train. Returns how many are left. */
static size_t drop_own(struct miner *t, uint32_t user, size_t n)
{
    const struct interactions *train = &t->m->d->train;
    size_t left = 0;
    for (size_t i = train->start[user]; i < train->start[user + 1]; i++) {
        uint32_t *found = bsearch(&train->item[i], t->candidates, n, sizeof *t->candidates, compare_items);
        if (found != NULL) {
            t->own[found - t->candidates] = true;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!t->own[i]) {
            t->candidates[left++] = t->candidates[i];
        }
        t->own[i] = false;
    }
    return left;
}

static int mine_user(struct miner *t, uint32_t user, const float *vector)
{
    struct mining *m = t->m;
    const uint32_t *ranks = m->config->negatives.hard.ranks;
    struct ann_query query = {.vector = vector, .k = ranks[1], .min_score = -INFINITY};
    struct ann_answer answer;
    struct rng rng;
    size_t n = 0;
    if (ann_search(m->index, t->ws, &query, t->hits, &answer, &t->error) < 0) {
        return err_prefix(&t->error, "negatives.hard: the vector of a user");
    }
    for (size_t rank = ranks[0]; rank <= answer.n; rank++) {
        uint32_t item = m->item[t->hits[rank - 1].row];
        if (item != NO_ITEM) {
            t->candidates[n++] = item;
        }
    }
    qsort(t->candidates, n, sizeof *t->candidates, compare_items);
    n = drop_own(t, user, n);
    uint32_t *slot = m->hard->item + m->hard->start[user];
    size_t room = m->hard->start[user + 1] - m->hard->start[user];
    rng_seed(&rng, rng_mix(m->config->seed ^ RNG_MINE), user);
    for (size_t i = 0; i < n && i < room; i++) {
        size_t j = i + rng_below(&rng, (uint32_t)(n - i));
        slot[i] = t->candidates[j];
        t->candidates[j] = t->candidates[i];
    }
    m->count[user] = (uint32_t)(n < room ? n : room);
    return 0;
}

static int mine_block(struct miner *t, size_t first)
{
    const struct mining *m = t->m;
    const struct dataset *d = m->d;
    uint32_t users[RANK_BLOCK];
    size_t n = 0;
    for (size_t u = first; u < d->n_users && u < first + RANK_BLOCK; u++) {
        if (d->train.start[u + 1] > d->train.start[u]) {
            users[n++] = (uint32_t)u;
        }
    }
    if (n > 0 && tower_ranker_vectors(m->users, t->worker, users, n, t->vectors, &t->error) < 0) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (mine_user(t, users[i], t->vectors + i * m->bundle->dim) < 0) {
            return -1;
        }
    }
    return 0;
}

/* --- threads ---------------------------------------------------------------------------------------------------------- */

static int miner_init(struct miner *t)
{
    const struct mining *m = t->m;
    size_t depth = m->config->negatives.hard.ranks[1];
    t->ws = ann_workspace_new(m->index, depth, &t->error);
    t->hits = mem_array(depth, sizeof *t->hits);
    t->candidates = mem_array(depth, sizeof *t->candidates);
    t->own = mem_array(depth, sizeof *t->own);
    t->vectors = mem_array((size_t)RANK_BLOCK * m->bundle->dim, sizeof *t->vectors);
    return t->ws == NULL || t->hits == NULL || t->candidates == NULL || t->own == NULL || t->vectors == NULL
               ? err_nomem(&t->error)
               : 0;
}

static void miner_release(struct miner *t)
{
    ann_workspace_free(t->ws);
    mem_free(t->hits);
    mem_free(t->candidates);
    mem_free(t->own);
    mem_free(t->vectors);
}

static void run_miner(void *arg, unsigned worker)
{
    struct miner *t = (struct miner *)arg + worker;
    struct mining *m = t->m;
    int result = miner_init(t); /* here: a workspace belongs to its thread */
    while (result == 0 && !atomic_load(&m->failed)) {
        size_t first = atomic_fetch_add(&m->next, RANK_BLOCK);
        if (first >= m->d->n_users) {
            break;
        }
        result = mine_block(t, first);
        if (t->worker == 0) {
            progress_update(&m->progress, (double)first);
        }
    }
    if (result < 0) {
        atomic_store(&m->failed, true);
    }
    miner_release(t);
}

static int mine_all(struct mining *m, struct err *e)
{
    struct miner *miners = mem_array(m->threads, sizeof *miners);
    int result = 0;
    if (miners == NULL) {
        return err_nomem(e);
    }
    for (unsigned i = 0; i < m->threads; i++) {
        miners[i] = (struct miner){.m = m, .worker = i};
    }
    progress_begin(&m->progress, "hard negatives", "users", (double)m->d->n_users);
    parallel_run(m->threads, run_miner, miners);
    progress_end(&m->progress);
    for (unsigned i = 0; i < m->threads && result == 0; i++) {
        result = err_isset(&miners[i].error) ? err_set(e, "%s", miners[i].error.message) : 0;
    }
    mem_free(miners);
    return result;
}

/* --- before and after ------------------------------------------------------------------------------------------------- */

static int check_bundle(const struct mining *m, struct err *e)
{
    const struct bundle *b = m->bundle;
    const uint32_t *ranks = m->config->negatives.hard.ranks;
    struct err why = ERR_INIT;
    if (warm_start_check(&m->d->schema, b, &why) < 0) {
        return err_set(e,
                       "negatives.hard.bundle %s: %s; users can be given to its index only by the same features and "
                       "networks: name a bundle that has them, or fit once without negatives.hard",
                       b->dir, why.message);
    }
    if (ranks[1] > b->n_items) {
        return err_set(
            e,
            "negatives.hard.ranks: [%u, %u]: more hard negatives are asked for than exist: the bundle %s has "
            "%zu items; end the window there, or earlier",
            ranks[0], ranks[1], b->dir, b->n_items);
    }
    return 0;
}

/* All rows of the tables as values that the bundle does not know; warm_start then puts in those that it does. */
static void fill_unknown(struct model *model, const struct bundle *from)
{
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        const struct tower_spec *now = &model->schema->towers[side];
        for (uint32_t i = 0; i < now->n_features; i++) {
            if (model->table[side][i] < 0 || now->features[i].shared) {
                continue;
            }
            struct parameter *p = &model->parameters[model->table[side][i]];
            int at = tower_spec_find(&from->schema.towers[side], now->features[i].name);
            const float *unknown = from->towers[side].embedding[at] + SCHEMA_UNKNOWN * p->columns;
            for (size_t row = 0; row < p->rows; row++) {
                memcpy(p->value + row * p->columns, unknown, p->columns * sizeof *unknown);
            }
        }
    }
}

static int make_users(struct mining *m, struct err *e)
{
    m->model = model_new(&m->d->schema, 0, e);
    if (m->model == NULL) {
        return -1;
    }
    fill_unknown(m->model, m->bundle);
    if (warm_start(m->model, m->bundle, e) < 0) {
        return -1;
    }
    m->users = tower_ranker_new(m->d, &m->d->train, &m->model->towers[SIDE_USER], NULL, m->threads, e);
    return m->users == NULL ? -1 : 0;
}

/* Today's items among the bundle's. */
static int map_items(struct mining *m, struct err *e)
{
    m->item = mem_array(m->bundle->n_items, sizeof *m->item);
    if (m->item == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < m->bundle->n_items; i++) {
        size_t length;
        const char *id = strtab_get(&m->bundle->item_ids, i, &length);
        int64_t at = strtab_find(&m->d->item_ids, id, length);
        m->item[i] = at < 0 ? NO_ITEM : (uint32_t)at;
    }
    return 0;
}

static int make_slots(struct mining *m, struct err *e)
{
    const struct dataset *d = m->d;
    m->hard->start = mem_array(d->n_users + 1, sizeof *m->hard->start);
    m->count = mem_array(d->n_users, sizeof *m->count);
    if (m->hard->start == NULL || m->count == NULL) {
        return err_nomem(e);
    }
    for (size_t u = 0; u < d->n_users; u++) {
        bool mined = d->train.start[u + 1] > d->train.start[u];
        m->hard->start[u + 1] = m->hard->start[u] + (mined ? m->config->negatives.hard.per_user : 0);
    }
    m->hard->item = mem_array(m->hard->start[d->n_users], sizeof *m->hard->item);
    return m->hard->item == NULL ? err_nomem(e) : 0;
}

/* Closes the gaps behind users with fewer than their slot holds, gives back the rest, and says what there is. */
static int close_gaps(struct mining *m, struct err *e)
{
    struct interactions *hard = m->hard;
    const uint32_t *ranks = m->config->negatives.hard.ranks;
    size_t users = 0, with = 0, n = 0, first = 0;
    size_t slots = hard->start[m->d->n_users];
    for (size_t u = 0; u < m->d->n_users; u++) {
        size_t next = hard->start[u + 1];
        memmove(hard->item + n, hard->item + first, m->count[u] * sizeof *hard->item);
        users += next > first;
        with += m->count[u] > 0;
        n += m->count[u];
        hard->start[u + 1] = n;
        first = next;
    }
    if (n == 0) {
        return err_set(
            e,
            "negatives.hard.ranks: [%u, %u]: nobody has an item at these ranks of %s that the data still has "
            "and that is not his own; use a wider window, or a later bundle",
            ranks[0], ranks[1], m->bundle->dir);
    }
    hard->n = n;
    uint32_t *less = mem_resize(hard->item, slots, n, sizeof *less);
    hard->item = less != NULL ? less : hard->item;
    log_info("hard negatives: %zu of %zu users have %.1f each, of the ranks %u to %u in %s", with, users,
             (double)n / (double)with, ranks[0], ranks[1], m->bundle->version);
    return 0;
}

int hard_mine(const struct train_config *config, const struct dataset *d, unsigned threads, struct interactions *hard,
              struct err *e)
{
    struct mining m = {.config = config, .d = d, .threads = threads, .hard = hard};
    *hard = (struct interactions){0};
    int result = -1;
    m.bundle = bundle_open(config->negatives.hard.bundle, e);
    m.index = m.bundle == NULL ? NULL : bundle_index_open(m.bundle, e);
    if (m.index == NULL) {
        err_prefix(e, "negatives.hard.bundle");
    } else if (check_bundle(&m, e) == 0 && make_users(&m, e) == 0 && map_items(&m, e) == 0 && make_slots(&m, e) == 0 &&
               mine_all(&m, e) == 0) {
        result = close_gaps(&m, e);
    }
    if (result < 0) {
        interactions_release(hard);
    }
    tower_ranker_free(m.users);
    model_free(m.model);
    ann_free(m.index);
    bundle_free(m.bundle);
    mem_free(m.item);
    mem_free(m.count);
    return result;
}
