#include "core/net/session.h"

#include <stdio.h>

#include "core/base/mem.h"

/* An event that waits, with its strings copied behind it. */
struct waiting_event {
    struct list_node node;
    struct gw_event ev;
    struct buf strings;
};

enum { WAITING_MAX = 256, WAITING_STRINGS_MAX = 16384 };

static size_t event_strings(struct gw_event *ev, struct str *out[4])
{
    switch (ev->kind) {
    case EV_WANT_PAIR:
        out[0] = &ev->u.pair.local;
        out[1] = &ev->u.pair.remote;
        return 2;
    case EV_WANT_VERIFY:
        out[0] = &ev->u.verify.local;
        out[1] = &ev->u.verify.remote;
        out[2] = &ev->u.verify.stream_id;
        out[3] = &ev->u.verify.key;
        return 4;
    case EV_VERDICT:
        out[0] = &ev->u.verdict.text;
        return 1;
    case EV_DRAIN:
    case EV_LOST:
    case EV_TLS_FAILED:
        out[0] = &ev->u.text;
        return 1;
    case EV_OPENED:
    case EV_STREAM_OPEN:
    case EV_NONZA:
    case EV_STANZA:
    case EV_STREAM_CLOSE:
    case EV_XML_ERROR:
    case EV_TLS_UP:
    case EV_TIMER:
    case EV_POLICY_CHANGED:
        break;
    }
    return 0;
}

static bool keep_for_later(struct session *s, const struct gw_event *ev)
{
    struct waiting_event *w = s->waiting.count < WAITING_MAX ? mem_zalloc(sizeof *w) : NULL;
    if (w == NULL)
        return false;
    w->ev = *ev;
    buf_init(&w->strings, WAITING_STRINGS_MAX);
    struct str *strings[4];
    size_t n = event_strings(&w->ev, strings), total = 0;
    for (size_t i = 0; i < n; i++)
        total += strings[i]->n;
    if (!buf_reserve(&w->strings, total)) { /* in one piece: what is copied must not move */
        mem_free(w);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (strings[i]->p == NULL)
            continue;
        const char *at = w->strings.p + w->strings.len;
        buf_str(&w->strings, *strings[i]);
        strings[i]->p = at;
    }
    list_append(&s->waiting, &w->node);
    return true;
}

static void drop_waiting(struct session *s)
{
    struct list_node *n;
    while ((n = list_pop(&s->waiting)) != NULL) {
        struct waiting_event *w = CONTAINER_OF(n, struct waiting_event, node);
        buf_free(&w->strings);
        mem_free(w);
    }
}

static void end(struct session *s, enum end_reason reason, bool abort)
{
    if (s->over)
        return;
    s->over = true;
    s->reason = reason;
    for (int i = 0; i < GW_TIMER_COUNT; i++)
        loop_timer_clear(s->loop, &s->timers[i].timer);
    s->ops->ended(s, reason, str_c(s->text));
    conn_close(s->conn, abort, s->linger_ms);
}

static void write_log(struct session *s, const struct gw_action *act)
{
    if (log_on(&s->log, act->u.log.level))
        log_write(&s->log, act->u.log.level, act->u.log.event, act->u.log.kv, act->u.log.n);
}

static void carry_out(struct session *s, const struct gw_event *ev, const struct gw_actions *all,
                      const struct gw_action *act)
{
    switch (act->kind) {
    case ACT_SEND:
        conn_send(s->conn, gw_text(all, act));
        break;
    case ACT_STREAM_RESET:
        conn_reset_stream(s->conn);
        break;
    case ACT_TLS_START: /* what was proven in clear counts for nothing behind TLS */
        if (s->first_limits != NULL)
            conn_set_limits(s->conn, s->first_limits);
        conn_start_tls(s->conn, s->tls.ctx, s->tls.server, s->tls.domain, s->tls.peer_name);
        if (s->tls.direct)
            conn_direct_tls(s->conn);
        conn_judge(s->conn, s->tls.ca_file);
        break;
    case ACT_LIMITS:
        conn_set_limits(s->conn, s->limits);
        break;
    case ACT_TIMER_SET:
        if (!loop_timer_set(s->loop, &s->timers[act->u.timer.id].timer, act->u.timer.ms))
            end(s, END_NO_MEMORY, true); /* a session without its deadline must not live */
        break;
    case ACT_TIMER_CLEAR:
        loop_timer_clear(s->loop, &s->timers[act->u.timer.id].timer);
        break;
    case ACT_LOG:
        write_log(s, act);
        break;
    case ACT_CLOSE:
        if (s->text[0] == '\0')
            str_copy(s->text, sizeof s->text, act->u.close.text);
        end(s, act->u.close.reason, act->u.close.abort);
        break;
    case ACT_DELIVER:
    case ACT_BOUNCE:
    case ACT_DROP:
    case ACT_UNDELIVERED:
    case ACT_ASK:
    case ACT_ANSWERED:
    case ACT_VOUCHED:
    case ACT_READY:
    case ACT_PAIR:
    case ACT_REFUSED:
        s->ops->act(s, ev, act);
        break;
    }
}

static void note_cause(struct session *s, const struct gw_event *ev)
{
    if (s->text[0] != '\0')
        return;
    if (ev->kind == EV_LOST || ev->kind == EV_TLS_FAILED || ev->kind == EV_DRAIN)
        str_copy(s->text, sizeof s->text, ev->u.text);
    else if (ev->kind == EV_XML_ERROR)
        str_copy(s->text, sizeof s->text, str_c(ev->u.error.text));
}

/* At trace level every step is a line: which event, which actions. Never their contents. */
static void trace(struct session *s, const struct gw_event *ev, const struct gw_actions *acts)
{
    struct buf names = BUF_INIT(512);
    for (unsigned i = 0; i < acts->n; i++)
        buf_printf(&names, "%s%s", i ? "," : "", gw_action_name(acts->v[i].kind));
    log_ev(&s->log, LOG_TRACE, "session.step", KV_C("on", gw_event_name(ev->kind)),
           KV_C("timer", ev->kind == EV_TIMER ? gw_timer_name(ev->u.timer) : NULL),
           KV_S("actions", buf_view(&names)));
    buf_free(&names);
}

static void run_one(struct session *s, const struct gw_event *ev)
{
    struct gw_actions acts;
    gw_actions_init(&acts);
    note_cause(s, ev);
    s->ops->step(s->machine, ev, &acts);
    if (log_on(&s->log, LOG_TRACE))
        trace(s, ev, &acts);
    for (unsigned i = 0; i < acts.n && !s->over; i++)
        carry_out(s, ev, &acts, &acts.v[i]);
    if (acts.overflow && !s->over)
        end(s, END_NO_MEMORY, true);
    gw_actions_free(&acts);
}

void session_event(struct session *s, const struct gw_event *ev)
{
    if (s->over)
        return;
    if (s->busy) {
        if (!keep_for_later(s, ev))
            end(s, END_NO_MEMORY, true);
        return;
    }
    s->busy = true;
    run_one(s, ev);
    struct list_node *n;
    while (!s->over && (n = list_pop(&s->waiting)) != NULL) {
        struct waiting_event *w = CONTAINER_OF(n, struct waiting_event, node);
        w->ev.now_ms = loop_now(s->loop);
        run_one(s, &w->ev);
        buf_free(&w->strings);
        mem_free(w);
    }
    s->busy = false;
}

void session_trust(struct session *s, struct tls_ctx *ctx)
{
    struct tls_ctx *old = s->tls.ctx;
    s->tls.ctx = tls_ctx_ref(ctx);
    conn_trust(s->conn, ctx);
    tls_ctx_unref(old);
}

void session_drain(struct session *s, const char *why)
{
    struct gw_event ev = {.kind = EV_DRAIN, .now_ms = loop_now(s->loop), .u.text = str_c(why)};
    session_event(s, &ev);
}

void session_abort(struct session *s, const char *why)
{
    struct gw_event ev = {.kind = EV_LOST, .now_ms = loop_now(s->loop), .u.text = str_c(why)};
    session_event(s, &ev);
    if (s->over && s->conn != NULL)
        conn_close(s->conn, true, 0);
}

static void on_timer(struct timer *t)
{
    struct session_timer *st = CONTAINER_OF(t, struct session_timer, timer);
    struct gw_event ev = {.kind = EV_TIMER, .now_ms = loop_now(st->session->loop)};
    ev.u.timer = st->id;
    session_event(st->session, &ev);
}

static void on_event(struct conn *c, void *arg, const struct gw_event *ev)
{
    (void)c;
    session_event(arg, ev);
}

static void on_drained(struct conn *c, void *arg)
{
    (void)c;
    struct session *s = arg;
    if (!s->over && s->ops->drained != NULL)
        s->ops->drained(s);
}

static void on_sent(struct conn *c, void *arg, size_t stanzas, size_t bytes)
{
    (void)c;
    struct session *s = arg;
    if (s->ops->sent != NULL)
        s->ops->sent(s, stanzas, bytes);
}

static void on_closed(struct conn *c, void *arg)
{
    (void)c;
    struct session *s = arg;
    s->conn = NULL;
    drop_waiting(s);
    s->ops->closed(s);
}

static void free_handle(uv_handle_t *h)
{
    mem_free(h);
}

void session_discard(uv_tcp_t *tcp)
{
    uv_close((uv_handle_t *)tcp, free_handle);
}

bool session_start(struct session *s, struct loop *l, uv_tcp_t *tcp, const struct conn_options *opt)
{
    static const struct conn_ops ops = {on_event, on_drained, on_sent, on_closed};
    s->loop = l;
    for (int i = 0; i < GW_TIMER_COUNT; i++) {
        s->timers[i].session = s;
        s->timers[i].id = (enum gw_timer)i;
        s->timers[i].timer.fire = on_timer;
    }
    struct conn_options all = *opt;
    all.tls_ctx = s->tls.ctx;
    all.tls_domain = s->tls.domain;
    s->conn = conn_new(l, tcp, &all, &ops, s);
    if (s->conn == NULL) {
        session_discard(tcp);
        return false;
    }
    s->first_limits = opt->limits;
    conn_start(s->conn);
    struct gw_event ev = {.kind = EV_OPENED, .now_ms = loop_now(l)};
    session_event(s, &ev);
    return true;
}
