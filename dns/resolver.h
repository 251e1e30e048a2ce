/* Name resolution for the gateway: which services a remote domain offers, which addresses a host
 * has, what is known of its certificates. Asynchronous on the worker's loop; the results are pure
 * data (dns/result.h).
 *
 * Behind it: one c-ares channel per question (a failure of one never touches another), a bounded
 * TTL cache with negative entries, one question in flight per name with any number of waiters.
 *
 * RFC 6120 3.2 (SRV, fallback), RFC 2782 (order, "."), XEP-0368 (direct TLS), RFC 5452, RFC 6698
 * (TLSA). */
#ifndef DNS_RESOLVER_H
#define DNS_RESOLVER_H

#include "core/base/cidr.h"
#include "core/net/loop.h"
#include "core/xml/jid.h"
#include "dns/result.h"

struct resolver;
struct dns_query;

struct resolver_settings {
    char *const *servers; /* "address:port" */
    size_t nservers;      /* none: the system's */
    uint64_t timeout_ms;  /* of a whole lookup */
    bool trust_ad;        /* the servers check DNSSEC, and so does the way to them: `authentic` is
                           * what they say, else always false */
};

/* The settings need not outlive the call. NULL with a text for the operator when a server address
 * is unusable or memory is out. */
struct resolver *resolver_new(struct loop *loop, const struct resolver_settings *s,
                              char why[DNS_TEXT_MAX]);
/* Cancels everything (no callbacks) and frees; the last handles close in the loop's next turn. */
void resolver_close(struct resolver *r);

/* The callback comes exactly once, never from inside this call, unless cancelled before. The result
 * is borrowed for the callback. NULL: out of memory or too many lookups (512) in flight.
 * direct_tls: the services with TLS from the first byte count too (XEP-0368). */
struct dns_query *resolver_services(struct resolver *r, struct str domain, bool direct_tls,
                                    void (*done)(void *arg, const struct dns_services *),
                                    void *arg);
struct dns_query *resolver_addresses(struct resolver *r, struct str host,
                                     void (*done)(void *arg, const struct dns_addresses *),
                                     void *arg);
/* The TLSA records for TLS over TCP on that port. */
struct dns_query *resolver_tlsa(struct resolver *r, struct str host, uint16_t port,
                                void (*done)(void *arg, const struct dns_tlsa *), void *arg);
/* Not after the callback has begun: the query is gone then. NULL is fine. */
void dns_query_cancel(struct dns_query *q);

/* Forgets what is cached (after a reload that changes servers). */
void resolver_flush(struct resolver *r);

struct resolver_status {
    size_t cached, asking, waiting; /* names known, names being asked, who waits for them */
};
void resolver_status(const struct resolver *r, struct resolver_status *out);

#endif
