/* SASL on a server-to-server stream, as text (RFC 6120 6, XEP-0178): what a peer's element says,
 * and the elements of ours. Only EXTERNAL (RFC 4422 appendix A) exists here: the certificate of the
 * TLS layer says who the peer is, and the exchange merely names the domain it wants to be. Pure. */
#ifndef GATEWAY_PROTO_SASL_H
#define GATEWAY_PROTO_SASL_H

#include "core/base/buf.h"
#include "core/xml/jid.h"
#include "core/xml/nonza.h"

enum sasl_kind {
    SASL_NOT, /* some other element */
    SASL_AUTH,
    SASL_RESPONSE,
    SASL_ABORT,
    SASL_CHALLENGE,
    SASL_SUCCESS,
    SASL_FAILURE,
    SASL_UNKNOWN, /* in the namespace, and none of these */
};

struct sasl_element {
    enum sasl_kind kind;
    struct str mechanism; /* auth; absent: no attribute */
    struct str data;      /* auth, response, challenge, success: base64 as written, trimmed */
    struct str condition; /* failure: "not-authorized", ...; never absent */
    struct str text;      /* failure: for people; absent: none */
};

/* Borrows from the nonza. */
struct sasl_element sasl_read(const struct nonza *z);

enum sasl_authzid {
    SASL_AUTHZID_NONE, /* "" or "=": the peer is who its stream header says */
    SASL_AUTHZID_OK,   /* `out` is the domain */
    SASL_AUTHZID_NOT_BASE64,
    SASL_AUTHZID_NOT_A_DOMAIN,
};

/* The authorisation identity in `data`, a domain in any spelling. */
enum sasl_authzid sasl_authzid(struct str data, struct domain *out);

/* <auth/> of EXTERNAL for that domain, or the <response/> that carries the same. */
void sasl_write_auth(struct buf *b, struct str domain);
void sasl_write_response(struct buf *b, struct str domain);
/* `condition` of RFC 6120 6.5, `text` for people; static or escaped here; `text` may be NULL. */
void sasl_write_failure(struct buf *b, const char *condition, const char *text);

#endif
