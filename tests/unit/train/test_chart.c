/*
 * Charts: scales and ticks, and that every kind of data (none, one point, NaN, infinities, thousands) gives a whole SVG.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/rng.h"
#include "train/chart.h"

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p += strlen(what)) {
        n++;
    }
    return n;
}

static void expect_ticks(const struct chart_scale *s, size_t n, const double *ticks, int decimals)
{
    assert_int_equal(s->n, n);
    for (size_t i = 0; i < n; i++) {
        if (fabs(s->ticks[i] - ticks[i]) > 1e-9 * fabs(s->high - s->low)) {
            fail_msg("tick %zu is %.12g, not %.12g", i, s->ticks[i], ticks[i]);
        }
    }
    assert_int_equal(s->decimals, decimals);
}

static void test_scale_around(void **state)
{
    (void)state;
    struct chart_scale s;
    chart_scale_around(&s, 0, 0.93, 6, 0);
    expect_ticks(&s, 6, (double[]){0, 0.2, 0.4, 0.6, 0.8, 1}, 1);
    assert_true(s.low == 0 && fabs(s.high - 1) < 1e-12);
    chart_scale_around(&s, 5.28, 6.33, 5, 0);
    expect_ticks(&s, 7, (double[]){5.2, 5.4, 5.6, 5.8, 6.0, 6.2, 6.4}, 1);
    chart_scale_around(&s, -30, 1200, 5, 0);
    expect_ticks(&s, 8, (double[]){-200, 0, 200, 400, 600, 800, 1000, 1200}, 0);
}

static void test_scale_within(void **state)
{
    (void)state;
    struct chart_scale s;
    chart_scale_within(&s, 1, 15, 7, 1);
    expect_ticks(&s, 7, (double[]){2, 4, 6, 8, 10, 12, 14}, 0);
    assert_true(s.low == 1 && s.high == 15);
    chart_scale_within(&s, 1, 3, 7, 1); /* whole epochs only */
    expect_ticks(&s, 3, (double[]){1, 2, 3}, 0);
}

/* Whatever the ends: a scale that can be drawn. */
static void test_scale_of_anything(void **state)
{
    (void)state;
    static const double ends[] = {0,      1,       -1,   1e-300,   1e300, -1e300,   1e-9,
                                  1 / 3., 123456., 1e15, 1e15 + 1, NAN,   INFINITY, -INFINITY};
    enum { N = sizeof ends / sizeof *ends };
    for (size_t i = 0; i < N * N * 2; i++) {
        struct chart_scale s;
        double low = ends[i % N];
        double high = ends[i / N % N];
        if (i < N * N) {
            chart_scale_around(&s, low, high, 5, 0);
        } else {
            chart_scale_within(&s, low, high, 7, 1);
        }
        assert_true(isfinite(s.low) && isfinite(s.high) && s.low < s.high);
        assert_true(s.n <= CHART_MAX_TICKS && s.decimals >= 0 && s.decimals <= 12);
        for (size_t k = 0; k < s.n; k++) {
            double at = chart_position(&s, s.ticks[k], 10, 20);
            assert_true(at >= 10 && at <= 20);
            assert_true(k == 0 || s.ticks[k] > s.ticks[k - 1]);
        }
    }
}

static void test_position(void **state)
{
    (void)state;
    struct chart_scale s = {.low = 2, .high = 4};
    assert_true(chart_position(&s, 3, 0, 100) == 50);
    assert_true(chart_position(&s, 3, 100, 0) == 50);
    assert_true(chart_position(&s, 9, 0, 100) == 100); /* kept inside */
    struct chart_scale log_scale = {.low = 10, .high = 1000, .logarithmic = true};
    assert_true(fabs(chart_position(&log_scale, 100, 0, 100) - 50) < 1e-9);
}

static void expect_whole(const struct buf *b)
{
    assert_false(buf_failed(b));
    assert_int_equal(count(b->data, "<svg"), count(b->data, "</svg>"));
    assert_int_equal(count(b->data, "<g"), count(b->data, "</g>"));
    assert_int_equal(count(b->data, "<title>"), count(b->data, "</title>"));
    assert_null(strstr(b->data, "nan"));
    assert_null(strstr(b->data, "inf"));
}

static void draw_lines(struct buf *b, const double *x, const double *y, size_t n, bool logarithmic)
{
    struct chart_series series = {"<loss>", x, y, n, 3};
    buf_clear(b);
    chart_lines(b, &(struct chart_lines){.title = "a \"title\"",
                                         .x_label = "epoch",
                                         .series = &series,
                                         .n = 1,
                                         .decimals = 2,
                                         .logarithmic = logarithmic,
                                         .mark_x = n > 0 ? x[0] : NAN,
                                         .mark_label = "<mark>",
                                         .rule_y = NAN});
    expect_whole(b);
}

static void test_lines(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    double x[5000];
    double y[5000];
    for (size_t i = 0; i < 5000; i++) {
        x[i] = (double)(i + 1);
        y[i] = 1.0 / (double)(i + 1);
    }
    draw_lines(&b, x, y, 3, false);
    assert_int_equal(count(b.data, "class=\"dot k3\""), 3);
    assert_non_null(strstr(b.data, "&lt;loss&gt;, epoch 2: 0.50"));
    assert_non_null(strstr(b.data, "aria-label=\"a &quot;title&quot;\""));
    assert_non_null(strstr(b.data, "&lt;mark&gt;"));
    assert_null(strstr(b.data, "<loss>"));
    draw_lines(&b, x, y, 3, true);
    draw_lines(&b, x, y, 1, false);
    assert_int_equal(count(b.data, "class=\"dot k3\""), 1);
    draw_lines(&b, x, y, 1, true);
    draw_lines(&b, x, y, 0, true);
    assert_non_null(strstr(b.data, "nothing to draw"));
    draw_lines(&b, x, y, 5000, false); /* thinned out */
    assert_true(b.len < 100000);
    y[1] = NAN; /* the line breaks */
    draw_lines(&b, x, y, 3, false);
    assert_int_equal(count(b.data, "class=\"dot k3\""), 2);
    y[0] = INFINITY;
    y[2] = -INFINITY;
    draw_lines(&b, x, y, 3, false);
    assert_non_null(strstr(b.data, "nothing to draw"));
    buf_release(&b);
}

static void test_bars(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    struct chart_bar bars[] = {
        {"model & co", 0.25, 0.2, 0.3, 0}, {"worse", 0.125, NAN, NAN, 1}, {"none", NAN, NAN, NAN, 2}};
    chart_bars(&b, &(struct chart_bars){"bars", bars, 3, 4});
    expect_whole(&b);
    assert_non_null(strstr(b.data, "model &amp; co: 0.2500, 95 % interval 0.2000 to 0.3000"));
    assert_int_equal(count(b.data, "class=\"whisker\""), 1);
    assert_int_equal(count(b.data, "<rect"), 2);
    /* widths are in proportion: from 140 to 394, which is .3, the upper end of the interval */
    assert_non_null(strstr(b.data, "width=\"211.7\""));
    assert_non_null(strstr(b.data, "width=\"105.8\""));
    buf_clear(&b);
    bars[0].value = bars[1].value = 0;
    bars[0].low = bars[0].high = 0;
    chart_bars(&b, &(struct chart_bars){"zeros", bars, 2, 4});
    expect_whole(&b);
    buf_clear(&b);
    chart_bars(&b, &(struct chart_bars){"no bars", bars, 0, 4});
    assert_non_null(strstr(b.data, "nothing to draw"));
    buf_clear(&b);
    chart_dot(&b, NAN, (double[]){NAN, NAN}, NAN, NAN);
    chart_dot(&b, 0.5, (double[]){0.4, 0.7}, 1, 0.2);
    expect_whole(&b);
    assert_int_equal(count(b.data, "<circle"), 1);
    buf_release(&b);
}

static void test_histogram(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    double some[] = {0.25, 0.75};
    double other[] = {1, 0};
    double none[] = {0, NAN};
    struct chart_histogram h = {.title = "h",
                                .x_label = "score",
                                .low = -1,
                                .high = 1,
                                .bins = 2,
                                .shares = {some, other},
                                .names = {"a<b", "c"},
                                .means = {0.5, NAN}};
    chart_histogram(&b, &h);
    expect_whole(&b);
    assert_non_null(strstr(b.data, "a&lt;b 75.0 %, c 0.0 %"));
    assert_int_equal(count(b.data, "class=\"mean"), 1);
    h.shares[0] = h.shares[1] = none;
    buf_clear(&b);
    chart_histogram(&b, &h);
    assert_non_null(strstr(b.data, "nothing to draw"));
    h.shares[0] = some;
    h.high = h.low;
    buf_clear(&b);
    chart_histogram(&b, &h);
    assert_non_null(strstr(b.data, "nothing to draw"));
    h.bins = 0;
    buf_clear(&b);
    chart_histogram(&b, &h);
    assert_non_null(strstr(b.data, "nothing to draw"));
    buf_release(&b);
}

static void test_scatter(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    struct chart_point points[] = {{0, 0, 0, "one"}, {1, 1, 1, "<two>"}, {NAN, 0, 1, NULL}, {-1, 5, 2, NULL}};
    const char *groups[] = {"g0", "g1", "rest"};
    struct chart_scatter s = {.title = "s",
                              .x_label = "x",
                              .y_label = "y",
                              .points = points,
                              .n = 4,
                              .groups = groups,
                              .n_groups = 3,
                              .n_named = 2};
    chart_scatter(&b, &s);
    expect_whole(&b);
    assert_int_equal(count(b.data, "<circle"), 3);
    assert_non_null(strstr(b.data, "&lt;two&gt;"));
    assert_int_equal(count(b.data, "<li>"), 3);
    assert_non_null(strstr(b.data, "<g class=\"k7\">")); /* the rest is grey */
    buf_clear(&b);
    s.n = 1; /* all at one place */
    chart_scatter(&b, &s);
    expect_whole(&b);
    buf_clear(&b);
    s.n = 0;
    chart_scatter(&b, &s);
    assert_non_null(strstr(b.data, "nothing to draw"));
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale_around),
        cmocka_unit_test(test_scale_within),
        cmocka_unit_test(test_scale_of_anything),
        cmocka_unit_test(test_position),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_bars),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_scatter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
