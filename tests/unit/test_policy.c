/* Who may talk to whom, and how: every mode with every kind of entry. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "gateway/policy/policy.h"
#include "tests/fake/fake.h"

#define ROUTE "route = \"192.0.2.7:5269\"; "

static struct gateway_config *with(const char *privacy, const char *entry, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text, "privacy_mode = \"%s\"; peers = (%s); %s", privacy, entry, more);
    struct gateway_config *c = fake_config(text);
    assert_non_null(c);
    return c;
}

/* Rows: entries; columns: off, allow-list, deny-list. A: allowed, D: denied. */
static void test_table(void **state)
{
    (void)state;
    static const char *const modes[] = {"off", "allow-list", "deny-list"};
    static const struct {
        const char *entry, *remote, *expected;
    } rows[] = {
        {"", "beta.lab", "ADA"},
        {"{domain = \"beta.lab\";}", "beta.lab", "ADA"}, /* no policy: nobody is allowed by it */
        {"{domain = \"*\";}", "beta.lab", "ADA"},
        {"{domain = \"beta.lab\"; policy = \"allow\";}", "beta.lab", "AAA"},
        {"{domain = \"beta.lab\"; policy = \"deny\";}", "beta.lab", "ADD"},
        {"{domain = \"*\"; policy = \"allow\";}", "beta.lab", "AAA"},
        {"{domain = \"*\"; policy = \"deny\";}", "beta.lab", "ADD"},
        {"{domain = \"*.lab\"; policy = \"allow\";}", "beta.lab", "AAA"},
        {"{domain = \"*.lab\"; policy = \"allow\";}", "lab", "ADA"}, /* below, never itself */
        {"{domain = \"*.lab\"; policy = \"allow\";}", "a.b.lab", "AAA"},
        {"{domain = \"*.lab\"; policy = \"allow\";}", "xlab", "ADA"}, /* whole labels */
        {"{domain = \"*.eta.lab\"; policy = \"allow\";}", "beta.lab", "ADA"},
        {"{domain = \"*\"; policy = \"deny\";}, {domain = \"beta.lab\"; policy = \"allow\";}",
         "beta.lab", "AAA"},
        {"{domain = \"*\"; policy = \"allow\";}, {domain = \"*.lab\"; policy = \"deny\";}",
         "beta.lab", "ADD"},
        {"{domain = \"*.lab\"; policy = \"deny\";}, {domain = \"*.b.lab\"; policy = \"allow\";}",
         "a.b.lab", "AAA"},
        {"{domain = \"*\"; policy = \"allow\";}, {domain = \"beta.lab\";}", "beta.lab", "AAA"},
        {"{domain = \"beta.lab\"; " ROUTE "}", "beta.lab", "AAA"}, /* allowed by implication */
        {"{domain = \"*.lab\"; " ROUTE "}", "beta.lab", "AAA"},
        {"{domain = \"beta.lab\"; policy = \"deny\"; " ROUTE "}", "beta.lab", "ADD"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int m = 0; m < 3; m++) {
            struct gateway_config *c = with(modes[m], rows[i].entry, "");
            struct policy_decision d = policy_pair(c, STR("alpha.lab"), str_c(rows[i].remote));
            char got = d.verdict == POLICY_ALLOW ? 'A' : d.verdict == POLICY_DENY ? 'D' : '?';
            if (got != rows[i].expected[m])
                fail_msg("%s, %s, %s: %c (%s)", modes[m], rows[i].entry, rows[i].remote, got,
                         d.rule);
            assert_non_null(d.rule);
            gateway_config_unref(c);
        }
}

static void test_off(void **state)
{
    (void)state;
    struct gateway_config *c =
        with("off", "{domain = \"*\"; policy = \"allow\";}", "federation = false;");
    assert_int_equal(policy_pair(c, STR("alpha.lab"), STR("beta.lab")).verdict, POLICY_OFF);
    gateway_config_unref(c);
}

static void test_rule(void **state)
{
    (void)state;
    struct gateway_config *c = with("allow-list", "{domain = \"*.lab\"; policy = \"allow\";}", "");
    struct policy_decision d = policy_pair(c, STR("alpha.lab"), STR("beta.lab"));
    assert_string_equal(d.rule, "peer entry allows");
    assert_true(str_is(d.pattern, "*.lab"));
    d = policy_pair(c, STR("alpha.lab"), STR("beta.example"));
    assert_string_equal(d.rule, "not on the allow list");
    assert_null(d.pattern.p);
    gateway_config_unref(c);
}

/* Routes that are switched off route nothing and allow nobody. */
static void test_routes(void **state)
{
    (void)state;
    const char *entry = "{domain = \"beta.lab\"; " ROUTE "}";
    struct gateway_config *c = with("allow-list", entry, "");
    assert_string_equal(policy_route(c, STR("beta.lab")), "192.0.2.7:5269");
    assert_null(policy_route(c, STR("delta.lab")));
    gateway_config_unref(c);
    c = with("allow-list", entry, "use_static_routes = false;");
    assert_null(policy_route(c, STR("beta.lab")));
    assert_int_equal(policy_pair(c, STR("alpha.lab"), STR("beta.lab")).verdict, POLICY_DENY);
    gateway_config_unref(c);
}

static void test_security(void **state)
{
    (void)state;
    struct gateway_config *c = with("off",
                                    "{domain = \"beta.lab\"; policy = \"allow\";},"
                                    "{domain = \"*.lab\"; security_mode = \"no-tls\";},"
                                    "{domain = \"delta.lab\"; security_mode = \"tls-optional\";}",
                                    "security_mode = \"tls-required\";");
    assert_int_equal(policy_security(c, STR_NONE), SECURITY_TLS_REQUIRED);
    assert_int_equal(policy_security(c, STR("example.org")), SECURITY_TLS_REQUIRED);
    assert_int_equal(policy_security(c, STR("beta.lab")), SECURITY_NO_TLS); /* key by key */
    assert_int_equal(policy_security(c, STR("delta.lab")), SECURITY_TLS_OPTIONAL);
    assert_string_equal(policy_security_name(SECURITY_NO_TLS), "no-tls");
    assert_string_equal(policy_security_name(SECURITY_TLS_REQUIRED), "tls-required");
    gateway_config_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),  cmocka_unit_test(test_off),      cmocka_unit_test(test_rule),
        cmocka_unit_test(test_routes), cmocka_unit_test(test_security),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
