/*
 * Sorting ten million ids: comparing strings through two pointers misses the cache each time, so the sort's elements
 * carry the first eight bytes as a big-endian number and touch the strings only when those are equal (shorter strings
 * are padded with zeros; ids have no NUL, so a real byte always beats the padding).
 */
#include "train/dataset_ids.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

static const char not_utf8[] = "not valid UTF-8";
static const char control[] = "has a control character";

const char *text_check(const char *text, size_t length)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < length;) {
        if (p[i] < 0x20 || p[i] == 0x7f) {
            return control;
        }
        size_t n = utf8_length(p + i, length - i);
        if (n == 0) {
            return not_utf8;
        }
        i += n;
    }
    return NULL;
}

const char *id_check(const char *text, size_t length)
{
    if (length == 0) {
        return "empty id";
    }
    return length > ID_BYTES_MAX ? "longer than 256 bytes" : text_check(text, length);
}

struct sort_key {
    uint64_t prefix;
    uint32_t number;
};

static uint64_t prefix_of(struct span s)
{
    unsigned char bytes[8] = {0};
    memcpy(bytes, s.text, s.length < sizeof bytes ? s.length : sizeof bytes);
    uint64_t prefix = 0;
    for (size_t i = 0; i < sizeof bytes; i++) {
        prefix = prefix << 8 | bytes[i];
    }
    return prefix;
}

static int compare_keys(const void *a, const void *b, void *ids)
{
    const struct sort_key *x = a, *y = b;
    if (x->prefix != y->prefix) {
        return x->prefix < y->prefix ? -1 : 1;
    }
    struct span s = idmap_get(ids, x->number), t = idmap_get(ids, y->number);
    return span_compare(&s, &t);
}

/* Makes a view of the table that was written to `block`. */
static int view_block(const struct buf *block, struct strtab *table, struct err *e)
{
    return buf_failed(block) ? err_nomem(e) : strtab_view(table, block->data, block->len, true, e);
}

int ids_number(const struct idmap *ids, const bool *member, uint32_t *rank, struct buf *block, struct strtab *table,
               struct err *e)
{
    int result = -1;
    size_t n = idmap_count(ids), members = 0;
    struct sort_key *keys = mem_array(n, sizeof *keys);
    struct span *sorted = NULL;
    if (keys == NULL) {
        err_nomem(e);
        goto done;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (member == NULL || member[i]) {
            keys[members++] = (struct sort_key){prefix_of(idmap_get(ids, i)), i};
        }
    }
    qsort_r(keys, members, sizeof *keys, compare_keys, (void *)(uintptr_t)ids);
    sorted = mem_array(members, sizeof *sorted);
    if (sorted == NULL) {
        err_nomem(e);
        goto done;
    }
    for (size_t i = 0; i < members; i++) {
        sorted[i] = idmap_get(ids, keys[i].number);
        rank[keys[i].number] = (uint32_t)i;
    }
    uint32_t next = (uint32_t)members;
    for (size_t i = 0; i < n && member != NULL; i++) {
        if (!member[i]) {
            rank[i] = next++;
        }
    }
    strtab_write(block, sorted, members);
    result = view_block(block, table, e);
done:
    mem_free(sorted);
    mem_free(keys);
    return result;
}

uint32_t *ids_translate(const struct idmap *ids, const struct strtab *table)
{
    size_t n = idmap_count(ids);
    uint32_t *position = mem_array(n, sizeof *position);
    uint32_t outside = (uint32_t)table->count;
    for (uint32_t i = 0; position != NULL && i < n; i++) {
        struct span id = idmap_get(ids, i);
        int64_t at = strtab_find(table, id.text, id.length);
        position[i] = at >= 0 ? (uint32_t)at : outside++;
    }
    return position;
}

int ids_frequent(const struct strtab *all, const uint32_t *counts, uint32_t min_count, struct buf *block,
                 struct strtab *vocab, struct err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < all->count; i++) {
        n += counts[i] >= min_count;
    }
    if (n == all->count) {
        *vocab = *all;
        return 0;
    }
    struct span *kept = mem_array(n, sizeof *kept);
    if (kept == NULL) {
        return err_nomem(e);
    }
    n = 0;
    for (size_t i = 0; i < all->count; i++) {
        if (counts[i] >= min_count) {
            kept[n].text = strtab_get(all, i, &kept[n].length);
            n++;
        }
    }
    strtab_write(block, kept, n);
    mem_free(kept);
    return view_block(block, vocab, e);
}
