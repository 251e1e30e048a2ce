#include "core/base/cidr.h"

#include <arpa/inet.h>
#include <stdio.h>

bool ip_parse(struct str s, struct ip *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char text[INET6_ADDRSTRLEN + 1];
    if (!str_copy(text, sizeof text, s))
        return false;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, text, out->bytes) == 1) {
        out->len = 4;
        return true;
    }
    if (inet_pton(AF_INET6, text, out->bytes) != 1)
        return false;
    out->len = 16;
    if (memcmp(out->bytes, mapped, sizeof mapped) == 0) {
        memcpy(out->bytes, out->bytes + 12, 4);
        memset(out->bytes + 4, 0, 12);
        out->len = 4;
    }
    return true;
}

bool ip_equal(const struct ip *a, const struct ip *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

static bool number(struct str s, unsigned max, unsigned *out)
{
    if (s.n == 0 || s.n > 5)
        return false;
    unsigned v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        v = v * 10 + (unsigned)(s.p[i] - '0');
    }
    *out = v;
    return v <= max;
}

bool cidr_parse(struct str s, struct cidr *out)
{
    const char *slash = s.n ? memchr(s.p, '/', s.n) : NULL;
    struct str addr = {s.p, slash ? (size_t)(slash - s.p) : s.n};
    if (!ip_parse(addr, &out->ip))
        return false;
    /* "::ffff:10.0.0.0/104" is 10.0.0.0/8: the address was mapped, its length counts 96 more. */
    bool mapped = out->ip.len == 4 && memchr(addr.p, ':', addr.n) != NULL;
    unsigned skip = mapped ? 96 : 0, bits = out->ip.len * 8u + skip;
    if (slash != NULL && !number((struct str){slash + 1, s.n - addr.n - 1}, bits, &bits))
        return false;
    if (bits < skip)
        return false;
    bits -= skip;
    out->bits = (uint8_t)bits;
    return true;
}

bool cidr_has(const struct cidr *c, const struct ip *ip)
{
    if (c->ip.len != ip->len)
        return false;
    unsigned whole = c->bits / 8, rest = c->bits % 8;
    if (memcmp(c->ip.bytes, ip->bytes, whole) != 0)
        return false;
    return rest == 0 || (c->ip.bytes[whole] ^ ip->bytes[whole]) >> (8 - rest) == 0;
}

bool endpoint_parse(struct str s, struct endpoint *out)
{
    struct str host, port;
    if (s.n && s.p[0] == '[') {
        const char *close = memchr(s.p, ']', s.n);
        if (close == NULL)
            return false;
        host = (struct str){s.p + 1, (size_t)(close - s.p) - 1};
        port = (struct str){close + 1, s.n - host.n - 2};
        if (!port.n || *port.p != ':' || !memchr(host.p, ':', host.n))
            return false;
    } else {
        const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
        if (colon == NULL)
            return false;
        host = (struct str){s.p, (size_t)(colon - s.p)};
        port = (struct str){colon, s.n - host.n};
    }
    unsigned v;
    port.p++, port.n--;
    if (!number(port, 65535, &v) || v == 0)
        return false;
    out->port = (uint16_t)v;
    return ip_parse(host, &out->ip);
}

void ip_text(const struct ip *ip, char out[ENDPOINT_TEXT])
{
    out[0] = '\0';
    if (ip->len)
        inet_ntop(ip->len == 4 ? AF_INET : AF_INET6, ip->bytes, out, ENDPOINT_TEXT);
}

void endpoint_text(const struct endpoint *e, char out[ENDPOINT_TEXT])
{
    char addr[ENDPOINT_TEXT];
    ip_text(&e->ip, addr);
    snprintf(out, ENDPOINT_TEXT, e->ip.len == 16 ? "[%.46s]:%u" : "%.46s:%u", addr, e->port);
}
