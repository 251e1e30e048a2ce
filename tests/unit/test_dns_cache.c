#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "dns/cache.h"

static enum dns_cache_verdict want(struct dns_cache *c, const char *name, uint64_t now,
                                   struct dns_waiter *w, struct str *value,
                                   struct dns_question **q)
{
    return dns_cache_want(c, DNS_KIND_SERVICES, str_c(name), now, w, value, q);
}

/* Asks and answers at once. */
static void put(struct dns_cache *c, const char *name, uint64_t now, uint64_t life,
                const char *value)
{
    struct dns_waiter w = {0};
    struct str v;
    struct dns_question *q;
    struct list out = {0};
    assert_int_equal(want(c, name, now, &w, &v, &q), DNS_CACHE_ASK);
    dns_cache_answer(c, q, now, life, str_c(value), &out);
    assert_int_equal(out.count, 1);
    dns_cache_leave(&w);
    assert_int_equal(out.count, 0);
}

static bool has(struct dns_cache *c, const char *name, uint64_t now, const char *value)
{
    struct str v = dns_cache_peek(c, DNS_KIND_SERVICES, str_c(name), now);
    return v.p != NULL && str_is(v, value);
}

static void test_life(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(4, 4);
    struct dns_waiter w = {0};
    struct str v;
    struct dns_question *q;
    put(c, "a", 100, 50, "one");
    assert_true(has(c, "a", 149, "one"));
    assert_false(has(c, "a", 150, "one"));
    assert_int_equal(want(c, "a", 149, &w, &v, &q), DNS_CACHE_HIT);
    assert_true(str_is(v, "one"));
    assert_null(w.question);
    put(c, "a", 150, 50, "two"); /* asks again: it had run out */
    assert_true(has(c, "a", 199, "two"));
    put(c, "zero", 150, 0, "once"); /* usable by who waited, not kept */
    assert_false(has(c, "zero", 150, "once"));
    put(c, "zero", 150, 0, "once");
    assert_int_equal(dns_cache_entries(c), 1);
    dns_cache_free(c);
}

static void test_kinds(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(4, 4);
    static const enum dns_kind kinds[] = {DNS_KIND_SERVICES, DNS_KIND_SERVICES_PLAIN,
                                          DNS_KIND_ADDRESSES, DNS_KIND_TLSA};
    enum { N = sizeof kinds / sizeof *kinds };
    struct dns_waiter w[N] = {{.question = NULL}};
    struct str v;
    struct dns_question *q[N];
    for (size_t i = 0; i < N; i++)
        assert_int_equal(dns_cache_want(c, kinds[i], STR("a"), 0, &w[i], &v, &q[i]), DNS_CACHE_ASK);
    for (size_t i = 0; i < N; i++) {
        struct list out = {0};
        dns_cache_answer(c, q[i], 0, 50, (struct str){"0123" + i, 1}, &out);
        dns_cache_leave(&w[i]);
    }
    for (size_t i = 0; i < N; i++)
        assert_int_equal(dns_cache_peek(c, kinds[i], STR("a"), 0).p[0], '0' + i);
    dns_cache_free(c);
}

static void test_least_recently_used(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(3, 4);
    struct dns_waiter w = {0};
    struct str v;
    struct dns_question *q;
    put(c, "a", 0, 1000, "A");
    put(c, "b", 1, 1000, "B");
    put(c, "c", 2, 1000, "C");
    assert_int_equal(want(c, "a", 3, &w, &v, &q), DNS_CACHE_HIT);
    put(c, "d", 4, 1000, "D");
    assert_int_equal(dns_cache_entries(c), 3);
    assert_true(has(c, "a", 5, "A"));
    assert_false(has(c, "b", 5, "B"));
    put(c, "e", 6, 1000, "E");
    assert_false(has(c, "c", 7, "C"));
    assert_true(has(c, "a", 7, "A"));
    dns_cache_free(c);
}

static void test_bounded(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(DNS_CACHE_ENTRIES, DNS_QUESTIONS_MAX);
    char name[32];
    for (unsigned i = 0; i < DNS_CACHE_ENTRIES + 1000; i++) {
        snprintf(name, sizeof name, "n%u.lab", i);
        put(c, name, i, 1000000, "x");
    }
    assert_int_equal(dns_cache_entries(c), DNS_CACHE_ENTRIES);
    assert_false(has(c, "n999.lab", 9999, "x"));
    assert_true(has(c, "n1000.lab", 9999, "x"));
    dns_cache_flush(c);
    assert_int_equal(dns_cache_entries(c), 0);
    dns_cache_free(c);
}

static void test_waiters(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(4, 4);
    static struct dns_waiter w[DNS_WAITERS_MAX + 1];
    struct str v;
    struct dns_question *q, *same;
    memset(w, 0, sizeof w);
    assert_int_equal(want(c, "a", 0, &w[0], &v, &q), DNS_CACHE_ASK);
    for (size_t i = 1; i < DNS_WAITERS_MAX; i++) {
        assert_int_equal(want(c, "a", 0, &w[i], &v, &same), DNS_CACHE_WAIT);
        assert_ptr_equal(same, q);
    }
    assert_int_equal(want(c, "a", 0, &w[DNS_WAITERS_MAX], &v, &same), DNS_CACHE_FULL);
    assert_int_equal(dns_cache_questions(c), 1);
    assert_null(dns_cache_leave(&w[5]));
    struct list out = {0};
    dns_cache_answer(c, q, 0, 10, STR("v"), &out);
    assert_int_equal(out.count, DNS_WAITERS_MAX - 1);
    assert_ptr_equal(out.first, &w[0].node); /* in the order they came */
    assert_null(dns_cache_leave(&w[7]));     /* one may still leave the list handed over */
    assert_int_equal(out.count, DNS_WAITERS_MAX - 2);
    assert_int_equal(dns_cache_questions(c), 0);
    dns_cache_free(c);
}

static void test_last_leaves(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(4, 1);
    struct dns_waiter a = {0}, b = {0}, other = {0};
    struct str v;
    struct dns_question *q, *q2;
    assert_int_equal(want(c, "a", 0, &a, &v, &q), DNS_CACHE_ASK);
    assert_int_equal(want(c, "a", 0, &b, &v, &q), DNS_CACHE_WAIT);
    assert_int_equal(want(c, "b", 0, &other, &v, &q2), DNS_CACHE_FULL);
    assert_null(dns_cache_leave(&a));
    assert_null(dns_cache_leave(&a));
    assert_ptr_equal(dns_cache_leave(&b), q);
    dns_cache_drop(c, q);
    assert_int_equal(want(c, "b", 0, &other, &v, &q2), DNS_CACHE_ASK);
    assert_ptr_equal(dns_cache_leave(&other), q2);
    dns_cache_drop(c, q2);
    dns_cache_free(c);
}

static void test_flush_in_flight(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(4, 4);
    struct dns_waiter w = {0};
    struct str v;
    struct dns_question *q;
    struct list out = {0};
    assert_int_equal(want(c, "a", 0, &w, &v, &q), DNS_CACHE_ASK);
    dns_cache_flush(c);
    dns_cache_answer(c, q, 0, 1000, STR("old"), &out);
    assert_int_equal(out.count, 1);
    assert_false(has(c, "a", 0, "old"));
    dns_cache_free(c);
}

static void test_names(void **state)
{
    (void)state;
    struct dns_cache *c = dns_cache_new(4, 4);
    struct dns_waiter w = {0};
    struct str v;
    struct dns_question *q;
    char big[DOMAIN_MAX + 2];
    memset(big, 'a', sizeof big);
    assert_int_equal(dns_cache_want(c, DNS_KIND_SERVICES, (struct str){big, DOMAIN_MAX + 1}, 0, &w,
                                    &v, &q), DNS_CACHE_FULL);
    assert_int_equal(dns_cache_want(c, DNS_KIND_SERVICES, STR(""), 0, &w, &v, &q),
                     DNS_CACHE_FULL);
    dns_cache_free(c);
}

static void test_no_memory(void **state)
{
    (void)state;
    mem_fail_after(1);
    assert_null(dns_cache_new(4, 4));
    mem_fail_after(0);
    struct dns_cache *c = dns_cache_new(4, 4);
    struct dns_waiter w = {0};
    struct str v;
    struct dns_question *q;
    struct list out = {0};
    mem_fail_after(1);
    assert_int_equal(want(c, "a", 0, &w, &v, &q), DNS_CACHE_FULL);
    mem_fail_after(0);
    assert_null(w.question);
    assert_int_equal(dns_cache_questions(c), 0);
    assert_int_equal(want(c, "a", 0, &w, &v, &q), DNS_CACHE_ASK);
    mem_fail_after(1);
    dns_cache_answer(c, q, 0, 1000, STR("v"), &out); /* not kept, but answered */
    mem_fail_after(0);
    assert_int_equal(out.count, 1);
    assert_int_equal(dns_cache_entries(c), 0);
    dns_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_least_recently_used),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_waiters),
        cmocka_unit_test(test_last_leaves),
        cmocka_unit_test(test_flush_in_flight),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
