/* The accepting side of a component link (XEP-0114): a gateway or another component dials us.
 *
 * Story. The peer's header names the component that it wants to be; unknown: host-unknown. We
 * answer with a header that carries a fresh id of 160 bits; the peer proves the secret; wrong:
 * not-authorized; right: <handshake/>, and the link is UP (ACT_READY). Until then the framer's
 * unauthenticated limits hold and an absolute deadline runs from the connection. A stanza before
 * the handshake is not-authorized. While UP, white space goes out after `keepalive_ms` without
 * output. The end is as in xcp/link_client.h.
 *
 * Errors are sent inside a proper stream: when no header was sent yet, ours goes first
 * (RFC 6120 4.9.1.1). The accounts are borrowed and must outlive the machine. */
#ifndef XCP_LINK_SERVER_H
#define XCP_LINK_SERVER_H

#include "core/base/env.h"
#include "core/stream/machine.h"
#include "core/stream/stream.h"

#define LINK_SERVER_STATES(X)                                                                      \
    X(ACCEPTED)  /* waits for the peer's header */                                                 \
    X(HANDSHAKE) /* our header was sent, the digest is due */                                      \
    X(UP)                                                                                          \
    X(CLOSING) /* our closing tag was sent; what arrives is still delivered */                     \
    X(RESTING)

enum link_server_state {
#define X(id) LINK_SERVER_##id,
    LINK_SERVER_STATES(X)
#undef X
        LINK_SERVER_STATE_COUNT
};

extern const machine_edges link_server_edges[LINK_SERVER_STATE_COUNT];
const char *link_server_state_name(enum link_server_state s);

/* One name may stand there several times with different secrets: the first that fits counts. */
struct link_account {
    struct str component; /* A-label */
    struct str secret;
};

struct link_server_config {
    const struct link_account *accounts;
    size_t naccounts;
    uint64_t auth_ms, close_ms, keepalive_ms;
};

struct link_server {
    enum link_server_state state;
    struct link_server_config cfg;
    const struct env *env;
    char id[STREAM_ID_HEX + 1];
    char component[DOMAIN_MAX + 1]; /* asked for in the header; A-label */
    size_t account;                 /* index in cfg.accounts; valid from UP on */
    bool header_sent, was_up;
    enum end_reason reason; /* of CLOSING */
    uint64_t out_ms;        /* last output */
};

void link_server_init(struct link_server *m, const struct link_server_config *cfg,
                      const struct env *env);
/* The driver wrote a stanza: no white space is needed for a while. */
static inline void link_server_sent(struct link_server *m, uint64_t now_ms)
{
    m->out_ms = now_ms;
}
void link_server_step(struct link_server *m, const struct gw_event *ev, struct gw_actions *out);

#endif
