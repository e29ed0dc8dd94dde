/*
 * train/report_sections.h: the parts of the page, in its order. Each appends one <section> about members of the report,
 * or nothing when they are not there. Whatever it says is computed from the report alone.
 */
#ifndef TRAIN_REPORT_SECTIONS_H
#define TRAIN_REPORT_SECTIONS_H

#include "core/buf.h"
#include "train/report_view.h"

struct report_section {
    const char *id, *title;
    void (*put)(struct buf *out, const struct report_view *v); /* its contents; nothing when there is nothing to show */
};
extern const struct report_section report_sections[]; /* ends with an id of NULL */

#endif
