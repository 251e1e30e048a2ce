/* The switch: which stanza goes where, and what becomes of the ones that cannot go.
 *
 * Inward (remote server -> inside link) the pair was proven by the machine. Outward (inside ->
 * remote server) the link is a firewall: `from` must be one of our domains, `to` must not. Errors
 * travel the other way as stanzas of their own and are never answered by an error. */
#define _GNU_SOURCE 1 /* memmem */
#include "gateway/worker.h"

#include "core/base/mem.h"
#include "core/stream/bounce.h"
#include "core/xml/writer.h"
#include "gateway/policy/policy.h"

/* RFC 6120 8.3.2: what the sender can do about it. */
static const char *error_type(const char *condition)
{
    static const struct {
        const char *condition, *type;
    } types[] = {{"remote-server-timeout", "wait"},
                 {"resource-constraint", "wait"},
                 {"jid-malformed", "modify"},
                 {"policy-violation", "modify"},
                 {"not-acceptable", "modify"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].condition, condition) == 0)
            return types[i].type;
    return "cancel";
}

/* ---- addresses ------------------------------------------------------------------------------- */

/* The address with its domain in the prepared form; absent when it already is. `ascii` is that
 * domain's A-label, as the machine found it; for names without U-labels the two forms are one,
 * which spares preparing them again. `b` holds the result. */
static struct str prepared(struct str address, struct str ascii, struct buf *b)
{
    struct jid j = jid_split(address);
    struct domain d;
    if (str_eq(j.domain, ascii) && memmem(ascii.p, ascii.n, "xn--", 4) == NULL)
        return STR_NONE;
    if (!domain_prepare(j.domain, &d)) {
        b->failed = true; /* cannot be: the machine has looked */
        return STR_NONE;
    }
    if (str_is(j.domain, d.wire))
        return STR_NONE;
    buf_str(b, (struct str){address.p, (size_t)(j.domain.p - address.p)});
    buf_puts(b, d.wire);
    const char *rest = j.domain.p + j.domain.n;
    buf_str(b, (struct str){rest, (size_t)(address.p + address.n - rest)});
    return buf_view(b);
}

/* The stanza as the other side must get it; `from` and `to` are the A-labels of its domains. Chunk
 * NULL: it cannot be done. */
static struct span restamp(const struct stanza *st, enum content_ns content, struct str from,
                           struct str to)
{
    struct buf bf = BUF_INIT(4096), bt = BUF_INIT(4096);
    struct writer_target target = {.content = content};
    target.from = prepared(st->from, from, &bf);
    target.to = prepared(st->to, to, &bt);
    struct span out = {NULL, STR_NONE};
    if (!bf.failed && !bt.failed)
        out = writer_restamp(st, &target);
    buf_free(&bf);
    buf_free(&bt);
    return out;
}

/* A stanza written anew can be larger than it came, and one from the inside larger than others
 * take: it would end the other stream for everybody. Releases one that is. */
#define TOO_LARGE "the stanza is larger than limits.stanza_size"
static bool too_large(const struct worker *w, struct span *s)
{
    if (s->s.n <= w->cfg->limits.stanza_size)
        return false;
    span_release(s);
    return true;
}

/* ---- outward --------------------------------------------------------------------------------- */

void switch_answer_inside(struct worker *w, const struct stanza *st, const char *condition,
                          const char *text)
{
    if (!bounce_allowed(st)) {
        w->n.outward.dropped++;
        return;
    }
    struct span b = bounce_stanza(st, CONTENT_COMPONENT, error_type(condition), condition, text);
    w->n.outward.bounced++;
    if (b.chunk == NULL)
        return;
    w->n.inward.authored++;
    link_send(w, b);
}

static void log_bounce(struct worker *w, const char *dir, struct str local, struct str remote,
                       const char *condition, struct str text)
{
    log_ev(&w->ctx, LOG_INFO, "stanza.bounced", KV_C("dir", dir), KV_S("local", local),
           KV_S("peer", remote), KV_C("reason", condition), KV_S("msg", text));
}

/* Sends or queues; NULL condition: it is on its way. Takes the reference over in every case. */
static struct remote_refusal send_outward(struct worker *w, struct span stanza, struct str local,
                                          struct str remote)
{
    struct peer *p = peer_get(w, remote, local);
    if (p == NULL) {
        span_release(&stanza);
        return (struct remote_refusal){"resource-constraint", STR("too many remote domains")};
    }
    if (peer_send_now(p, local, &stanza))
        return (struct remote_refusal){NULL, STR_NONE};
    if (w->draining) { /* nobody would empty the queue any more */
        span_release(&stanza);
        peer_kick(p);
        return (struct remote_refusal){"remote-server-timeout", STR("the gateway is stopping")};
    }
    struct remote_refusal r = remote_stanza(p->remote, local, stanza.s, loop_now(&w->loop));
    span_release(&stanza);
    peer_kick(p);
    return r;
}

/* Why a stanza from the inside may not leave; NULL: it may. */
static const char *outward_refusal(struct worker *w, struct str local, struct str remote,
                                   const char **text)
{
    if (gateway_config_domain(w->cfg, remote) != NULL) {
        *text = "this domain is served inside and is never reached through the gateway";
        return "service-unavailable";
    }
    struct policy_decision d = policy_pair(w->cfg, local, remote);
    if (d.verdict == POLICY_ALLOW)
        return NULL;
    w->n.policy_refused++;
    *text = d.rule;
    return d.verdict == POLICY_OFF ? "policy-violation" : "not-allowed";
}

static void to_ourselves(struct worker *w, const struct stanza *st)
{
    struct span answer = bounce_answer(st, CONTENT_COMPONENT);
    if (answer.chunk == NULL) {
        w->n.outward.dropped++;
        return;
    }
    w->n.outward.delivered++; /* we were the destination */
    w->n.inward.authored++;
    link_send(w, answer);
}

void switch_outward(struct worker *w, const struct stanza *st)
{
    struct domain local, remote;
    struct jid from, to;
    w->n.outward.received++;
    if (st->from.p == NULL || st->to.p == NULL || jid_prepare(st->from, &from, &local) != JID_OK ||
        jid_prepare(st->to, &to, &remote) != JID_OK) {
        w->n.outward.dropped++; /* the link machine has answered what can be answered */
        return;
    }
    if (str_is(str_c(w->cfg->links[0].component), remote.ascii)) {
        to_ourselves(w, st);
        return;
    }
    if (gateway_config_domain(w->cfg, str_c(local.ascii)) == NULL) {
        w->n.firewall_refused++;
        w->n.outward.dropped++;
        log_ev(&w->ctx, LOG_WARN, "stanza.refused", KV_C("reason", "foreign-from"),
               KV_S("from", st->from), KV_S("to", st->to));
        return;
    }
    const char *text = NULL;
    const char *condition = outward_refusal(w, str_c(local.ascii), str_c(remote.ascii), &text);
    struct remote_refusal r = {condition, str_c(text)};
    if (condition == NULL) {
        struct span out = restamp(st, CONTENT_SERVER, str_c(local.ascii), str_c(remote.ascii));
        if (out.chunk == NULL)
            r = (struct remote_refusal){"resource-constraint", STR("out of memory")};
        else if (too_large(w, &out))
            r = (struct remote_refusal){"policy-violation", STR(TOO_LARGE)};
        else
            r = send_outward(w, out, str_c(local.ascii), str_c(remote.ascii));
    }
    if (r.condition == NULL)
        return;
    char why[256];
    str_copy(why, sizeof why, r.text);
    log_bounce(w, "out", str_c(local.ascii), str_c(remote.ascii), r.condition, r.text);
    switch_answer_inside(w, st, r.condition, why);
}

/* ---- inward ---------------------------------------------------------------------------------- */

void switch_bounce_inward(struct worker *w, const struct stanza *st, struct str local,
                          struct str remote, const char *type, const char *condition,
                          const char *text)
{
    if (!bounce_allowed(st)) {
        w->n.inward.dropped++;
        return;
    }
    log_bounce(w, "in", local, remote, condition, str_c(text));
    w->n.inward.bounced++;
    struct span b = bounce_stanza(st, CONTENT_SERVER, type, condition, text);
    if (b.chunk == NULL)
        return;
    w->n.outward.authored++;
    if (send_outward(w, b, local, remote).condition != NULL)
        w->n.outward.dropped++; /* an error is never answered by an error */
}

void switch_inward(struct worker *w, const struct stanza *st, struct str local, struct str remote)
{
    w->n.inward.received++;
    struct span out = restamp(st, CONTENT_COMPONENT, remote, local);
    if (out.chunk == NULL) {
        switch_bounce_inward(w, st, local, remote, "wait", "resource-constraint",
                             "the gateway is out of memory");
        return;
    }
    if (too_large(w, &out))
        switch_bounce_inward(w, st, local, remote, "modify", "policy-violation", TOO_LARGE);
    else
        link_send(w, out);
}

/* ---- stanzas of which only the bytes are left ------------------------------------------------ */

/* Parses one stanza of ours again. The framer keeps its strings: free it afterwards. */
static struct framer *reread(struct span stanza, enum content_ns content, struct framer_event *ev)
{
    static const char server[] = "<stream:stream xmlns='jabber:server' "
                                 "xmlns:stream='http://etherx.jabber.org/streams'>";
    static const char component[] = "<stream:stream xmlns='jabber:component:accept' "
                                    "xmlns:stream='http://etherx.jabber.org/streams'>";
    struct framer_limits limits = framer_limits_default;
    limits.element = stanza.s.n + 1024;
    struct framer *f = framer_new(content, &limits);
    if (f == NULL)
        return NULL;
    if (framer_feed(f, str_c(content == CONTENT_SERVER ? server : component)) &&
        framer_next(f, ev) == FRAMER_EVENT && framer_feed(f, stanza.s) &&
        framer_next(f, ev) == FRAMER_EVENT && ev->kind == FRAMER_STANZA)
        return f;
    framer_free(f);
    return NULL;
}

void switch_failed_outward(struct worker *w, struct span stanza, const char *condition,
                           struct str text)
{
    struct framer_event ev;
    struct framer *f = reread(stanza, CONTENT_SERVER, &ev);
    if (f == NULL) {
        w->n.outward.dropped++;
        return;
    }
    struct domain local, remote;
    struct jid j;
    char why[256];
    str_copy(why, sizeof why, text);
    if (jid_prepare(ev.stanza.from, &j, &local) == JID_OK &&
        jid_prepare(ev.stanza.to, &j, &remote) == JID_OK)
        log_bounce(w, "out", str_c(local.ascii), str_c(remote.ascii), condition, text);
    switch_answer_inside(w, &ev.stanza, condition, why);
    framer_free(f);
}

void switch_failed_inward(struct worker *w, struct span stanza, const char *condition,
                          const char *text)
{
    struct framer_event ev;
    struct framer *f = reread(stanza, CONTENT_COMPONENT, &ev);
    struct domain local, remote;
    struct jid j;
    if (f != NULL && ev.stanza.from.p != NULL && ev.stanza.to.p != NULL &&
        jid_prepare(ev.stanza.from, &j, &remote) == JID_OK &&
        jid_prepare(ev.stanza.to, &j, &local) == JID_OK &&
        gateway_config_domain(w->cfg, str_c(remote.ascii)) == NULL)
        switch_bounce_inward(w, &ev.stanza, str_c(local.ascii), str_c(remote.ascii),
                             error_type(condition), condition, text);
    else
        w->n.inward.dropped++; /* written by ourselves for the inside: errors and replies */
    framer_free(f);
}

void switch_requeue_outward(struct worker *w, struct span stanza)
{
    if (w->draining) {
        switch_failed_outward(w, stanza, "remote-server-timeout", STR("the gateway is stopping"));
        return;
    }
    struct framer_event ev;
    struct framer *f = reread(stanza, CONTENT_SERVER, &ev);
    struct domain local, remote;
    struct jid j;
    struct peer *p = NULL;
    if (f != NULL && jid_prepare(ev.stanza.from, &j, &local) == JID_OK &&
        jid_prepare(ev.stanza.to, &j, &remote) == JID_OK)
        p = peer_get(w, str_c(remote.ascii), str_c(local.ascii));
    if (p != NULL && remote_unsent(p->remote, str_c(local.ascii), stanza.s, loop_now(&w->loop)))
        peer_kick(p);
    else
        switch_failed_outward(w, stanza, "resource-constraint", STR("out of memory"));
    framer_free(f);
}
