/*
 * train/report_file.h: reports as files: the JSON and, beside it, its page.
 *
 * Every bundle carries both, report.json and report.html, as files that its manifest does not list: they say which version
 * they belong to and how long things took, and neither may change what the model is called or is checked by.
 */
#ifndef TRAIN_REPORT_FILE_H
#define TRAIN_REPORT_FILE_H

#include <jansson.h>

#include "core/err.h"
#include "train/bundle_writer.h"

/* Reads a report: a JSON file, or of a bundle's directory its report.json, or without one its manifest. New, or NULL. */
json_t *report_read(const char *path, struct err *e);

/* A report as text for people: indented, but very long members on one line. A new string (mem_free), or NULL. */
char *report_text(const json_t *report, struct err *e);

/* Writes a report, and its page beside it: FILE.html for FILE.json, else the path with .html. "-": stdout, no page. */
int report_write(const char *path, const json_t *report, struct err *e);

/* Puts a report into a sealed bundle: sets "bundle", "model" and "created" (those of the manifest), and writes it with its
 * page. */
int report_note(struct bundle_writer *w, const json_t *manifest, json_t *report, struct err *e);

#endif
