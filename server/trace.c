#include "server/trace.h"

#include <string.h>
#include <sys/random.h>

/* 00-<trace id>-<parent id>-<flags> */
enum { ID_AT = 3, PARENT_AT = 36, PARENT_ID_LEN = 16, FLAGS_AT = 53 };

int trace_random_init(struct rng *random)
{
    return getrandom(random->state, sizeof random->state, 0) == (ssize_t)sizeof random->state ? 0 : -1;
}

static bool is_hex(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f'))) {
            return false;
        }
    }
    return true;
}

static bool is_zero(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && text[i] == '0') {
        i++;
    }
    return i == n;
}

bool trace_is_valid(const char *text, size_t n)
{
    if (n < TRACE_PARENT_LEN || text[2] != '-' || text[PARENT_AT - 1] != '-' || text[FLAGS_AT - 1] != '-' ||
        !is_hex(text, 2) || !is_hex(text + ID_AT, TRACE_ID_LEN) || !is_hex(text + PARENT_AT, PARENT_ID_LEN) ||
        !is_hex(text + FLAGS_AT, 2)) {
        return false;
    }
    if (is_zero(text + ID_AT, TRACE_ID_LEN) || is_zero(text + PARENT_AT, PARENT_ID_LEN) || memcmp(text, "ff", 2) == 0) {
        return false;
    }
    return n == TRACE_PARENT_LEN || (!is_zero(text, 2) && text[TRACE_PARENT_LEN] == '-');
}

static void put_hex(char *at, uint64_t value)
{
    for (int i = 15; i >= 0; i--) {
        at[i] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

void trace_begin(struct trace *trace, struct rng *random, const char *text, size_t n)
{
    bool theirs = trace_is_valid(text, n);
    uint64_t ours = rng_u64(random);
    memcpy(trace->parent, "00-", 3);
    if (theirs) {
        memcpy(trace->parent + ID_AT, text + ID_AT, TRACE_ID_LEN);
    } else {
        put_hex(trace->parent + ID_AT, rng_u64(random));
        put_hex(trace->parent + ID_AT + 16, rng_u64(random) | 1); /* never all zero */
    }
    trace->parent[PARENT_AT - 1] = '-';
    put_hex(trace->parent + PARENT_AT, ours | UINT64_C(1) << 63);
    memcpy(trace->parent + FLAGS_AT - 1, "-00", 4);
    if (theirs && strchr("13579bdf", text[FLAGS_AT + 1])) { /* "sampled", the one flag that version 00 has */
        trace->parent[FLAGS_AT + 1] = '1';
    }
    memcpy(trace->id, trace->parent + ID_AT, TRACE_ID_LEN);
    trace->id[TRACE_ID_LEN] = '\0';
    trace->chance = (uint32_t)ours;
}
