#include "tests/fake/stage.h"

#include <stdio.h>
#include <stdlib.h>

static machine_edges taken[2][STAGE_EDGES];

/* ---- writing down ---------------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3))) line(struct stage *s, const char *fmt, ...)
{
    if (s->quiet)
        return;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *text = malloc((size_t)n + 1); /* not mem_alloc: it may be told to fail */
    if (text == NULL || s->nlines == STAGE_LINES)
        abort();
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    s->lines[s->nlines++] = text;
}

void stage_forget(struct stage *s)
{
    while (s->nlines > 0)
        free(s->lines[--s->nlines]);
}

static void must(struct stage *s, bool holds, const char *what)
{
    if (!holds && s->wrong == NULL)
        s->wrong = what;
}

static bool ends_with(struct str s, const char *tail)
{
    size_t n = strlen(tail);
    return s.n >= n && memcmp(s.p + s.n - n, tail, n) == 0;
}

/* ---- two sides ------------------------------------------------------------------------------- */

static const struct key_hash known_keys[] = {{KEY_HASH_SHA256, {1, 2, 3}}};
static const struct link_trust trust = {
    .auth = LINK_AUTH_TLS, .authlist = known_keys, .nauthlist = 1};

const struct stage_side stage_sides[STAGE_SIDES] = {
    {.link = NULL},
    {.link = "inside"},
    {.link = "inside", .trusted_address = true},
    {.link = "inside", .certificates = true},
    {.link = "inside", .trusted_address = true, .certificates = true},
};

const struct stage_side *stage_side_of(unsigned char first)
{
    return &stage_sides[first & 0x40 ? 1 + (first & 0x3f) / 3 % (STAGE_SIDES - 1) : 0];
}

static bool inside(const struct stage *s)
{
    return s->side.link != NULL;
}

static void look(struct stage *s, const struct gateway_config *cfg)
{
    s->cfg = s->side.cfg = cfg;
    for (size_t i = 0; s->where.link != NULL && i < cfg->nlinks; i++)
        if (strcmp(cfg->links[i].name, s->where.link) == 0) {
            s->link = cfg->links[i];
            s->side.link = &s->link;
        }
    if ((s->where.link != NULL) != inside(s))
        abort();
    if (s->where.certificates)
        s->link.auth = LINK_AUTH_TLS;
}

const char *stage_turn(const struct stage *s, const char *text)
{
    static const char *const names[] = {"alpha.lab", "beta.lab", "gamma.lab", "delta.lab"};
    static char turned[4096];
    size_t n = 0;
    while (inside(s) && *text != '\0') {
        size_t i = 0;
        while (i < 4 && strncmp(text, names[i], strlen(names[i])) != 0)
            i++;
        const char *put = i < 4 ? names[i ^ 1] : text;
        size_t len = i < 4 ? strlen(put) : 1;
        if (n + len >= sizeof turned)
            abort();
        memcpy(turned + n, put, len);
        n += len;
        text += i < 4 ? strlen(names[i]) : 1;
    }
    turned[n] = '\0';
    return inside(s) ? turned : text;
}

/* Whom a proven pair may name: one of us and one of them, and which end is whose. */
static bool right_way(const struct stage *s, struct str local, struct str remote)
{
    bool ours = gateway_config_domain(s->cfg, local) != NULL;
    bool theirs = gateway_config_domain(s->cfg, remote) != NULL;
    return ours == !inside(s) && theirs == inside(s);
}

static void check_pairs(struct stage *s, const struct authz *a)
{
    for (size_t i = 0; i < a->n; i++)
        must(s, right_way(s, str_c(a->v[i].local), str_c(a->v[i].remote)),
             "a pair has one end here and one there");
}

/* ---- what must hold after every step --------------------------------------------------------- */

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool armed(const struct stage *s, enum gw_timer t)
{
    return s->due[t] != 0;
}

static bool verify_sent(const struct stage *s)
{
    return s->out.verify.count > 0 && s->out.state == S2S_OUT_READY; /* some are sent at once */
}

/* Inside, where dialback is not needed, nobody is asked; where a certificate is, nothing goes
 * without. */
static void check_trust(struct stage *s, bool proven)
{
    const struct s2s_in *m = &s->in;
    bool certified = m->encrypted && m->judged && trust_ok(m->verdict);
    if (s->where.trusted_address || s->where.certificates)
        must(s, s->ntickets == 0, "nobody is asked about a peer that needs no dialback");
    if (s->where.certificates && !s->where.trusted_address)
        must(s, !proven || certified, "where certificates decide, one proves every pair");
    must(s, !m->judged || trust_ok(m->verdict), "a refused certificate ends the stream");
}

static void check_in(struct stage *s)
{
    const struct s2s_in *m = &s->in;
    bool proven = authz_first(&m->authz, AUTHZ_VALID) != NULL;
    check_trust(s, proven);
    must(s, !m->bidi || (m->encrypted && !inside(s)), "bidi is for the world, behind TLS");
    check_pairs(s, &m->authz);
    if (m->state == S2S_IN_CLOSING) {
        must(s,
             armed(s, TIMER_STATE) && !armed(s, TIMER_SETUP) && !armed(s, TIMER_KEEPALIVE) &&
                 !armed(s, TIMER_ASKED),
             "CLOSING has its deadline and no other timer");
        return;
    }
    must(s, !armed(s, TIMER_STATE), "only CLOSING has a deadline of its own");
    bool working = proven && m->state != S2S_IN_TLS_HEADER; /* there after SASL, too */
    must(s,
         working ? armed(s, TIMER_KEEPALIVE) && !armed(s, TIMER_SETUP)
                 : armed(s, TIMER_SETUP) && !armed(s, TIMER_KEEPALIVE),
         "a stream is either proven and kept alive or has a deadline for proving itself");
    must(s, !armed(s, TIMER_ASKED) || (!proven && m->answered_verify),
         "only a stream that merely asked us lingers");
    must(s,
         authz_count(&m->authz, AUTHZ_ASKED) <=
                 larger(s->asked_before, s->cfg->limits.pending_dialbacks) &&
             m->authz.n <= larger(s->pairs_before, s->cfg->limits.pairs_per_stream),
         "the ledger keeps its limits");
}

/* A pair was wanted of a peer that takes no more. */
static bool hopeless(const struct s2s_out *m)
{
    return !m->can_dialback && authz_first(&m->authz, AUTHZ_WAITING) != NULL;
}

static void check_out(struct stage *s)
{
    const struct s2s_out *m = &s->out;
    bool ready = m->state == S2S_OUT_READY;
    must(s, !ready || !s->where.certificates || (m->encrypted && m->judged && trust_ok(m->verdict)),
         "where certificates decide, nothing is ready without");
    must(s, !armed(s, TIMER_ASKED), "TIMER_ASKED is not for outgoing streams");
    if (m->state == S2S_OUT_CLOSING) {
        must(s, armed(s, TIMER_STATE) && !armed(s, TIMER_SETUP) && !armed(s, TIMER_KEEPALIVE),
             "CLOSING has its deadline and no other timer");
        return;
    }
    check_pairs(s, &m->authz);
    must(s, armed(s, TIMER_SETUP) == !ready && armed(s, TIMER_KEEPALIVE) == ready,
         "set-up has a deadline, a ready stream is kept alive");
    must(s,
         armed(s, TIMER_STATE) == (authz_first(&m->authz, AUTHZ_ASKED) != NULL || verify_sent(s) ||
                                   (ready && hopeless(m))),
         "what was asked has a deadline, and only that");
    must(s,
         ready || (authz_first(&m->authz, AUTHZ_ASKED) == NULL &&
                   authz_count(&m->authz, AUTHZ_VALID) == m->authenticated),
         "nothing is asked or proven by dialback before READY");
    must(s, !m->authenticated || m->encrypted, "EXTERNAL needs TLS");
    must(s, !m->bidi || (m->encrypted && !inside(s)), "bidi is for the world, behind TLS");
}

static void check(struct stage *s, unsigned before, bool overflow)
{
    unsigned after = stage_state(s);
    const machine_edges *edges = s->outgoing ? s2s_out_edges : s2s_in_edges;
    must(s, before == after || machine_edge_ok(edges, before, after), "an edge of the table");
    if (before != after)
        taken[s->outgoing][before] |= (machine_edges)(1u << after);
    bool resting = after == (s->outgoing ? (unsigned)S2S_OUT_RESTING : S2S_IN_RESTING);
    must(s, resting == s->over || overflow, "RESTING and CLOSE go together");
    if (s->over)
        return;
    if (s->outgoing)
        check_out(s);
    else
        check_in(s);
}

/* ---- actions --------------------------------------------------------------------------------- */

static void deliver(struct stage *s, const struct gw_action *a)
{
    struct str local = a->u.pair.local, remote = a->u.pair.remote;
    const struct authz *table = s->outgoing ? &s->out.authz : &s->in.authz;
    const struct authz_pair *p = authz_find(table, local, remote);
    must(s, p != NULL && p->state == AUTHZ_VALID,
         "only a pair that is valid on this stream delivers");
    must(s, !s->outgoing || s->out.bidi, "an outgoing stream delivers only with bidi");
    line(s, "DELIVER %.*s %.*s", STR_ARG(local), STR_ARG(remote));
}

static void sent(struct stage *s, struct str text)
{
    must(s, !s->handshaking, "nothing is said in clear while TLS is being set up");
    must(s, !s->tag_sent, "nothing is said after our closing tag");
    s->tag_sent = ends_with(text, STREAM_CLOSE_TAG);
    line(s, "SEND %.*s", STR_ARG(text));
}

static void start_tls(struct stage *s)
{
    line(s, "TLS_START");
    s->handshaking = true;
    s->deaf = !framer_restart(s->framer);
}

static void ask(struct stage *s, const struct gw_action *a)
{
    const struct db_request *q = &a->u.ask.request;
    must(s, a->u.ask.within_ms > 0, "a question has time to be answered");
    s->asked_within = a->u.ask.within_ms;
    if (s->ntickets < STAGE_TICKETS)
        s->tickets[s->ntickets++] = a->u.ask.ticket;
    line(s, "ASK %.*s %.*s %.*s %.*s", STR_ARG(q->local), STR_ARG(q->remote), STR_ARG(q->stream_id),
         STR_ARG(q->key));
}

static void pair(struct stage *s, const struct gw_action *a)
{
    static const char *const results[] = {"valid", "invalid", "error", "alone"};
    line(s, "PAIR %.*s %.*s %s%s%.*s", STR_ARG(a->u.pair.local), STR_ARG(a->u.pair.remote),
         results[a->u.pair.result], a->u.pair.result == PAIR_ERROR ? " " : "",
         a->u.pair.result == PAIR_ERROR ? (int)a->u.pair.text.n : 0,
         a->u.pair.text.p ? a->u.pair.text.p : "");
}

static void closed(struct stage *s, const struct gw_action *a)
{
    s->over = true;
    memset(s->due, 0, sizeof s->due);
    line(s, "CLOSE %s%s", end_reason_name(a->u.close.reason), a->u.close.abort ? " abort" : "");
}

static void carry_out(struct stage *s, const struct gw_actions *all, const struct gw_action *a)
{
    must(s, !s->over, "CLOSE is the last action");
    switch (a->kind) {
    case ACT_SEND:
        sent(s, gw_text(all, a));
        break;
    case ACT_STREAM_RESET:
        framer_restart(s->framer);
        break;
    case ACT_TLS_START:
        start_tls(s);
        break;
    case ACT_LIMITS:
        framer_set_limits(s->framer, &framer_limits_default);
        break;
    case ACT_TIMER_SET:
        s->due[a->u.timer.id] = s->fake.now + a->u.timer.ms;
        break;
    case ACT_TIMER_CLEAR:
        s->due[a->u.timer.id] = 0;
        break;
    case ACT_DELIVER:
        deliver(s, a);
        break;
    case ACT_BOUNCE:
        line(s, "BOUNCE %s %s", a->u.bounce.type, a->u.bounce.condition);
        break;
    case ACT_DROP:
        line(s, "DROP");
        break;
    case ACT_UNDELIVERED:
        must(s, false, "only links have stanzas that come back");
        break;
    case ACT_ASK:
        ask(s, a);
        break;
    case ACT_ANSWERED:
        line(s, "ANSWERED %.*s %.*s %s", STR_ARG(a->u.answered.request.local),
             STR_ARG(a->u.answered.request.stream_id), verdict_name(a->u.answered.verdict));
        break;
    case ACT_VOUCHED:
        line(s, "VOUCHED %.*s %.*s %s", STR_ARG(a->u.vouched.request.local),
             STR_ARG(a->u.vouched.request.stream_id), a->u.vouched.good ? "valid" : "invalid");
        break;
    case ACT_READY:
        line(s, "READY");
        break;
    case ACT_PAIR:
        pair(s, a);
        break;
    case ACT_REFUSED: /* what is sent says it */
        break;
    case ACT_LOG:
        must(s, a->u.log.event != NULL && a->u.log.n <= GW_ACTION_KV, "a log line is well formed");
        break;
    case ACT_CLOSE:
        closed(s, a);
        break;
    }
}

void stage_event(struct stage *s, struct gw_event ev)
{
    struct gw_actions acts;
    unsigned before = stage_state(s);
    bool was_over = s->over;
    if (s->overflowed)
        return; /* the session ended without the machine's doing */
    gw_actions_init(&acts);
    ev.now_ms = s->fake.now;
    if (s->outgoing)
        s2s_out_step(&s->out, &ev, &acts);
    else
        s2s_in_step(&s->in, &ev, &acts);
    must(s, !was_over || acts.n == 0, "after CLOSE nothing");
    for (unsigned i = 0; i < acts.n; i++)
        carry_out(s, &acts, &acts.v[i]);
    if (acts.overflow && !s->over)
        s->over = s->overflowed = true, line(s, "OVERFLOW");
    check(s, before, acts.overflow);
    gw_actions_free(&acts);
}

/* ---- what comes from outside ----------------------------------------------------------------- */

static void refusal(struct stage *s, struct framer_error e)
{
    s->deaf = true;
    stage_event(s, (struct gw_event){.kind = EV_XML_ERROR, .u.error = e});
}

static void read_events(struct stage *s)
{
    static const enum gw_ev kinds[] = {[FRAMER_STREAM_OPEN] = EV_STREAM_OPEN,
                                       [FRAMER_NONZA] = EV_NONZA,
                                       [FRAMER_STANZA] = EV_STANZA,
                                       [FRAMER_STREAM_CLOSE] = EV_STREAM_CLOSE};
    struct framer_event fe;
    enum framer_result r = FRAMER_EVENT;
    while (!s->over && !s->deaf && !s->handshaking &&
           (r = framer_next(s->framer, &fe)) == FRAMER_EVENT) {
        struct gw_event ev = {.kind = kinds[fe.kind]};
        if (fe.kind == FRAMER_STREAM_OPEN)
            ev.u.header = fe.header;
        else if (fe.kind == FRAMER_NONZA)
            ev.u.nonza = fe.nonza;
        else if (fe.kind == FRAMER_STANZA)
            ev.u.stanza = &fe.stanza;
        stage_event(s, ev);
    }
    if (s->over || s->handshaking) {
        if (!s->over && s->deaf) /* bytes in clear behind <starttls/> or <proceed/> */
            refusal(s, (struct framer_error){"policy-violation", "bytes in clear"});
        return;
    }
    if (r == FRAMER_ERROR)
        refusal(s, framer_error(s->framer));
}

void stage_peer(struct stage *s, struct str bytes, size_t piece)
{
    piece = piece ? piece : bytes.n;
    while (bytes.n > 0 && !s->over) {
        size_t n = bytes.n < piece ? bytes.n : piece;
        if (s->handshaking)
            stage_kind(s, EV_TLS_FAILED, "no TLS record");
        else if (!s->deaf && !framer_feed(s->framer, (struct str){bytes.p, n}))
            refusal(s, (struct framer_error){"resource-constraint", "out of memory"});
        else
            read_events(s);
        bytes = (struct str){bytes.p + n, bytes.n - n};
    }
}

void stage_kind(struct stage *s, enum gw_ev kind, const char *text)
{
    stage_event(s, (struct gw_event){.kind = kind, .u.text = str_c(text)});
}

void stage_tls_up_as(struct stage *s, enum stage_cert cert, const char *name, const char *version)
{
    struct tls_peer *t = &s->tls;
    *t = (struct tls_peer){.cipher = "TLS_AES_128_GCM_SHA256"};
    str_copy(t->protocol, sizeof t->protocol, str_c(version));
    t->has_certificate = cert != STAGE_CERT_NONE;
    t->chain_ok = cert == STAGE_CERT_TRUSTED;
    t->in_time = t->has_certificate && cert != STAGE_CERT_EXPIRED;
    t->self_signed = cert == STAGE_CERT_KNOWN || cert == STAGE_CERT_UNKNOWN;
    if (cert == STAGE_CERT_KNOWN || t->chain_ok)
        memcpy(t->key_sha256, known_keys[0].bytes, sizeof t->key_sha256);
    str_copy(s->name_text, sizeof s->name_text, str_c(name));
    s->name = (struct tls_name){TLS_NAME_DNS, s->name_text};
    t->names = &s->name;
    t->nnames = t->has_certificate;
    if (cert == STAGE_CERT_EXPIRED || t->self_signed)
        snprintf(t->why, sizeof t->why, t->self_signed ? "self-signed" : "expired on 2026-01-02");
    s->handshaking = false;
    stage_event(s, (struct gw_event){.kind = EV_TLS_UP, .u.tls = t});
}

void stage_tls_up(struct stage *s, enum stage_cert cert)
{
    stage_tls_up_as(s, cert, s->side.link != NULL ? "gamma.lab" : "beta.lab", "TLSv1.3");
}

void stage_want_pair(struct stage *s, const char *local)
{
    stage_want_guest(s, local, "");
}

void stage_want_guest(struct stage *s, const char *local, const char *remote)
{
    struct gw_event ev = {.kind = EV_WANT_PAIR, .u.pair = {str_c(local), str_c(remote)}};
    stage_event(s, ev);
}

void stage_want_verify(struct stage *s, const char *local, const char *id, const char *key)
{
    stage_verify_guest(s, local, s->out.remote, id, key);
}

void stage_verify_guest(struct stage *s, const char *local, const char *remote, const char *id,
                        const char *key)
{
    struct db_request q = {str_c(local), str_c(remote), str_c(id), str_c(key)};
    stage_event(s, (struct gw_event){.kind = EV_WANT_VERIFY, .u.verify = q});
}

void stage_verdict(struct stage *s, uint32_t ticket, enum verdict v)
{
    struct gw_event ev = {.kind = EV_VERDICT, .u.verdict = {ticket, v, STR("why")}};
    stage_event(s, ev);
}

void stage_sent(struct stage *s)
{
    s2s_in_touch(&s->in, s->fake.now);
}

void stage_config(struct stage *s, const struct gateway_config *cfg)
{
    look(s, cfg);
    s->pairs_before = s->in.authz.n;
    s->asked_before = authz_count(&s->in.authz, AUTHZ_ASKED);
    stage_event(s, (struct gw_event){.kind = EV_POLICY_CHANGED});
}

static int next_timer(const struct stage *s, uint64_t end)
{
    int best = -1;
    for (int i = 0; i < GW_TIMER_COUNT; i++)
        if (s->due[i] != 0 && s->due[i] <= end && (best < 0 || s->due[i] < s->due[best]))
            best = i;
    return best;
}

void stage_time(struct stage *s, uint64_t ms)
{
    uint64_t end = s->fake.now + ms;
    int t;
    while ((t = next_timer(s, end)) >= 0) {
        s->fake.now = s->due[t] > s->fake.now ? s->due[t] : s->fake.now;
        s->due[t] = 0;
        stage_event(s, (struct gw_event){.kind = EV_TIMER, .u.timer = (enum gw_timer)t});
    }
    s->fake.now = end;
}

/* ---- life ------------------------------------------------------------------------------------ */

bool stage_open(struct stage *s, bool outgoing, const struct gateway_config *cfg, const char *local,
                const char *remote, uint64_t seed)
{
    return stage_open_at(s, &(struct stage_side){0}, outgoing, cfg, local, remote, seed);
}

bool stage_open_at(struct stage *s, const struct stage_side *where, bool outgoing,
                   const struct gateway_config *cfg, const char *local, const char *remote,
                   uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->outgoing = outgoing;
    s->where = *where;
    look(s, cfg);
    fake_init(&s->fake, seed);
    s2s_in_init(&s->in, &s->side, &fake_secrets, &s->fake.env);
    bool ok = s2s_out_init(&s->out, &s->side, &fake_secrets, str_c(local), str_c(remote));
    s->in.trusted_address = where->trusted_address;
    s->out.direct_tls = where->direct_tls;
    s->out.has_certificate = s->out.wants_external = !where->no_certificate;
    s->out.wants_bidi = true;
    s->in.trust = s->out.trust = where->certificates ? &trust : NULL;
    s->framer = ok ? framer_new(CONTENT_SERVER, &framer_limits_unauthenticated) : NULL;
    if (s->framer == NULL)
        return false;
    stage_event(s, (struct gw_event){.kind = EV_OPENED});
    return true;
}

void stage_close(struct stage *s)
{
    stage_forget(s);
    framer_free(s->framer);
    s2s_in_free(&s->in);
    s2s_out_free(&s->out);
}

void stage_any(struct stage *s, enum gw_ev kind, const char *xml)
{
    struct framer *f = framer_new(CONTENT_SERVER, &framer_limits_default);
    struct framer_event head, fe;
    xml = stage_turn(s, xml);
    if (f == NULL || !framer_feed(f, str_c(xml)) || framer_next(f, &head) != FRAMER_EVENT)
        abort();
    static const struct tls_peer tls = {.protocol = "TLSv1.3"};
    struct gw_event ev = {.kind = kind};
    if (kind == EV_STREAM_OPEN)
        ev.u.header = head.header;
    else if (kind == EV_TLS_UP)
        ev.u.tls = &tls, s->handshaking = false;
    else if (kind == EV_XML_ERROR)
        ev.u.error = (struct framer_error){"not-well-formed", "bad"};
    else if (kind == EV_NONZA || kind == EV_STANZA) {
        if (framer_next(f, &fe) != FRAMER_EVENT)
            abort();
        ev.kind = fe.kind == FRAMER_STANZA ? EV_STANZA : EV_NONZA;
        if (fe.kind == FRAMER_STANZA)
            ev.u.stanza = &fe.stanza;
        else
            ev.u.nonza = fe.nonza;
    } else if (kind == EV_WANT_PAIR || kind == EV_WANT_VERIFY)
        ev.u.verify =
            (struct db_request){str_c(s->out.local), str_c(s->out.remote), STR("i"), STR("k")};
    stage_event(s, ev);
    framer_free(f);
}

#define OPEN                                                                                       \
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "        \
    "xmlns:db='jabber:server:dialback' from='beta.lab' to='alpha.lab' id='s' version='1.0'>"

static const char *const elements[] = {
    OPEN "<stream:features/>",
    OPEN "<stream:error/>",
    OPEN "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    OPEN "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    OPEN "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    OPEN "<db:result from='beta.lab' to='alpha.lab'>k</db:result>",
    OPEN "<db:result from='beta.lab' to='alpha.lab' type='valid'/>",
    OPEN "<db:verify from='beta.lab' to='alpha.lab' id='i'>k</db:verify>",
    OPEN "<db:verify from='beta.lab' to='alpha.lab' id='i' type='error'/>",
    OPEN "<bidi xmlns='urn:xmpp:bidi'/>",
    OPEN "<stream:features><bidi xmlns='urn:xmpp:features:bidi'/></stream:features>",
    OPEN "<unknown xmlns='u'/>",
    OPEN "<message from='a@beta.lab' to='b@alpha.lab'/>",
    OPEN "<presence/>",
};
enum { ELEMENTS = sizeof elements / sizeof elements[0] };

/* The n-th thing that can happen; false: there are no more. */
static bool try_one(struct stage *s, unsigned n)
{
    if (n < ELEMENTS) {
        stage_any(s, EV_NONZA, elements[n]);
        return true;
    }
    n -= ELEMENTS;
    if (n <= EV_LOST) {
        if (n != EV_TIMER && n != EV_OPENED)
            stage_any(s, (enum gw_ev)n, elements[0]);
        return true;
    }
    n -= EV_LOST + 1;
    if (n >= GW_TIMER_COUNT)
        return false;
    s->due[n] = 0;
    s->stray = true; /* a timer that is not armed: it has to be survived, no more */
    stage_event(s, (struct gw_event){.kind = EV_TIMER, .u.timer = (enum gw_timer)n});
    return true;
}

const char *stage_try_all(const struct stage_side *where, bool outgoing,
                          const struct gateway_config *cfg,
                          void (*prepare)(struct stage *s, unsigned state), unsigned state)
{
    for (unsigned n = 0;; n++) {
        struct stage s;
        const char *ours = where->link ? "beta.lab" : "alpha.lab";
        const char *theirs = where->link ? "alpha.lab" : "beta.lab";
        if (!stage_open_at(&s, where, outgoing, cfg, ours, theirs, 1))
            return "out of memory";
        prepare(&s, state);
        if (stage_state(&s) != state || s.wrong != NULL)
            return s.wrong ? s.wrong : "the state could not be reached";
        size_t lines = s.nlines;
        bool rested = s.over, more = try_one(&s, n), spoke = s.nlines != lines;
        const char *wrong = s.stray ? NULL : s.wrong;
        stage_close(&s);
        if (wrong != NULL || (rested && spoke))
            return wrong ? wrong : "a resting machine spoke";
        if (!more)
            return NULL;
    }
}

unsigned stage_state(const struct stage *s)
{
    return s->outgoing ? (unsigned)s->out.state : (unsigned)s->in.state;
}

const char *stage_id(const struct stage *s)
{
    return s->in.id;
}

unsigned stage_untaken(bool outgoing)
{
    const machine_edges *edges = outgoing ? s2s_out_edges : s2s_in_edges;
    unsigned count = outgoing ? S2S_OUT_STATE_COUNT : S2S_IN_STATE_COUNT, untaken = 0;
    for (unsigned from = 0; from < count; from++)
        for (unsigned to = 0; to < count; to++) {
            if (!machine_edge_ok(edges, from, to) || (taken[outgoing][from] >> to & 1))
                continue;
            untaken++;
            printf("# never taken: %s -> %s\n",
                   outgoing ? s2s_out_state_name((enum s2s_out_state)from)
                            : s2s_in_state_name((enum s2s_in_state)from),
                   outgoing ? s2s_out_state_name((enum s2s_out_state)to)
                            : s2s_in_state_name((enum s2s_in_state)to));
        }
    return untaken;
}
