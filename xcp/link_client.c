#include "xcp/link_client.h"

#include <stdio.h>

#include "core/base/datetime.h"
#include "core/base/list.h"
#include "core/stream/payload.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"
#include "xcp/handshake.h"

#define TO(s) (1u << LINK_##s)
const machine_edges link_client_edges[LINK_STATE_COUNT] = {
    [LINK_CONNECTED] = TO(TLS) | TO(HEADER) | TO(RESTING),
    [LINK_TLS] = TO(HEADER) | TO(RESTING),
    [LINK_HEADER] = TO(HANDSHAKE) | TO(CLOSING) | TO(RESTING),
    [LINK_HANDSHAKE] = TO(UP) | TO(CLOSING) | TO(RESTING),
    [LINK_UP] = TO(CLOSING) | TO(RESTING),
    [LINK_CLOSING] = TO(RESTING),
    [LINK_RESTING] = 0,
};
#undef TO

static struct link_client *machine(struct link_end *e)
{
    return CONTAINER_OF(e, struct link_client, end);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static bool write_header(struct link_end *e, struct buf *b)
{
    handshake_write_client_header(b, machine(e)->cfg.component);
    return true;
}

/* Nothing but the refusal is said to a peer that TLS did not prove. */
static void begin(struct link_end *e, const struct tls_peer *tls, struct gw_actions *out)
{
    struct link_client *m = machine(e);
    if (tls != NULL && link_wants_tls(m->cfg.trust)) {
        m->judged = true;
        m->verdict = link_judge(e, m->cfg.trust, tls, out);
    }
    if (m->judged && !trust_ok(m->verdict))
        link_refuse_trust(e, out, m->verdict);
    else
        link_send_header(e, out);
}

static void on_header(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    struct link_client *m = machine(e);
    if (ev->u.header->id.n == 0) {
        link_refuse(e, out, "bad-format", "the stream header has no id", END_STREAM_ERROR_SENT);
        return;
    }
    size_t begin_at = gw_send_begin(out);
    if (!handshake_write(&out->text, ev->u.header->id, m->cfg.secret)) {
        link_rest(e, out, END_NO_MEMORY, true);
        return;
    }
    gw_send_end(out, begin_at);
    m->proved = true;
    link_set_state(e, LINK_HANDSHAKE, out);
}

/* ---- probes: what is sent -------------------------------------------------------------------- */

static void probe_id(const struct link_client *m, uint32_t number, char id[LINK_PROBE_ID])
{
    snprintf(id, LINK_PROBE_ID, "%s%u", m->probe_prefix, number);
}

/* Returns its number. */
static uint32_t send_probe(struct link_client *m, struct link_probe *p, const char *payload,
                           uint64_t now, struct gw_actions *out)
{
    char id[LINK_PROBE_ID];
    m->probe++;
    probe_id(m, m->probe, id);
    size_t begin_at = gw_send_begin(out);
    buf_puts(&out->text, "<iq type='get'");
    writer_attr(&out->text, "id", str_c(id));
    writer_attr(&out->text, "from", m->cfg.component);
    writer_attr(&out->text, "to", m->cfg.ping_to);
    buf_printf(&out->text, ">%s</iq>", payload);
    gw_send_end(out, begin_at);
    link_probe_sent(p, now);
    m->end.out_ms = now;
    return m->probe;
}

static void send_ping(struct link_client *m, uint64_t now, struct gw_actions *out)
{
    m->ping_probe = send_probe(m, &m->probes.ping, "<ping xmlns='" NS_PING "'/>", now, out);
    m->pinging = true;
}

static void ask_time(struct link_client *m, uint64_t now, struct gw_actions *out)
{
    m->time_probe = send_probe(m, &m->probes.time, "<time xmlns='" NS_TIME "'/>", now, out);
    m->time_due_ms = now + LINK_TIME_MS;
}

static bool may_probe(const struct link_client *m)
{
    return m->cfg.ping_to.p != NULL && !m->paused;
}

static bool may_ask_time(const struct link_client *m)
{
    return may_probe(m) && m->env->wall_ms != NULL;
}

static bool ping_overdue(const struct link_client *m, uint64_t now)
{
    return may_probe(m) && m->pinging && m->answers &&
           now >= m->probes.ping.last_sent_ms + m->cfg.ping_answer_ms;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When the keepalive timer has something to do next. */
static uint64_t keepalive_due(const struct link_client *m)
{
    uint64_t due = link_space_due(&m->end);
    if (may_ask_time(m))
        due = earlier(due, m->time_due_ms);
    if (may_probe(m) && !m->pinging)
        due = earlier(due, m->in_ms + m->cfg.ping_ms);
    if (may_probe(m) && m->pinging && m->answers)
        due = earlier(due, m->probes.ping.last_sent_ms + m->cfg.ping_answer_ms);
    return due;
}

static void on_keepalive(struct link_end *e, uint64_t now, struct gw_actions *out)
{
    struct link_client *m = machine(e);
    if (ping_overdue(m, now)) {
        gw_log(out, LOG_WARN, "link.ping.unanswered",
               KV_SEC("after", now - m->probes.ping.last_sent_ms),
               KV_SEC("silent", now - m->in_ms));
        link_rest(e, out, END_LOST, true);
        return;
    }
    if (may_probe(m) && !m->pinging && now >= m->in_ms + m->cfg.ping_ms)
        send_ping(m, now, out);
    if (may_ask_time(m) && now >= m->time_due_ms)
        ask_time(m, now, out);
    link_space(e, &m->probes.space, now, out);
    link_arm_keepalive(out, keepalive_due(m), now);
}

void link_client_pause(struct link_client *m, bool paused, uint64_t now_ms)
{
    m->paused = paused;
    m->pinging = false;
    m->in_ms = now_ms;
}

static void on_up(struct link_client *m, uint64_t now, struct gw_actions *out)
{
    memcpy(m->probe_prefix, "ping-", 5);
    if (!env_hex_id(m->env, m->probe_prefix + 5, 6)) {
        link_rest(&m->end, out, END_NO_MEMORY, true);
        return;
    }
    m->probe_prefix[17] = '-';
    m->probe_prefix[18] = '\0';
    m->in_ms = m->time_due_ms = now;
    link_up(&m->end, now, out);
    if (may_ask_time(m))
        ask_time(m, now, out);
    link_arm_keepalive(out, keepalive_due(m), now);
}

/* ---- probes: what is answered ---------------------------------------------------------------- */

/* An answer to a probe of ours, recent or late: nobody else knows the prefix. */
static bool is_answer(const struct link_client *m, const struct stanza *st)
{
    return st->kind == STANZA_IQ && m->probe > 0 && str_starts(st->id, m->probe_prefix) &&
           (str_is(st->type, "result") || str_is(st->type, "error"));
}

/* The text of <utc/> (XEP-0202); absent: it has none. Node 1 is the iq. */
static struct str utc_text(const struct nonza *z)
{
    int time = nonza_child(z, 1, NS_TIME, "time");
    int utc = time < 0 ? -1 : nonza_child(z, time, NS_TIME, "utc");
    return utc < 0 ? STR_NONE : z->node[utc].text;
}

static bool read_time(const struct stanza *st, int64_t *theirs)
{
    const struct nonza *z;
    struct framer *f = payload_read(st, &z);
    bool ok = f != NULL && datetime_parse(utc_text(z), theirs);
    framer_free(f);
    return ok;
}

static void tell_skew(struct link_client *m, struct gw_actions *out)
{
    bool ahead = m->skew_ms > 0;
    int64_t by = ahead ? m->skew_ms : -m->skew_ms;
    if (m->skew_told[ahead])
        return;
    m->skew_told[ahead] = true;
    gw_log(out, LOG_WARN, "link.clock.skew", KV_S("domain", m->cfg.ping_to),
           KV_C("theirs", ahead ? "ahead" : "behind"), KV_SEC("by", by));
}

/* Their clock was read somewhere on the way: half of it is our best guess. */
static void on_time(struct link_client *m, const struct stanza *st, uint64_t now,
                    struct gw_actions *out)
{
    uint64_t trip = now - m->probes.time.last_sent_ms;
    int64_t theirs, ours;
    if (trip > LINK_SKEW_MS || !str_is(st->type, "result") || !read_time(st, &theirs) ||
        !env_wall(m->env, &ours))
        return;
    m->skew_known = true;
    m->skew_ms = theirs - ours + (int64_t)(trip / 2);
    if (!link_client_skewed(m)) {
        memset(m->skew_told, 0, sizeof m->skew_told);
        return;
    }
    tell_skew(m, out);
    m->time_due_ms = now + m->cfg.ping_ms; /* until it is right again */
}

/* True when `*open` is the number in this id; then it is open no more. */
static bool closes(const struct link_client *m, uint32_t *open, struct str id)
{
    char want[LINK_PROBE_ID];
    probe_id(m, *open, want);
    if (*open == 0 || !str_is(id, want))
        return false;
    *open = 0;
    return true;
}

static void answered(struct link_probe *p, uint64_t now)
{
    p->answered++;
    p->last_answer_ms = now;
}

static void on_answer(struct link_client *m, const struct stanza *st, uint64_t now,
                      struct gw_actions *out)
{
    m->answers = true;
    if (closes(m, &m->ping_probe, st->id)) {
        answered(&m->probes.ping, now);
    } else if (closes(m, &m->time_probe, st->id)) {
        answered(&m->probes.time, now);
        on_time(m, st, now, out);
    }
    if (m->end.state == LINK_UP) /* the timer was set for an answer that is missing */
        link_arm_keepalive(out, keepalive_due(m), now);
}

/* ---- traffic --------------------------------------------------------------------------------- */

static void on_nonza(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    struct link_client *m = machine(e);
    const struct nonza *z = ev->u.nonza;
    bool handshake = m->proved && str_is(z->node[0].name, "handshake");
    if (e->state == LINK_CLOSING) { /* what the peer sends behind it is still delivered */
        if (handshake && !e->was_up)
            gw_act(out, ACT_LIMITS);
        e->was_up = e->was_up || handshake;
        return;
    }
    if (e->state == LINK_HANDSHAKE && handshake) {
        on_up(m, ev->now_ms, out);
        return;
    }
    if (e->state == LINK_HANDSHAKE && nonza_is(z, NS_STREAM, "features"))
        return; /* a server that announces some although our header has no version */
    link_refuse(e, out, "unsupported-stanza-type", "not an element of XEP-0114",
                END_STREAM_ERROR_SENT);
}

static void on_stanza(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    struct link_client *m = machine(e);
    m->in_ms = ev->now_ms;
    m->pinging = false; /* whatever it is, the peer lives */
    if (is_answer(m, ev->u.stanza))
        on_answer(m, ev->u.stanza, ev->now_ms, out);
    else
        link_stanza(ev->u.stanza, out);
}

/* ---- the machine ----------------------------------------------------------------------------- */

void link_client_init(struct link_client *m, const struct link_client_config *cfg,
                      const struct env *env)
{
    static const struct link_role role = {.write_header = write_header,
                                          .begin = begin,
                                          .header = on_header,
                                          .nonza = on_nonza,
                                          .stanza = on_stanza,
                                          .keepalive = on_keepalive};
    *m = (struct link_client){.cfg = *cfg, .env = env};
    if (m->cfg.ping_ms == 0)
        m->cfg.ping_ms = LINK_PING_MS;
    if (m->cfg.ping_answer_ms == 0)
        m->cfg.ping_answer_ms = LINK_PING_ANSWER_MS;
    link_end_init(&m->end, &role, link_client_edges, cfg->keepalive_ms);
    m->end.auth_ms = cfg->auth_ms;
    m->end.close_ms = cfg->close_ms;
    m->end.start_tls = link_wants_tls(cfg->trust);
    m->end.name = cfg->component;
}

void link_client_step(struct link_client *m, const struct gw_event *ev, struct gw_actions *out)
{
    link_end_step(&m->end, ev, out);
}
