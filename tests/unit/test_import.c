/* Importers of other servers' configurations, and the firewall sheet. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "config/flows.h"
#include "core/base/mem.h"
#include "tests/fake/import_check.h"

struct imported {
    struct buf text, why;
    struct gateway_config *c; /* NULL: refused */
};

static struct imported import(const char *dialect, const char *in)
{
    struct imported r = {BUF_INIT(IMPORT_TEXT_MAX), BUF_INIT(4096), NULL};
    r.c = import_check(dialect, str_c(in), &r.text, &r.why);
    return r;
}

static void done(struct imported *r)
{
    gateway_config_unref(r->c);
    buf_free(&r->text);
    buf_free(&r->why);
}

static bool says(const struct imported *r, const char *words)
{
    return r->text.len > 0 && strstr(r->text.p, words) != NULL;
}

static const struct cfg_peer *peer(const struct imported *r, const char *pattern)
{
    for (size_t i = 0; i < r->c->npeers; i++)
        if (strcmp(r->c->peers[i].pattern, pattern) == 0)
            return &r->c->peers[i];
    fail_msg("no peer %s in %s", pattern, r->text.p);
    return NULL;
}

/* ---- Prosody --------------------------------------------------------------------------------- */

static void test_prosody(void **state)
{
    (void)state;
    struct imported r =
        import("prosody",
               "modules_enabled = { 'tls', \"dialback\"; 's2s_whitelist' }\n"
               "s2s_whitelist = { 'good.example', [ [==[set.example]==] ] = true }\n"
               "s2s_require_encryption = false s2s_ports = { 15269 }\n"
               "s2s_interfaces = { '192.0.2.1' } component_interfaces = { '10.0.0.5' }\n"
               "dialback_secret = 'hush' s2s_timeout = 40\n"
               "s2s_connect_overrides = { ['r.example'] = { '192.0.2.7', 5270 } }\n"
               "VirtualHost 'alpha.example'\n ssl = { certificate = '/a.crt', key = '/a.key' }\n"
               "VirtualHost ('localhost')\n"
               "Component 'rooms.alpha.example' 'muc'\n");
    assert_non_null(r.c);
    assert_int_equal(r.c->ndomains, 2);
    assert_string_equal(r.c->domains[0].name, "alpha.example");
    assert_string_equal(r.c->domains[1].name, "rooms.alpha.example");
    assert_int_equal(r.c->security_mode, SECURITY_TLS_OPTIONAL);
    assert_int_equal(r.c->privacy_mode, PRIVACY_ALLOW_LIST);
    assert_int_equal(peer(&r, "good.example")->policy, PEER_ALLOW);
    assert_int_equal(peer(&r, "set.example")->policy, PEER_ALLOW);
    assert_int_equal(peer(&r, "r.example")->nroute, 1);
    assert_string_equal(peer(&r, "r.example")->route[0], "192.0.2.7:5270");
    assert_string_equal(r.c->listen.s2s[0], "192.0.2.1:15269");
    assert_string_equal(r.c->links[0].address, "10.0.0.5:5347");
    assert_int_equal(r.c->timeouts.auth, 40000);
    assert_non_null(r.c->dialback.secret_file);
    assert_true(says(&r, "certificate = \"/a.crt\"; key = \"/a.key\""));
    assert_false(says(&r, "hush"));
    done(&r);
}

static void test_prosody_modes(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        int mode;
        bool federation;
    } cases[] = {
        {"", SECURITY_TLS_REQUIRED, true},
        {"s2s_require_encryption = false", SECURITY_TLS_OPTIONAL, true},
        {"modules_enabled = { 'dialback' }", SECURITY_NO_TLS, true},
        {"modules_disabled = { 's2s' }", SECURITY_TLS_REQUIRED, false},
        /* nobody could be proven that way */
        {"modules_enabled = { 'tls' } modules_disabled = { 'tls' }", SECURITY_TLS_REQUIRED, true},
        {"modules_enabled = { 'dialback' } s2s_secure_domains = { 'x.lab' }", SECURITY_NO_TLS,
         true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct imported r = import("prosody", cases[i].in);
        assert_non_null(r.c);
        assert_int_equal(r.c->security_mode, cases[i].mode);
        assert_int_equal(r.c->federation, cases[i].federation);
        assert_int_equal(r.c->privacy_mode, PRIVACY_OFF);
        done(&r);
    }
}

/* Code is passed over with its line; what stands behind it is read. */
static void test_prosody_code(void **state)
{
    (void)state;
    static const struct {
        const char *code, *remark;
    } cases[] = {
        {"local x = 1", "in:1: not understood"},
        {"if a then\n VirtualHost 'wrong.example'\nend", "in:1: not understood"},
        {"local function f()\n if x then return {} end\nend", "in:1: not understood"},
        {"s2s_timeout = 60 * 2", "in:1: s2s_timeout is computed"},
        {"s2s_timeout = os.getenv('T') or 5", "in:1: s2s_timeout is computed"},
        {"admins = { 'a', f(), g { 1, 2 } }", "in:1: an entry of this table is computed"},
        {"modules_enabled += { 'x' }", "in:1: not understood"},
        {"Include 'conf.d/*.lua'", "in:1: Include \"conf.d/*.lua\" is not followed"},
        {"--[[ a\nlong comment ]] x = nil\ny = \"open", "in:3: y is computed"},
        {"VirtualHost(name)", "in:1: the name of this host is computed"},
        {"= = ) ] }", "in:1: not understood"},
        {"word", "in:1: not understood"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char in[400];
        snprintf(in, sizeof in, "%s\nVirtualHost 'alpha.example'\n", cases[i].code);
        struct imported r = import("prosody", in);
        assert_non_null(r.c);
        if (!says(&r, cases[i].remark))
            fail_msg("%s\n%s", cases[i].code, r.text.p);
        assert_string_equal(r.c->domains[0].name, "alpha.example");
        assert_int_equal(r.c->ndomains, 1);
        done(&r);
    }
}

/* ---- ejabberd -------------------------------------------------------------------------------- */

static void test_ejabberd(void **state)
{
    (void)state;
    struct imported r =
        import("ejabberd", "hosts: [alpha.example, \"b\\u00fccher.example\"]\n"
                           "define_macro: {'T': 20 seconds, 'O': [no_tlsv1_2]}\n"
                           "s2s_use_starttls: optional\n"
                           "s2s_protocol_options: 'O'\n"
                           "outgoing_s2s_timeout: 'T'\n"
                           "listen:\n"
                           "  -\n    port: 5269\n    ip: '::'\n    module: ejabberd_s2s_in\n"
                           "  - {port: 8888, ip: 10.0.0.5, module: ejabberd_service}\n"
                           "modules: {mod_s2s_dialback: {}, mod_muc: {}}\n");
    assert_non_null(r.c);
    assert_string_equal(r.c->domains[1].name, "xn--bcher-kva.example");
    assert_true(r.c->domains[0].subdomains);
    assert_int_equal(r.c->security_mode, SECURITY_TLS_OPTIONAL);
    assert_int_equal(r.c->tls.minimum, 0x0304);
    assert_int_equal(r.c->timeouts.connect, 20000);
    assert_int_equal(r.c->listen.ns2s, 2);
    assert_string_equal(r.c->links[0].address, "10.0.0.5:8888");
    assert_int_equal(r.c->privacy_mode, PRIVACY_OFF);
    done(&r);
}

static void test_ejabberd_access(void **state)
{
    (void)state;
    static const char acl[] = "acl:\n  one: {server: [a.example, b.example]}\n"
                              "  glob: {server_glob: '*.c.example'}\n"
                              "  odd: {server_glob: 'x*y', user: z}\n";
    static const struct {
        const char *rules;
        int mode;
        const char *peer;
        int policy;
    } cases[] = {
        {"s2s_access: all", PRIVACY_OFF, NULL, 0},
        {"s2s_access: none", PRIVACY_ALLOW_LIST, NULL, 0},
        {"s2s_access: s\naccess_rules: {s: {deny: one, allow: all}}", PRIVACY_DENY_LIST,
         "b.example", PEER_DENY},
        {"s2s_access: s\naccess_rules: {s: [{allow: glob}, deny]}", PRIVACY_ALLOW_LIST,
         "*.c.example", PEER_ALLOW},
        {"s2s_access: [{deny: [{server: d.example}]}, allow]", PRIVACY_DENY_LIST, "d.example",
         PEER_DENY},
        {"s2s_access: s\naccess_rules: {s: [allow, {deny: one}]}", PRIVACY_DENY_LIST, NULL, 0},
        {"s2s_access: s\naccess_rules: {s: [{allow: odd}]}", PRIVACY_ALLOW_LIST, NULL, 0},
        {"s2s_access: missing", PRIVACY_ALLOW_LIST, NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char in[600];
        snprintf(in, sizeof in, "hosts: [alpha.example]\n%s%s\n", acl, cases[i].rules);
        struct imported r = import("ejabberd", in);
        assert_non_null(r.c);
        assert_int_equal(r.c->privacy_mode, cases[i].mode);
        if (cases[i].peer != NULL)
            assert_int_equal(peer(&r, cases[i].peer)->policy, cases[i].policy);
        else
            assert_int_equal(r.c->npeers, 0);
        done(&r);
    }
}

/* ---- jabberd2, Expressway -------------------------------------------------------------------- */

static void test_jabberd2(void **state)
{
    (void)state;
    static const struct import_source files[] = {
        {"s2s.xml", STR("<s2s><router><ip>10.0.0.9</ip><port>5348</port><user>edge</user>"
                        "<pass>hush</pass></router><local><ip>0.0.0.0</ip><port>5270</port>"
                        "<secret>hush</secret></local><security><require_tls/><enable_whitelist/>"
                        "<whitelist_domain> good.example </whitelist_domain></security></s2s>")},
        {"sm.xml", STR("<sm><local><id>alpha.example</id><id>beta.example</id></local></sm>")}};
    struct buf out = BUF_INIT(IMPORT_TEXT_MAX), why = BUF_INIT(4096);
    assert_true(import_convert("jabberd2", files, 2, &out, &why));
    static const char *const expected[] = {"{ name = \"alpha.example\"; },",
                                           "{ name = \"beta.example\"; }\n",
                                           "security_mode = \"tls-required\"",
                                           "privacy_mode = \"allow-list\"",
                                           "{ domain = \"good.example\"; policy = \"allow\"; }",
                                           "protocol = \"jabberd2\"; address = \"10.0.0.9:5348\"",
                                           "user = \"edge\"",
                                           "dialback = { secret_file",
                                           "s2s = [\"0.0.0.0:5270\"]",
                                           "s2s.xml:1: put <pass>"};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        if (strstr(out.p, expected[i]) == NULL)
            fail_msg("%s is not in\n%s", expected[i], out.p);
    assert_null(strstr(out.p, "hush"));
    buf_free(&out);
    buf_free(&why);
}

static void test_expressway(void **state)
{
    (void)state;
    struct imported r =
        import("expressway", "*c xConfiguration Domains Domain 1 Name: \"alpha.example\"\r\n"
                             "Security mode: No TLS\n"
                             "xConfiguration XCP Config PrivacyMode: \"Deny list\"\n"
                             "Use static routes\tOn\n"
                             "xConfiguration XCP Config DialbackSecret: \"hush\"\n"
                             "xConfiguration XCP StaticRoute 2 Domain: \"r.example\"\n"
                             "xConfiguration XCP StaticRoute 1 Address: \"192.0.2.1\"\n"
                             "xConfiguration XCP StaticRoute 2 Address: \"192.0.2.2\"\n"
                             "xConfiguration XCP DenyList 1 Domain: \"bad.example\"\n"
                             "xConfiguration IP DNS Server 1 Address: \"10.0.0.53\"\n"
                             "xConfiguration XCP Config Strange: 7\n"
                             "XMPP federation support: Off\n");
    assert_non_null(r.c);
    assert_string_equal(r.c->domains[0].name, "alpha.example");
    assert_int_equal(r.c->security_mode, SECURITY_NO_TLS);
    assert_int_equal(r.c->privacy_mode, PRIVACY_DENY_LIST);
    assert_true(r.c->use_static_routes);
    assert_false(r.c->federation);
    assert_string_equal(peer(&r, "r.example")->route[0], "192.0.2.2:5269");
    assert_int_equal(peer(&r, "bad.example")->policy, PEER_DENY);
    assert_string_equal(r.c->dns.servers[0], "10.0.0.53:53");
    assert_true(says(&r, "in:11: not known: xcpconfigstrange"));
    assert_false(says(&r, "hush"));
    done(&r);
}

/* ---- hostile --------------------------------------------------------------------------------- */

static char *repeated(const char *part, size_t n)
{
    size_t len = strlen(part);
    char *all = mem_alloc(n * len + 1);
    assert_non_null(all);
    for (size_t i = 0; i < n; i++)
        memcpy(all + i * len, part, len);
    all[n * len] = '\0';
    return all;
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *dialect, *in, *why;
    } cases[] = {
        {"jabberd2", "", "in:1: "},
        {"jabberd2", "<s2s><local></s2s>", "in:1: mismatched tag"},
        {"jabberd2", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "in:1: a document type"},
        {"ejabberd", "a: [b", "did not find expected"},
        {"ejabberd", "a: b\n? [c]\n: d\n", "in:2: a key that is no text"},
        {"openfire", "", "cannot import from 'openfire'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct imported r = import(cases[i].dialect, cases[i].in);
        assert_null(r.c);
        assert_non_null(strstr(r.why.p, cases[i].why));
        done(&r);
    }
}

static void test_depth(void **state)
{
    (void)state;
    static const struct {
        const char *dialect, *part;
        bool refused;
    } cases[] = {{"prosody", "x={", false},
                 {"prosody", "{", false},
                 {"prosody", "--[==[", false},
                 {"prosody", "f(function() ", false},
                 {"ejabberd", "[", true},
                 {"ejabberd", "- ", true},
                 {"ejabberd", "{a: ", true},
                 {"jabberd2", "<a>", true},
                 {"expressway", "a:\n", false},
                 {"prosody", "a={1+1,1,}\n", false},
                 {"prosody", "VirtualHost 'a.example' x=1\n", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *in = repeated(cases[i].part, 3000);
        struct imported r = import(cases[i].dialect, in);
        assert_int_equal(r.c == NULL, cases[i].refused);
        done(&r);
        mem_free(in);
    }
}

static const char *const samples[][2] = {
    {"prosody", "modules_enabled = { 'tls' } s2s_insecure_domains = { 'a.example' }\n"
                "VirtualHost 'x.example' ssl = { key = 'k' }\nlocal y = 1\n"},
    {"ejabberd", "hosts: [x.example]\nacl: {b: {server: a.example}}\n"
                 "s2s_access: [{deny: b}, allow]\n"},
    {"jabberd2", "<s2s><security><whitelist_domain>a.example</whitelist_domain></security></s2s>"},
    {"expressway", "Static route 1 domain: a.example\nStatic route 1 address: h.example\n"},
};

/* Each piece of a file gives a configuration, or a reason. */
static void test_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        for (size_t n = 0; n <= strlen(samples[i][1]); n++) {
            struct imported r = {BUF_INIT(IMPORT_TEXT_MAX), BUF_INIT(4096), NULL};
            r.c = import_check(samples[i][0], (struct str){samples[i][1], n}, &r.text, &r.why);
            done(&r);
        }
    }
}

static void test_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct import_source s = {"in", str_c(samples[i][1])};
        bool ok = false;
        for (unsigned long n = 1; !ok; n++) {
            struct buf out = BUF_INIT(IMPORT_TEXT_MAX), why = BUF_INIT(4096);
            mem_fail_after(n);
            ok = import_convert(samples[i][0], &s, 1, &out, &why);
            mem_fail_after(0);
            ok = ok && !out.failed;
            assert_true(n < 5000);
            buf_free(&out);
            buf_free(&why);
        }
    }
}

/* ---- the firewall sheet ---------------------------------------------------------------------- */

static void put_flow(void *arg, const char *event, const struct kv *kv, size_t n)
{
    (void)event;
    for (size_t i = 0; i + 1 < n; i++)
        buf_printf(arg, "%s%.*s", i ? " " : "", STR_ARG(kv[i].s));
    buf_putc(arg, '\n');
}

#define LINK_S2S                                                                                   \
    "links = ({ name = \"core\"; protocol = \"s2s\"; address = \"10.0.0.5:5270\"; "                \
    "listen = [\"10.0.0.1:5271\"]; });\ndomains = ({ name = \"alpha.lab\"; });\n"
#define LINK_FLOWS "out tcp gateway 10.0.0.5 5270\nin tcp inside 10.0.0.1 5271\n"

static void test_flows(void **state)
{
    (void)state;
    static const struct {
        const char *config, *flows;
    } cases[] = {
        {"federation = false;", LINK_FLOWS},
        {"privacy_mode = \"off\"; listen = { s2s = [\"[::]:5269\", \"192.0.2.1:5269\"]; };",
         "in tcp any gateway (any IPv6) 5269\nin tcp any 192.0.2.1 5269\n"
         "out tcp gateway any 5269\nout tcp gateway any SRV\n"
         "out udp gateway 127.0.0.53 53\nout tcp gateway 127.0.0.53 53\n" LINK_FLOWS},
        /* Nobody is dialled but by a route with an address: no names are looked up. */
        {"listen = { s2s = []; }; peers = ({ domain = \"r.lab\"; route = \"192.0.2.7:5270\"; },"
         "{ domain = \"d.lab\"; route = \"192.0.2.8:5270\"; policy = \"deny\"; });",
         "out tcp gateway 192.0.2.7 5270\n" LINK_FLOWS},
        {"listen = { s2s = []; }; use_static_routes = false;"
         "peers = ({ domain = \"r.lab\"; route = \"192.0.2.7:5270\"; });",
         LINK_FLOWS},
        {"listen = { s2s = []; }; outbound = { source = [\"192.0.2.1\", \"2001:db8::1\"]; };"
         "dns = { servers = [\"[2001:db8::53]:5353\"]; };"
         "peers = ({ domain = \"r.lab\"; route = \"192.0.2.7:5270\"; },"
         "{ domain = \"n.lab\"; route = \"host.lab:5269\"; });",
         "out tcp 192.0.2.1 192.0.2.7 5270\nout tcp 192.0.2.1 host.lab 5269\n"
         "out tcp 2001:db8::1 host.lab 5269\nout udp gateway 2001:db8::53 5353\n"
         "out tcp gateway 2001:db8::53 5353\n" LINK_FLOWS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf text = BUF_INIT(65536), errors = BUF_INIT(65536), out = BUF_INIT(65536);
        buf_printf(&text, "%s\n%s", cases[i].config, LINK_S2S);
        struct gateway_config *c = gateway_config_parse("/tmp/x.conf", buf_view(&text), &errors);
        if (c == NULL)
            fail_msg("%s", errors.p);
        flows_list(c, STR("# no\nnameserver\nnameserver 127.0.0.53\noptions x\n"),
                   &(struct kv_sink){put_flow, &out});
        assert_string_equal(out.p, cases[i].flows);
        gateway_config_unref(c);
        buf_free(&text);
        buf_free(&errors);
        buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prosody),         cmocka_unit_test(test_prosody_modes),
        cmocka_unit_test(test_prosody_code),    cmocka_unit_test(test_ejabberd),
        cmocka_unit_test(test_ejabberd_access), cmocka_unit_test(test_jabberd2),
        cmocka_unit_test(test_expressway),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),           cmocka_unit_test(test_cut),
        cmocka_unit_test(test_memory),          cmocka_unit_test(test_flows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
