#include "xcp/jabberd2.h"

#include "core/base/base64.h"
#include "core/base/list.h"
#include "core/base/mem.h"
#include "core/base/table.h"
#include "core/stream/bounce.h"
#include "core/stream/stream.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"

#define TO(s) (1u << LINK_##s)
const machine_edges jabberd2_edges[LINK_STATE_COUNT] = {
    [LINK_CONNECTED] = TO(TLS) | TO(HEADER) | TO(RESTING),
    [LINK_TLS] = TO(HEADER) | TO(RESTING),
    [LINK_HEADER] = TO(HANDSHAKE) | TO(CLOSING) | TO(RESTING),
    [LINK_HANDSHAKE] = TO(TLS) | TO(HEADER) | TO(UP) | TO(CLOSING) | TO(RESTING),
    [LINK_UP] = TO(CLOSING) | TO(RESTING),
    [LINK_CLOSING] = TO(RESTING),
    [LINK_RESTING] = 0,
};
#undef TO

enum { CNONCE_BYTES = 16, SASL_TEXT_MAX = 8192 };

struct jabberd2_name {
    UT_hash_handle hh;
    const char *spelled; /* as the router does; behind ascii */
    char ascii[];        /* key */
};

const char *jabberd2_step_name(enum jabberd2_step s)
{
    static const char *const names[] = {
#define X(id) #id,
        JABBERD2_STEPS(X)
#undef X
    };
    return names[s];
}

static struct jabberd2 *machine(struct link_end *e)
{
    return CONTAINER_OF(e, struct jabberd2, end);
}

/* ---- announced names ------------------------------------------------------------------------- */

static struct jabberd2_name *find_name(const struct jabberd2 *m, struct str ascii)
{
    struct jabberd2_name *n = NULL;
    HASH_FIND(hh, m->names, ascii.p, ascii.n, n);
    return n;
}

bool jabberd2_announced(const struct jabberd2 *m, struct str domain)
{
    return find_name(m, domain) != NULL;
}

static void free_name(struct jabberd2 *m, struct jabberd2_name *n)
{
    HASH_DELETE(hh, m->names, n);
    mem_free(n);
    m->nnames--;
}

/* False: out of memory. */
static bool add_name(struct jabberd2 *m, const char *ascii, struct str spelled)
{
    size_t len = strlen(ascii);
    struct jabberd2_name *n = mem_zalloc(sizeof *n + len + spelled.n + 2);
    if (n == NULL)
        return false;
    memcpy(n->ascii, ascii, len);
    memcpy(n->ascii + len + 1, spelled.p, spelled.n);
    n->spelled = n->ascii + len + 1;
    HASH_ADD_KEYPTR(hh, m->names, n->ascii, len, n);
    if (n->hh.tbl == NULL) {
        mem_free(n);
        return false;
    }
    m->nnames++;
    return true;
}

static void domain_up(struct jabberd2 *m, struct str spelled, struct gw_actions *out)
{
    if (find_name(m, str_c(out->local.ascii)) != NULL)
        return;
    if (m->nnames == JABBERD2_NAMES_MAX) {
        if (!m->names_full)
            gw_log(out, LOG_WARN, "link.domain.limit", KV_I("names", m->nnames));
        m->names_full = true;
        return;
    }
    if (!add_name(m, out->local.ascii, spelled)) {
        link_rest(&m->end, out, END_NO_MEMORY, true);
        return;
    }
    gw_log(out, LOG_NOTICE, "link.domain.up", KV_C("domain", out->local.ascii));
}

static void domain_down(struct jabberd2 *m, struct gw_actions *out)
{
    struct jabberd2_name *n = find_name(m, str_c(out->local.ascii));
    if (n == NULL)
        return;
    gw_log(out, LOG_NOTICE, "link.domain.down", KV_C("domain", out->local.ascii));
    free_name(m, n);
}

/* ---- words of ours --------------------------------------------------------------------------- */

static bool write_header(struct link_end *e, struct buf *b)
{
    (void)e;
    buf_puts(b, "<?xml version='1.0'?><stream:stream xmlns:stream='" NS_STREAM "' version='1.0'>");
    return true;
}

/* Nobody broke a rule, but this router is not for us. `text` lives as long as the event or the
 * machine. */
static void give_up(struct jabberd2 *m, struct gw_actions *out, enum end_reason reason,
                    struct str text)
{
    gw_send(out, STREAM_CLOSE_TAG);
    if (!link_set_state(&m->end, LINK_RESTING, out))
        return;
    gw_close(out, reason, false);
    out->v[out->n - 1].u.close.text = text;
}

static void wait_for(struct jabberd2 *m, enum jabberd2_step step, struct gw_actions *out,
                     const char *text)
{
    m->step = step;
    gw_send(out, text);
}

/* ---- headers and features -------------------------------------------------------------------- */

static void begin(struct link_end *e, const struct tls_peer *tls, struct gw_actions *out)
{
    struct jabberd2 *m = machine(e);
    if (tls != NULL && link_wants_tls(m->cfg.trust)) {
        m->judged = true;
        m->verdict = link_judge(e, m->cfg.trust, tls, out);
        if (!trust_ok(m->verdict)) {
            link_refuse_trust(e, out, m->verdict);
            return;
        }
    }
    link_send_header(e, out);
}

static void on_header(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    if (!stream_version_1(ev->u.header->version)) {
        link_refuse(e, out, "unsupported-version", "a stream of version 1.0 was expected",
                    END_STREAM_ERROR_SENT);
        return;
    }
    machine(e)->step = JABBERD2_FEATURES;
    link_set_state(e, LINK_HANDSHAKE, out);
}

static bool offers_digest_md5(const struct nonza *z)
{
    int i = nonza_child(z, 0, NS_SASL, "mechanisms");
    unsigned depth = i < 0 ? 0 : z->node[i].depth;
    for (i++; i > 0 && i < z->nnodes && z->node[i].depth > depth; i++)
        if (str_is(z->node[i].name, "mechanism") && str_is(str_trim(z->node[i].text), "DIGEST-MD5"))
            return true;
    return false;
}

static void send_bind(struct gw_actions *out, struct str name, const char *content)
{
    size_t at = gw_send_begin(out);
    buf_puts(&out->text, "<bind xmlns='" NS_JABBERD2 "'");
    writer_attr(&out->text, "name", name);
    buf_puts(&out->text, content);
    gw_send_end(out, at);
}

static void on_features(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    struct stream_features f;
    bool need_tls = m->cfg.require_tls || link_wants_tls(m->cfg.trust);
    if (!stream_read_features(z, &f)) {
        link_refuse(&m->end, out, "unsupported-stanza-type", "stream features were expected",
                    END_STREAM_ERROR_SENT);
    } else if (m->authenticated) {
        m->step = JABBERD2_BOUND;
        send_bind(out, m->cfg.name, "/>");
    } else if (!m->end.encrypted && f.starttls && !m->cfg.no_tls) {
        wait_for(m, JABBERD2_PROCEED, out, "<starttls xmlns='" NS_TLS "'/>");
    } else if (!m->end.encrypted && need_tls) {
        give_up(m, out, END_TLS_NOT_OFFERED,
                STR("the router offers no TLS, which is required here"));
    } else if (!offers_digest_md5(z)) {
        give_up(m, out, END_UNAUTHORIZED, STR("the router does not offer DIGEST-MD5"));
    } else {
        wait_for(m, JABBERD2_CHALLENGE, out, "<auth xmlns='" NS_SASL "' mechanism='DIGEST-MD5'/>");
    }
}

static void on_proceed(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    if (nonza_is(z, NS_TLS, "proceed")) {
        m->end.header_sent = false; /* another stream begins behind TLS */
        link_set_state(&m->end, LINK_TLS, out);
        gw_act(out, ACT_TLS_START);
    } else if (nonza_is(z, NS_TLS, "failure")) {
        give_up(m, out, END_TLS_REFUSED, STR("the router offered TLS and then refused it"));
    } else {
        link_refuse(&m->end, out, "unsupported-stanza-type", "an answer to starttls was expected",
                    END_STREAM_ERROR_SENT);
    }
}

/* ---- SASL ------------------------------------------------------------------------------------ */

/* False: no memory or randomness. `why`: what is wrong with the challenge. */
static bool write_response(struct jabberd2 *m, struct str challenge, struct buf *response,
                           const char **why)
{
    char cnonce[2 * CNONCE_BYTES + 1];
    struct digest_md5_login login = {.user = m->cfg.user,
                                     .secret = m->cfg.secret,
                                     .uri = STR("jabberd-router/router"),
                                     .cnonce = {cnonce, sizeof cnonce - 1}};
    *why = NULL;
    return env_hex_id(m->env, cnonce, CNONCE_BYTES) &&
           digest_md5_respond(&m->sasl, &login, challenge, response, why);
}

static void send_response(struct jabberd2 *m, struct str response, struct gw_actions *out)
{
    size_t at = gw_send_begin(out);
    buf_puts(&out->text, "<response xmlns='" NS_SASL "'>");
    base64_write(&out->text, response);
    buf_puts(&out->text, "</response>");
    gw_send_end(out, at);
    m->step = JABBERD2_PROOF;
}

static void abort_sasl(struct jabberd2 *m, struct gw_actions *out, const char *why)
{
    gw_send(out, "<abort xmlns='" NS_SASL "'/>");
    give_up(m, out, END_UNAUTHORIZED, str_c(why));
}

static void on_challenge(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    struct buf challenge = BUF_INIT(SASL_TEXT_MAX), response = BUF_INIT(SASL_TEXT_MAX);
    const char *why = "the challenge is no base64";
    bool read = base64_read(&challenge, str_trim(nonza_text(z)));
    if (challenge.failed)
        link_rest(&m->end, out, END_NO_MEMORY, true);
    else if (!read)
        abort_sasl(m, out, why);
    else if (write_response(m, buf_view(&challenge), &response, &why))
        send_response(m, buf_view(&response), out);
    else if (why != NULL)
        abort_sasl(m, out, why);
    else
        link_rest(&m->end, out, END_NO_MEMORY, true);
    buf_free(&challenge);
    buf_free(&response);
}

/* The router's proof, in the text of a last challenge or of success. */
static void check_proof(struct jabberd2 *m, const struct nonza *z)
{
    struct buf b = BUF_INIT(SASL_TEXT_MAX);
    if (base64_read(&b, str_trim(nonza_text(z))) && digest_md5_proven(&m->sasl, buf_view(&b)))
        m->proven = true;
    buf_free(&b);
}

static void on_success(struct jabberd2 *m, struct gw_actions *out)
{
    m->authenticated = true;
    gw_act(out, ACT_STREAM_RESET);
    link_set_state(&m->end, LINK_HEADER, out);
    link_send_header(&m->end, out);
}

static void on_proof(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    bool success = nonza_is(z, NS_SASL, "success");
    if (!m->proven)
        check_proof(m, z);
    if (!m->proven)
        link_refuse(&m->end, out, "not-authorized", "no proof that you know the secret",
                    END_UNAUTHORIZED);
    else if (success)
        on_success(m, out);
    else
        wait_for(m, JABBERD2_PROOF, out, "<response xmlns='" NS_SASL "'/>");
}

static void on_sasl_failure(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    struct str reason = z->nnodes > 1 ? z->node[1].name : STR("failure");
    gw_log(out, LOG_WARN, "link.error.received", KV_S("reason", reason),
           KV_C("msg", "the router does not accept user and secret"));
    give_up(m, out, END_UNAUTHORIZED, STR("the router does not accept user and secret"));
}

static void on_sasl(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    bool challenge = nonza_is(z, NS_SASL, "challenge");
    if (nonza_is(z, NS_SASL, "failure"))
        on_sasl_failure(m, z, out);
    else if (m->step == JABBERD2_CHALLENGE && challenge)
        on_challenge(m, z, out);
    else if (m->step == JABBERD2_PROOF && (challenge || nonza_is(z, NS_SASL, "success")))
        on_proof(m, z, out);
    else
        link_refuse(&m->end, out, "unsupported-stanza-type", "the next step of SASL was expected",
                    END_STREAM_ERROR_SENT);
}

/* ---- probes ---------------------------------------------------------------------------------- */

static void send_ping(struct jabberd2 *m, uint64_t now, struct gw_actions *out)
{
    size_t at = gw_send_begin(out);
    buf_puts(&out->text, "<route xmlns='" NS_JABBERD2 "'");
    writer_attr(&out->text, "from", m->cfg.name);
    writer_attr(&out->text, "to", m->cfg.name);
    buf_puts(&out->text, "><iq xmlns='" NS_CLIENT "' type='get'");
    writer_attr(&out->text, "id", str_c(m->ping_id));
    writer_attr(&out->text, "from", m->cfg.name);
    writer_attr(&out->text, "to", m->cfg.name);
    buf_puts(&out->text, "><ping xmlns='" NS_PING "'/></iq></route>");
    gw_send_end(out, at);
    link_probe_sent(&m->probes.ping, now);
    m->end.out_ms = now;
    m->pinging = true;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When the keepalive timer has something to do next. */
static uint64_t keepalive_due(const struct jabberd2 *m)
{
    uint64_t due = link_space_due(&m->end);
    if (!m->paused && !m->pinging)
        due = earlier(due, m->in_ms + m->cfg.ping_ms);
    if (!m->paused && m->pinging && m->answers)
        due = earlier(due, m->probes.ping.last_sent_ms + m->cfg.ping_answer_ms);
    return due;
}

static void on_keepalive(struct link_end *e, uint64_t now, struct gw_actions *out)
{
    struct jabberd2 *m = machine(e);
    uint64_t waited = now - m->probes.ping.last_sent_ms;
    if (!m->paused && m->pinging && m->answers && waited >= m->cfg.ping_answer_ms) {
        gw_log(out, LOG_WARN, "link.ping.unanswered", KV_SEC("after", waited),
               KV_SEC("silent", now - m->in_ms));
        link_rest(e, out, END_LOST, true);
        return;
    }
    if (!m->paused && !m->pinging && now >= m->in_ms + m->cfg.ping_ms)
        send_ping(m, now, out);
    link_space(e, &m->probes.space, now, out);
    link_arm_keepalive(out, keepalive_due(m), now);
}

void jabberd2_pause(struct jabberd2 *m, bool paused, uint64_t now_ms)
{
    m->paused = paused;
    m->pinging = false;
    m->in_ms = now_ms;
}

/* Whatever it is, the router lives. */
static void heard(struct jabberd2 *m, uint64_t now)
{
    m->in_ms = now;
    m->pinging = false;
}

/* ---- names of ours --------------------------------------------------------------------------- */

static bool is_ours(const struct jabberd2 *m, struct str name)
{
    return name.p != NULL && (str_eq(name, m->cfg.name) || str_is(name, JABBERD2_DEFAULT));
}

static void ask_default(struct jabberd2 *m, struct gw_actions *out)
{
    send_bind(out, STR(JABBERD2_DEFAULT), "><default/></bind>");
    m->asked_default = true;
}

static void come_up(struct jabberd2 *m, uint64_t now, struct gw_actions *out)
{
    memcpy(m->ping_id, "ping-", 5);
    if (!env_hex_id(m->env, m->ping_id + 5, 12)) {
        link_rest(&m->end, out, END_NO_MEMORY, true);
        return;
    }
    link_up(&m->end, now, out);
    ask_default(m, out);
    send_ping(m, now, out);
    link_arm_keepalive(out, keepalive_due(m), now);
}

static void on_own_bound(struct jabberd2 *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct str error = nonza_attr(ev->u.nonza, "error");
    if (!nonza_is(ev->u.nonza, NS_JABBERD2, "bind"))
        link_refuse(&m->end, out, "unsupported-stanza-type", "an answer to bind was expected",
                    END_STREAM_ERROR_SENT);
    else if (error.p == NULL)
        come_up(m, ev->now_ms, out);
    else if (str_is(error, "409"))
        give_up(m, out, END_CONFLICT, STR("another connection has our name on the router"));
    else if (str_is(error, "403"))
        give_up(m, out, END_UNAUTHORIZED, STR("the router does not let this user bind our name"));
    else
        give_up(m, out, END_STREAM_ERROR_RECEIVED, STR("the router refuses to bind our name"));
}

static void on_default_bound(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    struct str error = nonza_attr(z, "error");
    m->asked_default = false;
    m->active = error.p == NULL;
    if (m->active)
        gw_log(out, LOG_NOTICE, "link.active", KV_C("name", JABBERD2_DEFAULT));
    else
        gw_log(out, str_is(error, "409") ? LOG_NOTICE : LOG_WARN, "link.standby",
               KV_C("name", JABBERD2_DEFAULT), KV_S("reason", error));
}

/* sm, c2s: what the router calls them, which is no domain. */
static bool is_component(struct str name)
{
    return name.n == 0 || memchr(name.p, '.', name.n) == NULL;
}

/* Whoever had the default route is gone. */
static void on_default_gone(struct jabberd2 *m, struct gw_actions *out)
{
    m->active = false;
    if (m->end.state == LINK_UP && !m->asked_default)
        ask_default(m, out);
}

static void on_presence(struct jabberd2 *m, const struct nonza *z, struct gw_actions *out)
{
    struct str from = nonza_attr(z, "from");
    bool gone = str_is(nonza_attr(z, "type"), "unavailable");
    if (is_ours(m, from)) {
        if (gone && str_is(from, JABBERD2_DEFAULT))
            on_default_gone(m, out);
        return;
    }
    if (is_component(from) || !domain_prepare(from, &out->local))
        return;
    if (gone)
        domain_down(m, out);
    else
        domain_up(m, from, out);
}

/* ---- routes ---------------------------------------------------------------------------------- */

static void odd_route(struct gw_actions *out, const struct stanza_route *r, const char *why)
{
    gw_log(out, LOG_WARN, "link.route.odd", KV_S("from", r->from), KV_S("to", r->to),
           KV_C("msg", why));
    gw_act(out, ACT_DROP);
}

static bool is_pong(const struct jabberd2 *m, const struct stanza *st)
{
    return st->kind == STANZA_IQ && st->from.p != NULL && str_eq(st->from, m->cfg.name) &&
           str_is(st->id, m->ping_id);
}

static void on_pong(struct jabberd2 *m, uint64_t now)
{
    m->answers = true;
    m->probes.ping.answered++;
    m->probes.ping.last_answer_ms = now;
}

/* One of ours came back: its sender is outside. The router marks it with an error only when it is
 * from the very name that the default route is bound under; from another one of ours it comes as if
 * it were for the world. */
static void on_undelivered(const struct stanza *st, struct gw_actions *out)
{
    struct jid jid;
    struct str error = st->route->error;
    bool nobody = error.p == NULL || str_is(error, "404");
    gw_log(out, LOG_WARN, "link.route.undelivered",
           KV_S("reason", error.p ? error : STR("no-route")), KV_S("from", st->from),
           KV_S("to", st->to));
    if (st->to.p == NULL || st->from.p == NULL || !bounce_allowed(st) ||
        jid_prepare(st->to, &jid, &out->local) != JID_OK ||
        jid_prepare(st->from, &jid, &out->remote) != JID_OK) {
        gw_act(out, ACT_DROP);
        return;
    }
    struct gw_action *act = gw_act(out, ACT_UNDELIVERED);
    act->u.bounce.type = "wait";
    act->u.bounce.condition = nobody ? "remote-server-timeout" : "internal-server-error";
    act->u.bounce.text = nobody ? "the server of this domain is not connected"
                                : "the inside did not take the stanza";
}

static void on_route(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    struct jabberd2 *m = machine(e);
    static const struct stanza_route none = {.fault = "it came without a route"};
    const struct stanza *st = ev->u.stanza;
    const struct stanza_route *r = st->route ? st->route : &none;
    heard(m, ev->now_ms);
    if (str_is(r->type, "broadcast") || str_is(r->type, "log"))
        return;
    if (r->fault != NULL)
        odd_route(out, r, r->fault);
    else if (is_pong(m, st)) /* also with an error: the router read it */
        on_pong(m, ev->now_ms);
    else if (r->error.p != NULL || is_ours(m, r->from))
        on_undelivered(st, out);
    else if (!m->active && !is_ours(m, r->to))
        odd_route(out, r, "it is for a name that is not ours");
    else if (is_ours(m, st->to) && is_component(st->from))
        gw_act(out, ACT_DROP);
    else
        link_stanza(st, out);
}

/* ---- the machine ----------------------------------------------------------------------------- */

static void negotiate(struct jabberd2 *m, const struct gw_event *ev, struct gw_actions *out)
{
    switch (m->step) {
    case JABBERD2_FEATURES:
        on_features(m, ev->u.nonza, out);
        break;
    case JABBERD2_PROCEED:
        on_proceed(m, ev->u.nonza, out);
        break;
    case JABBERD2_CHALLENGE:
    case JABBERD2_PROOF:
        on_sasl(m, ev->u.nonza, out);
        break;
    case JABBERD2_BOUND:
        on_own_bound(m, ev, out);
        break;
    case JABBERD2_STEP_COUNT:
        break;
    }
}

static void on_nonza(struct link_end *e, const struct gw_event *ev, struct gw_actions *out)
{
    struct jabberd2 *m = machine(e);
    const struct nonza *z = ev->u.nonza;
    heard(m, ev->now_ms);
    if (m->authenticated && nonza_is(z, NS_JABBERD2, "presence"))
        on_presence(m, z, out);
    else if (e->state == LINK_HANDSHAKE)
        negotiate(m, ev, out);
    else if (e->state == LINK_UP && m->asked_default && nonza_is(z, NS_JABBERD2, "bind"))
        on_default_bound(m, z, out);
    else if (e->state == LINK_HEADER || e->state == LINK_TLS)
        link_refuse(e, out, "unsupported-stanza-type", "a stream header was expected",
                    END_STREAM_ERROR_SENT);
    else
        gw_log(out, LOG_INFO, "link.element.odd", KV_S("name", z->node[0].name));
}

void jabberd2_init(struct jabberd2 *m, const struct jabberd2_config *cfg, const struct env *env)
{
    static const struct link_role role = {.write_header = write_header,
                                          .begin = begin,
                                          .header = on_header,
                                          .nonza = on_nonza,
                                          .stanza = on_route,
                                          .keepalive = on_keepalive};
    *m = (struct jabberd2){.cfg = *cfg, .env = env};
    if (m->cfg.ping_ms == 0)
        m->cfg.ping_ms = JABBERD2_PING_MS;
    if (m->cfg.ping_answer_ms == 0)
        m->cfg.ping_answer_ms = JABBERD2_PING_ANSWER_MS;
    link_end_init(&m->end, &role, jabberd2_edges, cfg->keepalive_ms);
    m->end.start_tls = cfg->direct_tls;
    m->end.auth_ms = cfg->auth_ms;
    m->end.close_ms = cfg->close_ms;
}

void jabberd2_free(struct jabberd2 *m)
{
    struct jabberd2_name *n, *next;
    HASH_ITER(hh, m->names, n, next)
    free_name(m, n);
}

void jabberd2_step(struct jabberd2 *m, const struct gw_event *ev, struct gw_actions *out)
{
    link_end_step(&m->end, ev, out);
}

struct span jabberd2_route(const struct jabberd2 *m, struct str stanza, struct str domain)
{
    const struct jabberd2_name *n = find_name(m, domain);
    return jabberd2_wrap(stanza, m->cfg.name, n ? str_c(n->spelled) : domain);
}
