/*
 * The files of `recall-train eval`: read like training events, over a catalogue that is fixed.
 */
#include "train/dataset_events.h"

#include "core/mem.h"
#include "train/dataset_ids.h"

/* Puts the events of a log in order and translates their items. */
static int pairs_from_log(struct event_log *log, enum pairs_role role, const struct strtab *item_ids,
                          const struct idmap *items, size_t n_users, struct interactions *pairs, uint32_t *unreachable,
                          struct err *e)
{
    int result = -1;
    uint32_t *same = mem_array(n_users, sizeof *same);
    uint32_t *position = ids_translate(items, item_ids);
    if (same == NULL || position == NULL) {
        err_nomem(e);
        goto done;
    }
    for (uint32_t u = 0; u < n_users; u++) {
        same[u] = u;
    }
    if (interactions_group(pairs, log, same, n_users, e) < 0) {
        goto done;
    }
    for (size_t i = 0; i < pairs->n; i++) {
        pairs->item[i] = position[pairs->item[i]];
    }
    result = 0;
    if (role == PAIRS_RELEVANT) {
        size_t numbers = item_ids->count + idmap_count(items);
        result = interactions_make_sets(pairs, NULL, n_users, item_ids->count, numbers, unreachable, e);
    } else {
        interactions_drop_outside(pairs, n_users, item_ids->count);
    }
done:
    mem_free(same);
    mem_free(position);
    return result;
}

int dataset_eval_file(const struct events_file *file, enum pairs_role role, const struct strtab *item_ids,
                      struct idmap *users, struct interactions *pairs, uint32_t **unreachable, struct err *e)
{
    int result = -1;
    struct event_log log = {0};
    uint32_t *outside = NULL;
    struct idmap *items = idmap_new();
    *pairs = (struct interactions){0};
    if (items == NULL) {
        err_nomem(e);
        goto done;
    }
    if (event_log_read(&log, file, EVENTS_POSITIVE, users, items, e) < 0) {
        goto done;
    }
    size_t n_users = idmap_count(users);
    outside = mem_array(n_users, sizeof *outside);
    if (outside == NULL) {
        err_nomem(e);
        goto done;
    }
    result = pairs_from_log(&log, role, item_ids, items, n_users, pairs, outside, e);
    if (result == 0 && unreachable != NULL) {
        *unreachable = outside;
        outside = NULL;
    }
done:
    if (result < 0) {
        interactions_release(pairs);
    }
    mem_free(outside);
    event_log_release(&log);
    idmap_free(items);
    return result;
}
