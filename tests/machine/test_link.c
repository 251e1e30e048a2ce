/* Both machines of a component link: a table of rules; TLS and whom it is believed; probes and the
 * clock. What holds for every input is in test_link_walk.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core/base/digest.h"
#include "core/xml/ns.h"
#include "tests/fake/link_bench.h"

static void ok(const struct bench *b)
{
    if (b->wrong != NULL)
        fail_msg("%s", b->wrong);
}

/* ---- rules ----------------------------------------------------------------------------------- */

#define PATH_MAX_INPUTS 6
struct rule {
    const char *rule;
    bool client;
    enum bench_input path[PATH_MAX_INPUTS]; /* ends with IN_COUNT; the last one is looked at */
    const char *state;
    const char *text;       /* must be in what was sent; "" : nothing was sent */
    int act;                /* must be among the actions; -1: any */
    enum end_reason reason; /* when it rests */
};

#define UP_C IN_OPENED, IN_HEADER, IN_HANDSHAKE_OK
#define UP_S IN_OPENED, IN_HEADER, IN_HANDSHAKE_GOOD

static const struct rule rules[] = {
    {"C header",
     1,
     {IN_OPENED, IN_COUNT},
     "HEADER",
     "xmlns:stream='http://etherx.jabber.org/streams' to='gw.lab'>",
     ACT_TIMER_SET,
     0},
    {"C digest of the id",
     1,
     {IN_OPENED, IN_HEADER_ID, IN_COUNT},
     "HANDSHAKE",
     "<handshake>885c5ef356b2a95cf5cf94adf6071a3e4014132c</handshake>",
     -1,
     0},
    {"C header without id",
     1,
     {IN_OPENED, IN_HEADER_NO_ID, IN_COUNT},
     "RESTING",
     "<bad-format ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"C up", 1, {UP_C, IN_COUNT}, "UP", "", ACT_READY, 0},
    {"C up: larger limits", 1, {UP_C, IN_COUNT}, "UP", "", ACT_LIMITS, 0},
    {"C features are ignored",
     1,
     {IN_OPENED, IN_HEADER, IN_FEATURES, IN_COUNT},
     "HANDSHAKE",
     "",
     -1,
     0},
    {"C wrong secret",
     1,
     {IN_OPENED, IN_HEADER, IN_ERROR_AUTH, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_UNAUTHORIZED},
    {"C wrong name",
     1,
     {IN_OPENED, IN_HEADER, IN_ERROR_HOST, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_UNAUTHORIZED},
    {"C error in reply to our header",
     1,
     {IN_OPENED, IN_ERROR_HOST, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_UNAUTHORIZED},
    {"C name taken",
     1,
     {UP_C, IN_ERROR_CONFLICT, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_CONFLICT},
    {"C other error",
     1,
     {UP_C, IN_ERROR_OTHER, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_STREAM_ERROR_RECEIVED},
    {"C stanza too early",
     1,
     {IN_OPENED, IN_HEADER, IN_STANZA, IN_COUNT},
     "RESTING",
     "<not-authorized ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"C stanza", 1, {UP_C, IN_STANZA, IN_COUNT}, "UP", "", ACT_DELIVER, 0},
    {"C stanza with a bad to", 1, {UP_C, IN_STANZA_BAD_TO, IN_COUNT}, "UP", "", ACT_BOUNCE, 0},
    {"C error with a bad to", 1, {UP_C, IN_STANZA_BAD_TO_ERROR, IN_COUNT}, "UP", "", ACT_DROP, 0},
    {"C stanza without from", 1, {UP_C, IN_STANZA_NO_FROM, IN_COUNT}, "UP", "", ACT_DROP, 0},
    {"C a foreign result", 1, {UP_C, IN_OTHER_RESULT, IN_COUNT}, "UP", "", ACT_DELIVER, 0},
    {"C strange element",
     1,
     {UP_C, IN_STRANGE, IN_COUNT},
     "RESTING",
     "<unsupported-stanza-type ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"C bad XML",
     1,
     {UP_C, IN_XML_ERROR, IN_COUNT},
     "RESTING",
     "<not-well-formed ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"C closed by the peer",
     1,
     {UP_C, IN_STREAM_CLOSE, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_PEER_CLOSED},
    {"C drain", 1, {UP_C, IN_DRAIN, IN_COUNT}, "CLOSING", "</stream:stream>", ACT_TIMER_SET, 0},
    {"C still delivers", 1, {UP_C, IN_DRAIN, IN_STANZA, IN_COUNT}, "CLOSING", "", ACT_DELIVER, 0},
    {"C handshake while closing, delivers",
     1,
     {IN_OPENED, IN_HEADER, IN_DRAIN, IN_HANDSHAKE_OK, IN_STANZA, IN_COUNT},
     "CLOSING",
     "",
     ACT_DELIVER,
     0},
    {"C handshake while closing: large ones too",
     1,
     {IN_OPENED, IN_HEADER, IN_DRAIN, IN_HANDSHAKE_OK, IN_COUNT},
     "CLOSING",
     "",
     ACT_LIMITS,
     0},
    {"C closing answered",
     1,
     {UP_C, IN_DRAIN, IN_STREAM_CLOSE, IN_COUNT},
     "RESTING",
     "",
     ACT_CLOSE,
     END_DRAINED},
    {"C closing not answered",
     1,
     {UP_C, IN_DRAIN, IN_T_STATE, IN_COUNT},
     "RESTING",
     "",
     ACT_CLOSE,
     END_DRAINED},
    {"C set-up takes too long",
     1,
     {IN_OPENED, IN_HEADER, IN_T_SETUP, IN_COUNT},
     "RESTING",
     "<connection-timeout ",
     ACT_CLOSE,
     END_SETUP_TIMEOUT},
    {"C lost", 1, {UP_C, IN_LOST, IN_COUNT}, "RESTING", "", ACT_CLOSE, END_LOST},

    {"S deadline", 0, {IN_OPENED, IN_COUNT}, "HEADER", "", ACT_TIMER_SET, 0},
    {"S header",
     0,
     {IN_OPENED, IN_HEADER, IN_COUNT},
     "HANDSHAKE",
     " from='gw.lab' id='abababababababababababababababababababab'>",
     -1,
     0},
    {"S unknown component",
     0,
     {IN_OPENED, IN_HEADER_UNKNOWN, IN_COUNT},
     "RESTING",
     "<host-unknown ",
     ACT_CLOSE,
     END_UNAUTHORIZED},
    {"S errors stand in a stream",
     0,
     {IN_OPENED, IN_HEADER_UNKNOWN, IN_COUNT},
     "RESTING",
     "id='abababababababababababababababababababab'><stream:error>",
     ACT_CLOSE,
     END_UNAUTHORIZED},
    {"S no component",
     0,
     {IN_OPENED, IN_HEADER_NO_TO, IN_COUNT},
     "RESTING",
     "<improper-addressing ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S wrong secret",
     0,
     {IN_OPENED, IN_HEADER, IN_HANDSHAKE_BAD, IN_COUNT},
     "RESTING",
     "<not-authorized ",
     ACT_CLOSE,
     END_UNAUTHORIZED},
    {"S empty handshake",
     0,
     {IN_OPENED, IN_HEADER, IN_HANDSHAKE_OK, IN_COUNT},
     "RESTING",
     "<not-authorized ",
     ACT_CLOSE,
     END_UNAUTHORIZED},
    {"S up", 0, {UP_S, IN_COUNT}, "UP", "<handshake/>", ACT_READY, 0},
    {"S up: larger limits", 0, {UP_S, IN_COUNT}, "UP", "<handshake/>", ACT_LIMITS, 0},
    {"S stanza too early",
     0,
     {IN_OPENED, IN_HEADER, IN_STANZA, IN_COUNT},
     "RESTING",
     "<not-authorized ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S strange element too early",
     0,
     {IN_OPENED, IN_HEADER, IN_STRANGE, IN_COUNT},
     "RESTING",
     "<not-authorized ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S bad XML before the header",
     0,
     {IN_OPENED, IN_XML_ERROR, IN_COUNT},
     "RESTING",
     "id='abababababababababababababababababababab'><stream:error><not-well-formed ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S stanza", 0, {UP_S, IN_STANZA, IN_COUNT}, "UP", "", ACT_DELIVER, 0},
    {"S stanza with a bad to", 0, {UP_S, IN_STANZA_BAD_TO, IN_COUNT}, "UP", "", ACT_BOUNCE, 0},
    {"S second handshake",
     0,
     {UP_S, IN_HANDSHAKE_GOOD, IN_COUNT},
     "RESTING",
     "<unsupported-stanza-type ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S second header",
     0,
     {UP_S, IN_HEADER, IN_COUNT},
     "RESTING",
     "<invalid-xml ",
     ACT_CLOSE,
     END_STREAM_ERROR_SENT},
    {"S taken over", 0, {UP_S, IN_CONFLICT, IN_COUNT}, "CLOSING", "<conflict ", ACT_TIMER_SET, 0},
    {"S taken over, still delivers",
     0,
     {UP_S, IN_CONFLICT, IN_STANZA, IN_COUNT},
     "CLOSING",
     "",
     ACT_DELIVER,
     0},
    {"S taken over, ended",
     0,
     {UP_S, IN_CONFLICT, IN_LOST, IN_COUNT},
     "RESTING",
     "",
     ACT_CLOSE,
     END_CONFLICT},
    {"S drain",
     0,
     {UP_S, IN_DRAIN, IN_STREAM_CLOSE, IN_COUNT},
     "RESTING",
     "",
     ACT_CLOSE,
     END_DRAINED},
    {"S closed by the peer",
     0,
     {UP_S, IN_STREAM_CLOSE, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_PEER_CLOSED},
    {"S no handshake in time",
     0,
     {IN_OPENED, IN_HEADER, IN_T_SETUP, IN_COUNT},
     "RESTING",
     "<connection-timeout ",
     ACT_CLOSE,
     END_SETUP_TIMEOUT},
    {"S error received",
     0,
     {UP_S, IN_ERROR_OTHER, IN_COUNT},
     "RESTING",
     "</stream:stream>",
     ACT_CLOSE,
     END_STREAM_ERROR_RECEIVED},
};

static void run(struct bench *b, const enum bench_input *path)
{
    for (; *path != IN_COUNT; path++)
        bench_give(b, *path);
    ok(b);
}

static void test_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *r = &rules[i];
        struct bench b;
        bench_init(&b, r->client, BENCH_PLAIN, false);
        run(&b, r->path);
        if (strcmp(bench_state(&b), r->state) != 0)
            fail_msg("%s: state %s", r->rule, bench_state(&b));
        if (*r->text == '\0' ? *b.sent != '\0' : strstr(b.sent, r->text) == NULL)
            fail_msg("%s: sent %s", r->rule, b.sent);
        if (r->act >= 0 && bench_find(&b, (enum gw_act)r->act) == NULL)
            fail_msg("%s: no %s", r->rule, gw_action_name((enum gw_act)r->act));
        if (b.closes && b.reason != r->reason)
            fail_msg("%s: reason %s", r->rule, end_reason_name(b.reason));
        bench_free(&b);
    }
}

static void give_all(struct bench *b, bool client, enum bench_profile profile, bool clock,
                     const enum bench_input *path)
{
    bench_init(b, client, profile, clock);
    run(b, path);
}
#define GIVE(b, client, profile, clock, ...)                                                       \
    give_all((b), (client), (profile), (clock), (const enum bench_input[]){__VA_ARGS__, IN_COUNT})

static void test_domains_of_a_delivery(void **state)
{
    (void)state;
    struct bench b;
    GIVE(&b, false, BENCH_PLAIN, false, UP_S);
    assert_int_equal(b.s.account, 2); /* the second of that name: its secret fits */
    bench_stanza(&b, STANZA_MESSAGE, NULL, "a@ALPHA.lab/X@y", "far.lab/r", NULL, NULL);
    const struct gw_action *a = bench_find(&b, ACT_DELIVER);
    assert_non_null(a);
    assert_true(str_is(a->u.pair.local, "alpha.lab"));
    assert_true(str_is(a->u.pair.remote, "far.lab"));
    ok(&b);
    bench_free(&b);
}

/* One bad stanza costs nobody the link; loops are impossible, since no answer is answered. */
static void test_faulty_stanzas(void **state)
{
    (void)state;
    static const struct {
        enum stanza_kind kind;
        const char *type, *from, *to;
        enum gw_act act;
        const char *condition;
    } rows[] = {
        {STANZA_MESSAGE, NULL, "a@alpha.lab/x", "b@far.lab", ACT_DELIVER, NULL},
        {STANZA_MESSAGE, NULL, NULL, "b@far.lab", ACT_DROP, "no-from"},
        {STANZA_MESSAGE, NULL, NULL, NULL, ACT_DROP, "no-from"},
        {STANZA_MESSAGE, NULL, "", "b@far.lab", ACT_DROP, "bad-from"},
        {STANZA_MESSAGE, NULL, "a@@alpha.lab", "b@far.lab", ACT_DROP, "bad-from"},
        {STANZA_MESSAGE, NULL, "a@alpha..lab", "b@far.lab", ACT_DROP, "bad-from"},
        {STANZA_MESSAGE, NULL, "a b@alpha.lab", "b@far.lab", ACT_DROP, "bad-from"},
        {STANZA_MESSAGE, NULL, "a@alpha.lab", NULL, ACT_BOUNCE, "bad-request"},
        {STANZA_MESSAGE, NULL, "a@alpha.lab", "", ACT_BOUNCE, "jid-malformed"},
        {STANZA_MESSAGE, NULL, "a@alpha.lab", "b@far..lab", ACT_BOUNCE, "jid-malformed"},
        {STANZA_MESSAGE, NULL, "a@alpha.lab", "b c@far.lab", ACT_BOUNCE, "jid-malformed"},
        {STANZA_MESSAGE, NULL, "a@alpha.lab", "b@far.lab/", ACT_BOUNCE, "jid-malformed"},
        {STANZA_MESSAGE, "error", "a@alpha.lab", NULL, ACT_DROP, "no-to"},
        {STANZA_PRESENCE, "unavailable", "a@alpha.lab", "b@far..lab", ACT_DROP, "bad-to"},
        {STANZA_IQ, "result", "a@alpha.lab", NULL, ACT_DROP, "no-to"},
        {STANZA_IQ, "error", "a@alpha.lab", "b@far.lab/", ACT_DROP, "bad-to"},
        {STANZA_IQ, "get", "a@alpha.lab", NULL, ACT_BOUNCE, "bad-request"},
        {STANZA_IQ, NULL, "a@alpha.lab", "b@far.lab", ACT_BOUNCE, "bad-request"},
        {STANZA_IQ, "", "a@alpha.lab", "b@far.lab", ACT_BOUNCE, "bad-request"},
        {STANZA_IQ, "Get", "a@alpha.lab", "b@far.lab", ACT_BOUNCE, "bad-request"},
        {STANZA_IQ, "chat", NULL, "b@far.lab", ACT_DROP, "no-from"},
        {STANZA_IQ, "result", "a@alpha.lab", "b@far.lab", ACT_DELIVER, NULL},
        {STANZA_IQ, "error", "a@alpha.lab", "b@far.lab", ACT_DELIVER, NULL},
        {STANZA_PRESENCE, "odd", "a@alpha.lab", "b@far.lab", ACT_DELIVER, NULL},
    };
    for (size_t i = 0; i < 2 * sizeof rows / sizeof rows[0]; i++) {
        const size_t n = i / 2;
        struct bench b;
        if (i % 2)
            GIVE(&b, true, BENCH_PLAIN, false, UP_C);
        else
            GIVE(&b, false, BENCH_PLAIN, false, UP_S);
        bench_stanza(&b, rows[n].kind, rows[n].type, rows[n].from, rows[n].to, NULL, NULL);
        const struct gw_action *a = bench_find(&b, rows[n].act);
        bool bounce = rows[n].act == ACT_BOUNCE;
        if (a == NULL)
            fail_msg("row %zu: no %s", n, gw_action_name(rows[n].act));
        if (rows[n].condition != NULL)
            assert_string_equal(a->u.bounce.condition, rows[n].condition);
        if (bounce)
            assert_string_equal(a->u.bounce.type, "modify");
        assert_true(!bounce == (bench_find(&b, ACT_BOUNCE) == NULL));
        assert_string_equal(bench_state(&b), "UP");
        ok(&b);
        bench_free(&b);
    }
}

static void no_randomness_at(bool client, enum bench_profile profile,
                             const enum bench_input *before, enum bench_input at)
{
    struct bench b;
    give_all(&b, client, profile, false, before);
    b.no_random = true;
    bench_give(&b, at);
    ok(&b);
    assert_string_equal(bench_state(&b), "RESTING");
    assert_int_equal(b.reason, END_NO_MEMORY);
    assert_string_equal(b.sent, "");
    bench_free(&b);
}

static void test_no_randomness(void **state)
{
    (void)state;
    static const enum bench_input opened[] = {IN_OPENED, IN_COUNT};
    static const enum bench_input header[] = {IN_OPENED, IN_HEADER, IN_COUNT};
    static const enum bench_input in_tls[] = {IN_OPENED, IN_TLS_SELF, IN_COUNT};
    no_randomness_at(false, BENCH_PLAIN, opened, IN_HEADER);
    no_randomness_at(false, BENCH_PLAIN, opened, IN_HEADER_UNKNOWN);
    no_randomness_at(false, BENCH_TLS, in_tls, IN_HEADER_TLS);
    no_randomness_at(true, BENCH_PLAIN, header, IN_HANDSHAKE_OK);
}

/* ---- TLS: whom to believe -------------------------------------------------------------------- */

struct trust_case {
    const char *name;
    enum bench_profile profile;
    enum bench_input tls;
    enum trust_reason verdict;
};

static const struct trust_case trust_cases[] = {
    {"imported", BENCH_TLS, IN_TLS_STORE, TRUST_STORE},
    {"self-signed, not imported", BENCH_TLS, IN_TLS_SELF, TRUST_NOT_IN_STORE},
    {"the root is known, the certificate is not imported", BENCH_TLS, IN_TLS_ROOT, TRUST_ONLY_ROOT},
    {"no certificate", BENCH_TLS, IN_TLS_NONE, TRUST_NO_CERTIFICATE},
    {"the name was proven earlier", BENCH_PROVEN, IN_TLS_ROOT, TRUST_PROVEN_NAME},
    {"another name was proven earlier", BENCH_PROVEN, IN_TLS_NAME, TRUST_WRONG_NAME},
    {"self-signed after the switch", BENCH_PROVEN, IN_TLS_SELF, TRUST_AFTER_SWITCH},
    {"imported after the switch", BENCH_PROVEN, IN_TLS_STORE, TRUST_STORE},
    {"common root", BENCH_BOTH, IN_TLS_ROOT, TRUST_ROOT},
    {"common root, wrong name", BENCH_BOTH, IN_TLS_NAME, TRUST_WRONG_NAME},
    {"self-signed instead of the common root", BENCH_BOTH, IN_TLS_SELF, TRUST_NOT_IN_STORE},
    {"no certificate instead of the common root", BENCH_BOTH, IN_TLS_NONE, TRUST_NO_CERTIFICATE},
};
enum { TRUST_CASES = sizeof trust_cases / sizeof trust_cases[0] };

/* The step in which a certificate was judged. */
static void check_verdict(const struct bench *b, const char *name, enum trust_reason want)
{
    const struct gw_action *log = bench_log(b, "link.trust");
    bool judged = b->client ? b->c.judged : b->s.judged;
    enum trust_reason verdict = b->client ? b->c.verdict : b->s.verdict;
    if (!judged || verdict != want || log == NULL)
        fail_msg("%s: %s", name, judged ? trust_reason_name(verdict) : "not judged");
    assert_true(str_is(bench_log_value(log, "reason"), trust_reason_name(want)));
    assert_true(str_is(bench_log_value(log, "peer_name"), "peer.lab"));
    if (want != TRUST_NO_CERTIFICATE)
        assert_int_equal(bench_log_value(log, "key").n, 32 * 3 - 1);
    log = bench_log(b, "link.trust.refused");
    assert_int_equal(log != NULL, !trust_ok(want));
    if (log != NULL) {
        assert_int_equal(log->u.log.level, LOG_WARN);
        assert_true(str_is(bench_log_value(log, "msg"), trust_reason_text(want)));
    }
}

/* What the other side is told, inside a stream of ours. */
static void check_refusal(struct bench *b, enum trust_reason why)
{
    const char *stream = strstr(b->sent, "<stream:stream "),
               *error = strstr(b->sent, "<stream:error>");
    assert_string_equal(bench_state(b), "RESTING");
    assert_int_equal(b->reason, END_UNTRUSTED);
    assert_true(str_is(bench_find(b, ACT_CLOSE)->u.close.text, trust_reason_text(why)));
    assert_non_null(stream);
    assert_non_null(error);
    assert_true(stream < error);
    assert_non_null(strstr(error, "<not-authorized "));
    const char *text = strstr(error, ">" LINK_CERT_REFUSED ": ");
    assert_non_null(text);
    text += strlen(">" LINK_CERT_REFUSED ": ");
    assert_int_equal(strncmp(text, trust_reason_name(why), strlen(trust_reason_name(why))), 0);
    assert_non_null(strstr(error, "</stream:error></stream:stream>"));
    assert_null(strstr(b->sent, "<handshake"));
}

static void test_client_judges(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRUST_CASES; i++) {
        const struct trust_case *t = &trust_cases[i];
        enum trust_reason want = t->verdict;
        struct bench b;
        GIVE(&b, true, t->profile, false, IN_OPENED);
        assert_non_null(bench_find(&b, ACT_TLS_START));
        assert_string_equal(b.sent, "");
        assert_string_equal(bench_state(&b), "TLS");
        bench_give(&b, t->tls);
        ok(&b);
        check_verdict(&b, t->name, want);
        assert_non_null(bench_log(&b, "tls.up"));
        if (!trust_ok(want)) {
            check_refusal(&b, want);
        } else {
            assert_non_null(strstr(b.sent, " to='gw.lab'>"));
            bench_give(&b, IN_HEADER_ID);
            bench_give(&b, IN_HANDSHAKE_OK);
            ok(&b);
            assert_string_equal(bench_state(&b), "UP");
        }
        bench_free(&b);
    }
}

/* The same where the peer dialled (TLS comes by itself) and where we did. */
static void server_judges(const struct trust_case *t, bool start_tls)
{
    static const enum bench_input headers[] = {IN_HEADER, IN_HEADER_TLS, IN_HEADER_PROVEN,
                                               IN_HEADER_BOTH};
    enum trust_reason want = t->verdict;
    struct bench b;
    GIVE(&b, false, start_tls ? t->profile : BENCH_PLAIN, false, IN_OPENED);
    assert_int_equal(bench_find(&b, ACT_TLS_START) != NULL, start_tls);
    bench_give(&b, t->tls);
    assert_string_equal(bench_state(&b), "HEADER");
    assert_string_equal(b.sent, "");
    bench_give(&b, headers[t->profile]);
    ok(&b);
    check_verdict(&b, t->name, want);
    if (!trust_ok(want)) {
        check_refusal(&b, want);
    } else {
        /* Where auth is tls the digest is not looked at. */
        bench_give(&b, t->profile == BENCH_BOTH ? IN_HANDSHAKE_GOOD : IN_HANDSHAKE_BAD);
        ok(&b);
        assert_string_equal(bench_state(&b), "UP");
        assert_null(bench_log(&b, "link.trust")); /* it was told once */
    }
    bench_free(&b);
}

static void test_server_judges(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRUST_CASES; i++) {
        server_judges(&trust_cases[i], false);
        server_judges(&trust_cases[i], true);
    }
}

static void test_tls_and_password(void **state)
{
    (void)state;
    struct bench b;
    GIVE(&b, false, BENCH_BOTH, false, IN_OPENED, IN_TLS_ROOT, IN_HEADER_BOTH, IN_HANDSHAKE_BAD);
    assert_int_equal(b.reason, END_UNAUTHORIZED);
    assert_non_null(strstr(b.sent, "the handshake does not fit the secret"));
    assert_true(b.s.judged && trust_ok(b.s.verdict));
    bench_free(&b);
    GIVE(&b, false, BENCH_BOTH, false, IN_OPENED, IN_TLS_ROOT, IN_HEADER_BOTH, IN_HANDSHAKE_EMPTY);
    assert_int_equal(b.reason, END_UNAUTHORIZED);
    bench_free(&b);
}

/* With auth tls there may be no secret: then the digest is that of the id alone. */
static void test_no_secret(void **state)
{
    (void)state;
    struct bench b;
    GIVE(&b, true, BENCH_TLS, false, IN_OPENED, IN_TLS_STORE, IN_HEADER_ID);
    /* SHA-1 of "id1" */
    char digest[DIGEST_SHA1_HEX + 1];
    const struct str id = STR("id1");
    assert_true(digest_sha1_hex(digest, &id, 1));
    assert_non_null(strstr(b.sent, digest));
    bench_free(&b);
}

static void test_password_on_an_encrypted_connection(void **state)
{
    (void)state;
    struct bench b;
    GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, IN_TLS_NONE, IN_HEADER, IN_HANDSHAKE_GOOD);
    assert_string_equal(bench_state(&b), "UP");
    assert_true(b.s.end.encrypted);
    assert_false(b.s.judged);
    bench_free(&b);
}

static void test_clear_where_tls_is_required(void **state)
{
    (void)state;
    static const enum bench_input headers[] = {IN_HEADER_TLS, IN_HEADER_PROVEN, IN_HEADER_BOTH};
    for (size_t i = 0; i < 3; i++) {
        struct bench b;
        GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, headers[i]);
        assert_int_equal(b.reason, END_UNAUTHORIZED);
        assert_non_null(strstr(b.sent, "<stream:stream "));
        assert_non_null(strstr(b.sent, "<not-authorized "));
        assert_non_null(strstr(b.sent, LINK_TLS_NEEDED));
        assert_false(b.s.judged);
        bench_free(&b);
    }
}

/* many.lab: [6] another certificate, [7] password without a secret, [8] and [9] tls+password with
 * two secrets, [10] tls. */
static void test_several_accounts_of_a_name(void **state)
{
    (void)state;
    struct bench b;
    GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, IN_TLS_ROOT, IN_HEADER_MANY, IN_HANDSHAKE_GOOD);
    assert_string_equal(bench_state(&b), "UP");
    assert_int_equal(b.s.account, 9);
    assert_true(b.s.judged && b.s.verdict == TRUST_ROOT);
    bench_free(&b);
    GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, IN_TLS_STORE, IN_HEADER_MANY, IN_HANDSHAKE_BAD);
    assert_string_equal(bench_state(&b), "UP");
    assert_int_equal(b.s.account, 10);
    assert_true(b.s.judged && b.s.verdict == TRUST_STORE);
    bench_free(&b);
    /* An account without a secret proves nothing, in clear or not. */
    GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, IN_HEADER_MANY, IN_HANDSHAKE_EMPTY);
    assert_int_equal(b.reason, END_UNAUTHORIZED);
    bench_free(&b);
    GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, IN_TLS_NAME, IN_HEADER_MANY, IN_HANDSHAKE_EMPTY);
    assert_int_equal(b.reason, END_UNAUTHORIZED);
    bench_free(&b);
}

/* ---- TLS: what can go wrong ------------------------------------------------------------------ */

static const char *close_text(const struct bench *b, char out[128])
{
    const struct gw_action *a = bench_find(b, ACT_CLOSE);
    assert_non_null(a);
    str_copy(out, 128, a->u.close.text);
    return out;
}

/* The operator sees whether our password or our certificate was refused. */
static void test_ours_was_refused(void **state)
{
    (void)state;
    static const struct {
        enum bench_input in;
        const char *reason;
        bool certificate, clear;
        const char *text;
    } cases[] = {{IN_ERROR_AUTH, "not-authorized", false, false, "so it is"},
                 {IN_ERROR_CERT, "not-authorized", true, false, LINK_CERT_REFUSED ": wrong-name"},
                 {IN_ERROR_TLS, "not-authorized", false, true, LINK_TLS_NEEDED},
                 {IN_TLS_FAILED_OURS, "certificate-refused", true, false, NULL},
                 {IN_LOST_OURS, "certificate-refused", true, false, NULL}};
    for (size_t i = 0; i < 10; i++) {
        bool client = i % 2;
        struct bench b;
        char text[128];
        GIVE(&b, client, BENCH_BOTH, false, IN_OPENED, IN_TLS_ROOT, IN_HEADER_BOTH);
        bench_give(&b, cases[i / 2].in);
        ok(&b);
        assert_int_equal(b.reason, END_UNAUTHORIZED);
        assert_int_equal(bench_end(&b)->cert_refused, cases[i / 2].certificate);
        assert_int_equal(bench_end(&b)->tls_needed, cases[i / 2].clear);
        const struct gw_action *log = bench_log(&b, "link.error.received");
        assert_non_null(log);
        assert_int_equal(log->u.log.level, LOG_WARN);
        assert_true(str_is(bench_log_value(log, "reason"), cases[i / 2].reason));
        assert_true(bench_log_value(log, "msg").n > 0);
        if (cases[i / 2].text != NULL)
            assert_string_equal(close_text(&b, text), cases[i / 2].text);
        bench_free(&b);
    }
}

static void test_tls_fails(void **state)
{
    (void)state;
    static const struct {
        enum bench_input in;
        enum end_reason reason;
        bool refused;
    } cases[] = {{IN_TLS_FAILED, END_TLS_FAILED, false},
                 {IN_TLS_FAILED_OURS, END_UNAUTHORIZED, true},
                 {IN_LOST, END_LOST, false},
                 {IN_LOST_OURS, END_UNAUTHORIZED, true},
                 {IN_T_SETUP, END_SETUP_TIMEOUT, false},
                 {IN_DRAIN, END_DRAINED, false},
                 /* bytes before TLS, however they are read */
                 {IN_XML_ERROR, END_TLS_FAILED, false},
                 {IN_HEADER, END_TLS_FAILED, false},
                 {IN_STANZA, END_TLS_FAILED, false},
                 {IN_STREAM_CLOSE, END_PEER_CLOSED, false}};
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        struct bench b;
        GIVE(&b, i % 2, BENCH_TLS, false, IN_OPENED);
        assert_string_equal(bench_state(&b), "TLS");
        bench_give(&b, cases[i / 2].in);
        ok(&b);
        assert_string_equal(bench_state(&b), "RESTING");
        assert_int_equal(b.reason, cases[i / 2].reason);
        assert_int_equal(bench_end(&b)->cert_refused, cases[i / 2].refused);
        assert_string_equal(b.sent, "");
        bench_free(&b);
    }
}

/* Once a link has been up its certificate is no matter any more, whatever TLS says at the end. */
static void test_cut_after_up(void **state)
{
    (void)state;
    struct bench b;
    for (int client = 0; client < 2; client++) {
        bench_init(&b, client, BENCH_BOTH, false);
        while (bench_end(&b)->state != LINK_UP)
            bench_give(&b, bench_lead(&b));
        bench_give(&b, IN_LOST_OURS);
        ok(&b);
        assert_int_equal(b.reason, END_LOST);
        assert_false(bench_end(&b)->cert_refused);
        bench_free(&b);
    }
}

/* A second one changes nothing, and neither does one on a stream that has begun in clear. */
static void test_tls_up_twice(void **state)
{
    (void)state;
    struct bench b;
    GIVE(&b, true, BENCH_TLS, false, IN_OPENED, IN_TLS_STORE, IN_TLS_SELF);
    assert_int_equal(b.out.n, 0);
    assert_int_equal(b.c.verdict, TRUST_STORE);
    bench_free(&b);
    GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, IN_TLS_SELF, IN_TLS_STORE);
    assert_int_equal(b.out.n, 0);
    bench_give(&b, IN_HEADER_TLS);
    assert_int_equal(b.reason, END_UNTRUSTED);
    bench_free(&b);
    GIVE(&b, true, BENCH_PLAIN, false, IN_OPENED, IN_TLS_STORE);
    assert_int_equal(b.out.n, 0);
    assert_false(b.c.end.encrypted || b.c.judged);
    bench_free(&b);
    GIVE(&b, false, BENCH_PLAIN, false, IN_OPENED, IN_HEADER, IN_TLS_STORE);
    assert_int_equal(b.out.n, 0);
    assert_false(b.s.end.encrypted);
    bench_free(&b);
    GIVE(&b, false, BENCH_PLAIN, false, IN_TLS_STORE); /* before EV_OPENED */
    assert_int_equal(b.out.n, 0);
    bench_free(&b);
}

/* ---- keepalive ------------------------------------------------------------------------------- */

static void client_up(struct bench *b, bool clock)
{
    GIVE(b, true, BENCH_PLAIN, clock, UP_C);
}

static void test_ping_of_a_silent_peer(void **state)
{
    (void)state;
    struct bench b;
    client_up(&b, false);
    uint64_t up = b.now;
    assert_string_equal(bench_keepalive(&b), " ");
    assert_int_equal(b.now, up + BENCH_KEEPALIVE);
    const char *ping = bench_keepalive(&b);
    assert_int_equal(b.now, up + LINK_PING_MS);
    assert_non_null(
        strstr(ping, " from='gw.lab' to='alpha.lab'><ping xmlns='urn:xmpp:ping'/></iq>"));
    assert_int_equal(b.c.probes.ping.sent, 1);
    assert_int_equal(b.c.probes.ping.last_sent_ms, b.now);
    /* A peer that never answered one is left alone, with white space only. */
    for (int i = 0; i < 20; i++)
        assert_string_equal(bench_keepalive(&b), " ");
    assert_int_equal(b.closes, 0);
    assert_int_equal(b.c.probes.space.sent, 21);
    assert_int_equal(b.c.probes.space.last_sent_ms, b.now);
    assert_int_equal(b.c.probes.ping.answered, 0);
    ok(&b);
    bench_free(&b);
}

static void answered_once(struct bench *b, enum bench_input answer)
{
    client_up(b, false);
    while (b->c.probes.ping.sent == 0)
        bench_keepalive(b);
    b->now += 7;
    bench_give(b, answer);
    assert_null(bench_find(b, ACT_DELIVER)); /* consumed */
    assert_int_equal(b->c.probes.ping.answered, 1);
    assert_int_equal(b->c.probes.ping.last_answer_ms, b->now);
    while (b->c.probes.ping.sent == 1)
        bench_keepalive(b);
    ok(b);
}

static void test_peer_that_stops_answering(void **state)
{
    (void)state;
    static const enum bench_input answers[] = {IN_PONG, IN_PONG_ERROR};
    for (size_t i = 0; i < 2; i++) {
        struct bench b;
        answered_once(&b, answers[i]);
        uint64_t asked = b.now;
        bench_keepalive(&b);
        assert_int_equal(b.now, asked + LINK_PING_ANSWER_MS);
        assert_int_equal(b.closes, 1);
        assert_int_equal(b.reason, END_LOST);
        ok(&b);
        bench_free(&b);
    }
}

/* One question, one answer, however often it is repeated; a late one is consumed as well. */
static void test_answers_are_counted_once(void **state)
{
    (void)state;
    struct bench b;
    answered_once(&b, IN_PONG);
    bench_give(&b, IN_PONG);
    bench_give(&b, IN_PONG);
    assert_int_equal(b.c.probes.ping.answered, 2);
    assert_null(bench_find(&b, ACT_DELIVER));
    bench_stanza(&b, STANZA_IQ, "get", "alpha.lab", "gw.lab", "ping-abababababab-1", NULL);
    assert_non_null(bench_find(&b, ACT_DELIVER)); /* a question is none */
    bench_stanza(&b, STANZA_MESSAGE, "error", "alpha.lab", "gw.lab", "ping-abababababab-1", NULL);
    assert_non_null(bench_find(&b, ACT_DELIVER));
    ok(&b);
    bench_free(&b);
}

static void test_any_stanza_is_a_sign_of_life(void **state)
{
    (void)state;
    struct bench b;
    answered_once(&b, IN_PONG);
    b.now += LINK_PING_ANSWER_MS / 2;
    bench_give(&b, IN_STANZA);
    uint64_t heard = b.now;
    while (b.c.probes.ping.sent == 2)
        bench_keepalive(&b);
    assert_int_equal(b.now, heard + LINK_PING_MS);
    ok(&b);
    bench_free(&b);
}

static void test_pause_suspends_probes(void **state)
{
    (void)state;
    struct bench b;
    answered_once(&b, IN_PONG);
    link_client_pause(&b.c, true, b.now);
    for (int i = 0; i < 10; i++)
        assert_true(strcmp(bench_keepalive(&b), " ") == 0 || *b.sent == '\0');
    link_client_pause(&b.c, false, b.now);
    uint64_t resumed = b.now;
    while (b.c.probes.ping.sent == 2)
        bench_keepalive(&b);
    assert_int_equal(b.closes, 0);
    assert_true(b.now >= resumed + LINK_PING_MS);
    ok(&b);
    bench_free(&b);
}

/* White space is for silence: whatever the driver wrote puts it off. */
static void test_output_puts_white_space_off(void **state)
{
    (void)state;
    for (int client = 0; client < 2; client++) {
        struct bench b;
        bench_init(&b, client, BENCH_PLAIN, false);
        b.c.cfg.ping_to = STR_NONE;
        while (bench_end(&b)->state != LINK_UP)
            bench_give(&b, bench_lead(&b));
        uint64_t wrote = b.now + BENCH_KEEPALIVE / 2;
        if (client)
            link_client_sent(&b.c, wrote);
        else
            link_server_sent(&b.s, wrote);
        assert_string_equal(bench_keepalive(&b), "");
        assert_string_equal(bench_keepalive(&b), " ");
        assert_int_equal(b.now, wrote + BENCH_KEEPALIVE);
        const struct link_probe *p = client ? &b.c.probes.space : &b.s.probes.space;
        assert_int_equal(p->sent, 1);
        assert_int_equal(p->last_sent_ms, b.now);
        ok(&b);
        bench_free(&b);
    }
}

static void test_keepalive_has_a_default(void **state)
{
    (void)state;
    struct bench b;
    bench_init(&b, false, BENCH_PLAIN, false);
    struct link_server_config cfg = b.s.cfg;
    cfg.keepalive_ms = 0;
    link_server_init(&b.s, &cfg, &b.env);
    run(&b, (const enum bench_input[]){UP_S, IN_COUNT});
    assert_int_equal(b.due[TIMER_KEEPALIVE] - b.now, LINK_KEEPALIVE_MS);
    bench_free(&b);
}

/* ---- the clock ------------------------------------------------------------------------------- */

static void test_time_is_asked(void **state)
{
    (void)state;
    struct bench b;
    client_up(&b, true);
    uint64_t up = b.now;
    assert_non_null(
        strstr(b.sent, " from='gw.lab' to='alpha.lab'><time xmlns='urn:xmpp:time'/></iq>"));
    assert_int_equal(b.c.probes.time.sent, 1);
    bench_give(&b, IN_TIME);
    assert_null(bench_find(&b, ACT_DELIVER));
    assert_int_equal(b.c.probes.time.answered, 1);
    assert_true(b.c.skew_known);
    assert_int_equal(b.c.skew_ms, 0);
    while (b.c.probes.time.sent == 1) {
        bench_keepalive(&b);
        bench_give(&b,
                   IN_STANZA); /* else it would be pinged and found dead: it answers questions */
    }
    assert_int_equal(b.now, up + LINK_TIME_MS);
    ok(&b);
    bench_free(&b);
}

static void test_nobody_to_ask_for_the_time(void **state)
{
    (void)state;
    struct bench b;
    bench_init(&b, true, BENCH_PLAIN, true);
    b.c.cfg.ping_to = STR_NONE;
    run(&b, (const enum bench_input[]){UP_C, IN_COUNT});
    assert_string_equal(b.sent, "");
    assert_int_equal(b.c.probes.time.sent, 0);
    bench_free(&b);
    bench_init(&b, true, BENCH_PLAIN, true);
    run(&b, (const enum bench_input[]){IN_OPENED, IN_HEADER, IN_COUNT});
    link_client_pause(&b.c, true, b.now);
    bench_give(&b, IN_HANDSHAKE_OK);
    assert_string_equal(b.sent, "");
    link_client_pause(&b.c, false, b.now);
    assert_non_null(strstr(bench_keepalive(&b), NS_TIME));
    bench_free(&b);
}

/* 1766000000 is 2025-12-17T19:33:20Z. */
static void test_skew(void **state)
{
    (void)state;
    static const struct {
        const char *utc;
        uint64_t trip;
        int64_t skew;
        const char *told;
    } cases[] = {
        {"2025-12-17T19:33:20Z", 0, 0, NULL},
        {"2025-12-17T19:33:25Z", 0, 5000, NULL},
        {"2025-12-17T19:33:25.001Z", 0, 5001, "ahead"},
        {"2025-12-17T19:33:14.9Z", 0, -5100, "behind"},
        {"2025-12-17T20:33:20+01:00", 0, 0, NULL},
        {"2025-12-17T19:33:21Z", 2000, 0, NULL}, /* read half way */
        {"2026-12-17T19:33:21Z", 2000, 365 * 86400000LL, "ahead"},
        {"0000-01-01T00:00:00Z", 0, -62167219200000 - 1766000000000, "behind"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench b;
        client_up(&b, true);
        b.now += cases[i].trip;
        b.wall += (int64_t)cases[i].trip;
        b.skew_utc = cases[i].utc;
        bench_give(&b, IN_TIME);
        ok(&b);
        assert_true(b.c.skew_known);
        assert_int_equal(b.c.skew_ms, cases[i].skew);
        const struct gw_action *log = bench_log(&b, "link.clock.skew");
        assert_int_equal(log != NULL, cases[i].told != NULL);
        if (log != NULL) {
            assert_int_equal(log->u.log.level, LOG_WARN);
            assert_true(str_is(bench_log_value(log, "theirs"), cases[i].told));
            assert_true(str_is(bench_log_value(log, "domain"), "alpha.lab"));
        }
        bench_free(&b);
    }
}

/* Lets the next question come, and answers it so. */
static const struct gw_action *next_time(struct bench *b, const char *utc)
{
    b->c.time_due_ms = b->now;
    b->due[TIMER_KEEPALIVE] = b->now;
    bench_keepalive(b);
    b->skew_utc = utc;
    bench_give(b, IN_TIME);
    return bench_log(b, "link.clock.skew");
}

static void test_skew_is_told_once_per_direction(void **state)
{
    (void)state;
    struct bench b;
    client_up(&b, true);
    assert_non_null(next_time(&b, "2030-01-01T00:00:00Z"));
    assert_null(next_time(&b, "2030-01-01T00:00:00Z"));
    assert_non_null(next_time(&b, "2020-01-01T00:00:00Z"));
    assert_null(next_time(&b, "2020-01-01T00:00:00Z"));
    assert_null(next_time(&b, "2030-01-01T00:00:00Z"));
    assert_int_equal(b.c.probes.time.answered, 5);
    ok(&b);
    bench_free(&b);
}

/* A wrong clock is asked for again with the next ping, a right one after an hour; what was told is
 * told anew when it goes wrong again. */
static void test_skew_is_watched(void **state)
{
    (void)state;
    struct bench b;
    client_up(&b, true);
    assert_non_null(next_time(&b, "2030-01-01T00:00:00Z"));
    assert_true(link_client_skewed(&b.c));
    assert_int_equal(b.c.time_due_ms, b.now + b.c.cfg.ping_ms);
    assert_true(b.due[TIMER_KEEPALIVE] <= b.now + b.c.cfg.ping_ms);
    assert_null(next_time(&b, "2025-12-17T19:33:20Z"));
    assert_false(link_client_skewed(&b.c));
    assert_int_equal(b.c.time_due_ms, b.now + LINK_TIME_MS);
    assert_non_null(next_time(&b, "2030-01-01T00:00:00Z"));
    ok(&b);
    bench_free(&b);
}

/* An answered ping is followed by the next one `ping_ms` later, however long an answer may take. */
static void test_a_patient_probe(void **state)
{
    (void)state;
    struct bench b;
    client_up(&b, true);
    b.c.cfg.ping_ms = 1000;
    b.c.cfg.ping_answer_ms = 20000;
    b.due[TIMER_KEEPALIVE] = b.now + 1000;
    assert_non_null(strstr(bench_keepalive(&b), NS_PING));
    bench_give(&b, IN_PONG);
    assert_int_equal(b.due[TIMER_KEEPALIVE], b.now + 1000);
    ok(&b);
    bench_free(&b);
}

/* No answer, an error, or one that says nothing is no problem. */
static void test_no_time(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "now", "2025-12-17T19:33:20", "20251217T19:33:20Z"};
    struct bench b;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        client_up(&b, true);
        b.skew_utc = bad[i];
        bench_give(&b, IN_TIME);
        assert_false(b.c.skew_known);
        assert_int_equal(b.c.probes.time.answered, 1);
        assert_string_equal(bench_state(&b), "UP");
        bench_free(&b);
    }
    client_up(&b, true);
    bench_give(&b, IN_TIME_ERROR);
    assert_int_equal(b.c.probes.time.answered, 1); /* alive */
    assert_false(b.c.skew_known);
    bench_give(&b, IN_TIME); /* not asked any more */
    assert_false(b.c.skew_known);
    bench_free(&b);
    client_up(&b, true);
    b.now += LINK_SKEW_MS + 1; /* so slow that it says nothing */
    b.skew_utc = "2030-01-01T00:00:00Z";
    bench_give(&b, IN_TIME);
    assert_false(b.c.skew_known);
    ok(&b);
    bench_free(&b);
}

static void give_time_xml(struct bench *b, const char *xml)
{
    char id[LINK_PROBE_ID];
    client_up(b, true);
    snprintf(id, sizeof id, "%s%u", b->c.probe_prefix, b->c.time_probe);
    bench_stanza(b, STANZA_IQ, "result", "alpha.lab", "gw.lab", id, xml);
    ok(b);
}

static void test_time_answers_are_read_with_limits(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "<iq/>",
        "<iq><time xmlns='urn:xmpp:time'/></iq>",
        "<iq><time xmlns='urn:other'><utc>2025-12-17T19:33:20Z</utc></time></iq>",
        "<iq><x xmlns='u'><time xmlns='urn:xmpp:time'><utc>2025-12-17T19:33:20Z</utc></time></x>"
        "</iq>",
        "<iq",
        "</own></stream:stream>",
    };
    struct bench b;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        give_time_xml(&b, bad[i]);
        assert_false(b.c.skew_known);
        bench_free(&b);
    }
    static char large[20000];
    memset(large, ' ', sizeof large - 1);
    memcpy(large, "<iq><time xmlns='urn:xmpp:time'><utc>2025-12-17T19:33:20Z</utc></time>", 70);
    memcpy(large + sizeof large - 6, "</iq>", 5);
    give_time_xml(&b, large);
    assert_false(b.c.skew_known);
    bench_free(&b);
    give_time_xml(&b,
                  "<iq><time xmlns='urn:xmpp:time'><utc>\n2025-12-17T19:33:20Z </utc></time></iq>");
    assert_true(b.c.skew_known);
    bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_domains_of_a_delivery),
        cmocka_unit_test(test_faulty_stanzas),
        cmocka_unit_test(test_no_randomness),
        cmocka_unit_test(test_client_judges),
        cmocka_unit_test(test_server_judges),
        cmocka_unit_test(test_tls_and_password),
        cmocka_unit_test(test_no_secret),
        cmocka_unit_test(test_password_on_an_encrypted_connection),
        cmocka_unit_test(test_clear_where_tls_is_required),
        cmocka_unit_test(test_several_accounts_of_a_name),
        cmocka_unit_test(test_ours_was_refused),
        cmocka_unit_test(test_tls_fails),
        cmocka_unit_test(test_cut_after_up),
        cmocka_unit_test(test_tls_up_twice),
        cmocka_unit_test(test_ping_of_a_silent_peer),
        cmocka_unit_test(test_peer_that_stops_answering),
        cmocka_unit_test(test_answers_are_counted_once),
        cmocka_unit_test(test_any_stanza_is_a_sign_of_life),
        cmocka_unit_test(test_pause_suspends_probes),
        cmocka_unit_test(test_output_puts_white_space_off),
        cmocka_unit_test(test_keepalive_has_a_default),
        cmocka_unit_test(test_time_is_asked),
        cmocka_unit_test(test_nobody_to_ask_for_the_time),
        cmocka_unit_test(test_skew),
        cmocka_unit_test(test_skew_is_told_once_per_direction),
        cmocka_unit_test(test_skew_is_watched),
        cmocka_unit_test(test_a_patient_probe),
        cmocka_unit_test(test_no_time),
        cmocka_unit_test(test_time_answers_are_read_with_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
