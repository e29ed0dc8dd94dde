#include "train/command.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fileio.h"
#include "core/log.h"
#include "core/mem.h"

int command_failed(const struct err *e)
{
    log_error("%s", err_isset(e) ? e->message : "failed for an unknown reason");
    return STATUS_FAILED;
}

int command_usage(const char *command, const char *message, ...)
{
    char text[512];
    va_list args;
    va_start(args, message);
    vsnprintf(text, sizeof text, message, args);
    va_end(args);
    log_error("recall-train %s: %s (see recall-train %s --help)", command, text, command);
    return STATUS_USAGE;
}

int command_bad_option(const char *command, int c, char **argv)
{
    const char *text = argv[optind - 1];
    if (c == ':') {
        return command_usage(command, "%s needs a value", text);
    }
    if (strncmp(text, "--", 2) == 0) {
        return command_usage(command, "no option '%s'", text);
    }
    return command_usage(command, "no option '-%c'", optopt);
}

unsigned count_processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? (unsigned)n : 1;
}

int parse_count(const char *command, const char *option, const char *text, unsigned long long min,
                unsigned long long max, unsigned long long *value)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n < min || n > max) {
        command_usage(command, "%s must be a whole number from %llu to %llu, not '%s'", option, min, max, text);
        return -1;
    }
    *value = n;
    return 0;
}

int check_report(const char *path, struct err *e)
{
    if (path == NULL || strcmp(path, "-") == 0) {
        return 0;
    }
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? mem_strdup(".") : mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    struct stat st;
    int result = 0;
    if (dir == NULL) {
        result = err_nomem(e);
    } else if (access(dir, W_OK | X_OK) < 0) {
        result = err_set(e, "--report %s: cannot write there: %s", path, strerror(errno));
    } else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        result = err_set(e, "--report %s: is a directory; name a file in it", path);
    }
    mem_free(dir);
    return result;
}

int write_json(const char *path, const json_t *record, struct err *e)
{
    char *text = json_dumps(record, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (text == NULL) {
        return err_nomem(e);
    }
    int result = 0;
    if (strcmp(path, "-") == 0) {
        puts(text);
    } else {
        result = file_replace(path, text, strlen(text), e);
    }
    free(text);
    return result;
}
