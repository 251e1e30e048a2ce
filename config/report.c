#include "config/report.h"

#include <stdlib.h>

#include "core/base/mem.h"

struct report_line {
    struct schema_origin at;
    size_t seq;
    bool warning;
    struct buf text;
};

enum { ROOM_FOR_LAST_LINE = 64, QUOTE_MAX = 80 };

struct buf *report_open(struct report *r, struct schema_origin at, bool warning)
{
    buf_free(&r->sink); /* an empty append allocates its terminator */
    r->errors += !warning;
    if (r->n == REPORT_LINES_MAX)
        return &r->sink;
    if ((r->n & (r->n - 1)) == 0) {
        size_t cap = r->n ? r->n * 2 : 1;
        struct report_line *v = mem_realloc(r->v, cap * sizeof *v);
        if (v == NULL) {
            r->no_memory = true;
            return &r->sink;
        }
        r->v = v;
    }
    struct report_line *l = &r->v[r->n];
    *l = (struct report_line){at, r->n, warning, BUF_INIT(REPORT_LINE_MAX)};
    r->n++;
    return &l->text;
}

static int by_place(const void *pa, const void *pb)
{
    const struct report_line *a = pa, *b = pb;
    if (a->at.source != b->at.source)
        return a->at.source < b->at.source ? -1 : 1;
    if (a->at.line != b->at.line)
        return a->at.line < b->at.line ? -1 : 1;
    return a->seq < b->seq ? -1 : a->seq > b->seq;
}

/* A line is printed whole or not at all, and the last line always finds room. */
static bool print_line(const struct report_line *l, char *const *files, struct buf *out)
{
    const char *file = files[l->at.source ? l->at.source - 1 : 0];
    size_t need = strlen(file) + l->text.len + ROOM_FOR_LAST_LINE;
    if (out->max - out->len < need + ROOM_FOR_LAST_LINE)
        return false;
    buf_puts(out, file);
    if (l->at.line)
        buf_printf(out, ":%u", l->at.line);
    buf_puts(out, l->warning ? ": warning: " : ": ");
    buf_str(out, buf_view(&l->text));
    buf_putc(out, '\n');
    return true;
}

void report_print(struct report *r, char *const *files, struct buf *out)
{
    if (r->n)
        qsort(r->v, r->n, sizeof *r->v, by_place);
    size_t shown = 0;
    while (shown < r->n && print_line(&r->v[shown], files, out))
        shown++;
    if (r->no_memory)
        buf_puts(out, "out of memory\n");
    if (shown < r->n || r->n == REPORT_LINES_MAX)
        buf_puts(out, "(further lines left out)\n");
    if (r->errors)
        buf_printf(out, "%zu error%s\n", r->errors, r->errors == 1 ? "" : "s");
}

void report_free(struct report *r)
{
    for (size_t i = 0; i < r->n; i++)
        buf_free(&r->v[i].text);
    mem_free(r->v);
    buf_free(&r->sink);
    *r = (struct report){0};
}

/* U+0080 to U+009F, control characters as well: C2 80 to C2 9F. */
static bool in_c1(struct str s, size_t i)
{
    const unsigned char *p = (const unsigned char *)s.p;
    if (p[i] == 0xC2)
        return i + 1 < s.n && p[i + 1] < 0xA0;
    return i && p[i - 1] == 0xC2 && p[i] >= 0x80 && p[i] < 0xA0;
}

void report_quote(struct buf *out, struct str s)
{
    struct str cut = s;
    if (cut.n > QUOTE_MAX) {
        cut.n = QUOTE_MAX;
        while (cut.n && ((unsigned char)s.p[cut.n] & 0xC0) == 0x80) /* not inside a character */
            cut.n--;
    }
    bool utf8 = str_utf8(cut);
    for (size_t i = 0; i < cut.n; i++) {
        unsigned char c = (unsigned char)cut.p[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7F || (c >= 0x80 && !utf8) || in_c1(cut, i))
            buf_printf(out, "\\x%02X", c);
        else
            buf_putc(out, (char)c);
    }
    if (cut.n < s.n)
        buf_puts(out, "...");
}

void report_suggest(struct buf *out, const char *given, const char *best)
{
    if (best != NULL && str_distance(given, best) * 3 <= strlen(best) + 2)
        buf_printf(out, " (did you mean \"%s\"?)", best);
}
