/* What tls_engine needs of tls_ctx; for core/tls only. */
#ifndef CORE_TLS_TLS_CTX_PRIV_H
#define CORE_TLS_TLS_CTX_PRIV_H

#include <openssl/ssl.h>

#include "core/tls/tls_ctx.h"
#include "core/tls/tls_peer.h"

/* The context of the identity for `domain` (NULL or unknown: the default one). Borrowed. */
SSL_CTX *tls_ctx_pick(const struct tls_ctx *c, bool server, const char *domain);
/* The BIO over an engine's buffers, owned by the context. */
const BIO_METHOD *tls_ctx_bio(const struct tls_ctx *c);

/* Defined by tls_engine.c: the method itself, and where a chain verdict is written. */
BIO_METHOD *tls_engine_bio_method(void);
struct tls_peer *tls_engine_peer_of(SSL *ssl);

/* Defined by tls_selfsigned.c: a certificate for `domain` with a new P-256 key. */
bool tls_selfsigned(const char *domain, X509 **certificate, EVP_PKEY **key);

#endif
