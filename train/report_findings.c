#include "train/report_findings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/html.h"

enum { FEW_USERS = 500, SLICE_USERS = 50, MAX_SLICES_NAMED = 3 };

/* Two lists, so that the serious ones come first whatever the order of the rules. */
struct findings {
    struct buf serious, watch;
    size_t n;
};

static struct buf *begin(struct findings *f, bool serious, const char *headline)
{
    struct buf *out = serious ? &f->serious : &f->watch;
    f->n++;
    buf_printf(out, "<li class=\"%s\"><b>%s.</b> ", serious ? "serious" : "watch", headline);
    return out;
}

static void end(struct buf *out, const char *advice)
{
    buf_puts(out, advice);
    buf_puts(out, "</li>\n");
}

/* --- the rules ----------------------------------------------------------------------------------------------------------*/

static void find_test_part(struct findings *f, const struct report_view *v)
{
    double users = json_number_at(v->contenders[0].metrics, "users");
    if (v->n_contenders == 0) {
        end(begin(f, false, "Not evaluated"), "There was no test part, so nothing here says how good the model is.");
    } else if (users < FEW_USERS) {
        struct buf *out = begin(f, false, "Few test users");
        buf_puts(out, "Only ");
        html_number(out, users, 0);
        end(out, " users have test items: differences of a few percent may be chance.");
    }
}

/* The paired difference of recall to a baseline, with its interval where there is one. */
static void find_baseline(struct findings *f, const struct report_view *v, const struct contender *baseline)
{
    char key[REPORT_METRIC];
    double interval[2];
    double model = contender_value(v, &v->contenders[0], "recall");
    double other = contender_value(v, baseline, "recall");
    snprintf(key, sizeof key, "recall@%u", v->k);
    const json_t *comparison = json_object_get(json_object_get(v->json, "comparison"), baseline->key);
    bool unsure = json_interval_at(json_object_get(comparison, key), "interval", interval) && interval[0] <= 0 &&
                  interval[1] >= 0;
    if (!isfinite(model) || !isfinite(other) || (model > other && !unsure)) {
        return;
    }
    struct buf *out = begin(f, model <= other && !unsure,
                            model <= other ? "A baseline is as good or better" : "The lead may be chance");
    buf_printf(out, "Recall@%u of ", v->k);
    put_escaped(out, baseline->phrase);
    buf_puts(out, " is ");
    html_number(out, other, 4);
    buf_puts(out, ", of this model ");
    html_number(out, model, 4);
    if (unsure) {
        buf_puts(out, "; the interval of the difference, ");
        html_number(out, interval[0], 4);
        buf_puts(out, " to ");
        html_number(out, interval[1], 4);
        buf_puts(out, ", has zero in it");
    }
    end(out, model <= other ? ". Do not serve it for its recall: look at learning rate, epochs and logq first."
                            : ". More test users, or another seed or two, would tell.");
}

static void find_training(struct findings *f, const struct report_view *v)
{
    const json_t *train = json_object_get(v->json, "train");
    const json_t *loss = json_object_get(train, "loss");
    size_t tried = json_array_size(json_object_get(train, "validation"));
    size_t n = json_array_size(loss);
    if (tried > 1 && json_number_at(train, "best_epoch") == (double)tried) {
        struct buf *out = begin(f, false, "Training may have ended too early");
        buf_printf(out, "The best of %zu epochs was the last one.", tried);
        end(out, " Raise <code>optimizer.epochs</code>.");
    }
    if (tried == 0 && n > 2) {
        double last = json_number_value(json_array_get(loss, n - 1));
        double before = json_number_value(json_array_get(loss, n - 2));
        double drop = (before - last) / fabs(before);
        if (drop > 0.02) {
            struct buf *out = begin(f, false, "The loss was still falling");
            buf_puts(out, "By ");
            put_percent(out, drop);
            end(out, " in the last epoch. More epochs may help; <code>optimizer.early_stop</code> finds how many.");
        }
    }
}

static void find_index(struct findings *f, const struct report_view *v)
{
    const json_t *index = json_object_get(v->json, "index");
    double reached = json_number_at(index, "recall@100");
    double target = json_number_at(index, "target_recall");
    if (reached < target) {
        struct buf *out = begin(f, false, "The index misses its target");
        buf_puts(out, "It finds ");
        put_percent(out, reached);
        buf_puts(out, " of what an exact search would, ");
        put_percent(out, target);
        end(out, " were asked for. Try another <code>index.factory</code>.");
    }
}

static void find_spread(struct findings *f, const struct report_view *v)
{
    double coverage = contender_value(v, &v->contenders[0], "coverage");
    double ours = json_number_at(v->contenders[0].bias, "average_popularity");
    double theirs =
        json_number_at(json_object_get(json_object_get(v->json, "popularity_bias"), "test"), "average_popularity");
    if (coverage < 0.05) {
        struct buf *out = begin(f, false, "Little of the catalogue is shown");
        put_percent(out, coverage);
        buf_printf(out, " of the items are in anybody's first %u.", v->k);
        end(out, " The loss's <code>logq</code> and uniform negatives widen it.");
    }
    if (theirs > 0 && ours > 2 * theirs) {
        struct buf *out = begin(f, false, "Leans to popular items");
        buf_puts(out, "What it recommends is ");
        html_number(out, ours / theirs, 1);
        end(out, " times as popular as what users chose in the test part.");
    }
}

static void find_scores(struct findings *f, const struct report_view *v)
{
    double auc = json_number_at(json_object_get(v->json, "histogram"), "auc");
    if (auc < 0.6) {
        struct buf *out = begin(f, true, "Scores hardly tell good from random");
        buf_puts(out, "A positive scores above a random item in only ");
        put_percent(out, auc);
        end(out, " of cases; 50 % is a coin. Look at the learning rate and the number of epochs.");
    }
}

static void find_data(struct findings *f, const struct report_view *v)
{
    double bad = json_number_at(json_object_get(v->json, "data"), "bad_rows");
    if (bad > 0) {
        struct buf *out = begin(f, false, "Bad rows");
        html_number(out, bad, 0);
        end(out, bad == 1 ? " row of the data could not be read and was left out; the log says which."
                          : " rows of the data could not be read and were left out; the log says which.");
    }
}

/* --- slices -------------------------------------------------------------------------------------------------------------*/

/* No news: rare items are always harder, and a list of the popular ones has all of these. */
static bool is_by_popularity(const json_t *slice)
{
    return strcmp(json_text_at(slice, "by"), "popularity") == 0;
}

/* Less than half of the overall recall, beyond chance. */
static bool is_weak(const struct report_view *v, const json_t *slice)
{
    char key[REPORT_METRIC];
    double interval[2];
    snprintf(key, sizeof key, "recall@%u_ci", v->k);
    return !is_by_popularity(slice) && json_number_at(slice, "users") >= SLICE_USERS &&
           json_interval_at(slice, key, interval) && interval[1] < contender_value(v, &v->contenders[0], "recall") / 2;
}

static bool is_beaten(const struct report_view *v, const json_t *slice)
{
    char key[REPORT_METRIC];
    const char *name;
    json_t *values;
    bool beaten = false;
    snprintf(key, sizeof key, "recall@%u", v->k);
    json_object_foreach(json_object_get(slice, "baselines"), name, values)
    {
        beaten |= !(is_by_popularity(slice) && strcmp(name, "popularity") == 0) &&
                  json_number_at(values, key) > 1.1 * json_number_at(slice, key);
    }
    return beaten && json_number_at(slice, "users") >= SLICE_USERS;
}

static void find_slices(struct findings *f, const struct report_view *v, bool beaten)
{
    struct buf names = BUF_INIT;
    size_t n = 0;
    size_t i;
    json_t *slice;
    json_array_foreach(json_object_get(v->json, "slices"), i, slice)
    {
        if (!(beaten ? is_beaten(v, slice) : is_weak(v, slice))) {
            continue;
        }
        if (n++ < MAX_SLICES_NAMED) {
            buf_puts(&names, n > 1 ? ", " : "");
            put_slice_phrase(&names, slice);
        }
    }
    if (n > 0) {
        struct buf *out = begin(f, false, beaten ? "A baseline is better for some" : "Some are served much worse");
        buf_puts(out, beaten ? "By more than a tenth, for " : "Less than half of the overall recall, for ");
        buf_puts(out, names.data);
        if (n > MAX_SLICES_NAMED) {
            buf_printf(out, " and %zu more", n - MAX_SLICES_NAMED);
        }
        end(out, ". The slices are below.");
    }
    if (buf_failed(&names)) {
        f->watch.failed = true;
    }
    buf_release(&names);
}

/* --- all ----------------------------------------------------------------------------------------------------------------*/

size_t report_findings(struct buf *out, const struct report_view *v)
{
    struct findings f = {.serious = BUF_INIT, .watch = BUF_INIT};
    for (size_t i = 1; i < v->n_contenders; i++) {
        find_baseline(&f, v, &v->contenders[i]);
    }
    find_scores(&f, v);
    find_test_part(&f, v);
    find_training(&f, v);
    if (v->n_contenders > 0) {
        find_spread(&f, v);
        find_slices(&f, v, false);
        find_slices(&f, v, true);
    }
    find_index(&f, v);
    find_data(&f, v);
    buf_puts(out, f.serious.data);
    buf_puts(out, f.watch.data);
    out->failed |= buf_failed(&f.serious) || buf_failed(&f.watch);
    buf_release(&f.serious);
    buf_release(&f.watch);
    return f.n;
}
