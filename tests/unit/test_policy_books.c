/* What policy has done and would do: refusals by rule, an allow list on trial, effects. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core/base/mem.h"
#include "gateway/policy/effect.h"
#include "gateway/policy/refusals.h"
#include "gateway/policy/shadow.h"
#include "tests/fake/fake.h"

static const struct str us = {"alpha.lab", 9}, them = {"beta.lab", 8};

/* ---- refusals -------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    (void)state;
    struct refusals r = {.list = {NULL, NULL, 0}};
    struct policy_decision unlisted = {.verdict = POLICY_DENY, .rule = "not on the allow list"};
    struct policy_decision listed = {
        .verdict = POLICY_DENY, .rule = "peer entry denies", .pattern = STR("*.lab")};
    refusals_add(&r, &unlisted, us, them, WAY_OUT, 1000);
    refusals_add(&r, &unlisted, us, STR("c.lab"), WAY_IN, 2000);
    refusals_add(&r, &listed, us, them, WAY_IN, 3000);
    assert_int_equal(r.list.count, 2);
    const struct refusal *k = CONTAINER_OF(r.list.first, const struct refusal, node);
    assert_string_equal(k->rule, unlisted.rule);
    assert_string_equal(k->pattern, "");
    assert_int_equal(k->count, 2);
    assert_int_equal(k->in, 1);
    assert_int_equal(k->last, 2000);
    assert_string_equal(k->remote, "c.lab");
    k = CONTAINER_OF(r.list.last, const struct refusal, node);
    assert_string_equal(k->pattern, "*.lab");
    refusals_free(&r);
    assert_int_equal(r.list.count, 0);
}

static void test_refusals_bounds(void **state)
{
    (void)state;
    struct refusals r = {.list = {NULL, NULL, 0}};
    char pattern[32];
    for (int i = 0; i < REFUSALS_MAX + 10; i++) {
        snprintf(pattern, sizeof pattern, "d%d.lab", i);
        struct policy_decision d = {.rule = "peer entry denies", .pattern = str_c(pattern)};
        refusals_add(&r, &d, us, them, WAY_OUT, i);
    }
    assert_int_equal(r.list.count, REFUSALS_MAX + 1);
    const struct refusal *k = CONTAINER_OF(r.list.last, const struct refusal, node);
    assert_string_equal(k->rule, "(others)");
    assert_int_equal(k->count, 10);
    refusals_free(&r);
    struct policy_decision d = {.rule = "x"};
    for (unsigned long n = 1; n < 3; n++) {
        mem_fail_after(n);
        refusals_add(&r, &d, us, them, WAY_OUT, 0);
        mem_fail_after(0);
    }
    refusals_free(&r);
}

/* ---- on trial -------------------------------------------------------------------------------- */

static void propose(struct shadow *s, const char *settings, const char *expected)
{
    struct gateway_config *c = fake_config(settings);
    struct buf out = BUF_INIT(65536);
    assert_non_null(c);
    shadow_propose(s, c, &out);
    assert_string_equal(out.p, expected);
    buf_free(&out);
    gateway_config_unref(c);
}

static void count(void *arg, const struct shadow_seen *p)
{
    (void)p;
    ++*(size_t *)arg;
}

static void test_shadow(void **state)
{
    (void)state;
    struct shadow s = {.table = NULL};
    size_t n = 0;
    propose(&s, "", "# Nothing was seen that an allow list would refuse.\n");
    assert_true(shadow_see(&s, us, them, WAY_OUT, 0));
    assert_false(shadow_see(&s, us, them, WAY_OUT, 1000));
    assert_true(shadow_see(&s, STR("gamma.lab"), them, WAY_OUT, 2000));
    assert_true(shadow_see(&s, us, STR("c.lab"), WAY_IN, 3000));
    assert_false(shadow_see(&s, us, STR("c.lab"), WAY_OUT, 4000));
    shadow_each(&s, count, &n);
    assert_int_equal(n, 3);
    propose(
        &s, "",
        "peers = (\n"
        "  { domain = \"beta.lab\"; policy = \"allow\"; local = [\"alpha.lab\", \"gamma.lab\"]; "
        "direction = \"out\";\n"
        "    comment = \"3 stanzas, the last 1970-01-01T00:00:02Z\"; },\n"
        "  { domain = \"c.lab\"; policy = \"allow\"; local = [\"alpha.lab\"];\n"
        "    comment = \"2 stanzas, the last 1970-01-01T00:00:04Z\"; }\n);\n");
    /* What is allowed or denied meanwhile needs no proposal. */
    propose(&s,
            "peers = ({ domain = \"beta.lab\"; policy = \"deny\"; },"
            "{ domain = \"c.lab\"; policy = \"allow\"; });",
            "# Nothing was seen that an allow list would refuse.\n");
    shadow_free(&s);
}

/* The proposal, taken as it is, lets through exactly what was seen. */
static void test_shadow_proposal_is_enough(void **state)
{
    (void)state;
    struct shadow s = {.table = NULL};
    struct buf text = BUF_INIT(65536);
    struct gateway_config *none = fake_config("");
    shadow_see(&s, us, them, WAY_OUT, 0);
    shadow_see(&s, us, STR("c.lab"), WAY_IN, 0);
    shadow_propose(&s, none, &text);
    buf_puts(&text, "privacy_mode = \"allow-list\";");
    struct gateway_config *c = fake_config(text.p);
    assert_non_null(c);
    static const struct {
        const char *local, *remote;
        enum policy_way way;
        enum policy_verdict expected;
    } cases[] = {{"alpha.lab", "beta.lab", WAY_OUT, POLICY_ALLOW},
                 {"alpha.lab", "beta.lab", WAY_IN, POLICY_DENY},
                 {"gamma.lab", "beta.lab", WAY_OUT, POLICY_DENY},
                 {"alpha.lab", "c.lab", WAY_IN, POLICY_ALLOW},
                 {"alpha.lab", "c.lab", WAY_OUT, POLICY_DENY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(
            policy_pair(c, str_c(cases[i].local), str_c(cases[i].remote), cases[i].way).verdict,
            cases[i].expected);
    gateway_config_unref(none);
    gateway_config_unref(c);
    shadow_free(&s);
    buf_free(&text);
}

static void test_shadow_bounds(void **state)
{
    (void)state;
    struct shadow s = {.table = NULL};
    char name[32];
    for (int i = 0; i < SHADOW_MAX + 5; i++) {
        snprintf(name, sizeof name, "d%d.lab", i);
        assert_int_equal(shadow_see(&s, us, str_c(name), WAY_IN, i), i < SHADOW_MAX);
    }
    assert_int_equal(s.list.count, SHADOW_MAX);
    assert_int_equal(s.lost, 5);
    shadow_free(&s);
    for (unsigned long n = 1; n < 4; n++) {
        mem_fail_after(n);
        bool first = shadow_see(&s, us, them, WAY_IN, 0);
        mem_fail_after(0);
        assert_int_equal(s.list.count, first);
        shadow_free(&s);
    }
}

/* ---- effects --------------------------------------------------------------------------------- */

struct change {
    const char *old, *new_, *key, *expected;
    bool renewed;
};

/* One stream with beta.lab; the key of the diff that is to answer for it. */
static void test_effects(void **state)
{
    (void)state;
#define ALLOW "peers = ({ domain = \"beta.lab\"; policy = \"allow\"; "
#define LIST  "privacy_mode = \"allow-list\"; "
    static const struct change rows[] = {
        {LIST ALLOW "});", LIST, "peers[beta.lab]", "1 stream with beta.lab ended", false},
        {LIST ALLOW "});", LIST "peers = ({ domain = \"beta.lab\"; policy = \"deny\"; });",
         "peers[beta.lab].policy", "1 stream with beta.lab ended", false},
        {LIST ALLOW "});", LIST ALLOW "comment = \"x\"; });", "peers[beta.lab].comment", "", false},
        {LIST ALLOW "});", LIST ALLOW "local = \"gamma.lab\"; });", "peers[beta.lab].local",
         "1 stream with beta.lab ended", false},
        {"privacy_mode = \"off\";", LIST, "privacy_mode", "1 stream with beta.lab ended", false},
        {"", "federation = false;", "federation", "1 stream with beta.lab ended", false},
        {LIST "privacy_shadow = true;", LIST, "privacy_shadow", "1 stream with beta.lab ended",
         false},
        {LIST "peers = ({ domain = \"beta.lab\"; route = \"a.test:1\"; });",
         LIST "peers = ({ domain = \"beta.lab\"; route = \"a.test:1\"; }); "
              "use_static_routes = false;",
         "use_static_routes", "1 stream with beta.lab ended", false},
        {"security_mode = \"no-tls\";", "security_mode = \"tls-required\";", "security_mode",
         "1 stream with beta.lab renewed", true},
        {ALLOW "});", ALLOW "security_mode = \"no-tls\"; });", "peers[beta.lab].security_mode",
         "1 stream with beta.lab renewed", true},
        {"", "auth = [\"external\"];", "auth", "1 stream with beta.lab renewed", true},
        {ALLOW "});", ALLOW "auth = [\"external\"]; });", "peers[beta.lab].auth",
         "1 stream with beta.lab renewed", true},
        {ALLOW "minimum_tls = \"1.2\"; });", ALLOW "minimum_tls = \"1.3\"; });",
         "peers[beta.lab].minimum_tls", "1 stream with beta.lab renewed", true},
        {"", "domains = ({ name = \"gamma.lab\"; });", "domains[alpha.lab]",
         "1 stream with beta.lab ended", false},
        {LIST ALLOW "});", LIST, "log.level", "", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gateway_config *a = fake_config(rows[i].old), *b = fake_config(rows[i].new_);
        struct side old = {.cfg = a}, new_ = {.cfg = b};
        struct effects e = {.groups = {NULL, NULL, 0}};
        struct buf out = BUF_INIT(4096);
        assert_non_null(a);
        assert_non_null(b);
        effects_add(&e, &(struct effect_stream){rows[i].renewed, us, them, WAY_IN}, &old, &new_);
        effects_put(&e, rows[i].key, &out);
        if (strcmp(out.p != NULL ? out.p : "", rows[i].expected) != 0)
            fail_msg("row %zu: %s", i, out.p);
        buf_clear(&out);
        effects_put_rest(&e, &out); /* told once, and by somebody */
        assert_int_equal(out.len > 0, *rows[i].expected == '\0');
        effects_free(&e);
        buf_free(&out);
        gateway_config_unref(a);
        gateway_config_unref(b);
    }
}

static void test_effects_are_gathered(void **state)
{
    (void)state;
    struct gateway_config *a = fake_config(""), *b = fake_config("privacy_mode = \"allow-list\";");
    struct side old = {.cfg = a}, new_ = {.cfg = b};
    struct effects e = {.groups = {NULL, NULL, 0}};
    struct buf out = BUF_INIT(65536);
    char name[32];
    for (int i = 0; i < 3; i++)
        effects_add(&e, &(struct effect_stream){false, us, them, WAY_IN}, &old, &new_);
    effects_add(&e, &(struct effect_stream){false, us, STR("c.lab"), WAY_OUT}, &old, &new_);
    effects_put(&e, "privacy_mode", &out);
    assert_string_equal(out.p, "3 streams with beta.lab ended, 1 stream with c.lab ended");
    for (int i = 0; i < EFFECT_GROUPS_MAX + 5; i++) {
        snprintf(name, sizeof name, "d%d.lab", i);
        effects_add(&e, &(struct effect_stream){false, us, str_c(name), WAY_IN}, &old, &new_);
    }
    buf_clear(&out);
    effects_put_rest(&e, &out);
    assert_non_null(strstr(out.p, "streams with others ended"));
    effects_free(&e);
    buf_free(&out);
    gateway_config_unref(a);
    gateway_config_unref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refusals_bounds),
        cmocka_unit_test(test_shadow),
        cmocka_unit_test(test_shadow_proposal_is_enough),
        cmocka_unit_test(test_shadow_bounds),
        cmocka_unit_test(test_effects),
        cmocka_unit_test(test_effects_are_gathered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
