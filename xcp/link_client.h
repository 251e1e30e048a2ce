/* The dialling side of a component link (XEP-0114): we are the component.
 *
 * Story. Once TCP stands we send our header and wait for the peer's, prove the secret, and wait for
 * <handshake/> in whatever namespace. Then the link is UP and stanzas pass both ways. An absolute
 * deadline runs from the connection to UP. While UP, white space goes out after `keepalive_ms`
 * without output, and an XEP-0199 ping to `ping_to` after `ping_ms` without a stanza from the peer.
 * Any answer to it counts, errors too, and so does any other stanza; a peer that has answered one
 * ping before and is silent for `ping_answer_ms` is dead. A peer that never answered (it may not
 * know XEP-0199) is left alone. Answers to our pings are consumed, everything else is the driver's.
 *
 * The stream ends by the peer's closing tag or error, by EV_DRAIN with a closing handshake of at
 * most `close_ms`, or by a fault of the peer. What the config points to is
 * borrowed and must outlive the machine. */
#ifndef XCP_LINK_CLIENT_H
#define XCP_LINK_CLIENT_H

#include "core/base/env.h"
#include "core/stream/machine.h"

#define LINK_CLIENT_STATES(X)                                                                      \
    X(CONNECTED) /* waits for EV_OPENED */                                                         \
    X(HEADER)    /* our header was sent, the peer's is due */                                      \
    X(HANDSHAKE) /* the digest was sent */                                                         \
    X(UP)                                                                                          \
    X(CLOSING) /* our closing tag was sent; what arrives is still delivered */                     \
    X(RESTING)

enum link_client_state {
#define X(id) LINK_CLIENT_##id,
    LINK_CLIENT_STATES(X)
#undef X
        LINK_CLIENT_STATE_COUNT
};

extern const machine_edges link_client_edges[LINK_CLIENT_STATE_COUNT];
const char *link_client_state_name(enum link_client_state s);

enum {
    LINK_KEEPALIVE_MS = 30000,
    LINK_PING_MS = 60000,
    LINK_PING_ANSWER_MS = 20000,
    LINK_PING_ID = 40,
};

struct link_client_config {
    struct str component; /* the name to join as; A-label */
    struct str secret;
    struct str ping_to; /* a domain of the inside; absent: no pings */
    uint64_t auth_ms, close_ms;
    uint64_t keepalive_ms, ping_ms, ping_answer_ms; /* 0: the LINK_* values */
};

struct link_client {
    enum link_client_state state;
    struct link_client_config cfg;
    const struct env *env;
    bool proved; /* the digest was sent: <handshake/> may be under way */
    bool was_up;
    enum end_reason reason; /* of CLOSING */
    uint64_t in_ms, out_ms; /* last stanza received, last output */
    uint64_t ping_sent_ms;
    bool pinging, answers_pings;
    bool paused; /* the driver does not read: silence means nothing */
    uint32_t pings;
    char ping_prefix[20]; /* random, so that nobody guesses an id */
};

void link_client_init(struct link_client *m, const struct link_client_config *cfg,
                      const struct env *env);
/* The driver wrote a stanza: no white space is needed for a while. */
static inline void link_client_sent(struct link_client *m, uint64_t now_ms)
{
    m->out_ms = now_ms;
}
/* The driver stops reading (back-pressure) or goes on: meanwhile no ping is sent or missed. */
void link_client_pause(struct link_client *m, bool paused, uint64_t now_ms);
void link_client_step(struct link_client *m, const struct gw_event *ev, struct gw_actions *out);

#endif
