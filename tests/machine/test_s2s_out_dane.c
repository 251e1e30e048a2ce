/* An outgoing stream to a target of which DNSSEC knows something: when it is spoken to, and what is
 * demanded of it, by auth, security mode and what its certificate is worth. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "tests/fake/stage.h"

#define OPEN                                                                                       \
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "        \
    "xmlns:db='jabber:server:dialback' from='beta.lab' to='alpha.lab' id='s' version='1.0'>"
#define TLS      "xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
#define OFFER    "<stream:features><starttls " TLS "/></stream:features>"
#define PROCEED  "<proceed " TLS "/>"
#define NO_OFFER "<stream:features/>"
#define DNS      "dns = { servers = [\"127.0.0.1:53\"]; trust_ad = true; };"
#define OPTIONAL "security_mode = \"tls-optional\";"

struct scene {
    struct stage s;
    struct gateway_config *cfg;
    struct dane_target *target;
};

static void begin(struct scene *c, const char *config, bool tlsa)
{
    struct tlsa record = {3, 1, 1, 32, {0}};
    c->cfg = fake_config(config);
    c->target = dane_target_new(STR("h.lab"));
    assert_true(c->cfg != NULL && c->target != NULL);
    if (tlsa)
        assert_true(dane_target_set(c->target, &record, 1));
    assert_true(stage_open(&c->s, true, c->cfg, "alpha.lab", "beta.lab", 1));
    c->s.out.target = c->target;
}

static void end(struct scene *c)
{
    stage_close(&c->s);
    dane_target_free(c->target);
    gateway_config_unref(c->cfg);
}

static void shake(struct scene *c, enum tls_dane dane)
{
    static const struct tls_name name = {TLS_NAME_DNS, "other.lab"};
    c->s.tls = (struct tls_peer){.protocol = "TLSv1.3",
                                 .has_certificate = true,
                                 .why = "self-signed",
                                 .names = &name,
                                 .nnames = 1,
                                 .dane = dane,
                                 .dane_why = "it matches none of them"};
    stage_peer(&c->s, STR(OPEN OFFER PROCEED), 0);
    assert_int_equal(stage_state(&c->s), S2S_OUT_HANDSHAKE);
    c->s.handshaking = false;
    stage_event(&c->s, (struct gw_event){.kind = EV_TLS_UP, .u.tls = &c->s.tls});
}

static void test_certificate(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        bool tlsa;
        enum tls_dane dane;
        enum s2s_out_state state;
        bool proven, by_dane;
    } row[] = {
        {DNS "auth = [\"external\"];", true, TLS_DANE_KEY, S2S_OUT_TLS_HEADER, true, true},
        {DNS "auth = [\"external\"];", true, TLS_DANE_MISMATCH, S2S_OUT_RESTING, false, false},
        {DNS "auth = [\"external\"];", true, TLS_DANE_UNUSABLE, S2S_OUT_RESTING, false, false},
        {DNS "auth = [\"external\"];", false, TLS_DANE_NONE, S2S_OUT_RESTING, false, false},
        /* Dialback makes up for a certificate that proves nothing, not for one that is denied. */
        {DNS, true, TLS_DANE_KEY, S2S_OUT_TLS_HEADER, true, true},
        {DNS, true, TLS_DANE_MISMATCH, S2S_OUT_RESTING, false, false},
        {DNS, true, TLS_DANE_AUTHORITY, S2S_OUT_RESTING, false, false}, /* the name */
        {DNS, true, TLS_DANE_UNUSABLE, S2S_OUT_TLS_HEADER, false, false},
        {DNS, false, TLS_DANE_NONE, S2S_OUT_TLS_HEADER, false, false},
        {DNS "auth = [\"dialback\"];", true, TLS_DANE_MISMATCH, S2S_OUT_RESTING, false, false},
        /* Where nobody trusts the resolver there is nothing to know. */
        {"auth = [\"external\"];", true, TLS_DANE_KEY, S2S_OUT_RESTING, false, false},
        {"", true, TLS_DANE_MISMATCH, S2S_OUT_TLS_HEADER, false, false},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct scene c;
        begin(&c, row[i].config, row[i].tlsa);
        shake(&c, row[i].dane);
        if (stage_state(&c.s) != row[i].state || c.s.out.proven != row[i].proven ||
            c.s.out.by_dane != row[i].by_dane)
            fail_msg("row %zu: %s, %s", i,
                     s2s_out_state_name((enum s2s_out_state)stage_state(&c.s)), c.s.out.why);
        if (c.s.wrong != NULL)
            fail_msg("row %zu: %s", i, c.s.wrong);
        end(&c);
    }
}

/* Who publishes TLSA records, usable ones or not, is not spoken to in clear. */
static void test_in_clear(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        bool tlsa;
        enum s2s_out_state state;
    } row[] = {
        {DNS OPTIONAL, true, S2S_OUT_RESTING},
        {DNS OPTIONAL, false, S2S_OUT_READY},
        {OPTIONAL, true, S2S_OUT_READY},
        {DNS "security_mode = \"no-tls\";", true, S2S_OUT_READY}, /* the operator's own wish */
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct scene c;
        begin(&c, row[i].config, row[i].tlsa);
        stage_peer(&c.s, STR(OPEN NO_OFFER), 0);
        if (stage_state(&c.s) != row[i].state)
            fail_msg("row %zu: state %u", i, stage_state(&c.s));
        end(&c);
    }
}

/* A reload that ends the trust ends what was proven by it. */
static void test_trust_ends(void **state)
{
    (void)state;
    struct scene c;
    struct gateway_config *off = fake_config("auth = [\"external\"];");
    begin(&c, DNS "auth = [\"external\"];", true);
    shake(&c, TLS_DANE_KEY);
    stage_peer(&c.s,
               STR(OPEN "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/>"
                        "</stream:features>"),
               0);
    assert_int_equal(stage_state(&c.s), S2S_OUT_READY);
    stage_config(&c.s, c.cfg);
    assert_int_equal(stage_state(&c.s), S2S_OUT_READY);
    stage_config(&c.s, off);
    assert_int_not_equal(stage_state(&c.s), S2S_OUT_READY);
    assert_true(c.s.out.reset);
    end(&c);
    gateway_config_unref(off);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_in_clear),
        cmocka_unit_test(test_trust_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
