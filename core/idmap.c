/*
 * An open-addressing hash table of string numbers, linear probing, at most 5/8 full, with the strings in one arena.
 *
 * Reading events is nothing but looking up, and a map of ten million ids is far larger than any cache, so what counts is
 * how often a look-up waits for memory. A slot holds the string's first eight bytes and its length if that is at most
 * eight: most ids are known from their slot alone, and the arena is only read for longer ones. idmap_add_many asks for the
 * slots of a block of strings before it looks at the first, so that the waits overlap. Hashes are kept, so growing never
 * touches the strings either.
 */
#include "core/idmap.h"

#include <string.h>

#include "core/mem.h"
#include "core/rng.h"

enum { PREFIX = 8, LENGTH_BITS = 4, LENGTH_MASK = (1 << LENGTH_BITS) - 1, LONG = PREFIX + 1, BLOCK = 32 };

struct slot {
    uint64_t prefix; /* the first PREFIX bytes, zeros behind shorter strings */
    uint32_t hash;   /* its low LENGTH_BITS: the string's length, LONG when that is more than PREFIX */
    uint32_t number; /* IDMAP_NONE: free */
};

/* What a string looks like in a slot. */
struct key {
    uint64_t prefix;
    uint32_t hash;
};

struct idmap {
    struct slot *slots; /* [1 << bits] */
    unsigned bits;
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

/* Up to eight bytes, zeros behind them. */
static uint64_t load(const char *text, size_t length)
{
    uint64_t x = 0;
    if (length >= sizeof x) {
        memcpy(&x, text, sizeof x); /* of a size that the compiler knows */
    } else if (length > 0) {
        memcpy(&x, text, length);
    }
    return x;
}

static struct key key_of(const char *text, size_t length)
{
    struct key k = {load(text, length), 0};
    uint64_t h = rng_mix(k.prefix + length * 0x9e3779b97f4a7c15u);
    for (size_t i = PREFIX; i < length; i += PREFIX) {
        h = rng_mix(h ^ load(text + i, length - i));
    }
    k.hash = ((uint32_t)(h >> 32) & ~(uint32_t)LENGTH_MASK) | (uint32_t)(length <= PREFIX ? length : LONG);
    return k;
}

/* Where the search for a hash begins. */
static size_t home(unsigned bits, uint32_t hash)
{
    return (hash * 0x9e3779b1u) >> (32 - bits);
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
    m->bits = 6;
    m->offsets_capacity = 64;
    m->bytes_capacity = 1024;
    m->slots = new_slots((size_t)1 << m->bits);
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

static bool holds(const struct idmap *m, const struct slot *s, struct key k, const char *text, size_t length)
{
    if (s->prefix != k.prefix || s->hash != k.hash) {
        return false;
    }
    if (length <= PREFIX) {
        return true;
    }
    struct span known = idmap_get(m, s->number);
    return known.length == length && memcmp(known.text, text, length) == 0;
}

/* The slot that holds the string, or the free one where it would go. */
static struct slot *probe(const struct idmap *m, struct key k, const char *text, size_t length)
{
    size_t mask = ((size_t)1 << m->bits) - 1;
    for (size_t i = home(m->bits, k.hash);; i = (i + 1) & mask) {
        struct slot *s = &m->slots[i];
        if (s->number == IDMAP_NONE || holds(m, s, k, text, length)) {
            return s;
        }
    }
}

uint32_t idmap_find(const struct idmap *m, const char *text, size_t length)
{
    return probe(m, key_of(text, length), text, length)->number;
}

static int grow_slots(struct idmap *m)
{
    unsigned bits = m->bits + 1;
    size_t n = (size_t)1 << bits;
    struct slot *slots = bits > 32 ? NULL : new_slots(n);
    if (slots == NULL) {
        return -1;
    }
    for (size_t i = 0; i < n / 2; i++) {
        if (m->slots[i].number != IDMAP_NONE) {
            size_t at = home(bits, m->slots[i].hash);
            while (slots[at].number != IDMAP_NONE) {
                at = (at + 1) & (n - 1);
            }
            slots[at] = m->slots[i];
        }
    }
    mem_free(m->slots);
    m->slots = slots;
    m->bits = bits;
    return 0;
}

static int reserve(struct idmap *m, size_t length)
{
    if (m->count >= IDMAP_NONE - 1) {
        return -1;
    }
    if ((m->count + 1) * 8 > ((size_t)1 << m->bits) * 5 && grow_slots(m) < 0) {
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

static uint32_t add(struct idmap *m, struct key k, const char *text, size_t length)
{
    struct slot *s = probe(m, k, text, length);
    if (s->number != IDMAP_NONE) {
        return s->number;
    }
    if (reserve(m, length) < 0) {
        return IDMAP_NONE;
    }
    s = probe(m, k, text, length); /* growing may have moved it */
    uint32_t number = (uint32_t)m->count;
    size_t used = m->offsets[number];
    if (length > 0) {
        memcpy(m->bytes + used, text, length);
    }
    m->offsets[number + 1] = used + length;
    m->count++;
    *s = (struct slot){k.prefix, k.hash, number};
    return number;
}

uint32_t idmap_add(struct idmap *m, const char *text, size_t length)
{
    return add(m, key_of(text, length), text, length);
}

/* The keys of a block, after all that the searches are going to read first was asked for. */
static void prepare(const struct idmap *m, const struct span *texts, size_t n, struct key *keys)
{
    for (size_t i = 0; i < n; i++) {
        keys[i] = key_of(texts[i].text, texts[i].length);
        __builtin_prefetch(&m->slots[home(m->bits, keys[i].hash)]);
    }
    for (size_t i = 0; i < n; i++) {
        const struct slot *s = &m->slots[home(m->bits, keys[i].hash)];
        if (texts[i].length > PREFIX && s->number != IDMAP_NONE) {
            __builtin_prefetch(&m->offsets[s->number]);
        }
    }
    for (size_t i = 0; i < n; i++) {
        const struct slot *s = &m->slots[home(m->bits, keys[i].hash)];
        if (texts[i].length > PREFIX && s->number != IDMAP_NONE) {
            __builtin_prefetch(m->bytes + m->offsets[s->number]);
        }
    }
}

int idmap_add_many(struct idmap *m, const struct span *texts, size_t n, uint32_t *numbers)
{
    struct key keys[BLOCK];
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t count = n - first < BLOCK ? n - first : BLOCK;
        prepare(m, texts + first, count, keys);
        for (size_t i = 0; i < count; i++) {
            const struct span *t = &texts[first + i];
            numbers[first + i] = add(m, keys[i], t->text, t->length);
            if (numbers[first + i] == IDMAP_NONE) {
                return -1;
            }
        }
    }
    return 0;
}
