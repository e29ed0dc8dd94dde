/* What the configuration tests share: files in a temporary directory, and problems compared as text. */
#ifndef TESTS_UNIT_CONFIG_SUPPORT_H
#define TESTS_UNIT_CONFIG_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/buf.h"
#include "core/err.h"
#include "core/fileio.h"
#include "core/mem.h"

/* The directory every test runs in; relative names keep messages the same everywhere. */
static char directory[] = "/tmp/recalld-config-XXXXXX";
static char start_directory[4096]; /* the repository */

static inline void write_file(const char *path, const void *bytes, size_t n)
{
    struct err e = ERR_INIT;
    unlink(path);
    if (file_write(path, bytes, n, &e) < 0) {
        fail_msg("%s", e.message);
    }
}

static inline void write_text_file(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

static inline int enter_directory(void **state)
{
    (void)state;
    if (getcwd(start_directory, sizeof start_directory) == NULL || mkdtemp(directory) == NULL) {
        return -1;
    }
    return chdir(directory);
}

static inline int leave_directory(void **state)
{
    (void)state;
    return chdir(start_directory) < 0 ? -1 : dir_remove_tree(directory, NULL);
}

/* New copy (free) of `text` with the only occurrence of `from` replaced. */
static inline char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    if (at == NULL || strstr(at + 1, from) != NULL) {
        fail_msg("not exactly once in the text: %s", from);
    }
    char *copy = NULL;
    int n = asprintf(&copy, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_true(n >= 0);
    return copy;
}

#endif
