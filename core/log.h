/*
 * core/log.h: one line per event on stderr.
 *
 * A line is written with a single write(2), so lines of several threads never mix. Thread-safe. Two forms: plain
 * text (recall-train, a person reads it) and "2026-11-24T13:30:09Z level text" (recalld, a journal reads it).
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Call before threads start. Lines above `level` are dropped. */
void log_setup(enum log_level level, bool timestamps);

/* Changes the level; at any time, from any thread. */
void log_set_level(enum log_level level);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
