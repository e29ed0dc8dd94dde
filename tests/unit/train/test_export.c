/*
 * From a model to a published bundle: links, leftovers, what is refused a name, and that a failure at any allocation
 * publishes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/bundle.h"
#include "core/mem.h"
#include "tests/unit/train/lab.h"
#include "train/export.h"
#include "train/index_build.h"

static void make_directory(const char *name)
{
    assert_int_equal(dir_create(files_path(name), NULL), 0);
}

static void expect_link(const char *name, const char *target)
{
    char got[512];
    ssize_t n = readlink(files_path(name), got, sizeof got - 1);
    assert_true(n > 0);
    got[n] = '\0';
    assert_string_equal(got, target);
}

static void expect_error(const struct err *e, const char *words)
{
    if (strstr(e->message, words) == NULL) {
        fail_msg("error \"%s\" does not contain \"%s\"", e->message, words);
    }
}

/* Names in a directory but . and .. */
static size_t count_entries(const char *path)
{
    size_t n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n - 2;
}

/* --- links ------------------------------------------------------------------------------------------------------------*/

static void test_publish_link(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    make_directory("models/one");
    make_directory("models/two");
    make_directory("models/deep/er");
    assert_int_equal(publish_link(files_path("models/one"), files_path("models/current"), &e), 0);
    expect_link("models/current", "one");
    assert_int_equal(publish_link(files_path("models/two/"), files_path("models/current/"), &e), 0);
    expect_link("models/current", "two");
    assert_int_equal(publish_link(files_path("models/current"), files_path("live"), &e), 0);
    char *real = realpath(files_path("models/two"), NULL);
    expect_link("live", real);
    free(real);
    assert_int_equal(publish_link(files_path("models/deep/er"), files_path("models/current"), &e), 0);
    real = realpath(files_path("models/deep/er"), NULL);
    expect_link("models/current", real); /* not beside it */
    free(real);
}

static void test_publish_link_refuses(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    make_directory("models/one");
    files_write("plain", "");
    assert_true(publish_link(files_path("models/nothing"), files_path("models/current"), &e) < 0);
    expect_error(&e, "models/nothing: no such directory");
    err_clear(&e);
    assert_true(publish_link(files_path("models/one"), files_path("no/where"), &e) < 0);
    expect_error(&e, "no such directory");
    err_clear(&e);
    assert_true(publish_link(files_path("models/one"), files_path("plain"), &e) < 0);
    expect_error(&e, "not a symbolic link");
    err_clear(&e);
    assert_true(publish_link(files_path("models/one"), files_path("models/one"), &e) < 0);
    expect_error(&e, "not a symbolic link");
}

/* --- the writer -------------------------------------------------------------------------------------------------------*/

static void test_leftovers(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    char name[64];
    make_directory("writer/.tmp-77/items");
    make_directory("writer/whole");
    files_write("writer/.tmp-77/items/ids", "half");
    pid_t gone = fork();
    if (gone == 0) {
        _exit(0);
    }
    waitpid(gone, NULL, 0);
    snprintf(name, sizeof name, "writer/current.tmp-%d-0", gone);
    assert_int_equal(symlink("whole", files_path(name)), 0);
    snprintf(name, sizeof name, "writer/current.tmp-%d-0", getpid()); /* of somebody who is at it */
    assert_int_equal(symlink("whole", files_path(name)), 0);
    struct bundle_writer *w = bundle_writer_new(files_path("writer"), &e);
    assert_non_null(w);
    assert_int_equal(count_entries(files_path("writer")), 4); /* .lock, ours, whole, the living one's */
    bundle_writer_free(w);
    assert_int_equal(count_entries(files_path("writer")), 3);
    assert_true(file_exists(files_path("writer/whole")));
    unlink(files_path(name));
}

/* The second waits for the first. */
static void test_lock(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    int go[2], done[2];
    char byte = 'x';
    assert_int_equal(pipe(go) | pipe(done), 0);
    pid_t child = fork(); /* before there is a lock that it could inherit; and no cmocka in it */
    if (child == 0) {
        bool told = read(go[0], &byte, 1) == 1;
        struct bundle_writer *second = bundle_writer_new(files_path("writer"), NULL);
        told = write(done[1], &byte, 1) == 1 && told;
        bundle_writer_free(second);
        _exit(second != NULL && told ? 0 : 1);
    }
    struct bundle_writer *w = bundle_writer_new(files_path("writer"), &e);
    assert_non_null(w);
    assert_int_equal(write(go[1], &byte, 1), 1);
    usleep(50000);
    char *path = bundle_writer_add(w, "some/file", &e); /* its directory is still there */
    assert_non_null(path);
    assert_int_equal(file_write(path, "x", 1, &e), 0);
    mem_free(path);
    bundle_writer_free(w);
    int status;
    assert_int_equal(read(done[0], &byte, 1), 1);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    close(go[0]), close(go[1]), close(done[0]), close(done[1]);
}

/* What does not verify gets no name. */
static void test_finish_verifies(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    char *path = NULL;
    struct bundle_writer *w = bundle_writer_new(files_path("refused"), &e);
    assert_int_equal(bundle_writer_put(w, "items/ids.strings", "rubbish", 7, &e), 0);
    json_t *manifest = json_pack("{s:{}}", "schema");
    assert_true(bundle_writer_finish(w, manifest, &path, &e) < 0);
    expect_error(&e, "does not verify");
    assert_null(path);
    json_decref(manifest);
    bundle_writer_free(w);
    assert_int_equal(count_entries(files_path("refused")), 1); /* .lock */
}

/* --- whole bundles ----------------------------------------------------------------------------------------------------*/

struct bench {
    struct lab lab;
    float *vectors;
    struct ann *index;
    struct export x;
};

static void bench_open(struct bench *b, const char *yaml)
{
    struct err e = ERR_INIT;
    static char models[128]; /* relative to the working directory, as --set is */
    *b = (struct bench){0};
    snprintf(models, sizeof models, "output.dir=%s", files_path("models-out"));
    lab_synth(&b->lab, yaml, (const char *[]){models, NULL}, 40, 30, 400);
    const struct dataset *d = b->lab.d;
    const struct tower *items = &b->lab.m->towers[SIDE_ITEM];
    size_t dim = items->spec->output_dim;
    b->vectors = mem_array(d->n_items * dim, sizeof *b->vectors);
    assert_int_equal(embed_rows(items, d->schema.similarity, &d->rows[SIDE_ITEM], 1, b->vectors, &e), 0);
    struct ann_vectors vectors = {b->vectors, d->n_items, (uint32_t)dim};
    struct index_options options = {.engine = "faiss", .factory = "HNSW8", .target_recall = 0.9, .threads = 1};
    b->x = (struct export){.config = b->lab.config,
                           .d = d,
                           .model = b->lab.m,
                           .item_vectors = b->vectors,
                           .queries = b->vectors,
                           .n_queries = 10,
                           .metrics = json_object(),
                           .baselines = json_object(),
                           .train = json_object()};
    b->index = index_build(&options, &vectors, b->vectors, 10, &b->x.index_record, &e);
    b->x.index = b->index;
    b->x.users = tower_ranker_new(d, &d->train, &b->lab.m->towers[SIDE_USER], b->vectors, 1, &e);
    assert_true(b->index != NULL && b->x.users != NULL);
}

static void bench_close(struct bench *b)
{
    tower_ranker_free(b->x.users);
    ann_free(b->index);
    json_decref(b->x.index_record);
    json_decref(b->x.metrics);
    json_decref(b->x.baselines);
    json_decref(b->x.train);
    mem_free(b->vectors);
    lab_close(&b->lab);
    dir_remove_tree(files_path("models-out"), NULL);
}

/* The bundle holds what was trained; exporting the same again in the same second takes another name. */
static void check_bundle(const char *yaml)
{
    struct bench b;
    struct err e = ERR_INIT;
    bench_open(&b, yaml);
    char *first = export_bundle(&b.x, &e);
    char *second = first == NULL ? NULL : export_bundle(&b.x, &e);
    if (second == NULL) {
        fail_msg("%s", e.message);
    }
    assert_string_not_equal(first, second);
    assert_int_equal(count_entries(files_path("models-out")), 4); /* two, .lock, current */
    struct bundle *bundle = bundle_open(files_path("models-out/current"), &e);
    assert_non_null(bundle);
    assert_string_equal(strrchr(bundle->dir, '/'), strrchr(second, '/'));
    const struct dataset *d = b.lab.d;
    assert_int_equal(bundle->n_items, d->n_items);
    assert_memory_equal(bundle->item_vectors, b.vectors, d->n_items * bundle->dim * sizeof(float));
    for (int side = 0; side < 2; side++) {
        const struct tower_spec *spec = &d->schema.towers[side];
        for (uint32_t i = 0; i < spec->n_features; i++) {
            int p = b.lab.m->table[side][i];
            if (p >= 0) {
                assert_memory_equal(bundle->towers[side].embedding[i], b.lab.m->parameters[p].value,
                                    lab_parameter_size(&b.lab.m->parameters[p]) * sizeof(float));
            }
        }
    }
    bundle_free(bundle);
    mem_free(first);
    mem_free(second);
    bench_close(&b);
}

static void test_bundle(void **state)
{
    (void)state;
    check_bundle(lab_full);
    check_bundle(lab_wide);
    check_bundle(lab_ids);
}

/* Each allocation fails once: nothing is published, nothing is left. */
static void test_no_memory(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, lab_wide);
    size_t failures = 0;
    for (long n = 1;; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        char *path = export_bundle(&b.x, &e);
        mem_fail_at(0);
        bool done = path != NULL;
        mem_free(path);
        if (done) {
            assert_true(n > 100);
            break;
        }
        failures++;
        assert_true(err_isset(&e));
        assert_false(file_exists(files_path("models-out/current")));
        size_t left = file_exists(files_path("models-out")) ? count_entries(files_path("models-out")) : 0;
        if (left > 1 && n < 100) { /* .lock; a whole bundle when only the link has failed */
            fail_msg("allocation %ld left %zu entries: %s", n, left, e.message);
        }
    }
    assert_true(failures > 100);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish_link),    cmocka_unit_test(test_publish_link_refuses),
        cmocka_unit_test(test_leftovers),       cmocka_unit_test(test_lock),
        cmocka_unit_test(test_finish_verifies), cmocka_unit_test(test_bundle),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
