/*
 * train/report_findings.h: what somebody who reads a report should look at, found by rule.
 *
 * Each rule looks at one thing that often goes wrong and says what was seen and what to do about it. Rules are silent
 * about members that a report does not have.
 */
#ifndef TRAIN_REPORT_FINDINGS_H
#define TRAIN_REPORT_FINDINGS_H

#include "core/buf.h"
#include "train/report_view.h"

/* Appends one <li> a finding, the serious ones (class "serious") before the others (class "watch"); returns how many. */
size_t report_findings(struct buf *out, const struct report_view *v);

#endif
