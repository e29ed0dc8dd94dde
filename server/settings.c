#include "server/settings.h"

#include <string.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "server/listener.h"
#include "server/tls.h"
#include "server/tokens.h"

static void settings_free(struct settings *s)
{
    serve_config_free(s->config);
    tokens_free(s->tokens);
    tokens_free(s->admin_tokens);
    tls_context_free(s->tls);
    tls_context_free(s->admin_tls);
    mem_free(s->needs_restart);
    mem_free(s);
}

/* Whoever reaches the admin paths changes what is served, so being open to the network, or beside paths that need a token, has
 * to be meant. */
static int check_admin(const struct serve_config *config, struct err *e)
{
    bool is_private = true;
    if (config->admin_listen && listener_check(config->admin_listen, &is_private, e) != 0) {
        return -1;
    }
    if (config->admin_tls.certificate && !config->admin_listen) {
        return err_set(e, "admin.tls is for admin.listen, which is not set; the admin paths have the TLS of listen");
    }
    if (config->admin_tokens || config->admin_without_tokens) {
        return 0;
    }
    if (!is_private) {
        return err_set(e,
                       "admin.listen %s: whoever reaches it may change what is served; set admin.tokens, or "
                       "admin.without_tokens: true if that is meant",
                       config->admin_listen);
    }
    if (config->tokens && !config->admin_listen) {
        return err_set(e, "tokens are set, and the admin paths on the same address need none; set admin.tokens, or "
                          "admin.without_tokens: true if that is meant");
    }
    return 0;
}

static int load_tokens(const char *key, const char *path, struct tokens **tokens, struct err *e)
{
    if (path && !(*tokens = tokens_load(path, e))) {
        return err_prefix(e, "%s", key);
    }
    return 0;
}

static int load_tls(const char *key, const struct serve_tls *files, struct ssl_ctx_st **context, struct err *e)
{
    if (files->certificate && !(*context = tls_context_new(files->certificate, files->key, e))) {
        return err_prefix(e, "%s", key);
    }
    return 0;
}

static int open_files(struct settings *s, struct err *e)
{
    const struct serve_config *config = s->config;
    bool good = load_tokens("tokens", config->tokens, &s->tokens, e) == 0 &&
                load_tokens("admin.tokens", config->admin_tokens, &s->admin_tokens, e) == 0 &&
                load_tls("tls", &config->tls, &s->tls, e) == 0 &&
                load_tls("admin.tls", &config->admin_tls, &s->admin_tls, e) == 0;
    return good ? 0 : -1;
}

struct settings *settings_new(struct serve_config *config, const char *needs_restart, struct err *e)
{
    struct settings *s = mem_array(1, sizeof *s);
    if (!s) {
        serve_config_free(config);
        err_nomem(e);
        return NULL;
    }
    s->config = config;
    s->loaded_at = time(NULL);
    atomic_init(&s->references, 1);
    s->needs_restart = mem_strdup(needs_restart);
    if (!s->needs_restart) {
        err_nomem(e);
    }
    if (!s->needs_restart || check_admin(config, e) != 0 || open_files(s, e) != 0) {
        settings_free(s);
        return NULL;
    }
    return s;
}

/* Logs the lines, and puts the first into `e`. */
static void report(const struct buf *problems, struct err *e)
{
    if (problems->len == 0) {
        err_nomem(e);
        return;
    }
    for (const char *line = problems->data; *line != '\0';) {
        int n = (int)strcspn(line, "\n");
        log_error("%.*s", n, line);
        err_set(e, "%.*s", n, line);
        line += n + (line[n] == '\n');
    }
}

struct settings *settings_load(const struct settings_source *source, const struct serve_config *running, struct err *e)
{
    struct buf text = BUF_INIT;
    struct settings *s = NULL;
    struct serve_config *config = serve_config_load(source->path, source->sets, source->n_sets, &text);
    if (!config) {
        report(&text, e);
        goto out;
    }
    if (serve_config_keep(config, running, &text) != 0 || buf_failed(&text)) {
        serve_config_free(config);
        err_nomem(e);
        goto out;
    }
    s = settings_new(config, text.data, e);
out:
    buf_release(&text);
    return s;
}

struct settings *settings_ref(struct settings *s)
{
    atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
    return s;
}

void settings_unref(struct settings *s)
{
    /* release: our reads come before the freeing; acquire: the freeing comes after everybody's reads */
    if (s && atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) == 1) {
        settings_free(s);
    }
}

void settings_put(struct settings_mailbox *m, struct settings *s)
{
    settings_unref(atomic_exchange_explicit(&m->slot, settings_ref(s), memory_order_acq_rel));
}

struct settings *settings_take(struct settings_mailbox *m)
{
    return atomic_exchange_explicit(&m->slot, NULL, memory_order_acq_rel);
}
