/*
 * train/bundle_writer.h: a bundle comes into being whole or not at all.
 *
 * Files are written into <models>/.tmp-<pid>, fsynced, checksummed into the manifest, and the directory gets its final
 * name <models>/<version> by one rename, after it was opened and verified as any reader would. Killed at any moment, what
 * was published before is untouched, and what is left over (.tmp-*) is removed by the next writer. A lock file keeps two writers of one directory apart.
 * docs/bundle.md describes the result, core/bundle.h reads it.
 */
#ifndef TRAIN_BUNDLE_WRITER_H
#define TRAIN_BUNDLE_WRITER_H

#include <jansson.h>

#include "core/err.h"

struct bundle_writer; /* opaque */

/* Creates `models` if needed, waits for its lock, clears leftovers. */
struct bundle_writer *bundle_writer_new(const char *models, struct err *e);

/* Removes what was not finished and gives up the lock. */
void bundle_writer_free(struct bundle_writer *w);

/* Path where file `name` ("items/ids.strings") must be written, and fsynced, before bundle_writer_finish. A new string
 * (mem_free), or NULL. */
char *bundle_writer_add(struct bundle_writer *w, const char *name, struct err *e);

/* bundle_writer_add, and the file with these bytes. */
int bundle_writer_put(struct bundle_writer *w, const char *name, const void *bytes, size_t n, struct err *e);

/* Adds `files`, `version`, `created` and `fingerprint` to the manifest (borrowed, changed), writes it, verifies the whole
 * with its index, and renames. *path becomes the published directory (mem_free). The lock is kept until
 * bundle_writer_free: links can be changed under it. */
int bundle_writer_finish(struct bundle_writer *w, json_t *manifest, char **path, struct err *e);

/* Removes a whole bundle of `models`, after bundle_writer_finish: in one step for readers, whenever it is interrupted. */
int bundle_writer_discard(struct bundle_writer *w, const char *path, struct err *e);

#endif
