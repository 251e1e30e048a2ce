/* OpenSSL contexts of one configuration snapshot: own certificates by local domain, trust store,
 * protocol settings (RFC 9325). Immutable after tls_ctx_new; ref-counted, one worker. */
#ifndef CORE_TLS_TLS_CTX_H
#define CORE_TLS_TLS_CTX_H

#include "core/base/buf.h"

struct tls_identity {
    const char *domain;           /* A-label */
    /* PEM files, the certificate with its chain. No certificate: a self-signed one is made; no key:
     * it is in the certificate's file. */
    const char *certificate, *key;
};

struct tls_settings {
    const struct tls_identity *identities; /* the first one is the default */
    size_t nidentities;
    const char *ca_file; /* NULL: the system's store */
    int minimum;         /* TLS1_2_VERSION or TLS1_3_VERSION */
};

struct tls_ctx;

/* NULL: `errors` holds one line per problem (file, what is wrong). A ca_file that does not exist is
 * a problem only when it was named; an unreadable system store is not. What is usable but looks
 * wrong (an expired certificate) is a line that begins with "warning: ", on success too.
 *
 * A server picks the identity by SNI: the one of exactly that domain, else one whose certificate
 * covers the name (one whole left-most wildcard label at most). */
struct tls_ctx *tls_ctx_new(const struct tls_settings *s, struct buf *errors);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *c);
void tls_ctx_unref(struct tls_ctx *c);

#endif
