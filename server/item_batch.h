/*
 * server/item_batch.h: items on their way into a snapshot: checked one by one, computed and put there together.
 *
 * Who uses it is the one who makes changes to the snapshot (server/items.h).
 */
#ifndef SERVER_ITEM_BATCH_H
#define SERVER_ITEM_BATCH_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "core/features.h"
#include "core/strtab.h"
#include "server/request.h"
#include "server/snapshot.h"

struct catalog_item;

enum { ITEM_ID_MAX = 512 }; /* bytes */

struct item_batch {
    struct snapshot *snapshot; /* borrowed */
    struct request_rules rules;
    struct catalog_item **items; /* [n] not in the catalogue yet */
    size_t n, capacity;
    struct feature_rows rows; /* their features */
    struct value_scratch values;

    /* by item_batch_compute */
    float *vectors; /* [n, dim] */
    uint32_t *old;  /* [n_old] rows that are replaced */
    size_t n_old;
};

/* For up to `capacity` items. Returns 0, or -1 without memory. */
int item_batch_init(struct item_batch *b, struct snapshot *s, const struct serve_config *config, size_t capacity);
void item_batch_release(struct item_batch *b); /* also after a failed init */

void item_batch_clear(struct item_batch *b); /* forgets the items */

/* Checks an item and notes it. `attributes` may be NULL; those that are not in it are taken from the features of the same
 * name, or null. Returns 0, or -1 with the fault, whose pointer begins with `at`. No two may have the same id. */
int item_batch_note(struct item_batch *b, struct span id, const json_t *features, const json_t *attributes,
                    const char *at, struct fault *f);

/* Does all that can fail: vectors, and whether there is room. */
int item_batch_compute(struct item_batch *b, struct fault *f);

/* Puts computed items into the snapshot, in place of those that live there under the same ids; the batch is empty then. A search
 * sees all of them or none. */
void item_batch_put(struct item_batch *b);

#endif
