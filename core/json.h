/*
 * core/json.h: reading JSON when memory is short.
 *
 * jansson's lexer does not look whether its buffer could grow: without memory it drops characters. Then it gives a number or
 * a string that is not the one in the text, looks for a closing quote beyond its buffer, or ends the process by an assertion.
 * So here a failed allocation ends the parse where it happens, and what the parse had allocated until then is freed.
 */
#ifndef CORE_JSON_H
#define CORE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Puts the guard between jansson and its allocator. Once, before there are threads; without it json_parse is json_loadb. */
void json_guard_memory(void);

/* json_loadb, and whether it failed for want of memory, and not because of the text. */
json_t *json_parse(const char *text, size_t n, size_t flags, json_error_t *error, bool *no_memory);

#endif
