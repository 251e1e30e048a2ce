/* The hash of a public key or of a certificate, as one operator reads it out to another. */
#ifndef CORE_BASE_KEY_HASH_H
#define CORE_BASE_KEY_HASH_H

#include "core/base/str.h"

enum {
    KEY_HASH_SHA1 = 20, /* bytes */
    KEY_HASH_SHA256 = 32,
    KEY_HASH_TEXT_MAX = 3 * KEY_HASH_SHA256, /* with colons and NUL */
};

struct key_hash {
    unsigned n; /* KEY_HASH_SHA1 or KEY_HASH_SHA256 */
    unsigned char bytes[KEY_HASH_SHA256];
};

/* Hex digits of any case, with or without colons and blanks between them, with or without a leading
 * "sha1:" or "sha256:" (of any case, and "sha-256:"; "key SHA-256:" as --auth-info prints it).
 * False: *why is a static sentence, *out is undefined. */
bool key_hash_parse(struct str text, struct key_hash *out, const char **why);

bool key_hash_eq(const struct key_hash *a, const struct key_hash *b);

/* For people: "0F:A2:…". Raw bytes, because the facts of a peer hold them so. */
void key_hash_text(char out[KEY_HASH_TEXT_MAX], const unsigned char *bytes, size_t n);

#endif
