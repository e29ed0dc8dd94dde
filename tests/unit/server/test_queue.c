/* A bounded line of requests, and how far effort falls while they wait. No clock: times are what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "server/http.h"
#include "server/queue.h"

enum { MOST = 8, PATIENCE = 1000 };

static void fill(struct queue *q, struct http_request *requests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_true(queue_push(q, &requests[i]));
    }
}

static void test_first_in_first_out(void **state)
{
    (void)state;
    struct http_request requests[MOST] = {0};
    struct queue q;
    queue_init(&q, MOST);
    assert_null(queue_pop(&q));
    for (int round = 0; round < 3; round++) { /* empty again in between */
        fill(&q, requests, 3);
        assert_ptr_equal(queue_pop(&q), &requests[0]);
        assert_true(queue_push(&q, &requests[0]));
        assert_ptr_equal(queue_pop(&q), &requests[1]);
        assert_ptr_equal(queue_pop(&q), &requests[2]);
        assert_ptr_equal(queue_pop(&q), &requests[0]);
        assert_null(queue_pop(&q));
        assert_int_equal(q.n, 0);
    }
}

static void test_a_full_one_takes_no_more(void **state)
{
    (void)state;
    struct http_request requests[MOST + 1] = {0};
    struct queue q;
    queue_init(&q, MOST);
    fill(&q, requests, MOST);
    assert_true(queue_is_full(&q));
    assert_false(queue_push(&q, &requests[MOST]));
    assert_int_equal(q.n, MOST);
    assert_ptr_equal(queue_pop(&q), &requests[0]);
    assert_true(queue_push(&q, &requests[MOST]));
    for (size_t i = 1; i <= MOST; i++) {
        assert_ptr_equal(queue_pop(&q), &requests[i]);
    }
}

static void test_pressure_follows_the_wait(void **state)
{
    (void)state;
    struct http_request request = {0};
    struct queue q;
    queue_init(&q, 1000000);
    fill(&q, &request, 1);
    assert_int_equal(queue_pressure(&q, 0, PATIENCE), 0);
    assert_int_equal(queue_pressure(&q, PATIENCE, PATIENCE), 0);
    assert_int_equal(queue_pressure(&q, PATIENCE * 3 / 2, PATIENCE), QUEUE_STEPS / 2);
    assert_int_equal(queue_pressure(&q, PATIENCE * 2 - 1, PATIENCE), QUEUE_STEPS - 1);
    assert_int_equal(queue_pressure(&q, PATIENCE * 2, PATIENCE), QUEUE_STEPS);
    assert_int_equal(queue_pressure(&q, UINT64_MAX, PATIENCE), QUEUE_STEPS);
    unsigned before = 0;
    for (uint64_t wait = 0; wait < 3 * PATIENCE; wait++) { /* a step at a time */
        unsigned now = queue_pressure(&q, wait, PATIENCE);
        assert_in_range(now, before, before + 1);
        before = now;
    }
}

/* Nothing is refused before the effort has fallen all the way. */
static void test_pressure_follows_the_length(void **state)
{
    (void)state;
    for (size_t most = 1; most <= 40; most++) {
        struct http_request requests[40] = {0};
        struct queue q;
        queue_init(&q, most);
        unsigned before = 0;
        for (size_t i = 0; i < most; i++) {
            fill(&q, &requests[i], 1);
            unsigned now = queue_pressure(&q, 0, PATIENCE);
            assert_true(now >= before);
            assert_true(q.n > most / 2 || now == 0);
            before = now;
        }
        assert_int_equal(before, QUEUE_STEPS);
    }
}

/* One that computes at a speed that depends on the effort, and more arrives than it can answer at the usual one: the line comes to rest,
 * and goes away with the load. */
static void test_the_line_comes_to_rest(void **state)
{
    (void)state;
    enum { ARRIVES_EVERY = 10, COST = 16, LEAST_COST = 8, LINE = 1 << 12 };
    static struct http_request requests[LINE];
    struct queue q;
    queue_init(&q, LINE);
    uint64_t now = 0, arrival = 0;
    unsigned least = QUEUE_STEPS, most = 0;
    for (size_t arrived = 0, answered = 0; answered < 100000; answered++) {
        for (; arrival <= now || q.n == 0; arrival += ARRIVES_EVERY) {
            struct http_request *request = &requests[arrived++ % LINE];
            request->from = arrival;
            assert_true(queue_push(&q, request));
            now = arrival > now ? arrival : now;
        }
        unsigned steps = queue_pressure(&q, now - q.first->from, PATIENCE);
        queue_pop(&q);
        now += COST - (COST - LEAST_COST) * steps / QUEUE_STEPS;
        if (answered > 50000) {
            least = steps < least ? steps : least;
            most = steps > most ? steps : most;
        }
    }
    assert_true(least >= QUEUE_STEPS * 3 / 4 - 1); /* where COST - steps is ARRIVES_EVERY */
    assert_true(most <= QUEUE_STEPS * 3 / 4 + 1);
    unsigned steps = QUEUE_STEPS;
    while (q.n > 0) { /* nothing arrives any more */
        steps = queue_pressure(&q, now - q.first->from, PATIENCE);
        queue_pop(&q);
        now += LEAST_COST;
    }
    assert_true(steps < QUEUE_STEPS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_in_first_out),        cmocka_unit_test(test_a_full_one_takes_no_more),
        cmocka_unit_test(test_pressure_follows_the_wait), cmocka_unit_test(test_pressure_follows_the_length),
        cmocka_unit_test(test_the_line_comes_to_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
