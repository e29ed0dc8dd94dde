/*
 * server/lifecycle.h: the daemon from its first socket to its last: start, signals, reloads, drain, end.
 *
 * The thread that calls these functions is the control thread. It answers no request; it waits for signals, for the
 * loading thread and for the workers, and sees to it that what was retired is freed.
 */
#ifndef SERVER_LIFECYCLE_H
#define SERVER_LIFECYCLE_H

#include "config/serve_config.h"
#include "core/err.h"

struct daemon; /* opaque */
struct settings_source;

/* Binds the addresses, starts the workers and the first load. From here on /healthz answers. NULL with the reason. Takes
 * `config`, which came from `source`; SIGHUP reads it there again, so that is borrowed until the end. */
struct daemon *daemon_start(struct serve_config *config, const struct settings_source *source, struct err *e);

/* The public address that is listened on; borrowed. */
const char *daemon_address(const struct daemon *d);

/* Serves until SIGTERM or SIGINT, and drains. 0, or -1 with the reason when the first bundle could not be loaded. Frees
 * `d`. While a load is running there is no way to do that, then it does not return: the process ends with 0 or 1. */
int daemon_run(struct daemon *d, struct err *e);

/* Addresses, bundle directory and the files of the configuration, as far as they can be judged without binding or loading
 * anything (recalld -t). Takes `config`. */
int daemon_check(struct serve_config *config, struct err *e);

#endif
