/* Two TLS engines wired in memory: handshakes, certificates, errors, buffers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_engine.h"
#include "tests/unit/certs.h"

/* ---- certificates on disk -------------------------------------------------------------------- */

struct files {
    char dir[64];
    char ca[96], cert[96], key[96], other_key[96], junk[96];
    struct issued root;
};

/* A leaf for alpha.lab and *.alpha.lab under a root. */
static void files_make(struct files *f, const char *eku, long from, long to)
{
    snprintf(f->dir, sizeof f->dir, "/tmp/test_tls_engine.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->root = issue((struct wish){.name = "Test Root"});
    struct issued leaf = issue((struct wish){.by = &f->root,
                                             .name = "alpha",
                                             .san = "DNS:alpha.lab,DNS:*.alpha.lab",
                                             .eku = eku,
                                             .from = from,
                                             .to = to});
    struct issued other =
        issue((struct wish){.by = &f->root, .name = "other", .san = "DNS:other.lab"});
    write_cert(f->ca, f->dir, "ca.pem", f->root.x);
    write_cert(f->cert, f->dir, "cert.pem", leaf.x);
    write_key(f->key, f->dir, "key.pem", leaf.key);
    write_key(f->other_key, f->dir, "other.pem", other.key);
    fclose(create(f->junk, f->dir, "junk.pem"));
    issued_free(&leaf);
    issued_free(&other);
}

static void files_remove(struct files *f)
{
    const char *all[] = {f->ca, f->cert, f->key, f->other_key, f->junk};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        unlink(all[i]);
    rmdir(f->dir);
    issued_free(&f->root);
}

/* ---- two engines ----------------------------------------------------------------------------- */

static void pass(struct tls_engine *from, struct tls_engine *to, struct str text)
{
    char got[40000];
    size_t have = 0, n;
    assert_int_equal(tls_engine_write(from, text), TLS_OK);
    while (carry(from, to, 16384))
        while (tls_engine_read(to, got + have, sizeof got - have, &n) == TLS_OK)
            have += n;
    assert_int_equal(have, text.n);
    assert_memory_equal(got, text.p, text.n);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void exchange(int minimum, const char *protocol, size_t step)
{
    struct tls_ctx *a = selfsigned_ctx("alpha.lab", minimum);
    struct tls_ctx *b = selfsigned_ctx("beta.lab", minimum);
    struct pair p = shake(a, "alpha.lab", "beta.lab", b, "beta.lab", step);
    assert_int_equal(p.cr, TLS_OK);
    assert_int_equal(p.sr, TLS_OK);
    const struct tls_peer *peer = tls_engine_peer(p.server);
    assert_string_equal(peer->protocol, protocol);
    assert_true(peer->has_certificate);
    assert_false(peer->chain_ok);
    assert_string_equal(peer->why, "self-signed");
    assert_false(peer->resumed);
    assert_true(tls_engine_peer(p.client)->has_certificate);

    static char big[33000];
    memset(big, 'x', sizeof big);
    pass(p.client, p.server, STR("<stream:stream>"));
    pass(p.server, p.client, STR("<stream:features/>"));
    pass(p.client, p.server, (struct str){big, sizeof big});
    assert_false(tls_engine_readable(p.server));
    pair_free(&p);
    tls_ctx_unref(a);
    tls_ctx_unref(b);
}

static void test_exchange(void **state)
{
    (void)state;
    exchange(TLS1_3_VERSION, "TLSv1.3", 65536);
    exchange(TLS1_2_VERSION, "TLSv1.3", 65536);
    exchange(TLS1_2_VERSION, "TLSv1.3", 1);
}

/* What the peer may offer of TLS 1.2. */
static SSL *plain_client(SSL_CTX **ctx, int version, const char *ciphers)
{
    *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(*ctx, version);
    SSL_CTX_set_max_proto_version(*ctx, version);
    SSL_CTX_set_security_level(*ctx, 0);
    if (ciphers != NULL)
        assert_int_equal(SSL_CTX_set_cipher_list(*ctx, ciphers), 1);
    SSL *s = SSL_new(*ctx);
    SSL_set_bio(s, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(s);
    return s;
}

static void one_client(int version, const char *ciphers, enum tls_result want, const char *text)
{
    struct tls_ctx *c = selfsigned_ctx("beta.lab", TLS1_2_VERSION);
    struct tls_engine *e = tls_engine_new(c, true, NULL, NULL);
    SSL_CTX *ctx;
    SSL *s = plain_client(&ctx, version, ciphers);
    assert_int_equal(against(s, e), want);
    if (want == TLS_OK) {
        assert_string_equal(tls_engine_peer(e)->cipher, text);
        assert_false(tls_engine_peer(e)->has_certificate);
        assert_false(tls_engine_peer(e)->chain_ok);
        assert_string_equal(tls_engine_peer(e)->why, "the peer presented no certificate");
        assert_int_equal(SSL_renegotiate(s), 1); /* asked for; must not be granted */
        against(s, e);
        char b[8];
        size_t n;
        enum tls_result r = tls_engine_read(e, b, sizeof b, &n);
        assert_true(r == TLS_WANT_WIRE || r == TLS_ERROR);
        assert_int_equal(SSL_num_renegotiations(s), 1);
        assert_true(SSL_renegotiate_pending(s) || SSL_in_init(s));
    } else {
        assert_string_equal(tls_engine_why(e), text);
    }
    SSL_free(s);
    SSL_CTX_free(ctx);
    tls_engine_free(e);
    tls_ctx_unref(c);
}

static void test_old_clients(void **state)
{
    (void)state;
    one_client(TLS1_2_VERSION, NULL, TLS_OK, "ECDHE-ECDSA-AES256-GCM-SHA384");
    one_client(TLS1_1_VERSION, NULL, TLS_ERROR, "no TLS version in common");
    one_client(TLS1_2_VERSION, "AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA256", TLS_ERROR,
               "no cipher suite in common");
}

/* RFC 9325 3.3 (compression), 3.4 (tickets), 3.5 (renegotiation), 4.1 and 4.2 (suites), for both
 * roles. */
static void test_settings(void **state)
{
    (void)state;
    const uint64_t off = SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET;
    struct tls_ctx *c = selfsigned_ctx("alpha.lab", TLS1_2_VERSION);
    for (int server = 0; server <= 1; server++) {
        SSL_CTX *ctx = tls_ctx_pick(c, server, "alpha.lab");
        STACK_OF(SSL_CIPHER) *suites = SSL_CTX_get_ciphers(ctx);
        assert_true(sk_SSL_CIPHER_num(suites) >= 5);
        for (int i = 0; i < sk_SSL_CIPHER_num(suites); i++) {
            const SSL_CIPHER *s = sk_SSL_CIPHER_value(suites, i);
            const int kx = SSL_CIPHER_get_kx_nid(s);
            if (!SSL_CIPHER_is_aead(s) || (kx != NID_kx_ecdhe && kx != NID_kx_any) ||
                SSL_CIPHER_get_auth_nid(s) == NID_auth_null || SSL_CIPHER_get_bits(s, NULL) < 128)
                fail_msg("%s", SSL_CIPHER_get_name(s));
        }
        assert_int_equal(SSL_CTX_get_options(ctx) & off, off);
        assert_int_equal(SSL_CTX_get_min_proto_version(ctx), TLS1_2_VERSION);
        assert_int_equal(SSL_CTX_get_num_tickets(ctx), 0);
        assert_int_equal(SSL_CTX_get_session_cache_mode(ctx), SSL_SESS_CACHE_OFF);
        assert_true(SSL_CTX_get_security_level(ctx) >= 2);
        assert_int_equal(SSL_CTX_get_verify_mode(ctx), SSL_VERIFY_PEER); /* asked, not demanded */
    }
    tls_ctx_unref(c);
}

static void test_not_tls(void **state)
{
    (void)state;
    struct tls_ctx *c = selfsigned_ctx("beta.lab", TLS1_2_VERSION);
    struct tls_engine *e = tls_engine_new(c, true, NULL, NULL);
    assert_true(tls_engine_put_wire(e, STR("<stream:stream xmlns='jabber:server'>")));
    assert_int_equal(tls_engine_handshake(e), TLS_ERROR);
    assert_string_equal(tls_engine_why(e), "not TLS: got XML");
    assert_int_equal(tls_engine_handshake(e), TLS_ERROR);
    assert_int_equal(tls_engine_write(e, STR("x")), TLS_ERROR);
    tls_engine_free(e);

    e = tls_engine_new(c, false, NULL, "alpha.lab");
    assert_int_equal(tls_engine_handshake(e), TLS_WANT_WIRE);
    assert_true(tls_engine_put_wire(e, STR("\x15\x03\x03\x00\x02\x02\x2e")));
    assert_int_equal(tls_engine_handshake(e), TLS_ERROR);
    assert_string_equal(tls_engine_why(e),
                        "the peer refused our certificate: it gave no precise reason (alert 46)");
    tls_engine_free(e);
    tls_ctx_unref(c);
}

static void test_damaged_record(void **state)
{
    (void)state;
    struct tls_ctx *c = selfsigned_ctx("beta.lab", TLS1_2_VERSION);
    struct pair p = shake(c, NULL, NULL, c, NULL, 65536);
    assert_int_equal(tls_engine_write(p.client, STR("hello")), TLS_OK);
    char wire[256];
    struct str w = tls_engine_wire(p.client);
    assert_in_range(w.n, 10, sizeof wire);
    memcpy(wire, w.p, w.n);
    wire[w.n - 1] ^= 1;
    assert_true(tls_engine_put_wire(p.server, (struct str){wire, w.n}));
    char got[16];
    size_t n;
    assert_int_equal(tls_engine_read(p.server, got, sizeof got, &n), TLS_ERROR);
    assert_string_equal(tls_engine_why(p.server), "decryption failed or bad record mac");
    assert_true(tls_engine_wire(p.server).n > 0); /* the alert */
    assert_int_equal(tls_engine_read(p.server, got, sizeof got, &n), TLS_ERROR);
    pair_free(&p);
    tls_ctx_unref(c);
}

static void test_close_notify_and_memory(void **state)
{
    (void)state;
    struct tls_ctx *c = selfsigned_ctx("beta.lab", TLS1_2_VERSION);
    struct pair p = shake(c, NULL, NULL, c, NULL, 65536);
    size_t idle = tls_engine_memory(p.server);
    static char big[16384];
    assert_int_equal(tls_engine_record(p.client), sizeof big);
    pass(p.client, p.server, (struct str){big, sizeof big});
    assert_int_equal(tls_engine_memory(p.server), idle);
    assert_int_equal(tls_engine_write(p.server, (struct str){big, sizeof big}), TLS_OK);
    assert_true(tls_engine_memory(p.server) > idle + sizeof big);
    /* One write of a record's size is exactly one record. */
    struct str w = tls_engine_wire(p.server);
    assert_int_equal(w.n, 5 + (size_t)(unsigned char)w.p[3] * 256 + (unsigned char)w.p[4]);
    tls_engine_close_notify(p.client);
    carry(p.client, p.server, 65536);
    char got[16];
    size_t n;
    assert_int_equal(tls_engine_read(p.server, got, sizeof got, &n), TLS_CLOSED);
    pair_free(&p);
    tls_ctx_unref(c);
}

static void test_wire_in_is_bounded(void **state)
{
    (void)state;
    struct tls_ctx *c = selfsigned_ctx("beta.lab", TLS1_2_VERSION);
    struct tls_engine *e = tls_engine_new(c, true, NULL, NULL);
    static char block[65536];
    assert_true(tls_engine_put_wire(e, (struct str){block, sizeof block}));
    assert_false(tls_engine_put_wire(e, (struct str){block, sizeof block}));
    tls_engine_free(e);
    tls_ctx_unref(c);
}

static void assert_verdict(const struct tls_engine *e, bool ok, const char *what, bool over)
{
    const struct tls_peer *p = tls_engine_peer(e);
    time_t at = over ? p->not_after : p->not_before;
    struct tm tm;
    char date[32], want[TLS_WHY_MAX];
    strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&at, &tm));
    const size_t n = strlen(what);
    snprintf(want, sizeof want, "%s%s", what, n > 0 && what[n - 1] == ' ' ? date : "");
    assert_string_equal(p->why, want);
    assert_int_equal(p->chain_ok, ok);
    assert_false(p->self_signed);
}

/* `as_server`: what it is worth as a server's; the other way round it is a client's. */
static void verified(const char *eku, long from, long to, const char *as_client,
                     const char *as_server)
{
    struct files f;
    files_make(&f, eku, from, to);
    struct tls_identity id = {.domain = "alpha.lab", .certificate = f.cert, .key = f.key};
    struct tls_ctx *a = make_ctx(&id, 1, f.ca, TLS1_2_VERSION);
    struct pair p = shake(a, "alpha.lab", "alpha.lab", a, NULL, 65536);
    assert_int_equal(p.cr, TLS_OK);
    assert_int_equal(p.sr, TLS_OK);
    assert_verdict(p.server, as_client[0] == '\0', as_client, to < 0);
    assert_verdict(p.client, as_server[0] == '\0', as_server, to < 0);
    assert_int_equal(tls_engine_peer(p.server)->in_time, from < 0 && to > 0);
    pair_free(&p);
    tls_ctx_unref(a);
    files_remove(&f);
}

static void test_chain_verdicts(void **state)
{
    (void)state;
    verified(NULL, -DAY, DAY, "", "");
    verified("serverAuth", -DAY, DAY, "", "");
    verified("clientAuth", -DAY, DAY, "", "not meant for a server");
    verified("serverAuth,clientAuth", -DAY, DAY, "", "");
    verified("anyExtendedKeyUsage", -DAY, DAY, "", "");
    verified("codeSigning", -DAY, DAY, "not meant for TLS", "not meant for TLS");
    verified(NULL, -3 * DAY, -2 * DAY, "expired on ", "expired on ");
    verified(NULL, DAY, 2 * DAY, "not valid before ", "not valid before ");
    verified("codeSigning", -3 * DAY, -2 * DAY, "expired on ", "expired on ");
}

/* ---- our certificate, as the peer sees it ---------------------------------------------------- */

/* An alert in clear, as the answer to a client's first flight. */
static void test_alerts(void **state)
{
    (void)state;
    static const struct {
        unsigned char alert;
        const char *want;
    } rows[] = {
        {40, "peer sent alert: handshake failure"},
        {42, "the peer refused our certificate: it calls it bad (alert 42)"},
        {43, "the peer refused our certificate: it does not support its type (alert 43)"},
        {44, "the peer refused our certificate: revoked (alert 44)"},
        {45, "the peer refused our certificate: expired (alert 45)"},
        {46, "the peer refused our certificate: it gave no precise reason (alert 46)"},
        {47, "peer sent alert: illegal parameter"},
        {48, "the peer refused our certificate: it does not know the issuer (alert 48)"},
        {49, "the peer refused our certificate: access denied (alert 49)"},
        {51, "peer sent alert: decrypt error"},
        {80, "peer sent alert: internal error"},
        {116, "the peer refused our certificate: it demands one and got none that it can use "
              "(alert 116)"},
    };
    struct tls_ctx *c = selfsigned_ctx("beta.lab", TLS1_2_VERSION);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tls_engine *e = tls_engine_new(c, false, NULL, "alpha.lab");
        const char wire[] = {0x15, 3, 3, 0, 2, 2, (char)rows[i].alert};
        assert_int_equal(tls_engine_handshake(e), TLS_WANT_WIRE);
        assert_true(tls_engine_put_wire(e, (struct str){wire, sizeof wire}));
        assert_int_equal(tls_engine_handshake(e), TLS_ERROR);
        assert_string_equal(tls_engine_why(e), rows[i].want);
        tls_engine_free(e);
    }
    tls_ctx_unref(c);
}

/* A strict peer by OpenSSL itself: it trusts nobody, and as server demands a certificate. */
static SSL *strict_peer(SSL_CTX **ctx, bool server, int version, const struct issued *own)
{
    *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_min_proto_version(*ctx, version);
    SSL_CTX_set_max_proto_version(*ctx, version);
    SSL_CTX_set_verify(*ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    assert_int_equal(SSL_CTX_use_cert_and_key(*ctx, own->x, own->key, NULL, 1), 1);
    SSL *s = SSL_new(*ctx);
    SSL_set_bio(s, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (server)
        SSL_set_accept_state(s);
    else
        SSL_set_connect_state(s);
    return s;
}

static void refused_by(bool server, int version, bool first_read)
{
    SSL_CTX *ctx;
    struct issued own = issue((struct wish){.name = "strict"});
    struct tls_ctx *c = selfsigned_ctx("alpha.lab", TLS1_2_VERSION);
    struct tls_engine *e = tls_engine_new(c, !server, NULL, server ? "strict.lab" : NULL);
    SSL *s = strict_peer(&ctx, server, version, &own);
    assert_int_equal(against(s, e), first_read ? TLS_OK : TLS_ERROR);
    if (first_read) {
        char b[16];
        size_t n;
        assert_string_equal(tls_engine_why(e), "");
        assert_int_equal(tls_engine_read(e, b, sizeof b, &n), TLS_ERROR);
    }
    assert_string_equal(tls_engine_why(e),
                        "the peer refused our certificate: it does not know the issuer (alert 48)");
    SSL_free(s);
    SSL_CTX_free(ctx);
    tls_engine_free(e);
    tls_ctx_unref(c);
    issued_free(&own);
}

static void test_our_certificate_is_refused(void **state)
{
    (void)state;
    refused_by(true, TLS1_3_VERSION, true);
    refused_by(true, TLS1_2_VERSION, false);
    refused_by(false, TLS1_3_VERSION, false);
    refused_by(false, TLS1_2_VERSION, false);
}

/* The certificate that a client sees, by OpenSSL itself. */
static void assert_served(struct tls_ctx *c, const char *sni, const char *domain, const char *name)
{
    struct tls_engine *e = tls_engine_new(c, true, domain, NULL);
    SSL_CTX *ctx;
    SSL *s = plain_client(&ctx, TLS1_3_VERSION, NULL);
    if (sni != NULL)
        SSL_set_tlsext_host_name(s, sni);
    assert_int_equal(against(s, e), TLS_OK);
    X509 *x = SSL_get0_peer_certificate(s);
    if (X509_check_host(x, name, 0, 0, NULL) != 1)
        fail_msg("SNI %s, stream to %s: not the certificate of %s", sni ? sni : "-",
                 domain ? domain : "-", name);
    SSL_free(s);
    SSL_CTX_free(ctx);
    tls_engine_free(e);
}

static void test_identity_choice(void **state)
{
    (void)state;
    struct files f;
    files_make(&f, NULL, -DAY, DAY);
    struct tls_identity id[] = {{.domain = "first.lab"},
                                {.domain = "alpha.lab", .certificate = f.cert, .key = f.key},
                                {.domain = "x.alpha.lab"}};
    struct tls_ctx *c = make_ctx(id, 3, NULL, TLS1_2_VERSION);
    assert_served(c, NULL, NULL, "first.lab");
    assert_served(c, NULL, "alpha.lab", "alpha.lab");
    assert_served(c, "ALPHA.lab", NULL, "alpha.lab");
    assert_served(c, "alpha.lab", "first.lab", "alpha.lab");
    assert_served(c, "y.alpha.lab", NULL, "alpha.lab"); /* by its wildcard */
    assert_served(c, "x.alpha.lab", NULL, "x.alpha.lab");
    assert_served(c, "a.b.alpha.lab", NULL, "first.lab");
    assert_served(c, "unknown.lab", "x.alpha.lab", "x.alpha.lab");
    assert_served(c, "unknown.lab", "unknown.lab", "first.lab");
    tls_ctx_unref(c);
    files_remove(&f);
}

static void refused(const char *cert, const char *key, const char *ca, const char *want)
{
    struct buf errors = BUF_INIT(4096);
    struct tls_identity id = {.domain = "alpha.lab", .certificate = cert, .key = key};
    struct tls_settings s = {
        .identities = &id, .nidentities = 1, .ca_file = ca, .minimum = TLS1_2_VERSION};
    assert_null(tls_ctx_new(&s, &errors));
    assert_string_equal(errors.p, want);
    buf_free(&errors);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct files f;
    char want[512], missing[128];
    files_make(&f, NULL, -DAY, DAY);
    snprintf(want, sizeof want, "%s: key does not match the certificate\n", f.cert);
    refused(f.cert, f.other_key, NULL, want);
    snprintf(missing, sizeof missing, "%s/none.pem", f.dir);
    snprintf(want, sizeof want, "%s: cannot be read: No such file or directory\n", missing);
    refused(missing, f.key, NULL, want);
    refused(f.cert, missing, NULL, want);
    refused(NULL, NULL, missing, want);
    snprintf(want, sizeof want, "%s: holds no readable certificate in PEM form\n", f.junk);
    refused(f.junk, f.key, NULL, want);
    refused(NULL, NULL, f.junk, want);
    snprintf(want, sizeof want,
             "%s: holds no readable private key in PEM form (without password)\n", f.junk);
    refused(f.cert, f.junk, NULL, want);
    files_remove(&f);
}

static void test_expired_is_a_warning(void **state)
{
    (void)state;
    struct files f;
    files_make(&f, NULL, -3 * DAY, -2 * DAY);
    struct buf errors = BUF_INIT(4096);
    struct tls_identity id = {.domain = "alpha.lab", .certificate = f.cert, .key = f.key};
    struct tls_settings s = {.identities = &id, .nidentities = 1, .minimum = TLS1_2_VERSION};
    struct tls_ctx *c = tls_ctx_new(&s, &errors);
    assert_non_null(c);
    char want[160];
    snprintf(want, sizeof want, "warning: %s: expired on 20", f.cert);
    assert_true(str_starts(buf_view(&errors), want));
    buf_free(&errors);
    tls_ctx_unref(c);
    files_remove(&f);
}

static void test_long_names_and_no_sni(void **state)
{
    (void)state;
    char domain[200];
    for (size_t i = 0; i < 180; i++)
        domain[i] = i % 10 == 9 ? '.' : 'a';
    str_copy(domain + 180, sizeof domain - 180, STR("lab"));
    struct tls_ctx *c = selfsigned_ctx(domain, TLS1_2_VERSION);
    assert_served(c, domain, NULL, domain);
    struct pair p = shake(c, NULL, "127.0.0.1", c, NULL, 65536); /* not sent as SNI */
    assert_int_equal(p.cr, TLS_OK);
    pair_free(&p);
    tls_ctx_unref(c);
}

/* Whatever allocation of ours fails, nothing leaks or crashes, and the caller hears of it. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 8; n++) {
        struct buf errors = BUF_INIT(4096);
        struct tls_identity id = {.domain = "alpha.lab"};
        struct tls_settings s = {.identities = &id, .nidentities = 1, .minimum = TLS1_2_VERSION};
        mem_fail_after(n);
        struct tls_ctx *c = tls_ctx_new(&s, &errors);
        struct tls_engine *e = c != NULL ? tls_engine_new(c, true, NULL, NULL) : NULL;
        bool put = e != NULL && tls_engine_put_wire(e, STR("\x16\x03\x01"));
        mem_fail_after(0);
        if (n <= 2)
            assert_null(c);
        assert_true(n < 5 ? !put : true);
        tls_engine_free(e);
        tls_ctx_unref(c);
        buf_free(&errors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_old_clients),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_not_tls),
        cmocka_unit_test(test_damaged_record),
        cmocka_unit_test(test_close_notify_and_memory),
        cmocka_unit_test(test_wire_in_is_bounded),
        cmocka_unit_test(test_chain_verdicts),
        cmocka_unit_test(test_alerts),
        cmocka_unit_test(test_our_certificate_is_refused),
        cmocka_unit_test(test_identity_choice),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_expired_is_a_warning),
        cmocka_unit_test(test_long_names_and_no_sni),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
