/*
 * Parameters as text: the documentation of a table, and a struct as the YAML that gives it again.
 *
 * Both are made from the rows that reading uses, so they cannot say anything else than what the program does.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/param.h"
#include "config/param_value.h"
#include "core/fileio.h"
#include "core/mem.h"

/* --- documentation -------------------------------------------------------------------------------------------------- */

static const char *type_word(enum param_type type)
{
    static const char *const words[] = {
        [PARAM_STRING] = "text",
        [PARAM_PATH] = "path",
        [PARAM_TEXT] = "text",
        [PARAM_INT] = "integer",
        [PARAM_SIZE] = "size",
        [PARAM_DURATION] = "duration",
        [PARAM_FLOAT] = "number",
        [PARAM_BOOL] = "bool",
        [PARAM_ENUM] = "word",
        [PARAM_WORD] = "word",
        [PARAM_INTS] = "list of integers",
        [PARAM_STRINGS] = "list of texts",
        [PARAM_SEPARATOR] = "separator",
        [PARAM_NODE] = "list",
        [PARAM_FIXED] = "",
    };
    return words[type];
}

static bool has_range(const struct param *row)
{
    return row->type == PARAM_INT || row->type == PARAM_SIZE || row->type == PARAM_DURATION ||
           row->type == PARAM_FLOAT || row->type == PARAM_INTS;
}

/* The default as it would stand in the file, or that there must be a value. */
static void add_default(const struct param *row, struct buf *out)
{
    if (row->default_text != NULL) {
        buf_puts(out, row->default_text);
    } else if (row->need == PARAM_NEEDED) {
        buf_puts(out, "required");
    } else if (row->need == PARAM_NEEDED_INSIDE) {
        buf_printf(out, "required in %.*s", (int)(strrchr(row->path, '.') - row->path), row->path);
    }
}

void param_describe_head(struct buf *out, bool markdown)
{
    if (markdown) {
        buf_puts(out, "| key | type | default | allowed | meaning |\n| --- | --- | --- | --- | --- |\n");
    } else {
        buf_puts(out, "key\ttype\tmin\tdefault\tmax\tunit\treloadable\tmeaning\n");
    }
}

/* Text for a cell of a Markdown table: a pipe would end the cell. */
static void add_cell(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        buf_puts(out, *text == '|' ? "\\" : "");
        buf_add(out, text, 1);
    }
}

static void describe_markdown(const struct param *row, const char *path, struct buf *out)
{
    struct buf range = BUF_INIT;
    param_value_range(row, &range);
    const char *mark = row->default_text != NULL ? "`" : "";
    buf_printf(out, "| `%s` | %s | %s", path, type_word(row->type), mark);
    add_default(row, out);
    buf_printf(out, "%s | ", mark);
    add_cell(out, range.data);
    buf_puts(out, " | ");
    add_cell(out, row->sentence);
    buf_printf(out, "%s |\n", row->reloadable ? " (reloadable)" : "");
    out->failed |= buf_failed(&range);
    buf_release(&range);
}

static void describe_tabs(const struct param *row, const char *path, struct buf *out)
{
    buf_printf(out, "%s\t%s\t", path, type_word(row->type));
    if (has_range(row)) {
        param_value_number(row, row->min, out);
    }
    buf_puts(out, "\t");
    add_default(row, out);
    buf_puts(out, "\t");
    if (has_range(row)) {
        param_value_number(row, row->max, out);
    }
    buf_puts(out, "\t");
    if (row->words != NULL) {
        param_value_range(row, out);
    } else if (row->unit != NULL) {
        buf_puts(out, row->unit);
    }
    buf_printf(out, "\t%s\t%s\n", row->reloadable ? "yes" : "no", row->sentence);
}

void param_describe(const struct param_table *table, const char *prefix, struct buf *out, bool markdown)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct param *row = &table->rows[i];
        if (row->type == PARAM_FIXED) {
            continue;
        }
        struct key_path path = key_join(prefix, row->path);
        if (markdown) {
            describe_markdown(row, path.text, out);
        } else {
            describe_tabs(row, path.text, out);
        }
    }
}

/* --- a struct as YAML ----------------------------------------------------------------------------------------------- */

/* A relative path, made absolute, so that the dump means the same wherever it is stored. */
static void dump_path(const char *path, struct buf *out)
{
    char directory[PATH_MAX];
    char *absolute = getcwd(directory, sizeof directory) == NULL ? mem_strdup(path) : path_join(directory, path);
    if (absolute == NULL) {
        out->failed = true;
        return;
    }
    yaml_write_text(absolute, true, out);
    mem_free(absolute);
}

static double load_number(const struct param *row, const void *member)
{
    if (row->type == PARAM_FLOAT) {
        double number;
        memcpy(&number, member, sizeof number);
        return number;
    }
    if (row->size == sizeof(uint64_t)) {
        uint64_t n;
        memcpy(&n, member, sizeof n);
        return (double)n;
    }
    uint32_t n;
    memcpy(&n, member, sizeof n);
    return n;
}

static void dump_float(double number, struct buf *out)
{
    char text[32];
    for (int digits = 6; digits <= 17; digits++) { /* the shortest that reads back the same */
        double again;
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (sscanf(text, "%lf", &again) == 1 && again == number) { /* NOLINT(cert-err34-c): our own text */
            break;
        }
    }
    buf_puts(out, text);
}

/* The value of one row; false when there is none to show. */
static bool dump_value(const struct param *row, const void *target, struct buf *out)
{
    const void *member = (const char *)target + row->offset;
    char *text = NULL;
    int word;
    switch (row->type) {
    case PARAM_STRING:
    case PARAM_PATH:
        memcpy(&text, member, sizeof text);
        if (text == NULL) {
            return false;
        }
        if (row->type == PARAM_PATH) {
            dump_path(text, out);
        } else {
            yaml_write_text(text, true, out);
        }
        return true;
    case PARAM_TEXT:
    case PARAM_WORD:
        yaml_write_text(member, true, out);
        return true;
    case PARAM_INT:
    case PARAM_SIZE:
    case PARAM_DURATION:
        param_value_number(row, load_number(row, member), out);
        return true;
    case PARAM_FLOAT:
        dump_float(load_number(row, member), out);
        return true;
    case PARAM_BOOL:
        buf_puts(out, *(const bool *)member ? "true" : "false");
        return true;
    case PARAM_ENUM:
        memcpy(&word, member, sizeof word);
        buf_puts(out, row->words[word]);
        return true;
    default:
        return false; /* lists and separators: no table that is dumped has them */
    }
}

/* Opens the mappings around a key that the key before it was not in; returns the key's own depth. */
static int dump_groups(const char *path, const char *previous, struct buf *out)
{
    int depth = 0;
    bool same = true;
    for (const char *dot = strchr(path, '.'); dot != NULL; dot = strchr(path, '.')) {
        size_t n = (size_t)(dot - path) + 1;
        same = same && strncmp(path, previous, n) == 0;
        if (!same) {
            buf_printf(out, "%*s%.*s:\n", 2 * depth, "", (int)n - 1, path);
        } else {
            previous += n;
        }
        path = dot + 1;
        depth++;
    }
    return depth;
}

/* "# sentence (default; allowed; reloadable)" */
static void dump_comment(const struct param *row, struct buf *out)
{
    struct buf range = BUF_INIT;
    param_value_range(row, &range);
    buf_printf(out, "  # %s (", row->sentence);
    buf_printf(out, row->default_text != NULL ? "default %s" : "default: not set%s",
               row->default_text != NULL ? row->default_text : "");
    if (range.len > 0) {
        buf_printf(out, "; %s", range.data);
    }
    buf_puts(out, row->reloadable ? "; reloadable)\n" : ")\n");
    out->failed |= buf_failed(&range);
    buf_release(&range);
}

void param_dump(const struct param_table *table, const void *target, struct buf *out)
{
    const char *previous = "";
    for (size_t i = 0; i < table->n; i++) {
        const struct param *row = &table->rows[i];
        struct buf value = BUF_INIT;
        if (dump_value(row, target, &value)) {
            const char *last = strrchr(row->path, '.');
            int depth = dump_groups(row->path, previous, out);
            buf_printf(out, "%*s%s: %s", 2 * depth, "", last == NULL ? row->path : last + 1, value.data);
            dump_comment(row, out);
            previous = row->path;
        } else if (row->type != PARAM_FIXED && row->type != PARAM_NODE) {
            buf_printf(out, "# %s:", row->path);
            dump_comment(row, out);
        }
        out->failed |= buf_failed(&value);
        buf_release(&value);
    }
}
