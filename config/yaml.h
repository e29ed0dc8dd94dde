/*
 * config/yaml.h: YAML text as a small tree of our own nodes that know their line, with "--set" edits, and back to text.
 *
 * The dialect is YAML 1.2's common part: mappings with scalar keys, lists, scalars, comments, flow and block style. One
 * document. Refused, each with its line: anchors and aliases, tags, several documents, duplicate keys, '\0' in a value.
 * Bounds: 1 MiB of text, depth 32, 1,024 keys a mapping,
 * 128 bytes a key, 65,536 nodes. A plain ~ or null, and nothing at all, is a
 * scalar with node_is_null. Not thread-safe.
 */
#ifndef CONFIG_YAML_H
#define CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "config/problems.h"
#include "core/buf.h"

enum { YAML_TEXT_MAX = 1 << 20, YAML_DEPTH_MAX = 32, YAML_KEYS_MAX = 1024, YAML_NODES_MAX = 65536, YAML_KEY_MAX = 128 };
enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    struct place at; /* of the value; a key's own line is key_line */
    int key_line;
    bool plain;         /* scalar written without quotes */
    char *key;          /* members of a mapping, owned; else NULL */
    char *text;         /* scalars, owned; else NULL */
    struct node *first; /* elements or members: owned, linked by next */
    struct node *next;
    size_t count; /* of elements or members */
};

/* New tree (node_free) of a text; its root is a mapping. NULL when no tree came out of it. Problems that leave a tree
 * (duplicate keys: the first one counts) are added too, so look at problems->count. */
struct node *yaml_parse(const char *text, size_t size, struct problems *problems);

/* Reads a file and parses it. */
struct node *yaml_load(const char *path, struct problems *problems);

/* Applies "a.b.0.c=value" (borrowed: nodes refer to it as their place, so it must outlive the tree). The value is YAML,
 * or with `as_text` taken as it is (unless it begins with a quote), so that a path or "[::1]:80" needs no quoting.
 * Missing mappings are created, a number is an element of a list (one behind the last appends), null removes the key.
 * Returns 0, or -1 with a problem added. */
int yaml_set(struct node *root, const char *assignment, bool as_text, struct problems *problems);

/* Appends the tree as YAML that gives the same tree again. */
void yaml_write(const struct node *root, struct buf *out);

/* Appends one text as a scalar; with quotes when it needs them, or when `plain` is false. */
void yaml_write_text(const char *text, bool plain, struct buf *out);

struct node *node_find(const struct node *map, const char *key);   /* a member, or NULL (also when not a mapping) */
struct node *node_path(const struct node *root, const char *path); /* "a.b.0.c", or NULL */
bool node_is_null(const struct node *node);
const char *node_kind_word(const struct node *node); /* "a mapping", "a list", "a value" */
void node_free(struct node *node);

#endif
