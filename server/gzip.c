/* Packing is at zlib's lowest level: a worker's other clients wait while it packs. */
#include "server/gzip.h"

#include <event2/buffer.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "core/mem.h"

enum { WINDOW_BITS = 15 + 16, /* 16: gzip's frame */ MEMORY_LEVEL = 8, CHUNK = 16384, FIRST_ROOM = 4096, PIECES = 64 };

/* --- names ----------------------------------------------------------------------------------------------------------*/

static bool is_gzip(const char *name, size_t n)
{
    return (n == 4 && strncasecmp(name, "gzip", n) == 0) || (n == 6 && strncasecmp(name, "x-gzip", n) == 0);
}

bool gzip_is_name(const char *coding)
{
    return is_gzip(coding, strlen(coding));
}

/* Whether the parameters behind a name say "not at all": q=0, q=0.0, q=0.00, q=0.000. */
static bool is_refused(const char *parameters, size_t n)
{
    size_t at = 0;
    while (at < n && (parameters[at] == ';' || parameters[at] == ' ' || parameters[at] == '\t')) {
        at++;
    }
    if (n - at < 3 || strncasecmp(parameters + at, "q=0", 3) != 0) {
        return false;
    }
    return at + 3 + strspn(parameters + at + 3, ".0") >= n;
}

bool gzip_is_accepted(const char *accept_encoding)
{
    bool any = false;
    for (const char *at = accept_encoding; at && *at;) {
        at += strspn(at, ", \t");
        size_t length = strcspn(at, ",");
        size_t name = strcspn(at, ",; \t");
        bool refused = is_refused(at + name, length - name);
        if (is_gzip(at, name)) {
            return !refused;
        }
        any = any || (name == 1 && *at == '*' && !refused);
        at += length;
    }
    return any;
}

/* --- unpacking ------------------------------------------------------------------------------------------------------*/

/* More room, one byte beyond the limit at most, which tells that it is too much. Returns false without memory. */
static bool grow(char **bytes, size_t *room, size_t limit)
{
    size_t wanted = *room ? *room * 2 : FIRST_ROOM;
    wanted = wanted < limit + 1 ? wanted : limit + 1;
    char *more = mem_resize(*bytes, *room, wanted, 1);
    if (!more) {
        return false;
    }
    *bytes = more;
    *room = wanted;
    return true;
}

static enum gzip_result inflate_all(z_stream *z, size_t limit, char **bytes, size_t *size)
{
    size_t room = 0;
    for (;;) {
        if (*size == room && !grow(bytes, &room, limit)) {
            return GZIP_NO_MEMORY;
        }
        z->next_out = (Bytef *)*bytes + *size;
        z->avail_out = room - *size < UINT_MAX ? (uInt)(room - *size) : UINT_MAX;
        int rc = inflate(z, Z_NO_FLUSH);
        *size = (size_t)(z->next_out - (Bytef *)*bytes);
        if (*size > limit) {
            return GZIP_TOO_LARGE;
        }
        if (rc == Z_STREAM_END) {
            return z->avail_in == 0 ? GZIP_GOOD : GZIP_DAMAGED;
        }
        if (rc == Z_MEM_ERROR) {
            return GZIP_NO_MEMORY;
        }
        if (rc != Z_OK || z->avail_out > 0) { /* damaged, or cut off */
            return GZIP_DAMAGED;
        }
    }
}

enum gzip_result gzip_unpack(const char *bytes, size_t n, size_t limit, char **out, size_t *size)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)n};
    *out = NULL;
    *size = 0;
    if (n > UINT_MAX) {
        return GZIP_TOO_LARGE;
    }
    if (inflateInit2(&z, WINDOW_BITS) != Z_OK) {
        return GZIP_NO_MEMORY;
    }
    enum gzip_result result = inflate_all(&z, limit, out, size);
    inflateEnd(&z);
    if (result != GZIP_GOOD) {
        mem_free(*out);
        *out = NULL;
    }
    return result;
}

/* --- packing --------------------------------------------------------------------------------------------------------*/

struct gzip_packer {
    z_stream z;
};

struct gzip_packer *gzip_packer_new(void)
{
    struct gzip_packer *p = mem_array(1, sizeof *p);
    if (p && deflateInit2(&p->z, Z_BEST_SPEED, Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        mem_free(p);
        p = NULL;
    }
    return p;
}

void gzip_packer_free(struct gzip_packer *p)
{
    if (p) {
        deflateEnd(&p->z);
        mem_free(p);
    }
}

/* Takes all input there is, or, with Z_FINISH, ends the member. */
static int deflate_all(z_stream *z, int flush, struct evbuffer *to)
{
    unsigned char chunk[CHUNK];
    do {
        z->next_out = chunk;
        z->avail_out = sizeof chunk;
        deflate(z, flush); /* cannot fail: the stream is whole, and there is room */
        if (evbuffer_add(to, chunk, sizeof chunk - z->avail_out) < 0) {
            return -1;
        }
    } while (z->avail_out == 0);
    return 0;
}

int gzip_pack(struct gzip_packer *p, struct evbuffer *from, struct evbuffer *to)
{
    struct evbuffer_ptr at;
    struct evbuffer_iovec pieces[PIECES];
    deflateReset(&p->z);
    evbuffer_ptr_set(from, &at, 0, EVBUFFER_PTR_SET);
    for (size_t left = evbuffer_get_length(from); left > 0;) {
        int n = evbuffer_peek(from, -1, &at, pieces, PIECES);
        n = n < PIECES ? n : PIECES;
        size_t done = 0;
        for (int i = 0; i < n; i++) {
            p->z.next_in = pieces[i].iov_base;
            p->z.avail_in = (uInt)pieces[i].iov_len; /* an answer is far from 4 GiB */
            if (deflate_all(&p->z, Z_NO_FLUSH, to) < 0) {
                return -1;
            }
            done += pieces[i].iov_len;
        }
        left -= done;
        evbuffer_ptr_set(from, &at, done, EVBUFFER_PTR_ADD);
    }
    return deflate_all(&p->z, Z_FINISH, to);
}
