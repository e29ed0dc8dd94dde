/*
 * core/idmap.h: strings to consecutive numbers, growing: the map used while reading data.
 *
 * The first new string is 0, the next 1, and so on. Strings are copied. At most 2^32 - 2 of them. Not thread-safe.
 */
#ifndef CORE_IDMAP_H
#define CORE_IDMAP_H

#include <stddef.h>
#include <stdint.h>

#include "core/strtab.h"

#define IDMAP_NONE UINT32_MAX

struct idmap; /* opaque */

struct idmap *idmap_new(void); /* NULL without memory */
void idmap_free(struct idmap *m);
size_t idmap_count(const struct idmap *m);

/* The string's number, adding it when new; IDMAP_NONE without memory. */
uint32_t idmap_add(struct idmap *m, const char *text, size_t length);

/* The string's number or IDMAP_NONE. */
uint32_t idmap_find(const struct idmap *m, const char *text, size_t length);

/* The same for n strings at once, several times as fast in a large map, because the waits for memory overlap. Without
 * memory idmap_add_many gives -1; strings before the failure have been added. */
int idmap_add_many(struct idmap *m, const struct span *texts, size_t n, uint32_t *numbers);

/* String `number`; borrowed until the next idmap_add. */
struct span idmap_get(const struct idmap *m, uint32_t number);

/* FNV-1a, 64 bits: also the hash of hashed categorical features, so other programs can reproduce it. */
uint64_t fnv1a(const char *text, size_t length);

#endif
