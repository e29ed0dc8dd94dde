/*
 * libFuzzer entry for the configuration. The input is a YAML text, then, each behind a zero byte, --set assignments. The
 * tree must survive being written and read again; both programs' configurations may accept or refuse it, but a refusal
 * says why, and what is accepted says the same once more after a round through its own text.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/serve_config.h"
#include "config/train_config.h"
#include "config/yaml.h"
#include "core/buf.h"

enum { SETS_MAX = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* A regular file in memory that holds the text; its name goes to `path`. */
static int memory_file(const char *text, size_t n, char path[64])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    check(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

static void fuzz_tree(const char *text, size_t n, const char *const *sets, size_t n_sets)
{
    struct buf out = BUF_INIT;
    struct buf first = BUF_INIT;
    struct buf second = BUF_INIT;
    struct problems problems = {.file = "fuzz.yaml", .out = &out};
    struct node *tree = yaml_parse(text, n, &problems);
    check(tree != NULL || problems.count > 0);
    if (tree != NULL) {
        for (size_t i = 0; i < n_sets; i++) {
            size_t before = problems.count;
            check((yaml_set(tree, sets[i], i % 2 == 0, &problems) < 0) == (problems.count > before));
        }
        size_t before = problems.count;
        yaml_write(tree, &first);
        struct node *again = first.len > YAML_TEXT_MAX ? NULL : yaml_parse(first.data, first.len, &problems);
        if (again != NULL) {
            check(problems.count == before);
            yaml_write(again, &second);
            check(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
        } else {
            check(first.len > YAML_TEXT_MAX || n_sets > 0); /* edits may go over a bound of reading */
        }
        node_free(again);
    }
    node_free(tree);
    buf_release(&out);
    buf_release(&first);
    buf_release(&second);
}

static void fuzz_serve(const char *path, const char *const *sets, size_t n_sets)
{
    struct buf problems = BUF_INIT;
    struct buf first = BUF_INIT;
    struct buf second = BUF_INIT;
    struct serve_config *config = serve_config_load(path, sets, n_sets, &problems);
    check((config == NULL) == (problems.len > 0));
    if (config != NULL) {
        char copy[64];
        serve_config_dump(config, &first);
        int fd = memory_file(first.data, first.len, copy);
        struct serve_config *again = serve_config_load(copy, NULL, 0, &problems);
        check(again != NULL);
        serve_config_dump(again, &second);
        check(strcmp(first.data, second.data) == 0);
        serve_config_free(again);
        close(fd);
    }
    serve_config_free(config);
    buf_release(&problems);
    buf_release(&first);
    buf_release(&second);
}

static void fuzz_train(const char *path, const char *const *sets, size_t n_sets)
{
    struct buf problems = BUF_INIT;
    struct train_config *config = train_config_load(path, sets, n_sets, &problems);
    check((config == NULL) == (problems.len > 0));
    train_config_free(config);
    buf_release(&problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    size_t n = strlen(text);
    const char *sets[SETS_MAX];
    size_t n_sets = 0;
    for (size_t at = n + 1; at < size && n_sets < SETS_MAX; at += strlen(text + at) + 1) {
        sets[n_sets++] = text + at;
    }
    char path[64];
    int fd = memory_file(text, n, path);
    fuzz_tree(text, n, sets, n_sets);
    fuzz_serve(path, sets, n_sets);
    fuzz_train(path, sets, n_sets);
    close(fd);
    free(text);
    return 0;
}
