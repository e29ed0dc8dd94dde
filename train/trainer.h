/*
 * train/trainer.h: epochs of stochastic gradient descent over one set of interactions.
 *
 * A batch goes through four phases on all threads, with a barrier between them:
 *   1. each thread encodes its share of the batch's users and items and runs both towers forward;
 *   2. each thread takes its users against all candidates: similarities, loss, gradients of its user vectors and its
 *      partial sums for the item vectors;
 *   3. each thread adds the partial sums for its items and runs both towers backward;
 *   4. each thread updates what it owns: a slice of every dense parameter, every threads-th row of every table.
 * Optimizers that move all rows of tables (train/optimizer_idle.h) bring the batch's rows up to date between encoding and 1's
 * forward pass. Sums are made in a fixed order, so the same seed and thread count give the same weights, bit for bit.
 */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "config/train_config.h"
#include "core/err.h"
#include "train/checkpoint.h"
#include "train/dataset.h"
#include "train/model.h"

struct trainer; /* opaque */

/* Everything is borrowed and must outlive the trainer. */
struct trainer *trainer_new(const struct train_config *config, const struct dataset *d,
                            const struct interactions *events, struct model *m, unsigned threads, struct err *e);
void trainer_free(struct trainer *t);

struct epoch_result {
    double loss;     /* mean of the examples */
    size_t examples; /* of this run: without those before trainer_resume */
    double seconds;
};

/* Where training stands, between two batches. */
struct trainer_position {
    uint32_t epoch;  /* from 1 */
    size_t batch;    /* of the epoch: the next one, from 0 */
    double loss_sum; /* of the epoch so far */
    size_t examples;
};

/* Asks `watch` before every batch but the first of a run, on one thread while the others wait; when it fails, so does the
 * epoch. The model may be read then. */
void trainer_watch(struct trainer *t, int (*watch)(void *context, const struct trainer_position *at, struct err *e),
                   void *context);

/* What besides the model's parameters and the position makes the state of a training: at most trainer_arrays_max arrays, borrowed.
 * Returns how many. */
size_t trainer_arrays_max(const struct trainer *t);
size_t trainer_arrays(struct trainer *t, struct checkpoint_array *arrays);

/* Goes on from a position: the next trainer_epoch must be of its epoch. The parameters and arrays are the caller's affair. */
void trainer_resume(struct trainer *t, const struct trainer_position *at);

/* Runs epoch `epoch` (from 1). Fails when the loss is not finite or has run away, naming the epoch and the batch. */
int trainer_epoch(struct trainer *t, uint32_t epoch, const char *label, struct epoch_result *result, struct err *e);

/* Loss and gradients of one batch (from 0) without an update, for tests: gradients [n_parameters] arrays shaped like the
 * values, of the mean loss. */
int trainer_batch_gradients(struct trainer *t, uint32_t epoch, size_t batch, double *loss, float **gradients,
                            struct err *e);

/* That of the epoch's first batch. */
int trainer_gradients(struct trainer *t, uint32_t epoch, double *loss, float **gradients, struct err *e);

#endif
