#include "config/yaml_node.h"

#include <stdint.h>
#include <string.h>

#include "core/mem.h"

void node_free(struct node *node)
{
    if (node == NULL) {
        return;
    }
    for (struct node *child = node->first; child != NULL;) {
        struct node *next = child->next;
        node_free(child);
        child = next;
    }
    mem_free(node->key);
    mem_free(node->text);
    mem_free(node);
}

struct node *node_find(const struct node *map, const char *key)
{
    if (map == NULL || map->kind != NODE_MAP) {
        return NULL;
    }
    struct node *child = map->first;
    while (child != NULL && strcmp(child->key, key) != 0) {
        child = child->next;
    }
    return child;
}

/* A list index of at most six digits without leading zeros, or -1. */
static long index_parse(const char *text, size_t n)
{
    if (n == 0 || n > 6 || (text[0] == '0' && n > 1)) {
        return -1;
    }
    long index = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        index = index * 10 + (text[i] - '0');
    }
    return index;
}

struct node **node_link(struct node *parent, const char *segment, size_t n)
{
    struct node **link = &parent->first;
    if (parent->kind == NODE_MAP) {
        while (*link != NULL && (strncmp((*link)->key, segment, n) != 0 || (*link)->key[n] != '\0')) {
            link = &(*link)->next;
        }
        return link;
    }
    long index = index_parse(segment, n);
    if (parent->kind != NODE_LIST || index < 0 || (size_t)index > parent->count) {
        return NULL;
    }
    while (index-- > 0) {
        link = &(*link)->next;
    }
    return link;
}

struct node *node_path(const struct node *root, const char *path)
{
    struct node *node = (struct node *)(uintptr_t)root;
    while (node != NULL && *path != '\0') {
        size_t n = strcspn(path, ".");
        struct node **link = node_link(node, path, n);
        node = link == NULL ? NULL : *link;
        path += path[n] == '.' ? n + 1 : n;
    }
    return node;
}

bool node_is_null(const struct node *node)
{
    return node->kind == NODE_SCALAR && node->plain &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

const char *node_kind_word(const struct node *node)
{
    return node->kind == NODE_MAP ? "a mapping" : node->kind == NODE_LIST ? "a list" : "a value";
}
