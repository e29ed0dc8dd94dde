/*
 * Delimited text: a table of inputs with the rows or the error they must give, random inputs against an oracle that
 * looks at one byte at a time, every way of cutting a file into chunks, and the compressions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/rng.h"
#include "tests/unit/train/files.h"
#include "train/csv.h"
#include "train/text_stream.h"

static const char *const two_columns[] = {"x", "y", NULL};

/* All rows as "line:[field][field]\n", then "bad=n"; or "error: ..." without the directory. */
static void dump(struct buf *out, const char *path, const struct csv_options *options)
{
    struct err e = ERR_INIT;
    const struct span *fields;
    int row = -1;
    struct csv *c = csv_open(path, options, &e);
    while (c != NULL && (row = csv_next(c, &fields, &e)) > 0) {
        buf_printf(out, "%llu:", (unsigned long long)csv_line(c));
        for (size_t i = 0; i < csv_columns(c); i++) {
            buf_add(out, "[", 1);
            buf_add(out, fields[i].text, fields[i].length);
            buf_add(out, "]", 1);
        }
        buf_puts(out, "\n");
    }
    if (row < 0) {
        const char *slash = strrchr(e.message, '/');
        buf_printf(out, "error: %s", slash != NULL ? slash + 1 : e.message);
    } else {
        assert_true(csv_done(c) == 1.0);
        buf_printf(out, "bad=%llu", (unsigned long long)csv_bad_rows(c));
    }
    assert_true(err_isset(&e) == (row < 0));
    csv_close(c);
}

static void expect_dump(const char *path, const struct csv_options *options, const char *expected)
{
    struct buf out = BUF_INIT;
    dump(&out, path, options);
    if (strcmp(out.data, expected) != 0) {
        print_error("got:\n%s\nexpected:\n%s\n", out.data, expected);
    }
    assert_string_equal(out.data, expected);
    buf_release(&out);
}

/* --- the table -----------------------------------------------------------------------------------------------------*/

struct example {
    const char *what, *text;
    const char *delimiter;
    bool header;
    uint64_t max_bad_rows;
    const char *expected;
};

static const struct example examples[] = {
    {"plain", "a,b\nc,d\n", ",", false, 0, "1:[a][b]\n2:[c][d]\nbad=0"},
    {"header", "x,y\nc,d\n", ",", true, 0, "2:[c][d]\nbad=0"},
    {"no last newline", "a,b\nc,d", ",", false, 0, "1:[a][b]\n2:[c][d]\nbad=0"},
    {"CR LF", "a,b\r\nc,d\r\n", ",", false, 0, "1:[a][b]\n2:[c][d]\nbad=0"},
    {"CR at the end of the file", "a,b\r", ",", false, 0, "1:[a][b]\nbad=0"},
    {"CR inside", "a\rb,c\n", ",", false, 0, "1:[a\rb][c]\nbad=0"},
    {"byte order mark", "\xef\xbb\xbfx,y\na,b\n", ",", true, 0, "2:[a][b]\nbad=0"},
    {"byte order mark, quoted header", "\xef\xbb\xbf\"x\",\"y\"\na,b\n", ",", true, 0, "2:[a][b]\nbad=0"},
    {"empty lines", "\n\na,b\n\r\n\nc,d\n\n", ",", false, 0, "3:[a][b]\n6:[c][d]\nbad=0"},
    {"empty fields", ",\n,b\na,\n", ",", false, 0, "1:[][]\n2:[][b]\n3:[a][]\nbad=0"},
    {"spaces stay", " a , b \n", ",", false, 0, "1:[ a ][ b ]\nbad=0"},
    {"empty file without a header", "", ",", false, 0, "bad=0"},
    {"only a header", "x,y", ",", true, 0, "bad=0"},
    {"tab", "a\tb,c\n", "\t", false, 0, "1:[a][b,c]\nbad=0"},
    {"two-byte delimiter", "1::a:b\n2::\"q\n", "::", false, 0, "1:[1][a:b]\n2:[2][\"q]\nbad=0"},
    {"two-byte delimiter, three colons", "1:::a\n", "::", false, 0, "1:[1][:a]\nbad=0"},
    {"quotes", "\"a\",\"b\"\n", ",", false, 0, "1:[a][b]\nbad=0"},
    {"quoted delimiter", "\"a,1\",b\n", ",", false, 0, "1:[a,1][b]\nbad=0"},
    {"doubled quotes", "\"say \"\"hi\"\"\",\"\"\"\"\n", ",", false, 0, "1:[say \"hi\"][\"]\nbad=0"},
    {"quoted nothing", "\"\",\"\"\n", ",", false, 0, "1:[][]\nbad=0"},
    {"quoted newlines keep the line count", "\"a\nb\r\nc\",d\ne,f\n", ",", false, 0,
     "1:[a\nb\r\nc][d]\n4:[e][f]\nbad=0"},
    {"quoted, CR LF", "\"a\",\"b\"\r\n\"c\",d\r\n", ",", false, 0, "1:[a][b]\n2:[c][d]\nbad=0"},
    {"quoted, at the end of the file", "a,\"b\"", ",", false, 0, "1:[a][b]\nbad=0"},
    {"a quote inside a plain field", "5\" nail,b\n", ",", false, 0, "1:[5\" nail][b]\nbad=0"},
    {"too few fields", "a,b\nc\n", ",", false, 0, "1:[a][b]\nerror: f.csv:2: 1 field, expected 2"},
    {"too many fields", "a,b,c\n", ",", false, 0, "error: f.csv:1: 3 fields, expected 2"},
    {"never closed", "a,b\nc,\"d\ne,f\n", ",", false, 0, "1:[a][b]\nerror: f.csv:2: a quoted field is never closed"},
    {"never closed costs one line", "a,b\nc,\"d\ne,f\n", ",", false, 1, "1:[a][b]\n3:[e][f]\nbad=1"},
    {"text behind a quote", "\"a\"b,c\nd,e\n", ",", false, 0,
     "error: f.csv:1: text behind a closing quote (a quote inside a quoted field is written twice)"},
    {"text behind a quote costs one line", "\"a\"b,c\nd,e\n", ",", false, 1, "2:[d][e]\nbad=1"},
    {"bad rows exactly used up", "a\nb\nc,d\n", ",", false, 2, "3:[c][d]\nbad=2"},
    {"one bad row too many", "a\nb\nc,d\n\ne\n", ",", false, 2,
     "3:[c][d]\nerror: f.csv:5: 1 field, expected 2 (bad row number 3; max_bad_rows tolerates 2)"},
    {"a bad header is never dropped", "\"x\"z,y\na,b\n", ",", true, 9,
     "error: f.csv:1: text behind a closing quote (a quote inside a quoted field is written twice)"},
    {"empty file with a header", "", ",", true, 0,
     "error: f.csv: the file is empty; its first line should name the columns"},
    {"UTF-16", "\xff\xfeq", ",", true, 0, "error: f.csv: UTF-16 text; convert it to UTF-8"},
    {"no delimiter", "a\n", "", false, 0,
     "error: data.delimiter: one to four bytes, none of them a quote or a newline"},
    {"a quote as delimiter", "a\n", "\"", false, 0,
     "error: data.delimiter: one to four bytes, none of them a quote or a newline"},
};

static void test_examples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const struct example *x = &examples[i];
        const char *path = files_write("f.csv", x->text);
        struct csv_options o = {.delimiter = x->delimiter,
                                .columns = x->header ? NULL : two_columns,
                                .max_bad_rows = x->max_bad_rows,
                                .quiet = true};
        for (o.chunk = 0; o.chunk < 6; o.chunk++) {
            expect_dump(path, &o, x->expected);
        }
    }
}

static void test_nul_bytes(void **state)
{
    (void)state;
    struct csv_options o = {.delimiter = ",", .columns = two_columns};
    struct err e = ERR_INIT;
    const struct span *f;
    const char *path = files_write_bytes("f.csv", "a\0b,c\n", 6);
    struct csv *c = csv_open(path, &o, &e);
    assert_int_equal(csv_next(c, &f, &e), 1);
    assert_int_equal(f[0].length, 3);
    assert_memory_equal(f[0].text, "a\0b", 3);
    csv_close(c);
    o.columns = NULL;
    assert_null(csv_open(path, &o, &e));
    assert_non_null(strstr(e.message, "NUL bytes"));
}

/* --- columns -------------------------------------------------------------------------------------------------------*/

static int column_of(const char *header, const char *name, struct err *e)
{
    struct csv_options o = {.delimiter = ","};
    struct csv *c = csv_open(files_write("f.csv", header), &o, e);
    assert_non_null(c);
    int column = csv_column(c, name, e);
    csv_close(c);
    return column;
}

static void test_columns(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(column_of("user_id,item_id\n", "item_id", &e), 1);
    assert_int_equal(column_of("user_id:token,age:float\n", "age", &e), 1);
    assert_int_equal(column_of("user_id:token,age:float\n", "age:float", &e), 1);
    assert_int_equal(column_of("age:float,age\n", "age", &e), 1); /* the exact name first */
    assert_int_equal(column_of("\"a \"\"b\"\"\",c\n", "a \"b\"", &e), 0);
    assert_int_equal(column_of("ab,c\n", "a", &e), -1);
    assert_non_null(strstr(e.message, "f.csv: no column \"a\"; there are: ab, c"));
    err_clear(&e);
    assert_int_equal(column_of("a;b\n", "a", &e), -1);
    assert_non_null(strstr(e.message, "is data.delimiter the right one?"));
    err_clear(&e);
    assert_int_equal(column_of("a,b,a\n", "a", &e), -1);
    assert_non_null(strstr(e.message, "two columns are named \"a\""));
}

static void test_reject(void **state)
{
    (void)state;
    struct csv_options o = {.delimiter = ",", .max_bad_rows = 1, .quiet = true};
    struct err e = ERR_INIT;
    const struct span *f;
    struct csv *c = csv_open(files_write("f.csv", "x,y\n1,2\n\"3\n4\",5\n6,7\n"), &o, &e);
    assert_int_equal(csv_next(c, &f, &e), 1);
    assert_int_equal(csv_reject(c, 1, "no good", &e), 0);
    assert_int_equal(csv_next(c, &f, &e), 1);
    assert_int_equal(csv_line(c), 3);
    assert_int_equal(csv_reject(c, 0, "no good", &e), -1);
    assert_non_null(strstr(e.message, "f.csv:3: x: no good (bad row number 2; max_bad_rows tolerates 1)"));
    assert_int_equal(csv_bad_rows(c), 2);
    csv_close(c);
}

/* --- limits --------------------------------------------------------------------------------------------------------*/

/* A row of `length` bytes, newline included, between two short ones. */
static const char *write_long_row(size_t length, const char *start, const char *end)
{
    struct buf b = BUF_INIT;
    buf_puts(&b, "a,b\n");
    size_t at = b.len;
    buf_puts(&b, start);
    while (b.len - at < length - strlen(end)) {
        buf_add(&b, "z", 1);
    }
    buf_puts(&b, end);
    buf_puts(&b, "c,d\n");
    const char *path = files_write_bytes("f.csv", b.data, b.len);
    buf_release(&b);
    return path;
}

static uint64_t count_rows(const char *path, const struct csv_options *o, uint64_t *bad)
{
    struct err e = ERR_INIT;
    const struct span *f;
    uint64_t n = 0;
    struct csv *c = csv_open(path, o, &e);
    assert_non_null(c);
    int row;
    while ((row = csv_next(c, &f, &e)) > 0) {
        n++;
    }
    assert_int_equal(row, 0);
    *bad = csv_bad_rows(c);
    csv_close(c);
    return n;
}

static void test_long_rows(void **state)
{
    (void)state;
    static const size_t chunks[] = {0, 1000, 4096, 3000000};
    for (size_t i = 0; i < 4; i++) {
        uint64_t bad;
        struct csv_options o = {
            .delimiter = ",", .columns = two_columns, .max_bad_rows = 9, .quiet = true, .chunk = chunks[i]};
        assert_int_equal(count_rows(write_long_row(CSV_ROW_MAX, "x,", "\n"), &o, &bad), 3);
        assert_int_equal(bad, 0);
        assert_int_equal(count_rows(write_long_row(CSV_ROW_MAX + 1, "x,", "\n"), &o, &bad), 2);
        assert_int_equal(bad, 1);
        assert_int_equal(count_rows(write_long_row(CSV_ROW_MAX, "x,\"", "\"\n"), &o, &bad), 3);
        assert_int_equal(bad, 0);
        assert_int_equal(count_rows(write_long_row(CSV_ROW_MAX + 1, "x,\"", "\"\n"), &o, &bad), 2);
        assert_int_equal(bad, 1);
        assert_int_equal(count_rows(write_long_row(3 * CSV_ROW_MAX, "x,\"y\nv,w\nu,", "\"\n"), &o, &bad), 3);
        assert_int_equal(bad, 2); /* the opening line, and the one that is too long by itself */
    }
    struct csv_options strict = {.delimiter = ",", .columns = two_columns};
    expect_dump(write_long_row(CSV_ROW_MAX + 9, "x,", "\n"), &strict,
                "1:[a][b]\nerror: f.csv:2: the row is longer than 1 MiB (a quoted field that is never closed?)");
}

/* --- the oracle ----------------------------------------------------------------------------------------------------*/

/* Reads one row of text[from, n) a byte at a time. Returns where the next row starts, or 0 for a badly quoted one.
 * The row's fields go to `row` as "[field]", their number to *fields; an empty line has none. */
static size_t oracle_row(const char *text, size_t from, size_t n, const char *delimiter, struct buf *row,
                         size_t *fields)
{
    size_t p = from, d = strlen(delimiter);
    *fields = 0;
    for (;;) {
        struct buf field = BUF_INIT;
        bool quoted = d == 1 && p < n && text[p] == '"';
        if (quoted) {
            p++;
            while (p < n && (text[p] != '"' || (p + 1 < n && text[p + 1] == '"'))) {
                p += text[p] == '"';
                buf_add(&field, text + p, 1);
                p++;
            }
            if (p == n) {
                buf_release(&field);
                return 0;
            }
            p++;
            p += p < n && text[p] == '\r' && (p + 1 == n || text[p + 1] == '\n');
        } else {
            while (p < n && text[p] != '\n' && strncmp(text + p, delimiter, d) != 0) {
                buf_add(&field, text + p, 1);
                p++;
            }
        }
        bool last = p == n || text[p] == '\n';
        size_t length = field.len - (!quoted && last && field.len > 0 && field.data[field.len - 1] == '\r');
        bool empty_line = last && !quoted && length == 0 && *fields == 0;
        buf_printf(row, "[%.*s]", (int)length, field.data);
        buf_release(&field);
        *fields += !empty_line;
        if (last) {
            return p + 1;
        }
        if (strncmp(text + p, delimiter, d) != 0) {
            return 0;
        }
        p += d;
    }
}

static void oracle(struct buf *out, const char *text, size_t n, const char *delimiter)
{
    size_t line = 1, bad = 0;
    for (size_t from = 0; from < n;) {
        struct buf row = BUF_INIT;
        size_t fields;
        size_t next = oracle_row(text, from, n, delimiter, &row, &fields);
        if (next > 0 && fields == 2) {
            buf_printf(out, "%zu:%s\n", line, row.data);
        }
        bad += next == 0 || (fields != 2 && fields != 0);
        if (next == 0) {
            next = from + strcspn(text + from, "\n") + 1;
        }
        for (; from < next && from < n; from++) {
            line += text[from] == '\n';
        }
        buf_release(&row);
    }
    buf_printf(out, "bad=%zu", bad);
}

static void random_against_oracle(const char *delimiter, const char *alphabet, uint64_t stream)
{
    struct rng rng;
    rng_seed(&rng, 1, stream);
    for (int round = 0; round < 3000; round++) {
        char text[64];
        size_t n = rng_below(&rng, sizeof text);
        for (size_t i = 0; i < n; i++) {
            text[i] = alphabet[rng_below(&rng, (uint32_t)strlen(alphabet))];
        }
        text[n] = '\0';
        struct buf expected = BUF_INIT;
        oracle(&expected, text, n, delimiter);
        struct csv_options o = {.delimiter = delimiter,
                                .columns = two_columns,
                                .max_bad_rows = 1000,
                                .quiet = true,
                                .chunk = rng_below(&rng, 8)};
        expect_dump(files_write("f.csv", text), &o, expected.data);
        buf_release(&expected);
    }
}

static void test_random_rows(void **state)
{
    (void)state;
    random_against_oracle(",", "a,,\"\"\n\r", 1);
    random_against_oracle(",", "ab,,,\n\n\"", 2);
    random_against_oracle("::", ":::a\"\n\r", 3);
}

/* --- compression ---------------------------------------------------------------------------------------------------*/

static struct buf many_rows(void)
{
    struct buf b = BUF_INIT;
    for (int i = 0; i < 60000; i++) {
        buf_printf(&b, "%d,%d\n", i, i * 7919 % 10007);
    }
    return b;
}

/* Appends a gzip member, or a zstd frame, of text[0, n) to a file. */
static void append_gzip(const char *path, const char *text, size_t n)
{
    gzFile f = gzopen(path, "ab");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, text, (unsigned)n), n);
    assert_int_equal(gzclose(f), Z_OK);
}

static void append_zstd(const char *path, const char *text, size_t n)
{
    size_t bound = ZSTD_compressBound(n);
    char *packed = malloc(bound);
    size_t size = ZSTD_compress(packed, bound, text, n, 3);
    assert_false(ZSTD_isError(size));
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    assert_int_equal(fwrite(packed, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    free(packed);
}

static void check_packed(void (*append)(const char *, const char *, size_t))
{
    struct csv_options o = {.delimiter = ",", .columns = two_columns};
    struct buf text = many_rows(), expected = BUF_INIT;
    dump(&expected, files_write_bytes("f.csv", text.data, text.len), &o);
    const char *path = files_write("packed", "");
    append(path, text.data, text.len);
    expect_dump(path, &o, expected.data);
    path = files_write("packed", ""); /* three parts, cut inside a row, one of them empty */
    append(path, text.data, 100001);
    append(path, "", 0);
    append(path, text.data + 100001, text.len - 100001);
    expect_dump(path, &o, expected.data);
    buf_release(&text);
    buf_release(&expected);
}

static void test_gzip(void **state)
{
    (void)state;
    check_packed(append_gzip);
}

static void test_zstd(void **state)
{
    (void)state;
    check_packed(append_zstd);
}

/* Reads everything; true when it ended well. */
static bool reads_well(const char *path, struct err *e)
{
    char bytes[64];
    ssize_t n = -1;
    struct text_stream *s = text_stream_open(path, e);
    while (s != NULL && (n = text_stream_read(s, bytes, sizeof bytes, e)) > 0) {}
    if (s != NULL && n < 0) {
        assert_int_equal(text_stream_read(s, bytes, sizeof bytes, NULL), -1); /* and ever after */
    }
    text_stream_close(s);
    return n == 0;
}

static void check_damaged(void (*append)(const char *, const char *, size_t), size_t magic)
{
    append(files_write("whole", ""), "some,text\nsome,more text\n", 25);
    struct err e = ERR_INIT;
    size_t size;
    char *whole = file_read(files_path("whole"), 1 << 20, &size, &e);
    assert_non_null(whole);
    for (size_t n = magic; n < size; n++) {
        err_clear(&e);
        assert_false(reads_well(files_write_bytes("cut", whole, n), &e));
        assert_non_null(strstr(e.message, "/cut: truncated"));
    }
    err_clear(&e);
    assert_true(reads_well(files_write_bytes("cut", whole, size), &e));
    whole[size - 6] ^= 1; /* gzip: the checksum; zstd: the text */
    whole[size / 2] ^= 0x40;
    assert_false(reads_well(files_write_bytes("cut", whole, size), &e));
    assert_non_null(strstr(e.message, "/cut: damaged "));
    mem_free(whole);
}

static void test_damaged(void **state)
{
    (void)state;
    check_damaged(append_gzip, 2);
    struct err e = ERR_INIT;
    const char *path = files_write("cut", "");
    append_gzip(path, "a,b\n", 4);
    FILE *f = fopen(path, "ab");
    fputs("garbage", f);
    fclose(f);
    assert_false(reads_well(path, &e));
    assert_non_null(strstr(e.message, "/cut: damaged gzip data"));
}

static void test_truncated_zstd(void **state)
{
    (void)state;
    struct buf text = many_rows();
    struct err e = ERR_INIT;
    append_zstd(files_write("whole", ""), text.data, 5000);
    size_t size;
    char *whole = file_read(files_path("whole"), 1 << 20, &size, &e);
    for (size_t n = 4; n < size; n += 7) {
        err_clear(&e);
        assert_false(reads_well(files_write_bytes("cut", whole, n), &e));
        assert_non_null(strstr(e.message, "/cut: "));
    }
    mem_free(whole);
    buf_release(&text);
}

static void test_missing_file(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct csv_options o = {.delimiter = ","};
    assert_null(csv_open(files_path("absent"), &o, &e));
    assert_non_null(strstr(e.message, "/absent: No such file"));
    err_clear(&e);
    assert_null(csv_open("/tmp", &o, &e));
    assert_string_equal(e.message, "/tmp: Is a directory");
}

static void test_memory_failures(void **state)
{
    (void)state;
    const char *path = files_write("f.csv", "x,y\naaaaaaaaaaaa,bbbbbbbbbbbbbbbbbbbb\n\"c\",d\n");
    struct csv_options o = {.delimiter = ",", .chunk = 2};
    for (long n = 1; n < 100; n++) {
        struct err e = ERR_INIT;
        const struct span *f;
        int row = -1;
        mem_fail_at(n);
        struct csv *c = csv_open(path, &o, &e);
        while (c != NULL && (row = csv_next(c, &f, &e)) > 0) {}
        csv_close(c);
        mem_fail_at(0);
        assert_true(err_isset(&e) == (row < 0));
        if (row == 0) {
            assert_true(n > 5);
            return;
        }
        assert_non_null(strstr(e.message, "memory"));
    }
    fail_msg("never succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),     cmocka_unit_test(test_nul_bytes),
        cmocka_unit_test(test_columns),      cmocka_unit_test(test_reject),
        cmocka_unit_test(test_long_rows),    cmocka_unit_test(test_random_rows),
        cmocka_unit_test(test_gzip),         cmocka_unit_test(test_zstd),
        cmocka_unit_test(test_damaged),      cmocka_unit_test(test_truncated_zstd),
        cmocka_unit_test(test_missing_file), cmocka_unit_test(test_memory_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
