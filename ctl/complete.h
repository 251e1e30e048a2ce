/* Completion for bash, made from the command table. */
#ifndef CTL_COMPLETE_H
#define CTL_COMPLETE_H

#include "core/control/command.h"

void complete_bash(const struct command_set *gateway, const struct command_set *router,
                   struct buf *out);

#endif
