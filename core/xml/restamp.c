/* Restamp: a stanza of one stream, written for another.
 *
 * Three ways, cheapest first. Plain and rightly addressed: the same bytes. Only addresses or
 * xml:lang differ: the bytes with other attribute values spliced into the start tag; this needs the
 * places that the envelope scanner finds, and they are used only if the values there are those that
 * expat read. Everything else is parsed once more and written canonically: elements without prefix,
 * with a default namespace declared where it changes; the prefix declarations of the stanza where
 * they were, and those of the header on the stanza; text instead of CDATA. */
#include "core/base/mem.h"
#include "core/xml/envelope.h"
#include "core/xml/ns.h"
#include "core/xml/parser_priv.h"
#include "core/xml/writer.h"

enum {
    DEPTH_MAX = 256,
    DECLS_MAX = 160,
    OUTPUT_FACTOR = 8,     /* canonical XML is longer, but not by more than this and ... */
    OUTPUT_EXTRA = 131072, /* ... this; otherwise it is not written */
};

static const struct span no_span = {NULL, {NULL, 0}};

static const char *content_name(enum content_ns content)
{
    return content == CONTENT_SERVER ? NS_SERVER : NS_COMPONENT;
}

static bool is_content(struct str ns)
{
    return str_is(ns, NS_SERVER) || str_is(ns, NS_COMPONENT);
}

static size_t output_max(const struct stanza *st)
{
    return st->span.s.n * OUTPUT_FACTOR + st->outer.n + OUTPUT_EXTRA;
}

/* ---- splicing ---- */

struct splice {
    struct str old; /* raw value in the stanza; absent: a new attribute */
    const char *name;
    struct str value;
};

static void put_new(struct buf *b, const struct splice *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i].old.p == NULL)
            writer_attr(b, s[i].name, s[i].value);
}

/* The splice whose old value is next behind `at` (which is the closing quote of the one before, so
 * that an empty value is not found twice); NULL: none. */
static const struct splice *next_old(const struct splice *s, size_t n, const char *at)
{
    const struct splice *best = NULL;
    for (size_t i = 0; i < n; i++)
        if (s[i].old.p != NULL && s[i].old.p > at && (best == NULL || s[i].old.p < best->old.p))
            best = &s[i];
    return best;
}

static struct span splice_all(struct str bytes, size_t name_end, const struct splice *s, size_t n,
                              size_t max)
{
    struct buf b = BUF_INIT(max);
    const char *at = bytes.p + name_end;
    buf_put(&b, bytes.p, name_end);
    put_new(&b, s, n);
    for (const struct splice *o; (o = next_old(s, n, at)) != NULL;) {
        buf_put(&b, at, (size_t)(o->old.p - at));
        writer_value(&b, o->value); /* right in either kind of quotes */
        at = o->old.p + o->old.n;
    }
    buf_put(&b, at, (size_t)(bytes.p + bytes.n - at));
    struct span out = b.failed ? no_span : span_copy(buf_view(&b));
    buf_free(&b);
    return out;
}

/* ---- serialising ---- */

/* A prefix declaration that waits for its element's start tag to be written. */
struct decl {
    size_t prefix, nprefix, uri, nuri; /* in serial.text */
};

struct serial {
    const struct stanza *st;
    const struct writer_target *target;
    XML_Parser parser;
    struct buf out;
    struct buf text; /* strings of decls */
    struct decl decl[DECLS_MAX];
    unsigned ndecls;
    struct buf ns; /* default namespaces that were written and hold here, outer ones first */
    struct {
        size_t at, n;
    } ns_of[DEPTH_MAX]; /* which one holds inside the open element of each depth */
    unsigned depth;     /* open elements; the stand-in for the stream counts */
    unsigned chain;     /* down to which depth elements are in jabber:client */
    bool tag_open;      /* '>' of the last start tag not written yet */
    bool failed;
};

static void give_up(struct serial *s)
{
    s->failed = true;
    XML_StopParser(s->parser, XML_FALSE);
}

/* The namespace that stands in the output for this one. */
static struct str translate(const struct serial *s, struct str ns, bool chained)
{
    struct str target = str_c(content_name(s->target->content));
    if (chained || str_eq(ns, s->st->content_ns))
        return target;
    return str_eq(ns, target) ? s->st->content_ns : ns;
}

static void close_tag(struct serial *s)
{
    if (s->tag_open)
        buf_putc(&s->out, '>');
    s->tag_open = false;
}

static struct str decl_prefix(const struct serial *s, unsigned i)
{
    return (struct str){s->text.p + s->decl[i].prefix, s->decl[i].nprefix};
}

/* A declaration on the stanza hides one of the header. */
static void drop_decl(struct serial *s, struct str prefix)
{
    for (unsigned i = 0; i < s->ndecls; i++)
        if (str_eq(decl_prefix(s, i), prefix))
            s->decl[i--] = s->decl[--s->ndecls];
}

static void on_ns(void *arg, const XML_Char *prefix, const XML_Char *uri)
{
    struct serial *s = arg;
    if (s->failed || prefix == NULL || strcmp(prefix, "xml") == 0)
        return;
    struct str p = str_c(prefix), u = str_c(uri);
    drop_decl(s, p);
    /* A prefix for a content namespace is declared where an attribute uses it (put_attr). The
     * header's are needed only by a stanza that leans on them. */
    if (is_content(u) || (s->depth == 0 && !(s->st->odd & STANZA_OUTER_PREFIX)))
        return;
    if (s->ndecls == DECLS_MAX) {
        give_up(s);
        return;
    }
    s->decl[s->ndecls++] = (struct decl){s->text.len, p.n, s->text.len + p.n, u.n};
    buf_str(&s->text, p);
    buf_str(&s->text, u);
    if (s->text.failed)
        give_up(s);
}

static void put_decl(struct serial *s, struct str prefix, struct str uri)
{
    buf_puts(&s->out, " xmlns:");
    buf_str(&s->out, prefix);
    buf_puts(&s->out, "='");
    writer_value(&s->out, uri);
    buf_putc(&s->out, '\'');
}

static void put_decls(struct serial *s)
{
    for (unsigned i = 0; i < s->ndecls; i++)
        put_decl(s, decl_prefix(s, i), (struct str){s->text.p + s->decl[i].uri, s->decl[i].nuri});
    s->ndecls = 0;
    buf_clear(&s->text);
}

static void put_attr(struct serial *s, const XML_Char **atts, size_t at, struct str value)
{
    struct xml_name n = xml_name_split(atts[at]);
    if (is_content(n.ns)) {
        bool first = true;
        for (size_t i = 0; i < at; i += 2) {
            struct xml_name before = xml_name_split(atts[i]);
            first = first && !(is_content(before.ns) && str_eq(before.prefix, n.prefix));
        }
        if (first)
            put_decl(s, n.prefix, translate(s, n.ns, false));
    }
    buf_putc(&s->out, ' ');
    if (n.prefix.p != NULL) {
        buf_str(&s->out, n.prefix);
        buf_putc(&s->out, ':');
    }
    buf_str(&s->out, n.local);
    buf_puts(&s->out, "='");
    writer_value(&s->out, value);
    buf_putc(&s->out, '\'');
}

/* The attributes of the stanza itself: addresses and xml:lang may be new. */
static void put_stanza_attrs(struct serial *s, const XML_Char **atts)
{
    const struct writer_target *t = s->target;
    bool from = false, to = false;
    for (size_t i = 0; atts[i] != NULL; i += 2) {
        struct str value = str_c(atts[i + 1]);
        if (strcmp(atts[i], "from") == 0) {
            from = true;
            value = t->from.p ? t->from : value;
        } else if (strcmp(atts[i], "to") == 0) {
            to = true;
            value = t->to.p ? t->to : value;
        }
        put_attr(s, atts, i, value);
    }
    if (!from)
        writer_attr(&s->out, "from", t->from);
    if (!to)
        writer_attr(&s->out, "to", t->to);
    if (s->st->odd & STANZA_LANG)
        writer_attr(&s->out, "xml:lang", s->st->inherited_lang);
}

/* Declares the element's namespace if it is not the one around it. */
static void put_ns(struct serial *s, unsigned level, struct str ns)
{
    s->ns_of[level] = s->ns_of[level - 1];
    struct str around = {s->ns.p + s->ns_of[level].at, s->ns_of[level].n};
    if (str_is(ns, NS_XML) || str_eq(ns, around))
        return;
    s->ns_of[level].at = s->ns.len;
    s->ns_of[level].n = ns.n;
    buf_str(&s->ns, ns);
    buf_puts(&s->out, " xmlns='");
    writer_value(&s->out, ns);
    buf_putc(&s->out, '\'');
}

/* The namespace of `xml:` must not be a default one: the only element name with a prefix. */
static void put_name(struct serial *s, const struct xml_name *n)
{
    if (str_is(n->ns, NS_XML))
        buf_puts(&s->out, "xml:");
    buf_str(&s->out, n->local);
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
    struct serial *s = arg;
    unsigned level = s->depth++;
    if (s->failed || level == 0)
        return;
    if (level == DEPTH_MAX) {
        give_up(s);
        return;
    }
    struct xml_name n = xml_name_split(name);
    if (s->chain == level - 1 && str_is(n.ns, NS_CLIENT))
        s->chain = level;
    close_tag(s);
    buf_putc(&s->out, '<');
    put_name(s, &n);
    put_ns(s, level, translate(s, n.ns, s->chain == level));
    put_decls(s);
    if (level == 1)
        put_stanza_attrs(s, atts);
    for (size_t i = 0; level > 1 && atts[i] != NULL; i += 2)
        put_attr(s, atts, i, str_c(atts[i + 1]));
    s->tag_open = true;
    if (s->out.failed || s->ns.failed)
        give_up(s);
}

static void on_end(void *arg, const XML_Char *name)
{
    struct serial *s = arg;
    unsigned level = --s->depth;
    if (s->failed || level == 0)
        return;
    if (s->tag_open) {
        buf_puts(&s->out, "/>");
        s->tag_open = false;
    } else {
        struct xml_name n = xml_name_split(name);
        buf_puts(&s->out, "</");
        put_name(s, &n);
        buf_putc(&s->out, '>');
    }
    if (s->chain == level)
        s->chain = level - 1;
    s->ns.len = s->ns_of[level - 1].at + s->ns_of[level - 1].n;
}

static void on_text(void *arg, const XML_Char *text, int n)
{
    struct serial *s = arg;
    if (s->failed || s->depth < 2)
        return;
    close_tag(s);
    writer_text(&s->out, (struct str){text, (size_t)n});
    if (s->out.failed)
        give_up(s);
}

/* The stream around the stanza, as far as the stanza can see it. */
static bool feed_outer(struct serial *s, struct xml_heap *heap)
{
    struct buf b = BUF_INIT(s->st->outer.n + 256);
    buf_puts(&b, "<stream xmlns='");
    buf_str(&b, s->st->content_ns);
    buf_putc(&b, '\'');
    buf_str(&b, s->st->outer);
    buf_putc(&b, '>');
    bool ok = !b.failed && xml_parser_feed(heap, s->parser, buf_view(&b)) == XML_STATUS_OK;
    buf_free(&b);
    return ok;
}

static bool run(struct serial *s, struct xml_heap *heap)
{
    XML_SetUserData(s->parser, s);
    XML_SetElementHandler(s->parser, on_start, on_end);
    XML_SetCharacterDataHandler(s->parser, on_text);
    XML_SetStartNamespaceDeclHandler(s->parser, on_ns);
    struct str content = str_c(content_name(s->target->content));
    buf_str(&s->ns, content);
    s->ns_of[0].n = content.n;
    return !s->ns.failed && feed_outer(s, heap) &&
           xml_parser_feed(heap, s->parser, s->st->span.s) == XML_STATUS_OK && !s->failed &&
           s->depth == 1 && s->out.len != 0;
}

static struct span serialise(const struct stanza *st, const struct writer_target *target)
{
    struct span out = no_span;
    size_t max = output_max(st);
    struct xml_heap heap = {.max = 16 * max};
    struct serial *s = mem_zalloc(sizeof *s);
    if (s == NULL)
        return out;
    s->st = st;
    s->target = target;
    s->out = s->text = s->ns = BUF_INIT(max);
    s->parser = xml_parser_new(&heap);
    if (s->parser != NULL && run(s, &heap))
        out = span_copy(buf_view(&s->out));
    xml_parser_free(&heap, s->parser);
    buf_free(&s->out);
    buf_free(&s->text);
    buf_free(&s->ns);
    mem_free(s);
    return out;
}

/* ---- choosing ---- */

struct span writer_restamp(const struct stanza *st, const struct writer_target *target)
{
    struct splice s[3];
    size_t n = 0;
    struct envelope e = {.name_end = 0};
    if (st->odd & ~(unsigned)STANZA_LANG)
        return serialise(st, target);
    bool from = target->from.p != NULL && !(st->from.p && str_eq(target->from, st->from));
    bool to = target->to.p != NULL && !(st->to.p && str_eq(target->to, st->to));
    if (!from && !to && st->odd == 0)
        return st->span.chunk ? span_retain(st->span) : span_copy(st->span.s);
    if (!envelope_scan(st->span.s, &e) || !envelope_says(e.value[ENVELOPE_FROM], st->from) ||
        !envelope_says(e.value[ENVELOPE_TO], st->to) ||
        !envelope_says(e.value[ENVELOPE_LANG], st->lang))
        return serialise(st, target);
    if (from)
        s[n++] = (struct splice){e.value[ENVELOPE_FROM], "from", target->from};
    if (to)
        s[n++] = (struct splice){e.value[ENVELOPE_TO], "to", target->to};
    if (st->odd & STANZA_LANG)
        s[n++] = (struct splice){e.value[ENVELOPE_LANG], "xml:lang", st->inherited_lang};
    return splice_all(st->span.s, e.name_end, s, n, output_max(st));
}
