/* TLS over memory.
 *
 * OpenSSL reads its records from `in` and writes them to `out` through a BIO of our own. Both are
 * buffers with a read offset, freed as soon as they are empty: BIO_s_mem would keep its largest
 * size for ever, and most connections are idle. OpenSSL's own record buffers are released by
 * SSL_MODE_RELEASE_BUFFERS.
 *
 * RFC 8446, RFC 5246, RFC 9325. */
#include "core/tls/tls_engine.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdio.h>

#include "core/base/cidr.h"
#include "core/base/mem.h"
#include "core/tls/tls_ctx_priv.h"
#include "core/tls/tls_dane.h"
#include "core/tls/tls_facts_priv.h"
#include "core/tls/tls_sessions_priv.h"

enum {
    RECORD_WIRE = 18432, /* more than any record with its header */
    IN_MAX = 65536 + RECORD_WIRE,
    OUT_MAX = 1 << 20,
    PLAIN_RECORD = 16384,
    SSL_ESTIMATE = 16 * 1024, /* what OpenSSL holds for an idle connection, roughly */
    ALERT_OFFSET = SSL_AD_REASON_OFFSET,
};

struct stash {
    struct buf b;
    size_t at; /* bytes of b already taken */
};

struct tls_engine {
    struct tls_ctx *ctx;
    struct tls_ctx *trust; /* whose stores judge the peer */
    SSL *ssl;
    struct stash in, out;
    struct tls_peer peer;
    struct tls_facts *facts;    /* the peer's names and texts; NULL: it has no certificate */
    const struct tls_store *by; /* who judges it; NULL: nobody is trusted */
    bool by_old;                /* `trust` has changed since the verdict */
    char *pair;                 /* "local\0remote": its sessions; NULL: none are kept */
    size_t pair_n;
    const struct tlsa_set *tlsa; /* what its domain says of it; NULL: nothing */
    char why[TLS_WHY_MAX];
    int first; /* first byte received; -1: none yet */
    bool server, up, failed;
};

static size_t stash_left(const struct stash *s)
{
    return s->b.len - s->at;
}

static void stash_take(struct stash *s, size_t n)
{
    s->at += n;
    if (s->at < s->b.len)
        return;
    buf_free(&s->b);
    s->at = 0;
}

static bool stash_put(struct stash *s, const void *p, size_t n)
{
    if (s->at > 0 && s->at >= s->b.len / 2) {
        buf_drop(&s->b, s->at);
        s->at = 0;
    }
    buf_put(&s->b, p, n);
    return !s->b.failed;
}

/* ---- the BIO --------------------------------------------------------------------------------- */

static int bio_read(BIO *b, char *out, size_t cap, size_t *n)
{
    struct tls_engine *e = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    size_t left = stash_left(&e->in);
    *n = left < cap ? left : cap;
    if (*n == 0) {
        BIO_set_retry_read(b);
        return 0;
    }
    memcpy(out, e->in.b.p + e->in.at, *n);
    stash_take(&e->in, *n);
    return 1;
}

static int bio_write(BIO *b, const char *p, size_t len, size_t *n)
{
    struct tls_engine *e = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    *n = 0;
    if (!stash_put(&e->out, p, len))
        return 0;
    *n = len;
    return 1;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    (void)num, (void)ptr;
    const struct tls_engine *e = BIO_get_data(b);
    switch (cmd) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_PENDING:
        return (long)stash_left(&e->in);
    case BIO_CTRL_WPENDING:
        return (long)stash_left(&e->out);
    default:
        return 0;
    }
}

BIO_METHOD *tls_engine_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | 0x7f, "sallyport engine");
    if (m == NULL)
        return NULL;
    if (BIO_meth_set_read_ex(m, bio_read) == 1 && BIO_meth_set_write_ex(m, bio_write) == 1 &&
        BIO_meth_set_ctrl(m, bio_ctrl) == 1)
        return m;
    BIO_meth_free(m);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool is_literal(const char *name)
{
    struct ip ip;
    return ip_parse(str_c(name), &ip);
}

static struct str pair_of(const struct tls_engine *e)
{
    return (struct str){e->pair, e->pair_n};
}

/* Sessions are kept for whoever has two names. Without memory the handshake is a full one. */
static void resume(struct tls_engine *e, const char *domain, const char *peer_name)
{
    if (tls_ctx_sessions(e->ctx) == NULL || domain == NULL)
        return;
    const size_t n = strlen(domain) + 1, m = strlen(peer_name) + 1;
    e->pair = mem_alloc(n + m);
    if (e->pair == NULL)
        return;
    memcpy(e->pair, domain, n);
    memcpy(e->pair + n, peer_name, m);
    e->pair_n = n + m;
    SSL_SESSION *s = tls_sessions_take(tls_ctx_sessions(e->ctx), pair_of(e));
    if (s != NULL)
        SSL_set_session(e->ssl, s);
    SSL_SESSION_free(s);
}

static bool be_client(struct tls_engine *e, const char *domain, const char *peer_name)
{
    SSL_set_connect_state(e->ssl);
    if (peer_name == NULL || peer_name[0] == '\0' || is_literal(peer_name))
        return true; /* SNI holds names only (RFC 6066 3) */
    resume(e, domain, peer_name);
    return SSL_set_tlsext_host_name(e->ssl, peer_name) == 1;
}

static bool attach(struct tls_engine *e, const char *domain, const char *peer_name)
{
    e->ssl = SSL_new(tls_ctx_pick(e->ctx, e->server, domain));
    BIO *bio = e->ssl != NULL ? BIO_new(tls_ctx_bio(e->ctx)) : NULL;
    if (bio == NULL)
        return false;
    BIO_set_data(bio, e);
    BIO_set_init(bio, 1);
    SSL_set_bio(e->ssl, bio, bio);
    if (SSL_set_app_data(e->ssl, e) != 1)
        return false;
    if (!e->server)
        return be_client(e, domain, peer_name);
    SSL_set_accept_state(e->ssl);
    return true;
}

struct tls_engine *tls_engine_new(struct tls_ctx *ctx, bool server, const char *domain,
                                  const char *peer_name)
{
    struct tls_engine *e = mem_zalloc(sizeof *e);
    if (e == NULL)
        return NULL;
    e->ctx = tls_ctx_ref(ctx);
    e->trust = tls_ctx_ref(ctx);
    e->server = server;
    e->by = tls_stores_find(tls_ctx_stores(ctx), NULL);
    e->first = -1;
    buf_init(&e->in.b, IN_MAX);
    buf_init(&e->out.b, OUT_MAX);
    ERR_clear_error();
    if (attach(e, domain, peer_name))
        return e;
    ERR_clear_error();
    tls_engine_free(e);
    return NULL;
}

void tls_engine_free(struct tls_engine *e)
{
    if (e == NULL)
        return;
    SSL_free(e->ssl);
    buf_free(&e->in.b);
    buf_free(&e->out.b);
    tls_ctx_unref(e->ctx);
    tls_ctx_unref(e->trust);
    mem_free(e->facts);
    mem_free(e->pair);
    mem_free(e);
}

bool tls_engine_direct(struct tls_engine *e)
{
    return SSL_set_alpn_protos(e->ssl, (const unsigned char *)TLS_ALPN, sizeof TLS_ALPN - 1) == 0;
}

/* ---- errors ---------------------------------------------------------------------------------- */

static const char *plain_words(int reason)
{
    switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
        return "no TLS version in common";
    case SSL_R_NO_SHARED_CIPHER:
        return "no cipher suite in common";
    case SSL_R_NO_APPLICATION_PROTOCOL:
        return "it offers other protocols by ALPN, not xmpp-server";
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return "peer closed without notice";
    default:
        return NULL;
    }
}

/* NULL: an alert about something else than our certificate (RFC 8446 6.2). */
static const char *certificate_alert(int alert)
{
    switch (alert) {
    case SSL_AD_BAD_CERTIFICATE:
        return "it calls it bad";
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
        return "it does not support its type";
    case SSL_AD_CERTIFICATE_REVOKED:
        return "revoked";
    case SSL_AD_CERTIFICATE_EXPIRED:
        return "expired";
    case SSL_AD_CERTIFICATE_UNKNOWN:
        return "it gave no precise reason";
    case SSL_AD_UNKNOWN_CA:
        return "it does not know the issuer";
    case SSL_AD_ACCESS_DENIED:
        return "access denied";
    case TLS13_AD_CERTIFICATE_REQUIRED:
        return "it demands one and got none that it can use";
    default:
        return NULL;
    }
}

static void explain_alert(struct tls_engine *e, int alert)
{
    const char *certificate = certificate_alert(alert), *name = SSL_alert_desc_string_long(alert);
    if (certificate != NULL)
        snprintf(e->why, sizeof e->why, "the peer refused our certificate: %s (alert %d)",
                 certificate, alert);
    else
        snprintf(e->why, sizeof e->why, "peer sent alert: %s", name);
}

static void explain(struct tls_engine *e)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    bool ours = ERR_GET_LIB(code) == ERR_LIB_SSL;
    const char *words = ours ? plain_words(reason) : NULL;
    bool foreign = !e->up && e->first >= 0 && (e->first < 0x14 || e->first > 0x17);
    if (e->in.b.failed || e->out.b.failed)
        snprintf(e->why, sizeof e->why, "out of memory");
    else if (foreign)
        snprintf(e->why, sizeof e->why, "not TLS: got %s",
                 e->first == '<' || e->first == ' ' ? "XML" : "something else");
    else if (ours && reason > ALERT_OFFSET)
        explain_alert(e, reason - ALERT_OFFSET);
    else if (words != NULL)
        snprintf(e->why, sizeof e->why, "%s", words);
    else if (code != 0 && ERR_reason_error_string(code) != NULL)
        snprintf(e->why, sizeof e->why, "%s", ERR_reason_error_string(code));
    else
        snprintf(e->why, sizeof e->why, "unknown TLS error");
    ERR_clear_error();
    e->failed = true;
}

/* The meaning of an SSL call that did not succeed. */
static enum tls_result outcome(struct tls_engine *e, int ret)
{
    switch (SSL_get_error(e->ssl, ret)) {
    case SSL_ERROR_WANT_READ:
        return TLS_WANT_WIRE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_CLOSED;
    default:
        explain(e);
        return TLS_ERROR;
    }
}

/* ---- wire side ------------------------------------------------------------------------------- */

bool tls_engine_put_wire(struct tls_engine *e, struct str bytes)
{
    if (bytes.n == 0)
        return true;
    if (e->first < 0)
        e->first = (unsigned char)bytes.p[0];
    return stash_put(&e->in, bytes.p, bytes.n);
}

struct str tls_engine_wire(struct tls_engine *e)
{
    if (stash_left(&e->out) == 0)
        return STR("");
    return (struct str){e->out.b.p + e->out.at, stash_left(&e->out)};
}

void tls_engine_wire_taken(struct tls_engine *e, size_t n)
{
    size_t left = stash_left(&e->out);
    stash_take(&e->out, n < left ? n : left);
}

bool tls_engine_readable(const struct tls_engine *e)
{
    return stash_left(&e->in) > 0 || (e->up && SSL_has_pending(e->ssl) == 1);
}

/* ---- handshake ------------------------------------------------------------------------------- */

/* What resumes the session may prove this peer once more, without a certificate being sent. */
static bool worth_resuming(const struct tls_engine *e)
{
    const char *remote = e->pair + strlen(e->pair) + 1;
    return e->peer.chain_ok && e->peer.dane != TLS_DANE_MISMATCH &&
           tls_peer_covers(&e->peer, str_c(remote));
}

/* The session of TLS 1.2 is there at once; tickets of 1.3 come later. One without extended master
 * secret could be another's (RFC 7627 5.3). */
static void settle_session(struct tls_engine *e)
{
    if (e->pair == NULL)
        return;
    SSL_SESSION *s = SSL_get0_session(e->ssl);
    if (!worth_resuming(e))
        tls_engine_forget(e);
    else if (SSL_version(e->ssl) < TLS1_3_VERSION && SSL_get_extms_support(e->ssl) == 1 &&
             s != NULL)
        tls_sessions_put(tls_ctx_sessions(e->ctx), pair_of(e), s);
}

int tls_engine_on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_engine *e = SSL_get_app_data(ssl);
    if (e != NULL && e->up && e->pair != NULL && worth_resuming(e))
        tls_sessions_put(tls_ctx_sessions(e->ctx), pair_of(e), session);
    return 0; /* no reference is kept */
}

const struct tls_ctx *tls_engine_ctx(const SSL *ssl)
{
    const struct tls_engine *e = SSL_get_app_data(ssl);
    return e->ctx;
}

void tls_engine_forget(struct tls_engine *e)
{
    if (e->pair != NULL)
        tls_sessions_forget(tls_ctx_sessions(e->ctx), pair_of(e));
}

static void judge_dane(struct tls_engine *e, X509 *x)
{
    struct tls_peer *p = &e->peer;
    p->dane = tls_dane_match(e->tlsa, x, SSL_get_peer_cert_chain(e->ssl), tls_store_x509(e->by),
                             p->chain_ok, p->dane_why);
}

static void judge_chain(struct tls_engine *e)
{
    X509 *x = SSL_get0_peer_certificate(e->ssl);
    if (x != NULL)
        tls_stores_judge(tls_ctx_stores(e->trust), e->by, x, SSL_get_peer_cert_chain(e->ssl),
                         !e->server, &e->peer);
    if (x != NULL && e->tlsa != NULL)
        judge_dane(e, x);
    settle_session(e);
}

void tls_engine_dane(struct tls_engine *e, const struct tlsa_set *records)
{
    e->tlsa = records;
}

void tls_engine_trust(struct tls_engine *e, struct tls_ctx *ctx)
{
    if (ctx == e->trust)
        return;
    tls_ctx_unref(e->trust);
    e->trust = tls_ctx_ref(ctx);
    e->by = tls_stores_find(tls_ctx_stores(ctx), NULL);
    e->by_old = true;
}

void tls_engine_judge(struct tls_engine *e, const char *ca_file)
{
    const struct tls_store *by = tls_stores_find(tls_ctx_stores(e->trust), ca_file);
    const bool same = by == e->by && !e->by_old;
    e->by = by;
    e->by_old = false;
    if (!same && e->up && !e->failed)
        judge_chain(e);
}

static bool judge(struct tls_engine *e)
{
    struct tls_peer *p = &e->peer;
    X509 *x = SSL_get0_peer_certificate(e->ssl);
    str_copy(p->protocol, sizeof p->protocol, str_c(SSL_get_version(e->ssl)));
    str_copy(p->cipher, sizeof p->cipher, str_c(SSL_get_cipher_name(e->ssl)));
    p->resumed = SSL_session_reused(e->ssl) == 1;
    if (x == NULL)
        snprintf(p->why, sizeof p->why, "the peer presented no certificate");
    else if ((e->facts = tls_facts_new(p, x)) == NULL)
        return false;
    judge_chain(e);
    return true;
}

static enum tls_result fail(struct tls_engine *e, const char *why)
{
    snprintf(e->why, sizeof e->why, "%s", why);
    e->failed = true;
    return TLS_ERROR;
}

enum tls_result tls_engine_handshake(struct tls_engine *e)
{
    if (e->failed)
        return TLS_ERROR;
    if (e->up)
        return TLS_OK;
    ERR_clear_error();
    int ret = SSL_do_handshake(e->ssl);
    if (ret != 1) {
        enum tls_result r = outcome(e, ret);
        if (r != TLS_WANT_WIRE)
            tls_engine_forget(e); /* in case that what was to be resumed is to blame */
        return r != TLS_CLOSED ? r : fail(e, "peer closed during the handshake");
    }
    e->up = true;
    bool judged = judge(e);
    ERR_clear_error();
    return judged ? TLS_OK : fail(e, "out of memory");
}

/* ---- plain side ------------------------------------------------------------------------------ */

enum tls_result tls_engine_read(struct tls_engine *e, char *out, size_t cap, size_t *n)
{
    *n = 0;
    if (e->failed || !e->up)
        return e->failed ? TLS_ERROR : TLS_WANT_WIRE;
    ERR_clear_error();
    if (SSL_read_ex(e->ssl, out, cap, n) == 1)
        return TLS_OK;
    return outcome(e, 0);
}

enum tls_result tls_engine_write(struct tls_engine *e, struct str plain)
{
    if (e->failed || !e->up)
        return e->failed ? TLS_ERROR : TLS_WANT_WIRE;
    if (plain.n == 0)
        return TLS_OK;
    ERR_clear_error();
    size_t n = 0;
    if (SSL_write_ex(e->ssl, plain.p, plain.n, &n) == 1 && n == plain.n)
        return TLS_OK;
    explain(e);
    return TLS_ERROR;
}

void tls_engine_close_notify(struct tls_engine *e)
{
    if (e->failed || !e->up)
        return;
    ERR_clear_error();
    SSL_shutdown(e->ssl);
    ERR_clear_error();
}

/* ---- facts ----------------------------------------------------------------------------------- */

size_t tls_engine_record(const struct tls_engine *e)
{
    const SSL_SESSION *s = SSL_get0_session(e->ssl);
    unsigned code = s != NULL ? SSL_SESSION_get_max_fragment_length(s) : 0;
    return code >= 1 && code <= 4 ? (size_t)256 << code : PLAIN_RECORD;
}

const struct tls_peer *tls_engine_peer(const struct tls_engine *e)
{
    return &e->peer;
}

const char *tls_engine_why(const struct tls_engine *e)
{
    return e->why;
}

size_t tls_engine_memory(const struct tls_engine *e)
{
    size_t facts = e->facts != NULL ? e->facts->size : 0;
    return sizeof *e + SSL_ESTIMATE + e->in.b.cap + e->out.b.cap + facts + e->pair_n;
}
