/* The firewall sheet: every flow that a configuration of the gateway needs, as a row {dir, proto,
 * source, destination, port, why}. A flow is named by who opens it; answers belong to it. */
#ifndef CONFIG_FLOWS_H
#define CONFIG_FLOWS_H

#include "config/gateway.h"

enum { FLOWS_RESOLV_MAX = 64 << 10 };

/* `resolv_conf`: contents of the system's file, for a configuration without dns.servers. */
void flows_list(const struct gateway_config *c, struct str resolv_conf, const struct kv_sink *to);
/* Reads that file; nothing when it cannot be read. */
void flows_resolv_conf(struct buf *out);

#endif
