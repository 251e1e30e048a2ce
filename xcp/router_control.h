/* The router's commands on its control socket (core/control/commands.h). */
#ifndef XCP_ROUTER_CONTROL_H
#define XCP_ROUTER_CONTROL_H

#include "core/control/commands.h"
#include "core/daemon/operate.h"
#include "xcp/router.h"

struct router_control {
    struct operate operate;
    struct router *router;
};

/* After router_bind, before privileges are given up. False: `why`. */
bool router_control_open(struct router_control *g, char why[CONTROL_WHY_MAX]);

#endif
