/* Stanzas into routes and out again: exact texts, and what a parser with namespaces makes of them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/base/mem.h"
#include "core/xml/writer.h"
#include "tests/unit/xml_dump.h"
#include "xcp/jabberd2_route.h"

#define BEGIN "<route xmlns='" NS_JABBERD2 "' from='gw1' to='a.lab'>"
#define END   "</route>"
#define SC    "<stream:stream xmlns='jabber:server' xmlns:stream='" NS_STREAM "'>"
#define SR    "<stream:stream xmlns:stream='" NS_STREAM "'>"

static struct span wrap(const char *stanza)
{
    return jabberd2_wrap(str_c(stanza), STR("gw1"), STR("a.lab"));
}

static void test_wrap(void **state)
{
    static const struct {
        const char *in, *out;
    } row[] = {
        {"<message/>", "<message xmlns='jabber:client'/>"},
        {"<message to='a@a.lab'\n>x</message >",
         "<message xmlns='jabber:client' to='a@a.lab'\n>x</message >"},
        {"<iq><query xmlns='jabber:component:accept2'/></iq>",
         "<iq xmlns='jabber:client'><query xmlns='jabber:component:accept2'/></iq>"},
        /* Translated where it is declared, and nowhere else. */
        {"<iq><x xmlns='y'><body xmlns='jabber:component:accept'><b/></body></x></iq>",
         "<iq xmlns='jabber:client'><x xmlns='y'><body xmlns='jabber:client'><b/></body></x></iq>"},
        {"<iq><x xmlns='y'><body a='1'  xmlns = \"jabber:component:accept\"/></x></iq>",
         "<iq xmlns='jabber:client'><x xmlns='y'><body a='1'  xmlns = "
         "\"jabber:client\"/></x></iq>"},
        {"<message><body>xmlns='jabber:component:accept' &lt;a></body></message>",
         "<message xmlns='jabber:client'><body>xmlns='jabber:component:accept' &lt;a></body>"
         "</message>"},
        {"<message id=\"xmlns='jabber:component:accept'\"><a b=' xmlns=\"jabber:component:accept\" "
         "'/>"
         "</message>",
         "<message xmlns='jabber:client' id=\"xmlns='jabber:component:accept'\">"
         "<a b=' xmlns=\"jabber:component:accept\" '/></message>"},
        {"<iq><a b='>' xmlns='jabber:component:accept'/></iq>",
         "<iq xmlns='jabber:client'><a b='>' xmlns='jabber:client'/></iq>"},
        /* What is jabber:client stays so, and prefixes stay what they are. */
        {"<iq><f xmlns='f'><message xmlns='jabber:client'/></f></iq>",
         "<iq xmlns='jabber:client'><f xmlns='f'><message xmlns='jabber:client'/></f></iq>"},
        {"<iq><x xmlns:p='jabber:component:accept' p:a='1'/></iq>",
         "<iq xmlns='jabber:client'><x xmlns:p='jabber:component:accept' p:a='1'/></iq>"},
        {"<iq><x xmlns:xmlnsx='jabber:component:accept' xmlnsx:a='1'/></iq>",
         "<iq xmlns='jabber:client'><x xmlns:xmlnsx='jabber:component:accept' xmlnsx:a='1'/></iq>"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct span s = wrap(row[i].in);
        struct buf want = BUF_INIT(4096), tree = BUF_INIT(1 << 16);
        struct tree t = {.out = &tree};
        buf_printf(&want, BEGIN "%s" END, row[i].out);
        assert_non_null(s.chunk);
        if (!str_eq(s.s, buf_view(&want)))
            fail_msg("%.*s\n%s", STR_ARG(s.s), want.p);
        assert_true(dump_tree(&t, "", STR(""), s.s));
        span_release(&s);
        buf_free(&want);
        buf_free(&tree);
    }
}

static void test_escapes(void **state)
{
    (void)state;
    struct span s = jabberd2_wrap(STR("<iq/>"), STR("g'w"), STR("a&b>"));
    assert_true(str_is(s.s, "<route xmlns='" NS_JABBERD2 "' from='g&apos;w' to='a&amp;b&gt;'>"
                            "<iq xmlns='jabber:client'/></route>"));
    struct span back = jabberd2_unwrap(s.s);
    assert_true(str_is(back.s, "<iq/>"));
    span_release(&back);
    span_release(&s);
}

/* Bytes that are no stanza give nothing, and never a read beyond them (under asan). */
static void test_no_stanza(void **state)
{
    static const char *const row[] = {"",
                                      "<",
                                      "<a",
                                      "<>",
                                      "</>",
                                      "a>",
                                      "<iq",
                                      "<iq a='jabber:component:accept",
                                      " <iq/>",
                                      "<iq",
                                      "<iq><x a=jabber:component:accept></x></iq>",
                                      "<iq><x xmlns='jabber:component:accept'</iq",
                                      "<iq>jabber:component:accept<>",
                                      "<iq>jabber:component:accept</",
                                      "<iq>jabber:component:accept<x"};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        size_t n = strlen(row[i]);
        char *copy = malloc(n + 1);
        memcpy(copy, row[i], n);
        struct span s = jabberd2_wrap((struct str){copy, n}, STR("a"), STR("b"));
        if (s.chunk != NULL)
            fail_msg("%s: %.*s", row[i], STR_ARG(s.s));
        s = jabberd2_unwrap((struct str){copy, n});
        assert_null(s.chunk);
        free(copy);
    }
}

static void test_unwrap(void **state)
{
    static const char *const same[] = {
        "<message/>",
        "<message to='a@a.lab'\n>x</message >",
        "<iq><f xmlns='f'><message xmlns='jabber:client'/></f></iq>",
        "<iq><x xmlns:p='jabber:component:accept' p:a='1'/></iq>",
        "<message><body></route> jabber:component:accept</body></message>",
    };
    static const char *const wrong[] = {"<iq/>",
                                        BEGIN END,
                                        BEGIN "<iq/>" END,
                                        BEGIN "<iq xmlns='jabber:server'/>" END,
                                        BEGIN "<iq xmlns='jabber:client'/>",
                                        "<route><iq xmlns='jabber:client'/></route>",
                                        BEGIN "<" END,
                                        BEGIN "<iq" END,
                                        "<route xmlns='" NS_JABBERD2 "'",
                                        BEGIN "x" END};
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        struct span s = wrap(same[i]), back = jabberd2_unwrap(s.s);
        assert_true(str_is(back.s, same[i]));
        span_release(&back);
        span_release(&s);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_null(jabberd2_unwrap(str_c(wrong[i])).chunk);
    struct span s = wrap("<iq><x xmlns='y'><b xmlns='jabber:component:accept'/></x></iq>");
    struct span back = jabberd2_unwrap(s.s);
    assert_true(str_is(back.s, "<iq><x xmlns='y'><b xmlns='jabber:client'/></x></iq>"));
    span_release(&back);
    span_release(&s);
}

/* ---- from the world to the router and back to the world ---------------------------------------
 */

static struct framer *read_one(enum content_ns content, const char *header, struct str text,
                               struct framer_event *ev)
{
    struct framer *f = framer_new(content, &framer_limits_default);
    assert_non_null(f);
    assert_true(framer_feed(f, str_c(header)));
    assert_int_equal(framer_next(f, ev), FRAMER_EVENT);
    assert_true(framer_feed(f, text));
    assert_int_equal(framer_next(f, ev), FRAMER_EVENT);
    assert_int_equal(ev->kind, FRAMER_STANZA);
    return f;
}

static struct span restamp(const struct stanza *st, enum content_ns content)
{
    struct writer_target target = {.content = content};
    struct span s = writer_restamp(st, &target);
    assert_non_null(s.chunk);
    return s;
}

/* What a server inside reads, as a tree, is what the peer outside wrote, with jabber:server for
 * jabber:client; and what comes back from there is what was written. */
static void there_and_back(const char *stanza, const char *inside, const char *outside)
{
    struct framer_event ev;
    struct framer *f = read_one(CONTENT_SERVER, SC, str_c(stanza), &ev);
    struct span component = restamp(&ev.stanza, CONTENT_COMPONENT);
    struct span route = jabberd2_wrap(component.s, STR("gw1"), STR("a.lab"));
    assert_non_null(route.chunk);
    framer_free(f);
    f = read_one(CONTENT_ROUTER, SR, route.s, &ev);
    assert_non_null(ev.stanza.route);
    assert_null(ev.stanza.route->fault);
    assert_true(str_is(ev.stanza.route->to, "a.lab"));
    struct buf tree = BUF_INIT(1 << 16);
    struct tree t = {.out = &tree};
    assert_true(dump_tree(&t, NS_JABBERD2, ev.stanza.outer, ev.stanza.span.s));
    assert_string_equal(tree.p, inside);
    struct span back = restamp(&ev.stanza, CONTENT_SERVER);
    assert_true(str_is(back.s, outside));
    span_release(&back);
    span_release(&route);
    span_release(&component);
    buf_free(&tree);
    framer_free(f);
}

static void test_world(void **state)
{
    (void)state;
    there_and_back("<message to='a@a.lab'><body>x</body></message>",
                   "<{jabber:client}message {}to=[a@a.lab]|<{jabber:client}body|x>>",
                   "<message to='a@a.lab'><body>x</body></message>");
    there_and_back("<s:iq xmlns:s='jabber:server'><x xmlns='y'><s:b/></x></s:iq>",
                   "<{jabber:client}iq|<{y}x|<{jabber:client}b|>>>",
                   "<iq><x xmlns='y'><b xmlns='jabber:client'/></x></iq>");
    there_and_back("<iq><f xmlns='f'><message xmlns='jabber:client'/></f></iq>",
                   "<{jabber:client}iq|<{f}f|<{jabber:client}message|>>>",
                   "<iq><f xmlns='f'><message xmlns='jabber:client'/></f></iq>");
    /* Three attributes that differ only in which content namespace they are in: no two of them may
     * become the same one, or the router ends the link for everybody. */
    there_and_back("<iq><x xmlns:a='jabber:server' xmlns:b='jabber:client' "
                   "xmlns:c='jabber:component:accept' a:n='1' b:n='2' c:n='3'/></iq>",
                   "<{jabber:client}iq|<{jabber:client}x {jabber:client}n=[2] "
                   "{jabber:component:accept}n=[1] {jabber:server}n=[3]|>>",
                   "<iq><x xmlns:b='jabber:client' xmlns:a='jabber:component:accept' a:n='1' "
                   "b:n='2' xmlns:c='" NS_JABBERD2 "' c:n='3'/></iq>");
}

static void test_no_memory(void **state)
{
    static const char in[] = "<iq><x xmlns='y'><b xmlns='jabber:component:accept'/></x></iq>";
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        struct span s = {NULL, {NULL, 0}}, route = wrap(in);
        for (unsigned long n = 1; s.chunk == NULL; n++) {
            assert_in_range(n, 1, 10);
            mem_fail_after(n);
            s = round ? jabberd2_unwrap(route.s) : wrap(in);
            mem_fail_after(0);
        }
        span_release(&s);
        span_release(&route);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrap),      cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_no_stanza), cmocka_unit_test(test_unwrap),
        cmocka_unit_test(test_world),     cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
