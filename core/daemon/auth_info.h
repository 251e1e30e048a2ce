/* --auth-info: what the other side of a link or splice has to enter to trust ours. */
#ifndef CORE_DAEMON_AUTH_INFO_H
#define CORE_DAEMON_AUTH_INFO_H

#include "core/tls/tls_ctx.h"

/* Prints to stdout, under the heading "WHAT NAME" ("link core"): identity, certificate type,
 * validity and key hashes, which an authlist takes as they stand; one without a certificate says
 * so. False: a file is unusable; stderr says which. */
bool auth_info_print(const char *what, const char *name, const struct tls_identity *id);

#endif
