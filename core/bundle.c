/*
 * Opening a bundle: the gate between what somebody put on a disk and what we compute with.
 *
 * Order matters: the manifest proves itself (fingerprint), then vouches for every file (size and SHA-256, read with
 * read(2)), then each file is mapped and its structure checked against the schema, and at last the golden probes prove
 * that this program, on this machine, computes what the trainer computed. A bundle is used only after all of it.
 *
 * SHA-256 guards against damage and mix-ups, not against an attacker who can write the bundle: he can write the
 * manifest, too. That is why structure is checked even when checksums match.
 *
 * Rejected: checking lazily at first use (a daemon would find out in the middle of a request), and CRC32 (other
 * trainers must write bundles with standard tools, and sha256sum is everywhere).
 */
#include "core/bundle.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/topk.h"
#include "core/vecmath.h"

enum { MANIFEST_LIMIT = 64 << 20, PROBES_LIMIT = 64 << 20, MAX_PROBES = 256, MAX_PROBE_K = 100, SCAN_BLOCK = 1024 };

static const float PROBE_TOLERANCE =
    1e-4f; /* relative to the lengths of the vectors; BLAS kernels sum in various orders */

/* --- manifest ------------------------------------------------------------------------------------------------------*/

/* What lies behind position i once blanks are skipped. */
static size_t skip_blanks(const char *text, size_t n, size_t i)
{
    while (i < n && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n')) {
        i++;
    }
    return i;
}

/* Position behind the string that begins at i (a quote); n when it does not end. */
static size_t skip_string(const char *text, size_t n, size_t i)
{
    for (i++; i < n && text[i] != '"'; i++) {
        i += text[i] == '\\';
    }
    return i < n ? i + 1 : n;
}

/* Position of the value of the outermost object's member "fingerprint". The word may occur elsewhere: as a feature's
 * name, in an inner object, in the text of the training configuration. -1: no such member, or more than one. */
static ssize_t find_fingerprint(const char *text, size_t n)
{
    static const char key[] = "\"fingerprint\"";
    ssize_t found = -1;
    long depth = 0;
    for (size_t i = 0; i < n;) {
        if (text[i] != '"') {
            depth += (text[i] == '{' || text[i] == '[') - (text[i] == '}' || text[i] == ']');
            i++;
            continue;
        }
        size_t end = skip_string(text, n, i);
        size_t colon = skip_blanks(text, n, end);
        bool is_key = depth == 1 && colon < n && text[colon] == ':';
        if (is_key && end - i == sizeof key - 1 && memcmp(text + i, key, sizeof key - 1) == 0) {
            if (found >= 0) {
                return -1;
            }
            found = (ssize_t)skip_blanks(text, n, colon + 1);
        }
        i = end;
    }
    return found;
}

int manifest_fingerprint(const char *text, size_t n, char hex[FILE_SHA256_HEX], struct err *e)
{
    ssize_t found = find_fingerprint(text, n);
    if (found < 0) {
        return err_set(e, "manifest.json: must have one member \"fingerprint\"");
    }
    size_t i = (size_t)found;
    if (n - i <= FILE_SHA256_HEX || text[i] != '"' || text[i + FILE_SHA256_HEX] != '"') {
        return err_set(e, "manifest.json: \"fingerprint\" must be 64 hexadecimal digits");
    }
    char *copy = mem_strndup(text, n);
    if (copy == NULL) {
        return err_nomem(e);
    }
    memset(copy + i + 1, '0', FILE_SHA256_HEX - 1);
    bytes_sha256(copy, n, hex);
    mem_free(copy);
    return 0;
}

/* A version is shown in answers, metrics and logs, and names a directory. */
static bool is_version(const char *text)
{
    return text != NULL && text[0] != '\0' && text[0] != '.' && strlen(text) <= 128 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-") == strlen(text);
}

static int read_manifest(struct bundle *b, struct err *e)
{
    char *path = path_join(b->dir, "manifest.json");
    char *text = NULL;
    int result = -1;
    size_t n = 0;
    json_error_t error;
    bool no_memory;
    if (path == NULL) {
        err_nomem(e);
        goto out;
    }
    text = file_read(path, MANIFEST_LIMIT, &n, e);
    if (text == NULL) {
        goto out;
    }
    b->manifest = json_parse(text, n, JSON_REJECT_DUPLICATES, &error, &no_memory);
    if (no_memory) {
        err_nomem(e);
        goto out;
    }
    if (!json_is_object(b->manifest)) {
        err_set(e, "manifest.json: not a JSON object: %s", b->manifest == NULL ? error.text : "another type");
        goto out;
    }
    json_int_t format = json_integer_value(json_object_get(b->manifest, "format"));
    if (format != BUNDLE_FORMAT) {
        err_set(e, "manifest.json: bundle format %lld; this program reads format %d", (long long)format, BUNDLE_FORMAT);
        goto out;
    }
    const char *recorded = json_string_value(json_object_get(b->manifest, "fingerprint"));
    if (manifest_fingerprint(text, n, b->fingerprint, e) < 0) {
        goto out;
    }
    if (recorded == NULL || strcmp(recorded, b->fingerprint) != 0) {
        err_set(e, "manifest.json: the fingerprint does not match the contents: the file was damaged or edited");
        goto out;
    }
    b->version = json_string_value(json_object_get(b->manifest, "version"));
    if (!is_version(b->version)) {
        err_set(e, "manifest.json: \"version\" must be 1 to 128 of A-Z a-z 0-9 _ . + -");
        goto out;
    }
    result = 0;
out:
    mem_free(path);
    mem_free(text);
    return result;
}

/* --- files ---------------------------------------------------------------------------------------------------------*/

/* A relative path that stays inside the bundle: no part of it is empty, "." or "..". */
static bool is_safe_name(const char *name)
{
    if (strlen(name) >= 256) {
        return false;
    }
    for (const char *part = name;; part++) {
        size_t n = strcspn(part, "/");
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.')) {
            return false;
        }
        part += n;
        if (*part == '\0') {
            return true;
        }
    }
}

static int check_file(const struct bundle *b, const char *name, const json_t *entry, struct err *e)
{
    const json_t *size = json_object_get(entry, "size");
    const char *recorded = json_string_value(json_object_get(entry, "sha256"));
    if (!is_safe_name(name) || !json_is_integer(size) || recorded == NULL) {
        return err_set(e, "manifest.json: bad entry for file \"%.200s\"", name);
    }
    char *path = path_join(b->dir, name);
    char hex[FILE_SHA256_HEX];
    uint64_t actual = 0;
    if (path == NULL) {
        return err_nomem(e);
    }
    int result = file_sha256(path, hex, &actual, e);
    mem_free(path);
    if (result < 0) {
        return -1;
    }
    if (actual != (uint64_t)json_integer_value(size)) {
        return err_set(e, "%s: %llu bytes, but the manifest says %lld", name, (unsigned long long)actual,
                       (long long)json_integer_value(size));
    }
    if (strcmp(hex, recorded) != 0) {
        return err_set(
            e, "%s: the SHA-256 does not match the manifest: the file was damaged or belongs to another bundle", name);
    }
    return 0;
}

static int check_files(const struct bundle *b, struct err *e)
{
    json_t *files = json_object_get(b->manifest, "files");
    const char *name;
    json_t *entry;
    if (!json_is_object(files)) {
        return err_set(e, "manifest.json: \"files\" must be an object");
    }
    json_object_foreach(files, name, entry)
    {
        if (check_file(b, name, entry, e) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Maps a file that the manifest lists (nothing else was checked). Returns the map, owned by the bundle, or NULL. */
static const struct file_map *map_file(struct bundle *b, const char *name, struct err *e)
{
    if (json_object_get(json_object_get(b->manifest, "files"), name) == NULL) {
        err_set(e, "manifest.json: \"files\" does not list %s, which the schema needs", name);
        return NULL;
    }
    struct file_map *maps = mem_resize(b->maps, b->n_maps, b->n_maps + 1, sizeof *maps);
    if (maps == NULL) {
        err_nomem(e);
        return NULL;
    }
    b->maps = maps;
    char *path = path_join(b->dir, name);
    if (path == NULL) {
        err_nomem(e);
        return NULL;
    }
    int result = file_map_open(&b->maps[b->n_maps], path, e);
    mem_free(path);
    return result < 0 ? NULL : &b->maps[b->n_maps++];
}

static int map_strings(struct bundle *b, const char *name, bool sorted, struct strtab *table, struct err *e)
{
    const struct file_map *map = map_file(b, name, e);
    if (map == NULL) {
        return -1;
    }
    return strtab_view(table, map->data, map->size, sorted, e) < 0 ? err_prefix(e, "%s", name) : 0;
}

/* --- model ---------------------------------------------------------------------------------------------------------*/

static int open_schema(struct bundle *b, struct err *e)
{
    if (schema_from_json(&b->schema, json_object_get(b->manifest, "schema"), e) < 0) {
        return err_prefix(e, "manifest.json");
    }
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        struct tower_spec *spec = &b->schema.towers[side];
        for (uint32_t i = 0; i < spec->n_features; i++) {
            struct feature *f = &spec->features[i];
            char name[SCHEMA_MAX_NAME + 32];
            if (feature_vocab_file(f, (enum side)side, name) && map_strings(b, name, true, &f->vocab, e) < 0) {
                return -1;
            }
        }
    }
    return schema_finish(&b->schema, e) < 0 ? err_prefix(e, "manifest.json: schema") : 0;
}

static int open_weights(struct bundle *b, struct err *e)
{
    const char *name = "weights.safetensors";
    const struct file_map *map = map_file(b, name, e);
    if (map == NULL) {
        return -1;
    }
    b->weights = safetensors_open(map->data, map->size, e);
    if (b->weights == NULL) {
        return err_prefix(e, "%s", name);
    }
    for (int side = SIDE_USER; side <= SIDE_ITEM; side++) {
        if (tower_bind(&b->towers[side], &b->schema.towers[side], (enum side)side, b->weights, e) < 0) {
            return err_prefix(e, "%s", name);
        }
    }
    return 0;
}

static int check_vectors(const struct bundle *b, struct err *e)
{
    for (size_t i = 0; i < b->n_items; i++) {
        const float *v = b->item_vectors + i * b->dim;
        if (!vec_is_finite(v, b->dim)) {
            return err_set(e, "items/vectors.f32: row %zu holds a value that is not finite", i);
        }
        if (b->schema.similarity == SIMILARITY_COSINE) {
            float norm = vec_norm(v, b->dim);
            if (norm != 0.0f && fabsf(norm - 1.0f) > 1e-3f) {
                return err_set(e, "items/vectors.f32: row %zu has length %g; under cosine it must be 1", i,
                               (double)norm);
            }
        }
    }
    return 0;
}

/* Ids go into answers as they are: one that is not UTF-8 would break the answer that holds it. */
static int check_ids(const struct strtab *ids, struct err *e)
{
    for (size_t i = 0; i < ids->count; i++) {
        size_t n;
        const char *id = strtab_get(ids, i, &n);
        if (n == 0) {
            return err_set(e, "items/ids.strings: row %zu: an empty id", i);
        }
        for (size_t at = 0, length; at < n; at += length) {
            length = utf8_length((const unsigned char *)id + at, n - at);
            if (length == 0) {
                return err_set(e, "items/ids.strings: row %zu: not valid UTF-8", i);
            }
        }
    }
    return 0;
}

static int open_items(struct bundle *b, struct err *e)
{
    if (map_strings(b, "items/ids.strings", true, &b->item_ids, e) < 0 || check_ids(&b->item_ids, e) < 0) {
        return -1;
    }
    b->n_items = b->item_ids.count;
    b->dim = b->schema.towers[SIDE_ITEM].output_dim;
    const struct file_map *map = map_file(b, "items/vectors.f32", e);
    if (map == NULL) {
        return -1;
    }
    if (b->n_items == 0 || b->n_items > INT32_MAX) {
        return err_set(e, "items/ids.strings: %zu items; 1 to 2^31 - 1 are possible", b->n_items);
    }
    if (map->size != b->n_items * b->dim * sizeof(float)) {
        return err_set(e, "items/vectors.f32: %zu bytes, but %zu items of %u float32 make %zu", map->size, b->n_items,
                       b->dim, b->n_items * b->dim * sizeof(float));
    }
    b->item_vectors = (const float *)(const void *)map->data;
    return check_vectors(b, e);
}

const struct bundle_attribute *bundle_find_attribute(const struct bundle *b, const char *name)
{
    for (size_t i = 0; i < b->n_attributes; i++) {
        if (strcmp(b->attributes[i].name, name) == 0) {
            return &b->attributes[i];
        }
    }
    return NULL;
}

static int open_attributes(struct bundle *b, struct err *e)
{
    const json_t *names = json_object_get(b->manifest, "attributes");
    size_t n = json_array_size(names);
    if (names != NULL && (!json_is_array(names) || n > BUNDLE_MAX_ATTRIBUTES)) {
        return err_set(e, "manifest.json: \"attributes\" must be a list of at most %d names", BUNDLE_MAX_ATTRIBUTES);
    }
    b->attributes = mem_array(n, sizeof *b->attributes);
    if (b->attributes == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        struct bundle_attribute *a = &b->attributes[i];
        char file[SCHEMA_MAX_NAME + 40];
        if (name == NULL || name[0] == '\0' || strlen(name) > SCHEMA_MAX_NAME || strchr(name, '/') != NULL) {
            return err_set(e, "manifest.json: attributes[%zu]: bad name", i);
        }
        if (bundle_find_attribute(b, name) != NULL) { /* among those before */
            return err_set(e, "manifest.json: attributes[%zu]: the name %s is taken", i, name);
        }
        snprintf(a->name, sizeof a->name, "%s", name);
        snprintf(file, sizeof file, "items/attributes/%s.strings", name);
        if (map_strings(b, file, false, &a->values, e) < 0) {
            return -1;
        }
        if (a->values.count != b->n_items) {
            return err_set(e, "%s: %zu values for %zu items", file, a->values.count, b->n_items);
        }
        a->index = attribute_index_new(&a->values, e);
        if (a->index == NULL) {
            return err_prefix(e, "%s", file);
        }
        b->n_attributes++;
    }
    return 0;
}

/* --- popular items -------------------------------------------------------------------------------------------------*/

/* Every row once, by falling events. */
static int check_popular(const struct bundle *b, const struct bundle_popular *list, uint64_t *seen, struct err *e)
{
    for (size_t i = 0; i < b->n_items; i++) {
        uint32_t row = list[i].row;
        if (row >= b->n_items || (seen[row / 64] >> row % 64 & 1) != 0) {
            return err_set(e, "items/popular.u32: entry %zu: row %u is no item's, or there twice", i, row);
        }
        seen[row / 64] |= UINT64_C(1) << row % 64;
        if (i > 0 && list[i].events > list[i - 1].events) {
            return err_set(e, "items/popular.u32: entry %zu has more events than the one before", i);
        }
    }
    return 0;
}

static int open_popular(struct bundle *b, struct err *e)
{
    if (json_object_get(json_object_get(b->manifest, "files"), "items/popular.u32") == NULL) {
        return 0;
    }
    const struct file_map *map = map_file(b, "items/popular.u32", e);
    if (map == NULL) {
        return -1;
    }
    if (map->size != b->n_items * sizeof *b->popular) {
        return err_set(e, "items/popular.u32: %zu bytes, but %zu items make %zu", map->size, b->n_items,
                       b->n_items * sizeof *b->popular);
    }
    uint64_t *seen = mem_array(b->n_items / 64 + 1, sizeof *seen);
    b->popular = (const struct bundle_popular *)(const void *)map->data;
    int result = seen == NULL ? err_nomem(e) : check_popular(b, b->popular, seen, e);
    mem_free(seen);
    return result;
}

/* --- user profiles -------------------------------------------------------------------------------------------------*/

static int open_profile_column(struct bundle *b, const char *name, size_t at, struct err *e)
{
    const struct tower_spec *spec = &b->schema.towers[SIDE_USER];
    struct profiles *p = &b->profiles;
    char file[PROFILE_FILE_MAX];
    int feature = name == NULL ? -1 : tower_spec_find(spec, name);
    if (feature < 0 || strcmp(name, p->key) == 0) {
        return err_set(e, "manifest.json: users: features[%zu] must be a feature of the user tower, and not the key",
                       at);
    }
    for (size_t i = 0; i < p->n_columns; i++) {
        if (p->columns[i].feature == (uint32_t)feature) {
            return err_set(e, "manifest.json: users: features[%zu]: %s is there twice", at, name);
        }
    }
    profile_file(&spec->features[feature], file);
    const struct file_map *map = map_file(b, file, e);
    if (map == NULL) {
        return -1;
    }
    if (profile_column_view(&p->columns[p->n_columns], spec, (uint32_t)feature, map->data, map->size, p->ids.count, e) <
        0) {
        return err_prefix(e, "%s", file);
    }
    p->n_columns++;
    return 0;
}

static int open_profiles(struct bundle *b, struct err *e)
{
    const json_t *users = json_object_get(b->manifest, "users");
    const json_t *names = json_object_get(users, "features");
    const char *key = json_string_value(json_object_get(users, "key"));
    if (users == NULL || json_is_null(users)) {
        return 0;
    }
    if (key == NULL || key[0] == '\0' || strlen(key) > SCHEMA_MAX_NAME || strpbrk(key, "/~") != NULL ||
        !json_is_array(names)) {
        return err_set(e,
                       "manifest.json: users: must have a \"key\" of 1 to %d bytes, without / and ~, and a list of "
                       "\"features\"",
                       SCHEMA_MAX_NAME);
    }
    if (map_strings(b, "users/ids.strings", true, &b->profiles.ids, e) < 0) {
        return -1;
    }
    b->profiles.key = key;
    for (size_t i = 0; i < json_array_size(names); i++) {
        if (open_profile_column(b, json_string_value(json_array_get(names, i)), i, e) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A text member that may be absent or null. -1 when it is something else. */
static int get_optional_text(const json_t *object, const char *key, const char **text, struct err *e)
{
    const json_t *value = json_object_get(object, key);
    *text = json_string_value(value);
    if (value != NULL && !json_is_null(value) && *text == NULL) {
        return err_set(e, "manifest.json: index: \"%s\" must be a text", key);
    }
    return 0;
}

/* Points without "recall_low" (of other writers, or older ones) promise their "recall". */
static int open_curve(struct bundle *b, const json_t *curve, struct err *e)
{
    enum { MOST = 1000 };
    size_t n = json_array_size(curve);
    if ((curve != NULL && !json_is_null(curve) && !json_is_array(curve)) || n > MOST) {
        return err_set(e, "manifest.json: index: \"curve\" must be a list of at most %d points", MOST);
    }
    b->efforts = mem_array(n, sizeof *b->efforts);
    if (b->efforts == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *point = json_array_get(curve, i);
        const json_t *low = json_object_get(point, "recall_low");
        json_int_t effort = json_integer_value(json_object_get(point, "effort"));
        const json_t *recall = low != NULL ? low : json_object_get(point, "recall");
        if (effort < 1 || effort > INT32_MAX || !json_is_number(recall) ||
            (i > 0 && (size_t)effort <= b->efforts[i - 1].effort)) {
            return err_set(e, "manifest.json: index: curve[%zu] must have a recall and an effort above the one before",
                           i);
        }
        b->efforts[b->n_efforts++] = (struct bundle_effort){(size_t)effort, json_number_value(recall)};
    }
    return 0;
}

size_t bundle_effort_for(const struct bundle *b, double recall)
{
    for (size_t i = 0; i < b->n_efforts; i++) {
        if (b->efforts[i].recall >= recall) {
            return b->efforts[i].effort;
        }
    }
    return 0;
}

static int open_index_record(struct bundle *b, struct err *e)
{
    const json_t *index = json_object_get(b->manifest, "index");
    const json_t *effort = json_object_get(index, "effort");
    json_int_t n = json_integer_value(effort);
    const char *file;
    b->index_engine = json_string_value(json_object_get(index, "engine"));
    if (b->index_engine == NULL || b->index_engine[0] == '\0') {
        return err_set(e, "manifest.json: \"index\" must name its \"engine\"");
    }
    if (get_optional_text(index, "factory", &b->index_factory, e) < 0 ||
        get_optional_text(index, "file", &file, e) < 0) {
        return -1;
    }
    if ((effort != NULL && !json_is_null(effort) && !json_is_integer(effort)) || n < 0 || n > INT32_MAX) {
        return err_set(e, "manifest.json: index: \"effort\" must be an integer from 0 to 2^31 - 1");
    }
    b->index_factory = b->index_factory == NULL ? "" : b->index_factory;
    b->index_effort = (size_t)n;
    if (open_curve(b, json_object_get(index, "curve"), e) < 0) {
        return -1;
    }
    if (file == NULL) {
        return 0;
    }
    if (json_object_get(json_object_get(b->manifest, "files"), file) == NULL) {
        return err_set(e, "manifest.json: \"files\" does not list the index %.200s", file);
    }
    b->index_path = path_join(b->dir, file);
    return b->index_path == NULL ? err_nomem(e) : 0;
}

/* --- golden probes -------------------------------------------------------------------------------------------------*/

struct probes {
    json_t *json;
    size_t n, k;
    float *vectors;         /* [n, dim] as this program computes them */
    float *scores;          /* [SCAN_BLOCK] */
    struct scored *entries; /* [n, k] */
    struct topk *best;      /* [n] */
};

static const json_t *probe_at(const struct probes *p, size_t i)
{
    return json_array_get(json_object_get(p->json, "probes"), i);
}

static int read_probes(struct probes *p, const struct bundle *b, struct err *e)
{
    char *path = path_join(b->dir, "probes.json");
    size_t size = 0;
    char *text = path == NULL ? NULL : file_read(path, PROBES_LIMIT, &size, e);
    mem_free(path);
    if (text == NULL) {
        return path == NULL ? err_nomem(e) : -1;
    }
    json_error_t error;
    bool no_memory;
    p->json = json_parse(text, size, JSON_REJECT_DUPLICATES, &error, &no_memory);
    mem_free(text);
    if (no_memory) {
        return err_nomem(e);
    }
    json_int_t k = json_integer_value(json_object_get(p->json, "k"));
    p->n = json_array_size(json_object_get(p->json, "probes"));
    if (p->json == NULL || k < 1 || k > MAX_PROBE_K || p->n < 1 || p->n > MAX_PROBES) {
        return err_set(e, "probes.json: must hold \"k\" (1 to %d) and 1 to %d \"probes\"", MAX_PROBE_K, MAX_PROBES);
    }
    p->k = (size_t)k < b->n_items ? (size_t)k : b->n_items;
    p->vectors = mem_array(p->n * b->dim, sizeof *p->vectors);
    p->scores = mem_array(SCAN_BLOCK, sizeof *p->scores);
    p->entries = mem_array(p->n * p->k, sizeof *p->entries);
    p->best = mem_array(p->n, sizeof *p->best);
    return p->vectors == NULL || p->scores == NULL || p->entries == NULL || p->best == NULL ? err_nomem(e) : 0;
}

/* Runs the probes' users through the user tower. */
static int embed_probes(struct probes *p, const struct bundle *b, struct err *e)
{
    const struct tower_spec *spec = &b->schema.towers[SIDE_USER];
    struct feature_rows rows;
    struct tower_pass pass = {0};
    struct value_scratch scratch = {0};
    char pointer[256];
    int result = -1;
    if (feature_rows_init(&rows, spec) < 0) {
        return err_nomem(e);
    }
    if (tower_pass_init(&pass, spec, 1, e) < 0) {
        goto out;
    }
    for (size_t i = 0; i < p->n; i++) {
        const json_t *user = json_object_get(probe_at(p, i), "user");
        bool used;
        if (profiles_add_json(&b->profiles, &rows, user, &scratch, pointer, sizeof pointer, &used, e) < 0) {
            err_prefix(e, "probes.json: /probes/%zu/user%s", i, pointer);
            goto out;
        }
    }
    tower_embed(&b->towers[SIDE_USER], b->schema.similarity, &rows, &pass, p->vectors);
    result = 0;
out:
    value_scratch_release(&scratch);
    tower_pass_release(&pass);
    feature_rows_release(&rows);
    return result;
}

/* Exact top-k of all probes in one pass over the item vectors. */
static void scan_probes(struct probes *p, const struct bundle *b)
{
    for (size_t i = 0; i < p->n; i++) {
        topk_init(&p->best[i], p->entries + i * p->k, p->k);
    }
    for (size_t first = 0; first < b->n_items; first += SCAN_BLOCK) {
        size_t count = b->n_items - first < SCAN_BLOCK ? b->n_items - first : SCAN_BLOCK;
        for (size_t i = 0; i < p->n; i++) {
            vec_dot_rows(p->scores, b->item_vectors + first * b->dim, count, b->dim, p->vectors + i * b->dim);
            topk_push_block(&p->best[i], p->scores, count, (uint32_t)first);
        }
    }
    for (size_t i = 0; i < p->n; i++) {
        topk_sort(&p->best[i]);
    }
}

/* Near by the measure of the vectors behind a and b: rounding grows with their lengths, not with the result. */
static bool is_near(double a, double b, double scale)
{
    return fabs(a - b) <= (double)PROBE_TOLERANCE * scale + 1e-7;
}

static int check_probe_vector(const float *vector, const json_t *recorded, size_t dim, size_t i, struct err *e)
{
    double norm = (double)vec_norm(vector, dim);
    for (size_t d = 0; d < dim; d++) {
        const json_t *number = json_array_get(recorded, d);
        double wanted = json_number_value(number);
        if (!json_is_number(number) || !is_near(wanted, (double)vector[d], norm)) {
            return err_set(e,
                           "probes.json: /probes/%zu/vector/%zu: this program computes %.9g, the trainer recorded %.9g",
                           i, d, (double)vector[d], wanted);
        }
    }
    return 0;
}

/* Items are compared by score, position by position: near ties may change places between machines. */
static int check_probe_items(const struct bundle *b, const float *vector, const struct topk *best, const json_t *items,
                             size_t i, struct err *e)
{
    for (size_t j = 0; j < best->n; j++) {
        const json_t *item = json_array_get(items, j);
        const json_t *id = json_object_get(item, "id");
        const json_t *score = json_object_get(item, "score");
        int64_t row =
            json_is_string(id) ? strtab_find(&b->item_ids, json_string_value(id), json_string_length(id)) : -1;
        if (row < 0 || !json_is_number(score)) {
            return err_set(e,
                           "probes.json: /probes/%zu/items/%zu: must be {\"id\": an item of this bundle, \"score\": "
                           "a number}",
                           i, j);
        }
        const float *other = b->item_vectors + (size_t)row * b->dim;
        const float *here = b->item_vectors + (size_t)best->entries[j].row * b->dim;
        double scale =
            (double)vec_norm(vector, b->dim) * fmax((double)vec_norm(other, b->dim), (double)vec_norm(here, b->dim));
        double wanted = json_number_value(score);
        double own = (double)vec_dot(vector, other, b->dim);
        if (!is_near(wanted, own, scale) || !is_near(wanted, (double)best->entries[j].score, scale)) {
            return err_set(e,
                           "probes.json: /probes/%zu/items/%zu: recorded score %.9g, but the item scores %.9g and the "
                           "item at this place %.9g",
                           i, j, wanted, own, (double)best->entries[j].score);
        }
    }
    return 0;
}

static int check_probe(const struct probes *p, const struct bundle *b, size_t i, struct err *e)
{
    const float *vector = p->vectors + i * b->dim;
    const json_t *recorded = json_object_get(probe_at(p, i), "vector");
    const json_t *items = json_object_get(probe_at(p, i), "items");
    if (json_array_size(recorded) != b->dim || json_array_size(items) != p->best[i].n) {
        return err_set(e, "probes.json: /probes/%zu: \"vector\" must have %u numbers and \"items\" %zu", i, b->dim,
                       p->best[i].n);
    }
    if (check_probe_vector(vector, recorded, b->dim, i, e) < 0) {
        return -1;
    }
    return check_probe_items(b, vector, &p->best[i], items, i, e);
}

static int check_probes(struct bundle *b, struct err *e)
{
    struct probes p = {0};
    int result = -1;
    if (json_object_get(json_object_get(b->manifest, "files"), "probes.json") == NULL) {
        return err_set(e, "manifest.json: \"files\" does not list probes.json");
    }
    if (read_probes(&p, b, e) < 0 || embed_probes(&p, b, e) < 0) {
        goto out;
    }
    scan_probes(&p, b);
    for (size_t i = 0; i < p.n; i++) {
        if (check_probe(&p, b, i, e) < 0) {
            goto out;
        }
    }
    b->probe_vectors = p.vectors;
    b->n_probes = p.n;
    p.vectors = NULL;
    result = 0;
out:
    json_decref(p.json);
    mem_free(p.vectors);
    mem_free(p.scores);
    mem_free(p.entries);
    mem_free(p.best);
    return result;
}

/* --- the whole -----------------------------------------------------------------------------------------------------*/

struct bundle *bundle_open(const char *path, struct err *e)
{
    struct bundle *b = mem_array(1, sizeof *b);
    char *real = realpath(path, NULL);
    if (b == NULL) {
        err_nomem(e);
    } else if (real == NULL) {
        err_set(e, "no bundle there: not a directory, or a link to nothing");
    } else if ((b->dir = mem_strdup(real)) == NULL) {
        err_nomem(e);
    } else if (read_manifest(b, e) == 0 && check_files(b, e) == 0 && open_schema(b, e) == 0 &&
               open_weights(b, e) == 0 && open_items(b, e) == 0 && open_attributes(b, e) == 0 &&
               open_popular(b, e) == 0 && open_profiles(b, e) == 0 && open_index_record(b, e) == 0 &&
               check_probes(b, e) == 0) {
        free(real);
        return b;
    }
    err_prefix(e, "bundle %s", path);
    free(real);
    bundle_free(b);
    return NULL;
}

void bundle_free(struct bundle *b)
{
    if (b == NULL) {
        return;
    }
    safetensors_free(b->weights);
    schema_release(&b->schema);
    for (size_t i = 0; i < b->n_maps; i++) {
        file_map_close(&b->maps[i]);
    }
    mem_free(b->maps);
    for (size_t i = 0; i < b->n_attributes; i++) {
        attribute_index_free(b->attributes[i].index);
    }
    mem_free(b->efforts);
    mem_free(b->attributes);
    mem_free(b->probe_vectors);
    mem_free(b->index_path);
    mem_free(b->dir);
    json_decref(b->manifest);
    mem_free(b);
}
