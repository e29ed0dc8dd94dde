/*
 * config/problems.h: the problems of one configuration, collected instead of stopping at the first.
 *
 * Each is one line, "file:line: key.path: what is wrong; how to fix it", or "--set key: ..." for a value from the
 * command line. Text taken from the configuration is shown cut and without control characters (problem_quote), so a
 * hostile file cannot write to a terminal. After PROBLEMS_SHOWN lines only their number is kept. Not thread-safe.
 */
#ifndef CONFIG_PROBLEMS_H
#define CONFIG_PROBLEMS_H

#include <stddef.h>

#include "core/buf.h"

enum { PROBLEMS_SHOWN = 100, QUOTE_MAX = 96 };

/* Where a problem's line in `out` begins, and the line of the file that it is about. */
struct problem {
    size_t begin;
    int line;
};

struct problems {
    const char *file; /* as the user wrote it; NULL: there is none; borrowed */
    struct buf *out;  /* borrowed; may fail when memory is short: `count` is right all the same */
    size_t count;
    struct problem shown[PROBLEMS_SHOWN];
};

/* Where something stands: `set` is the text of a --set ("key=value", borrowed) or NULL for line `line` of the file
 * (0: of the file as a whole). */
struct place {
    const char *set;
    int line;
};

/* Adds a problem of the key `path` ("" for none). */
void problem_add(struct problems *p, struct place at, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

void problem_nomem(struct problems *p);

/* Puts the problems into the order of the file's lines, those of --set behind them, and adds "... and N more problems" if
 * some were not shown. Call once, at the end. */
void problems_finish(struct problems *p);

struct quote {
    char text[QUOTE_MAX];
};

/* `text` in double quotes, cut to about 60 bytes, with control characters and broken UTF-8 replaced by '?'. */
struct quote problem_quote(const char *text);

#endif
