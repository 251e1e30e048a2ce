/* The streams of a link: dialled with back-off or accepted, set up by their machine, fed, and what
 * becomes of what they did not send. A full line pauses the incoming streams that feed it; it is
 * never paused itself by a slow remote server. */
#include "gateway/worker.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "xcp/proven.h"

enum {
    TURN_EVENTS = 512, /* what one link turn gathers for many remotes goes out in fewer writes */
    PENDING_MAX = 16,  /* accepted connections of one link that have not proven themselves */
};

/* An inside that sends and does not read is not paused, as it may be waiting for us in turn; but
 * above so many times limits.link_high it gets no more answers. */
#define UNREAD "link.unread"
#define CLOCK  "link.clock"
enum { UNREAD_MARKS = 16 };

static bool is_jabberd2(const struct link_session *ls)
{
    return ls->kit->c->protocol == PROTOCOL_JABBERD2;
}

static const struct link_end *end_of(const struct link_session *ls)
{
    return is_jabberd2(ls) ? &ls->m.jabberd2.end : &ls->m.client.end;
}

/* On the certificate that was shown. */
static enum trust_reason verdict_of(const struct link_session *ls)
{
    return is_jabberd2(ls) ? ls->m.jabberd2.verdict : ls->m.client.verdict;
}

/* ---- alarms ---------------------------------------------------------------------------------- */

static const char *label(const struct link_session *ls)
{
    return ls->of->label;
}

/* The peer does not let us in: because of our certificate, or for want of one, or of the secret. */
static const char *refused_kind(const struct link_session *ls)
{
    const struct link_end *e = end_of(ls);
    return e->cert_refused ? "link.certificate-refused"
           : e->tls_needed ? "link.clear"
                           : "link.password";
}

/* The kind of alarm for the way in which a session failed; NULL: none (we ended it). */
static const char *alarm_kind(const struct link_session *ls, enum end_reason reason)
{
    switch (reason) {
    case END_UNTRUSTED:
        return link_alarm_of(verdict_of(ls));
    case END_UNAUTHORIZED:
        return refused_kind(ls);
    case END_CONFLICT:
        return "link.conflict";
    case END_TLS_FAILED:
    case END_TLS_REFUSED:
    case END_TLS_NOT_OFFERED:
        return "link.tls";
    case END_DRAINED:
        return NULL;
    default:
        return ls->ready ? "link.down" : "link.setup";
    }
}

/* ---- up and down ----------------------------------------------------------------------------- */

static void on_hold_timer(struct timer *t)
{
    hold_sweep(CONTAINER_OF(t, struct line, hold_timer)->link->w);
}

/* From now on it may be waited for. */
static void set_lacking(struct line *l)
{
    struct worker *w = l->link->w;
    l->lacks_since = loop_now(&w->loop);
    loop_timer_set(&w->loop, &l->hold_timer, w->cfg->limits.hold_time);
}

static uint64_t waiting_bytes(const struct link *k)
{
    uint64_t n = 0;
    for (size_t i = 0; i < k->nlines; i++)
        n += k->lines[i].up ? conn_queued(k->lines[i].session->s.conn) : 0;
    return n;
}

static void watch_fullness(struct link *k)
{
    bool full = false;
    for (size_t i = 0; i < k->nlines; i++)
        full = full || (k->lines[i].up && conn_above_high(k->lines[i].session->s.conn));
    if (full == k->full)
        return;
    k->full = full;
    log_ev(&k->w->ctx, LOG_NOTICE, full ? "link.full" : "link.room", KV_C("link", k->kit->c->name),
           KV_I("queued", waiting_bytes(k)));
    if (full)
        front_pause(&k->w->world, k->index);
    else
        front_resume(&k->w->world, k->index);
}

static void set_down(struct line *l)
{
    l->up = false;
    l->since = loop_now(&l->link->w->loop);
    set_lacking(l);
    watch_fullness(l->link);
}

/* A name that joined by password is remembered, for a switch to certificates. */
static void remember_proven(struct link_session *ls)
{
    struct link *k = ls->link;
    const struct cfg_link *c = ls->kit->c;
    if (c->auth != LINK_AUTH_PASSWORD || c->peer_name == NULL)
        return;
    proven_remember(c->proven_file, c->peer_name, k->proven, &ls->s.log);
    k->proven = true;
}

static void take_back(struct link_session *ls);

/* Who has proven itself takes the place of a connection that may be dead without our knowing it:
 * what the old one has not sent is taken back before anything new goes out. */
static void take_over(struct line *l, struct link_session *ls)
{
    struct link_session *old = l->session;
    if (old == ls)
        return;
    l->up = false;
    l->session = ls;
    ls->line = l;
    if (old == NULL)
        return;
    log_ev(&old->s.log, LOG_WARN, "link.replaced", KV_I("by", ls->sid));
    old->line = NULL;
    take_back(old);
    session_drain(&old->s, "replaced by a new connection");
}

static void went_up(struct link_session *ls)
{
    struct link *k = ls->link;
    struct worker *w = k->w;
    struct line *l = ls->accepted ? &k->lines[0] : ls->line;
    const struct tls_peer *tls = conn_tls_peer(ls->s.conn);
    if (l == NULL || k->stopping) {
        session_drain(&ls->s, "this link is not wanted any more");
        return;
    }
    list_remove(&ls->pending);
    if (ls->accepted)
        take_over(l, ls);
    else
        redial_up(&l->redial);
    l->up = ls->ready = true;
    l->since = loop_now(&w->loop);
    loop_timer_clear(&w->loop, &l->hold_timer);
    if (is_jabberd2(ls)) /* it may not know all domains yet */
        set_lacking(l);
    log_ev(&ls->s.log, LOG_NOTICE, "link.up", KV_C("tls", tls ? tls->protocol : NULL));
    story_tell(&w->story, "link.up", l->label, "the link to %s is up", ls->addr);
    alarm_clear_all(&w->alarms, "link.", l->label, l->since);
    remember_proven(ls);
    size_t held = w->hold.items.count;
    hold_sweep(w);
    if (w->hold.items.count < held)
        log_ev(&ls->s.log, LOG_INFO, "link.held.sent", KV_I("stanzas", held - w->hold.items.count));
    watch_fullness(k); /* one that it took over from may have been full */
}

/* ---- the session ----------------------------------------------------------------------------- */

static void watch_clock(struct link_session *ls)
{
    struct worker *w = ls->w;
    const struct link_client *m = &ls->m.client;
    char why[ALARM_TEXT_MAX];
    if (!link_client_skewed(m)) {
        alarm_clear(&w->alarms, CLOCK, label(ls), loop_now(&w->loop));
        return;
    }
    snprintf(why, sizeof why, "its clock differs from ours by %lld s",
             (long long)(m->skew_ms / 1000));
    alarm_raise(&w->alarms, CLOCK, label(ls), why, loop_now(&w->loop));
}

static void step(void *machine, const struct gw_event *ev, struct gw_actions *out)
{
    struct link_session *ls = machine;
    if (!is_jabberd2(ls)) {
        uint64_t answers = ls->m.client.probes.time.answered;
        link_client_step(&ls->m.client, ev, out);
        if (ls->m.client.probes.time.answered > answers && ls->line != NULL)
            watch_clock(ls);
        return;
    }
    size_t before = ls->m.jabberd2.nnames;
    jabberd2_step(&ls->m.jabberd2, ev, out);
    if (ls->m.jabberd2.nnames > before) /* a domain that something may wait for */
        loop_post(&ls->w->loop, &ls->w->hold.sweep);
    if (ls->m.jabberd2.nnames < before && ls->line != NULL)
        set_lacking(ls->line);
}

/* Each stanza from the inside has one of these. */
static bool is_fate(enum gw_act kind)
{
    return kind == ACT_DELIVER || kind == ACT_BOUNCE || kind == ACT_DROP || kind == ACT_UNDELIVERED;
}

static void act(struct session *s, const struct gw_event *ev, const struct gw_action *a)
{
    struct link_session *ls = (struct link_session *)s;
    const struct stanza *st = ev->u.stanza;
    if (is_fate(a->kind))
        link_count(ls->link, LINK_IN, st->kind, st->span.s.n);
    switch (a->kind) {
    case ACT_READY:
        went_up(ls);
        break;
    case ACT_DELIVER:
        switch_outward(ls->link, ls->line, st);
        break;
    case ACT_BOUNCE:
        switch_malformed(ls->link, ls->line, st, a);
        break;
    case ACT_DROP:
        switch_dropped(ls->link, st, a->u.bounce.condition);
        break;
    case ACT_UNDELIVERED:
        switch_undelivered(ls->link, st, a);
        break;
    default:
        break; /* not of links */
    }
}

/* What it wrote, as a stanza without what its protocol wraps around it; takes the reference over.
 */
static struct span unwrapped(const struct link_session *ls, struct span s)
{
    if (!is_jabberd2(ls))
        return s;
    struct span inner = jabberd2_unwrap(s.s);
    span_release(&s);
    return inner;
}

static struct held *take_one(struct link_session *ls, struct span stanza)
{
    struct reread r;
    struct held *h;
    if (stanza.s.n == 0 || !switch_reread(&r, stanza, CONTENT_COMPONENT, true))
        return NULL;
    h = held_new(stanza, CONTENT_COMPONENT, str_c(r.local.ascii), str_c(r.remote.ascii),
                 inward_sender(r.ev.stanza.from), loop_now(&ls->w->loop));
    switch_reread_free(&r);
    return h;
}

/* What the line did not send goes by another one or waits again, before anything that came later.
 */
static void take_back(struct link_session *ls)
{
    struct worker *w = ls->w;
    struct list back = {NULL, NULL, 0};
    struct span stanza;
    bool partial = false;
    while (conn_unsent(ls->s.conn, &stanza, &partial)) {
        stanza = unwrapped(ls, stanza);
        w->n.inward.writing--;
        struct held *h = partial ? NULL : take_one(ls, stanza);
        if (h != NULL)
            list_append(&back, &h->node);
        else
            switch_failed_inward(w, stanza, CONTENT_COMPONENT, "remote-server-timeout",
                                 STR("the gateway's link to the inside was cut"));
        span_release(&stanza);
    }
    hold_take_back(w, &back);
}

static enum redial_why why_again(enum end_reason reason)
{
    bool refused = reason == END_UNAUTHORIZED || reason == END_CONFLICT || reason == END_UNTRUSTED;
    return refused ? REDIAL_REFUSED : REDIAL_LOST;
}

static void dial_again(struct line *l, enum end_reason reason)
{
    uint64_t ms = redial_again(&l->redial, why_again(reason));
    if (ms > 0)
        log_ev(&l->link->w->ctx, LOG_INFO, "link.retry", KV_C("link", l->label), KV_SEC("in", ms));
}

static void raise_alarm(struct link_session *ls, enum end_reason reason, struct str text)
{
    const char *kind = alarm_kind(ls, reason);
    bool pending = ls->pending.in != NULL;
    bool stranger = reason != END_UNTRUSTED && reason != END_UNAUTHORIZED && ls->of->up;
    if (kind == NULL || ls->link->stopping || (ls->line == NULL && (!pending || stranger)))
        return;
    char why[ALARM_TEXT_MAX];
    if (text.n == 0)
        text = str_c(end_reason_name(reason));
    snprintf(why, sizeof why, "%s: %.*s", ls->addr, STR_ARG(text));
    alarm_raise(&ls->w->alarms, kind, label(ls), why, loop_now(&ls->w->loop));
}

static void tell_end(struct link_session *ls, enum end_reason reason, struct str text)
{
    log_ev(&ls->s.log, reason == END_DRAINED ? LOG_NOTICE : LOG_ERROR, "link.down",
           KV_C("reason", end_reason_name(reason)), KV_I("bytes_in", conn_bytes_in(ls->s.conn)),
           KV_I("bytes_out", conn_bytes_out(ls->s.conn)), KV_S("msg", text.n ? text : STR_NONE));
    if (ls->ready && ls->line != NULL)
        story_tell(&ls->w->story, "link.down", ls->line->label, "the link to %s ended: %s%s%.*s",
                   ls->addr, end_reason_name(reason), text.n ? ": " : "", STR_ARG(text));
    raise_alarm(ls, reason, text);
}

static void ended(struct session *s, enum end_reason reason, struct str text)
{
    struct link_session *ls = (struct link_session *)s;
    struct line *l = ls->line;
    bool ours = l != NULL && l->session == ls;
    tell_end(ls, reason, text);
    list_remove(&ls->pending);
    if (ours) {
        bool was_up = l->up;
        l->up = false; /* nothing that is taken back may come here again */
        l->session = NULL;
        if (was_up)
            set_down(l);
    }
    take_back(ls);
    if (ours && !ls->accepted)
        dial_again(l, reason);
}

static void drained(struct session *s)
{
    struct link_session *ls = (struct link_session *)s;
    if (ls->line != NULL && ls->line->session == ls)
        watch_fullness(ls->link);
    alarm_clear(&ls->w->alarms, UNREAD, label(ls), loop_now(&ls->w->loop));
}

static void sent(struct session *s, size_t stanzas, size_t bytes)
{
    (void)bytes;
    struct worker *w = ((struct link_session *)s)->w;
    w->n.inward.writing -= stanzas;
    w->n.inward.delivered += stanzas;
}

static void free_session(struct link_session *ls)
{
    struct worker *w = ls->w;
    struct link *k = ls->link;
    w->link_sessions--;
    k->sessions--;
    list_remove(&ls->every);
    if (is_jabberd2(ls))
        jabberd2_free(&ls->m.jabberd2);
    tls_ctx_unref(ls->s.tls.ctx);
    link_kit_unref(ls->kit);
    mem_free(ls);
    link_free_if_gone(k);
    worker_check_drained(w);
}

static void closed(struct session *s)
{
    free_session((struct link_session *)s);
}

static const struct session_ops link_ops = {
    .step = step, .act = act, .ended = ended, .drained = drained, .sent = sent, .closed = closed};

/* ---- new sessions ---------------------------------------------------------------------------- */

static void init_client(struct link_session *ls, const char *name)
{
    const struct gateway_config *cfg = ls->kit->cfg;
    const struct cfg_link *c = ls->kit->c;
    struct link_client_config m = {
        .component = str_c(name),
        .secret = str_c(c->secret),
        .trust = &ls->kit->trust,
        .ping_to = str_c(c->ndomains ? c->domains[0] : cfg->domains[0].name),
        .auth_ms = cfg->timeouts.auth,
        .close_ms = cfg->timeouts.close,
        .ping_ms = cfg->timeouts.probe,
        .ping_answer_ms = cfg->timeouts.dead,
    };
    link_client_init(&ls->m.client, &m, ls->w->loop.env);
}

static void init_jabberd2(struct link_session *ls)
{
    const struct gateway_config *cfg = ls->kit->cfg;
    const struct cfg_link *c = ls->kit->c;
    struct jabberd2_config m = {
        .name = str_c(c->component),
        .user = str_c(c->user),
        .secret = str_c(c->secret),
        .require_tls = c->security_mode == SECURITY_TLS_REQUIRED,
        .no_tls = c->security_mode == SECURITY_NO_TLS,
        .direct_tls = ls->accepted,
        .trust = &ls->kit->trust,
        .auth_ms = cfg->timeouts.auth,
        .close_ms = cfg->timeouts.close,
        .ping_ms = cfg->timeouts.probe,
        .ping_answer_ms = cfg->timeouts.dead,
    };
    jabberd2_init(&ls->m.jabberd2, &m, ls->w->loop.env);
}

static void init_session(struct link_session *ls, bool accepted)
{
    struct session *s = &ls->s;
    s->ops = &link_ops;
    s->machine = ls;
    s->limits = &ls->w->limits_link;
    s->linger_ms = LINGER_MS;
    if (ls->kit->certs != NULL)
        s->tls.ctx = tls_ctx_ref(certs_tls(ls->kit->certs));
    s->tls.server = accepted;
    s->tls.peer_name = ls->kit->c->peer_name;
    s->log = (struct log_ctx){.sink = ls->w->log};
    s->log.kv[0] = KV_I("sid", ls->sid);
    s->log.kv[1] = KV_C("addr", ls->addr);
    s->log.kv[2] = KV_C("link", label(ls));
}

static struct link_session *new_session(struct link *k, struct line *l, const uv_tcp_t *tcp,
                                        bool accepted)
{
    struct worker *w = k->w;
    struct link_session *ls = mem_zalloc(sizeof *ls);
    if (ls == NULL)
        return NULL;
    ls->w = w;
    ls->link = k;
    ls->kit = link_kit_ref(k->kit);
    ls->kit->trust.proven = k->proven;
    ls->accepted = accepted;
    ls->of = l;
    ls->line = accepted ? NULL : l;
    ls->sid = worker_sid(w);
    struct endpoint peer = addr_of_peer(tcp);
    endpoint_text(&peer, ls->addr);
    if (ls->kit->c->protocol == PROTOCOL_JABBERD2)
        init_jabberd2(ls);
    else
        init_client(ls, l->name);
    init_session(ls, accepted);
    k->sessions++;
    list_append(&k->every, &ls->every);
    w->link_sessions++;
    return ls;
}

static bool start(struct link_session *ls, uv_tcp_t *tcp)
{
    const struct gateway_config *cfg = ls->kit->cfg;
    struct conn_options opt = {
        .content = is_jabberd2(ls) ? CONTENT_ROUTER : CONTENT_COMPONENT,
        .limits = &ls->w->limits_unproven,
        .turn_events = TURN_EVENTS,
        .high_mark = cfg->limits.link_high,
        .low_mark = cfg->limits.link_low,
        .dead_ms = cfg->timeouts.dead,
    };
    return session_start(&ls->s, &ls->w->loop, tcp, &opt);
}

static void tell_failed(struct line *l, const char *why)
{
    struct worker *w = l->link->w;
    log_ev(&w->ctx, LOG_ERROR, "link.failed", KV_C("link", l->label),
           KV_C("addr", l->link->kit->c->address), KV_C("msg", why),
           KV_SEC("retry", l->redial.wait_ms));
    alarm_raise(&w->alarms, "link.connect", l->label, why, loop_now(&w->loop));
}

static void on_connected(void *arg, uv_tcp_t *tcp, const struct endpoint *to, const char *why)
{
    (void)to;
    struct line *l = arg;
    struct link_session *ls = tcp != NULL ? new_session(l->link, l, tcp, false) : NULL;
    if (tcp == NULL) {
        tell_failed(l, why);
        return;
    }
    if (ls == NULL)
        session_discard(tcp);
    l->session = ls;
    if (ls != NULL && start(ls, tcp))
        return;
    l->session = NULL;
    if (ls != NULL)
        free_session(ls);
    redial_again(&l->redial, REDIAL_LOST);
    tell_failed(l, "out of memory");
}

static struct link_session *first_pending(struct link *k)
{
    return CONTAINER_OF(k->pending.first, struct link_session, pending);
}

/* Who has been a stranger for longest makes room, so that nobody can lock the inside out by
 * connecting and keeping silent. */
void line_accept(struct link *k, uv_tcp_t *tcp)
{
    struct worker *w = k->w;
    struct link_session *ls = new_session(k, &k->lines[0], tcp, true);
    if (ls == NULL) {
        log_ev(&w->ctx, LOG_WARN, "link.accept.refused", KV_C("link", k->kit->c->name),
               KV_C("reason", "memory"));
        session_discard(tcp);
        return;
    }
    if (k->pending.count >= PENDING_MAX)
        session_abort(&first_pending(k)->s, "too many unproven connections");
    list_append(&k->pending, &ls->pending);
    if (start(ls, tcp))
        return;
    list_remove(&ls->pending);
    free_session(ls);
}

/* ---- a line's life --------------------------------------------------------------------------- */

void line_init(struct line *l, struct link *k, size_t index)
{
    static const struct redial_ops ops = {on_connected};
    struct worker *w = k->w;
    const struct cfg_link *c = k->kit->c;
    bool named = inward_lines(c) > 1 || c->component == NULL;
    const char *name = named && c->npartners > 0 ? c->partners[index] : c->component;
    l->link = k;
    l->partner = named && c->npartners > 0 ? name : NULL;
    str_copy(l->name, sizeof l->name, str_c(name != NULL ? name : c->name));
    snprintf(l->label, sizeof l->label, "%s%s%s", c->name, l->partner ? "/" : "",
             l->partner ? l->name : "");
    l->hold_timer.fire = on_hold_timer;
    redial_init(&l->redial, &w->loop, &ops, l);
    l->since = loop_now(&w->loop);
    set_lacking(l);
}

void line_adopt(struct line *l, size_t index)
{
    if (l->partner != NULL)
        l->partner = l->link->kit->c->partners[index];
}

void line_dial(struct line *l)
{
    struct endpoint to;
    const struct cfg_link *c = l->link->kit->c;
    if (c->transport == LINK_DIAL && endpoint_parse(str_c(c->address), &to))
        redial_start(&l->redial, &to, l->link->kit->cfg->timeouts.connect);
}

bool line_serves(const struct line *l, struct str local)
{
    if (!l->up)
        return false;
    return !is_jabberd2(l->session) || jabberd2_announced(&l->session->m.jabberd2, local);
}

bool line_takes_answers(const struct line *l)
{
    struct worker *w = l->link->w;
    if (!l->up || conn_queued(l->session->s.conn) <= UNREAD_MARKS * w->cfg->limits.link_high)
        return true;
    alarm_raise(&w->alarms, UNREAD, l->label, "it does not read: answers to it are dropped",
                loop_now(&w->loop));
    return false;
}

bool line_send(struct line *l, struct span stanza, struct str local)
{
    struct link_session *ls = l->session;
    if (!l->up)
        return false;
    struct span out = stanza;
    if (is_jabberd2(ls))
        out = jabberd2_route(&ls->m.jabberd2, stanza.s, local);
    bool wrapped = out.s.p != stanza.s.p;
    if (out.s.p == NULL || !conn_send_stanza(ls->s.conn, out)) {
        if (wrapped)
            span_release(&out);
        return false;
    }
    if (wrapped)
        span_release(&stanza);
    ls->w->n.inward.writing++;
    uint64_t now = loop_now(&ls->w->loop);
    if (is_jabberd2(ls))
        jabberd2_sent(&ls->m.jabberd2, now);
    else
        link_client_sent(&ls->m.client, now);
    watch_fullness(l->link);
    return true;
}

/* Would its certificate, if it has shown one, still be believed? */
static bool still_trusted(const struct link_session *ls, const struct link_trust *now)
{
    const struct tls_peer *peer = conn_tls_peer(ls->s.conn);
    return peer == NULL || now->auth == LINK_AUTH_PASSWORD || trust_ok(link_trust_check(now, peer));
}

void line_renew(struct line *l)
{
    struct link_session *ls = l->session;
    if (l->up && still_trusted(ls, &l->link->kit->trust))
        return;
    if (l->up) {
        log_ev(&ls->s.log, LOG_WARN, "link.trust.lost",
               KV_C("msg", "its certificate is not accepted any more"));
        line_leave(l, "your certificate is not accepted any more");
        return;
    }
    if (ls != NULL) { /* what it is being set up with may be what was changed */
        l->session = NULL;
        ls->line = NULL;
        session_drain(&ls->s, "the configuration has changed");
    }
    line_dial(l);
}

void line_leave(struct line *l, const char *why)
{
    if (l->up)
        set_down(l);
    if (l->session != NULL)
        session_drain(&l->session->s, why);
}

void line_dismiss(struct link *k, bool now, const char *why)
{
    LIST_FOREACH (&k->pending, n, following) {
        struct link_session *ls = CONTAINER_OF(n, struct link_session, pending);
        if (now)
            session_abort(&ls->s, why);
        else
            session_drain(&ls->s, why);
    }
}

void line_abort_all(struct link *k)
{
    LIST_FOREACH (&k->every, n, following)
        session_abort(&CONTAINER_OF(n, struct link_session, every)->s, "the gateway stops now");
}

void line_stop(struct line *l, bool now)
{
    redial_stop(&l->redial);
    loop_timer_clear(&l->link->w->loop, &l->hold_timer);
    if (l->session == NULL)
        return;
    l->session->s.linger_ms = DRAIN_LINGER_MS;
    if (now)
        session_abort(&l->session->s, "the gateway stops now");
    else
        line_leave(l, l->link->w->draining ? "the gateway is stopping"
                                           : "the link was removed or changed");
}
