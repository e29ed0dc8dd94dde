#include "train/report_file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/buf.h"
#include "core/fileio.h"
#include "core/mem.h"
#include "train/report.h"

enum { READ_LIMIT = 64 << 20, LONG_MEMBER = 2000 /* lines */ };

static json_t *read_json(const char *path, struct err *e)
{
    size_t size;
    json_error_t error;
    char *text = file_read(path, READ_LIMIT, &size, e);
    json_t *report = text == NULL ? NULL : json_loadb(text, size, JSON_ALLOW_NUL, &error);
    if (text != NULL && report == NULL) {
        err_set(e, "%s:%d:%d: no report, because it is no JSON: %s", path, error.line, error.column, error.text);
    } else if (report != NULL && !json_is_object(report)) {
        err_set(e, "%s: no report: its JSON is not an object", path);
        json_decref(report);
        report = NULL;
    }
    mem_free(text);
    return report;
}

json_t *report_read(const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        return read_json(path, e);
    }
    char *file = path_join(path, "manifest.json");
    json_t *report = NULL;
    if (file == NULL) {
        err_nomem(e);
    } else {
        report = read_json(file, e);
    }
    mem_free(file);
    return report;
}

static size_t count_lines(const char *text)
{
    size_t n = 1;
    for (; (text = strchr(text, '\n')) != NULL; text++) {
        n++;
    }
    return n;
}

/* One member's value, its lines after the first indented once more. */
static void put_value(struct buf *out, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    if (text != NULL && count_lines(text) > LONG_MEMBER) {
        free(text);
        text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    }
    if (text == NULL) {
        out->failed = true;
        return;
    }
    for (const char *line = text; line != NULL;) {
        size_t n = strcspn(line, "\n");
        buf_add(out, line, n);
        line = line[n] == '\n' ? line + n + 1 : NULL;
        buf_puts(out, line != NULL ? "\n  " : "");
    }
    free(text);
}

/* A report as text for people: indented, but very long members on one line. A new string (mem_free), or NULL. */
static char *report_text(const json_t *report, struct err *e)
{
    struct buf out = BUF_INIT;
    const char *key;
    json_t *value;
    const char *separator = "{\n  ";
    json_object_foreach((json_t *)(uintptr_t)report, key, value)
    {
        buf_puts(&out, separator);
        buf_json_string(&out, key, strlen(key));
        buf_puts(&out, ": ");
        put_value(&out, value);
        separator = ",\n  ";
    }
    buf_puts(&out, json_object_size(report) > 0 ? "\n}\n" : "{}\n");
    char *text = buf_failed(&out) ? NULL : mem_strndup(out.data, out.len);
    if (text == NULL) {
        err_nomem(e);
    }
    buf_release(&out);
    return text;
}

/* FILE.json -> FILE.html */
static char *page_path(const char *path)
{
    size_t n = strlen(path);
    n -= n > 5 && strcmp(path + n - 5, ".json") == 0 ? 5 : 0;
    char *page = mem_array(n + 6, 1);
    if (page != NULL) {
        memcpy(page, path, n);
        memcpy(page + n, ".html", 6);
    }
    return page;
}

int record_write(const char *path, const json_t *record, page_writer *draw, struct err *e)
{
    struct buf page = BUF_INIT;
    char *text = report_text(record, e);
    char *beside = page_path(path);
    int result = text == NULL ? -1 : beside == NULL ? err_nomem(e) : 0;
    if (result == 0 && strcmp(path, "-") == 0) {
        fputs(text, stdout);
    } else if (result == 0) {
        bool failed = draw(record, &page, e) < 0 || file_replace(path, text, strlen(text), e) < 0 ||
                      file_replace(beside, page.data, page.len, e) < 0;
        result = failed ? -1 : 0;
    }
    mem_free(text);
    mem_free(beside);
    buf_release(&page);
    return result;
}

int report_write(const char *path, const json_t *report, struct err *e)
{
    return record_write(path, report, report_page, e);
}
