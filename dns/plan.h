/* One lookup as a step function: events in, actions out; no sockets, no clock.
 *
 * A lookup puts one or two questions at the same time, each in a slot: for the services of a domain
 * the SRV records of both services, for the addresses of a host AAAA and A, for the certificates of
 * a server TLSA. The driver carries out the actions, which pile up in the caller's list, after the
 * step; when DONE is among them, `outcome` holds what was found, and every later event is
 * ignored. */
#ifndef DNS_PLAN_H
#define DNS_PLAN_H

#include "core/base/env.h"
#include "dns/answer.h"
#include "dns/cache.h"

enum {
    DNS_XMPP_PORT = 5269,
    DNS_SRV_EACH = 16, /* records of one set; the order is drawn anew at each use */
    DNS_SRV_KEPT = 2 * DNS_SRV_EACH,
    DNS_FAMILY_MAX = 4,
    DNS_GRACE_MS = 50, /* RFC 8305 3, resolution delay */
    DNS_GRACE_SERVICES_MS = 250,
    DNS_PLAN_SLOTS = 2,
    DNS_ACTIONS_MAX = 8,
};

#define DNS_SRV_PREFIX     "_xmpp-server._tcp."
#define DNS_SRV_PREFIX_TLS "_xmpps-server._tcp."

enum dns_reply {
    DNS_REPLY_MESSAGE,     /* the bytes of an answer came */
    DNS_REPLY_TIMEOUT,     /* every try ran out of time */
    DNS_REPLY_UNREACHABLE, /* no server could be reached, or each declined */
    DNS_REPLY_UNUSABLE,    /* the question could not be put, or out of memory */
};

enum dns_event_kind { DNS_EV_START, DNS_EV_REPLY, DNS_EV_GRACE, DNS_EV_DEADLINE };

struct dns_event {
    enum dns_event_kind kind;
    uint64_t now_ms;
    /* REPLY: */
    size_t slot;
    enum dns_reply reply;
    struct str message; /* borrowed */
};

enum dns_action_kind {
    DNS_ACT_ASK,   /* put the question of `slot` */
    DNS_ACT_GRACE, /* send DNS_EV_GRACE in `ms` */
    DNS_ACT_DONE,
};

struct dns_action {
    enum dns_action_kind kind;
    size_t slot;
    bool again; /* ASK: the second time, to get at the server's own words */
    uint64_t ms;
};

struct dns_actions {
    size_t n;
    struct dns_action v[DNS_ACTIONS_MAX];
};

/* What the cache keeps. Only the first dns_outcome_size bytes carry meaning. */
struct dns_outcome {
    enum dns_status status;
    bool from_srv;
    /* DNSSEC vouches for the addresses of one family at least; for the TLSA records, or that there
     * are none; for that there is no SRV record. Of SRV records each knows for itself. */
    bool authentic;
    uint64_t life_ms; /* how long it may be believed; 0: by those who wait for it now */
    char text[DNS_TEXT_MAX];
    size_t n; /* addresses, SRV records, or TLSA records */
    union {
        struct ip ip[DNS_ADDRESSES_MAX];
        struct dns_srv srv[DNS_SRV_KEPT];
        struct tlsa tlsa[TLSA_RECORDS_MAX];
    } u;
};

struct dns_slot {
    enum dns_rr type;
    const char *prefix; /* before the name that is asked; static */
    enum dns_slot_state {
        SLOT_WAITING,
        SLOT_FOUND,
        SLOT_ABSENT, /* the set says that there is no such service (RFC 2782, ".") */
        SLOT_NEGATIVE,
        SLOT_FAILED,
        SLOT_LATE,
    } state;
    bool again, authentic;
    enum dns_reply reply;
    enum dns_answer_kind kind;
    unsigned rcode;
    uint64_t life_ms;
    size_t n;
    struct ip ip[DNS_FAMILY_MAX];
};

struct dns_plan {
    const struct env *env;
    enum dns_kind kind;
    char name[DOMAIN_MAX + 1];
    bool no_srv; /* addresses: it is known that the name has no SRV record (for the text) */
    /* What the servers say of DNSSEC counts (RFC 6840 5.7); set after init. */
    bool trust_ad;
    bool done, grace;
    uint64_t start_ms, end_ms;
    size_t nslots;
    struct dns_slot slot[DNS_PLAN_SLOTS];
    struct dns_outcome outcome;
};

/* `name` is a lower-case A-label name that dns_name_ok accepts (TLSA: "_5269._tcp.HOST"); env must
 * outlive the plan. */
void dns_plan_init(struct dns_plan *p, const struct env *env, enum dns_kind kind, struct str name,
                   bool no_srv);
/* The name to ask: of the SRV record, or of the host. The type is in the slot. */
void dns_plan_question(const struct dns_plan *p, size_t slot, char out[DOMAIN_MAX + 1]);
void dns_plan_step(struct dns_plan *p, const struct dns_event *ev, struct dns_actions *out);

/* An outcome that needs no question: a literal address, or a name that cannot be asked. */
void dns_outcome_literal(struct dns_outcome *o, const struct ip *ip);
void dns_outcome_no_name(struct dns_outcome *o, struct str name);

size_t dns_outcome_size(const struct dns_outcome *o, enum dns_kind kind);
/* Out of stored bytes; false when they are not an outcome of that kind. */
bool dns_outcome_load(struct dns_outcome *o, enum dns_kind kind, struct str bytes);

/* Results for the holder, SRV targets in a freshly drawn order. */
void dns_outcome_services(const struct dns_outcome *o, struct str domain, const struct env *env,
                          struct dns_services *out);
void dns_outcome_addresses(const struct dns_outcome *o, struct dns_addresses *out);
void dns_outcome_tlsa(const struct dns_outcome *o, struct dns_tlsa *out);

#endif
