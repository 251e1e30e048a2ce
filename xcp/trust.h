/* How the two ends of an inside link prove themselves, and the verdict on a certificate. Pure.
 *
 * auth            what has to be there
 * password        the XEP-0114 handshake; TLS is not used
 * tls             mutual TLS; the peer's certificate itself is in the link's store (store_file), or
 *                 its key hash is on the authlist. A certificate that only leads to a known root is
 *                 refused, unless its name was proven earlier (below)
 * tls+password    mutual TLS with certificates of a common root (ca_file) that carry the peer's
 *                 name, and the handshake; store and authlist are accepted too
 *
 * Switching over: a link that has been up with `password` remembers the peer's name as proven. When
 * its auth becomes `tls`, a certificate that leads to the root and carries that name is accepted
 * without being imported; a self-signed one is not, whatever the root store says.
 *
 * What was entered one by one names the peer by itself: on the authlist only the key counts, not
 * the certificate's dates or names (it may be renewed with the same key); in the store the
 * certificate counts, not its names, but it has to be within its dates. The name matters only where
 * a root vouches for it.
 *
 * A key hash is the SHA-256 (or SHA-1, for comparison with old boxes) of the DER form of the public
 * key (SubjectPublicKeyInfo). */
#ifndef XCP_TRUST_H
#define XCP_TRUST_H

#include "config/auth.h"
#include "core/base/key_hash.h"
#include "core/tls/tls_peer.h"

struct link_trust {
    enum link_auth auth;
    const struct key_hash *authlist; /* of keys */
    size_t nauthlist;
    const struct key_hash *store; /* SHA-256 of each certificate in store_file */
    size_t nstore;
    struct str peer_name; /* A-label that a certificate of the root has to carry; absent: any */
    bool proven;          /* peer_name, then not absent, joined by password earlier */
};

/* What decides, and what becomes the alarm's kind and the log's reason. */
#define TRUST_REASONS(X)                                                                           \
    X(AUTHLIST, "authlist", true)                                                                  \
    X(STORE, "store", true)                                                                        \
    X(PROVEN_NAME, "proven-name", true)                                                            \
    X(ROOT, "root", true) /* tls+password */                                                       \
    X(NO_CERTIFICATE, "no-certificate", false)                                                     \
    X(EXPIRED, "expired", false) /* or not yet valid */                                            \
    X(NOT_IN_STORE, "self-signed-not-in-store", false)                                             \
    X(ONLY_ROOT, "root-known-certificate-not-in-store", false)                                     \
    X(AFTER_SWITCH, "self-signed-after-switch", false)                                             \
    X(WRONG_NAME, "wrong-name", false)                                                             \
    X(UNKNOWN_ISSUER, "unknown-issuer", false)

enum trust_reason {
#define X(id, name, ok) TRUST_##id,
    TRUST_REASONS(X)
#undef X
};

bool trust_ok(enum trust_reason r);
const char *trust_reason_name(enum trust_reason r);
/* One sentence for the operator: what was looked at and what would help. Static. */
const char *trust_reason_text(enum trust_reason r);

/* Total. For auth tls and tls+password; with password, where nobody should ask, as with tls. */
enum trust_reason link_trust_check(const struct link_trust *t, const struct tls_peer *peer);

#endif
