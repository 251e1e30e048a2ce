/* Name resolution for the gateway: which services a remote domain offers, which addresses a host
 * has. Asynchronous on the worker's loop; the results are pure data (dns/result.h).
 *
 * Behind it: one c-ares channel per question (a failure of one never touches another), a bounded
 * TTL cache with negative entries, one question in flight per name with any number of waiters.
 *
 * RFC 6120 3.2 (SRV, fallback), RFC 2782 (order, "."), RFC 5452. */
#ifndef DNS_RESOLVER_H
#define DNS_RESOLVER_H

#include "core/base/cidr.h"
#include "core/net/loop.h"
#include "core/xml/jid.h"
#include "dns/result.h"

struct resolver;
struct dns_query;

/* servers: "address:port" strings, none: the system's; timeout_ms covers a whole lookup. NULL with
 * a text for the operator when a server address is unusable or memory is out. */
struct resolver *resolver_new(struct loop *loop, char *const *servers, size_t nservers,
                              uint64_t timeout_ms, char why[DNS_TEXT_MAX]);
/* Cancels everything (no callbacks) and frees; the last handles close in the loop's next turn. */
void resolver_close(struct resolver *r);

/* The callback comes exactly once, never from inside this call, unless cancelled before. The result
 * is borrowed for the callback. NULL: out of memory or too many lookups (512) in flight. */
struct dns_query *resolver_services(struct resolver *r, struct str domain,
                                    void (*done)(void *arg, const struct dns_services *),
                                    void *arg);
struct dns_query *resolver_addresses(struct resolver *r, struct str host,
                                     void (*done)(void *arg, const struct dns_addresses *),
                                     void *arg);
/* Not after the callback has begun: the query is gone then. NULL is fine. */
void dns_query_cancel(struct dns_query *q);

/* Forgets what is cached (after a reload that changes servers). */
void resolver_flush(struct resolver *r);

struct resolver_status {
    size_t cached, asking, waiting; /* names known, names being asked, who waits for them */
};
void resolver_status(const struct resolver *r, struct resolver_status *out);

#endif
