/*
 * core/parallel.h: work shared among threads.
 *
 * The calling thread is one of them. Threads that the system refuses leave their work to the others, so that work must be
 * taken from a common supply, and results must not depend on who took what. Both return when all are done.
 */
#ifndef CORE_PARALLEL_H
#define CORE_PARALLEL_H

#include <stddef.h>

enum { PARALLEL_MAX = 1024 }; /* more threads than this are not started */

/* Calls `work` once on each thread, with numbers from 0 (the calling thread) to below `threads`. */
typedef void parallel_work(void *arg, unsigned worker);
void parallel_run(unsigned threads, parallel_work *work, void *arg);

/* Rows [begin, end) of a loop, on worker number `worker` (< threads, each on one thread at a time). */
typedef void parallel_body(void *arg, unsigned worker, size_t begin, size_t end);

/* Calls `body` for pieces of at most `chunk` (>= 1) rows that together are [0, n). */
void parallel_for(unsigned threads, size_t n, size_t chunk, parallel_body *body, void *arg);

#endif
