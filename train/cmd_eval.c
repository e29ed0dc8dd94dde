/*
 * recall-train eval: a bundle's metrics on a file of user-item pairs, ranking the whole catalogue.
 *
 * The bundle says how its training data looked (the manifest's "data"): column names, delimiter, where the users' features
 * were. What is evaluated is the bundle as it stands, its own item vectors included, not a model retrained from somewhere.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bundle.h"
#include "core/fileio.h"
#include "core/idmap.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/assessment.h"
#include "train/baseline_item_cf.h"
#include "train/command.h"
#include "train/csv.h"
#include "train/dataset.h"
#include "train/report_file.h"
#include "train/slices_bundle.h"

static const char help[] =
    "usage: recall-train eval BUNDLE --test FILE [--exclude FILE] [--users FILE] [--k 10,20,50,100]\n"
    "                         [--slices NAME,NAME] [--max-users N] [--threads N] [--report FILE.json]\n"
    "\n"
    "Ranks all items for every user of the test file and prints the metrics, tab-separated.\n"
    "\n"
    "  --test FILE     pairs that should be found; columns and delimiter as in the training events\n"
    "  --exclude FILE  pairs already seen (usually the train events): left out of the ranking, and the source of\n"
    "                  histories, of the baselines, and of what is new and what is popular\n"
    "  --users FILE    the users' features; default: the users file of the training configuration, if it is still "
    "there\n"
    "  --k LIST        cut-offs of recall, ndcg, hit rate and coverage, ascending, up to 1000\n"
    "  --slices LIST   categorical features to break metrics down by in the report; default: those with at most 30 "
    "values\n"
    "  --max-users N   rank for a random sample of N users\n"
    "  --report FILE.json  write everything, and beside it FILE.html, a page about it\n"
    "  --protocol full the whole catalogue is ranked; there is no other\n";

/* Krichene & Rendle, KDD 2020. */
static const char no_sampling[] =
    "--protocol sampled is not offered: metrics among sampled negatives can order models otherwise than metrics on the "
    "whole catalogue do (Krichene & Rendle, KDD 2020), and ranking everything is affordable; --max-users samples "
    "users, "
    "which is harmless";

enum { MAX_SLICES = 64, EVAL_SEED = 1 };

struct options {
    const char *bundle, *test, *exclude, *users, *report;
    struct metric_cutoffs at;
    unsigned threads;
    size_t max_users;
    char *slices[MAX_SLICES + 1]; /* NULL-terminated; parts of the argument */
};

static int parse_cutoffs(const char *text, struct metric_cutoffs *at)
{
    at->n = 0;
    for (const char *p = text;; p++) {
        char *end;
        unsigned long k = strtoul(p, &end, 10);
        uint32_t before = at->n > 0 ? at->k[at->n - 1] : 0;
        if (end == p || *p < '0' || *p > '9' || k <= before || k > METRIC_MAX_K || at->n == METRIC_MAX_KS ||
            (*end != ',' && *end != '\0')) {
            command_usage("eval", "--k must be at most %d ascending numbers up to %d, not '%s'", METRIC_MAX_KS,
                          METRIC_MAX_K, text);
            return -1;
        }
        at->k[at->n++] = (uint32_t)k;
        if (*end == '\0') {
            return 0;
        }
        p = end;
    }
}

/* Cuts the argument at its commas. */
static int parse_slices(char *text, struct options *o)
{
    size_t n = 0;
    for (char *name = strtok(text, ","); name != NULL; name = strtok(NULL, ",")) {
        if (n == MAX_SLICES) {
            return command_usage("eval", "--slices takes at most %d names", MAX_SLICES);
        }
        o->slices[n++] = name;
    }
    return n == 0 ? command_usage("eval", "--slices needs names of features, like gender,category") : STATUS_DONE;
}

static int parse_protocol(const char *word)
{
    return strcmp(word, "full") == 0      ? STATUS_DONE
           : strcmp(word, "sampled") == 0 ? command_usage("eval", "%s", no_sampling)
                                          : command_usage("eval", "--protocol must be full, not '%s'", word);
}

/* -1: go on; otherwise the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"test", required_argument, NULL, 't'},
                                          {"exclude", required_argument, NULL, 'x'},
                                          {"users", required_argument, NULL, 'u'},
                                          {"k", required_argument, NULL, 'k'},
                                          {"report", required_argument, NULL, 'r'},
                                          {"threads", required_argument, NULL, 'n'},
                                          {"slices", required_argument, NULL, 's'},
                                          {"max-users", required_argument, NULL, 'm'},
                                          {"protocol", required_argument, NULL, 'p'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        unsigned long long n = 0;
        switch (c) {
        case 't':
            o->test = optarg;
            break;
        case 'x':
            o->exclude = optarg;
            break;
        case 'u':
            o->users = optarg;
            break;
        case 'r':
            o->report = optarg;
            break;
        case 'k':
            if (parse_cutoffs(optarg, &o->at) < 0) {
                return STATUS_USAGE;
            }
            break;
        case 'n':
            if (parse_count("eval", "--threads", optarg, 1, 1024, &n) < 0) {
                return STATUS_USAGE;
            }
            o->threads = (unsigned)n;
            break;
        case 's':
            if (parse_slices(optarg, o) != STATUS_DONE) {
                return STATUS_USAGE;
            }
            break;
        case 'm':
            if (parse_count("eval", "--max-users", optarg, 1, UINT32_MAX, &n) < 0) {
                return STATUS_USAGE;
            }
            o->max_users = (size_t)n;
            break;
        case 'p':
            if (parse_protocol(optarg) != STATUS_DONE) {
                return STATUS_USAGE;
            }
            break;
        case 'h':
            fputs(help, stdout);
            return STATUS_DONE;
        default:
            return command_bad_option("eval", c, argv);
        }
    }
    if (argc - optind != 1 || o->test == NULL) {
        return command_usage("eval", "one bundle and --test are needed");
    }
    o->bundle = argv[optind];
    return -1;
}

/* --- how the data looks ---------------------------------------------------------------------------------------------*/

/* The manifest's "data", as the readers want it. Strings are borrowed from the manifest. */
struct layout {
    struct events_config events;
    const char *users_path, *users_id, *delimiter;
    const char **columns_events, **columns_users; /* NULL: a header names them */
};

static const char *member(const json_t *data, const char *name, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(data, name));
    return text == NULL ? otherwise : text;
}

/* A NULL-terminated list of the strings of a JSON array, or NULL. */
static const char **names_of(const json_t *list)
{
    size_t n = json_array_size(list);
    const char **names = n == 0 ? NULL : mem_array(n + 1, sizeof *names);
    for (size_t i = 0; names != NULL && i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        names[i] = name == NULL ? "" : name;
    }
    return names;
}

static void layout_init(struct layout *l, const struct bundle *b)
{
    const json_t *data = json_object_get(b->manifest, "data");
    const json_t *label_min = json_object_get(data, "label_min");
    *l = (struct layout){0};
    l->events.user = (char *)(uintptr_t)member(data, "user", "user_id");
    l->events.item = (char *)(uintptr_t)member(data, "item", "item_id");
    l->events.time = (char *)(uintptr_t)member(data, "time", NULL);
    l->events.label = (char *)(uintptr_t)member(data, "label", NULL);
    l->events.label_min = json_is_number(label_min) ? json_number_value(label_min) : 1.0;
    l->delimiter = member(data, "delimiter", ",");
    l->users_path = member(data, "users", NULL);
    l->users_id = member(data, "users_id", l->events.user);
    l->columns_events = names_of(json_object_get(data, "columns_events"));
    l->columns_users = names_of(json_object_get(data, "columns_users"));
}

static void layout_release(struct layout *l)
{
    mem_free((void *)l->columns_events);
    mem_free((void *)l->columns_users);
}

/* --- users ------------------------------------------------------------------------------------------------------------*/

/* The bundle seen as a dataset: what the tower ranker needs of one. */
struct run {
    struct bundle *bundle;
    struct layout layout;
    struct idmap *users;
    struct dataset d; /* only what tower_ranker reads */
    struct interactions relevant, seen;
    uint32_t *unreachable;
    uint32_t *item_count; /* of the excluded pairs; NULL without */
    struct slicing slicing;
    struct tower_ranker *ranker;
};

static bool needs_table(const struct tower_spec *spec)
{
    for (uint32_t i = 0; i < spec->n_features; i++) {
        if (spec->features[i].type != FEATURE_ID && spec->features[i].type != FEATURE_SEQUENCE) {
            return true;
        }
    }
    return false;
}

static struct value text_value(const char *text, size_t n)
{
    return (struct value){.kind = n > 0 ? VALUE_TEXT : VALUE_MISSING, .text = text, .length = n};
}

/* Encodes the rows of the users file that belong to users of the test, in file order; row_of[user] says where. */
static int encode_table(struct run *run, struct csv *csv, struct feature_rows *rows, uint32_t *row_of, struct err *e)
{
    const struct tower_spec *spec = rows->spec;
    const size_t n_users = run->d.n_users; /* others are in the map for what they have seen */
    int field[SCHEMA_MAX_FEATURES];
    int id = csv_column(csv, run->layout.users_id, e);
    for (uint32_t i = 0; i < spec->n_features && id >= 0; i++) {
        const struct feature *f = &spec->features[i];
        field[i] = f->type == FEATURE_ID ? id : f->type == FEATURE_SEQUENCE ? -1 : csv_column(csv, f->name, e);
        if (field[i] < 0 && f->type != FEATURE_SEQUENCE) {
            return -1;
        }
    }
    const struct span *fields;
    int more = id < 0 ? -1 : 0;
    while (id >= 0 && (more = csv_next(csv, &fields, e)) > 0) {
        struct value values[SCHEMA_MAX_FEATURES];
        struct feature_error fe;
        uint32_t user = idmap_find(run->users, fields[id].text, fields[id].length);
        if (user == IDMAP_NONE || user >= n_users || row_of[user] != UINT32_MAX) {
            continue;
        }
        for (uint32_t i = 0; i < spec->n_features; i++) {
            values[i] = field[i] < 0 ? text_value("", 0) : text_value(fields[field[i]].text, fields[field[i]].length);
        }
        if (features_add(rows, values, &fe) == 0) {
            row_of[user] = (uint32_t)(rows->n - 1);
        } else if (csv_reject(csv, fe.feature < 0 ? -1 : field[fe.feature], fe.message, e) < 0) {
            return -1;
        }
    }
    return more;
}

static int read_table(struct run *run, const char *path, struct feature_rows *rows, uint32_t *row_of, struct err *e)
{
    struct csv_options format = {.delimiter = run->layout.delimiter, .columns = run->layout.columns_users};
    struct csv *csv = csv_open(path, &format, e);
    int result = csv == NULL ? -1 : encode_table(run, csv, rows, row_of, e);
    csv_close(csv);
    return result;
}

/* All users' rows in user order: from the table where it has them, else from the id alone. */
static int order_rows(struct run *run, const struct feature_rows *table, const uint32_t *row_of, struct err *e)
{
    struct feature_rows *rows = &run->d.rows[SIDE_USER];
    size_t without = 0;
    for (uint32_t u = 0; u < run->d.n_users; u++) {
        struct value values[SCHEMA_MAX_FEATURES] = {{.kind = VALUE_MISSING}};
        struct feature_error fe;
        if (row_of[u] != UINT32_MAX) {
            if (feature_rows_copy(rows, table, row_of[u]) < 0) {
                return err_nomem(e);
            }
            continue;
        }
        without++;
        struct span id = idmap_get(run->users, u);
        for (uint32_t i = 0; i < rows->spec->n_features; i++) {
            values[i] = rows->spec->features[i].type == FEATURE_ID ? text_value(id.text, id.length) : text_value("", 0);
        }
        if (features_add(rows, values, &fe) < 0) {
            return err_set(e, "user %.*s: %s", (int)id.length, id.text, fe.message);
        }
    }
    if (without > 0 && needs_table(rows->spec)) {
        log_warn("%zu of %zu test users have no row in the users file: their features count as missing", without,
                 run->d.n_users);
    }
    return 0;
}

static int encode_users(struct run *run, const char *path, struct err *e)
{
    const struct tower_spec *spec = &run->bundle->schema.towers[SIDE_USER];
    struct feature_rows table;
    uint32_t *row_of = mem_array(run->d.n_users, sizeof *row_of);
    int result = -1;
    if (feature_rows_init(&table, spec) < 0 || row_of == NULL || feature_rows_init(&run->d.rows[SIDE_USER], spec) < 0) {
        err_nomem(e);
        goto out;
    }
    memset(row_of, 0xff, run->d.n_users * sizeof *row_of);
    if (path == NULL && run->layout.users_path != NULL && file_exists(run->layout.users_path)) {
        path = run->layout.users_path;
    }
    if (path == NULL && needs_table(spec)) {
        err_set(e, "the user tower reads features of a users file, and %s is not there; say --users FILE",
                run->layout.users_path == NULL ? "none" : run->layout.users_path);
        goto out;
    }
    if (path != NULL && needs_table(spec) && read_table(run, path, &table, row_of, e) < 0) {
        goto out;
    }
    result = order_rows(run, &table, row_of, e);
out:
    mem_free(row_of);
    feature_rows_release(&table);
    return result;
}

/* --- the rest ---------------------------------------------------------------------------------------------------------*/

static int read_pairs(struct run *run, const struct options *o, struct err *e)
{
    struct events_file file = {
        .path = o->test,
        .columns = &run->layout.events,
        .format = {.delimiter = run->layout.delimiter, .columns = run->layout.columns_events},
    };
    const struct strtab *items = &run->bundle->item_ids;
    if (dataset_eval_file(&file, PAIRS_RELEVANT, items, run->users, &run->relevant, &run->unreachable, e) < 0) {
        return -1;
    }
    run->d.n_users = idmap_count(run->users); /* those of the test come first */
    file.path = o->exclude;
    return o->exclude == NULL ? 0 : dataset_eval_file(&file, PAIRS_SEEN, items, run->users, &run->seen, NULL, e);
}

/* What the excluded pairs say: how popular items are, and which users and items are new. */
static int count_items(struct run *run, struct err *e)
{
    run->item_count = interactions_count_items(&run->seen, run->d.n_items);
    if (run->item_count == NULL) {
        return err_nomem(e);
    }
    return slicing_add_events(&run->slicing, run->seen.start, run->d.n_users, run->item_count, run->d.n_items, e);
}

static void print_metrics(const json_t *report)
{
    const char *key, *name;
    json_t *value, *of;
    const json_t *baselines = json_object_get(report, "baselines");
    printf("metric\tmodel\tlow\thigh");
    json_object_foreach((json_t *)(uintptr_t)baselines, name, of)
    {
        printf("\t%s", name);
    }
    printf("\n");
    json_object_foreach(json_object_get(report, "metrics"), key, value)
    {
        const json_t *ci = json_object_get(json_object_get(report, "metrics_ci"), key);
        printf("%s\t%.6g", key, json_number_value(value));
        if (json_is_array(ci)) {
            printf("\t%.6g\t%.6g", json_number_value(json_array_get(ci, 0)), json_number_value(json_array_get(ci, 1)));
        } else {
            printf("\t\t"); /* no mean over users, or too few of them */
        }
        json_object_foreach((json_t *)(uintptr_t)baselines, name, of)
        {
            printf("\t%.6g", json_number_value(json_object_get(of, key)));
        }
        printf("\n");
    }
}

static int assess_baselines(struct run *run, const struct options *o, struct assessment *a, struct err *e)
{
    struct ranker popularity = popularity_ranker(run->item_count);
    struct item_cf_options options = item_cf_defaults(run->d.n_items, EVAL_SEED, o->threads);
    if (assessment_add(a, "popularity", &popularity, e) < 0) {
        return -1;
    }
    struct item_cf *cf = item_cf_new(&run->seen, idmap_count(run->users), run->d.n_items, run->item_count, &options, e);
    struct ranker item_cf = item_cf_ranker(cf);
    int result = cf == NULL ? -1 : assessment_add(a, "item_cf", &item_cf, e);
    item_cf_free(cf);
    return result;
}

static json_t *assess(struct run *run, const struct options *o, struct assessment *a, struct err *e)
{
    struct ranker model = tower_ranker_of(run->ranker);
    if (assessment_add(a, "model", &model, e) < 0 || (o->exclude != NULL && assess_baselines(run, o, a, e) < 0)) {
        return NULL;
    }
    return assessment_report(a, &run->slicing, e);
}

/* Everything is read: ranks, and prints. */
static int report_bundle(struct run *run, const struct options *o, struct err *e)
{
    struct evaluation ev = {
        .n_users = run->d.n_users,
        .n_items = run->d.n_items,
        .seen = o->exclude == NULL ? NULL : &run->seen,
        .relevant = &run->relevant,
        .unreachable = run->unreachable,
        .max_users = o->max_users,
        .seed = EVAL_SEED,
        .at = o->at,
        .threads = o->threads,
    };
    struct assessment *a = assessment_new(&ev, run->item_count, e);
    json_t *found = a == NULL ? NULL : assess(run, o, a, e);
    json_t *report = found == NULL ? NULL : json_pack("{s:s}", "model", run->bundle->version);
    int result = -1;
    if (found != NULL && json_object_update(report, found) < 0) {
        err_nomem(e);
    } else if (found != NULL) {
        print_metrics(report);
        result = o->report == NULL ? 0 : report_write(o->report, report, e);
    }
    json_decref(report);
    json_decref(found);
    assessment_free(a);
    return result;
}

/* Names that nothing can be cut by are an error before anything is ranked. */
static int check_slices(const struct bundle *b, char *const *names, struct err *e)
{
    for (size_t i = 0; names != NULL && names[i] != NULL; i++) {
        int user = tower_spec_find(&b->schema.towers[SIDE_USER], names[i]);
        int item = tower_spec_find(&b->schema.towers[SIDE_ITEM], names[i]);
        bool by_user = user >= 0 && slicing_is_category(&b->schema.towers[SIDE_USER].features[user]);
        bool by_item = item >= 0 && slicing_has_attribute(b, &b->schema.towers[SIDE_ITEM].features[item]);
        if (!by_user && !by_item) {
            return err_set(e, "--slices: %s is not a category of users, or of items with their values in the bundle",
                           names[i]);
        }
    }
    return 0;
}

static int evaluate_bundle(struct run *run, const struct options *o, struct err *e)
{
    const struct bundle *b = run->bundle;
    if (read_pairs(run, o, e) < 0) {
        return -1;
    }
    run->d.schema = b->schema; /* a borrowed copy: the bundle stays its owner */
    run->d.n_items = b->n_items;
    run->d.item_ids = b->item_ids;
    char *const *names = o->slices[0] == NULL ? NULL : o->slices;
    if (check_slices(b, names, e) < 0 || encode_users(run, o->users, e) < 0 || dataset_map_history(&run->d, e) < 0 ||
        (o->exclude != NULL && count_items(run, e) < 0)) {
        return -1;
    }
    if (slicing_add_features(&run->slicing, SIDE_USER, &run->d.rows[SIDE_USER], names) < 0) {
        return err_nomem(e);
    }
    if (slicing_add_attributes(&run->slicing, b, names, e) < 0) {
        return -1;
    }
    run->ranker = tower_ranker_new(&run->d, o->exclude == NULL ? NULL : &run->seen, &b->towers[SIDE_USER],
                                   b->item_vectors, o->threads, e);
    return run->ranker == NULL ? -1 : report_bundle(run, o, e);
}

int cmd_eval(int argc, char **argv)
{
    struct options options = {.at = metric_default_cutoffs, .threads = count_processors()};
    struct run run = {0};
    struct err e = ERR_INIT;
    int status = parse_options(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    run.users = idmap_new();
    run.bundle = run.users == NULL || check_report(options.report, &e) < 0 ? NULL : bundle_open(options.bundle, &e);
    if (run.bundle == NULL) {
        status = command_failed(&e);
    } else {
        layout_init(&run.layout, run.bundle);
        status = evaluate_bundle(&run, &options, &e) < 0 ? command_failed(&e) : STATUS_DONE;
        layout_release(&run.layout);
    }
    interactions_release(&run.relevant);
    interactions_release(&run.seen);
    mem_free(run.unreachable);
    mem_free(run.item_count);
    slicing_release(&run.slicing);
    tower_ranker_free(run.ranker);
    mem_free(run.d.history_row);
    if (run.d.rows[SIDE_USER].columns != NULL) {
        feature_rows_release(&run.d.rows[SIDE_USER]);
    }
    bundle_free(run.bundle);
    idmap_free(run.users);
    return status;
}
