#include "train/report_view.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/html.h"

double json_number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *json_text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

bool json_interval_at(const json_t *object, const char *key, double out[2])
{
    const json_t *pair = json_object_get(object, key);
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_array_get(pair, i);
        out[i] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    return isfinite(out[0]) && isfinite(out[1]);
}

static void name_contender(struct contender *c)
{
    static const struct {
        const char *key, *name, *phrase;
    } names[] = {{"model", "This model", "this model"},
                 {"popularity", "Popularity", "a list of the most popular items"},
                 {"item_cf", "Item-based CF", "item-based collaborative filtering"},
                 {"matrix_completion", "Matrix completion", "matrix completion"}};
    snprintf(c->name, sizeof c->name, "%s", c->key);
    snprintf(c->phrase, sizeof c->phrase, "%s", c->key);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].key, c->key) == 0) {
            snprintf(c->name, sizeof c->name, "%s", names[i].name);
            snprintf(c->phrase, sizeof c->phrase, "%s", names[i].phrase);
        }
    }
}

static void add_contender(struct report_view *v, const char *key, const json_t *metrics, const json_t *ci)
{
    if (v->n_contenders < REPORT_MAX_CONTENDERS && json_object_size(metrics) > 0) {
        struct contender *c = &v->contenders[v->n_contenders++];
        *c = (struct contender){.key = key, .metrics = metrics, .ci = ci};
        c->bias = json_object_get(json_object_get(v->json, "popularity_bias"), key);
        name_contender(c);
    }
}

/* The numbers behind "recall@", ascending. */
static void find_cutoffs(struct report_view *v, const json_t *metrics)
{
    const char *key;
    json_t *unused;
    json_object_foreach((json_t *)(uintptr_t)metrics, key, unused)
    {
        char *end = NULL;
        unsigned long k = strncmp(key, "recall@", 7) == 0 ? strtoul(key + 7, &end, 10) : 0;
        if (k == 0 || k > 1000000 || *end != '\0' || v->n_cutoffs == REPORT_MAX_CUTOFFS) {
            continue;
        }
        size_t at = v->n_cutoffs++;
        for (; at > 0 && v->cutoffs[at - 1] > k; at--) {
            v->cutoffs[at] = v->cutoffs[at - 1];
        }
        v->cutoffs[at] = (unsigned)k;
    }
    v->k = v->n_cutoffs > 0 ? v->cutoffs[0] : 0;
    for (size_t i = 0; i < v->n_cutoffs; i++) {
        v->k = v->cutoffs[i] == 20 ? 20 : v->k;
    }
}

void report_view_init(struct report_view *v, const json_t *report)
{
    *v = (struct report_view){.json = report};
    const char *key;
    json_t *metrics;
    const json_t *intervals = json_object_get(report, "baselines_ci");
    find_cutoffs(v, json_object_get(report, "metrics"));
    add_contender(v, "model", json_object_get(report, "metrics"), json_object_get(report, "metrics_ci"));
    json_object_foreach(json_object_get(report, "baselines"), key, metrics)
    {
        if (v->n_contenders > 0) {
            add_contender(v, key, metrics, json_object_get(intervals, key));
        }
    }
}

static void metric_key(const struct report_view *v, const char *metric, char key[REPORT_METRIC])
{
    if (strcmp(metric, "mrr") == 0) {
        snprintf(key, REPORT_METRIC, "mrr");
    } else {
        snprintf(key, REPORT_METRIC, "%s@%u", metric, v->k);
    }
}

double contender_value(const struct report_view *v, const struct contender *c, const char *metric)
{
    char key[REPORT_METRIC];
    metric_key(v, metric, key);
    return json_number_at(c->metrics, key);
}

bool contender_interval(const struct report_view *v, const struct contender *c, const char *metric, double out[2])
{
    char key[REPORT_METRIC];
    metric_key(v, metric, key);
    return json_interval_at(c->ci, key, out);
}

const struct contender *report_best_baseline(const struct report_view *v)
{
    const struct contender *best = NULL;
    for (size_t i = 1; i < v->n_contenders; i++) {
        double value = contender_value(v, &v->contenders[i], "recall");
        if (isfinite(value) && (best == NULL || value > contender_value(v, best, "recall"))) {
            best = &v->contenders[i];
        }
    }
    return best;
}

void put_slice_phrase(struct buf *out, const json_t *slice)
{
    const char *by = json_text_at(slice, "by");
    const char *value = json_text_at(slice, "value");
    if (strcmp(by, "new_users") == 0 || strcmp(by, "new_items") == 0) {
        put_escaped(out, value);
        buf_puts(out, by[4] == 'u' ? " users" : " items");
    } else {
        put_escaped(out, strcmp(by, "popularity") == 0 ? "popularity group" : by);
        buf_puts(out, " ");
        put_escaped(out, value);
    }
}

void put_escaped(struct buf *out, const char *text)
{
    html_label(out, text, strlen(text), 60);
}

void put_percent(struct buf *out, double share)
{
    html_number(out, 100 * share, fabs(share) < 0.01 ? 2 : 1);
    buf_puts(out, " %");
}

void put_seconds(struct buf *out, double seconds)
{
    if (seconds >= 7200) {
        double minutes = floor(seconds / 60);
        html_number(out, floor(minutes / 60), 0);
        buf_puts(out, " h ");
        html_number(out, fmod(minutes, 60), 0);
        buf_puts(out, " min");
    } else if (seconds >= 120) {
        html_number(out, seconds / 60, 0);
        buf_puts(out, " minutes");
    } else {
        html_number(out, seconds, seconds >= 10 ? 0 : 1);
        buf_puts(out, " seconds");
    }
}
