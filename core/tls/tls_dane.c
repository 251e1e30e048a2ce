/* RFC 7671 5: the four usages, best first. DANE-EE is the certificate or key itself, and nothing
 * else of it counts: neither names nor dates nor issuers (5.1). DANE-TA is an authority that the
 * server sends along; a path must lead to it as if it was the only root (5.2). PKIX-EE and PKIX-TA
 * narrow what the operator's roots vouch for to one certificate or one authority on the path
 * (5.3, 5.4). One record that fits is enough. */
#include "core/tls/tls_dane.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "core/tls/tls_facts_priv.h"

enum { SHA256_BYTES = 32, SHA512_BYTES = 64, BITS_MIN = 112 /* of security */, LEVEL = 2 };

struct search {
    const struct tlsa_set *set;
    X509 *leaf;
    STACK_OF(X509) * chain;
    char *why; /* of the best that nearly fitted; "": nothing came near */
};

bool tlsa_usable(const struct tlsa *t)
{
    if (t->usage > TLSA_DANE_EE || t->selector > TLSA_KEY)
        return false;
    return t->matching == TLSA_FULL     ? t->n > 0
           : t->matching == TLSA_SHA256 ? t->n == SHA256_BYTES
                                        : t->matching == TLSA_SHA512 && t->n == SHA512_BYTES;
}

static bool any_usable(const struct tlsa_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        if (tlsa_usable(&set->v[i]))
            return true;
    return false;
}

/* ---- one record, one certificate ------------------------------------------------------------- */

/* What the selector takes of the certificate, as DER; the caller's (OPENSSL_free). */
static int selected(const struct tlsa *t, X509 *x, unsigned char **der)
{
    *der = NULL;
    return t->selector == TLSA_KEY ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), der)
                                   : i2d_X509(x, der);
}

static bool equals(const struct tlsa *t, const unsigned char *der, size_t n)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (t->matching == TLSA_FULL)
        return t->n == n && memcmp(t->data, der, n) == 0;
    const EVP_MD *md = t->matching == TLSA_SHA256 ? EVP_sha256() : EVP_sha512();
    return EVP_Digest(der, n, hash, &size, md, NULL) == 1 && size == t->n &&
           memcmp(t->data, hash, size) == 0;
}

static bool fits(const struct tlsa *t, X509 *x)
{
    unsigned char *der;
    int n = selected(t, x, &der);
    bool fit = n > 0 && equals(t, der, (size_t)n);
    OPENSSL_free(der);
    return fit;
}

static bool any_fits(const struct tlsa_set *set, unsigned usage, X509 *x)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->v[i].usage == usage && tlsa_usable(&set->v[i]) && fits(&set->v[i], x))
            return true;
    return false;
}

static bool has_usage(const struct tlsa_set *set, unsigned usage)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->v[i].usage == usage && tlsa_usable(&set->v[i]))
            return true;
    return false;
}

/* ---- paths ----------------------------------------------------------------------------------- */

/* Leads the leaf to `roots`. `partial`: each of them ends a path, whoever issued it. Returns the
 * verified context, the caller's; NULL: `why` says what is wrong. */
static X509_STORE_CTX *path_to(const struct search *s, X509_STORE *roots, bool partial)
{
    X509_STORE_CTX *xs = X509_STORE_CTX_new();
    if (xs != NULL && X509_STORE_CTX_init(xs, roots, s->leaf, s->chain) == 1) {
        X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(xs);
        X509_VERIFY_PARAM_set_auth_level(param, LEVEL);
        X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_SERVER);
        if (partial)
            X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
        if (X509_verify_cert(xs) == 1)
            return xs;
        tls_facts_why(s->why, X509_STORE_CTX_get_error(xs), X509_STORE_CTX_get_error_depth(xs),
                      X509_STORE_CTX_get_current_cert(xs));
    } else {
        snprintf(s->why, TLS_WHY_MAX, "not checked: out of memory");
    }
    X509_STORE_CTX_free(xs);
    return NULL;
}

static bool leads_to(const struct search *s, X509 *authority)
{
    X509_STORE *only = X509_STORE_new();
    X509_STORE_CTX *xs = NULL;
    if (only != NULL && X509_STORE_add_cert(only, authority) == 1)
        xs = path_to(s, only, true);
    bool led = xs != NULL;
    X509_STORE_CTX_free(xs);
    X509_STORE_free(only);
    return led;
}

static int sent(const struct search *s)
{
    int n = sk_X509_num(s->chain);
    return n < TLS_DANE_CHAIN_MAX ? n : TLS_DANE_CHAIN_MAX;
}

/* An authority among the certificates that were sent. */
static bool dane_ta_sent(const struct search *s)
{
    for (int i = 0; i < sent(s); i++) {
        X509 *x = sk_X509_value(s->chain, i);
        if (X509_cmp(x, s->leaf) != 0 && any_fits(s->set, TLSA_DANE_TA, x) && leads_to(s, x))
            return true;
    }
    return false;
}

/* An authority that the record holds itself, so that the server need not send it. */
static bool dane_ta_held(const struct search *s)
{
    for (size_t i = 0; i < s->set->n; i++) {
        const struct tlsa *t = &s->set->v[i];
        const unsigned char *at = t->data;
        if (t->usage != TLSA_DANE_TA || t->selector != TLSA_CERTIFICATE || t->matching != TLSA_FULL)
            continue;
        X509 *x = d2i_X509(NULL, &at, t->n);
        bool led = x != NULL && at == t->data + t->n && X509_cmp(x, s->leaf) != 0 && leads_to(s, x);
        X509_free(x);
        if (led)
            return true;
    }
    return false;
}

static bool pkix_ta(const struct search *s, X509_STORE *roots)
{
    if (roots == NULL || !has_usage(s->set, TLSA_PKIX_TA))
        return false;
    X509_STORE_CTX *xs = path_to(s, roots, false);
    STACK_OF(X509) *path = xs != NULL ? X509_STORE_CTX_get0_chain(xs) : NULL;
    bool found = false;
    for (int i = 1; i < sk_X509_num(path) && !found; i++)
        found = any_fits(s->set, TLSA_PKIX_TA, sk_X509_value(path, i));
    X509_STORE_CTX_free(xs);
    return found;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

/* RFC 9325 4.5: neither DNS nor anybody else makes a key good that can be broken. */
static bool strong(X509 *x)
{
    EVP_PKEY *key = X509_get0_pubkey(x);
    return key != NULL && EVP_PKEY_get_security_bits(key) >= BITS_MIN;
}

static enum tls_dane search(const struct search *s, X509_STORE *roots, bool chain_ok)
{
    if (any_fits(s->set, TLSA_DANE_EE, s->leaf)) {
        if (strong(s->leaf))
            return TLS_DANE_KEY;
        snprintf(s->why, TLS_WHY_MAX, "its key is too short");
    }
    if (dane_ta_sent(s) || dane_ta_held(s))
        return TLS_DANE_AUTHORITY;
    bool narrowed = any_fits(s->set, TLSA_PKIX_EE, s->leaf) || pkix_ta(s, roots);
    if (narrowed && !chain_ok)
        snprintf(s->why, TLS_WHY_MAX, "it fits, but is not trusted otherwise");
    return narrowed && chain_ok ? TLS_DANE_NARROWED : TLS_DANE_MISMATCH;
}

enum tls_dane tls_dane_match(const struct tlsa_set *set, X509 *leaf, STACK_OF(X509) * chain,
                             X509_STORE *roots, bool chain_ok, char why[TLS_WHY_MAX])
{
    char near[TLS_WHY_MAX] = "";
    struct search s = {set, leaf, chain, near};
    if (!any_usable(set))
        return TLS_DANE_UNUSABLE;
    ERR_clear_error();
    enum tls_dane found = search(&s, roots, chain_ok);
    ERR_clear_error();
    if (found == TLS_DANE_MISMATCH)
        snprintf(why, TLS_WHY_MAX, "%s", near[0] != '\0' ? near : "it matches none of them");
    return found;
}
