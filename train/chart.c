/*
 * Every chart is one <svg> with a view box, so that it scales with its column; text is set in the units of the box, and
 * columns are never much narrower or wider than CHART_WIDTH, so text stays readable. Coordinates have one decimal: finer
 * cannot be seen, and a page of thousands of points must stay small.
 *
 * The interesting places are larger than what is drawn: a point has a transparent disc around it that takes the pointer.
 */
#include "train/chart.h"

#include <math.h>
#include <string.h>

#include "train/html.h"

enum {
    MAX_DRAWN = 400,
    NAME_MAX_SHOWN = 22,
    NAME_MAX_HOVERED = 40,
    FIRST_GREY = 7,
    LEFT = 46,
    RIGHT = 14,
    TOP = 14,
    BOTTOM = 42
};

/* --- scales -----------------------------------------------------------------------------------------------------------*/

static double nice_step(double raw)
{
    double power = pow(10, floor(log10(raw)));
    double digit = raw / power;
    return (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10) * power;
}

/* Ends that can be computed with, low < high. */
static void repair_ends(double *low, double *high)
{
    static const double limit = 1e100;
    if (isnan(*low) || isnan(*high)) {
        *low = 0;
        *high = 1;
    }
    *low = fmax(-limit, fmin(limit, *low));
    *high = fmax(-limit, fmin(limit, *high));
    if (*low > *high) {
        double swap = *low;
        *low = *high;
        *high = swap;
    }
    if (*high - *low <= 1e-9 * fmax(fabs(*low), fabs(*high))) {
        double pad = *low == 0 ? 0.5 : fabs(*low) * 0.05;
        *low -= pad;
        *high += pad;
    }
}

static void set_ticks(struct chart_scale *s, double step)
{
    double first = ceil(s->low / step - 1e-6);
    double last = floor(s->high / step + 1e-6);
    s->n = 0;
    while (s->n < CHART_MAX_TICKS && first + (double)s->n <= last) {
        s->ticks[s->n] = (first + (double)s->n) * step;
        s->n++;
    }
    double digits = ceil(-log10(step) - 1e-6);
    s->decimals = digits > 0 ? digits > 12 ? 12 : (int)digits : 0;
}

static double step_of(double *low, double *high, size_t wanted, double least_step)
{
    repair_ends(low, high);
    return fmax(nice_step((*high - *low) / (double)(wanted > 1 ? wanted - 1 : 1)), least_step);
}

void chart_scale_around(struct chart_scale *s, double low, double high, size_t wanted, double least_step)
{
    double step = step_of(&low, &high, wanted, least_step);
    *s = (struct chart_scale){.low = floor(low / step + 1e-6) * step, .high = ceil(high / step - 1e-6) * step};
    set_ticks(s, step);
}

void chart_scale_within(struct chart_scale *s, double low, double high, size_t wanted, double least_step)
{
    double step = step_of(&low, &high, wanted, least_step);
    *s = (struct chart_scale){.low = low, .high = high};
    set_ticks(s, step);
}

/* Ticks at the values of a series themselves, every second one where they are many. */
static void scale_logarithmic(struct chart_scale *s, double low, double high, const struct chart_series *series)
{
    size_t every = (series->n + 7) / 8;
    *s = (struct chart_scale){.low = low, .high = high, .logarithmic = true};
    for (size_t i = 0; i < series->n && s->n < CHART_MAX_TICKS; i += every) {
        if (series->x[i] >= low && series->x[i] <= high) {
            s->ticks[s->n++] = series->x[i];
        }
    }
    if (!(s->high > s->low)) { /* one point, in the middle */
        s->low /= 2;
        s->high *= 2;
    }
}

double chart_position(const struct chart_scale *s, double x, double from, double to)
{
    double share = s->logarithmic ? log(x / s->low) / log(s->high / s->low) : (x - s->low) / (s->high - s->low);
    return from + (to - from) * fmax(0, fmin(1, share));
}

/* --- parts ------------------------------------------------------------------------------------------------------------*/

static void put(struct buf *out, const char *text, size_t max)
{
    html_label(out, text, strlen(text), max);
}

static void open_svg(struct buf *out, const char *title, double height)
{
    buf_printf(out, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"", CHART_WIDTH, height);
    put(out, title, 200);
    buf_puts(out, "\">\n");
}

static void put_text(struct buf *out, const char *class, double x, double y, const char *text, size_t max)
{
    buf_printf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
    put(out, text, max);
    buf_puts(out, "</text>");
}

static void put_number(struct buf *out, const char *class, double x, double y, double value, int decimals)
{
    buf_printf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
    html_number(out, value, decimals);
    buf_puts(out, "</text>");
}

static void put_nothing(struct buf *out, const char *title)
{
    open_svg(out, title, 60);
    put_text(out, "l mid", CHART_WIDTH / 2.0, 34, "nothing to draw", 40);
    buf_puts(out, "</svg>\n");
}

struct plot {
    struct chart_scale x, y;
    double left, top, right, bottom; /* of the plotting area */
};

static double plot_x(const struct plot *p, double x)
{
    return chart_position(&p->x, x, p->left, p->right);
}

static double plot_y(const struct plot *p, double y)
{
    return chart_position(&p->y, y, p->bottom, p->top);
}

static void put_x_axis(struct buf *out, const struct plot *p, const char *label)
{
    for (size_t i = 0; i < p->x.n; i++) {
        put_number(out, "t mid", plot_x(p, p->x.ticks[i]), p->bottom + 16, p->x.ticks[i], p->x.decimals);
    }
    buf_printf(out, "<path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>", p->left, p->bottom, p->right);
    put_text(out, "l mid", (p->left + p->right) / 2, p->bottom + 34, label, 60);
    buf_puts(out, "\n");
}

static void put_y_axis(struct buf *out, const struct plot *p)
{
    for (size_t i = 0; i < p->y.n; i++) {
        double y = plot_y(p, p->y.ticks[i]);
        buf_printf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", p->left, y, p->right);
        put_number(out, "t end", p->left - 7, y + 4, p->y.ticks[i], p->y.decimals);
    }
    buf_puts(out, "\n");
}

static void open_legend(struct buf *out)
{
    buf_puts(out, "<ul class=\"legend\">");
}

static void put_legend(struct buf *out, char kind, unsigned colour, const char *name)
{
    buf_printf(out, "<li><i class=\"%c%u\"></i>", kind, colour % CHART_COLOURS);
    put(out, name, 40);
    buf_puts(out, "</li>");
}

static void close_legend(struct buf *out)
{
    buf_puts(out, "</ul>\n");
}

/* --- lines ------------------------------------------------------------------------------------------------------------*/

static bool drawable(const struct chart_series *s, size_t i, bool logarithmic)
{
    return isfinite(s->x[i]) && isfinite(s->y[i]) && (!logarithmic || s->x[i] > 0);
}

/* The drawn range of both axes; false when there is no point at all. */
static bool lines_range(const struct chart_lines *c, double x[2], double y[2])
{
    bool any = false;
    for (size_t k = 0; k < c->n; k++) {
        const struct chart_series *s = &c->series[k];
        for (size_t i = 0; i < s->n; i++) {
            if (!drawable(s, i, c->logarithmic)) {
                continue;
            }
            x[0] = any ? fmin(x[0], s->x[i]) : s->x[i];
            x[1] = any ? fmax(x[1], s->x[i]) : s->x[i];
            y[0] = any ? fmin(y[0], s->y[i]) : s->y[i];
            y[1] = any ? fmax(y[1], s->y[i]) : s->y[i];
            any = true;
        }
    }
    return any;
}

static void put_series(struct buf *out, const struct plot *p, const struct chart_lines *c, const struct chart_series *s)
{
    size_t every = s->n / MAX_DRAWN + 1;
    bool down = false;
    buf_printf(out, "<path class=\"line k%u\" d=\"", s->colour % CHART_COLOURS);
    for (size_t i = 0; i < s->n; i++) {
        if (i % every != 0 && i + 1 != s->n) {
            continue;
        }
        bool here = drawable(s, i, c->logarithmic);
        if (here) {
            buf_printf(out, "%c%.1f %.1f", down ? 'L' : 'M', plot_x(p, s->x[i]), plot_y(p, s->y[i]));
        }
        down = here;
    }
    buf_puts(out, "\"/>\n");
    for (size_t i = 0; i < s->n; i++) {
        if ((i % every != 0 && i + 1 != s->n) || !drawable(s, i, c->logarithmic)) {
            continue;
        }
        double x = plot_x(p, s->x[i]);
        double y = plot_y(p, s->y[i]);
        buf_puts(out, "<g class=\"at\">");
        if (s->n <= 40) {
            buf_printf(out, "<circle class=\"dot k%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", s->colour % CHART_COLOURS, x,
                       y);
        }
        buf_printf(out, "<circle class=\"hit\" cx=\"%.1f\" cy=\"%.1f\" r=\"9\"/><title>", x, y);
        put(out, s->name, 40);
        buf_puts(out, ", ");
        put(out, c->x_label, 40);
        buf_puts(out, " ");
        html_number(out, s->x[i], s->x[i] == floor(s->x[i]) ? 0 : 3);
        buf_puts(out, ": ");
        html_number(out, s->y[i], c->decimals);
        buf_puts(out, "</title></g>\n");
    }
}

static void put_marks(struct buf *out, const struct plot *p, const struct chart_lines *c)
{
    if (isfinite(c->mark_x) && c->mark_x >= p->x.low && c->mark_x <= p->x.high) {
        double x = plot_x(p, c->mark_x);
        bool left_of = x > (p->left + p->right) / 2;
        buf_printf(out, "<path class=\"mark\" d=\"M%.1f %.1fV%.1f\"/>", x, p->top, p->bottom);
        put_text(out, left_of ? "v end" : "v", x + (left_of ? -6 : 6), p->bottom - 8, c->mark_label, 40);
    }
    if (isfinite(c->rule_y) && c->rule_y >= p->y.low && c->rule_y <= p->y.high) {
        double y = plot_y(p, c->rule_y);
        buf_printf(out, "<path class=\"mark\" d=\"M%.1f %.1fH%.1f\"/>", p->left, y, p->right);
        put_text(out, "v end", p->right, y - 6, c->rule_label, 40);
    }
    buf_puts(out, "\n");
}

void chart_lines(struct buf *out, const struct chart_lines *c)
{
    double x[2] = {0, 1};
    double y[2] = {0, 1};
    struct plot p = {.left = LEFT, .top = TOP, .right = CHART_WIDTH - RIGHT, .bottom = 250 - BOTTOM};
    if (!lines_range(c, x, y)) {
        put_nothing(out, c->title);
        return;
    }
    if (isfinite(c->rule_y)) {
        y[0] = fmin(y[0], c->rule_y);
        y[1] = fmax(y[1], c->rule_y);
    }
    chart_scale_around(&p.y, c->from_zero ? fmin(0, y[0]) : y[0], y[1], 5, 0);
    if (c->logarithmic) {
        scale_logarithmic(&p.x, x[0], x[1], &c->series[0]);
    } else {
        chart_scale_within(&p.x, x[0], x[1], 7, 1);
    }
    if (c->n > 1) {
        open_legend(out);
        for (size_t k = 0; k < c->n; k++) {
            put_legend(out, 'k', c->series[k].colour, c->series[k].name);
        }
        close_legend(out);
    }
    open_svg(out, c->title, 250);
    put_y_axis(out, &p);
    put_x_axis(out, &p, c->x_label);
    put_marks(out, &p, c);
    for (size_t k = c->n; k-- > 0;) { /* the first on top */
        put_series(out, &p, c, &c->series[k]);
    }
    buf_puts(out, "</svg>\n");
}

/* --- bars -------------------------------------------------------------------------------------------------------------*/

enum { BAR_STEP = 30, BAR_HEIGHT = 16, BAR_LEFT = 140, BAR_VALUE = 66 };

static void put_bar(struct buf *out, const struct chart_scale *s, const struct chart_bar *b, double y, int decimals)
{
    double right = CHART_WIDTH - BAR_VALUE;
    bool interval = isfinite(b->low) && isfinite(b->high);
    double end = chart_position(s, b->value, BAR_LEFT, right);
    buf_puts(out, "<g class=\"at\"><title>");
    put(out, b->name, 60);
    buf_puts(out, ": ");
    html_number(out, b->value, decimals);
    if (interval) {
        buf_puts(out, ", 95 % interval ");
        html_number(out, b->low, decimals);
        buf_puts(out, " to ");
        html_number(out, b->high, decimals);
    }
    buf_puts(out, "</title>");
    put_text(out, b->colour == 0 ? "v end" : "l end", BAR_LEFT - 8, y + 12, b->name, NAME_MAX_SHOWN);
    if (isfinite(b->value)) {
        buf_printf(out, "<rect class=\"bar k%u\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>",
                   b->colour % CHART_COLOURS, BAR_LEFT, y, fmax(end - BAR_LEFT, 1), BAR_HEIGHT);
    }
    if (interval) {
        double from = chart_position(s, b->low, BAR_LEFT, right);
        double to = chart_position(s, b->high, BAR_LEFT, right);
        double middle = y + BAR_HEIGHT / 2.0;
        buf_printf(out, "<path class=\"whisker\" d=\"M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8\"/>", from, middle, to,
                   from, middle - 4, to, middle - 4);
        end = fmax(end, to);
    }
    put_number(out, b->colour == 0 ? "v" : "l", end + 8, y + 12, b->value, decimals);
    buf_puts(out, "</g>\n");
}

void chart_bars(struct buf *out, const struct chart_bars *c)
{
    double top = 0;
    for (size_t i = 0; i < c->n; i++) {
        top = isfinite(c->bars[i].value) ? fmax(top, c->bars[i].value) : top;
        top = isfinite(c->bars[i].high) ? fmax(top, c->bars[i].high) : top;
    }
    if (c->n == 0) {
        put_nothing(out, c->title);
        return;
    }
    struct chart_scale s = {.low = 0, .high = top > 0 ? top : 1};
    open_svg(out, c->title, (double)c->n * BAR_STEP + 4);
    for (size_t i = 0; i < c->n; i++) {
        put_bar(out, &s, &c->bars[i], (double)i * BAR_STEP + 6, c->decimals);
    }
    buf_printf(out, "<path class=\"axis\" d=\"M%d 0V%.0f\"/></svg>\n", BAR_LEFT, (double)c->n * BAR_STEP + 4);
}

enum { DOT_WIDTH = 150, DOT_HEIGHT = 16 };

void chart_dot(struct buf *out, double value, const double interval[2], double high, double reference)
{
    struct chart_scale s = {.low = 0, .high = high > 0 && isfinite(high) ? high : 1};
    double left = 4;
    double right = DOT_WIDTH - 4;
    buf_printf(
        out, "<svg class=\"row\" viewBox=\"0 0 %d %d\" aria-hidden=\"true\"><path class=\"grid\" d=\"M%.1f 8H%.1f\"/>",
        DOT_WIDTH, DOT_HEIGHT, left, right);
    if (isfinite(reference)) {
        buf_printf(out, "<path class=\"mark\" d=\"M%.1f 0V16\"/>", chart_position(&s, reference, left, right));
    }
    if (isfinite(interval[0]) && isfinite(interval[1])) {
        buf_printf(out, "<path class=\"span k0\" d=\"M%.1f 8H%.1f\"/>", chart_position(&s, interval[0], left, right),
                   chart_position(&s, interval[1], left, right));
    }
    if (isfinite(value)) {
        buf_printf(out, "<circle class=\"dot k0\" cx=\"%.1f\" cy=\"8\" r=\"4\"/>",
                   chart_position(&s, value, left, right));
    }
    buf_puts(out, "</svg>");
}

/* --- histogram --------------------------------------------------------------------------------------------------------*/

static void put_steps(struct buf *out, const struct plot *p, const struct chart_histogram *c, size_t g)
{
    double width = (c->high - c->low) / (double)c->bins;
    buf_printf(out, "<path class=\"area k%zu\" d=\"M%.1f %.1f", g, p->left, p->bottom);
    for (size_t i = 0; i < c->bins; i++) {
        double share = isfinite(c->shares[g][i]) ? c->shares[g][i] : 0;
        buf_printf(out, "V%.1fH%.1f", plot_y(p, share), plot_x(p, c->low + width * (double)(i + 1)));
    }
    buf_printf(out, "V%.1fZ\"/>\n", p->bottom);
}

/* One column a bin that takes the pointer. */
static void put_bins(struct buf *out, const struct plot *p, const struct chart_histogram *c)
{
    double width = (c->high - c->low) / (double)c->bins;
    for (size_t i = 0; i < c->bins; i++) {
        double from = plot_x(p, c->low + width * (double)i);
        double to = plot_x(p, c->low + width * (double)(i + 1));
        buf_printf(out,
                   "<g class=\"at\"><rect class=\"hit\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/><title>",
                   from, p->top, to - from, p->bottom - p->top);
        html_number(out, c->low + width * (double)i, p->x.decimals + 1);
        buf_puts(out, " to ");
        html_number(out, c->low + width * (double)(i + 1), p->x.decimals + 1);
        for (size_t g = 0; g < 2; g++) {
            buf_puts(out, g == 0 ? ": " : ", ");
            put(out, c->names[g], 40);
            buf_puts(out, " ");
            html_number(out, 100 * c->shares[g][i], 1);
            buf_puts(out, " %");
        }
        buf_puts(out, "</title></g>\n");
    }
}

void chart_histogram(struct buf *out, const struct chart_histogram *c)
{
    double most = 0;
    for (size_t i = 0; i < c->bins; i++) {
        most = fmax(most, fmax(c->shares[0][i], c->shares[1][i])); /* fmax passes over a NaN */
    }
    if (c->bins == 0 || !(most > 0) || !(c->high > c->low)) {
        put_nothing(out, c->title);
        return;
    }
    struct plot p = {.left = 10, .top = TOP + 6, .right = CHART_WIDTH - 10, .bottom = 250 - BOTTOM};
    p.y = (struct chart_scale){.low = 0, .high = most};
    chart_scale_within(&p.x, c->low, c->high, 7, 0);
    open_legend(out);
    put_legend(out, 'k', 0, c->names[0]);
    put_legend(out, 'k', 1, c->names[1]);
    close_legend(out);
    open_svg(out, c->title, 250);
    put_x_axis(out, &p, c->x_label);
    put_steps(out, &p, c, 1);
    put_steps(out, &p, c, 0);
    for (unsigned g = 0; g < 2; g++) {
        if (isfinite(c->means[g])) {
            double x = plot_x(&p, c->means[g]);
            buf_printf(out, "<path class=\"mean k%u\" d=\"M%.1f %.1fV%.1f\"/>", g, x, p.top - 2, p.bottom);
            put_number(out, "t mid", x, p.top - 7, c->means[g], p.x.decimals + 1);
        }
    }
    put_bins(out, &p, c);
    buf_puts(out, "</svg>\n");
}

/* --- scatter ----------------------------------------------------------------------------------------------------------*/

/* The square that holds all points; false without any. */
static bool scatter_range(const struct chart_scatter *c, struct plot *p)
{
    double low[2] = {INFINITY, INFINITY};
    double high[2] = {-INFINITY, -INFINITY};
    for (size_t i = 0; i < c->n; i++) {
        const struct chart_point *q = &c->points[i];
        if (isfinite(q->x) && isfinite(q->y)) {
            low[0] = fmin(low[0], q->x);
            low[1] = fmin(low[1], q->y);
            high[0] = fmax(high[0], q->x);
            high[1] = fmax(high[1], q->y);
        }
    }
    if (!(low[0] <= high[0])) {
        return false;
    }
    chart_scale_within(&p->x, low[0], high[0], 5, 0);
    chart_scale_within(&p->y, low[1], high[1], 5, 0);
    return true;
}

static unsigned group_colour(const struct chart_scatter *c, size_t group)
{
    return (unsigned)(group < c->n_named || c->ordered ? group : FIRST_GREY + (group - c->n_named) % 3);
}

static void put_points(struct buf *out, const struct plot *p, const struct chart_scatter *c, size_t group)
{
    buf_printf(out, "<g class=\"%c%u\">", c->ordered ? 'r' : 'k', group_colour(c, group) % CHART_COLOURS);
    for (size_t i = 0; i < c->n; i++) {
        const struct chart_point *q = &c->points[i];
        if (q->group != group || !isfinite(q->x) || !isfinite(q->y)) {
            continue;
        }
        buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"", plot_x(p, q->x), plot_y(p, q->y));
        if (q->name == NULL) {
            buf_puts(out, "/>");
        } else {
            buf_puts(out, "><title>");
            put(out, q->name, NAME_MAX_HOVERED);
            buf_puts(out, "</title></circle>");
        }
    }
    buf_puts(out, "</g>\n");
}

void chart_scatter(struct buf *out, const struct chart_scatter *c)
{
    struct plot p = {.left = 22, .top = 8, .right = CHART_WIDTH - 8, .bottom = 408};
    if (!scatter_range(c, &p)) {
        put_nothing(out, c->title);
        return;
    }
    open_legend(out);
    for (size_t g = 0; g < c->n_groups; g++) {
        put_legend(out, c->ordered ? 'r' : 'k', group_colour(c, g), c->groups[g]);
    }
    close_legend(out);
    open_svg(out, c->title, 432);
    buf_printf(out, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"4\"/>", p.left - 8,
               p.top - 7, p.right - p.left + 15, p.bottom - p.top + 14);
    put_text(out, "l mid", (p.left + p.right) / 2, 429, c->x_label, 60);
    buf_puts(out, "<g transform=\"rotate(-90)\">");
    put_text(out, "l mid", -(p.top + p.bottom) / 2, 10, c->y_label, 60);
    buf_puts(out, "</g><g class=\"cloud\">\n");
    for (size_t g = 0; g < c->n_groups; g++) { /* in the legend's order: the style sheet pairs them by place */
        put_points(out, &p, c, g);
    }
    buf_puts(out, "</g></svg>\n");
}
