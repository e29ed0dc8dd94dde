/*
 * server/popular.h: the most popular items, for users about whom nothing is known (`fallback: popular`).
 *
 * Their order is the bundle's (bundle->popular, which must be there), by events of the training; items that were added since come behind
 * them. An item that was replaced keeps its place. What a request excludes, filters and limits holds here, too; min_score does not:
 * scores are numbers of events.
 */
#ifndef SERVER_POPULAR_H
#define SERVER_POPULAR_H

#include "server/workbench.h"

/* The first k of `search` that it does not leave out, under max_per (NULL: none), into the bench's hits. -1 with the fault. */
int popular_search(struct workbench *bench, const struct ann_query *search, const json_t *max_per,
                   struct ann_answer *answer, struct fault *f);

#endif
