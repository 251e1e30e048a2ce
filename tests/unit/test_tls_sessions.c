/* Resumption as client: what is kept, for whom, how often it is used; ALPN. The other side is
 * OpenSSL itself. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_own.h"
#include "core/tls/tls_sessions_priv.h"
#include "tests/unit/certs.h"

static struct issued root, mid, beta, other, alone;
static char dir[64], ca[96];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_tls_sessions.XXXXXX");
    assert_non_null(mkdtemp(dir));
    root = issue((struct wish){.name = "Lab Root"});
    mid = issue((struct wish){.by = &root, .name = "Lab Middle", .ca = true});
    beta = issue((struct wish){.by = &mid, .name = "x", .san = "DNS:beta.lab,DNS:gamma.lab"});
    other = issue((struct wish){.by = &root, .name = "x", .san = "DNS:other.lab"});
    alone = issue((struct wish){.name = "x", .san = "DNS:beta.lab", .leaf = true});
    write_cert(ca, dir, "ca.pem", root.x);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    issued_free(&root);
    issued_free(&mid);
    issued_free(&beta);
    issued_free(&other);
    issued_free(&alone);
    unlink(ca);
    return rmdir(dir);
}

/* Everybody's store is empty: the peer has its own. */
static struct tls_ctx *client_ctx(size_t sessions)
{
    static const struct tls_identity ids[] = {{.domain = "alpha.lab"}, {.domain = "delta.lab"}};
    static const char *const files[] = {ca};
    return ctx_of((struct tls_settings){.identities = ids,
                                        .nidentities = 2,
                                        .ca_files = files,
                                        .nca_files = 1,
                                        .minimum = TLS1_2_VERSION,
                                        .no_system_store = true,
                                        .sessions = sessions});
}

static size_t kept(const struct tls_ctx *c)
{
    return tls_sessions_count(tls_ctx_sessions(c));
}

/* One connection to the server, in which it says a word: tickets come before it. */
static struct tls_engine *dial(struct tls_ctx *c, struct stranger *server, const char *local,
                               const char *remote, const char *by)
{
    struct tls_engine *e = tls_engine_new(c, false, local, remote);
    char b[16384];
    size_t n = 0;
    tls_engine_judge(e, by);
    stranger_connect(server, true);
    if (against(server->ssl, e) != TLS_OK)
        return e;
    assert_int_equal(SSL_write(server->ssl, "word", 4), 4);
    int wire = BIO_read(SSL_get_wbio(server->ssl), b, sizeof b);
    assert_true(tls_engine_put_wire(e, (struct str){b, (size_t)wire}));
    assert_int_equal(tls_engine_read(e, b, sizeof b, &n), TLS_OK);
    assert_int_equal(n, 4);
    return e;
}

/* Ends without notice, as most that are resumed did. */
static bool resumed(struct tls_ctx *c, struct stranger *server, const char *local,
                    const char *remote, const char *by)
{
    struct tls_engine *e = dial(c, server, local, remote, by);
    const struct tls_peer *p = tls_engine_peer(e);
    assert_true(p->has_certificate);
    assert_int_equal(p->nnames > 0, true);
    bool r = p->resumed;
    tls_engine_free(e);
    return r;
}

static struct stranger server_of(const struct issued *cert, int version, unsigned tickets)
{
    struct stranger s = stranger_new(true, version, cert, &mid);
    assert_int_equal(SSL_CTX_set_num_tickets(s.ctx, tickets), 1);
    return s;
}

/* ---- who is resumed -------------------------------------------------------------------------- */

static void test_resumed(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 2; i++) {
        struct tls_ctx *c = client_ctx(10);
        struct stranger s = server_of(&beta, versions[i], 2);
        assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
        for (int k = 0; k < 5; k++)
            assert_true(resumed(c, &s, "alpha.lab", "beta.lab", ca));
        /* The facts and the verdict are those of a full handshake. */
        struct tls_engine *e = dial(c, &s, "alpha.lab", "beta.lab", ca);
        const struct tls_peer *p = tls_engine_peer(e);
        assert_true(p->resumed && p->chain_ok && p->in_time && !p->self_signed);
        assert_true(tls_peer_covers(p, STR("beta.lab")));
        assert_string_equal(p->issuer, "CN=Lab Middle");
        assert_string_equal(p->why, "");
        tls_engine_free(e);
        stranger_free(&s);
        tls_ctx_unref(c);
    }
}

/* Each ticket of TLS 1.3 is used once. */
static void test_tickets_are_used_once(void **state)
{
    (void)state;
    struct tls_ctx *c = client_ctx(10);
    struct stranger s = server_of(&beta, TLS1_3_VERSION, 2);
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    assert_int_equal(kept(c), 2);
    assert_int_equal(SSL_CTX_set_num_tickets(s.ctx, 0), 1);
    assert_true(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    assert_int_equal(kept(c), 1);
    assert_true(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    assert_int_equal(kept(c), 0);
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    stranger_free(&s);
    s = server_of(&beta, TLS1_3_VERSION, 9); /* of many, the newest few */
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    assert_int_equal(kept(c), TLS_SESSIONS_PER_PAIR);
    stranger_free(&s);
    tls_ctx_unref(c);
}

/* Both names must be the same: another local domain shows another certificate. */
static void test_other_pairs(void **state)
{
    (void)state;
    struct tls_ctx *c = client_ctx(10);
    struct stranger s = server_of(&beta, TLS1_3_VERSION, 2);
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    assert_false(resumed(c, &s, "delta.lab", "beta.lab", ca));
    assert_false(resumed(c, &s, "alpha.lab", "gamma.lab", ca));
    assert_int_equal(kept(c), 6);
    assert_false(resumed(c, &s, NULL, "beta.lab", ca));
    assert_false(resumed(c, &s, "alpha.lab", NULL, ca));
    assert_int_equal(kept(c), 6);
    assert_true(resumed(c, &s, "alpha.lab", "gamma.lab", ca));
    stranger_free(&s);
    tls_ctx_unref(c);
}

/* Who proved nothing is asked again each time: it may come with a better certificate. */
static void test_unproven_is_not_resumed(void **state)
{
    (void)state;
    static const struct {
        const struct issued *cert;
        bool by_its_own;
    } cases[] = {{&alone, true}, {&other, true}, {&beta, false}};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int v = 0; v < 2; v++)
        for (size_t i = 0; i < 3; i++) {
            struct tls_ctx *c = client_ctx(10);
            struct stranger s = server_of(cases[i].cert, versions[v], 2);
            const char *by = cases[i].by_its_own ? ca : NULL;
            assert_false(resumed(c, &s, "alpha.lab", "beta.lab", by));
            assert_false(resumed(c, &s, "alpha.lab", "beta.lab", by));
            assert_int_equal(kept(c), 0);
            stranger_free(&s);
            tls_ctx_unref(c);
        }
}

/* A verdict that comes later counts, in both directions. */
static void test_judged_later(void **state)
{
    (void)state;
    struct tls_ctx *c = client_ctx(10);
    struct stranger s = server_of(&beta, TLS1_2_VERSION, 0);
    struct tls_engine *e = dial(c, &s, "alpha.lab", "beta.lab", NULL);
    assert_int_equal(kept(c), 0);
    tls_engine_judge(e, ca);
    assert_int_equal(kept(c), 1);
    tls_engine_judge(e, "none.pem");
    assert_int_equal(kept(c), 0);
    tls_engine_free(e);
    stranger_free(&s);
    tls_ctx_unref(c);
}

static void test_forgotten(void **state)
{
    (void)state;
    struct tls_ctx *c = client_ctx(10);
    struct stranger s = server_of(&beta, TLS1_3_VERSION, 2);
    struct tls_engine *e = dial(c, &s, "alpha.lab", "beta.lab", ca);
    assert_int_equal(kept(c), 2);
    tls_engine_forget(e);
    assert_int_equal(kept(c), 0);
    tls_engine_free(e);
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    stranger_free(&s);
    tls_ctx_unref(c);
}

/* Whatever made a handshake fail, the next one begins from nothing. */
static void test_failed_handshake_forgets(void **state)
{
    (void)state;
    struct tls_ctx *c = client_ctx(10);
    struct stranger s = server_of(&beta, TLS1_3_VERSION, 2);
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    struct tls_engine *e = tls_engine_new(c, false, "alpha.lab", "beta.lab");
    assert_int_equal(kept(c), 1);
    assert_int_equal(tls_engine_handshake(e), TLS_WANT_WIRE);
    assert_true(tls_engine_put_wire(e, STR("\x15\x03\x03\x00\x02\x02\x28")));
    assert_int_equal(tls_engine_handshake(e), TLS_ERROR);
    tls_engine_free(e);
    assert_int_equal(kept(c), 0);
    stranger_free(&s);
    tls_ctx_unref(c);
}

/* A server that does not know the ticket any more: a full handshake, nothing fails. */
static void test_unknown_ticket(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 2; i++) {
        struct tls_ctx *c = client_ctx(10);
        struct stranger s = server_of(&beta, versions[i], 2);
        assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
        stranger_free(&s);
        s = server_of(&beta, versions[i], 2); /* restarted: other keys */
        assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
        assert_true(resumed(c, &s, "alpha.lab", "beta.lab", ca));
        stranger_free(&s);
        /* The version may change too. */
        s = server_of(&beta, versions[1 - i], 2);
        assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
        stranger_free(&s);
        tls_ctx_unref(c);
    }
}

static struct tls_ctx *renewed(struct tls_ctx *c)
{
    struct tls_identity ids[2];
    struct buf errors = BUF_INIT(1024);
    for (size_t i = 0; i < 2; i++)
        ids[i] = (struct tls_identity){.domain = i == 0 ? "alpha.lab" : "delta.lab",
                                       .own = tls_ctx_own(c, i, true)};
    struct tls_ctx *fresh = tls_ctx_renew(c, ids, &errors);
    assert_non_null(fresh);
    buf_free(&errors);
    return fresh;
}

/* Another context: other authorities, other lists, another certificate of ours. What was proven to
 * the old one resumes nothing, not even when its tickets come late. */
static void test_another_context(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 4; i++) {
        struct tls_ctx *old = client_ctx(10);
        struct stranger s = server_of(&beta, versions[i % 2], 2);
        assert_false(resumed(old, &s, "alpha.lab", "beta.lab", ca));
        struct tls_engine *running = dial(old, &s, "alpha.lab", "beta.lab", ca);
        struct tls_ctx *c = i < 2 ? client_ctx(10) : renewed(old);
        tls_ctx_unref(old);
        struct tls_engine *e = dial(c, &s, "alpha.lab", "beta.lab", i < 2 ? NULL : ca);
        assert_false(tls_engine_peer(e)->resumed);
        assert_int_equal(tls_engine_peer(e)->chain_ok, i >= 2);
        assert_int_equal(tls_engine_write(running, STR("still here")), TLS_OK);
        tls_engine_free(e);
        tls_engine_free(running);
        stranger_free(&s);
        tls_ctx_unref(c);
    }
}

/* The verdict on a resumed one is made anew, by whoever judges it now. */
static void test_resumed_and_not_believed(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 2; i++) {
        struct tls_ctx *c = client_ctx(10);
        struct stranger s = server_of(&beta, versions[i], 2);
        assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
        struct tls_engine *e = dial(c, &s, "alpha.lab", "beta.lab", "none.pem");
        const struct tls_peer *p = tls_engine_peer(e);
        assert_true(p->resumed);
        assert_false(p->chain_ok);
        assert_string_equal(p->why, "the authorities for this peer are not loaded");
        assert_int_equal(kept(c), 0);
        tls_engine_free(e);
        stranger_free(&s);
        tls_ctx_unref(c);
    }
}

static void test_switched_off(void **state)
{
    (void)state;
    struct tls_ctx *c = client_ctx(0);
    struct stranger s = server_of(&beta, TLS1_3_VERSION, 2);
    assert_null(tls_ctx_sessions(c));
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    assert_false(resumed(c, &s, "alpha.lab", "beta.lab", ca));
    stranger_free(&s);
    tls_ctx_unref(c);
}

/* ---- what is kept ---------------------------------------------------------------------------- */

static SSL_SESSION *session(int version, long age, long lifetime)
{
    static const unsigned char id[] = "0123456789abcdef";
    SSL_SESSION *s = SSL_SESSION_new();
    SSL_SESSION_set_protocol_version(s, version);
    SSL_SESSION_set1_id(s, id, sizeof id - 1);
    SSL_SESSION_set_time(s, (long)time(NULL) - age);
    SSL_SESSION_set_timeout(s, lifetime);
    return s;
}

static void put(struct tls_sessions *c, const char *pair, int version, long age, long lifetime)
{
    SSL_SESSION *s = session(version, age, lifetime);
    tls_sessions_put(c, str_c(pair), s);
    SSL_SESSION_free(s);
}

static bool take(struct tls_sessions *c, const char *pair)
{
    SSL_SESSION *s = tls_sessions_take(c, str_c(pair));
    SSL_SESSION_free(s);
    return s != NULL;
}

static void test_bound(void **state)
{
    (void)state;
    struct tls_sessions *c = tls_sessions_new(3);
    char name[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "pair %d", i % 100);
        put(c, name, i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION, 0, 60);
        assert_in_range(tls_sessions_count(c), 1, 3 * TLS_SESSIONS_PER_PAIR);
    }
    assert_false(take(c, "pair 96"));
    put(c, "pair 97", TLS1_3_VERSION, 0, 60); /* used again: no longer the oldest */
    put(c, "new", TLS1_3_VERSION, 0, 60);
    assert_false(take(c, "pair 98"));
    assert_true(take(c, "pair 97"));
    assert_true(take(c, "pair 99"));
    tls_sessions_free(c);
}

static void test_age(void **state)
{
    (void)state;
    static const struct {
        long age, lifetime;
        bool want;
    } rows[] = {
        {0, 60, true},
        {50, 60, true},
        {70, 60, false},
        {-600, 60, false}, /* the clock was set back */
        {TLS_SESSION_AGE - 60, 7 * TLS_SESSION_AGE, true},
        {TLS_SESSION_AGE + 60, 7 * TLS_SESSION_AGE, false},
    };
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int v = 0; v < 2; v++) {
            struct tls_sessions *c = tls_sessions_new(3);
            put(c, "x", versions[v], rows[i].age, rows[i].lifetime);
            assert_int_equal(take(c, "x"), rows[i].want);
            assert_int_equal(tls_sessions_count(c), rows[i].want && v == 0);
            tls_sessions_free(c);
        }
}

static void test_forget_one(void **state)
{
    (void)state;
    struct tls_sessions *c = tls_sessions_new(3);
    put(c, "x", TLS1_3_VERSION, 0, 60);
    put(c, "x", TLS1_3_VERSION, 0, 60);
    put(c, "y", TLS1_2_VERSION, 0, 60);
    put(c, "y", TLS1_2_VERSION, 0, 60); /* in the place of the former */
    assert_int_equal(tls_sessions_count(c), 3);
    tls_sessions_forget(c, STR("x"));
    tls_sessions_forget(c, STR("z"));
    assert_int_equal(tls_sessions_count(c), 1);
    assert_false(take(c, "x"));
    assert_true(take(c, "y") && take(c, "y"));
    tls_sessions_free(c);
}

/* ---- ALPN ------------------------------------------------------------------------------------ */

/* What a server of ours makes of a client that offers this; NULL: nothing. */
static void offered(const char *protocols, size_t n, enum tls_result want, const char *selected)
{
    struct tls_ctx *c = selfsigned_ctx("alpha.lab", TLS1_2_VERSION);
    struct tls_engine *e = tls_engine_new(c, true, "alpha.lab", NULL);
    struct stranger s = stranger_new(false, TLS1_3_VERSION, NULL, NULL);
    stranger_connect(&s, false);
    if (protocols != NULL)
        SSL_set_alpn_protos(s.ssl, (const unsigned char *)protocols, (unsigned)n);
    assert_int_equal(against(s.ssl, e), want);
    const unsigned char *got;
    unsigned len;
    SSL_get0_alpn_selected(s.ssl, &got, &len);
    assert_true(str_is((struct str){(const char *)got, len}, selected));
    if (want == TLS_ERROR)
        assert_string_equal(tls_engine_why(e),
                            "it offers other protocols by ALPN, not xmpp-server");
    stranger_free(&s);
    tls_engine_free(e);
    tls_ctx_unref(c);
}

static void test_alpn_of_server(void **state)
{
    (void)state;
#define OFFER(text) text, sizeof text - 1
    offered(NULL, 0, TLS_OK, "");
    offered(OFFER("\x0bxmpp-server"), TLS_OK, "xmpp-server");
    offered(OFFER("\x0bxmpp-client\x0bxmpp-server"), TLS_OK, "xmpp-server");
    offered(OFFER("\x0bxmpp-client"), TLS_ERROR, "");
    offered(OFFER("\x02h2\x08http/1.1"), TLS_ERROR, "");
#undef OFFER
}

static int note_alpn(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
                     unsigned len, void *arg)
{
    (void)ssl, (void)out, (void)n;
    str_copy(arg, 64, (struct str){(const char *)in, len});
    return SSL_TLSEXT_ERR_NOACK;
}

static void test_alpn_of_client(void **state)
{
    (void)state;
    for (int direct = 0; direct <= 1; direct++) {
        char got[64] = "";
        struct tls_ctx *c = client_ctx(0);
        struct stranger s = server_of(&beta, TLS1_3_VERSION, 0);
        SSL_CTX_set_alpn_select_cb(s.ctx, note_alpn, got);
        struct tls_engine *e = tls_engine_new(c, false, "alpha.lab", "beta.lab");
        if (direct)
            assert_true(tls_engine_direct(e));
        stranger_connect(&s, true);
        assert_int_equal(against(s.ssl, e), TLS_OK); /* also when the server selects nothing */
        assert_string_equal(got, direct ? "\x0bxmpp-server" : "");
        tls_engine_free(e);
        stranger_free(&s);
        tls_ctx_unref(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_tickets_are_used_once),
        cmocka_unit_test(test_other_pairs),
        cmocka_unit_test(test_unproven_is_not_resumed),
        cmocka_unit_test(test_judged_later),
        cmocka_unit_test(test_forgotten),
        cmocka_unit_test(test_failed_handshake_forgets),
        cmocka_unit_test(test_unknown_ticket),
        cmocka_unit_test(test_another_context),
        cmocka_unit_test(test_resumed_and_not_believed),
        cmocka_unit_test(test_switched_off),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_age),
        cmocka_unit_test(test_forget_one),
        cmocka_unit_test(test_alpn_of_server),
        cmocka_unit_test(test_alpn_of_client),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
