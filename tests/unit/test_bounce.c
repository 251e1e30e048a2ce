#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "core/base/mem.h"
#include "core/stream/bounce.h"
#include "core/xml/ns.h"

static void test_allowed(void **state)
{
    (void)state;
    static const struct {
        enum stanza_kind kind;
        const char *type, *from;
        bool allowed;
    } rows[] = {
        {STANZA_MESSAGE, NULL, "a@b", true},
        {STANZA_MESSAGE, "chat", "a@b", true},
        {STANZA_MESSAGE, "groupchat", "a@b", true},
        {STANZA_MESSAGE, "error", "a@b", false},
        {STANZA_MESSAGE, "result", "a@b", true}, /* no type of a message: like normal */
        {STANZA_MESSAGE, NULL, NULL, false},
        {STANZA_MESSAGE, NULL, "", false},
        {STANZA_PRESENCE, NULL, "a@b", true},
        {STANZA_PRESENCE, "subscribe", "a@b", true},
        {STANZA_PRESENCE, "subscribed", "a@b", true},
        {STANZA_PRESENCE, "unsubscribe", "a@b", true},
        {STANZA_PRESENCE, "unsubscribed", "a@b", true},
        {STANZA_PRESENCE, "probe", "a@b", true},
        {STANZA_PRESENCE, "unavailable", "a@b", false},
        {STANZA_PRESENCE, "error", "a@b", false},
        {STANZA_IQ, "get", "a@b", true},
        {STANZA_IQ, "set", "a@b", true},
        {STANZA_IQ, "result", "a@b", false},
        {STANZA_IQ, "error", "a@b", false},
        {STANZA_IQ, NULL, "a@b", true}, /* by bad-request */
        {STANZA_IQ, "", "a@b", true},
        {STANZA_IQ, "GET", "a@b", true},
        {STANZA_IQ, NULL, NULL, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stanza st = {
            .kind = rows[i].kind, .type = str_c(rows[i].type), .from = str_c(rows[i].from)};
        if (bounce_allowed(&st) != rows[i].allowed)
            fail_msg("row %zu", i);
    }
}

static void test_bad_type(void **state)
{
    (void)state;
    static const struct {
        enum stanza_kind kind;
        const char *type;
        bool bad;
    } rows[] = {
        {STANZA_IQ, "get", false},    {STANZA_IQ, "set", false},     {STANZA_IQ, "result", false},
        {STANZA_IQ, "error", false},  {STANZA_IQ, NULL, true},       {STANZA_IQ, "", true},
        {STANZA_IQ, "GET", true},     {STANZA_IQ, "chat", true},     {STANZA_MESSAGE, NULL, false},
        {STANZA_MESSAGE, "x", false}, {STANZA_PRESENCE, "x", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stanza st = {.kind = rows[i].kind, .type = str_c(rows[i].type)};
        if (bounce_bad_type(&st) != rows[i].bad)
            fail_msg("row %zu", i);
    }
}

static void test_text(void **state)
{
    (void)state;
    struct stanza st = {.kind = STANZA_IQ,
                        .type = STR("get"),
                        .id = STR("i1"),
                        .from = STR("a@b/c"),
                        .to = STR("d@e")};
    struct span s = bounce_stanza(&st, CONTENT_COMPONENT, "wait", "remote-server-timeout", "a & b");
    assert_non_null(s.chunk);
    static const char want[] =
        "<iq type='error' id='i1' from='d@e' to='a@b/c'><error type='wait'>"
        "<remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>a &amp; b</text>"
        "</error></iq>";
    assert_int_equal(s.s.n, sizeof want - 1);
    assert_memory_equal(s.s.p, want, s.s.n);
    span_release(&s);
}

/* What is written comes back from the framer: the addresses are kept to the byte, whatever a
 * resource part or an id may hold. */
static void test_parsed_back(void **state)
{
    (void)state;
    static const char *const values[] = {
        "plain", "a'b\"c",           "<&>",  "tab\tlf\ncr\r", "\xC3\xA4\xE2\x82\xAC",
        "]]>",   " lead and trail ", "&amp;"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char from[128], to[128];
        snprintf(from, sizeof from, "a@b.lab/%s", values[i]);
        snprintf(to, sizeof to, "c@d.lab/%s", values[i]);
        struct stanza st = {
            .kind = STANZA_MESSAGE, .id = str_c(values[i]), .from = str_c(from), .to = str_c(to)};
        struct span s = bounce_stanza(&st, CONTENT_SERVER, "cancel", "item-not-found", values[i]);
        assert_non_null(s.chunk);
        struct framer *f = framer_new(CONTENT_SERVER, &framer_limits_default);
        struct framer_event ev;
        assert_true(framer_feed(f, STR("<stream:stream xmlns='" NS_SERVER
                                       "' xmlns:stream='" NS_STREAM "' version='1.0'>")));
        assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
        assert_true(framer_feed(f, s.s));
        assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
        assert_int_equal(ev.kind, FRAMER_STANZA);
        assert_int_equal(ev.stanza.kind, STANZA_MESSAGE);
        assert_true(str_eq(ev.stanza.from, st.to));
        assert_true(str_eq(ev.stanza.to, st.from));
        assert_true(str_eq(ev.stanza.id, st.id));
        assert_true(str_is(ev.stanza.type, "error"));
        assert_int_equal(ev.stanza.odd, 0);
        framer_free(f);
        span_release(&s);
    }
}

static struct stanza own_iq(const char *type, const char *text)
{
    return (struct stanza){.kind = STANZA_IQ,
                           .type = str_c(type),
                           .id = STR("q"),
                           .from = STR("alpha.lab"),
                           .to = STR("edge.lab"),
                           .span = {NULL, str_c(text)}};
}

static void expect_answer(struct stanza st, const char *needle)
{
    struct span s = bounce_answer(&st, CONTENT_COMPONENT);
    assert_non_null(s.chunk);
    char *text = mem_strndup(s.s);
    if (strstr(text, needle) == NULL)
        fail_msg("no %s in %s", needle, text);
    mem_free(text);
    span_release(&s);
}

static void test_own_name(void **state)
{
    (void)state;
    expect_answer(own_iq("get", "<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>"),
                  "<iq type='result' id='q' from='edge.lab' to='alpha.lab'/>");
    expect_answer(own_iq("get", "<iq type='get'><query xmlns='" NS_DISCO_INFO "'/></iq>"),
                  "<identity type='s2s' category='component' name='Sallyport'/>"
                  "<feature var='http://jabber.org/protocol/disco#info'/>");
    expect_answer(own_iq("get", "<iq><query xmlns='" NS_DISCO_INFO "' node='x'/></iq>"),
                  "<item-not-found ");
    expect_answer(own_iq("set", "<iq><ping xmlns='urn:xmpp:ping'/></iq>"), "<service-unavailable ");
    expect_answer(own_iq("get", "<iq><ping xmlns='urn:other'/></iq>"), "<service-unavailable ");
    struct stanza anonymous = own_iq("get", "<iq><ping xmlns='urn:xmpp:ping'/></iq>");
    anonymous.id = STR_NONE;
    expect_answer(anonymous, "<iq type='error' from='edge.lab' to='alpha.lab'><error type='modify'>"
                             "<bad-request ");
    expect_answer(own_iq("get", "<iq/>"), "<bad-request ");
    expect_answer(own_iq("set", "<iq/>"), "<bad-request ");
    expect_answer(own_iq("get", "<iq><ping xmlns='urn:xmpp:ping'/><a/></iq>"), "<bad-request ");
    expect_answer(own_iq("get", "<iq><ping xmlns='urn:xmpp:ping'><a/></ping></iq>"),
                  "<iq type='result' id='q' ");
    expect_answer(own_iq("GET", "<iq><ping xmlns='urn:xmpp:ping'/></iq>"), "<bad-request ");
    expect_answer(own_iq(NULL, "<iq><ping xmlns='urn:xmpp:ping'/></iq>"), "<bad-request ");
    expect_answer(own_iq("get", "<iq><x:ping/></iq>"), "<service-unavailable ");
    struct stanza message = {.kind = STANZA_MESSAGE, .from = STR("a@b"), .to = STR("edge.lab")};
    expect_answer(message, "<message type='error' from='edge.lab' to='a@b'>");
    struct stanza result = own_iq("result", "<iq type='result'/>");
    assert_null(bounce_answer(&result, CONTENT_COMPONENT).chunk);
}

static void test_large_payload(void **state)
{
    (void)state;
    static char text[9000];
    memset(text, ' ', sizeof text - 1);
    static const char head[] = "<iq><ping xmlns='urn:xmpp:ping'/>", tail[] = "</iq>";
    memcpy(text, head, sizeof head - 1);
    memcpy(text + sizeof text - sizeof tail, tail, sizeof tail);
    expect_answer(own_iq("get", text), "<service-unavailable ");
}

/* Each allocation in turn fails: an answer or none, never a crash or half of one. */
static void test_no_memory(void **state)
{
    (void)state;
    struct stanza st = own_iq("get", "<iq><query xmlns='" NS_DISCO_INFO "'/></iq>");
    unsigned none = 0;
    for (unsigned long n = 1; n < 400; n++) {
        mem_fail_after(n);
        struct span s = bounce_stanza(&st, CONTENT_SERVER, "cancel", "gone", "text");
        mem_fail_after(0);
        none += s.chunk == NULL;
        if (s.chunk != NULL)
            assert_memory_equal(s.s.p + s.s.n - 5, "</iq>", 5);
        span_release(&s);
        mem_fail_after(n);
        s = bounce_answer(&st, CONTENT_SERVER);
        mem_fail_after(0);
        span_release(&s);
    }
    assert_in_range(none, 10, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allowed),   cmocka_unit_test(test_text),
        cmocka_unit_test(test_bad_type),  cmocka_unit_test(test_parsed_back),
        cmocka_unit_test(test_own_name),  cmocka_unit_test(test_large_payload),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
