/*
 * train/checkpointer.h: the checkpoint of a `fit`: where it is, when it is due, and whether one that was found is of this training.
 *
 * It is output.dir/.checkpoint (hidden: everything else there is a bundle, or a link to one), written after every epoch and, within
 * long epochs, every checkpoint.every. One fit at a time keeps it: a second one of the same directory does without.
 * A checkpoint that cannot be written is a warning: training goes on, and the one before stays.
 */
#ifndef TRAIN_CHECKPOINTER_H
#define TRAIN_CHECKPOINTER_H

#include <jansson.h>
#include <stdbool.h>

#include "config/train_config.h"
#include "core/err.h"
#include "train/checkpoint.h"
#include "train/dataset.h"

struct checkpointer; /* opaque; none (NULL) works everywhere below: nothing is kept */

/* `init`: the fingerprint of the model that the training begins with, or NULL. With `resume`, opens the checkpoint that is there, if any; one of another configuration, of other data, of another beginning or
 * of another number of threads is an error that says what differs. *out becomes new, or NULL when none are to be kept. */
int checkpointer_new(struct checkpointer **out, const struct train_config *config, const struct dataset *d,
                     unsigned threads, const char *init, bool resume, struct err *e);
void checkpointer_free(struct checkpointer *c);

/* What to go on from, or NULL; borrowed, until checkpointer_resumed. */
const struct checkpoint *checkpointer_found(const struct checkpointer *c);
void checkpointer_resumed(struct checkpointer *c);

/* Whether the last one is so old that one is due within an epoch. */
bool checkpointer_is_due(const struct checkpointer *c);

/* Writes one. `state` (borrowed, an object) gets what tells its training from others. */
void checkpointer_save(struct checkpointer *c, json_t *state, const struct checkpoint_array *arrays, size_t n);

/* The model is published: there is nothing to go on from. */
void checkpointer_finish(struct checkpointer *c);

#endif
