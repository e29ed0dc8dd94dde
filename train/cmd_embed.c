/*
 * recall-train embed: vectors of users or items, by the same code that the daemon runs.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/bundle.h"
#include "core/mem.h"
#include "train/command.h"
#include "train/npy.h"

static const char help[] =
    "usage: recall-train embed BUNDLE --side user|item [--input FILE.jsonl] [--output FILE.npy|FILE.jsonl]\n"
    "\n"
    "Reads one JSON object of features a line (as in POST /embed) and writes their vectors: a numpy array of float32\n"
    "[lines, dim], or a JSON object a line. Without --input: all items of the bundle (side item only). Without "
    "--output:\n"
    "JSON lines on stdout. A malformed line ends it with the line and the feature named, and nothing is written.\n";

enum { LINE_LIMIT = 1 << 20 };

struct options {
    const char *bundle, *input, *output;
    int side; /* -1: not given */
};

/* -1: go on; otherwise the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"side", required_argument, NULL, 's'},
                                          {"input", required_argument, NULL, 'i'},
                                          {"output", required_argument, NULL, 'o'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int c;
    while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
        switch (c) {
        case 's':
            o->side = word_find(side_words, optarg);
            if (o->side < 0) {
                return command_usage("embed", "--side is user or item, not '%s'", optarg);
            }
            break;
        case 'i':
            o->input = optarg;
            break;
        case 'o':
            o->output = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return STATUS_DONE;
        default:
            return command_bad_option("embed", c, argv);
        }
    }
    if (argc - optind != 1 || o->side < 0) {
        return command_usage("embed", "one bundle and --side are needed");
    }
    if (o->input == NULL && o->side == SIDE_USER) {
        return command_usage("embed", "--input is needed for users: which ones, and what is known of them");
    }
    o->bundle = argv[optind];
    return -1;
}

static int add_line(struct feature_rows *rows, const struct profiles *profiles, const char *line, size_t n,
                    struct value_scratch *scratch, struct err *e)
{
    bool used;
    json_error_t error;
    char pointer[256] = "";
    json_t *object = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL) {
        return err_set(e, "not JSON: %s", error.text);
    }
    int result = profiles_add_json(profiles, rows, object, scratch, pointer, sizeof pointer, &used, e);
    json_decref(object);
    return result < 0 && pointer[0] != '\0' ? err_prefix(e, "%s", pointer) : result;
}

static int read_lines(struct feature_rows *rows, const struct profiles *profiles, const char *path, struct err *e)
{
    FILE *file = fopen(path, "re");
    struct value_scratch scratch = {0};
    char *line = NULL;
    size_t capacity = 0;
    size_t number = 0;
    ssize_t n;
    int result = 0;
    if (file == NULL) {
        return err_set(e, "%s: cannot open: %s", path, strerror(errno));
    }
    while (result == 0 && (n = getline(&line, &capacity, file)) > 0) {
        number++;
        if (n > LINE_LIMIT) {
            result = err_set(e, "longer than %d bytes", LINE_LIMIT);
        } else if (strspn(line, " \t\r\n") < (size_t)n) {
            result = add_line(rows, profiles, line, (size_t)n, &scratch, e);
        }
    }
    if (result < 0) {
        err_prefix(e, "%s:%zu", path, number);
    } else if (ferror(file)) {
        result = err_set(e, "%s: cannot read: %s", path, strerror(errno));
    }
    value_scratch_release(&scratch);
    free(line);
    fclose(file);
    return result;
}

/* {"id": ..., "vector": [...]} a line; ids may be NULL. */
static int put_jsonl(FILE *out, const struct strtab *ids, const float *vectors, size_t rows, size_t dim, struct err *e)
{
    struct buf line = BUF_INIT;
    for (size_t i = 0; i < rows; i++) {
        buf_clear(&line);
        buf_puts(&line, "{");
        if (ids != NULL) {
            size_t n;
            const char *id = strtab_get(ids, i, &n);
            buf_puts(&line, "\"id\": ");
            buf_json_string(&line, id, n);
            buf_puts(&line, ", ");
        }
        buf_puts(&line, "\"vector\": [");
        for (size_t d = 0; d < dim; d++) {
            buf_printf(&line, d > 0 ? ", %.9g" : "%.9g", (double)vectors[i * dim + d]);
        }
        buf_puts(&line, "]}\n");
        fwrite(line.data, 1, line.len, out);
    }
    int result = buf_failed(&line) ? err_nomem(e) : 0;
    buf_release(&line);
    return result;
}

static int write_vectors(const char *path, const struct strtab *ids, const float *vectors, size_t rows, size_t dim,
                         struct err *e)
{
    char temporary[4096];
    size_t length = path == NULL ? 0 : strlen(path);
    bool npy = length > 4 && strcmp(path + length - 4, ".npy") == 0;
    if (path == NULL) {
        return put_jsonl(stdout, ids, vectors, rows, dim, e) < 0 || fflush(stdout) != 0
                   ? err_set(e, "cannot write to stdout")
                   : 0;
    }
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid()) >= sizeof temporary) {
        return err_set(e, "%.100s...: the path is too long", path);
    }
    FILE *out = fopen(temporary, "we");
    if (out == NULL) {
        return err_set(e, "%s: cannot create: %s", path, strerror(errno));
    }
    int result = 0;
    if (npy) {
        npy_put_header(out, rows, dim);
        fwrite(vectors, sizeof *vectors, rows * dim, out);
    } else {
        result = put_jsonl(out, ids, vectors, rows, dim, e);
    }
    bool written = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
    fclose(out);
    if (result == 0 && (!written || rename(temporary, path) < 0)) {
        result = err_set(e, "%s: cannot write: %s", path, strerror(errno));
    }
    if (result < 0) {
        unlink(temporary);
    }
    return result;
}

static int embed_input(const struct bundle *b, const struct options *o, struct err *e)
{
    static const struct profiles none;
    const struct tower *tower = &b->towers[o->side];
    struct feature_rows rows;
    struct tower_pass pass = {0};
    float *vectors = NULL;
    int result = -1;
    if (feature_rows_init(&rows, tower->spec) < 0) {
        return err_nomem(e);
    }
    if (read_lines(&rows, o->side == SIDE_USER ? &b->profiles : &none, o->input, e) < 0 ||
        tower_pass_init(&pass, tower->spec, 256, e) < 0) {
        goto out;
    }
    vectors = mem_array(rows.n * b->dim, sizeof *vectors);
    if (vectors == NULL) {
        err_nomem(e);
        goto out;
    }
    tower_embed(tower, b->schema.similarity, &rows, &pass, vectors);
    result = write_vectors(o->output, NULL, vectors, rows.n, b->dim, e);
out:
    mem_free(vectors);
    tower_pass_release(&pass);
    feature_rows_release(&rows);
    return result;
}

int cmd_embed(int argc, char **argv)
{
    struct options options = {.side = -1};
    struct err e = ERR_INIT;
    int status = parse_options(argc, argv, &options);
    if (status >= 0) {
        return status;
    }
    struct bundle *b = bundle_open(options.bundle, &e);
    if (b == NULL) {
        return command_failed(&e);
    }
    int result = options.input != NULL
                     ? embed_input(b, &options, &e)
                     : write_vectors(options.output, &b->item_ids, b->item_vectors, b->n_items, b->dim, &e);
    bundle_free(b);
    return result < 0 ? command_failed(&e) : STATUS_DONE;
}
