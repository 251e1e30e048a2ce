/* Splices: a gateway and a server that both listen, joined byte by byte.
 *
 * Story. The gateway is dialled, and again whenever it is over. Behind TLS its certificate is
 * judged (auth tls); then the server is dialled, in clear, and from then on core/net/relay carries
 * the bytes. What ends one side ends the other; whoever speaks over the splice sees a connection
 * like any other. */
#include "core/base/mem.h"
#include "core/net/connect.h"
#include "xcp/router_priv.h"

enum { STALL_MS = 60000, PROVED_MS = 10000 };

struct router_join {
    struct list_node node; /* in router.joins */
    struct router_splice *splice;
    struct router_snapshot *snap;
    size_t index; /* in `snap` */
    struct relay *relay;
    struct connect *server;      /* the dialling of it */
    const struct tls_peer *peer; /* the gateway's facts, from the relay; NULL: not yet */
    enum trust_reason verdict;   /* on them */
    bool joined, spoke;          /* spoke: the gateway did, so it believes us */
    uint64_t opened_ms;
    const char *kind; /* of the alarm when we end it */
};

/* Both sides are there and believe each other. */
static bool is_up(const struct router_join *j)
{
    return j->joined && j->spoke;
}

static void log_splice(const struct router_splice *s, enum log_level level, const char *event,
                       const char *reason, const char *why)
{
    log_ev(&s->router->log, level, event, KV_C("splice", s->cfg->name), KV_C("reason", reason),
           KV_C("msg", why));
}

static void raise_alarm(struct router_splice *s, const char *kind, const char *why)
{
    struct router *r = s->router;
    alarm_raise(&r->alarms, kind, s->cfg->name, why, loop_now(r->loop));
}

static void log_retry(const struct router_splice *s, uint64_t ms)
{
    if (ms > 0)
        log_ev(&s->router->log, LOG_INFO, "splice.retry", KV_C("splice", s->cfg->name),
               KV_SEC("in", ms));
}

/* ---- the end of a join ----------------------------------------------------------------------- */

static const char *trust_kind(enum trust_reason r)
{
    static const char *const kinds[] = {
#define X(id, name, ok) "splice." name,
        TRUST_REASONS(X)
#undef X
    };
    return kinds[r];
}

static const char *end_kind(const struct router_join *j, enum relay_end how, const char *why)
{
    if (j->kind != NULL)
        return j->kind;
    if (how == RELAY_TLS && str_starts(str_c(why), LINK_CERT_REFUSED_TLS))
        return "splice.certificate-refused";
    return how == RELAY_TLS ? "splice.tls" : "splice.down";
}

static void log_down(const struct router_join *j, const char *why)
{
    const struct router_splice *s = j->splice;
    log_ev(&s->router->log, LOG_NOTICE, "splice.down", KV_C("splice", s->cfg->name),
           KV_C("msg", why), KV_I("in_bytes", relay_bytes(j->relay, RELAY_FIRST)),
           KV_I("out_bytes", relay_bytes(j->relay, RELAY_SECOND)),
           KV_SEC("duration", loop_now(s->router->loop) - j->opened_ms));
}

/* Refused is what only an operator can change. */
static void again(struct router_splice *s, const struct router_join *j, const char *kind)
{
    bool refused = (j->peer != NULL && !trust_ok(j->verdict)) ||
                   strcmp(kind, "splice.certificate-refused") == 0;
    if (is_up(j) && loop_now(s->router->loop) - j->opened_ms >= PROVED_MS)
        redial_up(&s->redial);
    log_retry(s, redial_again(&s->redial, refused ? REDIAL_REFUSED : REDIAL_LOST));
}

static void on_ended(void *arg, enum relay_end how, const char *why)
{
    struct router_join *j = arg;
    struct router_splice *s = j->splice;
    bool current = s->join == j;
    connect_cancel(j->server);
    j->server = NULL;
    s->in_bytes += relay_bytes(j->relay, RELAY_FIRST);
    s->out_bytes += relay_bytes(j->relay, RELAY_SECOND);
    if (!current)
        return; /* it was stopped: that has been told */
    s->join = NULL;
    s->since_ms = loop_now(s->router->loop);
    const char *kind = end_kind(j, how, why);
    if (is_up(j))
        log_down(j, why);
    else
        log_splice(s, LOG_WARN, "splice.failed", kind + strlen("splice."), why);
    raise_alarm(s, kind, why);
    again(s, j, kind);
}

static void on_closed(void *arg)
{
    struct router_join *j = arg;
    struct router_splice *s = j->splice;
    struct router *r = s->router;
    router_snapshot_unref(j->snap);
    list_remove(&j->node);
    mem_free(j);
    if (--s->njoins == 0 && s->gone)
        mem_free(s);
    router_peer_gone(r);
}

static void give_up(struct router_join *j, const char *kind, const char *why)
{
    j->kind = kind;
    relay_stop(j->relay, why);
}

/* ---- the server's side ----------------------------------------------------------------------- */

static void check_up(struct router_join *j)
{
    struct router_splice *s = j->splice;
    struct router *r = s->router;
    if (!is_up(j) || s->join != j)
        return;
    s->ups++;
    s->since_ms = loop_now(r->loop);
    log_ev(&r->log, LOG_NOTICE, "splice.up", KV_C("splice", s->cfg->name),
           KV_C("gateway", s->cfg->gateway), KV_C("server", s->cfg->server),
           KV_C("trust", trust_reason_name(j->verdict)),
           KV_SEC("after", s->since_ms - j->opened_ms));
    alarm_clear_all(&r->alarms, "splice.", s->cfg->name, s->since_ms);
}

static void on_spoke(void *arg)
{
    struct router_join *j = arg;
    j->spoke = true;
    check_up(j);
}

static void on_server(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct router_join *j = arg;
    (void)to;
    j->server = NULL;
    if (tcp == NULL) {
        give_up(j, "splice.server", why);
    } else if (relay_join(j->relay, tcp)) {
        j->joined = true;
        check_up(j);
    } else {
        session_discard(tcp);
        give_up(j, "splice.down", "out of memory");
    }
}

static void dial_server(struct router_join *j)
{
    struct endpoint to;
    const struct router_splice *s = j->splice;
    struct connect_options opt = {
        .targets = &to, .ntargets = 1, .deadline_ms = j->snap->cfg->timeouts.connect};
    if (endpoint_parse(str_c(s->cfg->server), &to))
        j->server = connect_start(s->router->loop, &opt, on_server, j);
    if (j->server == NULL)
        give_up(j, "splice.down", "out of memory");
}

/* ---- the gateway's side ---------------------------------------------------------------------- */

static void on_secured(void *arg, const struct tls_peer *peer)
{
    struct router_join *j = arg;
    const struct router_splice *s = j->splice;
    j->verdict = link_trust_check(&j->snap->splices[j->index].trust, peer);
    j->peer = peer;
    log_ev(&s->router->log, LOG_INFO, "splice.trust", KV_C("splice", s->cfg->name),
           KV_C("reason", trust_reason_name(j->verdict)), KV_C("subject", peer->subject),
           KV_C("msg", trust_reason_text(j->verdict)));
    if (trust_ok(j->verdict))
        dial_server(j);
    else
        give_up(j, trust_kind(j->verdict), trust_reason_text(j->verdict));
}

static struct router_join *join_new(struct router_splice *s, uv_tcp_t *tcp)
{
    static const struct relay_ops ops = {on_secured, on_spoke, on_ended, on_closed};
    const struct router_config *cfg = s->snap->cfg;
    struct relay_options opt = {.tls = s->snap->splices[s->index].tls,
                                .peer_name = s->cfg->proof.peer_name,
                                .buffer = (size_t)cfg->limits.buffer,
                                .first_word_ms = cfg->timeouts.auth,
                                .stall_ms = STALL_MS,
                                .half_ms = cfg->timeouts.close,
                                .dead_ms = cfg->timeouts.dead};
    struct router_join *j = mem_zalloc(sizeof *j);
    if (j != NULL)
        j->relay = relay_new(s->router->loop, tcp, &opt, &ops, j);
    if (j == NULL || j->relay == NULL) {
        mem_free(j);
        return NULL;
    }
    j->splice = s;
    j->snap = router_snapshot_ref(s->snap);
    j->index = s->index;
    j->opened_ms = loop_now(s->router->loop);
    s->njoins++;
    list_append(&s->router->joins, &j->node);
    return j;
}

static void on_gateway(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct router_splice *s = arg;
    (void)to;
    s->join = tcp != NULL ? join_new(s, tcp) : NULL;
    if (s->join != NULL)
        return;
    if (tcp != NULL)
        why = "out of memory";
    log_splice(s, LOG_WARN, "splice.failed", "connect", why);
    raise_alarm(s, "splice.connect", why);
    if (tcp == NULL) {
        log_retry(s, s->redial.wait_ms);
        return;
    }
    session_discard(tcp);
    log_retry(s, redial_again(&s->redial, REDIAL_LOST));
}

/* ---- life ------------------------------------------------------------------------------------ */

struct router_splice *router_splice_new(struct router *r)
{
    static const struct redial_ops ops = {on_gateway};
    struct router_splice *s = mem_zalloc(sizeof *s);
    if (s == NULL)
        return NULL;
    s->router = r;
    s->since_ms = loop_now(r->loop);
    redial_init(&s->redial, r->loop, &ops, s);
    return s;
}

void router_splice_start(struct router_splice *s)
{
    struct endpoint to;
    if (s->join != NULL || !endpoint_parse(str_c(s->cfg->gateway), &to))
        return;
    redial_start(&s->redial, &to, s->snap->cfg->timeouts.connect);
}

/* From now on it is not the splice's any more, which may dial again. */
static struct router_join *let_go(struct router_splice *s, const char *why)
{
    struct router_join *j = s->join;
    s->join = NULL;
    s->since_ms = loop_now(s->router->loop);
    if (is_up(j))
        log_down(j, why);
    else
        log_splice(s, LOG_INFO, "splice.failed", "stopped", why);
    return j;
}

void router_splice_stop(struct router_splice *s, const char *why)
{
    redial_stop(&s->redial);
    if (s->join != NULL)
        relay_drain(let_go(s, why)->relay, why, s->snap->cfg->timeouts.close);
}

void router_joins_end(struct router *r, const char *why)
{
    LIST_FOREACH (&r->joins, n, following)
        relay_stop(CONTAINER_OF(n, struct router_join, node)->relay, why);
}

static bool same(const struct rcfg_splice *a, const struct rcfg_splice *b)
{
    return strcmp(a->gateway, b->gateway) == 0 && strcmp(a->server, b->server) == 0 &&
           router_proof_same(&a->proof, &b->proof);
}

/* What is up stays while it would be let in again. What is not begins anew: what kept it down may
 * be what the operator has just repaired. */
static void review(struct router_splice *s, const struct rcfg_splice *cfg,
                   const struct credentials *now)
{
    struct router_join *j = s->join;
    if (!same(s->cfg, cfg) || (j != NULL && !is_up(j)))
        router_splice_stop(s, "the configuration of the splice has changed");
    else if (j != NULL && !trust_ok(link_trust_check(&now->trust, j->peer)))
        relay_stop(let_go(s, "the gateway is not trusted any more")->relay, "not trusted any more");
}

void router_splice_set(struct router_splice *s, struct router_snapshot *snap, size_t index)
{
    const struct rcfg_splice *cfg = &snap->cfg->splices[index];
    if (s->cfg != NULL)
        review(s, cfg, &snap->splices[index]);
    router_snapshot_ref(snap);
    router_snapshot_unref(s->snap);
    s->snap = snap;
    s->cfg = cfg;
    s->index = index;
}

void router_splice_remove(struct router_splice *s)
{
    router_splice_stop(s, "the splice has been removed from the configuration");
    alarm_clear_all(&s->router->alarms, "splice.", s->cfg->name, loop_now(s->router->loop));
    router_snapshot_unref(s->snap);
    s->snap = NULL;
    s->cfg = NULL;
    s->gone = true;
    if (s->njoins == 0)
        mem_free(s);
}

static const char *state_of(const struct router_splice *s)
{
    if (s->join == NULL)
        return redial_busy(&s->redial) ? "connecting" : "down";
    if (is_up(s->join))
        return "up";
    if (s->join->joined)
        return "waiting"; /* for the gateway's first words */
    return s->join->peer != NULL ? "server" : "handshake";
}

void router_splice_state(const struct router_splice *s, const struct kv_sink *to)
{
    const struct relay *r = s->join ? s->join->relay : NULL;
    uint64_t in = s->in_bytes + (r ? relay_bytes(r, RELAY_FIRST) : 0);
    uint64_t out = s->out_bytes + (r ? relay_bytes(r, RELAY_SECOND) : 0);
    const struct kv kv[] = {KV_C("splice", s->cfg->name),
                            KV_C("state", state_of(s)),
                            KV_SEC("since", loop_now(s->router->loop) - s->since_ms),
                            KV_I("ups", s->ups),
                            KV_I("in_bytes", in),
                            KV_I("out_bytes", out),
                            KV_I("waiting_in", r ? relay_waiting(r, RELAY_SECOND) : 0),
                            KV_I("waiting_out", r ? relay_waiting(r, RELAY_FIRST) : 0)};
    to->put(to->arg, "splice.status", kv, sizeof kv / sizeof kv[0]);
}
