/*
 * server/json_out.h: JSON text written straight into an evbuffer.
 *
 * The writer reserves room in the buffer, a piece at a time, and writes into it: nothing is copied later. Failure (no
 * memory) is sticky; json_out_end reports it once. The caller puts the punctuation; what is here gets escaping and
 * numbers right. One writer belongs to one thread.
 */
#ifndef SERVER_JSON_OUT_H
#define SERVER_JSON_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct evbuffer;

struct json_out {
    struct evbuffer *buffer; /* borrowed */
    char *at, *end;          /* of the reserved piece */
    char *start;
    bool failed;
};

/* `guess`: about how many bytes will be written; only speed depends on it. */
void json_out_begin(struct json_out *out, struct evbuffer *buffer, size_t guess);
int json_out_end(struct json_out *out); /* 0, or -1: memory was short and the buffer's contents are useless */

/* Makes room for n more bytes at out->at; false when there is none. For writers that fill it themselves. */
bool json_out_grow(struct json_out *out, size_t n);
static inline bool json_out_room(struct json_out *out, size_t n)
{
    return (size_t)(out->end - out->at) >= n || json_out_grow(out, n);
}

void json_out_bytes(struct json_out *out, const char *bytes, size_t n);
void json_out_string(struct json_out *out, const char *text, size_t n); /* with quotes; bytes are valid UTF-8 */
void json_out_unsigned(struct json_out *out, uint64_t number);
void json_out_float(struct json_out *out, float number); /* null when it is not finite */

static inline void json_out_text(struct json_out *out, const char *text)
{
    json_out_bytes(out, text, strlen(text));
}

/* Writes a finite float so that it parses back to the same float32: at most 9 significant digits. Returns the length,
 * at most FLOAT_TEXT_MAX; no '\0'. float_write_naive is its oracle, printf's %.9g. */
enum { FLOAT_TEXT_MAX = 24 };
size_t float_write(char out[FLOAT_TEXT_MAX], float number);
size_t float_write_naive(char out[FLOAT_TEXT_MAX], float number);

#endif
