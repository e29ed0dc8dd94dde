/*
 * What was rejected: a change made by each worker to what it serves (they would differ for a while, and a reload would need all of
 * them); a log of every change in order (an item that is replaced all day would fill it; by id it is bounded by the ids);
 * writing the log to disk (the next bundle is made from the data that the caller has, and a file here would be a second truth).
 */
#include "server/items.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ann/ann.h"
#include "core/idmap.h"
#include "core/json.h"
#include "core/log.h"
#include "server/catalog.h"
#include "server/item_batch.h"

/* Compacting begins when this many rows were added or removed, and this part of the living ones. */
enum { COMPACT_ROWS = 4096, COMPACT_PART = 8 };

int items_init(struct items *it, struct err *e)
{
    pthread_mutex_init(&it->known_lock, NULL);
    pthread_mutex_init(&it->lock, NULL);
    it->log = json_object();
    return it->log ? 0 : err_nomem(e);
}

void items_forget(struct items *it)
{
    snapshot_unref(it->current);
    it->current = NULL;
}

void items_release(struct items *it)
{
    items_forget(it);
    json_decref(it->log);
    pthread_mutex_destroy(&it->lock);
    pthread_mutex_destroy(&it->known_lock);
}

/* Unlocks after a change. */
static void unlock_changed(struct items *it)
{
    struct items_status status = {.compactions = it->compactions};
    if (it->current) {
        const struct ann *index = it->current->index;
        status.live = ann_rows_live(index);
        status.room = ann_room(index);
        status.added = ann_rows_most(index) - ann_room(index) - (it->current->bundle->n_items + 63) / 64 * 64;
        status.overhead = ann_overhead(index);
    }
    pthread_mutex_lock(&it->known_lock);
    it->known = status;
    pthread_mutex_unlock(&it->known_lock);
    pthread_mutex_unlock(&it->lock);
}

/* --- reading a request ----------------------------------------------------------------------------------------------*/

struct item {
    struct span id;
    char room[INTEGER_ID_MAX];
    const json_t *features, *attributes;
};

static int item_fault(struct fault *f, enum problem_type type, const char *at, const char *member, const char *detail)
{
    char pointer[FAULT_POINTER_MAX];
    snprintf(pointer, sizeof pointer, "%s", at);
    pointer_append(pointer, member);
    return fault_set(f, type, pointer, "%s", detail);
}

static int read_item(const json_t *object, const char *at, struct item *item, struct fault *f)
{
    const char *name;
    json_t *value;
    *item = (struct item){.features = json_object_get(object, "features")};
    item->attributes = json_object_get(object, "attributes");
    item->id = request_id(json_object_get(object, "id"), item->room);
    if (!json_is_object(object)) {
        return fault_set(f, PROBLEM_INVALID_FIELD, at, "must be an object");
    }
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (strcmp(name, "id") != 0 && strcmp(name, "features") != 0 && strcmp(name, "attributes") != 0) {
            return item_fault(f, PROBLEM_UNKNOWN_FIELD, at, name,
                              "not a member of an item; it may have id, features, attributes");
        }
    }
    if (!json_object_get(object, "id") || !item->features) {
        return item_fault(f, PROBLEM_MISSING_FIELD, at, item->features ? "id" : "features", "is required");
    }
    if (!item->id.text || item->id.length == 0) {
        return item_fault(f, PROBLEM_INVALID_FIELD, at, "id",
                          "an item id is a string that is not empty, or an integer");
    }
    if (item->id.length > ITEM_ID_MAX) {
        char detail[64];
        snprintf(detail, sizeof detail, "must have at most %d bytes", ITEM_ID_MAX);
        return item_fault(f, PROBLEM_LIMIT_EXCEEDED, at, "id", detail);
    }
    return 0;
}

/* --- the log --------------------------------------------------------------------------------------------------------*/

static int out_of_memory(struct fault *f)
{
    return fault_set(f, PROBLEM_OUT_OF_MEMORY, "", "no memory to note the change");
}

/* An item as the log keeps it: a new string in changes[id]. */
static int note_item(json_t *changes, const struct item *item, const char *at, struct fault *f)
{
    json_t *kept = json_object();
    int rc = kept && json_object_set(kept, "features", (json_t *)(uintptr_t)item->features) == 0 ? 0 : -1;
    if (rc == 0 && item->attributes) {
        rc = json_object_set(kept, "attributes", (json_t *)(uintptr_t)item->attributes);
    }
    char *text = rc == 0 ? json_dumps(kept, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(kept);
    size_t n = text ? strlen(text) : 0;
    if (n > ITEM_TEXT_MAX) {
        rc = fault_set(f, PROBLEM_LIMIT_EXCEEDED, at, "must have at most %d bytes", ITEM_TEXT_MAX);
    } else if (!text || json_object_set_new(changes, item->id.text, json_stringn(text, n)) != 0) {
        rc = out_of_memory(f);
    }
    free(text);
    return rc;
}

/* Makes sure that log_write cannot fail: every id gets an entry. */
static int log_prepare(json_t *log, json_t *changes)
{
    const char *id;
    json_t *value;
    void *next;
    int rc = 0;
    json_object_foreach(changes, id, value)
    {
        if (rc == 0 && !json_object_get(log, id)) {
            rc = json_object_set_new(log, id, json_false());
        }
    }
    if (rc != 0) {
        json_object_foreach_safe(log, next, id, value)
        {
            if (json_is_false(value)) {
                json_object_del(log, id);
            }
        }
    }
    return rc;
}

static void log_write(json_t *log, json_t *changes)
{
    const char *id;
    json_t *value;
    json_object_foreach(changes, id, value)
    {
        json_object_set(log, id, value);
    }
}

/* --- changes --------------------------------------------------------------------------------------------------------*/

/* Checks all items of a request and notes them. */
static int note_items(struct item_batch *b, const json_t *list, json_t *changes, struct fault *f)
{
    struct idmap *ids = idmap_new();
    int rc = ids && changes ? 0 : out_of_memory(f);
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        char at[32];
        struct item item;
        snprintf(at, sizeof at, "/items/%zu", i);
        if (read_item(json_array_get(list, i), at, &item, f) != 0) {
            rc = -1;
            break;
        }
        uint32_t number = idmap_add(ids, item.id.text, item.id.length);
        if (number == IDMAP_NONE) {
            rc = out_of_memory(f);
        } else if (number < i) {
            rc = item_fault(f, PROBLEM_INVALID_FIELD, at, "id", "another item of this request has the same id");
        } else if (item_batch_note(b, item.id, item.features, item.attributes, at, f) != 0 ||
                   note_item(changes, &item, at, f) != 0) {
            rc = -1;
        }
    }
    idmap_free(ids);
    return rc;
}

static int add_to(struct items *it, const struct serve_config *config, const json_t *list, struct items_added *done,
                  struct fault *f)
{
    struct item_batch batch;
    json_t *changes = json_object();
    int rc = item_batch_init(&batch, it->current, config, json_array_size(list)) == 0 ? 0 : out_of_memory(f);
    rc = rc == 0 ? note_items(&batch, list, changes, f) : rc;
    rc = rc == 0 ? item_batch_compute(&batch, f) : rc;
    if (rc == 0 && log_prepare(it->log, changes) != 0) {
        rc = out_of_memory(f);
    }
    if (rc == 0) {
        log_write(it->log, changes);
        item_batch_put(&batch);
        done->snapshot = snapshot_ref(it->current);
        done->replaced = batch.n_old;
        done->added = json_array_size(list) - batch.n_old;
    }
    item_batch_release(&batch);
    json_decref(changes);
    return rc;
}

static int no_snapshot(struct fault *f)
{
    return fault_set(f, PROBLEM_NOT_READY, "", "the first bundle is still being loaded");
}

int items_add(struct items *it, const struct serve_config *config, const json_t *list, struct items_added *done,
              struct fault *f)
{
    pthread_mutex_lock(&it->lock);
    int rc = it->current ? add_to(it, config, list, done, f) : no_snapshot(f);
    unlock_changed(it);
    return rc;
}

static int remove_from(struct items *it, const char *id, struct fault *f)
{
    const struct snapshot *s = it->current;
    int64_t row = catalog_find(s->catalog, s->index, id, strlen(id));
    if (row < 0) {
        return fault_set(f, PROBLEM_UNKNOWN_ITEM, "", "the model has no item of this id");
    }
    if (json_object_set_new_nocheck(it->log, id, json_null()) != 0) {
        return out_of_memory(f);
    }
    ann_remove(s->index, (uint32_t)row);
    return 0;
}

int items_remove(struct items *it, const char *id, struct snapshot **snapshot, struct fault *f)
{
    pthread_mutex_lock(&it->lock);
    int rc = it->current ? remove_from(it, id, f) : no_snapshot(f);
    *snapshot = rc == 0 ? snapshot_ref(it->current) : NULL;
    unlock_changed(it);
    return rc;
}

/* --- a new bundle ---------------------------------------------------------------------------------------------------*/

/* The log's entries on their way into another snapshot. */
struct replayer {
    struct item_batch batch; /* of one, so that an item which is refused takes no other with it */
    struct items_replay *replay;
    bool bundle_first; /* an item that the bundle has stays as it has it */
    size_t own, refused;
    char first[256]; /* what is wrong with the first that was refused */
};

static int replayer_drop(struct replayer *r, const char *id, json_t *value, struct err *e)
{
    return json_object_set(r->replay->dropped, id, value) == 0 ? 0 : err_nomem(e);
}

static int replay_item(struct replayer *r, const char *id, json_t *value, struct err *e)
{
    struct fault f;
    struct item_batch *b = &r->batch;
    if (r->bundle_first && strtab_find(&b->snapshot->bundle->item_ids, id, strlen(id)) >= 0) {
        r->own++;
        return replayer_drop(r, id, value, e);
    }
    bool no_memory;
    json_t *item = json_parse(json_string_value(value), json_string_length(value), 0, NULL, &no_memory);
    if (!item) {
        return err_nomem(e);
    }
    int rc = item_batch_note(b, (struct span){id, strlen(id)}, json_object_get(item, "features"),
                             json_object_get(item, "attributes"), "", &f);
    json_decref(item);
    if (rc == 0 && item_batch_compute(b, &f) == 0) {
        item_batch_put(b);
        return 0;
    }
    item_batch_clear(b);
    if (f.type == PROBLEM_OUT_OF_MEMORY) {
        return err_nomem(e);
    }
    if (r->refused++ == 0) {
        snprintf(r->first, sizeof r->first, "item %.64s, %.64s: %.100s", id, f.pointer, f.detail);
    }
    return replayer_drop(r, id, value, e);
}

static int replay_change(struct replayer *r, const char *id, json_t *value, struct err *e)
{
    const struct snapshot *s = r->batch.snapshot;
    if (!json_is_null(value)) {
        return replay_item(r, id, value, e);
    }
    int64_t row = catalog_find(s->catalog, s->index, id, strlen(id));
    if (row >= 0) {
        ann_remove(s->index, (uint32_t)row);
    }
    return 0;
}

/* The changes of `log` that are not in `seen`. */
static int replay_log(struct replayer *r, json_t *log, const json_t *seen, struct err *e)
{
    const char *id;
    json_t *value;
    json_object_foreach(log, id, value)
    {
        if (json_object_get(seen, id) != value && replay_change(r, id, value, e) != 0) {
            return -1;
        }
    }
    if (r->own > 0) {
        log_info("%zu added items are in the new bundle", r->own);
    }
    if (r->refused > 0) {
        log_warn("%zu added items do not fit the new model and are gone; the first: %s", r->refused, r->first);
    }
    return 0;
}

static void replay_release(struct items_replay *replay)
{
    json_decref(replay->seen);
    json_decref(replay->dropped);
    *replay = (struct items_replay){0};
}

int items_replay(struct items *it, const struct serve_config *config, struct snapshot *s, struct items_replay *replay,
                 struct err *e)
{
    struct replayer r = {.replay = replay, .bundle_first = true};
    pthread_mutex_lock(&it->lock);
    *replay = (struct items_replay){json_copy(it->log), json_object()};
    pthread_mutex_unlock(&it->lock);
    int rc = item_batch_init(&r.batch, s, config, 1);
    rc = rc == 0 && replay->seen && replay->dropped ? replay_log(&r, replay->seen, NULL, e) : err_nomem(e);
    item_batch_release(&r.batch);
    if (rc != 0) {
        replay_release(replay); /* jansson counts references atomically */
    }
    return rc;
}

void items_take_over(struct items *it, const struct serve_config *config, struct snapshot *s,
                     struct items_replay *replay)
{
    struct replayer r = {.replay = replay};
    struct err e = ERR_INIT;
    const char *id;
    json_t *value;
    pthread_mutex_lock(&it->lock);
    if (item_batch_init(&r.batch, s, config, 1) != 0 || replay_log(&r, it->log, replay->seen, &e) != 0) {
        log_error("changes that came during the load are not in the new model: %s",
                  err_isset(&e) ? e.message : "out of memory");
    }
    json_object_foreach(replay->dropped, id, value)
    {
        if (json_object_get(it->log, id) == value) {
            json_object_del(it->log, id);
        }
    }
    item_batch_release(&r.batch);
    replay_release(replay);
    snapshot_unref(it->current);
    it->current = snapshot_ref(s);
    unlock_changed(it);
}

/* --- compaction -----------------------------------------------------------------------------------------------------*/

struct snapshot *items_take_index(struct items *it, const struct snapshot *from, struct ann *index, struct err *e)
{
    struct snapshot *s = NULL;
    pthread_mutex_lock(&it->lock);
    if (it->current != from) {
        ann_free(index);
    } else if ((s = snapshot_with_index(from, index, e)) != NULL) {
        ann_catch_up(index);
        snapshot_unref(it->current);
        it->current = snapshot_ref(s);
        it->compactions++;
    }
    unlock_changed(it);
    return s;
}

void items_get_status(struct items *it, struct items_status *status)
{
    pthread_mutex_lock(&it->known_lock);
    *status = it->known;
    pthread_mutex_unlock(&it->known_lock);
}

struct snapshot *items_worth_compacting(struct items *it)
{
    struct snapshot *s = NULL;
    pthread_mutex_lock(&it->lock);
    if (it->current && ann_can_compact(it->current->index)) {
        size_t overhead = ann_overhead(it->current->index);
        bool worth = overhead >= COMPACT_ROWS && overhead >= ann_rows_live(it->current->index) / COMPACT_PART;
        s = worth ? snapshot_ref(it->current) : NULL;
    }
    pthread_mutex_unlock(&it->lock);
    return s;
}
