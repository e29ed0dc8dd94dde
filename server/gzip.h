/*
 * server/gzip.h: the content coding gzip (RFC 9110, RFC 1952) of bodies, by zlib.
 */
#ifndef SERVER_GZIP_H
#define SERVER_GZIP_H

#include <stdbool.h>
#include <stddef.h>

struct evbuffer;
struct gzip_packer; /* opaque; belongs to one thread */

/* Is it the coding's name, alone? Letters of any case; "x-gzip" is the same. */
bool gzip_is_name(const char *coding);

/* What a client's Accept-Encoding (NULL: none) says. */
bool gzip_is_accepted(const char *accept_encoding);

/* Unpacks n bytes, which must be one whole member with nothing behind it, to a new buffer (mem_free) of `*size` bytes and no
 * '\0'. Stops as soon as they are more than `limit`. */
enum gzip_result { GZIP_GOOD, GZIP_DAMAGED, GZIP_TOO_LARGE, GZIP_NO_MEMORY };
enum gzip_result gzip_unpack(const char *bytes, size_t n, size_t limit, char **out, size_t *size);

/* New, some 256 KiB; NULL without memory. */
struct gzip_packer *gzip_packer_new(void);
void gzip_packer_free(struct gzip_packer *p); /* NULL is fine */

/* Appends one packed member of what is in `from`, which stays as it is. Returns 0, or -1 without memory; `to` may have a part
 * of it then. */
int gzip_pack(struct gzip_packer *p, struct evbuffer *from, struct evbuffer *to);

#endif
