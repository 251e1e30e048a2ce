/* One DNS question over a c-ares channel of its own, on the worker's loop.
 *
 * A channel per question costs some 55 microseconds and keeps a failure where it is: in c-ares 1.18
 * one refused TCP connection fails every other question of the channel. Only a narrow part of it is
 * used (ares_send and what carries it), neither its parsers nor ares_getaddrinfo. */
#ifndef DNS_CARES_H
#define DNS_CARES_H

#include "core/net/loop.h"
#include "dns/plan.h"

struct cares;

struct cares_options {
    const char *servers; /* "192.0.2.1:53,[2001:db8::1]:53"; NULL: the system's */
    uint64_t try_ms;     /* patience of the first of three tries; it doubles */
    bool ask_ad;         /* asks for what the server knows of DNSSEC (RFC 6840 5.7) */
};

/* Exactly once, possibly before cares_ask returns and possibly from inside c-ares: it may take
 * notes and post a task, and must not call cares_ask or cares_close. `message` is borrowed. */
typedef void cares_reply(void *arg, enum dns_reply reply, struct str message);

/* True: c-ares accepts the list. */
bool cares_check(const char *servers);

/* `raw`: hand over whatever the first server says, SERVFAIL too, instead of trying the next. NULL:
 * out of memory or descriptors; then no reply comes. */
struct cares *cares_ask(struct loop *loop, const struct cares_options *opt, const char *name,
                        enum dns_rr type, bool raw, cares_reply *reply, void *arg);
/* Before or after the reply; none comes any more. NULL is fine. */
void cares_close(struct cares *c);

#endif
