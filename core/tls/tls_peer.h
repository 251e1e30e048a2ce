/* What a finished TLS handshake told about the peer, as plain data that pure code can read. */
#ifndef CORE_TLS_TLS_PEER_H
#define CORE_TLS_TLS_PEER_H

#include <stdbool.h>

enum { TLS_WHY_MAX = 200 };

struct tls_peer {
    char protocol[16]; /* "TLSv1.3" */
    char cipher[48];
    bool resumed;
    bool has_certificate; /* the peer presented one */
    bool chain_ok;        /* it leads to the trust store and is within its time */
    char why[TLS_WHY_MAX]; /* chain not ok: one sentence */
};

#endif
