/*
 * The request head, strictly.
 *
 * What it decides: where one request ends and the next begins, and whether everyone between the client and us must
 * have decided the same. Anything that two readers could take for two different things (a bare LF, a repeated length,
 * a space before a colon, a folded line, a transfer coding) is an error and never repaired, because the repair is what
 * request smuggling lives on. Chunked bodies are refused (501) rather than read: no caller of ours needs them, and a
 * length known in front lets us refuse a body before its first byte.
 *
 * How: line by line. A line is judged when its LF is there; only two things are judged earlier, and both would give
 * the same verdict on the whole line: the very first byte (a TLS hello is answered at once, not after the timeout)
 * and lengths over their limits. So the result depends on the bytes alone, not on how they were cut into reads. The
 * checks of a line run in one fixed order (length, line end, characters, grammar), and the checks that need the whole
 * head (Host, framing, limits on the body, Expect) after the blank line, framing first.
 *
 * Nothing is copied or stored but offsets. `scanned` keeps the search for LF linear when bytes come one at a time.
 *
 * Rejected: a byte-by-byte state machine (llhttp's way): it judges a little earlier, runs several times as many
 * instructions as memchr per line, and hides the grammar in its states.
 */
#include "server/http_parse.h"

#include <string.h>
#include <strings.h>

enum { SEEN_HOST = 1, SEEN_LENGTH = 2, SEEN_CODING = 4, SEEN_CLOSE = 8, SEEN_KEEP_ALIVE = 16, SEEN_BAD_EXPECT = 32 };

enum { C_TOKEN = 1, C_TARGET = 2, C_HOST = 4, C_HEX = 8, C_DIGIT = 16 };

#define C_UNRESERVED (C_TARGET | C_HOST)
#define C_LETTER (C_TOKEN | C_UNRESERVED)

/* RFC 9110 tokens; RFC 3986 characters of a path and query, and of a host with its port; digits. */
static const unsigned char char_class[256] = {
    ['a' ... 'f'] = C_LETTER | C_HEX,
    ['g' ... 'z'] = C_LETTER,
    ['A' ... 'F'] = C_LETTER | C_HEX,
    ['G' ... 'Z'] = C_LETTER,
    ['0' ... '9'] = C_LETTER | C_HEX | C_DIGIT,
    ['-'] = C_LETTER,
    ['.'] = C_LETTER,
    ['_'] = C_LETTER,
    ['~'] = C_LETTER,
    ['!'] = C_LETTER,
    ['$'] = C_LETTER,
    ['&'] = C_LETTER,
    ['\''] = C_LETTER,
    ['*'] = C_LETTER,
    ['+'] = C_LETTER,
    ['%'] = C_LETTER,
    ['#'] = C_TOKEN,
    ['^'] = C_TOKEN,
    ['`'] = C_TOKEN,
    ['|'] = C_TOKEN,
    ['('] = C_UNRESERVED,
    [')'] = C_UNRESERVED,
    [','] = C_UNRESERVED,
    [';'] = C_UNRESERVED,
    ['='] = C_UNRESERVED,
    [':'] = C_UNRESERVED,
    ['/'] = C_TARGET,
    ['?'] = C_TARGET,
    ['@'] = C_TARGET,
    ['['] = C_HOST,
    [']'] = C_HOST,
};

static inline bool has_class(char c, int classes)
{
    return (char_class[(unsigned char)c] & classes) != 0;
}

/* How many leading bytes are of the class. */
static size_t class_span(const char *text, size_t n, int classes)
{
    size_t i = 0;
    while (i < n && has_class(text[i], classes)) {
        i++;
    }
    return i;
}

static enum http_parse_result fail(struct http_head *head, int status, const char *reason)
{
    head->status = status;
    head->reason = reason;
    return HTTP_PARSE_ERROR;
}

bool http_is_token(const char *text, size_t n)
{
    return n > 0 && class_span(text, n, C_TOKEN) == n;
}

bool http_is_field_value(const char *text, size_t n)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t highs = 0x8080808080808080u;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, text + i, 8);
        uint64_t del = w ^ (ones * 0x7f);
        /* The high bit of a byte below 0x20, or equal to 0x7f; a neighbour may be marked too, so look closer then. */
        if (((((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & highs) != 0) {
            break;
        }
    }
    for (; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

/* Valid escapes only, and no %00: a decoded path may be used as a C string. */
static bool escapes_valid(const char *text, size_t n)
{
    const char *end = text + n;
    for (const char *p = memchr(text, '%', n); p != NULL; p = memchr(p, '%', (size_t)(end - p))) {
        if (end - p < 3 || !has_class(p[1], C_HEX) || !has_class(p[2], C_HEX) || (p[1] == '0' && p[2] == '0')) {
            return false;
        }
        p += 3;
    }
    return true;
}

static int hex_value(char c)
{
    return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

size_t http_percent_decode(char *text, size_t n)
{
    char *first = memchr(text, '%', n);
    if (first == NULL) {
        return n;
    }
    char *out = first;
    for (const char *in = first; in < text + n; in++) {
        if (*in == '%') {
            *out++ = (char)(hex_value(in[1]) * 16 + hex_value(in[2]));
            in += 2;
        } else {
            *out++ = *in;
        }
    }
    return (size_t)(out - text);
}

static bool slice_is(const char *text, size_t n, const char *word)
{
    return strlen(word) == n && strncasecmp(text, word, n) == 0;
}

static bool host_valid(const char *text, size_t n)
{
    return class_span(text, n, C_HOST) == n && escapes_valid(text, n);
}

static enum http_method method_find(const char *text, size_t n)
{
    static const struct {
        const char *name;
        size_t len;
        enum http_method method;
    } known[] = {
        {"POST", 4, HTTP_POST}, {"GET", 3, HTTP_GET},       {"HEAD", 4, HTTP_HEAD},
        {"PUT", 3, HTTP_PUT},   {"DELETE", 6, HTTP_DELETE},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].len == n && memcmp(known[i].name, text, n) == 0) {
            return known[i].method;
        }
    }
    return HTTP_OTHER;
}

static struct http_slice slice(const char *base, const char *text, size_t n)
{
    return (struct http_slice){(uint32_t)(text - base), (uint32_t)n};
}

/* Origin form (/path?query), absolute form (http://host/path?query), and * for OPTIONS. */
static enum http_parse_result parse_target(struct http_head *head, const char *base, const char *text, size_t n)
{
    const char *path = text;
    size_t left = n;
    if (n == 1 && *text == '*' && slice_is(base + head->method_text.at, head->method_text.len, "OPTIONS")) {
        head->path = slice(base, text, 1);
        return HTTP_PARSE_MORE;
    }
    if (n > 0 && *text != '/') {
        size_t scheme = n > 7 && strncasecmp(text, "http://", 7) == 0    ? 7
                        : n > 8 && strncasecmp(text, "https://", 8) == 0 ? 8
                                                                         : 0;
        size_t authority = class_span(text + scheme, n - scheme, C_HOST);
        if (scheme == 0 || authority == 0 || !host_valid(text + scheme, authority)) {
            return fail(head, 400, "The request target is neither a path nor an http URL.");
        }
        path = text + scheme + authority;
        left = n - scheme - authority;
        if (left > 0 && *path != '/' && *path != '?') {
            return fail(head, 400, "The request target's host is not valid.");
        }
    }
    if (n == 0 || class_span(path, left, C_TARGET) != left) {
        return fail(head, 400, "The request target has characters that must be percent-encoded.");
    }
    if (!escapes_valid(path, left)) {
        return fail(head, 400, "The request target has a percent escape that is not valid.");
    }
    const char *mark = memchr(path, '?', left);
    size_t path_len = mark != NULL ? (size_t)(mark - path) : left;
    head->path = slice(base, path, path_len);
    head->has_query = mark != NULL;
    head->query = mark != NULL ? slice(base, mark + 1, left - path_len - 1) : (struct http_slice){0, 0};
    return HTTP_PARSE_MORE;
}

/* method SP target SP HTTP/1.x, with exactly these two spaces. */
static enum http_parse_result parse_request_line(struct http_head *head, const char *base, const char *line, size_t n)
{
    size_t method_len = class_span(line, n, C_TOKEN);
    if (method_len == 0 || method_len == n || line[method_len] != ' ') {
        return fail(head, 400, "The request line does not start with a method and one space.");
    }
    const char *target = line + method_len + 1;
    const char *end = line + n;
    const char *space = memchr(target, ' ', (size_t)(end - target));
    if (space == NULL) {
        return fail(head, 400, "The request line has no HTTP version.");
    }
    const char *version = space + 1;
    if (end - version != 8 || memcmp(version, "HTTP/", 5) != 0 || !has_class(version[5], C_DIGIT) ||
        version[6] != '.' || !has_class(version[7], C_DIGIT)) {
        return fail(head, 400, "The request line does not end with one space and an HTTP version.");
    }
    head->method = method_find(line, method_len);
    head->method_text = slice(base, line, method_len);
    if (version[5] != '1' || version[7] > '1') {
        return fail(head, 505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.");
    }
    head->minor = version[7] - '0';
    return parse_target(head, base, target, (size_t)(space - target));
}

/* Digits and nothing else, once. What does not fit 64 bits is larger than any limit: saturated, so 413 like the rest. */
static enum http_parse_result parse_content_length(struct http_head *head, const char *value, size_t n)
{
    if ((head->seen & SEEN_LENGTH) != 0) {
        return fail(head, 400, "Content-Length is given more than once.");
    }
    head->seen |= SEEN_LENGTH;
    if (n == 0 || class_span(value, n, C_DIGIT) != n) {
        return fail(head, 400, "Content-Length is not a decimal number.");
    }
    uint64_t length = 0;
    for (size_t i = 0; i < n; i++) {
        if (__builtin_mul_overflow(length, (uint64_t)10, &length) ||
            __builtin_add_overflow(length, (uint64_t)(value[i] - '0'), &length)) {
            length = UINT64_MAX;
            break;
        }
    }
    head->content_length = length;
    return HTTP_PARSE_MORE;
}

static enum http_parse_result parse_host(struct http_head *head, const char *value, size_t n)
{
    if ((head->seen & SEEN_HOST) != 0) {
        return fail(head, 400, "Host is given more than once.");
    }
    head->seen |= SEEN_HOST;
    if (!host_valid(value, n)) {
        return fail(head, 400, "Host is not a valid host and port.");
    }
    return HTTP_PARSE_MORE;
}

/* A comma-separated list of tokens; only two of them mean something to us. */
static void parse_connection(struct http_head *head, const char *value, size_t n)
{
    const char *end = value + n;
    while (value < end) {
        const char *comma = memchr(value, ',', (size_t)(end - value));
        const char *stop = comma != NULL ? comma : end;
        const char *last = stop;
        while (value < last && (*value == ' ' || *value == '\t')) {
            value++;
        }
        while (last > value && (last[-1] == ' ' || last[-1] == '\t')) {
            last--;
        }
        if (slice_is(value, (size_t)(last - value), "close")) {
            head->seen |= SEEN_CLOSE;
        } else if (slice_is(value, (size_t)(last - value), "keep-alive")) {
            head->seen |= SEEN_KEEP_ALIVE;
        }
        value = comma != NULL ? comma + 1 : end;
    }
}

/* The few fields that decide about the message itself; all others are for the handler. */
static enum http_parse_result take_field(struct http_head *head, const char *name, size_t name_len, const char *value,
                                         size_t n)
{
    switch (name_len) {
    case 4:
        return strncasecmp(name, "host", 4) == 0 ? parse_host(head, value, n) : HTTP_PARSE_MORE;
    case 6:
        if (strncasecmp(name, "expect", 6) == 0) {
            head->expect_continue = slice_is(value, n, "100-continue");
            head->seen |= head->expect_continue ? 0 : SEEN_BAD_EXPECT;
        }
        return HTTP_PARSE_MORE;
    case 10:
        if (strncasecmp(name, "connection", 10) == 0) {
            parse_connection(head, value, n);
        }
        return HTTP_PARSE_MORE;
    case 14:
        return strncasecmp(name, "content-length", 14) == 0 ? parse_content_length(head, value, n) : HTTP_PARSE_MORE;
    case 17:
        head->seen |= strncasecmp(name, "transfer-encoding", 17) == 0 ? SEEN_CODING : 0;
        return HTTP_PARSE_MORE;
    default:
        return HTTP_PARSE_MORE;
    }
}

static enum http_parse_result parse_field(struct http_head *head, const struct http_head_limits *limits,
                                          const char *base, const char *line, size_t n)
{
    if (head->field_count >= limits->max_headers || head->field_count >= HTTP_HEADERS_CAP) {
        return fail(head, 431, "The request has too many headers.");
    }
    if (*line == ' ' || *line == '\t') {
        return fail(head, 400, "A header line starts with white space (folded headers are not accepted).");
    }
    size_t name_len = class_span(line, n, C_TOKEN);
    if (name_len == 0 || name_len == n || line[name_len] != ':') {
        return fail(head, 400, "A header line is not a name directly followed by a colon.");
    }
    const char *value = line + name_len + 1;
    const char *end = line + n;
    while (value < end && (*value == ' ' || *value == '\t')) {
        value++;
    }
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    size_t value_len = (size_t)(end - value);
    if (!http_is_field_value(value, value_len)) {
        return fail(head, 400, "A header value has control characters.");
    }
    head->fields[head->field_count++] = (struct http_field){slice(base, line, name_len), slice(base, value, value_len)};
    return take_field(head, line, name_len, value, value_len);
}

/* After the blank line: what only the whole head can tell. Framing first, so that a message whose end is in doubt is
 * never reported as something milder. */
static enum http_parse_result finish(struct http_head *head, const struct http_head_limits *limits)
{
    if ((head->seen & SEEN_CODING) != 0) {
        if ((head->seen & SEEN_LENGTH) != 0) {
            return fail(head, 400, "Transfer-Encoding and Content-Length contradict each other.");
        }
        if (head->minor == 0) {
            return fail(head, 400, "HTTP/1.0 has no Transfer-Encoding.");
        }
        return fail(head, 501, "Transfer-Encoding is not supported; send the body with a Content-Length.");
    }
    if (head->minor == 1 && (head->seen & SEEN_HOST) == 0) {
        return fail(head, 400, "HTTP/1.1 requires a Host header.");
    }
    if (head->content_length > limits->max_body) {
        return fail(head, 413, "The body is larger than the configured limit.");
    }
    if ((head->seen & SEEN_BAD_EXPECT) != 0 && head->minor == 1) {
        return fail(head, 417, "Only the expectation 100-continue is supported.");
    }
    head->expect_continue = head->expect_continue && head->minor == 1 && head->content_length > 0;
    head->keep_alive = (head->seen & SEEN_CLOSE) == 0 && (head->minor == 1 || (head->seen & SEEN_KEEP_ALIVE) != 0);
    return HTTP_PARSE_DONE;
}

/* One complete line, `n` bytes without its LF. */
static enum http_parse_result parse_line(struct http_head *head, const struct http_head_limits *limits,
                                         const char *base, const char *line, size_t n)
{
    if (n == 0 || line[n - 1] != '\r') {
        return fail(head, 400, "A line ends with a bare LF.");
    }
    n--;
    if (head->lines == 0) {
        head->lines = 1;
        return parse_request_line(head, base, line, n);
    }
    head->lines++;
    return n > 0 ? parse_field(head, limits, base, line, n) : finish(head, limits);
}

/* Lengths over their limit, by what is known so far of the line that starts at line_at: `n` bytes, without its LF. */
static enum http_parse_result check_lengths(struct http_head *head, const struct http_head_limits *limits,
                                            const char *line, size_t n, bool complete)
{
    size_t content = n > 0 && line[n - 1] == '\r' ? n - 1 : n;
    if (head->lines == 0 && content > limits->max_line) {
        return fail(head, 414, "The request line is longer than the configured limit.");
    }
    if (head->line_at + n + (complete ? 1 : 0) > limits->max_head) {
        return fail(head, 431, "The request's headers are longer than the configured limit.");
    }
    return HTTP_PARSE_MORE;
}

void http_head_reset(struct http_head *head)
{
    memset(head, 0, offsetof(struct http_head, fields));
}

enum http_parse_result http_head_parse(struct http_head *head, const struct http_head_limits *limits, const char *bytes,
                                       size_t n)
{
    for (;;) {
        const char *line = bytes + head->line_at;
        size_t left = n - head->line_at;
        if (head->lines == 0 && left > 0 && !has_class(*line, C_TOKEN)) {
            if (head->skipped_crlf || *line != '\r') {
                return fail(head, 400, "The request does not start with a method.");
            }
            if (left == 1) {
                return HTTP_PARSE_MORE;
            }
            if (line[1] != '\n') {
                return fail(head, 400, "The request does not start with a method.");
            }
            head->skipped_crlf = true;
            head->line_at += 2;
            continue;
        }
        const char *lf = left > head->scanned ? memchr(line + head->scanned, '\n', left - head->scanned) : NULL;
        size_t length = lf != NULL ? (size_t)(lf - line) : left;
        enum http_parse_result result = check_lengths(head, limits, line, length, lf != NULL);
        if (lf == NULL || result != HTTP_PARSE_MORE) {
            head->scanned = left;
            return result;
        }
        result = parse_line(head, limits, bytes, line, length);
        head->line_at += length + 1;
        head->scanned = 0;
        head->head_len = head->line_at;
        if (result != HTTP_PARSE_MORE) {
            return result;
        }
    }
}

const struct http_field *http_head_find(const struct http_head *head, const char *bytes, const char *name)
{
    size_t n = strlen(name);
    for (unsigned i = 0; i < head->field_count; i++) {
        const struct http_field *field = &head->fields[i];
        if (field->name.len == n && strncasecmp(bytes + field->name.at, name, n) == 0) {
            return field;
        }
    }
    return NULL;
}
