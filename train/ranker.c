#include "train/ranker.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "core/mem.h"
#include "core/parallel.h"
#include "core/vecmath.h"

enum { EMBED_BLOCK = 256 };

/* --- towers ---------------------------------------------------------------------------------------------------------*/

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

static int begin_towers(void *ranker, unsigned worker, const uint32_t *users, size_t count, struct err *e)
{
    struct tower_ranker *r = ranker;
    return tower_ranker_vectors(r, worker, users, count, r->workers[worker].vectors, e);
}

static void score_towers(void *ranker, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n,
                         float *scores)
{
    (void)users;
    struct tower_ranker *r = ranker;
    size_t dim = r->tower->spec->output_dim;
    mat_mul_nt(scores, r->workers[worker].vectors, r->item_vectors + first * dim, count, n, dim, false);
}

struct ranker tower_ranker_of(struct tower_ranker *r)
{
    return (struct ranker){begin_towers, score_towers, r};
}

/* --- popularity -----------------------------------------------------------------------------------------------------*/

static void score_popularity(void *counts, unsigned worker, const uint32_t *users, size_t count, size_t first, size_t n,
                             float *scores)
{
    (void)worker, (void)users;
    const uint32_t *popularity = counts;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < n; j++) {
            scores[i * n + j] = (float)popularity[first + j];
        }
    }
}

struct ranker popularity_ranker(const uint32_t *counts)
{
    return (struct ranker){NULL, score_popularity, (void *)(uintptr_t)counts};
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

static void run_embed(void *arg, unsigned worker)
{
    struct embed_job *job = arg;
    (void)worker;
    struct tower_pass pass;
    size_t dim = job->tower->spec->output_dim;
    if (tower_pass_init(&pass, job->tower->spec, EMBED_BLOCK, NULL) < 0) {
        atomic_store(&job->failed, true);
        return;
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
}

int embed_rows(const struct tower *t, enum similarity similarity, const struct feature_rows *rows, unsigned threads,
               float *out, struct err *e)
{
    struct embed_job job = {.tower = t, .similarity = similarity, .rows = rows, .out = out};
    parallel_run(threads, run_embed, &job);
    return atomic_load(&job.failed) ? err_nomem(e) : 0;
}
