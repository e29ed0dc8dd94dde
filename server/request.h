/*
 * server/request.h: from a request's JSON body to a checked query.
 *
 * Strict throughout: a member that is not known, a type that does not fit, a number out of bounds is a fault with the
 * JSON pointer of what is wrong. Nothing is guessed, nothing is ignored but ids in `exclude` that the model does not have.
 * Functions return 0, or -1 with the fault set. docs/http.md describes the members.
 */
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/serve_config.h"
#include "core/bundle.h"
#include "core/features.h"
#include "server/problem.h"
#include "server/snapshot.h"

enum { REQUEST_DEFAULT_K = 100, REQUEST_MAX_DEPTH = 16, FAULT_POINTER_MAX = 512, FAULT_DETAIL_MAX = 1024 };

struct fault {
    enum problem_type type;
    char pointer[FAULT_POINTER_MAX]; /* "" when no single field is to blame */
    char detail[FAULT_DETAIL_MAX];
};

/* Records a fault; returns -1. `pointer` is used as it is. */
int fault_set(struct fault *f, enum problem_type type, const char *pointer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Answers with the fault as a problem document. */
void fault_send(const struct fault *f, struct http_request *request);

/* Appends "/" and `name`, escaped by RFC 6901, to a pointer of FAULT_POINTER_MAX bytes; leaves it when there is no room. */
void pointer_append(char pointer[FAULT_POINTER_MAX], const char *name);

/* What a user's answer comes from. */
enum user_source {
    SOURCE_NONE,    /* there is no user: /similar */
    SOURCE_TOWER,   /* the user tower, of what the request says */
    SOURCE_PROFILE, /* the same, and of what the bundle knows besides */
    SOURCE_POPULAR  /* the items with the most events: nothing is known of the user */
};
extern const char *const user_source_words[];

/* What /recall (each element of a batch), /similar and /score ask for. JSON values are borrowed from the body. */
struct query {
    const json_t *subject; /* the member `user` or `item` */
    const json_t *exclude; /* an array of strings and integers, checked; NULL: none */
    const json_t *filter;  /* an object, checked; NULL: none */
    const json_t *max_per; /* likewise */
    const json_t *items;   /* of /score: an array as exclude */
    size_t k;
    size_t effort;   /* 0: the index's default */
    float min_score; /* -INFINITY: no floor */
    bool exact;
    bool degraded;   /* the effort is less than the default, because others wait */
    uint64_t fields; /* bit i: attribute i of the bundle is asked for */
    enum user_source source;
    uint64_t defaulted; /* bit i: nothing is known of the user's feature i */
};

/* The body as a JSON object, a new reference, or NULL: depth first, then syntax, duplicates, type. */
json_t *request_parse(const char *body, size_t n, struct fault *f);

/* request_parse for a request that computes: its member `timeout_ms`, or what is configured, becomes the request's deadline. The
 * member is taken out. */
json_t *request_open(const struct serve_config *config, struct http_request *request, struct fault *f);

/* What requests are checked against. */
struct request_rules {
    const struct serve_config *config;
    const struct bundle *bundle;
    const struct catalog *catalog; /* of this bundle */
};

/* Reads a query from an object whose JSON pointer is `at` ("" or "/requests/3"). `subject` names the one member that is
 * required: "user" or "item"; its value is not looked into. */
int request_read_query(const struct request_rules *rules, const json_t *object, const char *at, const char *subject,
                       struct query *q, struct fault *f);

/* Reads a query of /score, which has a user and items. */
int request_read_score(const struct request_rules *rules, const json_t *object, struct query *q, struct fault *f);

/* Appends a query's user as one row; q->source becomes what that came from, and q->defaulted what was not known. `at` is the pointer of the query's object. */
int request_add_user(const struct request_rules *rules, struct feature_rows *rows, struct value_scratch *scratch,
                     struct query *q, const char *at, struct fault *f);

/* Appends a user's or item's features as one row. `at` is the pointer of `features`. What they do not say of a user comes from the
 * user's profile, if the bundle has one. */
int request_add_features(const struct request_rules *rules, struct feature_rows *rows, struct value_scratch *scratch,
                         const json_t *features, const char *at, struct fault *f);

/* The text of an id that is a string or an integer, borrowed or in `room`; NULL when it is neither. */
enum { INTEGER_ID_MAX = 24 };
struct span request_id(const json_t *id, char room[INTEGER_ID_MAX]);

/* The row of an item named by a string or an integer; -1 when there is none or it is neither. */
int64_t request_find_item(const struct snapshot *s, const json_t *id);

/* The excluded rows, ascending and unique, in rows [json_array_size(exclude) + 1]; `self` >= 0 is excluded, too, or what replaced
 * it. Ids that no item has are left out. Returns how many. */
size_t request_exclude_rows(const struct snapshot *s, const json_t *exclude, int64_t self, uint32_t *rows);

#endif
