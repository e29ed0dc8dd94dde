/* server/secret.h: files that hold tokens or keys. Thread-safe. */
#ifndef SERVER_SECRET_H
#define SERVER_SECRET_H

#include <stddef.h>

#include "core/err.h"

/* As file_read (core/fileio.h), for a file that not everybody may read or write: its mode must give others nothing, and its
 * group no right to write. NULL with the reason; `*size` is 0 then. */
char *secret_read(const char *path, size_t limit, size_t *size, struct err *e);
void secret_free(char *bytes, size_t size); /* wipes them; NULL is fine */

#endif
