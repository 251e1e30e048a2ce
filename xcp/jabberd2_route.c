#include "xcp/jabberd2_route.h"

#include "core/base/buf.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"

enum { OVERHEAD = 4096 };

#define CLIENT_NS   " xmlns='" NS_CLIENT "'"
#define ROUTE_BEGIN "<route xmlns='" NS_JABBERD2 "'"
#define ROUTE_END   "</route>"

static const struct span no_span = {NULL, {NULL, 0}};

/* ---- in -------------------------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool ends_name(char c)
{
    return c == '>' || c == '/' || is_space(c);
}

/* Where the name ends that begins at p; NULL: it does not, or there is none. */
static const char *name_end(const char *p, const char *end)
{
    const char *at = p;
    while (at < end && !ends_name(*at))
        at++;
    return at == p || at == end ? NULL : at;
}

/* Copies up to `to`; where that stands behind a declaration of the component's namespace as the
 * default one, names jabber:client in its place. */
struct copy {
    struct buf *b;
    const char *done;
};

static void copy_to(struct copy *c, const char *to)
{
    buf_put(c->b, c->done, (size_t)(to - c->done));
    c->done = to;
}

static void translate(struct copy *c, struct str name, struct str value)
{
    if (!str_is(name, "xmlns") || !str_is(value, NS_COMPONENT))
        return;
    copy_to(c, value.p);
    buf_puts(c->b, NS_CLIENT);
    c->done = value.p + value.n;
}

/* The attributes of a start tag, from behind its name to behind its '>'; NULL: it does not end. */
static const char *copy_attributes(struct copy *c, const char *p, const char *end)
{
    while (p < end && *p != '>') {
        const char *name = p;
        while (p < end && *p != '=' && *p != '>' && *p != '/' && !is_space(*p))
            p++;
        struct str n = {name, (size_t)(p - name)};
        if (n.n == 0) { /* white space, or the slash of an empty element */
            p++;
            continue;
        }
        while (p < end && (is_space(*p) || *p == '='))
            p++;
        const char *close =
            p < end && (*p == '\'' || *p == '"') ? memchr(p + 1, *p, (size_t)(end - p - 1)) : NULL;
        if (close == NULL)
            return NULL;
        translate(c, n, (struct str){p + 1, (size_t)(close - p - 1)});
        p = close + 1;
    }
    return p < end ? p + 1 : NULL;
}

/* The elements inside the stanza. Its writer leaves no CDATA section, comment or processing
 * instruction, so every '<' begins a tag. */
static bool copy_inside(struct copy *c, const char *p, const char *end)
{
    while (p != NULL && p < end && (p = memchr(p, '<', (size_t)(end - p))) != NULL) {
        const char *name = p + 1, *after = name < end ? name_end(name + (*name == '/'), end) : NULL;
        if (after == NULL)
            return false;
        p = *name == '/' ? after : copy_attributes(c, after, end);
        if (p == NULL)
            return false;
    }
    copy_to(c, end);
    return true;
}

static bool mentions(struct str s, struct str word)
{
    const char *p = s.p, *end = s.p + s.n;
    while ((size_t)(end - p) >= word.n && (p = memchr(p, word.p[0], (size_t)(end - p))) != NULL) {
        if ((size_t)(end - p) >= word.n && memcmp(p, word.p, word.n) == 0)
            return true;
        p++;
    }
    return false;
}

static bool put_stanza(struct buf *b, struct str stanza)
{
    const char *end = stanza.p + stanza.n;
    const char *name = stanza.n > 1 && stanza.p[0] == '<' ? name_end(stanza.p + 1, end) : NULL;
    struct copy c = {b, stanza.p};
    if (name == NULL || end[-1] != '>')
        return false;
    copy_to(&c, name);
    buf_puts(b, CLIENT_NS);
    if (mentions(stanza, STR(NS_COMPONENT))) {
        const char *inside = copy_attributes(&c, name, end);
        return inside != NULL && copy_inside(&c, inside, end);
    }
    copy_to(&c, end);
    return true;
}

struct span jabberd2_wrap(struct str stanza, struct str from, struct str to)
{
    struct span out = no_span;
    struct buf b = BUF_INIT(stanza.n + from.n + to.n + OVERHEAD);
    buf_reserve(&b, stanza.n + 256);
    buf_puts(&b, ROUTE_BEGIN);
    writer_attr(&b, "from", from);
    writer_attr(&b, "to", to);
    buf_putc(&b, '>');
    bool ok = put_stanza(&b, stanza);
    buf_puts(&b, ROUTE_END);
    if (ok && !b.failed)
        out = span_copy(buf_view(&b));
    buf_free(&b);
    return out;
}

/* ---- out ------------------------------------------------------------------------------------- */

/* The stanza as jabberd2_wrap wrote it; absent: it did not. */
static struct str take_out(struct str route)
{
    const char *tag = route.n ? memchr(route.p, '>', route.n) : NULL;
    size_t tail = sizeof ROUTE_END - 1;
    if (tag == NULL || !str_starts(route, ROUTE_BEGIN))
        return STR_NONE;
    struct str s = {tag + 1, route.n - (size_t)(tag + 1 - route.p)};
    if (s.n < tail || memcmp(s.p + s.n - tail, ROUTE_END, tail) != 0)
        return STR_NONE;
    s.n -= tail;
    return s;
}

struct span jabberd2_unwrap(struct str route)
{
    struct span out = no_span;
    struct str s = take_out(route), ns = STR(CLIENT_NS);
    const char *end = s.p + s.n, *name = s.n > 1 ? name_end(s.p + 1, end) : NULL;
    if (name == NULL || (size_t)(end - name) < ns.n || memcmp(name, ns.p, ns.n) != 0)
        return out;
    struct buf b = BUF_INIT(s.n);
    buf_reserve(&b, s.n);
    buf_put(&b, s.p, (size_t)(name - s.p));
    buf_put(&b, name + ns.n, (size_t)(end - name) - ns.n);
    if (!b.failed)
        out = span_copy(buf_view(&b));
    buf_free(&b);
    return out;
}
