/* What a connection proves itself and its peer with: our certificate, and whom to believe. Made
 * from settings and the files that they name. */
#ifndef XCP_CREDENTIALS_H
#define XCP_CREDENTIALS_H

#include "core/tls/tls_ctx.h"
#include "xcp/trust.h"

struct credentials_settings {
    enum link_auth auth;
    const char *name;                 /* for log lines and errors: of the link */
    const char *certificate, *key;    /* our own, PEM files; NULL: none, only with auth password */
    const char *ca_file, *store_file; /* NULL: none */
    char *const *authlist;            /* checked before */
    size_t nauthlist;
    const char *peer_name; /* NULL: any; must outlive the credentials */
};

struct credentials {
    struct tls_ctx *tls;     /* NULL with auth password */
    struct link_trust trust; /* `proven` is false: the holder knows better */
    struct key_hash *store, *authlist;
};

/* False: `errors` holds one line per problem ("file: what"); nothing is left to free. Warnings
 * about usable files are lines there, too ("warning: ..."). */
bool credentials_init(struct credentials *c, const struct credentials_settings *s,
                      struct buf *errors);
void credentials_free(struct credentials *c); /* fine for a zeroed one */

#endif
