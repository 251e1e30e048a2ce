/* Who may talk to whom, and how: every mode with every kind of entry, one table. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/domains.h"
#include "gateway/policy/policy.h"
#include "tests/fake/fake.h"

#define ROUTE "route = \"192.0.2.7:5269\"; "
#define OVER  "until = \"2001-01-01\"; "

#define FILES  " " /* both of them */
#define SHADOW "privacy_shadow = true; "

static char folder[] = "/tmp/sallyport-policy-XXXXXX";

/* The files allow.txt and deny.txt, beside the configuration, of every row. */
static const char allow_text[] = "listed.lab # a comment\n\n*.listed.lab\n   PAD.lab  \n";
static const char deny_text[] = "# whom we do not want\nbad.lab\n*.bad.lab\n";

static void put_file(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void remove_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

static struct gateway_config *with(const char *privacy, const char *entry, const char *more)
{
    char text[1024], files[512] = "";
    if (strcmp(more, FILES) == 0 || strcmp(more, SHADOW FILES) == 0)
        snprintf(files, sizeof files, "allow_file = \"%s/allow.txt\"; deny_file = \"%s/deny.txt\";",
                 folder, folder);
    snprintf(text, sizeof text, "privacy_mode = \"%s\"; peers = (%s); %s %s", privacy, entry,
             strcmp(more, FILES) == 0 ? "" : more, files);
    struct gateway_config *c = fake_config(text);
    assert_non_null(c);
    return c;
}

/* For alpha.lab and `remote`: what comes of off, allow-list and deny-list, first in, then out.
 * A: allowed; D: denied; S: allowed, and told because an allow list would not. */
static const struct row {
    const char *entry, *more, *remote, *in, *out;
} verdicts[] = {
    /* exact names */
    {"", "", "beta.lab", "ADA", "ADA"},
    {"{domain = \"beta.lab\";}", "", "beta.lab", "ADA", "ADA"}, /* no policy allows nobody */
    {"{domain = \"*\";}", "", "beta.lab", "ADA", "ADA"},
    {"{domain = \"beta.lab\"; policy = \"allow\";}", "", "beta.lab", "AAA", "AAA"},
    {"{domain = \"beta.lab\"; policy = \"deny\";}", "", "beta.lab", "ADD", "ADD"},
    /* patterns */
    {"{domain = \"*\"; policy = \"allow\";}", "", "beta.lab", "AAA", "AAA"},
    {"{domain = \"*\"; policy = \"deny\";}", "", "beta.lab", "ADD", "ADD"},
    {"{domain = \"*.lab\"; policy = \"allow\";}", "", "beta.lab", "AAA", "AAA"},
    {"{domain = \"*.lab\"; policy = \"allow\";}", "", "lab", "ADA", "ADA"}, /* never itself */
    {"{domain = \"*.lab\"; policy = \"allow\";}", "", "a.b.lab", "AAA", "AAA"},
    {"{domain = \"*.lab\"; policy = \"allow\";}", "", "xlab", "ADA", "ADA"}, /* whole labels */
    {"{domain = \"*.eta.lab\"; policy = \"allow\";}", "", "beta.lab", "ADA", "ADA"},
    {"{domain = \"*\"; policy = \"deny\";}, {domain = \"beta.lab\"; policy = \"allow\";}", "",
     "beta.lab", "AAA", "AAA"},
    {"{domain = \"*\"; policy = \"allow\";}, {domain = \"*.lab\"; policy = \"deny\";}", "",
     "beta.lab", "ADD", "ADD"},
    {"{domain = \"*.lab\"; policy = \"deny\";}, {domain = \"*.b.lab\"; policy = \"allow\";}", "",
     "a.b.lab", "AAA", "AAA"},
    {"{domain = \"*\"; policy = \"allow\";}, {domain = \"beta.lab\";}", "", "beta.lab", "AAA",
     "AAA"},
    /* routes */
    {"{domain = \"beta.lab\"; " ROUTE "}", "", "beta.lab", "AAA", "AAA"}, /* by implication */
    {"{domain = \"*.lab\"; " ROUTE "}", "", "beta.lab", "AAA", "AAA"},
    {"{domain = \"beta.lab\"; policy = \"deny\"; " ROUTE "}", "", "beta.lab", "ADD", "ADD"},
    {"{domain = \"beta.lab\"; " ROUTE "}", "use_static_routes = false;", "beta.lab", "ADA", "ADA"},
    {"{domain = \"beta.lab\"; " ROUTE "direction = \"out\";}", "", "beta.lab", "ADA", "AAA"},
    /* one way only; the other way is open to wider entries */
    {"{domain = \"beta.lab\"; policy = \"allow\"; direction = \"in\";}", "", "beta.lab", "AAA",
     "ADA"},
    {"{domain = \"beta.lab\"; policy = \"allow\"; direction = \"out\";}", "", "beta.lab", "ADA",
     "AAA"},
    {"{domain = \"beta.lab\"; policy = \"allow\"; direction = \"both\";}", "", "beta.lab", "AAA",
     "AAA"},
    {"{domain = \"beta.lab\"; policy = \"deny\"; direction = \"in\";}", "", "beta.lab", "ADD",
     "ADA"},
    {"{domain = \"beta.lab\"; policy = \"deny\"; direction = \"in\";},"
     "{domain = \"*.lab\"; policy = \"allow\";}",
     "", "beta.lab", "ADD", "AAA"},
    /* per pair */
    {"{domain = \"beta.lab\"; policy = \"allow\"; local = \"alpha.lab\";}", "", "beta.lab", "AAA",
     "AAA"},
    {"{domain = \"beta.lab\"; policy = \"allow\"; local = [\"gamma.lab\"];}", "", "beta.lab", "ADA",
     "ADA"},
    {"{domain = \"beta.lab\"; policy = \"deny\"; local = [\"gamma.lab\"];},"
     "{domain = \"*\"; policy = \"allow\";}",
     "", "beta.lab", "AAA", "AAA"},
    {"{domain = \"beta.lab\"; policy = \"deny\"; local = [\"gamma.lab\", \"alpha.lab\"];}", "",
     "beta.lab", "ADD", "ADD"},
    {"{domain = \"beta.lab\"; policy = \"allow\"; local = \"alpha.lab\"; direction = \"in\";}", "",
     "beta.lab", "AAA", "ADA"},
    /* an end */
    {"{domain = \"beta.lab\"; policy = \"allow\"; " OVER "}", "", "beta.lab", "ADA", "ADA"},
    {"{domain = \"beta.lab\"; policy = \"allow\"; until = \"2999-12-31\";}", "", "beta.lab", "AAA",
     "AAA"},
    {"{domain = \"beta.lab\"; policy = \"deny\"; " OVER "}", "", "beta.lab", "ADA", "ADA"},
    {"{domain = \"beta.lab\"; " ROUTE OVER "}", "", "beta.lab", "ADA", "ADA"},
    {"{domain = \"beta.lab\"; policy = \"deny\"; " OVER "},"
     "{domain = \"*.lab\"; policy = \"allow\";}",
     "", "beta.lab", "AAA", "AAA"},
    /* files */
    {"", FILES, "beta.lab", "ADA", "ADA"},
    {"", FILES, "listed.lab", "AAA", "AAA"},
    {"", FILES, "a.listed.lab", "AAA", "AAA"},
    {"", FILES, "pad.lab", "AAA", "AAA"},
    {"", FILES, "bad.lab", "ADD", "ADD"},
    {"", FILES, "very.bad.lab", "ADD", "ADD"},
    {"{domain = \"*\"; policy = \"allow\";}", FILES, "bad.lab", "ADD", "ADD"}, /* nearest */
    {"{domain = \"bad.lab\"; policy = \"allow\";}", FILES, "bad.lab", "AAA", "AAA"},
    {"{domain = \"bad.lab\"; policy = \"allow\"; local = \"gamma.lab\";}", FILES, "bad.lab", "ADD",
     "ADD"},
    {"{domain = \"bad.lab\"; " ROUTE "}", FILES, "bad.lab", "AAA", "AAA"},
    /* an allow list on trial */
    {"", SHADOW, "beta.lab", "SSS", "SSS"},
    {"{domain = \"beta.lab\"; policy = \"allow\";}", SHADOW, "beta.lab", "AAA", "AAA"},
    {"{domain = \"beta.lab\"; policy = \"allow\"; direction = \"in\";}", SHADOW, "beta.lab", "AAA",
     "SSS"},
    {"{domain = \"beta.lab\"; policy = \"deny\";}", SHADOW, "beta.lab", "SDD", "SDD"},
    {"", SHADOW FILES, "listed.lab", "AAA", "AAA"},
    {"{domain = \"beta.lab\"; policy = \"allow\"; " OVER "}", SHADOW, "beta.lab", "SSS", "SSS"},
};

static const char *const modes[] = {"off", "allow-list", "deny-list"};

static char letter(const struct policy_decision *d)
{
    return d->verdict == POLICY_ALLOW  ? (d->shadow ? 'S' : 'A')
           : d->verdict == POLICY_DENY ? 'D'
                                       : '?';
}

static void check_row(const struct row *r, int mode)
{
    struct gateway_config *c = with(modes[mode], r->entry, r->more);
    struct str us = STR("alpha.lab"), them = str_c(r->remote);
    struct policy_decision in = policy_pair(c, us, them, WAY_IN);
    struct policy_decision out = policy_pair(c, us, them, WAY_OUT);
    struct policy_decision any = policy_pair(c, us, them, WAY_EITHER);
    if (letter(&in) != r->in[mode] || letter(&out) != r->out[mode])
        fail_msg("%s, %s %s, %s: in %c (%s), out %c (%s)", modes[mode], r->entry, r->more,
                 r->remote, letter(&in), in.rule, letter(&out), out.rule);
    bool open = in.verdict == POLICY_ALLOW || out.verdict == POLICY_ALLOW;
    assert_int_equal(any.verdict == POLICY_ALLOW, open);
    assert_non_null(in.rule);
    assert_non_null(out.rule);
    gateway_config_unref(c);
}

static void test_table(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    put_file("allow.txt", allow_text);
    put_file("deny.txt", deny_text);
    for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++)
        for (int m = 0; m < 3; m++)
            check_row(&verdicts[i], m);
    remove_file("allow.txt");
    remove_file("deny.txt");
    rmdir(folder);
}

static void test_off(void **state)
{
    (void)state;
    struct gateway_config *c = with("off", "{domain = \"*\"; policy = \"allow\";}",
                                    "federation = false; privacy_shadow = true;");
    for (int way = WAY_EITHER; way <= WAY_OUT; way++)
        assert_int_equal(
            policy_pair(c, STR("alpha.lab"), STR("beta.lab"), (enum policy_way)way).verdict,
            POLICY_OFF);
    gateway_config_unref(c);
}

static void test_rule(void **state)
{
    (void)state;
    struct gateway_config *c = with("allow-list", "{domain = \"*.lab\"; policy = \"allow\";}", "");
    struct policy_decision d = policy_pair(c, STR("alpha.lab"), STR("beta.lab"), WAY_EITHER);
    assert_string_equal(d.rule, "peer entry allows");
    assert_true(str_is(d.pattern, "*.lab"));
    assert_int_equal(d.by, POLICY_BY_PEER);
    d = policy_pair(c, STR("alpha.lab"), STR("beta.example"), WAY_EITHER);
    assert_string_equal(d.rule, "not on the allow list");
    assert_null(d.pattern.p);
    assert_int_equal(d.by, POLICY_BY_MODE);
    gateway_config_unref(c);
}

/* A local domain stands for what is below it, if it owns that; none named: any of them. */
static void test_local(void **state)
{
    (void)state;
    struct gateway_config *c =
        with("allow-list",
             "{domain = \"a.lab\"; policy = \"allow\"; local = \"own.lab\";},"
             "{domain = \"b.lab\"; policy = \"allow\"; local = \"chat.own.lab\";},"
             "{domain = \"c.lab\"; policy = \"deny\"; local = \"own.lab\";},"
             "{domain = \"*\"; policy = \"allow\"; local = \"own.lab\";}",
             "domains = ({ name = \"own.lab\"; subdomains = true; }, { name = \"alpha.lab\"; });");
    static const struct {
        const char *local, *remote;
        enum policy_verdict expected;
    } cases[] = {
        {"own.lab", "a.lab", POLICY_ALLOW},     {"chat.own.lab", "a.lab", POLICY_ALLOW},
        {"alpha.lab", "a.lab", POLICY_DENY},    {"chat.own.lab", "b.lab", POLICY_ALLOW},
        {"alpha.lab", "b.lab", POLICY_DENY},    {"own.lab", "c.lab", POLICY_DENY},
        {"chat.own.lab", "c.lab", POLICY_DENY}, {"alpha.lab", "c.lab", POLICY_DENY},
        {NULL, "a.lab", POLICY_ALLOW},          {NULL, "c.lab", POLICY_ALLOW},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (policy_pair(c, str_c(cases[i].local), str_c(cases[i].remote), WAY_IN).verdict !=
            cases[i].expected)
            fail_msg("%s %s", cases[i].local, cases[i].remote);
    gateway_config_unref(c);
}

static void note(void *arg, const struct cfg_peer *p)
{
    (void)p;
    ++*(int *)arg;
}

static void test_time(void **state)
{
    (void)state;
    struct gateway_config *c =
        with("allow-list",
             "{domain = \"a.lab\"; policy = \"allow\"; until = \"2990-01-01\";},"
             "{domain = \"b.lab\"; policy = \"allow\"; "
             "until = \"2990-01-01T00:00:00Z\"; security_mode = \"no-tls\";}",
             "");
    const int64_t day = 86400000, first = INT64_C(32188147200000); /* 2990-01-01 */
    int64_t due;
    int n = 0;
    assert_true(gateway_config_due(c, &due));
    assert_int_equal(due, first);
    assert_int_equal(policy_security(c, STR("b.lab")), SECURITY_NO_TLS);
    gateway_config_expire(c, first - 1, note, &n);
    assert_int_equal(n, 0);
    gateway_config_expire(c, first, note, &n);
    assert_int_equal(n, 1);
    assert_int_equal(policy_pair(c, STR("alpha.lab"), STR("a.lab"), WAY_IN).verdict, POLICY_ALLOW);
    assert_int_equal(policy_pair(c, STR("alpha.lab"), STR("b.lab"), WAY_IN).verdict, POLICY_DENY);
    assert_int_not_equal(policy_security(c, STR("b.lab")), SECURITY_NO_TLS); /* the whole entry */
    assert_true(gateway_config_due(c, &due));
    assert_int_equal(due, first + day); /* that day is the last one */
    gateway_config_expire(c, due, note, &n);
    assert_int_equal(n, 2);
    assert_false(gateway_config_due(c, &due));
    assert_int_equal(policy_pair(c, STR("alpha.lab"), STR("a.lab"), WAY_IN).verdict, POLICY_DENY);
    gateway_config_unref(c);
}

/* Routes that are switched off route nothing; those that there are keep their order. */
static void test_routes(void **state)
{
    (void)state;
    const char *entry = "{domain = \"beta.lab\"; " ROUTE "},"
                        "{domain = \"*.lab\"; route = [\"a.test:1\", \"[2001:db8::1]:2\"];}";
    struct gateway_config *c = with("allow-list", entry, "");
    assert_string_equal(policy_route(c, STR("beta.lab"))->route[0], "192.0.2.7:5269");
    const struct cfg_peer *p = policy_route(c, STR("delta.lab"));
    assert_int_equal(p->nroute, 2);
    assert_string_equal(p->route[0], "a.test:1");
    assert_string_equal(p->route[1], "[2001:db8::1]:2");
    assert_null(policy_route(c, STR("delta.test")));
    gateway_config_unref(c);
    c = with("allow-list", entry, "use_static_routes = false;");
    assert_null(policy_route(c, STR("beta.lab")));
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
    struct gateway_config *off = with("off",
                                      "{domain = \"*.lab\"; bidi = true;},"
                                      "{domain = \"x.lab\"; bidi = false;}",
                                      "");
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
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_time),
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
