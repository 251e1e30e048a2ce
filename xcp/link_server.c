#include "xcp/link_server.h"

#include "core/xml/ns.h"
#include "xcp/handshake.h"
#include "xcp/link.h"

#define TO(s) (1u << LINK_SERVER_##s)
const machine_edges link_server_edges[LINK_SERVER_STATE_COUNT] = {
    [LINK_SERVER_ACCEPTED] = TO(HANDSHAKE) | TO(RESTING),
    [LINK_SERVER_HANDSHAKE] = TO(UP) | TO(CLOSING) | TO(RESTING),
    [LINK_SERVER_UP] = TO(CLOSING) | TO(RESTING),
    [LINK_SERVER_CLOSING] = TO(RESTING),
    [LINK_SERVER_RESTING] = 0,
};
#undef TO

const char *link_server_state_name(enum link_server_state s)
{
    static const char *const names[] = {
#define X(id) #id,
        LINK_SERVER_STATES(X)
#undef X
    };
    return names[s];
}

void link_server_init(struct link_server *m, const struct link_server_config *cfg,
                      const struct env *env)
{
    *m = (struct link_server){.state = LINK_SERVER_ACCEPTED, .cfg = *cfg, .env = env};
}

/* Timers: SETUP from the connection to UP, KEEPALIVE in UP, STATE in CLOSING. */
static bool set_state(struct link_server *m, enum link_server_state to, struct gw_actions *out)
{
    if (!machine_edge_ok(link_server_edges, m->state, to))
        return false;
    if (to == LINK_SERVER_UP || to == LINK_SERVER_CLOSING || to == LINK_SERVER_RESTING)
        gw_timer_clear(out, TIMER_SETUP);
    if (m->state == LINK_SERVER_UP)
        gw_timer_clear(out, TIMER_KEEPALIVE);
    if (m->state == LINK_SERVER_CLOSING)
        gw_timer_clear(out, TIMER_STATE);
    if (to == LINK_SERVER_UP)
        gw_timer_set(out, TIMER_KEEPALIVE, m->cfg.keepalive_ms);
    if (to == LINK_SERVER_CLOSING)
        gw_timer_set(out, TIMER_STATE, m->cfg.close_ms);
    m->state = to;
    return true;
}

static void rest(struct link_server *m, struct gw_actions *out, enum end_reason reason, bool abort)
{
    if (set_state(m, LINK_SERVER_RESTING, out))
        gw_close(out, reason, abort);
}

/* `from` is the component that was asked for, so that the peer finds its own name; absent when it
 * is none. */
static bool send_header(struct link_server *m, struct gw_actions *out)
{
    if (!env_hex_id(m->env, m->id, STREAM_ID_BYTES))
        return false;
    size_t begin = gw_send_begin(out);
    handshake_write_server_header(&out->text, m->component[0] ? str_c(m->component) : STR_NONE,
                                  (struct str){m->id, STREAM_ID_HEX});
    gw_send_end(out, begin);
    m->header_sent = true;
    return true;
}

/* A stream error ends the stream at once: what follows from a peer that broke the rules does not
 * count. After our closing tag nothing may be written, so then there is only the end. */
static void refuse(struct link_server *m, struct gw_actions *out, const char *condition,
                   const char *text, enum end_reason reason)
{
    if (m->state == LINK_SERVER_CLOSING) {
        rest(m, out, m->reason, false);
        return;
    }
    if (!m->header_sent && !send_header(m, out)) {
        rest(m, out, END_NO_MEMORY, true);
        return;
    }
    link_write_error(out, condition, text);
    rest(m, out, reason, false);
}

static void start_closing(struct link_server *m, struct gw_actions *out, enum end_reason reason)
{
    m->reason = reason;
    set_state(m, LINK_SERVER_CLOSING, out);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static bool account_known(const struct link_server *m, struct str component)
{
    for (size_t i = 0; i < m->cfg.naccounts; i++)
        if (str_eq(m->cfg.accounts[i].component, component))
            return true;
    return false;
}

static void on_header(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == LINK_SERVER_CLOSING)
        return;
    if (m->state != LINK_SERVER_ACCEPTED) {
        refuse(m, out, "invalid-xml", "a second stream header", END_STREAM_ERROR_SENT);
        return;
    }
    struct str to = ev->u.header->to;
    if (to.p == NULL || !domain_ascii(to, m->component)) {
        m->component[0] = '\0';
        refuse(m, out, "improper-addressing", "the header's to must name the component",
               END_STREAM_ERROR_SENT);
        return;
    }
    if (!account_known(m, str_c(m->component))) {
        gw_log(out, LOG_WARN, "link.unknown", KV_S("component", to));
        refuse(m, out, "host-unknown", "no such component is configured", END_UNAUTHORIZED);
        return;
    }
    if (send_header(m, out))
        set_state(m, LINK_SERVER_HANDSHAKE, out);
    else
        rest(m, out, END_NO_MEMORY, true);
}

/* Index of the account whose name and secret fit; naccounts: none. */
static size_t proven_account(const struct link_server *m, struct str digest)
{
    struct str id = {m->id, STREAM_ID_HEX};
    for (size_t i = 0; i < m->cfg.naccounts; i++)
        if (str_is(m->cfg.accounts[i].component, m->component) &&
            handshake_check(id, m->cfg.accounts[i].secret, digest))
            return i;
    return m->cfg.naccounts;
}

static void on_handshake(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    size_t found = proven_account(m, nonza_text(ev->u.nonza));
    if (found == m->cfg.naccounts) {
        refuse(m, out, "not-authorized", "the handshake does not fit the secret", END_UNAUTHORIZED);
        return;
    }
    m->account = found;
    m->was_up = true;
    m->out_ms = ev->now_ms;
    set_state(m, LINK_SERVER_UP, out);
    gw_send(out, HANDSHAKE_OK);
    gw_act(out, ACT_LIMITS);
    gw_act(out, ACT_READY);
}

/* ---- traffic --------------------------------------------------------------------------------- */

static void on_nonza(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    enum end_reason reason = link_read_error(ev->u.nonza, out);
    if (reason != END_NONE) {
        bool closing = m->state == LINK_SERVER_CLOSING;
        if (!closing && m->header_sent)
            gw_send(out, STREAM_CLOSE_TAG);
        rest(m, out, closing ? m->reason : reason, false);
        return;
    }
    if (m->state == LINK_SERVER_CLOSING)
        return;
    if (m->state == LINK_SERVER_HANDSHAKE && nonza_is(ev->u.nonza, NS_COMPONENT, "handshake"))
        on_handshake(m, ev, out);
    else
        refuse(m, out, m->was_up ? "unsupported-stanza-type" : "not-authorized",
               "not an element of XEP-0114 at this point", END_STREAM_ERROR_SENT);
}

static void on_stanza(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->was_up)
        link_stanza(ev->u.stanza, out);
    else
        refuse(m, out, "not-authorized", "a stanza before the handshake", END_STREAM_ERROR_SENT);
}

/* ---- end ------------------------------------------------------------------------------------- */

static void on_stream_close(struct link_server *m, struct gw_actions *out)
{
    if (m->state == LINK_SERVER_CLOSING) {
        rest(m, out, m->reason, false);
        return;
    }
    if (m->header_sent)
        gw_send(out, STREAM_CLOSE_TAG);
    rest(m, out, END_PEER_CLOSED, false);
}

static void on_drain(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == LINK_SERVER_CLOSING)
        return;
    if (!m->header_sent) {
        rest(m, out, END_DRAINED, true);
    } else if (str_is(ev->u.text, LINK_CONFLICT)) {
        link_write_error(out, "conflict", "replaced by a new connection");
        start_closing(m, out, END_CONFLICT);
    } else {
        gw_send(out, STREAM_CLOSE_TAG);
        start_closing(m, out, END_DRAINED);
    }
}

static void on_keepalive(struct link_server *m, uint64_t now, struct gw_actions *out)
{
    uint64_t due = m->out_ms + m->cfg.keepalive_ms;
    if (now >= due) {
        gw_send(out, " ");
        m->out_ms = now;
        due = now + m->cfg.keepalive_ms;
    }
    gw_timer_set(out, TIMER_KEEPALIVE, due - now);
}

static void on_timer(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    switch (ev->u.timer) {
    case TIMER_SETUP:
        if (m->state == LINK_SERVER_ACCEPTED || m->state == LINK_SERVER_HANDSHAKE)
            refuse(m, out, "connection-timeout", "no handshake in time", END_SETUP_TIMEOUT);
        break;
    case TIMER_STATE:
        if (m->state == LINK_SERVER_CLOSING)
            rest(m, out, m->reason, false);
        break;
    case TIMER_KEEPALIVE:
        if (m->state == LINK_SERVER_UP)
            on_keepalive(m, ev->now_ms, out);
        break;
    case TIMER_ASKED:
    case GW_TIMER_COUNT:
        break;
    }
}

void link_server_step(struct link_server *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == LINK_SERVER_RESTING)
        return;
    switch (ev->kind) {
    case EV_OPENED:
        if (m->state == LINK_SERVER_ACCEPTED)
            gw_timer_set(out, TIMER_SETUP, m->cfg.auth_ms);
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
        refuse(m, out, ev->u.error.condition, ev->u.error.text, END_STREAM_ERROR_SENT);
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
        rest(m, out, m->state == LINK_SERVER_CLOSING ? m->reason : END_LOST, true);
        break;
    case EV_TLS_UP:
    case EV_VERDICT:
    case EV_WANT_PAIR:
    case EV_WANT_VERIFY:
    case EV_POLICY_CHANGED:
        break; /* of other machines */
    }
}
