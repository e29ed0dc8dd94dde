#include "train/event_users.h"

#include "core/mem.h"

int event_users_init(struct event_users *m, const struct interactions *part, size_t n_users, struct err *e)
{
    size_t n = part->n / EVENT_USERS_STEP + 2;
    *m = (struct event_users){part, mem_array(n, sizeof *m->user)};
    if (m->user == NULL) {
        return err_nomem(e);
    }
    size_t next = 0, last = 0;
    for (size_t u = 0; u < n_users; u++) {
        for (; next * EVENT_USERS_STEP < part->start[u + 1]; next++) {
            m->user[next] = (uint32_t)u;
        }
        last = part->start[u] < part->start[u + 1] ? u : last;
    }
    for (; next < n; next++) {
        m->user[next] = (uint32_t)last;
    }
    return 0;
}

void event_users_release(struct event_users *m)
{
    mem_free(m->user);
    *m = (struct event_users){0};
}

uint32_t event_users_find(const struct event_users *m, size_t event)
{
    const size_t *start = m->part->start;
    uint32_t low = m->user[event / EVENT_USERS_STEP], high = m->user[event / EVENT_USERS_STEP + 1];
    while (low < high) { /* the first user whose events end behind it */
        uint32_t middle = low + (high - low) / 2;
        if (start[middle + 1] <= event) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void event_users_prefetch(const struct event_users *m, size_t event)
{
    __builtin_prefetch(&m->part->start[m->user[event / EVENT_USERS_STEP] + 1]);
}
