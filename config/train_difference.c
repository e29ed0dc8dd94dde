#include "config/train_difference.h"

#include <stdio.h>
#include <string.h>

#include "config/param.h"
#include "config/yaml.h"

struct comparison {
    char *what;
    size_t size;
};

static bool has_no_part(const char *path)
{
    static const char *const keys[] = {"output", "index", "checkpoint", "threads"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(path, keys[i]) == 0) {
            return true;
        }
    }
    return false;
}

static struct quote shown(const struct node *node)
{
    struct quote q = {"not given"};
    if (node != NULL && node->kind == NODE_SCALAR) {
        q = problem_quote(node->text);
    } else if (node != NULL) {
        snprintf(q.text, sizeof q.text, "%s", node_kind_word(node));
    }
    return q;
}

static bool differs(const struct comparison *c, const struct node *now, const struct node *then, const char *path);

/* Members of one that the other lacks or has otherwise. */
static bool maps_differ(const struct comparison *c, const struct node *now, const struct node *then, const char *path)
{
    for (const struct node *m = now->first; m != NULL; m = m->next) {
        struct key_path key = key_join(path, m->key);
        if (!has_no_part(key.text) && differs(c, m, node_find(then, m->key), key.text)) {
            return true;
        }
    }
    for (const struct node *m = then->first; m != NULL; m = m->next) {
        struct key_path key = key_join(path, m->key);
        if (!has_no_part(key.text) && node_find(now, m->key) == NULL) {
            return differs(c, NULL, m, key.text);
        }
    }
    return false;
}

static bool lists_differ(const struct comparison *c, const struct node *now, const struct node *then, const char *path)
{
    const struct node *a = now->first;
    const struct node *b = then->first;
    for (size_t i = 0; a != NULL || b != NULL; i++) {
        if (differs(c, a, b, key_element(path, i, "").text)) {
            return true;
        }
        a = a->next;
        b = b->next;
    }
    return false;
}

static bool differs(const struct comparison *c, const struct node *now, const struct node *then, const char *path)
{
    if (now != NULL && then != NULL && now->kind == then->kind) {
        switch (now->kind) {
        case NODE_MAP:
            return maps_differ(c, now, then, path);
        case NODE_LIST:
            return lists_differ(c, now, then, path);
        default:
            if (strcmp(now->text, then->text) == 0) {
                return false;
            }
        }
    }
    snprintf(c->what, c->size, "%s is %s, and was %s", path, shown(now).text, shown(then).text);
    return true;
}

bool train_config_differs(const char *now, const char *then, char *what, size_t size)
{
    const struct comparison c = {what, size};
    struct buf text = BUF_INIT;
    struct problems problems = {.out = &text};
    struct node *a = yaml_parse(now, strlen(now), &problems);
    struct node *b = yaml_parse(then, strlen(then), &problems);
    bool result = true;
    snprintf(what, size, "the configuration cannot be compared");
    if (a != NULL && b != NULL) {
        result = differs(&c, a, b, "");
    }
    node_free(a);
    node_free(b);
    buf_release(&text);
    return result;
}
