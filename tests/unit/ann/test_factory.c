/* Factory strings, before faiss sees them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ann/factory.h"

static void accepted(void **state)
{
    (void)state;
    static const char *const good[] = {
        "HNSW32",
        "HNSW",
        "HNSW2,Flat",
        "HNSW512",
        "Flat",
        "IVF1000,Flat",
        "IVF64_HNSW32,PQ8x4fsr",
        "OPQ8_64,IVF64,PQ8",
        "PCAR32,IVF64,SQ8",
        "SQfp16",
        "IVF64,PQ8,RFlat",
        "IVF64(HNSW8),Flat",
        "IVF64,ITQ,SH1.0g",
        "RQ4x8_2x10_Nqint8",
        "IVF64,PQ8+16",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct err e = ERR_INIT;
        assert_int_equal(factory_check(good[i], 1000, &e), 0);
    }
}

static void refused(void **state)
{
    (void)state;
    static char longest[FACTORY_MAX + 1];
    memset(longest, 'a', FACTORY_MAX);
    static const char *const bad[][2] = {
        {"HNSW0", "position 5"},
        {"HNSW1", "2 to 512"},
        {"HNSW513", "2 to 512"},
        {"IVF64_HNSW1,Flat", "2 to 512"},
        {"IVF0,Flat", "position 4"},
        {"PQ00", "position 3"},
        {"IVF99999999999999999999,Flat", "position 4"},
        {"IVF1001,Flat", "39"},
        {"OPQ8,IVF1001,PQ8", "39039"},
        {"IVF64,Flat;rm", "position 11"},
        {"IVF64 Flat", "position 6"},
        {"IVF64(Index7),Flat", "Index"},
        {"IDMap,Flat", "IDMap"},
        {longest, "255"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = ERR_INIT;
        assert_int_equal(factory_check(bad[i][0], 1000, &e), -1);
        assert_non_null(strstr(e.message, bad[i][1]));
    }
}

static void classified(void **state)
{
    (void)state;
    assert_true(factory_is_graph("HNSW32"));
    assert_true(factory_is_graph("HNSW"));
    assert_true(factory_is_graph("HNSW16,Flat"));
    assert_false(factory_is_graph("HNSW32_SQ8"));
    assert_false(factory_is_graph("PCA32,HNSW32"));
    assert_false(factory_is_graph("HNSW32,Flat,RFlat"));
    assert_false(factory_is_lossy("Flat"));
    assert_false(factory_is_lossy("IVF64_HNSW8,Flat"));
    assert_true(factory_is_lossy("PCA32,IVF64,Flat"));
    assert_true(factory_is_lossy("IVF64,PQ8"));
    assert_int_equal(factory_lists("OPQ8,IVF64_HNSW32,PQ8"), 64);
    assert_int_equal(factory_lists("HNSW32"), 0);
}

static void polysemous_training_is_left_out(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"PQ8", "PQ8np"},
        {"PQ8x10", "PQ8x10np"},
        {"PQ8np", "PQ8np"},
        {"IVF64,PQ16", "IVF64,PQ16np"},
        {"OPQ8,IVF64,PQ8", "OPQ8,IVF64,PQ8np"},
        {"OPQ8_32,PQ8,RFlat", "OPQ8_32,PQ8np,RFlat"},
        {"HNSW32_PQ8", "HNSW32_PQ8np"},
        {"SQ8,Refine(PQ8)", "SQ8,Refine(PQ8np)"},
        {"PQ16x4fs", "PQ16x4fs"},
        {"IVF64,PQ8+16", "IVF64,PQ8+16"},
        {"HNSW32", "HNSW32"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[FACTORY_MAX];
        struct err e = ERR_INIT;
        assert_int_equal(factory_for_faiss(out, cases[i][0], &e), 0);
        assert_string_equal(out, cases[i][1]);
    }
    char full[FACTORY_MAX];
    char out[FACTORY_MAX];
    struct err e = ERR_INIT;
    memset(full, 'a', sizeof full);
    memcpy(full + FACTORY_MAX - 5, ",PQ8", 5);
    assert_int_equal(factory_for_faiss(out, full, &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted),
        cmocka_unit_test(refused),
        cmocka_unit_test(classified),
        cmocka_unit_test(polysemous_training_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
