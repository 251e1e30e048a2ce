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
    } types[] = {{"remote-server-timeout", "wait"}, {"resource-constraint", "wait"},
                 {"bad-request", "modify"},         {"jid-malformed", "modify"},
                 {"policy-violation", "modify"},    {"not-acceptable", "modify"}};
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
    if (ping_failed(w, st, condition, text))
        return;
    if (!bounce_allowed(st)) {
        w->n.outward.dropped++;
        return;
    }
    struct domain local, remote;
    struct jid j;
    w->n.outward.bounced++;
    if (jid_prepare(st->from, &j, &local) == JID_BAD_DOMAIN ||
        jid_prepare(st->to, &j, &remote) == JID_BAD_DOMAIN)
        return; /* cannot be: a bounce was allowed */
    struct way way = way_inside(w, str_c(local.ascii), str_c(remote.ascii), str_c(remote.ascii));
    struct span b = bounce_stanza(st, way.content, error_type(condition), condition, text);
    if (b.chunk == NULL)
        return;
    w->n.inward.authored++;
    hold_answer(w, &way, b);
}

static void log_bounce(struct worker *w, const char *dir, struct str local, struct str remote,
                       const char *condition, struct str text)
{
    log_ev(&w->ctx, LOG_INFO, "stanza.bounced", KV_C("dir", dir), KV_S("local", local),
           KV_S("peer", remote), KV_C("reason", condition), KV_S("msg", text));
}

static void tell_refused(struct worker *w, struct str local, struct str remote, const char *rule)
{
    char peer[DOMAIN_MAX + 1];
    str_copy(peer, sizeof peer, remote);
    story_tell(&w->story, "refused", peer, "%.*s may not write to %s: %s", STR_ARG(local), peer,
               rule);
}

/* Why a stanza from the inside may not leave; NULL: it may. */
static const char *outward_refusal(struct worker *w, struct str local, struct str remote,
                                   const char **text)
{
    if (gateway_config_domain(w->cfg, remote) != NULL) {
        *text = "this domain is served inside and is never reached through the gateway";
        return "service-unavailable";
    }
    struct policy_decision d = side_pair(&w->world.side, local, remote, WAY_OUT);
    if (d.verdict == POLICY_ALLOW) {
        rules_passed(w, &d, local, remote, WAY_OUT);
        return NULL;
    }
    w->n.policy_refused++;
    rules_refused(w, &d, local, remote, WAY_OUT);
    *text = d.rule;
    tell_refused(w, local, remote, d.rule);
    return d.verdict == POLICY_OFF ? "policy-violation" : "not-allowed";
}

/* An address that is the gateway's own on this link. */
static bool is_own_name(const struct link *k, const struct line *l, struct str remote)
{
    const struct cfg_link *c = k->kit->c;
    if (l == NULL || c->component == NULL)
        return false;
    if (c->protocol == PROTOCOL_JABBERD2 && str_is(remote, JABBERD2_DEFAULT))
        return true;
    for (size_t i = 0; i < c->npartners; i++) /* ejabberd's hosts: joined by a partner's name */
        if (strcmp(c->partners[i], c->component) == 0)
            return false;
    return str_is(remote, c->component);
}

static void to_ourselves(struct worker *w, struct line *l, const struct stanza *st,
                         struct str local)
{
    struct span answer = bounce_answer(st, CONTENT_COMPONENT);
    if (answer.chunk == NULL) {
        w->n.outward.dropped++;
        return;
    }
    w->n.outward.delivered++; /* we were the destination */
    w->n.inward.authored++;
    hold_reply(w, l, answer, local);
}

static void log_refused(struct worker *w, const struct link *k, const struct stanza *st,
                        const char *reason)
{
    w->n.firewall_refused++;
    log_ev(&w->ctx, LOG_WARN, "stanza.refused", KV_C("reason", reason),
           KV_C("link", k->kit->c->name), KV_S("from", st->from), KV_S("to", st->to));
}

static void refuse(struct worker *w, const struct link *k, const struct stanza *st,
                   const char *reason)
{
    w->n.outward.dropped++;
    log_refused(w, k, st, reason);
}

void switch_dropped(struct link *k, const struct stanza *st, const char *reason)
{
    struct worker *w = k->w;
    w->n.outward.received++;
    if (reason != NULL)
        refuse(w, k, st, reason);
    else
        w->n.outward.dropped++;
}

/* An answer without a sender, or from what is no address, may end the stream inside; so where the
 * stanza has no proper recipient the gateway answers by its own name. */
static void answer_malformed(struct worker *w, struct line *l, const struct stanza *st,
                             const struct gw_action *a, struct str local)
{
    struct domain remote;
    struct jid j;
    struct stanza asked = *st;
    if (st->to.p == NULL || jid_prepare(st->to, &j, &remote) != JID_OK)
        asked.to = str_c(l->name);
    struct span b = bounce_stanza(&asked, CONTENT_COMPONENT, a->u.bounce.type,
                                  a->u.bounce.condition, a->u.bounce.text);
    if (b.chunk == NULL)
        return;
    w->n.inward.authored++;
    hold_reply(w, l, b, local);
}

void switch_malformed(struct link *k, struct line *l, const struct stanza *st,
                      const struct gw_action *a)
{
    struct worker *w = k->w;
    struct domain local;
    struct jid j;
    bool known = jid_prepare(st->from, &j, &local) == JID_OK &&
                 gateway_config_domain(w->cfg, str_c(local.ascii)) != NULL;
    if (!known || l == NULL) {
        switch_dropped(k, st, known ? NULL : "foreign-from");
        return;
    }
    w->n.outward.received++;
    w->n.outward.bounced++;
    log_bounce(w, "out", str_c(local.ascii), st->to, a->u.bounce.condition,
               str_c(a->u.bounce.text));
    answer_malformed(w, l, st, a, str_c(local.ascii));
}

/* A link that is configured no more speaks for what it was made for until its streams are closed:
 * the inside has sent that before it knew. */
static bool speaks_for(const struct worker *w, const struct link *k, struct str local,
                       struct str remote)
{
    if (k->gone)
        return inward_lists(k->kit->cfg, k->kit->c, local, remote);
    return inward_owns(w->inward, k->index, local, remote);
}

/* The link as a firewall; NULL: it may pass. */
static const char *firewall(const struct worker *w, const struct link *k, const struct line *l,
                            struct str local, struct str remote)
{
    if (gateway_config_domain(w->cfg, local) == NULL)
        return "foreign-from";
    if (gateway_config_domain(w->cfg, remote) != NULL)
        return NULL; /* answered below, as it is no attack */
    if (!speaks_for(w, k, local, remote))
        return inward_candidates(w->inward, local, remote) ? "from-of-other-link" : "no-partner";
    if (l != NULL && l->partner != NULL && !str_is(remote, l->partner))
        return "to-of-other-partner";
    return NULL;
}

static struct remote_refusal pass_outward(struct worker *w, const struct stanza *st,
                                          struct str local, struct str remote)
{
    struct span out = restamp(st, CONTENT_SERVER, local, remote);
    if (out.chunk == NULL)
        return (struct remote_refusal){"resource-constraint", STR("out of memory")};
    if (too_large(w, &out))
        return (struct remote_refusal){"policy-violation", STR(TOO_LARGE)};
    return peer_deliver(&w->world, out, local, remote);
}

void switch_outward(struct link *k, struct line *l, const struct stanza *st)
{
    struct worker *w = k->w;
    struct domain local, remote;
    struct jid from, to;
    w->n.outward.received++;
    if (st->from.p == NULL || st->to.p == NULL || jid_prepare(st->from, &from, &local) != JID_OK ||
        jid_prepare(st->to, &to, &remote) != JID_OK) {
        w->n.outward.dropped++; /* the link machine has answered what can be answered */
        return;
    }
    if (is_own_name(k, l, str_c(remote.ascii))) {
        to_ourselves(w, l, st, str_c(local.ascii));
        return;
    }
    const char *wall = firewall(w, k, l, str_c(local.ascii), str_c(remote.ascii));
    if (wall != NULL) {
        refuse(w, k, st, wall);
        return;
    }
    const char *text = NULL;
    const char *condition = outward_refusal(w, str_c(local.ascii), str_c(remote.ascii), &text);
    struct remote_refusal r = {condition, str_c(text)};
    if (condition == NULL)
        r = pass_outward(w, st, str_c(local.ascii), str_c(remote.ascii));
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
    if (peer_deliver(&w->world, b, local, remote).condition != NULL)
        w->n.outward.dropped++; /* an error is never answered by an error */
}

void switch_malformed_inward(struct worker *w, const struct stanza *st, const struct gw_action *a)
{
    struct domain local, remote;
    struct jid j;
    w->n.inward.received++;
    if (a->kind != ACT_BOUNCE || jid_prepare(st->to, &j, &local) == JID_BAD_DOMAIN ||
        jid_prepare(st->from, &j, &remote) == JID_BAD_DOMAIN) {
        w->n.inward.dropped++;
        return;
    }
    switch_bounce_inward(w, st, str_c(local.ascii), str_c(remote.ascii), a->u.bounce.type,
                         a->u.bounce.condition, a->u.bounce.text);
}

void switch_inward(struct worker *w, const struct stanza *st, struct str local, struct str remote)
{
    w->n.inward.received++;
    if (ping_answered(w, st, local, remote))
        return;
    struct way way = way_inside(w, local, remote, st->from);
    struct span out = restamp(st, way.content, remote, local);
    if (out.chunk == NULL) {
        switch_bounce_inward(w, st, local, remote, "wait", "resource-constraint",
                             "the gateway is out of memory");
        return;
    }
    if (too_large(w, &out))
        switch_bounce_inward(w, st, local, remote, "modify", "policy-violation", TOO_LARGE);
    else
        hold_send(w, &way, out);
}

/* It was counted as delivered; what is said about it now is ours. But it speaks for a domain, so it
 * goes through the same wall as what the inside sends. */
void switch_undelivered(struct link *k, const struct stanza *st, const struct gw_action *a)
{
    struct worker *w = k->w;
    struct domain local, remote;
    struct jid j;
    if (!bounce_allowed(st) || jid_prepare(st->to, &j, &local) == JID_BAD_DOMAIN ||
        jid_prepare(st->from, &j, &remote) == JID_BAD_DOMAIN)
        return;
    const char *text = NULL, *wall = firewall(w, k, NULL, str_c(local.ascii), str_c(remote.ascii));
    if (wall != NULL) {
        log_refused(w, k, st, wall);
        return;
    }
    if (outward_refusal(w, str_c(local.ascii), str_c(remote.ascii), &text) != NULL)
        return;
    log_bounce(w, "in", str_c(local.ascii), str_c(remote.ascii), a->u.bounce.condition,
               str_c(a->u.bounce.text));
    struct span b = bounce_stanza(st, CONTENT_SERVER, a->u.bounce.type, a->u.bounce.condition,
                                  a->u.bounce.text);
    if (b.chunk == NULL)
        return;
    w->n.outward.authored++;
    if (peer_deliver(&w->world, b, str_c(local.ascii), str_c(remote.ascii)).condition != NULL)
        w->n.outward.dropped++;
}

/* ---- stanzas of which only the bytes are left ------------------------------------------------ */

static const char *header_of(enum content_ns content)
{
    return content == CONTENT_SERVER ? "<stream:stream xmlns='jabber:server' "
                                       "xmlns:stream='http://etherx.jabber.org/streams'>"
                                     : "<stream:stream xmlns='jabber:component:accept' "
                                       "xmlns:stream='http://etherx.jabber.org/streams'>";
}

static bool frame(struct reread *r, struct span stanza, enum content_ns content)
{
    struct framer *f = r->framer;
    return framer_feed(f, str_c(header_of(content))) && framer_next(f, &r->ev) == FRAMER_EVENT &&
           framer_feed(f, stanza.s) && framer_next(f, &r->ev) == FRAMER_EVENT &&
           r->ev.kind == FRAMER_STANZA;
}

bool switch_reread(struct reread *r, struct span stanza, enum content_ns content, bool inward)
{
    struct framer_limits limits = framer_limits_default;
    struct jid j;
    limits.element = stanza.s.n + 1024;
    r->framer = framer_new(content, &limits);
    if (r->framer != NULL && frame(r, stanza, content)) {
        struct str from = r->ev.stanza.from, to = r->ev.stanza.to;
        if (from.p != NULL && to.p != NULL &&
            jid_prepare(from, &j, inward ? &r->remote : &r->local) == JID_OK &&
            jid_prepare(to, &j, inward ? &r->local : &r->remote) == JID_OK)
            return true;
    }
    framer_free(r->framer);
    return false;
}

void switch_reread_free(struct reread *r)
{
    framer_free(r->framer);
}

void switch_failed_outward(struct worker *w, struct span stanza, const char *condition,
                           struct str text)
{
    struct reread r;
    if (!switch_reread(&r, stanza, CONTENT_SERVER, false)) {
        w->n.outward.dropped++;
        return;
    }
    char why[256];
    str_copy(why, sizeof why, text);
    log_bounce(w, "out", str_c(r.local.ascii), str_c(r.remote.ascii), condition, text);
    switch_answer_inside(w, &r.ev.stanza, condition, why);
    switch_reread_free(&r);
}

void switch_failed_inward(struct worker *w, struct span stanza, enum content_ns content,
                          const char *condition, struct str text)
{
    struct reread r;
    if (!switch_reread(&r, stanza, content, true)) {
        w->n.inward.dropped++;
        return;
    }
    char why[256];
    str_copy(why, sizeof why, text);
    /* What we have written ourselves for the inside, errors and replies, ends here. */
    if (gateway_config_domain(w->cfg, str_c(r.remote.ascii)) == NULL)
        switch_bounce_inward(w, &r.ev.stanza, str_c(r.local.ascii), str_c(r.remote.ascii),
                             error_type(condition), condition, why);
    else
        w->n.inward.dropped++;
    switch_reread_free(&r);
}

void switch_requeue(struct front *f, struct span stanza)
{
    bool inward = f->link != NULL;
    if (f->draining) {
        front_put_back(f, stanza, "remote-server-timeout", STR("the gateway is stopping"));
        return;
    }
    struct reread r;
    bool ok = switch_reread(&r, stanza, CONTENT_SERVER, inward);
    /* Seen from the stream: the name that it speaks for, and the one it talks to. */
    struct str us = inward ? str_c(r.remote.ascii) : str_c(r.local.ascii);
    struct str them = inward ? str_c(r.local.ascii) : str_c(r.remote.ascii);
    if (!ok || !peer_unsent(f, stanza.s, us, them))
        front_failed(f, stanza, "resource-constraint", STR("out of memory"));
    if (ok)
        switch_reread_free(&r);
}

struct span switch_translate(struct span stanza, enum content_ns from, enum content_ns to,
                             bool inward)
{
    struct reread r;
    struct span out = {NULL, STR_NONE};
    if (switch_reread(&r, stanza, from, inward)) {
        struct writer_target target = {.content = to};
        out = writer_restamp(&r.ev.stanza, &target);
        switch_reread_free(&r);
    }
    span_release(&stanza);
    return out;
}
