#include "xcp/link_client.h"

#include <stdio.h>

#include "core/stream/stream.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"
#include "xcp/handshake.h"
#include "xcp/link.h"

#define TO(s) (1u << LINK_CLIENT_##s)
const machine_edges link_client_edges[LINK_CLIENT_STATE_COUNT] = {
    [LINK_CLIENT_CONNECTED] = TO(HEADER) | TO(RESTING),
    [LINK_CLIENT_HEADER] = TO(HANDSHAKE) | TO(CLOSING) | TO(RESTING),
    [LINK_CLIENT_HANDSHAKE] = TO(UP) | TO(CLOSING) | TO(RESTING),
    [LINK_CLIENT_UP] = TO(CLOSING) | TO(RESTING),
    [LINK_CLIENT_CLOSING] = TO(RESTING),
    [LINK_CLIENT_RESTING] = 0,
};
#undef TO

const char *link_client_state_name(enum link_client_state s)
{
    static const char *const names[] = {
#define X(id) #id,
        LINK_CLIENT_STATES(X)
#undef X
    };
    return names[s];
}

void link_client_init(struct link_client *m, const struct link_client_config *cfg,
                      const struct env *env)
{
    *m = (struct link_client){.state = LINK_CLIENT_CONNECTED, .cfg = *cfg, .env = env};
    if (m->cfg.keepalive_ms == 0)
        m->cfg.keepalive_ms = LINK_KEEPALIVE_MS;
    if (m->cfg.ping_ms == 0)
        m->cfg.ping_ms = LINK_PING_MS;
    if (m->cfg.ping_answer_ms == 0)
        m->cfg.ping_answer_ms = LINK_PING_ANSWER_MS;
}

/* Each waiting state has its timer: SETUP from the connection to UP, KEEPALIVE in UP, STATE in
 * CLOSING. They are set on the way in and cleared on the way out. */
static bool set_state(struct link_client *m, enum link_client_state to, struct gw_actions *out)
{
    if (!machine_edge_ok(link_client_edges, m->state, to))
        return false;
    if (to == LINK_CLIENT_UP || to == LINK_CLIENT_CLOSING || to == LINK_CLIENT_RESTING)
        gw_timer_clear(out, TIMER_SETUP);
    if (m->state == LINK_CLIENT_UP)
        gw_timer_clear(out, TIMER_KEEPALIVE);
    if (m->state == LINK_CLIENT_CLOSING)
        gw_timer_clear(out, TIMER_STATE);
    if (to == LINK_CLIENT_CLOSING)
        gw_timer_set(out, TIMER_STATE, m->cfg.close_ms);
    m->state = to;
    return true;
}

static void rest(struct link_client *m, struct gw_actions *out, enum end_reason reason, bool abort)
{
    if (set_state(m, LINK_CLIENT_RESTING, out))
        gw_close(out, reason, abort);
}

/* Our closing tag was sent: the peer has `close_ms` for its own. */
static void start_closing(struct link_client *m, struct gw_actions *out, enum end_reason reason)
{
    m->reason = reason;
    set_state(m, LINK_CLIENT_CLOSING, out);
}

/* A stream error ends the stream at once: what follows from a peer that broke the rules does not
 * count. After our closing tag nothing may be written, so then there is only the end. */
static void refuse(struct link_client *m, struct gw_actions *out, const char *condition,
                   const char *text)
{
    if (m->state == LINK_CLIENT_CLOSING) {
        rest(m, out, m->reason, false);
        return;
    }
    if (m->state != LINK_CLIENT_CONNECTED)
        link_write_error(out, condition, text);
    rest(m, out, END_STREAM_ERROR_SENT, false);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static void on_opened(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (!set_state(m, LINK_CLIENT_HEADER, out))
        return;
    size_t begin = gw_send_begin(out);
    handshake_write_client_header(&out->text, m->cfg.component);
    gw_send_end(out, begin);
    m->in_ms = m->out_ms = ev->now_ms;
    gw_timer_set(out, TIMER_SETUP, m->cfg.auth_ms);
}

static void on_header(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == LINK_CLIENT_CLOSING)
        return; /* a header that crossed our closing tag */
    if (m->state != LINK_CLIENT_HEADER) {
        refuse(m, out, "invalid-xml", "a second stream header");
        return;
    }
    if (ev->u.header->id.n == 0) {
        refuse(m, out, "bad-format", "the stream header has no id");
        return;
    }
    size_t begin = gw_send_begin(out);
    if (!handshake_write(&out->text, ev->u.header->id, m->cfg.secret)) {
        rest(m, out, END_NO_MEMORY, true);
        return;
    }
    gw_send_end(out, begin);
    m->proved = true;
    set_state(m, LINK_CLIENT_HANDSHAKE, out);
}

/* ---- keepalive ------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool may_ping(const struct link_client *m)
{
    return m->cfg.ping_to.p != NULL && !m->paused;
}

/* When the keepalive timer has something to do next. */
static uint64_t keepalive_due(const struct link_client *m)
{
    uint64_t due = m->out_ms + m->cfg.keepalive_ms;
    if (!may_ping(m))
        return due;
    if (!m->pinging)
        return earlier(due, m->in_ms + m->cfg.ping_ms);
    return m->answers_pings ? earlier(due, m->ping_sent_ms + m->cfg.ping_answer_ms) : due;
}

static void arm_keepalive(const struct link_client *m, uint64_t now, struct gw_actions *out)
{
    uint64_t due = keepalive_due(m);
    gw_timer_set(out, TIMER_KEEPALIVE, due > now ? due - now : 1);
}

static void send_ping(struct link_client *m, uint64_t now, struct gw_actions *out)
{
    char id[LINK_PING_ID];
    snprintf(id, sizeof id, "%s%u", m->ping_prefix, ++m->pings);
    size_t begin = gw_send_begin(out);
    buf_puts(&out->text, "<iq type='get'");
    writer_attr(&out->text, "id", str_c(id));
    writer_attr(&out->text, "from", m->cfg.component);
    writer_attr(&out->text, "to", m->cfg.ping_to);
    buf_puts(&out->text, "><ping xmlns='" NS_PING "'/></iq>");
    gw_send_end(out, begin);
    m->pinging = true;
    m->ping_sent_ms = m->out_ms = now;
}

static void on_keepalive(struct link_client *m, uint64_t now, struct gw_actions *out)
{
    bool ping = may_ping(m);
    if (ping && m->pinging && m->answers_pings && now >= m->ping_sent_ms + m->cfg.ping_answer_ms) {
        gw_log(out, LOG_WARN, "link.ping.unanswered", KV_SEC("after", now - m->ping_sent_ms),
               KV_SEC("silent", now - m->in_ms));
        rest(m, out, END_LOST, true);
        return;
    }
    if (ping && !m->pinging && now >= m->in_ms + m->cfg.ping_ms) {
        send_ping(m, now, out);
    } else if (now >= m->out_ms + m->cfg.keepalive_ms) {
        gw_send(out, " ");
        m->out_ms = now;
    }
    arm_keepalive(m, now, out);
}

void link_client_pause(struct link_client *m, bool paused, uint64_t now_ms)
{
    m->paused = paused;
    m->pinging = false;
    m->in_ms = now_ms;
}

/* An answer to a ping of ours, recent or late: nobody else knows the prefix. */
static bool is_pong(const struct link_client *m, const struct stanza *st)
{
    return st->kind == STANZA_IQ && m->pings > 0 && str_starts(st->id, m->ping_prefix) &&
           (str_is(st->type, "result") || str_is(st->type, "error"));
}

/* ---- traffic --------------------------------------------------------------------------------- */

static void on_up(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    memcpy(m->ping_prefix, "ping-", 5);
    if (!env_hex_id(m->env, m->ping_prefix + 5, 6)) {
        rest(m, out, END_NO_MEMORY, true);
        return;
    }
    m->ping_prefix[17] = '-';
    m->ping_prefix[18] = '\0';
    set_state(m, LINK_CLIENT_UP, out);
    m->was_up = true;
    m->in_ms = m->out_ms = ev->now_ms;
    gw_act(out, ACT_LIMITS);
    gw_act(out, ACT_READY);
    arm_keepalive(m, ev->now_ms, out);
}

static void on_nonza(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    const struct nonza *z = ev->u.nonza;
    enum end_reason reason = link_read_error(z, out);
    if (reason != END_NONE) {
        bool closing = m->state == LINK_CLIENT_CLOSING;
        if (!closing && m->state != LINK_CLIENT_CONNECTED)
            gw_send(out, STREAM_CLOSE_TAG);
        rest(m, out, closing ? m->reason : reason, false);
        return;
    }
    bool handshake = m->proved && str_is(z->node[0].name, "handshake");
    if (m->state == LINK_CLIENT_CLOSING) { /* what the peer sends behind it is still delivered */
        m->was_up = m->was_up || handshake;
        return;
    }
    if (m->state == LINK_CLIENT_HANDSHAKE && handshake) {
        on_up(m, ev, out);
        return;
    }
    if (m->state == LINK_CLIENT_HANDSHAKE && nonza_is(z, NS_STREAM, "features"))
        return; /* a server that announces some although our header has no version */
    refuse(m, out, "unsupported-stanza-type", "not an element of XEP-0114");
}

static void on_stanza(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    m->in_ms = ev->now_ms;
    if (!m->was_up) {
        refuse(m, out, "not-authorized", "a stanza before the handshake");
        return;
    }
    m->pinging = false; /* whatever it is, the peer lives */
    if (is_pong(m, ev->u.stanza))
        m->answers_pings = true;
    else
        link_stanza(ev->u.stanza, out);
}

/* ---- end ------------------------------------------------------------------------------------- */

static void on_stream_close(struct link_client *m, struct gw_actions *out)
{
    if (m->state == LINK_CLIENT_CLOSING) {
        rest(m, out, m->reason, false);
        return;
    }
    if (m->state != LINK_CLIENT_CONNECTED)
        gw_send(out, STREAM_CLOSE_TAG);
    rest(m, out, END_PEER_CLOSED, false);
}

static void on_drain(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == LINK_CLIENT_CLOSING)
        return;
    if (m->state == LINK_CLIENT_CONNECTED) {
        rest(m, out, END_DRAINED, true);
    } else if (str_is(ev->u.text, LINK_CONFLICT)) {
        link_write_error(out, "conflict", "replaced by a new connection");
        start_closing(m, out, END_CONFLICT);
    } else {
        gw_send(out, STREAM_CLOSE_TAG);
        start_closing(m, out, END_DRAINED);
    }
}

static void on_timer(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    bool setting_up = m->state == LINK_CLIENT_HEADER || m->state == LINK_CLIENT_HANDSHAKE;
    switch (ev->u.timer) {
    case TIMER_SETUP:
        if (setting_up) {
            link_write_error(out, "connection-timeout", "the link was not set up in time");
            rest(m, out, END_SETUP_TIMEOUT, false);
        }
        break;
    case TIMER_STATE:
        if (m->state == LINK_CLIENT_CLOSING)
            rest(m, out, m->reason, false);
        break;
    case TIMER_KEEPALIVE:
        if (m->state == LINK_CLIENT_UP)
            on_keepalive(m, ev->now_ms, out);
        break;
    case TIMER_ASKED:
    case GW_TIMER_COUNT:
        break;
    }
}

void link_client_step(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == LINK_CLIENT_RESTING)
        return;
    switch (ev->kind) {
    case EV_OPENED:
        on_opened(m, ev, out);
        break;
    case EV_STREAM_OPEN:
        on_header(m, ev, out);
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
        refuse(m, out, ev->u.error.condition, ev->u.error.text);
        break;
    case EV_TLS_FAILED:
        rest(m, out, END_TLS_FAILED, true);
        break;
    case EV_TIMER:
        on_timer(m, ev, out);
        break;
    case EV_DRAIN:
        on_drain(m, ev, out);
        break;
    case EV_LOST:
        rest(m, out, m->state == LINK_CLIENT_CLOSING ? m->reason : END_LOST, true);
        break;
    case EV_TLS_UP:
    case EV_VERDICT:
    case EV_WANT_PAIR:
    case EV_WANT_VERIFY:
    case EV_POLICY_CHANGED:
        break; /* of other machines */
    }
}
