/*
 * core/parallel.h: a loop shared among threads.
 */
#ifndef CORE_PARALLEL_H
#define CORE_PARALLEL_H

#include <stddef.h>

/* Rows [begin, end) of the loop, on worker number `worker` (< threads, each on one thread at a time). */
typedef void parallel_body(void *arg, unsigned worker, size_t begin, size_t end);

/* Calls `body` for pieces of at most `chunk` (>= 1) rows that together are [0, n), on the calling thread and up to
 * threads - 1 more; returns when all are done. Which worker gets which piece is a matter of timing, so results must not
 * depend on it. Threads that the system refuses leave their work to the others. */
void parallel_for(unsigned threads, size_t n, size_t chunk, parallel_body *body, void *arg);

#endif
