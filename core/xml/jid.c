/* Addresses (RFC 7622). */
#include "core/xml/jid.h"

#include <stdint.h>

struct jid jid_split(struct str s)
{
    struct jid j = {STR_NONE, s, STR_NONE};
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    if (slash != NULL) {
        j.domain.n = (size_t)(slash - s.p);
        j.resource = (struct str){slash + 1, s.n - j.domain.n - 1};
    }
    const char *at = j.domain.n ? memchr(s.p, '@', j.domain.n) : NULL;
    if (at != NULL) {
        j.local = (struct str){s.p, (size_t)(at - s.p)};
        j.domain = (struct str){at + 1, j.domain.n - j.local.n - 1};
    }
    return j;
}

/* Decodes one code point of well-formed UTF-8. */
static unsigned next_point(const char *p, size_t *i)
{
    unsigned c = (unsigned char)p[(*i)++];
    if (c < 0x80)
        return c;
    unsigned more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
    c &= 0x3Fu >> more;
    while (more--)
        c = c << 6 | ((unsigned char)p[(*i)++] & 0x3F);
    return c;
}

static bool is_control(unsigned c)
{
    return c < 0x20 || (c >= 0x7F && c <= 0x9F);
}

/* White space and separators (Unicode Zs, Zl, Zp). */
static bool is_blank(unsigned c)
{
    return c == ' ' || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* What a local part must not hold (RFC 7622 3.3.1), below 0x40 as a set of bits: controls, space
 * and
 * "&'/:<> */
#define BIT(c) (UINT64_C(1) << (c))
static const uint64_t controls = UINT64_C(0xFFFFFFFF);
static const uint64_t not_local = UINT64_C(0xFFFFFFFF) | BIT(' ') | BIT('"') | BIT('&') |
                                  BIT('\'') | BIT('/') | BIT(':') | BIT('<') | BIT('>');

static bool ascii_refused(unsigned char c, bool local)
{
    if (c < 0x40)
        return ((local ? not_local : controls) >> c) & 1;
    return c == 0x7F || (local && c == '@');
}

static bool part_ok(struct str s, bool local)
{
    if (s.p == NULL)
        return true;
    if (s.n == 0 || s.n > JID_PART_MAX || !str_utf8(s))
        return false;
    for (size_t i = 0; i < s.n;) {
        unsigned char byte = (unsigned char)s.p[i];
        unsigned c = byte < 0x80 ? (i++, byte) : next_point(s.p, &i);
        if (c < 0x80 ? ascii_refused(byte, local) : is_control(c) || (local && is_blank(c)))
            return false;
    }
    return true;
}

enum jid_verdict jid_prepare(struct str s, struct jid *out, struct domain *domain)
{
    *out = jid_split(s);
    if (!domain_prepare(out->domain, domain))
        return JID_BAD_DOMAIN;
    return part_ok(out->local, true) && part_ok(out->resource, false) ? JID_OK : JID_BAD_PART;
}
