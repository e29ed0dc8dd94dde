#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool err_isset(const struct err *e)
{
    return e != NULL && e->message[0] != '\0';
}

void err_clear(struct err *e)
{
    e->message[0] = '\0';
}

/* Hostile text (a file's name, a key) must not make a second line or move a terminal's cursor. */
static void make_one_line(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = ' ';
        }
    }
}

int err_set(struct err *e, const char *format, ...)
{
    if (e == NULL || err_isset(e)) {
        return -1;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    if (e->message[0] == '\0') {
        snprintf(e->message, sizeof e->message, "failed"); /* an error without words is still an error */
    }
    make_one_line(e->message);
    return -1;
}

int err_prefix(struct err *e, const char *format, ...)
{
    if (!err_isset(e)) {
        return -1;
    }
    char context[ERR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);

    size_t used = strlen(context);
    if (used + 2 < sizeof context) {
        snprintf(context + used, sizeof context - used, ": %.*s", (int)(sizeof context - used - 3), e->message);
    }
    make_one_line(context);
    memcpy(e->message, context, strlen(context) + 1);
    return -1;
}

int err_nomem(struct err *e)
{
    return err_set(e, "out of memory");
}
