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
#include "train/dataset.h"
#include "train/model.h"

struct trainer; /* opaque */

/* Everything is borrowed and must outlive the trainer. */
struct trainer *trainer_new(const struct train_config *config, const struct dataset *d,
                            const struct interactions *events, struct model *m, unsigned threads, struct err *e);
void trainer_free(struct trainer *t);

struct epoch_result {
    double loss; /* mean of the examples */
    size_t examples;
    double seconds;
};

/* Runs epoch `epoch` (from 1). Fails when the loss is not finite or has run away, naming the epoch and the batch. */
int trainer_epoch(struct trainer *t, uint32_t epoch, const char *label, struct epoch_result *result, struct err *e);

/* Loss and gradients of one batch (from 0) without an update, for tests: gradients [n_parameters] arrays shaped like the
 * values, of the mean loss. */
int trainer_batch_gradients(struct trainer *t, uint32_t epoch, size_t batch, double *loss, float **gradients,
                            struct err *e);

/* That of the epoch's first batch. */
int trainer_gradients(struct trainer *t, uint32_t epoch, double *loss, float **gradients, struct err *e);

#endif
