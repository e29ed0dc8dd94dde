/*
 * recall-train: learns a two-tower model offline and publishes it as a bundle for recalld.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "core/vecmath.h"
#include "train/command.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"fit", cmd_fit, "train a model from a configuration and publish it"},
    {"eval", cmd_eval, "rank the whole catalogue for the users of a test file"},
    {"report", cmd_report, "draw a report as an HTML page"},
    {"index", cmd_index, "give a bundle another index"},
    {"ann-bench", cmd_ann_bench, "which index engine suits these vectors?"},
    {"embed", cmd_embed, "vectors of users or items"},
    {"verify", cmd_verify, "check a bundle completely"},
    {"inspect", cmd_inspect, "show what is in a bundle"},
    {"publish", cmd_publish, "point a link at a bundle, atomically"},
    {"synth", cmd_synth, "write a synthetic data set and a configuration that fits it"},
};

static void print_help(void)
{
    printf("usage: recall-train COMMAND [ARGUMENT]...\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        printf("  %-9s  %s\n", commands[i].name, commands[i].summary);
    }
    printf("\nrecall-train COMMAND --help tells more. Exit status: 0 done, 1 failed, 2 usage.\n");
}

/* What was printed must have arrived: a full disk behind stdout is a failure. */
static int close_output(int status)
{
    struct err e = ERR_INIT;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        err_set(&e, "cannot write to stdout: %s", strerror(errno));
        return status == STATUS_DONE ? command_failed(&e) : status;
    }
    return status;
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    log_setup(LOG_LEVEL_INFO, false);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a write error, not a death */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file size limit (ulimit -f) */
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)) {
        print_help();
        return close_output(STATUS_DONE);
    }
    for (size_t i = 0; argc >= 2 && i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            if (blas_setup(&e) < 0) {
                return command_failed(&e);
            }
            return close_output(commands[i].run(argc - 1, argv + 1));
        }
    }
    if (argc >= 2) {
        log_error("recall-train: no command '%s' (see recall-train --help)", argv[1]);
    } else {
        log_error("recall-train: which command? (see recall-train --help)");
    }
    return STATUS_USAGE;
}
