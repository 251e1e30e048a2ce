/* Our own certificates: when they end, and whether a new one may take the place of another. Pure,
 * but for tls_own_load, which reads files. */
#ifndef CORE_TLS_TLS_OWN_H
#define CORE_TLS_TLS_OWN_H

#include "core/tls/tls_ctx.h"
#include "core/tls/tls_peer.h"

/* How near the end is; a later one is more urgent. */
#define TLS_EXPIRIES(X)                                                                            \
    X(FAR, "more than 30 days")                                                                    \
    X(DAYS_30, "30 days or less")                                                                  \
    X(DAYS_7, "7 days or less")                                                                    \
    X(DAYS_1, "1 day or less")                                                                     \
    X(OVER, "expired")

enum tls_expiry {
#define X(id, text) TLS_EXPIRY_##id,
    TLS_EXPIRIES(X)
#undef X
        TLS_EXPIRY_COUNT
};

/* Both in seconds since 1970. */
enum tls_expiry tls_own_expiry(int64_t not_after, int64_t now);
const char *tls_expiry_name(enum tls_expiry e);

/* `fresh` is no worse than `served`: in time, for every domain of it, and not self-signed unless
 * that is. False: one phrase is appended to `why`. That its key fits is known from loading it. */
bool tls_own_may_replace(const struct tls_peer *served, const struct tls_peer *fresh, int64_t now,
                         struct buf *why);

/* A certificate of ours with its chain and key, as it was loaded or made: immutable, ref-counted.
 * Files may change behind it. */
struct tls_own;

/* What the files of an identity hold now for it as server or as client; without files, one that is
 * made. NULL: `errors` as in tls_ctx_new, a key that does not match among the rest. */
struct tls_own *tls_own_load(const struct tls_identity *id, bool server, struct buf *errors);
struct tls_own *tls_own_ref(struct tls_own *o);
void tls_own_unref(struct tls_own *o); /* NULL: nothing */
const struct tls_peer *tls_own_shows(const struct tls_own *o);

#endif
