/* From the first header of an outgoing stream to READY: TLS, who the peer is, who we are. */
#include "gateway/proto/s2s_out_priv.h"

#include <stdio.h>

#include "core/base/mem.h"
#include "core/xml/ns.h"
#include "gateway/proto/bidi.h"
#include "gateway/proto/judge.h"
#include "gateway/proto/sasl.h"

static void send_header(struct s2s_out *m, struct gw_actions *out)
{
    struct stream_open open = {str_c(m->local), str_c(m->remote), STR_NONE, true};
    size_t begin = gw_send_begin(out);
    stream_write_header(&out->text, &open);
    gw_send_end(out, begin);
}

void s2s_out_opened(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    m->active_ms = ev->now_ms;
    gw_timer_set(out, TIMER_SETUP, m->side->cfg->timeouts.auth);
    if (!m->direct_tls) {
        send_header(m, out);
    } else if (s2s_out_mode(m) == SECURITY_NO_TLS) {
        s2s_out_rest_because(m, out, END_TLS_UNWANTED,
                             STR("this target speaks TLS only, which is switched off here"));
    } else {
        s2s_out_set_state(m, S2S_OUT_HANDSHAKE);
        gw_act(out, ACT_TLS_START);
    }
}

/* ---- who the peer is ------------------------------------------------------------------------- */

bool s2s_out_dialback_counts(const struct s2s_out *m)
{
    return m->side->link != NULL ||
           policy_auth(m->side->cfg, str_c(m->remote)) & POLICY_AUTH_DIALBACK;
}

bool s2s_out_unproven(const struct s2s_out *m, const struct side *side)
{
    char why[IDENTITY_WHY];
    struct str remote = str_c(m->remote);
    if (side->link != NULL)
        return false;
    bool dialback = policy_auth(side->cfg, remote) & POLICY_AUTH_DIALBACK;
    if (m->tls == NULL)
        return m->state == S2S_OUT_READY && !dialback;
    enum identity id = identity_of_target(side->cfg, m->tls, remote, m->target, why);
    bool proven = id == IDENTITY_PROVEN || id == IDENTITY_PROVEN_DANE;
    return !identity_tls_enough(side->cfg, m->tls, remote, why) ||
           !(proven || (id == IDENTITY_UNPROVEN && dialback));
}

bool s2s_out_identity_ok(struct s2s_out *m)
{
    const struct gateway_config *c = m->side->cfg;
    struct str remote = str_c(m->remote);
    m->why[0] = '\0';
    if (m->side->link != NULL || m->tls == NULL)
        return true;
    if (!identity_tls_enough(c, m->tls, remote, m->why))
        return false;
    enum identity id = identity_of_target(c, m->tls, remote, m->target, m->why);
    m->by_dane = id == IDENTITY_PROVEN_DANE;
    m->proven = m->by_dane || id == IDENTITY_PROVEN;
    return m->proven || (id == IDENTITY_UNPROVEN && s2s_out_dialback_counts(m));
}

/* To a server that the rules do not accept not even a header goes. */
static bool identity_accepted(struct s2s_out *m, struct gw_actions *out)
{
    bool ok = s2s_out_identity_ok(m);
    gw_log(out, ok ? LOG_INFO : LOG_NOTICE, "s2s.identity", KV_C("remote", m->remote),
           KV_C("certificate", m->proven ? "proven" : "unproven"),
           KV_C("by", m->by_dane ? "dane" : NULL), KV_C("msg", m->why[0] ? m->why : NULL));
    if (!ok)
        s2s_out_rest_because(m, out, END_UNTRUSTED, str_c(m->why));
    return ok;
}

/* The same towards the inside, by what the link trusts. */
static bool certificate_accepted(struct s2s_out *m, struct gw_actions *out)
{
    m->verdict = judge_certificate(m->trust, m->tls, out);
    m->judged = true;
    bool ok = trust_ok(m->verdict);
    if (!ok)
        s2s_out_rest_because(m, out, END_UNTRUSTED, str_c(trust_reason_text(m->verdict)));
    return ok;
}

void s2s_out_tls_up(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state != S2S_OUT_HANDSHAKE)
        return;
    s2s_out_set_state(m, S2S_OUT_TLS_HEADER);
    const struct tls_peer *t = ev->u.tls;
    m->tls = t;
    m->encrypted = true;
    m->peer_max_bytes = m->peer_idle_ms = 0; /* who told them in clear is not known */
    gw_log(out, LOG_INFO, "tls.up", KV_C("tls", t->protocol), KV_C("cipher", t->cipher),
           KV_C("resumed", t->resumed ? "yes" : NULL),
           KV_C("certificate", !t->has_certificate ? "none"
                               : t->chain_ok       ? "trusted"
                                                   : "untrusted"),
           KV_S("msg", t->why[0] ? str_c(t->why) : STR_NONE));
    if (m->trust != NULL && !certificate_accepted(m, out))
        return;
    if (m->side->link == NULL && !identity_accepted(m, out))
        return;
    m->reset = s2s_out_mode(m) == SECURITY_NO_TLS; /* since the handshake began */
    if (m->reset)
        s2s_out_rest(m, out, END_DRAINED, false);
    else
        send_header(m, out);
}

/* ---- the stream's end of set-up -------------------------------------------------------------- */

/* Nothing more is to be negotiated. */
static void settle(struct s2s_out *m, uint64_t now, struct gw_actions *out)
{
    if (!m->authenticated && !m->can_dialback)
        s2s_out_give_up(m, out, END_NO_DIALBACK,
                        m->external_refused   ? m->why
                        : m->external_offered ? "the peer supports no dialback, and there is no "
                                                "certificate of ours to show"
                                              : "the peer supports no dialback");
    else if (!m->encrypted && !s2s_out_dialback_counts(m))
        s2s_out_give_up(m, out, END_TLS_NOT_OFFERED,
                        "this peer has to prove itself by its certificate, and there is no TLS");
    else
        s2s_out_become_ready(m, now, out);
}

void s2s_out_header(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    const struct stream_header *h = ev->u.header;
    if (!authz_keep(&m->id, h->id)) {
        s2s_out_rest(m, out, END_NO_MEMORY, true);
        return;
    }
    if (h->id.n == 0) {
        mem_free(m->id);
        m->id = NULL;
    }
    m->dialback_declared = m->can_dialback = h->declares_dialback;
    gw_log(out, LOG_INFO, "s2s.stream.open", KV_S("from", h->from), KV_S("to", h->to),
           KV_S("id", h->id), KV_S("version", h->version), KV_S("lang", h->lang),
           KV_C("encrypted", m->encrypted ? "yes" : "no"));
    if (stream_version_1(h->version))
        s2s_out_set_state(m, m->encrypted ? S2S_OUT_TLS_FEATURES : S2S_OUT_FEATURES);
    else if (!m->encrypted && s2s_out_mode(m) == SECURITY_TLS_REQUIRED)
        s2s_out_give_up(m, out, END_TLS_NOT_OFFERED,
                        "TLS is required here; the peer's stream is older than"
                        " version 1.0 and cannot offer it");
    else
        settle(m, ev->now_ms, out);
}

/* ---- features -------------------------------------------------------------------------------- */

/* EXTERNAL is worth a round trip when there is something to send in the name of the header, and a
 * certificate to show. */
static bool wants_external(const struct s2s_out *m)
{
    return m->side->link == NULL && m->encrypted && m->external_offered && m->has_certificate &&
           m->wants_external && !m->authenticated;
}

static void send_auth(struct s2s_out *m, struct gw_actions *out)
{
    s2s_out_set_state(m, S2S_OUT_AUTH);
    size_t begin = gw_send_begin(out);
    sasl_write_auth(&out->text, str_c(m->local));
    gw_send_end(out, begin);
    gw_log(out, LOG_INFO, "sasl.sent", KV_C("mechanism", "EXTERNAL"), KV_C("authzid", m->local));
}

/* Before we prove ourselves, by whichever way. */
static void ask_for_bidi(struct s2s_out *m, struct gw_actions *out)
{
    if (m->bidi || m->authenticated || !m->wants_bidi ||
        !bidi_allowed(m->side, m->encrypted, m->remote))
        return;
    m->bidi = true;
    gw_send(out, "<bidi xmlns='" NS_BIDI "'/>");
    gw_log(out, LOG_INFO, "s2s.bidi", KV_C("remote", m->remote));
}

static void on_features(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct stream_features f;
    if (!stream_read_features(ev->u.nonza, &f)) {
        s2s_out_refuse(m, out, "unsupported-stanza-type", "stream features were expected");
        return;
    }
    enum security_mode mode = s2s_out_mode(m);
    m->can_dialback = f.dialback || m->dialback_declared;
    m->external_offered = f.external;
    m->errors_offered = f.dialback && f.dialback_errors;
    m->bidi_offered = f.bidi;
    if (f.max_bytes > 0)
        m->peer_max_bytes = f.max_bytes;
    if (f.idle_ms > 0)
        m->peer_idle_ms = f.idle_ms;
    if (f.bidi)
        ask_for_bidi(m, out);
    if (!m->encrypted && f.starttls && mode != SECURITY_NO_TLS) {
        s2s_out_set_state(m, S2S_OUT_STARTTLS);
        gw_send(out, "<starttls xmlns='" NS_TLS "'/>");
    } else if (!m->encrypted && f.starttls_required) {
        s2s_out_give_up(m, out, END_TLS_UNWANTED,
                        "the peer requires TLS, which is switched off here");
    } else if (!m->encrypted && mode == SECURITY_TLS_REQUIRED) {
        s2s_out_give_up(m, out, END_TLS_NOT_OFFERED,
                        "TLS is required here, the peer does not offer it");
    } else if (wants_external(m)) {
        send_auth(m, out);
    } else {
        settle(m, ev->now_ms, out);
    }
}

static void on_starttls_answer(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (nonza_is(ev->u.nonza, NS_TLS, "proceed")) {
        s2s_out_set_state(m, S2S_OUT_HANDSHAKE);
        gw_act(out, ACT_TLS_START);
    } else if (nonza_is(ev->u.nonza, NS_TLS, "failure")) {
        s2s_out_give_up(m, out, END_TLS_REFUSED, "the peer offered TLS and then refused it");
    } else {
        s2s_out_refuse(m, out, "unsupported-stanza-type", "an answer to starttls was expected");
    }
}

/* ---- who we are ------------------------------------------------------------------------------ */

static void on_success(struct s2s_out *m, uint64_t now, struct gw_actions *out)
{
    struct str local = str_c(m->local), remote = str_c(m->remote);
    struct authz_pair *p = authz_find(&m->authz, local, remote);
    p = p != NULL ? p : authz_add(&m->authz, local, remote);
    if (p == NULL) {
        s2s_out_rest(m, out, END_NO_MEMORY, true);
        return;
    }
    p->external = true;
    m->authenticated = true;
    gw_act(out, ACT_STREAM_RESET);
    s2s_out_prove(m, p, now, out);
    s2s_out_set_state(m, S2S_OUT_TLS_HEADER);
    send_header(m, out);
}

/* Dialback on the same stream is as good; a peer that wants nothing but EXTERNAL may yet take
 * another attempt, when the certificate was changed. */
static void on_failure(struct s2s_out *m, const struct sasl_element *e, uint64_t now,
                       struct gw_actions *out)
{
    m->external_refused = true;
    snprintf(m->why, sizeof m->why, "the peer does not accept our certificate: %.*s%s%.*s",
             STR_ARG(e->condition), e->text.n > 0 ? ": " : "", STR_ARG(e->text));
    gw_log(out, LOG_NOTICE, "sasl.failed", KV_S("reason", e->condition), KV_S("msg", e->text));
    settle(m, now, out);
}

static void on_sasl_answer(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct sasl_element e = sasl_read(ev->u.nonza);
    size_t begin;
    switch (e.kind) {
    case SASL_CHALLENGE:
        begin = gw_send_begin(out);
        sasl_write_response(&out->text, str_c(m->local));
        gw_send_end(out, begin);
        break;
    case SASL_SUCCESS:
        on_success(m, ev->now_ms, out);
        break;
    case SASL_FAILURE:
        on_failure(m, &e, ev->now_ms, out);
        break;
    case SASL_NOT:
    case SASL_AUTH:
    case SASL_RESPONSE:
    case SASL_ABORT:
    case SASL_UNKNOWN:
        s2s_out_refuse(m, out, "unsupported-stanza-type", "an answer to auth was expected");
        break;
    }
}

void s2s_out_setup_nonza(struct s2s_out *m, const struct gw_event *ev, struct gw_actions *out)
{
    if (m->state == S2S_OUT_STARTTLS)
        on_starttls_answer(m, ev, out);
    else if (m->state == S2S_OUT_AUTH)
        on_sasl_answer(m, ev, out);
    else
        on_features(m, ev, out);
}
