/* The component's side of a component link (XEP-0114): we speak first and prove the secret.
 *
 * Story. Once TCP stands, and TLS when the link's trust asks for it, we send our header and wait
 * for the peer's, prove the secret, and wait for <handshake/> in whatever namespace. Then the link
 * is UP and stanzas pass both ways. An absolute deadline runs from the connection to UP.
 *
 * TLS. The peer's certificate is judged by xcp/trust as soon as the handshake is done, before we
 * say anything else. A refused one ends the link with not-authorized, said inside a proper stream
 * so that the peer's log tells its operator what was refused here. TLS is never given up for clear
 * text. With auth `tls` a secret is not needed: the digest of an empty one is sent.
 *
 * Probes. While UP, white space goes out after `keepalive_ms` without output, and an XEP-0199 ping
 * to `ping_to` after `ping_ms` without a stanza from the peer. Any answer to it counts, errors too,
 * and so does any other stanza; a peer that has answered a probe before and is silent for
 * `ping_answer_ms` is dead. A peer that never answered (it may not know XEP-0199) is left alone.
 * At UP and then every hour `ping_to` is also asked for its time (XEP-0202), if we know our own
 * (env_wall): a clock that differs by more than LINK_SKEW_MS is told once per direction, and asked
 * for again every `ping_ms` until it is right. Answers to our probes are consumed, everything else
 * is the driver's.
 *
 * The stream ends by the peer's closing tag or error, by EV_DRAIN with a closing handshake of at
 * most `close_ms`, or by a fault of the peer. What the config points to is borrowed and must
 * outlive the machine. */
#ifndef XCP_LINK_CLIENT_H
#define XCP_LINK_CLIENT_H

#include "xcp/link.h"

extern const machine_edges link_client_edges[LINK_STATE_COUNT];

enum {
    LINK_PING_MS = 60000,
    LINK_PING_ANSWER_MS = 20000,
    LINK_PROBE_ID = 40,
    LINK_TIME_MS = 3600000, /* between two questions for the time */
    LINK_SKEW_MS = 5000,    /* larger: a warning; a slower answer says nothing */
};

struct link_client_config {
    struct str component;           /* the name to join as; A-label */
    struct str secret;              /* absent: as empty */
    const struct link_trust *trust; /* NULL or auth password: no TLS */
    struct str ping_to;             /* a domain of the inside; absent: no pings */
    uint64_t auth_ms, close_ms;
    uint64_t keepalive_ms, ping_ms, ping_answer_ms; /* 0: the LINK_* values */
};

struct link_client {
    struct link_end end; /* state, and whether the peer refused our certificate */
    struct link_client_config cfg;
    const struct env *env;
    enum trust_reason verdict; /* on the peer's certificate, */
    bool judged;               /* once there is one */
    struct link_probes probes;
    bool skew_known;
    int64_t skew_ms; /* their clock minus ours */

    bool proved;    /* the digest was sent: <handshake/> may be under way */
    uint64_t in_ms; /* last stanza received */
    bool pinging, answers;
    bool paused; /* the driver does not read: silence means nothing */
    bool skew_told[2];
    uint32_t probe; /* number of the last ping or question for the time: in its id */
    uint32_t ping_probe, time_probe; /* number of the open one; 0: none */
    uint64_t time_due_ms;            /* of the next question for the time */
    char probe_prefix[20];           /* random, so that nobody guesses an id */
};

void link_client_init(struct link_client *m, const struct link_client_config *cfg,
                      const struct env *env);
/* The driver wrote a stanza: no white space is needed for a while. */
static inline void link_client_sent(struct link_client *m, uint64_t now_ms)
{
    m->end.out_ms = now_ms;
}
/* Their clock is wrong, or ours is. */
static inline bool link_client_skewed(const struct link_client *m)
{
    return m->skew_known && (m->skew_ms > LINK_SKEW_MS || m->skew_ms < -LINK_SKEW_MS);
}
/* The driver stops reading (back-pressure) or goes on: meanwhile no probe is sent or missed. */
void link_client_pause(struct link_client *m, bool paused, uint64_t now_ms);
void link_client_step(struct link_client *m, const struct gw_event *ev, struct gw_actions *out);

#endif
