/* The inside link: dialling with back-off, holding stanzas while it is down, back-pressure.
 *
 * While the link is down, stanzas from outside wait up to limits.hold_time and limits.hold_bytes in
 * all; then they bounce, and so does whatever else comes until it is up again. A full link pauses
 * the incoming streams that feed it; it is never paused itself by a slow remote server. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"

enum {
    RETRY_FIRST_MS = 1000,
    RETRY_CAP_MS = 30000,
    RETRY_REFUSED_MS = 60000,
    TURN_EVENTS = 512 /* what one link turn gathers for many remotes goes out in fewer writes */
};

static void dial(struct worker *w);

static const struct cfg_link *settings(const struct worker *w)
{
    return &w->cfg->links[0];
}

/* ---- holding --------------------------------------------------------------------------------- */

void link_bounce_held(struct worker *w)
{
    struct outq_item *it;
    while ((it = outq_pop(&w->link.hold)) != NULL) {
        switch_failed_inward(w, it->stanza, "remote-server-timeout",
                             "the gateway's link to the inside is down");
        outq_item_free(it);
    }
}

static void on_hold_timer(struct timer *t)
{
    link_bounce_held(CONTAINER_OF(t, struct link, hold_timer)->w);
}

static bool hold_over(const struct worker *w)
{
    return loop_now(&w->loop) - w->link.down_since >= w->cfg->limits.hold_time;
}

static void hold(struct worker *w, struct span stanza)
{
    if (!w->draining && !hold_over(w) && outq_push(&w->link.hold, stanza.s, loop_now(&w->loop)))
        return;
    switch_failed_inward(w, stanza, "remote-server-timeout",
                         "the gateway's link to the inside is down");
}

static void hand_over(struct worker *w, struct span stanza)
{
    struct link_session *ls = w->link.session;
    if (!conn_send_stanza(ls->s.conn, stanza)) {
        switch_failed_inward(w, stanza, "resource-constraint", "the gateway is out of memory");
        span_release(&stanza);
        return;
    }
    w->n.inward.writing++;
    link_client_sent(&ls->m, loop_now(&w->loop));
    if (conn_above_high(ls->s.conn))
        accept_pause(w);
}

void link_send(struct worker *w, struct span stanza)
{
    if (w->link.up) {
        hand_over(w, stanza);
        return;
    }
    hold(w, stanza);
    span_release(&stanza);
}

static void went_up(struct worker *w)
{
    struct link *k = &w->link;
    struct outq_item *it;
    k->up = true;
    k->failures = 0;
    k->refused = false;
    loop_timer_clear(&w->loop, &k->hold_timer);
    log_ev(&k->session->s.log, LOG_NOTICE, "link.up", KV_C("link", settings(w)->name),
           KV_I("held", k->hold.items.count));
    while ((it = outq_pop(&k->hold)) != NULL) {
        hand_over(w, span_retain(it->stanza));
        outq_item_free(it);
    }
}

/* ---- dialling -------------------------------------------------------------------------------- */

static void on_retry(struct timer *t)
{
    dial(CONTAINER_OF(t, struct link, retry)->w);
}

static void retry_later(struct worker *w)
{
    struct link *k = &w->link;
    if (k->stopping)
        return;
    uint64_t ms = (uint64_t)RETRY_FIRST_MS << (k->failures > 5 ? 5 : k->failures);
    ms = k->refused ? RETRY_REFUSED_MS : ms > RETRY_CAP_MS ? RETRY_CAP_MS : ms;
    ms = ms - ms / 5 + env_below(w->loop.env, (uint32_t)(2 * ms / 5));
    k->failures++;
    loop_timer_set(&w->loop, &k->retry, ms);
}

static void went_down(struct worker *w)
{
    struct link *k = &w->link;
    k->up = false;
    k->down_since = loop_now(&w->loop);
    loop_timer_set(&w->loop, &k->hold_timer, w->cfg->limits.hold_time);
    accept_resume(w);
}

/* ---- the session ----------------------------------------------------------------------------- */

static void step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    link_client_step(machine, ev, out);
}

static void act(struct session *s, const struct gw_event *ev, const struct gw_action *a)
{
    struct worker *w = ((struct link_session *)s)->w;
    switch (a->kind) {
    case ACT_READY:
        went_up(w);
        break;
    case ACT_DELIVER:
        switch_outward(w, ev->u.stanza);
        break;
    case ACT_BOUNCE:
        w->n.outward.received++;
        switch_answer_inside(w, ev->u.stanza, a->u.bounce.condition, a->u.bounce.text);
        break;
    case ACT_DROP:
        w->n.outward.received++;
        w->n.outward.dropped++;
        break;
    default:
        break; /* not of links */
    }
}

/* What the link did not send waits again, before anything that came later. */
static void take_back(struct link_session *ls)
{
    struct worker *w = ls->w;
    struct list back = {NULL, NULL, 0}; /* the newest first */
    struct span stanza;
    bool partial = false;
    while (conn_unsent(ls->s.conn, &stanza, &partial)) {
        struct outq_item *it = partial ? NULL : mem_zalloc(sizeof *it);
        w->n.inward.writing--;
        if (it == NULL) {
            switch_failed_inward(w, stanza, "remote-server-timeout",
                                 "the gateway's link to the inside was cut");
            span_release(&stanza);
            continue;
        }
        it->stanza = stanza;
        list_prepend(&back, &it->node);
    }
    struct list_node *n;
    while ((n = list_pop(&back)) != NULL) {
        struct outq_item *it = CONTAINER_OF(n, struct outq_item, node);
        bool room = w->link.hold.bytes + it->stanza.s.n <= w->cfg->limits.hold_bytes;
        if (w->draining || hold_over(w) || !room ||
            !outq_unshift(&w->link.hold, it->stanza.s, loop_now(&w->loop)))
            switch_failed_inward(w, it->stanza, "remote-server-timeout",
                                 "the gateway's link to the inside was cut");
        outq_item_free(it);
    }
}

static void ended(struct session *s, enum end_reason reason, struct str text)
{
    struct link_session *ls = (struct link_session *)s;
    struct worker *w = ls->w;
    struct link *k = &w->link;
    bool was_up = k->up && k->session == ls;
    log_ev(&s->log, reason == END_DRAINED ? LOG_NOTICE : LOG_ERROR, "link.down",
           KV_C("link", settings(w)->name), KV_C("reason", end_reason_name(reason)),
           KV_I("bytes_in", conn_bytes_in(s->conn)), KV_I("bytes_out", conn_bytes_out(s->conn)),
           KV_S("msg", text.n ? text : STR_NONE));
    if (was_up)
        went_down(w);
    take_back(ls);
    if (k->session != ls)
        return;
    k->session = NULL;
    k->refused = reason == END_UNAUTHORIZED || reason == END_CONFLICT;
    retry_later(w);
}

static void drained(struct session *s)
{
    struct link_session *ls = (struct link_session *)s;
    if (ls->w->link.session == ls)
        accept_resume(ls->w);
}

static void sent(struct session *s, size_t stanzas, size_t bytes)
{
    (void)bytes;
    struct worker *w = ((struct link_session *)s)->w;
    w->n.inward.writing -= stanzas;
    w->n.inward.delivered += stanzas;
}

static void closed(struct session *s)
{
    struct link_session *ls = (struct link_session *)s;
    struct worker *w = ls->w;
    w->link_sessions--;
    mem_free(ls);
    worker_check_drained(w);
}

static const struct session_ops link_ops = {
    .step = step, .act = act, .ended = ended, .drained = drained, .sent = sent, .closed = closed};

static struct link_session *new_session(struct worker *w, const struct endpoint *to)
{
    struct link_session *ls = mem_zalloc(sizeof *ls);
    const struct cfg_link *c = settings(w);
    if (ls == NULL)
        return NULL;
    /* The snapshot may go while the session closes; the machine looks at its settings no more then,
     * because a link whose settings change is ended first (link_reload). */
    struct link_client_config cfg = {.component = str_c(c->component),
                                     .secret = str_c(c->secret),
                                     .ping_to = str_c(w->cfg->domains[0].name),
                                     .auth_ms = w->cfg->timeouts.auth,
                                     .close_ms = w->cfg->timeouts.close};
    link_client_init(&ls->m, &cfg, w->loop.env);
    ls->w = w;
    ls->sid = worker_sid(w);
    endpoint_text(to, ls->addr);
    ls->s.ops = &link_ops;
    ls->s.machine = &ls->m;
    ls->s.limits = &w->limits_link;
    ls->s.linger_ms = LINGER_MS;
    ls->s.log = (struct log_ctx){.sink = w->log};
    ls->s.log.kv[0] = KV_I("sid", ls->sid);
    ls->s.log.kv[1] = KV_C("addr", ls->addr);
    return ls;
}

static void on_connected(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    struct worker *w = arg;
    struct link *k = &w->link;
    k->dialling = NULL;
    struct link_session *ls = tcp ? new_session(w, to) : NULL;
    if (ls == NULL) {
        if (tcp != NULL)
            session_discard(tcp);
        log_ev(&w->ctx, LOG_ERROR, "link.failed", KV_C("link", settings(w)->name),
               KV_C("addr", settings(w)->address), KV_C("msg", tcp ? "out of memory" : why));
        retry_later(w);
        return;
    }
    struct conn_options opt = {
        .content = CONTENT_COMPONENT, .limits = &w->limits_link, .turn_events = TURN_EVENTS};
    k->session = ls;
    w->link_sessions++;
    if (!session_start(&ls->s, &w->loop, tcp, &opt)) {
        k->session = NULL;
        w->link_sessions--;
        mem_free(ls);
        retry_later(w);
    }
}

static void dial(struct worker *w)
{
    struct link *k = &w->link;
    struct endpoint to;
    if (k->stopping || k->dialling != NULL || k->session != NULL ||
        !endpoint_parse(str_c(settings(w)->address), &to))
        return;
    struct connect_options opt = {
        .targets = &to, .ntargets = 1, .deadline_ms = w->cfg->timeouts.connect};
    k->dialling = connect_start(&w->loop, &opt, on_connected, w);
    if (k->dialling == NULL)
        retry_later(w);
}

static void set_limits(struct worker *w)
{
    w->link.hold_limits.max_bytes = w->link.hold_limits.total = w->cfg->limits.hold_bytes;
    w->link.hold_limits.max_count = SIZE_MAX;
}

void link_open(struct worker *w)
{
    struct link *k = &w->link;
    k->w = w;
    k->retry.fire = on_retry;
    k->hold_timer.fire = on_hold_timer;
    outq_init(&k->hold, &k->hold_limits);
    set_limits(w);
    k->down_since = loop_now(&w->loop);
    loop_timer_set(&w->loop, &k->hold_timer, w->cfg->limits.hold_time);
    dial(w);
}

/* From here on nothing new goes out on it: our closing tag is the last. */
static void leave(struct worker *w, const char *why)
{
    if (w->link.up)
        went_down(w);
    session_drain(&w->link.session->s, why);
}

void link_reload(struct worker *w, bool changed)
{
    struct link *k = &w->link;
    set_limits(w);
    if (k->session != NULL) {
        const struct cfg_link *c = settings(w);
        k->session->m.cfg.component = str_c(c->component);
        k->session->m.cfg.secret = str_c(c->secret);
        k->session->m.cfg.ping_to = str_c(w->cfg->domains[0].name);
    }
    if (!changed)
        return;
    if (k->dialling != NULL)
        connect_cancel(k->dialling);
    k->dialling = NULL;
    k->failures = 0;
    k->refused = false;
    if (k->session != NULL)
        leave(w, "the link's settings have changed");
    else
        dial(w);
}

void link_drain(struct worker *w, bool now)
{
    struct link *k = &w->link;
    k->stopping = true;
    loop_timer_clear(&w->loop, &k->retry);
    loop_timer_clear(&w->loop, &k->hold_timer);
    if (k->dialling != NULL)
        connect_cancel(k->dialling);
    k->dialling = NULL;
    if (k->session == NULL)
        return;
    k->session->s.linger_ms = DRAIN_LINGER_MS;
    if (now)
        session_abort(&k->session->s, "the gateway stops now");
    else
        leave(w, "the gateway is stopping");
}

void link_close(struct worker *w)
{
    w->link.stopping = true;
    if (w->link.dialling != NULL)
        connect_cancel(w->link.dialling);
    w->link.dialling = NULL;
    loop_timer_clear(&w->loop, &w->link.retry);
    loop_timer_clear(&w->loop, &w->link.hold_timer);
    outq_free(&w->link.hold);
}
