/* SASL EXTERNAL, the receiving side (RFC 6120 6.3, XEP-0178 3): answers one element of the
 * exchange. What the certificate is worth was decided before; here only the words are judged. Pure.
 */
#ifndef GATEWAY_PROTO_EXTERNAL_H
#define GATEWAY_PROTO_EXTERNAL_H

#include "core/stream/machine.h"
#include "gateway/proto/sasl.h"

enum { EXTERNAL_ATTEMPTS = 3 }; /* failed ones on one stream (6.4.4) */

struct external {
    unsigned failures;
    bool challenged; /* <auth/> came without a response of its own */
};

/* NULL: EXTERNAL is offered; else the condition of RFC 6120 6.5 and a sentence that answer every
 * attempt. The sentence lives until the actions have been carried out. */
struct external_refusal {
    const char *condition, *text;
};

enum external_result {
    EXTERNAL_GOES_ON, /* it was answered */
    EXTERNAL_PROVEN,  /* the peer is `remote`: the caller answers */
    EXTERNAL_ENOUGH,  /* that was the last attempt; it was answered */
};

/* `remote`: of the stream header, A-labels. Uses out->remote. */
enum external_result external_in(struct external *x, const struct sasl_element *e,
                                 struct external_refusal refusal, const char *remote,
                                 struct gw_actions *out);

#endif
