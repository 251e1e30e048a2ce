#include "gateway/proto/s2s_out_priv.h"

#include "core/base/mem.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"
#include "gateway/proto/arrival.h"
#include "gateway/proto/bidi.h"
#include "gateway/proto/judge.h"

#define TO(s) (1u << S2S_OUT_##s)
const machine_edges s2s_out_edges[S2S_OUT_STATE_COUNT] = {
    [S2S_OUT_HEADER] = TO(FEATURES) | TO(HANDSHAKE) | TO(READY) | TO(RESTING),
    [S2S_OUT_FEATURES] = TO(STARTTLS) | TO(READY) | TO(RESTING),
    [S2S_OUT_STARTTLS] = TO(HANDSHAKE) | TO(RESTING),
    [S2S_OUT_HANDSHAKE] = TO(TLS_HEADER) | TO(RESTING),
    [S2S_OUT_TLS_HEADER] = TO(TLS_FEATURES) | TO(READY) | TO(RESTING),
    [S2S_OUT_TLS_FEATURES] = TO(AUTH) | TO(READY) | TO(RESTING),
    [S2S_OUT_AUTH] = TO(TLS_HEADER) | TO(READY) | TO(RESTING),
    [S2S_OUT_READY] = TO(CLOSING) | TO(RESTING),
    [S2S_OUT_CLOSING] = TO(RESTING),
    [S2S_OUT_RESTING] = 0,
};
#undef TO

/* A verification for somebody else's stream. */
struct verify {
    struct list_node node;
    bool sent;
    uint64_t since; /* ms: when it was sent */
    char *local, *remote, *id, *key;
};

const char *s2s_out_state_name(enum s2s_out_state s)
{
    static const char *const names[] = {
#define X(id) #id,
        S2S_OUT_STATES(X)
#undef X
    };
    return names[s];
}

/* Of all domains; no domain takes another one's. */
static size_t pairs_max(const struct side *side)
{
    return side->cfg->limits.pairs_per_stream * (size_t)(1 + S2S_OUT_GUESTS_MAX);
}

bool s2s_out_init(struct s2s_out *m, const struct side *side,
                  const struct dialback_secrets *secrets, struct str local, struct str remote)
{
    *m = (struct s2s_out){.state = S2S_OUT_HEADER, .side = side, .secrets = secrets};
    authz_init(&m->authz, pairs_max(side));
    m->local = mem_strndup(local);
    m->remote = mem_strndup(remote);
    return m->local != NULL && m->remote != NULL;
}

static void free_verify(struct verify *v)
{
    list_remove(&v->node);
    mem_free(v->local);
    mem_free(v->remote);
    mem_free(v->id);
    mem_free(v->key);
    mem_free(v);
}

void s2s_out_free(struct s2s_out *m)
{
    while (m->verify.first != NULL)
        free_verify(CONTAINER_OF(m->verify.first, struct verify, node));
    authz_free(&m->authz);
    mem_free(m->local);
    mem_free(m->remote);
    mem_free(m->id);
    m->local = m->remote = m->id = NULL;
}

bool s2s_out_valid(const struct s2s_out *m, struct str local, struct str remote)
{
    const struct authz_pair *p = authz_find(&m->authz, local, remote);
    return m->state == S2S_OUT_READY && !m->no_stanzas && p != NULL && p->state == AUTHZ_VALID;
}

bool s2s_out_set_state(struct s2s_out *m, enum s2s_out_state to)
{
    if (!machine_edge_ok(s2s_out_edges, m->state, to))
        return false;
    m->state = to;
    return true;
}

/* A peer that hangs up instead of answering <auth/>. */
static void note_refusal(struct s2s_out *m, enum end_reason reason)
{
    if (m->state == S2S_OUT_AUTH &&
        (reason == END_PEER_CLOSED || reason == END_LOST || reason == END_STREAM_ERROR_RECEIVED))
        m->external_refused = true;
}

void s2s_out_rest(struct s2s_out *m, struct gw_actions *out, enum end_reason reason, bool abort)
{
    note_refusal(m, reason);
    if (s2s_out_set_state(m, S2S_OUT_RESTING))
        gw_close(out, reason, abort);
}

/* With a sentence that the bounces will carry. */
void s2s_out_rest_because(struct s2s_out *m, struct gw_actions *out, enum end_reason reason,
                          struct str text)
{
    note_refusal(m, reason);
    if (!s2s_out_set_state(m, S2S_OUT_RESTING))
        return;
    gw_close(out, reason, false);
    out->v[out->n - 1].u.close.text = text;
}

/* Before READY there is nothing to wait for: say good-bye and go. */
void s2s_out_give_up(struct s2s_out *m, struct gw_actions *out, enum end_reason reason,
                     const char *text)
{
    gw_log(out, LOG_NOTICE, "s2s.failed", KV_C("reason", end_reason_name(reason)),
           KV_C("state", s2s_out_state_name(m->state)), KV_C("msg", text));
    gw_send(out, STREAM_CLOSE_TAG);
    s2s_out_rest_because(m, out, reason, str_c(text));
}

void s2s_out_refuse(struct s2s_out *m, struct gw_actions *out, const char *condition,
                    const char *text)
{
    if (m->state == S2S_OUT_HANDSHAKE) { /* no text between the handshake's bytes */
        s2s_out_rest(m, out, END_TLS_FAILED, true);
        return;
    }
    if (m->state == S2S_OUT_CLOSING) { /* our closing tag was the last that we say (4.4) */
        s2s_out_rest(m, out, m->reason, false);
        return;
    }
    gw_send_error(out, condition, text, LOG_NOTICE, "s2s.refused");
    s2s_out_rest(m, out, END_STREAM_ERROR_SENT, false);
}

static void close_gracefully(struct s2s_out *m, struct gw_actions *out, enum end_reason reason)
{
    if (!s2s_out_set_state(m, S2S_OUT_CLOSING)) {
        s2s_out_rest(m, out, reason, false);
        return;
    }
    m->reason = reason;
    gw_send(out, STREAM_CLOSE_TAG);
    gw_timer_clear(out, TIMER_KEEPALIVE);
    gw_timer_set(out, TIMER_STATE, m->side->cfg->timeouts.close);
}

enum security_mode s2s_out_mode(const struct s2s_out *m)
{
    enum security_mode mode = side_security(m->side, str_c(m->remote));
    bool must = m->side->cfg->dns.trust_ad && dane_demands_tls(m->target);
    return must && mode == SECURITY_TLS_OPTIONAL ? SECURITY_TLS_REQUIRED : mode;
}

/* ---- dialback questions ---------------------------------------------------------------------- */

static void send_result(struct s2s_out *m, struct authz_pair *p, uint64_t now,
                        struct gw_actions *out)
{
    char key[DIALBACK_KEY_HEX + 1];
    if (!dialback_key(key, str_c(m->secrets->current), str_c(p->remote), str_c(p->local),
                      str_c(m->id))) {
        s2s_out_rest(m, out, END_NO_MEMORY, true);
        return;
    }
    struct dialback_text t = {.kind = DIALBACK_RESULT,
                              .from = str_c(p->local),
                              .to = str_c(p->remote),
                              .key = {key, DIALBACK_KEY_HEX}};
    size_t begin = gw_send_begin(out);
    dialback_write(&out->text, &t);
    gw_send_end(out, begin);
    p->state = AUTHZ_ASKED;
    p->since = now;
    gw_log(out, LOG_INFO, "dialback.result.sent", KV_C("from", p->local), KV_C("to", p->remote),
           KV_C("id", m->id));
}

static void send_verify(struct verify *v, uint64_t now, struct gw_actions *out)
{
    struct dialback_text t = {.kind = DIALBACK_VERIFY,
                              .from = str_c(v->local),
                              .to = str_c(v->remote),
                              .id = str_c(v->id),
                              .key = str_c(v->key)};
    size_t begin = gw_send_begin(out);
    dialback_write(&out->text, &t);
    gw_send_end(out, begin);
    v->sent = true;
    v->since = now;
    gw_log(out, LOG_INFO, "dialback.verify.sent", KV_C("from", v->local), KV_C("to", v->remote),
           KV_C("id", v->id));
}

/* As much as one step's list of actions holds; the rest goes after the next answer or deadline. */
static void send_wanted(struct s2s_out *m, uint64_t now, struct gw_actions *out)
{
    struct authz_pair *p;
    while (m->can_dialback && out->n + 6 < GW_ACTIONS_MAX &&
           (p = authz_first(&m->authz, AUTHZ_WAITING)) != NULL && m->state == S2S_OUT_READY)
        send_result(m, p, now, out);
    LIST_FOREACH (&m->verify, n, next) {
        struct verify *v = CONTAINER_OF(n, struct verify, node);
        if (m->can_dialback && !v->sent && out->n + 6 < GW_ACTIONS_MAX)
            send_verify(v, now, out);
    }
}

/* Whatever was asked has dialback.timeout to be answered; the oldest question sets the timer. */
static void watch_deadline(const struct s2s_out *m, uint64_t now, struct gw_actions *out)
{
    uint64_t oldest = UINT64_MAX, limit = m->side->cfg->dialback.timeout;
    if (m->state != S2S_OUT_READY)
        return;
    if (!m->can_dialback &&
        (m->verify.count > 0 || authz_first(&m->authz, AUTHZ_WAITING) != NULL)) {
        gw_timer_set(out, TIMER_STATE, 1); /* it can be refused, but one in a step */
        return;
    }
    for (size_t i = 0; i < m->authz.n; i++)
        if (m->authz.v[i].state == AUTHZ_ASKED && m->authz.v[i].since < oldest)
            oldest = m->authz.v[i].since;
    LIST_FOREACH (&m->verify, n, next) {
        const struct verify *v = CONTAINER_OF(n, struct verify, node);
        if (v->sent && v->since < oldest)
            oldest = v->since;
    }
    if (oldest == UINT64_MAX)
        gw_timer_clear(out, TIMER_STATE);
    else
        gw_timer_set(out, TIMER_STATE, oldest + limit > now ? oldest + limit - now : 1);
}

/* Twice within the time after which the peer takes us for dead (XEP-0478). */
static uint64_t keepalive(const struct s2s_out *m)
{
    uint64_t ours = m->side->cfg->timeouts.keepalive, half = m->peer_idle_ms / 2;
    return half > 0 && half < ours ? half : ours;
}

void s2s_out_become_ready(struct s2s_out *m, uint64_t now, struct gw_actions *out)
{
    if (m->id == NULL) {
        s2s_out_give_up(m, out, END_NO_DIALBACK, "the peer's stream header has no id");
        return;
    }
    s2s_out_set_state(m, S2S_OUT_READY);
    m->active_ms = now;
    gw_timer_clear(out, TIMER_SETUP);
    gw_timer_set(out, TIMER_KEEPALIVE, keepalive(m));
    gw_act(out, ACT_READY);
    send_wanted(m, now, out);
    watch_deadline(m, now, out);
}

void s2s_out_prove(struct s2s_out *m, struct authz_pair *p, uint64_t now, struct gw_actions *out)
{
    p->state = AUTHZ_VALID;
    p->since = now;
    if (m->bidi) /* whole stanzas may come */
        gw_act(out, ACT_LIMITS);
}

/* ---- dialback answers ------------------------------------------------------------------------ */

static bool serves_nobody(const struct s2s_out *m)
{
    return m->authz.n == 0 && m->verify.count == 0;
}

static void close_when_done(struct s2s_out *m, struct gw_actions *out)
{
    if (m->state == S2S_OUT_READY && serves_nobody(m)) {
        gw_log(out, LOG_INFO, "s2s.dialback-only", KV_C("id", m->id));
        close_gracefully(m, out, END_DIALBACK_ONLY);
    }
}

static void report_pair(struct gw_actions *out, enum pair_result result, const char *mech,
                        struct str text)
{
    struct gw_action *act = gw_act(out, ACT_PAIR);
    act->u.pair.local = str_c(out->local.ascii);
    act->u.pair.remote = str_c(out->remote.ascii);
    act->u.pair.result = result;
    act->u.pair.text = text;
    gw_log(out, result == PAIR_VALID ? LOG_INFO : LOG_NOTICE, "s2s.state",
           KV_C("local", out->local.ascii), KV_C("remote", out->remote.ascii),
           KV_C("from", "PENDING"), KV_C("to", result == PAIR_VALID ? "CONNECTED" : "FAILED"),
           KV_C("mech", mech), KV_S("reason", text));
}

static void on_result(struct s2s_out *m, const struct dialback_element *e, uint64_t now,
                      struct gw_actions *out)
{
    struct authz_pair *p = NULL;
    if (e->from.p != NULL && e->to.p != NULL && domain_prepare(e->from, &out->remote) &&
        domain_prepare(e->to, &out->local))
        p = authz_find(&m->authz, str_c(out->local.ascii), str_c(out->remote.ascii));
    if (p == NULL || p->state != AUTHZ_ASKED) {
        gw_log(out, LOG_NOTICE, "dialback.unasked", KV_S("from", e->from), KV_S("to", e->to));
        return;
    }
    m->active_ms = now;
    if (e->type == DIALBACK_VALID) {
        s2s_out_prove(m, p, now, out);
        report_pair(out, PAIR_VALID, "dialback", STR_NONE);
    } else {
        authz_remove(&m->authz, p);
        m->no_stanzas = m->no_stanzas || e->type == DIALBACK_INVALID;
        report_pair(out, e->type == DIALBACK_INVALID ? PAIR_INVALID : PAIR_ERROR, "dialback",
                    e->type == DIALBACK_INVALID ? STR("invalid") : e->condition);
    }
    send_wanted(m, now, out);
    watch_deadline(m, now, out);
    close_when_done(m, out);
}

static struct verify *find_verify(const struct s2s_out *m, const char *local, const char *remote,
                                  struct str id)
{
    LIST_FOREACH (&m->verify, n, next) {
        struct verify *v = CONTAINER_OF(n, struct verify, node);
        if (v->sent && str_is(id, v->id) && strcmp(v->local, local) == 0 &&
            strcmp(v->remote, remote) == 0)
            return v;
    }
    return NULL;
}

static void on_verify(struct s2s_out *m, const struct dialback_element *e, uint64_t now,
                      struct gw_actions *out)
{
    struct verify *v = NULL;
    if (e->from.p != NULL && e->to.p != NULL && domain_prepare(e->from, &out->remote) &&
        domain_prepare(e->to, &out->local))
        v = find_verify(m, out->local.ascii, out->remote.ascii, e->id);
    if (v == NULL) {
        gw_log(out, LOG_NOTICE, "dialback.unasked", KV_S("from", e->from), KV_S("to", e->to),
               KV_S("id", e->id));
        return;
    }
    m->active_ms = now;
    enum verdict verdict = e->type == DIALBACK_VALID     ? VERDICT_VALID
                           : e->type == DIALBACK_INVALID ? VERDICT_INVALID
                                                         : VERDICT_NOT_FOUND;
    free_verify(v);
    struct gw_action *act = gw_act(out, ACT_ANSWERED);
    act->u.answered.request.local = str_c(out->local.ascii);
    act->u.answered.request.remote = str_c(out->remote.ascii);
    act->u.answered.request.stream_id = e->id;
    act->u.answered.verdict = verdict;
    act->u.answered.text = e->condition;
    gw_log(out, verdict == VERDICT_VALID ? LOG_INFO : LOG_NOTICE, "dialback.verify.received",
           KV_S("from", e->from), KV_S("to", e->to), KV_S("id", e->id),
           KV_C("type", e->type == DIALBACK_ERROR ? "error" : verdict_name(verdict)),
           KV_S("reason", e->condition));
    send_wanted(m, now, out);
    watch_deadline(m, now, out);
    close_when_done(m, out);
}

/* ---- elements -------------------------------------------------------------------------------- */

static void on_stream_error(struct s2s_out *m, const struct nonza *z, struct gw_actions *out)
{
    struct str condition, text;
    stream_read_error(z, &condition, &text);
    m->reset = str_is(condition, "reset");
    if (m->bidi && authz_first(&m->authz, AUTHZ_VALID) == NULL && bidi_misunderstood(condition))
        m->bidi_broken = "it ended the stream after <bidi/>, which it had offered";
    gw_log(out, LOG_NOTICE, "s2s.error.received", KV_S("reason", condition), KV_S("msg", text));
    if (m->state == S2S_OUT_CLOSING) {
        s2s_out_rest(m, out, m->reason, false);
        return;
    }
    gw_send(out, STREAM_CLOSE_TAG);
    s2s_out_rest_because(m, out, END_STREAM_ERROR_RECEIVED, text.n ? text : condition);
}

static void on_dialback(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct dialback_element e = dialback_read(ev->u.nonza);
    if (e.kind == DIALBACK_NOT) {
        s2s_out_refuse(m, out, "unsupported-stanza-type",
                       "this element is not expected on this stream");
    } else if (e.type == DIALBACK_REQUEST) {
        s2s_out_refuse(m, out, "unsupported-stanza-type",
                       "dialback requests belong on a stream that the asking side opened");
    } else if (e.kind == DIALBACK_RESULT) {
        on_result(m, &e, ev->now_ms, out);
    } else {
        on_verify(m, &e, ev->now_ms, out);
    }
}

static void on_nonza(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state != S2S_OUT_HANDSHAKE && nonza_is(ev->u.nonza, NS_STREAM, "error")) {
        on_stream_error(m, ev->u.nonza, out);
        return;
    }
    switch (m->state) {
    case S2S_OUT_FEATURES:
    case S2S_OUT_TLS_FEATURES:
    case S2S_OUT_STARTTLS:
    case S2S_OUT_AUTH:
        s2s_out_setup_nonza(m, ev, out);
        break;
    case S2S_OUT_READY:
        /* A peer may send features late, to a stream without version; they change nothing now. */
        if (!nonza_is(ev->u.nonza, NS_STREAM, "features"))
            on_dialback(m, ev, out);
        break;
    case S2S_OUT_HEADER:
    case S2S_OUT_HANDSHAKE:
    case S2S_OUT_TLS_HEADER:
    case S2S_OUT_CLOSING:
    case S2S_OUT_RESTING:
        break;
    }
}

/* ---- stanzas --------------------------------------------------------------------------------- */

static void break_rules(struct s2s_out *m, struct gw_actions *out, const char *condition,
                        const char *text)
{
    m->bidi_broken = text;
    s2s_out_refuse(m, out, condition, text);
}

static void on_stanza(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct arrival a;
    bool closing = m->state == S2S_OUT_CLOSING;
    if (!m->bidi && closing)
        return;
    if (!m->bidi)
        s2s_out_refuse(m, out, "not-authorized",
                       "stanzas come on a stream that their sender opened");
    else if (!closing && m->state != S2S_OUT_READY)
        break_rules(m, out, "not-authorized", "a stanza came before the stream was ready");
    else if (!arrival_read(&a, ev->u.stanza, out))
        break_rules(m, out, "improper-addressing", "the stanza needs a valid from and to");
    else if (!arrival_proven(&m->authz, out))
        break_rules(m, out, "invalid-from",
                    "the stanza's domain pair has not been authorised on this stream");
    else {
        m->active_ms = ev->now_ms;
        arrival_pass(&a, ev->u.stanza, out);
    }
}

/* ---- what the route layer wants -------------------------------------------------------------- */

static void report_own(struct gw_actions *out, struct str local, struct str remote,
                       enum pair_result result, const char *mech, struct str text)
{
    str_copy(out->local.ascii, sizeof out->local.ascii, local);
    str_copy(out->remote.ascii, sizeof out->remote.ascii, remote);
    report_pair(out, result, mech, text);
}

static bool has_room(const struct s2s_out *m, struct str remote)
{
    uint64_t n = 0;
    for (size_t i = 0; i < m->authz.n; i++)
        n += str_is(remote, m->authz.v[i].remote);
    return n < m->side->cfg->limits.pairs_per_stream;
}

static void on_want_pair(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct str local = ev->u.pair.local;
    struct str remote = ev->u.pair.remote.n > 0 ? ev->u.pair.remote : str_c(m->remote);
    struct authz_pair *p = authz_find(&m->authz, local, remote);
    if (m->state == S2S_OUT_CLOSING || (p != NULL && p->state != AUTHZ_VALID))
        return;
    if (p != NULL) { /* by EXTERNAL; or a guest has come back */
        report_own(out, local, remote, PAIR_VALID, p->external ? "external" : "dialback", STR_NONE);
        return;
    }
    if (m->state == S2S_OUT_READY && !m->can_dialback) {
        report_own(out, local, remote, PAIR_ALONE, "dialback", STR_NONE);
        return;
    }
    p = has_room(m, remote) ? authz_add(&m->authz, local, remote) : NULL;
    if (p == NULL) {
        report_own(out, local, remote, PAIR_ERROR, "dialback", STR("resource-constraint"));
        return;
    }
    p->state = AUTHZ_WAITING;
    p->since = ev->now_ms;
    if (m->state == S2S_OUT_READY)
        send_wanted(m, ev->now_ms, out);
    watch_deadline(m, ev->now_ms, out);
}

static void on_want_verify(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    const struct db_request *r = &ev->u.verify;
    bool deaf = m->state == S2S_OUT_READY && !m->can_dialback; /* it might end the stream */
    struct verify *v = m->verify.count < S2S_OUT_VERIFY_MAX && m->state != S2S_OUT_CLOSING && !deaf
                           ? mem_zalloc(sizeof *v)
                           : NULL;
    if (v != NULL) {
        v->local = mem_strndup(r->local);
        v->remote = mem_strndup(r->remote);
        v->id = mem_strndup(r->stream_id);
        v->key = mem_strndup(r->key);
        list_append(&m->verify, &v->node);
    }
    if (v == NULL || v->local == NULL || v->remote == NULL || v->id == NULL || v->key == NULL) {
        if (v != NULL)
            free_verify(v);
        struct gw_action *act = gw_act(out, ACT_ANSWERED);
        act->u.answered.request = *r;
        act->u.answered.verdict = deaf ? VERDICT_NOT_FOUND : VERDICT_BUSY;
        act->u.answered.text = deaf ? STR("the peer supports no dialback") : STR_NONE;
        return;
    }
    if (m->state == S2S_OUT_READY)
        send_verify(v, ev->now_ms, out);
    watch_deadline(m, ev->now_ms, out);
}

/* ---- time, configuration, end ---------------------------------------------------------------- */

/* Questions that were not answered, or cannot be asked: whoever wants to know has a deadline too.
 */
static void forget_questions(struct s2s_out *m, uint64_t now, struct gw_actions *out)
{
    int64_t silent = 0;
    LIST_FOREACH (&m->verify, n, next) {
        struct verify *v = CONTAINER_OF(n, struct verify, node);
        bool asked = v->sent || m->can_dialback;
        if (asked && (!v->sent || now - v->since < m->side->cfg->dialback.timeout))
            continue;
        free_verify(v);
        silent++;
    }
    if (silent > 0)
        gw_log(out, LOG_NOTICE, "dialback.verify.silent", KV_C("to", m->remote),
               KV_I("questions", silent));
}

/* One pair that was asked for too long; the next one has its own step. */
static void on_deadline(struct s2s_out *m, uint64_t now, struct gw_actions *out)
{
    forget_questions(m, now, out);
    for (size_t i = 0; i < m->authz.n; i++) {
        struct authz_pair *p = &m->authz.v[i];
        bool silent = p->state == AUTHZ_ASKED && now - p->since >= m->side->cfg->dialback.timeout;
        if (!silent && (p->state != AUTHZ_WAITING || m->can_dialback))
            continue;
        report_own(out, str_c(p->local), str_c(p->remote), silent ? PAIR_ERROR : PAIR_ALONE,
                   "dialback", silent ? STR("no answer to db:result") : STR_NONE);
        authz_remove(&m->authz, p);
        break;
    }
    send_wanted(m, now, out);
    watch_deadline(m, now, out);
    close_when_done(m, out);
}

static void on_timer(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    switch (ev->u.timer) {
    case TIMER_SETUP:
        gw_log(out, LOG_NOTICE, "s2s.failed", KV_C("reason", "setup-timeout"),
               KV_C("state", s2s_out_state_name(m->state)));
        s2s_out_rest(m, out, END_SETUP_TIMEOUT, false);
        break;
    case TIMER_STATE:
        if (m->state == S2S_OUT_CLOSING)
            s2s_out_rest(m, out, m->reason, false);
        else
            on_deadline(m, ev->now_ms, out);
        break;
    case TIMER_KEEPALIVE:
        if (ev->now_ms - m->active_ms >= m->side->cfg->timeouts.idle) {
            close_gracefully(m, out, END_IDLE);
        } else {
            gw_send(out, " ");
            gw_timer_set(out, TIMER_KEEPALIVE, keepalive(m));
        }
        break;
    case TIMER_ASKED:
    case GW_TIMER_COUNT:
        break;
    }
}

/* What does for a guest: no certificate is looked at for it, and nothing comes back from it. */
static bool guest_ok(const struct s2s_out *m, const struct side *side, struct str remote)
{
    const struct gateway_config *c = side->cfg;
    struct key_hash pins[CONFIG_PINS_MAX];
    char why[IDENTITY_WHY];
    enum security_mode mode = side_security(side, remote);
    char name[DOMAIN_MAX + 1];
    str_copy(name, sizeof name, remote);
    return mode != (m->encrypted ? SECURITY_NO_TLS : SECURITY_TLS_REQUIRED) &&
           (policy_auth(c, remote) & POLICY_AUTH_DIALBACK) &&
           policy_peer_pins(c, remote, pins) == 0 && policy_ca_file(c, remote) == NULL &&
           (m->tls == NULL || identity_tls_enough(c, m->tls, remote, why)) &&
           !(m->bidi_offered && bidi_allowed(side, m->encrypted, name));
}

bool s2s_out_hosts(const struct s2s_out *m, struct str remote)
{
    return m->state == S2S_OUT_READY && m->side->link == NULL && m->errors_offered &&
           m->can_dialback && !m->no_stanzas && !m->bidi && !str_is(remote, m->remote) &&
           m->authz.n < m->authz.max && guest_ok(m, m->side, remote);
}

/* After a reload. */
static bool guests_ok(const struct s2s_out *m, const struct side *side)
{
    for (size_t i = 0; i < m->authz.n; i++) {
        struct str local = str_c(m->authz.v[i].local), remote = str_c(m->authz.v[i].remote);
        if (!str_is(remote, m->remote) &&
            (!side_admits(side, remote) || !guest_ok(m, side, remote) ||
             side_pair(side, local, remote, WAY_EITHER).verdict != POLICY_ALLOW))
            return false;
    }
    return true;
}

/* Its questions serve what comes in, so it may stand for a pair that may not write out. */
static bool pair_denied(const struct s2s_out *m, const struct side *side, struct str local)
{
    return side_pair(side, local, str_c(m->remote), WAY_EITHER).verdict != POLICY_ALLOW;
}

static bool mode_broken(const struct s2s_out *m, const struct side *side)
{
    enum security_mode mode = side_security(side, str_c(m->remote));
    return (m->encrypted && mode == SECURITY_NO_TLS) ||
           (!m->encrypted && m->state == S2S_OUT_READY && mode == SECURITY_TLS_REQUIRED) ||
           (mode == SECURITY_NO_TLS && m->state == S2S_OUT_STARTTLS);
}

struct stream_fate s2s_out_fate(const struct s2s_out *m, const struct side *side)
{
    struct stream_fate f = {S2S_STAYS, str_c(m->local), str_c(m->remote)};
    if (m->state == S2S_OUT_CLOSING)
        return f;
    bool denied = pair_denied(m, side, f.local) || !side_admits(side, f.remote);
    for (size_t i = 0; i < m->authz.n && !denied; i++) {
        f.local = str_c(m->authz.v[i].local);
        denied = !side_serves(side, f.local) ||
                 (str_is(f.remote, m->authz.v[i].remote) && pair_denied(m, side, f.local));
    }
    bool one_way = m->bidi && !bidi_allowed(side, m->encrypted, m->remote);
    bool broken =
        mode_broken(m, side) || s2s_out_unproven(m, side) || one_way || !guests_ok(m, side);
    f.fate = denied ? S2S_DENIED : broken ? S2S_RENEWED : S2S_STAYS;
    return f;
}

static void on_policy(struct s2s_out *m, struct gw_actions *out)
{
    m->authz.max = pairs_max(m->side);
    if (m->state == S2S_OUT_CLOSING)
        return;
    enum s2s_fate fate = s2s_out_fate(m, m->side).fate;
    s2s_out_identity_ok(m); /* for what is said of the stream from now on */
    m->reset = fate == S2S_RENEWED;
    if (fate == S2S_DENIED)
        s2s_out_refuse(m, out, "policy-violation", "the policy for this domain pair has changed");
    else if (m->reset)
        s2s_out_refuse(m, out, "reset",
                       mode_broken(m, m->side)        ? "the security mode has changed"
                       : s2s_out_unproven(m, m->side) ? "what proves this domain has changed"
                       : !guests_ok(m, m->side)
                           ? "the rules for a domain on this stream have changed"
                           : "bidi was switched off");
}

static void on_stream_close(struct s2s_out *m, struct gw_actions *out)
{
    if (m->state == S2S_OUT_CLOSING) {
        s2s_out_rest(m, out, m->reason, false);
        return;
    }
    if (m->state != S2S_OUT_HANDSHAKE)
        gw_send(out, STREAM_CLOSE_TAG);
    s2s_out_rest(m, out, END_PEER_CLOSED, false);
}

void s2s_out_step(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == S2S_OUT_RESTING)
        return;
    switch (ev->kind) {
    case EV_OPENED:
        if (m->state == S2S_OUT_HEADER)
            s2s_out_opened(m, ev, out);
        break;
    case EV_STREAM_OPEN:
        if (m->state == S2S_OUT_HEADER || m->state == S2S_OUT_TLS_HEADER)
            s2s_out_header(m, ev, out);
        break;
    case EV_NONZA:
        on_nonza(m, ev, out);
        break;
    case EV_STANZA:
        on_stanza(m, ev, out);
        break;
    case EV_STREAM_CLOSE:
        on_stream_close(m, out);
        break;
    case EV_XML_ERROR:
        if (m->state == S2S_OUT_HANDSHAKE || m->state == S2S_OUT_CLOSING)
            s2s_out_rest(m, out, m->state == S2S_OUT_HANDSHAKE ? END_TLS_FAILED : m->reason, true);
        else
            s2s_out_refuse(m, out, ev->u.error.condition, ev->u.error.text);
        break;
    case EV_TLS_UP:
        s2s_out_tls_up(m, ev, out);
        break;
    case EV_TLS_FAILED:
        gw_log(out, LOG_NOTICE, "tls.failed", KV_S("msg", ev->u.text));
        s2s_out_rest(m, out, END_TLS_FAILED, true);
        break;
    case EV_WANT_PAIR:
        on_want_pair(m, ev, out);
        break;
    case EV_WANT_VERIFY:
        on_want_verify(m, ev, out);
        break;
    case EV_TIMER:
        on_timer(m, ev, out);
        break;
    case EV_POLICY_CHANGED:
        on_policy(m, out);
        break;
    case EV_DRAIN:
        close_gracefully(m, out, END_DRAINED);
        break;
    case EV_LOST:
        s2s_out_rest(m, out, m->state == S2S_OUT_CLOSING ? m->reason : END_LOST, true);
        break;
    case EV_VERDICT:
        break; /* for incoming streams */
    }
}
