/*
 * docs/config.md holds the tables as the programs know them, and its worked example loads. When this fails:
 * RECALLD_WRITE_DOCS=1 build/tests/config/test_docs puts the current tables into the file (run it from the repository).
 */
#include "tests/unit/config/support.h"

#include "config/serve_config.h"
#include "config/train_config.h"

static const char path[] = "docs/config.md";

static char *read_docs(void)
{
    struct err e = ERR_INIT;
    size_t size;
    char *text = file_read(path, 1 << 20, &size, &e);
    if (text == NULL) {
        fail_msg("%s", e.message);
    }
    return text;
}

/* The part between "<!-- name: begin -->\n" and "<!-- name: end -->"; its bounds go to *from and *to. */
static void find_part(const char *docs, const char *name, const char **from, const char **to)
{
    char begin[64];
    char end[64];
    snprintf(begin, sizeof begin, "<!-- %s: begin -->\n", name);
    snprintf(end, sizeof end, "<!-- %s: end -->", name);
    *from = strstr(docs, begin);
    *to = strstr(docs, end);
    if (*from == NULL || *to == NULL) {
        fail_msg("%s has no part %s", path, name);
    }
    *from += strlen(begin);
}

static void write_part(const char *docs, const char *from, const char *to, const char *part)
{
    struct buf text = BUF_INIT;
    struct err e = ERR_INIT;
    buf_add(&text, docs, (size_t)(from - docs));
    buf_puts(&text, part);
    buf_puts(&text, to);
    if (buf_failed(&text) || file_replace(path, text.data, text.len, &e) < 0) {
        fail_msg("cannot write: %s", e.message);
    }
    buf_release(&text);
}

static void check_part(const char *name, void (*describe)(struct buf *out, bool markdown))
{
    struct buf part = BUF_INIT;
    const char *from;
    const char *to;
    char *docs = read_docs();
    find_part(docs, name, &from, &to);
    buf_puts(&part, "\n");
    describe(&part, true);
    buf_puts(&part, "\n");
    assert_false(buf_failed(&part));
    if (getenv("RECALLD_WRITE_DOCS") != NULL) {
        write_part(docs, from, to, part.data);
    } else if ((size_t)(to - from) != part.len || memcmp(from, part.data, part.len) != 0) {
        fail_msg("%s: the table %s is not the current one; run RECALLD_WRITE_DOCS=1 build/tests/config/test_docs", path,
                 name);
    }
    buf_release(&part);
    mem_free(docs);
}

static void test_train_table(void **state)
{
    (void)state;
    check_part("train", train_config_describe);
}

static void test_serve_table(void **state)
{
    (void)state;
    check_part("serve", serve_config_describe);
}

/* The first ```yaml block behind a heading, in a file in the test's directory. */
static void write_example(const char *docs, const char *heading, const char *file)
{
    const char *at = strstr(docs, heading);
    const char *from = at == NULL ? NULL : strstr(at, "```yaml\n");
    const char *to = from == NULL ? NULL : strstr(from, "\n```\n");
    if (to == NULL) {
        fail_msg("%s has no example behind %s", path, heading);
    }
    from += strlen("```yaml\n");
    write_file(file, from, (size_t)(to + 1 - from));
}

static void test_examples(void **state)
{
    char *docs = read_docs();
    assert_int_equal(enter_directory(state), 0);
    write_example(docs, "## A worked example", "train.yaml");
    write_example(docs, "## Serving", "serve.yaml");
    write_text_file("users.csv", "");
    write_text_file("items.csv", "");
    write_text_file("clicks.csv", "");
    struct buf problems = BUF_INIT;
    train_config_free(train_config_load("train.yaml", NULL, 0, &problems));
    serve_config_free(serve_config_load("serve.yaml", NULL, 0, &problems));
    assert_string_equal(problems.data, "");
    buf_release(&problems);
    mem_free(docs);
    assert_int_equal(leave_directory(state), 0);
}

/* Every row of the tab-separated tables has as many fields as its head. */
static void check_fields(void (*describe)(struct buf *out, bool markdown))
{
    struct buf out = BUF_INIT;
    describe(&out, false);
    int tabs = 0;
    for (size_t i = 0; i < out.len; i++) {
        tabs += out.data[i] == '\t';
        if (out.data[i] == '\n') {
            assert_int_equal(tabs, 7);
            tabs = 0;
        }
    }
    assert_non_null(strstr(out.data, "key\ttype\tmin\tdefault\tmax\tunit\treloadable\tmeaning\n"));
    buf_release(&out);
}

static void test_tabs(void **state)
{
    (void)state;
    check_fields(train_config_describe);
    check_fields(serve_config_describe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_train_table),
        cmocka_unit_test(test_serve_table),
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_tabs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
