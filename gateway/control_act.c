/* Commands that change something. */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/mem.h"
#include "gateway/control.h"
#include "gateway/policy/policy.h"

static struct gateway_control *of(const struct control_call *call)
{
    return call->arg;
}

/* ---- what every program has ------------------------------------------------------------------ */

void gateway_do_CONFIG_CHECK(struct control_call *call)
{
    operate_config_check(&of(call)->operate, call);
}

void gateway_do_CONFIG_RELOAD(struct control_call *call)
{
    operate_config_reload(&of(call)->operate, call);
}

void gateway_do_LOG_LEVEL(struct control_call *call)
{
    operate_log_level(&of(call)->operate, call);
}

void gateway_do_DRAIN(struct control_call *call)
{
    operate_drain(&of(call)->operate, call);
}

void gateway_do_STOP(struct control_call *call)
{
    operate_stop(&of(call)->operate, call);
}

/* ---- streams --------------------------------------------------------------------------------- */

static const char closed_by_hand[] = "closed by the operator";

struct closing {
    struct str peer; /* p NULL: by id */
    uint32_t sid;
    size_t n;
};

static void close_session(struct closing *k, struct session *s)
{
    if (s->over)
        return;
    k->n++;
    session_drain(s, closed_by_hand);
}

static bool meant(const struct closing *k, uint32_t sid, const char *remote)
{
    return k->peer.p == NULL ? sid == k->sid : remote != NULL && str_is(k->peer, remote);
}

/* A stream that carries several of its domains ends when it speaks for the one that is meant. */
static bool speaks_for(const struct closing *k, const struct s2s_in *m)
{
    for (size_t i = 0; k->peer.p != NULL && i < m->authz.n; i++)
        if (str_is(k->peer, m->authz.v[i].remote))
            return true;
    return false;
}

static void close_in(struct closing *k, struct list *l)
{
    LIST_FOREACH (l, n, following) {
        struct in_session *in = CONTAINER_OF(n, struct in_session, node);
        if (meant(k, in->sid, in->m.remote) || speaks_for(k, &in->m))
            close_session(k, &in->s);
    }
}

static void close_front(struct closing *k, struct front *f)
{
    close_in(k, &f->in_proven);
    close_in(k, &f->in_unproven);
    LIST_FOREACH (&f->out, n, following) {
        struct out_session *o = CONTAINER_OF(n, struct out_session, node);
        if (meant(k, o->sid, o->m.remote))
            close_session(k, &o->s);
    }
}

static void close_line(struct closing *k, struct line *l)
{
    if (l->session != NULL && k->peer.p == NULL && l->session->sid == k->sid)
        close_session(k, &l->session->s);
}

static void close_all(struct worker *w, struct closing *k)
{
    close_front(k, &w->world);
    for (size_t i = 0; i < w->nlinks; i++) {
        if (w->links[i]->front != NULL)
            close_front(k, w->links[i]->front);
        for (size_t j = 0; j < w->links[i]->nlines; j++)
            close_line(k, &w->links[i]->lines[j]);
    }
}

void gateway_do_CLOSE(struct control_call *call)
{
    const char *what = call->request->argv[0];
    char *end, ascii[DOMAIN_MAX + 1];
    struct closing k = {.sid = (uint32_t)strtoul(what, &end, 10)};
    bool id = *end == '\0' && *what >= '0' && *what <= '9';
    if (!id && !domain_ascii(str_c(what), ascii)) {
        control_fail(call, CONTROL_USAGE, "'%.100s' is neither a stream's id nor a domain", what);
        return;
    }
    if (!id)
        k.peer = str_c(ascii);
    close_all(of(call)->w, &k);
    json_int(&call->json, "closed", (int64_t)k.n);
    if (k.n == 0)
        control_fail(call, CONTROL_NOT_FOUND, "there is no stream %s%.100s", id ? "" : "of ", what);
    else
        operate_tell(&of(call)->operate, call, id ? "" : ascii, "%zu streams closed: %s", k.n,
                     id ? what : ascii);
}

/* ---- peers ----------------------------------------------------------------------------------- */

void gateway_do_RETRY(struct control_call *call)
{
    struct worker *w = of(call)->w;
    char ascii[DOMAIN_MAX + 1];
    struct peer *p = NULL;
    if (!domain_ascii(str_c(call->request->argv[0]), ascii)) {
        control_fail(call, CONTROL_USAGE, "'%.100s' is no domain", call->request->argv[0]);
        return;
    }
    HASH_FIND_STR(w->world.peers, ascii, p);
    if (p == NULL) {
        control_fail(call, CONTROL_NOT_FOUND, "nothing is known of %s: there is nothing to retry",
                     ascii);
        return;
    }
    peer_retry(p);
    operate_tell(&of(call)->operate, call, ascii, "%s is tried again now", ascii);
    json_c(&call->json, "peer", ascii);
    json_c(&call->json, "state", remote_state_name(remote_state_of(p->remote)));
}

/* "90", "30s", "5m", "1h", "2d" in ms; false: it is no time, or longer than a year. */
static bool parse_duration(const char *text, uint64_t *ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"", 1000}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    const uint64_t year = UINT64_C(366) * 86400000;
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    for (size_t i = 0; *text >= '0' && *text <= '9' && i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].unit) != 0)
            continue;
        *ms = n * units[i].ms;
        return n > 0 && n <= year / units[i].ms;
    }
    return false;
}

void gateway_do_BLOCK(struct control_call *call)
{
    const struct command_request *r = call->request;
    char pattern[BLOCK_PATTERN_MAX];
    uint64_t ms = 0;
    if (!block_pattern(str_c(r->argv[0]), pattern)) {
        control_fail(call, CONTROL_USAGE, "'%.100s' is neither a domain nor *.suffix", r->argv[0]);
        return;
    }
    if (r->argc > 1 && !parse_duration(r->argv[2], &ms)) {
        control_fail(call, CONTROL_USAGE, "'%.40s' is no time: 30s, 5m, 1h, 2d, up to a year",
                     r->argv[2]);
        return;
    }
    operate_tell(&of(call)->operate, call, pattern, "%s is blocked%s%s", pattern, ms ? " for " : "",
                 ms ? r->argv[2] : "");
    if (!worker_block(of(call)->w, pattern, ms, (unsigned)call->uid)) {
        control_fail(call, CONTROL_FAILED, "%d domains are blocked already, or memory is out",
                     BLOCKS_MAX);
        return;
    }
    json_c(&call->json, "blocked", pattern);
    if (ms != 0)
        json_seconds(&call->json, "for", (int64_t)ms);
}

void gateway_do_UNBLOCK(struct control_call *call)
{
    char pattern[BLOCK_PATTERN_MAX];
    const char *typed = call->request->argv[0];
    if (!block_pattern(str_c(typed), pattern) || !worker_unblock(of(call)->w, pattern)) {
        control_fail(call, CONTROL_NOT_FOUND, "'%.100s' is not blocked", typed);
        return;
    }
    operate_tell(&of(call)->operate, call, pattern, "%s is not blocked any more", pattern);
    json_c(&call->json, "unblocked", pattern);
}

void gateway_do_DNS_FLUSH(struct control_call *call)
{
    struct resolver_status s;
    resolver_status(of(call)->w->resolver, &s);
    resolver_flush(of(call)->w->resolver);
    operate_tell(&of(call)->operate, call, "", "what was looked up is forgotten");
    json_int(&call->json, "forgotten", (int64_t)s.cached);
}

/* ---- ping ------------------------------------------------------------------------------------ */

struct asked {
    struct ping ping; /* first */
    struct control_call *call;
    char to[COMMAND_LINE_MAX];
};

static void on_pong(struct ping *p, const char *condition, const char *text, uint64_t ms)
{
    struct asked *a = (struct asked *)p;
    struct control_call *call = a->call;
    if (condition != NULL) {
        control_fail(call, strcmp(condition, "timeout") == 0 ? CONTROL_TIMEOUT : CONTROL_FAILED,
                     "%s: %.200s", condition, text != NULL ? text : "");
    } else {
        json_c(&call->json, "jid", a->to);
        json_seconds(&call->json, "took", (int64_t)ms);
        json_c(&call->json, "answer", text != NULL ? text : "pong");
    }
    mem_free(a);
    control_done(call);
}

static void on_gone(struct control_call *call)
{
    struct asked *a = call->data;
    ping_cancel(&a->ping);
    mem_free(a);
}

/* The local domain that asks; NULL: the given one is not ours. */
static const char *asker(const struct control_call *call, char ascii[DOMAIN_MAX + 1])
{
    const struct gateway_config *c = of(call)->w->cfg;
    const struct command_request *r = call->request;
    if (r->argc == 1)
        return c->domains[0].name;
    bool ours = domain_ascii(str_c(r->argv[2]), ascii) && gateway_config_domain(c, str_c(ascii));
    return ours ? ascii : NULL;
}

/* Why it may not be asked; NULL: it may. */
static const char *ping_refusal(const struct worker *w, struct str local, struct str remote)
{
    if (gateway_config_domain(w->cfg, remote) != NULL)
        return "this domain is served inside: it is not reached through the world";
    struct policy_decision out = side_pair(&w->world.side, local, remote, WAY_OUT);
    struct policy_decision in = side_pair(&w->world.side, local, remote, WAY_IN);
    return out.verdict != POLICY_ALLOW ? out.rule : in.verdict != POLICY_ALLOW ? in.rule : NULL;
}

static void start_ping(struct control_call *call, const char *jid, const char *local,
                       const char *remote)
{
    struct asked *a = mem_zalloc(sizeof *a);
    if (a == NULL) {
        control_fail(call, CONTROL_FAILED, "out of memory");
        return;
    }
    a->call = call;
    a->ping.done = on_pong;
    str_copy(a->to, sizeof a->to, str_c(jid));
    const char *why = ping_start(&a->ping, of(call)->w, str_c(jid), str_c(local), str_c(remote));
    if (why != NULL) {
        control_fail(call, CONTROL_FAILED, "%s", why);
        mem_free(a);
        return;
    }
    call->data = a;
    control_later(call, on_gone);
}

void gateway_do_PING(struct control_call *call)
{
    const char *jid = call->request->argv[0];
    char ascii[DOMAIN_MAX + 1];
    struct jid j;
    struct domain remote;
    const char *local = asker(call, ascii);
    if (jid_prepare(str_c(jid), &j, &remote) != JID_OK) {
        control_fail(call, CONTROL_USAGE, "'%.100s' is no address", jid);
        return;
    }
    const char *why = local == NULL ? "the domain to ask from is not one of ours"
                                    : ping_refusal(of(call)->w, str_c(local), str_c(remote.ascii));
    if (why != NULL)
        control_fail(call, CONTROL_FAILED, "%s", why);
    else
        start_ping(call, jid, local, remote.ascii);
}
