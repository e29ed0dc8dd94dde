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

int err_set(struct err *e, const char *format, ...)
{
    if (e == NULL || err_isset(e)) {
        return -1;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
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
    memcpy(e->message, context, sizeof e->message);
    return -1;
}

int err_nomem(struct err *e)
{
    return err_set(e, "out of memory");
}
