/*
 * train/report.h: the page that a team passes around: one HTML file, complete in itself: no script, and nothing that is
 * fetched from anywhere (a Content-Security-Policy in it forbids both).
 *
 * The page is a pure function of the JSON report (docs/training.md lists the members), which is the one source of truth:
 * what is absent there is absent here, so that reports of `eval` and of older versions can be drawn, too. Every text of
 * the report is escaped, wherever it comes from. A page stays below a megabyte whatever the size of the data.
 */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include <jansson.h>

#include "core/buf.h"
#include "core/err.h"

/* Appends the page of a report; -1 without memory. */
int report_page(const json_t *report, struct buf *out, struct err *e);

/* The frame of every page: head, title and the name of what it is about (escaped, as a label), style; and its end. */
void page_begin(struct buf *out, const char *title, const char *name);
void page_end(struct buf *out);

/* The style sheet (report_style.c). */
extern const char report_style[];

#endif
