/*
 * config/feature_config.h: the list of features of one tower, from YAML to checked structs. Internal to train_config.c
 * and train_checks.c; what a feature is says core/schema.h.
 */
#ifndef CONFIG_FEATURE_CONFIG_H
#define CONFIG_FEATURE_CONFIG_H

#include "config/train_config.h"
#include "config/yaml.h"

/* Reads a tower's `features` node (may be NULL: absent, which the table of the caller reports) into `tower`. `prefix`
 * is its key, e.g. "user_tower.features". Each feature is checked on its own here: keys that do not apply to its type,
 * keys its type needs, its name. */
void feature_configs_read(const struct node *list, const char *prefix, struct tower_config *tower,
                          struct problems *problems);
void feature_configs_release(struct tower_config *tower);

void feature_configs_describe(struct buf *out, bool markdown);

#endif
