/* Commands that need no daemon: completion, import, and the firewall sheet of a file. Each returns
 * the exit code. */
#ifndef CTL_LOCAL_H
#define CTL_LOCAL_H

#include "core/control/command.h"

extern const struct command_set local_commands;

/* completion bash */
int local_completion(const char *shell);
/* import DIALECT FILE...: the configuration goes to stdout. */
int local_import(const char *dialect, char **files, int n);
/* The reply that a gateway with this configuration would give to "firewall". */
int local_firewall(const char *file, struct buf *reply);

#endif
