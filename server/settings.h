/*
 * server/settings.h: what SIGHUP may change beside the model: the configuration, and what the files it names hold.
 *
 * Settings are made whole and checked, then handed to the workers as snapshots are (server/snapshot.h): an atomic
 * exchange with each worker's mailbox, which the worker looks into between two requests. They are read-only and
 * reference counted; whoever gives back the last reference frees them, which is little work. Values that cannot be changed
 * while the daemon runs (config/serve_config.c says which) are those of the start, whatever the file says now.
 */
#ifndef SERVER_SETTINGS_H
#define SERVER_SETTINGS_H

#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "config/serve_config.h"
#include "core/err.h"

/* Where a configuration comes from, to read it again; all borrowed. */
struct settings_source {
    const char *path; /* NULL: no file */
    const char *const *sets;
    size_t n_sets;
};

struct ssl_ctx_st;
struct tokens;

struct settings {
    struct serve_config *config;  /* owned; in force */
    char *needs_restart;          /* owned; keys whose new values wait for a restart, "listen, workers"; "": none */
    struct tokens *tokens;        /* owned; of the public paths; NULL: none are needed */
    struct tokens *admin_tokens;  /* owned; likewise */
    struct ssl_ctx_st *tls;       /* owned; of the public listener; NULL: none */
    struct ssl_ctx_st *admin_tls; /* owned; likewise */
    time_t loaded_at;
    atomic_uint references;
};

/* New, with one reference. Opens what the configuration names. Takes `config`, also on failure; `needs_restart` is copied. */
struct settings *settings_new(struct serve_config *config, const char *needs_restart, struct err *e);

/* The same from the source, with the values of `running` where they cannot change. All that is wrong with the file is
 * logged, the first of it is in `e`. */
struct settings *settings_load(const struct settings_source *source, const struct serve_config *running, struct err *e);

struct settings *settings_ref(struct settings *s);
void settings_unref(struct settings *s); /* NULL is fine */

struct settings_mailbox {
    struct settings *_Atomic slot;
};

/* As mailbox_put and mailbox_take of server/snapshot.h. */
void settings_put(struct settings_mailbox *m, struct settings *s);
struct settings *settings_take(struct settings_mailbox *m);

#endif
