/* Address literals and networks, without sockets: parsing, printing, matching. */
#ifndef CORE_BASE_CIDR_H
#define CORE_BASE_CIDR_H

#include <stdint.h>

#include "core/base/str.h"

/* An IPv4 or IPv6 address; IPv4-mapped IPv6 is stored as IPv4. */
struct ip {
    uint8_t bytes[16];
    uint8_t len; /* 4 or 16; 0: none */
};

struct cidr {
    struct ip ip;
    uint8_t bits;
};

struct endpoint {
    struct ip ip;
    uint16_t port;
};

enum { ENDPOINT_TEXT = 56 };

bool ip_parse(struct str s, struct ip *out); /* "192.0.2.1", "2001:db8::1" */
bool ip_equal(const struct ip *a, const struct ip *b);
bool cidr_parse(struct str s, struct cidr *out); /* "10.0.0.0/8"; without '/': one address */
bool cidr_has(const struct cidr *c, const struct ip *ip);
/* "192.0.2.1:5269", "[2001:db8::1]:5269"; false: not a literal with a port from 1 to 65535. */
bool endpoint_parse(struct str s, struct endpoint *out);
void endpoint_text(const struct endpoint *e, char out[ENDPOINT_TEXT]);
void ip_text(const struct ip *ip, char out[ENDPOINT_TEXT]);

#endif
