/* TLS contexts of one configuration snapshot.
 *
 * Each identity has two SSL_CTX, one per role, over one shared trust store. Protocol settings
 * follow RFC 9325: 1.2 at least, of 1.2 only ECDHE with AEAD, no renegotiation, no compression, no
 * resumption. A certificate is asked for and judged, but its verdict never fails a handshake: what
 * an unverified peer may do is policy, and policy is not made here. */
#include "core/tls/tls_ctx.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"

enum { CHAIN_MAX = 16, NAME_MAX_BYTES = 255 };

struct identity {
    char *domain;
    SSL_CTX *server, *client;
};

struct tls_ctx {
    size_t refs;
    BIO_METHOD *bio;
    size_t n;
    struct identity v[];
};

/* What a certificate file and a key file hold, while contexts are being made of it. */
struct material {
    X509 *leaf;
    STACK_OF(X509) *chain;
    EVP_PKEY *key;
};

static const char *queued_reason(void)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return why != NULL ? why : "out of memory";
}

static int no_password(char *out, int size, int writing, void *arg)
{
    (void)out, (void)size, (void)writing, (void)arg;
    return -1; /* never ask at the terminal */
}

static FILE *open_pem(const char *path, struct buf *errors)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        buf_printf(errors, "%s: cannot be read: %s\n", path, strerror(errno));
    return f;
}

static bool read_chain(struct material *m, const char *path, struct buf *errors)
{
    FILE *f = open_pem(path, errors);
    if (f == NULL)
        return false;
    m->leaf = PEM_read_X509_AUX(f, NULL, no_password, NULL);
    m->chain = sk_X509_new_null();
    bool ok = m->leaf != NULL && m->chain != NULL;
    if (!ok)
        buf_printf(errors, "%s: holds no readable certificate in PEM form\n", path);
    X509 *x;
    while (ok && (x = PEM_read_X509(f, NULL, no_password, NULL)) != NULL) {
        ok = sk_X509_num(m->chain) < CHAIN_MAX && sk_X509_push(m->chain, x) > 0;
        if (!ok) {
            X509_free(x);
            buf_printf(errors, "%s: more than %d certificates\n", path, CHAIN_MAX);
        }
    }
    unsigned long err = ERR_peek_last_error();
    if (ok && ERR_GET_REASON(err) != PEM_R_NO_START_LINE) {
        buf_printf(errors, "%s: a certificate of the chain is damaged\n", path);
        ok = false;
    }
    ERR_clear_error();
    fclose(f);
    return ok;
}

static bool read_key(struct material *m, const char *path, struct buf *errors)
{
    FILE *f = open_pem(path, errors);
    if (f == NULL)
        return false;
    m->key = PEM_read_PrivateKey(f, NULL, no_password, NULL);
    fclose(f);
    if (m->key == NULL)
        buf_printf(errors, "%s: holds no readable private key in PEM form (without password)\n",
                   path);
    ERR_clear_error();
    return m->key != NULL;
}

static void date_text(const ASN1_TIME *t, char *out, size_t cap)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(t, &tm) != 1 || strftime(out, cap, "%Y-%m-%d", &tm) == 0)
        str_copy(out, cap, STR("an unreadable date"));
}

static void warn_about(const struct material *m, const struct tls_identity *id, struct buf *errors)
{
    char date[32];
    if (X509_cmp_current_time(X509_get0_notAfter(m->leaf)) < 0) {
        date_text(X509_get0_notAfter(m->leaf), date, sizeof date);
        buf_printf(errors, "warning: %s: expired on %s\n", id->certificate, date);
    }
    if (X509_cmp_current_time(X509_get0_notBefore(m->leaf)) > 0) {
        date_text(X509_get0_notBefore(m->leaf), date, sizeof date);
        buf_printf(errors, "warning: %s: not valid before %s\n", id->certificate, date);
    }
}

static void material_free(struct material *m)
{
    X509_free(m->leaf);
    sk_X509_pop_free(m->chain, X509_free);
    EVP_PKEY_free(m->key);
}

static bool material_load(struct material *m, const struct tls_identity *id, struct buf *errors)
{
    *m = (struct material){NULL, NULL, NULL};
    if (id->certificate == NULL) {
        if (tls_selfsigned(id->domain, &m->leaf, &m->key))
            return true;
        buf_printf(errors, "%s: no self-signed certificate can be made: %s\n", id->domain,
                   queued_reason());
        return false;
    }
    if (!read_chain(m, id->certificate, errors) ||
        !read_key(m, id->key != NULL ? id->key : id->certificate, errors))
        return false;
    if (X509_check_private_key(m->leaf, m->key) != 1) {
        ERR_clear_error();
        buf_printf(errors, "%s: key does not match the certificate\n", id->certificate);
        return false;
    }
    warn_about(m, id, errors);
    return true;
}

/* Always 1: the verdict is written down and somebody else decides. */
static int on_verify(int ok, X509_STORE_CTX *xs)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(xs, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_peer *peer = ssl != NULL ? tls_engine_peer_of(ssl) : NULL;
    if (peer == NULL)
        return 0;
    if (!ok && peer->why[0] == '\0') {
        int err = X509_STORE_CTX_get_error(xs), depth = X509_STORE_CTX_get_error_depth(xs);
        const char *text = X509_verify_cert_error_string(err);
        if (depth == 0)
            snprintf(peer->why, sizeof peer->why, "%s", text);
        else
            snprintf(peer->why, sizeof peer->why, "%s (issuer %d of the chain)", text, depth);
    }
    return 1;
}

/* True when the certificate, with at most one whole left-most wildcard label, covers the name. */
static bool covers(SSL_CTX *ssl_ctx, const char *name)
{
    const unsigned how =
        X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
    return X509_check_host(SSL_CTX_get0_certificate(ssl_ctx), name, 0, how, NULL) == 1;
}

static const struct identity *find(const struct tls_ctx *c, const char *name)
{
    if (name == NULL || name[0] == '\0' || strlen(name) > NAME_MAX_BYTES)
        return NULL;
    for (size_t i = 0; i < c->n; i++)
        if (strcasecmp(c->v[i].domain, name) == 0)
            return &c->v[i];
    for (size_t i = 0; i < c->n; i++)
        if (covers(c->v[i].server, name))
            return &c->v[i];
    return NULL;
}

static int on_sni(SSL *ssl, int *alert, void *arg)
{
    (void)alert;
    const struct identity *id = find(arg, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    if (id == NULL)
        return SSL_TLSEXT_ERR_NOACK; /* the stream's domain, or the default, stays */
    return SSL_set_SSL_CTX(ssl, id->server) != NULL ? SSL_TLSEXT_ERR_OK
                                                    : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool apply_settings(SSL_CTX *s, const struct tls_settings *set, X509_STORE *store)
{
    SSL_CTX_set_options(s, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(s, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(s, SSL_VERIFY_PEER, on_verify);
    SSL_CTX_set1_cert_store(s, store);
    /* A certificate for servers is enough for the initiating side too: public CAs issue no others.
     * Other purposes are refused by the engine. */
    return X509_VERIFY_PARAM_set_purpose(SSL_CTX_get0_param(s), X509_PURPOSE_ANY) == 1 &&
           SSL_CTX_set_num_tickets(s, 0) == 1 &&
           SSL_CTX_set_min_proto_version(s, set->minimum) == 1 &&
           SSL_CTX_set_cipher_list(s, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

static SSL_CTX *role_new(struct tls_ctx *c, bool server, const struct material *m,
                         const struct tls_settings *set, X509_STORE *store)
{
    SSL_CTX *s = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (s == NULL)
        return NULL;
    if (!apply_settings(s, set, store) ||
        SSL_CTX_use_cert_and_key(s, m->leaf, m->key, m->chain, 1) != 1) {
        SSL_CTX_free(s);
        return NULL;
    }
    if (server) {
        SSL_CTX_set_tlsext_servername_callback(s, on_sni);
        SSL_CTX_set_tlsext_servername_arg(s, c);
    }
    return s;
}

static bool identity_init(struct tls_ctx *c, struct identity *id, const struct tls_identity *want,
                          const struct tls_settings *set, X509_STORE *store, struct buf *errors)
{
    struct material m;
    bool ok = material_load(&m, want, errors);
    if (ok) {
        id->domain = mem_strdup(want->domain);
        id->server = role_new(c, true, &m, set, store);
        id->client = id->server != NULL ? role_new(c, false, &m, set, store) : NULL;
        ok = id->domain != NULL && id->client != NULL;
        if (!ok)
            buf_printf(errors, "%s: %s\n",
                       want->certificate != NULL ? want->certificate : want->domain,
                       queued_reason());
    }
    material_free(&m);
    return ok;
}

static X509_STORE *trust_store(const char *ca_file, struct buf *errors)
{
    X509_STORE *store = X509_STORE_new();
    if (store == NULL) {
        buf_puts(errors, "trust store: out of memory\n");
        return NULL;
    }
    if (ca_file == NULL) {
        X509_STORE_set_default_paths(store);
        ERR_clear_error();
        return store;
    }
    FILE *f = open_pem(ca_file, errors);
    bool ok = f != NULL;
    if (ok) {
        fclose(f);
        ok = X509_STORE_load_file(store, ca_file) == 1;
        if (!ok)
            buf_printf(errors, "%s: holds no readable certificate in PEM form\n", ca_file);
    }
    ERR_clear_error();
    if (ok)
        return store;
    X509_STORE_free(store);
    return NULL;
}

struct tls_ctx *tls_ctx_new(const struct tls_settings *s, struct buf *errors)
{
    ERR_clear_error();
    if (s->nidentities == 0) {
        buf_puts(errors, "TLS needs at least one local domain\n");
        return NULL;
    }
    struct tls_ctx *c = mem_zalloc(sizeof *c + s->nidentities * sizeof c->v[0]);
    if (c == NULL) {
        buf_puts(errors, "TLS: out of memory\n");
        return NULL;
    }
    c->refs = 1;
    c->bio = tls_engine_bio_method();
    X509_STORE *store = trust_store(s->ca_file, errors);
    bool ok = c->bio != NULL && store != NULL;
    /* Go on after a bad identity: the operator sees all problems at once. */
    for (size_t i = 0; store != NULL && i < s->nidentities; i++) {
        c->n = i + 1;
        ok = identity_init(c, &c->v[i], &s->identities[i], s, store, errors) && ok;
    }
    X509_STORE_free(store);
    if (ok)
        return c;
    tls_ctx_unref(c);
    return NULL;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *c)
{
    c->refs++;
    return c;
}

void tls_ctx_unref(struct tls_ctx *c)
{
    if (c == NULL || --c->refs > 0)
        return;
    for (size_t i = 0; i < c->n; i++) {
        mem_free(c->v[i].domain);
        SSL_CTX_free(c->v[i].server);
        SSL_CTX_free(c->v[i].client);
    }
    BIO_meth_free(c->bio);
    mem_free(c);
}

SSL_CTX *tls_ctx_pick(const struct tls_ctx *c, bool server, const char *domain)
{
    const struct identity *id = find(c, domain);
    if (id == NULL)
        id = &c->v[0];
    return server ? id->server : id->client;
}

const BIO_METHOD *tls_ctx_bio(const struct tls_ctx *c)
{
    return c->bio;
}
