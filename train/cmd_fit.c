/*
 * recall-train fit: configuration -> data -> training -> evaluation -> index -> published bundle.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/command.h"
#include "train/export.h"
#include "train/fit.h"
#include "train/fit_assess.h"
#include "train/hard.h"
#include "train/index_build.h"
#include "train/report_figures.h"
#include "train/report_file.h"

static const char help[] =
    "usage: recall-train fit CONFIG.yaml [--init BUNDLE] [--resume] [--set key=value]... [--report FILE.json]\n"
    "\n"
    "Trains a two-tower model, evaluates it on the test part, builds the index, and publishes a bundle as\n"
    "<output.dir>/<version>, with <output.dir>/current pointing at it. Prints the published directory.\n"
    "\n"
    "  --init BUNDLE       begin with a published model instead of a random one: yesterday's, for today's data\n"
    "  --resume            go on from the checkpoint of a fit that did not end (<output.dir>/.checkpoint), to the "
    "same\n"
    "                      weights as if it had never been interrupted; without one, begin at the beginning\n"
    "  --set key=value     override a setting, e.g. --set optimizer.epochs=5 --set output.dir=/srv/models\n"
    "  --report FILE.json  write metrics, baselines, training and index figures, and beside it FILE.html, a page "
    "about\n"
    "                      them; - is stdout, without the page\n"
    "  --parameters        list every setting with type, range, default and meaning, tab-separated\n";

enum { MAX_SETS = 256 };

struct fit_options {
    const char *config, *report, *init;
    const char *sets[MAX_SETS];
    size_t n_sets;
    bool resume;
};

/* Everything that a fit makes on its way. */
struct fit_run {
    struct train_config *config;
    struct bundle *init;
    struct dataset *d;
    struct checkpointer *checkpoints;
    struct model *model;
    float *item_vectors;
    struct tower_ranker *ranker;
    float *queries;
    size_t n_queries;
    struct ann *index;
    json_t *train, *assessment, *index_record; /* assessment: members of the report */
    unsigned threads;
    char *published;
};

static int evaluate_model(struct fit_run *run, struct err *e)
{
    run->assessment = fit_assess(run->config, run->d, run->ranker, run->threads, e);
    return run->assessment == NULL ? -1 : 0;
}

/* Vectors of users spread over all: what the index will be asked for. */
static int make_queries(struct fit_run *run, struct err *e)
{
    const struct dataset *d = run->d;
    size_t dim = d->schema.towers[SIDE_USER].output_dim;
    run->n_queries = d->n_users < INDEX_QUERIES ? d->n_users : INDEX_QUERIES;
    run->queries = mem_array(run->n_queries * dim, sizeof *run->queries);
    if (run->queries == NULL) {
        return err_nomem(e);
    }
    for (size_t first = 0; first < run->n_queries; first += RANK_BLOCK) {
        uint32_t users[RANK_BLOCK];
        size_t n = run->n_queries - first < RANK_BLOCK ? run->n_queries - first : RANK_BLOCK;
        for (size_t i = 0; i < n; i++) {
            users[i] = (uint32_t)((first + i) * d->n_users / run->n_queries);
        }
        if (tower_ranker_vectors(run->ranker, 0, users, n, run->queries + first * dim, e) < 0) {
            return -1;
        }
    }
    return 0;
}

static int make_vectors(struct fit_run *run, struct err *e)
{
    const struct dataset *d = run->d;
    const struct tower *items = &run->model->towers[SIDE_ITEM];
    run->item_vectors = mem_array(d->n_items * items->spec->output_dim, sizeof *run->item_vectors);
    if (run->item_vectors == NULL) {
        return err_nomem(e);
    }
    if (embed_rows(items, d->schema.similarity, &d->rows[SIDE_ITEM], run->threads, run->item_vectors, e) < 0) {
        return -1;
    }
    run->ranker = tower_ranker_new(d, &d->train, &run->model->towers[SIDE_USER], run->item_vectors, run->threads, e);
    return run->ranker == NULL ? -1 : 0;
}

static int make_index(struct fit_run *run, struct err *e)
{
    const struct dataset *d = run->d;
    struct ann_vectors vectors = {run->item_vectors, d->n_items, d->schema.towers[SIDE_ITEM].output_dim};
    struct index_options options = {
        .engine = run->config->index.engine,
        .factory = strcmp(run->config->index.engine, "faiss") == 0 ? run->config->index.factory : "",
        .target_recall = run->config->index.target_recall,
        .threads = run->threads,
    };
    if (make_queries(run, e) < 0) {
        return -1;
    }
    run->index = index_build(&options, &vectors, run->queries, run->n_queries, &run->index_record, e);
    return run->index == NULL ? -1 : 0;
}

static int publish(struct fit_run *run, struct err *e)
{
    struct export x = {
        .config = run->config,
        .d = run->d,
        .model = run->model,
        .users = run->ranker,
        .item_vectors = run->item_vectors,
        .queries = run->queries,
        .n_queries = run->n_queries,
        .index = run->index,
        .index_record = run->index_record,
        .metrics = json_object_get(run->assessment, "metrics"),
        .baselines = json_object_get(run->assessment, "baselines"),
        .train = run->train,
    };
    run->published = export_bundle(&x, e);
    return run->published == NULL ? -1 : 0;
}

/* All that was measured, as docs/training.md lists it. */
static json_t *make_report(struct fit_run *run, struct err *e)
{
    const struct dataset *d = run->d;
    json_t *histogram = figure_histogram(d, run->ranker, run->item_vectors, run->config->seed, e);
    json_t *projection = histogram == NULL ? NULL : figure_projection(d, run->item_vectors, run->config->seed, e);
    json_t *manifest = projection == NULL ? NULL : report_read(run->published, e);
    if (manifest == NULL) {
        json_decref(histogram);
        json_decref(projection);
        return NULL;
    }
    json_t *report = json_pack("{s:s, s:O, s:O}", "bundle", run->published, "model",
                               json_object_get(manifest, "version"), "created", json_object_get(manifest, "created"));
    json_t *data =
        json_pack("{s:I, s:I, s:I, s:I, s:I}", "users", (json_int_t)d->n_users, "items", (json_int_t)d->n_items,
                  "train", (json_int_t)d->train.n, "test", (json_int_t)d->test.n, "bad_rows", (json_int_t)d->bad_rows);
    json_t *rest = json_pack("{s:o, s:o, s:O, s:O, s:o, s:o, s:s}", "data", data, "schema", schema_to_json(&d->schema),
                             "train", run->train, "index", run->index_record, "histogram", histogram, "projection",
                             projection, "config", run->config->text);
    if (report == NULL || rest == NULL || json_object_update(report, run->assessment) < 0 ||
        json_object_update(report, rest) < 0) {
        err_nomem(e);
        json_decref(report);
        report = NULL;
    }
    json_decref(manifest);
    json_decref(rest);
    return report;
}

static int write_report(struct fit_run *run, const char *path, struct err *e)
{
    json_t *report = make_report(run, e);
    int result = report == NULL ? -1 : report_write(path, report, e);
    json_decref(report);
    return result;
}

static int mine_hard_negatives(struct fit_run *run, struct err *e)
{
    bool mined = run->config->negatives.hard.source == HARD_MINED;
    return mined ? hard_mine(run->config, run->d, run->threads, &run->d->hard, e) : 0;
}

static int run_fit(struct fit_run *run, const struct fit_options *o, struct err *e)
{
    run->threads = run->config->threads > 0 ? run->config->threads : count_processors();
    if (check_report(o->report, e) < 0) {
        return -1;
    }
    if (o->init != NULL && (run->init = bundle_open(o->init, e)) == NULL) {
        return err_prefix(e, "--init");
    }
    const char *init = run->init == NULL ? NULL : run->init->fingerprint;
    run->d = dataset_load_like(run->config, run->init == NULL ? NULL : &run->init->schema, e);
    if (run->d == NULL || mine_hard_negatives(run, e) < 0 ||
        checkpointer_new(&run->checkpoints, run->config, run->d, run->threads, init, o->resume, e) < 0 ||
        dataset_compact(run->d, run->config, e) < 0) { /* last: the checkpointer takes checksums of all data */
        return -1;
    }
    const struct fit_job job = {run->config, run->d, run->threads, run->checkpoints, run->init};
    run->model = fit_model(&job, &run->train, e);
    if (run->model == NULL || make_vectors(run, e) < 0 || evaluate_model(run, e) < 0 || make_index(run, e) < 0 ||
        publish(run, e) < 0) {
        return -1;
    }
    checkpointer_finish(run->checkpoints);
    return o->report == NULL ? 0 : write_report(run, o->report, e);
}

static void release(struct fit_run *run)
{
    json_decref(run->train);
    json_decref(run->assessment);
    json_decref(run->index_record);
    checkpointer_free(run->checkpoints);
    ann_free(run->index);
    tower_ranker_free(run->ranker);
    model_free(run->model);
    mem_free(run->item_vectors);
    mem_free(run->queries);
    mem_free(run->published);
    dataset_free(run->d);
    bundle_free(run->init);
    train_config_free(run->config);
}

/* -1: go on; otherwise the exit status. */
static int parse_options(int argc, char **argv, struct fit_options *o)
{
    static const struct option longs[] = {{"set", required_argument, NULL, 's'},
                                          {"report", required_argument, NULL, 'r'},
                                          {"init", required_argument, NULL, 'i'},
                                          {"resume", no_argument, NULL, 'c'},
                                          {"parameters", no_argument, NULL, 'p'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        struct buf table = BUF_INIT;
        switch (c) {
        case 's':
            if (o->n_sets == MAX_SETS) {
                return command_usage("fit", "at most %d --set", MAX_SETS);
            }
            o->sets[o->n_sets++] = optarg;
            break;
        case 'r':
            o->report = optarg;
            break;
        case 'i':
            o->init = optarg;
            break;
        case 'c':
            o->resume = true;
            break;
        case 'p':
            train_config_describe(&table, false);
            fputs(table.data, stdout);
            buf_release(&table);
            return STATUS_DONE;
        case 'h':
            fputs(help, stdout);
            return STATUS_DONE;
        default:
            return command_bad_option("fit", c, argv);
        }
    }
    if (argc - optind != 1) {
        return command_usage("fit", "one configuration file is needed");
    }
    o->config = argv[optind];
    return -1;
}

int cmd_fit(int argc, char **argv)
{
    struct fit_options options = {0};
    struct fit_run run = {0};
    struct err e = ERR_INIT;
    int status = parse_options(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    struct buf problems = BUF_INIT;
    run.config = train_config_load(options.config, options.sets, options.n_sets, &problems);
    if (run.config == NULL) {
        fputs(problems.data, stderr);
        status = STATUS_FAILED;
    } else if (run_fit(&run, &options, &e) < 0) {
        status = command_failed(&e);
    } else {
        printf("%s\n", run.published);
        status = STATUS_DONE;
    }
    buf_release(&problems);
    release(&run);
    return status;
}
