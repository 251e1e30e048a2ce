#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/xml/envelope.h"
#include "core/xml/framer.h"

#define H                                                                                          \
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "        \
    "xmlns:p='outer'>"

/* The scanner's values are expat's, for everything that expat accepts. */
static void agrees_with_expat(void **state)
{
    static const char *const row[] = {
        "<message/>",
        "<message from='a' to='b' id='c' type='d' xml:lang='e'/>",
        "<message\r\n\tfrom\t=\n\"a'b\"  to = 'c\"d'\r\n>x</message>",
        "<message from='' to=\"\"></message>",
        "<message p:from='x' p:to='y' from='z' lang='en' fromm='w'/>",
        "<message p:from='x' p:lang='y' xfrom='z'>from='in text'</message>",
        "<message from='a/b' to='/>' id='>'/>",
        "<message from='&amp;&lt;&gt;&quot;&apos;' to='&#65;&#x42;&#x1F600;&#xe9;&#x20AC;'/>",
        "<message from='a\tb\nc\rd\r\ne' to='a&#9;b&#10;c&#13;d&#13;&#10;e'/>",
        "<message from='\xC3\xA9\xF0\x9F\x98\x80' to='&#0000065;'/>",
        "<message><x from='inner'/></message>",
        "<s:message xmlns:s='jabber:server' to='x'/>",
        "<message xmlns='jabber:server' to='x' />",
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct framer *f = framer_new(CONTENT_SERVER, &framer_limits_default);
        struct framer_event ev;
        struct envelope e;
        assert_true(framer_feed(f, STR(H)) && framer_feed(f, str_c(row[i])));
        assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
        assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
        assert_int_equal(ev.kind, FRAMER_STANZA);
        const struct stanza *st = &ev.stanza;
        assert_true(envelope_scan(st->span.s, &e));
        assert_true(envelope_says(e.value[ENVELOPE_FROM], st->from));
        assert_true(envelope_says(e.value[ENVELOPE_TO], st->to));
        assert_true(envelope_says(e.value[ENVELOPE_ID], st->id));
        assert_true(envelope_says(e.value[ENVELOPE_TYPE], st->type));
        assert_true(envelope_says(e.value[ENVELOPE_LANG], st->lang));
        assert_in_range(e.name_end, 8, 10);
        assert_int_equal(st->span.s.p[e.tag_end - 1], '>');
        framer_free(f);
    }
}

static void offsets(void **state)
{
    struct envelope e;
    (void)state;
    assert_true(envelope_scan(STR("<iq a='>' to='b'  /><x/>"), &e));
    assert_int_equal(e.name_end, 3);
    assert_int_equal(e.tag_end, 20);
    assert_true(str_is(e.value[ENVELOPE_TO], "b"));
    assert_null(e.value[ENVELOPE_FROM].p);
}

/* No byte behind the end is looked at, whatever the text is. */
static void broken(void **state)
{
    static const char *const row[] = {
        "", "<", "<>", "<iq", "iq>", "<iq a>", "<iq a=>", "<iq a='", "<iq a=b>", "<iq 'a'>",
        "< iq>",
        "<iq =''>", "<iq a=\"'>", "<iq a ", "<iq a=", "<iq a= ", "<iq /",
    };
    struct envelope e;
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        size_t n = strlen(row[i]);
        char *exact = malloc(n ? n : 1);
        assert_non_null(exact);
        memcpy(exact, row[i], n);
        assert_false(envelope_scan((struct str){exact, n}, &e));
        free(exact);
    }
}

static void values(void **state)
{
    static const struct {
        const char *raw, *value;
        bool same;
    } row[] = {
        {"", "", true},        {"a", "a", true},       {"a", "b", false},      {"a", "", false},
        {"", "a", false},      {"ab", "a", false},     {"a", "ab", false},     {"&amp;", "&", true},
        {"&amp;", "&amp;", false}, {"&#38;", "&", true}, {"&#x26;", "&", true},
        {"&#X26;", "&", false},
        {"&", "&", false},     {"&;", "", false},      {"&#;", "", false},     {"&#x;", "", false},
        {"&foo;", "foo", false}, {"&#0;", "", false},  {"&#99999999999;", "x", false},
        {"\n", " ", true},     {"\r\n", " ", true},    {"\r\r", "  ", true},
        {"&#10;", "\n", true},
        {"&#xe9;", "\xC3\xA9", true}, {"&#8364;", "\xE2\x82\xAC", true},
        {"&#x1F600;", "\xF0\x9F\x98\x80", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        if (envelope_says(str_c(row[i].raw), str_c(row[i].value)) != row[i].same)
            fail_msg("%s and %s", row[i].raw, row[i].value);
    assert_true(envelope_says(STR_NONE, STR_NONE));
    assert_false(envelope_says(STR_NONE, STR("")));
    assert_false(envelope_says(STR(""), STR_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_expat),
        cmocka_unit_test(offsets),
        cmocka_unit_test(broken),
        cmocka_unit_test(values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
