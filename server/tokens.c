/* Tokens are kept filled up with zeros, which no token has inside, so that comparing all bytes compares lengths, too. */
#include "server/tokens.h"

#include <openssl/crypto.h>
#include <string.h>

#include "core/mem.h"
#include "server/secret.h"

enum { FILE_MAX = 128 * 1024 };

struct tokens {
    size_t n;
    char list[TOKENS_MAX][TOKEN_MAX];
};

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/";

static bool is_token(const char *text, size_t n)
{
    size_t body = strspn(text, alphabet);
    return body > 0 && body + strspn(text + body, "=") >= n;
}

static int add_line(struct tokens *t, const char *path, size_t number, const char *line, size_t n, struct err *e)
{
    if (n == 0 || line[0] == '#') {
        return 0;
    }
    if (n < TOKEN_MIN || n > TOKEN_MAX) {
        return err_set(e, "%s:%zu: a token must have %d to %d characters", path, number, TOKEN_MIN, TOKEN_MAX);
    }
    if (!is_token(line, n)) {
        return err_set(e, "%s:%zu: a token may only have letters, digits and -._~+/, with = at its end", path, number);
    }
    if (t->n == TOKENS_MAX) {
        return err_set(e, "%s:%zu: more than %d tokens", path, number, TOKENS_MAX);
    }
    memcpy(t->list[t->n++], line, n);
    return 0;
}

static int add_lines(struct tokens *t, const char *path, const char *text, size_t size, struct err *e)
{
    if (memchr(text, '\0', size)) {
        return err_set(e, "%s: not a text file", path);
    }
    size_t number = 1;
    for (const char *line = text; *line != '\0'; number++) {
        size_t n = strcspn(line, "\n");
        size_t length = n > 0 && line[n - 1] == '\r' ? n - 1 : n;
        if (add_line(t, path, number, line, length, e) != 0) {
            return -1;
        }
        line += n + (line[n] == '\n');
    }
    return t->n > 0 ? 0 : err_set(e, "%s: has no token", path);
}

struct tokens *tokens_load(const char *path, struct err *e)
{
    size_t size;
    char *text = secret_read(path, FILE_MAX, &size, e);
    struct tokens *t = text ? mem_array(1, sizeof *t) : NULL;
    if (text && !t) {
        err_nomem(e);
    }
    if (t && add_lines(t, path, text, size, e) != 0) {
        tokens_free(t);
        t = NULL;
    }
    secret_free(text, size);
    return t;
}

void tokens_free(struct tokens *t)
{
    if (t) {
        OPENSSL_cleanse(t, sizeof *t);
        mem_free(t);
    }
}

bool tokens_have(const struct tokens *t, const char *token, size_t n)
{
    char padded[TOKEN_MAX] = "";
    if (n == 0 || n > sizeof padded || memchr(token, '\0', n)) {
        return false;
    }
    memcpy(padded, token, n);
    unsigned found = 0;
    for (size_t i = 0; i < t->n; i++) {
        found |= CRYPTO_memcmp(padded, t->list[i], sizeof padded) == 0;
    }
    return found != 0;
}
