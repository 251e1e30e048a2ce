/* Message digests over libcrypto, with the algorithms fetched once (an implicit fetch per use is
 * slow in OpenSSL 3.0). Digests are small and fixed-size: no function allocates for the caller. */
#ifndef CORE_BASE_DIGEST_H
#define CORE_BASE_DIGEST_H

#include "core/base/str.h"

enum { DIGEST_SHA1_HEX = 40, DIGEST_SHA256_HEX = 64, DIGEST_SHA1 = 20, DIGEST_SHA256 = 32 };
enum { DIGEST_MD5 = 16, DIGEST_MD5_HEX = 32 };

/* Lower-case hex plus NUL: `out` has 2 * n + 1 bytes. */
void digest_hex(char *out, const unsigned char *raw, size_t n);

/* Hex digest of the concatenation of `n` parts; false only when libcrypto fails. */
bool digest_sha1_hex(char out[DIGEST_SHA1_HEX + 1], const struct str *parts, size_t n);
bool digest_sha256_hex(char out[DIGEST_SHA256_HEX + 1], const struct str *parts, size_t n);
bool digest_hmac_sha256_hex(char out[DIGEST_SHA256_HEX + 1], struct str key, struct str message);

/* The digest itself, of one part. */
bool digest_sha1(unsigned char out[DIGEST_SHA1], struct str s);
bool digest_sha256(unsigned char out[DIGEST_SHA256], struct str s);

/* MD5 of the concatenation, for SASL DIGEST-MD5 and nothing else. False also where libcrypto has
 * none (FIPS). */
bool digest_md5(unsigned char out[DIGEST_MD5], const struct str *parts, size_t n);

/* Equal contents, in time that depends on the lengths only. */
bool digest_equal(struct str a, struct str b);

/* Overwrites a secret so that the compiler cannot leave it out. */
void digest_wipe(void *p, size_t n);

#endif
