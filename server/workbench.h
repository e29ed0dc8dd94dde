/*
 * server/workbench.h: what one worker needs to answer requests from one snapshot.
 *
 * Everything a request computes with lies here, sized once from the configured limits and the snapshot's shapes, so that
 * answering allocates nothing that grows with the catalogue. Made and used on the worker's own thread (the index's
 * workspace asks for that); a worker makes a new one for each snapshot it takes over.
 */
#ifndef SERVER_WORKBENCH_H
#define SERVER_WORKBENCH_H

#include "ann/ann.h"
#include "core/bundle.h"
#include "core/features.h"
#include "core/tower.h"
#include "server/filter.h"
#include "server/queue.h"
#include "server/request.h"
#include "server/snapshot.h"

struct workbench {
    struct snapshot *snapshot;   /* the bench's reference */
    struct request_rules rules;  /* configuration and snapshot->bundle */
    struct feature_rows rows[2]; /* by enum side */
    struct tower_pass pass[2];
    struct value_scratch values;
    struct query *queries; /* [limits.batch] */
    float *vectors;        /* [limits.batch, dim] */
    uint32_t *exclude;     /* [n_exclude] for one request as large as can be, or several smaller ones */
    struct scored *hits;   /* [n_hits] likewise */
    size_t n_exclude, n_hits;
    struct filter_bits filter;
    struct ann_batch *search;
    size_t efforts[QUEUE_STEPS + 1]; /* the default effort, degraded by so many steps; 0: not at all */
};

/* New; takes the reference to `s` when it succeeds, and only then. */
struct workbench *workbench_new(struct snapshot *s, const struct serve_config *config, struct err *e);
/* New: for the same snapshot, under another configuration. NULL with `e` set. */
struct workbench *workbench_again(const struct workbench *b, const struct serve_config *config, struct err *e);

void workbench_free(struct workbench *b); /* gives the snapshot back; NULL is fine */

/* Takes a query that leaves its effort to us down so many steps. */
void workbench_degrade(const struct workbench *b, struct query *q, unsigned steps);

#endif
