/*
 * The data set: a small hand-made world with every expectation written out, what must not influence what, the ways to
 * split and to cut, histories against an oracle, and each error with its message.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/rng.h"
#include "tests/unit/train/files.h"
#include "train/dataset.h"
#include "train/dataset_events.h"
#include "train/dataset_ids.h"
#include "train/dataset_pairs.h"
#include "train/dataset_time.h"

/* --- the world -----------------------------------------------------------------------------------------------------*/

static const char events_text[] = "user,item,ts,label\n"
                                  "u1,i1,10,1\n"
                                  "u1,i3,30,1\n" /* u1's last */
                                  "u1,i2,20,1\n"
                                  "u2,i1,5,1\n"
                                  "u2,i4,15,0\n" /* dropped by its label */
                                  "u2,i2,25,1\n"
                                  "u2,i1,26,2\n" /* u2's last, but the pair is in train */
                                  "u3,i2,7,1\n"  /* the only one: stays in train */
                                  "u4,i5,1,1\n"
                                  "u4,i9,2,1\n"; /* u4's last, outside the catalogue */

static const char users_text[] = "user,gender,age,spend,activity,topics\n"
                                 "u2,f,40,,2,b|b|c\n"
                                 "u1,m,20,0,1,a|b\n"
                                 "u9,x,99,7,9,z\n" /* no events */
                                 "u3,m,,100,3,\n";

static const char items_text[] = "item,category,price\n"
                                 "i6,c6,5000\n" /* no events */
                                 "i1,c1,1\n"
                                 "i2,c2,2\n"
                                 "i3,c3,1000\n"; /* only in test */

enum { U_ID, U_GENDER, U_AGE, U_SPEND, U_ACTIVITY, U_TOPICS, U_HISTORY, U_FEATURES };
enum { I_ID, I_CATEGORY, I_PRICE, I_FEATURES };

struct world {
    struct train_config config;
    struct feature_config user[U_FEATURES], item[I_FEATURES];
    char paths[4][256];
};

static char *keep_path(struct world *w, int i, const char *path)
{
    snprintf(w->paths[i], sizeof w->paths[i], "%s", path);
    return w->paths[i];
}

static void world_init(struct world *w)
{
    *w = (struct world){
        .user =
            {{.name = "user", .type = FEATURE_ID, .dim = 4, .min_count = 2},
             {.name = "gender", .type = FEATURE_ONEHOT, .min_count = 1},
             {.name = "age", .type = FEATURE_NUMERIC},
             {.name = "spend", .type = FEATURE_NUMERIC, .transform = TRANSFORM_LOG},
             {.name = "activity", .type = FEATURE_NUMERIC, .transform = TRANSFORM_BUCKETIZE, .buckets = 3, .dim = 2},
             {.name = "topics", .type = FEATURE_CATEGORICAL, .dim = 3, .multi = '|', .min_count = 2},
             {.name = "history", .type = FEATURE_SEQUENCE, .of = "item", .dim = 3, .min_count = 2, .last = 2}},
        .item = {{.name = "item", .type = FEATURE_ID, .dim = 4, .min_count = 1},
                 {.name = "category", .type = FEATURE_CATEGORICAL, .dim = 3, .min_count = 1},
                 {.name = "price", .type = FEATURE_NUMERIC}}};
    struct train_config *c = &w->config;
    c->data.users = (struct table_config){keep_path(w, 0, files_write("users.csv", users_text)), "user"};
    c->data.items = (struct table_config){keep_path(w, 1, files_write("items.csv", items_text)), "item"};
    c->data.events = (struct events_config){.path = keep_path(w, 2, files_write("events.csv", events_text)),
                                            .user = "user",
                                            .item = "item",
                                            .time = "ts",
                                            .label = "label",
                                            .label_min = 1};
    strcpy(c->data.delimiter, ",");
    c->data.header = true;
    c->data.split = (struct split_config){.method = SPLIT_LEAVE_LAST, .n = 1};
    c->user_tower = (struct tower_config){
        .features = w->user, .n_features = U_FEATURES, .network = {.type = NETWORK_MLP, .widths = {4}, .n_widths = 1}};
    c->item_tower = (struct tower_config){
        .features = w->item, .n_features = I_FEATURES, .network = {.type = NETWORK_MLP, .widths = {4}, .n_widths = 1}};
}

/* Ids and nothing else, from the events alone. */
static void world_init_ids(struct world *w, const char *events)
{
    world_init(w);
    w->config.data.users.path = w->config.data.items.path = NULL;
    w->config.user_tower.n_features = w->config.item_tower.n_features = 1;
    w->user[0].min_count = 1;
    if (events != NULL) {
        files_write("events.csv", events);
    }
}

static struct dataset *load(const struct world *w)
{
    struct err e = ERR_INIT;
    struct dataset *d = dataset_load(&w->config, &e);
    if (d == NULL) {
        print_error("%s\n", e.message);
    }
    assert_non_null(d);
    return d;
}

static void expect_error(const struct world *w, const char *message)
{
    struct err e = ERR_INIT;
    struct dataset *d = dataset_load(&w->config, &e);
    assert_null(d);
    if (strstr(e.message, message) == NULL) {
        print_error("got: %s\nexpected: %s\n", e.message, message);
    }
    assert_non_null(strstr(e.message, message));
}

static void expect_strings(const struct strtab *t, const char *expected)
{
    struct buf b = BUF_INIT;
    for (size_t i = 0; i < t->count; i++) {
        size_t length;
        const char *text = strtab_get(t, i, &length);
        buf_printf(&b, "%s%.*s", i > 0 ? " " : "", (int)length, text);
    }
    assert_string_equal(b.data, expected);
    buf_release(&b);
}

/* "u1: i1@10 i2@20; ...", users without events left out; times in seconds. */
static void describe(struct buf *b, const struct dataset *d, const struct interactions *part)
{
    for (size_t u = 0; u < d->n_users; u++) {
        size_t length;
        const char *id = strtab_get(&d->user_ids, u, &length);
        for (size_t i = part->start[u]; i < part->start[u + 1]; i++) {
            if (i == part->start[u]) {
                buf_printf(b, "%s%.*s:", b->len > 0 ? "; " : "", (int)length, id);
            }
            size_t item_length;
            const char *item = strtab_get(&d->item_ids, part->item[i], &item_length);
            buf_printf(b, " %.*s", (int)item_length, item);
            if (part->time != NULL) {
                buf_printf(b, "@%lld", (long long)(part->time[i] / 1000000));
            }
        }
    }
    assert_int_equal(part->start[d->n_users], part->n);
}

static void expect_part(const struct dataset *d, const struct interactions *part, const char *expected)
{
    struct buf b = BUF_INIT;
    describe(&b, d, part);
    assert_string_equal(b.data, expected);
    buf_release(&b);
}

static void expect_indices(const int32_t *got, size_t n, const int32_t *expected)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(got[i], expected[i]);
    }
}

/* --- everything of it ----------------------------------------------------------------------------------------------*/

static void test_parts(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w);
    expect_strings(&d->user_ids, "u1 u2 u3 u4");
    expect_strings(&d->item_ids, "i1 i2 i3 i5 i6");
    assert_int_equal(d->n_users, 4);
    assert_int_equal(d->n_items, 5);
    expect_part(d, &d->train, "u1: i1@10 i2@20; u2: i1@5 i2@25; u3: i2@7; u4: i5@1");
    expect_part(d, &d->test, "u1: i3@30");
    static const int32_t unreachable[] = {0, 0, 0, 1}, counts[] = {2, 3, 0, 1, 0};
    expect_indices((const int32_t *)d->unreachable, 4, unreachable);
    expect_indices((const int32_t *)d->item_count, 5, counts);
    assert_int_equal(d->dropped_by_label, 1);
    assert_int_equal(d->bad_rows, 0);
    dataset_free(d);
}

static void test_learned_schema(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w);
    const struct feature *u = d->schema.towers[SIDE_USER].features, *i = d->schema.towers[SIDE_ITEM].features;
    expect_strings(&u[U_ID].vocab, "u1 u2");
    expect_strings(&u[U_GENDER].vocab, "f m");
    assert_float_equal(u[U_AGE].mean, 30, 0);
    assert_float_equal(u[U_AGE].stddev, 10, 0);
    assert_float_equal(u[U_SPEND].mean, log(101) / 2, 1e-6);
    assert_float_equal(u[U_SPEND].stddev, log(101) / 2, 1e-6);
    assert_int_equal(u[U_ACTIVITY].n_bounds, 2);
    assert_float_equal(u[U_ACTIVITY].bounds[0], 2, 0);
    assert_float_equal(u[U_ACTIVITY].bounds[1], 3, 0);
    expect_strings(&u[U_TOPICS].vocab, "b"); /* b|b counts once */
    expect_strings(&u[U_HISTORY].vocab, "i1 i2");
    expect_strings(&i[I_ID].vocab, "i1 i2 i5");
    expect_strings(&i[I_CATEGORY].vocab, "c1 c2");
    assert_float_equal(i[I_PRICE].mean, 1.5, 0);
    assert_float_equal(i[I_PRICE].stddev, 0.5, 0);
    assert_int_equal(u[U_TOPICS].rows, 3);
    assert_int_equal(u[U_HISTORY].last, 2);
    dataset_free(d);
}

static void test_encoded_rows(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w);
    const struct feature_rows *u = &d->rows[SIDE_USER], *i = &d->rows[SIDE_ITEM];
    assert_int_equal(u->n, 4);
    assert_int_equal(i->n, 5);
    static const int32_t ids[] = {2, 3, SCHEMA_UNKNOWN, SCHEMA_UNKNOWN}, genders[] = {3, 2, 3, SCHEMA_MISSING};
    static const int32_t activities[] = {2, 3, 4, SCHEMA_MISSING}, topics[] = {0, 2, 2, 2, 0};
    expect_indices(u->columns[U_ID].index, 4, ids);
    expect_indices(u->columns[U_GENDER].index, 4, genders);
    expect_indices(u->columns[U_ACTIVITY].index, 4, activities);
    expect_indices(u->columns[U_TOPICS].index, 5, topics);
    static const size_t starts[] = {0, 2, 5, 5, 5};
    for (int k = 0; k < 5; k++) {
        assert_int_equal(u->columns[U_TOPICS].start[k], starts[k]);
        assert_int_equal(u->columns[U_HISTORY].start[k], 0);
    }
    const float *age = u->columns[U_AGE].number, *spend = u->columns[U_SPEND].number;
    assert_true(age[0] == -1 && age[1] == 1 && isnan(age[2]) && isnan(age[3]));
    assert_true(fabsf(spend[0] + 1) < 1e-6F && isnan(spend[1]) && fabsf(spend[2] - 1) < 1e-6F);
    static const int32_t item_ids[] = {2, 3, SCHEMA_UNKNOWN, 4, SCHEMA_UNKNOWN};
    static const int32_t categories[] = {2, 3, SCHEMA_UNKNOWN, SCHEMA_MISSING, SCHEMA_UNKNOWN};
    expect_indices(i->columns[I_ID].index, 5, item_ids);
    expect_indices(i->columns[I_CATEGORY].index, 5, categories);
    const float *price = i->columns[I_PRICE].number;
    assert_true(price[0] == -1 && price[1] == 1 && price[2] == 10 && isnan(price[3]) && price[4] == 10);
    dataset_free(d);
}

static void test_history_rows(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w);
    static const int32_t rows[] = {2, 3, SCHEMA_UNKNOWN, SCHEMA_UNKNOWN, SCHEMA_UNKNOWN};
    assert_int_equal(d->history, U_HISTORY);
    expect_indices(d->history_row, 5, rows);
    int32_t out[2];
    assert_int_equal(dataset_history(d, &d->train, 1, d->train.start[1], out), 0);
    assert_int_equal(dataset_history(d, &d->train, 1, d->train.start[1] + 1, out), 1);
    assert_int_equal(out[0], 2);
    assert_int_equal(dataset_history(d, &d->train, 1, d->train.start[2], out), 2);
    assert_int_equal(out[1], 3);
    dataset_free(d);
}

/* The same with compressed tables, another delimiter, no header line and no tables. */
static void test_formats(void **state)
{
    (void)state;
    struct world w;
    world_init_ids(&w, "u1::i1::2026-11-24::1\nu1::i2::2026-11-25::1\n");
    char *columns[] = {"user", "item", "ts", "label", NULL};
    strcpy(w.config.data.delimiter, "::");
    w.config.data.header = false;
    w.config.data.columns_events = columns;
    struct dataset *d = load(&w);
    expect_part(d, &d->train, "u1: i1@1795478400");
    assert_int_equal(d->test.n, 0); /* i2 is outside the catalogue */
    assert_int_equal(d->unreachable[0], 1);
    assert_int_equal(d->history, -1);
    dataset_free(d);
}

/* --- the test part influences nothing ------------------------------------------------------------------------------*/

/* Everything learned, and every row by id, as text. */
static char *fingerprint(const struct dataset *d)
{
    struct buf b = BUF_INIT;
    json_t *json = schema_to_json(&d->schema);
    char *text = json_dumps(json, JSON_SORT_KEYS);
    buf_puts(&b, text);
    free(text);
    json_decref(json);
    for (int side = 0; side < 2; side++) {
        const struct tower_spec *spec = &d->schema.towers[side];
        const struct strtab *ids = side == SIDE_USER ? &d->user_ids : &d->item_ids;
        for (uint32_t f = 0; f < spec->n_features; f++) {
            size_t length;
            buf_printf(&b, "\n%s:", spec->features[f].name);
            for (size_t i = 0; i < spec->features[f].vocab.count; i++) {
                const char *value = strtab_get(&spec->features[f].vocab, i, &length);
                buf_printf(&b, " %.*s", (int)length, value);
            }
            for (size_t i = 0; i < ids->count; i++) {
                const char *id = strtab_get(ids, i, &length);
                const struct feature_column *c = &d->rows[side].columns[f];
                buf_printf(&b, "\n  %.*s", (int)length, id);
                if (c->number != NULL) {
                    buf_printf(&b, " %a", (double)c->number[i]);
                } else if (c->start == NULL) {
                    buf_printf(&b, " %d", (int)c->index[i]);
                } else {
                    for (size_t k = c->start[i]; k < c->start[i + 1]; k++) {
                        buf_printf(&b, " %d", (int)c->index[k]);
                    }
                }
            }
        }
    }
    assert_false(buf_failed(&b));
    return b.data; /* buf_release frees by mem_free */
}

static void test_test_part_is_not_seen(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w);
    char *before = fingerprint(d);
    dataset_free(d);
    struct buf changed = BUF_INIT; /* other last events: one moved to i6, one to a new item, many more by label */
    buf_puts(&changed, events_text);
    char *at = strstr(changed.data, "u1,i3,30");
    memcpy(at, "u1,i6,31", 8);
    at = strstr(changed.data, "u4,i9,2");
    memcpy(at, "u4,i8,9", 7);
    files_write("events.csv", changed.data);
    d = load(&w);
    expect_part(d, &d->test, "u1: i6@31");
    char *after = fingerprint(d);
    assert_string_equal(before, after);
    dataset_free(d);
    mem_free(after);

    /* the same train rows with test files */
    files_write("events.csv",
                "user,item,ts,label\nu1,i1,10,1\nu1,i2,20,1\nu2,i1,5,1\nu2,i2,25,1\nu3,i2,7,1\nu4,i5,1,1\n");
    w.config.data.split = (struct split_config){.method = SPLIT_FILE};
    w.config.data.split.test = keep_path(&w, 3,
                                         files_write("test.csv", "user,item,ts,label\nu1,i3,1,1\nu4,i3,9,1\n"
                                                                 "u1,i3,2,1\nu1,i8,1,1\nu1,i8,3,1\n"));
    d = load(&w);
    after = fingerprint(d);
    assert_string_equal(before, after);
    expect_part(d, &d->test, "u1: i3@1; u4: i3@9");
    assert_int_equal(d->unreachable[0], 1); /* i8 once */
    dataset_free(d);
    mem_free(before);
    mem_free(after);
    buf_release(&changed);
}

/* A user of the test part alone is known to nobody's vocabulary. */
static void test_test_only_user(void **state)
{
    (void)state;
    struct world w;
    world_init_ids(&w, "user,item,ts,label\nu1,i1,1,1\nu1,i2,2,1\n");
    w.config.data.split = (struct split_config){.method = SPLIT_FILE};
    w.config.data.split.test = keep_path(&w, 3, files_write("test.csv", "user,item,ts,label\nu0,i1,1,1\n"));
    w.user[0].min_count = 0;
    struct dataset *d = load(&w);
    expect_strings(&d->user_ids, "u0 u1");
    expect_strings(&d->schema.towers[SIDE_USER].features[0].vocab, "u1");
    assert_int_equal(d->rows[SIDE_USER].columns[0].index[0], SCHEMA_UNKNOWN);
    expect_part(d, &d->test, "u0: i1@1");
    dataset_free(d);
}

/* --- splits --------------------------------------------------------------------------------------------------------*/

static void expect_split(const char *events, struct split_config split, bool timed, const char *train, const char *test)
{
    struct world w;
    world_init_ids(&w, events);
    w.config.data.split = split;
    w.config.data.events.label = NULL;
    w.config.data.events.time = timed ? "ts" : NULL;
    /* every item is in the catalogue */
    w.config.data.items.path = keep_path(&w, 1, files_write("items.csv", "item\na\nb\nc\nd\ne\nf\n"));
    struct dataset *d = load(&w);
    expect_part(d, &d->train, train);
    expect_part(d, &d->test, test);
    dataset_free(d);
}

static void test_splits(void **state)
{
    (void)state;
    struct split_config last1 = {.method = SPLIT_LEAVE_LAST, .n = 1}, last2 = {.method = SPLIT_LEAVE_LAST, .n = 2};
    struct split_config latest = {.method = SPLIT_TIME, .fraction = 0.4};
    static const char events[] = "user,item,ts\nu,c,3\nu,a,1\nv,a,2\nu,d,3\nu,b,2\nv,b,9\n";
    expect_split(events, last1, true, "u: a@1 b@2 c@3; v: a@2", "u: d@3; v: b@9");
    expect_split(events, last1, false, "u: c a d; v: a", "u: b; v: b");
    expect_split(events, last2, true, "u: a@1 b@2; v: a@2 b@9", "u: c@3 d@3");
    expect_split(events, latest, true, "u: a@1 b@2; v: a@2", "u: c@3 d@3; v: b@9"); /* 2.4: nearer to 3 than to 1 */
    latest.fraction = 0.2;
    expect_split(events, latest, true, "u: a@1 b@2 c@3 d@3; v: a@2", "v: b@9");
    latest.fraction = 0.9;
    expect_split(events, latest, true, "u: a@1", "u: b@2 c@3 d@3; v: a@2 b@9");
    struct split_config none = {.method = SPLIT_NONE};
    expect_split(events, none, true, "u: a@1 b@2 c@3 d@3; v: a@2 b@9", "");
    /* repeated interactions stay in train and are one pair in test */
    expect_split("user,item,ts\nu,a,1\nu,a,2\nu,b,3\nu,b,4\n", last2, true, "u: a@1 a@2", "u: b@3");
}

/* --- cutting -------------------------------------------------------------------------------------------------------*/

/* Random interactions of `n_users`; times below `moments`, so that many are equal. */
static struct interactions random_part(struct rng *rng, size_t n_users, uint32_t n_items, uint32_t most,
                                       uint32_t moments)
{
    struct err e = ERR_INIT;
    struct interactions part;
    assert_int_equal(interactions_init(&part, n_users * most, moments > 0, false, n_users, &e), 0);
    part.n = 0;
    for (size_t u = 0; u < n_users; u++) {
        uint32_t n = rng_below(rng, most + 1);
        int64_t time = -3;
        for (uint32_t i = 0; i < n; i++, part.n++) {
            time += moments > 0 && rng_below(rng, 2) ? rng_below(rng, moments) : 0;
            part.item[part.n] = rng_below(rng, n_items);
            if (moments > 0) {
                part.time[part.n] = time;
            }
        }
        part.start[u + 1] = part.n;
    }
    return part;
}

static size_t events_from(const struct interactions *part, int64_t moment)
{
    size_t n = 0;
    for (size_t i = 0; i < part->n; i++) {
        n += part->time[i] >= moment;
    }
    return n;
}

/* Marks all from one moment on, and no moment with both sides filled is nearer to what is wanted. */
static void test_mark_latest(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 2, 0);
    for (int round = 0; round < 500; round++) {
        struct interactions part = random_part(&rng, 1 + rng_below(&rng, 6), 9, 8, 1 + rng_below(&rng, 4));
        bool held[64] = {0};
        double fraction = 0.05 + 0.9 * (double)rng_uniform(&rng);
        bool possible = mark_latest(&part, fraction, held);
        double wanted = floor(fraction * (double)part.n + 0.5), best = INFINITY;
        wanted = fmin(fmax(wanted, 1), (double)part.n - 1);
        for (int64_t moment = -3; moment < 100; moment++) {
            size_t n = events_from(&part, moment);
            best = n > 0 && n < part.n ? fmin(best, fabs((double)n - wanted)) : best;
        }
        assert_true(possible == isfinite(best));
        size_t n = 0;
        int64_t first_held = INT64_MAX, last_rest = INT64_MIN;
        for (size_t i = 0; possible && i < part.n; i++) {
            n += held[i];
            first_held = held[i] && part.time[i] < first_held ? part.time[i] : first_held;
            last_rest = !held[i] && part.time[i] > last_rest ? part.time[i] : last_rest;
        }
        if (possible) {
            assert_true(last_rest < first_held);
            assert_true(fabs((double)n - wanted) == best);
        }
        interactions_release(&part);
    }
}

static bool user_has(const struct interactions *part, size_t u, uint32_t item)
{
    for (size_t i = part->start[u]; i < part->start[u + 1]; i++) {
        if (part->item[i] == item) {
            return true;
        }
    }
    return false;
}

static void test_cut_at_random(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 3, 0);
    struct dataset d = {.n_users = 2000, .n_items = 50};
    d.train = random_part(&rng, d.n_users, (uint32_t)d.n_items, 20, 0);
    struct interactions rest, held, rest2, held2;
    struct err e = ERR_INIT;
    assert_int_equal(dataset_cut(&d, 0.2, 7, &rest, &held, &e), 0);
    assert_true(rest.time == NULL && held.time == NULL);
    double share = 1 - (double)rest.n / (double)d.train.n;
    assert_true(share > 0.18 && share < 0.21);
    for (size_t u = 0; u < d.n_users; u++) {
        bool any = d.train.start[u + 1] > d.train.start[u];
        assert_true((rest.start[u + 1] > rest.start[u]) == any);
        for (size_t i = held.start[u]; i < held.start[u + 1]; i++) {
            assert_true(user_has(&d.train, u, held.item[i]) && !user_has(&rest, u, held.item[i]));
            for (size_t j = i + 1; j < held.start[u + 1]; j++) {
                assert_true(held.item[i] != held.item[j]);
            }
        }
    }
    assert_int_equal(dataset_cut(&d, 0.2, 7, &rest2, &held2, &e), 0);
    assert_int_equal(rest.n, rest2.n);
    assert_memory_equal(rest.item, rest2.item, rest.n * sizeof *rest.item);
    interactions_release(&rest2);
    interactions_release(&held2);
    assert_int_equal(dataset_cut(&d, 0.2, 8, &rest2, &held2, &e), 0);
    assert_true(rest.n != rest2.n || memcmp(rest.item, rest2.item, rest.n * sizeof *rest.item) != 0);
    interactions_release(&rest);
    interactions_release(&held);
    interactions_release(&rest2);
    interactions_release(&held2);
    interactions_release(&d.train);
}

static void test_cut_by_time(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w);
    struct interactions rest, held;
    struct err e = ERR_INIT;
    d->cut = CUT_LATEST;
    assert_int_equal(dataset_cut(d, 0.3, 1, &rest, &held, &e), 0);
    expect_part(d, &rest, "u1: i1@10; u2: i1@5; u3: i2@7; u4: i5@1");
    expect_part(d, &held, "u1: i2@20; u2: i2@25");
    interactions_release(&rest);
    interactions_release(&held);
    dataset_free(d);
}

/* The validation part is cut as the test part was. */
static void expect_cut(struct split_config split, bool timed, double fraction, const char *rest_text,
                       const char *held_text)
{
    struct world w;
    struct interactions rest, held;
    struct err e = ERR_INIT;
    world_init_ids(&w, "user,item,ts\nu,a,1\nu,b,2\nu,c,3\nu,d,30\nv,a,11\nv,c,12\nv,e,13\nv,a,14\nw,b,20\n");
    w.config.data.events.label = NULL;
    w.config.data.events.time = timed ? "ts" : NULL;
    w.config.data.split = split;
    struct dataset *d = load(&w);
    assert_int_equal(dataset_cut(d, fraction, 1, &rest, &held, &e), 0);
    if (rest_text != NULL) {
        expect_part(d, &rest, rest_text);
        expect_part(d, &held, held_text);
    } else { /* at random, and at least one of each user stays */
        assert_true(rest.n >= 3 && rest.n < d->train.n);
        assert_true(rest.start[1] > 0 && rest.start[2] > rest.start[1] && rest.start[3] > rest.start[2]);
    }
    interactions_release(&rest);
    interactions_release(&held);
    dataset_free(d);
}

static void test_cut_mirrors_split(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct split_config last = {.method = SPLIT_LEAVE_LAST, .n = 1}, time = {.method = SPLIT_TIME, .fraction = 0.2};
    struct split_config none = {.method = SPLIT_NONE}, file = {.method = SPLIT_FILE};
    /* train: u a b c, v a c e, w b */
    expect_cut(last, true, 0.3, "u: a@1 b@2; v: a@11 c@12; w: b@20", "u: c@3; v: e@13");
    expect_cut(last, false, 0.3, "u: a b; v: a c; w: b", "u: c; v: e");
    last.n = 2; /* train: u a b, v a c, w b: nobody has more than two */
    expect_cut(last, true, 0.3, NULL, NULL);
    /* train: u a b c, v a c e a */
    expect_cut(time, true, 0.3, "u: a@1 b@2 c@3; v: a@11 c@12", "v: e@13");
    expect_cut(none, true, 0.3, "u: a@1 b@2 c@3; v: a@11 c@12 e@13", "u: d@30; w: b@20");
    expect_cut(none, false, 0.4, NULL, NULL);
    file.test = keep_path(&w, 3, files_write("test.csv", "user,item,ts\nu,e,31\nv,b,40\n"));
    expect_cut(file, true, 0.3, "u: a@1 b@2 c@3; v: a@11 c@12 e@13", "u: d@30; w: b@20");
    expect_cut(file, false, 0.4, NULL, NULL);
    files_write("test.csv", "user,item,ts\nu,e,30\nv,b,40\n"); /* not later than u's d */
    expect_cut(file, true, 0.4, NULL, NULL);
}

/* Where the last events of all users are more than the share, some users give theirs. */
static void test_cut_last_share(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5, 0);
    struct dataset d = {.n_users = 3000, .n_items = 1000000, .cut = CUT_LAST, .cut_last = 2};
    d.train = random_part(&rng, d.n_users, (uint32_t)d.n_items, 8, 0);
    struct interactions rest, held;
    struct err e = ERR_INIT;
    assert_int_equal(dataset_cut(&d, 0.1, 7, &rest, &held, &e), 0);
    double share = (double)held.n / (double)d.train.n;
    assert_true(share > 0.09 && share < 0.11);
    for (size_t u = 0; u < d.n_users; u++) {
        size_t all = d.train.start[u + 1] - d.train.start[u], n = held.start[u + 1] - held.start[u];
        size_t stay = rest.start[u + 1] - rest.start[u];
        assert_true(stay + n == all && (n == 0 || (n == 2 && all > 2)));
        assert_memory_equal(rest.item + rest.start[u], d.train.item + d.train.start[u], stay * sizeof(uint32_t));
        assert_memory_equal(held.item + held.start[u], d.train.item + d.train.start[u] + stay, n * sizeof(uint32_t));
    }
    interactions_release(&rest);
    interactions_release(&held);
    interactions_release(&d.train);
}

/* --- weights -------------------------------------------------------------------------------------------------------*/

static void expect_weights(const struct interactions *part, size_t n, const float *expected)
{
    assert_int_equal(part->n, n);
    assert_non_null(part->weight);
    assert_memory_equal(part->weight, expected, n * sizeof *expected);
}

/* Weights stay with their events through sorting, split and cut; 0 leaves an event out. */
static void test_weights(void **state)
{
    (void)state;
    struct world w;
    world_init_ids(&w, "user,item,ts,w\nu,c,3,3\nu,a,1,.25\nv,a,2,1e3\nu,z,9,0\nu,b,2,2\nv,b,9,7\nu,d,4,4\n");
    w.config.data.events.label = NULL;
    w.config.data.events.weight = "w";
    struct dataset *d = load(&w);
    static const float train[] = {.25F, 2, 3, 1000};
    expect_part(d, &d->train, "u: a@1 b@2 c@3; v: a@2");
    expect_weights(&d->train, 4, train);
    assert_null(d->test.weight);
    assert_int_equal(d->dropped_by_weight, 1);
    struct interactions rest, held;
    struct err e = ERR_INIT;
    assert_int_equal(dataset_cut(d, 0.3, 1, &rest, &held, &e), 0);
    static const float kept[] = {.25F, 2, 1000};
    expect_weights(&rest, 3, kept);
    assert_null(held.weight);
    interactions_release(&rest);
    interactions_release(&held);
    dataset_free(d);

    w.config.data.split = (struct split_config){.method = SPLIT_FILE}; /* whose file needs no weights */
    w.config.data.split.test = keep_path(&w, 3, files_write("test.csv", "user,item,ts\nu,d,5\nv,c,5\n"));
    d = load(&w);
    assert_int_equal(d->train.n, 6);
    expect_part(d, &d->test, "v: c@5");
    dataset_free(d);

    w.config.data.split.method = SPLIT_NONE;
    w.config.data.events.weight = NULL;
    d = load(&w);
    assert_null(d->train.weight);
    dataset_free(d);
}

static void test_bad_weights(void **state)
{
    (void)state;
    static const char *const bad[] = {"-1", "", "nan", "inf", "1e7", "heavy"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct world w;
        struct buf b = BUF_INIT;
        buf_printf(&b, "user,item,ts,w\nu,a,1,1\nu,b,2,%s\n", bad[i]);
        world_init_ids(&w, b.data);
        w.config.data.split.method = SPLIT_NONE;
        w.config.data.events.label = NULL;
        w.config.data.events.weight = "w";
        expect_error(&w, "events.csv:3: w: the weight is not a number from 0 to 1e6");
        w.config.data.max_bad_rows = 1;
        struct dataset *d = load(&w);
        expect_part(d, &d->train, "u: a@1");
        dataset_free(d);
        buf_release(&b);
    }
    struct world w;
    world_init_ids(&w, "user,item,ts,w\nu,a,1,0\n");
    w.config.data.events.label = NULL;
    w.config.data.events.weight = "w";
    expect_error(&w, "events.csv: no usable row (0 below the label's minimum, 1 of weight 0, 0 bad ones)");
    w.config.data.events.weight = "x";
    expect_error(&w, "events.csv: no column \"x\"");
}

/* --- history -------------------------------------------------------------------------------------------------------*/

static size_t oracle_history(const struct interactions *part, uint32_t user, size_t position, uint32_t last,
                             const int32_t *row, int32_t *out)
{
    size_t n = 0, end = part->start[user + 1];
    for (size_t i = part->start[user]; i < end; i++) {
        bool before = i < position;
        if (position < end && part->time != NULL) {
            before = part->time[i] < part->time[position];
        } else if (position < end) { /* no times: everything of other items */
            before = part->item[i] != part->item[position];
        }
        if (!before) {
            continue;
        }
        if (n == last) {
            memmove(out, out + 1, (n - 1) * sizeof *out);
            n--;
        }
        out[n++] = row[part->item[i]];
    }
    return n;
}

static void test_history_oracle(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 4, 0);
    int32_t row[9], got[8], expected[8];
    for (int i = 0; i < 9; i++) {
        row[i] = i == 4 ? SCHEMA_UNKNOWN : 100 + i;
    }
    for (uint32_t round = 0; round < 200; round++) {
        struct interactions part = random_part(&rng, 5, 9, 12, round % 4);
        uint32_t last = 1 + rng_below(&rng, 8);
        for (uint32_t u = 0; u < 5; u++) {
            for (size_t at = part.start[u]; at <= part.start[u + 1]; at++) {
                size_t n = interactions_history(&part, u, at, last, row, got);
                assert_int_equal(n, oracle_history(&part, u, at, last, row, expected));
                expect_indices(got, n, expected);
                for (size_t i = 0; part.time == NULL && at < part.start[u + 1] && i < n; i++) {
                    assert_int_not_equal(got[i], row[part.item[at]]); /* the item to find is never told */
                }
            }
        }
        interactions_release(&part);
    }
}

/* What is left after compacting says the same as what was there: histories and the rows of users, also of a cut part. */
static void test_compact(void **state)
{
    (void)state;
    for (uint32_t moments = 0; moments < 4; moments++) {
        struct rng rng;
        rng_seed(&rng, 9, moments);
        enum { USERS = 300, ITEMS = 9, LAST = 6 };
        struct train_config config = {.optimizer.early_stop.enabled = false};
        struct tower_spec no_features = {0};
        int32_t row[ITEMS] = {10, 11, 12, 13, 14, 15, 16, 17, 18}, got[LAST], expected[LAST];
        struct dataset d = {.n_users = USERS, .n_items = ITEMS, .cut = CUT_RANDOM};
        struct interactions rest[2], held[2];
        struct err e = ERR_INIT;
        d.train = random_part(&rng, USERS, ITEMS, 30, moments);
        d.unreachable = mem_array(USERS, sizeof *d.unreachable);
        assert_int_equal(feature_rows_init(&d.rows[SIDE_USER], &no_features), 0);
        assert_int_equal(dataset_cut(&d, 0.3, 1, &rest[0], &held[0], &e), 0);
        struct interactions copy;
        bool *none = mem_array(d.train.n, sizeof *none);
        assert_int_equal(interactions_partition(&d.train, none, USERS, &copy, &held[1], &e), 0);
        interactions_release(&held[1]);
        assert_int_equal(dataset_compact(&d, &config, &e), 0);
        assert_true(d.train.time == NULL && d.unreachable == NULL && (d.train.same != NULL) == (moments > 0));
        assert_int_equal(dataset_cut(&d, 0.3, 1, &rest[1], &held[1], &e), 0);
        const struct interactions *pairs[2][2] = {{&copy, &d.train}, {&rest[0], &rest[1]}};
        for (int p = 0; p < 2; p++) {
            for (uint32_t u = 0; u < USERS; u++) {
                assert_int_equal(pairs[p][0]->start[u], pairs[p][1]->start[u]);
                for (size_t at = pairs[p][0]->start[u]; at <= pairs[p][0]->start[u + 1]; at++) {
                    size_t n = interactions_history(pairs[p][0], u, at, LAST, row, expected);
                    assert_int_equal(interactions_history(pairs[p][1], u, at, LAST, row, got), n);
                    expect_indices(got, n, expected);
                }
            }
        }
        for (int i = 0; i < 2; i++) {
            interactions_release(&rest[i]);
            interactions_release(&held[i]);
        }
        interactions_release(&copy);
        interactions_release(&d.train);
        feature_rows_release(&d.rows[SIDE_USER]);
        mem_free(none);
    }
}

static void test_compact_keeps_times(void **state)
{
    (void)state;
    struct world w;
    struct interactions rest, held;
    struct err e = ERR_INIT;
    world_init(&w);
    w.config.data.split.method = SPLIT_NONE;
    w.config.optimizer.early_stop.enabled = true;
    struct dataset *d = load(&w);
    assert_int_equal(dataset_compact(d, &w.config, &e), 0);
    assert_true(d->train.time != NULL && d->rows[SIDE_USER].pack != NULL && d->rows[SIDE_ITEM].pack == NULL);
    assert_int_equal(dataset_cut(d, 0.2, 1, &rest, &held, &e), 0);
    expect_part(d, &held, "u1: i3@30"); /* u2's pair is a repetition */
    interactions_release(&rest);
    interactions_release(&held);
    w.config.optimizer.early_stop.enabled = false;
    assert_int_equal(dataset_compact(d, &w.config, &e), 0); /* again: nothing more but the times */
    assert_true(d->train.time == NULL && d->train.same != NULL);
    dataset_free(d);
}

/* --- bad input -----------------------------------------------------------------------------------------------------*/

static void test_bad_event_rows(void **state)
{
    (void)state;
    static const struct {
        const char *row, *message;
    } examples[] = {
        {",i,1,1", "events.csv:3: user: empty id"},
        {"u,,1,1", "events.csv:3: item: empty id"},
        {"u,\"a\nb\",1,1", "events.csv:3: item: has a control character"},
        {"u,\xff,1,1", "events.csv:3: item: not valid UTF-8"},
        {"u,i,yesterday,1", "events.csv:3: ts: neither a number of seconds nor an ISO 8601 date or time"},
        {"u,i,,1", "events.csv:3: ts: neither"},
        {"u,i,1700000000000000000,1", "events.csv:3: ts: the number of seconds is too large"},
        {"u,i,1,good", "events.csv:3: label: the label is not a finite number"},
        {"u,i,1", "events.csv:3: 3 fields, expected 4"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        struct world w;
        struct buf b = BUF_INIT;
        buf_printf(&b, "user,item,ts,label\nu1,i1,1,1\n%s\nu1,i2,2,1\n", examples[i].row);
        world_init_ids(&w, b.data);
        w.config.data.split.method = SPLIT_NONE;
        expect_error(&w, examples[i].message);
        w.config.data.max_bad_rows = 1;
        struct dataset *d = load(&w);
        assert_int_equal(d->bad_rows, 1);
        expect_part(d, &d->train, "u1: i1@1 i2@2");
        dataset_free(d);
        buf_release(&b);
    }
}

static void test_bad_table_rows(void **state)
{
    (void)state;
    static const struct {
        const char *row, *message;
    } examples[] = {
        {"u3,m,old,1,1,a", "users.csv:5: age: not a finite number: \"old\""},
        {"u3,m,1e99,1,1,a", "users.csv:5: age: not a finite number: \"1e99\""},
        {"u3,m,nan,1,1,a", "users.csv:5: age: not a finite number: \"nan\""},
        {"u3,m,1,1,1,\xc3(", "users.csv:5: topics: not valid UTF-8"},
        {"u1,m,1,1,1,a", "users.csv:5: user: \"u1\" has a row already, in line 3"},
        {",m,1,1,1,a", "users.csv:5: user: empty id"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        struct world w;
        struct buf b = BUF_INIT;
        world_init(&w);
        buf_add(&b, users_text, (size_t)(strstr(users_text, "u3,") - users_text));
        buf_puts(&b, examples[i].row);
        files_write("users.csv", b.data);
        expect_error(&w, examples[i].message);
        w.config.data.max_bad_rows = 1;
        struct dataset *d = load(&w); /* the first row of u1 is kept, u3 has none */
        assert_int_equal(d->bad_rows, 1);
        assert_int_equal(d->rows[SIDE_USER].columns[U_GENDER].index[0], 3);
        assert_int_equal(d->rows[SIDE_USER].columns[U_GENDER].index[2], SCHEMA_MISSING);
        dataset_free(d);
        buf_release(&b);
    }
}

static void test_errors(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    w.config.data.events.label_min = 5;
    expect_error(&w, "events.csv: no usable row (10 below the label's minimum, 0 of weight 0, 0 bad ones)");
    world_init(&w);
    w.config.data.split.n = 9;
    expect_error(&w, "events.csv: no test rows: no user has more than 9 events; use a smaller data.split.n");
    world_init_ids(&w, "user,item,ts,label\na,b,1,1\nc,d,1,1\n");
    w.config.data.split = (struct split_config){.method = SPLIT_TIME, .fraction = 0.5};
    expect_error(&w, "all events have the same time");
    w.config.data.events.time = NULL;
    expect_error(&w, "data.split: method time needs a time column");
    world_init(&w);
    w.config.data.users.path = NULL;
    expect_error(&w, "user feature gender: there is no table with such a column; set data.users: {path, id}");
    world_init(&w);
    w.item[I_PRICE].name = "cost";
    expect_error(&w, "items.csv: no column \"cost\"; there are: item, category, price");
    world_init(&w);
    w.config.data.events.time = "when";
    expect_error(&w, "events.csv: no column \"when\"");
    world_init(&w);
    w.config.data.split = (struct split_config){.method = SPLIT_FILE};
    w.config.data.split.test = keep_path(&w, 3, files_write("test.csv", "user,item,ts,label\n"));
    expect_error(&w, "test.csv: no usable row");
}

/* Constant, missing and rare values are legal: the schema says so without dividing by zero. */
static void test_useless_features(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    files_write("users.csv", "user,gender,age,spend,activity,topics\nu1,m,33.3,,5,a\nu2,m,33.3,,5,b\nu3,m,33.3,,5,c\n");
    w.user[U_GENDER].min_count = 9;
    struct dataset *d = load(&w);
    const struct feature *u = d->schema.towers[SIDE_USER].features;
    assert_int_equal(u[U_GENDER].vocab.count, 0);
    assert_float_equal(u[U_AGE].stddev, 1, 0);
    assert_float_equal(u[U_SPEND].stddev, 1, 0);
    assert_float_equal(u[U_SPEND].mean, 0, 0);
    assert_int_equal(u[U_ACTIVITY].n_bounds, 0);
    assert_int_equal(u[U_ACTIVITY].rows, 3);
    assert_int_equal(u[U_TOPICS].vocab.count, 0);
    assert_true(fabsf(d->rows[SIDE_USER].columns[U_AGE].number[0]) < 1e-5F);
    dataset_free(d);
}

/* Unix times a second apart: neither constant nor one bucket. */
static void test_large_numbers(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    files_write("users.csv", "user,gender,age,spend,activity,topics\nu1,m,1700000001,,1700000001,a\n"
                             "u2,m,1700000002,,1700000002,b\nu3,m,1700000003,,1700000003,c\n");
    struct dataset *d = load(&w);
    const struct feature *u = d->schema.towers[SIDE_USER].features;
    const struct feature_column *c = d->rows[SIDE_USER].columns;
    assert_true(u[U_AGE].mean > 1700000001 && u[U_AGE].stddev > 0.4 && u[U_AGE].stddev < 1);
    assert_true(c[U_AGE].number[0] < c[U_AGE].number[1] - 0.9F);
    assert_true(u[U_ACTIVITY].n_bounds >= 1 && c[U_ACTIVITY].index[0] != c[U_ACTIVITY].index[1]);
    dataset_free(d);
}

static void test_bounds_are_quantiles(void **state)
{
    (void)state;
    struct world w;
    struct buf events = BUF_INIT, users = BUF_INIT;
    buf_puts(&events, "user,item,ts,label\n");
    buf_puts(&users, "user,gender,age,spend,activity,topics\n");
    for (int i = 0; i < 1000; i++) { /* 0..999, and then as many zeros again */
        buf_printf(&events, "u%d,i,1,1\nv%d,i,1,1\n", i, i);
        buf_printf(&users, "u%d,m,,,%d,\nv%d,m,,,0,\n", i, (i * 7919) % 1000, i);
    }
    world_init(&w);
    files_write("events.csv", events.data);
    files_write("users.csv", users.data);
    w.config.data.split.method = SPLIT_NONE;
    w.user[U_ACTIVITY].buckets = 8;
    struct dataset *d = load(&w);
    const struct feature *f = &d->schema.towers[SIDE_USER].features[U_ACTIVITY];
    static const double bounds[] = {250, 500, 750}; /* 1,001 of 2,000 values are 0: the first octiles give no bound */
    assert_int_equal(f->n_bounds, 3);
    assert_memory_equal(f->bounds, bounds, sizeof bounds);
    dataset_free(d);
    buf_release(&events);
    buf_release(&users);
}

static void test_memory_failures(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    w.config.data.max_bad_rows = 1;
    w.config.negatives.allow_exposed = true;
    long n = 1;
    for (; n < 2000; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        struct dataset *d = dataset_load(&w.config, &e);
        mem_fail_at(0);
        if (d != NULL) {
            dataset_free(d);
            break;
        }
        assert_non_null(strstr(e.message, "memory"));
    }
    assert_true(n > 50 && n < 2000);
}

/* --- pairs of an evaluation ----------------------------------------------------------------------------------------*/

static void test_eval_file(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w); /* for its catalogue i1 i2 i3 i5 i6 */
    struct events_config columns = {.user = "u", .item = "i"};
    struct events_file test = {
        files_write("t.tsv", "u\ti\nb\ti3\na\ti1\nb\tx\nb\ti1\nb\ti3\nb\tx\nb\ty\n"), &columns, {.delimiter = "\t"}};
    struct events_file seen = {
        files_write("s.tsv", "u\ti\nc\ti1\nb\ti6\nb\tx\nb\ti6\n"), &columns, {.delimiter = "\t"}};
    struct idmap *users = idmap_new();
    struct interactions relevant, exclude;
    uint32_t *unreachable;
    struct err e = ERR_INIT;
    assert_int_equal(dataset_eval_file(&test, PAIRS_RELEVANT, &d->item_ids, users, &relevant, &unreachable, &e), 0);
    assert_int_equal(dataset_eval_file(&seen, PAIRS_SEEN, &d->item_ids, users, &exclude, NULL, &e), 0);
    assert_int_equal(idmap_count(users), 3); /* b, a, c */
    static const int32_t relevant_items[] = {2, 0, 0}, seen_items[] = {4, 4, 0};
    assert_int_equal(relevant.n, 3);
    assert_int_equal(relevant.start[1], 2);
    expect_indices((const int32_t *)relevant.item, 3, relevant_items);
    assert_int_equal(unreachable[0], 2);
    assert_int_equal(unreachable[1], 0);
    assert_int_equal(exclude.n, 3);
    assert_int_equal(exclude.start[1], 2);
    assert_int_equal(exclude.start[2], 2);
    assert_int_equal(exclude.start[3], 3);
    expect_indices((const int32_t *)exclude.item, 3, seen_items);
    test.path = files_path("absent");
    interactions_release(&relevant);
    assert_int_equal(dataset_eval_file(&test, PAIRS_RELEVANT, &d->item_ids, users, &relevant, NULL, &e), -1);
    assert_null(relevant.item);
    interactions_release(&exclude);
    mem_free(unreachable);
    idmap_free(users);
    dataset_free(d);
}

/* --- pairs for negatives -------------------------------------------------------------------------------------------*/

/* u1 and u2 as in the world; what is shown: before, in and after the test period, unknown users and items, pairs that
 * are train events, and repetitions. */
static const char shown_text[] = "user,item,ts,label\n"
                                 "u1,i1,10,1\nu1,i2,20,1\nu1,i3,30,1\nu2,i1,5,1\nu2,i2,40,1\n"
                                 "u1,i6,30,0\n" /* in u1's test period */
                                 "u1,i6,29,0\n" /* just before it */
                                 "u1,i6,1,0\n"
                                 "u1,i3,2,0\n"  /* the item of his test: what the future brings is not known */
                                 "u1,i2,2,0\n"  /* taken later, in train */
                                 "u2,i3,45,0\n" /* in u2's test period */
                                 "u2,i6,39,0\n"
                                 "u2,i9,6,0\n"  /* no such item in the catalogue */
                                 "u7,i1,6,0\n"; /* nor such a user */

static void test_exposed(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    files_write("events.csv", shown_text);
    w.config.negatives.allow_exposed = true;
    struct dataset *d = load(&w);
    expect_strings(&d->user_ids, "u1 u2");
    expect_strings(&d->item_ids, "i1 i2 i3 i6");
    expect_part(d, &d->train, "u1: i1@10 i2@20; u2: i1@5");
    expect_part(d, &d->exposed, "u1: i6 i3; u2: i6");
    assert_null(d->exposed.time);
    dataset_free(d);

    w.config.data.split = (struct split_config){.method = SPLIT_TIME, .fraction = 0.4}; /* from 30 on */
    d = load(&w);
    expect_part(d, &d->exposed, "u1: i6 i3");
    dataset_free(d);

    w.config.data.split.method = SPLIT_NONE;
    w.config.data.events.time = NULL;
    d = load(&w);
    expect_part(d, &d->exposed, "u1: i6; u2: i3 i6");
    dataset_free(d);

    w.config.data.split = (struct split_config){.method = SPLIT_LEAVE_LAST, .n = 1};
    expect_error(&w, "set data.events.time");
    w.config.negatives.allow_exposed = false;
    d = load(&w);
    assert_int_equal(d->exposed.n, 0);
    dataset_free(d);
}

static void test_pairs_file(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct dataset *d = load(&w); /* train: u1 i1 i2, u2 i1 i2, u3 i2, u4 i5 */
    struct interactions pairs;
    struct err e = ERR_INIT;
    const char *path = files_write("hard.csv", "item,user\ni3,u3\ni6,u1\ni1,u3\ni2,u3\ni3,u3\nx,u1\ni1,u8\n");
    assert_int_equal(dataset_read_pairs(d, &w.config, path, &pairs, &e), 0);
    expect_part(d, &pairs, "u1: i6; u3: i3 i1");
    interactions_release(&pairs);
    path = files_write("hard.csv", "item,user\nx,u1\ni1,u8\n");
    assert_int_equal(dataset_read_pairs(d, &w.config, path, &pairs, &e), -1);
    assert_non_null(strstr(e.message, "hard.csv: none of its 2 pairs has a user and an item of"));
    assert_null(pairs.item);
    err_clear(&e);
    path = files_write("hard.csv", "item,user\ni2,u1\n");
    assert_int_equal(dataset_read_pairs(d, &w.config, path, &pairs, &e), -1);
    assert_non_null(strstr(e.message, "nothing is left for negatives"));
    err_clear(&e);
    path = files_write("hard.csv", "item\ni2\n");
    assert_int_equal(dataset_read_pairs(d, &w.config, path, &pairs, &e), -1);
    assert_non_null(strstr(e.message, "hard.csv: no column \"user\""));
    path = files_write("hard.csv", "item,user\ni3,u3\ni6,u1\nx,u9\n");
    for (long n = 1;; n++) {
        struct err nomem = ERR_INIT;
        mem_fail_at(n);
        int result = dataset_read_pairs(d, &w.config, path, &pairs, &nomem);
        mem_fail_at(0);
        if (result == 0) {
            assert_true(n > 10);
            break;
        }
        assert_non_null(strstr(nomem.message, "memory"));
    }
    interactions_release(&pairs);
    dataset_free(d);
}

/* --- small rules ---------------------------------------------------------------------------------------------------*/

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t expected; /* INT64_MIN: refused */
    } examples[] = {
        {"0", 0},
        {"881250949", 881250949000000},
        {"-1.5", -1500000},
        {"1.2345678", 1234567},
        {"5.", 5000000},
        {"8.8e8", 880000000000000},
        {"1700000000000", 1700000000000000000},
        {"17000000000000", INT64_MIN},
        {"1970-01-01", 0},
        {"2026-11-24", 1795478400000000},
        {"2026-11-24T13:30:09Z", 1795527009000000},
        {"2026-11-24 13:30:09", 1795527009000000},
        {"2026-11-24T13:30", 1795527000000000},
        {"2026-11-24T13:30:09.25Z", 1795527009250000},
        {"2026-11-24T15:30:09+02:00", 1795527009000000},
        {"2026-11-24T15:30:09+0200", 1795527009000000},
        {"2026-11-24T11:30:09-02", 1795527009000000},
        {"2024-02-29", 1709164800000000},
        {"1969-12-31T23:59:59Z", -1000000},
        {"2023-02-29", INT64_MIN},
        {"2026-13-01", INT64_MIN},
        {"2026-11-24T24:00", INT64_MIN},
        {"2026-11-24T13:30:09+", INT64_MIN},
        {"2026-11-24T13:30:09.Z", INT64_MIN},
        {"2026-11-24T13:30:09Zz", INT64_MIN},
        {"2026-11-24Tx", INT64_MIN},
        {"2026-11-2", INT64_MIN},
        {"24.11.2026", INT64_MIN},
        {"", INT64_MIN},
        {"-", INT64_MIN},
        {"+5", 5000000},
        {" 5", INT64_MIN},
        {"0x10", INT64_MIN},
        {"inf", INT64_MIN},
        {"1e30", INT64_MIN},
    };
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        size_t n = strlen(examples[i].text);
        char *exact = malloc(n + 1); /* no terminator within reach of a sanitizer's eye */
        memcpy(exact, examples[i].text, n);
        int64_t got = 0;
        const char *reason = time_parse(exact, n, &got);
        if ((reason != NULL) != (examples[i].expected == INT64_MIN) ||
            (reason == NULL && got != examples[i].expected)) {
            fail_msg("%s: %s %lld", examples[i].text, reason != NULL ? reason : "", (long long)got);
        }
        free(exact);
    }
}

static void test_id_rules(void **state)
{
    (void)state;
    char text[300];
    memset(text, 'x', sizeof text);
    assert_null(id_check(text, 256));
    assert_non_null(id_check(text, 257));
    assert_non_null(id_check("", 0));
    assert_null(id_check("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 z", 11));
    static const char *const bad[] = {"\x1f",
                                      "\x7f",
                                      "\x80",
                                      "\xc3",
                                      "\xc0\xaf",
                                      "\xe0\x80\xaf",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf0\x80\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "a\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_non_null(id_check(bad[i], strlen(bad[i])));
    }
    assert_non_null(id_check("a\0b", 3));
}

static int compare_spans(const void *a, const void *b)
{
    return span_compare(a, b);
}

static void test_ids_number(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5, 0);
    struct idmap *ids = idmap_new();
    for (int i = 0; i < 500; i++) { /* many share their first eight bytes */
        char text[16] = "aaaaaaaaaaaaaaaa";
        size_t n = 1 + rng_below(&rng, 15);
        text[rng_below(&rng, 16)] = (char)('a' + rng_below(&rng, 3));
        text[rng_below(&rng, 16)] = "\x01\xc3z"[rng_below(&rng, 3)];
        idmap_add(ids, text, n);
    }
    uint32_t n = (uint32_t)idmap_count(ids), rank[500], members = 0;
    bool member[500];
    struct span sorted[500];
    for (uint32_t i = 0; i < n; i++) {
        member[i] = rng_below(&rng, 4) > 0;
        if (member[i]) {
            sorted[members++] = idmap_get(ids, i);
        }
    }
    qsort(sorted, members, sizeof *sorted, compare_spans);
    struct buf block = BUF_INIT;
    struct strtab table;
    struct err e = ERR_INIT;
    assert_int_equal(ids_number(ids, member, rank, &block, &table, &e), 0);
    assert_int_equal(table.count, members);
    bool taken[500] = {0};
    for (uint32_t i = 0; i < n; i++) {
        assert_true(rank[i] < n && !taken[rank[i]] && (rank[i] < members) == member[i]);
        taken[rank[i]] = true;
        struct span id = idmap_get(ids, i);
        if (member[i]) {
            assert_int_equal(span_compare(&sorted[rank[i]], &id), 0);
            assert_int_equal(strtab_find(&table, id.text, id.length), rank[i]);
        }
    }
    buf_release(&block);
    idmap_free(ids);
}

int main(void)
{
    log_setup(LOG_LEVEL_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),           cmocka_unit_test(test_learned_schema),
        cmocka_unit_test(test_encoded_rows),    cmocka_unit_test(test_history_rows),
        cmocka_unit_test(test_formats),         cmocka_unit_test(test_test_part_is_not_seen),
        cmocka_unit_test(test_test_only_user),  cmocka_unit_test(test_splits),
        cmocka_unit_test(test_mark_latest),     cmocka_unit_test(test_cut_at_random),
        cmocka_unit_test(test_cut_by_time),     cmocka_unit_test(test_cut_mirrors_split),
        cmocka_unit_test(test_cut_last_share),  cmocka_unit_test(test_weights),
        cmocka_unit_test(test_bad_weights),     cmocka_unit_test(test_history_oracle),
        cmocka_unit_test(test_compact),         cmocka_unit_test(test_compact_keeps_times),
        cmocka_unit_test(test_bad_event_rows),  cmocka_unit_test(test_bad_table_rows),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_useless_features),
        cmocka_unit_test(test_large_numbers),   cmocka_unit_test(test_bounds_are_quantiles),
        cmocka_unit_test(test_memory_failures), cmocka_unit_test(test_eval_file),
        cmocka_unit_test(test_exposed),         cmocka_unit_test(test_pairs_file),
        cmocka_unit_test(test_times),           cmocka_unit_test(test_id_rules),
        cmocka_unit_test(test_ids_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
