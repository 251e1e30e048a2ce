/* OpenSSL contexts of one configuration snapshot: own certificates by local domain, trust store,
 * protocol settings (RFC 9325). Immutable after tls_ctx_new; ref-counted, one worker. */
#ifndef CORE_TLS_TLS_CTX_H
#define CORE_TLS_TLS_CTX_H

#include "core/base/buf.h"
#include "core/base/key_hash.h"
#include "core/tls/tls_peer.h"

enum { TLS_FINGERPRINTS_MAX = 1000 };

struct tls_own; /* tls_own.h */

struct tls_identity {
    const char *domain; /* A-label */
    /* PEM files, the certificate with its chain. No certificate: a self-signed one is made; no key:
     * it is in the certificate's file. */
    const char *certificate, *key;
    /* The same for when we are the client; no certificate: the above. */
    const char *client_certificate, *client_key;
    /* What it shows as server and as client, loaded before: then no file is read. NULL: not yet. */
    struct tls_own *own, *client_own;
};

struct tls_settings {
    const struct tls_identity *identities; /* the first one is the default */
    size_t nidentities;
    const char *ca_file; /* NULL: the system's store */
    /* Further stores that tls_engine_judge may be asked for, by the name of their file; the same
     * name may stand there twice. */
    const char *const *ca_files;
    size_t nca_files;
    const char *crl_file; /* revocation lists; NULL: none */
    int minimum;          /* TLS1_2_VERSION or TLS1_3_VERSION */
    /* As client: for so many pairs of names what resumes a session is kept; 0: none. */
    size_t sessions;
    /* With ca_file NULL: an empty store, so that chain_ok is always false. For inside links, where
     * a public CA must not open the door. */
    bool no_system_store;
};

struct tls_ctx;

/* NULL: `errors` holds one line per problem (file, what is wrong). A ca_file that does not exist is
 * a problem only when it was named; an unreadable system store is not. What is usable but looks
 * wrong (an expired certificate) is a line that begins with "warning: ", on success too.
 *
 * A server picks the identity by SNI: the one of exactly that domain, else one whose certificate
 * covers the name (one whole left-most wildcard label at most). */
struct tls_ctx *tls_ctx_new(const struct tls_settings *s, struct buf *errors);
/* The same context with other certificates: of `ids`, which are those of `c` in their order, only
 * what has been loaded counts. Settings and stores are shared, and so is whatever stays as it is.
 * No session is taken along: it would show the peer who we were. */
struct tls_ctx *tls_ctx_renew(const struct tls_ctx *c, const struct tls_identity *ids,
                              struct buf *errors);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *c);
void tls_ctx_unref(struct tls_ctx *c);

/* What the i-th identity of the settings shows as server or as client; borrowed from the context.
 */
struct tls_own *tls_ctx_own(const struct tls_ctx *c, size_t i, bool server);

/* SHA-256 of every certificate of a PEM file, in its order, at most TLS_FINGERPRINTS_MAX. The
 * caller frees it with mem_free. NULL: `errors` holds a line (file, what is wrong); a file without
 * any certificate is one. */
struct key_hash *tls_fingerprints(const char *path, size_t *n, struct buf *errors);

/* What others have to know of an identity to trust it, as lines "key: value" for people: name,
 * subject, type (self-signed, or who signed it), validity, key hashes. False: `errors` as in
 * tls_ctx_new. */
bool tls_identity_describe(const struct tls_identity *id, struct buf *out, struct buf *errors);

#endif
