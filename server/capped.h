/*
 * server/capped.h: a search under max_per (server/max_per.h).
 */
#ifndef SERVER_CAPPED_H
#define SERVER_CAPPED_H

#include "server/workbench.h"

/* Searches for `search`, by itself; its hits [k] go to the beginning of the bench's. A filter's set, if there is one, is number 0
 * of the bench's, and is changed. -1 with the fault. */
int capped_search(struct workbench *bench, const struct ann_query *search, const json_t *max_per,
                  struct ann_answer *answer, struct fault *f);

#endif
