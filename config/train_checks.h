/*
 * config/train_checks.h: what a training configuration must keep to beyond each value's own range. Internal to
 * train_config.c.
 */
#ifndef CONFIG_TRAIN_CHECKS_H
#define CONFIG_TRAIN_CHECKS_H

#include "config/problems.h"
#include "config/train_config.h"
#include "config/yaml.h"

/* Adds the problems of `config` that concern more than one value, or the file system; `root` is its tree. Members that
 * could not be read have their defaults. */
void train_checks_run(const struct train_config *config, const struct node *root, struct problems *problems);

#endif
