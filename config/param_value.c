#include "config/param_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fileio.h"
#include "core/mem.h"
#include "core/schema.h"

/* One value being read. */
struct value_place {
    const struct param *row;
    const struct node *node;
    const char *path;
    struct problems *problems;
};

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
                                         {"B", 1},         {"", 1},          {NULL, 0}};
static const struct unit duration_units[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};

/* --- numbers -------------------------------------------------------------------------------------------------------- */

/* The digits at the start of `text`; their end goes to *end. UINT64_MAX when there are too many, or none (*end is text). */
static uint64_t parse_digits(const char *text, const char **end)
{
    uint64_t n = 0;
    bool overflow = text[0] < '0' || text[0] > '9';
    for (; *text >= '0' && *text <= '9'; text++) {
        overflow |= __builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n);
    }
    *end = text;
    return overflow ? UINT64_MAX : n;
}

/* A whole number as a double: exact where a row's bounds allow it (up to 2^53). */
static bool parse_whole(const char *text, double *number)
{
    bool minus = text[0] == '-';
    const char *end;
    uint64_t n = parse_digits(text + minus, &end);
    *number = minus ? -(double)n : (double)n;
    return end != text + minus && *end == '\0';
}

/* Digits and one of the units; a bare 0 needs none. */
static bool parse_with_unit(const char *text, const struct unit *units, double *number)
{
    const char *end;
    uint64_t n = parse_digits(text, &end);
    if (end == text) {
        return false;
    }
    if (n == 0 && *end == '\0') {
        *number = 0;
        return true;
    }
    for (; units->name != NULL; units++) {
        if (strcmp(units->name, end) == 0) {
            *number = (double)n * (double)units->factor;
            return true;
        }
    }
    return false;
}

static bool parse_float(const char *text, double *number)
{
    if (text[0] == '\0' || strspn(text, "+-.0123456789eE") != strlen(text)) {
        return false; /* keeps strtod from taking hex, nan, inf or blanks */
    }
    char *end;
    errno = 0;
    *number = strtod(text, &end); /* the programs never call setlocale: the C locale */
    return end != text && *end == '\0';
}

static bool parse_number(const struct param *row, const char *text, double *number)
{
    switch (row->type) {
    case PARAM_FLOAT:
        return parse_float(text, number);
    case PARAM_SIZE:
        return parse_with_unit(text, size_units, number);
    case PARAM_DURATION:
        return parse_with_unit(text, duration_units, number);
    default:
        return parse_whole(text, number);
    }
}

void param_value_number(const struct param *row, double number, struct buf *out)
{
    const struct unit *unit = row->type == PARAM_SIZE       ? size_units
                              : row->type == PARAM_DURATION ? duration_units
                                                            : NULL;
    if (unit == NULL) {
        buf_printf(out, "%.16g", number);
        return;
    }
    if (number == 0) {
        buf_puts(out, "0");
        return;
    }
    while (fmod(number, (double)unit->factor) != 0) {
        unit++;
    }
    buf_printf(out, "%.0f%s", number / (double)unit->factor, unit->name);
}

static bool is_number(const struct param *row)
{
    return row->type == PARAM_INT || row->type == PARAM_SIZE || row->type == PARAM_DURATION ||
           row->type == PARAM_FLOAT || row->type == PARAM_INTS;
}

void param_value_range(const struct param *row, struct buf *out)
{
    if (is_number(row)) {
        param_value_number(row, row->min, out);
        buf_puts(out, " to ");
        param_value_number(row, row->max, out);
        if (row->unit != NULL) {
            buf_printf(out, " %s", row->unit);
        }
    } else if (row->words != NULL) {
        for (size_t i = 0; row->words[i] != NULL; i++) {
            buf_printf(out, "%s%s", i > 0 ? ", " : "", row->words[i]);
        }
    }
}

/* --- problems ------------------------------------------------------------------------------------------------------- */

static const char *number_wording(enum param_type type)
{
    switch (type) {
    case PARAM_FLOAT:
        return "a finite number";
    case PARAM_SIZE:
        return "a size like 65536, 64KiB, 1MiB or 1GiB";
    case PARAM_DURATION:
        return "a duration like 250ms, 5s, 2m or 1h";
    default:
        return "a whole number";
    }
}

/* "what; allowed: range; advice" */
static void wrong_value(const struct value_place *v, const struct node *at, const char *what, const char *advice)
{
    struct buf range = BUF_INIT;
    param_value_range(v->row, &range);
    problem_add(v->problems, at->at, v->path, "%s %s%s%s%s%s", problem_quote(at->text).text, what,
                range.len > 0 ? (is_number(v->row) ? "; allowed: " : "; known: ") : "", range.data,
                advice != NULL ? "; " : "", advice != NULL ? advice : "");
    buf_release(&range);
}

/* False, with a problem, unless the node is a scalar with a value. */
static bool is_scalar(const struct value_place *v, const struct node *node)
{
    if (node->kind != NODE_SCALAR) {
        problem_add(v->problems, node->at, v->path, "must be one value, not %s%s%s", node_kind_word(node),
                    v->row->advice != NULL ? "; " : "", v->row->advice != NULL ? v->row->advice : "");
        return false;
    }
    if (node_is_null(node)) {
        problem_add(v->problems, node->at, v->path, "has no value; write one or remove the key");
        return false;
    }
    return true;
}

/* --- one reader a kind of type; each returns false when the member was not set -------------------------------------- */

/* A checked number out of a scalar. */
static bool read_number(const struct value_place *v, const struct node *node, double *number)
{
    if (!is_scalar(v, node)) {
        return false;
    }
    char what[128];
    if (!node->plain && v->row->type != PARAM_SIZE && v->row->type != PARAM_DURATION) {
        snprintf(what, sizeof what, "is a text; write %s without quotes", number_wording(v->row->type));
    } else if (!parse_number(v->row, node->text, number) || !isfinite(*number)) {
        snprintf(what, sizeof what, "is not %s", number_wording(v->row->type));
    } else if (*number < v->row->min || *number > v->row->max) {
        snprintf(what, sizeof what, "is out of range");
    } else {
        return true;
    }
    wrong_value(v, node, what, v->row->advice);
    return false;
}

static void store_whole(const struct param *row, double number, void *member)
{
    if (row->size == sizeof(uint64_t)) {
        uint64_t n = (uint64_t)number;
        memcpy(member, &n, sizeof n);
    } else {
        uint32_t n = (uint32_t)number;
        memcpy(member, &n, sizeof n);
    }
}

static void read_any_number(const struct value_place *v, void *member)
{
    double number;
    if (!read_number(v, v->node, &number)) {
        return;
    }
    if (v->row->type == PARAM_FLOAT) {
        memcpy(member, &number, sizeof number);
    } else {
        store_whole(v->row, number, member);
    }
}

static void read_bool(const struct value_place *v, void *member)
{
    if (!is_scalar(v, v->node)) {
        return;
    }
    bool value = strcmp(v->node->text, "true") == 0;
    if (!v->node->plain || (!value && strcmp(v->node->text, "false") != 0)) {
        wrong_value(v, v->node, "must be true or false (without quotes)", v->row->advice);
        return;
    }
    memcpy(member, &value, sizeof value);
}

/* PARAM_ENUM and PARAM_WORD */
static void read_word(const struct value_place *v, void *member)
{
    if (!is_scalar(v, v->node)) {
        return;
    }
    const char *text = v->node->text;
    int i = word_find(v->row->words, text);
    if (i >= 0 && v->row->type == PARAM_WORD) {
        snprintf(member, v->row->size, "%s", text);
    } else if (i >= 0) {
        memcpy(member, &i, sizeof i);
    } else {
        const char *close = param_closest(text, v->row->words);
        struct buf what = BUF_INIT;
        buf_printf(&what, "is not known%s%s%s", close != NULL ? " (did you mean " : "", close != NULL ? close : "",
                   close != NULL ? "?)" : "");
        wrong_value(v, v->node, what.data, close != NULL ? NULL : v->row->advice);
        buf_release(&what);
    }
}

static bool has_text(const struct value_place *v, const struct node *node)
{
    if (!is_scalar(v, node)) {
        return false;
    }
    if (node->text[0] == '\0') {
        problem_add(v->problems, node->at, v->path, "is empty; write a value or remove the key");
        return false;
    }
    return true;
}

/* Relative paths of a file's values start at the file's directory. New string, NULL without memory. */
static char *resolve_path(const struct value_place *v)
{
    const char *file = v->problems->file;
    const char *slash = file == NULL ? NULL : strrchr(file, '/');
    if (v->node->at.set != NULL || slash == NULL) {
        return mem_strdup(v->node->text);
    }
    char *directory = mem_strndup(file, slash == file ? 1 : (size_t)(slash - file));
    char *path = directory == NULL ? NULL : path_join(directory, v->node->text);
    mem_free(directory);
    return path;
}

static void read_string(const struct value_place *v, void *member)
{
    if (!has_text(v, v->node)) {
        return;
    }
    char *copy = v->row->type == PARAM_PATH ? resolve_path(v) : mem_strdup(v->node->text);
    if (copy == NULL) {
        problem_nomem(v->problems);
        return;
    }
    param_value_release(v->row, (char *)member - v->row->offset);
    memcpy(member, &copy, sizeof copy);
}

static void read_text(const struct value_place *v, void *member)
{
    if (!has_text(v, v->node)) {
        return;
    }
    if (strlen(v->node->text) >= v->row->size) {
        problem_add(v->problems, v->node->at, v->path, "is longer than %zu bytes", v->row->size - 1);
        return;
    }
    snprintf(member, v->row->size, "%s", v->node->text);
}

static void read_separator(const struct value_place *v, void *member)
{
    if (!is_scalar(v, v->node)) {
        return;
    }
    const char *text = v->node->text;
    if (strcmp(text, "tab") == 0 || strcmp(text, "\\t") == 0) {
        text = "\t";
    } else if (strcmp(text, "space") == 0) {
        text = " ";
    }
    size_t n = strlen(text);
    size_t most = v->row->size > 1 ? v->row->size - 1 : 1;
    if (n == 0 || n > most || strpbrk(text, "\"\r\n") != NULL) {
        struct buf what = BUF_INIT;
        buf_printf(&what,
                   "must be %s%s, in quotes like \"|\"; tab and space are written as words; no quote, no newline",
                   most > 1 ? "1 to 4 bytes" : "one byte", most > 1 ? " of text" : " of ASCII");
        wrong_value(v, v->node, what.data, v->row->advice);
        buf_release(&what);
        return;
    }
    memset(member, 0, v->row->size);
    memcpy(member, text, n);
}

/* False, with a problem, unless the node is a list of 1 to `most` elements. */
static bool is_list(const struct value_place *v, size_t most)
{
    const struct node *node = v->node;
    if (node->kind != NODE_LIST) {
        bool scalar = node->kind == NODE_SCALAR && !node_is_null(node);
        problem_add(v->problems, node->at, v->path, "must be a list%s%s%s", scalar ? ": [" : "",
                    scalar ? problem_quote(node->text).text : ", like [a, b]", scalar ? "]" : "");
        return false;
    }
    if (node->count == 0 || node->count > most) {
        problem_add(v->problems, node->at, v->path, "has %zu elements; allowed: 1 to %zu", node->count, most);
        return false;
    }
    return true;
}

static void read_ints(const struct value_place *v, void *member, size_t *count)
{
    size_t most = v->row->size / sizeof(uint32_t);
    if (!is_list(v, most)) {
        return;
    }
    size_t n = 0;
    for (const struct node *element = v->node->first; element != NULL; element = element->next) {
        double number;
        if (!read_number(v, element, &number)) {
            return;
        }
        ((uint32_t *)member)[n++] = (uint32_t)number;
    }
    *count = n;
}

static void read_strings(const struct value_place *v, void *member)
{
    if (!is_list(v, YAML_NODES_MAX)) {
        return;
    }
    char **list = mem_array(v->node->count + 1, sizeof *list);
    if (list == NULL) {
        problem_nomem(v->problems);
        return;
    }
    param_value_release(v->row, (char *)member - v->row->offset);
    memcpy(member, &list, sizeof list);
    for (const struct node *element = v->node->first; element != NULL; element = element->next) {
        if (!has_text(v, element)) {
            return;
        }
        *list = mem_strdup(element->text);
        if (*list++ == NULL) {
            problem_nomem(v->problems);
            return;
        }
    }
}

static void read_fixed(const struct value_place *v)
{
    const struct node *node = v->node;
    if (node->kind == NODE_SCALAR && v->row->default_text != NULL && strcmp(node->text, v->row->default_text) == 0) {
        return;
    }
    problem_add(v->problems, node->at, v->path, "%s", v->row->advice);
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

void param_value_read(const struct param *row, const struct node *node, const char *path, void *target,
                      struct problems *problems)
{
    const struct value_place v = {row, node, path, problems};
    void *member = (char *)target + row->offset;
    switch (row->type) {
    case PARAM_STRING:
    case PARAM_PATH:
        read_string(&v, member);
        break;
    case PARAM_TEXT:
        read_text(&v, member);
        break;
    case PARAM_INT:
    case PARAM_SIZE:
    case PARAM_DURATION:
    case PARAM_FLOAT:
        read_any_number(&v, member);
        break;
    case PARAM_BOOL:
        read_bool(&v, member);
        break;
    case PARAM_ENUM:
    case PARAM_WORD:
        read_word(&v, member);
        break;
    case PARAM_INTS:
        read_ints(&v, member, (size_t *)(void *)((char *)target + row->count_offset));
        break;
    case PARAM_STRINGS:
        read_strings(&v, member);
        break;
    case PARAM_SEPARATOR:
        read_separator(&v, member);
        break;
    case PARAM_FIXED:
        read_fixed(&v);
        break;
    case PARAM_NODE:
        break;
    }
}

void param_value_default(const struct param *row, void *target, struct problems *problems)
{
    if (row->default_text == NULL || row->type == PARAM_FIXED) {
        return;
    }
    char text[128];
    snprintf(text, sizeof text, "%s", row->default_text);
    struct node node = {.kind = NODE_SCALAR, .plain = true, .text = text};
    param_value_read(row, &node, row->path, target, problems);
}

void param_value_release(const struct param *row, void *target)
{
    void *member = (char *)target + row->offset;
    if (row->type == PARAM_STRING || row->type == PARAM_PATH) {
        char *text;
        memcpy(&text, member, sizeof text);
        mem_free(text);
        memset(member, 0, sizeof text);
    } else if (row->type == PARAM_STRINGS) {
        char **list;
        memcpy(&list, member, sizeof(char **));
        for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
            mem_free(list[i]);
        }
        mem_free(list);
        memset(member, 0, sizeof(char **));
    }
}
