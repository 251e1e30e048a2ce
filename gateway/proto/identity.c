#include "gateway/proto/identity.h"

#include <stdio.h>

#include "gateway/policy/policy.h"

enum { NAME_SHOWN = 60 };

/* "issued for a.example, b.example and 4 more, not for beta.lab" */
static void wrong_name(const struct tls_peer *t, struct str remote, char why[IDENTITY_WHY])
{
    struct buf b = BUF_INIT(IDENTITY_WHY);
    buf_puts(&b, "issued for ");
    tls_peer_issued_for(t, &b);
    buf_printf(&b, ", not for %.*s", (int)(remote.n < NAME_SHOWN ? remote.n : NAME_SHOWN),
               remote.p);
    str_copy(why, IDENTITY_WHY, buf_view(&b));
    buf_free(&b);
}

static bool pinned(const struct gateway_config *c, const struct tls_peer *t, struct str remote)
{
    struct key_hash pins[CONFIG_PINS_MAX];
    size_t n = policy_peer_pins(c, remote, pins);
    for (size_t i = 0; i < n; i++)
        if (pins[i].n == sizeof t->key_sha256 &&
            memcmp(pins[i].bytes, t->key_sha256, sizeof t->key_sha256) == 0)
            return true;
    return n == 0;
}

static void wrong_key(const struct tls_peer *t, char why[IDENTITY_WHY])
{
    char hash[KEY_HASH_TEXT_MAX];
    key_hash_text(hash, t->key_sha256, sizeof t->key_sha256);
    snprintf(why, IDENTITY_WHY, "its key is not one of the pinned ones: %s", hash);
}

static void falls_short(const struct tls_peer *t, struct str remote, const struct dane_target *at,
                        char why[IDENTITY_WHY])
{
    if (t == NULL)
        snprintf(why, IDENTITY_WHY, "there is no TLS, and so no certificate");
    else if (!t->has_certificate)
        snprintf(why, IDENTITY_WHY, "no certificate was shown");
    else if (!t->chain_ok)
        snprintf(why, IDENTITY_WHY, "%s", t->why[0] ? t->why : "not trusted");
    else if (!dane_covers(at, t, remote))
        wrong_name(t, remote, why);
    else
        wrong_key(t, why);
}

/* By authorities; the name may be that of the target. */
static bool proven(const struct gateway_config *c, const struct tls_peer *t, struct str remote,
                   const struct dane_target *at, char why[IDENTITY_WHY])
{
    bool ok = t != NULL && t->has_certificate && t->chain_ok && dane_covers(at, t, remote) &&
              pinned(c, t, remote);
    why[0] = '\0';
    if (!ok)
        falls_short(t, remote, at, why);
    return ok;
}

bool identity_proven(const struct gateway_config *c, const struct tls_peer *t, struct str remote,
                     char why[IDENTITY_WHY])
{
    return proven(c, t, remote, NULL, why);
}

enum identity identity_of_target(const struct gateway_config *c, const struct tls_peer *t,
                                 struct str remote, const struct dane_target *at,
                                 char why[IDENTITY_WHY])
{
    at = c->dns.trust_ad ? at : NULL;
    enum dane_verdict dane = dane_judge(at, t, remote, why);
    if (dane == DANE_DENIES)
        return IDENTITY_DENIED;
    if (dane == DANE_SILENT || policy_ca_file(c, remote) != NULL)
        return proven(c, t, remote, at, why) ? IDENTITY_PROVEN : IDENTITY_UNPROVEN;
    if (pinned(c, t, remote))
        return IDENTITY_PROVEN_DANE;
    wrong_key(t, why);
    return IDENTITY_UNPROVEN;
}

bool identity_tls_enough(const struct gateway_config *c, const struct tls_peer *t,
                         struct str remote, char why[IDENTITY_WHY])
{
    bool enough = t == NULL || policy_tls_version(t->protocol) >= policy_minimum_tls(c, remote);
    why[0] = '\0';
    if (!enough)
        snprintf(why, IDENTITY_WHY, "%s is below the minimum_tls for this domain", t->protocol);
    return enough;
}
