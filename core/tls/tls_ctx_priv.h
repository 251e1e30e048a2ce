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

/* Defined by tls_engine.c: the method itself, and where a chain verdict is written. */
BIO_METHOD *tls_engine_bio_method(void);
struct tls_peer *tls_engine_peer_of(SSL *ssl);

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
