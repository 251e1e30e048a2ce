/* For tests of core/tls: certificates made on the spot, and two engines wired in memory. */
#ifndef TESTS_UNIT_CERTS_H
#define TESTS_UNIT_CERTS_H

#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/tls/tls_engine.h"

enum { DAY = 24 * 60 * 60 };

/* ---- certificates ---------------------------------------------------------------------------- */

struct issued {
    X509 *x;
    EVP_PKEY *key;
};

struct wish {
    const struct issued *by; /* NULL: self-signed CA */
    const char *name;        /* CN */
    const char *san;         /* as openssl.cnf has it */
    GENERAL_NAMES *names;    /* the same for what no text can say; taken */
    const char *eku, *ku;
    const EVP_MD *digest; /* of the signature; NULL: SHA-256 */
    unsigned rsa_bits;    /* 0: an EC key, P-256 */
    long from, to;        /* seconds from now; both 0: now and a day around */
    bool leaf;            /* self-signed, but no CA */
    bool ca;              /* an issuer, though not self-signed */
};

static inline void add_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(e);
    assert_int_equal(X509_add_ext(x, e, -1), 1);
    X509_EXTENSION_free(e);
}

static inline struct issued issue(struct wish w)
{
    struct issued r = {X509_new(), w.rsa_bits > 0 ? EVP_RSA_gen(w.rsa_bits) : EVP_EC_gen("P-256")};
    assert_true(r.x != NULL && r.key != NULL);
    const bool now = w.from == 0 && w.to == 0;
    X509_set_version(r.x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(r.x), (long)(1000 + random() % 1000000));
    X509_gmtime_adj(X509_getm_notBefore(r.x), now ? -DAY : w.from);
    X509_gmtime_adj(X509_getm_notAfter(r.x), now ? DAY : w.to);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(r.x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)w.name, -1, -1, 0);
    X509 *issuer = w.by != NULL ? w.by->x : r.x;
    X509_set_issuer_name(r.x, X509_get_subject_name(issuer));
    X509_set_pubkey(r.x, r.key);
    add_ext(r.x, issuer, NID_basic_constraints,
            w.ca || (w.by == NULL && !w.leaf) ? "critical,CA:TRUE" : "CA:FALSE");
    if (w.san != NULL)
        add_ext(r.x, issuer, NID_subject_alt_name, w.san);
    if (w.names != NULL)
        assert_int_equal(X509_add1_ext_i2d(r.x, NID_subject_alt_name, w.names, 0, 0), 1);
    GENERAL_NAMES_free(w.names);
    if (w.eku != NULL)
        add_ext(r.x, issuer, NID_ext_key_usage, w.eku);
    if (w.ku != NULL)
        add_ext(r.x, issuer, NID_key_usage, w.ku);
    const EVP_MD *digest = w.digest != NULL ? w.digest : EVP_sha256();
    assert_true(X509_sign(r.x, w.by != NULL ? w.by->key : r.key, digest) > 0);
    return r;
}

static inline void issued_free(struct issued *i)
{
    X509_free(i->x);
    EVP_PKEY_free(i->key);
}

/* ---- files ----------------------------------------------------------------------------------- */

static inline FILE *create(char path[96], const char *dir, const char *name)
{
    snprintf(path, 96, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    return f;
}

static inline void write_cert(char path[96], const char *dir, const char *name, X509 *x)
{
    FILE *f = create(path, dir, name);
    assert_int_equal(PEM_write_X509(f, x), 1);
    fclose(f);
}

static inline void write_key(char path[96], const char *dir, const char *name, EVP_PKEY *k)
{
    FILE *f = create(path, dir, name);
    assert_int_equal(PEM_write_PrivateKey(f, k, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
}

/* Adds a list of `by` to an open file: `v` were revoked two days ago. `next`: seconds from now. */
static inline void put_crl(FILE *f, const struct issued *by, X509 *const *v, size_t n, long next)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *at = X509_gmtime_adj(NULL, -3 * DAY);
    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(by->x));
    X509_CRL_set1_lastUpdate(crl, at);
    X509_gmtime_adj(at, next);
    X509_CRL_set1_nextUpdate(crl, at);
    X509_gmtime_adj(at, -2 * DAY);
    for (size_t i = 0; i < n; i++) {
        X509_REVOKED *r = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(r, X509_get_serialNumber(v[i]));
        X509_REVOKED_set_revocationDate(r, at);
        assert_int_equal(X509_CRL_add0_revoked(crl, r), 1);
    }
    X509_CRL_sort(crl);
    assert_true(X509_CRL_sign(crl, by->key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509_CRL(f, crl), 1);
    ASN1_TIME_free(at);
    X509_CRL_free(crl);
}

/* ---- two engines ----------------------------------------------------------------------------- */

static inline struct tls_ctx *ctx_of(struct tls_settings s)
{
    struct buf errors = BUF_INIT(4096);
    struct tls_ctx *c = tls_ctx_new(&s, &errors);
    if (c == NULL)
        fail_msg("%s", errors.p);
    buf_free(&errors);
    return c;
}

static inline struct tls_ctx *make_ctx(const struct tls_identity *id, size_t n, const char *ca,
                                       int minimum)
{
    return ctx_of((struct tls_settings){
        .identities = id, .nidentities = n, .ca_file = ca, .minimum = minimum});
}

static inline struct tls_ctx *selfsigned_ctx(const char *domain, int minimum)
{
    struct tls_identity id = {.domain = domain};
    return make_ctx(&id, 1, NULL, minimum);
}

/* Moves wire bytes, `step` at a time; false when there were none. */
static inline bool carry(struct tls_engine *from, struct tls_engine *to, size_t step)
{
    struct str w = tls_engine_wire(from);
    if (w.n == 0)
        return false;
    if (w.n > step)
        w.n = step;
    assert_true(tls_engine_put_wire(to, w));
    tls_engine_wire_taken(from, w.n);
    return true;
}

struct pair {
    struct tls_engine *client, *server;
    enum tls_result cr, sr;
};

static inline struct pair shake(struct tls_ctx *cc, const char *as, const char *sni,
                                struct tls_ctx *sc, const char *domain, size_t step)
{
    struct pair p = {tls_engine_new(cc, false, as, sni), tls_engine_new(sc, true, domain, NULL),
                     TLS_WANT_WIRE, TLS_WANT_WIRE};
    assert_true(p.client != NULL && p.server != NULL);
    bool moved;
    do {
        p.cr = tls_engine_handshake(p.client);
        moved = carry(p.client, p.server, step);
        p.sr = tls_engine_handshake(p.server);
        moved = carry(p.server, p.client, step) || moved;
    } while (moved);
    return p;
}

static inline void pair_free(struct pair *p)
{
    tls_engine_free(p->client);
    tls_engine_free(p->server);
}

/* ---- an engine and OpenSSL itself -------------------------------------------------------------
 */

struct stranger {
    SSL_CTX *ctx;
    SSL *ssl;
};

/* A peer that takes anything. `leaf` NULL: it shows nothing; `between`: sent along. */
static inline struct stranger stranger_new(bool server, int version, const struct issued *leaf,
                                           const struct issued *between)
{
    struct stranger s = {SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()), NULL};
    SSL_CTX_set_min_proto_version(s.ctx, version);
    SSL_CTX_set_max_proto_version(s.ctx, version);
    SSL_CTX_set_security_level(s.ctx, 0);
    SSL_CTX_set_mode(s.ctx, SSL_MODE_NO_AUTO_CHAIN);
    STACK_OF(X509) *chain = sk_X509_new_null();
    if (between != NULL)
        sk_X509_push(chain, between->x);
    if (leaf != NULL)
        assert_int_equal(SSL_CTX_use_cert_and_key(s.ctx, leaf->x, leaf->key, chain, 1), 1);
    sk_X509_free(chain);
    return s;
}

/* The first or the next connection of it. */
static inline void stranger_connect(struct stranger *s, bool server)
{
    SSL_free(s->ssl);
    s->ssl = SSL_new(s->ctx);
    SSL_set_bio(s->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (server)
        SSL_set_accept_state(s->ssl);
    else
        SSL_set_connect_state(s->ssl);
}

static inline void stranger_free(struct stranger *s)
{
    SSL_free(s->ssl);
    SSL_CTX_free(s->ctx);
}

/* Until nobody has more to say; what the engine makes of it. */
static inline enum tls_result against(SSL *s, struct tls_engine *e)
{
    enum tls_result r = TLS_WANT_WIRE;
    for (int i = 0; i < 10; i++) {
        char b[16384];
        int n;
        SSL_do_handshake(s);
        while ((n = BIO_read(SSL_get_wbio(s), b, sizeof b)) > 0)
            assert_true(tls_engine_put_wire(e, (struct str){b, (size_t)n}));
        r = tls_engine_handshake(e);
        struct str w = tls_engine_wire(e);
        BIO_write(SSL_get_rbio(s), w.p, (int)w.n);
        tls_engine_wire_taken(e, w.n);
    }
    return r;
}

#endif
