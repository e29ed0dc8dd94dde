#include "config/problems.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_MAX = 2048, SHOWN_MAX = 60 };

static void add_place(struct problems *p, struct place at, const char *path)
{
    if (at.set != NULL) {
        size_t key = strcspn(at.set, "=");
        buf_printf(p->out, "--set %.*s: ", (int)(key < SHOWN_MAX ? key : SHOWN_MAX), at.set);
        if (strlen(path) == key && strncmp(path, at.set, key) == 0) {
            return;
        }
    } else if (p->file != NULL) {
        buf_puts(p->out, p->file);
        if (at.line > 0) {
            buf_printf(p->out, ":%d", at.line);
        }
        buf_puts(p->out, ": ");
    }
    if (path[0] != '\0') {
        buf_printf(p->out, "%s: ", path);
    }
}

void problem_add(struct problems *p, struct place at, const char *path, const char *format, ...)
{
    p->count++;
    if (p->count > PROBLEMS_SHOWN) {
        return;
    }
    char message[MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    p->shown[p->count - 1] = (struct problem){p->out->len, at.set != NULL ? INT_MAX : at.line};
    add_place(p, at, path);
    buf_puts(p->out, message);
    buf_puts(p->out, "\n");
}

void problem_nomem(struct problems *p)
{
    problem_add(p, (struct place){NULL, 0}, "", "out of memory");
}

/* A stable insertion sort: they are few, and mostly in order. */
static void sort_by_line(struct problems *p)
{
    size_t n = p->count < PROBLEMS_SHOWN ? p->count : PROBLEMS_SHOWN, order[PROBLEMS_SHOWN];
    struct buf sorted = BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && p->shown[order[at - 1]].line > p->shown[i].line; at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    for (size_t i = 0; i < n; i++) {
        size_t begin = p->shown[order[i]].begin;
        size_t end = order[i] + 1 < n ? p->shown[order[i] + 1].begin : p->out->len;
        buf_add(&sorted, p->out->data + begin, end - begin);
    }
    if (n > 1 && !buf_failed(p->out) && !buf_failed(&sorted)) {
        memcpy(p->out->data + p->shown[0].begin, sorted.data, sorted.len);
    }
    buf_release(&sorted);
}

void problems_finish(struct problems *p)
{
    sort_by_line(p);
    if (p->count > PROBLEMS_SHOWN) {
        buf_printf(p->out, "... and %zu more problems\n", p->count - PROBLEMS_SHOWN);
    }
}

/* Bytes of the UTF-8 sequence at s that start well: 1 to 4, or 0. The tree holds what libyaml has checked; only
 * command-line text and cuts can be broken, so form is enough here. */
static size_t sequence_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

struct quote problem_quote(const char *text)
{
    struct quote q;
    size_t out = 0;
    const unsigned char *s = (const unsigned char *)text;
    q.text[out++] = '"';
    while (*s != '\0' && out < SHOWN_MAX) {
        size_t n = sequence_length(s);
        bool control = n == 0 || *s < 0x20 || *s == 0x7f || (n == 2 && s[0] == 0xc2 && s[1] < 0xa0);
        if (control) {
            q.text[out++] = '?';
        } else {
            memcpy(q.text + out, s, n);
            out += n;
        }
        s += n == 0 ? 1 : n;
    }
    memcpy(q.text + out, *s != '\0' ? "...\"" : "\"", *s != '\0' ? 5 : 2);
    return q;
}
