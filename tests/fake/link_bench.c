#include "tests/fake/link_bench.h"

#include <stdio.h>
#include <time.h>

#include "core/xml/ns.h"
#include "xcp/handshake.h"

const char *bench_input_name(enum bench_input in)
{
    static const char *const names[] = {
#define X(id) #id,
        BENCH_INPUTS(X)
#undef X
    };
    return names[in];
}

/* ---- whom to believe ------------------------------------------------------------------------- */

static const struct key_hash stored = {KEY_HASH_SHA256, "imported"};
static const struct key_hash other = {KEY_HASH_SHA256, "of somebody else"};

static const struct link_trust trusts[BENCH_PROFILE_COUNT] = {
    [BENCH_PLAIN] = {.auth = LINK_AUTH_PASSWORD},
    [BENCH_TLS] = {.auth = LINK_AUTH_TLS,
                   .store = &stored,
                   .nstore = 1,
                   .peer_name = {"peer.lab", 8}},
    [BENCH_PROVEN] = {.auth = LINK_AUTH_TLS,
                      .store = &stored,
                      .nstore = 1,
                      .peer_name = {"peer.lab", 8},
                      .proven = true},
    [BENCH_BOTH] = {.auth = LINK_AUTH_TLS_PASSWORD, .peer_name = {"peer.lab", 8}},
};
static const struct link_trust trust_other = {
    .auth = LINK_AUTH_TLS, .store = &other, .nstore = 1, .peer_name = {"peer.lab", 8}};

#define S(text)                                                                                    \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }
static const struct link_account accounts[] = {
    {S("gw.lab"), S("old"), NULL},
    {S("im.lab"), S("secret"), NULL},
    {S("gw.lab"), S("secret"), &trusts[BENCH_PLAIN]},
    {S("tls.lab"), {NULL, 0}, &trusts[BENCH_TLS]},
    {S("proven.lab"), S("secret"), &trusts[BENCH_PROVEN]},
    {S("both.lab"), S("secret"), &trusts[BENCH_BOTH]},
    {S("many.lab"), S("secret"), &trust_other},
    {S("many.lab"), {NULL, 0}, NULL},
    {S("many.lab"), S("wrong"), &trusts[BENCH_BOTH]},
    {S("many.lab"), S("secret"), &trusts[BENCH_BOTH]},
    {S("many.lab"), {NULL, 0}, &trusts[BENCH_TLS]},
};
enum { ACCOUNTS = sizeof accounts / sizeof accounts[0] };

static const struct tls_name named = {TLS_NAME_DNS, "peer.lab"}, misnamed = {TLS_NAME_DNS, "x.lab"};
#define FACTS .protocol = "TLSv1.3", .cipher = "TLS_AES_256_GCM_SHA384"
#define CERTIFICATE                                                                                \
    FACTS, .has_certificate = true, .in_time = true, .subject = "CN=peer", .issuer = "CN=issuer"
static struct tls_peer peers[] = {
    {CERTIFICATE, .self_signed = true, .why = "self-signed"}, /* and its hash: bench_init */
    {CERTIFICATE, .self_signed = true, .why = "self-signed"},
    {CERTIFICATE, .chain_ok = true, .names = &named, .nnames = 1},
    {CERTIFICATE, .chain_ok = true, .names = &misnamed, .nnames = 1},
    {FACTS, .why = "no certificate"},
};

/* ---- the world ------------------------------------------------------------------------------- */

static uint64_t now_ms(void *ctx)
{
    return ((struct bench *)ctx)->now;
}

static bool random_bytes(void *ctx, unsigned char *out, size_t n)
{
    memset(out, 0xAB, n);
    return !((struct bench *)ctx)->no_random;
}

static int64_t wall_ms(void *ctx)
{
    return ((struct bench *)ctx)->wall;
}

void bench_init(struct bench *b, bool client, enum bench_profile profile, bool clock)
{
    *b = (struct bench){.client = client, .profile = profile, .now = 1000, .wall = 1766000000000};
    b->env = (struct env){
        .now_ms = now_ms, .random = random_bytes, .ctx = b, .wall_ms = clock ? wall_ms : NULL};
    memcpy(peers[0].certificate_sha256, stored.bytes, KEY_HASH_SHA256);
    struct link_client_config c = {.component = STR("gw.lab"),
                                   .secret = profile == BENCH_TLS ? STR_NONE : STR("secret"),
                                   .trust = profile == BENCH_PLAIN ? NULL : &trusts[profile],
                                   .ping_to = STR("alpha.lab"),
                                   .auth_ms = BENCH_AUTH,
                                   .close_ms = BENCH_CLOSE,
                                   .keepalive_ms = BENCH_KEEPALIVE};
    struct link_server_config s = {.accounts = accounts,
                                   .naccounts = ACCOUNTS,
                                   .auth_ms = BENCH_AUTH,
                                   .close_ms = BENCH_CLOSE,
                                   .keepalive_ms = BENCH_KEEPALIVE,
                                   .start_tls = profile != BENCH_PLAIN};
    link_client_init(&b->c, &c, &b->env);
    link_server_init(&b->s, &s, &b->env);
    gw_actions_init(&b->out);
}

void bench_free(struct bench *b)
{
    gw_actions_free(&b->out);
}

struct link_end *bench_end(struct bench *b)
{
    return b->client ? &b->c.end : &b->s.end;
}

const char *bench_state(struct bench *b)
{
    return link_state_name(bench_end(b)->state);
}

/* ---- what must hold -------------------------------------------------------------------------- */

static machine_edges taken[2][LINK_STATE_COUNT];

/* A step may go by way of HEADER. */
static void note_edge(struct bench *b, enum link_state from)
{
    const machine_edges *edges = b->client ? link_client_edges : link_server_edges;
    enum link_state to = bench_end(b)->state;
    if (from == to)
        return;
    if (machine_edge_ok(edges, from, to)) {
        taken[b->client][from] |= (machine_edges)(1u << to);
        return;
    }
    b->wrong = machine_edge_ok(edges, from, LINK_HEADER) && machine_edge_ok(edges, LINK_HEADER, to)
                   ? b->wrong
                   : "an edge that is not in the table";
    taken[b->client][from] |= 1u << LINK_HEADER;
    taken[b->client][LINK_HEADER] |= (machine_edges)(1u << to);
}

unsigned bench_untaken(bool client)
{
    const machine_edges *edges = client ? link_client_edges : link_server_edges;
    unsigned n = 0;
    for (unsigned a = 0; a < LINK_STATE_COUNT; a++)
        for (unsigned z = 0; z < LINK_STATE_COUNT; z++)
            if (machine_edge_ok(edges, a, z) && !(taken[client][a] >> z & 1)) {
                printf("# %s never took %s -> %s\n", client ? "client" : "server",
                       link_state_name((enum link_state)a), link_state_name((enum link_state)z));
                n++;
            }
    return n;
}

static bool wants_tls(const struct link_trust *t)
{
    return t != NULL && t->auth != LINK_AUTH_PASSWORD;
}

/* The peer has shown all that its link asks for. */
static bool proven(const struct bench *b)
{
    if (b->client)
        return !wants_tls(b->c.cfg.trust) ||
               (b->c.end.encrypted && b->c.judged && trust_ok(b->c.verdict));
    const struct link_account *a = &accounts[b->s.account];
    return str_is(a->component, b->s.component) &&
           (!wants_tls(a->trust) || (b->s.end.encrypted && b->s.judged && trust_ok(b->s.verdict)));
}

static bool append(struct bench *b, size_t *n, struct str s)
{
    if (*n + s.n >= sizeof b->sent)
        return false;
    memcpy(b->sent + *n, s.p, s.n);
    *n += s.n;
    b->sent[*n] = '\0';
    return true;
}

/* Reads every string that the action points to. */
static unsigned touch_log(const struct gw_action *a)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < a->u.log.n; i++)
        for (size_t k = 0; a->u.log.kv[i].type == KV_STR && k < a->u.log.kv[i].s.n; k++)
            sum += (unsigned char)a->u.log.kv[i].s.p[k];
    return sum;
}

static const char *note(struct bench *b, const struct gw_action *a, size_t *sent)
{
    if (b->closes > 0)
        return "an action after CLOSE";
    switch (a->kind) {
    case ACT_TIMER_SET:
        b->armed[a->u.timer.id] = true;
        b->due[a->u.timer.id] = b->now + a->u.timer.ms;
        return a->u.timer.ms > 0 ? NULL : "a timer of 0 ms";
    case ACT_TIMER_CLEAR:
        b->armed[a->u.timer.id] = false;
        return NULL;
    case ACT_SEND:
        return append(b, sent, gw_text(&b->out, a)) ? NULL : "too much text";
    case ACT_DELIVER:
    case ACT_BOUNCE:
    case ACT_DROP:
        return bench_end(b)->was_up ? NULL : "a stanza passed before the handshake";
    case ACT_READY:
        return proven(b) ? NULL : "READY without the proof that the link asks for";
    case ACT_LOG:
        return touch_log(a) == UINT32_MAX ? "?" : NULL;
    case ACT_CLOSE:
        b->closes++;
        b->reason = a->u.close.reason;
        return NULL;
    case ACT_TLS_START:
        return bench_end(b)->state == LINK_TLS ? NULL : "TLS_START outside of TLS";
    case ACT_LIMITS:
        return NULL;
    case ACT_STREAM_RESET:
    case ACT_ASK:
    case ACT_ANSWERED:
    case ACT_VOUCHED:
    case ACT_PAIR:
    case ACT_REFUSED:
    case ACT_UNDELIVERED:
        return "not an action of links";
    }
    return "an unknown action";
}

static const char *check(struct bench *b, enum link_state before)
{
    const struct link_end *e = bench_end(b);
    size_t sent = 0;
    b->sent[0] = '\0';
    for (unsigned i = 0; i < b->out.n; i++) {
        const char *wrong = note(b, &b->out.v[i], &sent);
        if (wrong != NULL)
            return wrong;
    }
    if (b->armed[TIMER_KEEPALIVE] != (e->state == LINK_UP))
        return "KEEPALIVE belongs to UP";
    if (b->armed[TIMER_STATE] != (e->state == LINK_CLOSING))
        return "STATE belongs to CLOSING";
    if (b->armed[TIMER_SETUP] &&
        (e->state == LINK_UP || e->state == LINK_CLOSING || e->state == LINK_RESTING))
        return "SETUP is over";
    if ((e->state == LINK_RESTING) != (b->closes == 1))
        return "RESTING and CLOSE belong together";
    if (sent > 0 && (e->state == LINK_TLS || before == LINK_CLOSING))
        return "said something in the TLS handshake or behind our closing tag";
    if (b->client && sent > 0 && !proven(b) && strstr(b->sent, "<not-authorized ") == NULL)
        return "said more than the refusal to a peer that is not trusted";
    return NULL;
}

/* As session.c does it: a step without memory ends the session. */
static bool overflowed(struct bench *b)
{
    if (!b->out.overflow)
        return false;
    if (!b->starved)
        b->wrong = "overflow";
    memset(b->armed, 0, sizeof b->armed);
    bench_end(b)->state = LINK_RESTING;
    b->closes = 1;
    b->reason = END_NO_MEMORY;
    return true;
}

void bench_event(struct bench *b, struct gw_event ev)
{
    enum link_state before = bench_end(b)->state;
    gw_actions_free(&b->out);
    gw_actions_init(&b->out);
    ev.now_ms = b->now;
    if (b->client)
        link_client_step(&b->c, &ev, &b->out);
    else
        link_server_step(&b->s, &ev, &b->out);
    note_edge(b, before);
    if (overflowed(b))
        return;
    const char *wrong = check(b, before);
    b->wrong = b->wrong != NULL ? b->wrong : wrong;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static void give_text(struct bench *b, enum gw_ev kind, const char *text)
{
    bench_event(b, (struct gw_event){.kind = kind, .u.text = str_c(text)});
}

static void give_header(struct bench *b, struct str to, struct str id)
{
    struct stream_header h = {.to = to, .id = id, .content_ns = STR(NS_COMPONENT)};
    bench_event(b, (struct gw_event){.kind = EV_STREAM_OPEN, .u.header = &h});
}

static void give_nonza(struct bench *b, const char *ns, const char *name, const char *text)
{
    struct nonza z = {.nnodes = 1};
    z.node[0] = (struct nonza_node){.ns = str_c(ns), .name = str_c(name), .text = str_c(text)};
    bench_event(b, (struct gw_event){.kind = EV_NONZA, .u.nonza = &z});
}

static void give_error(struct bench *b, const char *condition, const char *text)
{
    struct nonza z = {.nnodes = 3};
    z.node[0] = (struct nonza_node){.ns = STR(NS_STREAM), .name = STR("error")};
    z.node[1] =
        (struct nonza_node){.ns = STR(NS_STREAM_ERROR), .name = str_c(condition), .depth = 1};
    z.node[2] = (struct nonza_node){
        .ns = STR(NS_STREAM_ERROR), .name = STR("text"), .text = str_c(text), .depth = 1};
    bench_event(b, (struct gw_event){.kind = EV_NONZA, .u.nonza = &z});
}

static void give_handshake(struct bench *b, const char *secret)
{
    char digest[DIGEST_SHA1_HEX + 1] = "";
    handshake_digest(digest, str_c(b->s.id), str_c(secret));
    give_nonza(b, NS_COMPONENT, "handshake", digest);
}

void bench_stanza(struct bench *b, enum stanza_kind kind, const char *type, const char *from,
                  const char *to, const char *id, const char *xml)
{
    struct stanza st = {.kind = kind,
                        .type = str_c(type),
                        .from = str_c(from),
                        .to = str_c(to),
                        .id = str_c(id),
                        .span = {NULL, str_c(xml)}};
    bench_event(b, (struct gw_event){.kind = EV_STANZA, .u.stanza = &st});
}

static void give_answer(struct bench *b, uint32_t probe, const char *type, const char *xml)
{
    char id[LINK_PROBE_ID];
    snprintf(id, sizeof id, "%s%u", b->c.probe_prefix, probe);
    bench_stanza(b, STANZA_IQ, type, "alpha.lab", "gw.lab", id, xml);
}

static void give_time(struct bench *b)
{
    char xml[512], utc[64];
    time_t t = (time_t)(b->wall / 1000);
    struct tm tm;
    strftime(utc, sizeof utc, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    snprintf(xml, sizeof xml,
             "<iq type='result'><time xmlns='urn:xmpp:time'><tzo>+01:00</tzo><utc>%s</utc></time>"
             "</iq>",
             b->skew_utc ? b->skew_utc : utc);
    give_answer(b, b->c.time_probe ? b->c.time_probe : 1, "result", xml);
}

static void give_stanza(struct bench *b, enum bench_input in)
{
    const char *good = "a@alpha.lab/x", *far = "b@far.lab";
    uint32_t ping = b->c.ping_probe ? b->c.ping_probe : b->c.probe;
    if (in == IN_STANZA)
        bench_stanza(b, STANZA_MESSAGE, NULL, good, far, "1", NULL);
    else if (in == IN_STANZA_BAD_TO)
        bench_stanza(b, STANZA_MESSAGE, NULL, good, "@@/", "1", NULL);
    else if (in == IN_STANZA_BAD_TO_ERROR)
        bench_stanza(b, STANZA_MESSAGE, "error", good, NULL, "1", NULL);
    else if (in == IN_STANZA_NO_FROM)
        bench_stanza(b, STANZA_MESSAGE, NULL, NULL, far, "1", NULL);
    else if (in == IN_PONG || in == IN_PONG_ERROR)
        give_answer(b, ping, in == IN_PONG ? "result" : "error", NULL);
    else if (in == IN_TIME)
        give_time(b);
    else if (in == IN_TIME_ERROR)
        give_answer(b, b->c.time_probe, "error", NULL);
    else
        bench_stanza(b, STANZA_IQ, "result", good, far, "ping-1", NULL);
}

static void give_header_input(struct bench *b, enum bench_input in)
{
    static const char *const names[] = {"tls.lab", "proven.lab", "both.lab", "many.lab"};
    if (in == IN_HEADER)
        give_header(b, STR("GW.lab"), STR("id1"));
    else if (in == IN_HEADER_ID)
        give_header(b, STR_NONE, STR("id1"));
    else if (in == IN_HEADER_NO_ID)
        give_header(b, STR("gw.lab"), STR_NONE);
    else if (in == IN_HEADER_UNKNOWN)
        give_header(b, STR("who.lab"), STR("id1"));
    else if (in == IN_HEADER_NO_TO)
        give_header(b, STR_NONE, STR_NONE);
    else
        give_header(b, str_c(names[in - IN_HEADER_TLS]), STR("id1"));
}

static void give_element(struct bench *b, enum bench_input in)
{
    if (in == IN_HANDSHAKE_OK)
        give_nonza(b, NS_COMPONENT, "handshake", NULL);
    else if (in == IN_HANDSHAKE_GOOD)
        give_handshake(b, "secret");
    else if (in == IN_HANDSHAKE_BAD)
        give_handshake(b, "bad");
    else if (in == IN_HANDSHAKE_EMPTY)
        give_handshake(b, "");
    else if (in == IN_FEATURES)
        give_nonza(b, NS_STREAM, "features", NULL);
    else
        give_nonza(b, "urn:strange", "thing", NULL);
}

static void give_error_input(struct bench *b, enum bench_input in)
{
    static const char *const conditions[] = {"not-authorized", "not-authorized", "not-authorized",
                                             "host-unknown",   "conflict",       "reset"};
    give_error(b, conditions[in - IN_ERROR_AUTH],
               in == IN_ERROR_CERT  ? LINK_CERT_REFUSED ": wrong-name"
               : in == IN_ERROR_TLS ? LINK_TLS_NEEDED
                                    : "so it is");
}

static void give_timer(struct bench *b, enum gw_timer t)
{
    b->armed[t] = false;
    bench_event(b, (struct gw_event){.kind = EV_TIMER, .u.timer = t});
}

void bench_give(struct bench *b, enum bench_input in)
{
    switch (in) {
    case IN_OPENED:
        bench_event(b, (struct gw_event){.kind = EV_OPENED});
        break;
    case IN_TLS_STORE:
    case IN_TLS_SELF:
    case IN_TLS_ROOT:
    case IN_TLS_NAME:
    case IN_TLS_NONE:
        bench_event(b, (struct gw_event){.kind = EV_TLS_UP, .u.tls = &peers[in - IN_TLS_STORE]});
        break;
    case IN_TLS_FAILED:
        give_text(b, EV_TLS_FAILED, "why");
        break;
    case IN_TLS_FAILED_OURS:
        give_text(b, EV_TLS_FAILED, LINK_CERT_REFUSED_TLS " (bad certificate)");
        break;
    case IN_HEADER:
    case IN_HEADER_ID:
    case IN_HEADER_NO_ID:
    case IN_HEADER_UNKNOWN:
    case IN_HEADER_NO_TO:
    case IN_HEADER_TLS:
    case IN_HEADER_PROVEN:
    case IN_HEADER_BOTH:
    case IN_HEADER_MANY:
        give_header_input(b, in);
        break;
    case IN_HANDSHAKE_OK:
    case IN_HANDSHAKE_GOOD:
    case IN_HANDSHAKE_BAD:
    case IN_HANDSHAKE_EMPTY:
    case IN_FEATURES:
    case IN_STRANGE:
        give_element(b, in);
        break;
    case IN_ERROR_AUTH:
    case IN_ERROR_CERT:
    case IN_ERROR_TLS:
    case IN_ERROR_HOST:
    case IN_ERROR_CONFLICT:
    case IN_ERROR_OTHER:
        give_error_input(b, in);
        break;
    case IN_STANZA:
    case IN_STANZA_BAD_TO:
    case IN_STANZA_BAD_TO_ERROR:
    case IN_STANZA_NO_FROM:
    case IN_PONG:
    case IN_PONG_ERROR:
    case IN_TIME:
    case IN_TIME_ERROR:
    case IN_OTHER_RESULT:
        give_stanza(b, in);
        break;
    case IN_STREAM_CLOSE:
        bench_event(b, (struct gw_event){.kind = EV_STREAM_CLOSE});
        break;
    case IN_XML_ERROR:
        bench_event(b,
                    (struct gw_event){.kind = EV_XML_ERROR, .u.error = {"not-well-formed", "bad"}});
        break;
    case IN_VERDICT:
        bench_event(b, (struct gw_event){.kind = EV_VERDICT});
        break;
    case IN_WANT_PAIR:
        bench_event(b, (struct gw_event){.kind = EV_WANT_PAIR});
        break;
    case IN_WANT_VERIFY:
        bench_event(b, (struct gw_event){.kind = EV_WANT_VERIFY});
        break;
    case IN_T_SETUP:
    case IN_T_STATE:
    case IN_T_KEEPALIVE:
    case IN_T_ASKED:
        give_timer(b, (enum gw_timer)(in - IN_T_SETUP + TIMER_SETUP)); /* armed or not */
        break;
    case IN_POLICY:
        bench_event(b, (struct gw_event){.kind = EV_POLICY_CHANGED});
        break;
    case IN_DRAIN:
        give_text(b, EV_DRAIN, "stop");
        break;
    case IN_CONFLICT:
        give_text(b, EV_DRAIN, LINK_CONFLICT);
        break;
    case IN_LOST:
        give_text(b, EV_LOST, "gone");
        break;
    case IN_LOST_OURS:
        give_text(b, EV_LOST, LINK_CERT_REFUSED_TLS " (unknown CA)");
        break;
    case IN_COUNT:
        break;
    }
}

enum bench_input bench_lead(struct bench *b)
{
    static const enum bench_input certificate[] = {IN_TLS_STORE, IN_TLS_STORE, IN_TLS_ROOT,
                                                   IN_TLS_ROOT};
    static const enum bench_input header[] = {IN_HEADER, IN_HEADER_TLS, IN_HEADER_PROVEN,
                                              IN_HEADER_BOTH};
    switch (bench_end(b)->state) {
    case LINK_CONNECTED:
        return IN_OPENED;
    case LINK_TLS:
        return certificate[b->profile];
    case LINK_HEADER:
        return header[b->profile];
    case LINK_HANDSHAKE:
        return b->client ? IN_HANDSHAKE_OK : IN_HANDSHAKE_GOOD;
    case LINK_UP:
        return IN_STANZA;
    case LINK_CLOSING:
    case LINK_RESTING:
    case LINK_STATE_COUNT:
        break;
    }
    return IN_STREAM_CLOSE;
}

/* ---- what happened --------------------------------------------------------------------------- */

const char *bench_keepalive(struct bench *b)
{
    if (!b->armed[TIMER_KEEPALIVE])
        b->wrong = "KEEPALIVE is not armed";
    b->wall += (int64_t)(b->due[TIMER_KEEPALIVE] - b->now);
    b->now = b->due[TIMER_KEEPALIVE];
    bench_give(b, IN_T_KEEPALIVE);
    return b->sent;
}

const struct gw_action *bench_find(const struct bench *b, enum gw_act kind)
{
    for (unsigned i = 0; i < b->out.n; i++)
        if (b->out.v[i].kind == kind)
            return &b->out.v[i];
    return NULL;
}

const struct gw_action *bench_log(const struct bench *b, const char *event)
{
    for (unsigned i = 0; i < b->out.n; i++)
        if (b->out.v[i].kind == ACT_LOG && strcmp(b->out.v[i].u.log.event, event) == 0)
            return &b->out.v[i];
    return NULL;
}

struct str bench_log_value(const struct gw_action *log, const char *key)
{
    for (unsigned i = 0; i < log->u.log.n; i++)
        if (strcmp(log->u.log.kv[i].key, key) == 0)
            return log->u.log.kv[i].s;
    return STR_NONE;
}
