/*
 * YAML to a tree and back: places, every refusal with its line, hostile texts, and random trees that must survive
 * writing and reading.
 */
#include "tests/unit/config/support.h"

#include "config/yaml.h"

/* The problems of a text (borrowed until the next call); *root gets the tree or NULL. */
static const char *parse(const char *text, size_t n, struct node **root)
{
    static struct buf out;
    static char kept[8192];
    out = (struct buf)BUF_INIT;
    struct problems problems = {.file = "f.yaml", .out = &out};
    *root = yaml_parse(text, n, &problems);
    assert_int_equal(problems.count > 0, out.len > 0);
    snprintf(kept, sizeof kept, "%s", out.data);
    buf_release(&out);
    return kept;
}

static void refuse_bytes(const char *text, size_t n, const char *expected)
{
    struct node *root;
    const char *problems = parse(text, n, &root);
    assert_string_equal(problems, expected);
    node_free(root);
}

static void refuse(const char *text, const char *expected)
{
    refuse_bytes(text, strlen(text), expected);
}

/* Whatever it is, it is refused; used where the wording is libyaml's. */
static void refuse_somehow(const char *text, size_t n, const char *beginning)
{
    struct node *root;
    const char *problems = parse(text, n, &root);
    assert_null(root);
    assert_int_equal(strncmp(problems, beginning, strlen(beginning)), 0);
    assert_ptr_equal(strchr(problems, '\n'), problems + strlen(problems) - 1);
}

static void test_tree(void **state)
{
    (void)state;
    struct node *root;
    static const char text[] = "a: 1\n"
                               "b:\n"
                               "  - {x: \"2\", y: ~}\n"
                               "  - text with words\n"
                               "c: {}\n";
    assert_string_equal(parse(text, sizeof text - 1, &root), "");
    assert_int_equal(root->count, 3);
    const struct node *a = node_find(root, "a");
    assert_string_equal(a->text, "1");
    assert_true(a->plain);
    assert_int_equal(a->at.line, 1);
    const struct node *b = node_find(root, "b");
    assert_int_equal(b->kind, NODE_LIST);
    assert_int_equal(b->key_line, 2);
    assert_int_equal(b->at.line, 3);
    const struct node *x = node_path(root, "b.0.x");
    assert_string_equal(x->text, "2");
    assert_false(x->plain);
    assert_true(node_is_null(node_path(root, "b.0.y")));
    assert_string_equal(node_path(root, "b.1")->text, "text with words");
    assert_null(node_path(root, "b.2"));
    assert_null(node_path(root, "b.01"));
    assert_null(node_path(root, "a.1"));
    assert_null(node_path(root, "c.x"));
    assert_ptr_equal(node_path(root, ""), root);
    node_free(root);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char empty[] = "f.yaml: the file is empty; write at least one \"key: value\"\n";
    refuse("", empty);
    refuse("# only a comment\n", empty);
    refuse("---\n", empty);
    refuse("- a\n- b\n", "f.yaml:1: the top level is a list; it must be a mapping of \"key: value\" lines\n");
    refuse("\nwords", "f.yaml:2: the top level is a value; it must be a mapping of \"key: value\" lines\n");
    refuse("a: 1\nb: {c: 1, c: 2}\na: 3\n", "f.yaml:2: the key \"c\" is given twice, first in line 2; remove one\n"
                                            "f.yaml:3: the key \"a\" is given twice, first in line 1; remove one\n");
    static const char alias[] =
        ": anchors and aliases (&name, *name) are not supported; write the value out, and put texts "
        "that begin with & or * in quotes\n";
    char expected[256];
    snprintf(expected, sizeof expected, "f.yaml:1%s", alias);
    refuse("a: &x 1\nb: *x\n", expected);
    refuse("a: &x [1]\n", expected);
    refuse("a: &x {b: 1}\n", expected);
    snprintf(expected, sizeof expected, "f.yaml:2%s", alias);
    refuse("a: 1\nb: *x\n", expected);
    refuse("a: !!str 1\n", "f.yaml:1: tags (!name) are not supported; put texts that begin with ! in quotes\n");
    refuse("a: 1\n---\nb: 2\n", "f.yaml:2: a second document begins here (---); a configuration is one document\n");
    refuse("a: 1\n? [b]\n: 2\n", "f.yaml:2: a key must be a word, not a list, mapping or alias\n");
    refuse("a: \"x\\0y\"\n", "f.yaml:1: a value holds a zero byte\n");
    refuse("a:\n\t- 1\n",
           "f.yaml:2: not valid YAML: while scanning for the next token, found character that cannot start any "
           "token (column 1); indent with spaces, not tabs, and put texts that begin with a special "
           "character in quotes\n");
    refuse("a: [1, 2\n",
           "f.yaml:2: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']' (column "
           "1)\n");
    refuse("a: 1\n\"\\e[31m\": 2\n\"\\e[31m\": 3\n",
           "f.yaml:3: the key \"?[31m\" is given twice, first in line 2; remove one\n");
}

static void test_bytes(void **state)
{
    (void)state;
    refuse_bytes("a: 1\nb: \xff\n", 11, "f.yaml:2: not a text in UTF-8: invalid leading UTF-8 octet\n");
    refuse_bytes("a: 1\n\nb: \xc3(\n", 12, "f.yaml:3: not a text in UTF-8: invalid trailing UTF-8 octet\n");
    refuse_bytes("a: x\0y\n", 7, "f.yaml:1: not a text in UTF-8: control characters are not allowed\n");
    refuse_somehow("\xff\xfe\x61\0:\0", 6, "f.yaml:1: not a text in UTF-8: ");
    refuse_somehow("\x7f"
                   "ELF\2\1\1\0\0\0",
                   10, "f.yaml:1: ");
    struct node *root;
    assert_string_equal(parse("\xef\xbb\xbf"
                              "a: \xc3\xa4\n",
                              9, &root),
                        "");
    assert_string_equal(node_find(root, "a")->text, "\xc3\xa4");
    node_free(root);
}

/* `n` times `unit` between a beginning and an end; new (free). */
static char *repeat(const char *beginning, const char *unit, size_t n, const char *end)
{
    struct buf text = BUF_INIT;
    buf_puts(&text, beginning);
    for (size_t i = 0; i < n; i++) {
        buf_puts(&text, unit);
    }
    buf_puts(&text, end);
    assert_false(buf_failed(&text));
    char *copy = strdup(text.data);
    buf_release(&text);
    return copy;
}

static void refuse_repeat(const char *beginning, const char *unit, size_t n, const char *end, const char *expected)
{
    char *text = repeat(beginning, unit, n, end);
    refuse(text, expected);
    free(text);
}

static void accept_repeat(const char *beginning, const char *unit, size_t n, const char *end)
{
    refuse_repeat(beginning, unit, n, end, "");
}

static void test_bounds(void **state)
{
    (void)state;
    static const char deep[] = "f.yaml:1: nested deeper than 32 levels\n";
    accept_repeat("a: ", "[", 31, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n");
    refuse_repeat("a: ", "[", 32, "", deep);
    refuse_repeat("a: ", "[", 200000, "", deep);
    refuse_repeat("", "{a: ", 100000, "", deep);
    refuse_repeat("a:\n  ", "- ", 100000, "1\n", "f.yaml:2: nested deeper than 32 levels\n");
    accept_repeat("a: [", "1,", 65500, "]\n");
    refuse_repeat("a: [", "1,", 65536, "]\n", "f.yaml:1: more than 65536 values; no configuration needs that many\n");
    accept_repeat("a: ", "x", (1 << 20) - 4, "\n");
    refuse_repeat("a: ", "x", 1 << 20, "\n", "f.yaml: 1048580 bytes, more than the limit of 1048576\n");
    accept_repeat("", "k", 128, ": 1\n");
    refuse_repeat("", "k", 129, ": 1\n", "f.yaml:1: a key is longer than 128 bytes\n");
    struct buf many = BUF_INIT;
    for (int i = 0; i <= 1024; i++) {
        buf_printf(&many, "k%d: 1\n", i);
    }
    refuse(many.data, "f.yaml:1025: more than 1024 keys in one mapping\n");
    buf_release(&many);
    /* ten lines that would be ten billion values, if aliases were followed */
    static const char bomb[] = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n";
    refuse_somehow(bomb, sizeof bomb - 1, "f.yaml:1: anchors");
}

static void test_files(void **state)
{
    (void)state;
    struct buf out = BUF_INIT;
    struct problems problems = {.file = "big.yaml", .out = &out};
    char *big = repeat("a: ", "x", 1 << 20, "\n");
    write_text_file("big.yaml", big);
    assert_null(yaml_load("big.yaml", &problems));
    assert_string_equal(out.data, "big.yaml: 1048580 bytes, more than the limit of 1048576\n");
    buf_clear(&out);
    assert_null(yaml_load(".", &problems));
    assert_string_equal(out.data, ".: not a regular file\n");
    assert_int_equal(problems.count, 2);
    free(big);
    buf_release(&out);
}

/* --- writing -------------------------------------------------------------------------------------------------------- */

static void expect_written(const char *text, const char *expected)
{
    struct node *root;
    struct buf out = BUF_INIT;
    assert_string_equal(parse(text, strlen(text), &root), "");
    yaml_write(root, &out);
    assert_string_equal(out.data, expected);
    node_free(root);
    buf_release(&out);
}

static void test_write(void **state)
{
    (void)state;
    expect_written("{}", "{}\n");
    expect_written("a: {b: {c: 1}}", "a:\n  b:\n    c: 1\n");
    expect_written("a: [1, -2, \"3\", x y, ~]", "a: [1, -2, \"3\", \"x y\", null]\n");
    expect_written("a:\n- {b: 1, c: [2]}\n- 3\n", "a:\n  - {b: 1, c: [2]}\n  - 3\n");
    expect_written("a: {}\nb: []\nc: ''\nd: 'null'\ne: '@x'\nf: '-'\n'~': '1:2'\n",
                   "a: {}\nb: []\nc: \"\"\nd: \"null\"\ne: \"@x\"\nf: \"-\"\n\"~\": \"1:2\"\n");
}

/* Same kinds, keys, texts and quoting. */
static bool same_tree(const struct node *a, const struct node *b)
{
    if (a->kind != b->kind || a->count != b->count || (a->key == NULL) != (b->key == NULL) ||
        (a->key != NULL && strcmp(a->key, b->key) != 0)) {
        return false;
    }
    if (a->kind == NODE_SCALAR) {
        return node_is_null(a) ? node_is_null(b) : strcmp(a->text, b->text) == 0 && !node_is_null(b);
    }
    const struct node *y = b->first;
    for (const struct node *x = a->first; x != NULL; x = x->next, y = y->next) {
        if (!same_tree(x, y)) {
            return false;
        }
    }
    return true;
}

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % n;
}

/* A double-quoted scalar of random code points, or a plain word. */
static void random_scalar(uint32_t *seed, struct buf *out)
{
    static const uint32_t ranges[][2] = {{1, 0x20},         {0x20, 0x7f},       {0x7f, 0xa0},
                                         {0xa0, 0x800},     {0x2020, 0x2030},   {0xfef0, 0xff00},
                                         {0xfff0, 0x10000}, {0x1f600, 0x1f640}, {0x20, 0x7f}};
    if (random_below(seed, 3) == 0) {
        static const char *const words[] = {"1", "-0.5", "true", "null", "a-b", "1e-6", "recall@20", "x/y.csv"};
        buf_puts(out, words[random_below(seed, sizeof words / sizeof words[0])]);
        return;
    }
    buf_puts(out, "\"");
    for (uint32_t n = random_below(seed, 6); n > 0; n--) {
        const uint32_t *range = ranges[random_below(seed, sizeof ranges / sizeof ranges[0])];
        buf_printf(out, "\\U%08X", range[0] + random_below(seed, range[1] - range[0]));
    }
    buf_puts(out, "\"");
}

static void random_tree(uint32_t *seed, int depth, struct buf *out)
{
    uint32_t kind = depth > 4 ? 2 : random_below(seed, 4);
    if (kind > 1) {
        random_scalar(seed, out);
        return;
    }
    buf_puts(out, kind == 0 ? "{" : "[");
    for (uint32_t i = 0, n = random_below(seed, 5); i < n; i++) {
        buf_puts(out, i > 0 ? ", " : "");
        if (kind == 0) {
            buf_printf(out, "\"\\U%08X%u\": ", 1 + random_below(seed, 0x300), i);
        }
        random_tree(seed, depth + 1, out);
    }
    buf_puts(out, kind == 0 ? "}" : "]");
}

static void test_round_trip(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t seed = i;
        struct buf text = BUF_INIT;
        struct buf written = BUF_INIT;
        struct node *tree;
        struct node *again;
        buf_puts(&text, "a: ");
        random_tree(&seed, 0, &text);
        assert_string_equal(parse(text.data, text.len, &tree), "");
        yaml_write(tree, &written);
        assert_string_equal(parse(written.data, written.len, &again), "");
        if (!same_tree(tree, again)) {
            fail_msg("%s\nbecame\n%s", text.data, written.data);
        }
        node_free(tree);
        node_free(again);
        buf_release(&text);
        buf_release(&written);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),       cmocka_unit_test(test_refusals), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bounds),     cmocka_unit_test(test_files),    cmocka_unit_test(test_write),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}
