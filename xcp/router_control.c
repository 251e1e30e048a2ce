#include "xcp/router_control.h"

#include "xcp/router_priv.h"

static struct router_control *of(const struct control_call *call)
{
    return call->arg;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void put_row(void *arg, const char *event, const struct kv *kv, size_t n)
{
    (void)event;
    control_row(arg, kv, n);
}

static void do_LINKS(struct control_call *call)
{
    control_rows(call, "links");
    router_state_links(of(call)->router, &(struct kv_sink){put_row, call});
    control_rows_end(call);
}

static void do_SPLICES(struct control_call *call)
{
    control_rows(call, "splices");
    router_state_splices(of(call)->router, &(struct kv_sink){put_row, call});
    control_rows_end(call);
}

static void put_route(struct control_call *call, const char *domain, const struct router_link *k)
{
    const struct kv kv[] = {KV_C("domain", domain), KV_C("link", k->cfg->name),
                            KV_C("role", k->cfg->role == ROLE_GATEWAY ? "gateway" : "server"),
                            KV_I("priority", k->cfg->priority),
                            KV_C("state", k->peer != NULL ? "up" : "down")};
    control_row(call, kv, sizeof kv / sizeof kv[0]);
}

static void do_ROUTES(struct control_call *call)
{
    const struct router *r = of(call)->router;
    control_rows(call, "routes");
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        for (size_t d = 0; d < r->links[i]->cfg->ndomains; d++)
            put_route(call, r->links[i]->cfg->domains[d], r->links[i]);
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        if (r->links[i]->cfg->role == ROLE_GATEWAY)
            put_route(call, "(every other domain)", r->links[i]);
    control_rows_end(call);
}

/* ---- sums ------------------------------------------------------------------------------------ */

static void do_STATUS(struct control_call *call)
{
    const struct router *r = of(call)->router;
    const struct router_config *c = r->snap->cfg;
    struct json *j = &call->json;
    size_t up = 0;
    operate_status(&of(call)->operate, call, "sallyport-router");
    for (size_t i = 0; i < c->nlinks; i++)
        up += r->links[i]->peer != NULL;
    json_int(j, "links", (int64_t)c->nlinks);
    json_int(j, "links_up", (int64_t)up);
    json_int(j, "splices", (int64_t)c->nsplices);
    json_int(j, "connections", (int64_t)r->peers.count);
    json_int(j, "connections_unproven", (int64_t)r->pending);
}

static void do_COUNTERS(struct control_call *call)
{
    const struct router *r = of(call)->router;
    struct router_counters sum = {0};
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++) {
        const struct router_counters *c = &r->links[i]->count;
        sum.in_stanzas += c->in_stanzas;
        sum.in_bytes += c->in_bytes;
        sum.out_stanzas += c->out_stanzas;
        sum.out_bytes += c->out_bytes;
        sum.bounced += c->bounced;
        sum.dropped += c->dropped;
        sum.refused += c->refused;
    }
    const struct kv kv[] = {KV_I("in", sum.in_stanzas),   KV_I("in_bytes", sum.in_bytes),
                            KV_I("out", sum.out_stanzas), KV_I("out_bytes", sum.out_bytes),
                            KV_I("bounced", sum.bounced), KV_I("dropped", sum.dropped),
                            KV_I("refused", sum.refused)};
    json_object(&call->json, "counters");
    json_fields(&call->json, kv, sizeof kv / sizeof kv[0]);
    json_end(&call->json);
}

/* ---- acts ------------------------------------------------------------------------------------ */

static void do_CLOSE(struct control_call *call)
{
    const struct router *r = of(call)->router;
    const char *name = call->request->argv[0];
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++) {
        struct router_link *k = r->links[i];
        if (strcmp(k->cfg->name, name) != 0 || k->peer == NULL)
            continue;
        session_drain(&k->peer->session, "closed by the operator");
        operate_tell(&of(call)->operate, call, name, "the connection of %s is closed", name);
        json_int(&call->json, "closed", 1);
        return;
    }
    control_fail(call, CONTROL_NOT_FOUND, "there is no link '%.100s' that is up", name);
}

static void do_AUTH_INFO(struct control_call *call)
{
    const struct router_config *c = of(call)->router->snap->cfg;
    json_array(&call->json, "identities");
    for (size_t i = 0; i < c->nlinks; i++) {
        const struct rcfg_link *k = &c->links[i];
        struct tls_identity id = {
            .domain = k->name, .certificate = k->proof.certificate, .key = k->proof.key};
        operate_identity(call, "link", k->name, &id);
    }
    for (size_t i = 0; i < c->nsplices; i++) {
        const struct rcfg_splice *s = &c->splices[i];
        struct tls_identity id = {
            .domain = s->name, .certificate = s->proof.certificate, .key = s->proof.key};
        operate_identity(call, "splice", s->name, &id);
    }
    json_end(&call->json);
}

/* ---- what every program has ------------------------------------------------------------------ */

#define COMMON(X)                                                                                  \
    X(ALARMS, operate_alarms)                                                                      \
    X(EVENTS, operate_events)                                                                      \
    X(CONFIG_SHOW, operate_config_show)                                                            \
    X(CONFIG_CHECK, operate_config_check)                                                          \
    X(CONFIG_RELOAD, operate_config_reload)                                                        \
    X(LOG_LEVEL, operate_log_level)                                                                \
    X(DRAIN, operate_drain)                                                                        \
    X(STOP, operate_stop)

#define X(id, function)                                                                            \
    static void do_##id(struct control_call *call)                                                 \
    {                                                                                              \
        function(&of(call)->operate, call);                                                        \
    }
COMMON(X)
#undef X

bool router_control_open(struct router_control *g, char why[CONTROL_WHY_MAX])
{
    static void (*const run[])(struct control_call *) = {
#define X(id, name, args, privilege, help) do_##id,
        ROUTER_COMMANDS(X)
#undef X
    };
    const struct router_config *c = router_current(g->router);
    if (!operate_open(&g->operate, &c->control, c->user, &router_commands, run, g, why))
        return false;
    operate_adopt(&g->operate, &c->control, c->events.file);
    return true;
}
