#include "xcp/trust.h"

bool trust_ok(enum trust_reason r)
{
    static const bool ok[] = {
#define X(id, name, good) good,
        TRUST_REASONS(X)
#undef X
    };
    return ok[r];
}

const char *trust_reason_name(enum trust_reason r)
{
    static const char *const names[] = {
#define X(id, name, good) name,
        TRUST_REASONS(X)
#undef X
    };
    return names[r];
}

const char *trust_reason_text(enum trust_reason r)
{
    switch (r) {
    case TRUST_AUTHLIST:
        return "the key of the peer's certificate is on the link's authlist";
    case TRUST_STORE:
        return "the peer's certificate is in the link's store_file";
    case TRUST_PROVEN_NAME:
        return "the certificate leads to a root in ca_file and carries the name that joined by "
               "password earlier";
    case TRUST_ROOT:
        return "the certificate leads to a root in ca_file and carries the peer's name";
    case TRUST_NO_CERTIFICATE:
        return "the peer presented no certificate; it needs one for this link";
    case TRUST_EXPIRED:
        return "the peer's certificate is not within its dates; it needs a new one, or put its key "
               "hash on the authlist";
    case TRUST_NOT_IN_STORE:
        return "the peer's certificate is self-signed, and neither in store_file nor its key on "
               "the "
               "authlist; import it, or list its key hash";
    case TRUST_ONLY_ROOT:
        return "the certificate leads to a root in ca_file, which is not enough with auth = tls; "
               "import it into store_file, or list its key hash, or use tls+password";
    case TRUST_AFTER_SWITCH:
        return "the peer joined by password earlier, but a self-signed certificate cannot show "
               "that "
               "it is the same peer; import it into store_file, or list its key hash";
    case TRUST_WRONG_NAME:
        return "the certificate leads to a root in ca_file, but does not carry the name in "
               "peer_name; correct one of the two, or list its key hash";
    case TRUST_UNKNOWN_ISSUER:
        return "the certificate does not lead to a root in ca_file, and is neither in store_file "
               "nor "
               "its key on the authlist";
    }
    return "";
}

static bool listed(const struct key_hash *list, size_t n, const unsigned char *sha1,
                   const unsigned char *sha256)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char *of = list[i].n == KEY_HASH_SHA1     ? sha1
                                  : list[i].n == KEY_HASH_SHA256 ? sha256
                                                                 : NULL;
        if (of != NULL && memcmp(list[i].bytes, of, list[i].n) == 0)
            return true;
    }
    return false;
}

/* A root vouches for the certificate, which is not self-signed or is such a root itself. */
static enum trust_reason by_root(const struct link_trust *t, const struct tls_peer *p,
                                 bool switched)
{
    bool named = tls_peer_covers(p, t->peer_name);
    if (t->auth == LINK_AUTH_TLS_PASSWORD)
        return named || t->peer_name.n == 0 ? TRUST_ROOT : TRUST_WRONG_NAME;
    if (!switched)
        return TRUST_ONLY_ROOT;
    return named ? TRUST_PROVEN_NAME : TRUST_WRONG_NAME;
}

enum trust_reason link_trust_check(const struct link_trust *t, const struct tls_peer *peer)
{
    const bool password_too = t->auth == LINK_AUTH_TLS_PASSWORD;
    const bool switched = !password_too && t->proven && t->peer_name.n > 0;
    if (!peer->has_certificate)
        return TRUST_NO_CERTIFICATE;
    if (listed(t->authlist, t->nauthlist, peer->key_sha1, peer->key_sha256))
        return TRUST_AUTHLIST;
    if (listed(t->store, t->nstore, NULL, peer->certificate_sha256))
        return peer->in_time ? TRUST_STORE : TRUST_EXPIRED;
    if (peer->self_signed && !(password_too && peer->chain_ok))
        return switched ? TRUST_AFTER_SWITCH : TRUST_NOT_IN_STORE;
    if (!peer->in_time)
        return TRUST_EXPIRED;
    return peer->chain_ok ? by_root(t, peer, switched) : TRUST_UNKNOWN_ISSUER;
}
