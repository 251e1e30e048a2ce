/* One remote domain at work: carries out what its `remote` decides. Resolving, dialling target
 * after target, the stream, handing stanzas to it and taking back what it did not send. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "gateway/policy/policy.h"

enum { PEERS_MAX = 10000, WITHOUT_EXTERNAL_MS = 10 * 60 * 1000 };

static void dial(struct peer *p, size_t target);

static void on_kick(struct loop_task *t);

static void on_timer(struct timer *t)
{
    struct peer *p = CONTAINER_OF(t, struct peer, timer);
    remote_tick(p->remote, loop_now(&p->w->loop));
    peer_kick(p);
}

static void name_peer(char key[PAIR_TEXT], bool pair, struct str remote, struct str local)
{
    if (!pair)
        snprintf(key, PAIR_TEXT, "%.*s", STR_ARG(remote));
    else
        snprintf(key, PAIR_TEXT, "%.*s:%.*s", STR_ARG(local), STR_ARG(remote));
}

static struct peer *new_peer(struct front *f, const char *key, struct str remote, struct str local)
{
    struct peer *p = HASH_COUNT(f->peers) < PEERS_MAX ? mem_zalloc(sizeof *p) : NULL;
    if (p == NULL)
        return NULL;
    p->w = f->w;
    p->front = f;
    p->remote = remote_new(remote, &f->remote_settings, &f->outq, f->w->loop.env);
    p->kick.run = on_kick;
    p->timer.fire = on_timer;
    str_copy(p->domain, sizeof p->domain, remote);
    str_copy(p->local, sizeof p->local, local);
    str_copy(p->key, sizeof p->key, str_c(key));
    if (p->remote != NULL)
        HASH_ADD_STR(f->peers, key, p);
    if (p->remote == NULL || p->hh.tbl == NULL) {
        remote_free(p->remote);
        mem_free(p);
        return NULL;
    }
    return p;
}

/* By the domain; by the pair towards the inside, and to a server that takes one of our domains on a
 * stream: what a pair has of its own it keeps, even when the domain's is gone. `key` is what it
 * has, or would have. */
static struct peer *find_peer(const struct front *f, struct str remote, struct str local,
                              char key[PAIR_TEXT])
{
    struct peer *p;
    name_peer(key, true, remote, local);
    HASH_FIND_STR(f->peers, key, p);
    if (p != NULL || f->link != NULL)
        return p;
    name_peer(key, false, remote, local);
    HASH_FIND_STR(f->peers, key, p);
    if (p == NULL || !p->alone || str_is(local, p->local) || remote_carrier(p->remote, local) != 0)
        return p;
    name_peer(key, true, remote, local);
    return NULL;
}

struct peer *peer_find(const struct front *f, struct str remote, struct str local)
{
    char key[PAIR_TEXT];
    return find_peer(f, remote, local, key);
}

struct peer *peer_get(struct front *f, struct str remote, struct str local)
{
    char key[PAIR_TEXT];
    struct peer *p = find_peer(f, remote, local, key);
    if (p == NULL)
        return new_peer(f, key, remote, local);
    if (remote_state_of(p->remote) == REMOTE_IDLE) /* it is this one that wakes it */
        str_copy(p->local, sizeof p->local, local);
    return p;
}

static void free_peer(struct peer *p)
{
    watch_peer_gone(p);
    HASH_DEL(p->front->peers, p);
    loop_unpost(&p->w->loop, &p->kick);
    loop_timer_clear(&p->w->loop, &p->timer);
    if (p->query != NULL)
        dns_query_cancel(p->query);
    if (p->dialling != NULL)
        connect_cancel(p->dialling);
    if (p->out != NULL)
        guest_leave(p);
    dane_target_free(p->dane);
    remote_free(p->remote);
    mem_free(p);
}

void peer_kick(struct peer *p)
{
    loop_post(&p->w->loop, &p->kick);
}

/* ---- the stream ------------------------------------------------------------------------------ */

static void set_context(struct out_session *o, struct str local, struct str remote)
{
    struct kv *kv = o->s.log.kv;
    size_t n = 3;
    snprintf(o->pair, sizeof o->pair, "%.*s:%.*s", STR_ARG(local), STR_ARG(remote));
    kv[0] = KV_I("sid", o->sid);
    kv[1] = KV_C("dir", "out");
    kv[2] = KV_C("addr", o->addr);
    if (o->kit != NULL)
        kv[n++] = KV_C("link", o->kit->c->name);
    kv[n++] = KV_C("pair", o->pair);
    kv[n] = KV_C("peer", strchr(o->pair, ':') + 1);
}

static void step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    struct s2s_out *m = machine;
    CONTAINER_OF(m, struct out_session, m)->last_state = m->state;
    s2s_out_step(m, ev, out);
}

/* The local domain gets a peer, and so a stream, of its own; what waits goes there in its order. */
static void move_out(struct peer *p, struct str local)
{
    struct span st;
    p->alone = true;
    struct peer *own = peer_get(p->front, str_c(p->domain), local);
    while (remote_take(p->remote, local, &st)) {
        struct remote_refusal r = {"resource-constraint", STR("too many remote domains")};
        if (own != NULL)
            r = remote_stanza(own->remote, local, st.s, loop_now(&p->w->loop));
        if (r.condition != NULL)
            front_failed(p->front, st, r.condition, r.text);
        span_release(&st);
    }
    if (own != NULL)
        peer_kick(own);
}

/* Whom it is about; NULL: nobody who is still here. */
static struct peer *concerned(const struct out_session *o, const struct gw_action *a)
{
    return a->kind == ACT_PAIR       ? guest_user(o, a->u.pair.remote)
           : a->kind == ACT_ANSWERED ? guest_user(o, a->u.answered.request.remote)
                                     : o->peer;
}

/* A guest that has left was answered `invalid`: this stream carries nothing new. */
static void end_if_invalid(struct out_session *o, const struct gw_action *a)
{
    static const char why[] = "the peer has refused a key of ours on this stream";
    if (a->kind != ACT_PAIR || a->u.pair.result != PAIR_INVALID || o->peer == NULL)
        return;
    guest_part(o, why, true);
    session_drain(&o->s, why);
}

static void act(struct session *s, const struct gw_event *ev, const struct gw_action *a)
{
    struct out_session *o = (struct out_session *)s;
    uint64_t now = loop_now(s->loop);
    if (carry_inward(o->w, ev, a))
        return;
    struct peer *p = concerned(o, a);
    if (p == NULL) {
        end_if_invalid(o, a);
        return;
    }
    switch (a->kind) {
    case ACT_READY:
        front_works(p->front);
        remote_stream_ready(p->remote);
        break;
    case ACT_PAIR:
        worker_key_answered(o, a);
        if (a->u.pair.result == PAIR_VALID && p->front->link == NULL)
            story_tell(&p->w->story, "stream.up", p->domain, "%.*s can write to %s (%s)",
                       STR_ARG(a->u.pair.local), p->domain,
                       conn_encrypted(s->conn) ? conn_tls_peer(s->conn)->protocol : "in clear");
        if (a->u.pair.result == PAIR_ERROR) /* dialback did not do either */
            p->without_external = 0;
        if (a->u.pair.result == PAIR_VALID && o->m.bidi)
            carry_pause_new(o->w, s, &o->full_links, a->u.pair.local, a->u.pair.remote);
        if (a->u.pair.result == PAIR_ALONE)
            move_out(p, a->u.pair.local);
        else if (!guest_turned_away(p, a))
            remote_pair_result(p->remote, a->u.pair.local, a->u.pair.result, a->u.pair.text, now);
        break;
    case ACT_ANSWERED:
        if (!guest_turned_away(p, a))
            remote_answered(p->remote, &a->u.answered.request, a->u.answered.verdict,
                            a->u.answered.text, now);
        break;
    default:
        return; /* not of outgoing streams */
    }
    peer_kick(p);
}

/* The sentence that a bounce will carry: which step failed, against whom. */
static void describe_end(const struct out_session *o, enum end_reason reason, struct str text,
                         char *out, size_t cap)
{
    snprintf(out, cap, "stream to %s (%s) ended in state %s: %s%s%.*s", o->m.remote, o->addr,
             s2s_out_state_name(o->last_state), end_reason_name(reason), text.n ? ": " : "",
             STR_ARG(text));
}

/* Of a stream to the inside; what fails here fails for every pair. */
static void raise_alarm(const struct out_session *o, enum end_reason reason, struct str text)
{
    if (reason == END_UNTRUSTED)
        front_alarm(o->front, link_alarm_of(o->m.verdict), str_c(trust_reason_text(o->m.verdict)));
    else if (reason == END_TLS_FAILED || reason == END_TLS_REFUSED || reason == END_TLS_UNWANTED ||
             reason == END_TLS_NOT_OFFERED)
        front_alarm(o->front, "link.tls", text.n ? text : str_c(end_reason_name(reason)));
}

/* The peer had refused EXTERNAL and would not go on: dialback may do on the next stream. */
static bool hung_up(const struct s2s_out *m, enum end_reason reason)
{
    return (reason == END_PEER_CLOSED || reason == END_LOST ||
            reason == END_STREAM_ERROR_RECEIVED) &&
           m->external_refused && m->can_dialback && authz_first(&m->authz, AUTHZ_VALID) == NULL;
}

static void ended(struct session *s, enum end_reason reason, struct str text)
{
    struct out_session *o = (struct out_session *)s;
    const struct tls_peer *tls = conn_tls_peer(s->conn);
    raise_alarm(o, reason, text);
    log_ev(&s->log, LOG_INFO, "s2s.closed", KV_C("reason", end_reason_name(reason)),
           KV_I("stanzas", o->stanzas), KV_I("bytes_in", conn_bytes_in(s->conn)),
           KV_I("bytes_out", conn_bytes_out(s->conn)),
           KV_S("tls", tls ? str_c(tls->protocol) : STR("none")),
           KV_S("msg", text.n ? text : STR_NONE));
    if (o->front->link == NULL && authz_count(&o->m.authz, AUTHZ_VALID) > 0)
        story_tell(&o->w->story, "stream.down", o->m.remote, "the stream to %s ended: %s%s%.*s",
                   o->m.remote, end_reason_name(reason), text.n ? ": " : "", STR_ARG(text));
    carry_take_back(o->front, s);
    bool without = peer_judge_bidi(o);
    if (o->peer == NULL)
        return;
    struct peer *p = o->peer;
    char why[360];
    describe_end(o, reason, text, why, sizeof why);
    bool hung = hung_up(&o->m, reason), again = o->m.reset || hung || without;
    if (hung && !o->m.reset)
        p->without_external = loop_now(s->loop) + WITHOUT_EXTERNAL_MS;
    if (reason == END_UNTRUSTED) /* it may come back with another certificate */
        conn_forget_session(s->conn);
    guest_part(o, why, again);
}

static void drained(struct session *s)
{
    guest_kick_all((struct out_session *)s);
}

static void sent(struct session *s, size_t stanzas, size_t bytes)
{
    (void)bytes;
    struct out_session *o = (struct out_session *)s;
    carry_sent(o->front, stanzas);
    guest_sent(o);
}

static void free_session(struct out_session *o)
{
    list_remove(&o->node);
    tls_ctx_unref(o->s.tls.ctx);
    s2s_out_free(&o->m);
    dane_target_free(o->dane);
    link_kit_unref(o->kit);
    mem_free(o);
}

static void closed(struct session *s)
{
    struct out_session *o = (struct out_session *)s;
    struct worker *w = o->w;
    struct link *link = o->front->link;
    free_session(o);
    if (link != NULL)
        link_free_if_gone(link);
    worker_check_drained(w);
}

static const struct session_ops out_ops = {
    .step = step, .act = act, .ended = ended, .drained = drained, .sent = sent, .closed = closed};

/* Whose certificate we show: the local domain's to the world; to the inside that of the foreign
 * domain for which we stand. The names live as long as the snapshot, or the machine. */
static const char *shown_domain(const struct out_session *o)
{
    const struct cfg_domain *d = gateway_config_domain(o->w->cfg, str_c(o->m.local));
    return o->front->link != NULL ? o->m.local : d != NULL ? d->name : NULL;
}

/* What TLS needs to know of the two sides beforehand. */
static void set_tls(struct out_session *o)
{
    o->s.tls.domain = shown_domain(o);
    o->s.tls.ca_file =
        o->front->link == NULL ? policy_ca_file(o->w->cfg, str_c(o->m.remote)) : NULL;
}

/* A certificate that we made ourselves proves nothing to anybody: it is not offered as a proof. */
static void set_identity(struct out_session *o, const struct peer *p)
{
    const struct cfg_domain *d = gateway_config_domain(o->w->cfg, str_c(o->m.local));
    o->m.has_certificate = d != NULL && (d->certificate != NULL || d->client_certificate != NULL);
    o->m.wants_external =
        remote_queued(p->remote) > 0 && p->without_external <= loop_now(&o->w->loop);
    o->m.wants_bidi = remote_queued(p->remote) > 0 && p->no_bidi <= loop_now(&o->w->loop);
    o->m.direct_tls = o->s.tls.direct = p->targets[p->target].direct_tls;
}

static void set_trust(struct out_session *o)
{
    if (o->front->link == NULL)
        return;
    o->kit = link_kit_ref(o->front->link->kit);
    if (o->kit->trust.auth == LINK_AUTH_TLS)
        o->m.trust = &o->kit->trust;
}

static struct out_session *new_session(struct peer *p, const struct endpoint *to)
{
    struct worker *w = p->w;
    struct out_session *o = mem_zalloc(sizeof *o);
    if (o == NULL)
        return NULL;
    o->w = w;
    o->front = p->front;
    o->peer = p;
    o->sid = worker_sid(w);
    o->opened_ms = loop_now(&w->loop);
    o->at = *to;
    endpoint_text(to, o->addr);
    if (!s2s_out_init(&o->m, &p->front->side, &w->secrets, str_c(p->local), str_c(p->domain))) {
        s2s_out_free(&o->m);
        mem_free(o);
        return NULL;
    }
    set_trust(o);
    o->m.target = o->dane = p->dane;
    p->dane = NULL;
    o->s.ops = &out_ops;
    o->s.machine = &o->m;
    o->s.log.sink = w->log;
    o->s.linger_ms = LINGER_MS;
    o->s.limits = p->front->link != NULL ? &w->limits_link : &w->limits_proven;
    o->s.tls.ctx = tls_ctx_ref(certs_tls(p->front->certs));
    set_tls(o);
    set_identity(o, p);
    o->s.tls.peer_name = o->m.remote;
    set_context(o, str_c(p->local), str_c(p->domain));
    list_append(&p->front->out, &o->node);
    return o;
}

/* Ends the stream without hearing from it again; who shares it needs another one. */
static void detach(struct peer *p, const char *why)
{
    struct out_session *o = p->out;
    if (o == NULL)
        return;
    guest_leave(p);
    guest_part(o, why, true);
    session_drain(&o->s, why);
}

/* ---- dialling -------------------------------------------------------------------------------- */

static void dial_failed(struct peer *p, const char *why, bool unresolved)
{
    log_ev(&p->w->ctx, LOG_NOTICE, "s2s.dial.failed", KV_C("peer", p->domain),
           KV_I("target", p->target), KV_C("msg", why));
    if (p->front->link == NULL)
        story_tell(&p->w->story, "peer.failed", p->domain, "%s", why);
    remote_dial_failed(p->remote, str_c(why), unresolved, loop_now(&p->w->loop));
    peer_kick(p);
}

static void on_connected(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct peer *p = arg;
    p->dialling = NULL;
    if (tcp == NULL) {
        front_unreached(p->front, why);
        dial_failed(p, why, false);
        return;
    }
    front_reached(p->front);
    struct out_session *o = new_session(p, to);
    struct conn_options opt = {.content = CONTENT_SERVER,
                               .limits = &p->w->limits_unproven,
                               .dead_ms = p->front->link ? p->w->cfg->timeouts.dead : 0,
                               .stall_ms = p->w->cfg->timeouts.queue};
    if (o == NULL) {
        session_discard(tcp);
        dial_failed(p, "out of memory", false);
        return;
    }
    opt.tlsa = o->dane != NULL ? o->dane->tlsa : NULL;
    p->out = o;
    remote_connected(p->remote);
    p->w->n.streams_out++;
    log_ev(&o->s.log, LOG_INFO, "s2s.connected", KV_C("tls", o->m.direct_tls ? "direct" : NULL),
           KV_SEC("after", loop_now(&p->w->loop) - p->started));
    if (!session_start(&o->s, &p->w->loop, tcp, &opt)) {
        p->out = NULL;
        free_session(o);
        remote_stream_ended(p->remote, STR("out of memory"), loop_now(&p->w->loop));
        peer_kick(p);
    }
}

static void connect_to(struct peer *p, const struct ip *ips, size_t n)
{
    struct worker *w = p->w;
    struct endpoint e[DNS_ADDRESSES_MAX];
    struct connect_options opt = {.targets = e,
                                  .ntargets = n,
                                  .deadline_ms = w->cfg->timeouts.connect,
                                  .refused = peer_refuses};
    const char *why;
    for (size_t i = 0; i < n; i++)
        e[i] = (struct endpoint){ips[i], p->targets[p->target].port};
    struct out_session *o = guest_host(p, e, n);
    if (o != NULL && !peer_refuses(p, &o->at, &why)) {
        guest_join(p, o);
        return;
    }
    for (size_t i = 0; p->front->link == NULL && i < w->cfg->outbound.nsource; i++) {
        struct ip ip;
        if (ip_parse(str_c(w->cfg->outbound.source[i]), &ip))
            *(ip.len == 4 ? &opt.source4 : &opt.source6) = ip;
    }
    p->dialling = connect_start(&w->loop, &opt, on_connected, p);
    if (p->dialling == NULL)
        dial_failed(p, "out of memory", false);
}

/* What DNSSEC knows of the target is known. */
static void on_dane(struct peer *p, const char *why)
{
    if (why != NULL)
        dial_failed(p, why, true);
    else
        connect_to(p, p->found.ip, p->found.n);
}

static void on_addresses(void *arg, const struct dns_addresses *a)
{
    struct peer *p = arg;
    p->query = NULL;
    p->found = *a;
    watch_dns(p->w, str_c(p->targets[p->target].host), a->status, a->text);
    if (a->status != DNS_OK || a->n == 0)
        dial_failed(p, a->text, true);
    else
        peer_dane(p, on_dane);
}

static void dial(struct peer *p, size_t target)
{
    struct ip ip;
    p->target = target;
    dane_target_free(p->dane);
    p->dane = NULL;
    const char *host = p->targets[target].host;
    p->literal = p->routed && ip_parse(str_c(host), &ip);
    if (p->literal) {
        connect_to(p, &ip, 1);
        return;
    }
    p->query = resolver_addresses(p->w->resolver, str_c(host), on_addresses, p);
    if (p->query == NULL)
        dial_failed(p, "too many DNS lookups under way", true);
}

/* ---- carrying out ---------------------------------------------------------------------------- */

static void want(struct peer *p, const struct remote_act *a)
{
    if (p->out == NULL)
        return;
    struct gw_event ev = {.now_ms = loop_now(&p->w->loop)};
    if (a->what == REMOTE_DO_WANT_PAIR) {
        ev.kind = EV_WANT_PAIR;
        ev.u.pair.local = a->local;
        ev.u.pair.remote = str_c(p->domain);
    } else {
        ev.kind = EV_WANT_VERIFY;
        ev.u.verify = a->request;
    }
    session_event(&p->out->s, &ev);
}

static void hand_over(struct peer *p, uint64_t carrier, struct span stanza)
{
    struct out_session *o = p->out;
    if (carrier != 0) {
        carrier_send(p, carrier, stanza);
        return;
    }
    if (!s2s_out_fits(&o->m, stanza.s.n)) {
        front_failed(o->front, stanza, "policy-violation",
                     STR("the peer's server takes no stanza of this size"));
        span_release(&stanza);
        return;
    }
    if (!carry_stanza(o->front, &o->s, stanza))
        return;
    o->stanzas++;
    o->sent_ms = loop_now(o->s.loop);
    s2s_out_touch(&o->m, o->sent_ms);
}

static bool writable(const struct peer *p)
{
    return p->out != NULL && !p->out->s.over && p->out->m.state == S2S_OUT_READY &&
           !conn_above_high(p->out->s.conn);
}

/* Past the queue. */
static bool send_now(struct peer *p, struct str local, struct span stanza)
{
    carrier_adopt(p, local);
    if (!remote_may_send(p->remote, local))
        return false;
    uint64_t carrier = remote_carrier(p->remote, local);
    if (carrier != 0 ? !carrier_takes(p, carrier, local)
                     : !writable(p) || !s2s_out_valid(&p->out->m, local, str_c(p->domain)))
        return false;
    hand_over(p, carrier, stanza);
    return true;
}

struct remote_refusal peer_deliver(struct front *f, struct span stanza, struct str local,
                                   struct str remote)
{
    struct peer *p = peer_get(f, remote, local);
    if (p == NULL) {
        span_release(&stanza);
        return (struct remote_refusal){"resource-constraint", STR("too many remote domains")};
    }
    if (send_now(p, local, stanza))
        return (struct remote_refusal){NULL, STR_NONE};
    if (f->draining) { /* nobody would empty the queue any more */
        span_release(&stanza);
        peer_kick(p);
        return (struct remote_refusal){"remote-server-timeout", STR("the gateway is stopping")};
    }
    struct remote_refusal r = remote_stanza(p->remote, local, stanza.s, loop_now(&f->w->loop));
    span_release(&stanza);
    peer_kick(p);
    return r;
}

bool peer_unsent(struct front *f, struct str stanza, struct str local, struct str remote)
{
    struct peer *p = peer_get(f, remote, local);
    if (p == NULL || !remote_unsent(p->remote, local, stanza, loop_now(&f->w->loop)))
        return false;
    peer_kick(p);
    return true;
}

static void stop_attempt(struct peer *p)
{
    if (p->query != NULL)
        dns_query_cancel(p->query);
    if (p->dialling != NULL)
        connect_cancel(p->dialling);
    p->query = NULL;
    p->dialling = NULL;
    detach(p, "this stream is not needed any more");
}

static void carry_out(struct peer *p, struct remote_act *a)
{
    struct worker *w = p->w;
    switch (a->what) {
    case REMOTE_DO_RESOLVE:
        peer_resolve(p);
        break;
    case REMOTE_DO_DIAL:
        dial(p, a->target);
        break;
    case REMOTE_DO_WANT_PAIR:
    case REMOTE_DO_WANT_VERIFY:
        want(p, a);
        break;
    case REMOTE_DO_SEND:
        hand_over(p, a->carrier, a->stanza);
        break;
    case REMOTE_DO_BOUNCE:
        front_put_back(p->front, a->stanza, a->condition, a->text);
        span_release(&a->stanza);
        break;
    case REMOTE_DO_VERDICT:
        accept_verdict(w, (uint32_t)a->origin, a->ticket, a->verdict, a->text);
        break;
    case REMOTE_DO_CLOSE:
        stop_attempt(p);
        break;
    }
}

/* What it has to remember of the peer beyond its stanzas and questions. */
static uint64_t kept_until(const struct peer *p)
{
    uint64_t until = p->settled > p->no_bidi ? p->settled : p->no_bidi;
    return until > p->own_until ? until : p->own_until;
}

static void arm(struct peer *p)
{
    uint64_t due = UINT64_MAX, now = loop_now(&p->w->loop), kept = kept_until(p);
    remote_due(p->remote, &due);
    if (kept > now && kept < due)
        due = kept;
    if (due != UINT64_MAX)
        loop_timer_set(&p->w->loop, &p->timer, due > now ? due - now : 1);
    else
        loop_timer_clear(&p->w->loop, &p->timer);
}

/* Our closing tag is out: whatever comes now belongs on another stream, without waiting for the
 * peer's closing tag. */
static void leave_closing(struct peer *p)
{
    struct out_session *o = p->out;
    if (o == NULL || o->m.state != S2S_OUT_CLOSING || p->front->draining)
        return;
    guest_part(o, "the stream was closed for want of use", false);
}

static void on_kick(struct loop_task *t)
{
    struct peer *p = CONTAINER_OF(t, struct peer, kick);
    struct remote_act a;
    struct remote_room room = {.carrier = carrier_takes, .arg = p};
    uint64_t now = loop_now(&p->w->loop);
    leave_closing(p);
    while (room.stream = writable(p), remote_next(p->remote, now, &room, &a))
        carry_out(p, &a);
    watch_peer(p);
    watch_queues(p->w);
    if (p->out == NULL && kept_until(p) <= now && remote_disposable(p->remote, now))
        free_peer(p);
    else
        arm(p);
}

/* ---- the worker's wishes --------------------------------------------------------------------- */

static bool may(const struct peer *p, struct str local, enum policy_way way)
{
    return side_pair(&p->front->side, local, str_c(p->domain), way).verdict == POLICY_ALLOW;
}

static bool may_not_write(void *arg, struct str local)
{
    const struct peer *p = arg;
    return !side_serves(&p->front->side, local) || !may(p, local, WAY_OUT);
}

/* In whose name the next stream is opened: of one that still may, if there is any. */
static void speak_for(void *arg, const struct remote_pair_status *pair)
{
    struct peer *p = arg;
    if (!may(p, str_c(p->local), WAY_EITHER) && pair->queued > 0)
        str_copy(p->local, sizeof p->local, str_c(pair->local));
}

static void policy_queued(struct peer *p)
{
    static const char why[] = "the policy for this domain has changed";
    struct side *side = &p->front->side;
    uint64_t now = loop_now(&p->w->loop);
    bool off = side->link == NULL && !side->cfg->federation;
    remote_fail_local(p->remote, may_not_write, p, off ? "policy-violation" : "not-allowed",
                      STR(why));
    remote_pairs(p->remote, speak_for, p);
    if (!side_admits(side, str_c(p->domain)) || !may(p, str_c(p->local), WAY_EITHER))
        remote_fail_all(p->remote, off ? "policy-violation" : "not-allowed", STR(why), now);
    peer_kick(p);
}

/* Its link has a new kit, by which the certificate has to hold, too. */
static void renew_kit(struct out_session *o)
{
    struct link_kit *old = o->kit;
    if (o->front->link == NULL || old == o->front->link->kit)
        return;
    set_trust(o);
    set_context(o, str_c(o->m.local), str_c(o->m.remote));
    link_kit_unref(old);
    if (o->m.judged)
        front_judge_anew(&o->s, o->kit);
}

void peer_policy_changed(struct front *f)
{
    struct peer *p, *next;
    LIST_FOREACH (&f->out, n, following) {
        struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        set_tls(o);
        session_trust(&o->s, certs_tls(f->certs));
        conn_judge(o->s.conn, o->s.tls.ca_file);
        renew_kit(o);
        struct gw_event ev = {.kind = EV_POLICY_CHANGED, .now_ms = loop_now(&f->w->loop)};
        session_event(&o->s, &ev);
    }
    HASH_ITER(hh, f->peers, p, next)
    policy_queued(p);
}

void peer_forget_lookups(struct front *f)
{
    struct peer *p, *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        if (p->query == NULL)
            continue;
        dns_query_cancel(p->query);
        p->query = NULL;
        remote_again(p->remote); /* by the new resolver, when the kick comes */
        peer_kick(p);
    }
}

void peer_retry(struct peer *p)
{
    remote_retry(p->remote, loop_now(&p->w->loop));
    peer_kick(p);
}

void peer_retry_all(struct front *f)
{
    struct peer *p, *next;
    HASH_ITER(hh, f->peers, p, next)
    peer_retry(p);
}

void peer_settle(struct front *f)
{
    struct peer *p, *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        loop_unpost(&f->w->loop, &p->kick);
        on_kick(&p->kick);
    }
}

void peer_drain(struct front *f, bool now)
{
    struct peer *p, *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        remote_fail_all(p->remote, "remote-server-timeout", STR("the gateway is stopping"),
                        loop_now(&f->w->loop));
        peer_kick(p);
    }
    LIST_FOREACH (&f->out, n, following) {
        struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        o->s.linger_ms = DRAIN_LINGER_MS;
        if (now)
            session_abort(&o->s, "the gateway stops now");
        else
            session_drain(&o->s, front_why_drained(f));
    }
}

void peer_free_all(struct front *f)
{
    struct peer *p, *next;
    HASH_ITER(hh, f->peers, p, next)
    free_peer(p);
}
