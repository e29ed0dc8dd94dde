/*
 * libFuzzer entry for a whole connection. The input's first byte chooses the pieces in which the rest arrives. However they
 * are cut, the handler gets the requests that the head parser finds in the whole, with their bodies, and the connection
 * ends; what comes back is as many answers, and one more for an error.
 */
#include <event2/event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http.h"

enum { ROUNDS_MAX = 10000, ANSWERS_MAX = 1 << 18 };

static const struct http_limits limits = {.max_line = 256,
                                          .max_head = 1024,
                                          .max_headers = 16,
                                          .max_body = 2048,
                                          .max_buffered = 1 << 20,
                                          .max_connections = 4,
                                          .max_pipelined = 3,
                                          .request_timeout_ms = 60000,
                                          .idle_timeout_ms = 60000,
                                          .response_timeout_ms = 60000,
                                          .linger_timeout_ms = 60000,
                                          .max_linger = 1 << 20};

static struct event_base *base;
static struct http_server *server;
static unsigned handled;
static size_t bodies; /* a sum over all bytes of all bodies handled */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static size_t sum(const char *bytes, size_t n)
{
    size_t total = n;
    for (size_t i = 0; i < n; i++) {
        total = total * 31 + (unsigned char)bytes[i];
    }
    return total;
}

static void handle(struct http_request *request, void *arg)
{
    (void)arg;
    check(request->path[0] == '/' || strcmp(request->path, "*") == 0);
    check(strlen(request->path) == request->path_len);
    handled++;
    bodies += sum(request->body, request->body_len);
    http_header(request, "host");
    http_respond_bytes(request, 200, "text/plain", "answer", 6);
}

/* What the parser alone makes of the whole: requests, the sum of their bodies, and whether an error follows, which the beginning of a request
 * that never ends is, too. */
static unsigned expect(const char *bytes, size_t n, size_t *total, bool *error)
{
    static const struct http_head_limits l = {.max_line = 256, .max_head = 1024, .max_headers = 16, .max_body = 2048};
    unsigned count = 0;
    bool keep = true;
    *total = 0;
    *error = false;
    while (keep) {
        struct http_head head;
        http_head_reset(&head);
        enum http_parse_result result = http_head_parse(&head, &l, bytes, n);
        bool begun = n > 2 || (n > 0 && !head.skipped_crlf); /* more than a forgiven empty line */
        *error = result == HTTP_PARSE_ERROR || begun;
        size_t all = result == HTTP_PARSE_DONE ? head.head_len + (size_t)head.content_length : 0;
        if (result != HTTP_PARSE_DONE || all > n) {
            return count;
        }
        *error = false;
        *total += sum(bytes + head.head_len, (size_t)head.content_length);
        count++;
        keep = head.keep_alive;
        bytes += all;
        n -= all;
    }
    return count;
}

static void turn(void)
{
    check(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
}

/* Sends in pieces, ends, and lets the server work until it has closed. Returns the bytes that came back. */
static size_t converse(const char *bytes, size_t n, size_t piece, char *answers)
{
    int pair[2];
    size_t got = 0;
    int size = ANSWERS_MAX;
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    check(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    check(http_server_adopt(server, pair[1], false) == 0);
    for (size_t at = 0; at < n; at += piece) {
        size_t length = n - at < piece ? n - at : piece;
        if (send(pair[0], bytes + at, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            break; /* it has closed */
        }
        turn();
    }
    shutdown(pair[0], SHUT_WR);
    for (int round = 0; http_server_connections(server) > 0; round++) {
        check(round < ROUNDS_MAX);
        turn();
    }
    for (ssize_t length; (length = recv(pair[0], answers + got, ANSWERS_MAX - got, MSG_DONTWAIT)) > 0;) {
        got += (size_t)length;
    }
    close(pair[0]);
    return got;
}

/* By their Date, which a 100 Continue does not have. */
static unsigned count_answers(const char *answers, size_t n)
{
    static const char mark[] = "\r\nDate: ";
    unsigned count = 0;
    const char *end = answers + n;
    for (const char *at = answers; (at = memmem(at, (size_t)(end - at), mark, sizeof mark - 1)) != NULL; at++) {
        count++;
    }
    return count;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    struct err e = ERR_INIT;
    base = event_base_new();
    check(base != NULL);
    server = http_server_new(base, &limits, handle, NULL, &e);
    check(server != NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char answers[ANSWERS_MAX];
    if (size < 1 || size > 4096) {
        return 0;
    }
    const char *bytes = (const char *)data + 1;
    size_t total;
    bool error;
    unsigned wanted = expect(bytes, size - 1, &total, &error);
    handled = 0;
    bodies = 0;
    size_t n = converse(bytes, size - 1, data[0] < 128 ? (size_t)data[0] + 1 : 4096, answers);
    check(handled == wanted && bodies == total);
    unsigned came = count_answers(answers, n);
    check(came == wanted + (error ? 1 : 0));
    return 0;
}
