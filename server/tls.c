/*
 * OpenSSL keeps errors in a queue of the thread, and looks into it to tell "again" from "failed", so each call clears it first.
 *
 * Sessions: tickets only, which cost the server nothing; their keys go with the context, so a reload ends them.
 */
#include "server/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <string.h>

#include "server/secret.h"

enum {
    RECORD_MAX = 16384,
    RECORDS_AT_ONCE = 16, /* written before other connections get their turn */
    KEY_FILE_MAX = 64 * 1024,
};

/* --- contexts -------------------------------------------------------------------------------------------------------*/

static int fail(struct err *e, const char *path, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    err_set(e, "%s: %s%s%s", path, what, reason ? ": " : "", reason ? reason : "");
    ERR_clear_error();
    return -1;
}

/* An encrypted key would have to be asked for its password. */
static int no_password(char *out, int size, int writing, void *arg)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static int use_key(SSL_CTX *context, const char *path, struct err *e)
{
    size_t size;
    char *text = secret_read(path, KEY_FILE_MAX, &size, e);
    if (!text) {
        return -1;
    }
    BIO *bio = BIO_new_mem_buf(text, (int)size);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    int rc = 0;
    if (!key) {
        rc = fail(e, path, "no private key in PEM without a password");
    } else if (SSL_CTX_use_PrivateKey(context, key) != 1) {
        rc = fail(e, path, "is not the certificate's key");
    }
    EVP_PKEY_free(key);
    BIO_free(bio);
    secret_free(text, size);
    return rc;
}

/* A client that offers protocols, and not this one, would not understand us. */
static int choose_protocol(SSL *stream, const unsigned char **out, unsigned char *out_n, const unsigned char *offered,
                           unsigned n, void *arg)
{
    (void)stream;
    (void)arg;
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    int found = SSL_select_next_proto(&chosen, out_n, ours, sizeof ours - 1, offered, n);
    *out = chosen;
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int configure(SSL_CTX *context, const char *certificate, const char *key, struct err *e)
{
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1) {
        return fail(e, "TLS", "OpenSSL cannot be set up");
    }
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1) {
        return fail(e, certificate, "no certificate in PEM");
    }
    return use_key(context, key, e);
}

struct ssl_ctx_st *tls_context_new(const char *certificate, const char *key, struct err *e)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context) {
        fail(e, "TLS", "OpenSSL cannot be set up");
    } else if (configure(context, certificate, key, e) != 0) {
        SSL_CTX_free(context);
        context = NULL;
    }
    return context;
}

void tls_context_free(struct ssl_ctx_st *context)
{
    SSL_CTX_free(context);
}

/* --- streams --------------------------------------------------------------------------------------------------------*/

struct ssl_st *tls_new(struct ssl_ctx_st *context, int fd)
{
    ERR_clear_error();
    SSL *stream = SSL_new(context);
    if (stream && SSL_set_fd(stream, fd) != 1) {
        SSL_free(stream);
        stream = NULL;
    }
    if (stream) {
        SSL_set_accept_state(stream);
    }
    return stream;
}

void tls_free(struct ssl_st *stream)
{
    SSL_free(stream);
}

enum tls_step tls_handshake(struct ssl_st *stream)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(stream);
    if (rc == 1) {
        return TLS_DONE;
    }
    switch (SSL_get_error(stream, rc)) {
    case SSL_ERROR_WANT_READ:
        return TLS_WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WANTS_WRITE;
    default:
        return ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST ? TLS_PLAIN_HTTP : TLS_FAILED;
    }
}

ssize_t tls_read(struct ssl_st *stream, void *bytes, size_t n)
{
    size_t got = 0;
    ERR_clear_error();
    int rc = SSL_read_ex(stream, bytes, n, &got);
    if (rc == 1) {
        return (ssize_t)got;
    }
    switch (SSL_get_error(stream, rc)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    default:
        errno = EIO;
        return -1;
    }
}

bool tls_wants_write(const struct ssl_st *stream)
{
    return SSL_want_write(stream);
}

bool tls_has_input(const struct ssl_st *stream)
{
    return SSL_pending(stream) > 0;
}

/* Copies up to RECORD_MAX bytes of the pieces, from byte `skip` on; returns how many. */
static size_t gather(char *chunk, const struct iovec *pieces, int n, size_t skip)
{
    size_t filled = 0;
    for (int i = 0; i < n && filled < RECORD_MAX; i++) {
        if (skip >= pieces[i].iov_len) {
            skip -= pieces[i].iov_len;
            continue;
        }
        size_t size = pieces[i].iov_len - skip;
        size = size < RECORD_MAX - filled ? size : RECORD_MAX - filled;
        memcpy(chunk + filled, (const char *)pieces[i].iov_base + skip, size);
        filled += size;
        skip = 0;
    }
    return filled;
}

/* Head and body of an answer go into as few records as can be. A client need not read for us to write: without
 * renegotiation, a write that waits, waits for the socket to take more. */
ssize_t tls_write(struct ssl_st *stream, const struct iovec *pieces, int n)
{
    char chunk[RECORD_MAX];
    size_t done = 0;
    for (int i = 0; i < RECORDS_AT_ONCE; i++) {
        size_t size = gather(chunk, pieces, n, done);
        size_t written = 0;
        if (size == 0) {
            break;
        }
        ERR_clear_error();
        int rc = SSL_write_ex(stream, chunk, size, &written);
        if (rc != 1 && SSL_get_error(stream, rc) != SSL_ERROR_WANT_WRITE) {
            errno = EIO;
            return -1;
        }
        if (rc != 1) {
            break;
        }
        done += written;
    }
    errno = EAGAIN;
    return done > 0 ? (ssize_t)done : -1;
}

void tls_end(struct ssl_st *stream)
{
    ERR_clear_error();
    if (!SSL_in_init(stream) && !(SSL_get_shutdown(stream) & SSL_SENT_SHUTDOWN)) {
        SSL_shutdown(stream);
    }
    ERR_clear_error();
}
