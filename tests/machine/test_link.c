/* Both machines of a component link: a table of rules, every event in every state, and a random
 * walk with the invariants of core/stream/machine.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "core/base/mem.h"
#include "core/xml/ns.h"
#include "xcp/handshake.h"
#include "xcp/link.h"
#include "xcp/link_client.h"
#include "xcp/link_server.h"

/* ---- a made-up world ------------------------------------------------------------------------- */

static uint64_t fake_now(void *ctx)
{
    (void)ctx;
    return 0;
}

static bool fake_random(void *ctx, unsigned char *out, size_t n)
{
    bool *works = ctx;
    memset(out, 0xAB, n);
    return *works;
}

static bool random_works = true;
static const struct env env = {fake_now, fake_random, &random_works};

static const struct link_account accounts[] = {
    {{"gw.lab", 6}, {"old", 3}},
    {{"im.lab", 6}, {"secret", 6}},
    {{"gw.lab", 6}, {"secret", 6}},
};

enum { AUTH = 10000, CLOSE = 5000, KEEPALIVE = 30000 };

/* One machine of either kind, with what it was told and what it did. */
struct bench {
    bool client;
    struct link_client c;
    struct link_server s;
    struct gw_actions out;
    uint64_t now;
    bool armed[GW_TIMER_COUNT];
    uint64_t due[GW_TIMER_COUNT];
    unsigned closes;
    enum end_reason reason;
};

static void bench_init(struct bench *b, bool client)
{
    *b = (struct bench){.client = client, .now = 1000};
    struct link_client_config c = {.component = STR("gw.lab"), .secret = STR("secret"),
                                   .ping_to = STR("alpha.lab"), .auth_ms = AUTH,
                                   .close_ms = CLOSE, .keepalive_ms = KEEPALIVE};
    struct link_server_config s = {accounts, 3, AUTH, CLOSE, KEEPALIVE};
    link_client_init(&b->c, &c, &env);
    link_server_init(&b->s, &s, &env);
    gw_actions_init(&b->out);
}

static void bench_free(struct bench *b)
{
    gw_actions_free(&b->out);
}

static const char *state_name(const struct bench *b)
{
    return b->client ? link_client_state_name(b->c.state) : link_server_state_name(b->s.state);
}

/* After a step: timers as the driver would keep them, and the invariants. */
static void bench_note(struct bench *b)
{
    assert_false(b->out.overflow);
    for (unsigned i = 0; i < b->out.n; i++) {
        const struct gw_action *a = &b->out.v[i];
        assert_int_equal(b->closes, 0); /* nothing after CLOSE, in this step or later */
        if (a->kind == ACT_TIMER_SET) {
            assert_true(a->u.timer.ms > 0);
            b->armed[a->u.timer.id] = true;
            b->due[a->u.timer.id] = b->now + a->u.timer.ms;
        } else if (a->kind == ACT_TIMER_CLEAR) {
            b->armed[a->u.timer.id] = false;
        } else if (a->kind == ACT_DELIVER) {
            assert_true(b->client ? b->c.was_up : b->s.was_up);
        } else if (a->kind == ACT_CLOSE) {
            b->closes++;
            b->reason = a->u.close.reason;
        }
    }
    const char *state = state_name(b);
    if (strcmp(state, "RESTING") == 0) {
        assert_int_equal(b->closes, 1);
        for (int t = 0; t < GW_TIMER_COUNT; t++)
            assert_false(b->armed[t]);
    }
    assert_int_equal(b->armed[TIMER_KEEPALIVE], strcmp(state, "UP") == 0);
    assert_int_equal(b->armed[TIMER_STATE], strcmp(state, "CLOSING") == 0);
}

static void give(struct bench *b, struct gw_event ev)
{
    gw_actions_free(&b->out);
    gw_actions_init(&b->out);
    ev.now_ms = b->now;
    if (b->client)
        link_client_step(&b->c, &ev, &b->out);
    else
        link_server_step(&b->s, &ev, &b->out);
    bench_note(b);
}

/* ---- events ---------------------------------------------------------------------------------- */

static struct nonza nonza_of(const char *ns, const char *name, const char *text, const char *child)
{
    struct nonza z = {.nnodes = 1};
    z.node[0] = (struct nonza_node){.ns = str_c(ns), .name = str_c(name), .text = str_c(text)};
    if (child != NULL) {
        z.node[1] = (struct nonza_node){.ns = STR(NS_STREAM_ERROR), .name = str_c(child),
                                        .depth = 1};
        z.nnodes = 2;
    }
    return z;
}

/* Every kind of event, with contents that matter to these machines. */
#define INPUTS(X)                                                                                  \
    X(OPENED) X(HEADER) X(HEADER_ID) X(HEADER_NO_ID) X(HEADER_UNKNOWN) X(HEADER_NO_TO)             \
    X(HANDSHAKE_OK) X(HANDSHAKE_GOOD) X(HANDSHAKE_BAD) X(FEATURES) X(STRANGE)                      \
    X(ERROR_AUTH) X(ERROR_HOST) X(ERROR_CONFLICT) X(ERROR_OTHER)                                   \
    X(STANZA) X(STANZA_BAD_TO) X(STANZA_BAD_TO_ERROR) X(STANZA_NO_FROM) X(PONG) X(PONG_ERROR)      \
    X(OTHER_RESULT) X(STREAM_CLOSE) X(XML_ERROR) X(TLS_UP) X(TLS_FAILED) X(VERDICT) X(WANT_PAIR)   \
    X(WANT_VERIFY) X(T_SETUP) X(T_STATE) X(T_KEEPALIVE) X(T_ASKED) X(POLICY) X(DRAIN) X(CONFLICT)  \
    X(LOST)

enum input {
#define X(id) IN_##id,
    INPUTS(X)
#undef X
    IN_COUNT
};

static const char *const input_names[] = {
#define X(id) #id,
    INPUTS(X)
#undef X
};

static void give_header(struct bench *b, struct str to, struct str id)
{
    struct stream_header h = {.to = to, .id = id, .content_ns = STR(NS_COMPONENT)};
    give(b, (struct gw_event){.kind = EV_STREAM_OPEN, .u.header = &h});
}

static void give_nonza(struct bench *b, const char *ns, const char *name, const char *text,
                       const char *child)
{
    struct nonza z = nonza_of(ns, name, text, child);
    give(b, (struct gw_event){.kind = EV_NONZA, .u.nonza = &z});
}

static void give_handshake(struct bench *b, const char *secret)
{
    char digest[DIGEST_SHA1_HEX + 1];
    assert_true(handshake_digest(digest, str_c(b->s.id), str_c(secret)));
    give_nonza(b, NS_COMPONENT, "handshake", digest, NULL);
}

static void give_stanza(struct bench *b, enum stanza_kind kind, const char *type, const char *from,
                        const char *to, const char *id)
{
    struct stanza st = {.kind = kind, .type = str_c(type), .from = str_c(from), .to = str_c(to),
                        .id = str_c(id)};
    give(b, (struct gw_event){.kind = EV_STANZA, .u.stanza = &st});
}

static void give_timer(struct bench *b, enum gw_timer t)
{
    b->armed[t] = false;
    give(b, (struct gw_event){.kind = EV_TIMER, .u.timer = t});
}

static void give_text(struct bench *b, enum gw_ev kind, const char *text)
{
    give(b, (struct gw_event){.kind = kind, .u.text = str_c(text)});
}

static const char *ping_id(const struct bench *b)
{
    static char id[LINK_PING_ID];
    snprintf(id, sizeof id, "%s%u", b->c.ping_prefix, b->c.pings);
    return id;
}

static void give_error(struct bench *b, const char *condition)
{
    give_nonza(b, NS_STREAM, "error", NULL, condition);
}

static void give_stanza_input(struct bench *b, enum input in)
{
    const char *good = "a@alpha.lab/x", *far = "b@far.lab";
    if (in == IN_STANZA)
        give_stanza(b, STANZA_MESSAGE, NULL, good, far, "1");
    else if (in == IN_STANZA_BAD_TO)
        give_stanza(b, STANZA_MESSAGE, NULL, good, "@@/", "1");
    else if (in == IN_STANZA_BAD_TO_ERROR)
        give_stanza(b, STANZA_MESSAGE, "error", good, NULL, "1");
    else if (in == IN_STANZA_NO_FROM)
        give_stanza(b, STANZA_MESSAGE, NULL, NULL, far, "1");
    else if (in == IN_PONG)
        give_stanza(b, STANZA_IQ, "result", "alpha.lab", "gw.lab", ping_id(b));
    else if (in == IN_PONG_ERROR)
        give_stanza(b, STANZA_IQ, "error", "alpha.lab", "gw.lab", ping_id(b));
    else
        give_stanza(b, STANZA_IQ, "result", good, far, "ping-1");
}

static void give_stream_input(struct bench *b, enum input in)
{
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
    else if (in == IN_HANDSHAKE_OK)
        give_nonza(b, NS_COMPONENT, "handshake", NULL, NULL);
    else if (in == IN_HANDSHAKE_GOOD)
        give_handshake(b, "secret");
    else if (in == IN_HANDSHAKE_BAD)
        give_handshake(b, "wrong");
    else if (in == IN_FEATURES)
        give_nonza(b, NS_STREAM, "features", NULL, NULL);
    else
        give_nonza(b, "urn:strange", "thing", NULL, NULL);
}

static void give_input(struct bench *b, enum input in)
{
    static const struct tls_peer peer;
    switch (in) {
    case IN_OPENED:
        give(b, (struct gw_event){.kind = EV_OPENED});
        break;
    case IN_HEADER: case IN_HEADER_ID: case IN_HEADER_NO_ID: case IN_HEADER_UNKNOWN:
    case IN_HEADER_NO_TO: case IN_HANDSHAKE_OK: case IN_HANDSHAKE_GOOD: case IN_HANDSHAKE_BAD:
    case IN_FEATURES: case IN_STRANGE:
        give_stream_input(b, in);
        break;
    case IN_ERROR_AUTH:
        give_error(b, "not-authorized");
        break;
    case IN_ERROR_HOST:
        give_error(b, "host-unknown");
        break;
    case IN_ERROR_CONFLICT:
        give_error(b, "conflict");
        break;
    case IN_ERROR_OTHER:
        give_error(b, "reset");
        break;
    case IN_STANZA: case IN_STANZA_BAD_TO: case IN_STANZA_BAD_TO_ERROR: case IN_STANZA_NO_FROM:
    case IN_PONG: case IN_PONG_ERROR: case IN_OTHER_RESULT:
        give_stanza_input(b, in);
        break;
    case IN_STREAM_CLOSE:
        give(b, (struct gw_event){.kind = EV_STREAM_CLOSE});
        break;
    case IN_XML_ERROR:
        give(b, (struct gw_event){.kind = EV_XML_ERROR, .u.error = {"not-well-formed", "bad"}});
        break;
    case IN_TLS_UP:
        give(b, (struct gw_event){.kind = EV_TLS_UP, .u.tls = &peer});
        break;
    case IN_TLS_FAILED:
        give_text(b, EV_TLS_FAILED, "why");
        break;
    case IN_VERDICT:
        give(b, (struct gw_event){.kind = EV_VERDICT});
        break;
    case IN_WANT_PAIR:
        give(b, (struct gw_event){.kind = EV_WANT_PAIR});
        break;
    case IN_WANT_VERIFY:
        give(b, (struct gw_event){.kind = EV_WANT_VERIFY});
        break;
    case IN_T_SETUP: case IN_T_STATE: case IN_T_KEEPALIVE: case IN_T_ASKED:
        give_timer(b, (enum gw_timer)(in - IN_T_SETUP + TIMER_SETUP)); /* armed or not */
        break;
    case IN_POLICY:
        give(b, (struct gw_event){.kind = EV_POLICY_CHANGED});
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
    case IN_COUNT:
        break;
    }
}

/* ---- what happened --------------------------------------------------------------------------- */

static const struct gw_action *find(const struct bench *b, enum gw_act kind)
{
    for (unsigned i = 0; i < b->out.n; i++)
        if (b->out.v[i].kind == kind)
            return &b->out.v[i];
    return NULL;
}

/* All text of this step in one string. */
static const char *sent(const struct bench *b)
{
    static char text[8192];
    size_t n = 0;
    for (unsigned i = 0; i < b->out.n; i++) {
        if (b->out.v[i].kind != ACT_SEND)
            continue;
        struct str s = gw_text(&b->out, &b->out.v[i]);
        assert_true(n + s.n < sizeof text);
        memcpy(text + n, s.p, s.n);
        n += s.n;
    }
    text[n] = '\0';
    return text;
}

/* ---- rules ----------------------------------------------------------------------------------- */

#define PATH_MAX_INPUTS 6
struct rule {
    const char *rule;
    bool client;
    enum input path[PATH_MAX_INPUTS]; /* ends with IN_COUNT; the last one is what is looked at */
    const char *state;
    const char *text;       /* must be in what was sent; "" : nothing was sent */
    int act;                /* must be among the actions; -1: any */
    enum end_reason reason; /* when it rests */
};

#define UP_C IN_OPENED, IN_HEADER, IN_HANDSHAKE_OK
#define UP_S IN_OPENED, IN_HEADER, IN_HANDSHAKE_GOOD

static const struct rule rules[] = {
    {"C header", 1, {IN_OPENED, IN_COUNT}, "HEADER",
     "xmlns:stream='http://etherx.jabber.org/streams' to='gw.lab'>", ACT_TIMER_SET, 0},
    {"C digest of the id", 1, {IN_OPENED, IN_HEADER_ID, IN_COUNT}, "HANDSHAKE",
     "<handshake>885c5ef356b2a95cf5cf94adf6071a3e4014132c</handshake>", -1, 0},
    {"C header without id", 1, {IN_OPENED, IN_HEADER_NO_ID, IN_COUNT}, "RESTING", "<bad-format ",
     ACT_CLOSE, END_STREAM_ERROR_SENT},
    {"C up", 1, {UP_C, IN_COUNT}, "UP", "", ACT_READY, 0},
    {"C up: larger limits", 1, {UP_C, IN_COUNT}, "UP", "", ACT_LIMITS, 0},
    {"C features are ignored", 1, {IN_OPENED, IN_HEADER, IN_FEATURES, IN_COUNT}, "HANDSHAKE", "",
     -1, 0},
    {"C wrong secret", 1, {IN_OPENED, IN_HEADER, IN_ERROR_AUTH, IN_COUNT}, "RESTING",
     "</stream:stream>", ACT_CLOSE, END_UNAUTHORIZED},
    {"C wrong name", 1, {IN_OPENED, IN_HEADER, IN_ERROR_HOST, IN_COUNT}, "RESTING",
     "</stream:stream>", ACT_CLOSE, END_UNAUTHORIZED},
    {"C error in reply to our header", 1, {IN_OPENED, IN_ERROR_HOST, IN_COUNT}, "RESTING",
     "</stream:stream>", ACT_CLOSE, END_UNAUTHORIZED},
    {"C name taken", 1, {UP_C, IN_ERROR_CONFLICT, IN_COUNT}, "RESTING", "</stream:stream>",
     ACT_CLOSE, END_CONFLICT},
    {"C other error", 1, {UP_C, IN_ERROR_OTHER, IN_COUNT}, "RESTING", "</stream:stream>",
     ACT_CLOSE, END_STREAM_ERROR_RECEIVED},
    {"C stanza too early", 1, {IN_OPENED, IN_HEADER, IN_STANZA, IN_COUNT}, "RESTING",
     "<not-authorized ", ACT_CLOSE, END_STREAM_ERROR_SENT},
    {"C stanza", 1, {UP_C, IN_STANZA, IN_COUNT}, "UP", "", ACT_DELIVER, 0},
    {"C stanza with a bad to", 1, {UP_C, IN_STANZA_BAD_TO, IN_COUNT}, "UP", "", ACT_BOUNCE, 0},
    {"C error with a bad to", 1, {UP_C, IN_STANZA_BAD_TO_ERROR, IN_COUNT}, "UP", "", ACT_DROP, 0},
    {"C stanza without from", 1, {UP_C, IN_STANZA_NO_FROM, IN_COUNT}, "UP", "", ACT_DROP, 0},
    {"C a foreign result", 1, {UP_C, IN_OTHER_RESULT, IN_COUNT}, "UP", "", ACT_DELIVER, 0},
    {"C strange element", 1, {UP_C, IN_STRANGE, IN_COUNT}, "RESTING", "<unsupported-stanza-type ",
     ACT_CLOSE, END_STREAM_ERROR_SENT},
    {"C bad XML", 1, {UP_C, IN_XML_ERROR, IN_COUNT}, "RESTING", "<not-well-formed ", ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"C closed by the peer", 1, {UP_C, IN_STREAM_CLOSE, IN_COUNT}, "RESTING", "</stream:stream>",
     ACT_CLOSE, END_PEER_CLOSED},
    {"C drain", 1, {UP_C, IN_DRAIN, IN_COUNT}, "CLOSING", "</stream:stream>", ACT_TIMER_SET, 0},
    {"C still delivers", 1, {UP_C, IN_DRAIN, IN_STANZA, IN_COUNT}, "CLOSING", "", ACT_DELIVER, 0},
    {"C handshake while closing, delivers", 1,
     {IN_OPENED, IN_HEADER, IN_DRAIN, IN_HANDSHAKE_OK, IN_STANZA, IN_COUNT}, "CLOSING", "",
     ACT_DELIVER, 0},
    {"C closing answered", 1, {UP_C, IN_DRAIN, IN_STREAM_CLOSE, IN_COUNT}, "RESTING", "",
     ACT_CLOSE, END_DRAINED},
    {"C closing not answered", 1, {UP_C, IN_DRAIN, IN_T_STATE, IN_COUNT}, "RESTING", "",
     ACT_CLOSE, END_DRAINED},
    {"C set-up takes too long", 1, {IN_OPENED, IN_HEADER, IN_T_SETUP, IN_COUNT}, "RESTING",
     "<connection-timeout ", ACT_CLOSE, END_SETUP_TIMEOUT},
    {"C lost", 1, {UP_C, IN_LOST, IN_COUNT}, "RESTING", "", ACT_CLOSE, END_LOST},

    {"S deadline", 0, {IN_OPENED, IN_COUNT}, "ACCEPTED", "", ACT_TIMER_SET, 0},
    {"S header", 0, {IN_OPENED, IN_HEADER, IN_COUNT}, "HANDSHAKE",
     " from='gw.lab' id='abababababababababababababababababababab'>", -1, 0},
    {"S unknown component", 0, {IN_OPENED, IN_HEADER_UNKNOWN, IN_COUNT}, "RESTING",
     "<host-unknown ", ACT_CLOSE, END_UNAUTHORIZED},
    {"S errors stand in a stream", 0, {IN_OPENED, IN_HEADER_UNKNOWN, IN_COUNT}, "RESTING",
     "id='abababababababababababababababababababab'><stream:error>", ACT_CLOSE, END_UNAUTHORIZED},
    {"S no component", 0, {IN_OPENED, IN_HEADER_NO_TO, IN_COUNT}, "RESTING",
     "<improper-addressing ", ACT_CLOSE, END_STREAM_ERROR_SENT},
    {"S wrong secret", 0, {IN_OPENED, IN_HEADER, IN_HANDSHAKE_BAD, IN_COUNT}, "RESTING",
     "<not-authorized ", ACT_CLOSE, END_UNAUTHORIZED},
    {"S empty handshake", 0, {IN_OPENED, IN_HEADER, IN_HANDSHAKE_OK, IN_COUNT}, "RESTING",
     "<not-authorized ", ACT_CLOSE, END_UNAUTHORIZED},
    {"S up", 0, {UP_S, IN_COUNT}, "UP", "<handshake/>", ACT_READY, 0},
    {"S up: larger limits", 0, {UP_S, IN_COUNT}, "UP", "<handshake/>", ACT_LIMITS, 0},
    {"S stanza too early", 0, {IN_OPENED, IN_HEADER, IN_STANZA, IN_COUNT}, "RESTING",
     "<not-authorized ", ACT_CLOSE, END_STREAM_ERROR_SENT},
    {"S strange element too early", 0, {IN_OPENED, IN_HEADER, IN_STRANGE, IN_COUNT}, "RESTING",
     "<not-authorized ", ACT_CLOSE, END_STREAM_ERROR_SENT},
    {"S bad XML before the header", 0, {IN_OPENED, IN_XML_ERROR, IN_COUNT}, "RESTING",
     "id='abababababababababababababababababababab'><stream:error><not-well-formed ", ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S stanza", 0, {UP_S, IN_STANZA, IN_COUNT}, "UP", "", ACT_DELIVER, 0},
    {"S stanza with a bad to", 0, {UP_S, IN_STANZA_BAD_TO, IN_COUNT}, "UP", "", ACT_BOUNCE, 0},
    {"S second handshake", 0, {UP_S, IN_HANDSHAKE_GOOD, IN_COUNT}, "RESTING",
     "<unsupported-stanza-type ", ACT_CLOSE, END_STREAM_ERROR_SENT},
    {"S second header", 0, {UP_S, IN_HEADER, IN_COUNT}, "RESTING", "<invalid-xml ", ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S taken over", 0, {UP_S, IN_CONFLICT, IN_COUNT}, "CLOSING", "<conflict ", ACT_TIMER_SET, 0},
    {"S taken over, still delivers", 0, {UP_S, IN_CONFLICT, IN_STANZA, IN_COUNT}, "CLOSING", "",
     ACT_DELIVER, 0},
    {"S taken over, ended", 0, {UP_S, IN_CONFLICT, IN_LOST, IN_COUNT}, "RESTING", "", ACT_CLOSE,
     END_CONFLICT},
    {"S drain", 0, {UP_S, IN_DRAIN, IN_STREAM_CLOSE, IN_COUNT}, "RESTING", "", ACT_CLOSE,
     END_DRAINED},
    {"S closed by the peer", 0, {UP_S, IN_STREAM_CLOSE, IN_COUNT}, "RESTING", "</stream:stream>",
     ACT_CLOSE, END_PEER_CLOSED},
    {"S no handshake in time", 0, {IN_OPENED, IN_HEADER, IN_T_SETUP, IN_COUNT}, "RESTING",
     "<connection-timeout ", ACT_CLOSE, END_SETUP_TIMEOUT},
    {"S error received", 0, {UP_S, IN_ERROR_OTHER, IN_COUNT}, "RESTING", "</stream:stream>",
     ACT_CLOSE, END_STREAM_ERROR_RECEIVED},
};

static void test_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *r = &rules[i];
        struct bench b;
        bench_init(&b, r->client);
        for (int k = 0; r->path[k] != IN_COUNT; k++)
            give_input(&b, r->path[k]);
        if (strcmp(state_name(&b), r->state) != 0)
            fail_msg("%s: state %s", r->rule, state_name(&b));
        if (*r->text == '\0' ? *sent(&b) != '\0' : strstr(sent(&b), r->text) == NULL)
            fail_msg("%s: sent %s", r->rule, sent(&b));
        if (r->act >= 0 && find(&b, (enum gw_act)r->act) == NULL)
            fail_msg("%s: no %s", r->rule, gw_action_name((enum gw_act)r->act));
        if (b.closes && b.reason != r->reason)
            fail_msg("%s: reason %s", r->rule, end_reason_name(b.reason));
        bench_free(&b);
    }
}

static void test_domains_of_a_delivery(void **state)
{
    (void)state;
    static const enum input path[] = {UP_S};
    struct bench b;
    bench_init(&b, false);
    for (size_t i = 0; i < sizeof path / sizeof path[0]; i++)
        give_input(&b, path[i]);
    assert_int_equal(b.s.account, 2); /* the second of that name: its secret fits */
    give_stanza(&b, STANZA_MESSAGE, NULL, "a@ALPHA.lab/X@y", "far.lab/r", NULL);
    const struct gw_action *a = find(&b, ACT_DELIVER);
    assert_non_null(a);
    assert_true(str_is(a->u.pair.local, "alpha.lab"));
    assert_true(str_is(a->u.pair.remote, "far.lab"));
    bench_free(&b);
}

static void test_no_randomness(void **state)
{
    (void)state;
    static const enum input to_header[] = {IN_OPENED, IN_HEADER}, up[] = {UP_C};
    struct bench b;
    random_works = false;
    bench_init(&b, false);
    for (size_t i = 0; i < 2; i++)
        give_input(&b, to_header[i]);
    assert_int_equal(b.reason, END_NO_MEMORY);
    assert_string_equal(sent(&b), "");
    bench_free(&b);
    bench_init(&b, true);
    for (size_t i = 0; i < 3; i++)
        give_input(&b, up[i]);
    assert_int_equal(b.reason, END_NO_MEMORY);
    bench_free(&b);
    random_works = true;
}

/* ---- keepalive ------------------------------------------------------------------------------- */

static void client_up(struct bench *b)
{
    static const enum input up[] = {UP_C};
    bench_init(b, true);
    for (size_t i = 0; i < 3; i++)
        give_input(b, up[i]);
}

/* Lets time pass to the next keepalive; returns what was sent. */
static const char *next_keepalive(struct bench *b)
{
    assert_true(b->armed[TIMER_KEEPALIVE]);
    b->now = b->due[TIMER_KEEPALIVE];
    give_timer(b, TIMER_KEEPALIVE);
    return sent(b);
}

static void test_ping_of_a_silent_peer(void **state)
{
    (void)state;
    struct bench b;
    client_up(&b);
    uint64_t up = b.now;
    assert_string_equal(next_keepalive(&b), " ");
    assert_int_equal(b.now, up + KEEPALIVE);
    const char *ping = next_keepalive(&b);
    assert_int_equal(b.now, up + LINK_PING_MS);
    assert_non_null(
        strstr(ping, " from='gw.lab' to='alpha.lab'><ping xmlns='urn:xmpp:ping'/></iq>"));
    /* A peer that never answered one is left alone, with white space only. */
    for (int i = 0; i < 20; i++)
        assert_string_equal(next_keepalive(&b), " ");
    assert_int_equal(b.closes, 0);
    bench_free(&b);
}

static void answered_once(struct bench *b, enum input answer)
{
    client_up(b);
    while (b->c.pings == 0)
        next_keepalive(b);
    give_input(b, answer);
    assert_null(find(b, ACT_DELIVER)); /* consumed */
    assert_true(b->c.answers_pings);
    while (b->c.pings == 1)
        next_keepalive(b);
}

static void test_peer_that_stops_answering(void **state)
{
    (void)state;
    static const enum input answers[] = {IN_PONG, IN_PONG_ERROR};
    for (size_t i = 0; i < 2; i++) {
        struct bench b;
        answered_once(&b, answers[i]);
        uint64_t asked = b.now;
        next_keepalive(&b);
        assert_int_equal(b.now, asked + LINK_PING_ANSWER_MS);
        assert_int_equal(b.closes, 1);
        assert_int_equal(b.reason, END_LOST);
        bench_free(&b);
    }
}

static void test_any_stanza_is_a_sign_of_life(void **state)
{
    (void)state;
    struct bench b;
    answered_once(&b, IN_PONG);
    b.now += LINK_PING_ANSWER_MS / 2;
    give_input(&b, IN_STANZA);
    uint64_t heard = b.now;
    while (b.c.pings == 2)
        next_keepalive(&b);
    assert_int_equal(b.now, heard + LINK_PING_MS);
    bench_free(&b);
}

static void test_pause_suspends_pings(void **state)
{
    (void)state;
    struct bench b;
    answered_once(&b, IN_PONG);
    link_client_pause(&b.c, true, b.now);
    for (int i = 0; i < 10; i++)
        assert_true(strcmp(next_keepalive(&b), " ") == 0 || *sent(&b) == '\0');
    link_client_pause(&b.c, false, b.now);
    uint64_t resumed = b.now;
    while (b.c.pings == 2)
        next_keepalive(&b);
    assert_int_equal(b.closes, 0);
    assert_true(b.now >= resumed + LINK_PING_MS);
    bench_free(&b);
}

static void test_output_puts_white_space_off(void **state)
{
    (void)state;
    static const enum input up[] = {UP_S};
    struct bench b;
    bench_init(&b, false);
    for (size_t i = 0; i < 3; i++)
        give_input(&b, up[i]);
    uint64_t start = b.now;
    link_server_sent(&b.s, start + KEEPALIVE / 2);
    assert_string_equal(next_keepalive(&b), "");
    assert_string_equal(next_keepalive(&b), " ");
    assert_int_equal(b.now, start + KEEPALIVE / 2 + KEEPALIVE);
    bench_free(&b);
}

/* ---- totality -------------------------------------------------------------------------------- */

static const enum input client_paths[][PATH_MAX_INPUTS] = {
    {IN_COUNT},
    {IN_OPENED, IN_COUNT},
    {IN_OPENED, IN_HEADER, IN_COUNT},
    {UP_C, IN_COUNT},
    {UP_C, IN_DRAIN, IN_COUNT},
    {UP_C, IN_LOST, IN_COUNT},
};
static const enum input server_paths[][PATH_MAX_INPUTS] = {
    {IN_COUNT},
    {IN_OPENED, IN_HEADER, IN_COUNT},
    {UP_S, IN_COUNT},
    {UP_S, IN_CONFLICT, IN_COUNT},
    {UP_S, IN_LOST, IN_COUNT},
};

static void every_input(bool client, const enum input path[PATH_MAX_INPUTS])
{
    for (int in = 0; in < IN_COUNT; in++) {
        struct bench b;
        bench_init(&b, client);
        for (int k = 0; path[k] != IN_COUNT; k++)
            give_input(&b, path[k]);
        bool rested = b.closes > 0;
        give_input(&b, (enum input)in);
        if (rested && b.out.n > 0)
            fail_msg("%s after the end", input_names[in]);
        give_input(&b, IN_LOST);
        assert_string_equal(state_name(&b), "RESTING");
        bench_free(&b);
    }
}

static void test_every_input_in_every_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof client_paths / sizeof client_paths[0]; i++)
        every_input(true, client_paths[i]);
    for (size_t i = 0; i < sizeof server_paths / sizeof server_paths[0]; i++)
        every_input(false, server_paths[i]);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

enum { WALK = 100000 };

static void test_random_walk(void **state)
{
    (void)state;
    uint32_t seed = 7;
    unsigned ends = 0, ups = 0;
    struct bench b;
    bench_init(&b, true);
    for (unsigned i = 0; i < WALK; i++) {
        b.now += next_random(&seed) % 20000;
        uint32_t dice = next_random(&seed);
        /* Half of the steps lead on, or the walk would end at once most of the time. */
        bool set_up = dice % 2 && !(b.client ? b.c.was_up : b.s.was_up);
        static const enum input lead[2][3] = {{UP_S}, {UP_C}};
        unsigned at = b.client ? b.c.state : b.s.state + (b.s.cfg.auth_ms && b.armed[TIMER_SETUP]);
        give_input(&b, set_up && at < 3 ? lead[b.client][at]
                                        : (enum input)(next_random(&seed) % IN_COUNT));
        if (b.closes == 0 || dice % 4)
            continue;
        ends++;
        ups += b.client ? b.c.was_up : b.s.was_up;
        bool client = !b.client;
        bench_free(&b);
        bench_init(&b, client);
    }
    bench_free(&b);
    assert_true(ends > 1000);
    assert_true(ups > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_domains_of_a_delivery),
        cmocka_unit_test(test_no_randomness),
        cmocka_unit_test(test_ping_of_a_silent_peer),
        cmocka_unit_test(test_peer_that_stops_answering),
        cmocka_unit_test(test_any_stanza_is_a_sign_of_life),
        cmocka_unit_test(test_pause_suspends_pings),
        cmocka_unit_test(test_output_puts_white_space_off),
        cmocka_unit_test(test_every_input_in_every_state),
        cmocka_unit_test(test_random_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
