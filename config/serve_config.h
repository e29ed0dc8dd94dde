/*
 * config/serve_config.h: the daemon's configuration, from YAML to a checked struct.
 *
 * One row of a table a parameter (serve_config.c): path, type, minimum, default, maximum, unit, reloadable or not, one
 * sentence. `recalld --dump-config` and docs/config.md come from it. All problems of a file are reported in one go.
 */
#ifndef CONFIG_SERVE_CONFIG_H
#define CONFIG_SERVE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/log.h"

/* Files; both or neither. */
struct serve_tls {
    char *certificate, *key;
};

/* Who answers for a user about whom nothing is known. */
enum fallback { FALLBACK_TOWER, FALLBACK_POPULAR };

struct serve_config {
    char *listen;       /* "127.0.0.1:8080", "[::1]:8080", "unix:/path" */
    char *admin_listen; /* NULL: admin paths on the public port if, and only if, that is loopback or unix */
    struct serve_tls tls, admin_tls;
    char *tokens;              /* file of the public paths' bearer tokens; NULL: none are needed */
    char *admin_tokens;        /* of the admin paths' */
    bool admin_without_tokens; /* these may be open to the network */
    uint32_t workers;          /* 0: one a core */
    char *model_path;          /* models.default.path: bundle directory or link */
    enum fallback fallback;
    enum log_level log_level;
    struct {
        char *path;       /* absolute, or "-" for standard output; NULL: no access log */
        double sample;    /* share of the requests that are good and quick */
        uint32_t slow_ms; /* from here on they are slow */
    } access_log;
    struct {
        uint64_t body;                    /* bytes of a request body */
        uint32_t k;                       /* results a request */
        uint32_t batch;                   /* requests in one body */
        uint32_t exclude;                 /* ids excluded a request */
        uint32_t score;                   /* ids scored a request */
        uint32_t effort;                  /* search.effort */
        uint32_t list;                    /* elements of a multi-valued feature or history */
        uint32_t added_items;             /* of one bundle */
        uint32_t connections_per_address; /* at all workers; 0: any number */
        uint32_t connections;             /* a worker */
        uint32_t queue;                   /* requests of a worker that wait */
        uint32_t slow_queue;              /* those of its slow lane */
        uint32_t timeout_ms;              /* most timeout_ms of a request */
        uint32_t head;                    /* bytes of request line and headers */
        uint32_t request_timeout_ms, idle_timeout_ms, response_timeout_ms, drain_timeout_ms;
    } limits;
    bool gzip_requests, gzip_responses;
    uint32_t batch_window_us; /* 0: none */
    uint32_t timeout_ms;      /* of requests that do not say one */
    struct {
        uint32_t wait_ms; /* from here on effort falls */
        double recall;    /* the floor */
    } degrade;
    uint64_t drain_delay_ms; /* after SIGTERM: not ready, still accepting */
};

/* Reads `path` (NULL: all defaults) and applies `sets` ("key.path=value"; texts such as paths and addresses need no
 * quotes). On failure returns NULL and appends one line for each problem to `problems` (which may have failed itself
 * when memory is short). A relative models.default.path is taken from the file's directory, or from the working
 * directory when it comes by --set. Only the form of addresses is checked, not whether they can be bound. */
struct serve_config *serve_config_load(const char *path, const char *const *sets, size_t n_sets, struct buf *problems);

/* For a configuration that is read while another one runs: takes over what cannot be changed then. Appends the keys that
 * have other values in the file, "listen, workers", to `kept`. Returns 0, or -1 without memory. */
int serve_config_keep(struct serve_config *fresh, const struct serve_config *running, struct buf *kept);

void serve_config_free(struct serve_config *config);

/* The effective configuration as YAML that serve_config_load reads back, each setting with its sentence as comment;
 * paths are absolute there. */
void serve_config_dump(const struct serve_config *config, struct buf *out);
void serve_config_describe(struct buf *out, bool markdown);

#endif
