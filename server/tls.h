/*
 * server/tls.h: TLS on a non-blocking socket, by OpenSSL: what http_conn.c has in the place of recv and sendmsg.
 *
 * A context is a certificate with its key; it is read-only once made and may serve connections of several threads. A
 * stream is one connection's; it holds a reference to its context, which may be freed before it. TLS 1.2 and 1.3, no
 * renegotiation, ciphers with forward secrecy and authentication only, ALPN http/1.1. SIGPIPE must be ignored.
 */
#ifndef SERVER_TLS_H
#define SERVER_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/err.h"

struct ssl_ctx_st;
struct ssl_st;

/* New, from PEM files: the certificate with its chain, and its unencrypted key. NULL with the reason, which names the file. */
struct ssl_ctx_st *tls_context_new(const char *certificate, const char *key, struct err *e);
void tls_context_free(struct ssl_ctx_st *context); /* NULL is fine */

/* New stream for the server's side of a connected socket, which stays the caller's; NULL without memory. */
struct ssl_st *tls_new(struct ssl_ctx_st *context, int fd);
void tls_free(struct ssl_st *stream); /* NULL is fine */

/* One step of the handshake. TLS_PLAIN_HTTP: the client speaks HTTP without TLS. */
enum tls_step { TLS_DONE, TLS_WANTS_READ, TLS_WANTS_WRITE, TLS_PLAIN_HTTP, TLS_FAILED };
enum tls_step tls_handshake(struct ssl_st *stream);

/* Like recv: 0 is the end of what the client sends, with or without its close_notify (lengths in HTTP say whether something
 * is missing); -1 with EAGAIN is to be called again when the socket is readable, or writable if tls_wants_write says so. */
ssize_t tls_read(struct ssl_st *stream, void *bytes, size_t n);
bool tls_wants_write(const struct ssl_st *stream);

/* Bytes are here that the socket does not know of any more: read without waiting for it. */
bool tls_has_input(const struct ssl_st *stream);

/* Like sendmsg, of a part of the pieces. After -1 with EAGAIN the next call must be given the same bytes, at any place; more
 * may follow them. */
ssize_t tls_write(struct ssl_st *stream, const struct iovec *pieces, int n);

/* Says that nothing more will be sent, if the socket takes that now. */
void tls_end(struct ssl_st *stream);

#endif
