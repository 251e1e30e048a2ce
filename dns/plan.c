/* How a domain becomes targets and a host becomes addresses.
 *
 * Services (RFC 6120 3.2, XEP-0368): ask SRV for _xmpp-server._tcp.DOMAIN and
 * _xmpps-server._tcp.DOMAIN.
 *   - records of either: they are the targets, both sets together in the order of RFC 2782;
 *   - none, and _xmpp-server has only the target ".": the domain declares that it does not
 *     federate, DNS_NONE. A "." of _xmpps-server says no more than that there is no direct TLS;
 *   - none, and _xmpp-server does not exist: the domain itself on port 5269;
 *   - none, and _xmpp-server ended otherwise (SERVFAIL, timeout, unreachable, malformed records
 *     only): the lookup failed. To go on with the domain's addresses then would let whoever can
 *     suppress one answer choose which host we talk to.
 * Some servers never answer a question they do not know. So once the answers that are there would
 * do, the other one is waited for no longer than 250 ms.
 *
 * Addresses: AAAA and A go out together. The result is there when both have ended, or 50 ms after
 * the first that brought an address (RFC 8305 3), so no slow or broken answer to one holds up the
 * other. That a name does not exist is believed only when neither question says otherwise:
 * there are servers that answer NXDOMAIN to AAAA for a name that has an A record (RFC 4074 4.2).
 *
 * TLSA (RFC 6698, 7673 3.3): one question. Records that say nothing to us (malformed, too large)
 * are records all the same: they are found, and none of them kept.
 *
 * What DNSSEC vouches for is what the server says (AD), where its word counts. A server that finds
 * a signature wrong says SERVFAIL, and then the lookup has failed.
 *
 * A question that ended unreachable is put once more: c-ares says so as well when every server
 * declined, and drops what they said; the second question asks for it (`again`). */
#include "dns/plan.h"

#include <stdio.h>

#include "dns/srv.h"

enum {
    LIFE_MAX_S = 3600,
    LIFE_NEGATIVE_MAX_S = 30,
    LIFE_NEGATIVE_DEFAULT_S = 30,
    LIFE_FAILED_MS = 5000,
    NAME_SHOWN = 44, /* two names and a sentence fit into DNS_TEXT_MAX */
};

static void add(struct dns_actions *out, enum dns_action_kind kind, size_t slot, bool again,
                uint64_t ms)
{
    if (out->n < DNS_ACTIONS_MAX)
        out->v[out->n++] = (struct dns_action){kind, slot, again, ms};
}

static void add_slot(struct dns_plan *p, enum dns_rr type, const char *prefix)
{
    p->slot[p->nslots].type = type;
    p->slot[p->nslots++].prefix = prefix;
}

void dns_plan_init(struct dns_plan *p, const struct env *env, enum dns_kind kind, struct str name,
                   bool no_srv)
{
    memset(p, 0, sizeof *p);
    p->env = env;
    p->kind = kind;
    p->no_srv = no_srv;
    str_copy(p->name, sizeof p->name, name);
    if (dns_kind_services(kind)) {
        add_slot(p, DNS_RR_SRV, DNS_SRV_PREFIX);
        if (kind == DNS_KIND_SERVICES)
            add_slot(p, DNS_RR_SRV, DNS_SRV_PREFIX_TLS);
    } else if (kind == DNS_KIND_TLSA) {
        add_slot(p, DNS_RR_TLSA, "");
    } else {
        add_slot(p, DNS_RR_AAAA, "");
        add_slot(p, DNS_RR_A, "");
    }
}

static bool name_fits(const struct dns_plan *p, size_t slot)
{
    return strlen(p->name) + strlen(p->slot[slot].prefix) <= DOMAIN_MAX;
}

void dns_plan_question(const struct dns_plan *p, size_t slot, char out[DOMAIN_MAX + 1])
{
    snprintf(out, DOMAIN_MAX + 1, "%s%s", p->slot[slot].prefix, p->name);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t life_of(const struct dns_answer *a)
{
    if (a->kind == DNS_ANSWER_RECORDS)
        return smaller(a->ttl, LIFE_MAX_S) * 1000;
    return (a->has_ttl ? smaller(a->ttl, LIFE_NEGATIVE_MAX_S) : LIFE_NEGATIVE_DEFAULT_S) * 1000;
}

/* ---- what went wrong, in a sentence ---- */

static const char *rcode_name(unsigned rcode)
{
    static const char *const names[] = {"NOERROR",  "FORMERR", "SERVFAIL",
                                        "NXDOMAIN", "NOTIMP",  "REFUSED"};
    return rcode < sizeof names / sizeof *names ? names[rcode] : "an unknown error code";
}

static const char *type_shown(enum dns_rr type)
{
    return type == DNS_RR_SRV ? "SRV " : type == DNS_RR_TLSA ? "TLSA " : "";
}

static void text_failed(const struct dns_plan *p, const struct dns_slot *s, char *text)
{
    const char *srv = type_shown(s->type);
    if (s->reply == DNS_REPLY_UNREACHABLE)
        snprintf(text, DNS_TEXT_MAX, "DNS servers cannot be reached or refuse to answer");
    else if (s->reply == DNS_REPLY_UNUSABLE)
        snprintf(text, DNS_TEXT_MAX, "DNS question for %s%s%.*s could not be put", srv, s->prefix,
                 NAME_SHOWN, p->name);
    else if (s->kind == DNS_ANSWER_REFUSED)
        snprintf(text, DNS_TEXT_MAX, "DNS servers could not resolve %s%s%.*s: %s", srv, s->prefix,
                 NAME_SHOWN, p->name, rcode_name(s->rcode));
    else
        snprintf(text, DNS_TEXT_MAX, "DNS servers sent an unusable answer for %s%s%.*s", srv,
                 s->prefix, NAME_SHOWN, p->name);
}

static void text_late(const struct dns_plan *p, char *text)
{
    unsigned long ms = (unsigned long)(p->end_ms - p->start_ms);
    bool seconds = ms >= 1000;
    snprintf(text, DNS_TEXT_MAX, "DNS servers did not answer within %lu %s",
             seconds ? (ms + 500) / 1000 : ms, seconds ? "s" : "ms");
}

static void text_none(const struct dns_plan *p, bool nxdomain, char *text)
{
    const char *n = p->name;
    if (nxdomain && p->no_srv)
        snprintf(text, DNS_TEXT_MAX,
                 "no such domain: SRV " DNS_SRV_PREFIX "%.*s and %.*s do not exist", NAME_SHOWN, n,
                 NAME_SHOWN, n);
    else if (nxdomain)
        snprintf(text, DNS_TEXT_MAX, "no such domain: %.*s does not exist", NAME_SHOWN, n);
    else
        snprintf(text, DNS_TEXT_MAX, "no address: %.*s has no %sA or AAAA record", NAME_SHOWN, n,
                 p->no_srv ? "SRV, " : "");
}

/* ---- ends ---- */

static void fail(struct dns_plan *p)
{
    struct dns_outcome *o = &p->outcome;
    const struct dns_slot *failed = NULL;
    for (size_t i = p->nslots; i-- > 0;)
        if (p->slot[i].state == SLOT_FAILED)
            failed = &p->slot[i];
    o->status = failed ? DNS_FAILED : DNS_TIMEOUT;
    o->life_ms = LIFE_FAILED_MS;
    if (failed != NULL)
        text_failed(p, failed, o->text);
    else
        text_late(p, o->text);
}

static bool ended_well(const struct dns_slot *s)
{
    return s->state == SLOT_FOUND || s->state == SLOT_ABSENT || s->state == SLOT_NEGATIVE;
}

/* Half an answer is not kept for long, so that the other half gets its chance. */
static uint64_t shortest_life(const struct dns_plan *p)
{
    uint64_t life = UINT64_MAX;
    for (size_t i = 0; i < p->nslots; i++)
        life = smaller(life, ended_well(&p->slot[i]) ? p->slot[i].life_ms : LIFE_FAILED_MS);
    return life;
}

static void settle_services(struct dns_plan *p)
{
    struct dns_outcome *o = &p->outcome;
    const struct dns_slot *plain = &p->slot[0], *last = &p->slot[p->nslots - 1];
    o->life_ms = shortest_life(p);
    o->from_srv = o->n > 0 || plain->state == SLOT_ABSENT;
    o->authentic = plain->state == SLOT_NEGATIVE && plain->authentic;
    if (o->n > 0 || plain->state == SLOT_NEGATIVE) {
        o->status = DNS_OK;
    } else if (plain->state == SLOT_ABSENT && ended_well(last)) {
        o->status = DNS_NONE;
        o->life_ms = smaller(o->life_ms, LIFE_NEGATIVE_MAX_S * 1000);
        snprintf(o->text, sizeof o->text,
                 "the domain declares that it offers no XMPP federation (SRV target \".\")");
    } else {
        fail(p);
    }
}

static void push_ip(struct dns_outcome *o, const struct ip *ip)
{
    for (size_t i = 0; i < o->n; i++)
        if (ip_equal(&o->u.ip[i], ip))
            return;
    if (o->n < DNS_ADDRESSES_MAX)
        o->u.ip[o->n++] = *ip;
}

static void interleave(struct dns_plan *p)
{
    for (size_t i = 0; i < DNS_FAMILY_MAX; i++)
        for (size_t s = 0; s < p->nslots; s++)
            if (i < p->slot[s].n)
                push_ip(&p->outcome, &p->slot[s].ip[i]);
}

static void settle_addresses(struct dns_plan *p)
{
    struct dns_outcome *o = &p->outcome;
    size_t negative = 0;
    bool nxdomain = false;
    interleave(p);
    o->life_ms = shortest_life(p);
    for (size_t i = 0; i < p->nslots; i++) {
        const struct dns_slot *s = &p->slot[i];
        negative += s->state == SLOT_NEGATIVE;
        nxdomain |= s->state == SLOT_NEGATIVE && s->kind == DNS_ANSWER_NXDOMAIN;
        o->authentic |= s->state == SLOT_FOUND && s->authentic;
    }
    if (o->n > 0) {
        o->status = DNS_OK;
    } else if (negative == p->nslots) {
        o->status = DNS_NONE;
        text_none(p, nxdomain, o->text);
    } else {
        fail(p);
    }
}

static void settle_tlsa(struct dns_plan *p)
{
    struct dns_outcome *o = &p->outcome;
    const struct dns_slot *s = &p->slot[0];
    o->authentic = ended_well(s) && s->authentic;
    o->life_ms = shortest_life(p);
    if (s->state == SLOT_FOUND) {
        o->status = DNS_OK;
    } else if (s->state == SLOT_NEGATIVE) {
        o->status = DNS_NONE;
        snprintf(o->text, sizeof o->text, "%.*s has no TLSA record", 2 * NAME_SHOWN, p->name);
    } else {
        fail(p);
    }
}

static void finish(struct dns_plan *p, uint64_t now, struct dns_actions *out)
{
    p->done = true;
    p->end_ms = now;
    for (size_t i = 0; i < p->nslots; i++)
        if (p->slot[i].state == SLOT_WAITING)
            p->slot[i].state = SLOT_LATE;
    if (dns_kind_services(p->kind))
        settle_services(p);
    else if (p->kind == DNS_KIND_TLSA)
        settle_tlsa(p);
    else
        settle_addresses(p);
    add(out, DNS_ACT_DONE, 0, false, 0);
}

/* ---- replies ---- */

static void keep_srv(struct dns_plan *p, struct dns_slot *s, struct dns_answer *a)
{
    if (srv_absent(a->u.srv, a->n)) {
        s->state = SLOT_ABSENT;
        return;
    }
    size_t n = srv_order(a->u.srv, a->n, p->env);
    if (n == 0) { /* nothing but port 0: neither a target nor a statement */
        s->kind = DNS_ANSWER_BAD;
        return;
    }
    struct dns_outcome *o = &p->outcome;
    for (size_t i = 0; i < n && i < DNS_SRV_EACH; i++) {
        a->u.srv[i].direct_tls = s != &p->slot[0];
        a->u.srv[i].authentic = s->authentic;
        o->u.srv[o->n++] = a->u.srv[i];
    }
    s->state = SLOT_FOUND;
}

static void keep_ips(struct dns_slot *s, const struct dns_answer *a)
{
    s->n = a->n < DNS_FAMILY_MAX ? a->n : DNS_FAMILY_MAX;
    memcpy(s->ip, a->u.ip, s->n * sizeof a->u.ip[0]);
    s->state = SLOT_FOUND;
}

static void keep_tlsa(struct dns_plan *p, struct dns_slot *s, const struct dns_answer *a)
{
    memcpy(p->outcome.u.tlsa, a->u.tlsa, a->n * sizeof a->u.tlsa[0]);
    p->outcome.n = a->n;
    s->state = SLOT_FOUND;
}

static void take_message(struct dns_plan *p, struct dns_slot *s, struct str message)
{
    struct dns_answer a;
    char asked[DOMAIN_MAX + 1];
    dns_plan_question(p, (size_t)(s - p->slot), asked);
    dns_answer_read(message, str_c(asked), s->type, &a);
    s->kind = a.kind;
    s->rcode = a.rcode;
    s->life_ms = life_of(&a);
    s->authentic = p->trust_ad && a.authentic;
    s->state = SLOT_FAILED;
    if (a.kind == DNS_ANSWER_NXDOMAIN || a.kind == DNS_ANSWER_NODATA)
        s->state = SLOT_NEGATIVE;
    else if (s->type == DNS_RR_TLSA && (a.kind == DNS_ANSWER_RECORDS || a.rejected > 0))
        keep_tlsa(p, s, &a);
    else if (a.kind == DNS_ANSWER_RECORDS && s->type == DNS_RR_SRV)
        keep_srv(p, s, &a);
    else if (a.kind == DNS_ANSWER_RECORDS)
        keep_ips(s, &a);
}

static void take_reply(struct dns_plan *p, const struct dns_event *ev, struct dns_actions *out)
{
    struct dns_slot *s = &p->slot[ev->slot];
    if (ev->slot >= p->nslots || s->state != SLOT_WAITING)
        return;
    if (ev->reply == DNS_REPLY_UNREACHABLE && !s->again) {
        s->again = true;
        add(out, DNS_ACT_ASK, ev->slot, true, 0);
        return;
    }
    s->reply = ev->reply;
    if (ev->reply == DNS_REPLY_MESSAGE)
        take_message(p, s, ev->message);
    else
        s->state = ev->reply == DNS_REPLY_TIMEOUT ? SLOT_LATE : SLOT_FAILED;
}

/* With what is there now, the lookup would succeed. */
static bool would_do(const struct dns_plan *p)
{
    if (dns_kind_services(p->kind))
        return p->outcome.n > 0 || p->slot[0].state == SLOT_NEGATIVE;
    bool found = false;
    for (size_t i = 0; i < p->nslots; i++)
        found |= p->slot[i].state == SLOT_FOUND;
    return found;
}

static void after_reply(struct dns_plan *p, uint64_t now, struct dns_actions *out)
{
    size_t waiting = 0;
    for (size_t i = 0; i < p->nslots; i++)
        waiting += p->slot[i].state == SLOT_WAITING;
    if (waiting == 0) {
        finish(p, now, out);
    } else if (would_do(p) && !p->grace) {
        p->grace = true;
        add(out, DNS_ACT_GRACE, 0, false,
            dns_kind_services(p->kind) ? DNS_GRACE_SERVICES_MS : DNS_GRACE_MS);
    }
}

static void start(struct dns_plan *p, uint64_t now, struct dns_actions *out)
{
    bool asked = false;
    p->start_ms = now;
    for (size_t i = 0; i < p->nslots; i++) {
        if (name_fits(p, i)) {
            add(out, DNS_ACT_ASK, i, false, 0);
            asked = true;
            continue;
        }
        /* A name so long cannot have the SRV record: the same as one that has none. */
        p->slot[i].state = SLOT_NEGATIVE;
        p->slot[i].life_ms = LIFE_NEGATIVE_DEFAULT_S * 1000;
    }
    if (!asked)
        finish(p, now, out);
}

void dns_plan_step(struct dns_plan *p, const struct dns_event *ev, struct dns_actions *out)
{
    if (p->done)
        return;
    switch (ev->kind) {
    case DNS_EV_START:
        start(p, ev->now_ms, out);
        break;
    case DNS_EV_REPLY:
        take_reply(p, ev, out);
        after_reply(p, ev->now_ms, out);
        break;
    case DNS_EV_GRACE:
        if (p->grace)
            finish(p, ev->now_ms, out);
        break;
    case DNS_EV_DEADLINE:
        finish(p, ev->now_ms, out);
        break;
    }
}
