#include "core/base/digest.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>

static const EVP_MD *md5, *sha1, *sha256; /* md5: NULL where it is forbidden */
static pthread_once_t fetched = PTHREAD_ONCE_INIT;

static void fetch(void)
{
    md5 = EVP_MD_fetch(NULL, "MD5", NULL);
    sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
    sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    if (sha1 == NULL)
        sha1 = EVP_sha1();
    if (sha256 == NULL)
        sha256 = EVP_sha256();
}

void digest_hex(char *out, const unsigned char *raw, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[raw[i] >> 4];
        out[2 * i + 1] = digits[raw[i] & 15];
    }
    out[2 * n] = '\0';
}

static bool raw_of(const EVP_MD *md, unsigned char raw[EVP_MAX_MD_SIZE], size_t bytes,
                   const struct str *parts, size_t n)
{
    unsigned len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, md, NULL) == 1;
    for (size_t i = 0; ok && i < n; i++)
        ok = EVP_DigestUpdate(ctx, parts[i].p, parts[i].n) == 1;
    ok = ok && EVP_DigestFinal_ex(ctx, raw, &len) == 1 && len == bytes;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool hex_of(const EVP_MD *md, char *out, size_t bytes, const struct str *parts, size_t n)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    if (!raw_of(md, raw, bytes, parts, n))
        return false;
    digest_hex(out, raw, bytes);
    return true;
}

static bool one(const EVP_MD *md, unsigned char *out, size_t bytes, struct str s)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    if (!raw_of(md, raw, bytes, &s, 1))
        return false;
    memcpy(out, raw, bytes);
    return true;
}

bool digest_sha1_hex(char out[DIGEST_SHA1_HEX + 1], const struct str *parts, size_t n)
{
    pthread_once(&fetched, fetch);
    return hex_of(sha1, out, DIGEST_SHA1_HEX / 2, parts, n);
}

bool digest_sha256_hex(char out[DIGEST_SHA256_HEX + 1], const struct str *parts, size_t n)
{
    pthread_once(&fetched, fetch);
    return hex_of(sha256, out, DIGEST_SHA256_HEX / 2, parts, n);
}

bool digest_hmac_sha256_hex(char out[DIGEST_SHA256_HEX + 1], struct str key, struct str message)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    pthread_once(&fetched, fetch);
    if (HMAC(sha256, key.p, (int)key.n, (const unsigned char *)message.p, message.n, raw, &len) ==
            NULL ||
        len != DIGEST_SHA256_HEX / 2)
        return false;
    digest_hex(out, raw, len);
    return true;
}

bool digest_sha1(unsigned char out[DIGEST_SHA1], struct str s)
{
    pthread_once(&fetched, fetch);
    return one(sha1, out, DIGEST_SHA1, s);
}

bool digest_sha256(unsigned char out[DIGEST_SHA256], struct str s)
{
    pthread_once(&fetched, fetch);
    return one(sha256, out, DIGEST_SHA256, s);
}

bool digest_md5(unsigned char out[DIGEST_MD5], const struct str *parts, size_t n)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    pthread_once(&fetched, fetch);
    if (md5 == NULL || !raw_of(md5, raw, DIGEST_MD5, parts, n))
        return false;
    memcpy(out, raw, DIGEST_MD5);
    return true;
}

bool digest_equal(struct str a, struct str b)
{
    return a.n == b.n && CRYPTO_memcmp(a.p, b.p, a.n) == 0;
}

void digest_wipe(void *p, size_t n)
{
    OPENSSL_cleanse(p, n);
}
