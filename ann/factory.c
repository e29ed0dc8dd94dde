#include "ann/factory.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 1 << 24, LINKS_MIN = 2, LINKS_MAX = 512, TRAIN_PER_LIST = 39 };

static bool is_digit(char c)
{
    return isdigit((unsigned char)c) != 0;
}

/* Whether a part may start at `at`: the beginning, or behind , ( or _ */
static bool part_starts(const char *factory, const char *at)
{
    return at == factory || strchr(",(_", at[-1]) != NULL;
}

/* The next part that is `prefix` and a number, from `at` on; *number is that number. NULL: none. */
static const char *part_find(const char *factory, const char *at, const char *prefix, size_t *number)
{
    size_t length = strlen(prefix);
    for (at = strstr(at, prefix); at != NULL; at = strstr(at + 1, prefix)) {
        if (part_starts(factory, at) && is_digit(at[length])) {
            *number = strtoul(at + length, NULL, 10);
            return at;
        }
    }
    return NULL;
}

bool factory_is_graph(const char *factory)
{
    if (strncmp(factory, "HNSW", 4) != 0) {
        return false;
    }
    const char *rest = factory + 4 + strspn(factory + 4, "0123456789");
    return *rest == '\0' || strcmp(rest, ",Flat") == 0;
}

bool factory_is_lossy(const char *factory)
{
    const char *comma = strchr(factory, ',');
    bool flat_lists = strncmp(factory, "IVF", 3) == 0 && comma != NULL && strcmp(comma, ",Flat") == 0;
    return !flat_lists && strcmp(factory, "Flat") != 0;
}

size_t factory_lists(const char *factory)
{
    size_t lists = 0;
    part_find(factory, factory, "IVF", &lists);
    return lists;
}

static int check_characters(const char *factory, struct err *e)
{
    if (strlen(factory) >= FACTORY_MAX) {
        return err_set(e, "faiss: factory string longer than %d characters", FACTORY_MAX - 1);
    }
    for (const char *at = factory; *at != '\0'; at++) {
        if (!isalnum((unsigned char)*at) && strchr("_,+-.()", *at) == NULL) {
            return err_set(e, "faiss: factory \"%s\": unexpected character at position %td", factory, at - factory + 1);
        }
        if (!is_digit(*at) || (at > factory && (is_digit(at[-1]) || at[-1] == '.'))) {
            continue;
        }
        size_t number = strtoul(at, NULL, 10);
        if (number == 0 || number > NUMBER_MAX) {
            return err_set(e, "faiss: factory \"%s\": the number at position %td must be 1 to %d", factory,
                           at - factory + 1, NUMBER_MAX);
        }
    }
    return 0;
}

static int check_links(const char *factory, struct err *e)
{
    size_t links;
    for (const char *at = factory; (at = part_find(factory, at, "HNSW", &links)) != NULL; at++) {
        if (links < LINKS_MIN || links > LINKS_MAX) {
            return err_set(e, "faiss: factory \"%s\": HNSW takes %d to %d links", factory, LINKS_MIN, LINKS_MAX);
        }
    }
    return 0;
}

int factory_check(const char *factory, size_t n, struct err *e)
{
    if (check_characters(factory, e) != 0 || check_links(factory, e) != 0) {
        return -1;
    }
    if (strstr(factory, "(Index") != NULL || strstr(factory, "IDMap") != NULL) {
        return err_set(e, "faiss: factory \"%s\": leave out IDMap and (Index...): rows are numbered here", factory);
    }
    size_t lists = factory_lists(factory);
    if (lists > n) {
        return err_set(e,
                       "faiss: factory \"%s\": %zu lists need at least %zu training vectors (%d each), but there are "
                       "%zu; use IVF%zu or fewer, or HNSW32, which needs no training",
                       factory, lists, lists * TRAIN_PER_LIST, TRAIN_PER_LIST, n,
                       n / TRAIN_PER_LIST > 0 ? n / TRAIN_PER_LIST : 1);
    }
    return 0;
}

/* The end of a PQ<m> or PQ<m>x<bits> that starts at `at` and trains polysemous codes by default; NULL: another part. */
static const char *polysemous_end(const char *factory, const char *at)
{
    if (!part_starts(factory, at) || strncmp(at, "PQ", 2) != 0 || !is_digit(at[2])) {
        return NULL;
    }
    at += 2 + strspn(at + 2, "0123456789");
    if (at[0] == 'x' && is_digit(at[1])) {
        at += 1 + strspn(at + 1, "0123456789");
    }
    return *at == '\0' || *at == ',' || *at == ')' ? at : NULL;
}

int factory_for_faiss(char out[FACTORY_MAX], const char *factory, struct err *e)
{
    size_t n = 0;
    const char *np = NULL; /* where "np" belongs */
    for (const char *at = factory;; at++) {
        const char *end = polysemous_end(factory, at);
        np = end != NULL ? end : np;
        if (n + 3 >= FACTORY_MAX) {
            return err_set(e, "faiss: factory string longer than %d characters", FACTORY_MAX - 1);
        }
        if (at == np) {
            out[n++] = 'n';
            out[n++] = 'p';
        }
        out[n++] = *at;
        if (*at == '\0') {
            return 0;
        }
    }
}
