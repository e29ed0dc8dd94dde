/*
 * The evaluation loop: users in blocks of RANK_BLOCK, blocks dealt to threads by an atomic counter, sums kept per block
 * and added in block order at the end, so that the result does not depend on scheduling.
 *
 * A user costs one row of a matrix product and one top-k over the catalogue; on 40,000 items that is some 50
 * microseconds, so ranking everything is affordable, and the sampled protocols that others use for speed are not needed.
 */
#include "train/evaluate.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/topk.h"
#include "core/vecmath.h"
#include "train/progress.h"

const struct metric_cutoffs metric_default_cutoffs = {4, {10, 20, 50, 100}};

enum { MRR_DEPTH = 100, EMBED_BLOCK = 256 };

/* --- sums over users ------------------------------------------------------------------------------------------------*/

struct run {
    const struct evaluation *ev;
    const struct ranker *ranker;
    uint32_t *users; /* [n_users] those with something relevant */
    size_t n_users, depth;
    struct metrics *blocks; /* [n_blocks] sums of each block */
    size_t n_blocks;
    atomic_size_t next_block;
    atomic_bool failed;
    _Atomic(unsigned char) *covered; /* [n_items]: 1 + index of the smallest cutoff that showed the item, 0: none */
    struct progress progress;
};

struct run_thread {
    struct run *run;
    unsigned worker;
    float *scores;          /* [RANK_BLOCK, n_items] */
    struct scored *entries; /* [depth] */
    uint32_t *mark;         /* [n_items]: the stamp of the user it is relevant to */
    struct err error;
};

static void note_coverage(struct run *run, const struct topk *best)
{
    const struct metric_cutoffs *at = &run->ev->at;
    size_t rank = 0;
    for (size_t c = 0; c < at->n; c++) {
        for (; rank < best->n && rank < at->k[c]; rank++) {
            _Atomic(unsigned char) *cell = &run->covered[best->entries[rank].row];
            unsigned char seen = atomic_load_explicit(cell, memory_order_relaxed);
            while ((seen == 0 || seen > c + 1) &&
                   !atomic_compare_exchange_weak_explicit(cell, &seen, (unsigned char)(c + 1), memory_order_relaxed,
                                                          memory_order_relaxed)) {}
        }
    }
}

/* The last rank that any metric looks at. */
static size_t deepest_rank(const struct metric_cutoffs *at)
{
    uint32_t last = at->k[at->n - 1];
    return last > MRR_DEPTH ? last : MRR_DEPTH;
}

/* Adds one user's metrics to the sums. mark[row] == stamp where the row is relevant. */
static void add_user(struct metrics *sum, const struct topk *best, const uint32_t *mark, uint32_t stamp,
                     size_t n_relevant)
{
    const struct metric_cutoffs *at = &sum->at;
    size_t hits = 0;
    double gain = 0;
    double ideal = 0;
    size_t c = 0;
    for (size_t rank = 1; rank <= deepest_rank(at); rank++) {
        double discount = 1.0 / log2((double)rank + 1.0);
        ideal += rank <= n_relevant ? discount : 0.0;
        if (rank <= best->n && mark[best->entries[rank - 1].row] == stamp) {
            if (hits == 0 && rank <= MRR_DEPTH) {
                sum->mrr += 1.0 / (double)rank;
            }
            hits++;
            gain += discount;
        }
        if (c < at->n && rank == at->k[c]) {
            sum->recall[c] += (double)hits / (double)n_relevant;
            sum->ndcg[c] += gain / ideal;
            sum->hit_rate[c] += hits > 0;
            c++;
        }
    }
    sum->users++;
}

/* Stamps a user's relevant, unseen items; returns how many there are. */
static size_t mark_relevant(const struct evaluation *ev, uint32_t *mark, uint32_t user, uint32_t stamp)
{
    const struct interactions *relevant = ev->relevant;
    size_t n = ev->unreachable == NULL ? 0 : ev->unreachable[user];
    for (size_t i = relevant->start[user]; i < relevant->start[user + 1]; i++) {
        n += mark[relevant->item[i]] != stamp; /* a repeated pair counts once */
        mark[relevant->item[i]] = stamp;
    }
    for (size_t i = ev->seen == NULL ? 0 : ev->seen->start[user]; ev->seen != NULL && i < ev->seen->start[user + 1];
         i++) {
        uint32_t item = ev->seen->item[i];
        n -= mark[item] == stamp;
        mark[item] = mark[item] == stamp ? 0 : mark[item];
    }
    return n;
}

static int rank_block(struct run_thread *t, size_t block)
{
    struct run *run = t->run;
    const struct evaluation *ev = run->ev;
    size_t first = block * RANK_BLOCK;
    size_t count = run->n_users - first < RANK_BLOCK ? run->n_users - first : RANK_BLOCK;
    struct metrics *sum = &run->blocks[block];
    sum->at = ev->at;
    if (run->ranker->score(run->ranker->arg, t->worker, run->users + first, count, t->scores, &t->error) < 0) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t user = run->users[first + i];
        float *scores = t->scores + i * ev->n_items;
        size_t n_relevant = mark_relevant(ev, t->mark, user, user + 1);
        if (n_relevant == 0) {
            continue;
        }
        for (size_t j = ev->seen == NULL ? 0 : ev->seen->start[user]; ev->seen != NULL && j < ev->seen->start[user + 1];
             j++) {
            scores[ev->seen->item[j]] = NAN; /* never kept by the top-k */
        }
        struct topk best;
        topk_init(&best, t->entries, run->depth);
        topk_push_block(&best, scores, ev->n_items, 0);
        topk_sort(&best);
        add_user(sum, &best, t->mark, user + 1, n_relevant);
        note_coverage(run, &best);
    }
    return 0;
}

static void *run_blocks(void *arg)
{
    struct run_thread *t = arg;
    struct run *run = t->run;
    for (;;) {
        size_t block = atomic_fetch_add(&run->next_block, 1);
        if (block >= run->n_blocks || atomic_load(&run->failed)) {
            return NULL;
        }
        if (rank_block(t, block) < 0) {
            atomic_store(&run->failed, true);
        }
        if (t->worker == 0) {
            progress_update(&run->progress, (double)(block * RANK_BLOCK));
        }
    }
}

/* --- set-up ---------------------------------------------------------------------------------------------------------*/

static int choose_users(struct run *run, struct err *e)
{
    const struct evaluation *ev = run->ev;
    run->users = mem_array(ev->n_users, sizeof *run->users);
    if (run->users == NULL) {
        return err_nomem(e);
    }
    for (size_t u = 0; u < ev->n_users; u++) {
        bool has =
            ev->relevant->start[u + 1] > ev->relevant->start[u] || (ev->unreachable != NULL && ev->unreachable[u] > 0);
        if (has) {
            run->users[run->n_users++] = (uint32_t)u;
        }
    }
    if (ev->max_users > 0 && run->n_users > ev->max_users) {
        for (size_t i = 0; i < ev->max_users; i++) {
            run->users[i] = run->users[i * run->n_users / ev->max_users];
        }
        run->n_users = ev->max_users;
    }
    return run->n_users > 0 ? 0 : err_set(e, "no user has an item to test with");
}

static int start_threads(struct run *run, struct run_thread *threads, unsigned n, struct err *e)
{
    const struct evaluation *ev = run->ev;
    pthread_t *ids = mem_array(n, sizeof *ids);
    if (ids == NULL) {
        return err_nomem(e);
    }
    for (unsigned i = 0; i < n; i++) {
        struct run_thread *t = &threads[i];
        t->run = run;
        t->worker = i;
        t->scores = mem_array(RANK_BLOCK * ev->n_items, sizeof *t->scores);
        t->entries = mem_array(run->depth, sizeof *t->entries);
        t->mark = mem_array(ev->n_items, sizeof *t->mark);
        if (t->scores == NULL || t->entries == NULL || t->mark == NULL) {
            mem_free(ids);
            return err_nomem(e);
        }
    }
    unsigned started = 1;
    while (started < n && pthread_create(&ids[started], NULL, run_blocks, &threads[started]) == 0) {
        started++;
    }
    run_blocks(&threads[0]); /* fewer threads only take longer */
    for (unsigned i = 1; i < started; i++) {
        pthread_join(ids[i], NULL);
    }
    mem_free(ids);
    for (unsigned i = 0; i < n; i++) {
        if (err_isset(&threads[i].error)) {
            return err_set(e, "%s", threads[i].error.message);
        }
    }
    return 0;
}

static void add_up(const struct run *run, struct metrics *m)
{
    *m = (struct metrics){.at = run->ev->at};
    for (size_t b = 0; b < run->n_blocks; b++) {
        const struct metrics *block = &run->blocks[b];
        m->users += block->users;
        m->mrr += block->mrr;
        for (size_t c = 0; c < m->at.n; c++) {
            m->recall[c] += block->recall[c];
            m->ndcg[c] += block->ndcg[c];
            m->hit_rate[c] += block->hit_rate[c];
        }
    }
    double users = m->users > 0 ? (double)m->users : 1.0;
    m->mrr /= users;
    for (size_t c = 0; c < m->at.n; c++) {
        m->recall[c] /= users;
        m->ndcg[c] /= users;
        m->hit_rate[c] /= users;
        size_t covered = 0;
        for (size_t i = 0; i < run->ev->n_items; i++) {
            unsigned char seen = atomic_load_explicit(&run->covered[i], memory_order_relaxed);
            covered += seen != 0 && seen <= c + 1;
        }
        m->coverage[c] = (double)covered / (double)run->ev->n_items;
    }
}

int evaluate(const struct evaluation *ev, const struct ranker *ranker, const char *label, struct metrics *m,
             struct err *e)
{
    struct run run = {.ev = ev, .ranker = ranker};
    unsigned n = ev->threads > 0 ? ev->threads : 1;
    struct run_thread *threads = mem_array(n, sizeof *threads);
    int result = -1;
    if (threads == NULL) {
        err_nomem(e);
        goto out;
    }
    if (choose_users(&run, e) < 0) {
        goto out;
    }
    size_t deepest = deepest_rank(&ev->at);
    run.depth = deepest < ev->n_items ? deepest : ev->n_items;
    run.n_blocks = (run.n_users + RANK_BLOCK - 1) / RANK_BLOCK;
    run.blocks = mem_array(run.n_blocks, sizeof *run.blocks);
    run.covered = mem_array(ev->n_items, sizeof *run.covered);
    if (run.blocks == NULL || run.covered == NULL) {
        err_nomem(e);
        goto out;
    }
    progress_begin(&run.progress, label, "users", (double)run.n_users);
    int ran = start_threads(&run, threads, n, e);
    progress_end(&run.progress);
    if (ran < 0) {
        goto out;
    }
    add_up(&run, m);
    result = 0;
out:
    for (unsigned i = 0; threads != NULL && i < n; i++) {
        mem_free(threads[i].scores);
        mem_free(threads[i].entries);
        mem_free(threads[i].mark);
    }
    mem_free(threads);
    mem_free(run.users);
    mem_free(run.blocks);
    mem_free((void *)run.covered);
    return result;
}

/* --- metrics by name ------------------------------------------------------------------------------------------------*/

static const double *metric_row(const struct metrics *m, const char *name, size_t length)
{
    const struct {
        const char *name;
        const double *values;
    } rows[] = {{"recall", m->recall}, {"ndcg", m->ndcg}, {"hit_rate", m->hit_rate}, {"coverage", m->coverage}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0) {
            return rows[i].values;
        }
    }
    return NULL;
}

double metrics_get(const struct metrics *m, const char *name)
{
    if (strcmp(name, "mrr") == 0) {
        return m->mrr;
    }
    size_t length = strcspn(name, "@");
    const double *row = metric_row(m, name, length);
    for (size_t c = 0; row != NULL && name[length] == '@' && c < m->at.n; c++) {
        char k[16];
        snprintf(k, sizeof k, "%u", m->at.k[c]);
        if (strcmp(k, name + length + 1) == 0) {
            return row[c];
        }
    }
    return NAN;
}

json_t *metrics_to_json(const struct metrics *m)
{
    static const char *const names[] = {"recall", "ndcg", "hit_rate", "coverage"};
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const double *row = metric_row(m, names[i], strlen(names[i]));
        for (size_t c = 0; c < m->at.n; c++) {
            char key[32];
            snprintf(key, sizeof key, "%s@%u", names[i], m->at.k[c]);
            json_object_set_new(o, key, json_real(row[c]));
        }
    }
    json_object_set_new(o, "mrr", json_real(m->mrr));
    json_object_set_new(o, "users", json_integer((json_int_t)m->users));
    return o;
}

/* --- rankers --------------------------------------------------------------------------------------------------------*/

struct ranker_worker {
    struct feature_rows rows;
    struct tower_pass pass;
    float *vectors;   /* [RANK_BLOCK, dim] */
    int32_t *history; /* [last] */
};

struct tower_ranker {
    const struct dataset *d;
    const struct interactions *history;
    const struct tower *tower;
    const float *item_vectors; /* [n_items, dim], borrowed */
    struct ranker_worker *workers;
    unsigned n_workers;
};

struct tower_ranker *tower_ranker_new(const struct dataset *d, const struct interactions *history,
                                      const struct tower *user_tower, const float *item_vectors, unsigned threads,
                                      struct err *e)
{
    struct tower_ranker *r = mem_array(1, sizeof *r);
    if (r == NULL) {
        err_nomem(e);
        return NULL;
    }
    *r = (struct tower_ranker){.d = d, .history = history, .tower = user_tower, .item_vectors = item_vectors};
    r->workers = mem_array(threads, sizeof *r->workers);
    size_t last = d->history >= 0 ? user_tower->spec->features[d->history].last : 1;
    for (unsigned i = 0; r->workers != NULL && i < threads; i++) {
        struct ranker_worker *w = &r->workers[r->n_workers++];
        w->vectors = mem_array(RANK_BLOCK * user_tower->spec->output_dim, sizeof *w->vectors);
        w->history = mem_array(last, sizeof *w->history);
        if (w->vectors == NULL || w->history == NULL || feature_rows_init(&w->rows, user_tower->spec) < 0 ||
            tower_pass_init(&w->pass, user_tower->spec, RANK_BLOCK, e) < 0) {
            break;
        }
    }
    if (r->workers == NULL || r->n_workers < threads || r->workers[threads - 1].pass.input == NULL) {
        err_nomem(e);
        tower_ranker_free(r);
        return NULL;
    }
    return r;
}

void tower_ranker_free(struct tower_ranker *r)
{
    if (r == NULL) {
        return;
    }
    for (unsigned i = 0; i < r->n_workers; i++) {
        feature_rows_release(&r->workers[i].rows);
        tower_pass_release(&r->workers[i].pass);
        mem_free(r->workers[i].vectors);
        mem_free(r->workers[i].history);
    }
    mem_free(r->workers);
    mem_free(r);
}

int tower_ranker_vectors(struct tower_ranker *r, unsigned worker, const uint32_t *users, size_t count, float *vectors,
                         struct err *e)
{
    struct ranker_worker *w = &r->workers[worker];
    const struct dataset *d = r->d;
    feature_rows_clear(&w->rows);
    for (size_t i = 0; i < count; i++) {
        if (feature_rows_copy(&w->rows, &d->rows[SIDE_USER], users[i]) < 0) {
            return err_nomem(e);
        }
        if (d->history >= 0 && r->history != NULL) {
            size_t n = dataset_history(d, r->history, users[i], r->history->start[users[i] + 1], w->history);
            if (feature_rows_set_bag(&w->rows, (uint32_t)d->history, w->history, n) < 0) {
                return err_nomem(e);
            }
        }
    }
    tower_embed(r->tower, d->schema.similarity, &w->rows, &w->pass, vectors);
    return 0;
}

int tower_ranker_score(void *ranker, unsigned worker, const uint32_t *users, size_t count, float *scores, struct err *e)
{
    struct tower_ranker *r = ranker;
    float *vectors = r->workers[worker].vectors;
    if (tower_ranker_vectors(r, worker, users, count, vectors, e) < 0) {
        return -1;
    }
    mat_mul_nt(scores, vectors, r->item_vectors, count, r->d->n_items, r->tower->spec->output_dim, false);
    return 0;
}

int popularity_score(void *popularity, unsigned worker, const uint32_t *users, size_t count, float *scores,
                     struct err *e)
{
    (void)worker, (void)users, (void)e;
    const struct popularity *p = popularity;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < p->n_items; j++) {
            scores[i * p->n_items + j] = (float)p->count[j];
        }
    }
    return 0;
}

/* --- vectors of a whole side ----------------------------------------------------------------------------------------*/

struct embed_job {
    const struct tower *tower;
    enum similarity similarity;
    const struct feature_rows *rows;
    float *out;
    atomic_size_t next;
    atomic_bool failed;
};

static void *run_embed(void *arg)
{
    struct embed_job *job = arg;
    struct tower_pass pass;
    size_t dim = job->tower->spec->output_dim;
    if (tower_pass_init(&pass, job->tower->spec, EMBED_BLOCK, NULL) < 0) {
        atomic_store(&job->failed, true);
        return NULL;
    }
    for (;;) {
        size_t first = atomic_fetch_add(&job->next, EMBED_BLOCK);
        if (first >= job->rows->n) {
            break;
        }
        size_t count = job->rows->n - first < EMBED_BLOCK ? job->rows->n - first : EMBED_BLOCK;
        tower_embed_block(job->tower, job->similarity, job->rows, first, count, &pass, job->out + first * dim);
    }
    tower_pass_release(&pass);
    return NULL;
}

int embed_rows(const struct tower *t, enum similarity similarity, const struct feature_rows *rows, unsigned threads,
               float *out, struct err *e)
{
    struct embed_job job = {.tower = t, .similarity = similarity, .rows = rows, .out = out};
    pthread_t *ids = mem_array(threads, sizeof *ids);
    if (ids == NULL) {
        return err_nomem(e);
    }
    unsigned started = 1;
    while (started < threads && pthread_create(&ids[started], NULL, run_embed, &job) == 0) {
        started++;
    }
    run_embed(&job);
    for (unsigned i = 1; i < started; i++) {
        pthread_join(ids[i], NULL);
    }
    mem_free(ids);
    return atomic_load(&job.failed) ? err_nomem(e) : 0;
}
