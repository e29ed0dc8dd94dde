/*
 * The daemon's configuration: its table, and the form of addresses.
 *
 * Every limit of a request is here, so that what a request may cost can be read in one place.
 *
 * SIGHUP reads the file anew. What is not reloadable was used up at the start: sockets are bound, threads run, buffers
 * and windows have their sizes (limits.body, limits.head, limits.batch, limits.score), and a request that waits may be as large as they are. A
 * fallback that the bundle in service does not have would have to wait for one that does: what was checked at its load stays.
 */
#include "config/serve_config.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

#include "config/param.h"
#include "config/yaml.h"
#include "core/mem.h"

static const char *const log_level_words[] = {"error", "warn", "info", "debug", NULL};

static const char *const fallback_words[] = {"tower", "popular", NULL};

#define AT(member) PARAM_AT(struct serve_config, member)
#define RELOADABLE .reloadable = true
#define KIB 1024.0
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define SECOND 1000.0
#define HOUR (3600 * SECOND)

static const struct param rows[] = {
    {"listen", PARAM_STRING, AT(listen), .default_text = "127.0.0.1:8080",
     .sentence = "address of /recall, /similar, /score, /embed and the health checks: HOST:PORT, [IPV6]:PORT or "
                 "unix:/path; port 0 "
                 "takes a free one"},
    {"tokens", PARAM_PATH, AT(tokens), RELOADABLE,
     .sentence =
         "file of bearer tokens, one a line, that /recall and the other paths on listen ask for; not set: none"},
    {"tls.certificate", PARAM_PATH, AT(tls.certificate), RELOADABLE, .need = PARAM_NEEDED_INSIDE,
     .sentence = "file in PEM with the certificate of listen, then its chain; with it, listen speaks TLS only"},
    {"tls.key", PARAM_PATH, AT(tls.key), RELOADABLE, .need = PARAM_NEEDED_INSIDE,
     .sentence = "file in PEM with its private key, without a password, not readable for all"},
    {"admin.listen", PARAM_STRING, AT(admin_listen),
     .sentence =
         "address of /metrics, /model, /items and /admin; not set: they are on the public address if, and only if, "
         "that is loopback or unix"},
    {"admin.tokens", PARAM_PATH, AT(admin_tokens), RELOADABLE,
     .sentence = "the same for the admin paths; these tokens are good for all other paths, too"},
    {"admin.without_tokens", PARAM_BOOL, AT(admin_without_tokens), RELOADABLE, .default_text = "false",
     .sentence =
         "the admin paths may be open to the network, or beside paths that need tokens, without tokens of their own"},
    {"admin.tls.certificate", PARAM_PATH, AT(admin_tls.certificate), RELOADABLE, .need = PARAM_NEEDED_INSIDE,
     .sentence = "the same for admin.listen"},
    {"admin.tls.key", PARAM_PATH, AT(admin_tls.key), RELOADABLE, .need = PARAM_NEEDED_INSIDE,
     .sentence = "the same for admin.listen"},
    {"workers", PARAM_INT, AT(workers), .default_text = "0", .min = 0, .max = 1024, .unit = "threads",
     .sentence = "threads that answer; 0: one a core"},
    {"models.default.path", PARAM_PATH, AT(model_path), RELOADABLE, .default_text = "models/current",
     .sentence = "the bundle to serve: a directory, or a link to one that SIGHUP follows anew"},
    {"fallback", PARAM_ENUM, AT(fallback), .default_text = "tower", .words = fallback_words,
     .sentence = "what /recall answers for a user about whom nothing is known: what the tower makes of that, or the "
                 "items with the "
                 "most training events, which the bundle must have"},
    {"log.level", PARAM_ENUM, AT(log_level), RELOADABLE, .default_text = "info", .words = log_level_words,
     .sentence = "lines above this level are not written"},
    {"access_log.path", PARAM_STRING, AT(access_log.path),
     .sentence =
         "file, by its absolute path, that gets a line of JSON a request, or - for standard output; not set: none"},
    {"access_log.sample", PARAM_FLOAT, AT(access_log.sample), RELOADABLE, .default_text = "1", .min = 0, .max = 1,
     .sentence = "share of the requests that get a line; errors and slow requests always do"},
    {"access_log.slow", PARAM_DURATION, AT(access_log.slow_ms), RELOADABLE, .default_text = "500ms", .min = 1,
     .max = HOUR,
     .sentence = "from a request's last byte to its answer; those that take as long get a line in any case"},
    {"limits.body", PARAM_SIZE, AT(limits.body), .default_text = "1MiB", .min = KIB, .max = GIB,
     .sentence = "largest request body"},
    {"limits.head", PARAM_SIZE, AT(limits.head), .default_text = "16KiB", .min = KIB, .max = MIB,
     .sentence = "largest request line and headers together"},
    {"limits.k", PARAM_INT, AT(limits.k), RELOADABLE, .default_text = "1000", .min = 1, .max = 1e6, .unit = "items",
     .sentence = "most items one request may ask for"},
    {"limits.batch", PARAM_INT, AT(limits.batch), .default_text = "256", .min = 1, .max = 65536, .unit = "requests",
     .sentence = "most requests, or items to add, in one body"},
    {"limits.exclude", PARAM_INT, AT(limits.exclude), RELOADABLE, .default_text = "100000", .min = 0, .max = 1e8,
     .unit = "ids", .sentence = "most ids one request may exclude"},
    {"limits.score", PARAM_INT, AT(limits.score), .default_text = "10000", .min = 1, .max = 1e6, .unit = "ids",
     .sentence = "most items one request of /score may name"},
    {"limits.effort", PARAM_INT, AT(limits.effort), RELOADABLE, .default_text = "10000", .min = 1, .max = 1e7,
     .sentence = "largest search.effort of a request"},
    {"limits.list", PARAM_INT, AT(limits.list), RELOADABLE, .default_text = "10000", .min = 1, .max = 1e7,
     .unit = "elements", .sentence = "longest list of a multi-valued feature or a history"},
    {"limits.added_items", PARAM_INT, AT(limits.added_items), RELOADABLE, .default_text = "100000", .min = 0,
     .max = 1e7, .unit = "items",
     .sentence =
         "most items that POST /items adds or replaces before the next load of a bundle; memory is taken as they come"},
    {"limits.connections", PARAM_INT, AT(limits.connections), RELOADABLE, .default_text = "10000", .min = 1, .max = 1e6,
     .unit = "a worker", .sentence = "connections open at once; more are answered 503"},
    {"limits.connections_per_address", PARAM_INT, AT(limits.connections_per_address), RELOADABLE, .default_text = "0",
     .min = 0, .max = 1e6, .unit = "at all workers",
     .sentence = "connections of one IPv4 address or IPv6 /64 open at once; more are answered 503; 0: any number"},
    {"limits.queue", PARAM_INT, AT(limits.queue), RELOADABLE, .default_text = "1024", .min = 1, .max = 1e6,
     .unit = "a worker", .sentence = "requests that may wait to be computed; more are answered 503"},
    {"limits.slow_queue", PARAM_INT, AT(limits.slow_queue), RELOADABLE, .default_text = "64", .min = 1, .max = 1e6,
     .unit = "a worker", .sentence = "the same for requests that take long, such as batches, which wait apart"},
    {"limits.timeout", PARAM_DURATION, AT(limits.timeout_ms), RELOADABLE, .default_text = "60s", .min = 1, .max = HOUR,
     .sentence = "largest timeout_ms of a request"},
    {"limits.request_timeout", PARAM_DURATION, AT(limits.request_timeout_ms), RELOADABLE, .default_text = "10s",
     .min = 1, .max = HOUR, .sentence = "from a request's first byte to its last"},
    {"limits.idle_timeout", PARAM_DURATION, AT(limits.idle_timeout_ms), RELOADABLE, .default_text = "75s", .min = 1,
     .max = 24 * HOUR, .sentence = "without a byte between requests of a connection"},
    {"limits.response_timeout", PARAM_DURATION, AT(limits.response_timeout_ms), RELOADABLE, .default_text = "30s",
     .min = 1, .max = HOUR, .sentence = "for a client to take one response"},
    {"limits.drain_timeout", PARAM_DURATION, AT(limits.drain_timeout_ms), RELOADABLE, .default_text = "30s", .min = 0,
     .max = HOUR, .sentence = "after SIGTERM, for requests in flight to finish"},
    {"gzip.requests", PARAM_BOOL, AT(gzip_requests), RELOADABLE, .default_text = "true",
     .sentence = "bodies may come with Content-Encoding: gzip; limits.body is for what they unpack to, too"},
    {"gzip.responses", PARAM_BOOL, AT(gzip_responses), RELOADABLE, .default_text = "false",
     .sentence =
         "answers of 1 KiB and more are packed for clients that accept gzip; costs the worker time that others wait"},
    {"batch_window_us", PARAM_INT, AT(batch_window_us), .default_text = "0", .min = 0, .max = 1e6,
     .unit = "microseconds",
     .sentence =
         "how long a /recall of one user may wait for others of the same worker, to be answered together with them; 0: "
         "not at all"},
    {"timeout", PARAM_DURATION, AT(timeout_ms), RELOADABLE, .default_text = "10s", .min = 1, .max = HOUR,
     .sentence =
         "a request that is still waiting, or being computed in parts, after that long is answered 503, unless its "
         "timeout_ms says otherwise"},
    {"degrade.wait", PARAM_DURATION, AT(degrade.wait_ms), RELOADABLE, .default_text = "20ms", .min = 1, .max = HOUR,
     .sentence =
         "requests that have waited longer are searched for with less effort, the least at twice as long; those that "
         "say an effort or a recall keep it"},
    {"degrade.recall", PARAM_FLOAT, AT(degrade.recall), RELOADABLE, .default_text = "0.8", .min = 0, .max = 1,
     .sentence =
         "never less effort than was measured to find this share of the true best, when the index was built; 1: never "
         "less than usual"},
    {"drain_delay", PARAM_DURATION, AT(drain_delay_ms), RELOADABLE, .default_text = "0", .min = 0, .max = HOUR,
     .sentence =
         "after SIGTERM, how long new connections are still accepted while /readyz says no, so that load balancers "
         "can look elsewhere first"},
};
static const struct param_table table = {rows, sizeof rows / sizeof rows[0]};

/* --- addresses ------------------------------------------------------------------------------------------------------ */

static bool is_port(const char *text)
{
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 5 || text[n] != '\0') {
        return false;
    }
    unsigned port = 0;
    for (; *text != '\0'; text++) {
        port = port * 10 + (unsigned)(*text - '0');
    }
    return port <= 65535;
}

static bool is_ipv6(const char *text, size_t n)
{
    char host[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (n == 0 || n >= sizeof host) {
        return false;
    }
    memcpy(host, text, n);
    host[n] = '\0';
    return inet_pton(AF_INET6, host, &address) == 1;
}

static bool is_host(const char *text, size_t n)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return (n == 1 && text[0] == '*') || (n > 0 && n < 254 && strspn(text, letters) >= n);
}

/* What is wrong with an address, or NULL. */
static const char *address_problem(const char *address)
{
    if (strncmp(address, "unix:", 5) == 0) {
        const struct sockaddr_un *un = NULL;
        bool good = address[5] == '/' && strlen(address + 5) < sizeof un->sun_path;
        return good ? NULL : "behind unix: there must be an absolute path of less than 108 bytes";
    }
    const char *colon = strrchr(address, ':');
    if (colon == NULL) {
        return "must be HOST:PORT, [IPV6]:PORT or unix:/path";
    }
    if (!is_port(colon + 1)) {
        return "the port (behind the last colon) must be 0 to 65535; 0 takes a free one";
    }
    size_t n = (size_t)(colon - address);
    if (address[0] == '[') {
        bool good = n > 2 && address[n - 1] == ']' && is_ipv6(address + 1, n - 2);
        return good ? NULL : "between the brackets there must be an IPv6 address";
    }
    if (memchr(address, ':', n) != NULL) {
        return "an IPv6 address needs brackets and the whole quotes: \"[::1]:8080\"";
    }
    return is_host(address, n) ? NULL : "must be HOST:PORT, [IPV6]:PORT or unix:/path; * is every address";
}

static void check_address(const char *key, const char *address, const struct node *root, struct problems *problems)
{
    const char *what = address == NULL ? NULL : address_problem(address);
    if (what != NULL) {
        problem_add(problems, param_place(root, key), key, "%s: %s", problem_quote(address).text, what);
    }
}

/* A port that is taken twice would only be found when it is bound. */
static void check_addresses(const struct serve_config *config, const struct node *root, struct problems *problems)
{
    check_address("listen", config->listen, root, problems);
    check_address("admin.listen", config->admin_listen, root, problems);
    if (config->listen == NULL || config->admin_listen == NULL || strcmp(config->listen, config->admin_listen) != 0) {
        return;
    }
    const char *colon = strrchr(config->listen, ':');
    if (colon == NULL || strcmp(colon, ":0") != 0) {
        problem_add(
            problems, param_place(root, "admin.listen"), "admin.listen",
            "is the same as listen; choose another port, or remove it to have the admin paths on a loopback address");
    }
}

static void check_access_log(const struct serve_config *config, const struct node *root, struct problems *problems)
{
    const char *path = config->access_log.path;
    if (path != NULL && path[0] != '/' && strcmp(path, "-") != 0) {
        problem_add(problems, param_place(root, "access_log.path"), "access_log.path",
                    "%s: must be an absolute path, or - for standard output", problem_quote(path).text);
    }
}

/* --- loading -------------------------------------------------------------------------------------------------------- */

/* The file's tree, or an empty one without a file. */
static struct node *load_tree(const char *path, struct problems *problems)
{
    return path != NULL ? yaml_load(path, problems) : yaml_parse("{}", 2, problems);
}

struct serve_config *serve_config_load(const char *path, const char *const *sets, size_t n_sets, struct buf *problems)
{
    struct problems list = {.file = path, .out = problems};
    struct serve_config *config = NULL;
    struct node *root = load_tree(path, &list);
    if (root != NULL) {
        param_set(&table, root, sets, n_sets, &list);
        config = mem_array(1, sizeof *config);
        if (config == NULL) {
            problem_nomem(&list);
        } else {
            param_read(&table, root, "", config, &list);
            check_addresses(config, root, &list);
            check_access_log(config, root, &list);
        }
    }
    problems_finish(&list);
    node_free(root);
    if (list.count > 0) {
        serve_config_free(config);
        return NULL;
    }
    return config;
}

int serve_config_keep(struct serve_config *fresh, const struct serve_config *running, struct buf *kept)
{
    return param_keep(&table, fresh, running, kept);
}

void serve_config_free(struct serve_config *config)
{
    if (config == NULL) {
        return;
    }
    param_release(&table, config);
    mem_free(config);
}

void serve_config_dump(const struct serve_config *config, struct buf *out)
{
    param_dump(&table, config, out);
}

void serve_config_describe(struct buf *out, bool markdown)
{
    param_describe_head(out, markdown);
    param_describe(&table, "", out, markdown);
}
