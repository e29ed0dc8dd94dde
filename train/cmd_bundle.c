/*
 * recall-train verify, inspect and publish: looking at bundles, and choosing which one is served.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bundle.h"
#include "train/bundle_index.h"
#include "train/command.h"
#include "train/export.h"

static const char verify_help[] = "usage: recall-train verify BUNDLE\n"
                                  "\n"
                                  "Checks a bundle completely: manifest, checksums, structure, golden probes, index.\n"
                                  "Prints its version, or the first problem found (exit status 1).\n";
static const char inspect_help[] =
    "usage: recall-train inspect BUNDLE [--json]\n"
    "\n"
    "Shows what a bundle holds: model, features, items, index, metrics. --json prints the\n"
    "manifest.\n";
static const char publish_help[] =
    "usage: recall-train publish BUNDLE LINK\n"
    "\n"
    "Verifies a bundle, then makes the symbolic link LINK point at it, atomically. Rolling\n"
    "back is publishing an older bundle. recalld takes it at its next SIGHUP.\n";

/* Parses `--help` (and --json where allowed) and checks the number of arguments. -1: go on at *first. */
static int parse(int argc, char **argv, const char *help, int wanted, bool *json, int *first)
{
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {"json", no_argument, NULL, 'j'}, {0}};
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return STATUS_DONE;
        }
        if (c != 'j' || json == NULL) {
            return c == 'j' ? command_usage(argv[0], "--json is for inspect") : command_bad_option(argv[0], c, argv);
        }
        *json = true;
    }
    if (argc - optind != wanted) {
        return command_usage(argv[0], wanted == 1 ? "one bundle is needed" : "a bundle and a link are needed");
    }
    *first = optind;
    return -1;
}

/* Opens bundle and index, so that both are checked. */
static struct bundle *open_checked(const char *path, struct err *e)
{
    struct bundle *b = bundle_open(path, e);
    if (b == NULL) {
        return NULL;
    }
    struct ann *index = bundle_index_open(b, e);
    if (index == NULL) {
        bundle_free(b);
        return NULL;
    }
    ann_free(index);
    return b;
}

int cmd_verify(int argc, char **argv)
{
    int first = 0;
    int status = parse(argc, argv, verify_help, 1, NULL, &first);
    if (status >= 0) {
        return status;
    }
    struct err e = ERR_INIT;
    struct bundle *b = open_checked(argv[first], &e);
    if (b == NULL) {
        return command_failed(&e);
    }
    printf("%s ok: version %s, %zu items of %u dimensions, index %s\n", argv[first], b->version, b->n_items, b->dim,
           b->index_engine);
    bundle_free(b);
    return STATUS_DONE;
}

static void print_tower(const struct tower_spec *spec, const char *side)
{
    printf("%s tower\n", side);
    for (uint32_t i = 0; i < spec->n_features; i++) {
        const struct feature *f = &spec->features[i];
        printf("  %-20s %-12s", f->name, feature_type_words[f->type]);
        if (f->type == FEATURE_NUMERIC) {
            printf(" %s", feature_transform_words[f->transform]);
        }
        if (f->rows > 0) {
            printf(" %u rows", f->rows);
        }
        printf(" -> %u columns\n", f->width);
    }
    const struct network *network = &spec->network;
    printf("  network %s", network_type_words[network->type]);
    for (size_t i = 0; i < network->n_widths; i++) {
        printf(" %u", network->widths[i]);
    }
    if (network->n_widths > 1) {
        printf(" %s%s", activation_words[network->activation], network->layer_norm ? ", layer norm" : "");
    }
    printf("%s", network->residual ? ", residual" : "");
    if (network->cross_layers > 0) {
        printf(", %u cross layers", network->cross_layers);
    }
    if (network->cross_rank > 0) {
        printf(" of rank %u", network->cross_rank);
    }
    printf(", vector of %u\n", spec->output_dim);
}

static void print_members(const char *title, const json_t *object)
{
    const char *key;
    json_t *value;
    printf("%s\n", title);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
        printf("  %-20s %.100s\n", key, text == NULL ? "?" : text);
        free(text);
    }
}

static void print_profiles(const struct profiles *p, const struct tower_spec *spec)
{
    if (p->key == NULL) {
        return;
    }
    printf("profiles     %zu users by %s:", p->ids.count, p->key);
    for (size_t i = 0; i < p->n_columns; i++) {
        printf(" %s", spec->features[p->columns[i].feature].name);
    }
    printf("\n");
}

int cmd_inspect(int argc, char **argv)
{
    int first = 0;
    bool as_json = false;
    int status = parse(argc, argv, inspect_help, 1, &as_json, &first);
    if (status >= 0) {
        return status;
    }
    struct err e = ERR_INIT;
    struct bundle *b = bundle_open(argv[first], &e);
    if (b == NULL) {
        return command_failed(&e);
    }
    if (as_json) {
        status = write_json("-", b->manifest, &e) < 0 ? command_failed(&e) : STATUS_DONE;
    } else {
        printf("version      %s\nfingerprint  %s\nsimilarity   %s\nitems        %zu\nattributes  ", b->version,
               b->fingerprint, similarity_words[b->schema.similarity], b->n_items);
        for (size_t i = 0; i < b->n_attributes; i++) {
            printf(" %s", b->attributes[i].name);
        }
        printf("\npopular      %s\n", b->popular != NULL ? "all items, by training events" : "not there");
        print_profiles(&b->profiles, &b->schema.towers[SIDE_USER]);
        print_tower(&b->schema.towers[SIDE_USER], "user");
        print_tower(&b->schema.towers[SIDE_ITEM], "item");
        print_members("index", json_object_get(b->manifest, "index"));
        print_members("metrics", json_object_get(b->manifest, "metrics"));
        print_members("baselines", json_object_get(b->manifest, "baselines"));
        status = STATUS_DONE;
    }
    bundle_free(b);
    return status;
}

int cmd_publish(int argc, char **argv)
{
    int first = 0;
    int status = parse(argc, argv, publish_help, 2, NULL, &first);
    if (status >= 0) {
        return status;
    }
    struct err e = ERR_INIT;
    struct bundle *b = open_checked(argv[first], &e);
    if (b == NULL || publish_link(argv[first], argv[first + 1], &e) < 0) {
        status = command_failed(&e);
    } else {
        printf("%s -> version %s\n", argv[first + 1], b->version);
        status = STATUS_DONE;
    }
    bundle_free(b);
    return status;
}
