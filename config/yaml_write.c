/*
 * A tree as YAML text: mappings in block style, everything inside a list on one line. A scalar keeps whether it had
 * quotes, because that decides what it is (5 or "5").
 */
#include <stdint.h>
#include <string.h>

#include "config/yaml.h"

/* True for texts that mean the same without quotes in every place we write them. */
static bool is_safe_plain(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-@";
    size_t n = strlen(text);
    if (n == 0 || strspn(text, letters) != n || text[0] == '@' || strcmp(text, "null") == 0) {
        return false;
    }
    return text[0] != '-' || text[1] == '.' || (text[1] >= '0' && text[1] <= '9');
}

/* The code point of the sequence at *s (valid UTF-8), which is moved behind it. */
static uint32_t next_code_point(const unsigned char **s)
{
    const unsigned char *p = *s;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    uint32_t c = n == 1 ? p[0] : p[0] & (0x7fU >> n);
    for (size_t i = 1; i < n && p[i] != '\0'; i++) {
        c = c << 6 | (p[i] & 0x3fU);
    }
    for (size_t i = 0; i < n && **s != '\0'; i++) {
        (*s)++;
    }
    return c;
}

/* Double-quoted; what YAML takes for a line break, or does not allow, is escaped. */
static void write_quoted(const char *text, struct buf *out)
{
    buf_puts(out, "\"");
    const unsigned char *s = (const unsigned char *)text;
    while (*s != '\0') {
        const unsigned char *start = s;
        uint32_t c = next_code_point(&s);
        bool unprintable = c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff ||
                           c == 0xfffe || c == 0xffff;
        if (c == '"' || c == '\\') {
            buf_printf(out, "\\%c", (int)c);
        } else if (unprintable) {
            buf_printf(out, "\\u%04X", c);
        } else {
            buf_add(out, start, (size_t)(s - start));
        }
    }
    buf_puts(out, "\"");
}

void yaml_write_text(const char *text, bool plain, struct buf *out)
{
    if (plain && is_safe_plain(text)) {
        buf_puts(out, text);
    } else {
        write_quoted(text, out);
    }
}

/* On one line, in braces or brackets. */
static void write_flow(const struct node *node, struct buf *out) /* NOLINT(misc-no-recursion) */
{
    if (node->kind == NODE_SCALAR) {
        if (node_is_null(node)) {
            buf_puts(out, "null");
        } else {
            yaml_write_text(node->text, node->plain, out);
        }
        return;
    }
    buf_puts(out, node->kind == NODE_MAP ? "{" : "[");
    for (const struct node *child = node->first; child != NULL; child = child->next) {
        if (child != node->first) {
            buf_puts(out, ", ");
        }
        if (node->kind == NODE_MAP) {
            yaml_write_text(child->key, true, out);
            buf_puts(out, ": ");
        }
        write_flow(child, out);
    }
    buf_puts(out, node->kind == NODE_MAP ? "}" : "]");
}

static bool has_collections(const struct node *list)
{
    const struct node *child = list->first;
    while (child != NULL && child->kind == NODE_SCALAR) {
        child = child->next;
    }
    return child != NULL;
}

static void write_map(const struct node *map, int indent, struct buf *out) /* NOLINT(misc-no-recursion) */
{
    for (const struct node *child = map->first; child != NULL; child = child->next) {
        buf_printf(out, "%*s", indent, "");
        yaml_write_text(child->key, true, out);
        buf_puts(out, ":");
        if (child->kind == NODE_MAP && child->count > 0) {
            buf_puts(out, "\n");
            write_map(child, indent + 2, out);
        } else if (child->kind == NODE_LIST && has_collections(child)) {
            buf_puts(out, "\n");
            for (const struct node *element = child->first; element != NULL; element = element->next) {
                buf_printf(out, "%*s- ", indent + 2, "");
                write_flow(element, out);
                buf_puts(out, "\n");
            }
        } else {
            buf_puts(out, " ");
            write_flow(child, out);
            buf_puts(out, "\n");
        }
    }
}

void yaml_write(const struct node *root, struct buf *out)
{
    if (root->count == 0) {
        buf_puts(out, "{}\n");
    } else {
        write_map(root, 0, out);
    }
}
