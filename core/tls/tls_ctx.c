/* TLS contexts of one configuration snapshot.
 *
 * Each identity has two SSL_CTX, one per role, over one shared trust store. Protocol settings
 * follow RFC 9325: 1.2 at least, of 1.2 only ECDHE with AEAD, no renegotiation, no compression, no
 * resumption. A certificate is asked for and judged, but its verdict never fails a handshake: what
 * an unverified peer may do is policy, and policy is not made here. */
#include "core/tls/tls_ctx.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <strings.h>

#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_facts_priv.h"

enum { NAME_MAX_BYTES = 255 };

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

/* Always 1: the verdict is written down and somebody else decides. */
static int on_verify(int ok, X509_STORE_CTX *xs)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(xs, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_peer *peer = ssl != NULL ? tls_engine_peer_of(ssl) : NULL;
    if (peer == NULL)
        return 0;
    if (!ok && peer->why[0] == '\0')
        tls_facts_why(peer->why, X509_STORE_CTX_get_error(xs), X509_STORE_CTX_get_error_depth(xs),
                      X509_STORE_CTX_get_current_cert(xs));
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

static SSL_CTX *role_new(struct tls_ctx *c, bool server, const struct tls_material *m,
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
    struct tls_material m;
    bool ok = tls_material_load(&m, want, errors);
    if (ok) {
        id->domain = mem_strdup(want->domain);
        id->server = role_new(c, true, &m, set, store);
        id->client = id->server != NULL ? role_new(c, false, &m, set, store) : NULL;
        ok = id->domain != NULL && id->client != NULL;
        if (!ok)
            buf_printf(errors, "%s: %s\n",
                       want->certificate != NULL ? want->certificate : want->domain,
                       tls_queued_reason());
    }
    tls_material_free(&m);
    return ok;
}

static X509_STORE *trust_store(const struct tls_settings *set, struct buf *errors)
{
    const char *ca_file = set->ca_file;
    X509_STORE *store = X509_STORE_new();
    if (store == NULL) {
        buf_puts(errors, "trust store: out of memory\n");
        return NULL;
    }
    if (ca_file == NULL) {
        if (!set->no_system_store)
            X509_STORE_set_default_paths(store);
        ERR_clear_error();
        return store;
    }
    FILE *f = tls_pem_open(ca_file, errors);
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
    X509_STORE *store = trust_store(s, errors);
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
