#include "config/source.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct scan {
    struct str in;
    size_t pos;
    unsigned line;
    unsigned pending; /* line ends not yet written */
    bool after_text, after_comma;
    unsigned depth;
    struct buf *out;
    struct scan_fault *fault, *hint;
};

static int peek(const struct scan *s, size_t ahead)
{
    return s->pos + ahead < s->in.n ? (unsigned char)s->in.p[s->pos + ahead] : -1;
}

static void step(struct scan *s)
{
    if (s->in.p[s->pos++] == '\n')
        s->line++;
}

static void fail(struct scan *s, unsigned line, const char *text)
{
    *s->fault = (struct scan_fault){line, text};
}

static void skip_line(struct scan *s)
{
    while (peek(s, 0) != -1 && peek(s, 0) != '\n')
        step(s);
}

static void skip_comment(struct scan *s)
{
    unsigned start = s->line;
    s->pos += 2;
    while (peek(s, 0) != -1 && !(peek(s, 0) == '*' && peek(s, 1) == '/'))
        step(s);
    if (peek(s, 0) == -1)
        fail(s, start, "the comment does not end");
    else
        s->pos += 2;
}

static void skip_blank(struct scan *s)
{
    unsigned before = s->line;
    for (;;) {
        int c = peek(s, 0);
        if (c == '#' || (c == '/' && peek(s, 1) == '/'))
            skip_line(s);
        else if (c == '/' && peek(s, 1) == '*')
            skip_comment(s);
        else if (c == ' ' || (c >= '\t' && c <= '\r'))
            step(s);
        else
            break;
    }
    s->pending += s->line - before;
}

static void write_line_ends(struct scan *s)
{
    for (; s->pending; s->pending--)
        buf_putc(s->out, '\n');
}

static void write_token(struct scan *s, struct str token)
{
    /* libconfig gives a text the line of the token behind it. */
    bool late = s->after_text && (*token.p == ',' || *token.p == ']' || *token.p == ')');
    if (!late)
        write_line_ends(s);
    buf_putc(s->out, ' ');
    buf_str(s->out, token);
    write_line_ends(s);
    s->after_text = *token.p == '"';
}

static void scan_text(struct scan *s)
{
    unsigned start = s->line;
    size_t from = s->pos++;
    while (peek(s, 0) != -1 && peek(s, 0) != '"') {
        if (str_starts((struct str){s->in.p + s->pos, s->in.n - s->pos}, "\\x00"))
            fail(s, s->line, "a NUL is not allowed in a text");
        if (peek(s, 0) == '\\' && peek(s, 1) != -1)
            step(s);
        step(s);
    }
    if (peek(s, 0) == -1) {
        fail(s, start, "the text does not end: a '\"' is missing");
        return;
    }
    s->pos++;
    write_token(s, (struct str){s->in.p + from, s->pos - from});
}

/* Rewrites an integer that needs more than 32 bits; anything else is left as it is. */
static bool widen(struct str token, char out[32])
{
    char text[64], *end;
    if (!str_copy(text, sizeof text, token))
        return false;
    const char *digits = text + (*text == '-' || *text == '+');
    bool hex = digits == text && digits[0] == '0' && (digits[1] | 0x20) == 'x';
    errno = 0;
    long long v = strtoll(text, &end, hex ? 16 : 10);
    if (*end != '\0' || (v >= INT32_MIN && v <= INT32_MAX))
        return false;
    snprintf(out, 32, "%lldL", v);
    return true;
}

static void scan_number(struct scan *s)
{
    size_t from = s->pos++;
    while (isalnum(peek(s, 0)) || peek(s, 0) == '.' ||
           ((peek(s, 0) == '-' || peek(s, 0) == '+') && (s->in.p[s->pos - 1] | 0x20) == 'e'))
        s->pos++;
    struct str token = {s->in.p + from, s->pos - from};
    char wide[32];
    write_token(s, widen(token, wide) ? str_c(wide) : token);
}

static void scan_name(struct scan *s)
{
    size_t from = s->pos++;
    while (isalnum(peek(s, 0)) || peek(s, 0) == '-' || peek(s, 0) == '_' || peek(s, 0) == '*')
        s->pos++;
    write_token(s, (struct str){s->in.p + from, s->pos - from});
}

static void scan_sign(struct scan *s, int c)
{
    if (c == '@')
        fail(s, s->line, "@include is not supported; use include_dir");
    else if (c == '\0')
        fail(s, s->line, "the file holds a NUL byte");
    else if (strchr("([{", c) && ++s->depth > SOURCE_DEPTH_MAX)
        fail(s, s->line, "nested too deeply");
    else if (strchr(")]}", c) && s->depth)
        s->depth--;
    if ((c == ')' || c == ']') && s->after_comma && s->hint->text == NULL)
        *s->hint = (struct scan_fault){s->line, c == ')' ? "a comma before ')' is not allowed"
                                                         : "a comma before ']' is not allowed"};
    write_token(s, (struct str){s->in.p + s->pos++, 1});
}

static void scan_token(struct scan *s)
{
    int c = peek(s, 0);
    if (c == '"')
        scan_text(s);
    else if (isdigit(c) || c == '-' || c == '+')
        scan_number(s);
    else if (isalpha(c) || c == '*')
        scan_name(s);
    else
        scan_sign(s, c);
    s->after_comma = c == ',';
}

static bool scan_utf8(struct scan *s)
{
    unsigned line = 1;
    for (size_t at = 0; at < s->in.n; line++) {
        const char *nl = memchr(s->in.p + at, '\n', s->in.n - at);
        size_t n = nl ? (size_t)(nl - s->in.p) - at : s->in.n - at;
        if (!str_utf8((struct str){s->in.p + at, n})) {
            fail(s, line, "not UTF-8 text");
            return false;
        }
        at += n + 1;
    }
    return true;
}

bool source_scan(struct str text, struct buf *out, struct scan_fault *fault,
                 struct scan_fault *hint)
{
    struct scan s = {.in = text, .line = 1, .out = out, .fault = fault, .hint = hint};
    *fault = *hint = (struct scan_fault){0};
    if (!scan_utf8(&s))
        return true;
    for (skip_blank(&s); fault->text == NULL && peek(&s, 0) != -1; skip_blank(&s))
        scan_token(&s);
    write_line_ends(&s);
    return !out->failed;
}
