/*
 * train/command.h: the subcommands of recall-train. Each is one file, cmd_<name>.c, and one row of the table in main.c.
 *
 * A command gets its own argv (argv[0] is its name), prints results on stdout and everything else on stderr, and returns
 * the exit status: 0 done, 1 failed (after one clear line), 2 usage.
 */
#ifndef TRAIN_COMMAND_H
#define TRAIN_COMMAND_H

#include <jansson.h>
#include <stdbool.h>

#include "core/err.h"

enum { STATUS_DONE, STATUS_FAILED, STATUS_USAGE };

int cmd_fit(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_index(int argc, char **argv);
int cmd_ann_bench(int argc, char **argv);
int cmd_embed(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_publish(int argc, char **argv);
int cmd_synth(int argc, char **argv);

/* Prints the error in one line; returns STATUS_FAILED. */
int command_failed(const struct err *e);

/* Prints "recall-train <command>: <message>" and where to find help; returns STATUS_USAGE. */
int command_usage(const char *command, const char *message, ...) __attribute__((format(printf, 2, 3)));

/* What getopt_long did not take (optstring ":..."): c is what it returned. Returns STATUS_USAGE. */
int command_bad_option(const char *command, int c, char **argv);

/* The number of processors this process may use. */
unsigned count_processors(void);

/* A whole number argument in [min, max]; -1 and a usage message otherwise. */
int parse_count(const char *command, const char *option, const char *text, unsigned long long min,
                unsigned long long max, unsigned long long *value);

/* Fails where a report could not be written, before the work that it is about. NULL and "-" are fine. */
int check_report(const char *path, struct err *e);

/* Writes a record as JSON; "-" is stdout. (Reports with a page: train/report_file.h.) */
int write_json(const char *path, const json_t *record, struct err *e);

#endif
