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

static struct source *source_of(struct worker *w, const struct ip *ip, bool create)
{
    struct source *s;
    const struct ip net = network_of(ip);
    HASH_FIND(hh, w->sources, &net, sizeof net, s);
    if (s != NULL || !create)
        return s;
    s = mem_zalloc(sizeof *s);
    if (s == NULL)
        return NULL;
    s->ip = net;
    HASH_ADD(hh, w->sources, ip, sizeof s->ip, s);
    if (s->hh.tbl == NULL) {
        mem_free(s);
        return NULL;
    }
    return s;
}

static void source_leaves(struct worker *w, const struct ip *ip)
{
    struct source *s = source_of(w, ip, false);
    if (s == NULL || --s->connections > 0)
        return;
    HASH_DEL(w->sources, s);
    mem_free(s);
}

/* NULL: welcome (and counted). */
static const char *admit(struct worker *w, const struct ip *ip)
{
    const struct gateway_config *c = w->cfg;
    if (w->in_unproven.count + w->in_proven.count >= c->limits.connections)
        return "connections";
    struct source *s = source_of(w, ip, true);
    if (s == NULL)
        return "memory";
    if (s->connections >= c->limits.connections_per_source)
        return "connections_per_source";
    s->connections++;
    return NULL;
}

/* ---- the session ----------------------------------------------------------------------------- */

static void set_context(struct in_session *in)
{
    struct kv *kv = in->s.log.kv;
    kv[0] = KV_I("sid", in->sid);
    kv[1] = KV_C("dir", "in");
    kv[2] = KV_C("addr", in->addr);
    if (in->pair[0] != '\0') {
        kv[3] = KV_C("pair", in->pair);
        kv[4] = KV_C("peer", strchr(in->pair, ':') + 1);
    }
}

/* Once the header has named the two domains every line of the stream says so. */
static void note_names(struct in_session *in)
{
    if (in->m.local != NULL) {
        const struct cfg_domain *d = gateway_config_domain(in->w->cfg, str_c(in->m.local));
        in->s.tls.domain = d ? d->name : NULL;
    }
    if (in->pair[0] != '\0' || in->m.remote == NULL)
        return;
    snprintf(in->pair, sizeof in->pair, "%s:%s", in->m.local ? in->m.local : "", in->m.remote);
    set_context(in);
}

static void step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    struct s2s_in *m = machine;
    struct in_session *in = CONTAINER_OF(m, struct in_session, m);
    s2s_in_step(m, ev, out);
    if (ev->kind == EV_STREAM_OPEN)
        note_names(in);
    if (!in->full && conn_above_high(in->s.conn)) { /* who does not read is not read from */
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
    struct source *src = source_of(in->w, &in->from.ip, false);
    bool room = src != NULL && src->asking < in->w->cfg->limits.connections_per_source;
    struct peer *p = room ? peer_get(in->w, q->remote, q->local) : NULL;
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

static void pair_proven(struct in_session *in)
{
    if (in->node.in == &in->w->in_proven)
        return;
    list_remove(&in->node);
    list_append(&in->w->in_proven, &in->node);
    if (in->w->in_paused && !in->paused) {
        in->paused = true;
        conn_pause(in->s.conn);
    }
}

static void act(struct session *s, const struct gw_event *ev, const struct gw_action *a)
{
    struct in_session *in = (struct in_session *)s;
    struct worker *w = in->w;
    switch (a->kind) {
    case ACT_DELIVER:
        in->stanzas++;
        switch_inward(w, ev->u.stanza, a->u.pair.local, a->u.pair.remote);
        break;
    case ACT_BOUNCE: {
        struct domain local, remote;
        struct jid j;
        if (jid_prepare(ev->u.stanza->to, &j, &local) == JID_BAD_DOMAIN ||
            jid_prepare(ev->u.stanza->from, &j, &remote) == JID_BAD_DOMAIN)
            break; /* the machine has looked */
        w->n.inward.received++;
        switch_bounce_inward(w, ev->u.stanza, str_c(local.ascii), str_c(remote.ascii),
                             a->u.bounce.type, a->u.bounce.condition, a->u.bounce.text);
        break;
    }
    case ACT_DROP:
        w->n.inward.received++;
        w->n.inward.dropped++;
        break;
    case ACT_ASK:
        ask(in, a);
        break;
    case ACT_PAIR:
        pair_proven(in);
        break;
    default:
        break; /* not of incoming streams */
    }
}

static void ended(struct session *s, enum end_reason reason, struct str text)
{
    struct in_session *in = (struct in_session *)s;
    const struct tls_peer *tls = conn_tls_peer(s->conn);
    log_ev(&s->log, LOG_INFO, "s2s.closed", KV_C("reason", end_reason_name(reason)),
           KV_I("stanzas", in->stanzas), KV_I("bytes_in", conn_bytes_in(s->conn)),
           KV_I("bytes_out", conn_bytes_out(s->conn)),
           KV_SEC("age", loop_now(s->loop) - in->m.opened_ms),
           KV_S("tls", tls ? str_c(tls->protocol) : STR("none")),
           KV_S("msg", text.n ? text : STR_NONE));
}

static void forget(struct in_session *in)
{
    struct source *src = source_of(in->w, &in->from.ip, false);
    if (src != NULL)
        src->asking -= in->asking;
    source_leaves(in->w, &in->from.ip);
    list_remove(&in->node);
    HASH_DEL(in->w->in_by_sid, in);
    tls_ctx_unref(in->s.tls.ctx);
    s2s_in_free(&in->m);
    mem_free(in);
}

static void closed(struct session *s)
{
    struct in_session *in = (struct in_session *)s;
    struct worker *w = in->w;
    forget(in);
    worker_check_drained(w);
}

static const struct session_ops in_ops = {
    .step = step, .act = act, .ended = ended, .drained = drained, .closed = closed};

static struct in_session *new_session(struct worker *w, const struct endpoint *from)
{
    struct in_session *in = mem_zalloc(sizeof *in);
    if (in == NULL)
        return NULL;
    in->w = w;
    in->sid = worker_sid(w);
    in->from = *from;
    endpoint_text(from, in->addr);
    s2s_in_init(&in->m, w->cfg, &w->secrets, w->loop.env);
    in->s.ops = &in_ops;
    in->s.machine = &in->m;
    in->s.log.sink = w->log;
    in->s.limits = &w->limits_proven;
    in->s.linger_ms = LINGER_MS;
    in->s.tls.ctx = tls_ctx_ref(w->tls);
    in->s.tls.server = true;
    set_context(in);
    HASH_ADD(hh, w->in_by_sid, sid, sizeof in->sid, in);
    if (in->hh.tbl == NULL) {
        tls_ctx_unref(in->s.tls.ctx);
        mem_free(in);
        return NULL;
    }
    list_append(&w->in_unproven, &in->node);
    return in;
}

/* Too many strangers: the one who has been one for longest makes room. */
static void evict_oldest(struct worker *w)
{
    while (w->in_unproven.count > w->cfg->limits.unauthenticated) {
        struct list_node *n = w->in_unproven.first;
        struct in_session *in = CONTAINER_OF(n, struct in_session, node);
        list_remove(n);
        list_append(&w->in_proven, n); /* leaving: not counted as a stranger any more */
        log_ev(&in->s.log, LOG_NOTICE, "s2s.evicted", KV_C("reason", "limits.unauthenticated"));
        session_abort(&in->s, "too many unauthenticated connections");
    }
}

static struct endpoint peer_of(uv_tcp_t *tcp)
{
    struct sockaddr_storage sa;
    struct endpoint e = {0};
    int len = sizeof sa;
    if (uv_tcp_getpeername(tcp, (struct sockaddr *)&sa, &len) == 0)
        addr_to_endpoint((struct sockaddr *)&sa, &e);
    return e;
}

static void on_accept(void *arg, uv_tcp_t *tcp)
{
    struct worker *w = arg;
    const struct endpoint from = peer_of(tcp);
    const char *refused = admit(w, &from.ip);
    struct in_session *in = refused ? NULL : new_session(w, &from);
    if (in == NULL) {
        if (refused == NULL)
            source_leaves(w, &from.ip);
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
                               .stall_ms = w->cfg->timeouts.queue};
    log_ev(&in->s.log, LOG_INFO, "s2s.accepted", KV_I("connections", HASH_COUNT(w->in_by_sid)));
    if (!session_start(&in->s, &w->loop, tcp, &opt)) {
        forget(in);
        return;
    }
    w->n.streams_in++;
    evict_oldest(w);
}

/* ---- listeners ------------------------------------------------------------------------------- */

bool accept_open(struct worker *w, const struct gateway_config *cfg, struct buf *why)
{
    size_t n = cfg->listen.ns2s;
    if (w->listening || !cfg->federation)
        return true;
    w->listeners = mem_zalloc((n ? n : 1) * sizeof(struct listener *));
    if (w->listeners == NULL)
        return false;
    w->listening = true;
    for (size_t i = 0; i < n; i++) {
        struct endpoint e;
        char text[LISTEN_WHY_MAX] = "not an address with a port";
        struct listener *l = NULL;
        if (endpoint_parse(str_c(cfg->listen.s2s[i]), &e))
            l = listen_new(&w->loop, &e, on_accept, w, text);
        if (l == NULL) {
            buf_printf(why, "%s\n", text);
            accept_close(w);
            return false;
        }
        w->listeners[w->nlisteners++] = l;
        log_ev(&w->ctx, LOG_NOTICE, "s2s.listen", KV_C("addr", cfg->listen.s2s[i]));
    }
    return true;
}

void accept_close(struct worker *w)
{
    for (size_t i = 0; i < w->nlisteners; i++)
        listen_close(w->listeners[i]);
    mem_free(w->listeners);
    w->listeners = NULL;
    w->nlisteners = 0;
    w->listening = false;
}

/* ---- what others want of the streams --------------------------------------------------------- */

void accept_verdict(struct worker *w, uint32_t sid, uint32_t ticket, enum verdict v,
                    struct str text)
{
    struct in_session *in;
    HASH_FIND(hh, w->in_by_sid, &sid, sizeof sid, in);
    if (in == NULL)
        return; /* it is gone; sids are never used again */
    struct source *src = source_of(w, &in->from.ip, false);
    in->asking--;
    if (src != NULL)
        src->asking--;
    tell_verdict(in, ticket, v, text);
}

static void for_all(struct worker *w, void (*f)(struct in_session *in, void *arg), void *arg)
{
    LIST_FOREACH (&w->in_unproven, n, next)
        f(CONTAINER_OF(n, struct in_session, node), arg);
    LIST_FOREACH (&w->in_proven, n2, next2)
        f(CONTAINER_OF(n2, struct in_session, node), arg);
}

static void policy_one(struct in_session *in, void *arg)
{
    struct worker *w = arg;
    s2s_in_set_config(&in->m, w->cfg);
    note_names(in); /* the domain's name lies in the snapshot */
    struct gw_event ev = {.kind = EV_POLICY_CHANGED, .now_ms = loop_now(&w->loop)};
    session_event(&in->s, &ev);
}

void accept_policy_changed(struct worker *w)
{
    for_all(w, policy_one, w);
}

static void drain_one(struct in_session *in, void *arg)
{
    in->s.linger_ms = DRAIN_LINGER_MS;
    if (arg == NULL)
        session_drain(&in->s, "the gateway is stopping");
    else
        session_abort(&in->s, "the gateway stops now");
}

void accept_drain(struct worker *w, bool now)
{
    for_all(w, drain_one, now ? w : NULL);
}

static void pause_one(struct in_session *in, void *arg)
{
    (void)arg;
    if (in->paused || in->node.in != &in->w->in_proven || in->s.over)
        return;
    in->paused = true;
    conn_pause(in->s.conn);
}

void accept_pause(struct worker *w)
{
    if (w->in_paused)
        return;
    w->in_paused = true;
    for_all(w, pause_one, NULL);
}

static void resume_one(struct in_session *in, void *arg)
{
    (void)arg;
    if (!in->paused)
        return;
    in->paused = false;
    if (!in->s.over)
        conn_resume(in->s.conn);
}

void accept_resume(struct worker *w)
{
    w->in_paused = false;
    for_all(w, resume_one, NULL);
}
