/*
 * train/report_file.h: reports as files: the JSON and, beside it, its page.
 */
#ifndef TRAIN_REPORT_FILE_H
#define TRAIN_REPORT_FILE_H

#include <jansson.h>

#include "core/buf.h"
#include "core/err.h"

/* Reads a report: a JSON file, or of a bundle's directory its manifest. New, or NULL. */
json_t *report_read(const char *path, struct err *e);

/* Writes a report, and its page beside it: FILE.html for FILE.json, else the path with .html. "-": stdout, no page. */
int report_write(const char *path, const json_t *report, struct err *e);

/* The same of a record whose page is drawn by another function. */
typedef int page_writer(const json_t *record, struct buf *out, struct err *e);
int record_write(const char *path, const json_t *record, page_writer *draw, struct err *e);

#endif
