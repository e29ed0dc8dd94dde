/*
 * core/err.h: errors as values.
 *
 * Library code returns 0 or a pointer for success, -1 or NULL for failure, and describes the failure in the
 * caller's `struct err`: what failed, where (file, line, field) and what to do about it, in one line without a
 * newline. The first error wins: a later err_set on the same struct is ignored, so that clean-up code cannot hide
 * the cause. Only main() prints errors and exits. Not thread-safe: one `struct err` belongs to one thread at a time.
 */
#ifndef CORE_ERR_H
#define CORE_ERR_H

#include <stdbool.h>

enum { ERR_MESSAGE_MAX = 1024 };

struct err {
    char message[ERR_MESSAGE_MAX]; /* empty: no error; cut, never overflowed, when too long */
};

#define ERR_INIT \
    {            \
        {        \
            0    \
        }        \
    }

bool err_isset(const struct err *e);

/* Forgets the error, so that the struct can be used again. */
void err_clear(struct err *e);

/* Records an error (unless one is recorded) and returns -1, so that `return err_set(e, ...)` reads well.
 * `e` may be NULL: nothing is recorded. */
int err_set(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts context in front of a recorded error: "context: message". No effect without one. Returns -1. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* err_set for a failed allocation. Returns -1. */
int err_nomem(struct err *e);

#endif
