/*
 * config/param.h: parameters as tables. One row a parameter: where it stands in the file, its type, bounds, default and
 * one sentence, and where its value goes in a struct. Reading, checking, documentation and --dump-config all come from
 * the rows.
 *
 * Values in a struct, by type (`size` is sizeof the member):
 *   PARAM_STRING    char *, new; NULL when absent and without default
 *   PARAM_PATH      the same; a relative path is taken from the file's directory, or from the working directory when it
 *                   came by --set
 *   PARAM_TEXT      char[size], always terminated
 *   PARAM_INT, PARAM_SIZE (bytes, "64KiB"), PARAM_DURATION (milliseconds, "250ms"): uint32_t or uint64_t
 *   PARAM_FLOAT     double
 *   PARAM_BOOL      bool
 *   PARAM_ENUM      int-sized enum: the index in `words`
 *   PARAM_WORD      char[size]: one of `words`
 *   PARAM_INTS      uint32_t[] with room for size / sizeof(uint32_t); their number in the size_t at `count_offset`
 *   PARAM_STRINGS   char **, new, NULL-terminated; NULL when absent
 *   PARAM_SEPARATOR char[size] or char (size 1): 1 to size - 1 (1) bytes of text; "tab", "\t" and "space" work
 *   PARAM_NODE      nothing: the caller reads the node itself (lists of mappings)
 *   PARAM_FIXED     nothing: only the word `default_text` is accepted (NULL: nothing at all), else `advice` is the
 *                   problem. For keys of other versions and for what is refused on purpose; not in the documentation.
 */
#ifndef CONFIG_PARAM_H
#define CONFIG_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/problems.h"
#include "config/yaml.h"
#include "core/buf.h"

enum param_type {
    PARAM_STRING,
    PARAM_PATH,
    PARAM_TEXT,
    PARAM_INT,
    PARAM_SIZE,
    PARAM_DURATION,
    PARAM_FLOAT,
    PARAM_BOOL,
    PARAM_ENUM,
    PARAM_WORD,
    PARAM_INTS,
    PARAM_STRINGS,
    PARAM_SEPARATOR,
    PARAM_NODE,
    PARAM_FIXED,
};

/* PARAM_NEEDED_INSIDE: required once the mapping around it is there. */
enum param_need { PARAM_OPTIONAL, PARAM_NEEDED, PARAM_NEEDED_INSIDE };

struct param {
    const char *path; /* "optimizer.lr" */
    enum param_type type;
    size_t offset, size;
    const char *default_text; /* as it would stand in the file; NULL: none */
    double min, max;          /* of numbers, and of each element of PARAM_INTS; whole numbers are exact up to 2^53 */
    const char *unit;
    const char *sentence;
    const char *const *words; /* PARAM_ENUM, PARAM_WORD; NULL-terminated */
    const char *advice;       /* what to do about a wrong value; NULL: nothing special */
    size_t count_offset;
    enum param_need need;
    bool reloadable;
};

#define PARAM_WHOLE_MAX 9007199254740991.0 /* 2^53 - 1: the last that has no neighbour of the same double */

/* Offset and size of a struct's member, for a row. */
#define PARAM_AT(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)NULL)->member)

/* A key's path as text; cut when longer. */
struct key_path {
    char text[640];
};
struct key_path key_join(const char *a, const char *b);                          /* "a.b"; an empty part is left out */
struct key_path key_element(const char *list, size_t index, const char *member); /* "list.0.member" */

struct param_table {
    const struct param *rows;
    size_t n;
};

/* Sets the defaults of `target` (zeroed by the caller), then reads the tree `map` into it. Every problem is added, with
 * `prefix` (e.g. "user_tower.features.0", or "") in front of its keys; keys that no row knows are problems. The target is
 * always left such that param_release may be called. */
void param_read(const struct param_table *table, const struct node *map, const char *prefix, void *target,
                struct problems *problems);

/* Applies --set texts to a tree (yaml_set); values of rows that are texts need no quotes. */
void param_set(const struct param_table *table, struct node *root, const char *const *sets, size_t n_sets,
               struct problems *problems);

/* Gives `fresh` the values of `running` in the rows that are not reloadable, and appends the paths of those that differed to
 * `kept`, with ", " between them. For tables without lists. Returns 0, or -1 without memory. */
int param_keep(const struct param_table *table, void *fresh, const void *running, struct buf *kept);

/* Frees what param_read made. */
void param_release(const struct param_table *table, void *target);

/* Where to blame for a key below `root` that may be absent: the place of its nearest existing ancestor. */
struct place param_place(const struct node *root, const char *path);

/* The word of the list that is closest to `text` by edit distance, or NULL when none is close. */
const char *param_closest(const char *text, const char *const *words);

/* Appends the documentation of the rows, as Markdown or tab-separated (path, type, min, default, max, unit, reloadable,
 * sentence), with `prefix` before each path; the head of the columns first: param_describe_head. */
void param_describe_head(struct buf *out, bool markdown);
void param_describe(const struct param_table *table, const char *prefix, struct buf *out, bool markdown);

/* Appends `target` as YAML that param_read reads back to the same, each setting with its sentence as a comment. Rows of
 * one mapping must stand together in the table. */
void param_dump(const struct param_table *table, const void *target, struct buf *out);

#endif
