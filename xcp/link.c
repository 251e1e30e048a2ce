#include "xcp/link.h"

#include "core/stream/bounce.h"
#include "core/stream/stream.h"

const char *link_state_name(enum link_state s)
{
    static const char *const names[] = {
#define X(id) #id,
        LINK_STATES(X)
#undef X
    };
    return names[s];
}

bool link_set_state(struct link_end *e, enum link_state to, struct gw_actions *out)
{
    if (!machine_edge_ok(e->edges, e->state, to))
        return false;
    if (to == LINK_UP || to == LINK_CLOSING || to == LINK_RESTING)
        gw_timer_clear(out, TIMER_SETUP);
    if (e->state == LINK_UP)
        gw_timer_clear(out, TIMER_KEEPALIVE);
    if (e->state == LINK_CLOSING)
        gw_timer_clear(out, TIMER_STATE);
    if (to == LINK_CLOSING)
        gw_timer_set(out, TIMER_STATE, e->close_ms);
    e->state = to;
    return true;
}

void link_rest(struct link_end *e, struct gw_actions *out, enum end_reason reason, bool abort)
{
    if (link_set_state(e, LINK_RESTING, out))
        gw_close(out, reason, abort);
}

/* Our closing tag was sent: the peer has `close_ms` for its own. */
static void start_closing(struct link_end *e, struct gw_actions *out, enum end_reason reason)
{
    e->reason = reason;
    link_set_state(e, LINK_CLOSING, out);
}

/* ---- our own words --------------------------------------------------------------------------- */

bool link_send_header(struct link_end *e, struct gw_actions *out)
{
    size_t begin = gw_send_begin(out);
    if (!e->role->write_header(e, &out->text)) {
        link_rest(e, out, END_NO_MEMORY, true);
        return false;
    }
    gw_send_end(out, begin);
    e->header_sent = true;
    return true;
}

static void send_error(struct gw_actions *out, const char *condition, const char *text)
{
    gw_send_error(out, condition, text, LOG_WARN, "link.refused");
}

static void rest_with(struct link_end *e, struct gw_actions *out, enum end_reason reason,
                      bool abort, struct str text)
{
    if (!link_set_state(e, LINK_RESTING, out))
        return;
    gw_close(out, reason, abort);
    out->v[out->n - 1].u.close.text = text;
}

/* What follows from a peer that broke the rules does not count: the stream ends at once. The peer
 * is told `text`, and the operator `own`. */
static void refuse(struct link_end *e, struct gw_actions *out, const char *condition,
                   const char *text, enum end_reason reason, const char *own)
{
    if (e->state == LINK_CLOSING) {
        link_rest(e, out, e->reason, false);
        return;
    }
    if (e->state == LINK_CONNECTED || e->state == LINK_TLS) {
        reason = reason == END_STREAM_ERROR_SENT ? END_TLS_FAILED : reason;
        rest_with(e, out, reason, true, str_c(own));
        return;
    }
    if (!e->header_sent && !link_send_header(e, out))
        return;
    send_error(out, condition, text);
    rest_with(e, out, reason, false, str_c(own));
}

void link_refuse(struct link_end *e, struct gw_actions *out, const char *condition,
                 const char *text, enum end_reason reason)
{
    refuse(e, out, condition, text, reason, text);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

bool link_wants_tls(const struct link_trust *trust)
{
    return trust != NULL && trust->auth != LINK_AUTH_PASSWORD;
}

enum trust_reason link_judge(struct link_end *e, const struct link_trust *trust,
                             const struct tls_peer *peer, struct gw_actions *out)
{
    enum trust_reason why = link_trust_check(trust, peer);
    if (peer->has_certificate)
        key_hash_text(e->key, peer->key_sha256, KEY_HASH_SHA256);
    struct kv kv[] = {
        KV_S("component", e->name),          KV_C("reason", trust_reason_name(why)),
        KV_S("peer_name", trust->peer_name), KV_C("key", peer->has_certificate ? e->key : NULL),
        KV_C("subject", peer->subject),      KV_C("chain", peer->chain_ok ? "ok" : peer->why),
        KV_C("msg", trust_reason_text(why))};
    size_t n = sizeof kv / sizeof kv[0];
    gw_log_kv(out, LOG_INFO, "link.trust", kv, n - 1);
    if (!trust_ok(why))
        gw_log_kv(out, LOG_WARN, "link.trust.refused", kv, n);
    return why;
}

void link_refuse_trust(struct link_end *e, struct gw_actions *out, enum trust_reason why)
{
    static const char *const texts[] = {
#define X(id, name, ok) LINK_CERT_REFUSED ": " name,
        TRUST_REASONS(X)
#undef X
    };
    refuse(e, out, "not-authorized", texts[why], END_UNTRUSTED, trust_reason_text(why));
}

static void on_opened(struct link_end *e, struct gw_actions *out)
{
    if (e->state != LINK_CONNECTED)
        return;
    gw_timer_set(out, TIMER_SETUP, e->auth_ms);
    link_set_state(e, e->start_tls ? LINK_TLS : LINK_HEADER, out);
    if (e->start_tls)
        gw_act(out, ACT_TLS_START);
    else
        e->role->begin(e, NULL, out);
}

/* It may also come by itself, when the peer's first bytes were those of TLS. */
static void on_tls_up(struct link_end *e, const struct tls_peer *peer, struct gw_actions *out)
{
    bool silent = e->state == LINK_HEADER && !e->header_sent && !e->encrypted;
    if (e->state != LINK_TLS && !silent)
        return;
    e->encrypted = true;
    link_set_state(e, LINK_HEADER, out);
    gw_log(out, LOG_INFO, "tls.up", KV_C("tls", peer->protocol), KV_C("cipher", peer->cipher));
    e->role->begin(e, peer, out);
}

/* ---- the peer's refusals --------------------------------------------------------------------- */

static void log_error(struct gw_actions *out, struct str reason, struct str text)
{
    gw_log(out, LOG_WARN, "link.error.received", KV_S("reason", reason), KV_S("msg", text));
}

/* TLS or TCP is gone. With TLS 1.3 a client learns only behind its handshake that its certificate
 * was refused. */
static void on_cut(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    enum end_reason reason = ev->kind == EV_LOST ? END_LOST : END_TLS_FAILED;
    if (e->state == LINK_CLOSING) {
        reason = e->reason;
    } else if (!e->was_up && str_starts(ev->u.text, LINK_CERT_REFUSED_TLS)) {
        e->cert_refused = true;
        reason = END_UNAUTHORIZED;
        log_error(out, STR("certificate-refused"), ev->u.text);
    }
    link_rest(e, out, reason, true);
}

static enum end_reason reason_of(struct str condition)
{
    if (str_is(condition, "not-authorized") || str_is(condition, "host-unknown"))
        return END_UNAUTHORIZED;
    return str_is(condition, "conflict") ? END_CONFLICT : END_STREAM_ERROR_RECEIVED;
}

static void on_stream_error(struct link_end *e, struct str condition, struct str text,
                            struct gw_actions *out)
{
    bool closing = e->state == LINK_CLOSING;
    log_error(out, condition, text);
    e->cert_refused = str_starts(text, LINK_CERT_REFUSED);
    e->tls_needed = str_is(text, LINK_TLS_NEEDED);
    if (!closing && e->header_sent)
        gw_send(out, STREAM_CLOSE_TAG);
    rest_with(e, out, closing ? e->reason : reason_of(condition), false, text);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_stream_close(struct link_end *e, struct gw_actions *out)
{
    bool closing = e->state == LINK_CLOSING;
    if (!closing && e->header_sent)
        gw_send(out, STREAM_CLOSE_TAG);
    link_rest(e, out, closing ? e->reason : END_PEER_CLOSED, false);
}

static void on_drain(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    if (e->state == LINK_CLOSING)
        return;
    if (!e->header_sent) {
        link_rest(e, out, END_DRAINED, true);
    } else if (str_is(ev->u.text, LINK_CONFLICT)) {
        send_error(out, "conflict", "replaced by a new connection");
        start_closing(e, out, END_CONFLICT);
    } else {
        gw_send(out, STREAM_CLOSE_TAG);
        start_closing(e, out, END_DRAINED);
    }
}

/* ---- keepalive ------------------------------------------------------------------------------- */

void link_up(struct link_end *e, uint64_t now_ms, struct gw_actions *out)
{
    if (!link_set_state(e, LINK_UP, out))
        return;
    e->was_up = true;
    e->out_ms = now_ms;
    gw_act(out, ACT_LIMITS);
    gw_act(out, ACT_READY);
}

void link_space(struct link_end *e, struct link_probe *space, uint64_t now_ms,
                struct gw_actions *out)
{
    if (now_ms < link_space_due(e))
        return;
    gw_send(out, " ");
    e->out_ms = now_ms;
    link_probe_sent(space, now_ms);
}

void link_arm_keepalive(struct gw_actions *out, uint64_t due_ms, uint64_t now_ms)
{
    gw_timer_set(out, TIMER_KEEPALIVE, due_ms > now_ms ? due_ms - now_ms : 1);
}

static void on_timer(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    switch (ev->u.timer) {
    case TIMER_SETUP:
        if (e->state == LINK_TLS || e->state == LINK_HEADER || e->state == LINK_HANDSHAKE)
            link_refuse(e, out, "connection-timeout", "the link was not set up in time",
                        END_SETUP_TIMEOUT);
        break;
    case TIMER_STATE:
        if (e->state == LINK_CLOSING)
            link_rest(e, out, e->reason, false);
        break;
    case TIMER_KEEPALIVE:
        if (e->state == LINK_UP)
            e->role->keepalive(e, ev->now_ms, out);
        break;
    case TIMER_ASKED:
    case GW_TIMER_COUNT:
        break;
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void drop(struct gw_actions *out, const char *reason)
{
    gw_act(out, ACT_DROP)->u.bounce.condition = reason;
}

static void bounce(struct gw_actions *out, const char *condition, const char *text)
{
    struct gw_action *act = gw_act(out, ACT_BOUNCE);
    act->u.bounce.type = "modify";
    act->u.bounce.condition = condition;
    act->u.bounce.text = text;
}

void link_stanza(const struct stanza *st, struct gw_actions *out)
{
    struct jid from, to;
    enum jid_verdict vf = st->from.p ? jid_prepare(st->from, &from, &out->local) : JID_BAD_DOMAIN;
    enum jid_verdict vt = st->to.p ? jid_prepare(st->to, &to, &out->remote) : JID_BAD_DOMAIN;
    if (vf != JID_OK) {
        drop(out, st->from.p ? "bad-from" : "no-from");
    } else if (vt != JID_OK && !bounce_allowed(st)) {
        drop(out, st->to.p ? "bad-to" : "no-to");
    } else if (vt != JID_OK) {
        bounce(out, st->to.p ? "jid-malformed" : "bad-request",
               "the stanza needs a valid recipient address");
    } else if (bounce_bad_type(st)) {
        bounce(out, "bad-request", "an iq has to be get, set, result or error");
    } else {
        struct gw_action *act = gw_act(out, ACT_DELIVER);
        act->u.pair.local = str_c(out->local.ascii);
        act->u.pair.remote = str_c(out->remote.ascii);
    }
}

static void on_header(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    if (e->state == LINK_HEADER)
        e->role->header(e, ev, out);
    else if (e->state != LINK_CLOSING) /* there, it crossed our closing tag */
        link_refuse(e, out, "invalid-xml", "a second stream header", END_STREAM_ERROR_SENT);
}

static void on_nonza(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    struct str condition, text;
    if (stream_read_error(ev->u.nonza, &condition, &text))
        on_stream_error(e, condition, text, out);
    else
        e->role->nonza(e, ev, out);
}

static void on_stanza(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    if (e->was_up)
        e->role->stanza(e, ev, out);
    else
        link_refuse(e, out, "not-authorized", "a stanza before the handshake",
                    END_STREAM_ERROR_SENT);
}

void link_end_init(struct link_end *e, const struct link_role *role, const machine_edges *edges,
                   uint64_t keepalive_ms)
{
    *e = (struct link_end){.state = LINK_CONNECTED, .role = role, .edges = edges};
    e->keepalive_ms = keepalive_ms ? keepalive_ms : LINK_KEEPALIVE_MS;
}

void link_end_step(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    if (e->state == LINK_RESTING)
        return;
    switch (ev->kind) {
    case EV_OPENED:
        on_opened(e, out);
        break;
    case EV_TLS_UP:
        on_tls_up(e, ev->u.tls, out);
        break;
    case EV_STREAM_OPEN:
        on_header(e, ev, out);
        break;
    case EV_NONZA:
        on_nonza(e, ev, out);
        break;
    case EV_STANZA:
        on_stanza(e, ev, out);
        break;
    case EV_STREAM_CLOSE:
        on_stream_close(e, out);
        break;
    case EV_XML_ERROR:
        link_refuse(e, out, ev->u.error.condition, ev->u.error.text, END_STREAM_ERROR_SENT);
        break;
    case EV_TIMER:
        on_timer(e, ev, out);
        break;
    case EV_DRAIN:
        on_drain(e, ev, out);
        break;
    case EV_TLS_FAILED:
    case EV_LOST:
        on_cut(e, ev, out);
        break;
    case EV_VERDICT:
    case EV_WANT_PAIR:
    case EV_WANT_VERIFY:
    case EV_POLICY_CHANGED:
        break; /* of other machines */
    }
}
