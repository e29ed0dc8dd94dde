/*
 * One input buffer, filled by read(2), and one `decode` function for each encoding that moves bytes from it to the
 * caller. A decoder returns 0 only when the input is at its end and the encoding says that this is a good place to end:
 * plain text anywhere, gzip behind a whole member, zstd behind a whole frame. So a cut file cannot pass for a short one.
 *
 * Rejected: zlib's gzread, which ignores whatever follows the last member and reports truncation only in gzclose; a
 * pipe from gzip(1), which needs a program that may not be there; mapping the file, which turns a file cut while it is
 * read into a SIGBUS.
 */
#include "train/text_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "core/mem.h"

enum { INPUT_SIZE = 256 * 1024, MAGIC_SIZE = 4 };

struct text_stream {
    int fd;
    char *path;
    off_t size;    /* of the file; 0: unknown */
    off_t fetched; /* bytes read from the file */
    bool at_end;   /* read(2) said so */
    bool broken;   /* an error was reported */
    bool between;  /* gzip, zstd: at the boundary of members or frames, where the file may end */
    bool zlib_open;
    ssize_t (*decode)(struct text_stream *s, char *to, size_t n, struct err *e);
    z_stream zlib;
    ZSTD_DCtx *zstd;
    unsigned char *input; /* [INPUT_SIZE] */
    size_t begin, end;    /* unread part of input */
};

static int broken(struct text_stream *s, const char *what, struct err *e)
{
    s->broken = true;
    return err_set(e, "%s: %s", s->path, what);
}

/* Reads more input behind what is there; 0 also at the end. Only called with room left. */
static int fetch(struct text_stream *s, struct err *e)
{
    if (s->begin == s->end) {
        s->begin = s->end = 0;
    }
    ssize_t got;
    do {
        got = read(s->fd, s->input + s->end, INPUT_SIZE - s->end);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return broken(s, strerror(errno), e);
    }
    s->at_end = got == 0;
    s->end += (size_t)got;
    s->fetched += got;
    return 0;
}

static ssize_t decode_plain(struct text_stream *s, char *to, size_t n, struct err *e)
{
    if (s->begin == s->end && !s->at_end && fetch(s, e) < 0) {
        return -1;
    }
    size_t take = s->end - s->begin < n ? s->end - s->begin : n;
    memcpy(to, s->input + s->begin, take);
    s->begin += take;
    return (ssize_t)take;
}

/* With input to decode: 1; at a good end: 0; at a bad one: -1. */
static int more_compressed(struct text_stream *s, struct err *e)
{
    if (s->begin == s->end && !s->at_end && fetch(s, e) < 0) {
        return -1;
    }
    if (s->begin < s->end) {
        return 1;
    }
    return s->between ? 0 : broken(s, "truncated: the compressed data ends too early; copy or make the file again", e);
}

static ssize_t decode_gzip(struct text_stream *s, char *to, size_t n, struct err *e)
{
    z_stream *z = &s->zlib;
    z->next_out = (unsigned char *)to;
    z->avail_out = n < UINT_MAX ? (uInt)n : UINT_MAX;
    uInt wanted = z->avail_out;
    while (z->avail_out == wanted) {
        int more = more_compressed(s, e);
        if (more <= 0) {
            return more;
        }
        if (s->between && inflateReset(z) != Z_OK) {
            return broken(s, "zlib cannot start", e);
        }
        s->between = false;
        z->next_in = s->input + s->begin;
        z->avail_in = (uInt)(s->end - s->begin);
        int status = inflate(z, Z_NO_FLUSH);
        s->begin = s->end - z->avail_in;
        s->between = status == Z_STREAM_END;
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
            s->broken = true;
            return err_set(e, "%s: damaged gzip data: %s", s->path, z->msg != NULL ? z->msg : zError(status));
        }
    }
    return (ssize_t)(wanted - z->avail_out);
}

static ssize_t decode_zstd(struct text_stream *s, char *to, size_t n, struct err *e)
{
    ZSTD_outBuffer out = {to, n, 0};
    while (out.pos == 0) {
        /* Decoded bytes may wait inside the library with no input left, so it is asked before the end is believed. */
        if (s->begin == s->end && !s->at_end && fetch(s, e) < 0) {
            return -1;
        }
        ZSTD_inBuffer in = {s->input, s->end, s->begin};
        bool idle = s->between && in.pos == in.size;
        size_t status = idle ? 0 : ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(status)) {
            s->broken = true;
            return err_set(e, "%s: damaged zstd data: %s", s->path, ZSTD_getErrorName(status));
        }
        s->between = status == 0;
        s->begin = in.pos;
        if (out.pos == 0 && s->begin == s->end && s->at_end) {
            return more_compressed(s, e);
        }
    }
    return (ssize_t)out.pos;
}

static int choose_decoder(struct text_stream *s, struct err *e)
{
    while (s->end < MAGIC_SIZE && !s->at_end) {
        if (fetch(s, e) < 0) {
            return -1;
        }
    }
    const unsigned char *m = s->input;
    s->between = true;
    s->decode = decode_plain;
    if (s->end >= 2 && m[0] == 0x1f && m[1] == 0x8b) {
        s->decode = decode_gzip;
        s->zlib_open = inflateInit2(&s->zlib, MAX_WBITS + 16) == Z_OK; /* + 16: gzip only */
        return s->zlib_open ? 0 : err_nomem(e);
    }
    bool frame = s->end >= MAGIC_SIZE && memcmp(m, "\x28\xb5\x2f\xfd", MAGIC_SIZE) == 0;
    bool skippable = s->end >= MAGIC_SIZE && (m[0] & 0xf0) == 0x50 && memcmp(m + 1, "\x2a\x4d\x18", 3) == 0;
    if (frame || skippable) {
        s->decode = decode_zstd;
        s->zstd = ZSTD_createDCtx();
        return s->zstd != NULL ? 0 : err_nomem(e);
    }
    return 0;
}

struct text_stream *text_stream_open(const char *path, struct err *e)
{
    struct text_stream *s = mem_array(1, sizeof *s);
    if (s == NULL) {
        err_nomem(e);
        return NULL;
    }
    s->fd = -1;
    s->path = mem_strdup(path);
    s->input = mem_array(INPUT_SIZE, 1);
    if (s->path == NULL || s->input == NULL) {
        err_nomem(e);
        goto failed;
    }
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (s->fd < 0 || fstat(s->fd, &st) < 0) {
        err_set(e, "%s: %s", path, strerror(errno));
        goto failed;
    }
    s->size = S_ISREG(st.st_mode) ? st.st_size : 0;
    if (choose_decoder(s, e) < 0) {
        goto failed;
    }
    return s;
failed:
    text_stream_close(s);
    return NULL;
}

void text_stream_close(struct text_stream *s)
{
    if (s == NULL) {
        return;
    }
    if (s->zlib_open) {
        inflateEnd(&s->zlib);
    }
    ZSTD_freeDCtx(s->zstd);
    if (s->fd >= 0) {
        close(s->fd);
    }
    mem_free(s->input);
    mem_free(s->path);
    mem_free(s);
}

ssize_t text_stream_read(struct text_stream *s, char *to, size_t n, struct err *e)
{
    return s->broken ? err_set(e, "%s: reading failed before", s->path) : s->decode(s, to, n, e);
}

double text_stream_done(const struct text_stream *s)
{
    if (s->at_end && s->begin == s->end) {
        return 1;
    }
    double done = s->size > 0 ? (double)(s->fetched - (off_t)(s->end - s->begin)) / (double)s->size : 0;
    return done < 1 ? done : 1; /* a file may grow while it is read */
}
