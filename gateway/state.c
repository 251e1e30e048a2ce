/* What there is, as rows of fields: the same for the log (SIGUSR2) and for the control socket. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "gateway/policy/policy.h"

static void put(const struct kv_sink *to, const char *event, const struct kv *kv, size_t n)
{
    to->put(to->arg, event, kv, n);
}

#define PUT(to, event, ...)                                                                        \
    do {                                                                                           \
        const struct kv kv_[] = {__VA_ARGS__};                                                     \
        put((to), (event), kv_, sizeof kv_ / sizeof kv_[0]);                                       \
    } while (0)

static uint64_t ago(const struct worker *w, uint64_t ms)
{
    uint64_t now = loop_now(&w->loop);
    return now > ms ? now - ms : 0;
}

/* ---- books ----------------------------------------------------------------------------------- */

static void put_books(const struct kv_sink *to, const char *dir, struct books b)
{
    bool ok =
        b.received + b.authored == b.delivered + b.bounced + b.dropped + b.waiting + b.writing;
    PUT(to, "state.stanzas", KV_C("dir", dir), KV_I("received", b.received),
        KV_I("authored", b.authored), KV_I("delivered", b.delivered), KV_I("bounced", b.bounced),
        KV_I("dropped", b.dropped), KV_I("waiting", b.waiting), KV_I("writing", b.writing),
        KV_C("balance", ok ? "ok" : "WRONG"));
}

void state_books(struct worker *w, const struct kv_sink *to)
{
    w->n.outward.waiting = w->world.outq.count;
    w->n.inward.waiting = w->hold.items.count + link_queued(w);
    put_books(to, "in", w->n.inward);
    put_books(to, "out", w->n.outward);
}

void state_counters(struct worker *w, const struct kv_sink *to)
{
    const struct kv kv[] = {
#define X(name, help) KV_I(#name, w->n.name),
        COUNTERS(X)
#undef X
    };
    put(to, "state.counters", kv, sizeof kv / sizeof kv[0]);
}

void state_totals(struct worker *w, const struct kv_sink *to)
{
    const struct front *f = &w->world;
    PUT(to, "state.streams", KV_I("in_unproven", f->in_unproven.count),
        KV_I("in_proven", f->in_proven.count), KV_I("out", f->out.count),
        KV_I("peers", HASH_COUNT(f->peers)), KV_I("log_lines_dropped", log_lines_dropped(w->log)));
}

/* ---- links ----------------------------------------------------------------------------------- */

static void put_traffic(const struct link *k, enum link_direction d, const struct kv_sink *to)
{
    static const char *const directions[] = {"in", "out"};
    static const char *const kinds[] = {"message", "presence", "iq"};
    for (size_t i = 0; i < 3; i++) {
        const struct link_traffic *t = &k->traffic[d][i];
        if (t->count > 0)
            PUT(to, "state.link.traffic", KV_C("link", k->kit->c->name), KV_C("dir", directions[d]),
                KV_C("kind", kinds[i]), KV_I("count", t->count), KV_I("bytes", t->bytes),
                KV_SEC("idle", ago(k->w, t->last_ms)));
    }
}

static void put_probe(const struct line *l, const char *kind, const struct link_probe *p,
                      const struct kv_sink *to)
{
    const struct worker *w = l->link->w;
    PUT(to, "state.link.probes", KV_C("link", l->label), KV_C("kind", kind), KV_I("sent", p->sent),
        KV_I("answered", p->answered), KV_SEC("last_sent", p->sent ? ago(w, p->last_sent_ms) : 0),
        KV_SEC("last_answer", p->answered ? ago(w, p->last_answer_ms) : 0));
}

static void put_probes(const struct line *l, const struct link_session *ls,
                       const struct kv_sink *to)
{
    const struct link_client *m = &ls->m.client;
    const bool jabberd2 = ls->kit->c->protocol == PROTOCOL_JABBERD2;
    const struct link_probes *p = jabberd2 ? &ls->m.jabberd2.probes : &m->probes;
    put_probe(l, "ping", &p->ping, to);
    put_probe(l, "space", &p->space, to);
    if (jabberd2)
        return;
    put_probe(l, "time", &p->time, to);
    if (m->skew_known)
        PUT(to, "state.link.clock", KV_C("link", l->label), KV_I("skew_ms", m->skew_ms));
}

/* Who gets what the router of jabberd2 has for the world. */
static void put_seat(const struct line *l, const struct jabberd2 *m, const struct kv_sink *to)
{
    PUT(to, "state.link.router", KV_C("link", l->label),
        KV_C("seat", m->active ? "active" : "standby"), KV_I("domains", m->nnames));
}

static const char *protocol_name(const struct cfg_link *c)
{
    static const char *const names[] = {"component", "s2s", "jabberd2"};
    return names[c->protocol];
}

static const char *tls_of(const struct session *s)
{
    const struct tls_peer *tls = s->conn != NULL ? conn_tls_peer(s->conn) : NULL;
    return tls != NULL ? tls->protocol : "none";
}

static void put_line(const struct line *l, const struct kv_sink *to)
{
    const struct link_session *ls = l->session;
    const struct cfg_link *c = l->link->kit->c;
    PUT(to, "state.link", KV_C("link", l->label), KV_C("state", l->up ? "up" : "down"),
        KV_SEC("since", ago(l->link->w, l->since)), KV_I("sid", ls ? ls->sid : 0),
        KV_I("queued", ls && ls->s.conn ? conn_queued(ls->s.conn) : 0),
        KV_C("protocol", protocol_name(c)),
        KV_C("transport", c->transport == LINK_DIAL ? "dial" : "accept"),
        KV_C("addr", ls ? ls->addr : c->address), KV_C("tls", ls ? tls_of(&ls->s) : NULL),
        KV_I("priority", c->priority));
    if (ls == NULL)
        return;
    put_probes(l, ls, to);
    if (ls->kit->c->protocol == PROTOCOL_JABBERD2)
        put_seat(l, &ls->m.jabberd2, to);
}

static void put_front(const struct link *k, const struct kv_sink *to)
{
    const struct front *f = k->front;
    PUT(to, "state.link", KV_C("link", k->kit->c->name), KV_C("state", f->down ? "down" : "up"),
        KV_SEC("since", ago(k->w, f->since)), KV_I("in_unproven", f->in_unproven.count),
        KV_I("in_proven", f->in_proven.count), KV_I("out", f->out.count),
        KV_I("pairs", HASH_COUNT(f->peers)), KV_I("queued", f->outq.count), KV_C("protocol", "s2s"),
        KV_C("addr", k->kit->c->address), KV_I("priority", k->kit->c->priority));
}

void state_links(struct worker *w, const struct kv_sink *to)
{
    for (size_t i = 0; i < w->nlinks; i++) {
        const struct link *k = w->links[i];
        for (size_t j = 0; j < k->nlines; j++)
            put_line(&k->lines[j], to);
        if (k->front != NULL)
            put_front(k, to);
        put_traffic(k, LINK_IN, to);
        put_traffic(k, LINK_OUT, to);
    }
}

/* ---- streams --------------------------------------------------------------------------------- */

/* What the peer's certificate is worth, in a word. */
static const char *certificate_state(const struct tls_peer *t, const char *peer)
{
    if (t == NULL || !t->has_certificate)
        return "none";
    if (t->chain_ok)
        return peer != NULL && tls_peer_covers(t, str_c(peer)) ? "valid" : "other-name";
    if (!t->in_time)
        return "expired";
    return t->self_signed ? "self-signed" : "untrusted";
}

/* EXTERNAL proves one pair of a stream at most; it is what the stream stands on. */
static const char *proven_by(const struct authz *a)
{
    const char *mech = "none";
    for (size_t i = 0; i < a->n; i++) {
        if (a->v[i].state == AUTHZ_VALID && a->v[i].external)
            return "external";
        if (a->v[i].state == AUTHZ_VALID)
            mech = "dialback";
    }
    return mech;
}

static const char *mechanism_in(const struct s2s_in *m)
{
    if (m->trusted_address)
        return "address";
    if (m->judged && trust_ok(m->verdict))
        return "certificate";
    return proven_by(&m->authz);
}

/* What every stream has, in or out. */
struct stream {
    const struct session *s;
    const char *dir, *local, *peer, *state, *addr, *mech, *link;
    const struct authz *pairs;
    uint32_t sid;
    uint64_t opened_ms, active_ms, stanzas;
};

static struct stream stream_in(const struct in_session *in)
{
    return (struct stream){.s = &in->s,
                           .dir = "in",
                           .local = in->m.local,
                           .peer = in->m.remote,
                           .state = s2s_in_state_name(in->m.state),
                           .addr = in->addr,
                           .mech = mechanism_in(&in->m),
                           .link = in->kit != NULL ? in->kit->c->name : NULL,
                           .pairs = &in->m.authz,
                           .sid = in->sid,
                           .opened_ms = in->m.opened_ms,
                           .active_ms = in->m.active_ms,
                           .stanzas = in->stanzas};
}

static struct stream stream_out(const struct out_session *o)
{
    return (struct stream){.s = &o->s,
                           .dir = "out",
                           .local = o->m.local,
                           .peer = o->m.remote,
                           .state = s2s_out_state_name(o->m.state),
                           .addr = o->addr,
                           .mech = proven_by(&o->m.authz),
                           .link = o->kit != NULL ? o->kit->c->name : NULL,
                           .pairs = &o->m.authz,
                           .sid = o->sid,
                           .opened_ms = o->opened_ms,
                           .active_ms = o->m.active_ms,
                           .stanzas = o->stanzas};
}

struct walk {
    struct worker *w;
    struct str peer; /* p NULL: all */
    const struct kv_sink *to;
    void (*each)(struct walk *k, const struct stream *st);
};

static bool is_wanted(const struct walk *k, const struct stream *st)
{
    if (k->peer.p == NULL || (st->peer != NULL && str_is(k->peer, st->peer)))
        return true;
    for (size_t i = 0; i < st->pairs->n; i++)
        if (str_is(k->peer, st->pairs->v[i].remote))
            return true;
    return false;
}

static void visit(struct walk *k, struct stream st)
{
    if (is_wanted(k, &st))
        k->each(k, &st);
}

static void walk_front(struct walk *k, const struct front *f)
{
    LIST_FOREACH (&f->in_proven, a, next_a)
        visit(k, stream_in(CONTAINER_OF(a, const struct in_session, node)));
    LIST_FOREACH (&f->in_unproven, b, next_b)
        visit(k, stream_in(CONTAINER_OF(b, const struct in_session, node)));
    LIST_FOREACH (&f->out, c, next_c)
        visit(k, stream_out(CONTAINER_OF(c, const struct out_session, node)));
}

static void walk_streams(struct walk *k)
{
    walk_front(k, &k->w->world);
    for (size_t i = 0; i < k->w->nlinks; i++)
        if (k->w->links[i]->front != NULL)
            walk_front(k, k->w->links[i]->front);
}

static void put_stream(struct walk *k, const struct stream *st)
{
    const struct conn *c = st->s->conn;
    const struct tls_peer *tls = c != NULL ? conn_tls_peer(c) : NULL;
    PUT(k->to, "state.stream", KV_I("id", st->sid), KV_C("dir", st->dir), KV_C("peer", st->peer),
        KV_C("local", st->local), KV_C("state", st->state), KV_C("addr", st->addr),
        KV_C("tls", tls_of(st->s)), KV_C("cipher", tls ? tls->cipher : NULL),
        KV_C("cert", certificate_state(tls, st->peer)), KV_C("mech", st->mech),
        KV_I("pairs", authz_count(st->pairs, AUTHZ_VALID)), KV_SEC("age", ago(k->w, st->opened_ms)),
        KV_SEC("idle", ago(k->w, st->active_ms)), KV_I("stanzas", st->stanzas),
        KV_I("bytes_in", c ? conn_bytes_in(c) : 0), KV_I("bytes_out", c ? conn_bytes_out(c) : 0),
        KV_I("queued", c ? conn_queued(c) : 0), KV_C("link", st->link));
}

void state_streams(struct worker *w, struct str peer, const struct kv_sink *to)
{
    walk_streams(&(struct walk){w, peer, to, put_stream});
}

static void put_pairs(struct walk *k, const struct stream *st)
{
    static const char *const states[] = {"waiting", "asked", "valid"};
    for (size_t i = 0; i < st->pairs->n; i++) {
        const struct authz_pair *p = &st->pairs->v[i];
        if (k->peer.p == NULL || str_is(k->peer, p->remote))
            PUT(k->to, "state.pair", KV_C("local", p->local), KV_C("peer", p->remote),
                KV_C("dir", st->dir), KV_C("state", states[p->state]),
                KV_C("mech", p->state == AUTHZ_VALID ? st->mech : "none"),
                KV_SEC("since", ago(k->w, p->since)), KV_I("stream", st->sid),
                KV_C("link", st->link));
    }
}

void state_pairs(struct worker *w, struct str peer, const struct kv_sink *to)
{
    walk_streams(&(struct walk){w, peer, to, put_pairs});
}

/* ---- peers ----------------------------------------------------------------------------------- */

/* A remote domain, however we know of it. */
struct tally {
    char domain[DOMAIN_MAX + 1];
    size_t in, out;
    UT_hash_handle hh;
};

static struct tally *tally_of(struct tally **all, const char *domain)
{
    struct tally *t;
    HASH_FIND_STR(*all, domain, t);
    if (t != NULL)
        return t;
    t = mem_zalloc(sizeof *t);
    if (t == NULL)
        return NULL;
    str_copy(t->domain, sizeof t->domain, str_c(domain));
    HASH_ADD_STR(*all, domain, t);
    if (t->hh.tbl == NULL) {
        mem_free(t);
        return NULL;
    }
    return t;
}

static void count_in(struct tally **all, const struct in_session *in)
{
    struct tally *t = in->m.remote != NULL ? tally_of(all, in->m.remote) : NULL;
    if (t != NULL)
        t->in++;
    for (size_t i = 0; i < in->m.authz.n; i++) {
        const char *remote = in->m.authz.v[i].remote;
        bool other = in->m.remote == NULL || strcmp(remote, in->m.remote) != 0;
        t = other ? tally_of(all, remote) : NULL;
        if (t != NULL)
            t->in++;
    }
}

static void count_all(const struct worker *w, struct tally **all)
{
    const struct front *f = &w->world;
    struct peer *p, *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        struct tally *t = tally_of(all, p->domain);
        if (t != NULL)
            t->out += p->out != NULL;
    }
    LIST_FOREACH (&f->in_proven, a, next_a)
        count_in(all, CONTAINER_OF(a, const struct in_session, node));
    LIST_FOREACH (&f->in_unproven, b, next_b)
        count_in(all, CONTAINER_OF(b, const struct in_session, node));
    LIST_FOREACH (&w->blocks.list, c, next_c)
        tally_of(all, CONTAINER_OF(c, const struct block, node)->pattern);
}

static void put_peer(struct worker *w, const struct tally *t, const struct kv_sink *to)
{
    struct peer *p;
    struct remote_status st = {.why = STR_NONE};
    struct str name = str_c(t->domain);
    HASH_FIND_STR(w->world.peers, t->domain, p);
    if (p != NULL)
        remote_status(p->remote, &st);
    /* A pattern that is blocked is no domain, but what is below it has that fate. */
    bool pattern = *t->domain == '*';
    struct policy_decision d =
        side_pair(&w->world.side, p != NULL ? str_c(p->local) : STR_NONE,
                  pattern ? (struct str){name.p + 1, name.n - 1} : name, WAY_EITHER);
    const struct block *k = blocks_find(&w->blocks, name);
    uint64_t now = loop_now(&w->loop);
    PUT(to, "state.peer", KV_C("peer", t->domain),
        KV_C("state", p != NULL ? remote_state_name(remote_state_of(p->remote)) : "IDLE"),
        KV_I("queued", p != NULL ? remote_queued(p->remote) : 0),
        KV_I("sid", p != NULL && p->out ? p->out->sid : 0), KV_I("in", t->in), KV_I("out", t->out),
        KV_C("policy", pattern || d.verdict != POLICY_ALLOW ? "deny" : "allow"),
        KV_C("rule", pattern ? "blocked by the operator" : d.rule),
        KV_C("mode", pattern ? NULL : policy_security_name(side_security(&w->world.side, name))),
        KV_I("failures", st.failures),
        st.until > now && st.failures ? KV_SEC("retry_in", st.until - now)
                                      : KV_S("retry_in", STR_NONE),
        k != NULL && k->until > now ? KV_SEC("blocked_for", k->until - now)
                                    : KV_S("blocked_for", STR_NONE),
        KV_C("no_bidi", p != NULL && p->no_bidi > now ? p->bidi_why : NULL),
        KV_S("msg", st.why.n ? st.why : STR_NONE));
}

void state_peers(struct worker *w, struct str peer, const struct kv_sink *to)
{
    struct tally *all = NULL, *t, *next;
    count_all(w, &all);
    HASH_ITER(hh, all, t, next)
    {
        if (peer.p == NULL || str_is(peer, t->domain))
            put_peer(w, t, to);
        HASH_DEL(all, t);
        mem_free(t);
    }
}

/* ---- queues ---------------------------------------------------------------------------------- */

struct queue_walk {
    const struct peer *p;
    const struct kv_sink *to;
};

static void put_queue(void *arg, const struct remote_pair_status *s)
{
    const struct queue_walk *k = arg;
    const struct peer *p = k->p;
    if (s->queued == 0)
        return;
    PUT(k->to, "state.queue", KV_C("dir", p->front->link != NULL ? "in" : "out"),
        KV_C("local", s->local), KV_C("peer", p->domain),
        KV_C("waits_for", remote_state_name(remote_state_of(p->remote))),
        KV_I("stanzas", s->queued), KV_I("bytes", s->bytes), KV_SEC("oldest", ago(p->w, s->oldest)),
        KV_C("link", p->front->link != NULL ? p->front->link->kit->c->name : NULL));
}

static void put_queues(const struct front *f, const struct kv_sink *to)
{
    struct peer *p, *next;
    HASH_ITER(hh, f->peers, p, next)
    {
        struct queue_walk k = {p, to};
        remote_pairs(p->remote, put_queue, &k);
    }
}

void state_queues(struct worker *w, const struct kv_sink *to)
{
    put_queues(&w->world, to);
    for (size_t i = 0; i < w->nlinks; i++)
        if (w->links[i]->front != NULL)
            put_queues(w->links[i]->front, to);
    const struct list_node *n = w->hold.items.first;
    if (n != NULL)
        PUT(to, "state.queue", KV_C("dir", "in"), KV_C("local", "(all)"), KV_C("peer", "(all)"),
            KV_C("waits_for", "link"), KV_I("stanzas", w->hold.items.count),
            KV_I("bytes", w->hold.bytes),
            KV_SEC("oldest", ago(w, CONTAINER_OF(n, const struct held, node)->since)));
}

void state_certificates(struct worker *w, const struct kv_sink *to)
{
    certs_state(w->world.certs, to);
    link_state_certs(w, to);
}

void state_targets(struct worker *w, const struct kv_sink *to)
{
    struct peer *p, *next;
    HASH_ITER(hh, w->world.peers, p, next)
    for (size_t i = 0; i < p->ntargets; i++)
        PUT(to, "state.target", KV_C("domain", p->domain), KV_I("order", i),
            KV_C("host", p->targets[i].host), KV_I("port", p->targets[i].port),
            KV_C("now", i == p->target ? "yes" : "no"));
}
