/* --auth-info: what the other side of a link has to enter to trust ours. */
#ifndef CORE_DAEMON_AUTH_INFO_H
#define CORE_DAEMON_AUTH_INFO_H

#include "core/tls/tls_ctx.h"

/* Prints to stdout, under the heading "link NAME": identity, certificate type, validity and key
 * hashes; a link without a certificate says so. False: a file is unusable; stderr says which. */
bool auth_info_print(const char *link, const struct tls_identity *id);

#endif
