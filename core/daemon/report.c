#include "core/daemon/report.h"

void report_change(void *ctx, const struct config_change *c)
{
    const struct log_ctx *log = ctx;
    log_ev(log, LOG_NOTICE, "config.changed", KV_C("key", c->key), KV_S("old", c->old),
           KV_S("new", c->new_), KV_C("restart", c->restart ? "needed" : "no"),
           KV_S("effect", c->effect));
}

static void lines(const struct log_ctx *ctx, enum log_level level, const char *event,
                  const struct buf *text)
{
    struct str rest = buf_view(text);
    while (rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end ? (size_t)(end - rest.p) : rest.n;
        log_ev(ctx, level, event, KV_S("msg", ((struct str){rest.p, n})));
        n += end != NULL;
        rest = (struct str){rest.p + n, rest.n - n};
    }
}

void report_rejected(const struct log_ctx *ctx, const struct buf *errors)
{
    lines(ctx, LOG_ERROR, "config.error", errors);
    log_ev(ctx, LOG_ERROR, "config.rejected",
           KV_C("msg", "the new configuration is not used; the running one stays"));
}

void report_warnings(const struct log_ctx *ctx, const struct buf *warnings)
{
    lines(ctx, LOG_WARN, "config.warning", warnings);
}

void report_reloaded(const struct log_ctx *ctx, const char *file, size_t changes)
{
    log_ev(ctx, LOG_NOTICE, "config.reloaded", KV_C("config", file), KV_I("changes", changes));
}
