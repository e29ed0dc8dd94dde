/* Open addressing with linear probing; removing closes the gap by moving back what was displaced, so there are no tombstones.
 * The hash has a secret factor, as clients choose their addresses. */
#include "server/addresses.h"

#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "core/mem.h"

enum { CAPACITY_LEAST = 64 };

struct entry {
    uint64_t key; /* 0: free */
    uint32_t count;
};

struct addresses {
    pthread_mutex_t lock;
    uint64_t factor;
    struct entry *entries; /* [mask + 1], at least half of them free */
    size_t mask;
    size_t used;
};

struct addresses *addresses_new(struct err *e)
{
    struct addresses *a = mem_array(1, sizeof *a);
    struct entry *entries = mem_array(CAPACITY_LEAST, sizeof *entries);
    if (!a || !entries) {
        mem_free(a);
        mem_free(entries);
        err_nomem(e);
        return NULL;
    }
    a->entries = entries;
    a->mask = CAPACITY_LEAST - 1;
    (void)!getrandom(&a->factor, sizeof a->factor, 0); /* cannot fail for so few bytes */
    a->factor |= 1;
    pthread_mutex_init(&a->lock, NULL);
    return a;
}

void addresses_free(struct addresses *a)
{
    if (a) {
        pthread_mutex_destroy(&a->lock);
        mem_free(a->entries);
        mem_free(a);
    }
}

/* Keys of IPv4 addresses lie in 0:1::/32 of IPv6, which nobody has. */
static uint64_t key_of_ipv4(const void *bytes)
{
    uint32_t number;
    memcpy(&number, bytes, sizeof number);
    return UINT64_C(1) << 32 | ntohl(number);
}

uint64_t addresses_key(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        return key_of_ipv4(&((const struct sockaddr_in *)(const void *)address)->sin_addr);
    }
    if (address->sa_family != AF_INET6) {
        return 0;
    }
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(in6)) {
        return key_of_ipv4(in6->s6_addr + 12);
    }
    uint64_t key = 0;
    for (size_t i = 0; i < 8; i++) {
        key = key << 8 | in6->s6_addr[i];
    }
    return key ? key : 1; /* ::1 */
}

static size_t home_of(const struct addresses *a, uint64_t key)
{
    return (size_t)((key * a->factor) >> 32) & a->mask;
}

/* The key's entry, or the free one where it belongs. */
static size_t find(const struct addresses *a, uint64_t key)
{
    size_t at = home_of(a, key);
    while (a->entries[at].key != 0 && a->entries[at].key != key) {
        at = (at + 1) & a->mask;
    }
    return at;
}

/* Twice the entries when half are taken. */
static bool make_room(struct addresses *a)
{
    if (2 * (a->used + 1) <= a->mask + 1) {
        return true;
    }
    size_t n = a->mask + 1;
    struct entry *old = a->entries;
    struct entry *entries = mem_array(2 * n, sizeof *entries);
    if (!entries) {
        return false;
    }
    a->entries = entries;
    a->mask = 2 * n - 1;
    for (size_t i = 0; i < n; i++) {
        if (old[i].key != 0) {
            entries[find(a, old[i].key)] = old[i];
        }
    }
    mem_free(old);
    return true;
}

bool addresses_enter(struct addresses *a, uint64_t key, uint32_t limit)
{
    pthread_mutex_lock(&a->lock);
    bool good = make_room(a);
    if (good) {
        struct entry *entry = &a->entries[find(a, key)];
        good = limit == 0 || entry->count < limit;
        if (good) {
            a->used += entry->key == 0;
            entry->key = key;
            entry->count++;
        }
    }
    pthread_mutex_unlock(&a->lock);
    return good;
}

/* Frees an entry; moves those behind it that were displaced by it. */
static void remove_at(struct addresses *a, size_t gap)
{
    for (size_t at = (gap + 1) & a->mask; a->entries[at].key != 0; at = (at + 1) & a->mask) {
        size_t distance = (at - home_of(a, a->entries[at].key)) & a->mask;
        if (distance >= ((at - gap) & a->mask)) {
            a->entries[gap] = a->entries[at];
            gap = at;
        }
    }
    a->entries[gap] = (struct entry){0};
    a->used--;
}

void addresses_leave(struct addresses *a, uint64_t key)
{
    pthread_mutex_lock(&a->lock);
    size_t at = find(a, key);
    if (a->entries[at].key == key && --a->entries[at].count == 0) {
        remove_at(a, at);
    }
    pthread_mutex_unlock(&a->lock);
}

size_t addresses_known(struct addresses *a)
{
    pthread_mutex_lock(&a->lock);
    size_t n = a->used;
    pthread_mutex_unlock(&a->lock);
    return n;
}
