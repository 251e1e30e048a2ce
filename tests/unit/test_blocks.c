/* Blocks by hand: exact names and whole labels below a suffix, time, bounds; before the lists. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "core/base/mem.h"
#include "gateway/policy/side.h"

static void test_patterns(void **state)
{
    (void)state;
    char out[BLOCK_PATTERN_MAX];
    assert_true(block_pattern(STR("Beta.LAB"), out));
    assert_string_equal(out, "beta.lab");
    assert_true(block_pattern(STR("*.b\xc3\xbc"
                                  "cher.example"),
                              out));
    assert_string_equal(out, "*.xn--bcher-kva.example");
    assert_false(block_pattern(STR(""), out));
    assert_false(block_pattern(STR("*"), out));
    assert_false(block_pattern(STR("*."), out));
    assert_false(block_pattern(STR("*.*.x"), out));
    assert_false(block_pattern(STR("a b"), out));
}

static void test_find(void **state)
{
    (void)state;
    struct blocks b = {{NULL, NULL, 0}};
    assert_true(blocks_add(&b, "*.evil.example", 1, 0, 0));
    assert_true(blocks_add(&b, "a.evil.example", 1, 0, 0));
    assert_string_equal(blocks_find(&b, STR("a.evil.example"))->pattern, "a.evil.example");
    assert_string_equal(blocks_find(&b, STR("b.evil.example"))->pattern, "*.evil.example");
    assert_string_equal(blocks_find(&b, STR("c.b.evil.example"))->pattern, "*.evil.example");
    assert_null(blocks_find(&b, STR("evil.example")));
    assert_null(blocks_find(&b, STR("medevil.example")));
    assert_true(blocks_remove(&b, "*.evil.example"));
    assert_false(blocks_remove(&b, "*.evil.example"));
    assert_null(blocks_find(&b, STR("b.evil.example")));
    blocks_free(&b);
}

static void test_time(void **state)
{
    (void)state;
    struct blocks b = {{NULL, NULL, 0}};
    struct block k;
    uint64_t due = 0;
    assert_false(blocks_due(&b, &due));
    blocks_add(&b, "for.ever", 10, 0, 7);
    assert_false(blocks_due(&b, &due));
    blocks_add(&b, "late.lab", 10, 500, 7);
    blocks_add(&b, "soon.lab", 10, 100, 7);
    assert_true(blocks_due(&b, &due));
    assert_int_equal(due, 100);
    assert_false(blocks_expire(&b, 99, &k));
    assert_true(blocks_expire(&b, 100, &k));
    assert_string_equal(k.pattern, "soon.lab");
    assert_false(blocks_expire(&b, 100, &k));
    blocks_add(&b, "late.lab", 20, 0, 8); /* renewed: for ever now */
    assert_int_equal(b.list.count, 2);
    assert_false(blocks_expire(&b, UINT64_MAX, &k));
    blocks_free(&b);
}

static void test_bounds(void **state)
{
    (void)state;
    struct blocks b = {{NULL, NULL, 0}};
    char name[32];
    mem_fail_after(1);
    assert_false(blocks_add(&b, "x.lab", 1, 0, 0));
    mem_fail_after(0);
    for (int i = 0; i < BLOCKS_MAX; i++) {
        snprintf(name, sizeof name, "n%d.lab", i);
        assert_true(blocks_add(&b, name, 1, 0, 0));
    }
    assert_false(blocks_add(&b, "one.more", 1, 0, 0));
    assert_true(blocks_add(&b, "n0.lab", 1, 0, 0));
    blocks_free(&b);
    assert_int_equal(b.list.count, 0);
}

/* Also where privacy_mode is "off". */
static void test_before_the_lists(void **state)
{
    (void)state;
    struct gateway_config cfg = {.federation = true, .privacy_mode = PRIVACY_OFF};
    struct blocks b = {{NULL, NULL, 0}};
    struct side s = {.cfg = &cfg, .blocks = &b};
    assert_int_equal(side_pair(&s, STR("alpha.lab"), STR("beta.lab"), WAY_EITHER).verdict,
                     POLICY_ALLOW);
    blocks_add(&b, "beta.lab", 1, 0, 0);
    struct policy_decision d = side_pair(&s, STR("alpha.lab"), STR("beta.lab"), WAY_EITHER);
    assert_int_equal(d.verdict, POLICY_DENY);
    assert_string_equal(d.rule, "blocked by the operator");
    assert_int_equal(side_pair(&s, STR("alpha.lab"), STR("gamma.lab"), WAY_EITHER).verdict,
                     POLICY_ALLOW);
    blocks_free(&b);
    cfg.federation = false; /* then nobody comes in anyway, and that is what is said */
    blocks_add(&b, "beta.lab", 1, 0, 0);
    assert_int_equal(side_pair(&s, STR("alpha.lab"), STR("beta.lab"), WAY_EITHER).verdict,
                     POLICY_OFF);
    blocks_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_before_the_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
