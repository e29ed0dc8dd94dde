/*
 * train/checkpoint.h: the file of an unfinished training: a small JSON state and large arrays, written whole or not at all.
 *
 *   "recalld checkpoint 1\n"   u64 little-endian length of the head   head: {"state": {...}, "arrays": [{"name", "bytes"}, ...]}
 *   the arrays' bytes, one behind the other   64 hex digits of the SHA-256 of everything before, and "\n"
 *
 * Numbers are the machine's: a checkpoint is for the machine that wrote it, or one like it. It is written beside its place
 * (<path>.new), fsynced and renamed, so that a kill at any moment leaves the one before; it is read only when its checksum is
 * right. What the state means is fit.c's affair.
 */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include <jansson.h>
#include <stddef.h>

#include "core/err.h"

enum { CHECKPOINT_MAX_NAME = 160 };

struct checkpoint_array {
    char name[CHECKPOINT_MAX_NAME]; /* unique */
    void *data;                     /* borrowed */
    size_t bytes;
};

/* Replaces `path`. A failure leaves the file that was there, and none beside it. */
int checkpoint_write(const char *path, json_t *state, const struct checkpoint_array *arrays, size_t n, struct err *e);

struct checkpoint; /* opaque: an open, verified file */

/* NULL with the reason, which says how to go on. */
struct checkpoint *checkpoint_open(const char *path, struct err *e);
void checkpoint_close(struct checkpoint *c);

const json_t *checkpoint_state(const struct checkpoint *c); /* borrowed; an object */

/* Fills the arrays from the file: by name, with exactly these sizes. Others of the file are left out. */
int checkpoint_load(const struct checkpoint *c, const struct checkpoint_array *arrays, size_t n, struct err *e);

/* Removes the file and what a killed writer left beside it; none is fine. */
int checkpoint_remove(const char *path, struct err *e);

#endif
