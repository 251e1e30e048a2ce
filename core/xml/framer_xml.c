/* What expat calls while the framer feeds it: limits, the header, stanza facts, nonzas.
 *
 * `level` is the number of open elements around the one in question: 0 the stream, 1 a stanza or
 * nonza. Every handler returns at once when the stream has failed, because expat may finish the tag
 * it is at after XML_StopParser, and while the priming header passes. */
#include <strings.h>

#include "core/base/mem.h"
#include "core/xml/framer_priv.h"
#include "core/xml/nonza_priv.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"

enum { FACT_FROM, FACT_TO, FACT_ID, FACT_OTHER, FACT_LANG };

static bool deaf(const struct framer *f)
{
    return f->phase == FRAMER_FAILED || f->priming;
}

static void too_much(struct framer *f, const char *text)
{
    framer_fail(f, "policy-violation", text);
}

static void no_memory(struct framer *f)
{
    framer_fail(f, "resource-constraint", "out of memory");
}

/* Chunk offset of the present token's begin and end. */
static size_t token_start(const struct framer *f)
{
    return (size_t)(XML_GetCurrentByteIndex(f->parser) - f->base);
}

static size_t token_end(const struct framer *f)
{
    return token_start(f) + (size_t)XML_GetCurrentByteCount(f->parser);
}

static bool token_fits(struct framer *f)
{
    if ((size_t)XML_GetCurrentByteCount(f->parser) <= f->limits.token)
        return true;
    too_much(f, "tag too long");
    return false;
}

/* Parsing stops here until the event has been dealt with. */
static void suspend(struct framer *f)
{
    if (!f->suspended)
        XML_StopParser(f->parser, XML_TRUE);
    f->suspended = true;
}

/* Where stanzas stand: what is declared further out is not declared inside them. */
static unsigned stanza_level(const struct framer *f)
{
    return f->content == CONTENT_ROUTER ? 2 : 1;
}

/* ---- namespaces ---- */

static bool declared_inside(const struct framer *f, struct str prefix)
{
    for (unsigned i = f->n_ns; i-- > 0;)
        if (f->ns[i].level >= stanza_level(f) &&
            str_eq((struct str){f->ns_text.p + f->ns[i].at, f->ns[i].n}, prefix))
            return true;
    return false;
}

static void note_prefix(struct framer *f, struct str prefix)
{
    if (prefix.p != NULL && !(f->odd & STANZA_OUTER_PREFIX) && !str_is(prefix, "xml") &&
        !declared_inside(f, prefix))
        f->odd |= STANZA_OUTER_PREFIX;
}

static void put_decl(struct framer *f, struct buf *b, const char *prefix, const char *uri)
{
    buf_puts(b, " xmlns:");
    buf_puts(b, prefix);
    buf_puts(b, "='");
    writer_value(b, str_c(uri));
    buf_putc(b, '\'');
    if (b->failed)
        no_memory(f);
}

/* The first declaration of such text, and the prefix in it; false: there is none left. */
static bool take_decl(struct str *text, struct str *decl, struct str *prefix)
{
    const char *quote = text->n ? memchr(text->p, '\'', text->n) : NULL;
    if (quote == NULL)
        return false;
    size_t at = (size_t)(quote - text->p) + 1;
    const char *end = memchr(text->p + at, '\'', text->n - at);
    *decl = (struct str){text->p, (size_t)(end - text->p) + 1};
    *prefix = (struct str){text->p + 7, at - 9}; /* between " xmlns:" and "='" */
    *text = (struct str){text->p + decl->n, text->n - decl->n};
    return true;
}

static bool declares(struct str text, struct str prefix)
{
    struct str decl, p;
    while (take_decl(&text, &decl, &p))
        if (str_eq(p, prefix))
            return true;
    return false;
}

/* What the route declares hides what the header does. */
static void join_outer(struct framer *f)
{
    struct str rest = buf_view(&f->outer), mine = buf_view(&f->route_prefixes), decl, prefix;
    if (mine.n == 0)
        return;
    buf_str(&f->route_outer, mine);
    while (take_decl(&rest, &decl, &prefix))
        if (!declares(mine, prefix))
            buf_str(&f->route_outer, decl);
    if (f->route_outer.failed)
        no_memory(f);
}

static void header_ns(struct framer *f, const char *prefix, const char *uri)
{
    if (prefix == NULL) {
        buf_clear(&f->content_text);
        buf_puts(&f->content_text, uri ? uri : "");
        if (f->content_text.failed)
            no_memory(f);
        return;
    }
    if (strcmp(prefix, "xml") == 0)
        return;
    f->header.declares_dialback |= strcmp(uri, NS_DIALBACK) == 0;
    put_decl(f, &f->outer, prefix, uri);
}

static void route_ns(struct framer *f, const char *prefix, const char *uri)
{
    if (prefix != NULL) {
        put_decl(f, &f->route_prefixes, prefix, uri);
        return;
    }
    buf_puts(&f->route_ns, uri ? uri : "");
    if (f->route_ns.failed)
        no_memory(f);
}

static void element_ns(struct framer *f, const char *prefix, const char *uri)
{
    if (f->depth < stanza_level(f))
        route_ns(f, prefix, uri);
    bool client = f->content == CONTENT_COMPONENT && f->depth == 1;
    if (uri != NULL && (strcmp(uri, NS_SERVER) == 0 || strcmp(uri, NS_COMPONENT) == 0 ||
                        (client && strcmp(uri, NS_CLIENT) == 0)))
        f->odd |= STANZA_CONTENT_NS;
    if (prefix == NULL)
        return;
    f->ns[f->n_ns++] = (struct framer_ns){f->ns_text.len, strlen(prefix), f->depth};
    buf_puts(&f->ns_text, prefix);
    if (f->ns_text.failed)
        no_memory(f);
}

static void on_ns(void *arg, const XML_Char *prefix, const XML_Char *uri)
{
    struct framer *f = arg;
    if (deaf(f))
        return;
    if (f->ns_decls >= f->limits.ns_decls || f->ns_decls >= FRAMER_NS_MAX)
        too_much(f, "too many namespace declarations");
    else if (prefix != NULL && strlen(prefix) > f->limits.name)
        too_much(f, "prefix too long");
    else if (f->depth == 0)
        header_ns(f, prefix, uri);
    else
        element_ns(f, prefix, uri);
    f->ns_decls++;
}

static void forget_ns(struct framer *f, unsigned level)
{
    while (f->n_ns && f->ns[f->n_ns - 1].level >= level)
        f->ns_text.len = f->ns[--f->n_ns].at;
}

/* ---- attributes ---- */

/* Copies the wanted attributes (four without namespace, then xml:lang) to `text`. */
static bool keep_facts(struct buf *text, const char *const names[FACTS - 1], const XML_Char **atts,
                       struct str out[FACTS])
{
    struct str found[FACTS] = {STR_NONE};
    size_t total = 0;
    for (; *atts != NULL; atts += 2) {
        unsigned i = 0;
        while (i < FACTS - 1 && strcmp(atts[0], names[i]) != 0)
            i++;
        if (i < FACTS - 1 || strcmp(atts[0], NS_XML "\001lang\001xml") == 0) {
            found[i] = str_c(atts[1]);
            total += found[i].n;
        }
    }
    buf_clear(text);
    if (!buf_reserve(text, total))
        return false;
    for (unsigned i = 0; i < FACTS; i++) {
        out[i] = found[i].p ? (struct str){text->p + text->len, found[i].n} : STR_NONE;
        buf_str(text, found[i]);
    }
    return true;
}

static bool name_fits(struct framer *f, const struct xml_name *n)
{
    if (n->local.n <= f->limits.name && n->prefix.n <= f->limits.name)
        return true;
    too_much(f, "name too long");
    return false;
}

/* Checks names and number; notes prefixes; fills the nonza if there is one. */
static bool take_attrs(struct framer *f, const XML_Char **atts, struct nonza *z)
{
    for (unsigned n = 0; atts[2 * n] != NULL; n++) {
        struct xml_name a = xml_name_split(atts[2 * n]);
        if (n == f->limits.attrs)
            too_much(f, "too many attributes");
        if (n == f->limits.attrs || !name_fits(f, &a))
            return false;
        note_prefix(f, a.prefix);
        if (z != NULL && !nonza_put_attr(z, a.ns, a.local, str_c(atts[2 * n + 1]))) {
            too_much(f, "element too large");
            return false;
        }
    }
    return true;
}

/* ---- the header ---- */

static bool header_right(struct framer *f, const struct xml_name *n)
{
    if (n->ns.p == NULL || !str_is(n->ns, NS_STREAM))
        framer_fail(f, "invalid-namespace", "wrong stream namespace");
    else if (!str_is(n->local, "stream"))
        framer_fail(f, "bad-format", "not a stream header");
    else if (n->prefix.p == NULL)
        framer_fail(f, "bad-namespace-prefix", "the stream element needs a prefix");
    else if (!str_is(buf_view(&f->content_text), framer_content_name(f->content)))
        framer_fail(f, "invalid-namespace", "wrong content namespace");
    return f->phase != FRAMER_FAILED;
}

static void start_header(struct framer *f, const struct xml_name *n, const XML_Char **atts)
{
    static const char *const names[FACTS - 1] = {"from", "to", "id", "version"};
    size_t end = token_end(f);
    if (end - f->mark > f->limits.header) {
        too_much(f, "stream header too long");
        return;
    }
    if (!name_fits(f, n) || !take_attrs(f, atts, NULL) || !header_right(f, n))
        return;
    struct str v[FACTS];
    bool kept = keep_facts(&f->header_text, names, atts, v);
    buf_str(&f->root_prefix, n->prefix);
    if (!kept || f->root_prefix.failed) {
        no_memory(f);
        return;
    }
    struct stream_header *h = &f->header;
    h->from = v[FACT_FROM], h->to = v[FACT_TO], h->id = v[FACT_ID];
    h->version = v[FACT_OTHER], h->lang = v[FACT_LANG];
    h->content_ns = buf_view(&f->content_text);
    f->header_bytes = end - f->mark;
    f->mark = end;
    f->phase = FRAMER_OPEN;
    f->ready |= READY_OPEN;
    suspend(f);
}

/* ---- depth-1 elements and what is in them ---- */

static bool stanza_kind(const struct framer *f, const struct xml_name *n, enum stanza_kind *out)
{
    static const char *const names[] = {"message", "presence", "iq"};
    if (n->ns.p == NULL || (!str_is(n->ns, framer_content_name(f->content)) &&
                            !(f->content != CONTENT_SERVER && str_is(n->ns, NS_CLIENT))))
        return false;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (str_is(n->local, names[i])) {
            *out = (enum stanza_kind)i;
            return true;
        }
    }
    return false;
}

static void open_stanza(struct framer *f, const struct xml_name *n, const XML_Char **atts)
{
    static const char *const names[FACTS - 1] = {"from", "to", "id", "type"};
    if (!keep_facts(&f->fact_text, names, atts, f->fact)) {
        no_memory(f);
        return;
    }
    struct str lang = f->header.lang;
    if (f->fact[FACT_LANG].p == NULL && lang.p != NULL &&
        !(lang.n == 2 && strncasecmp(lang.p, "en", 2) == 0))
        f->odd |= STANZA_LANG;
    if (n->prefix.p != NULL)
        f->odd |= STANZA_CONTENT_NS;
}

static bool is_route(const struct framer *f, const struct xml_name *n)
{
    return f->content == CONTENT_ROUTER && n->ns.p != NULL && str_is(n->ns, NS_JABBERD2) &&
           str_is(n->local, "route");
}

static void route_fault(struct framer *f, const char *text)
{
    if (f->route.fault == NULL)
        f->route.fault = text;
}

static void open_route(struct framer *f, const XML_Char **atts)
{
    static const char *const names[FACTS - 1] = {"from", "to", "error", "type"};
    struct str v[FACTS];
    if (!keep_facts(&f->route_text, names, atts, v)) {
        no_memory(f);
        return;
    }
    f->route.from = v[FACT_FROM], f->route.to = v[FACT_TO];
    f->route.error = v[FACT_ID], f->route.type = v[FACT_OTHER];
    join_outer(f);
}

/* An element directly inside a route. Its namespace is never that of a server stream. */
static void start_part(struct framer *f, const struct xml_name *n)
{
    if (f->parts++ > 0) {
        route_fault(f, "there is more than a stanza in it");
        return;
    }
    f->inner_start = token_start(f);
    f->odd = STANZA_CONTENT_NS;
    if (!stanza_kind(f, n, &f->kind))
        route_fault(f, "what is in it is no stanza in jabber:client");
}

static struct nonza *open_nonza(struct framer *f)
{
    if (f->nonza == NULL)
        f->nonza = mem_alloc(sizeof *f->nonza);
    if (f->nonza == NULL)
        no_memory(f);
    else
        nonza_begin(f->nonza);
    return f->nonza;
}

static void start_element(struct framer *f, unsigned level, const struct xml_name *n,
                          const XML_Char **atts)
{
    if (level > f->limits.depth) {
        too_much(f, "nested too deeply");
        return;
    }
    if (level == 1) {
        f->start = token_start(f);
        f->in_route = is_route(f, n);
        f->is_stanza = f->in_route || (f->content != CONTENT_ROUTER && stanza_kind(f, n, &f->kind));
    } else if (f->children++ >= f->limits.children) {
        too_much(f, "too many elements");
        return;
    }
    struct nonza *z = f->is_stanza ? NULL : level == 1 ? open_nonza(f) : f->nonza;
    if ((z == NULL && !f->is_stanza) || !token_fits(f) || !name_fits(f, n))
        return;
    if (z != NULL && !nonza_open(z, n->ns, n->local, level - 1)) {
        too_much(f, "element too large");
        return;
    }
    if (level == 2 && f->in_route)
        start_part(f, n);
    note_prefix(f, n->prefix);
    if (!take_attrs(f, atts, z) || !f->is_stanza)
        return;
    if (level == stanza_level(f))
        open_stanza(f, n, atts);
    else if (level == 1)
        open_route(f, atts);
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
    struct framer *f = arg;
    unsigned level = f->depth++;
    if (deaf(f))
        return;
    struct xml_name n = xml_name_split(name);
    if (level == 0)
        start_header(f, &n, atts);
    else
        start_element(f, level, &n, atts);
}

static void end_element(struct framer *f)
{
    f->end = token_end(f);
    if (f->end - f->start > f->limits.element) {
        too_much(f, "element too large");
        return;
    }
    f->mark = f->end;
    f->ready |= READY_ELEMENT;
    suspend(f);
}

static void end_stream(struct framer *f)
{
    f->close_bytes = token_end(f) - f->mark;
    f->mark = token_end(f);
    f->phase = FRAMER_CLOSED;
    f->ready |= READY_CLOSE;
    suspend(f);
}

static void on_end(void *arg, const XML_Char *name)
{
    (void)name;
    struct framer *f = arg;
    unsigned level = --f->depth;
    if (deaf(f) || !token_fits(f))
        return;
    if (level == 0) {
        end_stream(f);
        return;
    }
    forget_ns(f, level);
    if (level == 2)
        f->inner_end = token_end(f);
    if (level == 1)
        end_element(f);
}

static bool all_space(const char *s, size_t n)
{
    return str_trim((struct str){s, n}).n == 0;
}

static void on_text(void *arg, const XML_Char *s, int n)
{
    struct framer *f = arg;
    if (deaf(f))
        return;
    struct str text = {s, (size_t)n};
    /* A short text from a long token is a character reference with many zeros. */
    if (text.n <= 4 && !token_fits(f))
        return;
    if (f->depth == 1) {
        if (all_space(text.p, text.n))
            f->mark = token_end(f);
        else
            framer_fail(f, "bad-format", "text directly inside the stream");
    } else if (f->in_route) {
        if (f->depth == 2 && !all_space(text.p, text.n))
            route_fault(f, "there is text in it");
    } else if (!f->is_stanza && !nonza_put_text(f->nonza, f->depth - 2, text)) {
        too_much(f, "element too large");
    }
}

static void on_cdata(void *arg)
{
    struct framer *f = arg;
    if (deaf(f))
        return;
    f->odd |= STANZA_CDATA;
    if (f->depth == 1)
        framer_fail(f, "bad-format", "CDATA directly inside the stream");
}

/* ---- what XMPP forbids (RFC 6120 11.1, 11.6) ---- */

static void on_decl(void *arg, const XML_Char *version, const XML_Char *encoding, int standalone)
{
    (void)standalone;
    struct framer *f = arg;
    if (deaf(f))
        return;
    if (version == NULL || strcmp(version, "1.0") != 0)
        framer_fail(f, "not-well-formed", "not XML 1.0");
    else if (encoding != NULL && strcasecmp(encoding, "UTF-8") != 0)
        framer_fail(f, "unsupported-encoding", "not UTF-8");
}

static void restricted(struct framer *f, const char *text)
{
    if (deaf(f))
        return;
    if (f->depth == 0 || token_fits(f))
        framer_fail(f, "restricted-xml", text);
}

static void on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid,
                       const XML_Char *pubid, int internal)
{
    (void)name, (void)sysid, (void)pubid, (void)internal;
    restricted(arg, "document type declaration");
}

static void on_entity(void *arg, const XML_Char *name, int is_param, const XML_Char *value, int n,
                      const XML_Char *base, const XML_Char *sysid, const XML_Char *pubid,
                      const XML_Char *notation)
{
    (void)name, (void)is_param, (void)value, (void)n;
    (void)base, (void)sysid, (void)pubid, (void)notation;
    restricted(arg, "entity declaration");
}

static void on_pi(void *arg, const XML_Char *target, const XML_Char *data)
{
    (void)target, (void)data;
    restricted(arg, "processing instruction");
}

static void on_comment(void *arg, const XML_Char *data)
{
    (void)data;
    restricted(arg, "comment");
}

static int on_encoding(void *arg, const XML_Char *name, XML_Encoding *info)
{
    (void)name, (void)info;
    framer_fail(arg, "unsupported-encoding", "not UTF-8");
    return XML_STATUS_ERROR;
}

void framer_xml_attach(struct framer *f)
{
    XML_Parser p = f->parser;
    XML_SetUserData(p, f);
    XML_SetElementHandler(p, on_start, on_end);
    XML_SetCharacterDataHandler(p, on_text);
    XML_SetStartNamespaceDeclHandler(p, on_ns);
    XML_SetStartCdataSectionHandler(p, on_cdata);
    XML_SetXmlDeclHandler(p, on_decl);
    XML_SetStartDoctypeDeclHandler(p, on_doctype);
    XML_SetEntityDeclHandler(p, on_entity);
    XML_SetProcessingInstructionHandler(p, on_pi);
    XML_SetCommentHandler(p, on_comment);
    XML_SetUnknownEncodingHandler(p, on_encoding, f);
}

void framer_xml_reset(struct framer *f)
{
    f->is_stanza = false;
    f->odd = f->children = f->ns_decls = f->n_ns = 0;
    f->ns_text.len = 0;
    f->in_route = false;
    f->parts = 0;
    f->route = (struct stanza_route){.fault = NULL};
    f->route_ns.len = f->route_prefixes.len = f->route_outer.len = 0;
}
