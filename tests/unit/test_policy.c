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

/* ---- how a peer proves itself ---------------------------------------------------------------- */

#define PIN_1 "0101010101010101010101010101010101010101010101010101010101010101"
#define PIN_2 "0202020202020202020202020202020202020202020202020202020202020202"

static const char by_key[] =
    "{domain = \"*\"; auth = [\"dialback\"]; minimum_tls = \"1.3\";},"
    "{domain = \"*.partner.lab\"; auth = [\"external\"]; pins = [\"" PIN_1 "\"]; "
    "ca_file = \"/etc/passwd\";},"
    "{domain = \"*.deep.partner.lab\"; auth = [\"dialback\", \"external\"]; "
    "ca_file = \"/etc/group\"; bidi = false;},"
    "{domain = \"a.partner.lab\"; pins = [\"" PIN_2 "\", \"" PIN_1 "\"]; "
    "minimum_tls = \"1.2\";},"
    "{domain = \"deep.partner.lab\"; policy = \"allow\";}";

enum { EXTERNAL = POLICY_AUTH_EXTERNAL, DIALBACK = POLICY_AUTH_DIALBACK };

/* Rows: who; columns: each key, from whichever entry is the nearest that has it. */
static void test_proof_is_inherited_key_by_key(void **state)
{
    (void)state;
    static const struct {
        const char *remote;
        unsigned auth;
        size_t npins;
        unsigned char first_pin;
        int minimum;
        const char *ca_file;
    } rows[] = {
        {"beta.lab", DIALBACK, 0, 0, 0x0304, NULL},
        {"partner.lab", DIALBACK, 0, 0, 0x0304, NULL}, /* the pattern is for names below it */
        {"xpartner.lab", DIALBACK, 0, 0, 0x0304, NULL},
        {"b.partner.lab", EXTERNAL, 1, 1, 0x0304, "/etc/passwd"},
        {"a.partner.lab", EXTERNAL, 2, 2, 0x0303, "/etc/passwd"},
        {"b.a.partner.lab", EXTERNAL, 1, 1, 0x0304, "/etc/passwd"},
        {"deep.partner.lab", EXTERNAL, 1, 1, 0x0304, "/etc/passwd"},
        {"x.deep.partner.lab", EXTERNAL | DIALBACK, 1, 1, 0x0304, "/etc/group"},
    };
    struct gateway_config *c = with("off", by_key, "auth = [\"external\"];");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct str who = str_c(rows[i].remote);
        struct key_hash pins[CONFIG_PINS_MAX];
        const size_t n = policy_peer_pins(c, who, pins);
        const char *ca = policy_ca_file(c, who);
        if (policy_auth(c, who) != rows[i].auth || n != rows[i].npins ||
            (n > 0 && (pins[0].n != KEY_HASH_SHA256 || pins[0].bytes[31] != rows[i].first_pin)) ||
            policy_minimum_tls(c, who) != rows[i].minimum ||
            (ca == NULL ? rows[i].ca_file != NULL
                        : rows[i].ca_file == NULL || strcmp(ca, rows[i].ca_file) != 0))
            fail_msg("%s", rows[i].remote);
    }
    gateway_config_unref(c);
}

static void test_proof_without_entries(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        unsigned auth;
        int minimum;
    } rows[] = {
        {"", EXTERNAL | DIALBACK, 0x0303},
        {"auth = [\"external\"];", EXTERNAL, 0x0303},
        {"auth = [\"dialback\"]; tls = { minimum = \"1.3\"; };", DIALBACK, 0x0304},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gateway_config *c = with("off", "{domain = \"gamma.lab\";}", rows[i].more);
        static const char *const who[] = {"beta.lab", "gamma.lab", ""};
        for (size_t k = 0; k < 3; k++) {
            struct key_hash pins[CONFIG_PINS_MAX];
            assert_int_equal(policy_auth(c, str_c(who[k])), rows[i].auth);
            assert_int_equal(policy_minimum_tls(c, str_c(who[k])), rows[i].minimum);
            assert_int_equal(policy_peer_pins(c, str_c(who[k]), pins), 0);
            assert_null(policy_ca_file(c, str_c(who[k])));
            assert_false(policy_bidi(c, str_c(who[k])));
            assert_false(policy_route_direct_tls(c, str_c(who[k])));
        }
        gateway_config_unref(c);
    }
}

/* The nearest entry that says something, else the switch for all. */
static void test_bidi(void **state)
{
    (void)state;
    struct gateway_config *on = with("off", by_key, "bidi = true;");
    struct gateway_config *off = with("off", "{domain = \"*.lab\"; bidi = true;},"
                                             "{domain = \"x.lab\"; bidi = false;}", "");
    assert_true(policy_bidi(on, STR("beta.lab")));
    assert_true(policy_bidi(on, STR("a.partner.lab")));
    assert_false(policy_bidi(on, STR("x.deep.partner.lab")));
    assert_true(policy_bidi(off, STR("beta.lab")));
    assert_false(policy_bidi(off, STR("x.lab")));
    assert_false(policy_bidi(off, STR("beta.example")));
    gateway_config_unref(on);
    gateway_config_unref(off);
}

/* What the facts of a handshake say, in the count of policy_minimum_tls. */
static void test_tls_versions(void **state)
{
    (void)state;
    assert_int_equal(policy_tls_version("TLSv1.2"), 0x0303);
    assert_int_equal(policy_tls_version("TLSv1.3"), 0x0304);
    assert_int_equal(policy_tls_version("TLSv1.1"), 0);
    assert_int_equal(policy_tls_version("TLSv1"), 0);
    assert_int_equal(policy_tls_version(""), 0);
}

/* direct_tls belongs to the route that counts, not to every name below. */
static void test_direct_routes(void **state)
{
    (void)state;
    const char *entries = "{domain = \"*.lab\"; route = \"192.0.2.7:5270\"; direct_tls = true;},"
                          "{domain = \"beta.lab\"; route = \"192.0.2.8:5269\";},"
                          "{domain = \"gamma.lab\"; auth = [\"external\"];}";
    struct gateway_config *c = with("off", entries, "");
    assert_true(policy_route_direct_tls(c, STR("delta.lab")));
    assert_true(policy_route_direct_tls(c, STR("gamma.lab")));
    assert_false(policy_route_direct_tls(c, STR("beta.lab")));
    assert_false(policy_route_direct_tls(c, STR("beta.example")));
    gateway_config_unref(c);
    c = with("off", entries, "use_static_routes = false;");
    assert_false(policy_route_direct_tls(c, STR("delta.lab")));
    gateway_config_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_rule),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_security),
        cmocka_unit_test(test_proof_is_inherited_key_by_key),
        cmocka_unit_test(test_proof_without_entries),
        cmocka_unit_test(test_bidi),
        cmocka_unit_test(test_tls_versions),
        cmocka_unit_test(test_direct_routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
