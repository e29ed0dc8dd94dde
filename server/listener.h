/*
 * server/listener.h: listening sockets, from the address in the configuration to a descriptor that all workers accept
 * from. Not thread-safe.
 *
 * Addresses: "127.0.0.1:8080", "[::1]:8080", "localhost:8080", "*:8080" (every IPv4 address), "unix:/run/recalld.sock".
 * Port 0 lets the kernel choose.
 */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include <stdbool.h>

#include "core/err.h"

enum { LISTENER_ADDRESS_MAX = 128 };

struct listener {
    int fd;                             /* non-blocking, close-on-exec */
    char address[LISTENER_ADDRESS_MAX]; /* what it really listens on, as in the configuration: "127.0.0.1:41217" */
    bool is_private;                    /* loopback or unix: reachable from this machine only */
    char *socket_path;                  /* owned; unlinked by listener_close; NULL: no unix socket */
};

/* Binds and listens. Replaces a unix socket that nobody listens on any more. */
int listener_open(struct listener *l, const char *address, struct err *e);
void listener_close(struct listener *l); /* once */

/* Lets no new connection in, and keeps those that wait in the queue: what comes is dropped as if lost on the way, so the
 * client tries again, after a second by default, and is refused then or meets the next daemon. TCP only; else nothing. */
void listener_hold(const struct listener *l);

/* Is the address one that listener_open would try? Nothing is bound. `is_private` may be NULL. */
int listener_check(const char *address, bool *is_private, struct err *e);

#endif
