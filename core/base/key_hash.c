#include "core/base/key_hash.h"

#include <strings.h>

static const struct prefix {
    const char *text;
    unsigned n;
} prefixes[] = {{"sha1:", KEY_HASH_SHA1},
                {"sha-1:", KEY_HASH_SHA1},
                {"sha256:", KEY_HASH_SHA256},
                {"sha-256:", KEY_HASH_SHA256}};

/* A line of --auth-info may be pasted as it is. */
static void take_word(struct str *s)
{
    static const char word[] = "key ";
    if (s->n >= sizeof word - 1 && strncasecmp(s->p, word, sizeof word - 1) == 0)
        *s = str_trim((struct str){s->p + sizeof word - 1, s->n - (sizeof word - 1)});
}

/* Takes a prefix off; the length that it announces, 0 without one. */
static unsigned take_prefix(struct str *s)
{
    take_word(s);
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t n = strlen(prefixes[i].text);
        if (s->n < n || strncasecmp(s->p, prefixes[i].text, n) != 0)
            continue;
        *s = (struct str){s->p + n, s->n - n};
        return prefixes[i].n;
    }
    return 0;
}

/* -1: no hex digit. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The number of digits, of which only those that fit are stored; false: something else stands
 * between them. */
static bool take_digits(struct str s, struct key_hash *out, size_t *digits)
{
    *digits = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == ':' || s.p[i] == ' ' || s.p[i] == '\t')
            continue;
        int v = hex_value(s.p[i]);
        if (v < 0)
            return false;
        size_t at = (*digits)++ / 2;
        if (at < sizeof out->bytes)
            out->bytes[at] = (unsigned char)(out->bytes[at] << 4 | v);
    }
    return true;
}

bool key_hash_parse(struct str text, struct key_hash *out, const char **why)
{
    struct str s = str_trim(text);
    size_t digits;
    *out = (struct key_hash){0, {0}};
    unsigned announced = take_prefix(&s);
    if (!take_digits(s, out, &digits)) {
        *why = "not a key hash: only hex digits, colons and blanks, after an optional sha1: or "
               "sha256:";
        return false;
    }
    if (digits != 2 * KEY_HASH_SHA1 && digits != 2 * KEY_HASH_SHA256) {
        *why = "wrong number of hex digits: SHA-1 has 40, SHA-256 has 64";
        return false;
    }
    out->n = (unsigned)(digits / 2);
    if (announced != 0 && announced != out->n) {
        *why = announced == KEY_HASH_SHA1 ? "sha1: has 40 hex digits, these are 64"
                                          : "sha256: has 64 hex digits, these are 40";
        return false;
    }
    return true;
}

bool key_hash_eq(const struct key_hash *a, const struct key_hash *b)
{
    return a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
}

void key_hash_text(char out[KEY_HASH_TEXT_MAX], const unsigned char *bytes, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    char *p = out;
    for (size_t i = 0; i < n && i < KEY_HASH_SHA256; i++) {
        if (i > 0)
            *p++ = ':';
        *p++ = digits[bytes[i] >> 4];
        *p++ = digits[bytes[i] & 15];
    }
    *p = '\0';
}
