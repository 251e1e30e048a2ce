/* Commands that only look. */
#include "gateway/control.h"

#include <stdio.h>

#include "config/domains.h"
#include "core/base/mem.h"
#include "gateway/policy/policy.h"

bool gateway_control_open(struct gateway_control *g, char why[CONTROL_WHY_MAX])
{
    static void (*const run[])(struct control_call *) = {
#define X(id, name, args, privilege, help) gateway_do_##id,
        GATEWAY_COMMANDS(X)
#undef X
    };
    const struct gateway_config *c = g->w->cfg;
    if (!operate_open(&g->operate, &c->control, c->user, &gateway_commands, run, g, why))
        return false;
    operate_adopt(&g->operate, &c->control, c->events.file);
    return true;
}

static struct gateway_control *of(const struct control_call *call)
{
    return call->arg;
}

/* ---- rows of the worker's state -------------------------------------------------------------- */

struct rows {
    struct control_call *call;
    const char *event; /* only these; NULL: all */
};

static void put_row(void *arg, const char *event, const struct kv *kv, size_t n)
{
    const struct rows *r = arg;
    if (r->event == NULL || strcmp(r->event, event) == 0)
        control_row(r->call, kv, n);
}

/* The members of the "ok" object itself. */
static void put_fields(void *arg, const char *event, const struct kv *kv, size_t n)
{
    struct control_call *call = arg;
    (void)event;
    json_fields(&call->json, kv, n);
}

/* The peer of the command line as an A-label; p NULL when none is given. False: it is none. */
static bool get_peer(struct control_call *call, char ascii[DOMAIN_MAX + 1], struct str *out)
{
    *out = STR_NONE;
    if (call->request->argc == 0)
        return true;
    if (!domain_ascii(str_c(call->request->argv[0]), ascii)) {
        control_fail(call, CONTROL_USAGE, "'%.100s' is no domain", call->request->argv[0]);
        return false;
    }
    *out = str_c(ascii);
    return true;
}

static void put_filtered(struct control_call *call, const char *key,
                         void (*state)(struct worker *w, struct str peer, const struct kv_sink *to))
{
    char ascii[DOMAIN_MAX + 1];
    struct str peer;
    struct rows rows = {call, NULL};
    if (!get_peer(call, ascii, &peer))
        return;
    control_rows(call, key);
    state(of(call)->w, peer, &(struct kv_sink){put_row, &rows});
    control_rows_end(call);
}

void gateway_do_STREAMS(struct control_call *call)
{
    put_filtered(call, "streams", state_streams);
}

void gateway_do_PEERS(struct control_call *call)
{
    put_filtered(call, "peers", state_peers);
}

void gateway_do_PAIRS(struct control_call *call)
{
    put_filtered(call, "pairs", state_pairs);
}

static void put_all(struct control_call *call, const char *key, const char *event,
                    void (*state)(struct worker *w, const struct kv_sink *to))
{
    struct rows rows = {call, event};
    control_rows(call, key);
    state(of(call)->w, &(struct kv_sink){put_row, &rows});
    control_rows_end(call);
}

void gateway_do_QUEUES(struct control_call *call)
{
    const struct worker *w = of(call)->w;
    put_all(call, "queues", NULL, state_queues);
    json_int(&call->json, "stanzas", (int64_t)w->world.outq.count);
    json_int(&call->json, "bytes", (int64_t)w->world.outq.bytes);
    json_int(&call->json, "limit", (int64_t)w->world.outq.total);
}

void gateway_do_LINKS(struct control_call *call)
{
    put_all(call, "links", "state.link", state_links);
    put_all(call, "traffic", "state.link.traffic", state_links);
    put_all(call, "probes", "state.link.probes", state_links);
    put_all(call, "clocks", "state.link.clock", state_links);
    put_all(call, "routers", "state.link.router", state_links);
}

/* ---- status, counters ------------------------------------------------------------------------ */

void gateway_do_STATUS(struct control_call *call)
{
    struct worker *w = of(call)->w;
    const struct gateway_config *c = w->cfg;
    static const char *const privacy[] = {"off", "allow-list", "deny-list"};
    struct json *j = &call->json;
    size_t up = 0, lines = 0;
    operate_status(&of(call)->operate, call, "sallyport");
    json_bool(j, "federation", c->federation);
    json_c(j, "security_mode", policy_security_name((enum security_mode)c->security_mode));
    json_c(j, "privacy_mode", privacy[c->privacy_mode]);
    json_int(j, "domains", (int64_t)c->ndomains);
    for (size_t i = 0; i < w->nlinks; i++) {
        const struct link *k = w->links[i];
        for (size_t n = 0; n < k->nlines; n++, lines++)
            up += k->lines[n].up;
        lines += k->front != NULL;
        up += k->front != NULL && !k->front->down;
    }
    json_int(j, "links", (int64_t)lines);
    json_int(j, "links_up", (int64_t)up);
    json_int(j, "streams_in", (int64_t)w->world.in_proven.count);
    json_int(j, "streams_in_unproven", (int64_t)w->world.in_unproven.count);
    json_int(j, "streams_out", (int64_t)w->world.out.count);
    json_int(j, "peers", HASH_COUNT(w->world.peers));
    json_int(j, "blocked", (int64_t)w->blocks.list.count);
    json_int(j, "queued", (int64_t)w->world.outq.count);
    json_int(j, "held", (int64_t)(w->hold.items.count + link_queued(w)));
    if (w->reloaded_ms != 0)
        json_seconds(j, "reloaded", (int64_t)(loop_now(&w->loop) - w->reloaded_ms));
}

void gateway_do_COUNTERS(struct control_call *call)
{
    struct worker *w = of(call)->w;
    const struct kv_sink fields = {put_fields, call};
    put_all(call, "stanzas", NULL, state_books);
    if (call->request->argc > 0)
        return;
    json_object(&call->json, "counters");
    state_counters(w, &fields);
    json_end(&call->json);
}

void gateway_do_ALARMS(struct control_call *call)
{
    operate_alarms(&of(call)->operate, call);
}

void gateway_do_EVENTS(struct control_call *call)
{
    operate_events(&of(call)->operate, call);
}

/* ---- routes, names, certificates ------------------------------------------------------------- */

void gateway_do_ROUTES(struct control_call *call)
{
    const struct gateway_config *c = of(call)->w->cfg;
    json_bool(&call->json, "used", c->use_static_routes);
    control_rows(call, "routes");
    for (size_t i = 0; i < c->npeers; i++) {
        const struct cfg_peer *p = &c->peers[i];
        struct buf where = BUF_INIT(4096);
        schema_where(&gateway_schema, c, "peers", i, &where);
        for (size_t k = 0; k < p->nroute; k++) {
            const struct kv kv[] = {
                KV_C("peer", p->pattern), KV_I("order", k + 1), KV_C("route", p->route[k]),
                KV_C("used", c->use_static_routes && !p->expired ? "yes" : "no"),
                KV_S("origin", buf_view(&where))};
            control_row(call, kv, sizeof kv / sizeof kv[0]);
        }
        buf_free(&where);
    }
    control_rows_end(call);
}

void gateway_do_DNS(struct control_call *call)
{
    const struct worker *w = of(call)->w;
    struct resolver_status s;
    resolver_status(w->resolver, &s);
    json_array(&call->json, "servers");
    for (size_t i = 0; i < w->cfg->dns.nservers; i++)
        json_c(&call->json, NULL, w->cfg->dns.servers[i]);
    if (w->cfg->dns.nservers == 0)
        json_c(&call->json, NULL, "(the system's)");
    json_end(&call->json);
    json_int(&call->json, "cached", (int64_t)s.cached);
    json_int(&call->json, "asking", (int64_t)s.asking);
    json_int(&call->json, "waiting", (int64_t)s.waiting);
    put_all(call, "targets", NULL, state_targets);
}

void gateway_do_CERTS(struct control_call *call)
{
    put_all(call, "certificates", NULL, state_certificates);
}

void gateway_do_AUTH_INFO(struct control_call *call)
{
    const struct gateway_config *c = of(call)->w->cfg;
    json_array(&call->json, "identities");
    for (size_t i = 0; i < c->nlinks; i++) {
        const struct cfg_link *k = &c->links[i];
        const char *name = k->component != NULL ? k->component : k->name;
        struct tls_identity id = {.domain = name, .certificate = k->certificate, .key = k->key};
        operate_identity(call, "link", k->name, &id);
    }
    json_end(&call->json);
}

void gateway_do_CONFIG_SHOW(struct control_call *call)
{
    operate_config_show(&of(call)->operate, call);
}

/* ---- explain --------------------------------------------------------------------------------- */

/* The entry of peers that decided; NULL: none did. */
static const struct cfg_peer *find_entry(const struct gateway_config *c,
                                         const struct policy_decision *d, size_t *pos)
{
    bool found =
        d->by == POLICY_BY_PEER && schema_find(&gateway_schema, c, c->peers_entry, d->pattern, pos);
    return found ? &c->peers[*pos] : NULL;
}

static void put_origin(const struct gateway_config *c, const struct policy_decision *d, size_t peer,
                       struct buf *out)
{
    bool allow = d->by == POLICY_BY_ALLOW_FILE;
    const struct domain_list *l = allow ? c->allow : c->deny;
    size_t pos;
    if (d->by == POLICY_BY_PEER)
        schema_where(&gateway_schema, c, "peers", peer, out);
    else if ((allow || d->by == POLICY_BY_DENY_FILE) && domain_list_has(l, d->pattern.p, &pos))
        buf_printf(out, "%s:%u", allow ? c->allow_file : c->deny_file, l->line[pos]);
}

static void explain_rule(struct control_call *call, const struct policy_decision *d)
{
    struct json *j = &call->json;
    struct buf where = BUF_INIT(8192);
    size_t pos;
    const struct cfg_peer *p = find_entry(of(call)->w->cfg, d, &pos);
    put_origin(of(call)->w->cfg, d, pos, &where);
    json_c(j, "verdict", policy_verdict_name(d->verdict));
    json_c(j, "rule", d->rule);
    if (d->shadow)
        json_bool(j, "shadow", true);
    if (d->pattern.n)
        json_str(j, "entry", d->pattern);
    if (where.len > 0)
        json_str(j, "origin", buf_view(&where));
    if (p != NULL && p->comment != NULL)
        json_c(j, "comment", p->comment);
    buf_free(&where);
}

/* When it is not the same both ways. */
static void explain_ways(struct control_call *call, struct str local, struct str remote)
{
    const struct side *s = &of(call)->w->world.side;
    struct policy_decision in = side_pair(s, local, remote, WAY_IN);
    struct policy_decision out = side_pair(s, local, remote, WAY_OUT);
    if (in.verdict == out.verdict)
        return;
    bool closed_in = in.verdict != POLICY_ALLOW;
    json_c(&call->json, "direction", closed_in ? "out" : "in");
    json_c(&call->json, closed_in ? "in" : "out", closed_in ? in.rule : out.rule);
}

static void explain_inside(struct control_call *call, struct str local, struct str remote)
{
    struct worker *w = of(call)->w;
    uint64_t candidates = inward_candidates(w->inward, local, remote);
    json_array(&call->json, "links");
    for (size_t i = 0; i < w->nlinks; i++)
        if (candidates >> i & 1)
            json_c(&call->json, NULL, w->links[i]->kit->c->name);
    json_end(&call->json);
    json_bool(&call->json, "inside_reached",
              candidates != 0 && way_inside(w, local, remote, remote).up);
}

static void put_way(struct control_call *call, const struct cfg_peer *route)
{
    struct buf way = BUF_INIT(8192);
    for (size_t i = 0; route != NULL && i < route->nroute; i++)
        buf_printf(&way, "%s%s", i ? ", " : "", route->route[i]);
    json_str(&call->json, "way", way.len > 0 ? buf_view(&way) : STR("DNS (SRV)"));
    buf_free(&way);
}

static void explain_remote(struct control_call *call, struct str remote)
{
    struct worker *w = of(call)->w;
    const struct cfg_peer *route = policy_route(w->cfg, remote);
    struct peer *p;
    struct remote_status st;
    json_c(&call->json, "security_mode",
           policy_security_name(side_security(&w->world.side, remote)));
    put_way(call, route);
    HASH_FIND(hh, w->world.peers, remote.p, remote.n, p);
    json_c(&call->json, "state",
           p != NULL ? remote_state_name(remote_state_of(p->remote)) : "IDLE");
    if (p == NULL)
        return;
    remote_status(p->remote, &st);
    if (st.failures > 0)
        json_str(&call->json, "last_failure", st.why);
}

void gateway_do_EXPLAIN(struct control_call *call)
{
    const struct worker *w = of(call)->w;
    const char *const *argv = call->request->argv;
    char local[DOMAIN_MAX + 1], remote[DOMAIN_MAX + 1];
    if (!domain_ascii(str_c(argv[0]), local) || !domain_ascii(str_c(argv[1]), remote)) {
        control_fail(call, CONTROL_USAGE, "two domains are needed: a local and a remote one");
        return;
    }
    bool ours = gateway_config_domain(w->cfg, str_c(local)) != NULL;
    bool theirs = gateway_config_domain(w->cfg, str_c(remote)) == NULL;
    struct policy_decision d = side_pair(&w->world.side, str_c(local), str_c(remote), WAY_EITHER);
    if (!ours || !theirs)
        d = (struct policy_decision){.verdict = POLICY_DENY,
                                     .rule = ours ? "both domains are ours"
                                                  : "the first domain is not one of ours"};
    json_c(&call->json, "local", local);
    json_c(&call->json, "remote", remote);
    explain_rule(call, &d);
    if (!ours || !theirs)
        return;
    explain_ways(call, str_c(local), str_c(remote));
    explain_remote(call, str_c(remote));
    explain_inside(call, str_c(local), str_c(remote));
}
