/* What every program of ours says about its configuration while it runs, in the same words. */
#ifndef CORE_DAEMON_REPORT_H
#define CORE_DAEMON_REPORT_H

#include "config/diff.h"
#include "core/base/log.h"

/* config.changed key=... old=... new=... restart=needed|no. `ctx` is a struct log_ctx (the shape of
 * gateway_config_diff's callback). */
void report_change(void *ctx, const struct config_change *c);
/* config.error, once per line of `errors`, and config.rejected: the running one stays. */
void report_rejected(const struct log_ctx *ctx, const struct buf *errors);
/* Lines that came with a configuration which was taken all the same: config.warning. */
void report_warnings(const struct log_ctx *ctx, const struct buf *warnings);
/* config.reloaded, with the number of changes. */
void report_reloaded(const struct log_ctx *ctx, const char *file, size_t changes);

#endif
