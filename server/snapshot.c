#include "server/snapshot.h"

#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ann/ann.h"
#include "core/buf.h"
#include "core/mem.h"
#include "server/catalog.h"

static void snapshot_free(struct snapshot *s)
{
    ann_free(s->index);
    catalog_unref(s->catalog);
    mem_free(s->version);
    mem_free(s->head);
    mem_free(s);
}

static char *make_head(const char *version, size_t *length)
{
    struct buf text = BUF_INIT;
    buf_puts(&text, "{\"model\":");
    buf_json_string(&text, version, strlen(version));
    buf_puts(&text, ",");
    char *head = buf_failed(&text) ? NULL : mem_strndup(text.data, text.len);
    *length = text.len;
    buf_release(&text);
    return head;
}

struct snapshot *snapshot_new(const char *version, struct catalog *catalog, struct ann *index, struct retired *retired,
                              struct err *e)
{
    struct snapshot *s = mem_array(1, sizeof *s);
    if (!s) {
        ann_free(index);
        catalog_unref(catalog);
        err_nomem(e);
        return NULL;
    }
    s->catalog = catalog;
    s->bundle = catalog ? catalog_bundle(catalog) : NULL;
    s->index = index;
    s->retired = retired;
    s->loaded_at = time(NULL);
    atomic_init(&s->references, 1);
    s->version = mem_strdup(version);
    s->head = make_head(version, &s->head_len);
    if (!s->version || !s->head) {
        snapshot_free(s);
        err_nomem(e);
        return NULL;
    }
    return s;
}

struct snapshot *snapshot_with_index(const struct snapshot *s, struct ann *index, struct err *e)
{
    struct snapshot *other = snapshot_new(s->version, catalog_ref(s->catalog), index, s->retired, e);
    if (other) {
        other->loaded_at = s->loaded_at;
        other->load_seconds = s->load_seconds;
        other->probe_recall = s->probe_recall;
    }
    return other;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
    return s;
}

void snapshot_unref(struct snapshot *s)
{
    /* release: our reads come before the freeing; acquire: the freeing comes after everybody's reads */
    if (!s || atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    struct retired *retired = s->retired;
    struct snapshot *first = atomic_load_explicit(&retired->first, memory_order_relaxed);
    do {
        s->next = first;
    } while (
        !atomic_compare_exchange_weak_explicit(&retired->first, &first, s, memory_order_release, memory_order_relaxed));
    if (retired->wake_fd >= 0) {
        eventfd_write(retired->wake_fd, 1); /* fails when the counter is full: somebody is being woken anyway */
    }
}

size_t snapshot_reap(struct retired *retired)
{
    size_t count = 0;
    struct snapshot *s = atomic_exchange_explicit(&retired->first, NULL, memory_order_acquire);
    while (s) {
        struct snapshot *next = s->next;
        snapshot_free(s);
        s = next;
        count++;
    }
    return count;
}

void mailbox_put(struct mailbox *m, struct snapshot *s)
{
    snapshot_unref(atomic_exchange_explicit(&m->slot, snapshot_ref(s), memory_order_acq_rel));
}

struct snapshot *mailbox_take(struct mailbox *m)
{
    return atomic_exchange_explicit(&m->slot, NULL, memory_order_acq_rel);
}
