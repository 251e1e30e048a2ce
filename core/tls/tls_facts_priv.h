/* From a certificate to plain facts and phrases; for core/tls only. */
#ifndef CORE_TLS_TLS_FACTS_PRIV_H
#define CORE_TLS_TLS_FACTS_PRIV_H

#include <openssl/x509.h>

#include "core/tls/tls_peer.h"

enum { TLS_DATE_MAX = 32, TLS_DN_MAX = 128 };

/* What the names and texts of a tls_peer live in. One block: mem_free. */
struct tls_facts {
    size_t size; /* of the block */
    struct tls_name names[];
};

/* Fills what the certificate itself says, not the verdict on its chain. NULL: out of memory. */
struct tls_facts *tls_facts_new(struct tls_peer *p, X509 *x);

/* "2026-01-02" */
void tls_facts_date(const ASN1_TIME *t, char out[TLS_DATE_MAX]);

/* "CN=…,O=…", everything but printable ASCII escaped. */
void tls_facts_dn(const X509_NAME *name, char out[TLS_DN_MAX]);

/* The phrase for an error of the chain's verification (X509_V_ERR_…) that was found at `x`, `depth`
 * certificates above the peer's own. */
void tls_facts_why(char why[TLS_WHY_MAX], int error, int depth, X509 *x);
/* The same for what `text` says of it. */
void tls_facts_why_text(char why[TLS_WHY_MAX], const char *text, int depth, X509 *x);
/* Says of a certificate out of its time that it is, unless `why` does already. */
void tls_facts_why_time(char why[TLS_WHY_MAX], X509 *x);

#endif
