/*
 * train/report_view.h: a JSON report, read by somebody who trusts nothing in it: members may be absent (an older report,
 * one of eval), of another type, or not finite. What is not there is NaN, NULL or "".
 */
#ifndef TRAIN_REPORT_VIEW_H
#define TRAIN_REPORT_VIEW_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/buf.h"

enum { REPORT_MAX_CONTENDERS = 8, REPORT_MAX_CUTOFFS = 16, REPORT_METRIC = 40 };

/* The model (the first) or a baseline. */
struct contender {
    const char *key;            /* as in the JSON; "model" */
    char name[64];              /* for people, as a label; of unknown keys a cut copy */
    char phrase[64];            /* in a sentence */
    const json_t *metrics, *ci; /* ci: {"recall@20": [low, high]}; may be NULL */
    const json_t *bias;         /* of popularity_bias; may be NULL */
};

struct report_view {
    const json_t *json;
    struct contender contenders[REPORT_MAX_CONTENDERS];
    size_t n_contenders; /* 0: nothing was evaluated */
    unsigned cutoffs[REPORT_MAX_CUTOFFS];
    size_t n_cutoffs;
    unsigned k; /* the cut-off to speak of: 20 if it is there */
};

/* Borrows the report. */
void report_view_init(struct report_view *v, const json_t *report);

double json_number_at(const json_t *object, const char *key);                /* NaN: no such number */
const char *json_text_at(const json_t *object, const char *key);             /* "": no such text */
bool json_interval_at(const json_t *object, const char *key, double out[2]); /* [low, high]; else two NaN and false */

/* A contender's value of `metric` at v->k ("recall" -> recall@20; "mrr" has no cut-off), and its interval. */
double contender_value(const struct report_view *v, const struct contender *c, const char *metric);
bool contender_interval(const struct report_view *v, const struct contender *c, const char *metric, double out[2]);

/* The baseline with the highest recall at v->k, or NULL without any. */
const struct contender *report_best_baseline(const struct report_view *v);

/* What a slice is called in a sentence: "new users", "popularity group 3", "occupation doctor"; escaped. */
void put_slice_phrase(struct buf *out, const json_t *slice);

/* Escaped text of a JSON string or a literal, at most 60 characters. */
void put_escaped(struct buf *out, const char *text);

/* "12 seconds", "3.4 seconds", "2 h 5 min" */
void put_seconds(struct buf *out, double seconds);

/* "27.3 %", with one digit, two below 1 %. */
void put_percent(struct buf *out, double share);

#endif
