/* The gateway's commands on its control socket (core/control/commands.h). They read the worker's
 * state, and change it only by inputs that exist for other reasons, too: reload, drain, a peer's
 * retry, an orderly end of a stream. */
#ifndef GATEWAY_CONTROL_H
#define GATEWAY_CONTROL_H

#include "core/control/commands.h"
#include "core/daemon/operate.h"
#include "gateway/worker.h"

struct gateway_control {
    struct operate operate;
    struct worker *w;
};

/* Call it when the worker has started, before privileges are given up. False: `why`. */
bool gateway_control_open(struct gateway_control *g, char why[CONTROL_WHY_MAX]);

/* The functions, in the order of the table; shared by control.c and control_act.c. */
#define X(id, name, args, privilege, help) void gateway_do_##id(struct control_call *call);
GATEWAY_COMMANDS(X)
#undef X

#endif
