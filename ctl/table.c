#include "ctl/table.h"

#include <stdio.h>
#include <stdlib.h>

enum { COLUMNS_MAX = 24, CELL_MAX = 200, NAME_WIDTH = 20 };

/* The columns of wide tables; what a row does not have is "-". */
static const struct layout {
    const char *table, *columns;
} layouts[] = {
    {"streams", "id dir peer local state addr tls cipher cert mech pairs age idle stanzas bytes_in "
                "bytes_out queued link"},
    {"peers", "peer state in out queued policy rule mode failures retry_in blocked_for msg"},
    {"links",
     "link role state since protocol transport addr tls ups in out bounced dropped refused "
     "queued sid"},
    {"certificates", "domain role link until source kept file issuer"},
    {"stanzas", "dir received authored delivered bounced dropped waiting writing balance"},
    {"refusals", "rule entry count from_outside last local peer"},
    {"changes", "key old new restart effect"},
    {"events", "time kind subject count text"},
    {"flows", "dir proto source destination port why"},
};

/* Members that are spans of time, in seconds. */
static const char *const spans[] = {"uptime", "age",       "idle",        "since",
                                    "oldest", "retry_in",  "blocked_for", "reloaded",
                                    "for",    "last_sent", "last_answer", "took"};

/* ---- cells ----------------------------------------------------------------------------------- */

static bool is_span(const char *key)
{
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++)
        if (strcmp(spans[i], key) == 0)
            return true;
    return false;
}

/* "12 ms", "4.2 s", "20 s", "3 m 20 s", "2 h 5 m", "3 d 4 h" */
static void span_text(const char *seconds, char *out, size_t cap)
{
    double s = strtod(seconds, NULL);
    unsigned long t = s < 4e9 ? (unsigned long)s : 4000000000UL;
    if (s < 1)
        snprintf(out, cap, "%.0f ms", s * 1000);
    else if (s < 10)
        snprintf(out, cap, "%.1f s", s);
    else if (t < 60)
        snprintf(out, cap, "%lu s", t);
    else if (t < 3600)
        snprintf(out, cap, "%lu m %lu s", t / 60, t % 60);
    else if (t < 86400)
        snprintf(out, cap, "%lu h %lu m", t / 3600, t / 60 % 60);
    else
        snprintf(out, cap, "%lu d %lu h", t / 86400, t / 3600 % 24);
}

/* A terminal obeys C0 and C1 controls; what came from a stranger must not command it. */
static void plain(const char *from, char *out, size_t cap)
{
    size_t n = 0;
    while (*from != '\0' && n + 1 < cap) {
        unsigned char c = (unsigned char)*from, second = (unsigned char)from[1];
        bool c1 = c == 0xC2 && second >= 0x80 && second < 0xA0;
        out[n++] = c < 0x20 || c == 0x7f || c1 ? '?' : *from;
        from += c1 ? 2 : 1;
    }
    while (n > 0 && *from != '\0' && ((unsigned char)out[n - 1] & 0xC0) == 0x80)
        n--; /* not half a character */
    out[n] = '\0';
}

static void cell(const struct value *v, const char *key, char out[CELL_MAX])
{
    if (v == NULL || v->type == VALUE_NULL || v->type == VALUE_ARRAY || v->type == VALUE_OBJECT)
        snprintf(out, CELL_MAX, "-");
    else if (v->type == VALUE_NUMBER && is_span(key))
        span_text(v->text, out, CELL_MAX);
    else if (v->type == VALUE_BOOL)
        snprintf(out, CELL_MAX, "%s", *v->text == 't' ? "yes" : "no");
    else
        plain(*v->text != '\0' ? v->text : "-", out, CELL_MAX);
}

/* Characters, not bytes. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void put_cell(struct buf *out, const char *text, size_t to, bool right, bool last)
{
    size_t w = width(text), pad = w < to ? to - w : 0;
    for (size_t i = 0; right && i < pad; i++)
        buf_putc(out, ' ');
    buf_puts(out, text);
    for (size_t i = 0; !right && !last && i < pad; i++)
        buf_putc(out, ' ');
    buf_puts(out, last ? "\n" : "  ");
}

/* ---- tables ---------------------------------------------------------------------------------- */

struct column {
    char name[40];
    size_t width;
    bool number, used;
};

struct columns {
    struct column v[COLUMNS_MAX];
    size_t n;
};

static void add_column(struct columns *c, struct str name)
{
    for (size_t i = 0; i < c->n; i++)
        if (str_is(name, c->v[i].name))
            return;
    if (c->n == COLUMNS_MAX)
        return;
    struct column *k = &c->v[c->n++];
    *k = (struct column){.number = true};
    str_copy(k->name, sizeof k->name, name);
    k->width = width(k->name);
}

static bool laid_out(struct columns *c, const char *table)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (strcmp(layouts[i].table, table) != 0)
            continue;
        for (const char *p = layouts[i].columns; *p != '\0';) {
            size_t n = strcspn(p, " ");
            add_column(c, (struct str){p, n});
            p += n + (p[n] == ' ');
        }
        return true;
    }
    return false;
}

static void measure(const struct document *d, const struct value *row, struct columns *c)
{
    char text[CELL_MAX];
    for (size_t i = 0; i < c->n; i++) {
        const struct value *v = document_get(d, row, c->v[i].name);
        cell(v, c->v[i].name, text);
        c->v[i].width = width(text) > c->v[i].width ? width(text) : c->v[i].width;
        c->v[i].number = c->v[i].number && (v == NULL || v->type == VALUE_NUMBER);
        c->v[i].used = c->v[i].used || (v != NULL && v->type != VALUE_NULL);
    }
}

/* A column that no row has is not shown. */
static void drop_unused(struct columns *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        if (c->v[i].used)
            c->v[n++] = c->v[i];
    c->n = n;
}

static void put_heading(const struct columns *c, struct buf *out)
{
    char text[CELL_MAX];
    for (size_t i = 0; i < c->n; i++) {
        snprintf(text, sizeof text, "%s", c->v[i].name);
        for (char *p = text; *p != '\0'; p++)
            *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p == '_' ? ' ' : *p;
        put_cell(out, text, c->v[i].width, c->v[i].number, i + 1 == c->n);
    }
}

static void put_row(const struct document *d, const struct value *row, const struct columns *c,
                    struct buf *out)
{
    char text[CELL_MAX];
    for (size_t i = 0; i < c->n; i++) {
        cell(document_get(d, row, c->v[i].name), c->v[i].name, text);
        put_cell(out, text, c->v[i].width, c->v[i].number, i + 1 == c->n);
    }
}

static void put_table(const struct document *d, const struct value *rows, struct buf *out)
{
    struct columns c = {.n = 0};
    bool fixed = laid_out(&c, rows->key != NULL ? rows->key : "");
    const struct value *row;
    for (row = document_first(d, rows); row != NULL && !fixed; row = document_next(d, row))
        for (const struct value *v = document_first(d, row); v != NULL; v = document_next(d, v))
            add_column(&c, str_c(v->key));
    for (row = document_first(d, rows); row != NULL; row = document_next(d, row))
        measure(d, row, &c);
    drop_unused(&c);
    put_heading(&c, out);
    for (row = document_first(d, rows); row != NULL; row = document_next(d, row))
        put_row(d, row, &c, out);
}

/* ---- objects --------------------------------------------------------------------------------- */

static void put_member(const struct value *v, const char *indent, struct buf *out)
{
    char text[CELL_MAX], name[64];
    size_t w = strlen(v->key);
    cell(v, v->key, text);
    plain(v->key, name, sizeof name);
    for (char *p = name; *p != '\0'; p++)
        *p = *p == '_' ? ' ' : *p;
    buf_printf(out, "%s%s:%*s %s\n", indent, name, w < NAME_WIDTH ? (int)(NAME_WIDTH - w) : 0, "",
               text);
}

/* Identities: blocks of lines are easier to read, and to copy from, than wide rows. */
static bool in_blocks(const struct value *rows)
{
    return rows->key != NULL && strcmp(rows->key, "identities") == 0;
}

static void put_blocks(const struct document *d, const struct value *rows, struct buf *out)
{
    for (const struct value *r = document_first(d, rows); r != NULL; r = document_next(d, r)) {
        for (const struct value *v = document_first(d, r); v != NULL; v = document_next(d, v))
            put_member(v, "", out);
        if (document_next(d, r) != NULL)
            buf_putc(out, '\n');
    }
}

/* Words, each on a line of its own when they are sentences. */
static void put_list(const struct document *d, const struct value *list, struct buf *out)
{
    char text[COLUMNS_MAX * CELL_MAX];
    buf_printf(out, "%s:\n", list->key);
    for (const struct value *v = document_first(d, list); v != NULL; v = document_next(d, v)) {
        plain(v->text, text, sizeof text);
        buf_printf(out, "  %s\n", text);
    }
}

/* What is a text for a file: nothing but its lines. */
static void put_lines(const struct document *d, const struct value *rows, struct buf *out)
{
    for (const struct value *r = document_first(d, rows); r != NULL; r = document_next(d, r)) {
        const struct value *line = document_get(d, r, "line");
        for (const char *p = line != NULL ? line->text : ""; *p != '\0'; p++) {
            unsigned char c = (unsigned char)*p, second = (unsigned char)p[1];
            bool c1 = c == 0xC2 && second >= 0x80 && second < 0xA0;
            buf_putc(out, c < 0x20 || c == 0x7f || c1 ? '?' : *p);
            p += c1;
        }
        buf_putc(out, '\n');
    }
}

static void put_part(const struct document *d, const struct value *v, bool alone, struct buf *out)
{
    const struct value *first = document_first(d, v);
    if (v->type == VALUE_OBJECT) {
        buf_printf(out, "%s%s:\n", out->len ? "\n" : "", v->key);
        for (const struct value *m = first; m != NULL; m = document_next(d, m))
            put_member(m, "  ", out);
        return;
    }
    if (strcmp(v->key, "lines") == 0)
        put_lines(d, v, out);
    if ((first == NULL && !alone) || strcmp(v->key, "lines") == 0)
        return;
    if (first == NULL) {
        buf_printf(out, "no %s\n", v->key);
    } else if (first->type != VALUE_OBJECT) {
        put_list(d, v, out);
    } else {
        if (out->len > 0)
            buf_putc(out, '\n');
        in_blocks(v) ? put_blocks(d, v, out) : put_table(d, v, out);
    }
}

static bool is_part(const struct value *v)
{
    return v->type == VALUE_ARRAY || v->type == VALUE_OBJECT;
}

void table_print(const struct document *d, const struct value *ok, struct buf *out)
{
    bool first = true;
    for (const struct value *v = document_first(d, ok); v != NULL; v = document_next(d, v))
        if (!is_part(v) && strcmp(v->key, "more") != 0)
            put_member(v, "", out);
    for (const struct value *v = document_first(d, ok); v != NULL; v = document_next(d, v)) {
        if (!is_part(v))
            continue;
        put_part(d, v, first, out);
        first = false;
    }
}

void table_event(const struct document *d, const struct value *event, struct buf *out)
{
    static const char *const keys[] = {"time", "kind", "subject", "text"};
    char text[CELL_MAX * 2];
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct value *v = document_get(d, event, keys[i]);
        plain(v != NULL && *v->text ? v->text : "-", text, sizeof text);
        buf_printf(out, "%s%s", i ? "  " : "", text);
    }
    buf_putc(out, '\n');
}
