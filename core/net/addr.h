/* Between socket addresses and endpoints. */
#ifndef CORE_NET_ADDR_H
#define CORE_NET_ADDR_H

#include <uv.h>

#include "core/base/cidr.h"

/* An IPv4-mapped IPv6 address becomes IPv4. False (and all zero): neither IPv4 nor IPv6. */
bool addr_to_endpoint(const struct sockaddr *sa, struct endpoint *out);
/* False: the endpoint holds no address. */
bool addr_from_endpoint(const struct endpoint *e, struct sockaddr_storage *out);

/* The other end of a connection; all zero when it is gone. */
struct endpoint addr_of_peer(const uv_tcp_t *tcp);

#endif
