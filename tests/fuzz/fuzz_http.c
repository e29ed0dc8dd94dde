/*
 * libFuzzer entry for the request-head parser. The first byte chooses where the input is cut in two; the verdict must
 * not depend on it, and everything the head refers to must lie inside the bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_slice(const struct http_head *head, struct http_slice s)
{
    check((size_t)s.at + s.len <= head->head_len);
}

static void check_head(const struct http_head *head, const char *bytes, size_t n)
{
    check(head->head_len <= n && memcmp(bytes + head->head_len - 2, "\r\n", 2) == 0);
    check_slice(head, head->method_text);
    check_slice(head, head->path);
    check_slice(head, head->query);
    for (unsigned i = 0; i < head->field_count; i++) {
        check_slice(head, head->fields[i].name);
        check_slice(head, head->fields[i].value);
        check(http_is_token(bytes + head->fields[i].name.at, head->fields[i].name.len));
    }
    char *path = malloc(head->path.len + 1);
    if (path != NULL) {
        memcpy(path, bytes + head->path.at, head->path.len);
        size_t decoded = http_percent_decode(path, head->path.len);
        check(decoded <= head->path.len && memchr(path, '\0', decoded) == NULL);
        free(path);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_head_limits limits = {
        .max_line = 256, .max_head = 1024, .max_headers = 16, .max_body = 4096};
    if (size < 1) {
        return 0;
    }
    const char *bytes = (const char *)data + 1;
    size_t n = size - 1;
    size_t cut = n > 0 ? data[0] * n / 256 : 0;
    struct http_head whole;
    struct http_head pieces;
    http_head_reset(&whole);
    http_head_reset(&pieces);
    enum http_parse_result result = http_head_parse(&whole, &limits, bytes, n);
    enum http_parse_result again = http_head_parse(&pieces, &limits, bytes, cut);
    if (again == HTTP_PARSE_MORE) {
        again = http_head_parse(&pieces, &limits, bytes, n);
    }
    check(result == again);
    if (result == HTTP_PARSE_DONE) {
        check(whole.head_len == pieces.head_len && whole.content_length == pieces.content_length);
        check_head(&whole, bytes, n);
    } else if (result == HTTP_PARSE_ERROR) {
        check(whole.status == pieces.status && whole.reason == pieces.reason);
    }
    return 0;
}
