/*
 * --set: one assignment put into a tree.
 *
 * The tree is edited before anything is checked, so a value from the command line goes through the same checks as one of
 * the file, and the effective configuration can be written back. Each new node keeps the assignment as its place; that is
 * how a later problem can say "--set key" instead of a line.
 */
#include <stdbool.h>
#include <string.h>

#include "config/yaml_node.h"
#include "core/buf.h"
#include "core/mem.h"

/* Puts a node (taken; NULL removes) where `link` points. 0, or -1 without memory. */
static int put(struct node *parent, struct node **link, const char *segment, size_t n, struct node *node)
{
    struct node *old = *link;
    if (node != NULL) {
        node->key = parent->kind == NODE_MAP ? mem_strndup(segment, n) : NULL;
        if (parent->kind == NODE_MAP && node->key == NULL) {
            node_free(node);
            return -1;
        }
        node->next = old == NULL ? NULL : old->next;
        *link = node;
        parent->count += old == NULL;
    } else if (old != NULL) {
        *link = old->next;
        parent->count--;
    }
    node_free(old);
    return 0;
}

/* Why a path cannot go on from `parent`. */
static int set_problem(const char *assignment, const struct node *parent, const char *segment, size_t n,
                       struct problems *problems)
{
    struct place at = {assignment, 0};
    if (parent->kind == NODE_LIST && parent->count > 0) {
        problem_add(problems, at, "", "\"%.*s\" must be the number of a list element, 0 to %zu (%zu appends)", (int)n,
                    segment, parent->count - 1, parent->count);
    } else if (parent->kind == NODE_LIST) {
        problem_add(problems, at, "", "\"%.*s\": the list is empty; 0 appends", (int)n, segment);
    } else {
        problem_add(problems, at, "", "what is before \"%.*s\" is a value (%s), which has no keys", (int)n, segment,
                    problem_quote(parent->text).text);
    }
    return -1;
}

/* Walks from *node to the parent of the path's last segment, creating mappings. The last segment goes to *segment. */
static int set_descend(struct node **node, const char *assignment, const char **segment, struct problems *problems)
{
    const char *path = assignment;
    for (int depth = 0;; depth++) {
        size_t n = strcspn(path, ".=");
        if (n == 0 || n > YAML_KEY_MAX || depth >= YAML_DEPTH_MAX) {
            problem_add(problems, (struct place){assignment, 0}, "", "not a key; write it like optimizer.lr=0.1");
            return -1;
        }
        struct node **link = node_link(*node, path, n);
        if (link == NULL) {
            return set_problem(assignment, *node, path, n, problems);
        }
        if (path[n] == '=') {
            *segment = path;
            return 0;
        }
        if (*link == NULL || node_is_null(*link)) {
            struct node *map = mem_array(1, sizeof *map);
            if (map != NULL) {
                map->kind = NODE_MAP;
                map->at.set = assignment;
            }
            if (map == NULL || put(*node, link, path, n, map) < 0) {
                problem_nomem(problems);
                return -1;
            }
        }
        *node = *link;
        path += n + 1;
    }
}

/* A value that is text, put in YAML's single quotes: libyaml then checks its UTF-8 like everything else's. */
static int parse_text(const char *text, const char *set, struct problems *problems, struct node **value)
{
    if (strpbrk(text, "\r\n") != NULL) {
        problem_add(problems, (struct place){set, 0}, "", "holds a line break");
        return -1;
    }
    struct buf quoted = BUF_INIT;
    buf_puts(&quoted, "'");
    for (; *text != '\0'; text++) {
        buf_add(&quoted, "''", *text == '\'' ? 2 : 0);
        buf_add(&quoted, text, *text == '\'' ? 0 : 1);
    }
    buf_puts(&quoted, "'");
    int result = -1;
    if (buf_failed(&quoted)) {
        problem_nomem(problems);
    } else {
        result = yaml_parse_any(quoted.data, quoted.len, set, problems, value);
    }
    buf_release(&quoted);
    return result;
}

/* The value of an assignment: 0 and *value (new; NULL: the key is to be removed), or -1 with a problem. */
static int set_value(const char *text, const char *assignment, bool as_text, struct problems *problems,
                     struct node **value)
{
    size_t before = problems->count;
    as_text = as_text && text[0] != '\0' && text[0] != '"' && text[0] != '\'' && strcmp(text, "null") != 0;
    int result = as_text ? parse_text(text, assignment, problems, value)
                         : yaml_parse_any(text, strlen(text), assignment, problems, value);
    if (result == 0) {
        problem_add(problems, (struct place){assignment, 0}, "",
                    "has no value; key=null removes the key, key='\"\"' is an empty text");
    }
    if (problems->count > before) { /* also problems that leave a tree */
        node_free(*value);
        *value = NULL;
        return -1;
    }
    if (node_is_null(*value)) {
        node_free(*value);
        *value = NULL;
    }
    return 0;
}

/* The value is checked by libyaml, the key only here, and what writes the tree relies on it. */
static bool is_utf8(const char *text, size_t n)
{
    for (size_t length = 0; n > 0; text += length, n -= length) {
        length = utf8_length((const unsigned char *)text, n);
        if (length == 0) {
            return false;
        }
    }
    return true;
}

int yaml_set(struct node *root, const char *assignment, bool as_text, struct problems *problems)
{
    const char *equals = strchr(assignment, '=');
    if (equals == NULL) {
        problem_add(problems, (struct place){assignment, 0}, "", "has no value; write --set key=value");
        return -1;
    }
    if (!is_utf8(assignment, (size_t)(equals - assignment))) {
        problem_add(problems, (struct place){assignment, 0}, "", "the key is not a text in UTF-8");
        return -1;
    }
    struct node *value = NULL;
    if (set_value(equals + 1, assignment, as_text, problems, &value) < 0) {
        return -1;
    }
    const char *segment = NULL;
    if (set_descend(&root, assignment, &segment, problems) < 0) {
        node_free(value);
        return -1;
    }
    size_t n = (size_t)(equals - segment);
    if (put(root, node_link(root, segment, n), segment, n, value) < 0) {
        problem_nomem(problems);
        return -1;
    }
    return 0;
}
