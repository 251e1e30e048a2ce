/* What a finished lookup says: plain data, shared by the pure parts and the resolver. */
#ifndef DNS_RESULT_H
#define DNS_RESULT_H

#include "core/base/cidr.h"
#include "core/base/tlsa.h"
#include "core/xml/jid.h"

enum { DNS_TARGETS_MAX = 8, DNS_ADDRESSES_MAX = 8 /* 4 per family */, DNS_TEXT_MAX = 160 };

#define DNS_STATUSES(X)                                                                            \
    X(OK, "ok")                                                                                    \
    X(NONE, "none")       /* name or records do not exist, or the service is declared absent */    \
    X(FAILED, "failed")   /* servers refused, answered garbage, or are unreachable */              \
    X(TIMEOUT, "timeout") /* no answer in time */

enum dns_status {
#define X(id, name) DNS_##id,
    DNS_STATUSES(X)
#undef X
};

struct dns_target {
    char host[DOMAIN_MAX + 1]; /* A-label form */
    uint16_t port;
    bool direct_tls; /* TLS from the first byte (XEP-0368) */
    bool authentic;  /* DNSSEC vouches for it; always false where the resolver is not trusted */
};

struct dns_services {
    enum dns_status status;
    struct dns_target target[DNS_TARGETS_MAX]; /* in the order to try (RFC 2782, XEP-0368) */
    size_t ntargets;
    bool from_srv; /* false: no SRV record, the domain itself on 5269 */
    bool cached;
    uint64_t total_ms, srv_ms;
    char text[DNS_TEXT_MAX]; /* not OK: one sentence for people */
};

struct dns_addresses {
    enum dns_status status;
    struct ip ip[DNS_ADDRESSES_MAX]; /* IPv6 and IPv4 alternating, IPv6 first */
    size_t n;
    bool authentic; /* of one family at least (RFC 7673 3.2) */
    bool cached;
    uint64_t total_ms;
    char text[DNS_TEXT_MAX];
};

struct dns_tlsa {
    enum dns_status status; /* OK: there are some, although it may be that none could be kept */
    struct tlsa record[TLSA_RECORDS_MAX];
    size_t n;
    bool authentic;
    bool cached;
    uint64_t total_ms;
    char text[DNS_TEXT_MAX];
};

const char *dns_status_name(enum dns_status s);

#endif
