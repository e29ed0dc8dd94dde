/*
 * recall-train index: the same model under another index.
 *
 * A published bundle is never changed: a new one is written beside it, with everything but the index linked or copied,
 * and takes its place in one step: a link (models/current) is pointed at the new directory; a directory itself is
 * exchanged with it by renameat2(RENAME_EXCHANGE), and the old one, then under the new one's name, is renamed out of
 * sight before it is removed: whatever has a bundle's name is a whole bundle.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bundle.h"
#include "core/fileio.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/bundle_writer.h"
#include "train/command.h"
#include "train/export.h"
#include "train/index_build.h"

static const char help[] =
    "usage: recall-train index BUNDLE [--engine flat|faiss|native] [--factory STR] [--target-recall R] [--threads N]\n"
    "                          [--report FILE.json]\n"
    "\n"
    "Builds another index over a bundle's item vectors, finds the search effort that reaches the recall against the "
    "exact\n"
    "engine, and publishes the result in the bundle's place. What is not given stays as the bundle has it; a factory "
    "is\n"
    "faiss's. A recall that no effort reaches is an error, and the bundle stays as it is.\n";

struct options {
    const char *bundle, *report;
    struct index_options index;
};

static int parse_recall(const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    if (*end != '\0' || !(*value > 0 && *value <= 1)) {
        command_usage("index", "--target-recall must be above 0 and at most 1, not '%s'", text);
        return -1;
    }
    return 0;
}

/* -1: go on; otherwise the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"engine", required_argument, NULL, 'e'},
                                          {"factory", required_argument, NULL, 'f'},
                                          {"target-recall", required_argument, NULL, 't'},
                                          {"threads", required_argument, NULL, 'n'},
                                          {"report", required_argument, NULL, 'r'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        unsigned long long n = 0;
        switch (c) {
        case 'e':
            o->index.engine = optarg;
            if (word_find(ann_engine_names, optarg) < 0) {
                return command_usage("index", "no engine '%s'", optarg);
            }
            break;
        case 'f':
            o->index.factory = optarg;
            break;
        case 't':
            if (parse_recall(optarg, &o->index.target_recall) < 0) {
                return STATUS_USAGE;
            }
            break;
        case 'n':
            if (parse_count("index", "--threads", optarg, 1, 1024, &n) < 0) {
                return STATUS_USAGE;
            }
            o->index.threads = (unsigned)n;
            break;
        case 'r':
            o->report = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return STATUS_DONE;
        default:
            return command_bad_option("index", c, argv);
        }
    }
    if (argc - optind != 1) {
        return command_usage("index", "one bundle is needed");
    }
    o->bundle = argv[optind];
    return -1;
}

/* Links a file of the old bundle into the new one; copies it where links are not possible. */
static int carry_over(struct bundle_writer *w, const struct bundle *b, const char *name, struct err *e)
{
    char *from = path_join(b->dir, name);
    char *to = bundle_writer_add(w, name, e);
    struct file_map map = {0};
    int result = from == NULL || to == NULL ? err_nomem(e) : 0;
    if (result == 0 && link(from, to) < 0) {
        result = file_map_open(&map, from, e) < 0 ? -1 : file_write(to, map.data, map.size, e);
        file_map_close(&map);
    }
    mem_free(from);
    mem_free(to);
    return result;
}

static int carry_all(struct bundle_writer *w, const struct bundle *b, struct err *e)
{
    const char *name;
    json_t *unused;
    const char *index = json_string_value(json_object_get(json_object_get(b->manifest, "index"), "file"));
    json_object_foreach(json_object_get(b->manifest, "files"), name, unused)
    {
        if ((index == NULL || strcmp(name, index) != 0) && carry_over(w, b, name, e) < 0) {
            return -1;
        }
    }
    return 0;
}

/* User vectors to tune on: the bundle's own, or without them item vectors. */
static int load_queries(const struct bundle *b, struct file_map *map, const float **queries, size_t *n, struct err *e)
{
    char *path = path_join(b->dir, "queries.f32");
    int result = 0;
    if (path == NULL) {
        return err_nomem(e);
    }
    if (json_object_get(json_object_get(b->manifest, "files"), "queries.f32") != NULL) {
        result = file_map_open(map, path, e);
        *queries = (const float *)(const void *)map->data;
        *n = map->size / (b->dim * sizeof(float));
    }
    if (result == 0 && *n == 0) {
        log_warn("the bundle has no user vectors to tune the index with (queries.f32); using item vectors");
        *queries = b->item_vectors;
        *n = b->n_items < INDEX_QUERIES ? b->n_items : INDEX_QUERIES;
    }
    mem_free(path);
    return result;
}

/* True for a link, also when written as "current/". */
static bool is_link(const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    char *name = mem_strndup(path, n);
    bool link = name != NULL && lstat(name, &st) == 0 && S_ISLNK(st.st_mode);
    mem_free(name);
    return link;
}

/* Puts the new bundle where the old one was; *published becomes where it is. */
static int take_place(struct bundle_writer *w, const char *path, const struct bundle *old, char **published,
                      struct err *e)
{
    if (is_link(path)) {
        return publish_link(*published, path, e);
    }
    if (renameat2(AT_FDCWD, *published, AT_FDCWD, old->dir, RENAME_EXCHANGE) < 0) {
        return err_set(e, "%s: cannot exchange with the new bundle %s: %s; publish that one with recall-train publish",
                       path, *published, strerror(errno));
    }
    int result = bundle_writer_discard(w, *published, e);
    mem_free(*published);
    *published = mem_strdup(old->dir);
    return *published == NULL ? err_nomem(e) : result;
}

/* A manifest for the new bundle: the old one with another index. */
static json_t *new_manifest(const struct bundle *b, json_t *record)
{
    json_t *manifest = json_copy(b->manifest);
    if (manifest != NULL && json_object_set(manifest, "index", record) < 0) {
        json_decref(manifest);
        return NULL;
    }
    return manifest;
}

/* Writes the new bundle and puts it in its place. Returns where it is (mem_free), or NULL. */
static char *write_bundle(const char *path, const struct bundle *b, const struct ann *index, json_t *record,
                          struct err *e)
{
    const char *slash = strrchr(b->dir, '/');
    char *models = mem_strndup(b->dir, slash == b->dir ? 1 : (size_t)(slash - b->dir));
    struct bundle_writer *w = models == NULL ? NULL : bundle_writer_new(models, e);
    json_t *manifest = NULL;
    char *published = NULL;
    int result = models == NULL ? err_nomem(e) : -1;
    if (w != NULL && carry_all(w, b, e) == 0 && export_index(w, index, record, e) == 0) {
        manifest = new_manifest(b, record);
        if (manifest == NULL) {
            err_nomem(e);
        } else if (bundle_writer_finish(w, manifest, &published, e) == 0) {
            result = take_place(w, path, b, &published, e);
        }
    }
    if (result < 0) {
        mem_free(published);
        published = NULL;
    }
    json_decref(manifest);
    bundle_writer_free(w);
    mem_free(models);
    return published;
}

static int set_defaults(struct options *o, const struct bundle *b, struct err *e)
{
    const json_t *record = json_object_get(b->manifest, "index");
    double target = json_number_value(json_object_get(record, "target_recall"));
    if (o->index.engine == NULL) {
        o->index.engine = o->index.factory != NULL ? "faiss" : b->index_engine;
    }
    bool same_engine = strcmp(o->index.engine, b->index_engine) == 0;
    if (o->index.factory != NULL && strcmp(o->index.engine, "faiss") != 0) {
        return err_set(e, "--factory is for faiss, and the engine is %s; say --engine faiss, or no --factory",
                       o->index.engine);
    }
    if (o->index.factory == NULL) {
        o->index.factory = same_engine ? b->index_factory : strcmp(o->index.engine, "faiss") == 0 ? "HNSW32" : "";
    }
    if (o->index.target_recall <= 0) {
        o->index.target_recall = target > 0 && target <= 1 ? target : 0.98;
    }
    if (o->index.threads == 0) {
        o->index.threads = count_processors();
    }
    return 0;
}

static int run_index(struct options *o, struct err *e)
{
    struct file_map map = {0};
    const float *queries = NULL;
    size_t n_queries = 0;
    struct ann *index = NULL;
    json_t *record = NULL;
    char *published = NULL;
    int result = -1;
    struct bundle *b = check_report(o->report, e) < 0 ? NULL : bundle_open(o->bundle, e);
    if (b == NULL || load_queries(b, &map, &queries, &n_queries, e) < 0) {
        goto out;
    }
    if (set_defaults(o, b, e) < 0) {
        goto out;
    }
    struct ann_vectors vectors = {b->item_vectors, b->n_items, b->dim};
    index = index_build(&o->index, &vectors, queries, n_queries, &record, e);
    published = index == NULL ? NULL : write_bundle(o->bundle, b, index, record, e);
    if (published == NULL) {
        goto out;
    }
    log_info("index %s%s%s: recall@100 %.4f at effort %lld, built in %.1f s, %.0f bytes an item", o->index.engine,
             o->index.factory[0] != '\0' ? " " : "", o->index.factory,
             json_number_value(json_object_get(record, "recall@100")),
             (long long)json_integer_value(json_object_get(record, "effort")),
             json_number_value(json_object_get(record, "build_seconds")),
             json_number_value(json_object_get(record, "bytes_per_item")));
    printf("%s\n", published);
    result = o->report == NULL ? 0 : write_json(o->report, record, e);
out:
    mem_free(published);
    json_decref(record);
    ann_free(index);
    file_map_close(&map);
    bundle_free(b);
    return result;
}

int cmd_index(int argc, char **argv)
{
    struct options options = {0};
    struct err e = ERR_INIT;
    int status = parse_options(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    return run_index(&options, &e) < 0 ? command_failed(&e) : STATUS_DONE;
}
