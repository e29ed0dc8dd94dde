/*
 * Reading a tree by a table of parameters.
 *
 * The walk follows the file, not the table: each key is either a row, or a mapping that rows lie in, or unknown. So every
 * key of the file is looked at exactly once and no typo passes for a default. What the file lacks is asked by the table
 * afterwards. Checks that need more than one value are not made here: the caller has the filled struct, the tree and the
 * same list of problems, and makes them whether or not the walk found something, so that the user sees all in one go.
 *
 * Rejected: a schema language or generated code. A row with an offset says the same in one line that a reader, a
 * documentation writer and a dumper can share.
 */
#include "config/param.h"

#include <stdio.h>
#include <string.h>

#include "config/param_value.h"
#include "core/mem.h"

enum { WORD_MAX = 64 };

struct walk {
    const struct param_table *table;
    const char *prefix;
    void *target;
    struct problems *problems;
};

static void append(struct key_path *p, const char *text)
{
    size_t used = strlen(p->text);
    size_t n = strnlen(text, sizeof p->text - 1 - used);
    memcpy(p->text + used, text, n);
    p->text[used + n] = '\0';
}

struct key_path key_join(const char *a, const char *b)
{
    struct key_path p = {""};
    append(&p, a);
    append(&p, a[0] != '\0' && b[0] != '\0' ? "." : "");
    append(&p, b);
    return p;
}

struct key_path key_element(const char *list, size_t index, const char *member)
{
    char number[24];
    snprintf(number, sizeof number, "%zu", index);
    return key_join(key_join(list, number).text, member);
}

/* --- did you mean --------------------------------------------------------------------------------------------------- */

static size_t least(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edit distance with swaps of neighbours (optimal string alignment); both at most WORD_MAX bytes. */
static size_t edit_distance(const char *a, size_t n, const char *b, size_t m)
{
    size_t rows[3][WORD_MAX + 1];
    for (size_t j = 0; j <= m; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = least(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = least(row[j], row[j], above2[j - 2] + 1);
            }
        }
    }
    return rows[n % 3][m];
}

/* How far a word is from a text: SIZE_MAX when it is not close. One that the other begins with is close. */
static size_t closeness(const char *text, size_t n, const char *word, size_t m)
{
    if (n == 0 || n > WORD_MAX || m > WORD_MAX) {
        return SIZE_MAX;
    }
    if (n >= 3 && m >= 3 && n != m && strncmp(text, word, n < m ? n : m) == 0) {
        return 1;
    }
    size_t distance = edit_distance(text, n, word, m);
    size_t limit = n < 3 ? 0 : n < 6 ? 1 : n / 3;
    return distance <= limit ? distance : SIZE_MAX;
}

const char *param_closest(const char *text, const char *const *words)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (; *words != NULL; words++) {
        size_t distance = closeness(text, strlen(text), *words, strlen(*words));
        if (distance < best_distance) {
            best_distance = distance;
            best = *words;
        }
    }
    return best;
}

/* What follows "group." in a row's path, or NULL when the row is not in the group ("": every row is). */
static const char *below(const struct param *row, const char *group)
{
    size_t n = strlen(group);
    if (n == 0) {
        return row->path;
    }
    return strncmp(row->path, group, n) == 0 && row->path[n] == '.' ? row->path + n + 1 : NULL;
}

/* The closest key in the group, as a whole path; else a row elsewhere whose last part is exactly `key`. */
static struct key_path closest_key(const struct walk *w, const char *group, const char *key)
{
    struct key_path best = {""};
    size_t best_distance = SIZE_MAX;
    for (size_t i = 0; i < w->table->n; i++) {
        const struct param *row = &w->table->rows[i];
        const char *rest = row->type == PARAM_FIXED ? NULL : below(row, group);
        size_t n = rest == NULL ? 0 : strcspn(rest, ".");
        size_t distance = rest == NULL ? SIZE_MAX : closeness(key, strlen(key), rest, n);
        if (distance < best_distance) {
            best_distance = distance;
            snprintf(best.text, sizeof best.text, "%.*s", (int)(rest + n - row->path), row->path);
        }
    }
    for (size_t i = 0; i < w->table->n && best.text[0] == '\0'; i++) {
        const char *last = strrchr(w->table->rows[i].path, '.');
        if (last != NULL && w->table->rows[i].type != PARAM_FIXED && strcmp(last + 1, key) == 0) {
            best = key_join("", w->table->rows[i].path);
        }
    }
    return best;
}

static const struct param *find_row(const struct param_table *table, const char *path)
{
    for (size_t i = 0; i < table->n; i++) {
        if (strcmp(table->rows[i].path, path) == 0) {
            return &table->rows[i];
        }
    }
    return NULL;
}

/* "a, b, c": the keys of a group. */
static void list_keys(const struct walk *w, const char *group, struct buf *out)
{
    const char *previous = "";
    size_t previous_length = 0;
    for (size_t i = 0; i < w->table->n; i++) {
        const struct param *row = &w->table->rows[i];
        const char *rest = row->type == PARAM_FIXED ? NULL : below(row, group);
        size_t n = rest == NULL ? 0 : strcspn(rest, ".");
        if (rest == NULL || (n == previous_length && strncmp(rest, previous, n) == 0)) {
            continue;
        }
        buf_printf(out, "%s%.*s", previous_length > 0 ? ", " : "", (int)n, rest);
        previous = rest;
        previous_length = n;
    }
}

static void unknown_key(const struct walk *w, const struct node *node, const char *group, const char *shown)
{
    struct place at = {node->at.set, node->key_line};
    const char *last = strrchr(node->key, '.');
    if (last != NULL && group[0] == '\0' && find_row(w->table, node->key) != NULL) {
        problem_add(w->problems, at, shown,
                    "unknown key; keys with dots are for --set, in a file write %.*s: {%s: ...}",
                    (int)(last - node->key), node->key, last + 1);
        return;
    }
    struct key_path close = closest_key(w, group, node->key);
    if (close.text[0] != '\0') {
        problem_add(w->problems, at, shown, "unknown key; did you mean %s?", key_join(w->prefix, close.text).text);
        return;
    }
    struct buf keys = BUF_INIT;
    list_keys(w, group, &keys);
    problem_add(w->problems, at, shown, "unknown key; known here: %s", keys.data);
    buf_release(&keys);
}

/* --- the walk ------------------------------------------------------------------------------------------------------- */

static bool is_group(const struct param_table *table, const char *path)
{
    for (size_t i = 0; i < table->n; i++) {
        if (below(&table->rows[i], path) != NULL) {
            return true;
        }
    }
    return false;
}

static void group_problem(const struct walk *w, const struct node *node, const char *path, const char *shown)
{
    if (node_is_null(node)) {
        problem_add(w->problems, node->at, shown, "has no value; write one or remove the key");
        return;
    }
    struct buf keys = BUF_INIT;
    list_keys(w, path, &keys);
    problem_add(w->problems, node->at, shown, "must be a mapping with keys of: %s; it is %s", keys.data,
                node_kind_word(node));
    buf_release(&keys);
}

/* Recursion: as deep as the table's paths. */
static void walk_map(const struct walk *w, const struct node *map, const char *group) /* NOLINT(misc-no-recursion) */
{
    for (const struct node *node = map->first; node != NULL; node = node->next) {
        struct key_path path = key_join(group, node->key);
        struct quote quoted = problem_quote(node->key); /* a key may hold anything */
        quoted.text[strlen(quoted.text) - 1] = '\0';
        struct key_path shown = key_join(w->prefix, key_join(group, quoted.text + 1).text);
        const struct param *row = strchr(node->key, '.') != NULL ? NULL : find_row(w->table, path.text);
        if (row != NULL) {
            param_value_read(row, node, shown.text, w->target, w->problems);
        } else if (strchr(node->key, '.') != NULL || node->key[0] == '\0' || !is_group(w->table, path.text)) {
            unknown_key(w, node, group, shown.text);
        } else if (node->kind == NODE_MAP) {
            walk_map(w, node, path.text);
        } else {
            group_problem(w, node, path.text, shown.text);
        }
    }
}

/* The nearest existing ancestor of a path below the root. */
static const struct node *nearest(const struct node *root, const char *path)
{
    struct key_path p = key_join("", path);
    const struct node *node;
    for (;;) {
        char *dot = strrchr(p.text, '.');
        p.text[dot == NULL ? 0 : dot - p.text] = '\0';
        node = node_path(root, p.text);
        if (node != NULL) {
            return node;
        }
    }
}

struct place param_place(const struct node *root, const char *path)
{
    const struct node *node = node_path(root, path);
    if (node == NULL) {
        node = nearest(root, path);
    }
    return (struct place){node->at.set, node->key_line};
}

/* The parent of a row's key is there. */
static bool parent_is_there(const struct node *map, const char *path)
{
    struct key_path p = key_join("", path);
    char *dot = strrchr(p.text, '.');
    if (dot != NULL) {
        *dot = '\0';
    }
    return dot == NULL || node_path(map, p.text) != NULL;
}

static void check_needed(const struct walk *w, const struct node *map)
{
    for (size_t i = 0; i < w->table->n; i++) {
        const struct param *row = &w->table->rows[i];
        bool needed =
            row->need == PARAM_NEEDED || (row->need == PARAM_NEEDED_INSIDE && parent_is_there(map, row->path));
        if (!needed || node_path(map, row->path) != NULL || nearest(map, row->path)->kind != NODE_MAP) {
            continue;
        }
        problem_add(w->problems, param_place(map, row->path), key_join(w->prefix, row->path).text,
                    "is missing; it is: %s", row->sentence);
    }
}

void param_read(const struct param_table *table, const struct node *map, const char *prefix, void *target,
                struct problems *problems)
{
    const struct walk w = {table, prefix, target, problems};
    for (size_t i = 0; i < table->n; i++) {
        param_value_default(&table->rows[i], target, problems);
    }
    walk_map(&w, map, "");
    check_needed(&w, map);
}

void param_set(const struct param_table *table, struct node *root, const char *const *sets, size_t n_sets,
               struct problems *problems)
{
    for (size_t i = 0; i < n_sets; i++) {
        bool is_text = false;
        for (size_t j = 0; j < table->n; j++) {
            const struct param *row = &table->rows[j];
            size_t n = strlen(row->path);
            bool text = row->type == PARAM_STRING || row->type == PARAM_PATH || row->type == PARAM_TEXT;
            is_text |= text && strncmp(sets[i], row->path, n) == 0 && sets[i][n] == '=';
        }
        yaml_set(root, sets[i], is_text, problems);
    }
}

/* Makes a member the same as another one. Returns 1 when it was not, 0 when it was, -1 without memory. */
static int member_copy(const struct param *row, char *to, const char *from)
{
    if (row->type != PARAM_STRING && row->type != PARAM_PATH) {
        bool same = memcmp(to, from, row->size) == 0;
        memcpy(to, from, row->size);
        return !same;
    }
    char *old;
    const char *text;
    memcpy(&old, to, sizeof old);
    memcpy(&text, from, sizeof text);
    if (old == text || (old != NULL && text != NULL && strcmp(old, text) == 0)) {
        return 0;
    }
    char *copy = text != NULL ? mem_strdup(text) : NULL;
    if (text != NULL && copy == NULL) {
        return -1;
    }
    mem_free(old);
    memcpy(to, &copy, sizeof copy);
    return 1;
}

int param_keep(const struct param_table *table, void *fresh, const void *running, struct buf *kept)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct param *row = &table->rows[i];
        if (row->reloadable || row->type == PARAM_FIXED) {
            continue;
        }
        int changed = member_copy(row, (char *)fresh + row->offset, (const char *)running + row->offset);
        if (changed < 0) {
            return -1;
        }
        if (changed > 0) {
            buf_printf(kept, "%s%s", kept->len > 0 ? ", " : "", row->path);
        }
    }
    return 0;
}

void param_release(const struct param_table *table, void *target)
{
    for (size_t i = 0; i < table->n; i++) {
        param_value_release(&table->rows[i], target);
    }
}
