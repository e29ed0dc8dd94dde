/*
 * train/chart.h: charts as inline SVG, drawn without a script or a font of their own.
 *
 * A chart is CHART_WIDTH units wide and scales with its box. Colours, fonts and strokes are the page's (report_style.c), by class:
 * k0 .. k9 are the colours of series and groups, so that light and dark are decided in one place. Values are said by
 * <title> elements, which browsers show under the pointer and screen readers read. Names are escaped here. Values that
 * are not finite are left out; a chart without any says so. Same input, same bytes.
 */
#ifndef TRAIN_CHART_H
#define TRAIN_CHART_H

#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"

enum { CHART_WIDTH = 460, CHART_MAX_TICKS = 16, CHART_COLOURS = 10 };

/* An axis: what it spans and where its ticks are. */
struct chart_scale {
    double low, high;
    bool logarithmic;
    size_t n;
    double ticks[CHART_MAX_TICKS];
    int decimals; /* that tell the ticks apart */
};

/* About `wanted` round ticks (1, 2 or 5 times a power of ten, at least `least_step` apart) around [low, high]; the scale
 * begins and ends at a tick (Heckbert, Nice Numbers for Graph Labels, Graphics Gems, 1990). Equal or unordered ends, NaN
 * and infinities give some scale, never an empty one. */
void chart_scale_around(struct chart_scale *s, double low, double high, size_t wanted, double least_step);

/* The same ticks, those inside [low, high] only, and the scale is exactly that. */
void chart_scale_within(struct chart_scale *s, double low, double high, size_t wanted, double least_step);

/* Where x is on a line of that scale between `from` and `to`. */
double chart_position(const struct chart_scale *s, double x, double from, double to);

struct chart_series {
    const char *name; /* borrowed */
    const double *x, *y;
    size_t n;
    unsigned colour;
};

struct chart_lines {
    const char *title; /* for those who cannot see it */
    const char *x_label, *y_label;
    const struct chart_series *series; /* x ascending */
    size_t n;
    int decimals;           /* of values */
    bool logarithmic;       /* x, with its values as ticks */
    bool from_zero;         /* y begins at 0 */
    double mark_x;          /* a vertical line with a name; NaN: none */
    const char *mark_label; /* what is there */
    double rule_y;          /* a horizontal one */
    const char *rule_label;
};
void chart_lines(struct buf *out, const struct chart_lines *c);

struct chart_bar {
    const char *name;
    double value, low, high; /* low and high NaN: no interval */
    unsigned colour;
};

/* Horizontal bars from 0, their values beside them. */
struct chart_bars {
    const char *title;
    const struct chart_bar *bars;
    size_t n;
    int decimals;
};
void chart_bars(struct buf *out, const struct chart_bars *c);

/* Shares of two groups in the same bins, one over the other. */
struct chart_histogram {
    const char *title, *x_label;
    double low, high;
    size_t bins;
    const double *shares[2]; /* [bins] each */
    const char *names[2];
    double means[2]; /* NaN: not drawn */
};
void chart_histogram(struct buf *out, const struct chart_histogram *c);

/* One row of a forest plot, small enough for a table's cell: a dot with its interval on a line from 0 to `high`, and a
 * thin mark at `reference` (NaN: none). What is not finite is left out. */
void chart_dot(struct buf *out, double value, const double interval[2], double high, double reference);

struct chart_point {
    double x, y;
    unsigned group;
    const char *name; /* borrowed; may be NULL */
};

struct chart_scatter {
    const char *title, *x_label, *y_label;
    const struct chart_point *points;
    size_t n;
    const char *const *groups; /* [n_groups] names; colour i, or with `ordered` a ramp */
    size_t n_groups, n_named;  /* groups from n_named on are grey: the rest */
    bool ordered;
};
void chart_scatter(struct buf *out, const struct chart_scatter *c);

#endif
