#include "gateway/proto/s2s_in_priv.h"

#include "core/base/mem.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"
#include "gateway/proto/arrival.h"
#include "gateway/proto/bidi.h"
#include "gateway/proto/judge.h"

#define TO(s) (1u << S2S_IN_##s)
const machine_edges s2s_in_edges[S2S_IN_STATE_COUNT] = {
    [S2S_IN_ACCEPTED] = TO(CLEAR) | TO(TLS_HEADER) | TO(RESTING),
    [S2S_IN_CLEAR] = TO(HANDSHAKE) | TO(CLOSING) | TO(RESTING),
    [S2S_IN_HANDSHAKE] = TO(TLS_HEADER) | TO(RESTING),
    [S2S_IN_TLS_HEADER] = TO(SECURE) | TO(RESTING),
    [S2S_IN_SECURE] = TO(TLS_HEADER) | TO(CLOSING) | TO(RESTING),
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

void s2s_in_rest(struct s2s_in *m, struct gw_actions *out, enum end_reason reason, bool abort)
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

/* When no header was sent yet, one is sent first (4.9.1.1). */
static void end_with_error(struct s2s_in *m, struct gw_actions *out, enum end_reason reason,
                           const char *condition, const char *text)
{
    if (!m->header_sent && !send_header(m, out, str_c(m->to), str_c(m->from), true)) {
        s2s_in_rest(m, out, END_NO_MEMORY, true);
        return;
    }
    gw_send_error(out, condition, text, LOG_NOTICE, "s2s.refused");
    s2s_in_rest(m, out, reason, false);
}

void s2s_in_refuse(struct s2s_in *m, struct gw_actions *out, const char *condition,
                   const char *text)
{
    if (m->state == S2S_IN_HANDSHAKE) { /* no text between the handshake's bytes */
        s2s_in_rest(m, out, END_TLS_FAILED, true);
        return;
    }
    if (m->state == S2S_IN_CLOSING) { /* our closing tag was the last that we say (4.4) */
        s2s_in_rest(m, out, m->reason, false);
        return;
    }
    end_with_error(m, out, END_STREAM_ERROR_SENT, condition, text);
}

void s2s_in_close(struct s2s_in *m, struct gw_actions *out, enum end_reason reason,
                  const char *condition, const char *text)
{
    if (!set_state(m, S2S_IN_CLOSING)) {
        s2s_in_rest(m, out, reason, false);
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

void s2s_in_tell_refused(struct str local, struct str remote, struct gw_actions *out)
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
            s2s_in_tell_refused(local, remote, out);
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

static unsigned auth_on(const struct side *side, struct str remote)
{
    return side->link == NULL ? policy_auth(side->cfg, remote) : POLICY_AUTH_DIALBACK;
}

unsigned s2s_in_auth(const struct s2s_in *m, struct str remote)
{
    return auth_on(m->side, remote);
}

static unsigned header_auth(const struct s2s_in *m)
{
    return m->remote != NULL ? s2s_in_auth(m, str_c(m->remote)) : POLICY_AUTH_DIALBACK;
}

/* Why EXTERNAL is not for this stream. */
static struct external_refusal external_refusal(const struct s2s_in *m)
{
    if (!m->encrypted)
        return (struct external_refusal){"encryption-required", "TLS comes first"};
    if (!(header_auth(m) & POLICY_AUTH_EXTERNAL) || m->local == NULL)
        return (struct external_refusal){"invalid-mechanism",
                                         "no mechanism is offered on this stream"};
    if (authz_find(&m->authz, str_c(m->local), str_c(m->remote)) != NULL)
        return (struct external_refusal){"not-authorized", "the domain is proven already, or "
                                                           "being proven by dialback"};
    if (!m->proven)
        return (struct external_refusal){"not-authorized", m->why};
    return (struct external_refusal){NULL, NULL};
}

/* XEP-0478. They hold for the whole stream: what a stranger may send is less, but a peer that has
 * proven itself by dialback sees no other features. */
static void write_limits(const struct s2s_in *m, struct buf *b)
{
    const struct gateway_config *c = m->side->cfg;
    buf_printf(b,
               "<limits xmlns='" NS_LIMITS "'><max-bytes>%zu</max-bytes>"
               "<idle-seconds>%llu</idle-seconds></limits>",
               c->limits.stanza_size, (unsigned long long)c->timeouts.idle / 1000);
}

/* A header names the peer before anything is proven; what may be sent back is another question. */
static bool may_have_bidi(const struct s2s_in *m, const struct side *side)
{
    return !m->no_bidi && m->local != NULL && bidi_allowed(side, m->encrypted, m->remote);
}

static void send_features(struct s2s_in *m, struct gw_actions *out)
{
    m->bidi_offered = may_have_bidi(m, m->side) && !m->bidi && !s2s_in_authorised(m);
    enum security_mode mode = mode_of(m, m->remote);
    size_t begin = gw_send_begin(out);
    buf_puts(&out->text, "<stream:features>");
    m->tls_offered = !m->encrypted && mode != SECURITY_NO_TLS;
    if (m->tls_offered)
        buf_puts(&out->text, mode == SECURITY_TLS_REQUIRED ? "<starttls xmlns='" NS_TLS
                                                             "'><required/></starttls>"
                                                           : "<starttls xmlns='" NS_TLS "'/>");
    if (external_refusal(m).condition == NULL)
        buf_puts(&out->text, "<mechanisms xmlns='" NS_SASL "'><mechanism>EXTERNAL</mechanism>"
                             "</mechanisms>");
    if ((m->encrypted || mode != SECURITY_TLS_REQUIRED) && header_auth(m) & POLICY_AUTH_DIALBACK)
        buf_puts(&out->text, "<dialback xmlns='" NS_FEATURE_DB "'><errors/></dialback>");
    if (m->bidi_offered)
        buf_puts(&out->text, "<bidi xmlns='" NS_FEATURE_BIDI "'/>");
    write_limits(m, &out->text);
    buf_puts(&out->text, "</stream:features>");
    gw_send_end(out, begin);
}

/* What the certificate says of the header's `from`. False: the peer's rules end the stream here. */
static bool check_identity(struct s2s_in *m, struct gw_actions *out)
{
    m->proven = false;
    if (!m->encrypted || m->remote == NULL || m->side->link != NULL)
        return true;
    struct str remote = str_c(m->remote);
    if (!identity_tls_enough(m->side->cfg, m->tls, remote, m->why)) {
        s2s_in_refuse(m, out, "policy-violation", m->why);
        return false;
    }
    m->proven = identity_proven(m->side->cfg, m->tls, remote, m->why);
    bool enough = m->proven || header_auth(m) & POLICY_AUTH_DIALBACK;
    gw_log(out, enough ? LOG_INFO : LOG_NOTICE, "s2s.identity", KV_S("remote", remote),
           KV_C("certificate", m->proven ? "proven" : "unproven"),
           KV_C("msg", m->proven ? NULL : m->why));
    if (!enough)
        end_with_error(m, out, END_UNTRUSTED, "not-authorized", m->why);
    return enough;
}

static bool mode_broken(const struct s2s_in *m, const struct side *side, const char *remote)
{
    enum security_mode mode = side_security(side, str_c(remote));
    return (m->encrypted && mode == SECURITY_NO_TLS) ||
           (!m->encrypted && mode == SECURITY_TLS_REQUIRED);
}

/* The pair would not be proven any more in the way it was, or is about to be. */
static bool identity_broken(const struct s2s_in *m, const struct side *side,
                            const struct authz_pair *p)
{
    char why[IDENTITY_WHY];
    struct str remote = str_c(p->remote);
    unsigned auth = auth_on(side, remote);
    if (side->link != NULL)
        return false;
    if (!identity_tls_enough(side->cfg, m->tls, remote, why))
        return true;
    if (!p->external)
        return !(auth & POLICY_AUTH_DIALBACK);
    return !(auth & POLICY_AUTH_EXTERNAL) || !identity_proven(side->cfg, m->tls, remote, why);
}

static bool pair_denied(const struct side *side, const struct authz_pair *p)
{
    struct str local = str_c(p->local), remote = str_c(p->remote);
    return !side_serves(side, local) || !side_admits(side, remote) ||
           side_pair(side, local, remote, WAY_IN).verdict != POLICY_ALLOW;
}

/* What these settings mean for the stream as it is. */
static struct stream_fate fate_of(const struct s2s_in *m, const struct side *side,
                                  const char **text)
{
    bool may_yet = m->tls_offered && m->authz.n == 0; /* begin TLS */
    bool broken = m->remote != NULL && !may_yet && mode_broken(m, side, m->remote);
    bool one_way = m->bidi && !may_have_bidi(m, side), unproven = false;
    struct stream_fate f = {broken || one_way ? S2S_RENEWED : S2S_STAYS, str_c(m->local),
                            str_c(m->remote)};
    *text = "the policy for this domain pair has changed";
    for (size_t i = 0; i < m->authz.n; i++) {
        const struct authz_pair *p = &m->authz.v[i];
        if (pair_denied(side, p))
            return (struct stream_fate){S2S_DENIED, str_c(p->local), str_c(p->remote)};
        broken = broken || mode_broken(m, side, p->remote);
        unproven = unproven || identity_broken(m, side, p);
        if (f.fate == S2S_STAYS && (broken || unproven))
            f = (struct stream_fate){S2S_RENEWED, str_c(p->local), str_c(p->remote)};
    }
    *text = broken     ? "the security mode has changed"
            : unproven ? "what proves this domain has changed"
                       : "bidi was switched off";
    return f;
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
        s2s_in_rest(m, out, END_NO_MEMORY, true);
        return;
    }
    if (condition != NULL) {
        s2s_in_refuse(m, out, condition, text);
        return;
    }
    if (!version && !m->encrypted && mode_of(m, m->remote) == SECURITY_TLS_REQUIRED) {
        s2s_in_refuse(m, out, "policy-violation", "TLS is required and needs a version 1.0 stream");
        return;
    }
    if (m->encrypted && mode_of(m, m->remote) == SECURITY_NO_TLS) {
        if (m->direct_tls)
            s2s_in_refuse(m, out, "policy-violation", "TLS is switched off here");
        else /* since the handshake began */
            s2s_in_refuse(m, out, "reset", "the security mode has changed");
        return;
    }
    if (!check_identity(m, out))
        return;
    enum s2s_fate fate = m->authz.n > 0 ? fate_of(m, m->side, &text).fate : S2S_STAYS;
    if (fate != S2S_STAYS) { /* since it was proven by SASL */
        s2s_in_refuse(m, out, fate == S2S_DENIED ? "policy-violation" : "reset", text);
        return;
    }
    set_state(m, m->encrypted ? S2S_IN_SECURE : S2S_IN_CLEAR);
    if (s2s_in_authorised(m)) { /* the header after SASL */
        gw_timer_clear(out, TIMER_SETUP);
        gw_timer_set(out, TIMER_KEEPALIVE, m->side->cfg->timeouts.keepalive);
    }
    gw_log(out, LOG_INFO, "s2s.stream.open", KV_S("from", h->from), KV_S("to", h->to),
           KV_C("id", m->id), KV_S("version", h->version), KV_S("lang", h->lang),
           KV_C("encrypted", m->encrypted ? "yes" : "no"));
    if (version)
        send_features(m, out);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

bool s2s_in_authorised(const struct s2s_in *m)
{
    return authz_first(&m->authz, AUTHZ_VALID) != NULL;
}

static void on_starttls(struct s2s_in *m, uint64_t now, struct gw_actions *out)
{
    if (m->state != S2S_IN_CLEAR) {
        s2s_in_refuse(m, out, "policy-violation", "TLS is already there");
        return;
    }
    if (mode_of(m, m->remote) == SECURITY_NO_TLS && m->tls_offered) {
        s2s_in_refuse(m, out, "reset", "the security mode has changed");
        return;
    }
    if (mode_of(m, m->remote) == SECURITY_NO_TLS) {
        gw_send(out, "<failure xmlns='" NS_TLS "'/>" STREAM_CLOSE_TAG);
        gw_log(out, LOG_NOTICE, "s2s.refused", KV_C("reason", "starttls-in-no-tls-mode"));
        s2s_in_rest(m, out, END_TLS_REFUSED, false);
        return;
    }
    gw_send(out, "<proceed xmlns='" NS_TLS "'/>");
    if (s2s_in_authorised(m)) { /* it has to prove itself anew, and has as long as a stranger */
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
    if (!direct && m->state != S2S_IN_HANDSHAKE)
        return;
    set_state(m, S2S_IN_TLS_HEADER);
    const struct tls_peer *t = ev->u.tls;
    m->tls = t;
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

/* ---- SASL ------------------------------------------------------------------------------------ */

static void external_proven(struct s2s_in *m, uint64_t now, struct gw_actions *out)
{
    for (size_t i = m->authz.n; i-- > 0;) /* questions of the stream that ends here */
        if (m->authz.v[i].state != AUTHZ_VALID)
            authz_remove(&m->authz, &m->authz.v[i]);
    struct authz_pair *p = authz_add(&m->authz, str_c(m->local), str_c(m->remote));
    if (p == NULL) {
        s2s_in_rest(m, out, END_NO_MEMORY, true);
        return;
    }
    p->external = true;
    gw_send(out, "<success xmlns='" NS_SASL "'/>");
    gw_act(out, ACT_STREAM_RESET);
    s2s_in_prove(m, p, "external", now, out);
    s2s_in_watch(m, out);
    gw_timer_clear(out, TIMER_KEEPALIVE); /* until the new header is there, by a deadline */
    gw_timer_set(out, TIMER_SETUP, m->side->cfg->timeouts.auth);
    m->header_sent = false;
    set_state(m, S2S_IN_TLS_HEADER);
}

static void on_sasl(struct s2s_in *m, const struct sasl_element *e, uint64_t now,
                    struct gw_actions *out)
{
    switch (external_in(&m->external, e, external_refusal(m), m->remote, out)) {
    case EXTERNAL_GOES_ON:
        break;
    case EXTERNAL_PROVEN:
        external_proven(m, now, out);
        break;
    case EXTERNAL_ENOUGH:
        s2s_in_refuse(m, out, "policy-violation", "too many failed attempts to authenticate");
        break;
    }
}

/* ---- bidi ------------------------------------------------------------------------------------ */

/* It comes before authentication; later it changes nothing, and nothing is sent back. */
static void on_bidi(struct s2s_in *m, struct gw_actions *out)
{
    if (!m->bidi_offered) {
        s2s_in_refuse(m, out, "unsupported-stanza-type", "bidi is not offered on this stream");
        return;
    }
    m->bidi =
        m->bidi || (may_have_bidi(m, m->side) && !s2s_in_authorised(m) && !s2s_in_request_open(m));
    gw_log(out, m->bidi ? LOG_INFO : LOG_NOTICE, m->bidi ? "s2s.bidi" : "s2s.bidi.ignored",
           KV_C("remote", m->remote),
           KV_C("msg", m->bidi ? NULL : "it was asked for after authentication had begun"));
}

bool s2s_in_carries(const struct s2s_in *m, struct str local, struct str remote)
{
    const struct authz_pair *p = authz_find(&m->authz, local, remote);
    return m->state == S2S_IN_SECURE && m->bidi && p != NULL && p->state == AUTHZ_VALID;
}

/* ---- elements -------------------------------------------------------------------------------- */

static void on_stream_error(struct s2s_in *m, const struct nonza *z, uint64_t now,
                            struct gw_actions *out)
{
    struct str condition, text;
    stream_read_error(z, &condition, &text);
    gw_log(out, LOG_NOTICE, "s2s.error.received", KV_S("reason", condition), KV_S("msg", text));
    if (m->sent_ms != 0 && now - m->sent_ms < BIDI_RIGHT_AFTER_MS && bidi_objected(condition))
        m->bidi_broken = "it ended the stream right after a stanza had been sent back on it";
    if (m->state == S2S_IN_CLOSING) {
        s2s_in_rest(m, out, m->reason, false);
        return;
    }
    gw_send(out, STREAM_CLOSE_TAG);
    s2s_in_rest(m, out, END_STREAM_ERROR_RECEIVED, false);
}

static void on_nonza(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    const struct nonza *z = ev->u.nonza;
    struct dialback_element e = dialback_read(z);
    struct sasl_element sasl = sasl_read(z);
    if (nonza_is(z, NS_STREAM, "error")) {
        on_stream_error(m, z, ev->now_ms, out);
    } else if (m->state == S2S_IN_CLOSING) {
        return;
    } else if (nonza_is(z, NS_TLS, "starttls")) {
        on_starttls(m, ev->now_ms, out);
    } else if (sasl.kind != SASL_NOT) {
        on_sasl(m, &sasl, ev->now_ms, out);
    } else if (nonza_is(z, NS_BIDI, "bidi")) {
        on_bidi(m, out);
    } else if (e.kind == DIALBACK_NOT) {
        s2s_in_refuse(m, out, "unsupported-stanza-type",
                      "this element is not expected on this stream");
    } else if (e.type != DIALBACK_REQUEST) {
        gw_log(out, LOG_NOTICE, "dialback.unasked", KV_S("from", e.from), KV_S("to", e.to));
    } else if (e.kind == DIALBACK_RESULT) {
        s2s_in_result(m, &e, ev->now_ms, out);
    } else {
        s2s_in_verify(m, &e, out);
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
    if (!s2s_in_authorised(m)) {
        *text = "no domain pair has been authorised on this stream";
        return "not-authorized";
    }
    if (!side_serves(m->side, local)) {
        *text = "the stanza is for a domain that this server does not serve";
        return "host-unknown";
    }
    if (!arrival_proven(&m->authz, out)) {
        *text = "the stanza's domain pair has not been authorised on this stream";
        return "invalid-from";
    }
    return NULL;
}

static void on_stanza(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct arrival a;
    if (!arrival_read(&a, ev->u.stanza, out)) {
        s2s_in_refuse(m, out, "improper-addressing", "the stanza needs a valid from and to");
        return;
    }
    const char *text = NULL, *condition = stanza_refusal(m, out, &text);
    if (condition != NULL) {
        s2s_in_refuse(m, out, condition, text);
        return;
    }
    m->active_ms = ev->now_ms;
    arrival_pass(&a, ev->u.stanza, out);
}

/* ---- time, configuration, end ---------------------------------------------------------------- */

static void on_timer(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    switch (ev->u.timer) {
    case TIMER_SETUP:
        s2s_in_refuse(m, out, "connection-timeout", "not authorised in time");
        break;
    case TIMER_STATE:
        if (m->state == S2S_IN_CLOSING)
            s2s_in_rest(m, out, m->reason, false);
        break;
    case TIMER_ASKED:
        if (m->answered_verify && !s2s_in_authorised(m) && !s2s_in_request_open(m)) {
            gw_log(out, LOG_INFO, "s2s.dialback-only", KV_C("id", m->id));
            s2s_in_close(m, out, END_DIALBACK_ONLY, NULL, NULL);
        }
        break;
    case TIMER_KEEPALIVE:
        if (ev->now_ms - m->active_ms >= m->side->cfg->timeouts.idle) {
            s2s_in_close(m, out, END_IDLE, NULL, NULL);
        } else {
            gw_send(out, " ");
            gw_timer_set(out, TIMER_KEEPALIVE, m->side->cfg->timeouts.keepalive);
        }
        break;
    case GW_TIMER_COUNT:
        break;
    }
}

struct stream_fate s2s_in_fate(const struct s2s_in *m, const struct side *side)
{
    const char *text;
    if (m->state != S2S_IN_CLEAR && m->state != S2S_IN_SECURE && m->state != S2S_IN_CLOSING)
        return (struct stream_fate){.fate = S2S_STAYS}; /* the header will be checked */
    return fate_of(m, side, &text);
}

static void on_policy(struct s2s_in *m, struct gw_actions *out)
{
    m->authz.max = m->side->cfg->limits.pairs_per_stream;
    if (m->state != S2S_IN_CLEAR && m->state != S2S_IN_SECURE && m->state != S2S_IN_CLOSING)
        return;    /* the header will be checked against the new policy */
    if (m->proven) /* what was offered is not promised */
        m->proven = identity_proven(m->side->cfg, m->tls, str_c(m->remote), m->why);
    const char *text;
    enum s2s_fate fate = fate_of(m, m->side, &text).fate;
    if (fate == S2S_DENIED)
        s2s_in_refuse(m, out, "policy-violation", text);
    else if (fate == S2S_RENEWED && m->state != S2S_IN_CLOSING)
        s2s_in_close(m, out, END_DRAINED, "reset", text);
}

static void on_xml_error(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == S2S_IN_HANDSHAKE)
        s2s_in_rest(m, out, END_TLS_FAILED,
                    true); /* bytes in clear where TLS must begin: say nothing */
    else if (m->state == S2S_IN_CLOSING)
        s2s_in_rest(m, out, m->reason, false);
    else
        s2s_in_refuse(m, out, ev->u.error.condition, ev->u.error.text);
}

static void on_stream_close(struct s2s_in *m, struct gw_actions *out)
{
    if (m->state == S2S_IN_CLOSING) {
        s2s_in_rest(m, out, m->reason, false);
        return;
    }
    if (m->header_sent)
        gw_send(out, STREAM_CLOSE_TAG);
    if (m->answered_verify && !s2s_in_authorised(m))
        gw_log(out, LOG_INFO, "s2s.dialback-only", KV_C("id", m->id));
    s2s_in_rest(m, out,
                m->answered_verify && !s2s_in_authorised(m) ? END_DIALBACK_ONLY : END_PEER_CLOSED,
                false);
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
        s2s_in_rest(m, out, END_TLS_FAILED, true);
        break;
    case EV_VERDICT:
        if (working)
            s2s_in_verdict(m, ev, out);
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
        s2s_in_close(m, out, END_DRAINED, "system-shutdown", "this server is stopping");
        break;
    case EV_LOST:
        s2s_in_rest(m, out, m->state == S2S_IN_CLOSING ? m->reason : END_LOST, true);
        break;
    case EV_WANT_PAIR:
    case EV_WANT_VERIFY:
        break; /* for outgoing streams */
    }
}
