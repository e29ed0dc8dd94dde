#include "train/report_sections.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/schema.h"
#include "train/chart.h"
#include "train/html.h"

/* What a page has room for; the JSON has the rest. */
enum {
    MAX_POINTS = 1500,
    MAX_EPOCHS = 10000, /* thinned out by the chart */
    MAX_METRICS = 80,
    MAX_MEMBERS = 10,
    MAX_CURVE = 64,
    MAX_BINS = 200,
    MAX_SLICES_OF_KIND = 12,
    MAX_SLICES = 200,
    MAX_CONFIG = 32 << 10,
};

/* --- parts ------------------------------------------------------------------------------------------------------------*/

static void begin_figure(struct buf *out, const char *title)
{
    buf_puts(out, "<figure><h3>");
    put_escaped(out, title);
    buf_puts(out, "</h3>\n");
}

static void end_figure(struct buf *out, const char *caption)
{
    buf_printf(out, "<figcaption>%s</figcaption></figure>\n", caption);
}

static void begin_table(struct buf *out, const char *class)
{
    buf_printf(out, "<div class=\"scroll\"><table class=\"%s\">\n", class);
}

static void end_table(struct buf *out)
{
    buf_puts(out, "</tbody></table></div>\n");
}

static void put_cell(struct buf *out, double value, int decimals, const char *class)
{
    buf_printf(out, "<td class=\"%s\">", class);
    html_number(out, value, decimals);
    buf_puts(out, "</td>");
}

static void put_row(struct buf *out, const char *name, double value, int decimals, const char *unit)
{
    if (isfinite(value)) {
        buf_printf(out, "<div><dt>%s</dt><dd>", name);
        html_number(out, value, decimals);
        buf_printf(out, "%s</dd></div>\n", unit);
    }
}

static void put_text_row(struct buf *out, const char *name, const char *text)
{
    if (text[0] != '\0') {
        buf_printf(out, "<div><dt>%s</dt><dd>", name);
        put_escaped(out, text);
        buf_puts(out, "</dd></div>\n");
    }
}

/* --- quality ----------------------------------------------------------------------------------------------------------*/

static void put_metric_bars(struct buf *out, const struct report_view *v, const char *metric, const char *title,
                            const char *caption)
{
    struct chart_bar bars[REPORT_MAX_CONTENDERS];
    char heading[96];
    bool any = false;
    for (size_t i = 0; i < v->n_contenders; i++) {
        double interval[2];
        contender_interval(v, &v->contenders[i], metric, interval);
        bars[i] = (struct chart_bar){.name = v->contenders[i].name,
                                     .value = contender_value(v, &v->contenders[i], metric),
                                     .low = interval[0],
                                     .high = interval[1],
                                     .colour = (unsigned)i};
        any |= isfinite(bars[i].value);
    }
    if (!any) {
        return;
    }
    if (strcmp(metric, "mrr") == 0) {
        snprintf(heading, sizeof heading, "%s", title);
    } else {
        snprintf(heading, sizeof heading, "%s@%u", title, v->k);
    }
    begin_figure(out, heading);
    chart_bars(out, &(struct chart_bars){heading, bars, v->n_contenders, 4});
    end_figure(out, caption);
}

static void put_recall_curve(struct buf *out, const struct report_view *v)
{
    double x[REPORT_MAX_CUTOFFS];
    double y[REPORT_MAX_CONTENDERS][REPORT_MAX_CUTOFFS];
    struct chart_series series[REPORT_MAX_CONTENDERS];
    for (size_t c = 0; c < v->n_contenders; c++) {
        for (size_t i = 0; i < v->n_cutoffs; i++) {
            char key[REPORT_METRIC];
            snprintf(key, sizeof key, "recall@%u", v->cutoffs[i]);
            x[i] = v->cutoffs[i];
            y[c][i] = json_number_at(v->contenders[c].metrics, key);
        }
        series[c] = (struct chart_series){v->contenders[c].name, x, y[c], v->n_cutoffs, (unsigned)c};
    }
    if (v->n_cutoffs < 2) {
        return;
    }
    begin_figure(out, "Recall by how many items are recalled");
    chart_lines(out, &(struct chart_lines){.title = "Recall by how many items are recalled",
                                           .x_label = "items recalled (k)",
                                           .series = series,
                                           .n = v->n_contenders,
                                           .decimals = 4,
                                           .logarithmic = true,
                                           .from_zero = true,
                                           .mark_x = NAN,
                                           .rule_y = NAN});
    end_figure(out, "How much of what users chose is among the first k: what a later ranking stage can still find.");
}

/* The best contender of one metric gets it in bold. */
static double best_of(const struct report_view *v, const char *key)
{
    double best = NAN;
    for (size_t i = 0; i < v->n_contenders; i++) {
        best = fmax(best, json_number_at(v->contenders[i].metrics, key));
    }
    return best;
}

static void put_header_row(struct buf *out, const struct report_view *v, const char *first)
{
    buf_printf(out, "<thead><tr><th scope=\"col\">%s</th>", first);
    for (size_t i = 0; i < v->n_contenders; i++) {
        buf_puts(out, "<th scope=\"col\" class=\"n\">");
        put_escaped(out, v->contenders[i].name);
        buf_puts(out, "</th>");
    }
}

static void put_metrics_table(struct buf *out, const struct report_view *v)
{
    const char *key;
    json_t *value;
    size_t rows = 0;
    begin_table(out, "metrics");
    put_header_row(out, v, "Metric");
    buf_puts(out, "</tr></thead><tbody>\n");
    json_object_foreach((json_t *)(uintptr_t)v->contenders[0].metrics, key, value)
    {
        if (!json_is_number(value) || strcmp(key, "users") == 0 || rows++ >= MAX_METRICS) {
            continue;
        }
        double best = best_of(v, key);
        buf_puts(out, "<tr><th scope=\"row\">");
        put_escaped(out, key);
        buf_puts(out, "</th>");
        for (size_t i = 0; i < v->n_contenders; i++) {
            double interval[2];
            double x = json_number_at(v->contenders[i].metrics, key);
            buf_puts(out, x == best && v->n_contenders > 1 ? "<td class=\"n\"><b>" : "<td class=\"n\">");
            html_number(out, x, 4);
            buf_puts(out, x == best && v->n_contenders > 1 ? "</b>" : "");
            if (json_interval_at(v->contenders[i].ci, key, interval)) {
                buf_puts(out, " <small>");
                html_number(out, interval[0], 4);
                buf_puts(out, " to ");
                html_number(out, interval[1], 4);
                buf_puts(out, "</small>");
            }
            buf_puts(out, "</td>");
        }
        buf_puts(out, "</tr>\n");
    }
    end_table(out);
}

static void put_quality(struct buf *out, const struct report_view *v)
{
    if (v->n_contenders == 0) {
        return;
    }
    buf_puts(out, "<div class=\"grid\">\n<div class=\"stack\">\n");
    put_metric_bars(out, v, "recall", "Recall", "Of the items a user went on to choose, the share that was recalled.");
    put_metric_bars(out, v, "ndcg", "NDCG", "The same, but hits near the top of the list count more.");
    buf_puts(out, "</div>\n");
    put_recall_curve(out, v);
    put_metric_bars(out, v, "hit_rate", "Hit rate", "Users with at least one hit.");
    put_metric_bars(out, v, "coverage", "Coverage", "Share of the catalogue that anybody is shown.");
    buf_puts(out, "</div>\n<details><summary>All metrics</summary>\n");
    put_metrics_table(out, v);
    buf_puts(out, "</details>\n");
}

/* --- popularity ---------------------------------------------------------------------------------------------------------*/

static void put_bias_row(struct buf *out, const char *name, const json_t *bias)
{
    buf_puts(out, "<tr><th scope=\"row\">");
    put_escaped(out, name);
    buf_puts(out, "</th>");
    put_cell(out, json_number_at(bias, "average_popularity"), 1, "n");
    put_cell(out, json_number_at(bias, "gini"), 3, "n");
    put_cell(out, 100 * json_number_at(bias, "coverage"), 1, "n");
    buf_puts(out, "</tr>\n");
}

static void put_popularity(struct buf *out, const struct report_view *v)
{
    const json_t *bias = json_object_get(v->json, "popularity_bias");
    if (json_object_size(bias) == 0 || v->n_contenders == 0) {
        return;
    }
    buf_printf(
        out,
        "<p class=\"about\">What the first %u items of all users look like together. Far above the last row, the "
        "model pushes what is popular anyway.</p>\n",
        v->k);
    begin_table(out, "spread");
    buf_puts(
        out,
        "<thead><tr><th scope=\"col\"></th><th scope=\"col\" class=\"n\">Average popularity <small>train events of "
        "a recommended item</small></th><th scope=\"col\" class=\"n\">Gini <small>0: all items alike, 1: one has it "
        "all</small></th><th scope=\"col\" class=\"n\">Coverage, %</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < v->n_contenders; i++) {
        if (v->contenders[i].bias != NULL) {
            put_bias_row(out, v->contenders[i].name, v->contenders[i].bias);
        }
    }
    if (json_object_get(bias, "test") != NULL) {
        put_bias_row(out, "What users chose", json_object_get(bias, "test"));
    }
    end_table(out);
}

/* --- slices -------------------------------------------------------------------------------------------------------------*/

static void put_slice_name(struct buf *out, const json_t *slice)
{
    const json_t *range = json_object_get(slice, "train_events");
    put_escaped(out, json_text_at(slice, "value"));
    if (json_array_size(range) == 2) {
        buf_puts(out, " <small>");
        html_number(out, json_number_value(json_array_get(range, 0)), 0);
        buf_puts(out, " to ");
        html_number(out, json_number_value(json_array_get(range, 1)), 0);
        buf_puts(out, " events</small>");
    }
}

static void put_slice_row(struct buf *out, const struct report_view *v, const json_t *slice, double high)
{
    char key[REPORT_METRIC];
    char ci[REPORT_METRIC + 4];
    double interval[2];
    snprintf(key, sizeof key, "recall@%u", v->k);
    snprintf(ci, sizeof ci, "%s_ci", key);
    double recall = json_number_at(slice, key);
    bool known = json_interval_at(slice, ci, interval);
    buf_puts(out, "<tr><th scope=\"row\">");
    put_slice_name(out, slice);
    buf_puts(out, "</th>");
    put_cell(out, json_number_at(slice, "users"), 0, "n");
    put_cell(out, json_number_at(slice, "events"), 0, "n");
    put_cell(out, recall, 4, "n");
    buf_puts(out, "<td title=\"");
    if (known) {
        buf_puts(out, "95 % interval ");
        html_number(out, interval[0], 4);
        buf_puts(out, " to ");
        html_number(out, interval[1], 4);
    }
    buf_puts(out, "\">");
    chart_dot(out, recall, interval, high, contender_value(v, &v->contenders[0], "recall"));
    buf_puts(out, "</td>");
    for (size_t i = 1; i < v->n_contenders; i++) {
        const json_t *values = json_object_get(json_object_get(slice, "baselines"), v->contenders[i].key);
        double other = json_number_at(values, key);
        put_cell(out, other, 4, other > recall ? "n better" : "n");
    }
    buf_puts(out, "</tr>\n");
}

static bool same_dimension(const json_t *a, const json_t *b)
{
    return strcmp(json_text_at(a, "side"), json_text_at(b, "side")) == 0 &&
           strcmp(json_text_at(a, "by"), json_text_at(b, "by")) == 0;
}

static void put_dimension_title(struct buf *out, const json_t *slice)
{
    static const struct {
        const char *by, *title;
    } titles[] = {{"new_users", "New and known users"},
                  {"new_items", "New and known items"},
                  {"popularity", "Items by popularity, the rarest first"}};
    const char *by = json_text_at(slice, "by");
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++) {
        if (strcmp(titles[i].by, by) == 0) {
            buf_puts(out, titles[i].title);
            return;
        }
    }
    buf_puts(out, strcmp(json_text_at(slice, "side"), "item") == 0 ? "Items by " : "Users by ");
    put_escaped(out, by);
}

/* The scale of all rows: the largest value or upper end. */
static double slices_high(const struct report_view *v, const json_t *slices)
{
    char key[REPORT_METRIC];
    char ci[REPORT_METRIC + 4];
    double high = contender_value(v, &v->contenders[0], "recall");
    size_t i;
    json_t *slice;
    snprintf(key, sizeof key, "recall@%u", v->k);
    snprintf(ci, sizeof ci, "%s_ci", key);
    json_array_foreach(slices, i, slice)
    {
        double interval[2];
        json_interval_at(slice, ci, interval);
        high = fmax(high, fmax(json_number_at(slice, key), interval[1]));
    }
    return fmin(high, 1);
}

/* Which of the rows first .. last - 1 are shown, in what order: of a feature's values those with the most users first, the
 * others as they come. */
static void order_slices(const json_t *slices, size_t first, size_t last, size_t order[MAX_SLICES_OF_KIND])
{
    const char *by = json_text_at(json_array_get(slices, first), "by");
    bool as_is = strcmp(by, "popularity") == 0 || strcmp(by, "new_users") == 0 || strcmp(by, "new_items") == 0;
    size_t n = 0;
    for (size_t i = first; i < last; i++) {
        double users = json_number_at(json_array_get(slices, i), "users");
        size_t at = n;
        while (!as_is && at > 0 && json_number_at(json_array_get(slices, order[at - 1]), "users") < users) {
            at--;
        }
        if (at == MAX_SLICES_OF_KIND) {
            continue;
        }
        n += n < MAX_SLICES_OF_KIND;
        memmove(order + at + 1, order + at, (n - 1 - at) * sizeof *order);
        order[at] = i;
    }
}

/* Rows first .. last - 1 are one dimension; returns how many are shown. */
static size_t put_dimension(struct buf *out, const struct report_view *v, const json_t *slices, size_t first,
                            size_t last, double high)
{
    size_t shown = last - first < MAX_SLICES_OF_KIND ? last - first : MAX_SLICES_OF_KIND;
    buf_printf(out, "<tbody><tr class=\"group\"><th colspan=\"%zu\" scope=\"rowgroup\">", 5 + v->n_contenders - 1);
    put_dimension_title(out, json_array_get(slices, first));
    buf_puts(out, "</th></tr>\n");
    size_t order[MAX_SLICES_OF_KIND];
    order_slices(slices, first, last, order);
    for (size_t i = 0; i < shown; i++) {
        put_slice_row(out, v, json_array_get(slices, order[i]), high);
    }
    if (last - first > shown) {
        buf_printf(out, "<tr><th colspan=\"%zu\"><small>and %zu more: see the JSON report</small></th></tr>\n",
                   5 + v->n_contenders - 1, last - first - shown);
    }
    buf_puts(out, "</tbody>");
    return shown;
}

static void put_slices_head(struct buf *out, const struct report_view *v, double high)
{
    static const char *const columns[] = {"Users", "Test events"};
    buf_puts(out, "<thead><tr><th scope=\"col\">Slice</th>");
    for (size_t i = 0; i < 2; i++) {
        buf_printf(out, "<th scope=\"col\" class=\"n\">%s</th>", columns[i]);
    }
    buf_printf(out, "<th scope=\"col\" class=\"n\">Recall@%u</th><th scope=\"col\" class=\"span\">from 0 to ", v->k);
    html_number(out, high, 2);
    buf_puts(out, "</th>");
    for (size_t i = 1; i < v->n_contenders; i++) {
        buf_puts(out, "<th scope=\"col\" class=\"n\">");
        put_escaped(out, v->contenders[i].name);
        buf_puts(out, "</th>");
    }
    buf_puts(out, "</tr></thead>\n");
}

static void put_slices(struct buf *out, const struct report_view *v)
{
    const json_t *slices = json_object_get(v->json, "slices");
    size_t n = json_array_size(slices);
    size_t rows = 0;
    if (n == 0 || v->n_contenders == 0) {
        return;
    }
    buf_printf(
        out,
        "<p class=\"about\">Recall@%u of parts of the test: dots with their 95 %% intervals, the dashed line is all "
        "users. A part of the items counts only the hits among them. Marked where a baseline is better.</p>\n",
        v->k);
    double high = slices_high(v, slices);
    begin_table(out, "slices");
    put_slices_head(out, v, high);
    for (size_t first = 0; first < n && rows < MAX_SLICES;) {
        size_t last = first + 1;
        while (last < n && same_dimension(json_array_get(slices, first), json_array_get(slices, last))) {
            last++;
        }
        rows += put_dimension(out, v, slices, first, last, high);
        first = last;
    }
    buf_puts(out, "</table></div>\n");
}

/* --- training -----------------------------------------------------------------------------------------------------------*/

/* One value an epoch as a line. */
static void put_epochs(struct buf *out, const json_t *values, const char *title, const char *name, double mark,
                       const char *mark_label, int decimals, const char *caption)
{
    size_t n = json_array_size(values);
    n = n < MAX_EPOCHS ? n : MAX_EPOCHS;
    double *x = mem_array(n, sizeof *x);
    double *y = mem_array(n, sizeof *y);
    for (size_t i = 0; x != NULL && y != NULL && i < n; i++) {
        const json_t *value = json_array_get(values, i);
        x[i] = (double)(i + 1);
        y[i] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    if (x == NULL || y == NULL) {
        out->failed = true;
    } else if (n > 0) {
        struct chart_series series = {name, x, y, n, 0};
        begin_figure(out, title);
        chart_lines(out, &(struct chart_lines){.title = title,
                                               .x_label = "epoch",
                                               .series = &series,
                                               .n = 1,
                                               .decimals = decimals,
                                               .mark_x = mark,
                                               .mark_label = mark_label,
                                               .rule_y = NAN});
        end_figure(out, caption);
    }
    mem_free(x);
    mem_free(y);
}

static void put_speed(struct buf *out, const json_t *train)
{
    double threads = json_number_at(train, "threads");
    if (!isfinite(json_number_at(train, "examples_per_second"))) {
        return;
    }
    buf_puts(out, "<p class=\"about\">");
    html_number(out, json_number_at(train, "epochs"), 0);
    buf_puts(out, " epochs in ");
    put_seconds(out, json_number_at(train, "seconds"));
    buf_puts(out, ", ");
    html_number(out, json_number_at(train, "examples_per_second"), 0);
    buf_puts(out, " examples a second");
    if (isfinite(threads)) {
        buf_puts(out, " on ");
        html_number(out, threads, 0);
        buf_puts(out, threads == 1 ? " thread" : " threads");
    }
    buf_puts(out, ".</p>\n");
}

static void put_training(struct buf *out, const struct report_view *v)
{
    const json_t *train = json_object_get(v->json, "train");
    const json_t *validation = json_object_get(train, "validation");
    char title[64];
    if (json_array_size(json_object_get(train, "loss")) == 0 && json_array_size(validation) == 0) {
        return;
    }
    put_speed(out, train);
    snprintf(title, sizeof title, "Validation %s", json_text_at(train, "validation_metric"));
    buf_puts(out, "<div class=\"grid\">\n");
    put_epochs(out, json_object_get(train, "loss"), "Training loss", "loss", NAN, "", 4,
               "Mean of each epoch. It should fall and flatten; a rise means a learning rate that is too high.");
    double best = json_number_at(train, "best_epoch");
    char label[64] = "";
    if (best >= 1 && best <= (double)json_array_size(validation)) {
        double value = json_number_value(json_array_get(validation, (size_t)best - 1));
        snprintf(label, sizeof label, "best: epoch %.0f, %.4f", best, value);
    }
    put_epochs(out, validation, title, json_text_at(train, "validation_metric"), best, label, 4,
               "On a part held out of train, which chose the number of epochs. The test part was not looked at.");
    buf_puts(out, "</div>\n");
}

/* --- scores -------------------------------------------------------------------------------------------------------------*/

static size_t read_shares(const json_t *group, double shares[MAX_BINS])
{
    const json_t *counts = json_object_get(group, "counts");
    size_t n = json_array_size(counts);
    double sum = 0;
    n = n < MAX_BINS ? n : MAX_BINS;
    for (size_t i = 0; i < n; i++) {
        shares[i] = json_number_value(json_array_get(counts, i));
        sum += shares[i];
    }
    for (size_t i = 0; i < n && sum > 0; i++) {
        shares[i] /= sum;
    }
    return n;
}

static void put_histogram(struct buf *out, const json_t *histogram)
{
    double shares[2][MAX_BINS] = {{0}};
    const json_t *positives = json_object_get(histogram, "positives");
    const json_t *random = json_object_get(histogram, "random");
    size_t bins = read_shares(positives, shares[0]);
    bool test = strcmp(json_text_at(histogram, "part"), "test") == 0;
    if (read_shares(random, shares[1]) != bins || bins == 0) {
        return;
    }
    begin_figure(out, "Scores of positives and of random items");
    chart_histogram(out, &(struct chart_histogram){
                             .title = "Scores of positives and of random items",
                             .x_label = "score",
                             .low = json_number_at(histogram, "low"),
                             .high = json_number_at(histogram, "high"),
                             .bins = bins,
                             .shares = {shares[0], shares[1]},
                             .names = {test ? "chosen in the test part" : "chosen (train part)", "random items"},
                             .means = {json_number_at(positives, "mean"), json_number_at(random, "mean")}});
    buf_puts(out, "<figcaption>");
    double auc = json_number_at(histogram, "auc");
    if (isfinite(auc)) {
        buf_puts(out, "An item that the user chose scores above a random one in ");
        put_percent(out, auc);
        buf_puts(out, " of cases. ");
    }
    buf_puts(out, "Lines: means. ");
    html_number(out, json_number_at(positives, "n"), 0);
    buf_puts(out, " positives of ");
    html_number(out, json_number_at(histogram, "users"), 0);
    buf_puts(out, " users, random items for the same users.</figcaption></figure>\n");
}

/* --- the map ------------------------------------------------------------------------------------------------------------*/

static void put_map_caption(struct buf *out, const json_t *projection, size_t n)
{
    const char *by = json_text_at(projection, "by");
    buf_puts(out, "<figcaption>");
    html_number(out, (double)n, 0);
    buf_puts(out, " of ");
    html_number(out, json_number_at(projection, "of"), 0);
    buf_puts(out, " items, their vectors on the two directions in which they vary most, coloured by ");
    if (strcmp(by, "popularity") == 0) {
        buf_puts(out, "popularity. Colours that lie together mean that popularity has shaped the vectors. ");
    } else {
        buf_puts(out, "<code>");
        put_escaped(out, by);
        buf_puts(out, "</code>. Colours that lie together mean that the model has learned the category. ");
    }
    buf_puts(out, "Near points are recalled for the same users. Point at the legend to single one out."
                  "</figcaption></figure>\n");
}

static void put_axis_name(char *text, size_t size, const json_t *explained, size_t axis)
{
    double share = json_number_value(json_array_get(explained, axis));
    snprintf(text, size, "%s direction: %.0f %% of the variance", axis == 0 ? "first" : "second", 100 * share);
}

static size_t read_points(const json_t *projection, size_t n_groups, struct chart_point *points, size_t limit)
{
    size_t n = 0;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(projection, "points"), i, row)
    {
        json_int_t group = json_integer_value(json_array_get(row, 2));
        if (n < limit && json_is_number(json_array_get(row, 0)) && json_is_number(json_array_get(row, 1)) &&
            group >= 0 && (size_t)group < n_groups) {
            points[n++] = (struct chart_point){.x = json_number_value(json_array_get(row, 0)),
                                               .y = json_number_value(json_array_get(row, 1)),
                                               .group = (unsigned)group,
                                               .name = json_string_value(json_array_get(row, 3))};
        }
    }
    return n;
}

static void put_map(struct buf *out, const json_t *projection)
{
    const char *groups[CHART_COLOURS];
    const json_t *names = json_object_get(projection, "groups");
    const json_t *explained = json_object_get(projection, "explained");
    char axes[2][64];
    size_t n_groups = json_array_size(names) < CHART_COLOURS ? json_array_size(names) : CHART_COLOURS;
    struct chart_point *points = mem_array(MAX_POINTS, sizeof *points);
    if (points == NULL) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < n_groups; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        groups[i] = name == NULL ? "" : name;
    }
    double named = json_number_at(projection, "named");
    size_t n = read_points(projection, n_groups, points, MAX_POINTS);
    if (n > 0) {
        put_axis_name(axes[0], sizeof axes[0], explained, 0);
        put_axis_name(axes[1], sizeof axes[1], explained, 1);
        begin_figure(out, "Item vectors on a plane");
        chart_scatter(out,
                      &(struct chart_scatter){.title = "Item vectors on a plane",
                                              .x_label = axes[0],
                                              .y_label = axes[1],
                                              .points = points,
                                              .n = n,
                                              .groups = groups,
                                              .n_groups = n_groups,
                                              .n_named = (size_t)(named >= 0 ? named : (double)n_groups),
                                              .ordered = strcmp(json_text_at(projection, "by"), "popularity") == 0});
        put_map_caption(out, projection, n);
    }
    mem_free(points);
}

static void put_neighbours(struct buf *out, const json_t *projection)
{
    const json_t *neighbours = json_object_get(projection, "neighbours");
    struct chart_bar bars[] = {{"nearest items", json_number_at(neighbours, "same"), NAN, NAN, 0},
                               {"by chance", json_number_at(neighbours, "chance"), NAN, NAN, 7}};
    if (!isfinite(bars[0].value) || !isfinite(bars[1].value)) {
        return;
    }
    begin_figure(out, "Do near items have much in common?");
    chart_bars(out, &(struct chart_bars){"Do near items have much in common?", bars, 2, 3});
    buf_puts(out, "<figcaption>Of an item's ");
    html_number(out, json_number_at(neighbours, "k"), 0);
    buf_puts(out, " nearest others, the share with the same colour as in the picture (<code>");
    put_escaped(out, json_text_at(projection, "by"));
    buf_puts(out,
             "</code>), in all dimensions: no more than chance says that the vectors know nothing of it.</figcaption>"
             "</figure>\n");
}

static void put_vectors(struct buf *out, const struct report_view *v)
{
    const json_t *histogram = json_object_get(v->json, "histogram");
    const json_t *projection = json_object_get(v->json, "projection");
    if (json_object_size(histogram) + json_object_size(projection) == 0) {
        return;
    }
    buf_puts(out, "<div class=\"grid\">\n<div class=\"stack\">\n");
    put_histogram(out, histogram);
    put_neighbours(out, projection);
    buf_puts(out, "</div>\n");
    put_map(out, projection);
    buf_puts(out, "</div>\n");
}

/* --- index --------------------------------------------------------------------------------------------------------------*/

static void put_index_curve(struct buf *out, const json_t *index)
{
    double x[MAX_CURVE];
    double y[MAX_CURVE];
    const json_t *curve = json_object_get(index, "curve");
    size_t n = 0;
    size_t i;
    json_t *point;
    json_array_foreach(curve, i, point)
    {
        if (n < MAX_CURVE && json_number_at(point, "effort") > 0) {
            x[n] = json_number_at(point, "effort");
            y[n++] = json_number_at(point, "recall");
        }
    }
    if (n == 0) {
        return;
    }
    struct chart_series series = {"recall", x, y, n, 0};
    begin_figure(out, "Index recall against effort");
    chart_lines(out, &(struct chart_lines){.title = "Index recall against effort",
                                           .x_label = "search effort (candidates looked at)",
                                           .series = &series,
                                           .n = 1,
                                           .decimals = 4,
                                           .logarithmic = true,
                                           .mark_x = json_number_at(index, "effort"),
                                           .mark_label = "default",
                                           .rule_y = json_number_at(index, "target_recall"),
                                           .rule_label = "target"});
    end_figure(
        out,
        n == 1 ? "The least effort was enough. Recall: of the true best 100 items (fewer in a small catalogue), the "
                 "share that the index finds."
               : "Of the true best 100 items (fewer in a small catalogue), the share that the index finds. Time grows "
                 "with effort; requests may ask for more or less than the default.");
}

static void put_index(struct buf *out, const struct report_view *v)
{
    const json_t *index = json_object_get(v->json, "index");
    if (json_object_size(index) == 0) {
        return;
    }
    buf_puts(out, "<div class=\"grid\">\n");
    put_index_curve(out, index);
    buf_puts(out, "<dl>\n");
    put_text_row(out, "Engine", json_text_at(index, "engine"));
    put_text_row(out, "Factory", json_text_at(index, "factory"));
    put_row(out, "Default effort", json_number_at(index, "effort"), 0, "");
    put_row(out, "Recall against exact search", 100 * json_number_at(index, "recall@100"), 2, " %");
    put_row(out, "Target", 100 * json_number_at(index, "target_recall"), 2, " %");
    put_row(out, "Build time", json_number_at(index, "build_seconds"), 2, " s");
    put_row(out, "Memory an item", json_number_at(index, "bytes_per_item"), 0, " bytes");
    buf_puts(out, "</dl>\n</div>\n");
}

/* --- model and data -----------------------------------------------------------------------------------------------------*/

/* ", dim 32, pooling mean": the numbers, texts and true booleans of an object, but for those that are not worth a word
 * here: whatever members the schema gets, they are shown. */
static void put_members(struct buf *out, const json_t *object)
{
    static const char *const skipped[] = {"name", "type", "mean", "stddev", "multi", NULL};
    const char *key;
    json_t *value;
    size_t n = 0;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool shown = json_is_number(value) || json_is_string(value) || json_is_true(value);
        if (!shown || word_find(skipped, key) >= 0 || n++ >= MAX_MEMBERS) {
            continue;
        }
        buf_puts(out, ", ");
        put_escaped(out, key);
        if (json_is_string(value)) {
            buf_puts(out, " ");
            put_escaped(out, json_string_value(value));
        } else if (json_is_number(value)) {
            buf_puts(out, " ");
            html_number(out, json_number_value(value), json_is_integer(value) ? 0 : 3);
        }
    }
}

static void put_feature(struct buf *out, const json_t *f)
{
    buf_puts(out, "<li><code>");
    put_escaped(out, json_text_at(f, "name"));
    buf_puts(out, "</code> <small>");
    put_escaped(out, json_text_at(f, "type"));
    put_members(out, f);
    buf_puts(out, "</small></li>\n");
}

static void put_tower(struct buf *out, const json_t *tower, const char *title)
{
    size_t i;
    json_t *item;
    const json_t *network = json_object_get(tower, "network");
    if (json_object_size(tower) == 0) {
        return;
    }
    buf_printf(out, "<div class=\"tower\"><h3>%s</h3><ul>\n", title);
    json_array_foreach(json_object_get(tower, "features"), i, item)
    {
        if (i < 64) {
            put_feature(out, item);
        }
    }
    buf_puts(out, "</ul><p>Network: ");
    put_escaped(out, json_text_at(network, "type"));
    json_array_foreach(json_object_get(network, "layers"), i, item)
    {
        if (i < 16) {
            buf_puts(out, i == 0 ? " " : " \xe2\x86\x92 ");
            html_number(out, json_number_value(item), 0);
        }
    }
    put_members(out, network);
    buf_puts(out, "</p></div>\n");
}

static void put_model(struct buf *out, const struct report_view *v)
{
    const json_t *schema = json_object_get(v->json, "schema");
    const json_t *data = json_object_get(v->json, "data");
    if (json_object_size(schema) + json_object_size(data) == 0) {
        return;
    }
    buf_puts(out, "<div class=\"three\">\n");
    put_tower(out, json_object_get(schema, "user_tower"), "User tower");
    put_tower(out, json_object_get(schema, "item_tower"), "Item tower");
    buf_puts(out, "<dl>\n");
    put_text_row(out, "Similarity", json_text_at(schema, "similarity"));
    put_row(out, "Users", json_number_at(data, "users"), 0, "");
    put_row(out, "Items", json_number_at(data, "items"), 0, "");
    put_row(out, "Train events", json_number_at(data, "train"), 0, "");
    put_row(out, "Test events", json_number_at(data, "test"), 0, "");
    buf_puts(out, "</dl>\n</div>\n");
}

static void put_config(struct buf *out, const struct report_view *v)
{
    const char *text = json_text_at(v->json, "config");
    size_t n = strlen(text);
    if (n == 0) {
        return;
    }
    buf_puts(out, "<pre>");
    html_text(out, text, n < MAX_CONFIG ? n : MAX_CONFIG);
    buf_puts(out, n < MAX_CONFIG ? "</pre>\n" : "\n\xe2\x80\xa6</pre>\n");
}

const struct report_section report_sections[] = {
    {"quality", "Quality, beside the baselines", put_quality},
    {"slices", "Who is served how well", put_slices},
    {"popularity", "Popular and rare items", put_popularity},
    {"training", "Training", put_training},
    {"vectors", "What the vectors look like", put_vectors},
    {"index", "The index", put_index},
    {"model", "Model and data", put_model},
    {"config", "Configuration", put_config},
    {NULL, NULL, NULL},
};
