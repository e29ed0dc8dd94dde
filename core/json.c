#include "core/json.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST = 64 };

/* The parse that this thread is in. */
static _Thread_local struct {
    bool active;
    jmp_buf out;
    void **taken; /* [n] what it has allocated and not freed: `first`, or an array of its own */
    size_t n, capacity;
    void *first[FIRST];
} parse;

static json_malloc_t inner_malloc;
static json_free_t inner_free;

static bool note(void *p)
{
    if (parse.n == parse.capacity) {
        void **more = malloc(2 * parse.capacity * sizeof *more);
        if (more == NULL) {
            return false;
        }
        memcpy(more, parse.taken, parse.n * sizeof *more);
        if (parse.taken != parse.first) {
            free(parse.taken);
        }
        parse.taken = more;
        parse.capacity *= 2;
    }
    parse.taken[parse.n++] = p;
    return true;
}

static void *guarded_malloc(size_t n)
{
    void *p = inner_malloc(n);
    if (parse.active && (p == NULL || !note(p))) {
        inner_free(p);
        longjmp(parse.out, 1);
    }
    return p;
}

/* Frees within a parse are few (buffers and tables that grow), and mostly of what came last. */
static void guarded_free(void *p)
{
    for (size_t i = parse.active && p != NULL ? parse.n : 0; i > 0; i--) {
        if (parse.taken[i - 1] == p) {
            parse.taken[i - 1] = parse.taken[--parse.n];
            break;
        }
    }
    inner_free(p);
}

void json_guard_memory(void)
{
    json_malloc_t now_malloc;
    json_free_t now_free;
    json_get_alloc_funcs(&now_malloc, &now_free);
    if (now_malloc != guarded_malloc) {
        inner_malloc = now_malloc;
        inner_free = now_free;
        json_set_alloc_funcs(guarded_malloc, guarded_free);
    }
}

static void end_parse(void)
{
    parse.active = false;
    if (parse.taken != parse.first) {
        free(parse.taken);
    }
}

json_t *json_parse(const char *text, size_t n, size_t flags, json_error_t *error, bool *no_memory)
{
    parse.taken = parse.first;
    parse.n = 0;
    parse.capacity = FIRST;
    parse.active = true;
    *no_memory = setjmp(parse.out) != 0;
    if (*no_memory) {
        parse.active = false;
        for (size_t i = 0; i < parse.n; i++) {
            inner_free(parse.taken[i]);
        }
        end_parse();
        return NULL;
    }
    json_t *json = json_loadb(text, n, flags, error);
    end_parse();
    return json;
}
