/* The worker's life: creation, reload, drain, end. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "core/daemon/report.h"
#include "gateway/policy/policy.h"

enum { EXIT_CANNOT_LISTEN = 69, EXIT_CONFIG = 78 };

uint32_t worker_sid(struct worker *w)
{
    return ++w->next_sid;
}

bool worker_own_address(const struct ip *ip)
{
    static const struct cidr loopback4 = {{{127}, 4}, 8};
    static const struct cidr loopback6 = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 16},
                                          128};
    if (cidr_has(&loopback4, ip) || cidr_has(&loopback6, ip))
        return true;
    uv_interface_address_t *list = NULL;
    int n = 0;
    bool found = false;
    if (uv_interface_addresses(&list, &n) != 0)
        return false;
    for (int i = 0; i < n && !found; i++) {
        struct endpoint e;
        found = addr_to_endpoint((struct sockaddr *)&list[i].address, &e) && ip_equal(&e.ip, ip);
    }
    uv_free_interface_addresses(list, n);
    return found;
}

/* ---- what follows from a snapshot ------------------------------------------------------------ */

static void set_secrets(struct worker *w)
{
    const struct gateway_config *c = w->cfg;
    w->secrets.current = c->dialback.secret ? c->dialback.secret : w->random_secret;
    w->secrets.previous = c->dialback.previous_secrets;
    w->secrets.nprevious = c->dialback.nprevious;
}

static void set_limits(struct worker *w)
{
    const struct gateway_config *c = w->cfg;
    w->limits_unproven = framer_limits_unauthenticated;
    w->limits_unproven.header = w->limits_unproven.element = c->limits.unauthenticated_size;
    w->limits_proven = framer_limits_default;
    w->limits_proven.element = c->limits.stanza_size;
    w->limits_link = framer_limits_default;
    w->limits_link.element = 4 * c->limits.stanza_size; /* the inside is not a stranger */
}

static void adopt(struct worker *w, struct gateway_config *cfg, struct tls_ctx *tls)
{
    bool first = w->cfg == NULL;
    w->cfg = gateway_config_ref(cfg);
    set_secrets(w);
    set_limits(w);
    if (first)
        front_init(&w->world, w, NULL, tls);
    else
        front_adopt(&w->world, NULL, tls);
    rules_adopt(w);
    /* The links go last: what the others have to say about the old snapshot passes through them. */
}

static struct tls_ctx *make_tls(const struct gateway_config *c, struct buf *why)
{
    struct tls_identity *ids = mem_zalloc(c->ndomains * sizeof *ids);
    if (ids == NULL)
        return NULL;
    for (size_t i = 0; i < c->ndomains; i++)
        ids[i] =
            (struct tls_identity){c->domains[i].name, c->domains[i].certificate, c->domains[i].key};
    struct tls_settings s = {.identities = ids,
                             .nidentities = c->ndomains,
                             .ca_file = c->tls.ca_file,
                             .minimum = c->tls.minimum};
    struct tls_ctx *t = tls_ctx_new(&s, why);
    mem_free(ids);
    return t;
}

static struct resolver *make_resolver(struct worker *w, const struct gateway_config *c,
                                      struct buf *why)
{
    char text[DNS_TEXT_MAX] = "out of memory";
    struct resolver *r =
        resolver_new(&w->loop, c->dns.servers, c->dns.nservers, c->dns.timeout, text);
    if (r == NULL)
        buf_printf(why, "dns.servers: %s\n", text);
    return r;
}

static void tell_about_files(struct worker *w, const struct gateway_config *c)
{
    if (c->dialback.secret == NULL)
        log_ev(&w->ctx, LOG_NOTICE, "dialback.secret.random",
               KV_C("msg", "no dialback.secret_file: a random secret for this run; several gateways"
                           " for one domain need a common one"));
    for (size_t i = 0; i < c->ndomains; i++)
        if (c->domains[i].certificate == NULL)
            log_ev(&w->ctx, LOG_NOTICE, "tls.certificate.made", KV_C("domain", c->domains[i].name),
                   KV_C("msg", "no certificate configured: a self-signed one was made"));
}

static void tell_warnings(struct worker *w, struct buf *why)
{
    if (why->len > 0)
        log_ev(&w->ctx, LOG_WARN, "tls.warning", KV_S("msg", str_trim(buf_view(why))));
    buf_clear(why);
}

static bool open_world(struct worker *w, const struct gateway_config *cfg, struct buf *why)
{
    return !cfg->federation || accept_open(&w->world, cfg->listen.s2s, cfg->listen.ns2s, why);
}

static bool always(void *arg, const char *name)
{
    (void)arg, (void)name;
    return true;
}

bool worker_start(struct worker *w, struct log *log, struct gateway_config *cfg, struct buf *why,
                  int *exit_code)
{
    memset(w, 0, sizeof *w);
    w->log = log;
    w->ctx = (struct log_ctx){.sink = log};
    alarms_init(&w->alarms, &w->ctx);
    story_init(&w->story);
    w->alarms.story = &w->story;
    hold_init(w);
    *exit_code = 1;
    if (!env_hex_id(&env_system, w->random_secret, 32)) {
        buf_puts(why, "no randomness to be had from the system\n");
        return false;
    }
    if (!loop_init(&w->loop, &env_system, log)) {
        buf_puts(why, "the event loop cannot be made\n");
        return false;
    }
    *exit_code = EXIT_CONFIG;
    struct link_plan links;
    struct tls_ctx *tls = make_tls(cfg, why);
    bool planned = link_plan_make(&links, cfg, why); /* all problems at once */
    w->resolver = tls != NULL && planned ? make_resolver(w, cfg, why) : NULL;
    if (w->resolver == NULL) {
        if (planned)
            link_plan_free(&links);
        tls_ctx_unref(tls);
        return false;
    }
    tell_warnings(w, why);
    tell_about_files(w, cfg);
    w->started_ms = loop_now(&w->loop);
    adopt(w, cfg, tls);
    *exit_code = EXIT_CANNOT_LISTEN;
    if (open_world(w, cfg, why))
        return link_apply(w, &links, always, NULL, why);
    link_plan_free(&links);
    return false;
}

/* ---- reload ---------------------------------------------------------------------------------- */

struct reload {
    struct worker *w;
    bool dns, federation;
    uint64_t links; /* bit i: links[i] of the old snapshot has changed or gone */
};

/* "links[core].address" names the link. */
static void link_changed(struct reload *r, const char *key)
{
    const struct gateway_config *c = r->w->cfg;
    static const char list[] = "links[";
    if (strncmp(key, list, sizeof list - 1) != 0)
        return;
    struct str name = {key + sizeof list - 1, strcspn(key + sizeof list - 1, "]")};
    for (size_t i = 0; i < c->nlinks; i++)
        if (str_is(name, c->links[i].name))
            r->links |= UINT64_C(1) << i;
}

static void on_change(void *arg, const struct config_change *c)
{
    struct reload *r = arg;
    report_change(&r->w->ctx, c);
    if (r->w->on_change != NULL)
        r->w->on_change(r->w->on_change_arg, c);
    link_changed(r, c->key);
    r->dns = r->dns || strncmp(c->key, "dns.", 4) == 0;
    r->federation = r->federation || strcmp(c->key, "federation") == 0;
}

/* Asked while w->links are still those of the old snapshot. */
static bool is_changed(void *arg, const char *name)
{
    const struct reload *r = arg;
    const struct worker *w = r->w;
    for (size_t i = 0; i < w->nlinks; i++)
        if (strcmp(w->links[i]->kit->c->name, name) == 0)
            return (r->links >> i) & 1;
    return true;
}

/* What a new snapshot needs, made before anything is changed. */
struct parts {
    struct tls_ctx *tls;
    struct resolver *resolver;
    struct link_plan links;
};

static bool make_parts(struct worker *w, struct gateway_config *cfg, struct parts *p,
                       struct buf *why)
{
    *p = (struct parts){.tls = make_tls(cfg, why)};
    bool planned = link_plan_make(&p->links, cfg, why);
    p->resolver = p->tls != NULL && planned ? make_resolver(w, cfg, why) : NULL;
    if (p->resolver != NULL && open_world(w, cfg, why))
        return true;
    if (p->resolver != NULL)
        resolver_close(p->resolver);
    if (planned)
        link_plan_free(&p->links);
    tls_ctx_unref(p->tls);
    return false;
}

static void change_resolver(struct worker *w, struct resolver *resolver, bool changed)
{
    struct resolver *unused = resolver;
    if (changed) {
        /* Lookups under way end with their resolver and are asked again. */
        peer_forget_lookups(&w->world);
        unused = w->resolver;
        w->resolver = resolver;
    }
    resolver_close(unused);
}

bool worker_reload(struct worker *w, struct gateway_config *cfg, struct buf *why)
{
    struct parts parts;
    if (!make_parts(w, cfg, &parts, why))
        return false;
    tell_warnings(w, why);
    struct reload r = {.w = w};
    size_t changes = rules_diff(w, cfg, on_change, &r);
    struct gateway_config *old = w->cfg;
    tell_about_files(w, cfg);
    change_resolver(w, parts.resolver, r.dns);
    adopt(w, cfg, parts.tls);
    if (!link_apply(w, &parts.links, is_changed, &r, why))
        log_ev(&w->ctx, LOG_ERROR, "link.listen.failed", KV_S("msg", str_trim(buf_view(why))));
    buf_clear(why);
    if (r.federation && !cfg->federation)
        accept_close(&w->world);
    gateway_config_unref(old);
    report_reloaded(&w->ctx, cfg->file, changes);
    w->reloaded_ms = loop_now(&w->loop);
    story_tell(&w->story, "config.reloaded", "", "%zu settings of %s have changed", changes,
               cfg->file);
    return true;
}

/* ---- drain and end --------------------------------------------------------------------------- */

static void on_drain_timer(struct timer *t)
{
    worker_drain_now(CONTAINER_OF(t, struct worker, drain_timer));
}

static void on_drain_check(struct loop_task *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, drain_check);
    if (!w->draining || !front_quiet(&w->world))
        return;
    /* The links go last: the bounces of everything else pass through them. */
    if (!w->links_draining)
        link_drain(w, false);
    w->links_draining = true;
    if (!link_quiet(w) || w->drained == NULL)
        return;
    void (*drained)(void *arg) = w->drained;
    w->drained = NULL;
    loop_timer_clear(&w->loop, &w->drain_timer);
    drained(w->drained_arg);
}

void worker_check_drained(struct worker *w)
{
    if (w->draining)
        loop_post(&w->loop, &w->drain_check);
}

void worker_drain(struct worker *w, void (*drained)(void *arg), void *arg)
{
    if (w->draining)
        return;
    w->draining = true;
    w->drained = drained;
    w->drained_arg = arg;
    w->drain_check.run = on_drain_check;
    w->drain_timer.fire = on_drain_timer;
    loop_timer_set(&w->loop, &w->drain_timer, w->cfg->timeouts.drain);
    log_ev(&w->ctx, LOG_NOTICE, "gateway.draining",
           KV_I("streams_in", w->world.in_unproven.count + w->world.in_proven.count),
           KV_I("streams_out", w->world.out.count), KV_I("queued", w->world.outq.count));
    accept_close(&w->world);
    hold_fail_all(w); /* while there still are streams to answer on */
    front_drain(&w->world, false);
    worker_check_drained(w);
}

void worker_drain_now(struct worker *w)
{
    front_drain(&w->world, true);
    link_drain(w, true);
    w->links_draining = true;
    worker_check_drained(w);
}

void worker_close(struct worker *w)
{
    front_close(&w->world);
    link_close(w);
    loop_unpost(&w->loop, &w->hold.sweep);
    loop_timer_clear(&w->loop, &w->drain_timer);
    loop_timer_clear(&w->loop, &w->blocks_timer);
    rules_close(w);
    if (w->resolver != NULL)
        resolver_close(w->resolver);
    w->resolver = NULL;
    loop_close(&w->loop);
    alarms_free(&w->alarms);
    story_free(&w->story);
    blocks_free(&w->blocks);
    gateway_config_unref(w->cfg);
    digest_wipe(w->random_secret, sizeof w->random_secret);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void blocks_changed(struct worker *w)
{
    uint64_t due, now = loop_now(&w->loop);
    if (blocks_due(&w->blocks, &due))
        loop_timer_set(&w->loop, &w->blocks_timer, due > now ? due - now : 1);
    else
        loop_timer_clear(&w->loop, &w->blocks_timer);
    accept_policy_changed(&w->world);
    peer_policy_changed(&w->world);
}

static void on_block_over(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, blocks_timer);
    struct block k;
    while (blocks_expire(&w->blocks, loop_now(&w->loop), &k)) {
        log_ev(&w->ctx, LOG_NOTICE, "peer.unblocked", KV_C("peer", k.pattern),
               KV_C("reason", "expired"));
        story_tell(&w->story, "unblocked", k.pattern, "the block on %s is over", k.pattern);
    }
    blocks_changed(w);
}

bool worker_block(struct worker *w, const char *pattern, uint64_t ms, unsigned by)
{
    uint64_t now = loop_now(&w->loop);
    w->blocks_timer.fire = on_block_over;
    if (!blocks_add(&w->blocks, pattern, now, ms ? now + ms : 0, by))
        return false;
    log_ev(&w->ctx, LOG_NOTICE, "peer.blocked", KV_C("peer", pattern), KV_SEC("for", ms),
           KV_I("by", by));
    blocks_changed(w);
    return true;
}

bool worker_unblock(struct worker *w, const char *pattern)
{
    if (!blocks_remove(&w->blocks, pattern))
        return false;
    log_ev(&w->ctx, LOG_NOTICE, "peer.unblocked", KV_C("peer", pattern),
           KV_C("reason", "operator"));
    blocks_changed(w);
    return true;
}

/* ---- state into the log ---------------------------------------------------------------------- */

static void into_log(void *arg, const char *event, const struct kv *kv, size_t n)
{
    const struct worker *w = arg;
    log_write(&w->ctx, LOG_NOTICE, event, kv, n);
}

void worker_dump(struct worker *w)
{
    const struct kv_sink to = {into_log, w};
    state_books(w, &to);
    state_counters(w, &to);
    state_totals(w, &to);
    state_links(w, &to);
    alarms_dump(&w->alarms);
    state_peers(w, STR_NONE, &to);
}
