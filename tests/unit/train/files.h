/*
 * Files for tests: a directory of the process's own, removed when it exits. Include behind <cmocka.h>.
 */
#ifndef TESTS_UNIT_TRAIN_FILES_H
#define TESTS_UNIT_TRAIN_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fileio.h"

static char files_dir[64];

static inline void files_remove(void)
{
    dir_remove_tree(files_dir, NULL);
}

/* The path of a file in the directory; valid until the fourth next call. */
static inline const char *files_path(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    if (files_dir[0] == '\0') {
        strcpy(files_dir, "/tmp/recalld-test-XXXXXX");
        assert_non_null(mkdtemp(files_dir));
        atexit(files_remove);
    }
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", files_dir, name);
    return path;
}

static inline const char *files_write_bytes(const char *name, const void *bytes, size_t n)
{
    const char *path = files_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline const char *files_write(const char *name, const char *text)
{
    return files_write_bytes(name, text, strlen(text));
}

#endif
