#include "server/access.h"

#include <string.h>
#include <strings.h>

#include "server/http.h"
#include "server/problem.h"
#include "server/settings.h"
#include "server/tokens.h"

/* What stands behind "Bearer ", or NULL. */
static const char *bearer_token(struct http_request *request)
{
    static const char scheme[] = "Bearer ";
    const char *value = http_header(request, "Authorization");
    if (!value || strncasecmp(value, scheme, sizeof scheme - 1) != 0) {
        return NULL;
    }
    value += sizeof scheme - 1;
    return value + strspn(value, " ");
}

bool access_allow(const struct settings *s, struct http_request *request, bool admin_path)
{
    if (!(admin_path ? s->admin_tokens : s->tokens)) {
        return true;
    }
    const char *token = bearer_token(request);
    size_t n = token ? strlen(token) : 0;
    bool is_admin = token && s->admin_tokens && tokens_have(s->admin_tokens, token, n);
    bool is_public = token && s->tokens && tokens_have(s->tokens, token, n);
    if (is_admin || (is_public && !admin_path)) {
        return true;
    }
    if (is_public) {
        problem_send(request, PROBLEM_FORBIDDEN, NULL, "this path needs one of the admin tokens");
    } else if (!token) {
        http_add_header(request, "WWW-Authenticate", "Bearer realm=\"recalld\"");
        problem_send(request, PROBLEM_UNAUTHORIZED, NULL, "this path needs a header Authorization: Bearer TOKEN");
    } else {
        http_add_header(request, "WWW-Authenticate", "Bearer realm=\"recalld\", error=\"invalid_token\"");
        problem_send(request, PROBLEM_UNAUTHORIZED, NULL,
                     "the token is not, or not any more, one of those accepted here");
    }
    return false;
}
