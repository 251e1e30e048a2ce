#include "core/xml/writer.h"

/* What has to be written instead of the character at p[*i]; NULL: the character itself. Advances
 * *i past it. `valid`: the whole string is UTF-8. */
static const char *replacement(const char *p, size_t n, size_t *i, bool attr, bool valid)
{
    unsigned char c = (unsigned char)p[(*i)++];
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&apos;";
    case '\r':
        return "&#13;";
    case '\t':
        return attr ? "&#9;" : NULL;
    case '\n':
        return attr ? "&#10;" : NULL;
    default:
        break;
    }
    if (c == 0xEF && valid && n - *i >= 2 && (unsigned char)p[*i] == 0xBF &&
        (unsigned char)p[*i + 1] >= 0xBE) {
        *i += 2;
        return "\xEF\xBF\xBD";
    }
    return c < 0x20 || (c >= 0x80 && !valid) ? "\xEF\xBF\xBD" : NULL;
}

static void escape(struct buf *b, struct str s, bool attr)
{
    bool valid = s.n == 0 || str_utf8(s);
    size_t done = 0;
    for (size_t i = 0; i < s.n;) {
        size_t at = i;
        const char *r = replacement(s.p, s.n, &i, attr, valid);
        if (r == NULL)
            continue;
        buf_put(b, s.p + done, at - done);
        buf_puts(b, r);
        done = i;
    }
    buf_put(b, s.p + done, s.n - done);
}

void writer_text(struct buf *b, struct str text)
{
    if (text.n)
        escape(b, text, false);
}

void writer_value(struct buf *b, struct str value)
{
    if (value.n)
        escape(b, value, true);
}

void writer_attr(struct buf *b, const char *name, struct str value)
{
    if (value.p == NULL)
        return;
    buf_putc(b, ' ');
    buf_puts(b, name);
    buf_puts(b, "='");
    writer_value(b, value);
    buf_putc(b, '\'');
}
