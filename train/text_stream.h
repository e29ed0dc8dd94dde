/*
 * train/text_stream.h: the bytes of a plain, gzip or zstd file as one stream.
 *
 * The compression is recognised by the file's first bytes, not by its name. gzip files may have several members and
 * zstd files several frames; what is truncated, damaged or followed by garbage is an error that names the file, never a
 * silent end. Memory does not depend on the file's size. Not thread-safe; several streams may be open at once.
 */
#ifndef TRAIN_TEXT_STREAM_H
#define TRAIN_TEXT_STREAM_H

#include <stddef.h>
#include <sys/types.h>

#include "core/err.h"

struct text_stream; /* opaque */

/* NULL with an error that names the file. */
struct text_stream *text_stream_open(const char *path, struct err *e);
void text_stream_close(struct text_stream *s); /* NULL is fine */

/* At least one and at most n (> 0) bytes into `to`; returns how many, 0 at the end, -1 on error (and ever after). */
ssize_t text_stream_read(struct text_stream *s, char *to, size_t n, struct err *e);

/* Share of the file's (compressed) bytes read, 0 to 1; 0 when the size is unknown (a pipe). */
double text_stream_done(const struct text_stream *s);

#endif
