/* One side of the gateway for server-to-server streams: what its streams in and out share. */
#include "gateway/worker.h"

enum { ASKS_PER_PEER = 256 };

void front_set_limits(struct front *f)
{
    const struct gateway_config *c = f->w->cfg;
    f->outq.max_bytes = c->limits.queue_bytes;
    f->outq.max_count = c->limits.queue_stanzas;
    f->outq.total = c->limits.queue_total;
    f->remote_settings = (struct remote_settings){.queue_ms = c->timeouts.queue,
                                                  .setup_ms = 2 * c->timeouts.auth,
                                                  .asks_max = ASKS_PER_PEER,
                                                  .pairs_max = c->limits.pairs_per_stream};
}

/* ---- is anybody there? ----------------------------------------------------------------------- */

static void on_hold_timer(struct timer *t)
{
    hold_sweep(CONTAINER_OF(t, struct front, hold_timer)->w);
}

static void on_probe(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct front *f = arg;
    (void)to;
    if (tcp == NULL) {
        front_alarm(f, "link.connect", str_c(why));
        return;
    }
    session_discard(tcp);
    front_reached(f);
}

void front_unreached(struct front *f, const char *why)
{
    struct endpoint to;
    struct worker *w = f->w;
    if (f->link == NULL || f->draining)
        return;
    const struct cfg_link *c = f->link->kit->c;
    front_alarm(f, "link.connect", str_c(why));
    if (f->down || !endpoint_parse(str_c(c->address), &to))
        return;
    log_ev(&w->ctx, LOG_ERROR, "link.down", KV_C("link", c->name), KV_C("addr", c->address),
           KV_C("msg", why));
    story_tell(&w->story, "link.down", c->name, "nobody can be reached at %s: %s", c->address, why);
    f->down = true;
    f->since = loop_now(&w->loop);
    loop_timer_set(&w->loop, &f->hold_timer, w->cfg->limits.hold_time);
    redial_start(&f->probe, &to, w->cfg->timeouts.connect);
}

static void stop_probing(struct front *f)
{
    if (f->w == NULL)
        return; /* it has never been used */
    redial_stop(&f->probe);
    loop_timer_clear(&f->w->loop, &f->hold_timer);
}

void front_reached(struct front *f)
{
    struct worker *w = f->w;
    if (!f->down)
        return;
    stop_probing(f);
    f->down = false;
    f->since = loop_now(&w->loop);
    log_ev(&w->ctx, LOG_NOTICE, "link.up", KV_C("link", f->link->kit->c->name),
           KV_I("held", w->hold.items.count));
    story_tell(&w->story, "link.up", f->link->kit->c->name, "the link is up again");
    alarm_clear(&w->alarms, "link.connect", f->link->kit->c->name, f->since);
    peer_retry_all(f);
    loop_post(&w->loop, &w->hold.sweep);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void look(struct front *f, struct link *link, struct certs *certs)
{
    f->link = link;
    f->side = (struct side){.cfg = f->w->cfg,
                            .link = link != NULL ? link->kit->c : NULL,
                            .blocks = link != NULL ? NULL : &f->w->blocks};
    certs_free(f->certs);
    f->certs = certs;
    front_set_limits(f);
}

void front_init(struct front *f, struct worker *w, struct link *link, struct certs *certs)
{
    static const struct redial_ops ops = {on_probe};
    f->w = w;
    f->since = loop_now(&w->loop);
    f->hold_timer.fire = on_hold_timer;
    redial_init(&f->probe, &w->loop, &ops, f);
    look(f, link, certs);
}

void front_adopt(struct front *f, struct link *link, struct certs *certs)
{
    const struct certs_env env = worker_certs_env(f->w);
    certs_begin(certs, f->certs, &env);
    look(f, link, certs);
    accept_policy_changed(f);
    peer_policy_changed(f);
}

bool front_quiet(const struct front *f)
{
    return f->in_unproven.count + f->in_proven.count == 0 && f->out.count == 0;
}

struct books *front_books(struct front *f)
{
    return f->link != NULL ? &f->w->n.inward : &f->w->n.outward;
}

/* Strangers need not know where in the inside something went wrong; the log has it. */
static struct str for_strangers(const char *condition, struct str text)
{
    bool ours = strcmp(condition, "resource-constraint") == 0;
    return ours ? text : STR("the gateway could not hand this to the inside");
}

void front_failed(struct front *f, struct span stanza, const char *condition, struct str text)
{
    if (f->link != NULL)
        switch_failed_inward(f->w, stanza, CONTENT_SERVER, condition,
                             for_strangers(condition, text));
    else
        switch_failed_outward(f->w, stanza, condition, text);
}

void front_put_back(struct front *f, struct span stanza, const char *condition, struct str text)
{
    bool unreached = strcmp(condition, "remote-server-timeout") == 0;
    if (f->link != NULL && !f->w->draining && unreached && (f->down || f->link->gone))
        hold_again(f->w, stanza);
    else
        front_failed(f, stanza, condition, text);
}

void front_drain(struct front *f, bool now)
{
    f->draining = true;
    stop_probing(f);
    accept_close(f);
    peer_drain(f, now);
    accept_drain(f, now);
}

void front_pause(struct front *f, size_t index)
{
    accept_pause(f, index);
    peer_pause(f, index);
}

void front_resume(struct front *f, size_t index)
{
    accept_resume(f, index);
    peer_resume(f, index);
}

const char *front_why_drained(const struct front *f)
{
    return f->w->draining ? "the gateway is stopping" : "this link has changed";
}

void front_close(struct front *f)
{
    stop_probing(f);
    accept_close(f);
    peer_free_all(f);
    certs_free(f->certs);
    f->certs = NULL;
}

void front_alarm(struct front *f, const char *kind, struct str text)
{
    char why[ALARM_TEXT_MAX];
    if (f->link == NULL || f->draining)
        return;
    str_copy(why, sizeof why, text);
    alarm_raise(&f->w->alarms, kind, f->link->kit->c->name, why, loop_now(&f->w->loop));
}

void front_works(struct front *f)
{
    if (f->link != NULL)
        alarm_clear_all(&f->w->alarms, "link.", f->link->kit->c->name, loop_now(&f->w->loop));
}

void front_judge_anew(struct session *s, const struct link_kit *kit)
{
    const struct tls_peer *peer = s->over ? NULL : conn_tls_peer(s->conn);
    if (peer == NULL || trust_ok(link_trust_check(&kit->trust, peer)))
        return;
    log_ev(&s->log, LOG_WARN, "link.trust.lost",
           KV_C("msg", "its certificate is not accepted any more"));
    session_drain(s, "your certificate is not accepted any more");
}
