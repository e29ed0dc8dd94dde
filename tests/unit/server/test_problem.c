/* The table of problem types, and the document. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/buf.h"
#include "core/mem.h"
#include "server/http.h"
#include "server/problem.h"

/* What problem_send relies on: plain text that needs no escaping, a status with a reason phrase, slugs that differ. */
static void test_table(void **state)
{
    (void)state;
    for (int i = 0; i < PROBLEM_COUNT; i++) {
        const struct problem_info *info = problem_info((enum problem_type)i);
        assert_true(info->status >= 400 && info->status <= 599);
        assert_string_not_equal(http_status_text(info->status), "Unknown");
        assert_int_equal(strspn(info->slug, "abcdefghijklmnopqrstuvwxyz-"), strlen(info->slug));
        assert_null(strpbrk(info->title, "\"\\\n%"));
        assert_true(strlen(info->slug) + strlen(info->title) < 180);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(info->slug, problem_info((enum problem_type)j)->slug);
        }
    }
}

static void test_document(void **state)
{
    (void)state;
    struct buf b = BUF_INIT;
    problem_write(&b, PROBLEM_NOT_FOUND, NULL, NULL, "no \"/x\"");
    assert_string_equal(b.data, "{\"type\":\"urn:recalld:problem:not-found\",\"title\":\"There is no such resource\","
                                "\"status\":404,\"detail\":\"no \\\"/x\\\"\"}\n");
    buf_clear(&b);
    problem_write(&b, PROBLEM_INVALID_FIELD, "/user/a~1b", "r1", "d");
    assert_non_null(strstr(b.data, "\"detail\":\"d\",\"pointer\":\"/user/a~1b\",\"request_id\":\"r1\"}\n"));
    buf_release(&b);

    mem_fail_at(1);
    problem_write(&b, PROBLEM_NOT_FOUND, NULL, NULL, "d");
    mem_fail_at(0);
    assert_true(buf_failed(&b));
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_document)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
