/* The worker's life: creation, reload, drain, end. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "core/daemon/report.h"
#include "gateway/policy/policy.h"

enum { ASKS_PER_PEER = 256, EXIT_CANNOT_LISTEN = 69, EXIT_CONFIG = 78 };

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
    w->outq.max_bytes = c->limits.queue_bytes;
    w->outq.max_count = c->limits.queue_stanzas;
    w->outq.total = c->limits.queue_total;
    w->remote_settings = (struct remote_settings){.queue_ms = c->timeouts.queue,
                                                  .setup_ms = 2 * c->timeouts.auth,
                                                  .asks_max = ASKS_PER_PEER,
                                                  .pairs_max = c->limits.pairs_per_stream};
}

static void adopt(struct worker *w, struct gateway_config *cfg, struct tls_ctx *tls)
{
    struct gateway_config *old = w->cfg;
    w->cfg = gateway_config_ref(cfg);
    tls_ctx_unref(w->tls);
    w->tls = tls;
    set_secrets(w);
    set_limits(w);
    if (old == NULL)
        return;
    accept_policy_changed(w);
    peer_policy_changed(w);
    /* The link goes last: what the others have to say about the old snapshot passes through it. */
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

bool worker_start(struct worker *w, struct log *log, struct gateway_config *cfg, struct buf *why,
                  int *exit_code)
{
    memset(w, 0, sizeof *w);
    w->log = log;
    w->ctx = (struct log_ctx){.sink = log};
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
    struct tls_ctx *tls = make_tls(cfg, why);
    w->resolver = tls ? make_resolver(w, cfg, why) : NULL;
    if (tls == NULL || w->resolver == NULL) {
        tls_ctx_unref(tls);
        return false;
    }
    tell_warnings(w, why);
    tell_about_files(w, cfg);
    adopt(w, cfg, tls);
    *exit_code = EXIT_CANNOT_LISTEN;
    if (!accept_open(w, cfg, why))
        return false;
    link_open(w);
    return true;
}

/* ---- reload ---------------------------------------------------------------------------------- */

struct reload {
    struct worker *w;
    bool link, dns, federation;
};

static void on_change(void *arg, const struct config_change *c)
{
    struct reload *r = arg;
    report_change(&r->w->ctx, c);
    r->link = r->link || strncmp(c->key, "links", 5) == 0;
    r->dns = r->dns || strncmp(c->key, "dns.", 4) == 0;
    r->federation = r->federation || strcmp(c->key, "federation") == 0;
}

bool worker_reload(struct worker *w, struct gateway_config *cfg, struct buf *why)
{
    struct tls_ctx *tls = make_tls(cfg, why);
    struct resolver *resolver = tls ? make_resolver(w, cfg, why) : NULL;
    if (resolver == NULL || !accept_open(w, cfg, why)) {
        if (resolver != NULL)
            resolver_close(resolver);
        tls_ctx_unref(tls);
        return false;
    }
    tell_warnings(w, why);
    struct reload r = {.w = w};
    size_t changes = gateway_config_diff(w->cfg, cfg, on_change, &r);
    struct gateway_config *old = w->cfg;
    tell_about_files(w, cfg);
    if (r.dns) {
        /* Lookups under way end with their resolver and are asked again. */
        peer_forget_lookups(w);
        resolver_close(w->resolver);
        w->resolver = resolver;
    } else {
        resolver_close(resolver);
    }
    adopt(w, cfg, tls);
    link_reload(w, r.link);
    if (r.federation && !cfg->federation)
        accept_close(w);
    gateway_config_unref(old);
    report_reloaded(&w->ctx, cfg->file, changes);
    return true;
}

/* ---- drain and end --------------------------------------------------------------------------- */

static void on_drain_timer(struct timer *t)
{
    worker_drain_now(CONTAINER_OF(t, struct worker, drain_timer));
}

static bool streams_gone(const struct worker *w)
{
    return w->in_unproven.count + w->in_proven.count == 0 && w->out.count == 0;
}

static void on_drain_check(struct loop_task *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, drain_check);
    if (!w->draining || !streams_gone(w))
        return;
    /* The link goes last: the bounces of everything else pass through it. */
    if (!w->link.stopping)
        link_drain(w, false);
    if (w->link_sessions > 0 || w->drained == NULL)
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
           KV_I("streams_in", w->in_unproven.count + w->in_proven.count),
           KV_I("streams_out", w->out.count), KV_I("queued", w->outq.count));
    accept_close(w);
    link_bounce_held(w); /* while there still are streams to answer on */
    peer_drain(w, false);
    accept_drain(w, false);
    worker_check_drained(w);
}

void worker_drain_now(struct worker *w)
{
    accept_close(w);
    accept_drain(w, true);
    peer_drain(w, true);
    link_drain(w, true);
    worker_check_drained(w);
}

void worker_close(struct worker *w)
{
    accept_close(w);
    peer_free_all(w);
    link_close(w);
    loop_timer_clear(&w->loop, &w->drain_timer);
    if (w->resolver != NULL)
        resolver_close(w->resolver);
    w->resolver = NULL;
    loop_close(&w->loop);
    tls_ctx_unref(w->tls);
    gateway_config_unref(w->cfg);
    digest_wipe(w->random_secret, sizeof w->random_secret);
}

/* ---- state into the log ---------------------------------------------------------------------- */

static void dump_books(struct worker *w, const char *dir, struct books b)
{
    log_ev(&w->ctx, LOG_NOTICE, "state.stanzas", KV_C("dir", dir), KV_I("received", b.received),
           KV_I("authored", b.authored), KV_I("delivered", b.delivered), KV_I("bounced", b.bounced),
           KV_I("dropped", b.dropped), KV_I("waiting", b.waiting), KV_I("writing", b.writing),
           KV_C("balance", b.received + b.authored ==
                                   b.delivered + b.bounced + b.dropped + b.waiting + b.writing
                               ? "ok"
                               : "WRONG"));
}

void worker_dump(struct worker *w)
{
    w->n.outward.waiting = w->outq.count;
    w->n.inward.waiting = w->link.hold_limits.count;
    dump_books(w, "in", w->n.inward);
    dump_books(w, "out", w->n.outward);
    log_ev(&w->ctx, LOG_NOTICE, "state.streams", KV_I("in_unproven", w->in_unproven.count),
           KV_I("in_proven", w->in_proven.count), KV_I("out", w->out.count),
           KV_I("peers", HASH_COUNT(w->peers)), KV_C("link", w->link.up ? "up" : "down"),
           KV_I("log_lines_dropped", log_lines_dropped(w->log)));
    struct peer *p, *next;
    HASH_ITER(hh, w->peers, p, next)
    {
        log_ev(&w->ctx, LOG_NOTICE, "state.peer", KV_C("peer", p->domain),
               KV_C("state", remote_state_name(remote_state_of(p->remote))),
               KV_I("queued", remote_queued(p->remote)), KV_I("sid", p->out ? p->out->sid : 0));
    }
}
