/* TLS contexts of one configuration snapshot.
 *
 * Each identity has two SSL_CTX, one per role. Protocol settings follow RFC 9325: 1.2 at least, of
 * 1.2 only ECDHE with AEAD, no renegotiation, no compression; as server no resumption at all, since
 * a ticket must not carry a proof from one stream to another. A certificate is asked for, but no
 * verdict on it fails a handshake: tls_judge.c makes it afterwards. */
#include "core/tls/tls_ctx.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <strings.h>

#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_own.h"
#include "core/tls/tls_sessions_priv.h"

enum { NAME_MAX_BYTES = 255, SECURITY_LEVEL = 2 };

/* What an identity is in one role; shared by contexts that differ in other identities. */
struct role {
    size_t refs;
    SSL_CTX *ssl;
    struct tls_own *own;
};

struct identity {
    char *domain;
    struct role *server, *client;
};

struct tls_ctx {
    size_t refs;
    int minimum;
    size_t sessions_max;
    BIO_METHOD *bio;
    struct tls_stores *stores;
    struct tls_sessions *sessions; /* NULL: none are kept */
    size_t n;
    struct identity v[];
};

/* The certificate comes with what OpenSSL keeps of the connection; nothing is judged here. */
static int on_chain(X509_STORE_CTX *xs, void *arg)
{
    (void)arg;
    X509_STORE_CTX_set_error(xs, X509_V_OK);
    return 1;
}

/* True when the certificate, with at most one whole left-most wildcard label, covers the name. */
static bool covers(SSL_CTX *ssl_ctx, const char *name)
{
    const unsigned how = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
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
        if (covers(c->v[i].server->ssl, name))
            return &c->v[i];
    return NULL;
}

static int on_sni(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct identity *id = find(tls_engine_ctx(ssl), name);
    if (id == NULL)
        return SSL_TLSEXT_ERR_NOACK; /* the stream's domain, or the default, stays */
    return SSL_set_SSL_CTX(ssl, id->server->ssl) != NULL ? SSL_TLSEXT_ERR_OK
                                                         : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Who offers protocols and not ours means somebody else (RFC 7301 3.2, XEP-0368 4). */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
                   unsigned len, void *arg)
{
    (void)ssl, (void)arg;
    unsigned char *got = NULL;
    const unsigned char *ours = (const unsigned char *)TLS_ALPN;
    if (SSL_select_next_proto(&got, n, ours, sizeof TLS_ALPN - 1, in, len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = got;
    return SSL_TLSEXT_ERR_OK;
}

static bool apply_settings(SSL_CTX *s, const struct tls_ctx *c)
{
    SSL_CTX_set_options(s, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(s, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(s, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(s, on_chain, NULL);
    SSL_CTX_set1_cert_store(s, tls_stores_common(c->stores)); /* completes our own chain */
    if (SSL_CTX_get_security_level(s) < SECURITY_LEVEL)
        SSL_CTX_set_security_level(s, SECURITY_LEVEL);
    return SSL_CTX_set_num_tickets(s, 0) == 1 &&
           SSL_CTX_set_min_proto_version(s, c->minimum) == 1 &&
           SSL_CTX_set_cipher_list(s, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

static void serve(SSL_CTX *s)
{
    SSL_CTX_set_tlsext_servername_callback(s, on_sni);
    SSL_CTX_set_alpn_select_cb(s, on_alpn, NULL);
}

static void keep_sessions(SSL_CTX *s)
{
    SSL_CTX_clear_options(s, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(s, tls_engine_on_session);
}

static void role_unref(struct role *r)
{
    if (r == NULL || --r->refs > 0)
        return;
    SSL_CTX_free(r->ssl);
    tls_own_unref(r->own);
    mem_free(r);
}

static bool role_init(struct role *r, const struct tls_ctx *c, bool server)
{
    const struct tls_material *m = tls_own_material(r->own);
    r->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (r->ssl == NULL || !apply_settings(r->ssl, c) ||
        SSL_CTX_use_cert_and_key(r->ssl, m->leaf, m->key, m->chain, 1) != 1)
        return false;
    if (server)
        serve(r->ssl);
    else if (c->sessions != NULL)
        keep_sessions(r->ssl);
    return true;
}

static struct role *role_new(const struct tls_ctx *c, bool server, struct tls_own *own)
{
    struct role *r = mem_zalloc(sizeof *r);
    if (r == NULL)
        return NULL;
    r->refs = 1;
    r->own = tls_own_ref(own);
    if (role_init(r, c, server))
        return r;
    role_unref(r);
    return NULL;
}

static void tell(struct buf *errors, const struct tls_identity *id, const char *file)
{
    buf_printf(errors, "%s: %s\n", file != NULL ? file : id->domain, tls_queued_reason());
}

/* What there is already, or what the files hold. */
static struct tls_own *own_of(const struct tls_identity *want, bool server, struct buf *errors)
{
    struct tls_own *own = server ? want->own : want->client_own;
    return own != NULL ? tls_own_ref(own) : tls_own_load(want, server, errors);
}

static bool add_role(struct tls_ctx *c, struct role **r, const struct tls_identity *want,
                     struct tls_own *own, bool server, struct buf *errors)
{
    const bool other = !server && want->client_certificate != NULL;
    *r = own != NULL ? role_new(c, server, own) : NULL;
    if (own != NULL && *r == NULL)
        tell(errors, want, other ? want->client_certificate : want->certificate);
    return *r != NULL;
}

/* As client it often is what it is as server: one file read, one warning. */
static bool identity_init(struct tls_ctx *c, struct identity *id, const struct tls_identity *want,
                          struct buf *errors)
{
    const bool same = want->client_certificate == NULL && want->client_own == NULL;
    struct tls_own *own = own_of(want, true, errors);
    struct tls_own *client = own == NULL ? NULL
                             : same      ? tls_own_ref(own)
                                         : own_of(want, false, errors);
    id->domain = mem_strdup(want->domain);
    bool ok = add_role(c, &id->server, want, own, true, errors) &&
              add_role(c, &id->client, want, client, false, errors);
    if (id->domain == NULL)
        buf_puts(errors, "TLS: out of memory\n");
    tls_own_unref(own);
    tls_own_unref(client);
    return ok && id->domain != NULL;
}

/* A context without identities yet. `stores` is taken over; NULL: what is wrong was told. */
static struct tls_ctx *ctx_alloc(size_t n, int minimum, size_t sessions, struct tls_stores *stores,
                                 struct buf *errors)
{
    struct tls_ctx *c = mem_zalloc(sizeof *c + n * sizeof c->v[0]);
    bool ok = c != NULL;
    if (ok) {
        *c = (struct tls_ctx){.refs = 1, .minimum = minimum, .sessions_max = sessions};
        c->stores = stores;
        c->bio = tls_engine_bio_method();
        c->sessions = sessions > 0 ? tls_sessions_new(sessions) : NULL;
        ok = c->bio != NULL && (sessions == 0 || c->sessions != NULL);
    } else {
        tls_stores_unref(stores);
    }
    if (!ok)
        buf_puts(errors, "TLS: out of memory\n");
    if (ok)
        return c;
    tls_ctx_unref(c);
    return NULL;
}

static bool ctx_init(struct tls_ctx *c, const struct tls_settings *s, struct buf *errors)
{
    bool ok = c->stores != NULL;
    /* Go on after a bad identity: the operator sees all problems at once. */
    for (size_t i = 0; c->stores != NULL && i < s->nidentities; i++) {
        c->n = i + 1;
        ok = identity_init(c, &c->v[i], &s->identities[i], errors) && ok;
    }
    return ok;
}

struct tls_ctx *tls_ctx_new(const struct tls_settings *s, struct buf *errors)
{
    ERR_clear_error();
    if (s->nidentities == 0) {
        buf_puts(errors, "TLS needs at least one local domain\n");
        return NULL;
    }
    struct tls_ctx *c =
        ctx_alloc(s->nidentities, s->minimum, s->sessions, tls_stores_new(s, errors), errors);
    if (c != NULL && ctx_init(c, s, errors))
        return c;
    tls_ctx_unref(c);
    return NULL;
}

/* Shared when it shows the same as before. */
static struct role *role_again(const struct tls_ctx *c, struct role *old, bool server,
                               struct tls_own *own)
{
    if (old->own != own)
        return role_new(c, server, own);
    old->refs++;
    return old;
}

struct tls_ctx *tls_ctx_renew(const struct tls_ctx *old, const struct tls_identity *ids,
                              struct buf *errors)
{
    struct tls_ctx *c =
        ctx_alloc(old->n, old->minimum, old->sessions_max, tls_stores_ref(old->stores), errors);
    bool ok = c != NULL;
    for (size_t i = 0; ok && i < old->n; i++) {
        struct tls_own *client = ids[i].client_own != NULL ? ids[i].client_own : ids[i].own;
        c->n = i + 1;
        c->v[i].domain = mem_strdup(old->v[i].domain);
        c->v[i].server = role_again(c, old->v[i].server, true, ids[i].own);
        c->v[i].client = role_again(c, old->v[i].client, false, client);
        ok = c->v[i].domain != NULL && c->v[i].server != NULL && c->v[i].client != NULL;
        if (!ok)
            tell(errors, &ids[i], ids[i].certificate);
    }
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
        role_unref(c->v[i].server);
        role_unref(c->v[i].client);
    }
    tls_sessions_free(c->sessions);
    tls_stores_unref(c->stores);
    BIO_meth_free(c->bio);
    mem_free(c);
}

SSL_CTX *tls_ctx_pick(const struct tls_ctx *c, bool server, const char *domain)
{
    const struct identity *id = find(c, domain);
    if (id == NULL)
        id = &c->v[0];
    return server ? id->server->ssl : id->client->ssl;
}

struct tls_own *tls_ctx_own(const struct tls_ctx *c, size_t i, bool server)
{
    return server ? c->v[i].server->own : c->v[i].client->own;
}

const BIO_METHOD *tls_ctx_bio(const struct tls_ctx *c)
{
    return c->bio;
}

const struct tls_stores *tls_ctx_stores(const struct tls_ctx *c)
{
    return c->stores;
}

struct tls_sessions *tls_ctx_sessions(const struct tls_ctx *c)
{
    return c->sessions;
}
