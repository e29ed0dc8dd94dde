/*
 * config/train_difference.h: whether two training configurations train the same model.
 */
#ifndef CONFIG_TRAIN_DIFFERENCE_H
#define CONFIG_TRAIN_DIFFERENCE_H

#include <stdbool.h>
#include <stddef.h>

/* Compares two effective configurations (struct train_config, text), but for what has no part in the weights: output, index,
 * checkpoint, threads. True when they differ; then `what` says in which key, and how: "optimizer.lr is 0.1, and was 0.2". */
bool train_config_differs(const char *now, const char *then, char *what, size_t size);

#endif
