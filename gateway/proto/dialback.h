/* Server Dialback (XEP-0220) keys and elements.
 *
 * The key follows XEP-0185: HMAC-SHA256, keyed with the hexadecimal SHA-256 of the secret, over
 * "receiving originating streamid" separated by spaces (a domain cannot contain one). All our
 * gateways share the secret, so any of them can answer as the authoritative server without state.
 */
#ifndef GATEWAY_PROTO_DIALBACK_H
#define GATEWAY_PROTO_DIALBACK_H

#include "core/base/digest.h"
#include "core/stream/machine.h"

enum { DIALBACK_KEY_HEX = DIGEST_SHA256_HEX };

/* False only when libcrypto fails. Domains are A-labels; stream_id is unescaped. */
bool dialback_key(char out[DIALBACK_KEY_HEX + 1], struct str secret, struct str receiving,
                  struct str originating, struct str stream_id);

/* The authoritative role (2.2): was `key` made with one of our secrets? Constant time per secret.
 */
struct dialback_secrets {
    const char *current;
    char *const *previous;
    size_t nprevious;
};
/* What operators compare: a short hash of the secret's hash, "3F:A2:91:…". It tells no more than
 * any key that was sent. False only when libcrypto fails. */
enum { DIALBACK_FINGERPRINT = 3 * 8 };
bool dialback_fingerprint(char out[DIALBACK_FINGERPRINT], struct str secret);

bool dialback_check(const struct dialback_secrets *secrets, struct str key, struct str receiving,
                    struct str originating, struct str stream_id);

/* What a dialback element says. */
enum dialback_kind { DIALBACK_NOT, DIALBACK_RESULT, DIALBACK_VERIFY };
enum dialback_type {
    DIALBACK_REQUEST, /* no type attribute */
    DIALBACK_VALID,
    DIALBACK_INVALID,
    DIALBACK_ERROR, /* type='error', and any type we do not know */
};
struct dialback_element {
    enum dialback_kind kind;
    enum dialback_type type;
    struct str from, to, id, key; /* as written; the key trimmed of white space */
    struct str condition;         /* of an error; "undefined-condition" when it names none */
};
struct dialback_element dialback_read(const struct nonza *z);

/* <db:result/> and <db:verify/>: a request carries a key, an answer a type ("valid", "invalid"),
 * an error a stanza error condition. Absent id is left out. */
struct dialback_text {
    enum dialback_kind kind;
    struct str from, to, id;
    struct str key;        /* request */
    const char *type;      /* answer */
    const char *condition; /* error; wins over type */
};
void dialback_write(struct buf *b, const struct dialback_text *t);

#endif
