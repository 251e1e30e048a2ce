/* A listening socket: connections in, within a budget per turn and without falling over when the
 * process runs out of descriptors. */
#ifndef CORE_NET_LISTEN_H
#define CORE_NET_LISTEN_H

#include "core/base/cidr.h"
#include "core/net/loop.h"

enum { LISTEN_WHY_MAX = 160 };

struct listener;

/* `accepted` gets an open uv_tcp_t allocated with mem_alloc and owns it (conn_new, or uv_close with
 * mem_free in the close callback). It may call listen_close. IPv6 listeners take IPv6 only, so one
 * on 0.0.0.0 and one on [::] do not collide. Port 0: the kernel picks one (listen_local).
 *
 * NULL: `why` is "cannot listen on 127.0.0.1:5269: address already in use". */
struct listener *listen_new(struct loop *l, const struct endpoint *at,
                            void (*accepted)(void *arg, uv_tcp_t *tcp), void *arg,
                            char why[LISTEN_WHY_MAX]);
const struct endpoint *listen_local(const struct listener *li);
/* No further call of `accepted`; the memory is freed when the loop has closed the handle. */
void listen_close(struct listener *li);

#endif
