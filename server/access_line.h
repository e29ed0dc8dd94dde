/*
 * server/access_line.h: what the access log says of a request. On the worker's thread.
 */
#ifndef SERVER_ACCESS_LINE_H
#define SERVER_ACCESS_LINE_H

#include <stddef.h>
#include <stdint.h>

struct http_request;
struct worker;

/* Of an answered request, which took so many ns: a line, if it is an error, slow, or in the sample. */
void access_line_write(struct worker *w, const struct http_request *request, int status, size_t body_len,
                       uint64_t took);

#endif
