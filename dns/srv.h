/* The order in which the targets of an SRV record set are tried (RFC 2782). Pure. */
#ifndef DNS_SRV_H
#define DNS_SRV_H

#include "core/base/env.h"
#include "dns/answer.h"

/* The set says that the service is decidedly not offered: nothing but the target ".". */
bool srv_absent(const struct dns_srv *r, size_t n);

/* Sorts in place by priority, weighted at random within one priority; drops what cannot be tried
 * (target ".", port 0) and repeated targets. Returns how many are left. At most DNS_RECORDS_MAX
 * come in. */
size_t srv_order(struct dns_srv *r, size_t n, const struct env *env);

#endif
