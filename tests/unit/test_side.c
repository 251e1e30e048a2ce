/* The two sides of an S2S stream: who may be named by whom, policy and mode, for the world and for
 * links that have all, some or no domains of their own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "config/auth.h"
#include "gateway/policy/side.h"
#include "tests/fake/fake.h"

#define S2S(name, port, more)                                                                      \
    "{ name = \"" name "\"; protocol = \"s2s\"; address = \"127.0.0.2:5269\"; "                    \
    "listen = [\"127.0.0.1:" port "\"]; " more "}"

static const char text[] =
    "security_mode = \"tls-required\"; privacy_mode = \"allow-list\";"
    "peers = ({ domain = \"beta.lab\"; policy = \"allow\"; security_mode = \"no-tls\"; });"
    "domains = ({ name = \"alpha.lab\"; subdomains = true; }, { name = \"im.alpha.lab\"; },"
    "           { name = \"gamma.lab\"; }, { name = \"delta.lab\"; subdomains = true; });"
    "links = ("
    /* clang-format off */
    S2S("all", "7400", "") ","
    S2S("alpha", "7401", "domains = [\"alpha.lab\"]; security_mode = \"no-tls\";") ","
    S2S("some", "7402", "domains = [\"gamma.lab\", \"muc.delta.lab\"];"
                        "security_mode = \"tls-required\";")
    /* clang-format on */
    ");";

static struct gateway_config *cfg;

static int make_config(void **state)
{
    (void)state;
    cfg = fake_config(text);
    return cfg == NULL;
}

static int free_config(void **state)
{
    (void)state;
    gateway_config_unref(cfg);
    return 0;
}

/* NULL: the world. */
static struct side side(const char *link)
{
    for (size_t i = 0; link != NULL && i < cfg->nlinks; i++)
        if (strcmp(cfg->links[i].name, link) == 0)
            return (struct side){.cfg = cfg, .link = &cfg->links[i]};
    assert_null(link);
    return (struct side){.cfg = cfg};
}

static void test_names(void **state)
{
    (void)state;
    static const char *const links[] = {NULL, "all", "alpha", "some"};
    /* Served as `to` (S), admitted as `from` (A), one letter per link. */
    static const struct {
        const char *name, *serves, *admits;
    } rows[] = {
        {"beta.lab", "-SSS", "A---"}, /* remote */
        {"lab", "-SSS", "A---"},
        {"xalpha.lab", "-SSS", "A---"},  /* whole labels */
        {"x.gamma.lab", "-SSS", "A---"}, /* no subdomains there */
        {"alpha.lab", "S---", "-AA-"},
        {"a.b.alpha.lab", "S---", "-AA-"},
        {"im.alpha.lab", "S---", "-A--"},   /* a domain of its own, and not of that link */
        {"x.im.alpha.lab", "S---", "-AA-"}, /* below alpha.lab all the same */
        {"gamma.lab", "S---", "-A-A"},
        {"delta.lab", "S---", "-A--"}, /* the link has a part of it */
        {"muc.delta.lab", "S---", "-A-A"},
        {"x.muc.delta.lab", "S---", "-A-A"},
        {"xmuc.delta.lab", "S---", "-A--"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t k = 0; k < 4; k++) {
            struct side s = side(links[k]);
            struct str name = str_c(rows[i].name);
            if (side_serves(&s, name) != (rows[i].serves[k] == 'S') ||
                side_admits(&s, name) != (rows[i].admits[k] == 'A'))
                fail_msg("\"%s\" on %s", rows[i].name, links[k] ? links[k] : "the world");
        }
}

/* Nobody is both: no name may stand on either end of one stream. */
static void test_never_both(void **state)
{
    (void)state;
    static const char *const names[] = {"beta.lab",  "alpha.lab",     "im.alpha.lab",
                                        "gamma.lab", "muc.delta.lab", "x.y"};
    static const char *const links[] = {NULL, "all", "alpha", "some"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (size_t k = 0; k < 4; k++) {
            struct side s = side(links[k]);
            assert_false(side_serves(&s, str_c(names[i])) && side_admits(&s, str_c(names[i])));
        }
}

/* Inside, policy waits for the stanza: its answer can say what is wrong. */
static void test_pair(void **state)
{
    (void)state;
    struct side world = side(NULL), inside = side("all");
    const struct str alpha = STR("alpha.lab");
    assert_int_equal(side_pair(&world, alpha, STR("beta.lab"), WAY_EITHER).verdict, POLICY_ALLOW);
    struct policy_decision d = side_pair(&world, alpha, STR("other.lab"), WAY_EITHER);
    assert_int_equal(d.verdict, POLICY_DENY);
    assert_string_equal(d.rule, "not on the allow list");
    d = side_pair(&inside, STR("other.lab"), alpha, WAY_EITHER);
    assert_int_equal(d.verdict, POLICY_ALLOW);
    assert_non_null(d.rule);
    struct gateway_config *off = fake_config("federation = false;");
    assert_non_null(off);
    world.cfg = inside.cfg = off;
    inside.link = &off->links[0];
    assert_int_equal(side_pair(&world, alpha, STR("beta.lab"), WAY_EITHER).verdict, POLICY_OFF);
    assert_int_equal(side_pair(&inside, STR("beta.lab"), alpha, WAY_EITHER).verdict, POLICY_ALLOW);
    gateway_config_unref(off);
}

static void test_security(void **state)
{
    (void)state;
    struct side world = side(NULL), all = side("all"), alpha = side("alpha"), some = side("some");
    assert_int_equal(side_security(&world, STR("beta.lab")), SECURITY_NO_TLS);
    assert_int_equal(side_security(&world, STR("other.lab")), SECURITY_TLS_REQUIRED);
    assert_int_equal(side_security(&world, STR_NONE), SECURITY_TLS_REQUIRED);
    /* The link decides, whatever a peer entry says. */
    assert_int_equal(side_security(&all, STR("beta.lab")), SECURITY_TLS_OPTIONAL);
    assert_int_equal(side_security(&all, STR_NONE), SECURITY_TLS_OPTIONAL);
    assert_int_equal(side_security(&alpha, STR("alpha.lab")), SECURITY_NO_TLS);
    assert_int_equal(side_security(&some, STR("gamma.lab")), SECURITY_TLS_REQUIRED);
    /* Where certificates prove the peer there is no way around them. */
    struct cfg_link tls = *all.link;
    tls.auth = LINK_AUTH_TLS;
    struct side by_tls = {.cfg = cfg, .link = &tls};
    assert_int_equal(side_security(&by_tls, STR("alpha.lab")), SECURITY_TLS_REQUIRED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_never_both),
        cmocka_unit_test(test_pair),
        cmocka_unit_test(test_security),
    };
    return cmocka_run_group_tests(tests, make_config, free_config);
}
