/*
 * train/fit.h: how many epochs to train, and the model that comes out.
 *
 * Without early stopping: optimizer.epochs epochs on the whole train part. With it: a validation part is cut from train
 * (never from test), the metric is measured on it after every epoch, training stops after `patience` epochs without
 * improvement; then either the model is trained anew on the whole train part for the best number of epochs (`refit`), or
 * the best epoch's weights are kept. The learning rate follows the schedule of all optimizer.epochs in both trainings
 * (train/schedule.h): the second one goes through the same rates up to the best epoch, and ends there.
 *
 * A checkpoint holds all that this needs to go on: which of the trainings, its epoch and batch, values and optimizer state, losses and
 * metrics so far, the best weights. Going on gives the weights, bit for bit, of a training that was never interrupted.
 */
#ifndef TRAIN_FIT_H
#define TRAIN_FIT_H

#include <jansson.h>

#include "config/train_config.h"
#include "core/bundle.h"
#include "core/err.h"
#include "train/checkpointer.h"
#include "train/dataset.h"
#include "train/model.h"

/* What is borrowed for the time of a fit. */
struct fit_job {
    const struct train_config *config;
    const struct dataset *d;
    unsigned threads;
    struct checkpointer *checkpoints; /* what to go on from, and where to keep new ones; NULL: none */
    const struct bundle *init;        /* the model to begin with (train/warm_start.h); NULL: a random one */
};

/* Trains a new model (model_free). *record becomes the report's "train" member (new reference): epochs, loss per epoch,
 * examples_per_second, seconds, threads, with early stopping validation per epoch and best_epoch, with `init` its version. */
struct model *fit_model(const struct fit_job *job, json_t **record, struct err *e);

#endif
