/* A DNS message as untrusted bytes -> the records that answer one question.
 *
 * RFC 1035 4 (message), 2181 8 (TTL), 2308 (negative answers), 2782 (SRV), 3596 (AAAA), 6698 2.1
 * (TLSA). Pure: no sockets, no allocation, bounded work. */
#ifndef DNS_ANSWER_H
#define DNS_ANSWER_H

#include "dns/result.h"

enum dns_rr {
    DNS_RR_A = 1,
    DNS_RR_CNAME = 5,
    DNS_RR_SOA = 6,
    DNS_RR_AAAA = 28,
    DNS_RR_SRV = 33,
    DNS_RR_TLSA = 52,
};

enum {
    DNS_RECORDS_MAX = 64, /* looked at per section; what lies behind is ignored */
    DNS_CNAME_HOPS = 8,
};

#define DNS_ANSWER_KINDS(X)                                                                        \
    X(RECORDS, "records")     /* at least one usable record */                                     \
    X(NODATA, "nodata")       /* the name has no such record */                                    \
    X(NXDOMAIN, "nxdomain")   /* the name does not exist */                                        \
    X(TRUNCATED, "truncated") /* TC: the message is not whole */                                   \
    X(REFUSED, "refused")     /* any other rcode */                                                \
    X(BAD, "bad") /* not an answer to this question, malformed, or only unusable records */

enum dns_answer_kind {
#define X(id, name) DNS_ANSWER_##id,
    DNS_ANSWER_KINDS(X)
#undef X
};

struct dns_srv {
    uint16_t priority, weight, port;
    bool direct_tls;             /* of the _xmpps-server set (XEP-0368); for who asked to say */
    bool authentic;              /* the set was; the same */
    char target[DOMAIN_MAX + 1]; /* lower case; "": the root, service not available (RFC 2782) */
};

struct dns_answer {
    enum dns_answer_kind kind;
    unsigned rcode;
    bool truncated;
    bool authentic;  /* the server says that DNSSEC vouches for all of it (AD, RFC 4035 3.2.3) */
    bool has_ttl;    /* NODATA, NXDOMAIN: whether a SOA gave the ttl */
    uint32_t ttl;    /* seconds: the smallest on the way, or that of the negative answer */
    size_t rejected; /* records of the name asked that were malformed, or TLSA of too many bytes */
    size_t n;
    union {
        struct ip ip[DNS_RECORDS_MAX];       /* A, AAAA */
        struct dns_srv srv[DNS_RECORDS_MAX]; /* SRV */
        struct tlsa tlsa[TLSA_RECORDS_MAX];  /* TLSA; further ones are left out */
    } u;
};

/* `name` is lower-case as asked, `type` one of A, AAAA, SRV, TLSA. */
void dns_answer_read(struct str message, struct str name, enum dns_rr type, struct dns_answer *out);

/* Letters, digits, hyphen and underscore in labels of 1 to 63 bytes, 253 bytes in all. */
bool dns_name_ok(struct str s);
/* A name that may be asked for addresses: as above, and not in the form of an IPv4 address. */
bool dns_host_ok(struct str s);
/* Lower-cases ASCII into `out`; false when it does not fit. */
bool dns_name_lower(struct str s, char out[DOMAIN_MAX + 1]);

const char *dns_answer_kind_name(enum dns_answer_kind k);

#endif
