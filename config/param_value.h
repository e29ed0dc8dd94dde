/*
 * config/param_value.h: one value of one parameter: from a node of the tree into the struct, and back to text.
 * Internal to param.c and param_text.c.
 */
#ifndef CONFIG_PARAM_VALUE_H
#define CONFIG_PARAM_VALUE_H

#include "config/param.h"

/* Checks a node against its row and stores it in `target`; on a problem the member keeps its value. `path` is the key
 * as shown in problems. */
void param_value_read(const struct param *row, const struct node *node, const char *path, void *target,
                      struct problems *problems);

/* Stores the row's default, if it has one. */
void param_value_default(const struct param *row, void *target, struct problems *problems);

void param_value_release(const struct param *row, void *target);

/* Appends a number in the row's notation: "64KiB", "250ms", "0.1". */
void param_value_number(const struct param *row, double number, struct buf *out);

/* "1 to 100 epochs", or "one of: a, b", or nothing when everything goes. */
void param_value_range(const struct param *row, struct buf *out);

#endif
