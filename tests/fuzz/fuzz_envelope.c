/* Stanzas: the envelope scanner reads what expat reads, and a stanza written for another stream is
 * the same tree there.
 *
 * Byte 0 chooses the stream and the wanted addresses; the rest is what follows the header. */
#include "core/xml/envelope.h"
#include "core/xml/writer.h"
#include "tests/unit/xml_dump.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {NS_SERVER, NS_COMPONENT};

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void check_envelope(const struct stanza *st)
{
    struct envelope e;
    check(envelope_scan(st->span.s, &e));
    check(envelope_says(e.value[ENVELOPE_FROM], st->from));
    check(envelope_says(e.value[ENVELOPE_TO], st->to));
    check(envelope_says(e.value[ENVELOPE_ID], st->id));
    check(envelope_says(e.value[ENVELOPE_TYPE], st->type));
    check(envelope_says(e.value[ENVELOPE_LANG], st->lang));
    check(e.tag_end <= st->span.s.n && st->span.s.p[e.tag_end - 1] == '>');
}

static struct framer *framed(enum content_ns content, const struct framer_limits *limits,
                             const char *prefixes, struct str rest)
{
    struct framer *f = framer_new(content, limits);
    struct framer_event ev;
    struct buf h = BUF_INIT(4096);
    buf_printf(&h, "<stream:stream xmlns='%s' xmlns:stream='%s'%s>", names[content], NS_STREAM,
               prefixes);
    check(framer_feed(f, buf_view(&h)) && framer_feed(f, rest));
    check(framer_next(f, &ev) == FRAMER_EVENT);
    buf_free(&h);
    return f;
}

/* With wanted addresses: the other side's framer must read exactly these. */
static void check_addresses(const struct stanza *st, enum content_ns target)
{
    struct writer_target t = {target, STR("<u'&\"@a.lab"), STR("b.lab/\xC3\xA9")};
    struct framer_event ev;
    struct span out = writer_restamp(st, &t);
    check(out.chunk != NULL);
    struct framer *f = framed(target, &framer_limits_default, "", out.s);
    check(framer_next(f, &ev) == FRAMER_EVENT && ev.kind == FRAMER_STANZA);
    check(ev.stanza.kind == st->kind && ev.bytes == out.s.n);
    check(str_eq(ev.stanza.from, t.from) && str_eq(ev.stanza.to, t.to));
    check(str_eq(ev.stanza.id, st->id) && str_eq(ev.stanza.type, st->type));
    framer_free(f);
    span_release(&out);
}

static void check_tree(const struct stanza *st, enum content_ns source, enum content_ns target)
{
    struct buf before = BUF_INIT(1 << 24), after = BUF_INIT(1 << 24);
    struct writer_target to = {.content = target};
    struct tree t = {.out = &before, .swap = {NS_SERVER, NS_COMPONENT}}, u = {.out = &after};
    if (source == target)
        t.swap[0] = NULL;
    if (source == CONTENT_COMPONENT)
        t.client = names[target];
    struct span out = writer_restamp(st, &to);
    check(out.chunk != NULL);
    check(dump_tree(&t, names[source], st->outer, st->span.s));
    check(dump_tree(&u, names[target], STR(""), out.s));
    check(before.failed || after.failed || str_eq(buf_view(&before), buf_view(&after)));
    span_release(&out);
    buf_free(&before);
    buf_free(&after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    enum content_ns source = data[0] & 1 ? CONTENT_COMPONENT : CONTENT_SERVER;
    enum content_ns target = data[0] & 2 ? CONTENT_SERVER : CONTENT_COMPONENT;
    /* Written anew a stanza is longer (escapes) and has the header's declarations on it: what comes
     * in stays so far below the limits that what goes out cannot reach them. */
    struct framer_limits in = framer_limits_default;
    in.element /= 8;
    in.token /= 8;
    in.ns_decls -= 8;
    struct framer *f = framed(source, &in,
                              " xmlns:p='outer' xmlns:s='jabber:server' xmlns:c='jabber:client'",
                              (struct str){(const char *)data + 1, size - 1});
    struct framer_event ev;
    while (framer_next(f, &ev) == FRAMER_EVENT) {
        if (ev.kind != FRAMER_STANZA)
            continue;
        check_envelope(&ev.stanza);
        check_tree(&ev.stanza, source, target);
        check_addresses(&ev.stanza, target);
    }
    framer_free(f);
    return 0;
}
