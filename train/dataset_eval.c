/*
 * The files of `recall-train eval`: read like training events, over a catalogue that is fixed.
 */
#include "train/dataset_events.h"

#include "core/mem.h"

/* Catalogue positions of the items of a map, numbers from the catalogue's size for the others. */
static uint32_t *positions_of(const struct idmap *items, const struct strtab *catalogue)
{
    size_t n = idmap_count(items);
    uint32_t *position = mem_array(n, sizeof *position);
    uint32_t outside = (uint32_t)catalogue->count;
    for (uint32_t i = 0; position != NULL && i < n; i++) {
        struct span id = idmap_get(items, i);
        int64_t at = strtab_find(catalogue, id.text, id.length);
        position[i] = at >= 0 ? (uint32_t)at : outside++;
    }
    return position;
}

/* Drops items from outside the catalogue, keeps everything else. */
static void drop_outside(struct interactions *part, size_t n_users, size_t n_items)
{
    size_t kept = 0, first = 0;
    for (size_t u = 0; u < n_users; u++) {
        for (size_t i = first; i < part->start[u + 1]; i++) {
            if (part->item[i] < n_items) {
                part->item[kept] = part->item[i];
                if (part->time != NULL) {
                    part->time[kept] = part->time[i];
                }
                kept++;
            }
        }
        first = part->start[u + 1];
        part->start[u + 1] = kept;
    }
    part->n = kept;
}

/* Puts the events of a log in order and translates their items. */
static int pairs_from_log(struct event_log *log, enum pairs_role role, const struct strtab *item_ids,
                          const struct idmap *items, size_t n_users, struct interactions *pairs, uint32_t *unreachable,
                          struct err *e)
{
    int result = -1;
    uint32_t *same = mem_array(n_users, sizeof *same);
    uint32_t *position = positions_of(items, item_ids);
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
        drop_outside(pairs, n_users, item_ids->count);
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
    if (event_log_read(&log, file, users, items, role == PAIRS_SEEN, e) < 0) {
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
