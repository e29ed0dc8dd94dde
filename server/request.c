/*
 * Reading requests. One table says which members a query has; a member is added by a row and its reader.
 *
 * What a body may cost is bounded before it is paid for: the HTTP layer bounds its bytes, request_parse its depth before
 * jansson recurses into it, and each list is measured before it is walked. Excluded ids are only type-checked here; they
 * become rows when the query is answered, so that a batch needs room for one list and not for all of them.
 */
#include "server/request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "server/catalog.h"
#include "server/filter.h"
#include "server/http.h"
#include "server/max_per.h"

const char *const user_source_words[] = {"", "tower", "profile", "popular"};

/* --- faults ---------------------------------------------------------------------------------------------------------*/

static int fault_setv(struct fault *f, enum problem_type type, const char *pointer, const char *format, va_list args)
{
    f->type = type;
    snprintf(f->pointer, sizeof f->pointer, "%s", pointer);
    vsnprintf(f->detail, sizeof f->detail, format, args);
    return -1;
}

int fault_set(struct fault *f, enum problem_type type, const char *pointer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fault_setv(f, type, pointer, format, args);
    va_end(args);
    return -1;
}

void fault_send(const struct fault *f, struct http_request *request)
{
    problem_send(request, f->type, f->pointer[0] ? f->pointer : NULL, "%s", f->detail);
}

void pointer_append(char pointer[FAULT_POINTER_MAX], const char *name)
{
    size_t start = strlen(pointer);
    size_t n = start;
    if (n + 2 > FAULT_POINTER_MAX) {
        return;
    }
    pointer[n++] = '/';
    for (; *name; name++) {
        if (n + 3 > FAULT_POINTER_MAX) {
            pointer[start] = '\0';
            return;
        }
        if (*name == '~' || *name == '/') {
            pointer[n++] = '~';
            pointer[n++] = *name == '~' ? '0' : '1';
        } else {
            pointer[n++] = *name;
        }
    }
    pointer[n] = '\0';
}

/* --- the body -------------------------------------------------------------------------------------------------------*/

/* How deep brackets nest outside of strings; what is wrong beyond that is for the parser to say. */
static size_t measure_depth(const char *body, size_t n)
{
    size_t depth = 0;
    size_t deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = body[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return deepest;
}

json_t *request_parse(const char *body, size_t n, struct fault *f)
{
    if (n == 0) {
        fault_set(f, PROBLEM_INVALID_JSON, "", "the body is empty; a JSON object is expected");
        return NULL;
    }
    if (measure_depth(body, n) > REQUEST_MAX_DEPTH) {
        fault_set(f, PROBLEM_INVALID_JSON, "", "nested more than %d deep", REQUEST_MAX_DEPTH);
        return NULL;
    }
    json_error_t error;
    bool no_memory;
    json_t *json = json_parse(body, n, JSON_REJECT_DUPLICATES, &error, &no_memory);
    if (no_memory) {
        fault_set(f, PROBLEM_OUT_OF_MEMORY, "", "no memory to read the body");
        return NULL;
    }
    if (!json) {
        fault_set(f, PROBLEM_INVALID_JSON, "", "line %d, column %d: %s", error.line, error.column, error.text);
        return NULL;
    }
    if (!json_is_object(json)) {
        fault_set(f, PROBLEM_INVALID_FIELD, "", "the body must be a JSON object");
        json_decref(json);
        return NULL;
    }
    return json;
}

static int read_timeout(const struct serve_config *config, struct http_request *request, const json_t *value,
                        struct fault *f)
{
    json_int_t ms = json_integer_value(value);
    if (!json_is_integer(value) || ms < 1) {
        return fault_set(f, PROBLEM_INVALID_FIELD, "/timeout_ms", "must be a whole number, and at least 1");
    }
    if (ms > (json_int_t)config->limits.timeout_ms) {
        return fault_set(f, PROBLEM_LIMIT_EXCEEDED, "/timeout_ms", "must be at most %u", config->limits.timeout_ms);
    }
    request->deadline = request->from + (uint64_t)ms * 1000000;
    return 0;
}

json_t *request_open(const struct serve_config *config, struct http_request *request, struct fault *f)
{
    json_t *body = request_parse(request->body, request->body_len, f);
    const json_t *value = json_object_get(body, "timeout_ms");
    if (!value) {
        uint32_t most = config->limits.timeout_ms;
        request->deadline = request->from + (config->timeout_ms < most ? config->timeout_ms : most) * UINT64_C(1000000);
        return body;
    }
    if (read_timeout(config, request, value, f) != 0) {
        json_decref(body);
        return NULL;
    }
    json_object_del(body, "timeout_ms");
    return body;
}

/* --- members --------------------------------------------------------------------------------------------------------*/

struct reader {
    const struct request_rules *rules;
    const struct form *form;
    const char *at;
    struct query *query;
    struct fault *fault;
};

/* A fault at `path` ("/search/effort") below the reader's object. */
__attribute__((format(printf, 4, 5))) static int reader_fault(struct reader *r, enum problem_type type,
                                                              const char *path, const char *format, ...)
{
    char pointer[FAULT_POINTER_MAX];
    snprintf(pointer, sizeof pointer, "%s%s", r->at, path);
    va_list args;
    va_start(args, format);
    fault_setv(r->fault, type, pointer, format, args);
    va_end(args);
    return -1;
}

static int unknown_member(struct reader *r, const char *path, const char *name, const char *known)
{
    char pointer[FAULT_POINTER_MAX];
    snprintf(pointer, sizeof pointer, "%s%s", r->at, path);
    pointer_append(pointer, name);
    return fault_set(r->fault, PROBLEM_UNKNOWN_FIELD, pointer, "not a member of this request; it may have %s", known);
}

/* A whole number from 1 to `limit`. */
static int read_count(struct reader *r, const json_t *value, const char *path, uint32_t limit, size_t *out)
{
    if (!json_is_integer(value)) {
        return reader_fault(r, PROBLEM_INVALID_FIELD, path, "must be a whole number");
    }
    json_int_t n = json_integer_value(value);
    if (n < 1) {
        return reader_fault(r, PROBLEM_INVALID_FIELD, path, "must be at least 1");
    }
    if (n > (json_int_t)limit) {
        return reader_fault(r, PROBLEM_LIMIT_EXCEEDED, path, "must be at most %u", limit);
    }
    *out = (size_t)n;
    return 0;
}

static int read_k(struct reader *r, const json_t *value)
{
    return read_count(r, value, "/k", r->rules->config->limits.k, &r->query->k);
}

static int read_ids(struct reader *r, const json_t *value, const char *path, uint32_t limit, const json_t **out)
{
    if (!json_is_array(value)) {
        return reader_fault(r, PROBLEM_INVALID_FIELD, path, "must be a list of item ids");
    }
    if (json_array_size(value) > limit) {
        return reader_fault(r, PROBLEM_LIMIT_EXCEEDED, path, "must have at most %u ids", limit);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_string(id) && !json_is_integer(id)) {
            char element[48];
            snprintf(element, sizeof element, "%s/%zu", path, i);
            return reader_fault(r, PROBLEM_INVALID_FIELD, element, "an item id is a string or an integer");
        }
    }
    *out = value;
    return 0;
}

static int read_exclude(struct reader *r, const json_t *value)
{
    return read_ids(r, value, "/exclude", r->rules->config->limits.exclude, &r->query->exclude);
}

static int read_items(struct reader *r, const json_t *value)
{
    return read_ids(r, value, "/items", r->rules->config->limits.score, &r->query->items);
}

static int read_min_score(struct reader *r, const json_t *value)
{
    double floor = json_number_value(value);
    if (!json_is_number(value) || !isfinite((float)floor)) {
        return reader_fault(r, PROBLEM_INVALID_FIELD, "/min_score", "must be a number that is finite as float32");
    }
    r->query->min_score = (float)floor;
    return 0;
}

/* The effort that was measured to give this recall; an exact scan when none was. */
static int use_recall(struct reader *r, double recall)
{
    struct query *q = r->query;
    if (q->effort > 0 || q->exact) {
        return reader_fault(r, PROBLEM_INVALID_FIELD, "/search/recall", "cannot stand beside effort or exact");
    }
    q->effort = bundle_effort_for(r->rules->bundle, recall);
    q->exact = q->effort == 0;
    return 0;
}

static int read_search(struct reader *r, const json_t *value)
{
    double recall = 0;
    const char *name;
    json_t *member;
    if (!json_is_object(value)) {
        return reader_fault(r, PROBLEM_INVALID_FIELD, "/search", "must be an object");
    }
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        if (strcmp(name, "exact") == 0) {
            if (!json_is_boolean(member)) {
                return reader_fault(r, PROBLEM_INVALID_FIELD, "/search/exact", "must be true or false");
            }
            r->query->exact = json_is_true(member);
        } else if (strcmp(name, "effort") == 0) {
            if (read_count(r, member, "/search/effort", r->rules->config->limits.effort, &r->query->effort) != 0) {
                return -1;
            }
        } else if (strcmp(name, "recall") == 0) {
            recall = json_number_value(member);
            if (!json_is_number(member) || !(recall > 0 && recall <= 1)) {
                return reader_fault(r, PROBLEM_INVALID_FIELD, "/search/recall", "must be above 0 and at most 1");
            }
        } else {
            return unknown_member(r, "/search", name, "effort, recall, exact");
        }
    }
    return recall > 0 ? use_recall(r, recall) : 0;
}

static int read_fields(struct reader *r, const json_t *value)
{
    if (!json_is_array(value) || json_array_size(value) > BUNDLE_MAX_ATTRIBUTES) {
        return reader_fault(r, PROBLEM_INVALID_FIELD, "/fields", "must be a list of at most %d attribute names",
                            BUNDLE_MAX_ATTRIBUTES);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *name = json_string_value(json_array_get(value, i));
        const struct bundle *b = r->rules->bundle;
        const struct bundle_attribute *attribute = name ? bundle_find_attribute(b, name) : NULL;
        if (!attribute) {
            char path[48];
            snprintf(path, sizeof path, "/fields/%zu", i);
            return reader_fault(r, PROBLEM_INVALID_FIELD, path, "the model's items have no attribute of this name");
        }
        r->query->fields |= UINT64_C(1) << (attribute - b->attributes);
    }
    return 0;
}

static int read_filter(struct reader *r, const json_t *value)
{
    char at[FAULT_POINTER_MAX];
    snprintf(at, sizeof at, "%s", r->at);
    pointer_append(at, "filter");
    if (filter_check(r->rules, value, at, r->fault) != 0) {
        return -1;
    }
    r->query->filter = value;
    return 0;
}

static int read_max_per(struct reader *r, const json_t *value)
{
    char at[FAULT_POINTER_MAX];
    snprintf(at, sizeof at, "%s", r->at);
    pointer_append(at, "max_per");
    if (max_per_check(r->rules, value, at, r->fault) != 0) {
        return -1;
    }
    r->query->max_per = json_object_size(value) > 0 ? value : NULL;
    return 0;
}

struct member {
    const char *name;
    int (*read)(struct reader *r, const json_t *value);
};

/* What an object may have besides its subject. */
struct form {
    const char *known;
    const struct member *members;
    size_t n;
};

static const struct member search_members[] = {
    {"k", read_k},           {"exclude", read_exclude}, {"min_score", read_min_score}, {"search", read_search},
    {"fields", read_fields}, {"filter", read_filter},   {"max_per", read_max_per},
};
static const struct form search_form = {"k, exclude, min_score, search, fields, filter, max_per, timeout_ms",
                                        search_members, sizeof search_members / sizeof *search_members};

static const struct member score_members[] = {{"items", read_items}, {"fields", read_fields}};
static const struct form score_form = {"items, fields, timeout_ms", score_members,
                                       sizeof score_members / sizeof *score_members};

static int read_member(struct reader *r, const char *name, const json_t *value, const char *subject)
{
    if (strcmp(name, subject) == 0) {
        r->query->subject = value;
        return 0;
    }
    for (size_t i = 0; i < r->form->n; i++) {
        if (strcmp(name, r->form->members[i].name) == 0) {
            return r->form->members[i].read(r, value);
        }
    }
    char known[128];
    snprintf(known, sizeof known, "%s, %s", subject, r->form->known);
    return unknown_member(r, "", name, known);
}

static int missing_member(struct reader *r, const char *member)
{
    char path[32];
    snprintf(path, sizeof path, "/%s", member);
    return reader_fault(r, PROBLEM_MISSING_FIELD, path, "is required");
}

static int read_object(struct reader *r, const json_t *object, const char *subject)
{
    uint32_t most = r->rules->config->limits.k;
    *r->query = (struct query){.k = REQUEST_DEFAULT_K < most ? REQUEST_DEFAULT_K : most, .min_score = -INFINITY};
    if (!json_is_object(object)) {
        return fault_set(r->fault, PROBLEM_INVALID_FIELD, r->at, "must be an object");
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (read_member(r, name, value, subject) != 0) {
            return -1;
        }
    }
    return r->query->subject ? 0 : missing_member(r, subject);
}

int request_read_query(const struct request_rules *rules, const json_t *object, const char *at, const char *subject,
                       struct query *q, struct fault *f)
{
    struct reader r = {.rules = rules, .form = &search_form, .at = at, .query = q, .fault = f};
    return read_object(&r, object, subject);
}

int request_read_score(const struct request_rules *rules, const json_t *object, struct query *q, struct fault *f)
{
    struct reader r = {.rules = rules, .form = &score_form, .at = "", .query = q, .fault = f};
    if (read_object(&r, object, "user") != 0) {
        return -1;
    }
    return q->items ? 0 : missing_member(&r, "items");
}

/* --- features and ids -----------------------------------------------------------------------------------------------*/

/* Appends features as one row, with those of a profile, if there may be any. */
static int add_row(const struct request_rules *rules, struct feature_rows *rows, struct value_scratch *scratch,
                   const json_t *features, const char *at, bool *profile, struct fault *f)
{
    static const struct profiles none;
    bool user = rows->spec == &rules->bundle->schema.towers[SIDE_USER];
    const struct profiles *profiles = user ? &rules->bundle->profiles : &none;
    uint32_t limit = rules->config->limits.list;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)features, name, value)
    { /* no turn when it is no object */
        if (json_array_size(value) > limit) {
            fault_set(f, PROBLEM_LIMIT_EXCEEDED, at, "must have at most %u elements", limit);
            pointer_append(f->pointer, name);
            return -1;
        }
    }
    struct err e = ERR_INIT;
    char inside[256];
    if (profiles_add_json(profiles, rows, features, scratch, inside, sizeof inside, profile, &e) != 0) {
        char pointer[FAULT_POINTER_MAX];
        snprintf(pointer, sizeof pointer, "%s%s", at, inside);
        if (inside[0] == '\0' && json_is_object(features)) { /* nothing in the object is to blame */
            return fault_set(f, PROBLEM_OUT_OF_MEMORY, "", "%s", e.message);
        }
        bool known = inside[0] == '\0' || tower_spec_find(rows->spec, inside + 1) >= 0 || strchr(inside + 1, '/') ||
                     (profiles->key && strcmp(inside + 1, profiles->key) == 0);
        return fault_set(f, known ? PROBLEM_INVALID_FIELD : PROBLEM_UNKNOWN_FIELD, pointer, "%s", e.message);
    }
    return 0;
}

int request_add_user(const struct request_rules *rules, struct feature_rows *rows, struct value_scratch *scratch,
                     struct query *q, const char *at, struct fault *f)
{
    char pointer[FAULT_POINTER_MAX];
    bool profile;
    snprintf(pointer, sizeof pointer, "%s/user", at);
    if (add_row(rules, rows, scratch, q->subject, pointer, &profile, f) != 0) {
        return -1;
    }
    q->source = profile ? SOURCE_PROFILE : SOURCE_TOWER;
    q->defaulted = feature_rows_defaulted(rows, rows->n - 1);
    return 0;
}

int request_add_features(const struct request_rules *rules, struct feature_rows *rows, struct value_scratch *scratch,
                         const json_t *features, const char *at, struct fault *f)
{
    bool profile;
    return add_row(rules, rows, scratch, features, at, &profile, f);
}

struct span request_id(const json_t *id, char room[INTEGER_ID_MAX])
{
    if (json_is_string(id)) {
        return (struct span){json_string_value(id), json_string_length(id)};
    }
    if (json_is_integer(id)) {
        int n = snprintf(room, INTEGER_ID_MAX, "%lld", (long long)json_integer_value(id));
        return (struct span){room, (size_t)n};
    }
    return (struct span){NULL, 0};
}

int64_t request_find_item(const struct snapshot *s, const json_t *id)
{
    char room[INTEGER_ID_MAX];
    struct span text = request_id(id, room);
    return text.text ? catalog_find(s->catalog, s->index, text.text, text.length) : -1;
}

static int compare_rows(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

size_t request_exclude_rows(const struct snapshot *s, const json_t *exclude, int64_t self, uint32_t *rows)
{
    size_t n = 0;
    if (self >= 0) {
        struct span id = catalog_id(s->catalog, (uint32_t)self);
        int64_t row = catalog_find(s->catalog, s->index, id.text, id.length);
        rows[n++] = (uint32_t)(row >= 0 ? row : self);
    }
    for (size_t i = 0; i < json_array_size(exclude); i++) {
        int64_t row = request_find_item(s, json_array_get(exclude, i));
        if (row >= 0) {
            rows[n++] = (uint32_t)row;
        }
    }
    if (n < 2) {
        return n;
    }
    qsort(rows, n, sizeof *rows, compare_rows);
    size_t unique = 1;
    for (size_t i = 1; i < n; i++) {
        if (rows[i] != rows[unique - 1]) {
            rows[unique++] = rows[i];
        }
    }
    return unique;
}
