/* The accepting side of a component link (XEP-0114): the peer wants to be a component of ours.
 *
 * Story. The peer's header names the component that it wants to be; unknown: host-unknown. We
 * answer with a header that carries a fresh id of 160 bits; the peer proves the secret; wrong:
 * not-authorized; right: <handshake/>, and the link is UP (ACT_READY). Until then the framer's
 * unauthenticated limits hold and an absolute deadline runs from the connection. A stanza before
 * the handshake is not-authorized. While UP, white space goes out after `keepalive_ms` without
 * output. The end is as in xcp/link_client.h.
 *
 * TLS. Either we begin it (`start_tls`: we dialled), or the driver saw the peer begin it on a
 * socket that it accepted: then EV_TLS_UP comes by itself, before the header. Which certificate is
 * wanted is known only from the component's name, so it is judged when the header has come. An
 * account without TLS is welcome on an encrypted connection too; one with TLS is refused in clear.
 * Where auth is `tls` the digest is not looked at.
 *
 * The accounts are borrowed and must outlive the machine. */
#ifndef XCP_LINK_SERVER_H
#define XCP_LINK_SERVER_H

#include "core/stream/stream.h"
#include "xcp/link.h"

extern const machine_edges link_server_edges[LINK_STATE_COUNT];

/* One name may stand there several times with different secrets or certificates: the first of which
 * both fit counts. */
struct link_account {
    struct str component; /* A-label */
    struct str secret;
    const struct link_trust *trust; /* NULL: as auth password */
};

struct link_server_config {
    const struct link_account *accounts;
    size_t naccounts;
    uint64_t auth_ms, close_ms, keepalive_ms;
    bool start_tls; /* EV_OPENED begins TLS */
};

struct link_server {
    struct link_end end; /* state, and whether the peer refused our certificate */
    struct link_server_config cfg;
    const struct env *env;
    char id[STREAM_ID_HEX + 1];
    char component[DOMAIN_MAX + 1]; /* asked for in the header; A-label; "" before */
    size_t account;                 /* index in cfg.accounts; valid from UP on, and with `judged` */
    enum trust_reason verdict;      /* on the peer's certificate, by the account's trust, */
    bool judged;                    /* once that has happened */
    struct link_probes probes;
    const struct tls_peer *tls; /* the event's: lives as long as the connection; NULL: in clear */
};

void link_server_init(struct link_server *m, const struct link_server_config *cfg,
                      const struct env *env);
/* The driver wrote a stanza: no white space is needed for a while. */
static inline void link_server_sent(struct link_server *m, uint64_t now_ms)
{
    m->end.out_ms = now_ms;
}
void link_server_step(struct link_server *m, const struct gw_event *ev, struct gw_actions *out);

#endif
