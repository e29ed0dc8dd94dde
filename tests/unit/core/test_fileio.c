#include "tests/unit/core/support.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/mem.h"

static void write_text(const char *path, const char *text)
{
    struct err e = ERR_INIT;
    check_ok(&e, file_write(path, text, strlen(text), &e));
}

static void check_contents(const char *path, const char *wanted)
{
    struct err e = ERR_INIT;
    size_t n = 99;
    char *text = file_read(path, 1 << 20, &n, &e);
    assert_non_null(text);
    assert_int_equal(n, strlen(wanted));
    assert_string_equal(text, wanted);
    mem_free(text);
}

/* Everything that opens a file for reading refuses this path with these words. */
static void check_unreadable(const char *path, const char *words)
{
    struct file_map map = {(const unsigned char *)"", 1};
    char hex[FILE_SHA256_HEX];
    uint64_t size64;
    size_t size;
    struct err e = ERR_INIT;
    assert_int_equal(file_map_open(&map, path, &e), -1);
    assert_null(map.data);
    check_error(&e, words);
    check_error(&e, path);
    err_clear(&e);
    assert_null(file_read(path, 1000, &size, &e));
    check_error(&e, words);
    err_clear(&e);
    assert_int_equal(file_sha256(path, hex, &size64, &e), -1);
    check_error(&e, words);
    check_error(&e, path);
}

static void reading_back(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    write_text(scratch("a"), "hello");
    write_text(scratch("empty"), "");
    check_contents(scratch("a"), "hello");
    check_contents(scratch("empty"), "");
    struct file_map map;
    check_ok(&e, file_map_open(&map, scratch("a"), &e));
    assert_int_equal(map.size, 5);
    unlink(scratch("a"));
    assert_memory_equal(map.data, "hello", 5); /* outlives its name */
    file_map_close(&map);
    file_map_close(&map);
    check_ok(&e, file_map_open(&map, scratch("empty"), &e));
    assert_true(map.data == NULL && map.size == 0);
    file_map_close(&map);
}

static void reading_has_a_limit(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    size_t n;
    write_text(scratch("limit"), "12345");
    char *text = file_read(scratch("limit"), 5, &n, &e);
    assert_string_equal(text, "12345");
    mem_free(text);
    assert_null(file_read(scratch("limit"), 4, &n, &e));
    check_error(&e, "limit of 4");
}

static void what_is_no_file_is_refused_and_never_hangs(void **state)
{
    (void)state;
    char *fifo = scratch("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    check_unreadable(fifo, "not a regular file");
    check_unreadable("/dev/zero", "not a regular file");
    check_unreadable("/", "not a regular file");
    check_unreadable(scratch("absent"), "No such file");
    assert_int_equal(symlink(scratch("loop"), scratch("loop")), 0);
    check_unreadable(scratch("loop"), "cannot open");
}

static void sha256_of_known_texts(void **state)
{
    (void)state;
    const char *abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const char *nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    char hex[FILE_SHA256_HEX];
    char again[FILE_SHA256_HEX];
    uint64_t size = 99;
    struct err e = ERR_INIT;
    bytes_sha256("abc", 3, hex);
    assert_string_equal(hex, abc);
    bytes_sha256("", 0, hex);
    assert_string_equal(hex, nothing);
    write_text(scratch("abc"), "abc");
    check_ok(&e, file_sha256(scratch("abc"), hex, &size, &e));
    assert_string_equal(hex, abc);
    assert_int_equal(size, 3);
    const size_t sizes[] = {1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, (1 << 19) + 5}; /* around one read */
    for (size_t i = 0; i < 5; i++) {
        unsigned char *bytes = mem_array(sizes[i], 1);
        memset(bytes, (int)i + 1, sizes[i]);
        check_ok(&e, file_replace(scratch("sized"), bytes, sizes[i], &e));
        check_ok(&e, file_sha256(scratch("sized"), hex, &size, &e));
        bytes_sha256(bytes, sizes[i], again);
        assert_string_equal(hex, again);
        assert_int_equal(size, sizes[i]);
        mem_free(bytes);
    }
}

/* No "x.tmp-..." left in the directory. */
static void check_no_temporaries(const char *dir)
{
    char command[600];
    snprintf(command, sizeof command, "ls -a '%s' | grep -q tmp-", dir);
    assert_int_not_equal(system(command), 0);
}

static void write_refuses_what_exists(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    write_text(scratch("once"), "first");
    assert_int_equal(file_write(scratch("once"), "second", 6, &e), -1);
    check_error(&e, "File exists");
    check_contents(scratch("once"), "first");
    assert_int_equal(symlink(scratch("elsewhere"), scratch("dangling")), 0);
    err_clear(&e);
    assert_int_equal(file_write(scratch("dangling"), "x", 1, &e), -1);
    assert_false(file_exists(scratch("elsewhere")));
    struct stat st;
    assert_int_equal(stat(scratch("once"), &st), 0);
    assert_int_equal(st.st_mode & 0133u, 0);
}

static void replace_is_whole_or_nothing(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    check_ok(&e, dir_create(scratch("replace"), &e));
    char *path = scratch("replace/f");
    check_ok(&e, file_replace(path, "one", 3, &e));
    check_contents(path, "one");
    struct file_map old;
    check_ok(&e, file_map_open(&old, path, &e));
    check_ok(&e, file_replace(path, "two!", 4, &e));
    check_contents(path, "two!");
    assert_memory_equal(old.data, "one", 3); /* readers of the old one keep it */
    file_map_close(&old);

    /* a full disk, played by the limit on file size: the old contents stay, nothing is left behind */
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    struct rlimit small = {.rlim_cur = 1000, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    static char big[5000];
    int replaced = file_replace(path, big, sizeof big, &e);
    struct err f = ERR_INIT;
    int written = file_write(scratch("replace/new"), big, sizeof big, &f);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(replaced, -1);
    check_error(&e, "cannot write");
    assert_int_equal(written, -1);
    check_error(&f, "replace/new");
    check_contents(path, "two!");
    assert_false(file_exists(scratch("replace/new")));

    err_clear(&e);
    check_ok(&e, dir_create(scratch("replace/dir/sub"), &e));
    assert_int_equal(file_replace(scratch("replace/dir"), "x", 1, &e), -1);
    check_error(&e, "replace/dir");
    err_clear(&e);
    assert_int_equal(file_replace(scratch("nowhere/f"), "x", 1, &e), -1);
    check_error(&e, "No such file");
    check_no_temporaries(scratch("replace"));
}

static void *replace_often(void *letter)
{
    char text[2000];
    memset(text, *(char *)letter, sizeof text);
    long failures = 0;
    char path[600];
    snprintf(path, sizeof path, "%s/shared", support_dir);
    for (int i = 0; i < 50; i++) {
        failures += file_replace(path, text, sizeof text, NULL) < 0;
    }
    return (void *)failures;
}

static void threads_may_replace_one_file(void **state)
{
    (void)state;
    pthread_t threads[3];
    char letters[3] = {'a', 'b', 'c'};
    write_text(scratch("shared"), "start");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, replace_often, &letters[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        void *failures = NULL;
        pthread_join(threads[i], &failures);
        assert_null(failures);
    }
    size_t n;
    char *text = file_read(scratch("shared"), 5000, &n, NULL);
    assert_int_equal(n, 2000);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(text[i], text[0]);
    }
    mem_free(text);
    check_no_temporaries(support_dir);
}

static void check_link(const char *link, const char *wanted)
{
    char target[300] = {0};
    assert_true(readlink(link, target, sizeof target - 1) > 0);
    assert_string_equal(target, wanted);
}

static void links_are_replaced_and_nothing_else(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    check_ok(&e, dir_create(scratch("models/v1"), &e));
    check_ok(&e, dir_create(scratch("models/v2"), &e));
    char *link = scratch("models/current");
    check_ok(&e, link_replace("v1", link, &e));
    check_link(link, "v1");
    check_ok(&e, link_replace("v2", link, &e));
    check_link(link, "v2");
    check_ok(&e, link_replace("v1", scratch("models/current/"), &e)); /* as a shell completes it */
    check_link(link, "v1");
    check_ok(&e, link_replace("gone", link, &e)); /* a dangling link is a link, too */
    check_ok(&e, link_replace("v2", link, &e));
    check_link(link, "v2");
    assert_int_equal(link_replace("v1", scratch("models/v2"), &e), -1);
    check_error(&e, "not a symbolic link");
    err_clear(&e);
    write_text(scratch("models/file"), "x");
    assert_int_equal(link_replace("v1", scratch("models/file"), &e), -1);
    check_error(&e, "not a symbolic link");
    check_contents(scratch("models/file"), "x");
    err_clear(&e);
    assert_int_equal(link_replace("v1", scratch("missing/current"), &e), -1);
    check_error(&e, "cannot create the link");
    check_no_temporaries(scratch("models"));
}

static void directories(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    check_ok(&e, dir_create(scratch("x/y//z/"), &e));
    check_ok(&e, dir_create(scratch("x/y/z"), &e));
    check_ok(&e, dir_sync(scratch("x"), &e));
    check_ok(&e, dir_create("/", &e));
    assert_int_equal(dir_create("", &e), -1);
    assert_true(err_isset(&e));
    err_clear(&e);
    write_text(scratch("x/file"), "");
    assert_int_equal(dir_create(scratch("x/file"), &e), -1);
    check_error(&e, "x/file");
    err_clear(&e);
    assert_int_equal(dir_create(scratch("x/file/below"), &e), -1);
    check_error(&e, "x/file");
    err_clear(&e);
    assert_int_equal(dir_sync(scratch("x/none"), &e), -1);
    check_error(&e, "x/none");
}

static void removing_a_tree_stops_at_links(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    check_ok(&e, dir_create(scratch("keep/inner"), &e));
    write_text(scratch("keep/inner/f"), "precious");
    check_ok(&e, dir_create(scratch("tree/a/b/c"), &e));
    write_text(scratch("tree/a/f"), "x");
    assert_int_equal(symlink(scratch("keep"), scratch("tree/a/link")), 0);
    assert_int_equal(symlink(scratch("keep/inner/f"), scratch("tree/flink")), 0);
    check_ok(&e, dir_remove_tree(scratch("tree"), &e));
    assert_false(file_exists(scratch("tree")));
    check_contents(scratch("keep/inner/f"), "precious");
    assert_int_equal(symlink(scratch("keep"), scratch("rootlink")), 0);
    check_ok(&e, dir_remove_tree(scratch("rootlink/"), &e)); /* the link itself goes */
    check_contents(scratch("keep/inner/f"), "precious");
    assert_int_equal(access(scratch("rootlink"), F_OK), -1);
    check_ok(&e, dir_remove_tree(scratch("tree"), &e)); /* absent is fine */
    write_text(scratch("single"), "x");
    check_ok(&e, dir_remove_tree(scratch("single"), &e));
    assert_false(file_exists(scratch("single")));
    char deep[400] = "deep";
    for (int i = 0; i < 60; i++) { /* deeper than the descriptors nftw may use */
        strcat(deep, "/d");
    }
    check_ok(&e, dir_create(scratch(deep), &e));
    check_ok(&e, dir_remove_tree(scratch("deep"), &e));
    assert_false(file_exists(scratch("deep")));
}

static void check_join(const char *a, const char *b, const char *wanted)
{
    char *p = path_join(a, b);
    assert_string_equal(p, wanted);
    mem_free(p);
}

static void joining_paths(void **state)
{
    (void)state;
    check_join("a", "b", "a/b");
    check_join("a/", "b", "a/b");
    check_join("a", "/b", "/b");
    check_join("", "b", "b");
    check_join("/", "b", "/b");
    check_join("a", "", "a/");
}

static int every_function(struct err *e)
{
    char hex[FILE_SHA256_HEX];
    uint64_t size64;
    size_t size;
    char *text = file_read(scratch("nomem"), 100, &size, e);
    char *joined = path_join("a", "b");
    bool complete = text != NULL && joined != NULL;
    complete = file_sha256(scratch("nomem"), hex, &size64, e) == 0 && complete;
    complete = file_replace(scratch("nomem"), "x", 1, e) == 0 && complete;
    complete = link_replace("x", scratch("nomem.link"), e) == 0 && complete;
    complete = dir_create(scratch("nomem.dir"), e) == 0 && complete;
    complete = dir_remove_tree(scratch("nomem.dir"), e) == 0 && complete;
    mem_free(text);
    mem_free(joined);
    return complete ? 0 : -1;
}

static void each_allocation_may_fail(void **state)
{
    (void)state;
    write_text(scratch("nomem"), "x");
    long n = 1;
    for (int result = -1; result != 0; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        result = every_function(&e);
        mem_fail_at(0);
    }
    assert_true(n > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_back),
        cmocka_unit_test(reading_has_a_limit),
        cmocka_unit_test(what_is_no_file_is_refused_and_never_hangs),
        cmocka_unit_test(sha256_of_known_texts),
        cmocka_unit_test(write_refuses_what_exists),
        cmocka_unit_test(replace_is_whole_or_nothing),
        cmocka_unit_test(threads_may_replace_one_file),
        cmocka_unit_test(links_are_replaced_and_nothing_else),
        cmocka_unit_test(directories),
        cmocka_unit_test(removing_a_tree_stops_at_links),
        cmocka_unit_test(joining_paths),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
