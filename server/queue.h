/*
 * server/queue.h: requests that wait to be computed, first in, first out, and how far their effort has to fall.
 *
 * A list through the requests themselves: a request that waits costs nothing but its own bytes. Times are the caller's, in
 * ns. Belongs to one thread.
 */
#ifndef SERVER_QUEUE_H
#define SERVER_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_request;

struct queue {
    struct http_request *first;
    struct http_request **end; /* where the next one goes */
    size_t n;
    size_t most;
};

void queue_init(struct queue *q, size_t most);

static inline bool queue_is_full(const struct queue *q)
{
    return q->n >= q->most;
}

/* Takes the request behind the others; false: the queue is full, and nothing changed. */
bool queue_push(struct queue *q, struct http_request *request);

/* The one that came first, or NULL. */
struct http_request *queue_pop(struct queue *q);

/* Steps from the usual search effort, 0, to the floor, QUEUE_STEPS. */
enum { QUEUE_STEPS = 8 };

/* How many steps a request goes down that has waited so long, while the queue is as full as it is: none up to `patience`, all
 * from twice that on; none up to half of the queue, all when it is full; whichever is more. */
unsigned queue_pressure(const struct queue *q, uint64_t waited, uint64_t patience);

#endif
