/* A self-signed certificate in memory, for domains without one: it keeps out those who only listen.
 * RFC 5280 4.1, 4.2.1.6. */
#include <openssl/ec.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "core/tls/tls_ctx_priv.h"

enum { COMMON_NAME_MAX = 64 /* ub-common-name */, SERIAL_BYTES = 16, DAY = 24 * 60 * 60 };

static bool set_serial(X509 *x)
{
    unsigned char raw[SERIAL_BYTES];
    if (RAND_bytes(raw, sizeof raw) != 1)
        return false;
    raw[0] = (raw[0] & 0x7f) | 0x40; /* positive and of full length */
    BIGNUM *n = BN_bin2bn(raw, sizeof raw, NULL);
    bool ok = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
    BN_free(n);
    return ok;
}

static bool set_subject(X509 *x, const char *domain)
{
    const char *cn = strlen(domain) <= COMMON_NAME_MAX ? domain : "sallyport";
    X509_NAME *name = X509_get_subject_name(x);
    return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1,
                                      0) == 1 &&
           X509_set_issuer_name(x, name) == 1;
}

static bool set_alt_name(X509 *x, const char *domain)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    bool ok = names != NULL && name != NULL && text != NULL &&
              ASN1_STRING_set(text, domain, -1) == 1;
    if (ok) {
        GENERAL_NAME_set0_value(name, GEN_DNS, text);
        text = NULL;
        ok = sk_GENERAL_NAME_push(names, name) > 0;
    }
    if (ok) {
        name = NULL;
        ok = X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0) == 1;
    }
    ASN1_IA5STRING_free(text);
    GENERAL_NAME_free(name);
    GENERAL_NAMES_free(names);
    return ok;
}

bool tls_selfsigned(const char *domain, X509 **certificate, EVP_PKEY **key)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    bool ok = pkey != NULL && x != NULL && X509_set_version(x, X509_VERSION_3) == 1 &&
              set_serial(x) && set_subject(x, domain) && set_alt_name(x, domain) &&
              X509_gmtime_adj(X509_getm_notBefore(x), -DAY) != NULL &&
              X509_gmtime_adj(X509_getm_notAfter(x), 365L * DAY) != NULL &&
              X509_set_pubkey(x, pkey) == 1 && X509_sign(x, pkey, EVP_sha256()) > 0;
    if (!ok) {
        X509_free(x);
        EVP_PKEY_free(pkey);
        return false;
    }
    *certificate = x;
    *key = pkey;
    return true;
}
