#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "core/base/mem.h"
#include "tests/unit/xml_dump.h"

#define STREAM "xmlns:stream='http://etherx.jabber.org/streams'"
#define H      "<stream:stream xmlns='jabber:server' " STREAM ">"
#define HC     "<stream:stream xmlns='jabber:component:accept' " STREAM ">"
#define HR     "<stream:stream " STREAM " version='1.0'>"
#define ROUTE  "<route xmlns='" NS_JABBERD2 "' from='sm' to='b.lab'>"
#define OPEN   "open dialback=0 content=[jabber:server] "
#define CLOSE  "</stream:stream>"

static struct framer_limits small_limits(void)
{
    struct framer_limits l = framer_limits_default;
    l.header = 200;
    l.element = 100;
    l.token = 60;
    l.depth = 3;
    l.attrs = 3;
    l.children = 4;
    l.name = 8;
    l.ns_decls = 2;
    return l;
}

static void dump_whole(struct buf *out, enum content_ns content, const struct framer_limits *l,
                       struct str in, size_t first, size_t rest)
{
    struct framer *f = framer_new(content, l);
    assert_non_null(f);
    buf_clear(out);
    dump_feed(out, f, in, first, rest);
    assert_false(out->failed);
    framer_free(f);
}

/* The same events whole, byte by byte, and cut at every place. */
static void expect(enum content_ns content, const struct framer_limits *l, struct str in,
                   const char *want)
{
    struct buf whole = BUF_INIT(1 << 20), other = BUF_INIT(1 << 20);
    dump_whole(&whole, content, l, in, 0, 0);
    if (want)
        assert_string_equal(whole.p, want);
    dump_whole(&other, content, l, in, 1, 1);
    assert_string_equal(other.p ? other.p : "", whole.p ? whole.p : "");
    for (size_t cut = 1; cut < in.n; cut++) {
        dump_whole(&other, content, l, in, cut, 0);
        assert_string_equal(other.p ? other.p : "", whole.p ? whole.p : "");
    }
    buf_free(&whole);
    buf_free(&other);
}

static void transcripts(void **state)
{
    static const struct {
        enum content_ns content;
        const char *in, *want;
    } row[] = {
        {CONTENT_SERVER,
         "<?xml version='1.0' encoding=\"utf-8\" standalone='yes'?>\n"
         "<stream:stream from='a.lab' to='b.lab' id='x&amp;y' version='1.0' xml:lang='de' "
         "xmlns:db='jabber:server:dialback' xmlns='jabber:server' " STREAM ">" CLOSE,
         "open dialback=1 from=[a.lab] to=[b.lab] id=[x&y] version=[1.0] lang=[de] "
         "content=[jabber:server] bytes=240\nclose bytes=16\n"},
        {CONTENT_SERVER, " \n" H " \r\n\t " CLOSE " \n<junk", OPEN "bytes=85\nclose bytes=16\n"},
        {CONTENT_SERVER, "<s:stream xmlns='jabber:server' xmlns:s='" NS_STREAM "'/>",
         OPEN "bytes=76\nclose bytes=0\n"},
        {CONTENT_SERVER,
         H "<message to='b@b.lab' from='a&#x40;a.lab' id='1'><body>hi</body></message>",
         OPEN "bytes=85\nstanza message odd=0 from=[a@a.lab] to=[b@b.lab] id=[1] "
              "span=[<message to='b@b.lab' from='a&#x40;a.lab' id='1'><body>hi</body></message>] "
              "bytes=74\n"},
        {CONTENT_SERVER, H "<iq type='get'/><presence xml:lang='fr'\n/>",
         OPEN "bytes=85\nstanza iq odd=0 type=[get] span=[<iq type='get'/>] bytes=16\n"
              "stanza presence odd=0 lang=[fr] span=[<presence xml:lang='fr'\n/>] bytes=26\n"},
        {CONTENT_SERVER,
         H "<db:result xmlns:db='jabber:server:dialback' from='a' to='b'>ke&#121;</db:result>",
         OPEN "bytes=85\nnonza (0 {jabber:server:dialback}result {}from v=[a] {}to v=[b] "
              "text=[key]) bytes=81\n"},
        {CONTENT_SERVER,
         H "<stream:features><a xmlns='x' p:q='1' xmlns:p='y'>1<b/>2<c>3</c>4</a>"
           "</stream:features>",
         OPEN "bytes=85\nnonza (0 {" NS_STREAM "}features) (1 {x}a {y}q v=[1] text=[124]) (2 {x}b) "
              "(2 {x}c text=[3]) bytes=87\n"},
        {CONTENT_SERVER, H "<foo/><message xmlns='jabber:client'/><message xmlns=''/>",
         OPEN "bytes=85\nnonza (0 {jabber:server}foo) bytes=6\n"
              "nonza (0 {jabber:client}message) bytes=32\nnonza (0 {}message) bytes=19\n"},
        {CONTENT_COMPONENT, HC "<iq/><iq xmlns='jabber:client'/><iq xmlns='jabber:server'/>",
         "open dialback=0 content=[jabber:component:accept] bytes=95\n"
         "stanza iq odd=0 span=[<iq/>] bytes=5\n"
         "stanza iq odd=2 span=[<iq xmlns='jabber:client'/>] bytes=27\n"
         "nonza (0 {jabber:server}iq) bytes=27\n"},
        {CONTENT_SERVER,
         H "<message><body>\xF0\x9F\x98\x80 &lt;<![CDATA[<x>]]>]]&gt;\r\n</body></message >", NULL},
        {CONTENT_SERVER, H "<message><body>\xEF\xBB\xBF</body></message>\r", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        expect(row[i].content, &framer_limits_default, str_c(row[i].in), row[i].want);
}

static void odd_flags(void **state)
{
    static const struct {
        const char *lang, *stanza;
        unsigned odd;
    } row[] = {
        {NULL, "<message/>", 0},
        {NULL, "<message xml:lang='de'/>", 0},
        {"en", "<message/>", 0},
        {"EN", "<message/>", 0},
        {"de", "<message/>", STANZA_LANG},
        {"en-GB", "<message/>", STANZA_LANG},
        {"de", "<message xml:lang='en'/>", 0},
        {"de", "<message><body xml:lang='en'/></message>", STANZA_LANG},
        {NULL, "<message><p:x/></message>", STANZA_OUTER_PREFIX},
        {NULL, "<message p:x='1'/>", STANZA_OUTER_PREFIX},
        {NULL, "<message><x p:x='1'/></message>", STANZA_OUTER_PREFIX},
        {NULL, "<message><stream:x/></message>", STANZA_OUTER_PREFIX},
        {NULL, "<message xmlns:p='q'><p:x p:y='1'/></message>", 0},
        {NULL, "<message><p:x xmlns:p='q'><p:y/></p:x></message>", 0},
        {NULL, "<message><p:x xmlns:p='q'/><p:y/></message>", STANZA_OUTER_PREFIX},
        {NULL, "<message><x xmlns:q='q'><p:y/></x></message>", STANZA_OUTER_PREFIX},
        {NULL, "<message><x xmlns:pp='q'><pp:y/></x></message>", 0},
        {NULL, "<message xmlns='jabber:server'/>", STANZA_CONTENT_NS},
        {NULL, "<message><x xmlns='jabber:server'/></message>", STANZA_CONTENT_NS},
        {NULL, "<message><x xmlns:s='jabber:server'/></message>", STANZA_CONTENT_NS},
        {NULL, "<message><x xmlns='jabber:component:accept'/></message>", STANZA_CONTENT_NS},
        {NULL, "<message><x xmlns='jabber:client'/></message>", 0},
        {NULL, "<message><x xmlns=''/></message>", 0},
        {NULL, "<s:message/>", STANZA_CONTENT_NS | STANZA_OUTER_PREFIX},
        {NULL, "<t:message xmlns:t='jabber:server'/>", STANZA_CONTENT_NS},
        {NULL, "<message><![CDATA[]]></message>", STANZA_CDATA},
        {NULL, "<message><body>a<![CDATA[b]]></body></message>", STANZA_CDATA},
        {"de", "<message><p:x><![CDATA[b]]></p:x><x xmlns='jabber:server'/></message>", 15},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct buf in = BUF_INIT(4096);
        struct framer *f = framer_new(CONTENT_SERVER, &framer_limits_default);
        struct framer_event ev;
        buf_puts(&in, "<stream:stream xmlns='jabber:server' xmlns:p='outer' "
                      "xmlns:s='jabber:server' " STREAM);
        if (row[i].lang)
            buf_printf(&in, " xml:lang='%s'", row[i].lang);
        /* Each stanza comes after the oddest one: nothing may stick. */
        buf_printf(&in, ">%s%s", row[27].stanza, row[i].stanza);
        assert_true(framer_feed(f, buf_view(&in)));
        assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
        assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
        assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
        assert_int_equal(ev.kind, FRAMER_STANZA);
        if (ev.stanza.odd != row[i].odd)
            fail_msg("%s: odd %u, not %u", row[i].stanza, ev.stanza.odd, row[i].odd);
        framer_free(f);
        buf_free(&in);
    }
}

/* The last line must be this error; the input is complete up to the fault. */
static void expect_error(enum content_ns content, const struct framer_limits *l, struct str in,
                         const char *condition)
{
    char want[64];
    struct buf out = BUF_INIT(1 << 20);
    snprintf(want, sizeof want, "error %s\n", condition);
    dump_whole(&out, content, l, in, 0, 0);
    size_t n = strlen(want);
    if (out.len < n || strcmp(out.p + out.len - n, want) != 0)
        fail_msg("%.*s\nexpected %s, got %s", STR_ARG(in), condition, out.p ? out.p : "nothing");
    expect(content, l, in, out.p);
    buf_free(&out);
}

static void conditions(void **state)
{
    static const struct {
        const char *condition;
        struct str in;
    } row[] = {
#define ROW(condition, text) {condition, {text, sizeof text - 1}}
        /* Encodings (RFC 6120 11.6) */
        ROW("unsupported-encoding", "\xFE\xFF\0<\0s"),
        ROW("unsupported-encoding", "\xFF\xFE<\0s\0"),
        ROW("unsupported-encoding", "<\0s\0t\0"),
        ROW("unsupported-encoding", "\0<\0s"),
        ROW("unsupported-encoding", "<?xml version='1.0' encoding='ISO-8859-1'?>" H),
        ROW("unsupported-encoding", "<?xml version='1.0' encoding='UTF-16'?>" H),
        ROW("unsupported-encoding", "<?xml version='1.0' encoding='x-none'?>" H),
        ROW("not-well-formed", "\xEF\xBB\xBF" H),
        ROW("not-well-formed", H "<message>\xC3(</message>"),
        ROW("not-well-formed", H "<message>\xED\xA0\x80</message>"),
        ROW("not-well-formed", H "<message>\xC0\xAF</message>"),
        ROW("not-well-formed", H "<message>\0</message>"),
        ROW("not-well-formed", H "<message>&#0;</message>"),
        ROW("not-well-formed", H "<message>&#1;</message>"),
        ROW("not-well-formed", H "<message>&#xD800;</message>"),
        ROW("not-well-formed", H "<message>\xEF\xBF\xBF</message>"),
        ROW("not-well-formed", H "<message>]]></message>"),
        /* Restricted XML (11.1) */
        ROW("restricted-xml", "<!DOCTYPE s [<!ENTITY a 'b'>]>" H),
        ROW("restricted-xml", "<?xml version='1.0'?><!DOCTYPE s SYSTEM 'http://x.lab/'>" H),
        ROW("restricted-xml", "<!-- -->" H),
        ROW("restricted-xml", "<?pi x?>" H),
        ROW("restricted-xml", H "<!-- -->"),
        ROW("restricted-xml", H "<message><!-- --></message>"),
        ROW("restricted-xml", H "<message><?pi?></message>"),
        ROW("restricted-xml", H "<message>&foo;</message>"),
        ROW("restricted-xml", H "<message a='&foo;'/>"),
        /* Well-formedness (11.3) */
        ROW("not-well-formed", "x"),
        ROW("not-well-formed", "GET / HTTP/1.1\r\n\r\n"),
        ROW("not-well-formed", "<?xml version='1.1'?>" H),
        ROW("not-well-formed", H "<?xml version='1.0'?>"),
        ROW("not-well-formed", "<?xml version='1.0'?><?xml version='1.0'?>" H),
        ROW("not-well-formed", H "<message></iq>"),
        ROW("not-well-formed", H "<message a='1' a='2'/>"),
        ROW("not-well-formed", H "<message a='<'/>"),
        ROW("not-well-formed", H "<message q:a='1'/>"),
        ROW("not-well-formed", H "<q:message/>"),
        ROW("not-well-formed", H "<m xmlns:a='x' xmlns:b='x' a:c='1' b:c='2'/>"),
        ROW("not-well-formed", H "<m xmlns:xml='x'/>"),
        ROW("not-well-formed", H "<m xmlns:a=''/>"),
        ROW("not-well-formed", H "<m xmlns='x\001y'/>"),
        ROW("not-well-formed", H "<m xmlns='x&#1;y'/>"),
        ROW("not-well-formed", H "</m>"),
        /* The header (4.7, 4.8) */
        ROW("invalid-namespace", "<stream>"),
        ROW("invalid-namespace", "<stream:stream xmlns='jabber:server' xmlns:stream='x'>"),
        ROW("invalid-namespace", "<stream:stream xmlns='jabber:client' " STREAM ">"),
        ROW("invalid-namespace", "<stream:stream xmlns='jabber:component:accept' " STREAM ">"),
        ROW("invalid-namespace", "<stream:stream " STREAM ">"),
        ROW("invalid-namespace", "<stream:stream xmlns='' " STREAM ">"),
        ROW("invalid-namespace", "<stream:stream xmlns:s='jabber:server' " STREAM ">"),
        ROW("bad-format", "<stream:flow xmlns='jabber:server' " STREAM ">"),
        ROW("bad-namespace-prefix", "<stream xmlns='" NS_STREAM "'>"),
        /* Directly inside the stream */
        ROW("bad-format", H "x"),
        ROW("bad-format", H "<iq/> &amp;"),
        ROW("bad-format", H "<![CDATA["),
        ROW("bad-format", H "\xEF\xBB\xBF"),
        ROW("bad-format", H "x]]>"),
        ROW("bad-format", H " ]]>"),
        ROW("bad-format", H "<iq/>\xFF"),
#undef ROW
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        expect_error(CONTENT_SERVER, &framer_limits_default, row[i].in, row[i].condition);
}

static void limits(void **state)
{
    struct framer_limits l = small_limits();
    static const struct {
        const char *in;
        bool ok;
    } row[] = {
#define TEN "xxxxxxxxxx"
#define FIFTY TEN TEN TEN TEN TEN
        /* header: 200 */
        {"<stream:stream xmlns='jabber:server' " STREAM " to='" FIFTY FIFTY "xxxxxxxxx'>", true},
        {"<stream:stream xmlns='jabber:server' " STREAM " to='" FIFTY FIFTY TEN "'>", false},
        {"<?xml version='1.0'?><stream:stream xmlns='jabber:server' " STREAM
         " to='" FIFTY TEN TEN TEN "xxxxxxxxx'>", false},
        {"<stream:stream a='1' b='1' c='1' xmlns='jabber:server' " STREAM ">", true},
        {"<stream:stream a='1' b='1' c='1' d='' xmlns='jabber:server' " STREAM ">", false},
        {"<stream:stream xmlns:a='1' xmlns='jabber:server' " STREAM ">", false},
        {"<stream:stream a23456789='' xmlns='jabber:server' " STREAM ">", false},
        /* element: 100 */
        {H "<iq>" FIFTY TEN TEN TEN TEN "x</iq>", true},
        {H "<iq>" FIFTY TEN TEN TEN TEN "xx</iq>", false},
        {H "<iq/> <iq>" FIFTY TEN TEN TEN TEN "x</iq>", true},
        {H "<iq/> <iq>" FIFTY TEN TEN TEN TEN "xx</iq>", false},
        {H "<iq>" FIFTY FIFTY, false},
        /* token: 60 */
        {H "<iq id='" FIFTY "'/>", false},
        {H "<iq id='" TEN TEN TEN TEN "xxxxxxxxx'/>", true},
        {H "<iq id='" TEN TEN TEN TEN "xxxxxxxxxx'/>", false},
        {H "<iq><a id='" FIFTY "x'/></iq>", false},
        {H "<iq></iq                                                            >", false},
        {H "<iq>&#0000000000000000000000000000000000000000000000000000000065;</iq>", false},
        {H "<iq>&#00000000000000000000000000000000065;</iq>", true},
        /* depth: 3 */
        {H "<iq><a><b/></a></iq>", true},
        {H "<iq><a><b><c/></b></a></iq>", false},
        {H "<x><a><b><c/></b></a></x>", false},
        /* attributes: 3 */
        {H "<iq a='' b='' c=''/>", true},
        {H "<iq a='' b='' c='' d=''/>", false},
        {H "<iq><a a='' b='' c='' xmlns='d'/></iq>", true},
        {H "<iq><a a='' b='' c='' d=''/></iq>", false},
        /* children: 4 */
        {H "<iq><a/><a/><a/><a/></iq>", true},
        {H "<iq><a><a/><a/></a><a/></iq><iq><a/><a/></iq>", true},
        {H "<iq><a/><a/><a/><a/><a/></iq>", false},
        {H "<iq><a><a/><a/></a><a/><a/></iq>", false},
        /* names: 8 */
        {H "<a2345678/>", true},
        {H "<a23456789/>", false},
        {H "<iq a2345678=''/>", true},
        {H "<iq a23456789=''/>", false},
        {H "<iq xmlns:a2345678='x'/>", true},
        {H "<iq xmlns:a23456789='x'/>", false},
        /* namespace declarations: 2 */
        {H "<iq xmlns:a='x'><x xmlns='y'/></iq>", true},
        {H "<iq xmlns:a='x'><x xmlns='y'/></iq><iq xmlns:a='x'><x xmlns='y'/></iq>", true},
        {H "<iq xmlns:a='x'><x xmlns='y'/><x xmlns='y'/></iq>", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        if (row[i].ok)
            expect(CONTENT_SERVER, &l, str_c(row[i].in), NULL);
        else
            expect_error(CONTENT_SERVER, &l, str_c(row[i].in), "policy-violation");
        struct buf out = BUF_INIT(1 << 16);
        dump_whole(&out, CONTENT_SERVER, &l, str_c(row[i].in), 0, 0);
        if ((strstr(out.p, "error") == NULL) != row[i].ok)
            fail_msg("%s: %s", row[i].in, out.p);
        buf_free(&out);
    }
}


/* ---- routes ---- */

#define OPEN_R "open dialback=0 version=[1.0] content=[] bytes=77\n"
#define FAULT(what, text, bytes)                                                                   \
    "route from=[sm] to=[b.lab] fault=[" what "] span=[" text "] bytes=" bytes "\n"
#define CLIENT "xmlns='jabber:client'"

/* What jabberd2's router sends, and what it would not. */
static void routes(void **state)
{
    static const struct {
        const char *in, *want;
    } row[] = {
        {HR "<bind xmlns='" NS_JABBERD2 "'></bind><presence xmlns='" NS_JABBERD2 "' from='a.lab'/>",
         OPEN_R "nonza (0 {" NS_JABBERD2 "}bind) bytes=70\n"
                "nonza (0 {" NS_JABBERD2 "}presence {}from v=[a.lab]) bytes=81\n"},
        {HR ROUTE "<message " CLIENT " to='b@b.lab' from='a@a.lab' id='1' xml:lang='de'>"
                  "<body>hi</body></message></route> ",
         OPEN_R "route from=[sm] to=[b.lab] around=[" NS_JABBERD2
                "] outer=[ xmlns:stream='" NS_STREAM
                "'] stanza message odd=2 from=[a@a.lab] to=[b@b.lab] id=[1] lang=[de] "
                "span=[<message " CLIENT " to='b@b.lab' from='a@a.lab' id='1' xml:lang='de'>"
                "<body>hi</body></message>] bytes=198\n"},
        {HR "<route xmlns='" NS_JABBERD2 "' error='404' to='gw1' from='a&apos;'>\n"
            "<iq type='get' " CLIENT "/>\t</route>",
         OPEN_R "route from=[a'] to=[gw1] error=[404] around=[" NS_JABBERD2
                "] outer=[ xmlns:stream='" NS_STREAM
                "'] stanza iq odd=2 type=[get] span=[<iq type='get' " CLIENT "/>] bytes=148\n"},
        /* Declarations around the stanza: those of the route hide those of the header. */
        {"<stream:stream xmlns:p='header' xmlns:q='q' " STREAM ">"
         "<c:route xmlns:c='" NS_JABBERD2 "' xmlns:p='a&amp;b' " CLIENT " type='broadcast'>"
         "<presence><p:x/></presence></c:route>",
         "open dialback=0 content=[] bytes=92\n"
         "route type=[broadcast] around=[jabber:client] outer=[ xmlns:c='" NS_JABBERD2
         "' xmlns:p='a&amp;b' xmlns:q='q' xmlns:stream='" NS_STREAM
         "'] stanza presence odd=3 span=[<presence><p:x/></presence>] bytes=162\n"},
        /* The prefix is the route's in one and the stanza's own in the other. */
        {HR "<route xmlns='" NS_JABBERD2 "' xmlns:p='p'><c:iq xmlns:c='jabber:client' xmlns:p='p' "
            "p:a=''/></route>",
         OPEN_R "route around=[" NS_JABBERD2 "] outer=[ xmlns:p='p' xmlns:stream='" NS_STREAM
                "'] stanza iq odd=2 span=[<c:iq xmlns:c='jabber:client' xmlns:p='p' p:a=''/>] "
                "bytes=134\n"},
        {HR ROUTE "<iq " CLIENT "><x xmlns=''/><route xmlns='" NS_JABBERD2 "'><message/></route>"
                  "</iq></route>",
         NULL},
        /* Not one stanza in jabber:client. */
        {HR ROUTE "</route>", OPEN_R FAULT("there is nothing in it", ROUTE "</route>", "93")},
        {HR ROUTE "x<iq " CLIENT "/></route>",
         OPEN_R FAULT("there is text in it", ROUTE "x<iq " CLIENT "/></route>", "121")},
        {HR ROUTE "<iq " CLIENT "/>x</route>",
         OPEN_R FAULT("there is text in it", ROUTE "<iq " CLIENT "/>x</route>", "121")},
        {HR ROUTE "<iq " CLIENT "/><iq " CLIENT "/></route>",
         OPEN_R FAULT("there is more than a stanza in it",
                      ROUTE "<iq " CLIENT "/><iq " CLIENT "/></route>", "147")},
        {HR ROUTE "<iq/></route>",
         OPEN_R FAULT("what is in it is no stanza in jabber:client", ROUTE "<iq/></route>", "98")},
        {HR ROUTE "<iq xmlns='jabber:server'/></route>",
         OPEN_R FAULT("what is in it is no stanza in jabber:client",
                      ROUTE "<iq xmlns='jabber:server'/></route>", "120")},
        {HR ROUTE "<query " CLIENT "/><iq " CLIENT "/></route>",
         OPEN_R FAULT("what is in it is no stanza in jabber:client",
                      ROUTE "<query " CLIENT "/><iq " CLIENT "/></route>", "150")},
        /* A fault ends with its route. */
        {HR "<route xmlns='" NS_JABBERD2 "'>x</route><route xmlns='" NS_JABBERD2 "'><iq " CLIENT
            "/></route>",
         OPEN_R "route fault=[there is text in it] span=[<route xmlns='" NS_JABBERD2
                "'>x</route>] bytes=73\nroute around=[" NS_JABBERD2 "] outer=[ xmlns:stream='"
                NS_STREAM "'] stanza iq odd=2 span=[<iq " CLIENT "/>] bytes=99\n"},
        /* Stanzas are only taken out of routes, and routes are only those of the router. */
        {HR "<message " CLIENT "/><route><a/></route>",
         OPEN_R "nonza (0 {jabber:client}message) bytes=32\n"
                "nonza (0 {}route) (1 {}a) bytes=19\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        expect(CONTENT_ROUTER, &framer_limits_default, str_c(row[i].in), row[i].want);
}

/* The limits hold for the route as a whole; elsewhere a route is nothing special. */
static void route_limits(void **state)
{
    struct framer_limits l = framer_limits_default;
    (void)state;
    l.element = 200;
    l.depth = 3;
    l.children = 3;
    l.ns_decls = 3;
    static const struct {
        const char *in;
        bool ok;
    } row[] = {
        {HR ROUTE "<iq " CLIENT "><a/><b/></iq></route>", true},
        {HR ROUTE "<iq " CLIENT "><a/><b/><c/></iq></route>", false},
        {HR ROUTE "<iq " CLIENT "><a><b/></a></iq></route>", false},
        {HR ROUTE "<iq " CLIENT "><a xmlns='b'/></iq></route>", true},
        {HR ROUTE "<iq " CLIENT "><a xmlns='b'/><a xmlns='b'/></iq></route>", false},
        {HR ROUTE "<iq " CLIENT ">" FIFTY "xxxxxxxxxxxxxxxxxxxxxxx</iq></route>", true},
        {HR ROUTE "<iq " CLIENT ">" FIFTY FIFTY "</iq></route>", false},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        if (row[i].ok)
            expect(CONTENT_ROUTER, &l, str_c(row[i].in), NULL);
        else
            expect_error(CONTENT_ROUTER, &l, str_c(row[i].in), "policy-violation");
    }
    expect_error(CONTENT_ROUTER, &framer_limits_default, STR(H), "invalid-namespace");
    expect_error(CONTENT_ROUTER, &framer_limits_default, STR(HR "x"), "bad-format");
    expect_error(CONTENT_ROUTER, &framer_limits_default, STR(HR ROUTE "<iq></route>"),
                 "not-well-formed");
    expect(CONTENT_COMPONENT, &framer_limits_default, STR(HC "<route xmlns='" NS_JABBERD2 "'/>"),
           "open dialback=0 content=[jabber:component:accept] bytes=95\n"
           "nonza (0 {" NS_JABBERD2 "}route) bytes=65\n");
}

/* ---- bytes and memory ---- */

static struct framer *opened(enum content_ns content, const char *header)
{
    struct framer *f = framer_new(content, &framer_limits_default);
    struct framer_event ev;
    assert_non_null(f);
    assert_true(framer_feed(f, str_c(header)));
    assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
    assert_int_equal(ev.kind, FRAMER_STREAM_OPEN);
    assert_int_equal(framer_next(f, &ev), FRAMER_NEED_MORE);
    return f;
}

static struct framer_event next_of(struct framer *f, enum framer_kind kind)
{
    struct framer_event ev;
    assert_int_equal(framer_next(f, &ev), FRAMER_EVENT);
    assert_int_equal(ev.kind, kind);
    return ev;
}

static void need_more(struct framer *f)
{
    struct framer_event ev;
    assert_int_equal(framer_next(f, &ev), FRAMER_NEED_MORE);
}

/* With re-parse deferral the end of a large tag would wait for further bytes. */
static void no_deferral(void **state)
{
    char tag[3000];
    (void)state;
    memset(tag, 'x', sizeof tag);
    memcpy(tag, "<message id='", 13);
    for (size_t last = 1; last <= 3; last++) {
        struct framer *f = opened(CONTENT_SERVER, H);
        memcpy(tag + sizeof tag - 3, "'/>", 3);
        assert_true(framer_feed(f, (struct str){tag, sizeof tag - last}));
        need_more(f);
        assert_true(framer_feed(f, (struct str){tag + sizeof tag - last, last}));
        assert_int_equal(next_of(f, FRAMER_STANZA).bytes, sizeof tag);
        assert_true(framer_quiet(f));
        framer_free(f);
    }
}

static void names_are_forgotten(void **state)
{
    struct framer *f = opened(CONTENT_SERVER, H);
    size_t most = 0, stanzas = 0;
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        char text[96];
        struct framer_event ev;
        snprintf(text, sizeof text, "<iq><n%u a%u='' xmlns:p%u='u%u'/></iq>", i, i, i, i);
        assert_true(framer_feed(f, str_c(text)));
        while (framer_next(f, &ev) == FRAMER_EVENT)
            stanzas++;
        if (framer_memory(f) > most)
            most = framer_memory(f);
    }
    assert_int_equal(stanzas, 200000);
    assert_in_range(most, 65536, 1024 * 1024);
    framer_relax(f);
    assert_in_range(framer_memory(f), 1, 8192);
    framer_free(f);
}

static void prefixes_survive(void **state)
{
    struct framer *f = opened(CONTENT_SERVER,
                              "<x:stream xmlns='jabber:server' xmlns:x='" NS_STREAM "' "
                              "xmlns:db='jabber:server:dialback' "
                              "xmlns:odd='a&amp;b&lt;&apos;&#10;'>");
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 5000 && round < 2; i++) {
            assert_true(framer_feed(f, STR("<iq id='0123456789'/>")));
            next_of(f, FRAMER_STANZA);
            need_more(f);
        }
        framer_relax(f);
        assert_true(framer_feed(f, STR("<db:result/><odd:a/><message db:a=''/>")));
        struct framer_event ev = next_of(f, FRAMER_NONZA);
        assert_true(nonza_is(ev.nonza, NS_DIALBACK, "result"));
        ev = next_of(f, FRAMER_NONZA);
        assert_true(nonza_is(ev.nonza, "a&b<'\n", "a"));
        ev = next_of(f, FRAMER_STANZA);
        assert_int_equal(ev.stanza.odd, STANZA_OUTER_PREFIX);
    }
    assert_true(framer_feed(f, STR("</x:stream>")));
    next_of(f, FRAMER_STREAM_CLOSE);
    framer_free(f);
}

/* Stanzas of many sizes through one stream, all spans kept: none may change later. */
static void spans_stay(void **state)
{
    enum { N = 60 };
    struct framer *f = opened(CONTENT_SERVER, H);
    struct span kept[N];
    struct buf in = BUF_INIT(1 << 24);
    size_t n = 0;
    (void)state;
    for (unsigned i = 0; i < N; i++) {
        size_t len = i % 7 == 0 ? 200000 : i % 3 == 0 ? 30000 + i : 100 + i;
        buf_printf(&in, "<message id='%u'>", i);
        assert_true(buf_reserve(&in, len));
        memset(in.p + in.len, 'a' + (int)(i % 26), len);
        in.len += len;
        buf_puts(&in, "</message>\n");
    }
    for (size_t at = 0; at < in.len;) {
        size_t room;
        char *p = framer_room(f, &room);
        assert_non_null(p);
        if (room > in.len - at)
            room = in.len - at;
        memcpy(p, in.p + at, room);
        framer_filled(f, room);
        at += room;
        assert_in_range(framer_memory(f), 1, 2 * 1024 * 1024);
        for (struct framer_event ev; framer_next(f, &ev) == FRAMER_EVENT;)
            kept[n++] = span_retain(ev.stanza.span);
    }
    assert_int_equal(n, N);
    assert_true(framer_quiet(f));
    for (size_t i = 0, at = 0; i < n; i++) {
        assert_memory_equal(kept[i].s.p, in.p + at, kept[i].s.n);
        at += kept[i].s.n + 1;
        span_release(&kept[i]);
    }
    buf_free(&in);
    framer_free(f);
}

/* Routes of many sizes in pieces of many sizes: the chunk moves while a route is half-read. */
static void route_spans(void **state)
{
    struct framer *f = opened(CONTENT_ROUTER, HR);
    struct buf in = BUF_INIT(1 << 25), want = BUF_INIT(1 << 16);
    struct span kept[4] = {{NULL, {NULL, 0}}};
    size_t n = 0, piece = 1;
    (void)state;
    for (unsigned i = 0; i < 600; i++)
        buf_printf(&in, ROUTE "<iq id='%u' " CLIENT ">%0*u</iq>%*s</route>", i,
                   (int)(i * 37 % 9000), i, (int)(i % 4 * 3000), "");
    for (size_t at = 0; at < in.len; at += piece) {
        piece = 1 + (at * 31 + piece) % 5000;
        if (piece > in.len - at)
            piece = in.len - at;
        assert_true(framer_feed(f, (struct str){in.p + at, piece}));
        for (struct framer_event ev; framer_next(f, &ev) == FRAMER_EVENT; n++) {
            buf_clear(&want);
            buf_printf(&want, "<iq id='%zu' " CLIENT ">%0*u</iq>", n, (int)(n * 37 % 9000),
                       (unsigned)n);
            assert_null(ev.stanza.route->fault);
            assert_true(str_eq(ev.stanza.span.s, buf_view(&want)));
            if (n % 50 == 0) { /* now and then a chunk is held, and cannot be used again */
                span_release(&kept[n / 50 % 4]);
                kept[n / 50 % 4] = span_retain(ev.stanza.span);
            }
        }
    }
    assert_int_equal(n, 600);
    for (size_t i = 0; i < 4; i++)
        span_release(&kept[i]);
    buf_free(&in);
    buf_free(&want);
    framer_free(f);
}

static void chunk_is_bounded(void **state)
{
    struct framer *f = opened(CONTENT_SERVER, H);
    static char block[4096];
    size_t taken = 0;
    (void)state;
    memset(block, ' ', sizeof block);
    while (framer_feed(f, (struct str){block, sizeof block}))
        taken += sizeof block;
    assert_in_range(taken, 256 * 1024, 256 * 1024 + 65536);
    need_more(f);
    assert_true(framer_feed(f, (struct str){block, sizeof block}));
    framer_free(f);
}

static void relaxes(void **state)
{
    struct framer *f = opened(CONTENT_SERVER, H);
    size_t n;
    (void)state;
    assert_non_null(framer_room(f, &n));
    assert_in_range(n, 1, 65536);
    framer_relax(f);
    size_t idle = framer_memory(f);
    assert_in_range(idle, 1, 8192);
    assert_true(framer_feed(f, STR(" \r")));
    need_more(f);
    assert_true(framer_quiet(f));
    framer_relax(f);
    assert_int_equal(framer_memory(f), idle);
    assert_true(framer_feed(f, STR("<iq")));
    assert_false(framer_quiet(f));
    need_more(f);
    assert_false(framer_quiet(f));
    framer_relax(f);
    assert_true(framer_feed(f, STR("><a>")));
    need_more(f);
    framer_relax(f);
    assert_true(framer_feed(f, STR("</a></iq>")));
    assert_true(str_is(next_of(f, FRAMER_STANZA).stanza.span.s, "<iq><a></a></iq>"));
    framer_relax(f);
    assert_int_equal(framer_memory(f), idle);
    framer_free(f);
}

static void restarts(void **state)
{
    static const struct {
        const char *after;
        bool clean;
    } row[] = {{"", true}, {" \r\n\t", true}, {"<", false}, {"x", false}, {" " H, false}};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct framer *f = opened(CONTENT_SERVER, H);
        struct buf in = BUF_INIT(1024);
        buf_printf(&in, "<starttls xmlns='" NS_TLS "'/>%s", row[i].after);
        assert_true(framer_feed(f, buf_view(&in)));
        assert_true(nonza_is(next_of(f, FRAMER_NONZA).nonza, NS_TLS, "starttls"));
        assert_int_equal(framer_restart(f), row[i].clean);
        if (row[i].clean) {
            assert_true(framer_quiet(f));
            assert_true(framer_feed(f, STR("<?xml version='1.0'?>" H)));
        }
        if (row[i].clean || row[i].after[0] == ' ')
            assert_true(str_is(next_of(f, FRAMER_STREAM_OPEN).header->content_ns, NS_SERVER));
        buf_free(&in);
        framer_free(f);
    }
}

static void header_is_replaced(void **state)
{
    struct framer *f = opened(CONTENT_SERVER, "<stream:stream from='a.lab' xml:lang='de' xmlns:db='"
                              NS_DIALBACK "' xmlns='jabber:server' " STREAM ">");
    (void)state;
    assert_true(framer_restart(f));
    assert_true(framer_feed(f, STR(H "<iq/><db:result/>")));
    struct framer_event ev = next_of(f, FRAMER_STREAM_OPEN);
    assert_null(ev.header->from.p);
    assert_false(ev.header->declares_dialback);
    ev = next_of(f, FRAMER_STANZA);
    assert_int_equal(ev.stanza.odd, 0);
    assert_int_equal(framer_next(f, &ev), FRAMER_ERROR); /* db: is of the old header */
    framer_free(f);
}

static void limits_change(void **state)
{
    struct framer_limits l = small_limits();
    struct framer *f = opened(CONTENT_SERVER, H);
    struct framer_event ev;
    (void)state;
    assert_true(framer_feed(f, STR("<iq>" FIFTY)));
    need_more(f);
    framer_set_limits(f, &l); /* not for the element that is being read */
    assert_true(framer_feed(f, STR(FIFTY "</iq><iq>" FIFTY)));
    next_of(f, FRAMER_STANZA);
    need_more(f);
    assert_true(framer_feed(f, STR(FIFTY)));
    assert_int_equal(framer_next(f, &ev), FRAMER_ERROR);
    assert_string_equal(framer_error(f).condition, "policy-violation");
    assert_int_equal(framer_next(f, &ev), FRAMER_ERROR);
    assert_true(framer_feed(f, STR("<iq/>")));
    assert_int_equal(framer_next(f, &ev), FRAMER_ERROR);
    framer_free(f);

    f = opened(CONTENT_SERVER, H);
    framer_set_limits(f, &l);
    assert_true(framer_feed(f, STR("<iq>" FIFTY FIFTY "</iq>")));
    assert_int_equal(framer_next(f, &ev), FRAMER_ERROR);
    framer_free(f);
}

static void nonza_is_bounded(void **state)
{
    static const struct {
        const char *each;
        unsigned ok, bad;
    } row[] = {
        {"<a/>", NONZA_NODES - 1, NONZA_NODES},
        {"<a b='' c='' d=''/>", 42, 43},
        {"<a>" FIFTY FIFTY FIFTY "</a>", 45, 60},
        {FIFTY, 150, 170},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        for (unsigned bad = 0; bad < 2; bad++) {
            struct framer *f = opened(CONTENT_SERVER, H);
            struct framer_event ev;
            assert_true(framer_feed(f, STR("<x>")));
            for (unsigned k = 0; k < (bad ? row[i].bad : row[i].ok); k++)
                assert_true(framer_feed(f, str_c(row[i].each)));
            assert_true(framer_feed(f, STR("</x>")));
            assert_int_equal(framer_next(f, &ev), bad ? FRAMER_ERROR : FRAMER_EVENT);
            if (bad)
                assert_string_equal(framer_error(f).condition, "policy-violation");
            framer_free(f);
        }
    }
}

static void parser_heap_is_bounded(void **state)
{
    struct framer_limits l = framer_limits_default;
    struct framer *f = opened(CONTENT_SERVER, H);
    enum framer_result r = FRAMER_NEED_MORE;
    (void)state;
    l.parser_heap = 64 * 1024;
    framer_set_limits(f, &l);
    assert_true(framer_feed(f, STR("<iq>")));
    for (unsigned i = 0; i < 4000 && r == FRAMER_NEED_MORE; i++) {
        char text[64];
        struct framer_event ev;
        snprintf(text, sizeof text, "<n%u a%u=''/>", i, i);
        assert_true(framer_feed(f, str_c(text)));
        r = framer_next(f, &ev);
    }
    assert_int_equal(r, FRAMER_ERROR);
    assert_string_equal(framer_error(f).condition, "policy-violation");
    framer_free(f);
}

/* Every allocation may fail: the answer is resource-constraint or no room, never a crash. */
static void fail_allocations(enum content_ns content, struct str in)
{
    struct buf out = BUF_INIT(1 << 16);
    unsigned long n = 0;
    for (bool done = false; !done; n++) {
        struct framer *f = framer_new(content, &framer_limits_default);
        assert_non_null(f);
        buf_clear(&out);
        mem_fail_after(n + 1);
        bool room = framer_feed(f, in);
        struct framer_event ev;
        enum framer_result r = FRAMER_NEED_MORE;
        while (room && (r = framer_next(f, &ev)) == FRAMER_EVENT)
            done = ev.kind == FRAMER_STREAM_CLOSE;
        mem_fail_after(0);
        assert_true(done || !room || r == FRAMER_ERROR);
        if (r == FRAMER_ERROR)
            assert_string_equal(framer_error(f).condition, "resource-constraint");
        framer_free(f);
    }
    assert_in_range(n, 10, 1000);
    mem_fail_after(1);
    assert_null(framer_new(content, &framer_limits_default));
    mem_fail_after(0);
    buf_free(&out);
}

static void allocation_fails(void **state)
{
    (void)state;
    fail_allocations(
        CONTENT_SERVER,
        STR("<?xml version='1.0'?>"
            "<stream:stream xmlns='jabber:server' xmlns:p='outer' from='a' " STREAM ">"
            "<db:result xmlns:db='jabber:server:dialback'>k</db:result>"
            "<message from='a' to='b'><x xmlns:q='q' q:a='1'/></message>" CLOSE));
    fail_allocations(CONTENT_ROUTER,
                     STR(HR "<route xmlns:p='p' xmlns='" NS_JABBERD2 "' from='a' to='b'>"
                            "<message from='a' to='b' " CLIENT "><x xmlns:q='q' q:a='1'/></message>"
                            "</route>" CLOSE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transcripts), cmocka_unit_test(odd_flags), cmocka_unit_test(conditions),
        cmocka_unit_test(limits),
        cmocka_unit_test(routes),
        cmocka_unit_test(route_limits),
        cmocka_unit_test(no_deferral),
        cmocka_unit_test(names_are_forgotten),
        cmocka_unit_test(prefixes_survive),
        cmocka_unit_test(spans_stay),
        cmocka_unit_test(route_spans),
        cmocka_unit_test(chunk_is_bounded),
        cmocka_unit_test(relaxes),
        cmocka_unit_test(restarts),
        cmocka_unit_test(header_is_replaced),
        cmocka_unit_test(limits_change),
        cmocka_unit_test(nonza_is_bounded),
        cmocka_unit_test(parser_heap_is_bounded),
        cmocka_unit_test(allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
