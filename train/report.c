#include "train/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/html.h"
#include "train/report_findings.h"
#include "train/report_sections.h"
#include "train/report_view.h"

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n";

/* The version (a manifest's or a report's), or of reports without one the directory's last part. */
static const char *model_name(const struct report_view *v)
{
    const char *model = json_text_at(v->json, "model");
    model = model[0] != '\0' ? model : json_text_at(v->json, "version");
    const char *bundle = json_text_at(v->json, "bundle");
    const char *slash = strrchr(bundle, '/');
    return model[0] != '\0' ? model : slash != NULL ? slash + 1 : bundle;
}

/* --- what a reader without time takes home ------------------------------------------------------------------------------*/

static void put_count(struct buf *out, double n, const char *one, const char *many)
{
    html_number(out, n, 0);
    buf_printf(out, " %s", n == 1 ? one : many);
}

/* What was trained on what. */
static void put_trained(struct buf *out, const struct report_view *v)
{
    const json_t *data = json_object_get(v->json, "data");
    const json_t *train = json_object_get(v->json, "train");
    double events = json_number_at(data, "train");
    if (!isfinite(events)) {
        return;
    }
    buf_puts(out, "Trained on ");
    put_count(out, events, "event", "events");
    buf_puts(out, " between ");
    put_count(out, json_number_at(data, "users"), "user", "users");
    buf_puts(out, " and ");
    put_count(out, json_number_at(data, "items"), "item", "items");
    if (isfinite(json_number_at(train, "epochs"))) {
        buf_puts(out, " in ");
        put_count(out, json_number_at(train, "epochs"), "epoch", "epochs");
        buf_puts(out, ", ");
        put_seconds(out, json_number_at(train, "seconds"));
    }
    buf_puts(out, ". ");
}

/* "a fifth more than", in numbers. */
static void put_comparison(struct buf *out, double ours, double theirs)
{
    double ratio = ours / theirs;
    if (ratio >= 2) {
        html_number(out, ratio, 1);
        buf_puts(out, " times as much as ");
    } else {
        html_number(out, fabs(100 * (ratio - 1)), 0);
        buf_puts(out, ratio >= 1 ? " % more than " : " % less than ");
    }
}

/* How often the lead over a baseline held when users were drawn again. */
static void put_certainty(struct buf *out, const struct report_view *v, const struct contender *baseline)
{
    char key[REPORT_METRIC];
    snprintf(key, sizeof key, "recall@%u", v->k);
    const json_t *comparison = json_object_get(json_object_get(v->json, "comparison"), baseline->key);
    double better = json_number_at(json_object_get(comparison, key), "better");
    if (better > 0.5) {
        buf_puts(out, ", a lead that holds in ");
        html_number(out, 100 * better, better < 1 ? 1 : 0);
        buf_puts(out, " % of resamples of the users");
    }
}

static void put_result(struct buf *out, const struct report_view *v)
{
    double recall = v->n_contenders > 0 ? contender_value(v, &v->contenders[0], "recall") : NAN;
    const struct contender *best = report_best_baseline(v);
    if (!isfinite(recall)) {
        return;
    }
    buf_puts(out, "Of the items that ");
    put_count(out, json_number_at(v->contenders[0].metrics, "users"), "user", "users");
    buf_printf(out, " chose in the test part, which the model never saw, its first %u hold <b>", v->k);
    put_percent(out, recall);
    buf_puts(out, "</b>");
    if (best != NULL && contender_value(v, best, "recall") > 0) {
        buf_puts(out, ": <b>");
        put_comparison(out, recall, contender_value(v, best, "recall"));
        put_escaped(out, best->phrase);
        buf_puts(out, "</b>, the best baseline");
        put_certainty(out, v, best);
    }
    buf_puts(out, ".");
}

static void begin_tile(struct buf *out, const char *name)
{
    buf_printf(out, "<div class=\"tile\"><dt>%s</dt><dd>", name);
}

/* After a <small> with what else there is to say. */
static void end_tile(struct buf *out)
{
    buf_puts(out, "</small></dd></div>\n");
}

static void put_metric_tile(struct buf *out, const struct report_view *v, const char *metric, const char *name,
                            const char *note)
{
    const struct contender *model = &v->contenders[0];
    double interval[2];
    double value = contender_value(v, model, metric);
    if (!isfinite(value)) {
        return;
    }
    buf_printf(out, "<div class=\"tile\"><dt>%s@%u</dt><dd>", name, v->k);
    put_percent(out, value);
    buf_puts(out, "<small>");
    if (contender_interval(v, model, metric, interval)) {
        html_number(out, 100 * interval[0], 1);
        buf_puts(out, " to ");
        html_number(out, 100 * interval[1], 1);
    } else {
        buf_puts(out, note);
    }
    end_tile(out);
}

static void put_tiles(struct buf *out, const struct report_view *v)
{
    const struct contender *best = report_best_baseline(v);
    const json_t *index = json_object_get(v->json, "index");
    buf_puts(out, "<dl class=\"tiles\">\n");
    if (v->n_contenders > 0) {
        put_metric_tile(out, v, "recall", "Recall", "of what users chose");
    }
    if (best != NULL && contender_value(v, best, "recall") > 0) {
        double gain = contender_value(v, &v->contenders[0], "recall") / contender_value(v, best, "recall") - 1;
        begin_tile(out, "Over the best baseline");
        buf_puts(out, gain >= 0 ? "+" : "");
        html_number(out, 100 * gain, 0);
        buf_puts(out, " %<small>");
        put_escaped(out, best->name);
        end_tile(out);
    }
    if (v->n_contenders > 0) {
        put_metric_tile(out, v, "hit_rate", "Hit rate", "of users");
        put_metric_tile(out, v, "coverage", "Coverage", "of the catalogue");
    }
    if (isfinite(json_number_at(index, "recall@100"))) {
        begin_tile(out, "Index recall");
        put_percent(out, json_number_at(index, "recall@100"));
        buf_puts(out, "<small>of exact search");
        end_tile(out);
    }
    buf_puts(out, "</dl>\n");
}

static void put_findings(struct buf *out, const struct report_view *v)
{
    struct buf list = BUF_INIT;
    size_t n = report_findings(&list, v);
    buf_puts(out, "<section id=\"watch\"><h2>What to watch</h2>\n");
    buf_puts(out, n > 0 ? "<ul class=\"findings\">\n" : "<p class=\"fine\">Nothing stands out.</p>\n");
    buf_puts(out, list.data);
    buf_puts(out, n > 0 ? "</ul>\n</section>\n" : "</section>\n");
    out->failed |= buf_failed(&list);
    buf_release(&list);
}

/* 2026-11-24T13:30:09Z -> 2026-11-24 13:30 UTC; anything else as it is. */
static void put_moment(struct buf *out, const char *text)
{
    if (strlen(text) == 20 && text[10] == 'T' && text[19] == 'Z') {
        html_text(out, text, 10);
        buf_puts(out, " ");
        html_text(out, text + 11, 5);
        buf_puts(out, " UTC");
    } else {
        put_escaped(out, text);
    }
}

static void put_header(struct buf *out, const struct report_view *v)
{
    const char *created = json_text_at(v->json, "created");
    buf_puts(out, "<header>\n<h1>Recall report</h1>\n<p class=\"version\">");
    put_escaped(out, model_name(v));
    if (created[0] != '\0') {
        buf_puts(out, " \xc2\xb7 ");
        put_moment(out, created);
    }
    buf_puts(out, "</p>\n<p class=\"lead\">");
    put_trained(out, v);
    put_result(out, v);
    buf_puts(out, "</p>\n");
    put_tiles(out, v);
    buf_puts(out, "</header>\n");
}

/* --- the page -----------------------------------------------------------------------------------------------------------*/

/* Sections with their titles into body, links to them into nav. */
static void put_sections(struct buf *body, struct buf *nav, const struct report_view *v)
{
    struct buf one = BUF_INIT;
    for (const struct report_section *s = report_sections; s->id != NULL; s++) {
        buf_clear(&one);
        s->put(&one, v);
        body->failed |= buf_failed(&one);
        if (one.len > 0) {
            buf_printf(nav, "<a href=\"#%s\">%s</a>\n", s->id, s->id);
            buf_printf(body, "<section id=\"%s\"><h2>%s</h2>\n", s->id, s->title);
            buf_add(body, one.data, one.len);
            buf_puts(body, "</section>\n");
        }
    }
    buf_release(&one);
}

void page_begin(struct buf *out, const char *title, const char *name)
{
    buf_puts(out, head);
    buf_printf(out, "<title>%s", title);
    put_escaped(out, name);
    buf_puts(out, "</title>\n<style>\n");
    buf_puts(out, report_style);
    buf_puts(out, "</style>\n</head>\n<body>\n<main>\n");
}

void page_end(struct buf *out)
{
    buf_puts(out, "</main>\n</body>\n</html>\n");
}

int report_page(const json_t *report, struct buf *out, struct err *e)
{
    struct report_view v;
    struct buf body = BUF_INIT;
    struct buf nav = BUF_INIT;
    report_view_init(&v, report);
    put_sections(&body, &nav, &v);
    page_begin(out, "Recall report ", model_name(&v));
    put_header(out, &v);
    buf_printf(out, "<nav>%s</nav>\n", nav.data);
    put_findings(out, &v);
    buf_add(out, body.data, body.len);
    page_end(out);
    out->failed |= buf_failed(&body) || buf_failed(&nav);
    buf_release(&body);
    buf_release(&nav);
    return buf_failed(out) ? err_nomem(e) : 0;
}
