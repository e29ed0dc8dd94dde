/*
 * server/tokens.h: the bearer tokens (RFC 6750) of one file.
 *
 * One token a line, of 16 to 256 letters, digits and -._~+/ with = at its end; empty lines and lines that begin with # are
 * skipped. Several tokens let one be replaced without a gap. The file must not be readable for everybody. Read-only once
 * loaded.
 */
#ifndef SERVER_TOKENS_H
#define SERVER_TOKENS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

enum { TOKEN_MIN = 16, TOKEN_MAX = 256, TOKENS_MAX = 256 };

struct tokens; /* opaque */

/* New, or NULL with the reason, which names file and line but no token. */
struct tokens *tokens_load(const char *path, struct err *e);
void tokens_free(struct tokens *t); /* wipes them; NULL is fine */

/* Takes the same time whichever token it is, and whether it is one: it depends on how many there are. */
bool tokens_have(const struct tokens *t, const char *token, size_t n);

#endif
