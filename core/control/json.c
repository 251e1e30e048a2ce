#include "core/control/json.h"

/* ---- strings --------------------------------------------------------------------------------- */

/* Length of the well-formed character at the beginning of s; 0: there is none. */
static size_t character(struct str s)
{
    unsigned char c = (unsigned char)*s.p;
    size_t n = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 0;
    return n > 0 && n <= s.n && str_utf8((struct str){s.p, n}) ? n : 0;
}

static void put_ascii(struct buf *b, char c)
{
    if (c == '"' || c == '\\')
        buf_putc(b, '\\');
    if ((unsigned char)c < 0x20 || c == 0x7f)
        buf_printf(b, "\\u%04x", (unsigned)c);
    else
        buf_putc(b, c);
}

static void put_string(struct buf *b, struct str s)
{
    buf_putc(b, '"');
    while (s.n > 0) {
        size_t n = character(s);
        if (n == 1)
            put_ascii(b, *s.p);
        else if (n > 1)
            buf_put(b, s.p, n);
        else
            buf_puts(b, "\\ufffd");
        s.p += n ? n : 1;
        s.n -= n ? n : 1;
    }
    buf_putc(b, '"');
}

/* ---- structure ------------------------------------------------------------------------------- */

void json_begin(struct json *j, struct buf *out)
{
    *j = (struct json){.out = out};
}

/* What comes before a value: the comma, the key. */
static void lead(struct json *j, const char *key)
{
    if (j->more[j->depth])
        buf_putc(j->out, ',');
    j->more[j->depth] = true;
    if (key != NULL) {
        put_string(j->out, str_c(key));
        buf_putc(j->out, ':');
    }
}

static void open(struct json *j, const char *key, char opening, char closing)
{
    lead(j, key);
    if (j->depth == JSON_DEPTH_MAX) {
        j->out->failed = true;
        return;
    }
    j->depth++;
    j->more[j->depth] = false;
    j->closing[j->depth] = closing;
    buf_putc(j->out, opening);
}

void json_object(struct json *j, const char *key)
{
    open(j, key, '{', '}');
}

void json_array(struct json *j, const char *key)
{
    open(j, key, '[', ']');
}

void json_end(struct json *j)
{
    if (j->depth > 0)
        buf_putc(j->out, j->closing[j->depth--]);
}

/* ---- values ---------------------------------------------------------------------------------- */

void json_str(struct json *j, const char *key, struct str s)
{
    lead(j, key);
    if (s.p == NULL)
        buf_puts(j->out, "null");
    else
        put_string(j->out, s);
}

void json_c(struct json *j, const char *key, const char *s)
{
    json_str(j, key, str_c(s));
}

void json_int(struct json *j, const char *key, int64_t v)
{
    lead(j, key);
    buf_printf(j->out, "%lld", (long long)v);
}

void json_bool(struct json *j, const char *key, bool v)
{
    lead(j, key);
    buf_puts(j->out, v ? "true" : "false");
}

void json_seconds(struct json *j, const char *key, int64_t ms)
{
    uint64_t abs = ms < 0 ? -(uint64_t)ms : (uint64_t)ms;
    lead(j, key);
    buf_printf(j->out, "%s%llu.%03llu", ms < 0 ? "-" : "", (unsigned long long)(abs / 1000),
               (unsigned long long)(abs % 1000));
}

void json_fields(struct json *j, const struct kv *kv, size_t n)
{
    for (size_t i = 0; i < n && kv[i].type != KV_END; i++) {
        if (kv[i].type == KV_INT)
            json_int(j, kv[i].key, kv[i].i);
        else if (kv[i].type == KV_MS)
            json_seconds(j, kv[i].key, kv[i].i);
        else if (kv[i].s.p != NULL)
            json_str(j, kv[i].key, kv[i].s);
    }
}
