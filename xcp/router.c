#include "xcp/router_priv.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "xcp/proven.h"

/* ---- listening ------------------------------------------------------------------------------- */

static void close_listeners(struct router *r)
{
    for (size_t i = 0; i < r->nlisteners; i++)
        listen_close(r->listeners[i]);
    mem_free(r->listeners);
    r->listeners = NULL;
    r->nlisteners = 0;
}

static void log_listening(const struct router *r, const struct listener *li)
{
    char at[ENDPOINT_TEXT];
    endpoint_text(listen_local(li), at);
    log_ev(&r->log, LOG_NOTICE, "router.listen", KV_C("addr", at));
}

static bool accepts(const struct router_config *cfg)
{
    for (size_t i = 0; i < cfg->nlinks; i++)
        if (cfg->links[i].transport == TRANSPORT_ACCEPT)
            return true;
    return false;
}

static bool bind_all(struct router *r, const struct router_config *cfg, char *why, size_t cap)
{
    size_t n = accepts(cfg) ? cfg->listen.nlinks : 0;
    r->listeners = mem_zalloc((n + 1) * sizeof *r->listeners);
    if (r->listeners == NULL) {
        str_copy(why, cap, STR("out of memory"));
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct endpoint at;
        char cause[LISTEN_WHY_MAX] = "not an address and port";
        struct listener *li = NULL;
        if (endpoint_parse(str_c(cfg->listen.links[i]), &at))
            li = listen_new(r->loop, &at, router_accept, r, cause);
        if (li == NULL) {
            str_copy(why, cap, str_c(cause));
            close_listeners(r);
            return false;
        }
        r->listeners[r->nlisteners++] = li;
        log_listening(r, li);
    }
    return true;
}

bool router_bind(struct router *r, char *why, size_t cap)
{
    return bind_all(r, r->snap->cfg, why, cap);
}

/* Of a router that ran without listeners, because no link was to be accepted. */
static bool bind_late(struct router *r, const struct router_config *cfg, struct buf *errors)
{
    char why[LISTEN_WHY_MAX];
    if (!r->started || r->draining || r->nlisteners > 0)
        return true;
    close_listeners(r); /* an empty list */
    if (bind_all(r, cfg, why, sizeof why))
        return true;
    buf_printf(errors, "%s\n", why);
    return false;
}

/* ---- applying a configuration ---------------------------------------------------------------- */

/* All that a new configuration needs, made before anything is changed. */
struct plan {
    struct router_snapshot *snap;
    struct routes *routes;
    struct router_link **links; /* old ones that stay, and new ones */
    bool *fresh;
    struct router_splice **splices; /* the same */
    bool *fresh_splices;
};

static struct router_link *find_link(const struct router *r, const char *name)
{
    for (size_t i = 0; r->snap != NULL && i < r->snap->cfg->nlinks; i++)
        if (strcmp(r->snap->cfg->links[i].name, name) == 0)
            return r->links[i];
    return NULL;
}

static struct router_splice *find_splice(const struct router *r, const char *name)
{
    for (size_t i = 0; r->snap != NULL && i < r->snap->cfg->nsplices; i++)
        if (strcmp(r->snap->cfg->splices[i].name, name) == 0)
            return r->splices[i];
    return NULL;
}

static void plan_free(struct plan *p)
{
    size_t n = p->snap != NULL ? p->snap->cfg->nlinks : 0;
    for (size_t i = 0; p->links != NULL && p->fresh != NULL && i < n; i++)
        if (p->fresh[i])
            mem_free(p->links[i]);
    n = p->snap != NULL ? p->snap->cfg->nsplices : 0;
    for (size_t i = 0; p->splices != NULL && p->fresh_splices != NULL && i < n; i++)
        if (p->fresh_splices[i])
            mem_free(p->splices[i]);
    routes_free(p->routes);
    mem_free(p->links);
    mem_free(p->fresh);
    mem_free(p->splices);
    mem_free(p->fresh_splices);
    router_snapshot_unref(p->snap);
}

/* What was proven by password before, now or in an earlier life of the program. */
static void recall_proven(const struct router_link *k, const struct rcfg_link *c,
                          struct link_trust *t)
{
    const char *name = c->proof.peer_name;
    t->proven = name != NULL && (strcmp(k->proven, name) == 0 ||
                                 proven_recall(c->proven_file, name, c->name, &k->router->log));
}

static bool plan_links(struct router *r, struct router_config *cfg, struct plan *p)
{
    bool ok = true;
    for (size_t i = 0; ok && i < cfg->nlinks; i++) {
        p->links[i] = find_link(r, cfg->links[i].name);
        p->fresh[i] = p->links[i] == NULL;
        if (p->fresh[i])
            p->links[i] = router_link_new(r);
        ok = p->links[i] != NULL;
        if (ok)
            recall_proven(p->links[i], &cfg->links[i], &p->snap->links[i].trust);
    }
    return ok;
}

static bool plan_splices(struct router *r, struct router_config *cfg, struct plan *p)
{
    bool ok = true;
    for (size_t i = 0; ok && i < cfg->nsplices; i++) {
        p->splices[i] = find_splice(r, cfg->splices[i].name);
        p->fresh_splices[i] = p->splices[i] == NULL;
        if (p->fresh_splices[i])
            p->splices[i] = router_splice_new(r);
        ok = p->splices[i] != NULL;
    }
    return ok;
}

static bool plan_make(struct router *r, struct router_config *cfg, struct plan *p,
                      struct buf *errors)
{
    *p = (struct plan){.snap = router_snapshot_new(cfg, errors)};
    if (p->snap == NULL)
        return false;
    p->routes = routes_new(cfg);
    p->links = mem_zalloc((cfg->nlinks + 1) * sizeof *p->links);
    p->fresh = mem_zalloc(cfg->nlinks + 1);
    p->splices = mem_zalloc((cfg->nsplices + 1) * sizeof *p->splices);
    p->fresh_splices = mem_zalloc(cfg->nsplices + 1);
    bool ok = p->routes != NULL && p->links != NULL && p->fresh != NULL && p->splices != NULL &&
              p->fresh_splices != NULL && plan_links(r, cfg, p) && plan_splices(r, cfg, p);
    if (ok)
        return true;
    buf_puts(errors, "out of memory\n");
    plan_free(p);
    return false;
}

static bool stays(const struct plan *p, const struct router_link *k)
{
    for (size_t i = 0; i < p->snap->cfg->nlinks; i++)
        if (p->links[i] == k)
            return true;
    return false;
}

static bool splice_stays(const struct plan *p, const struct router_splice *s)
{
    for (size_t i = 0; i < p->snap->cfg->nsplices; i++)
        if (p->splices[i] == s)
            return true;
    return false;
}

/* With the old table still in place: ends what went or changed. A link that is down begins anew,
 * too: what kept it down may be what the operator has just repaired, in a file or elsewhere. */
static void stop_old(struct router *r, const struct plan *p, bool *changed)
{
    for (size_t i = 0; i < p->snap->cfg->nlinks; i++) {
        struct router_link *k = p->links[i];
        changed[i] = p->fresh[i] || !router_link_same(k->cfg, &p->snap->cfg->links[i]) ||
                     !router_link_trusted(k, &p->snap->links[i]) || k->peer == NULL;
        if (changed[i] && !p->fresh[i])
            router_link_stop(k, "the configuration of the link has changed");
    }
    for (size_t i = 0; r->snap != NULL && i < r->snap->cfg->nlinks; i++)
        if (!stays(p, r->links[i]))
            router_link_stop(r->links[i], "the link has been removed from the configuration");
}

static void swap_links(struct router *r, struct plan *p)
{
    for (size_t i = 0; r->snap != NULL && i < r->snap->cfg->nlinks; i++)
        if (!stays(p, r->links[i]))
            router_link_remove(r->links[i]);
    for (size_t i = 0; i < p->snap->cfg->nlinks; i++) {
        p->links[i]->cfg = &p->snap->cfg->links[i];
        p->links[i]->index = i;
        routes_set_up(p->routes, i, p->links[i]->peer != NULL);
    }
}

/* Those that changed are ended and begin anew. */
static void swap_splices(struct router *r, struct plan *p)
{
    for (size_t i = 0; r->snap != NULL && i < r->snap->cfg->nsplices; i++)
        if (!splice_stays(p, r->splices[i]))
            router_splice_remove(r->splices[i]);
    for (size_t i = 0; i < p->snap->cfg->nsplices; i++)
        router_splice_set(p->splices[i], p->snap, i);
}

static void swap(struct router *r, struct plan *p)
{
    swap_links(r, p);
    swap_splices(r, p);
    struct plan old = {
        .snap = r->snap, .routes = r->routes, .links = r->links, .splices = r->splices};
    r->snap = p->snap;
    r->routes = p->routes;
    r->links = p->links;
    r->splices = p->splices;
    plan_free(&old); /* the links themselves live on: none of them is fresh */
    mem_free(p->fresh);
    mem_free(p->fresh_splices);
}

bool router_apply(struct router *r, struct router_config *cfg, struct buf *errors)
{
    struct plan p;
    bool *changed = mem_zalloc(cfg->nlinks + 1);
    if (changed == NULL)
        buf_puts(errors, "out of memory\n");
    if (changed == NULL || !plan_make(r, cfg, &p, errors)) {
        mem_free(changed);
        return false;
    }
    if (!bind_late(r, cfg, errors)) {
        plan_free(&p);
        mem_free(changed);
        return false;
    }
    stop_old(r, &p, changed);
    swap(r, &p);
    for (size_t i = 0; r->started && i < cfg->nlinks; i++)
        if (changed[i])
            router_link_start(r->links[i]);
    for (size_t i = 0; r->started && i < cfg->nsplices; i++)
        router_splice_start(r->splices[i]);
    mem_free(changed);
    return true;
}

bool router_check(struct router_config *cfg, struct buf *errors)
{
    struct router_snapshot *s = router_snapshot_new(cfg, errors);
    router_snapshot_unref(s);
    return s != NULL;
}

struct router_config *router_current(const struct router *r)
{
    return r->snap->cfg;
}

/* ---- beginning ------------------------------------------------------------------------------- */

static void finish(struct loop_task *t)
{
    struct router *r = CONTAINER_OF(t, struct router, finish);
    if (!r->draining || r->peers.count > 0 || r->joins.count > 0 || r->told)
        return;
    r->told = true;
    loop_timer_clear(r->loop, &r->deadline);
    log_ev(&r->log, LOG_NOTICE, "router.stop", KV_I("sessions", r->next_sid));
    r->ended(r->arg);
}

void router_peer_gone(struct router *r)
{
    if (r->draining && r->peers.count == 0 && r->joins.count == 0)
        loop_post(r->loop, &r->finish);
}

static void on_deadline(struct timer *t)
{
    router_stop(CONTAINER_OF(t, struct router, deadline));
}

struct router *router_new(struct loop *l, struct router_config *cfg, void (*ended)(void *arg),
                          void *arg, struct buf *errors)
{
    struct router *r = mem_zalloc(sizeof *r);
    if (r == NULL) {
        buf_puts(errors, "out of memory\n");
        return NULL;
    }
    r->loop = l;
    r->log = (struct log_ctx){.sink = l->log};
    r->ended = ended;
    r->arg = arg;
    r->finish.run = finish;
    r->deadline.fire = on_deadline;
    alarms_init(&r->alarms, &r->log);
    story_init(&r->story);
    r->alarms.story = &r->story;
    if (router_apply(r, cfg, errors))
        return r;
    mem_free(r);
    return NULL;
}

void router_start(struct router *r)
{
    r->started = true;
    log_ev(&r->log, LOG_NOTICE, "router.start", KV_C("config", r->snap->cfg->file),
           KV_I("links", r->snap->cfg->nlinks), KV_I("splices", r->snap->cfg->nsplices),
           KV_I("listeners", r->nlisteners));
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        router_link_start(r->links[i]);
    for (size_t i = 0; i < r->snap->cfg->nsplices; i++)
        router_splice_start(r->splices[i]);
}

/* ---- end ------------------------------------------------------------------------------------- */

static void begin_end(struct router *r)
{
    r->draining = true;
    close_listeners(r);
    loop_post(r->loop, &r->finish);
}

void router_drain(struct router *r)
{
    if (r->draining)
        return;
    begin_end(r);
    log_ev(&r->log, LOG_NOTICE, "router.drain", KV_I("connections", r->peers.count));
    bool armed = loop_timer_set(r->loop, &r->deadline, r->snap->cfg->timeouts.drain);
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        router_link_stop(r->links[i], "the router stops");
    for (size_t i = 0; i < r->snap->cfg->nsplices; i++)
        router_splice_stop(r->splices[i], "the router stops");
    LIST_FOREACH (&r->peers, n, following) { /* those that have no link yet */
        struct router_peer *p = CONTAINER_OF(n, struct router_peer, node);
        if (!p->ended)
            session_drain(&p->session, "the router stops");
    }
    if (!armed)
        router_stop(r);
}

void router_stop(struct router *r)
{
    if (!r->draining)
        begin_end(r);
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        router_link_stop(r->links[i], "the router stops");
    for (size_t i = 0; i < r->snap->cfg->nsplices; i++)
        router_splice_stop(r->splices[i], "the router stops");
    router_joins_end(r, "the router stops now");
    LIST_FOREACH (&r->peers, n, following) {
        struct router_peer *p = CONTAINER_OF(n, struct router_peer, node);
        if (!p->ended)
            router_peer_abort(p, "the router stops now");
    }
}

void router_free(struct router *r)
{
    if (r == NULL)
        return;
    close_listeners(r);
    loop_timer_clear(r->loop, &r->deadline);
    loop_unpost(r->loop, &r->finish);
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        router_link_remove(r->links[i]);
    for (size_t i = 0; i < r->snap->cfg->nsplices; i++)
        router_splice_remove(r->splices[i]);
    struct plan old = {
        .snap = r->snap, .routes = r->routes, .links = r->links, .splices = r->splices};
    plan_free(&old);
    alarms_free(&r->alarms);
    story_free(&r->story);
    mem_free(r);
}

/* ---- state ----------------------------------------------------------------------------------- */

static const char *link_state(const struct router_link *k)
{
    if (k->peer != NULL)
        return "up";
    if (k->dialled != NULL)
        return "handshake";
    return redial_busy(&k->redial) ? "connecting" : "down";
}

static void put_link(const struct router *r, const struct router_link *k, const struct kv_sink *to)
{
    const struct router_counters *c = &k->count;
    const struct kv kv[] = {KV_C("link", k->cfg->name),
                            KV_C("sid", k->peer ? k->peer->sid : NULL),
                            KV_C("role", k->cfg->role == ROLE_GATEWAY ? "gateway" : "server"),
                            KV_C("state", link_state(k)),
                            KV_SEC("since", loop_now(r->loop) - k->since_ms),
                            KV_I("ups", k->ups),
                            KV_I("in", c->in_stanzas),
                            KV_I("in_bytes", c->in_bytes),
                            KV_I("out", c->out_stanzas),
                            KV_I("out_bytes", c->out_bytes),
                            KV_I("bounced", c->bounced),
                            KV_I("dropped", c->dropped),
                            KV_I("refused", c->refused),
                            KV_I("queued", k->peer ? conn_queued(k->peer->session.conn) : 0),
                            KV_I("pausing", k->peer ? k->peer->blocked.count : 0),
                            KV_C("addr", k->peer ? k->peer->addr : NULL)};
    to->put(to->arg, "link.status", kv, sizeof kv / sizeof kv[0]);
}

void router_state_links(const struct router *r, const struct kv_sink *to)
{
    for (size_t i = 0; i < r->snap->cfg->nlinks; i++)
        put_link(r, r->links[i], to);
}

void router_state_splices(const struct router *r, const struct kv_sink *to)
{
    for (size_t i = 0; i < r->snap->cfg->nsplices; i++)
        router_splice_state(r->splices[i], to);
}

static void into_log(void *arg, const char *event, const struct kv *kv, size_t n)
{
    const struct router *r = arg;
    log_write(&r->log, LOG_NOTICE, event, kv, n);
}

void router_dump(struct router *r)
{
    const struct kv_sink to = {into_log, r};
    log_ev(&r->log, LOG_NOTICE, "router.status", KV_I("connections", r->peers.count),
           KV_I("pending", r->pending), KV_I("links", r->snap->cfg->nlinks));
    router_state_links(r, &to);
    router_state_splices(r, &to);
    alarms_dump(&r->alarms);
}

struct alarms *router_alarms(struct router *r)
{
    return &r->alarms;
}

struct story *router_story(struct router *r)
{
    return &r->story;
}
