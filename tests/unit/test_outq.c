/* The queue of one pair and the limits that all queues share. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/mem.h"
#include "gateway/route/outq.h"

static void pop_is(struct outq *q, const char *text, uint64_t since)
{
    struct outq_item *it = outq_pop(q);
    assert_non_null(it);
    assert_true(str_is(it->stanza.s, text));
    assert_int_equal(it->since, since);
    outq_item_free(it);
}

static void test_order(void **state)
{
    (void)state;
    struct outq_limits l = {100, 10, 1000, 0, 0};
    struct outq q;
    char text[] = "one";
    outq_init(&q, &l);
    assert_null(outq_pop(&q));
    assert_true(outq_push(&q, str_c(text), 1));
    text[0] = 'X'; /* it holds a copy */
    assert_true(outq_push(&q, STR("two"), 2));
    assert_true(outq_unshift(&q, STR("zero"), 3));
    assert_int_equal(q.bytes, 10);
    assert_int_equal(l.bytes, 10);
    assert_int_equal(l.count, 3);
    pop_is(&q, "zero", 3);
    pop_is(&q, "one", 1);
    assert_int_equal(l.bytes, 3);
    outq_free(&q);
    assert_int_equal(l.bytes, 0);
    assert_int_equal(l.count, 0);
}

static void test_limits(void **state)
{
    (void)state;
    struct outq_limits l = {10, 3, 15, 0, 0};
    struct outq a, b;
    outq_init(&a, &l);
    outq_init(&b, &l);
    assert_false(outq_push(&a, STR("12345678901"), 0)); /* one too long for the queue */
    assert_true(outq_push(&a, STR("1234567890"), 0));   /* exactly full */
    assert_false(outq_push(&a, STR("1"), 0));
    assert_false(outq_push(&b, STR("123456"), 0)); /* the total */
    assert_true(outq_push(&b, STR("12345"), 0));
    assert_false(outq_push(&b, STR("1"), 0));
    assert_true(outq_unshift(&b, STR("1234567890"), 0)); /* what was in before may come back */
    assert_int_equal(l.bytes, 25);
    assert_false(outq_push(&b, STR(""), 0) && outq_push(&b, STR("1"), 0));
    outq_free(&a);
    assert_false(outq_push(&b, STR("1"), 0)); /* over its own limit still */
    outq_free(&b);
    for (int i = 0; i < 3; i++)
        assert_true(outq_push(&a, STR("1"), 0));
    assert_false(outq_push(&a, STR("1"), 0)); /* the count */
    outq_free(&a);
    assert_int_equal(l.bytes, 0);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct outq_limits l = {10, 3, 15, 0, 0};
    struct outq q;
    outq_init(&q, &l);
    for (unsigned long n = 1; n <= 2; n++) {
        mem_fail_after(n);
        bool pushed = outq_push(&q, STR("x"), 0), back = outq_unshift(&q, STR("x"), 0);
        mem_fail_after(0);
        assert_false(pushed || back);
        assert_int_equal(l.bytes, 0);
        assert_int_equal(l.count, 0);
    }
    outq_free(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
