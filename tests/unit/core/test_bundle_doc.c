/* docs/bundle.md promises that its Python example writes a bundle: it is cut out, run, and its result opened. */
#include "tests/unit/core/support.h"

#include "core/bundle.h"
#include "core/mem.h"

static void the_example_writes_a_bundle(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    size_t n;
    char *page = file_read("docs/bundle.md", 1 << 20, &n, &e); /* tests/run starts us at the project's root */
    if (page == NULL) {
        fail_msg("%s", e.message);
    }
    const char *begin = strstr(page, "\n## A bundle from Python\n");
    assert_non_null(begin);
    begin = strstr(begin, "\n```python\n");
    assert_non_null(begin);
    begin += strlen("\n```python\n");
    const char *end = strstr(begin, "\n```\n");
    assert_non_null(end);
    check_ok(&e, file_write(scratch("example.py"), begin, (size_t)(end - begin) + 1, &e));
    mem_free(page);

    char command[3000];
    snprintf(command, sizeof command, "/usr/bin/python3 '%s' '%s'", scratch("example.py"), scratch("example"));
    assert_int_equal(system(command), 0);
    struct bundle *b = bundle_open(scratch("example"), &e);
    if (b == NULL) {
        fail_msg("%s", e.message);
    }
    assert_string_equal(b->version, "example-1");
    assert_int_equal(b->n_items, 4);
    assert_int_equal(b->dim, 4);
    assert_string_equal(b->index_engine, "flat");
    assert_null(b->index_path);
    assert_int_equal(b->n_attributes, 1);
    assert_int_equal(b->profiles.ids.count, 2);
    assert_int_equal(b->profiles.n_columns, 1);
    bundle_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_writes_a_bundle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
