/* An incoming stream: what transcripts (tests/replay) do not show. Every event in every state,
 * deadlines given to questions, the environment failing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "tests/fake/stage.h"

#define OPEN                                                                                       \
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "        \
    "xmlns:db='jabber:server:dialback' from='beta.lab' to='alpha.lab' version='1.0'>"
#define RESULT   "<db:result from='beta.lab' to='alpha.lab'>k</db:result>"
#define STARTTLS "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"

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

/* The states, on any side. */
static void prepare(struct stage *s, unsigned state)
{
    bool asks = !s->where.certificates && !s->where.trusted_address;
    switch ((enum s2s_in_state)state) {
    case S2S_IN_ACCEPTED:
        return;
    case S2S_IN_RESTING:
        stage_kind(s, EV_LOST, "gone");
        return;
    case S2S_IN_CLEAR:
    case S2S_IN_CLOSING:
        if (s->where.certificates && state == S2S_IN_CLOSING) {
            say(s, OPEN STARTTLS);
            stage_tls_up(s, STAGE_CERT_KNOWN);
        }
        say(s, OPEN RESULT);
        if (asks)
            stage_verdict(s, s->tickets[0], VERDICT_VALID);
        if (state == S2S_IN_CLOSING)
            stage_kind(s, EV_DRAIN, "stop");
        return;
    case S2S_IN_HANDSHAKE:
    case S2S_IN_TLS_HEADER:
    case S2S_IN_SECURE:
        say(s, OPEN STARTTLS);
        break;
    }
    if (state == S2S_IN_HANDSHAKE)
        return;
    stage_tls_up(s, STAGE_CERT_KNOWN);
    if (state == S2S_IN_SECURE)
        say(s, OPEN RESULT);
}

static void test_total(void **state)
{
    (void)state;
    for (unsigned n = 0; n < STAGE_SIDES * S2S_IN_STATE_COUNT; n++) {
        unsigned side = n / S2S_IN_STATE_COUNT, s = n % S2S_IN_STATE_COUNT;
        const char *wrong = stage_try_all(&stage_sides[side], false, cfg, prepare, s);
        if (wrong != NULL)
            fail_msg("side %u, %s: %s", side, s2s_in_state_name((enum s2s_in_state)s), wrong);
    }
}

/* A question ends before the deadline of a stream that is not proven, and always has some time. */
static void test_time_to_answer(void **state)
{
    (void)state;
    static const struct {
        uint64_t after, within;
    } rows[] = {{0, 20000}, {5000, 20000}, {10000, 18000}, {20000, 8000}, {29999, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stage s;
        assert_true(stage_open(&s, false, cfg, "-", "-", 1));
        say(&s, OPEN);
        stage_time(&s, rows[i].after);
        say(&s, RESULT);
        assert_int_equal(s.asked_within, rows[i].within);
        stage_verdict(&s, s.tickets[0], VERDICT_VALID);
        assert_int_equal(s.due[TIMER_SETUP], 0);
        stage_time(&s, 50000);
        say(&s, "<db:result from='delta.lab' to='alpha.lab'>k</db:result>");
        assert_int_equal(s.asked_within, 20000); /* proven: no deadline but its own */
        assert_null(s.wrong);
        stage_close(&s);
    }
}

static void test_no_random(void **state)
{
    (void)state;
    struct stage s;
    assert_true(stage_open(&s, false, cfg, "-", "-", 1));
    s.fake.no_random = true;
    say(&s, OPEN);
    assert_int_equal(s.nlines, 1);
    assert_string_equal(s.lines[0], "CLOSE no-memory abort"); /* never a stream with a poor id */
    stage_close(&s);
}

/* A new id for every stream and restart, each of 160 bits. */
static void test_ids(void **state)
{
    (void)state;
    struct stage s;
    char first[STREAM_ID_HEX + 1];
    assert_true(stage_open(&s, false, cfg, "-", "-", 1));
    say(&s, OPEN);
    assert_int_equal(strlen(stage_id(&s)), 40);
    memcpy(first, stage_id(&s), sizeof first);
    say(&s, STARTTLS);
    stage_tls_up(&s, STAGE_CERT_NONE);
    say(&s, OPEN);
    assert_string_not_equal(first, stage_id(&s));
    stage_close(&s);
}

/* Tickets are never used twice on a stream, so that a late verdict cannot meet another question. */
static void test_tickets(void **state)
{
    (void)state;
    struct stage s;
    assert_true(stage_open(&s, false, cfg, "-", "-", 1));
    say(&s, OPEN);
    for (uint32_t i = 0; i < 40; i++) {
        say(&s, RESULT);
        assert_int_equal(s.ntickets, i + 1);
        for (uint32_t k = 0; k < i; k++) {
            assert_int_not_equal(s.tickets[k], s.tickets[i]);
            stage_verdict(&s, s.tickets[k], VERDICT_VALID);
        }
        assert_null(authz_first(&s.in.authz, AUTHZ_VALID));
        stage_verdict(&s, s.tickets[i], VERDICT_TIMEOUT);
    }
    stage_close(&s);
}

/* A nonza that is all escapes: its answer is several times as long and has a limit too. */
static void test_escapes(void **state)
{
    (void)state;
    struct stage s;
    struct buf b = BUF_INIT(16384);
    assert_true(stage_open(&s, false, cfg, "-", "-", 1));
    say(&s, OPEN);
    buf_puts(&b, "<db:verify from='beta.lab' to='alpha.lab' id=\"");
    for (int i = 0; i < 7000; i++)
        buf_putc(&b, '\'');
    buf_puts(&b, "\">k</db:verify>");
    say(&s, b.p);
    assert_null(s.wrong);
    assert_true(s.over); /* no answer of 42 KB: the session ends */
    buf_free(&b);
    stage_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_total),     cmocka_unit_test(test_time_to_answer),
        cmocka_unit_test(test_no_random), cmocka_unit_test(test_ids),
        cmocka_unit_test(test_tickets),   cmocka_unit_test(test_escapes),
    };
    return cmocka_run_group_tests(tests, make_config, free_config);
}
