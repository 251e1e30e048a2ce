/* Dialback on an incoming stream: the receiving role of XEP-0220 (2.1) and the authoritative one
 * (2.2). */
#include "gateway/proto/s2s_in_priv.h"

enum { ASKED_US_LINGER_MS = 3000, ANSWER_MARGIN_MS = 2000 };

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

bool s2s_in_request_open(const struct s2s_in *m)
{
    return authz_first(&m->authz, AUTHZ_ASKED) || authz_first(&m->authz, AUTHZ_WAITING);
}

void s2s_in_watch(struct s2s_in *m, struct gw_actions *out)
{
    if (m->answered_verify && !s2s_in_authorised(m) && !s2s_in_request_open(m))
        gw_timer_set(out, TIMER_ASKED, ASKED_US_LINGER_MS);
    else
        gw_timer_clear(out, TIMER_ASKED);
}

/* The answer must be there in time for us to pass it on before the stream's own deadline. */
static uint64_t time_to_ask(const struct s2s_in *m, uint64_t now)
{
    uint64_t within = m->side->cfg->dialback.timeout;
    if (s2s_in_authorised(m))
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
    if (!(s2s_in_auth(m, remote) & POLICY_AUTH_DIALBACK))
        return "not-authorized";
    enum policy_verdict verdict = side_pair(m->side, local, remote, WAY_IN).verdict;
    if (verdict != POLICY_ALLOW) {
        s2s_in_tell_refused(local, remote, out);
        return verdict == POLICY_OFF ? "policy-violation" : "not-allowed";
    }
    if (!m->encrypted && side_security(m->side, remote) == SECURITY_TLS_REQUIRED)
        return "policy-violation";
    char why[IDENTITY_WHY]; /* the header may have named another domain, or none */
    if (m->side->link == NULL && !identity_tls_enough(m->side->cfg, m->tls, remote, why))
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

void s2s_in_prove(struct s2s_in *m, struct authz_pair *p, const char *mech, uint64_t now,
                  struct gw_actions *out)
{
    bool first = !s2s_in_authorised(m);
    p->state = AUTHZ_VALID;
    p->since = now;
    m->active_ms = now;
    if (first) {
        gw_timer_clear(out, TIMER_SETUP);
        gw_timer_set(out, TIMER_KEEPALIVE, m->side->cfg->timeouts.keepalive);
        gw_act(out, ACT_LIMITS);
    }
    struct gw_action *act = gw_act(out, ACT_PAIR);
    act->u.pair.local = str_c(p->local);
    act->u.pair.remote = str_c(p->remote);
    act->u.pair.result = PAIR_VALID;
    gw_log(out, LOG_INFO, "s2s.state", KV_C("local", p->local), KV_C("remote", p->remote),
           KV_C("from", "PENDING"), KV_C("to", "CONNECTED"), KV_C("mech", mech));
}

static void result_valid(struct s2s_in *m, struct authz_pair *p, const char *mech, uint64_t now,
                         struct gw_actions *out)
{
    answer_result(out, str_c(p->from), str_c(p->to), "valid", NULL);
    log_answer(out, str_c(p->from), str_c(p->to), "valid", NULL);
    s2s_in_prove(m, p, mech, now, out);
}

/* What makes a claim true without asking anybody; NULL: nothing does. */
static const char *trusted_by(const struct s2s_in *m)
{
    if (m->trusted_address)
        return "address";
    return m->judged && trust_ok(m->verdict) ? "certificate" : NULL;
}

void s2s_in_result(struct s2s_in *m, const struct dialback_element *e, uint64_t now,
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
        result_valid(m, p, trusted_by(m), now, out);
    else if (authz_count(&m->authz, AUTHZ_ASKED) < m->side->cfg->limits.pending_dialbacks)
        ask(m, p, str_c(p->key), now, out);
    s2s_in_watch(m, out);
}

static void ask_next(struct s2s_in *m, uint64_t now, struct gw_actions *out)
{
    struct authz_pair *p = authz_first(&m->authz, AUTHZ_WAITING);
    if (p == NULL || authz_count(&m->authz, AUTHZ_ASKED) >= m->side->cfg->limits.pending_dialbacks)
        return;
    ask(m, p, str_c(p->key), now, out);
}

void s2s_in_verdict(struct s2s_in *m, const struct gw_event *ev, struct gw_actions *out)
{
    struct authz_pair *p = authz_by_ticket(&m->authz, ev->u.verdict.ticket);
    enum verdict v = ev->u.verdict.verdict;
    if (p == NULL)
        return; /* asked before STARTTLS, or answered by our own deadline */
    if (v == VERDICT_VALID) {
        result_valid(m, p, "dialback", ev->now_ms, out);
        ask_next(m, ev->now_ms, out);
        s2s_in_watch(m, out);
        return;
    }
    bool end = v == VERDICT_INVALID && !s2s_in_authorised(m);
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
        s2s_in_rest(m, out, END_STREAM_ERROR_SENT, false);
    }
    authz_remove(&m->authz, p);
    if (end)
        return;
    ask_next(m, ev->now_ms, out);
    s2s_in_watch(m, out);
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

void s2s_in_verify(struct s2s_in *m, const struct dialback_element *e, struct gw_actions *out)
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
    if (condition == NULL) {
        struct gw_action *act = gw_act(out, ACT_VOUCHED);
        act->u.vouched.request =
            (struct db_request){str_c(out->local.ascii), str_c(out->remote.ascii), e->id, STR_NONE};
        act->u.vouched.good = good;
    }
    m->answered_verify = true;
    s2s_in_watch(m, out);
}
