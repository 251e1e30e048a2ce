/* The worker's life: creation, reload, drain, end. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "core/daemon/report.h"
#include "gateway/policy/policy.h"

enum { EXIT_CANNOT_LISTEN = 69, EXIT_CONFIG = 78, SESSIONS_KEPT = 1000 };
/* Until the next look at certificates: when nobody watches files, and when one was just written. */
enum { LOOK_MS = 60 * 60 * 1000, SOON_MS = 3000 };

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

static const char SECRET_MISMATCH[] = "dialback.secret-mismatch";

/* With another secret, what was known of the former says nothing. */
static void forget_mismatch(struct worker *w)
{
    memset(&w->secret_watch, 0, sizeof w->secret_watch);
    alarm_clear_kind(&w->alarms, SECRET_MISMATCH, loop_now(&w->loop));
}

static void set_secrets(struct worker *w)
{
    const struct gateway_config *c = w->cfg;
    const char *old = w->secrets.current;
    w->secrets.current = c->dialback.secret ? c->dialback.secret : w->random_secret;
    w->secrets.previous = c->dialback.previous_secrets;
    w->secrets.nprevious = c->dialback.nprevious;
    if (old != NULL && strcmp(old, w->secrets.current) != 0)
        forget_mismatch(w);
}

void worker_vouched(struct worker *w, const struct db_request *q, bool good)
{
    secret_watch_asked(&w->secret_watch, q->local, q->remote, q->stream_id, good,
                       loop_now(&w->loop));
}

static void tell_mismatch(struct worker *w, const struct db_request *key, enum secret_verdict v)
{
    char local[DOMAIN_MAX + 1], text[ALARM_TEXT_MAX];
    const uint64_t now = loop_now(&w->loop);
    str_copy(local, sizeof local, key->local);
    if (v == SECRET_AGREES) {
        alarm_clear(&w->alarms, SECRET_MISMATCH, local, now);
        return;
    }
    (void)snprintf(text, sizeof text, "%s; last: %.*s",
                   v == SECRET_DIFFERS
                       ? "our dialback keys are invalid to peers that did not ask us: another "
                         "gateway of this domain has another secret; compare \"dialback\" of "
                         "--auth-info"
                       : "we do not know our own dialback keys any more: is the former secret "
                         "missing in dialback.previous_secret_files?",
                   STR_ARG(key->remote));
    alarm_raise(&w->alarms, SECRET_MISMATCH, local, text, now);
}

void worker_key_answered(const struct out_session *o, const struct gw_action *pair)
{
    struct worker *w = o->w;
    const uint64_t now = loop_now(&w->loop);
    const struct db_request key = {pair->u.pair.local, pair->u.pair.remote, str_c(o->m.id),
                                   STR_NONE};
    enum secret_verdict v = SECRET_NOTHING;
    if (o->front->link != NULL ||
        (o->m.authenticated && str_is(key.local, o->m.local) && str_is(key.remote, o->m.remote)))
        return; /* proven by other means */
    if (pair->u.pair.result == PAIR_INVALID)
        v = secret_watch_refused(&w->secret_watch, key.local, key.remote, key.stream_id, now);
    else if (pair->u.pair.result == PAIR_VALID)
        v = secret_watch_accepted(&w->secret_watch, key.local, key.remote, key.stream_id, now);
    if (v != SECRET_NOTHING)
        tell_mismatch(w, &key, v);
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

static void adopt(struct worker *w, struct gateway_config *cfg, struct certs *certs)
{
    bool first = w->cfg == NULL;
    const struct certs_env env = worker_certs_env(w);
    w->cfg = gateway_config_ref(cfg);
    set_secrets(w);
    set_limits(w);
    if (first)
        front_init(&w->world, w, NULL, certs);
    else
        front_adopt(&w->world, NULL, certs);
    if (first)
        certs_begin(certs, NULL, &env);
    rules_adopt(w);
    /* The links go last: what the others have to say about the old snapshot passes through them. */
}

static struct certs *certs_of(struct worker *w, const struct gateway_config *c,
                              struct tls_identity *ids, const char **ca_files, struct buf *why)
{
    size_t nca_files = 0;
    for (size_t i = 0; i < c->ndomains; i++)
        ids[i] = (struct tls_identity){.domain = c->domains[i].name,
                                       .certificate = c->domains[i].certificate,
                                       .key = c->domains[i].key,
                                       .client_certificate = c->domains[i].client_certificate,
                                       .client_key = c->domains[i].client_key};
    for (size_t i = 0; i < c->npeers; i++)
        if (c->peers[i].ca_file != NULL)
            ca_files[nca_files++] = c->peers[i].ca_file;
    struct tls_settings s = {.identities = ids,
                             .nidentities = c->ndomains,
                             .ca_file = c->tls.ca_file,
                             .ca_files = ca_files,
                             .nca_files = nca_files,
                             .crl_file = c->tls.crl_file,
                             .sessions = SESSIONS_KEPT,
                             .minimum = c->tls.minimum};
    const struct certs_before old = {w->world.certs, worker_certs_env(w).now};
    return certs_new(&s, NULL, &old, why);
}

static struct certs *make_certs(struct worker *w, const struct gateway_config *c, struct buf *why)
{
    struct tls_identity *ids = mem_zalloc(c->ndomains * sizeof *ids);
    const char **ca_files = mem_zalloc((c->npeers + 1) * sizeof *ca_files);
    struct certs *certs =
        ids != NULL && ca_files != NULL ? certs_of(w, c, ids, ca_files, why) : NULL;
    mem_free(ids);
    mem_free(ca_files);
    return certs;
}

static struct resolver *make_resolver(struct worker *w, const struct gateway_config *c,
                                      struct buf *why)
{
    char text[DNS_TEXT_MAX] = "out of memory";
    struct resolver_settings s = {c->dns.servers, c->dns.nservers, c->dns.timeout, c->dns.trust_ad};
    struct resolver *r = resolver_new(&w->loop, &s, text);
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
}

static void tell_warnings(struct worker *w, struct buf *why)
{
    if (why->len > 0)
        log_ev(&w->ctx, LOG_WARN, "tls.warning", KV_S("msg", str_trim(buf_view(why))));
    buf_clear(why);
}

/* ---- certificates that are renewed ----------------------------------------------------------- */

struct certs_env worker_certs_env(struct worker *w)
{
    int64_t now = 0;
    (void)env_wall(w->loop.env, &now);
    return (struct certs_env){&w->alarms, &w->ctx, loop_now(&w->loop), now / 1000};
}

static void look_again(struct worker *w, bool soon);

static void on_certs_timer(struct timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, certs_timer);
    const struct certs_env env = worker_certs_env(w);
    const bool files = w->cfg->tls.watch > 0;
    certs_look(w->world.certs, files, &env);
    const bool soon = link_look(w, files);
    look_again(w, soon || certs_unsettled(w->world.certs));
}

/* Files that nobody watches: their ends come all the same. */
static void look_again(struct worker *w, bool soon)
{
    uint64_t ms = w->cfg->tls.watch > 0 ? w->cfg->tls.watch : LOOK_MS;
    w->certs_timer.fire = on_certs_timer;
    loop_timer_set(&w->loop, &w->certs_timer, soon && ms > SOON_MS ? SOON_MS : ms);
}

/* ---- start ----------------------------------------------------------------------------------- */

static bool open_world(struct worker *w, const struct gateway_config *cfg, struct buf *why)
{
    struct accept_doors at = {cfg->listen.s2s, cfg->listen.ns2s, cfg->listen.direct_tls,
                              cfg->listen.ndirect_tls};
    return !cfg->federation || accept_open(&w->world, &at, why);
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
    struct certs *certs = make_certs(w, cfg, why);
    bool planned = link_plan_make(&links, w, cfg, why); /* all problems at once */
    w->resolver = certs != NULL && planned ? make_resolver(w, cfg, why) : NULL;
    if (w->resolver == NULL) {
        if (planned)
            link_plan_free(&links);
        certs_free(certs);
        return false;
    }
    tell_warnings(w, why);
    tell_about_files(w, cfg);
    w->started_ms = loop_now(&w->loop);
    adopt(w, cfg, certs);
    look_again(w, false);
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
    struct certs *certs;
    struct resolver *resolver;
    struct link_plan links;
};

static bool make_parts(struct worker *w, struct gateway_config *cfg, struct parts *p,
                       struct buf *why)
{
    *p = (struct parts){.certs = make_certs(w, cfg, why)};
    bool planned = link_plan_make(&p->links, w, cfg, why);
    p->resolver = p->certs != NULL && planned ? make_resolver(w, cfg, why) : NULL;
    if (p->resolver != NULL && open_world(w, cfg, why))
        return true;
    if (p->resolver != NULL)
        resolver_close(p->resolver);
    if (planned)
        link_plan_free(&p->links);
    certs_free(p->certs);
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
    adopt(w, cfg, parts.certs);
    look_again(w, false);
    if (!link_apply(w, &parts.links, is_changed, &r, why))
        log_ev(&w->ctx, LOG_ERROR, "link.listen.failed", KV_S("msg", str_trim(buf_view(why))));
    buf_clear(why);
    if (r.federation && !cfg->federation)
        accept_close(&w->world);
    peer_retry_all(&w->world); /* what has kept us from a peer may be what was mended */
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
    loop_timer_clear(&w->loop, &w->hold.timer);
    loop_timer_clear(&w->loop, &w->drain_timer);
    loop_timer_clear(&w->loop, &w->blocks_timer);
    rules_close(w);
    loop_timer_clear(&w->loop, &w->certs_timer);
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

static void dump_secrets(const struct worker *w)
{
    char text[DIALBACK_FINGERPRINT];
    if (dialback_fingerprint(text, str_c(w->secrets.current)))
        log_ev(&w->ctx, LOG_NOTICE, "state.dialback", KV_C("secret", text),
               KV_C("source", w->cfg->dialback.secret != NULL ? "config" : "random"),
               KV_I("previous", w->secrets.nprevious));
}

void worker_dump(struct worker *w)
{
    const struct kv_sink to = {into_log, w};
    state_books(w, &to);
    state_counters(w, &to);
    state_totals(w, &to);
    dump_secrets(w);
    state_certificates(w, &to);
    state_links(w, &to);
    alarms_dump(&w->alarms);
    state_peers(w, STR_NONE, &to);
}
