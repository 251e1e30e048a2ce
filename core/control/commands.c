#include "core/control/commands.h"

#define X(id, name, args, privilege, help) {name, args, PRIVILEGE_##privilege, help},
static const struct command gateway[] = {GATEWAY_COMMANDS(X)};
static const struct command router[] = {ROUTER_COMMANDS(X)};
#undef X

const struct command_set gateway_commands = {"sallyport", gateway,
                                             sizeof gateway / sizeof gateway[0]};
const struct command_set router_commands = {"sallyport-router", router,
                                            sizeof router / sizeof router[0]};
