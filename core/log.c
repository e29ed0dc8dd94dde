#include "core/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int max_level = LOG_LEVEL_INFO;
static bool with_timestamps;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

void log_setup(enum log_level level, bool timestamps)
{
    log_set_level(level);
    with_timestamps = timestamps;
}

/* Writes the line's head; returns its length. */
static size_t put_head(char *line, size_t size, enum log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    int n = 0;
    if (with_timestamps) {
        struct tm utc;
        time_t now = time(NULL);
        gmtime_r(&now, &utc);
        size_t t = strftime(line, size, "%Y-%m-%dT%H:%M:%SZ ", &utc);
        n = snprintf(line + t, size - t, "%s ", names[level]) + (int)t;
    } else if (level != LOG_LEVEL_INFO) {
        n = snprintf(line, size, "%s: ", names[level]);
    }
    return n > 0 ? (size_t)n : 0;
}

void log_line(enum log_level level, const char *format, ...)
{
    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed)) {
        return;
    }
    char line[2048];
    size_t used = put_head(line, sizeof line, level);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    if (n > 0) {
        used += (size_t)n < sizeof line - used - 1 ? (size_t)n : sizeof line - used - 2;
    }
    for (size_t i = 0; i < used; i++) { /* hostile text must not forge a second line or steer a terminal */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = ' ';
        }
    }
    line[used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored; /* nowhere left to report it */
}
