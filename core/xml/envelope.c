#include "core/xml/envelope.h"

struct cursor {
    const char *p;
    size_t n, i;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_space(struct cursor *c)
{
    while (c->i < c->n && is_space(c->p[c->i]))
        c->i++;
}

/* A name ends at white space, '=', '/', '>' or a quote. */
static struct str take_name(struct cursor *c)
{
    size_t from = c->i;
    while (c->i < c->n && !is_space(c->p[c->i]) && memchr("=/><'\"", c->p[c->i], 6) == NULL)
        c->i++;
    return (struct str){c->p + from, c->i - from};
}

/* ` = "value"` */
static bool take_value(struct cursor *c, struct str *out)
{
    skip_space(c);
    if (c->i == c->n || c->p[c->i++] != '=')
        return false;
    skip_space(c);
    if (c->i == c->n || (c->p[c->i] != '"' && c->p[c->i] != '\''))
        return false;
    char quote = c->p[c->i++];
    const char *begin = c->p + c->i, *end = memchr(begin, quote, c->n - c->i);
    if (end == NULL)
        return false;
    *out = (struct str){begin, (size_t)(end - begin)};
    c->i += out->n + 1;
    return true;
}

static void note(struct envelope *e, struct str name, struct str value)
{
    static const char *const names[] = {
#define X(id, text) text,
        ENVELOPE_ATTRS(X)
#undef X
    };
    for (unsigned i = 0; i < ENVELOPE_ATTR_COUNT; i++)
        if (str_is(name, names[i]))
            e->value[i] = value;
}

bool envelope_scan(struct str stanza, struct envelope *out)
{
    struct cursor c = {stanza.p, stanza.n, 1};
    *out = (struct envelope){.name_end = 0};
    if (stanza.n < 3 || stanza.p[0] != '<' || take_name(&c).n == 0)
        return false;
    out->name_end = c.i;
    for (;;) {
        skip_space(&c);
        if (c.i < c.n && c.p[c.i] == '/')
            c.i++;
        if (c.i < c.n && c.p[c.i] == '>') {
            out->tag_end = c.i + 1;
            return true;
        }
        struct str name = take_name(&c), value;
        if (name.n == 0 || !take_value(&c, &value))
            return false;
        note(out, name, value);
    }
}

/* ---- attribute values ---- */

static unsigned utf8_put(char out[4], unsigned c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    unsigned n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (unsigned i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00u >> n & 0xF0) | c);
    return n;
}

/* "#38", "#x26"; 0: not a number of a character. */
static unsigned reference_number(struct str r)
{
    bool hex = r.n > 1 && r.p[1] == 'x';
    unsigned c = 0;
    for (size_t i = hex ? 2 : 1; i < r.n; i++) {
        char d = r.p[i];
        unsigned v = d >= '0' && d <= '9'          ? (unsigned)(d - '0')
                     : hex && d >= 'a' && d <= 'f' ? (unsigned)(d - 'a' + 10)
                     : hex && d >= 'A' && d <= 'F' ? (unsigned)(d - 'A' + 10)
                                                   : 99;
        if (v == 99)
            return 0;
        c = c * (hex ? 16 : 10) + v;
        if (c > 0x10FFFF)
            return 0;
    }
    return c;
}

/* The reference at raw.p[*i] ('&'); its length in UTF-8, 0: none. */
static unsigned take_reference(struct str raw, size_t *i, char out[4])
{
    static const struct {
        const char *name;
        char c;
    } named[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
    const char *begin = raw.p + *i + 1, *end = memchr(begin, ';', raw.n - *i - 1);
    if (end == NULL)
        return 0;
    struct str r = {begin, (size_t)(end - begin)};
    *i += r.n + 2;
    if (r.n && r.p[0] == '#') {
        unsigned c = reference_number(r);
        return c ? utf8_put(out, c) : 0;
    }
    for (size_t k = 0; k < sizeof named / sizeof named[0]; k++) {
        if (str_is(r, named[k].name)) {
            out[0] = named[k].c;
            return 1;
        }
    }
    return 0;
}

bool envelope_says(struct str raw, struct str value)
{
    if (raw.p == NULL || value.p == NULL)
        return raw.p == value.p;
    size_t at = 0;
    for (size_t i = 0; i < raw.n;) {
        char c[4];
        unsigned n = 1;
        if (raw.p[i] == '&') {
            n = take_reference(raw, &i, c);
        } else {
            bool crlf = raw.p[i] == '\r' && i + 1 < raw.n && raw.p[i + 1] == '\n';
            c[0] = is_space(raw.p[i]) ? ' ' : raw.p[i];
            i += crlf ? 2 : 1;
        }
        if (n == 0 || value.n - at < n || memcmp(value.p + at, c, n) != 0)
            return false;
        at += n;
    }
    return at == value.n;
}
