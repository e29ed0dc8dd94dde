/*
 * server/access_log.h: one line of JSON a request, written by a thread of its own.
 *
 * Each worker has a ring of bytes that only it fills and only the writer empties, so a line costs its worker a copy and no
 * lock, no system call. Nothing waits for the log: when a ring is full, or the file takes no more (a full disk, a reader
 * that does not read), lines are dropped and counted, and it goes on when there is room again.
 */
#ifndef SERVER_ACCESS_LOG_H
#define SERVER_ACCESS_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum { ACCESS_LINE_MAX = 4096 }; /* PIPE_BUF: what a pipe takes whole */

struct access_log; /* opaque */

/* Opens `path` to append to ("-": standard output) and starts the writer, for so many workers. NULL with `e` set. */
struct access_log *access_log_new(const char *path, size_t workers, struct err *e);

/* Writes what there is, as far as that goes without waiting, and ends the writer. NULL is fine. */
void access_log_free(struct access_log *log);

/* A whole line, its end included, of worker number `worker`, on that worker's thread. */
void access_log_put(struct access_log *log, size_t worker, const char *line, size_t n);

/* From now on to the file that has the path then: for who has moved the old one away. From any thread. */
void access_log_reopen(struct access_log *log);

/* Lines that were not written. From any thread. */
uint64_t access_log_dropped(const struct access_log *log);

#endif
