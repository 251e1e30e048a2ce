/* What tls_engine needs of tls_ctx; for core/tls only. */
#ifndef CORE_TLS_TLS_CTX_PRIV_H
#define CORE_TLS_TLS_CTX_PRIV_H

#include <openssl/ssl.h>
#include <stdio.h>

#include "core/tls/tls_ctx.h"
#include "core/tls/tls_peer.h"

/* The context of the identity for `domain` (NULL or unknown: the default one). Borrowed. */
SSL_CTX *tls_ctx_pick(const struct tls_ctx *c, bool server, const char *domain);
/* The BIO over an engine's buffers, owned by the context. */
const BIO_METHOD *tls_ctx_bio(const struct tls_ctx *c);

const struct tls_stores *tls_ctx_stores(const struct tls_ctx *c);

/* Defined by tls_engine.c. */
BIO_METHOD *tls_engine_bio_method(void);

/* Defined by tls_judge.c. The stores and revocation lists that settings name; NULL: `errors`. */
struct tls_stores *tls_stores_new(const struct tls_settings *s, struct buf *errors);
void tls_stores_free(struct tls_stores *t);
/* Writes chain_ok and why of `p`, whose other facts are those of the leaf. `chain`: the
 * certificates that came with it, in any order; NULL: none. ca_file as in tls_engine_judge. */
void tls_stores_judge(const struct tls_stores *t, const char *ca_file, X509 *leaf,
                      STACK_OF(X509) * chain, struct tls_peer *p);
/* The key is shorter than RFC 9325 4.5 allows; `why` is written only then. */
bool tls_weak_key(X509 *x, char why[TLS_WHY_MAX]);

/* Defined by tls_material.c. What a certificate file and a key file hold, while contexts are being
 * made of it; to be freed after a failed load too. */
struct tls_material {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};
bool tls_material_load(struct tls_material *m, const struct tls_identity *id, struct buf *errors);
void tls_material_free(struct tls_material *m);
FILE *tls_pem_open(const char *path, struct buf *errors); /* NULL: `errors` says why */
/* The last error of libcrypto in words; empties its queue. */
const char *tls_queued_reason(void);

/* Defined by tls_selfsigned.c: a certificate for `domain` with a new P-256 key. */
bool tls_selfsigned(const char *domain, X509 **certificate, EVP_PKEY **key);

#endif
