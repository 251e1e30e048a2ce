/* Structured log: one event per line, stable event names, key=value (logfmt) or JSON.
 *
 *     2026-11-21T00:30:39.116Z info s2s.open sid=12 dir=in pair=alpha.lab:beta.lab tls=TLSv1.3
 *
 * A `struct log` is the sink (one per process or worker). A `struct log_ctx` is what a session puts
 * in front of each of its lines (sid, pair, peer); contexts chain to a parent. Pure code does not
 * log: it returns log actions, which the driver writes through the session's context.
 *
 * Everything that came from outside is escaped: printable ASCII passes, UTF-8 above it becomes
 * \u{...}, every other byte \xHH; a value is cut at LOG_VALUE_MAX bytes. No caller passes a secret,
 * a dialback key or a stanza body. Per event name at most `rate` lines a second are written (0: no
 * limit; warnings and errors are counted like the rest), then one log.suppressed line tells how
 * many were left out. */
#ifndef CORE_BASE_LOG_H
#define CORE_BASE_LOG_H

#include <stdint.h>

#include "core/base/buf.h"

#define LOG_LEVELS(X)                                                                              \
    X(ERROR, "error")                                                                              \
    X(WARN, "warn")                                                                                \
    X(NOTICE, "notice")                                                                            \
    X(INFO, "info")                                                                                \
    X(DEBUG, "debug")                                                                              \
    X(TRACE, "trace")

enum log_level {
#define X(id, name) LOG_##id,
    LOG_LEVELS(X)
#undef X
};

enum log_format { LOG_LOGFMT, LOG_JSON };

enum { LOG_VALUE_MAX = 256, LOG_CTX_KV = 6, LOG_MODULES_MAX = 16, LOG_MODULE_NAME = 24 };

enum kv_type { KV_END, KV_STR, KV_INT, KV_MS };

struct kv {
    const char *key; /* static */
    enum kv_type type;
    struct str s; /* KV_STR: must live until the line is written; absent (p NULL): key left out */
    int64_t i;    /* KV_INT; KV_MS: milliseconds, printed as seconds with three decimals */
};

#define KV_S(k, v)   ((struct kv){(k), KV_STR, (v), 0})
#define KV_C(k, v)   ((struct kv){(k), KV_STR, str_c(v), 0})
#define KV_I(k, v)   ((struct kv){(k), KV_INT, STR_NONE, (int64_t)(v)})
#define KV_SEC(k, v) ((struct kv){(k), KV_MS, STR_NONE, (int64_t)(v)})

/* Takes rows of fields: for the log, for the control socket. `event` names the kind of row and is
 * static; everything else lives during the call. */
struct kv_sink {
    void (*put)(void *arg, const char *event, const struct kv *kv, size_t n);
    void *arg;
};

struct log;

struct log_ctx {
    struct log *sink;
    const struct log_ctx *parent; /* NULL: none; must outlive this one */
    struct kv kv[LOG_CTX_KV];     /* ends at the first KV_END; the strings belong to the holder */
};

/* fd is not closed by log_free. */
struct log *log_new(int fd, enum log_level level, enum log_format format, unsigned rate);
void log_free(struct log *l);
void log_set(struct log *l, enum log_level level, enum log_format format, unsigned rate);
void log_set_level(struct log *l, enum log_level level); /* of all modules */
/* The level of one module: events whose name begins with "MODULE.". Until the next log_set. False:
 * too many modules, or no name of one. */
bool log_set_module(struct log *l, const char *module, enum log_level level);
/* Whoever is above this level is not written, whatever its module. */
enum log_level log_level_of(const struct log *l);
uint64_t log_lines_dropped(const struct log *l);

/* Tests: collects lines into `out` instead of writing them to the fd, without time stamps. */
void log_capture(struct log *l, struct buf *out);

void log_write(const struct log_ctx *ctx, enum log_level level, const char *event,
               const struct kv *kv, size_t n);

static inline bool log_on(const struct log_ctx *ctx, enum log_level level)
{
    return ctx->sink != NULL && level <= log_level_of(ctx->sink);
}

/* log_ev(ctx, LOG_INFO, "s2s.open", KV_S("peer", name), KV_I("port", 5269)); at least one pair. */
#define log_ev(ctx, level, event, ...)                                                             \
    do {                                                                                           \
        if (log_on((ctx), (level))) {                                                              \
            const struct kv kv_[] = {__VA_ARGS__};                                                 \
            log_write((ctx), (level), (event), kv_, sizeof kv_ / sizeof kv_[0]);                   \
        }                                                                                          \
    } while (0)

const char *log_level_name(enum log_level level);
bool log_level_parse(struct str s, enum log_level *out);

#endif
