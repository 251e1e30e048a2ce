/* What only shows over time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "gateway/route/trouble.h"

static void test_dns(void **state)
{
    (void)state;
    struct dns_trouble t = {.lookups = 0};
    for (int i = 0; i < 10; i++) /* one domain may be broken */
        assert_false(dns_trouble(&t, STR("broken.lab"), false));
    assert_true(dns_trouble(&t, STR("other.lab"), false));
    assert_true(dns_trouble(&t, STR("other.lab"), false));
    assert_false(dns_trouble(&t, STR("good.lab"), true));
    assert_false(dns_trouble(&t, STR("a.lab"), false)); /* it begins anew */
    assert_false(dns_trouble(&t, STR("b.lab"), false));
    assert_true(dns_trouble(&t, STR("a.lab"), false));
}

static void test_level(void **state)
{
    (void)state;
    assert_false(near_full(false, 799, 1000));
    assert_true(near_full(false, 800, 1000));
    assert_true(near_full(true, 500, 1000));
    assert_false(near_full(true, 499, 1000));
    assert_true(near_full(false, SIZE_MAX, SIZE_MAX));
    assert_false(near_full(false, 0, SIZE_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dns), cmocka_unit_test(test_level)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
