/* recalld: the command line. Everything else is in server/lifecycle.c. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/serve_config.h"
#include "core/buf.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/vecmath.h"
#include "server/lifecycle.h"
#include "server/settings.h"
#include "server/version.h"

enum { EXIT_USAGE = 2, OPTION_DUMP = 256, OPTION_SET, OPTION_BUNDLE, OPTION_LISTEN, OPTION_WORKERS };

static const char usage[] =
    "usage: recalld -c FILE.yaml [-t | --dump-config] [--set KEY=VALUE]...\n"
    "       recalld --bundle DIR [--listen HOST:PORT] [--workers N]\n"
    "\n"
    "Answers POST /recall, /similar, /score and /embed from a bundle that recall-train has published.\n"
    "\n"
    "  -c, --config FILE    configuration in YAML (docs/config.md)\n"
    "      --bundle DIR     the bundle to serve: a directory, or a link such as models/current\n"
    "      --listen ADDR    HOST:PORT, [IPV6]:PORT or unix:/path; port 0 takes a free one (default 127.0.0.1:8080)\n"
    "      --workers N      threads that answer; 0: one a core\n"
    "      --set KEY=VALUE  overrides a setting, for example --set limits.k=500; may be repeated\n"
    "  -t, --test           check the configuration and end\n"
    "      --dump-config    print every setting that is in force, with what it means, and end\n"
    "  -V, --version        print the version and end\n"
    "  -h, --help           print this and end\n"
    "\n"
    "The address is printed on stdout once it is bound; the log goes to stderr. SIGHUP loads configuration and bundle "
    "anew,\n"
    "SIGTERM drains and ends. Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"bundle", required_argument, NULL, OPTION_BUNDLE},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"workers", required_argument, NULL, OPTION_WORKERS},
    {"set", required_argument, NULL, OPTION_SET},
    {"test", no_argument, NULL, 't'},
    {"dump-config", no_argument, NULL, OPTION_DUMP},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

enum mode { MODE_SERVE, MODE_TEST, MODE_DUMP, MODE_DONE };

struct options {
    enum mode mode;
    const char *config;
    bool has_bundle;
    char **sets; /* [n_sets], each owned */
    size_t n_sets;
};

/* Notes "key=value"; options that are settings by another name come here, too. */
static int add_set(struct options *o, const char *key, const char *value)
{
    size_t size = strlen(key) + strlen(value) + 1;
    char *set = mem_array(size, 1);
    if (!set) {
        fprintf(stderr, "recalld: out of memory\n");
        return EXIT_FAILURE;
    }
    snprintf(set, size, "%s%s", key, value);
    o->sets[o->n_sets++] = set;
    return 0;
}

static int usage_error(const char *what)
{
    fprintf(stderr, "recalld: %s\nTry 'recalld --help'.\n", what);
    return EXIT_USAGE;
}

/* 0, or the exit status. */
static int take_option(struct options *o, int option)
{
    char libraries[VERSION_LIBRARIES_MAX];
    switch (option) {
    case 'c':
        o->config = optarg;
        return 0;
    case OPTION_BUNDLE:
        o->has_bundle = true;
        return add_set(o, "models.default.path=", optarg);
    case OPTION_LISTEN:
        return add_set(o, "listen=", optarg);
    case OPTION_WORKERS:
        return add_set(o, "workers=", optarg);
    case OPTION_SET:
        return strchr(optarg, '=') ? add_set(o, "", optarg) : usage_error("--set needs KEY=VALUE");
    case 't':
        o->mode = MODE_TEST;
        return 0;
    case OPTION_DUMP:
        o->mode = MODE_DUMP;
        return 0;
    case 'V':
        printf("recalld " RECALLD_VERSION " (%s)\n", version_libraries(libraries));
        o->mode = MODE_DONE;
        return 0;
    case 'h':
        fputs(usage, stdout);
        o->mode = MODE_DONE;
        return 0;
    default: /* getopt has said what is wrong */
        fputs("Try 'recalld --help'.\n", stderr);
        return EXIT_USAGE;
    }
}

static int read_options(int argc, char **argv, struct options *o)
{
    int option;
    o->sets = mem_array((size_t)argc, sizeof *o->sets);
    if (!o->sets) {
        fprintf(stderr, "recalld: out of memory\n");
        return EXIT_FAILURE;
    }
    while (o->mode != MODE_DONE && (option = getopt_long(argc, argv, "c:tVh", long_options, NULL)) != -1) {
        int status = take_option(o, option);
        if (status != 0) {
            return status;
        }
    }
    if (o->mode == MODE_DONE) {
        return 0;
    }
    if (optind < argc) {
        return usage_error("an argument is left over; everything is said by options");
    }
    if (!o->config && !o->has_bundle && o->mode != MODE_DUMP) {
        return usage_error("-c FILE or --bundle DIR is needed");
    }
    return 0;
}

static int fail(const struct err *e)
{
    fprintf(stderr, "recalld: %s\n", e->message);
    return EXIT_FAILURE;
}

static int dump(const struct serve_config *config)
{
    struct buf text = BUF_INIT;
    serve_config_dump(config, &text);
    bool good = !buf_failed(&text) && fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0;
    buf_release(&text);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Takes the configuration. */
static int serve(struct serve_config *config, const struct settings_source *source)
{
    struct err e = ERR_INIT;
    log_setup(config->log_level, true);
    json_object_seed(0); /* from the system's random source, before threads could race for it */
    json_guard_memory();
    if (blas_setup(&e) != 0) {
        serve_config_free(config);
        return fail(&e);
    }
    struct daemon *daemon = daemon_start(config, source, &e);
    if (!daemon) {
        return fail(&e);
    }
    printf("listening on %s\n", daemon_address(daemon));
    fflush(stdout);
    return daemon_run(daemon, &e) == 0 ? EXIT_SUCCESS : fail(&e);
}

static int run(const struct options *o)
{
    struct buf problems = BUF_INIT;
    struct err e = ERR_INIT;
    int status = EXIT_FAILURE;
    const struct settings_source source = {o->config, (const char *const *)o->sets, o->n_sets};
    struct serve_config *config = serve_config_load(source.path, source.sets, source.n_sets, &problems);
    if (!config) {
        fputs(problems.len ? problems.data : "recalld: out of memory\n", stderr);
    } else if (o->mode == MODE_DUMP) {
        status = dump(config);
        serve_config_free(config);
    } else if (o->mode == MODE_TEST) {
        status = daemon_check(config, &e) == 0 ? EXIT_SUCCESS : fail(&e);
        if (status == EXIT_SUCCESS) {
            printf("%s: the configuration is good\n", o->config ? o->config : "recalld");
        }
    } else {
        status = serve(config, &source);
    }
    buf_release(&problems);
    return status;
}

int main(int argc, char **argv)
{
    struct options options = {.mode = MODE_SERVE};
    int status = read_options(argc, argv, &options);
    if (status == 0 && options.mode != MODE_DONE) {
        status = run(&options);
    }
    fflush(stdout);
    for (size_t i = 0; i < options.n_sets; i++) {
        mem_free(options.sets[i]);
    }
    mem_free(options.sets);
    return status;
}
