/*
 * config/yaml_node.h: what yaml.c, yaml_node.c, yaml_set.c and yaml_write.c share among themselves.
 */
#ifndef CONFIG_YAML_NODE_H
#define CONFIG_YAML_NODE_H

#include "config/yaml.h"

/* The link to the child that a path segment of n bytes names: to NULL when it would be the next one; NULL when there can
 * be none (no number of an element, or the parent is a scalar). */
struct node **node_link(struct node *parent, const char *segment, size_t n);

/* Any text to a tree of any kind, with all its nodes at `set` (or at lines, when that is NULL): 1 and *root, 0 for an
 * empty text, -1 with a problem. */
int yaml_parse_any(const char *text, size_t size, const char *set, struct problems *problems, struct node **root);

#endif
