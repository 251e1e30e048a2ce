/* What DNSSEC has proven about the target of an outgoing stream, and what follows for the
 * certificate that it shows (RFC 7673, RFC 7712 5, RFC 7671). Pure. */
#ifndef GATEWAY_PROTO_DANE_H
#define GATEWAY_PROTO_DANE_H

#include "core/base/tlsa.h"
#include "core/tls/tls_peer.h"
#include "core/xml/jid.h"

enum { DANE_WHY = 320 };

/* NULL wherever one may stand: DNSSEC says nothing. */
struct dane_target {
    /* The target of an authentic SRV record, A-labels: the domain has named it, so its certificate
     * may carry this name instead (RFC 7673 4.1). */
    char host[DOMAIN_MAX + 1];
    struct tlsa_set *tlsa; /* authentic, of this host and port; NULL: it has none */
};

struct dane_target *dane_target_new(struct str host); /* NULL: out of memory */
/* Copies; false: out of memory, and the target must not be used. */
bool dane_target_set(struct dane_target *d, const struct tlsa *records, size_t n);
void dane_target_free(struct dane_target *d); /* NULL is fine */

enum dane_verdict {
    DANE_SILENT, /* no usable records: the certificate is judged as ever */
    DANE_PROVES, /* the domain, whoever issued the certificate */
    DANE_DENIES, /* this is not who the domain says it is: `why` is a sentence for people */
};

/* Of the certificate in `t`, which was compared with the records (tls_engine_dane). NULL: no TLS.
 */
enum dane_verdict dane_judge(const struct dane_target *d, const struct tls_peer *t,
                             struct str remote, char why[DANE_WHY]);
/* The certificate carries the domain, or the target that the domain has named. */
bool dane_covers(const struct dane_target *d, const struct tls_peer *t, struct str remote);
/* Who publishes TLSA records speaks TLS: in clear it is somebody else (RFC 7673 3.4). */
bool dane_demands_tls(const struct dane_target *d);

#endif
