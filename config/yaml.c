/*
 * YAML to a tree, by libyaml's event parser.
 *
 * Decides: what of YAML a configuration may use (yaml.h lists it) and where each value stands. Everything after this
 * file works on the tree and never sees YAML; whatever is wrong later can therefore still name file, line and key.
 *
 * Why not libcyaml, which reads YAML straight into structs: it stops at the first problem, and it keeps no line for
 * problems found later ("towers of different length", "a file that does not exist"), so neither "all problems in one go"
 * nor "file:line" could be kept. Why not libyaml's own document tree: it resolves aliases (a few lines of text expand to
 * gigabytes), builds everything before a bound can be checked, and recurses as deep as the text says.
 *
 * Invariants: the recursion is at most YAML_DEPTH_MAX deep; a tree has at most YAML_NODES_MAX nodes; every text is valid
 * UTF-8 without '\0'; members of a mapping have different keys.
 */
#include "config/yaml.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "config/yaml_node.h"
#include "core/err.h"
#include "core/fileio.h"
#include "core/mem.h"

struct reader {
    yaml_parser_t parser;
    struct problems *problems;
    const char *set; /* the --set being read, or NULL */
    const char *text;
    size_t size;
    size_t nodes;
};

static struct place place_of(const struct reader *r, size_t line)
{
    return (struct place){r->set, r->set != NULL ? 0 : (int)line + 1};
}

/* Records why libyaml stopped. Problems of its byte reader come with an offset instead of a line. */
static void syntax_problem(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR) {
        problem_nomem(r->problems);
        return;
    }
    const char *what = p->problem != NULL ? p->problem : "cannot be read";
    if (p->error == YAML_READER_ERROR) {
        size_t line = 0;
        for (size_t i = 0; i < p->problem_offset && i < r->size; i++) {
            line += r->text[i] == '\n';
        }
        problem_add(r->problems, place_of(r, line), "", "not a text in UTF-8: %s", what);
        return;
    }
    char column[32] = "";
    if (r->set == NULL) {
        snprintf(column, sizeof column, " (column %zu)", p->problem_mark.column + 1);
    }
    bool token = strstr(what, "cannot start any token") != NULL;
    problem_add(r->problems, place_of(r, p->problem_mark.line), "", "not valid YAML: %s%s%s%s%s",
                p->context != NULL ? p->context : "", p->context != NULL ? ", " : "", what, column,
                token ? "; indent with spaces, not tabs, and put texts that begin with a special character in quotes"
                      : "");
}

/* Next event; the caller deletes it. -1 with a problem. */
static int next_event(struct reader *r, yaml_event_t *event)
{
    memset(event, 0, sizeof *event);
    if (yaml_parser_parse(&r->parser, event) == 0) {
        syntax_problem(r);
        return -1;
    }
    return 0;
}

static struct node *node_new(struct reader *r, enum node_kind kind, const yaml_event_t *event)
{
    struct place at = place_of(r, event->start_mark.line);
    if (++r->nodes > YAML_NODES_MAX) {
        problem_add(r->problems, at, "", "more than %d values; no configuration needs that many", YAML_NODES_MAX);
        return NULL;
    }
    struct node *node = mem_array(1, sizeof *node);
    if (node == NULL) {
        problem_nomem(r->problems);
        return NULL;
    }
    node->kind = kind;
    node->at = at;
    node->key_line = at.line;
    return node;
}

/* A scalar's text, new; NULL with a problem. */
static char *copy_scalar(struct reader *r, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t n = event->data.scalar.length;
    if (memchr(text, '\0', n) != NULL) {
        problem_add(r->problems, place_of(r, event->start_mark.line), "", "a value holds a zero byte");
        return NULL;
    }
    char *copy = mem_strndup(text, n);
    if (copy == NULL) {
        problem_nomem(r->problems);
    }
    return copy;
}

static struct node *read_scalar(struct reader *r, const yaml_event_t *event)
{
    struct node *node = node_new(r, NODE_SCALAR, event);
    if (node == NULL) {
        return NULL;
    }
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    node->text = copy_scalar(r, event);
    if (node->text == NULL) {
        node_free(node);
        return NULL;
    }
    return node;
}

/* Aliases, anchors and tags are refused. */
static int check_event(struct reader *r, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;
    const yaml_char_t *tag = NULL;
    if (event->type == YAML_ALIAS_EVENT) {
        anchor = event->data.alias.anchor;
    } else if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    struct place at = place_of(r, event->start_mark.line);
    if (anchor != NULL) {
        problem_add(r->problems, at, "",
                    "anchors and aliases (&name, *name) are not supported; write the value out, and put "
                    "texts that begin with & or * in quotes");
        return -1;
    }
    if (tag != NULL) {
        problem_add(r->problems, at, "", "tags (!name) are not supported; put texts that begin with ! in quotes");
        return -1;
    }
    return 0;
}

static struct node *read_node(struct reader *r, yaml_event_t *event, int depth);

/* The elements of a list up to its end. Recursion: at most YAML_DEPTH_MAX deep. */
static int read_list(struct reader *r, struct node *list, int depth) /* NOLINT(misc-no-recursion) */
{
    struct node **tail = &list->first;
    for (;;) {
        yaml_event_t event;
        if (next_event(r, &event) < 0) {
            return -1;
        }
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        *tail = read_node(r, &event, depth + 1);
        if (*tail == NULL) {
            return -1;
        }
        tail = &(*tail)->next;
        list->count++;
    }
}

/* Checks a key's event and copies its text: new, or NULL with a problem. */
static char *read_key(struct reader *r, const struct node *map, const yaml_event_t *event)
{
    struct place at = place_of(r, event->start_mark.line);
    if (event->type != YAML_SCALAR_EVENT) {
        problem_add(r->problems, at, "", "a key must be a word, not a list, mapping or alias");
        return NULL;
    }
    if (check_event(r, event) < 0) {
        return NULL;
    }
    if (event->data.scalar.length > YAML_KEY_MAX) {
        problem_add(r->problems, at, "", "a key is longer than %d bytes", YAML_KEY_MAX);
        return NULL;
    }
    if (map->count >= YAML_KEYS_MAX) {
        problem_add(r->problems, at, "", "more than %d keys in one mapping", YAML_KEYS_MAX);
        return NULL;
    }
    return copy_scalar(r, event);
}

/* Appends a member, or reports and frees it when the key is there already. Returns the new tail. */
static struct node **append_member(struct reader *r, struct node *map, struct node **tail, struct node *member)
{
    const struct node *twin = node_find(map, member->key);
    if (twin == NULL) {
        *tail = member;
        map->count++;
        return &member->next;
    }
    struct place at = place_of(r, (size_t)member->key_line - 1);
    if (r->set != NULL) {
        problem_add(r->problems, at, "", "the key %s is given twice", problem_quote(member->key).text);
    } else {
        problem_add(r->problems, at, "", "the key %s is given twice, first in line %d; remove one",
                    problem_quote(member->key).text, twin->key_line);
    }
    node_free(member);
    return tail;
}

static int read_map(struct reader *r, struct node *map, int depth) /* NOLINT(misc-no-recursion) */
{
    struct node **tail = &map->first;
    for (;;) {
        yaml_event_t event;
        if (next_event(r, &event) < 0) {
            return -1;
        }
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        int key_line = (int)event.start_mark.line + 1;
        char *key = read_key(r, map, &event);
        yaml_event_delete(&event);
        if (key == NULL) {
            return -1;
        }
        struct node *member = next_event(r, &event) < 0 ? NULL : read_node(r, &event, depth + 1);
        if (member == NULL) {
            mem_free(key);
            return -1;
        }
        member->key = key;
        member->key_line = key_line;
        tail = append_member(r, map, tail, member);
    }
}

/* The node that begins with `event` (which is deleted), with everything below it; NULL with a problem. */
static struct node *read_node(struct reader *r, yaml_event_t *event, int depth) /* NOLINT(misc-no-recursion) */
{
    struct node *node = NULL;
    int result = check_event(r, event);
    if (result == 0 && event->type == YAML_SCALAR_EVENT) {
        node = read_scalar(r, event);
    } else if (result == 0 && depth >= YAML_DEPTH_MAX) {
        problem_add(r->problems, place_of(r, event->start_mark.line), "", "nested deeper than %d levels",
                    YAML_DEPTH_MAX);
    } else if (result == 0) {
        bool map = event->type == YAML_MAPPING_START_EVENT;
        node = node_new(r, map ? NODE_MAP : NODE_LIST, event);
        if (node != NULL && (map ? read_map(r, node, depth) : read_list(r, node, depth)) < 0) {
            node_free(node);
            node = NULL;
        }
    }
    yaml_event_delete(event);
    return node;
}

/* Skips to the first event of the document: 1 found, 0 the text is empty, -1. */
static int find_document(struct reader *r, yaml_event_t *event)
{
    for (;;) {
        if (next_event(r, event) < 0) {
            return -1;
        }
        yaml_event_type_t type = event->type;
        if (type == YAML_STREAM_END_EVENT) {
            yaml_event_delete(event);
            return 0;
        }
        if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT) {
            return 1;
        }
        yaml_event_delete(event);
    }
}

/* After the document there must be nothing. */
static int check_end(struct reader *r)
{
    for (;;) {
        yaml_event_t event;
        if (next_event(r, &event) < 0) {
            return -1;
        }
        yaml_event_type_t type = event.type;
        struct place at = place_of(r, event.start_mark.line);
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) {
            return 0;
        }
        if (type != YAML_DOCUMENT_END_EVENT) {
            problem_add(r->problems, at, "", "a second document begins here (---); a configuration is one document");
            return -1;
        }
    }
}

int yaml_parse_any(const char *text, size_t size, const char *set, struct problems *problems, struct node **root)
{
    *root = NULL;
    if (size > YAML_TEXT_MAX) {
        problem_add(problems, (struct place){set, 0}, "", "%zu bytes, more than the limit of %d", size, YAML_TEXT_MAX);
        return -1;
    }
    struct reader r = {.problems = problems, .set = set, .text = text, .size = size};
    if (yaml_parser_initialize(&r.parser) == 0) {
        problem_nomem(problems);
        return -1;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    yaml_event_t event;
    int result = find_document(&r, &event);
    if (result > 0) {
        *root = read_node(&r, &event, 0);
        result = *root == NULL || check_end(&r) < 0 ? -1 : 1;
    }
    if (result < 0) {
        node_free(*root);
        *root = NULL;
    }
    yaml_parser_delete(&r.parser);
    return result;
}

struct node *yaml_parse(const char *text, size_t size, struct problems *problems)
{
    struct node *root;
    int result = yaml_parse_any(text, size, NULL, problems, &root);
    if (result < 0) {
        return NULL;
    }
    if (result == 0 || node_is_null(root)) {
        problem_add(problems, (struct place){NULL, 0}, "", "the file is empty; write at least one \"key: value\"");
    } else if (root->kind != NODE_MAP) {
        problem_add(problems, root->at, "", "the top level is %s; it must be a mapping of \"key: value\" lines",
                    node_kind_word(root));
    } else {
        return root;
    }
    node_free(root);
    return NULL;
}

struct node *yaml_load(const char *path, struct problems *problems)
{
    struct err e = ERR_INIT;
    size_t size = 0;
    char *text = file_read(path, YAML_TEXT_MAX, &size, &e);
    if (text == NULL) {
        const char *file = problems->file;
        problems->file = NULL; /* the error names the file itself */
        problem_add(problems, (struct place){NULL, 0}, "", "%s", e.message);
        problems->file = file;
        return NULL;
    }
    struct node *root = yaml_parse(text, size, problems);
    mem_free(text);
    return root;
}
