/* What resumes a session with a peer, by the pair (local domain, remote domain); for core/tls only.
 *
 * Bounded: the pair that was used least recently goes first. Of TLS 1.3 a pair has a few tickets,
 * each of which is used once (RFC 8446 C.4); of TLS 1.2 one session, which stays. */
#ifndef CORE_TLS_TLS_SESSIONS_PRIV_H
#define CORE_TLS_TLS_SESSIONS_PRIV_H

#include <openssl/ssl.h>

#include "core/base/str.h"

enum {
    TLS_SESSIONS_PER_PAIR = 2,
    TLS_TICKET_MAX = 4096,          /* bytes; a larger one is not kept */
    TLS_SESSION_AGE = 24 * 60 * 60, /* s; longer ones are not used, whatever the peer says */
};

struct tls_sessions;

struct tls_sessions *tls_sessions_new(size_t pairs); /* NULL: out of memory */
void tls_sessions_free(struct tls_sessions *c);

/* Keeps a copy of `s`. Without memory, or when it is too large, it is not kept. */
void tls_sessions_put(struct tls_sessions *c, struct str pair, SSL_SESSION *s);
/* The newest that may still be used; the caller's. NULL: none. */
SSL_SESSION *tls_sessions_take(struct tls_sessions *c, struct str pair);
void tls_sessions_forget(struct tls_sessions *c, struct str pair);
size_t tls_sessions_count(const struct tls_sessions *c); /* of all pairs */

#endif
