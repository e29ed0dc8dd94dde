/*
 * server/addresses.h: how many connections each client address has, at all workers together. Any thread.
 *
 * A hash table behind one lock, which is held for a few memory accesses when a connection comes or goes, never in a request.
 * Rejected: counters in atomics, indexed by hash, which need no lock and let strangers share a limit.
 *
 * An address is 64 bits: all of an IPv4 address, and of an IPv6 address the first half, because one customer has all the
 * others. The table has as many entries as there are addresses connected.
 */
#ifndef SERVER_ADDRESSES_H
#define SERVER_ADDRESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/err.h"

struct addresses; /* opaque */

struct addresses *addresses_new(struct err *e);
void addresses_free(struct addresses *a); /* NULL is fine */

/* The key of a client's address; 0, which is not counted, for one that is not TCP. An IPv4 address inside an IPv6 one is the
 * IPv4 address. */
uint64_t addresses_key(const struct sockaddr *address);

/* Counts a connection of `key`. False, and it is not counted, when the address has `limit` (0: no limit) already or
 * memory is short. */
bool addresses_enter(struct addresses *a, uint64_t key, uint32_t limit);
void addresses_leave(struct addresses *a, uint64_t key); /* one that entered */

/* Addresses that have connections. */
size_t addresses_known(struct addresses *a);

#endif
