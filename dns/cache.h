/* What is known about names, and who waits for what is being asked. Pure over an injected now.
 *
 * An entry is a value of the holder's (opaque bytes) that lives until a time; the least recently
 * used one goes when the cache is full. A question is a name being asked right now, with everybody
 * who waits for it. Both are kept per kind: services and addresses of one name are two things.
 * Not thread-safe: one per worker. */
#ifndef DNS_CACHE_H
#define DNS_CACHE_H

#include <stdint.h>

#include "core/base/list.h"
#include "core/xml/jid.h"

enum dns_kind {
    DNS_KIND_SERVICES,       /* both services: with STARTTLS and with direct TLS */
    DNS_KIND_SERVICES_PLAIN, /* _xmpp-server alone: for who may not use TLS */
    DNS_KIND_ADDRESSES,
    DNS_KIND_TLSA, /* of "_5269._tcp.host" */
};

static inline bool dns_kind_services(enum dns_kind k)
{
    return k == DNS_KIND_SERVICES || k == DNS_KIND_SERVICES_PLAIN;
}

enum { DNS_CACHE_ENTRIES = 4096, DNS_QUESTIONS_MAX = 512, DNS_WAITERS_MAX = 1024 /* a question */ };

struct dns_cache;

struct dns_question {
    struct list waiters; /* struct dns_waiter */
    void *job;           /* for whoever answers it; the cache does not touch it */
};

/* Embedded in its holder, zeroed; in one question at most. */
struct dns_waiter {
    struct list_node node;
    struct dns_question *question; /* NULL: waits for nothing */
};

enum dns_cache_verdict {
    DNS_CACHE_HIT,  /* *value holds it: borrowed until the next call */
    DNS_CACHE_ASK,  /* the first to want it: *question is new and to be answered or dropped */
    DNS_CACHE_WAIT, /* *question is on its way */
    DNS_CACHE_FULL, /* too many questions or waiters, or out of memory: nothing happened */
};

struct dns_cache *dns_cache_new(size_t entries, size_t questions); /* NULL: out of memory */
/* No question may be left. */
void dns_cache_free(struct dns_cache *c);
/* Forgets the entries; answers to questions now in flight will not be kept either. */
void dns_cache_flush(struct dns_cache *c);

/* On ASK and WAIT the waiter is in the question's list. */
enum dns_cache_verdict dns_cache_want(struct dns_cache *c, enum dns_kind kind, struct str name,
                                      uint64_t now, struct dns_waiter *w, struct str *value,
                                      struct dns_question **question);
/* Looks without asking and without counting as use; absent: p NULL. Borrowed until the next
 * call. */
struct str dns_cache_peek(const struct dns_cache *c, enum dns_kind kind, struct str name,
                          uint64_t now);

/* Ends the question: keeps a copy of `value` for life_ms (0: not at all; neither when memory is
 * out) and hands the waiters over to `waiters`, which must be empty. */
void dns_cache_answer(struct dns_cache *c, struct dns_question *q, uint64_t now, uint64_t life_ms,
                      struct str value, struct list *waiters);
/* Takes a waiter out of whatever list it is in, also one handed over by dns_cache_answer. Returns
 * the question when nobody waits for it any more: the caller then drops it. */
struct dns_question *dns_cache_leave(struct dns_waiter *w);
void dns_cache_drop(struct dns_cache *c, struct dns_question *q); /* no waiter may be left */

size_t dns_cache_entries(const struct dns_cache *c);
size_t dns_cache_questions(const struct dns_cache *c);

#endif
