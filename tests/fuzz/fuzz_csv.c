/*
 * libFuzzer entry for delimited text. The first byte chooses the delimiter and the chunk size, the rest is the file:
 * plain, gzip or zstd, as it happens. Whatever the chunks, rows and bad rows of a good file must be the same; lines never fall; every
 * field lies in readable memory; and each row has as many fields as there are columns.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/idmap.h"
#include "train/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

struct outcome {
    int end; /* what csv_next returned last; -1 also when the file did not open */
    uint64_t rows, bad, hash;
};

static struct outcome read_all(const char *path, struct csv_options o)
{
    struct outcome out = {.end = -1};
    struct err e = ERR_INIT;
    const struct span *f;
    uint64_t line = 0;
    struct csv *c = csv_open(path, &o, &e);
    while (c != NULL && (out.end = csv_next(c, &f, &e)) > 0) {
        check(csv_line(c) > line);
        line = csv_line(c);
        out.rows++;
        for (size_t i = 0; i < csv_columns(c); i++) {
            out.hash = out.hash * 31 + fnv1a(f[i].text, f[i].length) + line;
        }
    }
    check(err_isset(&e) == (out.end < 0));
    out.bad = c != NULL ? csv_bad_rows(c) : 0;
    csv_close(c);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const delimiters[] = {",", "::", "\t", "a"};
    static const char *const columns[] = {"x", "y", NULL};
    static int file = -1;
    static char path[64];
    if (size < 1) {
        return 0;
    }
    if (file < 0) {
        file = memfd_create("fuzz", 0);
        check(file >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    check(ftruncate(file, 0) == 0 && pwrite(file, data + 1, size - 1, 0) == (ssize_t)(size - 1));
    struct csv_options o = {.delimiter = delimiters[data[0] % 4],
                            .columns = data[0] & 4 ? columns : NULL,
                            .max_bad_rows = data[0] & 8 ? UINT64_MAX : 3,
                            .quiet = true};
    struct outcome whole = read_all(path, o);
    o.chunk = 1 + (data[0] >> 4);
    struct outcome pieces = read_all(path, o);
    check(whole.end == pieces.end);
    if (whole.end == 0) { /* damage in a compressed file is seen before or after the rows in front of it */
        check(whole.rows == pieces.rows && whole.bad == pieces.bad && whole.hash == pieces.hash);
    }
    return 0;
}
