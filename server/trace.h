/*
 * server/trace.h: which request this is, for who looks for it in several logs: W3C Trace Context.
 *
 * The caller's trace id when it sent a valid `traceparent`, else one of our own; and a new parent id, which is our part of the
 * trace, in any case. Ids come from a generator (core/rng.h) that is seeded once, so they cost no system call; they tell
 * requests apart and are no secrets. A generator belongs to one thread.
 */
#ifndef SERVER_TRACE_H
#define SERVER_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/rng.h"

enum { TRACE_ID_LEN = 32, TRACE_PARENT_LEN = 55 };

struct trace {
    char id[TRACE_ID_LEN + 1];         /* the trace id, '\0' behind: the request id */
    char parent[TRACE_PARENT_LEN + 1]; /* the `traceparent` to answer with, '\0' behind */
    uint32_t chance;                   /* random, of our part: for who samples */
};

/* Seeds from the kernel. Returns 0, or -1 without random bytes. */
int trace_random_init(struct rng *random);

/* Is this a `traceparent` to take over? Of version 00 exactly; of a later one, what version 00 knows of it. */
bool trace_is_valid(const char *text, size_t n);

/* `text` [n]: the header as it came; n 0: there was none, or several. What is not valid counts as none. */
void trace_begin(struct trace *trace, struct rng *random, const char *text, size_t n);

#endif
