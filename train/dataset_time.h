/*
 * train/dataset_time.h: the time column: when something happened, as microseconds.
 */
#ifndef TRAIN_DATASET_TIME_H
#define TRAIN_DATASET_TIME_H

#include <stddef.h>
#include <stdint.h>

/* A plain number of seconds ("881250949", "1.5", "8.8e8"; any origin, digits behind the sixth decimal are cut) times
 * 10^6, or an ISO 8601 date or date and time in microseconds since 1970-01-01 UTC: "2026-11-24", "2026-11-24T13:30",
 * "2026-11-24 13:30:09.25Z", "2026-11-24T13:30:09+02:00" (also "+0200", "+02"; without an offset: UTC).
 * NULL for success, else why it is none (a static text). */
const char *time_parse(const char *text, size_t length, int64_t *microseconds);

#endif
