#include "gateway/proto/s2s_in.h"

#include "core/base/mem.h"
#include "core/stream/bounce.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"
#include "gateway/proto/judge.h"

enum { ASKED_US_LINGER_MS = 3000, ANSWER_MARGIN_MS = 2000 };

#define TO(s) (1u << S2S_IN_##s)
const machine_edges s2s_in_edges[S2S_IN_STATE_COUNT] = {
    [S2S_IN_ACCEPTED] = TO(CLEAR) | TO(TLS_HEADER) | TO(RESTING),
    [S2S_IN_CLEAR] = TO(HANDSHAKE) | TO(CLOSING) | TO(RESTING),
    [S2S_IN_HANDSHAKE] = TO(TLS_HEADER) | TO(RESTING),
    [S2S_IN_TLS_HEADER] = TO(SECURE) | TO(RESTING),
    [S2S_IN_SECURE] = TO(CLOSING) | TO(RESTING),
    [S2S_IN_CLOSING] = TO(RESTING),
    [S2S_IN_RESTING] = 0,
};
#undef TO

const char *s2s_in_state_name(enum s2s_in_state s)
{
    static const char *const names[] = {
#define X(id) #id,
        S2S_IN_STATES(X)
#undef X
    };
    return names[s];
}

void s2s_in_init(struct s2s_in *m, const struct side *side, const struct dialback_secrets *secrets,
                 const struct env *env)
{
    *m = (struct s2s_in){.state = S2S_IN_ACCEPTED, .side = side, .secrets = secrets, .env = env};
    m->next_ticket = 1;
    authz_init(&m->authz, side->cfg->limits.pairs_per_stream);
}

static void forget_header(struct s2s_in *m)
{
    mem_free(m->from);
    mem_free(m->to);
    mem_free(m->remote);
    mem_free(m->local);
    m->from = m->to = m->remote = m->local = NULL;
}

void s2s_in_free(struct s2s_in *m)
{
    forget_header(m);
    authz_free(&m->authz);
}

static bool set_state(struct s2s_in *m, enum s2s_in_state to)
{
    if (!machine_edge_ok(s2s_in_edges, m->state, to))
        return false;
    m->state = to;
    return true;
}

static void rest(struct s2s_in *m, struct gw_actions *out, enum end_reason reason, bool abort)
{
    if (set_state(m, S2S_IN_RESTING))
        gw_close(out, reason, abort);
}

/* Our header. Answers echo the peer's spelling of the addresses. */
static bool send_header(struct s2s_in *m, struct gw_actions *out, struct str from, struct str to,
                        bool version)
{
    if (!env_hex_id(m->env, m->id, STREAM_ID_BYTES))
        return false;
    struct stream_open open = {from, to, {m->id, STREAM_ID_HEX}, version};
    size_t begin = gw_send_begin(out);
    stream_write_header(&out->text, &open);
    gw_send_end(out, begin);
    m->header_sent = true;
    return true;
}

/* When no header was sent yet, one is sent first (4.9.1.1). `text` is static. */
static void end_with_error(struct s2s_in *m, struct gw_actions *out, enum end_reason reason,
                           const char *condition, const char *text)
{
    if (!m->header_sent && !send_header(m, out, str_c(m->to), str_c(m->from), true)) {
        rest(m, out, END_NO_MEMORY, true);
        return;
    }
    gw_send_error(out, condition, text, LOG_NOTICE, "s2s.refused");
    rest(m, out, reason, false);
}

static void refuse(struct s2s_in *m, struct gw_actions *out, const char *condition,
                   const char *text)
{
    if (m->state == S2S_IN_HANDSHAKE) { /* no text between the handshake's bytes */
        rest(m, out, END_TLS_FAILED, true);
        return;
    }
    if (m->state == S2S_IN_CLOSING) { /* our closing tag was the last that we say (4.4) */
        rest(m, out, m->reason, false);
        return;
    }
    end_with_error(m, out, END_STREAM_ERROR_SENT, condition, text);
}

/* Our side of the stream ends now, by a closing tag or, with a condition, by a stream error; what
 * the peer has under way is still delivered until its own closing tag or the deadline (4.4). */
static void close_gracefully(struct s2s_in *m, struct gw_actions *out, enum end_reason reason,
                             const char *condition, const char *text)
{
    if (!set_state(m, S2S_IN_CLOSING)) {
        rest(m, out, reason, false);
        return;
    }
    m->reason = reason;
    if (condition != NULL)
        gw_send_error(out, condition, text, LOG_NOTICE, "s2s.refused");
    else
        gw_send(out, STREAM_CLOSE_TAG);
    gw_timer_clear(out, TIMER_SETUP);
    gw_timer_clear(out, TIMER_KEEPALIVE);
    gw_timer_clear(out, TIMER_ASKED);
    gw_timer_set(out, TIMER_STATE, m->side->cfg->timeouts.close);
}

/* ---- header ---------------------------------------------------------------------------------- */

static bool keep_address(char **spelling, char **canonical, struct str s, struct domain *scratch)
{
    if (s.p == NULL)
        return true;
    return authz_keep(spelling, s) && domain_prepare(s, scratch) &&
           authz_keep(canonical, str_c(scratch->ascii));
}

static void tell_refused(struct str local, struct str remote, struct gw_actions *out)
{
    struct gw_action *a = gw_act(out, ACT_REFUSED);
    a->u.pair.local = local;
    a->u.pair.remote = remote;
}

/* RFC 6120 4.7.1, 4.7.2; NULL: acceptable. A header without from is accepted, and one without to.
 */
static const char *check_header(struct s2s_in *m, const struct stream_header *h,
                                struct gw_actions *out, const char **text)
{
    forget_header(m);
    if (!keep_address(&m->to, &m->local, h->to, &out->local) ||
        !keep_address(&m->from, &m->remote, h->from, &out->remote)) {
        *text = "the stream header's from or to is not a domain name";
        return "improper-addressing";
    }
    bool inside = m->side->link != NULL;
    if (m->local != NULL && !side_serves(m->side, str_c(m->local))) {
        *text = inside ? "the domain in the stream header's to is a local one: not by this way"
                       : "this server does not serve the domain in the stream header's to";
        return "host-unknown";
    }
    if (m->remote != NULL && !side_admits(m->side, str_c(m->remote))) {
        *text = inside ? "the stream header's from is not a local domain of this link"
                       : "the stream header's from is a domain of ours";
        return "invalid-from";
    }
    if (m->remote != NULL && m->local != NULL) {
        struct str local = str_c(m->local), remote = str_c(m->remote);
        struct policy_decision d = side_pair(m->side, local, remote, WAY_EITHER);
        if (d.verdict != POLICY_ALLOW) {
            tell_refused(local, remote, out);
            *text = d.rule;
            return "policy-violation";
        }
    }
    return NULL;
}

static enum security_mode mode_of(const struct s2s_in *m, const char *remote)
{
    return side_security(m->side, str_c(remote));
}

static void send_features(struct s2s_in *m, struct gw_actions *out)
{
    enum security_mode mode = mode_of(m, m->remote);
    size_t begin = gw_send_begin(out);
    buf_puts(&out->text, "<stream:features>");
    if (!m->encrypted && mode != SECURITY_NO_TLS)
        buf_puts(&out->text, mode == SECURITY_TLS_REQUIRED ? "<starttls xmlns='" NS_TLS
                                                             "'><required/></starttls>"
                                                           : "<starttls xmlns='" NS_TLS "'/>");
    if (m->encrypted || mode != SECURITY_TLS_REQUIRED)
        buf_puts(&out->text, "<dialback xmlns='" NS_FEATURE_DB "'><errors/></dialback>");
    buf_puts(&out->text, "</stream:features>");
    gw_send_end(out, begin);
}

static void on_header(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    const struct stream_header *h = ev->u.header;
    bool again = m->state == S2S_IN_TLS_HEADER;
    /* What the first header said must not change behind TLS (the certificate will count there). */
    char *before_remote = NULL, *before_local = NULL;
    if (again) {
        before_remote = m->remote, m->remote = NULL;
        before_local = m->local, m->local = NULL;
    }
    const char *text = NULL, *condition = check_header(m, h, out, &text);
    if (condition == NULL && ((before_remote && m->remote && strcmp(before_remote, m->remote)) ||
                              (before_local && m->local && strcmp(before_local, m->local)))) {
        condition = "invalid-from";
        text = "the header after TLS names other domains than the first one";
    }
    m->remote = m->remote ? m->remote : before_remote;
    m->local = m->local ? m->local : before_local;
    if (m->remote != before_remote)
        mem_free(before_remote);
    if (m->local != before_local)
        mem_free(before_local);
    bool version = stream_version_1(h->version);
    if (!send_header(m, out, str_c(m->to), str_c(m->from), version)) {
        rest(m, out, END_NO_MEMORY, true);
        return;
    }
    if (condition != NULL) {
        refuse(m, out, condition, text);
        return;
    }
    if (!version && !m->encrypted && mode_of(m, m->remote) == SECURITY_TLS_REQUIRED) {
        refuse(m, out, "policy-violation", "TLS is required and needs a version 1.0 stream");
        return;
    }
    if (m->encrypted && mode_of(m, m->remote) == SECURITY_NO_TLS) {
        if (m->direct_tls)
            refuse(m, out, "policy-violation", "TLS is switched off here");
        else /* since the handshake began */
            refuse(m, out, "reset", "the security mode has changed");
        return;
    }
    set_state(m, m->encrypted ? S2S_IN_SECURE : S2S_IN_CLEAR);
    gw_log(out, LOG_INFO, "s2s.stream.open", KV_S("from", h->from), KV_S("to", h->to),
           KV_C("id", m->id), KV_S("version", h->version), KV_S("lang", h->lang),
           KV_C("encrypted", m->encrypted ? "yes" : "no"));
    if (version)
        send_features(m, out);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

static bool authorised(const struct s2s_in *m)
{
    return authz_first(&m->authz, AUTHZ_VALID) != NULL;
}

static void on_starttls(struct s2s_in *m, uint64_t now, struct gw_actions *out)
{
    if (m->state != S2S_IN_CLEAR) {
        refuse(m, out, "policy-violation", "TLS is already there");
        return;
    }
    if (mode_of(m, m->remote) == SECURITY_NO_TLS) {
        gw_send(out, "<failure xmlns='" NS_TLS "'/>" STREAM_CLOSE_TAG);
        gw_log(out, LOG_NOTICE, "s2s.refused", KV_C("reason", "starttls-in-no-tls-mode"));
        rest(m, out, END_TLS_REFUSED, false);
        return;
    }
    gw_send(out, "<proceed xmlns='" NS_TLS "'/>");
    if (authorised(m)) { /* it has to prove itself anew, and has as long as a stranger */
        gw_timer_clear(out, TIMER_KEEPALIVE);
        gw_timer_set(out, TIMER_SETUP, m->side->cfg->timeouts.auth);
        m->opened_ms = now;
    }
    authz_free(&m->authz); /* also the open questions: their verdicts find no entry any more */
    m->header_sent = false;
    set_state(m, S2S_IN_HANDSHAKE);
    gw_timer_clear(out, TIMER_ASKED);
    gw_act(out, ACT_TLS_START);
}

/* Not one element is read from a peer that the link does not know. */
static void check_certificate(struct s2s_in *m, const struct tls_peer *t, struct gw_actions *out)
{
    m->verdict = judge_certificate(m->trust, t, out);
    m->judged = true;
    if (!trust_ok(m->verdict))
        end_with_error(m, out, END_UNTRUSTED, "not-authorized", trust_reason_text(m->verdict));
}

static void on_tls_up(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    bool direct = m->state == S2S_IN_ACCEPTED;
    if (!set_state(m, S2S_IN_TLS_HEADER))
        return;
    const struct tls_peer *t = ev->u.tls;
    m->encrypted = true;
    m->direct_tls = direct;
    gw_log(out, LOG_INFO, "tls.up", KV_C("tls", t->protocol), KV_C("cipher", t->cipher),
           KV_C("certificate", !t->has_certificate ? "none"
                               : t->chain_ok       ? "trusted"
                                                   : "untrusted"),
           KV_S("msg", t->why[0] ? str_c(t->why) : STR_NONE));
    if (m->trust != NULL && !m->trusted_address)
        check_certificate(m, t, out);
}

/* ---- dialback, receiving role ---------------------------------------------------------------- */

/* `from` and `to` are the request's, as the peer wrote them. */
static void answer_result(struct gw_actions *out, struct str from, struct str to, const char *type,
                          const char *condition)
{
    struct dialback_text t = {
        .kind = DIALBACK_RESULT, .from = to, .to = from, .type = type, .condition = condition};
    size_t begin = gw_send_begin(out);
    dialback_write(&out->text, &t);
    gw_send_end(out, begin);
}

static void log_answer(struct gw_actions *out, struct str from, struct str to, const char *type,
                       const char *condition)
{
    gw_log(out, LOG_INFO, "dialback.result.answered", KV_S("from", to), KV_S("to", from),
           KV_C("type", condition ? "error" : type), KV_C("reason", condition));
}

static bool request_open(const struct s2s_in *m)
{
    return authz_first(&m->authz, AUTHZ_ASKED) || authz_first(&m->authz, AUTHZ_WAITING);
}

/* Arms or disarms the timer of streams that only ask us things. */
static void watch_dialback_only(struct s2s_in *m, struct gw_actions *out)
{
    if (m->answered_verify && !authorised(m) && !request_open(m))
        gw_timer_set(out, TIMER_ASKED, ASKED_US_LINGER_MS);
    else
        gw_timer_clear(out, TIMER_ASKED);
}

/* The answer must be there in time for us to pass it on before the stream's own deadline. */
static uint64_t time_to_ask(const struct s2s_in *m, uint64_t now)
{
    uint64_t within = m->side->cfg->dialback.timeout;
    if (authorised(m))
        return within;
    uint64_t auth = m->side->cfg->timeouts.auth, end = m->opened_ms + auth;
    uint64_t margin = auth / 4 < ANSWER_MARGIN_MS ? auth / 4 : ANSWER_MARGIN_MS;
    uint64_t left = end > now + margin ? end - now - margin : 1;
    return left < within ? left : within;
}

static void ask(struct s2s_in *m, struct authz_pair *p, struct str key, uint64_t now,
                struct gw_actions *out)
{
    p->state = AUTHZ_ASKED;
    p->ticket = m->next_ticket++;
    p->since = now;
    struct gw_action *act = gw_act(out, ACT_ASK);
    act->u.ask.ticket = p->ticket;
    act->u.ask.within_ms = time_to_ask(m, now);
    act->u.ask.request =
        (struct db_request){str_c(p->local), str_c(p->remote), {m->id, STREAM_ID_HEX}, key};
}

/* Why a request is refused before any DNS work; NULL: it may be asked. */
static const char *check_request(const struct s2s_in *m, const struct dialback_element *e,
                                 struct gw_actions *out)
{
    if (e->from.p == NULL || e->to.p == NULL || !domain_prepare(e->from, &out->remote) ||
        !domain_prepare(e->to, &out->local) || e->key.n == 0)
        return "bad-request";
    struct str remote = str_c(out->remote.ascii), local = str_c(out->local.ascii);
    if (!side_serves(m->side, local))
        return "item-not-found";
    if (!side_admits(m->side, remote))
        return "not-allowed";
    enum policy_verdict verdict = side_pair(m->side, local, remote, WAY_IN).verdict;
    if (verdict != POLICY_ALLOW) {
        tell_refused(local, remote, out);
        return verdict == POLICY_OFF ? "policy-violation" : "not-allowed";
    }
    if (!m->encrypted && side_security(m->side, remote) == SECURITY_TLS_REQUIRED)
        return "policy-violation";
    return NULL;
}

static void refuse_result(const struct dialback_element *e, const char *condition,
                          struct gw_actions *out)
{
    answer_result(out, e->from, e->to, NULL, condition);
    log_answer(out, e->from, e->to, NULL, condition);
}

/* Enters the request into the ledger; NULL: no room for it. */
static struct authz_pair *remember(struct s2s_in *m, const struct dialback_element *e,
                                   const struct gw_actions *out)
{
    struct authz_pair *p = authz_add(&m->authz, str_c(out->local.ascii), str_c(out->remote.ascii));
    if (p == NULL)
        return NULL;
    p->state = AUTHZ_WAITING;
    if (authz_keep(&p->from, e->from) && authz_keep(&p->to, e->to) && authz_keep(&p->key, e->key))
        return p;
    authz_remove(&m->authz, p);
    return NULL;
}

static void pair_proven(struct s2s_in *m, struct authz_pair *p, const char *mech, uint64_t now,
                        struct gw_actions *out)
{
    bool first = !authorised(m);
    p->state = AUTHZ_VALID;
    p->since = now;
    m->active_ms = now;
    if (first) {
        gw_timer_clear(out, TIMER_SETUP);
        gw_timer_set(out, TIMER_KEEPALIVE, m->side->cfg->timeouts.keepalive);
        gw_act(out, ACT_LIMITS);
    }
    answer_result(out, str_c(p->from), str_c(p->to), "valid", NULL);
    log_answer(out, str_c(p->from), str_c(p->to), "valid", NULL);
    struct gw_action *act = gw_act(out, ACT_PAIR);
    act->u.pair.local = str_c(p->local);
    act->u.pair.remote = str_c(p->remote);
    act->u.pair.result = PAIR_VALID;
    gw_log(out, LOG_INFO, "s2s.state", KV_C("local", p->local), KV_C("remote", p->remote),
           KV_C("from", "PENDING"), KV_C("to", "CONNECTED"), KV_C("mech", mech));
}

/* What makes a claim true without asking anybody; NULL: nothing does. */
static const char *trusted_by(const struct s2s_in *m)
{
    if (m->trusted_address)
        return "address";
    return m->judged && trust_ok(m->verdict) ? "certificate" : NULL;
}

static void on_result(struct s2s_in *m, const struct dialback_element *e, uint64_t now,
                      struct gw_actions *out)
{
    const char *condition = check_request(m, e, out);
    gw_log(out, LOG_INFO, "dialback.result.received", KV_S("from", e->from), KV_S("to", e->to));
    if (condition != NULL) {
        refuse_result(e, condition, out);
        return;
    }
    struct authz_pair *p = authz_find(&m->authz, str_c(out->local.ascii), str_c(out->remote.ascii));
    if (p != NULL && p->state == AUTHZ_VALID) {
        answer_result(out, e->from, e->to, "valid", NULL);
        log_answer(out, e->from, e->to, "valid", NULL);
    }
    if (p != NULL)
        return; /* asked already: that one's verdict answers */
    p = remember(m, e, out);
    if (p == NULL)
        refuse_result(e, "resource-constraint", out);
    else if (trusted_by(m) != NULL)
        pair_proven(m, p, trusted_by(m), now, out);
    else if (authz_count(&m->authz, AUTHZ_ASKED) < m->side->cfg->limits.pending_dialbacks)
        ask(m, p, str_c(p->key), now, out);
    watch_dialback_only(m, out);
}

static void ask_next(struct s2s_in *m, uint64_t now, struct gw_actions *out)
{
    struct authz_pair *p = authz_first(&m->authz, AUTHZ_WAITING);
    if (p == NULL || authz_count(&m->authz, AUTHZ_ASKED) >= m->side->cfg->limits.pending_dialbacks)
        return;
    ask(m, p, str_c(p->key), now, out);
}

static void on_verdict(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct authz_pair *p = authz_by_ticket(&m->authz, ev->u.verdict.ticket);
    enum verdict v = ev->u.verdict.verdict;
    if (p == NULL)
        return; /* asked before STARTTLS, or answered by our own deadline */
    if (v == VERDICT_VALID) {
        pair_proven(m, p, "dialback", ev->now_ms, out);
        ask_next(m, ev->now_ms, out);
        watch_dialback_only(m, out);
        return;
    }
    bool end = v == VERDICT_INVALID && !authorised(m);
    const char *condition = v == VERDICT_INVALID ? (end ? NULL : "forbidden") : verdict_name(v);
    /* The entry goes; what the log lines say must outlive it. */
    str_copy(out->remote.ascii, sizeof out->remote.ascii, str_c(p->remote));
    str_copy(out->local.ascii, sizeof out->local.ascii, str_c(p->local));
    struct str remote = str_c(out->remote.ascii), local = str_c(out->local.ascii);
    answer_result(out, str_c(p->from), str_c(p->to), "invalid", condition);
    log_answer(out, remote, local, "invalid", condition);
    gw_log(out, LOG_NOTICE, "s2s.state", KV_S("local", local), KV_S("remote", remote),
           KV_C("from", "PENDING"), KV_C("to", "FAILED"), KV_C("reason", verdict_name(v)),
           KV_S("msg", ev->u.verdict.text));
    if (end) {
        gw_send(out, STREAM_CLOSE_TAG);
        rest(m, out, END_STREAM_ERROR_SENT, false);
    }
    authz_remove(&m->authz, p);
    if (end)
        return;
    ask_next(m, ev->now_ms, out);
    watch_dialback_only(m, out);
}

/* ---- dialback, authoritative role ------------------------------------------------------------ */

static const char *check_verify(const struct s2s_in *m, const struct dialback_element *e,
                                struct gw_actions *out)
{
    if (e->from.p == NULL || e->to.p == NULL || e->id.n == 0 || e->key.n == 0 ||
        !domain_prepare(e->from, &out->remote) || !domain_prepare(e->to, &out->local))
        return "bad-request";
    if (!side_serves(m->side, str_c(out->local.ascii)))
        return "item-not-found";
    if (!m->encrypted && side_security(m->side, str_c(out->remote.ascii)) == SECURITY_TLS_REQUIRED)
        return "policy-violation";
    return NULL;
}

static void on_verify(struct s2s_in *m, const struct dialback_element *e, struct gw_actions *out)
{
    const char *condition = check_verify(m, e, out);
    bool good = condition == NULL && dialback_check(m->secrets, e->key, str_c(out->remote.ascii),
                                                    str_c(out->local.ascii), e->id);
    struct dialback_text t = {.kind = DIALBACK_VERIFY,
                              .from = e->to,
                              .to = e->from,
                              .id = e->id,
                              .type = good ? "valid" : "invalid",
                              .condition = condition};
    size_t begin = gw_send_begin(out);
    dialback_write(&out->text, &t);
    gw_send_end(out, begin);
    gw_log(out, condition || !good ? LOG_NOTICE : LOG_INFO, "dialback.verify.answered",
           KV_S("from", e->from), KV_S("to", e->to), KV_S("id", e->id),
           KV_C("type", condition ? "error" : t.type), KV_C("reason", condition));
    m->answered_verify = true;
    watch_dialback_only(m, out);
}

/* ---- elements -------------------------------------------------------------------------------- */

static void on_stream_error(struct s2s_in *m, const struct nonza *z, struct gw_actions *out)
{
    struct str condition, text;
    stream_read_error(z, &condition, &text);
    gw_log(out, LOG_NOTICE, "s2s.error.received", KV_S("reason", condition), KV_S("msg", text));
    if (m->state == S2S_IN_CLOSING) {
        rest(m, out, m->reason, false);
        return;
    }
    gw_send(out, STREAM_CLOSE_TAG);
    rest(m, out, END_STREAM_ERROR_RECEIVED, false);
}

static void on_nonza(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    const struct nonza *z = ev->u.nonza;
    struct dialback_element e = dialback_read(z);
    if (nonza_is(z, NS_STREAM, "error")) {
        on_stream_error(m, z, out);
    } else if (m->state == S2S_IN_CLOSING) {
        return;
    } else if (nonza_is(z, NS_TLS, "starttls")) {
        on_starttls(m, ev->now_ms, out);
    } else if (e.kind == DIALBACK_NOT) {
        refuse(m, out, "unsupported-stanza-type", "this element is not expected on this stream");
    } else if (e.type != DIALBACK_REQUEST) {
        gw_log(out, LOG_NOTICE, "dialback.unasked", KV_S("from", e.from), KV_S("to", e.to));
    } else if (e.kind == DIALBACK_RESULT) {
        on_result(m, &e, ev->now_ms, out);
    } else {
        on_verify(m, &e, out);
    }
}

static const char *stanza_refusal(const struct s2s_in *m, const struct gw_actions *out,
                                  const char **text)
{
    struct str local = str_c(out->local.ascii), remote = str_c(out->remote.ascii);
    /* While we close, the mode may be newer than what the peer has under way on a proven pair. */
    if (!m->encrypted && m->state != S2S_IN_CLOSING &&
        side_security(m->side, remote) == SECURITY_TLS_REQUIRED) {
        *text = "TLS is required before any stanza";
        return "policy-violation";
    }
    if (!authorised(m)) {
        *text = "no domain pair has been authorised on this stream";
        return "not-authorized";
    }
    if (!side_serves(m->side, local)) {
        *text = "the stanza is for a domain that this server does not serve";
        return "host-unknown";
    }
    const struct authz_pair *p = authz_find(&m->authz, local, remote);
    if (p == NULL || p->state != AUTHZ_VALID) {
        *text = "the stanza's domain pair has not been authorised on this stream";
        return "invalid-from";
    }
    return NULL;
}

static void on_stanza(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    const struct stanza *st = ev->u.stanza;
    struct jid from, to;
    enum jid_verdict vf = st->from.p ? jid_prepare(st->from, &from, &out->remote) : JID_BAD_DOMAIN;
    enum jid_verdict vt = st->to.p ? jid_prepare(st->to, &to, &out->local) : JID_BAD_DOMAIN;
    if (vf == JID_BAD_DOMAIN || vt == JID_BAD_DOMAIN) {
        refuse(m, out, "improper-addressing", "the stanza needs a valid from and to");
        return;
    }
    const char *text = NULL, *condition = stanza_refusal(m, out, &text);
    if (condition != NULL) {
        refuse(m, out, condition, text);
        return;
    }
    m->active_ms = ev->now_ms;
    bool malformed = vf == JID_BAD_PART || vt == JID_BAD_PART;
    struct gw_action *act;
    if (!malformed) {
        act = gw_act(out, ACT_DELIVER);
        act->u.pair.local = str_c(out->local.ascii);
        act->u.pair.remote = str_c(out->remote.ascii);
    } else if (vf == JID_OK && bounce_allowed(st)) {
        act = gw_act(out, ACT_BOUNCE);
        act->u.bounce.type = "modify";
        act->u.bounce.condition = "jid-malformed";
        act->u.bounce.text = "the local or resource part of the address is malformed";
    } else {
        gw_act(out, ACT_DROP); /* nobody to tell */
    }
}

/* ---- time, configuration, end ---------------------------------------------------------------- */

static void on_timer(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    switch (ev->u.timer) {
    case TIMER_SETUP:
        refuse(m, out, "connection-timeout", "not authorised in time");
        break;
    case TIMER_STATE:
        if (m->state == S2S_IN_CLOSING)
            rest(m, out, m->reason, false);
        break;
    case TIMER_ASKED:
        if (m->answered_verify && !authorised(m) && !request_open(m)) {
            gw_log(out, LOG_INFO, "s2s.dialback-only", KV_C("id", m->id));
            close_gracefully(m, out, END_DIALBACK_ONLY, NULL, NULL);
        }
        break;
    case TIMER_KEEPALIVE:
        if (ev->now_ms - m->active_ms >= m->side->cfg->timeouts.idle) {
            close_gracefully(m, out, END_IDLE, NULL, NULL);
        } else {
            gw_send(out, " ");
            gw_timer_set(out, TIMER_KEEPALIVE, m->side->cfg->timeouts.keepalive);
        }
        break;
    case GW_TIMER_COUNT:
        break;
    }
}

static bool mode_broken(const struct s2s_in *m, const struct side *side, const char *remote)
{
    enum security_mode mode = side_security(side, str_c(remote));
    return (m->encrypted && mode == SECURITY_NO_TLS) ||
           (!m->encrypted && mode == SECURITY_TLS_REQUIRED);
}

struct stream_fate s2s_in_fate(const struct s2s_in *m, const struct side *side)
{
    struct stream_fate f = {.fate = S2S_STAYS};
    if (m->state != S2S_IN_CLEAR && m->state != S2S_IN_SECURE && m->state != S2S_IN_CLOSING)
        return f; /* the header will be checked against the new policy */
    if (m->remote != NULL && mode_broken(m, side, m->remote))
        f = (struct stream_fate){S2S_RENEWED, str_c(m->local), str_c(m->remote)};
    for (size_t i = 0; i < m->authz.n; i++) {
        struct str local = str_c(m->authz.v[i].local), remote = str_c(m->authz.v[i].remote);
        if (!side_serves(side, local) || !side_admits(side, remote) ||
            side_pair(side, local, remote, WAY_IN).verdict != POLICY_ALLOW)
            return (struct stream_fate){S2S_DENIED, local, remote};
        if (f.fate == S2S_STAYS && mode_broken(m, side, remote.p))
            f = (struct stream_fate){S2S_RENEWED, local, remote};
    }
    return f;
}

static void on_policy(struct s2s_in *m, struct gw_actions *out)
{
    m->authz.max = m->side->cfg->limits.pairs_per_stream;
    enum s2s_fate fate = s2s_in_fate(m, m->side).fate;
    if (fate == S2S_DENIED)
        refuse(m, out, "policy-violation", "the policy for this domain pair has changed");
    else if (fate == S2S_RENEWED && m->state != S2S_IN_CLOSING)
        close_gracefully(m, out, END_DRAINED, "reset", "the security mode has changed");
}

static void on_xml_error(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == S2S_IN_HANDSHAKE)
        rest(m, out, END_TLS_FAILED, true); /* bytes in clear where TLS must begin: say nothing */
    else if (m->state == S2S_IN_CLOSING)
        rest(m, out, m->reason, false);
    else
        refuse(m, out, ev->u.error.condition, ev->u.error.text);
}

static void on_stream_close(struct s2s_in *m, struct gw_actions *out)
{
    if (m->state == S2S_IN_CLOSING) {
        rest(m, out, m->reason, false);
        return;
    }
    if (m->header_sent)
        gw_send(out, STREAM_CLOSE_TAG);
    if (m->answered_verify && !authorised(m))
        gw_log(out, LOG_INFO, "s2s.dialback-only", KV_C("id", m->id));
    rest(m, out, m->answered_verify && !authorised(m) ? END_DIALBACK_ONLY : END_PEER_CLOSED, false);
}

void s2s_in_step(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == S2S_IN_RESTING)
        return;
    bool working = m->state == S2S_IN_CLEAR || m->state == S2S_IN_SECURE;
    switch (ev->kind) {
    case EV_OPENED:
        m->opened_ms = m->active_ms = ev->now_ms;
        gw_timer_set(out, TIMER_SETUP, m->side->cfg->timeouts.auth);
        break;
    case EV_STREAM_OPEN:
        if (m->state == S2S_IN_ACCEPTED || m->state == S2S_IN_TLS_HEADER)
            on_header(m, ev, out);
        break;
    case EV_NONZA:
        if (working || m->state == S2S_IN_CLOSING)
            on_nonza(m, ev, out);
        break;
    case EV_STANZA:
        if (working || m->state == S2S_IN_CLOSING)
            on_stanza(m, ev, out);
        break;
    case EV_STREAM_CLOSE:
        on_stream_close(m, out);
        break;
    case EV_XML_ERROR:
        on_xml_error(m, ev, out);
        break;
    case EV_TLS_UP:
        on_tls_up(m, ev, out);
        break;
    case EV_TLS_FAILED:
        gw_log(out, LOG_NOTICE, "tls.failed", KV_S("msg", ev->u.text));
        rest(m, out, END_TLS_FAILED, true);
        break;
    case EV_VERDICT:
        if (working)
            on_verdict(m, ev, out);
        break;
    case EV_TIMER:
        on_timer(m, ev, out);
        break;
    case EV_POLICY_CHANGED:
        on_policy(m, out);
        break;
    case EV_DRAIN:
        if (m->state == S2S_IN_CLOSING)
            break; /* what is under way still comes, until the deadline */
        close_gracefully(m, out, END_DRAINED, "system-shutdown", "this server is stopping");
        break;
    case EV_LOST:
        rest(m, out, m->state == S2S_IN_CLOSING ? m->reason : END_LOST, true);
        break;
    case EV_WANT_PAIR:
    case EV_WANT_VERIFY:
        break; /* for outgoing streams */
    }
}
