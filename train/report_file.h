/*
 * train/report_file.h: reports as files: the JSON and, beside it, its page.
 */
#ifndef TRAIN_REPORT_FILE_H
#define TRAIN_REPORT_FILE_H

#include <jansson.h>

#include "core/err.h"

/* Reads a report: a JSON file, or of a bundle's directory its manifest. New, or NULL. */
json_t *report_read(const char *path, struct err *e);

/* Writes a report, and its page beside it: FILE.html for FILE.json, else the path with .html. "-": stdout, no page. */
int report_write(const char *path, const json_t *report, struct err *e);

#endif
