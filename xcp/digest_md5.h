/* SASL DIGEST-MD5 (RFC 2831), the client's side, as far as jabberd2's router needs it: qop "auth",
 * algorithm md5-sess, charset utf-8. Pure.
 *
 * Story. The server's challenge carries a nonce and perhaps realms (the first is ours). The
 * response proves that we know the secret without telling it, and the server's last word, rspauth,
 * proves the same of the server: without it nobody is authenticated. As a mechanism it is obsolete
 * (RFC 6331); the router offers no other. */
#ifndef XCP_DIGEST_MD5_H
#define XCP_DIGEST_MD5_H

#include "core/base/buf.h"
#include "core/base/digest.h"

enum {
    DIGEST_MD5_CHALLENGE_MAX = 2048, /* RFC 2831 2.1.1 */
    DIGEST_MD5_RSPAUTH_MAX = 4096,   /* 2.1.3 */
};

struct digest_md5_login {
    struct str user, secret; /* UTF-8 */
    struct str uri;          /* digest-uri: "service/host"; without quotes */
    struct str cnonce;       /* fresh randomness, 64 bits at least; without quotes */
};

/* What is remembered between response and rspauth. */
struct digest_md5 {
    bool responded;
    char rspauth[DIGEST_MD5_HEX + 1]; /* what the server has to say */
};

/* Appends the response (2.1.2) to a challenge, both without base64. False: no good challenge, and
 * *why is a static sentence; or *why is NULL: out of memory, or libcrypto has no MD5. */
bool digest_md5_respond(struct digest_md5 *d, const struct digest_md5_login *login,
                        struct str challenge, struct buf *response, const char **why);

/* The server's last word (2.1.3), "rspauth=...", without base64: it knows the secret. */
bool digest_md5_proven(const struct digest_md5 *d, struct str answer);

#endif
