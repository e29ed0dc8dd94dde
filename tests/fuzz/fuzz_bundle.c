/* libFuzzer entry for the manifest: its fingerprint, and the schema in it, which must survive writing and reading. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/bundle.h"
#include "core/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* Whatever the text: an error or a fingerprint, and the same one again. */
static void check_fingerprint(const char *text, size_t n)
{
    char hex[FILE_SHA256_HEX];
    char again[FILE_SHA256_HEX];
    struct err e = ERR_INIT;
    int result = manifest_fingerprint(text, n, hex, &e);
    check((result == 0) == !err_isset(&e));
    if (result == 0) {
        check(manifest_fingerprint(text, n, again, &e) == 0 && strcmp(hex, again) == 0);
    }
}

static void check_schema(const json_t *json)
{
    struct schema s, t;
    struct err e = ERR_INIT;
    int result = schema_from_json(&s, json, &e);
    check((result == 0) == !err_isset(&e));
    if (result < 0) {
        check(s.towers[SIDE_USER].features == NULL && s.towers[SIDE_ITEM].features == NULL);
        return;
    }
    json_t *first = schema_to_json(&s);
    check(first != NULL && schema_from_json(&t, first, &e) == 0);
    json_t *second = schema_to_json(&t);
    check(json_equal(first, second));
    schema_finish(&t, &e);
    json_decref(first);
    json_decref(second);
    schema_release(&s);
    schema_release(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size > 0 ? size : 1); /* never '\0'-terminated: the fingerprint must not need it */
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, size);
    check_fingerprint(text, size);
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    if (json != NULL) {
        check_schema(json);
        check_schema(json_object_get(json, "schema"));
    }
    json_decref(json);
    free(text);
    return 0;
}
