/* DNS messages made by hand for tests: right ones, and wrong ones on purpose. */
#ifndef TESTS_FAKE_DNS_PACKET_H
#define TESTS_FAKE_DNS_PACKET_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "core/base/str.h"

enum { PKT_MAX = 8192, PKT_AN = 6, PKT_NS = 8, PKT_AR = 10 };

struct pkt {
    size_t n, rdlen_at;
    unsigned char b[PKT_MAX];
};

static inline void pkt_bytes(struct pkt *p, const void *v, size_t n)
{
    assert(p->n + n <= PKT_MAX);
    memcpy(p->b + p->n, v, n);
    p->n += n;
}

static inline void pkt_u8(struct pkt *p, unsigned v)
{
    unsigned char c = (unsigned char)v;
    pkt_bytes(p, &c, 1);
}

static inline void pkt_u16(struct pkt *p, unsigned v)
{
    pkt_u8(p, v >> 8 & 0xff);
    pkt_u8(p, v & 0xff);
}

static inline void pkt_u32(struct pkt *p, uint32_t v)
{
    pkt_u16(p, v >> 16);
    pkt_u16(p, v & 0xffff);
}

static inline void pkt_set16(struct pkt *p, size_t at, unsigned v)
{
    p->b[at] = (unsigned char)(v >> 8);
    p->b[at + 1] = (unsigned char)v;
}

static inline void pkt_add16(struct pkt *p, size_t at, unsigned more)
{
    pkt_set16(p, at, (unsigned)(p->b[at] << 8 | p->b[at + 1]) + more);
}

/* "a.b" uncompressed; "" or ".": the root. */
static inline void pkt_name(struct pkt *p, const char *name)
{
    while (*name != '\0' && strcmp(name, ".") != 0) {
        const char *dot = strchr(name, '.');
        size_t n = dot ? (size_t)(dot - name) : strlen(name);
        pkt_u8(p, (unsigned)n);
        pkt_bytes(p, name, n);
        name += n + (dot != NULL);
    }
    pkt_u8(p, 0);
}

static inline void pkt_response(struct pkt *p, unsigned id, unsigned rcode, const char *name,
                                unsigned type)
{
    p->n = 0;
    pkt_u16(p, id);
    pkt_u16(p, 0x8180 | rcode);
    for (int i = 0; i < 4; i++)
        pkt_u16(p, i == 0);
    pkt_name(p, name);
    pkt_u16(p, type);
    pkt_u16(p, 1);
}

/* `section`: PKT_AN, PKT_NS, PKT_AR. The record data follows, then pkt_end. */
static inline void pkt_begin(struct pkt *p, size_t section, const char *owner, unsigned type,
                             uint32_t ttl)
{
    pkt_add16(p, section, 1);
    pkt_name(p, owner);
    pkt_u16(p, type);
    pkt_u16(p, 1);
    pkt_u32(p, ttl);
    p->rdlen_at = p->n;
    pkt_u16(p, 0);
}

static inline void pkt_end(struct pkt *p)
{
    pkt_set16(p, p->rdlen_at, (unsigned)(p->n - p->rdlen_at - 2));
}

static inline void pkt_srv(struct pkt *p, const char *owner, uint32_t ttl, unsigned priority,
                           unsigned weight, unsigned port, const char *target)
{
    pkt_begin(p, PKT_AN, owner, 33, ttl);
    pkt_u16(p, priority);
    pkt_u16(p, weight);
    pkt_u16(p, port);
    pkt_name(p, target);
    pkt_end(p);
}

static inline void pkt_a(struct pkt *p, const char *owner, uint32_t ttl, const char ip[4])
{
    pkt_begin(p, PKT_AN, owner, 1, ttl);
    pkt_bytes(p, ip, 4);
    pkt_end(p);
}

static inline void pkt_aaaa(struct pkt *p, const char *owner, uint32_t ttl, const char ip[16])
{
    pkt_begin(p, PKT_AN, owner, 28, ttl);
    pkt_bytes(p, ip, 16);
    pkt_end(p);
}

static inline void pkt_cname(struct pkt *p, const char *owner, uint32_t ttl, const char *target)
{
    pkt_begin(p, PKT_AN, owner, 5, ttl);
    pkt_name(p, target);
    pkt_end(p);
}

/* With n bytes of `fill`. */
static inline void pkt_tlsa(struct pkt *p, const char *owner, uint32_t ttl, unsigned usage,
                            unsigned selector, unsigned matching, unsigned fill, size_t n)
{
    pkt_begin(p, PKT_AN, owner, 52, ttl);
    pkt_u8(p, usage);
    pkt_u8(p, selector);
    pkt_u8(p, matching);
    while (n-- > 0)
        pkt_u8(p, fill);
    pkt_end(p);
}

/* The server vouches for what it says (AD). */
static inline void pkt_authentic(struct pkt *p)
{
    p->b[3] |= 0x20;
}

static inline void pkt_soa(struct pkt *p, const char *zone, uint32_t ttl, uint32_t minimum)
{
    pkt_begin(p, PKT_NS, zone, 6, ttl);
    pkt_name(p, "ns.invalid");
    pkt_name(p, "hostmaster.invalid");
    for (int i = 0; i < 4; i++)
        pkt_u32(p, 7);
    pkt_u32(p, minimum);
    pkt_end(p);
}

static inline void pkt_opt(struct pkt *p)
{
    pkt_begin(p, PKT_AR, "", 41, 0);
    pkt_end(p);
}

static inline struct str pkt_view(const struct pkt *p)
{
    return (struct str){(const char *)p->b, p->n};
}

#endif
