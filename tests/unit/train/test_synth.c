/*
 * The made-up world: the same bytes for the same arguments, files that load with their own configuration, and the
 * structure that its header promises.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/train_config.h"
#include "core/log.h"
#include "core/mem.h"
#include "tests/unit/train/files.h"
#include "train/csv.h"
#include "train/dataset.h"
#include "train/synth.h"

static const char *const names[] = {"users.csv", "items.csv", "clicks.csv", "train.yaml"};

static void write_world(const char *dir, uint64_t users, uint64_t items, uint64_t events, uint64_t seed)
{
    struct err e = ERR_INIT;
    int result = synth_write(files_path(dir), users, items, events, seed, &e);
    assert_string_equal(e.message, "");
    assert_int_equal(result, 0);
}

static char *contents(const char *dir, const char *name)
{
    char path[256];
    size_t size;
    snprintf(path, sizeof path, "%s/%s", files_path(dir), name);
    char *text = file_read(path, 1 << 26, &size, NULL);
    assert_non_null(text);
    return text;
}

static bool same_file(const char *dir, const char *other, const char *name)
{
    char *a = contents(dir, name), *b = contents(other, name);
    bool same = strcmp(a, b) == 0;
    mem_free(a);
    mem_free(b);
    return same;
}

static void test_same_arguments_same_bytes(void **state)
{
    (void)state;
    write_world("a", 50, 70, 3000, 9);
    write_world("b", 60, 70, 10, 1);
    write_world("b", 50, 70, 3000, 9); /* replaces what is there */
    write_world("c", 50, 70, 3000, 10);
    for (int i = 0; i < 4; i++) {
        assert_true(same_file("a", "b", names[i]));
        assert_true(same_file("a", "c", names[i]) == (i == 3));
    }
}

static struct dataset *load_world(const char *dir)
{
    char path[256];
    struct buf problems = BUF_INIT;
    struct err e = ERR_INIT;
    snprintf(path, sizeof path, "%s/train.yaml", files_path(dir));
    struct train_config *config = train_config_load(path, NULL, 0, &problems);
    assert_string_equal(problems.data, "");
    assert_non_null(config);
    struct dataset *d = dataset_load(config, &e);
    assert_string_equal(e.message, "");
    assert_non_null(d);
    train_config_free(config);
    buf_release(&problems);
    return d;
}

static void test_loads_with_its_configuration(void **state)
{
    (void)state;
    write_world("a", 300, 2000, 9000, 1);
    struct dataset *d = load_world("a");
    assert_int_equal(d->n_users, 300);
    assert_int_equal(d->n_items, 2000);
    assert_true(strtab_find(&d->user_ids, "1", 1) >= 0 && strtab_find(&d->user_ids, "300", 3) >= 0);
    assert_int_equal(d->train.n, 9000 - 300);
    assert_true(d->test.n > 150 && d->bad_rows == 0 && d->history >= 0);
    bool used[5] = {false}, transforms[3] = {false}, multi = false;
    for (int side = 0; side < 2; side++) {
        const struct tower_spec *spec = &d->schema.towers[side];
        for (uint32_t i = 0; i < spec->n_features; i++) {
            const struct feature *f = &spec->features[i];
            used[f->type] = true;
            transforms[f->transform] = transforms[f->transform] || f->type == FEATURE_NUMERIC;
            multi = multi || f->multi != '\0';
        }
    }
    for (int i = 0; i < 5; i++) {
        assert_true(used[i] && (i >= 3 || transforms[i]) && multi);
    }
    dataset_free(d);
}

/* Every id from 1 to n once, in order, in the tables; clicks within them and in time order. */
static void test_ids_and_times(void **state)
{
    (void)state;
    static const uint64_t sizes[][3] = {{1, 1, 1}, {2, 3, 5}, {7, 129, 400}, {100, 1000, 1000}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        write_world("a", sizes[k][0], sizes[k][1], sizes[k][2], k);
        for (int i = 0; i < 3; i++) {
            struct err e = ERR_INIT;
            struct csv_options o = {.delimiter = ","};
            const struct span *f;
            char path[256];
            snprintf(path, sizeof path, "%s/%s", files_path("a"), names[i]);
            struct csv *c = csv_open(path, &o, &e);
            assert_non_null(c);
            uint64_t n = 0, time = 0;
            int row;
            while ((row = csv_next(c, &f, &e)) > 0) {
                uint64_t first = strtoull(f[0].text, NULL, 10);
                n++;
                if (i < 2) {
                    assert_int_equal(first, n);
                } else {
                    uint64_t item = strtoull(f[1].text, NULL, 10), now = strtoull(f[2].text, NULL, 10);
                    assert_true(first >= 1 && first <= sizes[k][0] && item >= 1 && item <= sizes[k][1] && now >= time);
                    time = now;
                }
            }
            assert_int_equal(row, 0);
            assert_int_equal(n, sizes[k][i]);
            csv_close(c);
        }
    }
}

/* Popular items are far more popular, and the numbers of ids do not tell which they are. */
static void test_popularity(void **state)
{
    (void)state;
    write_world("a", 1000, 2000, 60000, 3);
    struct dataset *d = load_world("a");
    uint32_t most = 0;
    size_t never = 0, below = 0;
    for (size_t i = 0; i < d->n_items; i++) {
        size_t length;
        char id[16] = "";
        const char *text = strtab_get(&d->item_ids, i, &length);
        memcpy(id, text, length);
        most = d->item_count[i] > most ? d->item_count[i] : most;
        never += d->item_count[i] == 0;
        below += strtoull(id, NULL, 10) <= 1000 ? d->item_count[i] : 0;
    }
    assert_true(most > 10 * 30 && never < 500);
    assert_true(below > d->train.n * 4 / 10 && below < d->train.n * 6 / 10);
    dataset_free(d);
}

static void test_errors(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(synth_write(files_path("a"), 0, 1, 1, 1, &e), -1);
    assert_non_null(strstr(e.message, "1 to 2000000000 users and items, and at least one event"));
    err_clear(&e);
    files_write("file", "x");
    assert_int_equal(synth_write(files_path("file"), 1, 1, 1, 1, &e), -1);
    assert_non_null(strstr(e.message, "/file"));
    err_clear(&e);
    char path[256];
    snprintf(path, sizeof path, "%s/items.csv", files_path("d"));
    write_world("d", 1, 1, 1, 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(synth_write(files_path("d"), 1, 1, 1, 1, &e), -1);
    assert_non_null(strstr(e.message, "/d/items.csv: Is a directory"));
    for (long n = 1; n < 100; n++) {
        err_clear(&e);
        mem_fail_at(n);
        int result = synth_write(files_path("m"), 3, 3, 3, 1, &e);
        mem_fail_at(0);
        assert_true((result < 0) == err_isset(&e));
        if (result == 0) {
            assert_true(n > 4);
            return;
        }
    }
    fail_msg("never succeeded");
}

int main(void)
{
    log_setup(LOG_LEVEL_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_arguments_same_bytes),
        cmocka_unit_test(test_loads_with_its_configuration),
        cmocka_unit_test(test_ids_and_times),
        cmocka_unit_test(test_popularity),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
