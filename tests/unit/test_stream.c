/* Stream headers, versions, features and errors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/stream/machine.h"
#include "core/stream/stream.h"

static void test_versions(void **state)
{
    (void)state;
    static const char *const good[] = {
        "1.0", "1.1", "2.0", "01.00", "10.0", "1.10", "1000000000000000000000.0"};
    static const char *const bad[] = {"",    "0.9",  "0.0",  "1",    "1.",    ".0",   "1.x",
                                      "x.0", "-1.0", " 1.0", "1.0 ", "1.0.0", "+1.0", "0x1.0"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!stream_version_1(str_c(good[i])))
            fail_msg("version %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (stream_version_1(str_c(bad[i])))
            fail_msg("version '%s'", bad[i]);
    assert_false(stream_version_1(STR_NONE));
}

static struct framer *framer;

static const struct nonza *parse(const char *xml)
{
    struct framer_event ev;
    framer_free(framer);
    framer = framer_new(CONTENT_SERVER, &framer_limits_unauthenticated);
    assert_non_null(framer);
    assert_true(framer_feed(framer, STR("<stream:stream xmlns='jabber:server' "
                                        "xmlns:stream='http://etherx.jabber.org/streams'>")));
    assert_int_equal(framer_next(framer, &ev), FRAMER_EVENT);
    assert_true(framer_feed(framer, str_c(xml)));
    assert_int_equal(framer_next(framer, &ev), FRAMER_EVENT);
    assert_int_equal(ev.kind, FRAMER_NONZA);
    return ev.nonza;
}

static int drop_framer(void **state)
{
    (void)state;
    framer_free(framer);
    framer = NULL;
    return 0;
}

#define F(inside) "<stream:features>" inside "</stream:features>"
#define TLS_NS    "xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
#define DB_NS     "xmlns='urn:xmpp:features:dialback'"
#define SASL(m)                                                                                    \
    "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>" m "</mechanism></"          \
    "mechanisms>"

#define LIMITS(inside) "<limits xmlns='urn:xmpp:stream-limits:0'>" inside "</limits>"

static void test_features(void **state)
{
    (void)state;
    static const struct {
        const char *xml;
        struct stream_features
            f; /* starttls, required, dialback, errors, external, bytes, ms, bidi */
    } rows[] = {
        {"<stream:features/>", {0, 0, 0, 0, 0, 0, 0, 0}},
        /* as Prosody says it, in clear and encrypted */
        {F("<starttls " TLS_NS "><required/></starttls>"), {1, 1, 0, 0, 0, 0, 0, 0}},
        {F("<dialback " DB_NS "/><limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>524288"
           "</max-bytes></limits>"),
         {0, 0, 1, 0, 0, 524288, 0, 0}},
        {F(SASL("EXTERNAL") "<dialback " DB_NS "/>"), {0, 0, 1, 0, 1, 0, 0, 0}},
        /* as ejabberd says it */
        {F("<starttls " TLS_NS "/><dialback " DB_NS "><errors/></dialback>"),
         {1, 0, 1, 1, 0, 0, 0, 0}},
        {F("<starttls " TLS_NS "><optional/></starttls>"), {1, 0, 0, 0, 0, 0, 0, 0}},
        {F(SASL("PLAIN")), {0, 0, 0, 0, 0, 0, 0, 0}},
        {F(SASL("\n EXTERNAL\n ")), {0, 0, 0, 0, 1, 0, 0, 0}},
        /* the right names in the wrong place or namespace */
        {F("<starttls xmlns='u'><required/></starttls>"), {0, 0, 0, 0, 0, 0, 0, 0}},
        {F("<x xmlns='u'><starttls " TLS_NS "/></x>"), {0, 0, 0, 0, 0, 0, 0, 0}},
        {F("<starttls " TLS_NS "/><required " TLS_NS "/>"), {1, 0, 0, 0, 0, 0, 0, 0}},
        {F("<dialback " DB_NS "/><errors " DB_NS "/>"), {0, 0, 1, 0, 0, 0, 0, 0}},
        {F(LIMITS("<max-bytes> 10000\n</max-bytes><idle-seconds>60</idle-seconds>")),
         {0, 0, 0, 0, 0, 10000, 60000, 0}},
        {F(LIMITS("<max-bytes>99999999999999999999999</max-bytes>")),
         {0, 0, 0, 0, 0, UINT32_MAX, 0, 0}},
        {F(LIMITS("<max-bytes>-1</max-bytes><idle-seconds/>")), {0, 0, 0, 0, 0, 0, 0, 0}},
        {F("<max-bytes xmlns='urn:xmpp:stream-limits:0'>1</max-bytes>"), {0, 0, 0, 0, 0, 0, 0, 0}},
        {F("<bidi xmlns='urn:xmpp:features:bidi'/>"), {0, 0, 0, 0, 0, 0, 0, 1}},
        {F("<bidi xmlns='urn:xmpp:bidi'/>"), {0, 0, 0, 0, 0, 0, 0, 0}},
        {F("<x xmlns='u'><mechanism>EXTERNAL</mechanism></x>"), {0, 0, 0, 0, 0, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stream_features got;
        assert_true(stream_read_features(parse(rows[i].xml), &got));
        assert_int_equal(got.starttls, rows[i].f.starttls);
        assert_int_equal(got.starttls_required, rows[i].f.starttls_required);
        assert_int_equal(got.dialback, rows[i].f.dialback);
        assert_int_equal(got.dialback_errors, rows[i].f.dialback_errors);
        assert_int_equal(got.external, rows[i].f.external);
        assert_int_equal(got.max_bytes, rows[i].f.max_bytes);
        assert_int_equal(got.idle_ms, rows[i].f.idle_ms);
        assert_int_equal(got.bidi, rows[i].f.bidi);
    }
    struct stream_features none;
    assert_false(stream_read_features(parse("<features/>"), &none));
}

#define E(inside) "<stream:error>" inside "</stream:error>"
#define E_NS      "xmlns='urn:ietf:params:xml:ns:xmpp-streams'"

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *xml, *condition, *text;
    } rows[] = {
        {E("<conflict " E_NS "/>"), "conflict", NULL},
        {E("<text " E_NS ">why</text><reset " E_NS "/>"), "reset", "why"},
        {E("<x xmlns='u'/><reset " E_NS "/><y xmlns='u'/>"), "reset", NULL},
        {E(""), "undefined-condition", NULL},
        {E("<conflict/>"), "undefined-condition", NULL},
        {E("<x xmlns='u'><conflict " E_NS "/></x>"), "undefined-condition", NULL},
    };
    struct str condition, text;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(stream_read_error(parse(rows[i].xml), &condition, &text));
        assert_true(str_is(condition, rows[i].condition));
        assert_true(rows[i].text ? str_is(text, rows[i].text) : text.p == NULL);
    }
    assert_false(stream_read_error(parse("<stream:features/>"), &condition, &text));
    struct buf b = BUF_INIT(4096);
    stream_write_error(&b, "reset", "<&>");
    assert_string_equal(b.p, E("<reset " E_NS "/><text " E_NS " xml:lang='en'>&lt;&amp;&gt;</text>")
                                 STREAM_CLOSE_TAG);
    buf_clear(&b);
    stream_write_error(&b, "reset", NULL);
    assert_string_equal(b.p, E("<reset " E_NS "/>") STREAM_CLOSE_TAG);
    buf_free(&b);
}

static void test_send_error(void **state)
{
    (void)state;
    struct gw_actions a;
    gw_actions_init(&a);
    gw_send(&a, "before");
    gw_send_error(&a, "reset", "why", LOG_NOTICE, "x.refused");
    assert_int_equal(a.n, 3);
    assert_true(str_is(gw_text(&a, &a.v[1]), E("<reset " E_NS "/><text " E_NS
                                               " xml:lang='en'>why</text>") STREAM_CLOSE_TAG));
    assert_int_equal(a.v[2].kind, ACT_LOG);
    assert_int_equal(a.v[2].u.log.level, LOG_NOTICE);
    assert_string_equal(a.v[2].u.log.event, "x.refused");
    assert_true(str_is(a.v[2].u.log.kv[0].s, "reset"));
    assert_true(str_is(a.v[2].u.log.kv[1].s, "why"));
    gw_actions_free(&a);
}

#define HEAD                                                                                       \
    "<?xml version='1.0'?><stream:stream xmlns='jabber:server' "                                   \
    "xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'"

static void test_header(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(4096);
    struct stream_open open = {STR("a'b"), STR("c"), STR("<i>"), true};
    stream_write_header(&b, &open);
    assert_string_equal(b.p, HEAD " from='a&apos;b' to='c' id='&lt;i&gt;' version='1.0' "
                                  "xml:lang='en'>");
    buf_clear(&b);
    open = (struct stream_open){STR_NONE, STR_NONE, STR_NONE, false};
    stream_write_header(&b, &open);
    assert_string_equal(b.p, HEAD " xml:lang='en'>");
    buf_free(&b);
}

/* ---- lists of actions ------------------------------------------------------------------------ */

static void test_actions(void **state)
{
    (void)state;
    struct gw_actions a;
    gw_actions_init(&a);
    gw_send(&a, "one");
    gw_send(&a, "");
    gw_send(&a, "three");
    gw_timer_set(&a, TIMER_STATE, 7);
    assert_int_equal(a.n, 4);
    assert_true(str_is(gw_text(&a, &a.v[0]), "one"));
    assert_true(str_is(gw_text(&a, &a.v[1]), ""));
    assert_true(str_is(gw_text(&a, &a.v[2]), "three"));
    assert_true(a.v[3].u.timer.id == TIMER_STATE && a.v[3].u.timer.ms == 7);
    assert_false(a.overflow);
    for (int i = 0; i < GW_ACTIONS_MAX; i++)
        assert_non_null(gw_act(&a, ACT_READY));
    assert_true(a.overflow);
    assert_int_equal(a.n, GW_ACTIONS_MAX);
    gw_actions_free(&a);
    gw_actions_init(&a);
    for (int i = 0; i < 17; i++) {
        size_t begin = gw_send_begin(&a);
        for (int k = 0; k < 1000; k++)
            buf_putc(&a.text, 'x');
        gw_send_end(&a, begin);
    }
    assert_true(a.overflow); /* too much text */
    gw_actions_free(&a);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(end_reason_name(END_DIALBACK_ONLY), "dialback-only");
    assert_string_equal(end_reason_name(END_NO_MEMORY), "no-memory");
    assert_string_equal(gw_event_name(EV_LOST), "LOST");
    assert_string_equal(gw_action_name(ACT_CLOSE), "CLOSE");
    assert_string_equal(gw_timer_name(TIMER_ASKED), "ASKED");
    assert_string_equal(verdict_name(VERDICT_NOT_FOUND), "remote-server-not-found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test_teardown(test_features, drop_framer),
        cmocka_unit_test_teardown(test_errors, drop_framer),
        cmocka_unit_test(test_send_error),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
