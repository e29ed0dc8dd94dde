/*
 * train/phase.h: the inside of the trainer: what a batch and a thread's share of it hold, and the phases of
 * train/trainer.h, one file each (phase_forward.c, phase_catch_up.c, phase_loss.c, phase_backward.c, phase_update.c).
 *
 * A phase runs on every thread at once with its own `struct worker`; it writes only what is that worker's, and reads what
 * others have written in earlier phases: the barrier between phases is the only synchronisation.
 */
#ifndef TRAIN_PHASE_H
#define TRAIN_PHASE_H

#include <pthread.h>
#include <stdatomic.h>

#include "train/backward.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/optimizer_idle.h"
#include "train/progress.h"
#include "train/sampler.h"
#include "train/trainer.h"

enum { SCORE_BLOCK = 128, NO_SLOT = -1 };

/* A half-open range of rows. */
struct range {
    size_t begin, end;
};

static inline size_t range_size(struct range r)
{
    return r.end - r.begin;
}

/* Sums of the gradients of the rows of one table that one thread owns and a batch touches. */
struct row_sums {
    float *sum;   /* [capacity, dim of the table at hand] */
    int32_t *row; /* [capacity] */
    size_t n, capacity, sum_size;
};

/* The negatives of a worker's rows that are theirs alone. */
struct own_negatives {
    size_t *start;   /* [share + 1]: row i has [start[i], start[i + 1]) */
    uint32_t *item;  /* [share * own_max] */
    float *log_q;    /* [share * own_max] */
    float *vector;   /* [share * own_max, dim] */
    float *score;    /* [share * own_max] */
    uint32_t *taken; /* [n_items] equal to `now`: known to the row's user */
    uint32_t now;
};

struct worker {
    struct trainer *t;
    unsigned id;
    struct range users, negatives; /* its share of the batch's rows and shared negatives */
    struct feature_rows rows[2];   /* encoded share; items: positives, shared negatives, own negatives */
    struct tower_pass pass[2];
    struct tower_gradient gradient[2];
    float *norms[2];      /* [share] */
    uint64_t *row_key[2]; /* [share] what dropout (and hiding, of negatives) draws from */
    float *scores;        /* [SCORE_BLOCK, candidates] */
    float *item_partial;  /* [batch + shared negatives, dim] */
    int32_t *history;
    int32_t *first_of, *next_of; /* [n_items], [candidates]: where an item is among the candidates, NO_SLOT: nowhere */
    uint64_t *among;             /* [n_items / 64, rounded up] bits: is the item among them? */
    struct own_negatives own;
    struct row_sums *sums; /* by parameter with clipping, when all are needed at once; else one for all */
    double square;         /* of the length of the gradient that it owns, with clipping */
    double loss;
    float scale_gradient; /* of the logarithm of the loss's scale, when that is learned */
};

struct trainer {
    const struct train_config *config;
    const struct dataset *d;
    const struct interactions *events;
    struct model *model;
    struct sampler sampler;
    struct loss loss;
    struct optimizer optimizer;
    bool moves_idle;    /* the optimizer moves rows that no batch touches */
    struct idle idle;   /* if so: what they have to make up for, */
    uint32_t **current; /* and by parameter: [rows] of a table, the epoch's step that a row is at */
    unsigned n_workers;
    struct worker *workers;
    size_t dim, batch_size, max_candidates;
    float weight_scale; /* times the mean weight of an event is 1 */
    int32_t **slot;     /* by parameter: [rows] of a table, where its sum is, NO_SLOT between batches */

    /* the batch at hand */
    uint32_t epoch;
    size_t batch, count, n_negatives; /* count: positives; n_negatives: shared */
    uint32_t *event, *user;           /* [batch_size] of each row: index in `events`, and whose it is */
    float *user_vectors;              /* [batch_size, dim] */
    float *item_vectors;              /* [batch_size + n_negatives, dim] positives, then shared negatives */
    uint32_t *items;                  /* [batch_size + n_negatives] */
    float *log_q;                     /* [batch_size + n_negatives] */

    pthread_barrier_t barrier;
    bool has_barrier;
    pthread_mutex_t gate; /* held while threads are started: they begin when all are there, or not at all */
    bool called_off;
    atomic_bool out_of_memory;
    float **gradients; /* not NULL: collect gradients instead of updating (trainer_gradients) */
    struct progress progress;
    int (*watch)(void *context, const struct trainer_position *at, struct err *e); /* trainer_watch; NULL: nobody */
    void *watch_context;
    bool stopped; /* it failed, */
    struct err why;
    size_t resume_batch; /* where the next epoch begins */
    double loss_sum;
    size_t examples, bad_batch; /* bad_batch: 1 + the first batch whose loss is not finite, or far too large */
    double bad_loss;
    size_t first_batch, last_batch;
};

void phase_encode(struct worker *w);
void phase_catch_up(struct worker *w); /* the rows that the encoded batch touches */
void phase_catch_up_all(struct worker *w);
void phase_forward(struct worker *w);
void phase_loss(struct worker *w);
void phase_backward(struct worker *w);
void phase_update(struct worker *w);

/* Elements [offset, offset + n) of a parameter. */
static inline struct weights parameter_weights(const struct parameter *p, size_t offset, size_t n)
{
    return (struct weights){
        .value = p->value + offset,
        .state = {p->state[0] == NULL ? NULL : p->state[0] + offset, p->state[1] == NULL ? NULL : p->state[1] + offset},
        .n = n,
        .decays = p->columns > 0,
    };
}

static inline size_t own_count(const struct worker *w)
{
    return w->t->sampler.own_max == 0 ? 0 : w->own.start[range_size(w->users)];
}

/* What a user is known to like: the latest MASK_LIMIT of his events are looked at, so that a user with a million of them
 * costs no more. */
enum { MASK_LIMIT = 1024 };
static inline struct range known_events(const struct interactions *events, uint32_t user)
{
    size_t begin = events->start[user];
    size_t end = events->start[user + 1];
    return (struct range){end - begin > MASK_LIMIT ? end - MASK_LIMIT : begin, end};
}

/* Part `i` of `n` of [0, total). */
struct range range_share(size_t total, unsigned i, unsigned n);

#endif
