/* Domain names.
 *
 * Most names are ASCII: one pass lowers the letters and checks letters, digits and hyphens. Names
 * with a byte above 0x7F or an A-label go through libidn2, which lets several things pass that are
 * no domain names (empty labels, spaces, underscores, mapped full stops), so its input is checked
 * before and its answer after. The U-label form must map back to the same A-labels, otherwise two
 * spellings would mean one name for us and two for others. */
#include "core/base/domain.h"

#include <idn2.h>
#include <stdint.h>

enum { LABEL_MAX = 63, IDN_FLAGS = IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT };

static bool is_ldh(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_a_label(struct str l)
{
    return l.n >= 4 && lower(l.p[0]) == 'x' && lower(l.p[1]) == 'n' && l.p[2] == '-' &&
           l.p[3] == '-';
}

/* One label in lower case. "--" in third place is reserved to A-labels (RFC 5890 2.3.1). */
static bool label_ok(struct str l)
{
    if (l.n == 0 || l.n > LABEL_MAX || l.p[0] == '-' || l.p[l.n - 1] == '-')
        return false;
    if (l.n >= 4 && l.p[2] == '-' && l.p[3] == '-' && !is_a_label(l))
        return false;
    for (size_t i = 0; i < l.n; i++)
        if (!is_ldh(l.p[i]))
            return false;
    return true;
}

/* "127.1", "0x7f000001" and the like: no top-level domain is a number, and a resolver might take
 * it for an address. */
static bool is_number(struct str l)
{
    bool hex = l.n >= 2 && l.p[0] == '0' && l.p[1] == 'x';
    for (size_t i = hex ? 2 : 0; i < l.n; i++) {
        char c = l.p[i];
        if (!((c >= '0' && c <= '9') || (hex && c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}

/* Labels, lengths, no number at the end: the check on every result, whichever way it came. */
static bool ascii_ok(struct str s)
{
    if (s.n == 0 || s.n > DOMAIN_MAX)
        return false;
    struct str label = {s.p, 0};
    for (size_t i = 0; i <= s.n; i++) {
        if (i < s.n && s.p[i] != '.')
            continue;
        label.n = (size_t)(s.p + i - label.p);
        if (!label_ok(label))
            return false;
        if (i < s.n)
            label.p = s.p + i + 1;
    }
    /* No IP literal: IPv6 has colons, and IPv4 ends in a number. */
    return !is_number(label);
}

/* True when libidn2 has to look at it. */
static bool needs_idn(struct str s)
{
    bool start = true;
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] >= 0x80)
            return true;
        if (start && is_a_label((struct str){s.p + i, s.n - i}))
            return true;
        start = s.p[i] == '.';
    }
    return false;
}

static bool idn_input_ok(struct str s)
{
    if (s.n > DOMAIN_WIRE_MAX || !str_utf8(s))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c <= ' ' || c == 0x7F || c == '@' || c == '/')
            return false;
    }
    return true;
}

/* A-labels of a NUL-terminated name. */
static bool idn_lookup(const char *name, char out[DOMAIN_MAX + 1])
{
    uint8_t *looked = NULL;
    if (idn2_lookup_u8((const uint8_t *)name, &looked, IDN_FLAGS) != IDN2_OK)
        return false;
    struct str s = str_c((const char *)looked);
    bool ok = ascii_ok(s) && str_copy(out, DOMAIN_MAX + 1, s);
    idn2_free(looked);
    return ok;
}

static bool idn_ascii(struct str s, char out[DOMAIN_MAX + 1])
{
    char in[DOMAIN_WIRE_MAX + 1];
    return idn_input_ok(s) && str_copy(in, sizeof in, s) && idn_lookup(in, out);
}

static bool idn_wire(const char *ascii, char wire[DOMAIN_WIRE_MAX + 1])
{
    char *unicode = NULL, again[DOMAIN_MAX + 1];
    if (idn2_to_unicode_8z8z(ascii, &unicode, 0) != IDN2_OK)
        return false;
    bool ok = str_copy(wire, DOMAIN_WIRE_MAX + 1, str_c(unicode)) && idn_lookup(wire, again) &&
              strcmp(again, ascii) == 0;
    idn2_free(unicode);
    return ok;
}

static bool ascii_lower(struct str s, char out[DOMAIN_MAX + 1])
{
    if (s.n == 0 || s.n > DOMAIN_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        out[i] = lower(s.p[i]);
    out[s.n] = '\0';
    return ascii_ok((struct str){out, s.n});
}

static struct str without_dot(struct str s)
{
    if (s.n > 1 && s.p[s.n - 1] == '.')
        s.n--;
    return s;
}

bool domain_ascii(struct str s, char out[DOMAIN_MAX + 1])
{
    s = without_dot(s);
    return needs_idn(s) ? idn_ascii(s, out) : ascii_lower(s, out);
}

bool domain_prepare(struct str s, struct domain *out)
{
    s = without_dot(s);
    if (needs_idn(s))
        return idn_ascii(s, out->ascii) && idn_wire(out->ascii, out->wire);
    if (!ascii_lower(s, out->ascii))
        return false;
    memcpy(out->wire, out->ascii, s.n + 1);
    return true;
}
