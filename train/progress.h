/*
 * train/progress.h: how far a long piece of work is: a bar with rate and time left when stderr is a terminal, otherwise
 * a plain line now and then (at most one in ten seconds), so that logs stay readable. Not thread-safe.
 */
#ifndef TRAIN_PROGRESS_H
#define TRAIN_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

struct progress {
    const char *label; /* borrowed */
    const char *unit;  /* e.g. "examples", borrowed */
    double total;
    double skipped;             /* of the total: done before this run, no part of the rate; 0 after progress_begin */
    double started, last_shown; /* seconds, monotonic */
    bool terminal, drawn;
};

void progress_begin(struct progress *p, const char *label, const char *unit, double total);
void progress_update(struct progress *p, double done);
void progress_end(struct progress *p); /* removes the bar */

#endif
