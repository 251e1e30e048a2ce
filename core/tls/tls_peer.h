/* What a finished TLS handshake told about the peer, as plain data that pure code can read.
 *
 * Nothing here decides: a certificate that proves nothing has facts too. Whether a name is proven
 * takes two of them, chain_ok and tls_peer_covers. */
#ifndef CORE_TLS_TLS_PEER_H
#define CORE_TLS_TLS_PEER_H

#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/key_hash.h"

enum {
    TLS_WHY_MAX = 200,
    TLS_NAMES_MAX = 250,        /* of one certificate */
    TLS_NAMES_BYTES = 16 << 10, /* their text */
};

enum tls_name_kind {
    TLS_NAME_DNS,  /* dNSName (RFC 5280 4.2.1.6) */
    TLS_NAME_SRV,  /* SRVName _xmpp-server (RFC 4985) */
    TLS_NAME_XMPP, /* id-on-xmppAddr, a bare domain (RFC 6120 13.7.1.4) */
};

/* A name in the certificate's subjectAltName; never the subject's CN. */
struct tls_name {
    enum tls_name_kind kind;
    const char *domain; /* A-labels in lower case, no service; a dNSName may begin with "*." */
};

/* What the TLSA records given for the peer say of its certificates (core/tls/tls_dane.h). */
enum tls_dane {
    TLS_DANE_NONE,      /* none were given */
    TLS_DANE_UNUSABLE,  /* none that can be compared with */
    TLS_DANE_MISMATCH,  /* no usable one fits: dane_why */
    TLS_DANE_KEY,       /* the certificate or its key itself: nothing else of it counts */
    TLS_DANE_AUTHORITY, /* a path leads to an authority that is named */
    TLS_DANE_NARROWED,  /* chain_ok, and by what is named */
};

struct tls_peer {
    char protocol[16]; /* "TLSv1.3" */
    char cipher[48];
    bool resumed;
    bool has_certificate; /* the peer presented one; without it all below is 0, but `why` */
    bool chain_ok;        /* it leads to the trust store, in time, and is meant for its role */
    bool self_signed;     /* by its own key: it proves that key and nothing else */
    bool in_time;         /* the certificate itself, whatever its issuers are, at the handshake */
    int64_t not_before, not_after; /* seconds since 1970 */

    /* Of the key as it stands in the certificate (SubjectPublicKeyInfo, DER), and of the whole. */
    unsigned char key_sha1[KEY_HASH_SHA1], key_sha256[KEY_HASH_SHA256];
    unsigned char certificate_sha256[KEY_HASH_SHA256];

    /* Owned by who made the facts, as long as these. Names that no domain can equal (malformed,
     * an embedded NUL, partial wildcards, "*.tld", other services) are left out. */
    const struct tls_name *names; /* NULL: none */
    unsigned nnames;
    bool names_cut;               /* there were more than the limits above */
    const char *subject, *issuer; /* "CN=…,O=…", printable ASCII; NULL without certificate */

    char why[TLS_WHY_MAX]; /* chain not ok: one phrase, "expired on 2026-01-02" */

    enum tls_dane dane;
    char dane_why[TLS_WHY_MAX];
};

/* The certificate carries this domain (A-labels, any case): dNSName with at most one whole
 * left-most wildcard label, SRVName or xmppAddr of exactly it. RFC 9525 6.3, RFC 6120 13.7.1.2.
 * Says nothing about the chain. */
bool tls_peer_covers(const struct tls_peer *p, struct str domain);

/* Appends for what it was issued, for people: "alpha.lab, *.alpha.lab and 3 more", "no domain". */
void tls_peer_issued_for(const struct tls_peer *p, struct buf *out);

#endif
