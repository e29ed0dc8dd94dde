/*
 * Effort follows the wait, without a memory of its own. A long wait lowers the effort, which shortens the waits that follow,
 * until as much is answered as arrives: a line of requests always ends up at one length, with an effort between the usual and
 * the floor, and when it is gone so is the pressure. Rejected: a level that a controller raises and lowers once an interval,
 * with one threshold for up and another for down (as CoDel drops packets): it reacts an interval late, and swings
 * between two levels where this one stands still. Bursts shorter than `patience` change nothing.
 *
 * The wait alone is not enough where searches are fast: a full queue may be a wait of milliseconds. Before the first
 * request is refused the effort must have fallen all the way, so it also follows the length.
 */
#include "server/queue.h"

#include "server/http.h"

void queue_init(struct queue *q, size_t most)
{
    *q = (struct queue){.most = most};
    q->end = &q->first;
}

bool queue_push(struct queue *q, struct http_request *request)
{
    if (queue_is_full(q)) {
        return false;
    }
    request->next = NULL;
    *q->end = request;
    q->end = &request->next;
    q->n++;
    return true;
}

struct http_request *queue_pop(struct queue *q)
{
    struct http_request *request = q->first;
    if (request) {
        q->first = request->next;
        q->end = q->first ? q->end : &q->first;
        q->n--;
    }
    return request;
}

/* How much of `range` lies between `from` and `value`, in steps. */
static unsigned steps(uint64_t value, uint64_t from, uint64_t range)
{
    if (value <= from || range == 0) {
        return 0;
    }
    return value - from >= range ? QUEUE_STEPS : (unsigned)((value - from) * QUEUE_STEPS / range);
}

unsigned queue_pressure(const struct queue *q, uint64_t waited, uint64_t patience)
{
    unsigned by_wait = steps(waited, patience, patience);
    unsigned by_length = steps(q->n, q->most / 2, q->most - q->most / 2);
    return by_wait > by_length ? by_wait : by_length;
}
