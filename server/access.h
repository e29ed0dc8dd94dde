/*
 * server/access.h: who may ask for what. Runs on the worker's thread.
 *
 * Without tokens in the settings everybody may. With `tokens`, the public paths need one of those or of admin.tokens; with
 * `admin.tokens`, the admin paths need one of these. Health checks need none.
 */
#ifndef SERVER_ACCESS_H
#define SERVER_ACCESS_H

#include <stdbool.h>

struct http_request;
struct settings;

/* Is it allowed? If not, the request has been answered: 401, or 403 to a token that is good for other paths. */
bool access_allow(const struct settings *s, struct http_request *request, bool admin_path);

#endif
