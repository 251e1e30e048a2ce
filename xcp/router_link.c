/* Connections of the router: accepting, dialling with back-off, and what a session reports. */
#include "xcp/router_priv.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "core/net/addr.h"
#include "xcp/link.h"
#include "xcp/proven.h"

enum {
    LINGER_MS = 1000, /* for our last words: what waited has been taken back or read by then */
};

/* ---- dialling -------------------------------------------------------------------------------- */

static bool busy(const struct router_link *k)
{
    return k->dialled != NULL || k->peer != NULL;
}

static void log_retry(const struct router_link *k, uint64_t ms)
{
    if (ms > 0)
        log_ev(&k->router->log, LOG_INFO, "link.retry", KV_C("link", k->cfg->name),
               KV_SEC("in", ms));
}

/* A dialled connection is over. */
static void again(struct router_link *k, enum end_reason reason)
{
    bool refused = reason == END_UNAUTHORIZED || reason == END_UNTRUSTED;
    if (k->router->draining || k->gone || busy(k))
        return;
    if (k->redial.started)
        log_retry(k, redial_again(&k->redial, refused ? REDIAL_REFUSED : REDIAL_LOST));
    else
        router_link_start(k); /* it was one of the old configuration */
}

static bool start_peer(struct router *r, struct router_link *k, uv_tcp_t *tcp);

static void on_connected(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct router_link *k = arg;
    struct router *r = k->router;
    (void)to;
    if (tcp != NULL && start_peer(r, k, tcp))
        return;
    if (tcp != NULL)
        why = "out of memory";
    log_ev(&r->log, LOG_WARN, "link.failed", KV_C("link", k->cfg->name), KV_C("reason", "connect"),
           KV_C("msg", why));
    alarm_raise(&r->alarms, "link.connect", k->cfg->name, why, loop_now(r->loop));
    if (tcp != NULL)
        again(k, END_LOST);
    else
        log_retry(k, k->redial.wait_ms);
}

/* ---- links ----------------------------------------------------------------------------------- */

struct router_link *router_link_new(struct router *r)
{
    static const struct redial_ops ops = {on_connected};
    struct router_link *k = mem_zalloc(sizeof *k);
    if (k == NULL)
        return NULL;
    k->router = r;
    redial_init(&k->redial, r->loop, &ops, k);
    k->since_ms = loop_now(r->loop);
    return k;
}

void router_link_start(struct router_link *k)
{
    struct endpoint to;
    if (k->cfg->transport == TRANSPORT_DIAL && !busy(k) &&
        endpoint_parse(str_c(k->cfg->address), &to))
        redial_start(&k->redial, &to, k->router->snap->cfg->timeouts.connect);
}

static void let_go(struct router_link *k)
{
    if (k->peer != NULL)
        routes_set_up(k->router->routes, k->index, false);
    if (k->peer != NULL)
        k->since_ms = loop_now(k->router->loop);
    k->peer = NULL;
}

/* From now on nothing is routed to the peer; it closes its stream in good order. */
static void end_peer(struct router_peer *p, const char *why)
{
    if (p->link != NULL && p->link->peer == p)
        let_go(p->link);
    session_drain(&p->session, why);
}

void router_link_stop(struct router_link *k, const char *why)
{
    struct router *r = k->router;
    redial_stop(&k->redial);
    LIST_FOREACH (&r->peers, n, following) {
        struct router_peer *p = CONTAINER_OF(n, struct router_peer, node);
        if (p->link == k && !p->ended)
            end_peer(p, why);
    }
}

void router_link_remove(struct router_link *k)
{
    redial_stop(&k->redial);
    alarm_clear_all(&k->router->alarms, "link.", k->cfg->name, loop_now(k->router->loop));
    k->gone = true;
    k->cfg = NULL;
    k->index = SIZE_MAX; /* nothing is routed to or from it any more */
    if (k->npeers == 0)
        mem_free(k);
}

static void join(struct router_peer *p, struct router_link *k)
{
    p->link = k;
    k->npeers++;
}

static void leave(struct router_peer *p)
{
    struct router_link *k = p->link;
    p->link = NULL;
    if (k != NULL && --k->npeers == 0 && k->gone)
        mem_free(k);
}

static bool same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static bool same_list(char *const *a, size_t na, char *const *b, size_t nb)
{
    for (size_t i = 0; na == nb && i < na; i++)
        if (strcmp(a[i], b[i]) != 0)
            return false;
    return na == nb;
}

bool router_proof_same(const struct rcfg_proof *a, const struct rcfg_proof *b)
{
    return a->auth == b->auth && same_text(a->certificate, b->certificate) &&
           same_text(a->key, b->key) && same_text(a->ca_file, b->ca_file) &&
           same_text(a->store_file, b->store_file) && same_text(a->peer_name, b->peer_name) &&
           same_list(a->authlist, a->nauthlist, b->authlist, b->nauthlist);
}

bool router_link_same(const struct rcfg_link *a, const struct rcfg_link *b)
{
    return a->role == b->role && a->transport == b->transport &&
           same_text(a->address, b->address) && same_text(a->component, b->component) &&
           same_text(a->secret, b->secret) && same_text(a->proven_file, b->proven_file) &&
           router_proof_same(&a->proof, &b->proof);
}

static bool still_trusted(const struct router_peer *p, const struct credentials *now)
{
    const struct tls_peer *tls = conn_tls_peer(p->session.conn);
    return tls == NULL || now->trust.auth == LINK_AUTH_PASSWORD ||
           trust_ok(link_trust_check(&now->trust, tls));
}

bool router_link_trusted(const struct router_link *k, const struct credentials *now)
{
    return k->peer == NULL || still_trusted(k->peer, now);
}

/* ---- what sessions report -------------------------------------------------------------------- */

static void step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    struct router_peer *p = machine;
    if (p->client)
        link_client_step(&p->machine.client, ev, out);
    else
        link_server_step(&p->machine.server, ev, out);
}

/* The link that an accepted peer has proven, as configured now; NULL: not any more. */
static struct router_link *proven_link(const struct router_peer *p)
{
    const struct router *r = p->router;
    const struct router_snapshot *then = p->snap;
    const struct rcfg_link *proven =
        &then->cfg->links[then->account_link[p->machine.server.account]];
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        if (strcmp(r->links[i]->cfg->name, proven->name) == 0 &&
            router_link_same(r->links[i]->cfg, proven) && still_trusted(p, &r->snap->links[i]))
            return r->links[i];
    return NULL;
}

static void name_in_log(struct router_peer *p, const char *name)
{
    p->session.log.kv[2] = KV_C("link", name);
}

/* The name as it stands in the snapshot that the peer holds: it lives as long as the peer. */
static const char *held_name(const struct router_peer *p)
{
    if (!p->dialling)
        return p->snap->cfg->links[p->snap->account_link[p->machine.server.account]].name;
    for (size_t i = 0; i < p->snap->cfg->nlinks; i++)
        if (strcmp(p->snap->cfg->links[i].name, p->link->cfg->name) == 0)
            return p->snap->cfg->links[i].name;
    return "?";
}

/* What joined by password may later be switched to certificates of the same name. */
static void remember_proven(struct router_peer *p, struct router_link *k)
{
    const struct rcfg_link *c = k->cfg;
    const char *name = c->proof.peer_name;
    if (c->proof.auth != LINK_AUTH_PASSWORD || name == NULL)
        return;
    proven_remember(c->proven_file, name, strcmp(k->proven, name) == 0, &p->session.log);
    str_copy(k->proven, sizeof k->proven, str_c(name));
}

static void attach(struct router_peer *p, struct router_link *k)
{
    const struct tls_peer *tls = conn_tls_peer(p->session.conn);
    struct router_peer *old = k->peer;
    uint64_t now = loop_now(p->router->loop);
    if (p->link == NULL)
        join(p, k);
    p->up = true;
    k->dialled = NULL;
    k->peer = p;
    redial_up(&k->redial);
    k->since_ms = now;
    k->ups++;
    p->at_up = k->count;
    routes_set_up(p->router->routes, k->index, true);
    log_ev(&p->session.log, LOG_NOTICE, "link.up",
           KV_C("role", k->cfg->role == ROLE_GATEWAY ? "gateway" : "server"),
           KV_C("component", k->cfg->component), KV_C("tls", tls ? tls->protocol : NULL),
           KV_SEC("after", now - p->opened_ms));
    story_tell(&p->router->story, "link.up", k->cfg->name, "%s is up, from %s", k->cfg->name,
               p->addr);
    alarm_clear_all(&p->router->alarms, "link.", k->cfg->name, now);
    remember_proven(p, k);
    if (old == NULL)
        return;
    log_ev(&old->session.log, LOG_WARN, "link.conflict", KV_C("by", p->sid));
    router_take_back(old); /* before anything new is queued: the order stays */
    session_drain(&old->session, LINK_CONFLICT);
}

static void no_longer_pending(struct router_peer *p)
{
    if (p->pending)
        p->router->pending--;
    p->pending = false;
}

static void on_ready(struct router_peer *p)
{
    struct router *r = p->router;
    struct router_link *k = p->dialling ? p->link : proven_link(p);
    if (!p->dialling)
        name_in_log(p, held_name(p));
    no_longer_pending(p);
    if (k != NULL && !r->draining) {
        attach(p, k);
        return;
    }
    session_drain(&p->session, "this link is not wanted any more");
}

static void on_act(struct session *s, const struct gw_event *ev, const struct gw_action *act)
{
    struct router_peer *p = (struct router_peer *)s;
    if (act->kind == ACT_READY)
        on_ready(p);
    else
        router_take(p, ev, act);
}

static void log_down(struct router_peer *p, enum end_reason reason, struct str text)
{
    const struct router_counters *c = &p->link->count, *b = &p->at_up;
    if (!p->link->gone)
        story_tell(&p->router->story, "link.down", p->link->cfg->name, "%s is down: %s%s%.*s",
                   p->link->cfg->name, end_reason_name(reason), text.n ? ": " : "", STR_ARG(text));
    log_ev(&p->session.log, LOG_NOTICE, "link.down", KV_C("reason", end_reason_name(reason)),
           KV_S("msg", text.n ? text : STR_NONE), KV_I("in", c->in_stanzas - b->in_stanzas),
           KV_I("out", c->out_stanzas - b->out_stanzas),
           KV_I("in_bytes", c->in_bytes - b->in_bytes),
           KV_I("out_bytes", c->out_bytes - b->out_bytes), KV_I("bounced", c->bounced - b->bounced),
           KV_I("dropped", c->dropped - b->dropped), KV_I("refused", c->refused - b->refused),
           KV_SEC("duration", loop_now(p->router->loop) - p->opened_ms));
}

/* The link that the end of this peer concerns, by its name in the present configuration. */
static const struct router_link *concerned(const struct router_peer *p)
{
    const struct router *r = p->router;
    if (p->link != NULL)
        return p->link->gone ? NULL : p->link;
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++) /* accepted: what it asked to be */
        if (r->links[i]->cfg->transport == TRANSPORT_ACCEPT &&
            strcmp(r->links[i]->cfg->component, p->machine.server.component) == 0)
            return r->links[i];
    return NULL;
}

static const char *unauthorized_kind(const struct router_peer *p, const struct router_link *k)
{
    const struct link_end *e = p->client ? &p->machine.client.end : &p->machine.server.end;
    if (e->cert_refused)
        return "link.certificate-refused";
    if (k->cfg->proof.auth != LINK_AUTH_PASSWORD && !conn_encrypted(p->session.conn))
        return "link.clear"; /* TLS is due, and it came without */
    return "link.password";
}

/* NULL: we ended it. */
static const char *alarm_kind(const struct router_peer *p, const struct router_link *k,
                              enum end_reason reason)
{
    static const char *const untrusted[] = {
#define X(id, name, ok) "link." name,
        TRUST_REASONS(X)
#undef X
    };
    switch (reason) {
    case END_UNTRUSTED:
        return untrusted[p->client ? p->machine.client.verdict : p->machine.server.verdict];
    case END_UNAUTHORIZED:
        return unauthorized_kind(p, k);
    case END_CONFLICT:
        return "link.conflict";
    case END_TLS_FAILED:
        return "link.tls";
    case END_DRAINED:
        return NULL;
    default:
        return "link.down";
    }
}

static void raise_alarm(struct router_peer *p, enum end_reason reason, struct str text)
{
    struct router *r = p->router;
    const struct router_link *k = concerned(p);
    char why[ALARM_TEXT_MAX];
    bool proof = reason == END_UNTRUSTED || reason == END_UNAUTHORIZED;
    bool stranger = k != NULL && !p->up && !proof && k->peer != NULL;
    if (k == NULL || r->draining || stranger)
        return;
    const char *kind = alarm_kind(p, k, reason);
    text = text.n > 0 ? text : str_c(end_reason_name(reason));
    snprintf(why, sizeof why, "%s: %.*s", p->addr, STR_ARG(text));
    if (kind != NULL)
        alarm_raise(&r->alarms, kind, k->cfg->name, why, loop_now(r->loop));
}

static void log_failed(struct router_peer *p, enum end_reason reason, struct str text)
{
    enum log_level level = reason == END_UNAUTHORIZED && p->dialling ? LOG_ERROR : LOG_WARN;
    log_ev(&p->session.log, level, "link.failed", KV_C("reason", end_reason_name(reason)),
           KV_S("msg", text.n ? text : STR_NONE));
}

static void on_ended(struct session *s, enum end_reason reason, struct str text)
{
    struct router_peer *p = (struct router_peer *)s;
    struct router_link *k = p->link;
    bool current = k != NULL && k->peer == p;
    p->ended = true;
    if (current)
        let_go(k);
    if (k != NULL && k->dialled == p)
        k->dialled = NULL;
    router_take_back(p);
    router_unblock(p);
    router_leave(p);
    if (p->up)
        log_down(p, reason, text);
    else
        log_failed(p, reason, text);
    if (current || !p->up) /* else another one has its place, or it was stopped */
        raise_alarm(p, reason, text);
    no_longer_pending(p);
    if (p->dialling && k != NULL)
        again(k, reason);
}

static void on_drained(struct session *s)
{
    router_unblock((struct router_peer *)s);
}

static void on_sent(struct session *s, size_t stanzas, size_t bytes)
{
    struct router_peer *p = (struct router_peer *)s;
    router_progress(p);
    if (p->link == NULL)
        return;
    p->link->count.out_stanzas += stanzas;
    p->link->count.out_bytes += bytes;
}

static void peer_free(struct router_peer *p)
{
    struct router *r = p->router;
    list_remove(&p->node);
    leave(p);
    router_snapshot_unref(p->snap);
    mem_free(p);
    router_peer_gone(r);
}

static void on_closed(struct session *s)
{
    peer_free((struct router_peer *)s);
}

void router_peer_abort(struct router_peer *p, const char *why)
{
    struct gw_event ev = {
        .kind = EV_LOST, .now_ms = loop_now(p->router->loop), .u.text = str_c(why)};
    session_event(&p->session, &ev);
}

static void on_stall(struct timer *t)
{
    router_peer_abort(CONTAINER_OF(t, struct router_peer, stall), "the peer stopped reading");
}

/* ---- new connections ------------------------------------------------------------------------- */

static void init_server(struct router_peer *p, const struct link_account *accounts, size_t n)
{
    const struct router_config *cfg = p->snap->cfg;
    struct link_server_config c = {.accounts = accounts,
                                   .naccounts = n,
                                   .auth_ms = cfg->timeouts.auth,
                                   .close_ms = cfg->timeouts.close,
                                   .keepalive_ms = cfg->timeouts.keepalive,
                                   .start_tls = p->dialling};
    link_server_init(&p->machine.server, &c, p->router->loop->env);
}

static void init_client(struct router_peer *p, const struct rcfg_link *k)
{
    const struct router_config *cfg = p->snap->cfg;
    struct link_client_config c = {.component = str_c(k->component),
                                   .secret = str_c(k->secret),
                                   .trust = &p->snap->links[p->link->index].trust,
                                   .ping_to = k->ndomains ? str_c(k->domains[0]) : STR_NONE,
                                   .auth_ms = cfg->timeouts.auth,
                                   .close_ms = cfg->timeouts.close,
                                   .keepalive_ms = cfg->timeouts.keepalive};
    link_client_init(&p->machine.client, &c, p->router->loop->env);
}

/* Who dials is the TLS client; who is the component speaks first: the gateway, or we at a server
 * that we dial. */
static void init_machine(struct router_peer *p)
{
    const struct router_snapshot *snap = p->snap;
    if (!p->dialling) {
        p->session.tls = (struct session_tls){.ctx = snap->accept_tls, .server = true};
        init_server(p, snap->accounts, snap->naccounts);
        return;
    }
    size_t i = p->link->index;
    p->session.tls = (struct session_tls){.ctx = snap->links[i].tls,
                                          .peer_name = snap->cfg->links[i].proof.peer_name};
    p->client = p->link->cfg->role == ROLE_SERVER;
    if (p->client)
        init_client(p, p->link->cfg);
    else
        init_server(p, &snap->by_link[i], 1);
}

static void free_handle(uv_handle_t *h)
{
    mem_free(h);
}

static void close_tcp(uv_tcp_t *tcp)
{
    uv_close((uv_handle_t *)tcp, free_handle);
}

static void remote_address(const uv_tcp_t *tcp, char out[ENDPOINT_TEXT])
{
    struct sockaddr_storage sa;
    struct endpoint e;
    int n = sizeof sa;
    out[0] = '\0';
    if (uv_tcp_getpeername(tcp, (struct sockaddr *)&sa, &n) == 0 &&
        addr_to_endpoint((struct sockaddr *)&sa, &e))
        endpoint_text(&e, out);
}

static void init_session(struct router_peer *p)
{
    static const struct session_ops ops = {step, on_act, on_ended, on_drained, on_sent, on_closed};
    struct session *s = &p->session;
    s->ops = &ops;
    s->machine = p;
    uint64_t close_ms = p->snap->cfg->timeouts.close;
    s->linger_ms = close_ms < LINGER_MS ? close_ms : LINGER_MS;
    s->limits = &p->snap->limits;
    s->log = (struct log_ctx){.sink = p->router->log.sink};
    s->log.kv[0] = KV_C("sid", p->sid);
    s->log.kv[1] = KV_C("addr", p->addr);
    if (p->link != NULL)
        name_in_log(p, held_name(p));
}

static struct router_peer *peer_new(struct router *r, struct router_link *k, const uv_tcp_t *tcp)
{
    struct router_peer *p = mem_zalloc(sizeof *p);
    if (p == NULL)
        return NULL;
    p->router = r;
    p->dialling = k != NULL;
    p->pending = k == NULL;
    p->snap = router_snapshot_ref(r->snap);
    p->opened_ms = loop_now(r->loop);
    p->stall.fire = on_stall;
    snprintf(p->sid, sizeof p->sid, "%llu", (unsigned long long)++r->next_sid);
    remote_address(tcp, p->addr);
    if (k != NULL)
        join(p, k);
    init_machine(p);
    init_session(p);
    list_append(&r->peers, &p->node);
    return p;
}

static bool start_peer(struct router *r, struct router_link *k, uv_tcp_t *tcp)
{
    struct router_peer *p = peer_new(r, k, tcp);
    if (p == NULL) {
        close_tcp(tcp);
        return false;
    }
    size_t buffer = (size_t)p->snap->cfg->limits.buffer;
    struct conn_options opt = {.content = CONTENT_COMPONENT,
                               .high_mark = buffer,
                               .low_mark = buffer / 4,
                               .dead_ms = p->snap->cfg->timeouts.dead,
                               .detect_tls = k == NULL};
    if (k != NULL)
        k->dialled = p;
    else
        r->pending++;
    if (session_start(&p->session, r->loop, tcp, &opt))
        return true;
    no_longer_pending(p);
    if (k != NULL)
        k->dialled = NULL;
    peer_free(p);
    return false;
}

/* Who has been a stranger for longest makes room, so that nobody can lock the others out by
 * connecting and keeping silent. */
static void make_room(struct router *r)
{
    LIST_FOREACH (&r->peers, n, following) {
        struct router_peer *p = CONTAINER_OF(n, struct router_peer, node);
        if (r->pending < ROUTER_PENDING_MAX)
            return;
        if (p->pending && !p->ended)
            session_abort(&p->session, "too many unproven connections");
    }
}

void router_accept(void *arg, uv_tcp_t *tcp)
{
    struct router *r = arg;
    if (r->draining) {
        close_tcp(tcp);
        return;
    }
    make_room(r);
    if (!start_peer(r, NULL, tcp))
        log_ev(&r->log, LOG_WARN, "link.refused", KV_C("reason", "no-memory"),
               KV_I("pending", r->pending));
}
