#include "core/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "core/base/mem.h"
#include "core/base/table.h"

enum { LINE_MAX_BYTES = 8192, LINE_END_BYTES = 2, RATES_MAX = 256 };

struct rate {
    const char *event; /* event names are static strings: the pointer is the key */
    int64_t second;
    unsigned lines;
    uint64_t left_out;
};

struct module {
    char name[LOG_MODULE_NAME];
    enum log_level level;
};

struct log {
    int fd;
    enum log_level level, most; /* most: of all modules */
    struct module modules[LOG_MODULES_MAX];
    size_t nmodules;
    enum log_format format;
    unsigned per_second;
    struct buf *capture;
    uint64_t dropped;
    size_t nrates;
    struct rate rates[RATES_MAX];
};

static const char *const level_names[] = {
#define X(id, name) name,
    LOG_LEVELS(X)
#undef X
};

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

bool log_level_parse(struct str s, enum log_level *out)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (str_is(s, level_names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

struct log *log_new(int fd, enum log_level level, enum log_format format, unsigned rate)
{
    struct log *l = mem_zalloc(sizeof *l);
    if (l == NULL)
        return NULL;
    l->fd = fd;
    l->level = l->most = level;
    l->format = format;
    l->per_second = rate;
    return l;
}

void log_free(struct log *l)
{
    mem_free(l);
}

static struct module *module_of(const struct log *l, struct str name)
{
    for (size_t i = 0; i < l->nmodules; i++)
        if (str_is(name, l->modules[i].name))
            return (struct module *)&l->modules[i];
    return NULL;
}

static enum log_level level_for(const struct log *l, const char *event)
{
    const struct module *m =
        l->nmodules > 0 ? module_of(l, (struct str){event, strcspn(event, ".")}) : NULL;
    return m != NULL ? m->level : l->level;
}

static bool is_module(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && n < LOG_MODULE_NAME && s[n] == '\0';
}

bool log_set_module(struct log *l, const char *module, enum log_level level)
{
    struct module *m = module_of(l, str_c(module));
    if (!is_module(module) || (m == NULL && l->nmodules == LOG_MODULES_MAX))
        return false;
    if (m == NULL)
        m = &l->modules[l->nmodules++];
    str_copy(m->name, sizeof m->name, str_c(module));
    m->level = level;
    l->most = l->level;
    for (size_t i = 0; i < l->nmodules; i++)
        if (l->modules[i].level > l->most)
            l->most = l->modules[i].level;
    return true;
}

void log_set_level(struct log *l, enum log_level level)
{
    l->level = l->most = level;
    l->nmodules = 0;
}

void log_set(struct log *l, enum log_level level, enum log_format format, unsigned rate)
{
    log_set_level(l, level);
    l->format = format;
    l->per_second = rate;
}

enum log_level log_level_of(const struct log *l)
{
    return l->most;
}

uint64_t log_lines_dropped(const struct log *l)
{
    return l->dropped;
}

void log_capture(struct log *l, struct buf *out)
{
    l->capture = out;
}

static void put_escaped(struct buf *b, struct str s, bool json)
{
    size_t i = 0, end = s.n < LOG_VALUE_MAX ? s.n : LOG_VALUE_MAX;
    while (i < end) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\') {
            buf_putc(b, '\\');
            buf_putc(b, (char)c);
            i++;
            continue;
        }
        if (c >= 0x20 && c < 0x7f) {
            buf_putc(b, (char)c);
            i++;
            continue;
        }
        unsigned more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC2 ? 1 : 0;
        if (more && i + more < s.n && str_utf8((struct str){s.p + i, more + 1})) {
            unsigned cp = c & (0x3Fu >> more);
            for (unsigned k = 1; k <= more; k++)
                cp = cp << 6 | ((unsigned char)s.p[i + k] & 0x3F);
            buf_printf(b, json ? "\\\\u{%x}" : "\\u{%x}", cp);
            i += more + 1;
        } else {
            buf_printf(b, json ? "\\\\x%02x" : "\\x%02x", c);
            i++;
        }
    }
    if (end < s.n)
        buf_puts(b, "...");
}

static bool needs_quotes(struct str s)
{
    if (s.n == 0)
        return true;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == ' ' || s.p[i] == '=' || s.p[i] == '"' || s.p[i] == '\\')
            return true;
    return false;
}

static void put_value(struct buf *b, enum log_format format, const struct kv *kv)
{
    bool json = format == LOG_JSON;
    switch (kv->type) {
    case KV_STR: {
        bool quote = json || needs_quotes(kv->s);
        if (quote)
            buf_putc(b, '"');
        put_escaped(b, kv->s, json);
        if (quote)
            buf_putc(b, '"');
        break;
    }
    case KV_INT:
        buf_printf(b, "%lld", (long long)kv->i);
        break;
    case KV_MS:
        buf_printf(b, "%lld.%03lld", (long long)(kv->i / 1000), (long long)(kv->i % 1000));
        break;
    case KV_END:
        break;
    }
}

/* All of a pair or, when the line is full, nothing of it and of those behind it. */
static void put_kv(struct buf *b, enum log_format format, const struct kv *kv)
{
    size_t before = b->len;
    if (kv->type == KV_END || (kv->type == KV_STR && kv->s.p == NULL))
        return;
    if (format == LOG_JSON)
        buf_printf(b, ",\"%s\":", kv->key);
    else
        buf_printf(b, " %s=", kv->key);
    put_value(b, format, kv);
    if (b->failed || b->len + LINE_END_BYTES > b->max) {
        b->len = before;
        b->failed = true;
    }
}

static void put_context(struct buf *b, enum log_format format, const struct log_ctx *ctx)
{
    if (ctx == NULL)
        return;
    put_context(b, format, ctx->parent);
    for (size_t i = 0; i < LOG_CTX_KV && ctx->kv[i].type != KV_END; i++)
        put_kv(b, format, &ctx->kv[i]);
}

static int64_t put_head(const struct log *l, struct buf *b, enum log_level level, const char *event)
{
    struct timespec t;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    char stamp[40];
    size_t n = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp + n, sizeof stamp - n, ".%03ldZ", t.tv_nsec / 1000000);
    if (l->format == LOG_JSON)
        buf_printf(b, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"", stamp,
                   level_names[level], event);
    else if (l->capture != NULL)
        buf_printf(b, "%s %s", level_names[level], event);
    else
        buf_printf(b, "%s %s %s", stamp, level_names[level], event);
    return t.tv_sec;
}

static struct rate *rate_of(struct log *l, const char *event)
{
    size_t i = table_hash(&event, sizeof event) % RATES_MAX;
    for (size_t step = 0; step < RATES_MAX; step++, i = (i + 1) % RATES_MAX) {
        if (l->rates[i].event == event)
            return &l->rates[i];
        if (l->rates[i].event == NULL) {
            l->rates[i].event = event;
            l->nrates++;
            return &l->rates[i];
        }
    }
    return NULL; /* more event names than the program has: not limited */
}

static void emit(struct log *l, struct buf *b)
{
    buf_puts(b, l->format == LOG_JSON ? "}\n" : "\n");
    if (l->capture != NULL) {
        buf_str(l->capture, buf_view(b));
        return;
    }
    size_t off = 0;
    while (off < b->len) {
        ssize_t n = write(l->fd, b->p + off, b->len - off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            l->dropped++;
            return;
        }
        off += (size_t)n;
    }
}

static void tell_suppressed(struct log *l, const char *event, uint64_t lines)
{
    struct buf b = BUF_INIT(LINE_MAX_BYTES);
    put_head(l, &b, LOG_WARN, "log.suppressed");
    put_kv(&b, l->format, &KV_C("of", event));
    put_kv(&b, l->format, &KV_I("lines", lines));
    emit(l, &b);
    buf_free(&b);
}

void log_write(const struct log_ctx *ctx, enum log_level level, const char *event,
               const struct kv *kv, size_t n)
{
    struct log *l = ctx->sink;
    if (l == NULL || level > level_for(l, event))
        return;
    struct buf b = BUF_INIT(LINE_MAX_BYTES);
    int64_t second = put_head(l, &b, level, event);
    struct rate *r = l->per_second ? rate_of(l, event) : NULL;
    if (r != NULL && r->second != second) {
        if (r->left_out) {
            l->dropped += r->left_out;
            tell_suppressed(l, event, r->left_out);
        }
        r->second = second;
        r->lines = 0;
        r->left_out = 0;
    }
    if (r != NULL && r->lines++ >= l->per_second) {
        r->left_out++;
        buf_free(&b);
        return;
    }
    put_context(&b, l->format, ctx);
    for (size_t i = 0; i < n; i++)
        put_kv(&b, l->format, &kv[i]);
    if (b.failed) { /* out of memory or a line beyond the maximum: say at least what happened */
        l->dropped++;
        b.failed = false;
    }
    emit(l, &b);
    buf_free(&b);
}
