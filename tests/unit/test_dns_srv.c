#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dns/srv.h"

/* xorshift64*, so that every run draws the same. */
static bool seeded(void *ctx, unsigned char *out, size_t n)
{
    uint64_t *x = ctx;
    for (size_t i = 0; i < n; i++) {
        *x ^= *x >> 12;
        *x ^= *x << 25;
        *x ^= *x >> 27;
        out[i] = (unsigned char)(*x * 0x2545f4914f6cdd1dull >> 56);
    }
    return true;
}

static bool no_random(void *ctx, unsigned char *out, size_t n)
{
    (void)ctx, (void)out, (void)n;
    return false;
}

static struct dns_srv rec(unsigned priority, unsigned weight, unsigned port, const char *target)
{
    struct dns_srv r = {
        .priority = (uint16_t)priority, .weight = (uint16_t)weight, .port = (uint16_t)port};
    str_copy(r.target, sizeof r.target, str_c(target));
    return r;
}

enum { DRAWS = 10000 };

static void count_first(const struct dns_srv *set, size_t n, unsigned *first)
{
    uint64_t seed = 42;
    struct env env = {.random = seeded, .ctx = &seed};
    for (int i = 0; i < DRAWS; i++) {
        struct dns_srv r[8];
        memcpy(r, set, n * sizeof *r);
        assert_int_equal(srv_order(r, n, &env), n);
        first[r[0].port]++;
    }
}

static void test_weights(void **state)
{
    (void)state;
    const struct dns_srv set[] = {rec(5, 10, 1, "a"), rec(5, 20, 2, "b"), rec(5, 70, 3, "c")};
    unsigned first[4] = {0};
    count_first(set, 3, first);
    assert_in_range(first[1], 800, 1200);
    assert_in_range(first[2], 1700, 2300);
    assert_in_range(first[3], 6600, 7400);
}

static void test_second_place(void **state)
{
    (void)state;
    uint64_t seed = 7;
    struct env env = {.random = seeded, .ctx = &seed};
    unsigned second = 0, of = 0;
    for (int i = 0; i < DRAWS; i++) {
        struct dns_srv r[] = {rec(5, 10, 1, "a"), rec(5, 20, 2, "b"), rec(5, 70, 3, "c")};
        srv_order(r, 3, &env);
        if (r[0].port != 3)
            continue;
        of++;
        second += r[1].port == 2;
    }
    /* After c is drawn, b : a is 20 : 10. */
    assert_in_range(second * 1000 / of, 630, 710);
}

static void test_zero_weight(void **state)
{
    (void)state;
    const struct dns_srv set[] = {rec(5, 99, 1, "a"), rec(5, 0, 2, "b")};
    unsigned first[3] = {0};
    count_first(set, 2, first);
    /* 1 of 100: it is drawn when the number is 0. */
    assert_in_range(first[2], 50, 170);
    const struct dns_srv zeros[] = {rec(5, 0, 1, "a"), rec(5, 0, 2, "b")};
    unsigned plain[3] = {0};
    count_first(zeros, 2, plain);
    assert_int_equal(plain[1], DRAWS);
}

static void test_priority(void **state)
{
    (void)state;
    uint64_t seed = 3;
    struct env env = {.random = seeded, .ctx = &seed};
    for (int i = 0; i < 100; i++) {
        struct dns_srv r[] = {rec(65535, 65535, 4, "d"), rec(10, 0, 2, "b"), rec(0, 0, 1, "a"),
                              rec(10, 65535, 3, "c")};
        assert_int_equal(srv_order(r, 4, &env), 4);
        assert_int_equal(r[0].port, 1);
        assert_int_equal(r[1].priority, 10);
        assert_int_equal(r[2].priority, 10);
        assert_int_equal(r[3].port, 4);
    }
}

static void test_drops(void **state)
{
    (void)state;
    uint64_t seed = 3;
    struct env env = {.random = seeded, .ctx = &seed};
    struct dns_srv r[] = {rec(1, 0, 5269, "a"), rec(2, 0, 5269, "a"), rec(3, 0, 5270, "a"),
                          rec(0, 0, 0, "b"), rec(0, 0, 5269, "")};
    assert_int_equal(srv_order(r, 5, &env), 2);
    assert_int_equal(r[0].priority, 1);
    assert_int_equal(r[1].port, 5270);
    assert_int_equal(srv_order(r, 0, &env), 0);
}

static void test_absent(void **state)
{
    (void)state;
    struct dns_srv r[] = {rec(0, 0, 0, ""), rec(0, 0, 0, "")};
    assert_true(srv_absent(r, 1));
    assert_true(srv_absent(r, 2));
    assert_false(srv_absent(r, 0));
    r[1] = rec(0, 0, 5269, "a");
    assert_false(srv_absent(r, 2));
}

static void test_without_randomness(void **state)
{
    (void)state;
    struct env env = {.random = no_random};
    struct dns_srv r[] = {rec(1, 5, 1, "a"), rec(0, 5, 2, "b"), rec(1, 5, 3, "c")};
    assert_int_equal(srv_order(r, 3, &env), 3);
    assert_int_equal(r[0].port, 2);
    assert_int_equal(r[1].port, 1);
    assert_int_equal(r[2].port, 3);
}

static void test_largest(void **state)
{
    (void)state;
    uint64_t seed = 9;
    struct env env = {.random = seeded, .ctx = &seed};
    static struct dns_srv r[DNS_RECORDS_MAX];
    bool seen[DNS_RECORDS_MAX] = {false};
    for (unsigned i = 0; i < DNS_RECORDS_MAX; i++)
        r[i] = rec(1, 65535, i + 1, "a");
    assert_int_equal(srv_order(r, DNS_RECORDS_MAX, &env), DNS_RECORDS_MAX);
    for (unsigned i = 0; i < DNS_RECORDS_MAX; i++) {
        assert_false(seen[r[i].port - 1]);
        seen[r[i].port - 1] = true;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),      cmocka_unit_test(test_second_place),
        cmocka_unit_test(test_zero_weight),  cmocka_unit_test(test_priority),
        cmocka_unit_test(test_drops),        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_without_randomness), cmocka_unit_test(test_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
