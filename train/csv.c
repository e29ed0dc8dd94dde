/*
 * A window over the stream slides from row to row. A row is looked for at its start; when the window ends first, the
 * rest of the row is moved to the window's front, more is read (the window grows up to a row's limit), and the search
 * starts again at the row's first byte, so there is no state to keep between chunks.
 *
 * Two ways to split a row. A line without any quote, nearly all of them, is cut by memchr alone. A line with one goes
 * through split_quoted, which is strict about what would make a program lose rows silently (text behind a closing
 * quote, a quote that never closes) and lenient about quotes inside plain fields, which real item titles have.
 *
 * Lines are counted by the newlines of every consumed row, so an error names the line an editor shows.
 *
 * libcsv, which the design names, was measured and left out, and not for its speed: on 10 million rows of three columns
 * (238 MB, one core, best of several interleaved runs on a busy machine) it reads 12.0 million rows/s with empty
 * callbacks; csv_next reads 27.6 million from plain text, 10.5 million from gzip, 17.1 million from zstd. The reasons:
 * in its strict mode an error ends the parser, so a bad row cannot be dropped and counted, and its lenient mode takes
 * broken quoting as data; it skips blank lines without telling, which loses the line number, unless every CR and LF is
 * reported as a row of its own; it has no "::", so a second splitter would be needed anyway; and it pushes fields
 * through callbacks, so that every row would be copied once more to be pulled.
 */
#include "train/csv.h"

#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "train/progress.h"
#include "train/text_stream.h"

enum { CHUNK = 256 * 1024, WARNINGS = 3, LISTED_COLUMNS = 40, PROGRESS_ROWS = 1 << 16 };

struct csv {
    char *path;
    struct text_stream *stream;
    char delimiter[5];
    size_t delimiter_length;
    uint64_t max_bad_rows, bad_rows;
    bool quiet;
    size_t chunk;

    char *window; /* [capacity] */
    size_t capacity;
    size_t begin, end; /* unread part */
    bool at_end;       /* the stream is */
    uint64_t line;     /* of the current row */
    uint64_t next_line;

    char **names; /* [n_columns] */
    size_t n_columns;
    struct span *fields; /* [CSV_COLUMNS_MAX + 1] */
    size_t n_fields;     /* of the row, may be more than were kept */

    struct progress progress;
    uint64_t rows; /* returned so far */
};

/* What looking for a row at the window's begin found. */
enum found { FOUND_ROW, FOUND_EMPTY_LINE, FOUND_NEEDS_MORE, FOUND_BAD };

static const char too_long[] = "the row is longer than 1 MiB (a quoted field that is never closed?)";

static void field_add(struct csv *c, const char *text, size_t length)
{
    if (c->n_fields <= CSV_COLUMNS_MAX) {
        c->fields[c->n_fields] = (struct span){text, length};
    }
    c->n_fields++;
}

static void split_plain(struct csv *c, const char *text, const char *end)
{
    const char *at;
    c->n_fields = 0;
    if (c->delimiter_length == 1) {
        while ((at = memchr(text, c->delimiter[0], (size_t)(end - text))) != NULL) {
            field_add(c, text, (size_t)(at - text));
            text = at + 1;
        }
    } else {
        while ((at = memmem(text, (size_t)(end - text), c->delimiter, c->delimiter_length)) != NULL) {
            field_add(c, text, (size_t)(at - text));
            text = at + c->delimiter_length;
        }
    }
    field_add(c, text, (size_t)(end - text));
}

/* The quote that closes the field whose opening quote is at `open`, or NULL. */
static char *closing_quote(char *open, char *end)
{
    char *at = open + 1;
    while ((at = memchr(at, '"', (size_t)(end - at))) != NULL && at + 1 < end && at[1] == '"') {
        at += 2;
    }
    return at;
}

/* "" to ", in place; returns the new length. */
static size_t unescape(char *text, size_t length)
{
    char *doubled = memmem(text, length, "\"\"", 2);
    if (doubled == NULL) {
        return length;
    }
    size_t to = (size_t)(doubled - text);
    for (size_t from = to; from < length; from++) {
        text[to++] = text[from];
        from += text[from] == '"'; /* inside a quoted field quotes come in pairs */
    }
    return to;
}

/* Splits a row that may hold quoted fields. `*row_end` is where the next one starts. Nothing is changed in the window:
 * quoted fields keep their quotes, for unquote_fields. */
static enum found split_quoted(struct csv *c, char **row_end, const char **reason)
{
    char *at = c->window + c->begin, *end = c->window + c->end;
    c->n_fields = 0;
    for (;;) {
        char *start = at;
        if (at < end && *at == '"') {
            char *close = closing_quote(at, end);
            if (close == NULL || (close + 1 == end && !c->at_end)) { /* the next byte may double the quote */
                *reason = "a quoted field is never closed";
                return c->at_end ? FOUND_BAD : FOUND_NEEDS_MORE;
            }
            at = close + 1;
        } else {
            while (at < end && *at != c->delimiter[0] && *at != '\n') {
                at++;
            }
        }
        bool last = at == end || *at == '\n' || (*at == '\r' && (at + 1 == end || at[1] == '\n'));
        if ((at == end || at + 1 == end) && last && !c->at_end && !(at < end && *at == '\n')) {
            return FOUND_NEEDS_MORE;
        }
        bool quoted = start < at && *start == '"';
        size_t length = (size_t)(at - start);
        if (!quoted && last && length > 0 && at[-1] == '\r') {
            length--;
        }
        if (!last && *at != c->delimiter[0]) {
            *reason = "text behind a closing quote (a quote inside a quoted field is written twice)";
            return FOUND_BAD;
        }
        field_add(c, start, length);
        if (last) {
            at += at < end && *at == '\r';
            *row_end = at < end ? at + 1 : end;
            break;
        }
        at++;
    }
    return FOUND_ROW;
}

/* Takes the quotes off the fields of a row that split_quoted found. */
static void unquote_fields(struct csv *c)
{
    for (size_t i = 0; i < c->n_fields && i <= CSV_COLUMNS_MAX; i++) {
        struct span *f = &c->fields[i];
        if (f->length > 0 && f->text[0] == '"') {
            char *inside = c->window + (f->text - c->window) + 1;
            *f = (struct span){inside, unescape(inside, f->length - 2)};
        }
    }
}

static uint64_t count_newlines(const char *text, const char *end)
{
    uint64_t n = 0;
    while ((text = memchr(text, '\n', (size_t)(end - text))) != NULL) {
        n++;
        text++;
    }
    return n;
}

/* Looks for one row at the window's begin and consumes it when it is there. */
static enum found take_row(struct csv *c, const char **reason)
{
    char *start = c->window + c->begin, *end = c->window + c->end;
    char *newline = memchr(start, '\n', (size_t)(end - start));
    if (newline == NULL && !c->at_end) {
        return FOUND_NEEDS_MORE;
    }
    char *line_end = newline != NULL ? newline : end;
    char *next = newline != NULL ? newline + 1 : end;
    enum found found = FOUND_ROW;
    c->line = c->next_line;
    if (c->delimiter_length == 1 && memchr(start, '"', (size_t)(line_end - start)) != NULL) {
        char *row_end = next;
        found = split_quoted(c, &row_end, reason);
        if (found == FOUND_NEEDS_MORE) {
            return found;
        }
        if (found == FOUND_ROW && row_end - start > CSV_ROW_MAX) {
            *reason = too_long;
            found = FOUND_BAD;
        }
        if (found == FOUND_ROW) {
            c->next_line += count_newlines(start, row_end); /* before unquoting, which moves bytes */
            unquote_fields(c);
            next = row_end;
        } else {
            c->next_line++;
        }
    } else {
        c->next_line++;
        line_end -= line_end > start && line_end[-1] == '\r';
        if (line_end == start) {
            found = FOUND_EMPTY_LINE;
        } else if (next - start > CSV_ROW_MAX) {
            *reason = too_long;
            found = FOUND_BAD;
        } else {
            split_plain(c, start, line_end);
        }
    }
    c->begin = (size_t)(next - c->window);
    return found;
}

/* Reads more behind the unread part, which moves to the window's front. */
static int fill(struct csv *c, struct err *e)
{
    size_t unread = c->end - c->begin;
    memmove(c->window, c->window + c->begin, unread);
    c->begin = 0;
    c->end = unread;
    if (c->capacity - unread < c->chunk) {
        size_t capacity = c->capacity * 2 > unread + c->chunk ? c->capacity * 2 : unread + c->chunk;
        char *window = mem_resize(c->window, unread, capacity, 1);
        if (window == NULL) {
            return err_nomem(e);
        }
        c->window = window;
        c->capacity = capacity;
    }
    for (size_t left = c->chunk; left > 0 && !c->at_end;) {
        ssize_t got = text_stream_read(c->stream, c->window + c->end, left, e);
        if (got < 0) {
            return -1;
        }
        c->at_end = got == 0;
        c->end += (size_t)got;
        left -= (size_t)got;
    }
    return 0;
}

/* Leaves the rest of the line at the window's begin out; reads on when its end is not in the window. */
static int skip_line(struct csv *c, struct err *e)
{
    for (;;) {
        char *start = c->window + c->begin;
        char *newline = memchr(start, '\n', c->end - c->begin);
        if (newline != NULL || c->at_end) {
            c->begin = newline != NULL ? (size_t)(newline + 1 - c->window) : c->end;
            c->next_line++;
            return 0;
        }
        c->begin = c->end;
        if (fill(c, e) < 0) {
            return -1;
        }
    }
}

/* The next row that can be split: 1, 0 at the end, -1. */
static int next_row(struct csv *c, struct err *e)
{
    for (;;) {
        const char *reason = NULL;
        if (c->begin == c->end && c->at_end) {
            return 0;
        }
        enum found found = c->begin < c->end ? take_row(c, &reason) : FOUND_NEEDS_MORE;
        if (found == FOUND_ROW) {
            return 1;
        }
        if (found == FOUND_BAD && csv_reject(c, -1, reason, e) < 0) {
            return -1;
        }
        if (found != FOUND_NEEDS_MORE) {
            continue;
        }
        if (c->end - c->begin > CSV_ROW_MAX) {
            c->line = c->next_line;
            if (csv_reject(c, -1, too_long, e) < 0 || skip_line(c, e) < 0) {
                return -1;
            }
        } else if (fill(c, e) < 0) {
            return -1;
        }
    }
}

/* The number of rows is guessed from the share of the bytes. */
static void show_progress(struct csv *c)
{
    double share = csv_done(c);
    if (!c->quiet && share > 0) {
        c->progress.total = (double)c->rows / share;
        progress_update(&c->progress, (double)c->rows);
    }
}

int csv_next(struct csv *c, const struct span **fields, struct err *e)
{
    int row;
    while ((row = next_row(c, e)) > 0 && c->n_fields != c->n_columns) {
        char reason[96];
        snprintf(reason, sizeof reason, "%zu field%s, expected %zu", c->n_fields, c->n_fields == 1 ? "" : "s",
                 c->n_columns);
        if (csv_reject(c, -1, reason, e) < 0) {
            return -1;
        }
    }
    *fields = c->fields;
    if ((++c->rows & (PROGRESS_ROWS - 1)) == 0) {
        show_progress(c);
    }
    return row;
}

int csv_reject(struct csv *c, int column, const char *reason, struct err *e)
{
    const char *name = column >= 0 ? c->names[column] : "";
    const char *colon = column >= 0 ? ": " : "";
    c->bad_rows++;
    if (c->bad_rows > c->max_bad_rows) {
        if (c->max_bad_rows == 0) {
            return err_set(e, "%s:%llu: %s%s%s", c->path, (unsigned long long)c->line, name, colon, reason);
        }
        return err_set(e, "%s:%llu: %s%s%s (bad row number %llu; max_bad_rows tolerates %llu)", c->path,
                       (unsigned long long)c->line, name, colon, reason, (unsigned long long)c->bad_rows,
                       (unsigned long long)c->max_bad_rows);
    }
    if (!c->quiet && c->bad_rows <= WARNINGS) {
        log_warn("%s:%llu: %s%s%s; row dropped%s", c->path, (unsigned long long)c->line, name, colon, reason,
                 c->bad_rows == WARNINGS ? " (others of this file are counted only)" : "");
    }
    return 0;
}

static int name_add(struct csv *c, const char *text, size_t length, struct err *e)
{
    c->names[c->n_columns] = mem_strndup(text, length);
    return c->names[c->n_columns++] != NULL ? 0 : err_nomem(e);
}

static int name_columns(struct csv *c, const char *const *columns, struct err *e)
{
    uint64_t max_bad_rows = c->max_bad_rows;
    size_t n = 0;
    if (columns != NULL) {
        while (columns[n] != NULL) {
            n++;
        }
    } else {
        c->max_bad_rows = 0; /* the header cannot be dropped */
        int row = next_row(c, e);
        c->max_bad_rows = max_bad_rows;
        if (row <= 0) {
            return row < 0 ? -1 : err_set(e, "%s: the file is empty; its first line should name the columns", c->path);
        }
        n = c->n_fields;
    }
    if (n == 0 || n > CSV_COLUMNS_MAX) {
        return err_set(e, "%s: %zu columns; 1 to %d are possible", c->path, n, CSV_COLUMNS_MAX);
    }
    c->names = mem_array(n, sizeof *c->names);
    if (c->names == NULL) {
        return err_nomem(e);
    }
    for (size_t i = 0; i < n; i++) {
        struct span name = columns != NULL ? (struct span){columns[i], strlen(columns[i])} : c->fields[i];
        if (memchr(name.text, '\0', name.length) != NULL) {
            return err_set(e, "%s: this is not delimited text: there are NUL bytes in its first line", c->path);
        }
        if (name_add(c, name.text, name.length, e) < 0) {
            return -1;
        }
    }
    return 0;
}

static int skip_byte_order_mark(struct csv *c, struct err *e)
{
    while (c->end < 3 && !c->at_end) {
        if (fill(c, e) < 0) {
            return -1;
        }
    }
    if (c->end >= 2 && (memcmp(c->window, "\xff\xfe", 2) == 0 || memcmp(c->window, "\xfe\xff", 2) == 0)) {
        return err_set(e, "%s: UTF-16 text; convert it to UTF-8", c->path);
    }
    c->begin = c->end >= 3 && memcmp(c->window, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    return 0;
}

static int check_delimiter(const char *delimiter, struct err *e)
{
    size_t n = strlen(delimiter);
    if (n < 1 || n > 4 || strpbrk(delimiter, "\"\r\n") != NULL) {
        return err_set(e, "data.delimiter: one to four bytes, none of them a quote or a newline");
    }
    return 0;
}

struct csv *csv_open(const char *path, const struct csv_options *options, struct err *e)
{
    struct csv *c = mem_array(1, sizeof *c);
    if (c == NULL) {
        err_nomem(e);
        return NULL;
    }
    if (check_delimiter(options->delimiter, e) < 0) {
        goto failed;
    }
    c->delimiter_length = strlen(options->delimiter);
    memcpy(c->delimiter, options->delimiter, c->delimiter_length);
    c->max_bad_rows = options->max_bad_rows;
    c->quiet = options->quiet;
    c->chunk = options->chunk > 0 ? options->chunk : CHUNK;
    c->capacity = c->chunk;
    c->next_line = 1;
    c->path = mem_strdup(path);
    c->window = mem_array(c->capacity, 1);
    c->fields = mem_array(CSV_COLUMNS_MAX + 1, sizeof *c->fields);
    if (c->path == NULL || c->window == NULL || c->fields == NULL) {
        err_nomem(e);
        goto failed;
    }
    c->stream = text_stream_open(path, e);
    if (c->stream == NULL || skip_byte_order_mark(c, e) < 0 || name_columns(c, options->columns, e) < 0) {
        goto failed;
    }
    const char *slash = strrchr(c->path, '/');
    progress_begin(&c->progress, slash == NULL ? c->path : slash + 1, "rows", 0);
    return c;
failed:
    csv_close(c);
    return NULL;
}

void csv_close(struct csv *c)
{
    if (c == NULL) {
        return;
    }
    progress_end(&c->progress);
    text_stream_close(c->stream);
    for (size_t i = 0; i < c->n_columns; i++) {
        mem_free(c->names[i]);
    }
    mem_free(c->names);
    mem_free(c->fields);
    mem_free(c->window);
    mem_free(c->path);
    mem_free(c);
}

/* "name", or "name:type" as RecBole writes it */
static bool is_named(const char *column, const char *name, bool typed)
{
    size_t n = strlen(name);
    return strncmp(column, name, n) == 0 && column[n] == (typed ? ':' : '\0');
}

int csv_column(const struct csv *c, const char *name, struct err *e)
{
    int found = -1;
    for (int typed = 0; typed <= 1 && found < 0; typed++) {
        for (size_t i = 0; i < c->n_columns; i++) {
            if (is_named(c->names[i], name, typed)) {
                if (found >= 0) {
                    return err_set(e, "%s: two columns are named \"%s\"", c->path, name);
                }
                found = (int)i;
            }
        }
    }
    if (found >= 0) {
        return found;
    }
    struct buf list = BUF_INIT;
    for (size_t i = 0; i < c->n_columns && i < LISTED_COLUMNS; i++) {
        buf_printf(&list, "%s%s", i > 0 ? ", " : "", c->names[i]);
    }
    err_set(e, "%s: no column \"%s\"; there are: %s%s%s", c->path, name, list.data,
            c->n_columns > LISTED_COLUMNS ? ", ..." : "",
            c->n_columns == 1 ? " (is data.delimiter the right one?)" : "");
    buf_release(&list);
    return -1;
}

const char *csv_column_name(const struct csv *c, size_t column)
{
    return c->names[column];
}

size_t csv_columns(const struct csv *c)
{
    return c->n_columns;
}

uint64_t csv_line(const struct csv *c)
{
    return c->line;
}

uint64_t csv_bad_rows(const struct csv *c)
{
    return c->bad_rows;
}

double csv_done(const struct csv *c)
{
    return text_stream_done(c->stream);
}
