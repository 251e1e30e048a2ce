/* What the TLSA records of a server say of the certificates that it showed (RFC 6698, RFC 7671).
 *
 * Only the match is looked for here. That the records are authentic, and which names a certificate
 * must carry beside a match, is for others to see to (gateway/proto/dane.h). */
#ifndef CORE_TLS_TLS_DANE_H
#define CORE_TLS_TLS_DANE_H

#include <openssl/x509.h>

#include "core/base/tlsa.h"
#include "core/tls/tls_peer.h"

/* Certificates that the peer sent and that are looked at. */
enum { TLS_DANE_CHAIN_MAX = 16 };

/* A record that TLS can compare with: known numbers, a hash of the right size. */
bool tlsa_usable(const struct tlsa *t);

/* `chain`: the certificates that came with the leaf, in any order, it may be among them; NULL:
 * none. `roots`: the authorities that the operator trusts, for records that name one of those;
 * NULL: none. chain_ok: the leaf has been led to them. `why` is written for TLS_DANE_MISMATCH: one
 * phrase. */
enum tls_dane tls_dane_match(const struct tlsa_set *set, X509 *leaf, STACK_OF(X509) * chain,
                             X509_STORE *roots, bool chain_ok, char why[TLS_WHY_MAX]);

#endif
