/*
 * tests/unit/core/support.h: what the tests of core/ share: cmocka, a directory of their own, checks of error messages.
 */
#ifndef TESTS_UNIT_CORE_SUPPORT_H
#define TESTS_UNIT_CORE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/err.h"
#include "core/fileio.h"
#include "core/rng.h"

/* Lengths around every unrolling factor and register width. */
static const size_t odd_sizes[] = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 39, 40, 41, 63, 64, 65, 100, 127, 257};
enum { ODD_SIZES = sizeof odd_sizes / sizeof *odd_sizes };

static char support_dir[256];

__attribute__((unused)) static void support_clean(void)
{
    dir_remove_tree(support_dir, NULL);
}

/* A path below this program's own temporary directory; valid for the next seven calls. */
__attribute__((unused)) static char *scratch(const char *name)
{
    static char paths[8][1024];
    static unsigned next;
    if (support_dir[0] == '\0') {
        const char *base = getenv("TMPDIR");
        snprintf(support_dir, sizeof support_dir, "%.200s/recalld-core-XXXXXX", base == NULL ? "/tmp" : base);
        if (mkdtemp(support_dir) == NULL) {
            fail_msg("cannot make %s", support_dir);
        }
        atexit(support_clean);
    }
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", support_dir, name);
    return path;
}

/* The error is set, is one line, and contains the given words. */
__attribute__((unused)) static void check_error(const struct err *e, const char *words)
{
    if (!err_isset(e) || strstr(e->message, words) == NULL) {
        fail_msg("error \"%s\" does not contain \"%s\"", e->message, words);
    }
    assert_null(strchr(e->message, '\n'));
}

__attribute__((unused)) static void check_ok(const struct err *e, int result)
{
    if (result != 0 || err_isset(e)) {
        fail_msg("failed: %s", e->message);
    }
}

__attribute__((unused)) static void fill_random(struct rng *r, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = rng_normal(r);
    }
}

/* |a - b| within `relative` of `scale` */
__attribute__((unused)) static void check_near(double a, double b, double scale, double relative)
{
    double difference = a > b ? a - b : b - a;
    if (!(difference <= relative * (scale < 0 ? -scale : scale))) {
        fail_msg("%.9g is not near %.9g (difference %.3g, scale %.3g)", a, b, difference, scale);
    }
}

#endif
