/* What tls_engine needs of tls_ctx; for core/tls only. */
#ifndef CORE_TLS_TLS_CTX_PRIV_H
#define CORE_TLS_TLS_CTX_PRIV_H

#include <openssl/ssl.h>
#include <stdio.h>

#include "core/tls/tls_ctx.h"
#include "core/tls/tls_peer.h"

/* Of ALPN, with its length before it (RFC 7301 3.1, XEP-0368 4). */
#define TLS_ALPN "\x0bxmpp-server"

/* The context of the identity for `domain` (NULL or unknown: the default one). Borrowed. */
SSL_CTX *tls_ctx_pick(const struct tls_ctx *c, bool server, const char *domain);
/* The BIO over an engine's buffers, owned by the context. */
const BIO_METHOD *tls_ctx_bio(const struct tls_ctx *c);

const struct tls_stores *tls_ctx_stores(const struct tls_ctx *c);
struct tls_sessions *tls_ctx_sessions(const struct tls_ctx *c); /* NULL: none are kept */

/* Defined by tls_engine.c. */
BIO_METHOD *tls_engine_bio_method(void);
/* SSL_CTX_sess_set_new_cb for clients. */
int tls_engine_on_session(SSL *ssl, SSL_SESSION *session);
const struct tls_ctx *tls_engine_ctx(const SSL *ssl);

/* Defined by tls_judge.c. The stores and revocation lists that settings name; NULL: `errors`. */
struct tls_stores *tls_stores_new(const struct tls_settings *s, struct buf *errors);
struct tls_stores *tls_stores_ref(struct tls_stores *t);
void tls_stores_unref(struct tls_stores *t);
/* The store of one of settings.ca_files; ca_file NULL: that for everybody. NULL: not loaded. As
 * long as `t`. */
const struct tls_store *tls_stores_find(const struct tls_stores *t, const char *ca_file);
X509_STORE *tls_store_x509(const struct tls_store *s);     /* borrowed; NULL for NULL */
X509_STORE *tls_stores_common(const struct tls_stores *t); /* that for everybody; borrowed */
/* Writes chain_ok and why of `p`, whose other facts are those of the leaf. `by`: NULL trusts
 * nobody. `chain`: the certificates that came with it, in any order; NULL: none. `server`: the peer
 * is the server. */
void tls_stores_judge(const struct tls_stores *t, const struct tls_store *by, X509 *leaf,
                      STACK_OF(X509) * chain, bool server, struct tls_peer *p);

/* Defined by tls_material.c. What a certificate file and a key file hold; to be freed after a
 * failed load too. */
struct tls_material {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};
/* `client`: what the identity shows as client. */
bool tls_material_load(struct tls_material *m, const struct tls_identity *id, bool client,
                       struct buf *errors);
void tls_material_free(struct tls_material *m);
const struct tls_material *tls_own_material(const struct tls_own *o); /* by tls_own.c */
FILE *tls_pem_open(const char *path, struct buf *errors);             /* NULL: `errors` says why */
/* The last error of libcrypto in words; empties its queue. */
const char *tls_queued_reason(void);

/* Defined by tls_selfsigned.c: a certificate for `domain` with a new P-256 key. */
bool tls_selfsigned(const char *domain, X509 **certificate, EVP_PKEY **key);

#endif
