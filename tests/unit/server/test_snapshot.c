/* Handing snapshots over while threads use them: every one is freed once, none while somebody holds it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "server/snapshot.h"

enum { READERS = 4, SNAPSHOTS = 3000 };

struct reader {
    struct mailbox mailbox;
    pthread_t thread;
    unsigned long adopted;
    unsigned long torn;
};

static struct retired retired = {.wake_fd = -1};
static atomic_bool done;

static bool is_consistent(const struct snapshot *s)
{
    char expected[64];
    snprintf(expected, sizeof expected, "{\"model\":\"%s\",", s->version);
    return strcmp(s->head, expected) == 0 && s->head_len == strlen(expected);
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    struct snapshot *current = NULL;
    while (!atomic_load(&done)) {
        struct snapshot *fresh = mailbox_take(&r->mailbox);
        if (fresh) {
            snapshot_unref(current);
            current = fresh;
            r->adopted++;
        } else {
            sched_yield();
        }
        if (current && !is_consistent(current)) {
            r->torn++;
        }
    }
    snapshot_unref(current);
    snapshot_unref(mailbox_take(&r->mailbox));
    return NULL;
}

static bool all_taken(struct reader *readers)
{
    for (size_t i = 0; i < READERS; i++) {
        if (atomic_load(&readers[i].mailbox.slot)) {
            return false;
        }
    }
    return true;
}

static void test_many_threads(void **state)
{
    (void)state;
    struct reader readers[READERS] = {0};
    size_t freed = 0;
    for (size_t i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), 0);
    }
    for (unsigned n = 0; n < SNAPSHOTS; n++) {
        char version[32];
        struct err e = ERR_INIT;
        snprintf(version, sizeof version, "v%u", n);
        struct snapshot *s = snapshot_new(version, NULL, NULL, &retired, &e);
        assert_non_null(s);
        for (size_t i = 0; i < READERS; i++) {
            mailbox_put(&readers[i].mailbox, s);
        }
        snapshot_unref(s);
        freed += snapshot_reap(&retired);
        while (n % 10 == 0 && !all_taken(readers)) { /* else a quick writer leaves the readers nothing */
            sched_yield();
        }
    }
    atomic_store(&done, true);
    unsigned long adopted = 0;
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        adopted += readers[i].adopted;
        assert_int_equal(readers[i].torn, 0);
    }
    freed += snapshot_reap(&retired);
    assert_int_equal(freed, SNAPSHOTS);
    assert_true(adopted >= READERS * SNAPSHOTS / 10);
}

static void test_the_last_reference_retires(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct retired list = {.wake_fd = -1};
    struct mailbox mailbox = {0};
    struct snapshot *s = snapshot_new("a\"b", NULL, NULL, &list, &e);
    assert_non_null(s);
    assert_string_equal(s->head, "{\"model\":\"a\\\"b\",");
    mailbox_put(&mailbox, s);
    snapshot_unref(s);
    assert_int_equal(snapshot_reap(&list), 0);
    assert_ptr_equal(mailbox_take(&mailbox), s);
    assert_null(mailbox_take(&mailbox));
    snapshot_unref(s);
    assert_int_equal(snapshot_reap(&list), 1);
    assert_int_equal(snapshot_reap(&list), 0);
}

static void test_an_untaken_snapshot_is_given_back(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct retired list = {.wake_fd = -1};
    struct mailbox mailbox = {0};
    for (int i = 0; i < 3; i++) {
        struct snapshot *s = snapshot_new("v", NULL, NULL, &list, &e);
        mailbox_put(&mailbox, s);
        snapshot_unref(s);
    }
    assert_int_equal(snapshot_reap(&list), 2);
    snapshot_unref(mailbox_take(&mailbox));
    assert_int_equal(snapshot_reap(&list), 1);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct retired list = {.wake_fd = -1};
    for (long n = 1; n <= 3; n++) {
        struct err e = ERR_INIT;
        mem_fail_at(n);
        assert_null(snapshot_new("v", NULL, NULL, &list, &e));
        mem_fail_at(0);
        assert_true(err_isset(&e));
    }
    assert_int_equal(snapshot_reap(&list), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_the_last_reference_retires),
        cmocka_unit_test(test_an_untaken_snapshot_is_given_back),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
