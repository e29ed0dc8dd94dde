#include "core/strtab.h"

#include <string.h>

static const char MAGIC[8] = {'R', 'E', 'C', 'S', 'T', 'R', '1', '\n'};

enum { HEADER = 24 }; /* magic, count, bytes */

int span_compare(const struct span *a, const struct span *b)
{
    size_t n = a->length < b->length ? a->length : b->length;
    int order = n > 0 ? memcmp(a->text, b->text, n) : 0;
    if (order != 0) {
        return order;
    }
    return a->length < b->length ? -1 : a->length > b->length;
}

const char *strtab_get(const struct strtab *t, size_t i, size_t *length)
{
    *length = (size_t)(t->offsets[i + 1] - t->offsets[i]);
    return t->bytes + t->offsets[i];
}

static struct span get_span(const struct strtab *t, size_t i)
{
    struct span s;
    s.text = strtab_get(t, i, &s.length);
    return s;
}

static int check_strings(const struct strtab *t, uint64_t bytes, bool sorted, struct err *e)
{
    if (t->offsets[0] != 0 || t->offsets[t->count] != bytes) {
        return err_set(e, "string table: the offsets do not span the bytes");
    }
    for (size_t i = 0; i < t->count; i++) {
        if (t->offsets[i + 1] < t->offsets[i] || t->offsets[i + 1] > bytes) {
            return err_set(e, "string table: offset %zu is out of order", i + 1);
        }
    }
    for (size_t i = 1; sorted && i < t->count; i++) {
        struct span before = get_span(t, i - 1);
        struct span after = get_span(t, i);
        if (span_compare(&before, &after) >= 0) {
            return err_set(e, "string table: strings %zu and %zu are not in ascending order", i - 1, i);
        }
    }
    return 0;
}

int strtab_view(struct strtab *t, const void *block, size_t size, bool sorted, struct err *e)
{
    *t = (struct strtab){0, NULL, NULL};
    uint64_t head[2];
    if (size < HEADER + sizeof(uint64_t) || memcmp(block, MAGIC, sizeof MAGIC) != 0) {
        return err_set(e, "not a string table (no RECSTR1 at its start)");
    }
    memcpy(head, (const char *)block + sizeof MAGIC, sizeof head);
    uint64_t count = head[0];
    uint64_t bytes = head[1];
    uint64_t room = (size - HEADER) / sizeof(uint64_t) - 1; /* offsets beyond the first that could fit */
    if (count > room || size - HEADER - (count + 1) * sizeof(uint64_t) != bytes) {
        return err_set(e, "string table: %zu bytes do not hold %llu strings of %llu bytes", size,
                       (unsigned long long)count, (unsigned long long)bytes);
    }
    struct strtab view = {.count = (size_t)count,
                          .offsets = (const uint64_t *)(const void *)((const char *)block + HEADER)};
    view.bytes = (const char *)(view.offsets + count + 1);
    if (check_strings(&view, bytes, sorted, e) < 0) {
        return -1;
    }
    *t = view;
    return 0;
}

int64_t strtab_find(const struct strtab *t, const char *text, size_t length)
{
    struct span wanted = {text, length};
    size_t low = 0;
    size_t high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct span s = get_span(t, middle);
        int order = span_compare(&s, &wanted);
        if (order == 0) {
            return (int64_t)middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}

void strtab_write(struct buf *out, const struct span *strings, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += strings[i].length;
    }
    uint64_t head[2] = {count, total};
    buf_add(out, MAGIC, sizeof MAGIC);
    buf_add(out, head, sizeof head);
    uint64_t offset = 0;
    buf_add(out, &offset, sizeof offset);
    for (size_t i = 0; i < count; i++) {
        offset += strings[i].length;
        buf_add(out, &offset, sizeof offset);
    }
    for (size_t i = 0; i < count; i++) {
        buf_add(out, strings[i].text, strings[i].length);
    }
}
