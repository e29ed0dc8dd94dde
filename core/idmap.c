/*
 * An open-addressing hash table of string numbers, linear probing, at most 5/8 full, with the strings in one arena.
 * Hashes are kept (32 bits), so growing never touches the strings and most probes that miss never do either.
 */
#include "core/idmap.h"

#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

struct slot {
    uint32_t hash;
    uint32_t number; /* IDMAP_NONE: free */
};

struct idmap {
    struct slot *slots; /* [mask + 1], a power of two */
    size_t mask;
    size_t *offsets; /* [offsets_capacity], count + 1 used */
    size_t offsets_capacity;
    size_t count;
    char *bytes;
    size_t bytes_capacity;
};

uint64_t fnv1a(const char *text, size_t length)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) {
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    }
    return h;
}

static uint32_t hash_of(const char *text, size_t length)
{
    return (uint32_t)rng_mix(fnv1a(text, length)); /* FNV's low bits alone are weak for short digits */
}

static struct slot *new_slots(size_t n)
{
    struct slot *slots = mem_array(n, sizeof *slots);
    if (slots != NULL) {
        memset(slots, 0xff, n * sizeof *slots);
    }
    return slots;
}

struct idmap *idmap_new(void)
{
    struct idmap *m = mem_array(1, sizeof *m);
    if (m == NULL) {
        return NULL;
    }
    m->mask = 63;
    m->offsets_capacity = 64;
    m->bytes_capacity = 1024;
    m->slots = new_slots(m->mask + 1);
    m->offsets = mem_array(m->offsets_capacity, sizeof *m->offsets);
    m->bytes = mem_array(m->bytes_capacity, 1);
    if (m->slots == NULL || m->offsets == NULL || m->bytes == NULL) {
        idmap_free(m);
        return NULL;
    }
    return m;
}

void idmap_free(struct idmap *m)
{
    if (m != NULL) {
        mem_free(m->slots);
        mem_free(m->offsets);
        mem_free(m->bytes);
        mem_free(m);
    }
}

size_t idmap_count(const struct idmap *m)
{
    return m->count;
}

struct span idmap_get(const struct idmap *m, uint32_t number)
{
    return (struct span){m->bytes + m->offsets[number], m->offsets[number + 1] - m->offsets[number]};
}

/* The slot that holds the string, or the free one where it would go. */
static struct slot *probe(const struct idmap *m, uint32_t hash, const char *text, size_t length)
{
    for (size_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        struct slot *s = &m->slots[i];
        if (s->number == IDMAP_NONE) {
            return s;
        }
        if (s->hash == hash) {
            struct span known = idmap_get(m, s->number);
            if (known.length == length && (length == 0 || memcmp(known.text, text, length) == 0)) {
                return s;
            }
        }
    }
}

uint32_t idmap_find(const struct idmap *m, const char *text, size_t length)
{
    return probe(m, hash_of(text, length), text, length)->number;
}

static int grow_slots(struct idmap *m)
{
    size_t mask = m->mask * 2 + 1;
    struct slot *slots = new_slots(mask + 1);
    if (slots == NULL) {
        return -1;
    }
    for (size_t i = 0; i <= m->mask; i++) {
        if (m->slots[i].number != IDMAP_NONE) {
            size_t at = m->slots[i].hash & mask;
            while (slots[at].number != IDMAP_NONE) {
                at = (at + 1) & mask;
            }
            slots[at] = m->slots[i];
        }
    }
    mem_free(m->slots);
    m->slots = slots;
    m->mask = mask;
    return 0;
}

static int reserve(struct idmap *m, size_t length)
{
    if (m->count >= IDMAP_NONE - 1) {
        return -1;
    }
    if ((m->count + 1) * 8 > (m->mask + 1) * 5 && grow_slots(m) < 0) {
        return -1;
    }
    if (mem_grow((void **)&m->offsets, &m->offsets_capacity, m->count + 1, sizeof *m->offsets) < 0) {
        return -1;
    }
    size_t used = m->offsets[m->count];
    if (used + length > m->bytes_capacity) {
        size_t wanted = m->bytes_capacity * 2 > used + length ? m->bytes_capacity * 2 : (used + length) * 2;
        char *bytes = mem_resize(m->bytes, used, wanted, 1);
        if (bytes == NULL) {
            return -1;
        }
        m->bytes = bytes;
        m->bytes_capacity = wanted;
    }
    return 0;
}

uint32_t idmap_add(struct idmap *m, const char *text, size_t length)
{
    uint32_t hash = hash_of(text, length);
    struct slot *s = probe(m, hash, text, length);
    if (s->number != IDMAP_NONE) {
        return s->number;
    }
    if (reserve(m, length) < 0) {
        return IDMAP_NONE;
    }
    s = probe(m, hash, text, length); /* growing may have moved it */
    uint32_t number = (uint32_t)m->count;
    size_t used = m->offsets[number];
    if (length > 0) {
        memcpy(m->bytes + used, text, length);
    }
    m->offsets[number + 1] = used + length;
    m->count++;
    *s = (struct slot){hash, number};
    return number;
}
