/*
 * core/bundle.h: a published model, opened for reading: mapped, completely checked, then trusted.
 *
 * bundle_open verifies in this order: manifest.json (syntax, format version, its own fingerprint), presence, size and
 * SHA-256 of every file it lists, then each file's structure against the schema, then the golden probes: the user tower
 * must give the recorded vectors and an exact scan the recorded items. Nothing of a bundle that fails is used.
 * An open bundle is read-only and thread-safe. The index file is checked for its checksum here and read by ann/.
 * The files and the manifest's members are described in docs/bundle.md.
 */
#ifndef CORE_BUNDLE_H
#define CORE_BUNDLE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "core/attribute_index.h"
#include "core/err.h"
#include "core/fileio.h"
#include "core/profiles.h"
#include "core/schema.h"
#include "core/strtab.h"
#include "core/tower.h"

enum { BUNDLE_FORMAT = 1, BUNDLE_MAX_ATTRIBUTES = 64 };

struct bundle_attribute {
    char name[SCHEMA_MAX_NAME + 1];
    struct strtab values;          /* row i: item i's value as JSON text ("null" when missing), unsorted */
    struct attribute_index *index; /* of the values; owned */
};

/* What a search effort was measured to give at least (recall against exact, less its standard error). */
struct bundle_effort {
    size_t effort;
    double recall;
};

/* An item and how many events of the training it had. */
struct bundle_popular {
    uint32_t row, events;
};

struct bundle {
    char *dir;                         /* the real path, links resolved */
    const char *version;               /* the manifest's, e.g. 20261124T133009Z-1f2e3d4c5b6a */
    char fingerprint[FILE_SHA256_HEX]; /* SHA-256 of the manifest with this member zeroed: covers every file */
    json_t *manifest;
    struct schema schema;
    struct tower towers[2]; /* by enum side */

    size_t n_items;
    uint32_t dim;
    struct strtab item_ids;              /* sorted: row order is id order */
    const float *item_vectors;           /* [n_items, dim] row-major; length 1 each under cosine */
    struct bundle_attribute *attributes; /* [n_attributes] */
    size_t n_attributes;

    const struct bundle_popular *popular; /* [n_items] every item, most events first; NULL: not in the bundle */
    struct profiles profiles;             /* of users; none when the bundle has none */

    float *probe_vectors; /* [n_probes, dim] the golden probes' users, as this program computes them; owned */
    size_t n_probes;

    const char *index_engine;      /* "flat", "faiss", ... */
    const char *index_factory;     /* "" when the engine has none */
    char *index_path;              /* NULL when the engine keeps no file */
    struct bundle_effort *efforts; /* [n_efforts] ascending: the curve measured at build time; owned */
    size_t n_efforts;
    size_t index_effort; /* default search effort found at build time; 0: the engine's own */

    struct file_map *maps; /* what the views above point into */
    size_t n_maps;
    struct safetensors *weights;
};

/* The attribute of this name, or NULL. */
const struct bundle_attribute *bundle_find_attribute(const struct bundle *b, const char *name);

/* The least effort that was measured to reach a recall; 0: none was. */
size_t bundle_effort_for(const struct bundle *b, double recall);

/* NULL with the file's name and the reason. */
struct bundle *bundle_open(const char *path, struct err *e);
void bundle_free(struct bundle *b);

/* The manifest's fingerprint: SHA-256 of the text with the 64 digits of its "fingerprint" member as zeros. The
 * outermost object must have that member exactly once; the word may occur elsewhere, too. The text need
 * not end with '\0'. */
int manifest_fingerprint(const char *text, size_t n, char hex[FILE_SHA256_HEX], struct err *e);

#endif
