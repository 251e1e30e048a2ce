#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/mem.h"
#include "core/xml/writer.h"
#include "tests/unit/xml_dump.h"

#define STREAM "xmlns:stream='" NS_STREAM "' xmlns:p='outer' xmlns:s='jabber:server' "
#define SERVER_HEADER    "<stream:stream xmlns='jabber:server' " STREAM
#define COMPONENT_HEADER "<stream:stream xmlns='jabber:component:accept' " STREAM

static void escapes(void **state)
{
    static const struct {
        const char *in, *text, *value;
    } row[] = {
        {"", "", ""},
        {"plain \xC3\xA9\xF0\x9F\x98\x80", "plain \xC3\xA9\xF0\x9F\x98\x80",
         "plain \xC3\xA9\xF0\x9F\x98\x80"},
        {"&<>\"'", "&amp;&lt;&gt;&quot;&apos;", "&amp;&lt;&gt;&quot;&apos;"},
        {"]]>", "]]&gt;", "]]&gt;"},
        {"\t\n\r", "\t\n&#13;", "&#9;&#10;&#13;"},
        {"a\001b", "a\xEF\xBF\xBD" "b", "a\xEF\xBF\xBD" "b"},
        {"a\xFF", "a\xEF\xBF\xBD", "a\xEF\xBF\xBD"},
        {"\xEF\xBF\xBF.\xEF\xBF\xBD", "\xEF\xBF\xBD.\xEF\xBF\xBD", "\xEF\xBF\xBD.\xEF\xBF\xBD"},
    };
    struct buf b = BUF_INIT(1024);
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        buf_clear(&b);
        writer_text(&b, str_c(row[i].in));
        assert_true(str_is(buf_view(&b), row[i].text));
        buf_clear(&b);
        writer_value(&b, str_c(row[i].in));
        assert_true(str_is(buf_view(&b), row[i].value));
    }
    buf_clear(&b);
    writer_attr(&b, "a", STR_NONE);
    writer_attr(&b, "b", STR(""));
    writer_attr(&b, "c", STR("x'y"));
    assert_true(str_is(buf_view(&b), " b='' c='x&apos;y'"));
    buf_free(&b);
}

/* The stanza that a framer on a stream with this header (not closed yet) and this xml:lang sees. */
static struct framer *framed(enum content_ns content, const char *lang, const char *stanza,
                             struct stanza *out)
{
    struct framer *f = framer_new(content, &framer_limits_default);
    struct framer_event ev;
    struct buf in = BUF_INIT(1 << 16);
    assert_non_null(f);
    buf_puts(&in, content == CONTENT_SERVER ? SERVER_HEADER : COMPONENT_HEADER);
    writer_attr(&in, "xml:lang", str_c(lang));
    buf_putc(&in, '>');
    buf_puts(&in, stanza);
    assert_true(framer_feed(f, buf_view(&in)));
    buf_free(&in);
    assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
    assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
    assert_int_equal(ev.kind, FRAMER_STANZA);
    *out = ev.stanza;
    return f;
}

static void exact(void **state)
{
    static const struct {
        enum content_ns source, target;
        const char *lang, *from, *to, *in, *want;
    } row[] = {
        /* The same bytes */
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL,
         "<message\nto=\"b\"><x xmlns='y'/></message>",
         "<message\nto=\"b\"><x xmlns='y'/></message>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, "en", "a", "b", "<iq from='a' to='b'/>",
         "<iq from='a' to='b'/>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, "en", "a", "b", "<iq from='&#97;' to='b'/>",
         "<iq from='&#97;' to='b'/>"},
        /* Spliced */
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, "u@a.lab", "v@b.lab",
         "<iq to=\"v@B.lab\" x='1' from='u@A.lab.'><q/></iq>",
         "<iq to=\"v@b.lab\" x='1' from='u@a.lab'><q/></iq>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, "b", "<iq from='a' to='B'/>",
         "<iq from='a' to='b'/>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, "a\"'&", "b", "<iq to='x'/>",
         "<iq from='a&quot;&apos;&amp;' to='b'/>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, "de", NULL, NULL, "<iq/>", "<iq xml:lang='de'/>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, "", NULL, NULL, "<iq to=''/>",
         "<iq xml:lang='' to=''/>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, "de", "a", "b", "<iq to='' from='B'></iq>",
         "<iq xml:lang='de' to='b' from='a'></iq>"},
        /* Written anew */
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL,
         "<message><body>a<![CDATA[<b>&]]>c</body></message>",
         "<message><body>a&lt;b&gt;&amp;c</body></message>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL,
         "<message xmlns='jabber:server'><body>x</body></message>",
         "<message><body>x</body></message>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, "de", "a", "b", "<s:iq to='B'><q xmlns='x'/></s:iq>",
         "<iq xmlns:stream='" NS_STREAM "' xmlns:p='outer' to='b' from='a' xml:lang='de'>"
         "<q xmlns='x'/></iq>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL, "<iq><p:x p:y='1'><z/></p:x></iq>",
         "<iq xmlns:stream='" NS_STREAM "' xmlns:p='outer'><x xmlns='outer' p:y='1'>"
         "<z xmlns='jabber:component:accept'/></x></iq>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL,
         "<iq xmlns:p='inner'><p:x/><s:y/></iq>",
         "<iq xmlns:stream='" NS_STREAM "' xmlns:p='inner'><x xmlns='inner'/><y/></iq>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL, "<iq><x s:a='1' s:b='2'/></iq>",
         "<iq xmlns:stream='" NS_STREAM "' xmlns:p='outer'>"
         "<x xmlns:s='jabber:component:accept' s:a='1' s:b='2'/></iq>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL,
         "<iq><x xmlns='jabber:component:accept'/><y xmlns='q'><z xmlns='jabber:server'/></y></iq>",
         "<iq><x xmlns='jabber:server'/>"
         "<y xmlns='q'><z xmlns='jabber:component:accept'/></y></iq>"},
        {CONTENT_SERVER, CONTENT_SERVER, NULL, NULL, NULL,
         "<iq><x xmlns='jabber:component:accept'/><y xmlns='jabber:server'/></iq>",
         "<iq><x xmlns='jabber:component:accept'/><y/></iq>"},
        {CONTENT_COMPONENT, CONTENT_SERVER, NULL, "a", "b",
         "<message xmlns='jabber:client' to='B'><body>x</body><f xmlns='urn:xmpp:forward:0'>"
         "<message xmlns='jabber:client'><body/></message></f></message>",
         "<message to='b' from='a'><body>x</body><f xmlns='urn:xmpp:forward:0'>"
         "<message xmlns='jabber:client'><body/></message></f></message>"},
        {CONTENT_COMPONENT, CONTENT_SERVER, NULL, NULL, NULL,
         "<message><body xmlns='jabber:component:accept'/><x xmlns=''><![CDATA[]]></x></message>",
         "<message><body/><x xmlns=''/></message>"},
        {CONTENT_SERVER, CONTENT_COMPONENT, NULL, NULL, NULL,
         "<iq id='a&#10;b&#9;&#13;&lt;\"&amp;'><![CDATA[]]>&#13;\r\n\xF0\x9F\x98\x80</iq>",
         "<iq id='a&#10;b&#9;&#13;&lt;&quot;&amp;'>&#13;\n\xF0\x9F\x98\x80</iq>"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct stanza st;
        struct framer *f = framed(row[i].source, row[i].lang, row[i].in, &st);
        struct writer_target t = {row[i].target, str_c(row[i].from), str_c(row[i].to)};
        struct span out = writer_restamp(&st, &t);
        assert_non_null(out.chunk);
        if (!str_is(out.s, row[i].want))
            fail_msg("%s\nbecame %.*s\nnot    %s", row[i].in, STR_ARG(out.s), row[i].want);
        span_release(&out);
        framer_free(f);
    }
}

/* The tree of what was written is the tree of what was read; once on the other side it is plain
 * (or at least stable: written again it does not change), and the way back restores the tree. */
static void round_trip(enum content_ns source, const char *stanza)
{
    static const char *const names[] = {NS_SERVER, NS_COMPONENT};
    enum content_ns target = source == CONTENT_SERVER ? CONTENT_COMPONENT : CONTENT_SERVER;
    struct buf before = BUF_INIT(1 << 16), after = BUF_INIT(1 << 16);
    struct writer_target there = {.content = target}, back = {.content = source};
    struct stanza st, st2;
    struct framer *f = framed(source, NULL, stanza, &st);
    struct tree t = {.out = &before, .swap = {NS_SERVER, NS_COMPONENT}};
    if (source == CONTENT_COMPONENT)
        t.client = NS_SERVER;
    assert_true(dump_tree(&t, names[source], st.outer, st.span.s));
    struct span out = writer_restamp(&st, &there);
    assert_non_null(out.chunk);
    struct tree u = {.out = &after};
    if (!dump_tree(&u, names[target], STR(""), out.s))
        fail_msg("%s\nbecame %.*s", stanza, STR_ARG(out.s));
    assert_string_equal(before.p, after.p);

    char *text = mem_strndup(out.s);
    struct framer *g = framed(target, NULL, text, &st2);
    assert_int_equal(st2.odd & ~(unsigned)STANZA_CONTENT_NS, 0);
    struct span again = writer_restamp(&st2, &back);
    assert_non_null(again.chunk);
    buf_clear(&after);
    u = (struct tree){.out = &after, .swap = {NS_SERVER, NS_COMPONENT}};
    assert_true(dump_tree(&u, names[source], STR(""), again.s));
    assert_string_equal(before.p, after.p);
    mem_free(text);
    span_release(&again);
    span_release(&out);
    framer_free(g);
    framer_free(f);
    buf_free(&before);
    buf_free(&after);
}

static void trees_survive(void **state)
{
    static const char *const row[] = {
        "<message/>",
        "<message from='a@b/c' to='d'><body>hello</body></message>",
        "<message><body>a<![CDATA[<x>&amp;]]]]><![CDATA[>]]>b</body></message>",
        "<message id='&#9;&#10;&#13; &lt;&gt;&amp;&quot;&apos;'><![CDATA[]]></message>",
        "<message id='\t\r\n'>&#13;\r\n\t<![CDATA[\r\n\t]]></message>",
        "<message>\xF0\x9F\x98\x80&#x1F600;<![CDATA[\xC3\xA9]]></message>",
        "<message xml:lang='de'><body xml:lang=''>x</body><![CDATA[]]></message>",
        "<message><p:a p:b='1' b='2'><c/><p:d xmlns:p='e' p:f=''/></p:a></message>",
        "<message xmlns:p='q' p:x='1'><a xmlns='p' p:x='2'><b xmlns='' p:x='3'/></a>"
        "<![CDATA[]]></message>",
        "<message><a xmlns='x&amp;y&apos;'><b/></a><![CDATA[]]></message>",
        "<s:message><s:body s:a='1'/><x xmlns='jabber:component:accept'><y/></x></s:message>",
        "<message><x xmlns='jabber:client'><y xmlns='jabber:server'/></x></message>",
        "<iq xmlns:a='1' xmlns:b='1' a:x='' ><b:x a:y='' b:z=''/><![CDATA[]]></iq>",
        "<iq><x xmlns:s='jabber:component:accept' s:y='1'>"
        "<s:z xmlns:s='jabber:server' s:y='2'/></x></iq>",
        "<iq><x xmlns:stream='other' stream:a='1'/><stream:b/></iq>",
        "<iq><xml:x><y/><xml:z><w xmlns=''/></xml:z></xml:x><![CDATA[]]><y/></iq>",
        "<iq xmlns:xml='" NS_XML "'><p:a/></iq>",
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        round_trip(CONTENT_SERVER, row[i]);
        if (strstr(row[i], "s:message") == NULL)
            round_trip(CONTENT_COMPONENT, row[i]);
    }
    round_trip(CONTENT_COMPONENT,
               "<c:iq xmlns:c='jabber:client'><c:x><y xmlns='z'><c:v/></y></c:x></c:iq>");
    round_trip(CONTENT_COMPONENT, "<iq xmlns='jabber:client'><x><y xmlns=''/></x><p:z/></iq>");
}

static void own_span_is_retained(void **state)
{
    struct stanza st;
    struct framer *f = framed(CONTENT_SERVER, NULL, "<iq from='a' to='b'/>", &st);
    struct writer_target t = {CONTENT_COMPONENT, STR("a"), STR("b")};
    (void)state;
    struct span out = writer_restamp(&st, &t);
    assert_ptr_equal(out.chunk, st.span.chunk);
    assert_ptr_equal(out.s.p, st.span.s.p);
    framer_free(f);
    assert_true(str_is(out.s, "<iq from='a' to='b'/>"));
    span_release(&out);
}

/* A stanza whose facts are not what its bytes say is not spliced but parsed. */
static void distrust(void **state)
{
    struct writer_target t = {CONTENT_COMPONENT, STR("a"), STR_NONE};
    struct stanza st = {.from = STR("x"), .content_ns = STR(NS_SERVER),
                        .span = {NULL, STR("<iq from='y'  to='z'/>")}};
    (void)state;
    struct span out = writer_restamp(&st, &t);
    assert_true(str_is(out.s, "<iq from='a' to='z'/>"));
    span_release(&out);
    st.span.s = STR("<iq from='x");
    assert_null(writer_restamp(&st, &t).chunk);
    st.span.s = STR("");
    assert_null(writer_restamp(&st, &t).chunk);
    st.from = STR("a");
    st.span.s = STR("<iq from='a'/>");
    out = writer_restamp(&st, &t); /* static bytes: a copy */
    assert_non_null(out.chunk);
    span_release(&out);
}

static void depth_is_bounded(void **state)
{
    struct buf b = BUF_INIT(1 << 16);
    struct stanza st = {.content_ns = STR(NS_SERVER), .odd = STANZA_CDATA};
    struct writer_target t = {.content = CONTENT_COMPONENT};
    (void)state;
    for (unsigned depth = 255; depth <= 256; depth++) {
        buf_clear(&b);
        for (unsigned i = 0; i < depth; i++)
            buf_puts(&b, "<a>");
        for (unsigned i = 0; i < depth; i++)
            buf_puts(&b, "</a>");
        st.span.s = buf_view(&b);
        struct span out = writer_restamp(&st, &t);
        assert_int_equal(out.chunk != NULL, depth == 255);
        span_release(&out);
    }
    buf_free(&b);
}

static void allocation_fails(void **state)
{
    static const char *const row[] = {
        "<iq to='c'/>", "<iq><p:x xmlns:q='r' q:s='' s:t=''>x<![CDATA[y]]></p:x></iq>"};
    struct writer_target t = {CONTENT_COMPONENT, STR("a"), STR("b")};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct stanza st;
        struct framer *f = framed(CONTENT_SERVER, "de", row[i], &st);
        unsigned long n = 0;
        struct span out = {NULL, STR_NONE};
        while (out.chunk == NULL) {
            mem_fail_after(++n);
            out = writer_restamp(&st, &t);
            mem_fail_after(0);
        }
        assert_in_range(n, 2, 1000);
        span_release(&out);
        framer_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes),
        cmocka_unit_test(exact),
        cmocka_unit_test(trees_survive),
        cmocka_unit_test(own_span_is_retained),
        cmocka_unit_test(distrust),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
