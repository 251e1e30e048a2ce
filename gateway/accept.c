/* Incoming streams: accepting within the limits, the session of each, verdicts, pausing. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "gateway/policy/policy.h"

enum { ANSWERS_HIGH = 64 * 1024, ANSWERS_LOW = 16 * 1024 };

/* ---- limits per source ----------------------------------------------------------------------- */

/* Who has one address of IPv6 has 2^64 of them. */
static struct ip network_of(const struct ip *ip)
{
    struct ip net = *ip;
    if (net.len == 16)
        memset(net.bytes + 8, 0, 8);
    return net;
}

static struct source *source_of(struct front *f, const struct ip *ip, bool create)
{
    struct source *s;
    const struct ip net = network_of(ip);
    HASH_FIND(hh, f->sources, &net, sizeof net, s);
    if (s != NULL || !create)
        return s;
    s = mem_zalloc(sizeof *s);
    if (s == NULL)
        return NULL;
    s->ip = net;
    HASH_ADD(hh, f->sources, ip, sizeof s->ip, s);
    if (s->hh.tbl == NULL) {
        mem_free(s);
        return NULL;
    }
    return s;
}

static void source_leaves(struct front *f, const struct ip *ip)
{
    struct source *s = source_of(f, ip, false);
    if (s == NULL || --s->connections > 0)
        return;
    HASH_DEL(f->sources, s);
    mem_free(s);
}

/* The share of one address. The inside is one address, and no stranger. */
static size_t share(const struct front *f)
{
    const struct gateway_config *c = f->w->cfg;
    return f->link != NULL ? c->limits.connections : c->limits.connections_per_source;
}

/* NULL: welcome (and counted). */
static const char *admit(struct front *f, const struct ip *ip)
{
    if (f->in_unproven.count + f->in_proven.count >= f->w->cfg->limits.connections)
        return "connections";
    struct source *s = source_of(f, ip, true);
    if (s == NULL)
        return "memory";
    if (s->connections >= share(f))
        return "connections_per_source";
    s->connections++;
    return NULL;
}

/* ---- the session ----------------------------------------------------------------------------- */

static void set_context(struct in_session *in)
{
    struct kv *kv = in->s.log.kv;
    size_t n = 3;
    kv[0] = KV_I("sid", in->sid);
    kv[1] = KV_C("dir", "in");
    kv[2] = KV_C("addr", in->addr);
    if (in->kit != NULL)
        kv[n++] = KV_C("link", in->kit->c->name);
    if (in->pair[0] != '\0') {
        kv[n++] = KV_C("pair", in->pair);
        kv[n] = KV_C("peer", strchr(in->pair, ':') + 1);
    }
}

/* Once the header has named the two domains every line of the stream says so. */
static void note_names(struct in_session *in)
{
    if (in->m.local != NULL && in->front->link == NULL) {
        const struct cfg_domain *d = gateway_config_domain(in->w->cfg, str_c(in->m.local));
        in->s.tls.domain = d ? d->name : NULL;
    } else {
        in->s.tls.domain = in->m.local; /* towards the inside we are the foreign domain itself */
    }
    if (in->pair[0] != '\0' || in->m.remote == NULL)
        return;
    snprintf(in->pair, sizeof in->pair, "%s:%s", in->m.local ? in->m.local : "", in->m.remote);
    set_context(in);
}

/* Whose authorities count is known once the peer has said who it is; and whether it keeps rules. */
static void judge(struct in_session *in, struct str from, struct str to)
{
    struct domain d, local;
    if (in->front->link != NULL || !conn_encrypted(in->s.conn) || from.p == NULL ||
        !domain_prepare(from, &d))
        return;
    conn_judge(in->s.conn, policy_ca_file(in->w->cfg, str_c(d.ascii)));
    if (to.p != NULL && domain_prepare(to, &local))
        in->m.no_bidi = in->m.no_bidi || !peer_bidi(in->front, str_c(d.ascii), str_c(local.ascii));
}

static void step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    struct s2s_in *m = machine;
    struct in_session *in = CONTAINER_OF(m, struct in_session, m);
    if (ev->kind == EV_STREAM_OPEN)
        judge(in, ev->u.header->from, ev->u.header->to);
    s2s_in_step(m, ev, out);
    if (ev->kind == EV_STREAM_OPEN)
        note_names(in);
    if (!in->full && carrier_answers(in) > ANSWERS_HIGH) { /* who does not read is not read from */
        in->full = true;
        conn_pause(in->s.conn);
    }
}

static void drained(struct session *s)
{
    struct in_session *in = (struct in_session *)s;
    if (in->full)
        conn_resume(in->s.conn);
    in->full = false;
    carrier_drained(in);
}

static void sent(struct session *s, size_t stanzas, size_t bytes)
{
    carrier_sent((struct in_session *)s, stanzas, bytes);
}

static void tell_verdict(struct in_session *in, uint32_t ticket, enum verdict v, struct str text)
{
    struct gw_event ev = {.kind = EV_VERDICT, .now_ms = loop_now(&in->w->loop)};
    ev.u.verdict.ticket = ticket;
    ev.u.verdict.verdict = v;
    ev.u.verdict.text = text;
    session_event(&in->s, &ev);
}

/* One address has no more questions open than it may have connections: names that never resolve
 * must not take the place of everybody else's. */
static void ask(struct in_session *in, const struct gw_action *act)
{
    const struct db_request *q = &act->u.ask.request;
    struct source *src = source_of(in->front, &in->from.ip, false);
    bool room = src != NULL && src->asking < share(in->front);
    struct peer *p = room ? peer_get(in->front, q->remote, q->local) : NULL;
    if (p != NULL && in->front->link != NULL) /* who asks is there; no back-off against ourselves */
        peer_retry(p);
    if (p == NULL) {
        tell_verdict(in, act->u.ask.ticket, VERDICT_BUSY, STR_NONE);
        return;
    }
    if (remote_ask(p->remote, q, in->sid, act->u.ask.ticket, act->u.ask.within_ms,
                   loop_now(&in->w->loop))) {
        in->asking++;
        src->asking++;
        in->w->n.dialback_asked++;
    } else {
        tell_verdict(in, act->u.ask.ticket, VERDICT_BUSY, STR_NONE);
    }
    peer_kick(p);
}

static void tell_proven(struct in_session *in, const struct gw_action *a)
{
    struct policy_decision d =
        side_pair(&in->front->side, a->u.pair.local, a->u.pair.remote, WAY_IN);
    const struct tls_peer *tls = conn_tls_peer(in->s.conn);
    char peer[DOMAIN_MAX + 1];
    str_copy(peer, sizeof peer, a->u.pair.remote);
    story_tell(&in->w->story, "stream.up", peer, "%s can write to %.*s (%s; %s%s%.*s)", peer,
               STR_ARG(a->u.pair.local), tls != NULL ? tls->protocol : "in clear", d.rule,
               d.pattern.n ? " " : "", STR_ARG(d.pattern));
}

static void pair_proven(struct in_session *in, const struct gw_action *a)
{
    if (in->node.in != &in->front->in_proven) {
        list_remove(&in->node);
        list_append(&in->front->in_proven, &in->node);
    }
    front_works(in->front);
    if (in->front->link != NULL)
        return;
    tell_proven(in, a);
    carrier_proven(in, a->u.pair.local, a->u.pair.remote);
    carry_pause_new(in->w, &in->s, &in->full_links, a->u.pair.local, a->u.pair.remote);
}

/* ---- what passes ----------------------------------------------------------------------------- */

static void deliver(struct in_session *in, const struct stanza *st)
{
    link_count(in->front->link, LINK_IN, st->kind, st->span.s.n);
    switch_outward(in->front->link, NULL, st);
}

/* The machine has looked at the addresses, and one is malformed. */
static void malformed(struct in_session *in, const struct stanza *st, const struct gw_action *a)
{
    struct worker *w = in->w;
    w->n.outward.received++;
    if (a->kind == ACT_BOUNCE)
        switch_answer_inside(w, st, a->u.bounce.condition, a->u.bounce.text);
    else
        w->n.outward.dropped++;
}

static void refused(const struct in_session *in, const struct gw_action *a)
{
    struct policy_decision d =
        side_pair(&in->front->side, a->u.pair.local, a->u.pair.remote, WAY_IN);
    if (in->front->link == NULL)
        rules_refused(in->w, &d, a->u.pair.local, a->u.pair.remote, WAY_IN);
}

static void act(struct session *s, const struct gw_event *ev, const struct gw_action *a)
{
    struct in_session *in = (struct in_session *)s;
    in->stanzas += a->kind == ACT_DELIVER;
    if (in->front->link == NULL && carry_inward(in->w, ev, a))
        return;
    switch (a->kind) {
    case ACT_DELIVER:
        deliver(in, ev->u.stanza);
        break;
    case ACT_BOUNCE:
    case ACT_DROP:
        malformed(in, ev->u.stanza, a);
        break;
    case ACT_ASK:
        ask(in, a);
        break;
    case ACT_PAIR:
        pair_proven(in, a);
        break;
    case ACT_REFUSED:
        refused(in, a);
        break;
    case ACT_VOUCHED:
        if (in->front->link == NULL)
            worker_vouched(in->w, &a->u.vouched.request, a->u.vouched.good);
        break;
    default:
        break; /* not of incoming streams */
    }
}

static void ended(struct session *s, enum end_reason reason, struct str text)
{
    struct in_session *in = (struct in_session *)s;
    const struct tls_peer *tls = conn_tls_peer(s->conn);
    if (reason == END_UNTRUSTED)
        front_alarm(in->front, link_alarm_of(in->m.verdict),
                    str_c(trust_reason_text(in->m.verdict)));
    /* One that only asked dialback questions has got its answers: that is no story. */
    if (in->front->link == NULL && in->m.remote != NULL && reason != END_DIALBACK_ONLY)
        story_tell(&in->w->story, in->node.in == &in->front->in_proven ? "stream.down" : "refused",
                   in->m.remote, "the stream from %s ended: %s%s%.*s", in->m.remote,
                   end_reason_name(reason), text.n ? ": " : "", STR_ARG(text));
    log_ev(&s->log, LOG_INFO, "s2s.closed", KV_C("reason", end_reason_name(reason)),
           KV_I("stanzas", in->stanzas), KV_I("bytes_in", conn_bytes_in(s->conn)),
           KV_I("bytes_out", conn_bytes_out(s->conn)),
           KV_SEC("age", loop_now(s->loop) - in->m.opened_ms),
           KV_S("tls", tls ? str_c(tls->protocol) : STR("none")), KV_I("back", in->back),
           KV_S("msg", text.n ? text : STR_NONE));
    carrier_ended(in);
}

static void free_session(struct in_session *in)
{
    tls_ctx_unref(in->s.tls.ctx);
    s2s_in_free(&in->m);
    link_kit_unref(in->kit);
    mem_free(in);
}

static void forget(struct in_session *in)
{
    struct source *src = source_of(in->front, &in->from.ip, false);
    if (src != NULL)
        src->asking -= in->asking;
    source_leaves(in->front, &in->from.ip);
    list_remove(&in->node);
    HASH_DEL(in->w->in_by_sid, in);
    free_session(in);
}

static void closed(struct session *s)
{
    struct in_session *in = (struct in_session *)s;
    struct worker *w = in->w;
    struct link *link = in->front->link;
    forget(in);
    if (link != NULL)
        link_free_if_gone(link);
    worker_check_drained(w);
}

static const struct session_ops in_ops = {
    .step = step, .act = act, .ended = ended, .drained = drained, .sent = sent, .closed = closed};

static bool is_trusted(const struct link_kit *kit, const struct ip *ip)
{
    for (size_t i = 0; kit != NULL && i < kit->c->ntrusted; i++)
        if (cidr_has(&kit->c->trusted[i], ip))
            return true;
    return false;
}

static void set_trust(struct in_session *in)
{
    if (in->front->link == NULL)
        return;
    in->kit = link_kit_ref(in->front->link->kit);
    in->m.trusted_address = is_trusted(in->kit, &in->from.ip);
    if (in->kit->trust.auth == LINK_AUTH_TLS)
        in->m.trust = &in->kit->trust;
}

static struct in_session *new_session(struct front *f, const struct endpoint *from)
{
    struct worker *w = f->w;
    struct in_session *in = mem_zalloc(sizeof *in);
    if (in == NULL)
        return NULL;
    in->w = w;
    in->front = f;
    in->sid = worker_sid(w);
    in->from = *from;
    endpoint_text(from, in->addr);
    s2s_in_init(&in->m, &f->side, &w->secrets, w->loop.env);
    set_trust(in);
    in->s.ops = &in_ops;
    in->s.machine = &in->m;
    in->s.log.sink = w->log;
    in->s.limits = f->link != NULL ? &w->limits_link : &w->limits_proven;
    in->s.linger_ms = LINGER_MS;
    in->s.tls.ctx = tls_ctx_ref(certs_tls(f->certs));
    in->s.tls.server = true;
    set_context(in);
    HASH_ADD(hh, w->in_by_sid, sid, sizeof in->sid, in);
    if (in->hh.tbl == NULL) {
        free_session(in);
        return NULL;
    }
    list_append(&f->in_unproven, &in->node);
    return in;
}

/* Too many strangers: the one who has been one for longest makes room. */
static void evict_oldest(struct front *f)
{
    while (f->in_unproven.count > f->w->cfg->limits.unauthenticated) {
        struct list_node *n = f->in_unproven.first;
        struct in_session *in = CONTAINER_OF(n, struct in_session, node);
        list_remove(n);
        list_append(&f->in_proven, n); /* leaving: not counted as a stranger any more */
        log_ev(&in->s.log, LOG_NOTICE, "s2s.evicted", KV_C("reason", "limits.unauthenticated"));
        session_abort(&in->s, "too many unauthenticated connections");
    }
}

static void take(struct front *f, uv_tcp_t *tcp, bool direct_tls)
{
    struct worker *w = f->w;
    const struct endpoint from = addr_of_peer(tcp);
    const char *refused = admit(f, &from.ip);
    struct in_session *in = refused ? NULL : new_session(f, &from);
    if (in == NULL) {
        if (refused == NULL)
            source_leaves(f, &from.ip);
        w->n.streams_refused++;
        char addr[ENDPOINT_TEXT];
        endpoint_text(&from, addr);
        log_ev(&w->ctx, LOG_NOTICE, "s2s.accept.refused", KV_C("addr", addr),
               KV_C("reason", refused ? refused : "memory"));
        session_discard(tcp);
        return;
    }
    struct conn_options opt = {.content = CONTENT_SERVER,
                               .limits = &w->limits_unproven,
                               .high_mark = ANSWERS_HIGH,
                               .low_mark = ANSWERS_LOW,
                               .detect_tls = direct_tls || f->link != NULL,
                               .tls_only = direct_tls,
                               .dead_ms = f->link != NULL ? w->cfg->timeouts.dead : 0,
                               .stall_ms = w->cfg->timeouts.queue};
    log_ev(&in->s.log, LOG_INFO, "s2s.accepted", KV_I("connections", HASH_COUNT(w->in_by_sid)));
    if (!session_start(&in->s, &w->loop, tcp, &opt)) {
        forget(in);
        return;
    }
    w->n.streams_in++;
    evict_oldest(f);
}

/* ---- listeners ------------------------------------------------------------------------------- */

static void on_accept(void *arg, uv_tcp_t *tcp)
{
    take(arg, tcp, false);
}

static void on_accept_direct(void *arg, uv_tcp_t *tcp)
{
    take(arg, tcp, true);
}

static bool open_at(struct front *f, const char *at, bool direct_tls, struct buf *why)
{
    struct worker *w = f->w;
    struct endpoint e;
    char text[LISTEN_WHY_MAX] = "not an address with a port";
    struct listener *l = NULL;
    if (endpoint_parse(str_c(at), &e))
        l = listen_new(&w->loop, &e, direct_tls ? on_accept_direct : on_accept, f, text);
    if (l == NULL) {
        buf_printf(why, "%s\n", text);
        return false;
    }
    f->listeners[f->nlisteners++] = l;
    log_ev(&w->ctx, LOG_NOTICE, "s2s.listen", KV_C("addr", at),
           KV_C("tls", direct_tls ? "direct" : NULL),
           KV_C("link", f->link ? f->link->kit->c->name : NULL));
    return true;
}

bool accept_open(struct front *f, const struct accept_doors *at, struct buf *why)
{
    if (f->listening)
        return true;
    f->listeners = mem_zalloc((at->n + at->ndirect + 1) * sizeof(struct listener *));
    if (f->listeners == NULL)
        return false;
    f->listening = true;
    bool ok = true;
    for (size_t i = 0; i < at->n; i++)
        ok = ok && open_at(f, at->v[i], false, why);
    for (size_t i = 0; i < at->ndirect; i++)
        ok = ok && open_at(f, at->direct[i], true, why);
    if (!ok)
        accept_close(f);
    return ok;
}

void accept_close(struct front *f)
{
    for (size_t i = 0; i < f->nlisteners; i++)
        listen_close(f->listeners[i]);
    mem_free(f->listeners);
    f->listeners = NULL;
    f->nlisteners = 0;
    f->listening = false;
}

/* ---- what others want of the streams --------------------------------------------------------- */

void accept_verdict(struct worker *w, uint32_t sid, uint32_t ticket, enum verdict v,
                    struct str text)
{
    struct in_session *in;
    HASH_FIND(hh, w->in_by_sid, &sid, sizeof sid, in);
    if (in == NULL)
        return; /* it is gone; sids are never used again */
    struct source *src = source_of(in->front, &in->from.ip, false);
    in->asking--;
    if (src != NULL)
        src->asking--;
    tell_verdict(in, ticket, v, text);
}

static void for_all(struct front *f, void (*each)(struct in_session *in, size_t arg), size_t arg)
{
    LIST_FOREACH (&f->in_unproven, n, next)
        each(CONTAINER_OF(n, struct in_session, node), arg);
    LIST_FOREACH (&f->in_proven, n2, next2)
        each(CONTAINER_OF(n2, struct in_session, node), arg);
}

/* Its link has a new kit, by which the certificate has to hold, too. */
static void renew_kit(struct in_session *in)
{
    struct link_kit *old = in->kit;
    if (in->front->link == NULL || old == in->front->link->kit)
        return;
    set_trust(in);
    set_context(in);
    link_kit_unref(old);
    if (in->m.judged)
        front_judge_anew(&in->s, in->kit);
}

static void policy_one(struct in_session *in, size_t arg)
{
    (void)arg;
    note_names(in); /* the domain's name lies in the snapshot */
    session_trust(&in->s, certs_tls(in->front->certs));
    judge(in, str_c(in->m.remote), str_c(in->m.local));
    renew_kit(in);
    struct gw_event ev = {.kind = EV_POLICY_CHANGED, .now_ms = loop_now(&in->w->loop)};
    session_event(&in->s, &ev);
}

void accept_policy_changed(struct front *f)
{
    for_all(f, policy_one, 0);
}

static void drain_one(struct in_session *in, size_t now)
{
    in->s.linger_ms = DRAIN_LINGER_MS;
    if (now)
        session_abort(&in->s, "the gateway stops now");
    else
        session_drain(&in->s, front_why_drained(in->front));
}

void accept_drain(struct front *f, bool now)
{
    for_all(f, drain_one, now);
}

static void pause_one(struct in_session *in, size_t link)
{
    if (!in->s.over && carry_feeds(in->w, &in->m.authz, link))
        carry_pause(&in->s, &in->full_links, link);
}

void accept_pause(struct front *f, size_t link)
{
    for_all(f, pause_one, link);
}

static void resume_one(struct in_session *in, size_t link)
{
    carry_resume(&in->s, &in->full_links, link);
}

void accept_resume(struct front *f, size_t link)
{
    for_all(f, resume_one, link);
}
