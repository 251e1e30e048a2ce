/* The table of authorised pairs of one stream. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/mem.h"
#include "gateway/proto/authz.h"

static void test_pairs(void **state)
{
    (void)state;
    struct authz a;
    authz_init(&a, 3);
    struct authz_pair *p = authz_add(&a, STR("l"), STR("r1"));
    assert_non_null(p);
    assert_int_equal(p->state, AUTHZ_WAITING);
    assert_non_null(authz_add(&a, STR("l"), STR("r2")));
    assert_non_null(authz_add(&a, STR("l2"), STR("r1")));
    assert_null(authz_add(&a, STR("l3"), STR("r1"))); /* full */
    assert_null(authz_find(&a, STR("r1"), STR("l"))); /* the order of the names counts */
    assert_null(authz_find(&a, STR("l"), STR("r")));
    assert_null(authz_find(&a, STR("l"), STR_NONE));
    p = authz_find(&a, STR("l"), STR("r2"));
    assert_non_null(p);
    p->ticket = 5;
    assert_null(authz_by_ticket(&a, 5)); /* it was not asked */
    p->state = AUTHZ_ASKED;
    assert_ptr_equal(authz_by_ticket(&a, 5), p);
    assert_null(authz_by_ticket(&a, 0));
    p->state = AUTHZ_VALID;
    assert_null(authz_by_ticket(&a, 5)); /* it was answered */
    assert_int_equal(authz_count(&a, AUTHZ_VALID), 1);
    assert_int_equal(authz_count(&a, AUTHZ_WAITING), 2);
    authz_remove(&a, authz_find(&a, STR("l"), STR("r1")));
    assert_null(authz_find(&a, STR("l"), STR("r1")));
    assert_int_equal(authz_first(&a, AUTHZ_VALID)->ticket, 5); /* the others stay */
    assert_non_null(authz_find(&a, STR("l2"), STR("r1")));
    assert_non_null(authz_add(&a, STR("l3"), STR("r1")));
    authz_free(&a);
    assert_int_equal(a.n, 0);
    assert_int_equal(a.max, 3);
    assert_non_null(authz_add(&a, STR("l"), STR("r")));
    authz_free(&a);
}

static void test_keep(void **state)
{
    (void)state;
    char *field = NULL;
    assert_true(authz_keep(&field, STR("one")));
    assert_true(authz_keep(&field, STR("two")));
    assert_string_equal(field, "two");
    assert_true(authz_keep(&field, STR("")));
    assert_string_equal(field, "");
    assert_true(authz_keep(&field, STR_NONE)); /* absent stays absent */
    assert_null(field);
    mem_fail_after(1);
    bool kept = authz_keep(&field, STR("three"));
    mem_fail_after(0);
    assert_false(kept);
    assert_null(field);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n <= 8; n++) {
        struct authz a;
        authz_init(&a, 4);
        mem_fail_after(n);
        size_t added = 0;
        for (int i = 0; i < 4; i++)
            added += authz_add(&a, STR("l"), STR("r")) != NULL;
        mem_fail_after(0);
        assert_int_equal(a.n, added);
        assert_true(added < 4);
        authz_free(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
