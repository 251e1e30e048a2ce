#include "config/value.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/domains.h"
#include "config/source.h"
#include "core/base/datetime.h"
#include "core/base/digest.h"
#include "core/base/key_hash.h"
#include "core/base/mem.h"
#include "core/xml/jid.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: printing takes the first that divides. */
static const struct unit duration_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
                                             {"s", 1000},     {"ms", 1},      {NULL, 0}};
static const struct unit size_units[] = {
    {"G", 1u << 30}, {"M", 1u << 20}, {"K", 1u << 10}, {"", 1}, {NULL, 0}};

static bool parse_units(struct str s, const struct unit *units, uint64_t *out)
{
    enum { DIGITS_MAX = 15 }; /* far from overflow */
    uint64_t v = 0, scaled;
    size_t i = 0;
    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) {
        if (i == DIGITS_MAX)
            return false;
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    for (const struct unit *u = units; i && u->name != NULL; u++) {
        if (!str_is((struct str){s.p + i, s.n - i}, u->name))
            continue;
        if (__builtin_mul_overflow(v, u->factor, &scaled))
            return false;
        *out = scaled;
        return true;
    }
    return false;
}

static void put_units(struct buf *out, const struct unit *units, const char *zero, uint64_t v)
{
    if (v == 0) {
        buf_puts(out, zero);
        return;
    }
    const struct unit *u = units;
    while (v % u->factor != 0)
        u++;
    buf_printf(out, "%llu%s", (unsigned long long)(v / u->factor), u->name);
}

bool duration_parse(struct str s, uint64_t *ms)
{
    return parse_units(s, duration_units, ms);
}

bool size_parse(struct str s, uint64_t *bytes)
{
    return parse_units(s, size_units, bytes);
}

void duration_put(struct buf *out, uint64_t ms)
{
    put_units(out, duration_units, "0s", ms);
}

void size_put(struct buf *out, uint64_t bytes)
{
    put_units(out, size_units, "0", bytes);
}

enum { DAY_MS = 86400000 };

bool until_parse(struct str s, int64_t *ms)
{
    char text[32];
    bool day = s.n == sizeof "2026-12-31" - 1;
    if (!day)
        return datetime_parse(s, ms) && *ms > 0;
    snprintf(text, sizeof text, "%.*sT00:00:00Z", STR_ARG(s));
    if (!datetime_parse(str_c(text), ms) || *ms < 0)
        return false;
    *ms += DAY_MS;
    return true;
}

void until_put(struct buf *out, int64_t ms)
{
    char text[DATETIME_TEXT];
    bool day = ms % DAY_MS == 0;
    datetime_text(day ? ms - DAY_MS : ms, text);
    buf_printf(out, "%.*s", day ? 10 : DATETIME_TEXT, text);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static const char *check_domain(struct str s, struct buf *out)
{
    char ascii[DOMAIN_MAX + 1];
    if (!domain_ascii(s, ascii))
        return "not a valid domain name";
    buf_puts(out, ascii);
    return NULL;
}

static const char *check_pattern(struct str s, struct buf *out)
{
    static const char problem[] = "must be a domain name, \"*.suffix\" or \"*\"";
    if (str_is(s, "*")) {
        buf_puts(out, "*");
        return NULL;
    }
    if (str_starts(s, "*.")) {
        buf_puts(out, "*.");
        s.p += 2, s.n -= 2;
    }
    return check_domain(s, out) ? problem : NULL;
}

static const char *check_name(struct str s, struct buf *out)
{
    enum { NAME_MAX_LEN = 64 };
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    buf_str(out, s);
    if (!s.n || s.n > NAME_MAX_LEN || strspn(s.p, allowed) != s.n)
        return "must be 1 to 64 letters, digits, '.', '_' or '-'";
    return NULL;
}

static const char *check_ip(struct str s, struct buf *out)
{
    struct ip ip;
    char text[ENDPOINT_TEXT];
    if (!ip_parse(s, &ip))
        return "must be an IP address";
    ip_text(&ip, text);
    buf_puts(out, text);
    return NULL;
}

static const char *check_endpoint(struct str s, struct buf *out)
{
    struct endpoint e;
    char text[ENDPOINT_TEXT];
    if (!endpoint_parse(s, &e))
        return "must be a literal address with a port, e.g. \"192.0.2.7:5269\" or "
               "\"[2001:db8::1]:5269\"";
    endpoint_text(&e, text);
    buf_puts(out, text);
    return NULL;
}

/* "host.example:5269"; the port is checked as that of an endpoint. */
static bool host_port(struct str s, struct buf *out)
{
    const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
    struct endpoint e;
    char probe[32];
    if (colon == NULL)
        return false;
    struct str host = {s.p, (size_t)(colon - s.p)}, port = {colon, s.n - host.n};
    if (port.n > 6 || snprintf(probe, sizeof probe, "0.0.0.0%.*s", STR_ARG(port)) <= 0)
        return false;
    if (!endpoint_parse(str_c(probe), &e) || check_domain(host, out) != NULL)
        return false;
    buf_printf(out, ":%u", e.port);
    return true;
}

static const char *check_route(struct str s, struct buf *out)
{
    if (check_endpoint(s, out) == NULL || host_port(s, out))
        return NULL;
    return "must be an address or a host with a port, e.g. \"192.0.2.7:5269\", "
           "\"[2001:db8::1]:5269\" or \"host.example:5269\"";
}

static const char *check_file(const char *file, const char *text, struct buf *out)
{
    struct stat st;
    char *path = source_path(file, text);
    if (path == NULL) {
        out->failed = true;
        return NULL;
    }
    buf_puts(out, path);
    const char *problem = NULL;
    if (stat(path, &st) != 0 || access(path, R_OK) != 0)
        problem = strerror(errno);
    else if (!S_ISREG(st.st_mode))
        problem = "not a regular file";
    mem_free(path);
    return problem;
}

static const char *check_path(const char *file, const char *text, struct buf *out)
{
    char *path = source_path(file, text);
    if (path == NULL)
        out->failed = true;
    else
        buf_puts(out, path);
    mem_free(path);
    return NULL;
}

static const char *check_pin(struct str s, struct buf *out)
{
    struct key_hash h;
    char text[KEY_HASH_TEXT_MAX];
    const char *why = NULL;
    if (!key_hash_parse(s, &h, &why))
        return why;
    if (h.n != KEY_HASH_SHA256)
        return "must be a SHA-256 hash, 64 hex digits";
    key_hash_text(text, h.bytes, h.n);
    buf_puts(out, text);
    return NULL;
}

static const char *check_key_hash(struct str s, struct buf *out)
{
    struct key_hash h;
    const char *why = NULL;
    if (!key_hash_parse(s, &h, &why))
        return why;
    buf_str(out, s);
    return NULL;
}

const char *value_check(enum schema_check check, const char *file, const char *text,
                        struct buf *out)
{
    struct str s = str_c(text);
    buf_clear(out);
    if (s.n > VALUE_TEXT_MAX)
        return "too long";
    switch (check) {
    case CHECK_DOMAIN:
        return check_domain(s, out);
    case CHECK_PATTERN:
        return check_pattern(s, out);
    case CHECK_NAME:
        return check_name(s, out);
    case CHECK_IP:
        return check_ip(s, out);
    case CHECK_ENDPOINT:
        return check_endpoint(s, out);
    case CHECK_ROUTE:
        return check_route(s, out);
    case CHECK_FILE:
        return check_file(file, text, out);
    case CHECK_PATH:
        return check_path(file, text, out);
    case CHECK_KEY_HASH:
        return check_key_hash(s, out);
    case CHECK_PIN:
        return check_pin(s, out);
    case CHECK_ANY:
        break;
    }
    buf_str(out, s);
    return NULL;
}

/* ---- secrets --------------------------------------------------------------------------------- */

static bool secret_is_text(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7F)
            return false;
    return true;
}

static bool secret_mode_ok(const char *path, struct buf *why)
{
    struct stat st;
    if (stat(path, &st) != 0)
        buf_printf(why, "%s", strerror(errno));
    else if (!S_ISREG(st.st_mode))
        buf_puts(why, "not a regular file");
    else if (st.st_mode & 07)
        buf_printf(why, "a secret that others may use (mode %04o); run chmod o= on it",
                   (unsigned)st.st_mode & 07777u);
    else
        return true;
    return false;
}

char *value_secret(const char *path, struct buf *why)
{
    struct buf text = BUF_INIT(SECRET_SIZE_MAX);
    char *secret = NULL;
    if (!secret_mode_ok(path, why))
        return NULL;
    /* Room for all at once, so that no copy of a secret is left behind in a block given back. */
    int e = buf_reserve(&text, SECRET_SIZE_MAX) ? source_read(path, SECRET_SIZE_MAX, true, &text)
                                                : ENOMEM;
    struct str s = buf_view(&text);
    if (s.n && s.p[s.n - 1] == '\n')
        s.n--;
    if (e == EFBIG)
        buf_printf(why, "longer than %d bytes", SECRET_SIZE_MAX);
    else if (e != 0 && e != ENOMEM)
        buf_puts(why, strerror(e));
    else if (e == 0 && s.n == 0)
        buf_puts(why, "the file is empty");
    else if (e == 0 && !secret_is_text(s))
        buf_puts(why, "the file holds more than one line of text");
    else if (e == 0)
        secret = mem_strndup(s);
    if (text.p != NULL)
        digest_wipe(text.p, text.cap);
    buf_free(&text);
    return secret;
}

void value_wipe(char *secret)
{
    if (secret != NULL)
        digest_wipe(secret, strlen(secret));
    mem_free(secret);
}

/* ---- printing and comparing ------------------------------------------------------------------ */

void value_put_text(struct buf *out, const char *text, enum value_style style)
{
    if (style == VALUE_BARE) {
        buf_puts(out, text);
        return;
    }
    buf_putc(out, '"');
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            buf_putc(out, '\\');
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            buf_printf(out, "\\x%02x", (unsigned)*p);
        else
            buf_putc(out, *p);
    }
    buf_putc(out, '"');
}

const char *value_name(const struct schema_entry *e, int value)
{
    for (const struct schema_name *n = e->names; n->name != NULL; n++)
        if (n->value == value)
            return n->name;
    return NULL;
}

static void put_number(struct buf *out, const struct schema_entry *e, uint64_t v,
                       enum value_style style)
{
    if (e->type == SCHEMA_INT) {
        buf_printf(out, "%llu", (unsigned long long)v);
        return;
    }
    if (style == VALUE_SYNTAX)
        buf_putc(out, '"');
    if (e->type == SCHEMA_DURATION)
        duration_put(out, v);
    else
        size_put(out, v);
    if (style == VALUE_SYNTAX)
        buf_putc(out, '"');
}

static void put_set(struct buf *out, const struct schema_entry *e, unsigned set)
{
    bool more = false;
    buf_putc(out, '[');
    for (const struct schema_name *n = e->names; n->name != NULL; n++) {
        if (!(set & (unsigned)n->value))
            continue;
        buf_puts(out, more ? ", " : "");
        value_put_text(out, n->name, VALUE_SYNTAX);
        more = true;
    }
    buf_putc(out, ']');
}

static void put_list(struct buf *out, const struct schema_entry *e, const void *base)
{
    size_t n = *VALUE_CONST(size_t, base, e->count_at);
    buf_putc(out, '[');
    for (size_t i = 0; i < n; i++) {
        buf_puts(out, i ? ", " : "");
        if (e->type != SCHEMA_CIDRS) {
            value_put_text(out, (*VALUE_CONST(char **, base, e->at))[i], VALUE_SYNTAX);
            continue;
        }
        const struct cidr *c = &(*VALUE_CONST(struct cidr *, base, e->at))[i];
        char text[ENDPOINT_TEXT];
        ip_text(&c->ip, text);
        buf_printf(out, "\"%s/%u\"", text, c->bits);
    }
    buf_putc(out, ']');
}

/* A list that is written as one text, or not at all. */
static void put_one(struct buf *out, const struct schema_entry *e, const void *base,
                    enum value_style style)
{
    bool set = *VALUE_CONST(size_t, base, e->count_at) > 0;
    const char *unset = style == VALUE_BARE ? "(unset)" : "";
    value_put_text(out, set ? (*VALUE_CONST(char **, base, e->at))[0] : unset, style);
}

static void put_until(struct buf *out, int64_t ms, enum value_style style)
{
    struct buf text = BUF_INIT(64);
    if (ms != 0)
        until_put(&text, ms);
    value_put_text(out, ms == 0 && style == VALUE_BARE ? "(unset)" : text.p ? text.p : "", style);
    buf_free(&text);
}

void value_put(struct buf *out, const struct schema_entry *e, const void *base,
               enum value_style style)
{
    const char *text = NULL;
    int value;
    switch (e->type) {
    case SCHEMA_BOOL:
        text = *VALUE_CONST(bool, base, e->at) ? "true" : "false";
        buf_puts(out, text);
        return;
    case SCHEMA_TRISTATE:
        value = *VALUE_CONST(int, base, e->at);
        buf_puts(out, value < 0 ? "(unset)" : value > 0 ? "true" : "false");
        return;
    case SCHEMA_SET:
        if (style == VALUE_BARE && !value_is_set(e, base))
            buf_puts(out, "(unset)");
        else
            put_set(out, e, *VALUE_CONST(unsigned, base, e->at));
        return;
    case SCHEMA_INT:
    case SCHEMA_DURATION:
    case SCHEMA_SIZE:
        put_number(out, e, *VALUE_CONST(uint64_t, base, e->at), style);
        return;
    case SCHEMA_STRINGS:
    case SCHEMA_CIDRS:
    case SCHEMA_SECRETS:
        if (e->flags & SCHEMA_OR_ONE && *VALUE_CONST(size_t, base, e->count_at) < 2)
            put_one(out, e, base, style);
        else
            put_list(out, e, base);
        return;
    case SCHEMA_GROUPS:
        buf_printf(out, "(%zu)", *VALUE_CONST(size_t, base, e->count_at));
        return;
    case SCHEMA_ENUM:
        text = value_name(e, *VALUE_CONST(int, base, e->at));
        break;
    case SCHEMA_STRING:
    case SCHEMA_SECRET:
    case SCHEMA_DOMAINS:
        text = *VALUE_CONST(char *, base, e->at);
        break;
    case SCHEMA_UNTIL:
        put_until(out, *VALUE_CONST(int64_t, base, e->at), style);
        return;
    }
    if (text == NULL && style == VALUE_BARE)
        text = "(unset)";
    value_put_text(out, text ? text : "", style);
}

bool value_is_set(const struct schema_entry *e, const void *base)
{
    if (e->at == SCHEMA_NOWHERE)
        return false;
    if (e->type == SCHEMA_STRING || e->type == SCHEMA_SECRET || e->type == SCHEMA_DOMAINS)
        return *VALUE_CONST(char *, base, e->at) != NULL;
    if (e->type == SCHEMA_UNTIL)
        return *VALUE_CONST(int64_t, base, e->at) != 0;
    if (e->type == SCHEMA_TRISTATE)
        return *VALUE_CONST(int, base, e->at) >= 0;
    if (e->type == SCHEMA_SET)
        return *VALUE_CONST(unsigned, base, e->at) != 0;
    if (e->type == SCHEMA_SIZE && e->standard == NULL) /* 0 is in no range of these */
        return *VALUE_CONST(uint64_t, base, e->at) != 0;
    return e->type != SCHEMA_ENUM || value_name(e, *VALUE_CONST(int, base, e->at)) != NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* The same patterns, in whatever order. */
static bool same_domains(const struct domain_list *a, const struct domain_list *b)
{
    size_t pos, n = a != NULL ? a->n : 0;
    bool same = n == (b != NULL ? b->n : 0);
    for (size_t i = 0; same && i < n; i++)
        same = domain_list_has(b, a->v[i], &pos);
    return same;
}

static bool same_list(const struct schema_entry *e, const void *a, const void *b)
{
    size_t n = *VALUE_CONST(size_t, a, e->count_at);
    if (n != *VALUE_CONST(size_t, b, e->count_at))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (e->type == SCHEMA_CIDRS) {
            const struct cidr *x = &(*VALUE_CONST(struct cidr *, a, e->at))[i];
            const struct cidr *y = &(*VALUE_CONST(struct cidr *, b, e->at))[i];
            if (x->bits != y->bits || !ip_equal(&x->ip, &y->ip))
                return false;
        } else if (!same_text((*VALUE_CONST(char **, a, e->at))[i],
                              (*VALUE_CONST(char **, b, e->at))[i]) ||
                   (e->type == SCHEMA_SECRETS &&
                    !same_text((*VALUE_CONST(char **, a, e->secret_at))[i],
                               (*VALUE_CONST(char **, b, e->secret_at))[i]))) {
            return false;
        }
    }
    return true;
}

bool value_equal(const struct schema_entry *e, const void *a, const void *b)
{
    switch (e->type) {
    case SCHEMA_BOOL:
        return *VALUE_CONST(bool, a, e->at) == *VALUE_CONST(bool, b, e->at);
    case SCHEMA_TRISTATE:
    case SCHEMA_ENUM:
        return *VALUE_CONST(int, a, e->at) == *VALUE_CONST(int, b, e->at);
    case SCHEMA_SET:
        return *VALUE_CONST(unsigned, a, e->at) == *VALUE_CONST(unsigned, b, e->at);
    case SCHEMA_INT:
    case SCHEMA_DURATION:
    case SCHEMA_SIZE:
        return *VALUE_CONST(uint64_t, a, e->at) == *VALUE_CONST(uint64_t, b, e->at);
    case SCHEMA_UNTIL:
        return *VALUE_CONST(int64_t, a, e->at) == *VALUE_CONST(int64_t, b, e->at);
    case SCHEMA_DOMAINS:
        if (!same_domains(*VALUE_CONST(struct domain_list *, a, e->secret_at),
                          *VALUE_CONST(struct domain_list *, b, e->secret_at)))
            return false;
        return same_text(*VALUE_CONST(char *, a, e->at), *VALUE_CONST(char *, b, e->at));
    case SCHEMA_SECRET:
        if (!same_text(*VALUE_CONST(char *, a, e->secret_at),
                       *VALUE_CONST(char *, b, e->secret_at)))
            return false;
        /* fall through */
    case SCHEMA_STRING:
        return same_text(*VALUE_CONST(char *, a, e->at), *VALUE_CONST(char *, b, e->at));
    case SCHEMA_STRINGS:
    case SCHEMA_CIDRS:
    case SCHEMA_SECRETS:
        return same_list(e, a, b);
    case SCHEMA_GROUPS:
        break;
    }
    return true;
}
