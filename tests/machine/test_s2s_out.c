/* An outgoing stream: what transcripts (tests/replay) do not show. Every event in every state, when
 * stanzas may go, how much one stream remembers. */
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
#define EXTERNAL                                                                                   \
    "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"                       \
    "<mechanism>EXTERNAL</mechanism></mechanisms></stream:features>"
#define VALID "<db:result from='beta.lab' to='alpha.lab' type='valid'/>"

static struct gateway_config *cfg;

static int make_config(void **state)
{
    (void)state;
    cfg = fake_config("security_mode = \"tls-optional\";");
    return cfg == NULL;
}

static int free_config(void **state)
{
    (void)state;
    gateway_config_unref(cfg);
    return 0;
}

static void say(struct stage *s, const char *text)
{
    stage_peer(s, str_c(stage_turn(s, text)), 0);
}

static void prepare(struct stage *s, unsigned state)
{
    static const char *const step[] = {OPEN, OFFER, PROCEED, NULL, OPEN, EXTERNAL};
    if (state == S2S_OUT_RESTING) {
        stage_kind(s, EV_LOST, "gone");
    } else if (state == S2S_OUT_READY || state == S2S_OUT_CLOSING) {
        if (s->where.certificates) {
            say(s, OPEN OFFER PROCEED);
            stage_tls_up(s, STAGE_CERT_KNOWN);
        }
        say(s, OPEN NO_OFFER);
        stage_want_pair(s, s->out.local);
        stage_want_verify(s, s->out.local, "i", "k");
        if (state == S2S_OUT_CLOSING)
            stage_kind(s, EV_DRAIN, "stop");
    } else {
        for (unsigned i = 0; i < state; i++) /* the states follow each other */
            if (step[i] != NULL)
                say(s, step[i]);
            else
                stage_tls_up(s, STAGE_CERT_KNOWN);
    }
}

static void test_total(void **state)
{
    (void)state;
    for (unsigned n = 0; n < STAGE_SIDES * S2S_OUT_STATE_COUNT; n++) {
        unsigned side = n / S2S_OUT_STATE_COUNT, s = n % S2S_OUT_STATE_COUNT;
        if (side != 0 && s == S2S_OUT_AUTH)
            continue; /* SASL is for the world */
        const char *wrong = stage_try_all(&stage_sides[side], true, cfg, prepare, s);
        if (wrong != NULL)
            fail_msg("side %u, %s: %s", side, s2s_out_state_name((enum s2s_out_state)s), wrong);
    }
}

/* Stanzas go only for a valid pair, on a ready stream that refused nobody. */
static void test_valid(void **state)
{
    (void)state;
    struct stage s;
    const struct str alpha = STR("alpha.lab");
    assert_true(stage_open(&s, true, cfg, "alpha.lab", "beta.lab", 1));
    stage_want_pair(&s, "alpha.lab");
    assert_false(s2s_out_valid(&s.out, alpha, str_c(s.out.remote)));
    say(&s, OPEN NO_OFFER);
    assert_false(s2s_out_valid(&s.out, alpha, str_c(s.out.remote)));
    say(&s, VALID);
    assert_true(s2s_out_valid(&s.out, alpha, str_c(s.out.remote)));
    assert_false(s2s_out_valid(&s.out, STR("gamma.lab"), str_c(s.out.remote)));
    stage_want_pair(&s, "gamma.lab");
    say(&s, "<db:result from='beta.lab' to='gamma.lab' type='invalid'/>");
    assert_false(
        s2s_out_valid(&s.out, alpha, str_c(s.out.remote))); /* nothing new on this stream */
    stage_close(&s);

    assert_true(stage_open(&s, true, cfg, "alpha.lab", "beta.lab", 1));
    say(&s, OPEN NO_OFFER);
    stage_want_pair(&s, "alpha.lab");
    say(&s, VALID);
    stage_kind(&s, EV_DRAIN, "stop");
    assert_false(s2s_out_valid(&s.out, alpha, str_c(s.out.remote)));
    stage_close(&s);
}

/* A stream that is written to is not idle. */
static void test_touch(void **state)
{
    (void)state;
    struct stage s;
    assert_true(stage_open(&s, true, cfg, "alpha.lab", "beta.lab", 1));
    say(&s, OPEN NO_OFFER);
    stage_want_pair(&s, "alpha.lab");
    say(&s, VALID);
    for (int i = 0; i < 5; i++) {
        stage_time(&s, cfg->timeouts.idle - 60000);
        s2s_out_touch(&s.out, s.fake.now);
        stage_forget(&s);
    }
    assert_int_equal(stage_state(&s), S2S_OUT_READY);
    stage_time(&s, cfg->timeouts.idle + 60000);
    assert_int_equal(stage_state(&s), S2S_OUT_RESTING);
    stage_close(&s);
}

/* More questions than one stream remembers are answered at once; silence frees their places. */
static void test_many_questions(void **state)
{
    (void)state;
    struct stage s;
    char id[16];
    assert_true(stage_open(&s, true, cfg, "alpha.lab", "beta.lab", 1));
    say(&s, OPEN NO_OFFER);
    stage_want_pair(&s, "alpha.lab");
    say(&s, VALID);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < S2S_OUT_VERIFY_MAX; i++) {
            stage_forget(&s);
            snprintf(id, sizeof id, "i%d", i);
            stage_want_verify(&s, "alpha.lab", id, "k");
            assert_int_equal(s.nlines, 1);
            assert_memory_equal(s.lines[0], "SEND", 4);
        }
        stage_want_verify(&s, "alpha.lab", "more", "k");
        assert_string_equal(s.lines[1], "ANSWERED alpha.lab more resource-constraint");
        stage_time(&s, cfg->dialback.timeout); /* nobody answers */
        assert_int_equal(s.out.verify.count, 0);
    }
    assert_null(s.wrong);
    stage_close(&s);
}

/* Wishes before READY, in any number, are all said once answers come. */
static void test_many_wishes(void **state)
{
    (void)state;
    struct stage s;
    char xml[256];
    assert_true(stage_open(&s, true, cfg, "alpha.lab", "beta.lab", 1));
    for (int i = 0; i < 40; i++) {
        snprintf(xml, sizeof xml, "i%d", i);
        stage_want_verify(&s, "alpha.lab", xml, "k");
    }
    say(&s, OPEN NO_OFFER);
    for (int i = 0; i < 40; i++) {
        stage_forget(&s);
        snprintf(xml, sizeof xml,
                 "<db:verify from='beta.lab' to='alpha.lab' id='i%d' type='valid'/>", i);
        say(&s, xml);
        snprintf(xml, sizeof xml, "ANSWERED alpha.lab i%d valid", i);
        assert_string_equal(s.lines[0], xml);
    }
    assert_int_equal(stage_state(&s), S2S_OUT_CLOSING); /* it only asked */
    assert_null(s.wrong);
    stage_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_total),       cmocka_unit_test(test_valid),
        cmocka_unit_test(test_touch),       cmocka_unit_test(test_many_questions),
        cmocka_unit_test(test_many_wishes),
    };
    return cmocka_run_group_tests(tests, make_config, free_config);
}
