/*
 * Counting is sparse and exact: for each item, over the users that have it, over what else they have. That is the sum of
 * squares of the users' histories, so one user with a million events would cost a trillion steps; histories are cut to
 * the latest distinct `history` items, which are also the ones that say most. Where even that is too much, a random
 * sample of users is counted: a similarity is a ratio of counts, which a sample leaves as it is.
 *
 * Items are dealt to threads; each has a row of counters for the whole catalogue and a list of those that it touched.
 *
 * An item's most similar ones are kept by item, as Sarwar et al. have it: the N that say most about the item. The other
 * way round, a history's items each adding to their own N, was clearly worse (a validation part of MovieLens 100K, N 200,
 * recall@20: .223 against .199). Ranking starts from the history, so the lists are turned round once: what an item leads
 * to.
 *
 * shrink: without it two items that one user happens to have are as alike as can be. On a validation part of Gowalla
 * recall@20 was .177 with 0, .186 with 5, .194 with 20, and the number of neighbours hardly mattered (20 to 1,000: .190 to
 * .195).
 *
 * Ranking adds up similarities in a dense row of the worker and notes what was touched in a bitmap, which gives the
 * touched items in order without sorting them; tiles are then cut out of these lists.
 */
#include "train/baseline_item_cf.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/parallel.h"
#include "core/rng.h"

enum { ITEMS_AT_ONCE = 64, RNG_SAMPLE = 0x6366 };

/* Rows of numbers, one behind the other: row r has [start[r], start[r + 1]). */
struct lists {
    size_t *start;
    uint32_t *value;
};

struct cf_worker {
    uint32_t *recent; /* [history] distinct items of a user */
    uint32_t *stamp;  /* [n_items] number of the last `recent` that met the item */
    uint32_t stamps;
    float *sum;         /* [n_items] of the current user, 0 between users */
    uint64_t *touched;  /* [n_items / 64 + 1] bits */
    struct scored *hit; /* of the block's users, one behind the other, by item */
    size_t hit_capacity;
    size_t start[RANK_BLOCK + 1];
};

struct item_cf {
    struct item_cf_options options;
    const struct interactions *part;
    size_t n_users, n_items;
    struct scored *neighbours; /* [n_items, options.neighbours] while counting */
    uint32_t *n_neighbours;    /* [n_items] while counting */
    size_t *lead_start;        /* [n_items + 1] */
    struct scored *leads;      /* item i leads to leads[lead_start[i]] and on */
    float *fallback;           /* [n_items] in [-1, 0): by popularity */
    struct cf_worker *workers; /* [options.threads] */
};

struct item_cf_options item_cf_defaults(size_t n_items, uint64_t seed, unsigned threads)
{
    size_t affordable = (size_t)25000000 / (n_items > 0 ? n_items : 1);
    uint32_t neighbours = affordable >= 200 ? 200 : affordable < 10 ? 10 : (uint32_t)affordable;
    return (struct item_cf_options){neighbours, 500, 20000000, seed, threads, 20};
}

/* --- histories ------------------------------------------------------------------------------------------------------*/

/* The user's latest distinct items, latest first, to w->recent; returns how many. */
static size_t recent_items(const struct item_cf *cf, struct cf_worker *w, size_t user)
{
    size_t n = 0;
    if (++w->stamps == 0) { /* after 2^32 users */
        memset(w->stamp, 0, cf->n_items * sizeof *w->stamp);
        w->stamps = 1;
    }
    for (size_t i = cf->part->start[user + 1]; i-- > cf->part->start[user] && n < cf->options.history;) {
        uint32_t item = cf->part->item[i];
        if (w->stamp[item] != w->stamps) {
            w->stamp[item] = w->stamps;
            w->recent[n++] = item;
        }
    }
    return n;
}

static void lists_release(struct lists *l)
{
    mem_free(l->start);
    mem_free(l->value);
}

/* Whether a user is counted, when a share of them is. */
static bool is_sampled(const struct item_cf *cf, size_t user, double share)
{
    return share >= 1 || (double)(rng_mix(cf->options.seed ^ rng_mix(user + RNG_SAMPLE)) >> 11) < share * 0x1p53;
}

/* What each counted user has. */
static int make_baskets(const struct item_cf *cf, struct lists *baskets)
{
    struct cf_worker *w = &cf->workers[0];
    size_t total = 0;
    baskets->start = mem_array(cf->n_users + 1, sizeof *baskets->start);
    if (baskets->start == NULL) {
        return -1;
    }
    for (size_t u = 0; u < cf->n_users; u++) {
        total += recent_items(cf, w, u);
    }
    double share = total > cf->options.events ? (double)cf->options.events / (double)total : 1.0;
    if (share < 1) {
        log_info("item_cf: %.1f %% of the users are counted, at random: %zu events are too many for a baseline",
                 100 * share, total);
    }
    size_t n = 0;
    for (size_t u = 0; u < cf->n_users; u++) {
        n += is_sampled(cf, u, share) ? recent_items(cf, w, u) : 0;
        baskets->start[u + 1] = n;
    }
    baskets->value = mem_array(n, sizeof *baskets->value);
    for (size_t u = 0; baskets->value != NULL && u < cf->n_users; u++) {
        if (baskets->start[u + 1] > baskets->start[u]) {
            n = recent_items(cf, w, u);
            memcpy(baskets->value + baskets->start[u], w->recent, n * sizeof *w->recent);
        }
    }
    return baskets->value == NULL ? -1 : 0;
}

/* The other way round: users that have each item. */
static int invert(const struct lists *baskets, size_t n_users, size_t n_items, struct lists *users)
{
    size_t total = baskets->start[n_users];
    users->start = mem_array(n_items + 2, sizeof *users->start); /* one more, to fill it in place */
    users->value = mem_array(total, sizeof *users->value);
    if (users->start == NULL || users->value == NULL) {
        return -1;
    }
    for (size_t i = 0; i < total; i++) {
        users->start[baskets->value[i] + 2]++;
    }
    for (size_t i = 0; i < n_items; i++) {
        users->start[i + 2] += users->start[i + 1];
    }
    for (size_t u = 0; u < n_users; u++) {
        for (size_t i = baskets->start[u]; i < baskets->start[u + 1]; i++) {
            users->value[users->start[baskets->value[i] + 1]++] = (uint32_t)u;
        }
    }
    return 0;
}

/* --- counting -------------------------------------------------------------------------------------------------------*/

struct counting {
    struct item_cf *cf;
    const struct lists *baskets, *users;
    atomic_size_t next;
    atomic_bool failed;
};

static size_t users_of(const struct counting *c, size_t item)
{
    return c->users->start[item + 1] - c->users->start[item];
}

/* Fills the neighbours of one item. together [n_items] is zeros before and after. */
static void count_item(const struct counting *c, uint32_t item, uint32_t *together, uint32_t *touched)
{
    struct item_cf *cf = c->cf;
    size_t n = 0;
    for (size_t i = c->users->start[item]; i < c->users->start[item + 1]; i++) {
        uint32_t user = c->users->value[i];
        for (size_t j = c->baskets->start[user]; j < c->baskets->start[user + 1]; j++) {
            uint32_t other = c->baskets->value[j];
            touched[n] = other;
            n += together[other]++ == 0;
        }
    }
    struct topk best;
    topk_init(&best, cf->neighbours + (size_t)item * cf->options.neighbours, cf->options.neighbours);
    for (size_t i = 0; i < n; i++) {
        uint32_t other = touched[i];
        if (other != item) {
            double norm = sqrt((double)users_of(c, item) * (double)users_of(c, other));
            topk_push(&best, (float)(together[other] / (norm + cf->options.shrink)), other);
        }
        together[other] = 0;
    }
    topk_sort(&best);
    cf->n_neighbours[item] = (uint32_t)best.n;
}

static void count_items(void *arg, unsigned worker)
{
    struct counting *c = arg;
    (void)worker;
    size_t n_items = c->cf->n_items;
    uint32_t *together = mem_array(n_items, sizeof *together);
    uint32_t *touched = mem_array(n_items + 1, sizeof *touched); /* one more: written before it is known to be new */
    if (together == NULL || touched == NULL) {
        atomic_store(&c->failed, true);
    }
    while (!atomic_load(&c->failed)) {
        size_t first = atomic_fetch_add(&c->next, ITEMS_AT_ONCE);
        if (first >= n_items) {
            break;
        }
        for (size_t i = first; i < n_items && i < first + ITEMS_AT_ONCE; i++) {
            count_item(c, (uint32_t)i, together, touched);
        }
    }
    mem_free(together);
    mem_free(touched);
}

static int count_all(struct item_cf *cf, const struct lists *baskets, const struct lists *users)
{
    struct counting c = {.cf = cf, .baskets = baskets, .users = users};
    parallel_run(cf->options.threads, count_items, &c);
    return atomic_load(&c.failed) ? -1 : 0;
}

/* From the neighbours of each item to where each item leads, in the order of items. */
static int turn_round(struct item_cf *cf)
{
    size_t *start = cf->lead_start = mem_array(cf->n_items + 2, sizeof *start); /* one more, to fill it in place */
    if (start == NULL) {
        return -1;
    }
    for (size_t i = 0; i < cf->n_items; i++) {
        const struct scored *near = cf->neighbours + i * cf->options.neighbours;
        for (size_t j = 0; j < cf->n_neighbours[i]; j++) {
            start[near[j].row + 2]++;
        }
    }
    for (size_t i = 0; i < cf->n_items; i++) {
        start[i + 2] += start[i + 1];
    }
    cf->leads = mem_array(start[cf->n_items + 1], sizeof *cf->leads);
    for (size_t i = 0; cf->leads != NULL && i < cf->n_items; i++) {
        const struct scored *near = cf->neighbours + i * cf->options.neighbours;
        for (size_t j = 0; j < cf->n_neighbours[i]; j++) {
            cf->leads[start[near[j].row + 1]++] = (struct scored){near[j].score, (uint32_t)i};
        }
    }
    mem_free(cf->neighbours);
    mem_free(cf->n_neighbours);
    cf->neighbours = NULL;
    cf->n_neighbours = NULL;
    return cf->leads == NULL ? -1 : 0;
}

/* --- making it ------------------------------------------------------------------------------------------------------*/

static int make_workers(struct item_cf *cf)
{
    cf->workers = mem_array(cf->options.threads, sizeof *cf->workers);
    for (unsigned i = 0; cf->workers != NULL && i < cf->options.threads; i++) {
        struct cf_worker *w = &cf->workers[i];
        w->recent = mem_array(cf->options.history, sizeof *w->recent);
        w->stamp = mem_array(cf->n_items, sizeof *w->stamp);
        w->sum = mem_array(cf->n_items, sizeof *w->sum);
        w->touched = mem_array(cf->n_items / 64 + 1, sizeof *w->touched);
        if (w->recent == NULL || w->stamp == NULL || w->sum == NULL || w->touched == NULL) {
            return -1;
        }
    }
    return cf->workers == NULL ? -1 : 0;
}

static int make_fallback(struct item_cf *cf, const uint32_t *item_count)
{
    uint32_t most = 0;
    cf->fallback = mem_array(cf->n_items, sizeof *cf->fallback);
    for (size_t i = 0; i < cf->n_items; i++) {
        most = item_count[i] > most ? item_count[i] : most;
    }
    for (size_t i = 0; cf->fallback != NULL && i < cf->n_items; i++) {
        cf->fallback[i] = (float)((double)item_count[i] / ((double)most + 1) - 1);
    }
    return cf->fallback == NULL ? -1 : 0;
}

static int find_neighbours(struct item_cf *cf)
{
    struct lists baskets = {0}, users = {0};
    cf->neighbours = mem_array(cf->n_items * cf->options.neighbours, sizeof *cf->neighbours);
    cf->n_neighbours = mem_array(cf->n_items, sizeof *cf->n_neighbours);
    int result = cf->neighbours == NULL || cf->n_neighbours == NULL || make_baskets(cf, &baskets) < 0 ||
                         invert(&baskets, cf->n_users, cf->n_items, &users) < 0 || count_all(cf, &baskets, &users) < 0
                     ? -1
                     : 0;
    lists_release(&baskets);
    lists_release(&users);
    return result;
}

static int make(struct item_cf *cf, const uint32_t *item_count)
{
    bool made = make_workers(cf) == 0 && make_fallback(cf, item_count) == 0 && find_neighbours(cf) == 0 &&
                turn_round(cf) == 0; /* not before the lists are gone: it needs room of its own */
    return made ? 0 : -1;
}

struct item_cf *item_cf_new(const struct interactions *part, size_t n_users, size_t n_items, const uint32_t *item_count,
                            const struct item_cf_options *options, struct err *e)
{
    struct item_cf *cf = mem_array(1, sizeof *cf);
    if (cf == NULL) {
        err_nomem(e);
        return NULL;
    }
    *cf = (struct item_cf){.options = *options, .part = part, .n_users = n_users, .n_items = n_items};
    if (make(cf, item_count) < 0) {
        err_nomem(e);
        item_cf_free(cf);
        return NULL;
    }
    return cf;
}

void item_cf_free(struct item_cf *cf)
{
    if (cf == NULL) {
        return;
    }
    for (unsigned i = 0; cf->workers != NULL && i < cf->options.threads; i++) {
        mem_free(cf->workers[i].recent);
        mem_free(cf->workers[i].stamp);
        mem_free(cf->workers[i].sum);
        mem_free(cf->workers[i].touched);
        mem_free(cf->workers[i].hit);
    }
    mem_free(cf->workers);
    mem_free(cf->neighbours);
    mem_free(cf->n_neighbours);
    mem_free(cf->lead_start);
    mem_free(cf->leads);
    mem_free(cf->fallback);
    mem_free(cf);
}

size_t item_cf_leads(const struct item_cf *cf, uint32_t item, const struct scored **leads)
{
    *leads = cf->leads + cf->lead_start[item];
    return cf->lead_start[item + 1] - cf->lead_start[item];
}

/* --- ranking --------------------------------------------------------------------------------------------------------*/

/* Sums for one user; returns how many items were touched. */
static size_t sum_user(const struct item_cf *cf, struct cf_worker *w, uint32_t user)
{
    size_t touched = 0;
    size_t n = recent_items(cf, w, user);
    for (size_t i = 0; i < n; i++) {
        const struct scored *leads;
        size_t n_leads = item_cf_leads(cf, w->recent[i], &leads);
        for (size_t j = 0; j < n_leads; j++) {
            uint32_t item = leads[j].row;
            touched += w->sum[item] == 0; /* similarities are above 0 */
            w->sum[item] += leads[j].score;
            w->touched[item / 64] |= UINT64_C(1) << (item % 64);
        }
    }
    return touched;
}

/* Moves the sums to the worker's list, by item, and clears them. */
static size_t collect(const struct item_cf *cf, struct cf_worker *w, size_t at)
{
    for (size_t word = 0; word <= cf->n_items / 64; word++) {
        for (uint64_t bits = w->touched[word]; bits != 0; bits &= bits - 1) {
            uint32_t item = (uint32_t)(64 * word + (size_t)__builtin_ctzll(bits));
            w->hit[at++] = (struct scored){w->sum[item], item};
            w->sum[item] = 0;
        }
        w->touched[word] = 0;
    }
    return at;
}

static int begin(void *arg, unsigned worker, const uint32_t *users, size_t count, struct err *e)
{
    const struct item_cf *cf = arg;
    struct cf_worker *w = &cf->workers[worker];
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        size_t more = sum_user(cf, w, users[i]);
        if (n + more > w->hit_capacity) {
            size_t capacity = 2 * (n + more);
            struct scored *longer = mem_resize(w->hit, n, capacity, sizeof *longer);
            if (longer == NULL) {
                return err_nomem(e);
            }
            w->hit = longer;
            w->hit_capacity = capacity;
        }
        w->start[i] = n;
        n = collect(cf, w, n);
    }
    w->start[count] = n;
    return 0;
}

/* The first of [from, to) with at least this item. */
static size_t find_item(const struct scored *hits, size_t from, size_t to, size_t item)
{
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (hits[middle].row < item) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

static void score(void *arg, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n,
                  float *scores)
{
    (void)users;
    const struct item_cf *cf = arg;
    const struct cf_worker *w = &cf->workers[worker];
    for (size_t i = 0; i < count; i++) {
        float *row = scores + i * n;
        memcpy(row, cf->fallback + first, n * sizeof *row);
        for (size_t j = find_item(w->hit, w->start[i], w->start[i + 1], first);
             j < w->start[i + 1] && w->hit[j].row < first + n; j++) {
            row[w->hit[j].row - first] = w->hit[j].score;
        }
    }
}

struct ranker item_cf_ranker(struct item_cf *cf)
{
    return (struct ranker){begin, score, cf};
}
