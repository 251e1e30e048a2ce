/* Prosody's file is a Lua program, but nearly always one that only assigns. What is read:
 *
 *     name = value                     value: "text", 'text', [[text]], number, true, false, nil,
 *     VirtualHost "x"                  or a table { v, v; name = v, ["name"] = v }
 *     Component "x" "module"
 *
 * Everything else (functions, conditions, computed values, Include) is passed over up to where the
 * next statement begins on a line of its own, and noted. */
#include <stdio.h>

#include "ctl/import_read.h"

enum token { END, NAME, TEXT, NUMBER, SYMBOL, BROKEN };

struct lua {
    struct tree *t;
    const struct import_source *s;
    const struct import_sink *to;
    const char *p, *end;
    unsigned line;
    /* The present token. */
    enum token token;
    struct str span;
    struct buf text; /* of TEXT */
    unsigned at;     /* its line */
    bool first;      /* the first one of its line */
};

static void note(struct lua *l, unsigned line, const char *what)
{
    l->to->note(l->to->arg, l->s->name, line, what);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "[[" or "[=[" at p: the number of '=' and 2, else 0. */
static size_t long_bracket(const struct lua *l, const char *p, char c)
{
    const char *q = p;
    if (q == l->end || *q != c)
        return 0;
    while (++q < l->end && *q == '=')
        ;
    return q < l->end && *q == c ? (size_t)(q - p) + 1 : 0;
}

/* Behind the opening bracket of this length; appends the contents unless out is NULL. */
static bool pass_long(struct lua *l, size_t bracket, struct buf *out)
{
    if (l->p < l->end && *l->p == '\n') {
        l->line++;
        l->p++;
    }
    for (; l->p < l->end; l->p++) {
        if (long_bracket(l, l->p, ']') == bracket) {
            l->p += bracket;
            return true;
        }
        l->line += *l->p == '\n';
        if (out != NULL)
            buf_putc(out, *l->p);
    }
    return false;
}

static void pass_comment(struct lua *l)
{
    size_t bracket = long_bracket(l, l->p, '[');
    if (bracket > 0) {
        l->p += bracket;
        pass_long(l, bracket, NULL);
        return;
    }
    while (l->p < l->end && *l->p != '\n')
        l->p++;
}

static void pass_blanks(struct lua *l)
{
    while (l->p < l->end) {
        if (*l->p == '\n') {
            l->line++;
            l->first = true;
            l->p++;
        } else if (*l->p == ' ' || *l->p == '\t' || *l->p == '\r') {
            l->p++;
        } else if (l->end - l->p >= 2 && l->p[0] == '-' && l->p[1] == '-') {
            l->p += 2;
            pass_comment(l);
        } else {
            return;
        }
    }
}

static void put_escape(struct lua *l)
{
    static const char from[] = "abfnrtv", to[] = "\a\b\f\n\r\t\v";
    const char *hit = *l->p != '\0' ? strchr(from, *l->p) : NULL;
    unsigned code = 0;
    if (is_digit(*l->p)) {
        for (int i = 0; i < 3 && l->p < l->end && is_digit(*l->p); i++)
            code = code * 10 + (unsigned)(*l->p++ - '0');
        buf_putc(&l->text, (char)code);
        return;
    }
    l->line += *l->p == '\n';
    buf_putc(&l->text, hit != NULL ? to[hit - from] : *l->p);
    l->p++;
}

static enum token read_quoted(struct lua *l)
{
    char quote = *l->p++;
    while (l->p < l->end && *l->p != quote && *l->p != '\n') {
        if (*l->p != '\\') {
            buf_putc(&l->text, *l->p++);
            continue;
        }
        if (++l->p < l->end)
            put_escape(l);
    }
    if (l->p == l->end || *l->p == '\n')
        return BROKEN;
    l->p++;
    return TEXT;
}

static enum token read_token(struct lua *l)
{
    char c = *l->p;
    size_t bracket = long_bracket(l, l->p, '[');
    if (c == '"' || c == '\'')
        return read_quoted(l);
    if (bracket > 0) {
        l->p += bracket;
        return pass_long(l, bracket, &l->text) ? TEXT : BROKEN;
    }
    if (is_letter(c)) {
        while (l->p < l->end && (is_letter(*l->p) || is_digit(*l->p)))
            l->p++;
        return NAME;
    }
    if (is_digit(c)) {
        while (l->p < l->end && (is_letter(*l->p) || is_digit(*l->p) || *l->p == '.'))
            l->p++;
        return NUMBER;
    }
    bool same = l->end - l->p >= 2 && l->p[1] == '=' && strchr("=~<>+-*", c) != NULL && c != '\0';
    bool dots = l->end - l->p >= 2 && c == '.' && l->p[1] == '.';
    l->p += same || dots ? 2 : 1;
    return SYMBOL;
}

static void advance(struct lua *l)
{
    l->first = l->p == l->s->text.p;
    buf_clear(&l->text);
    pass_blanks(l);
    l->at = l->line;
    l->span = (struct str){l->p, 0};
    l->token = l->p == l->end ? END : read_token(l);
    l->span.n = (size_t)(l->p - l->span.p);
    l->t->failed = l->t->failed || l->text.failed;
}

static bool is_symbol(const struct lua *l, const char *s)
{
    return l->token == SYMBOL && str_is(l->span, s);
}

static bool is_name(const struct lua *l, const char *s)
{
    return l->token == NAME && str_is(l->span, s);
}

/* ---- passing over ---------------------------------------------------------------------------- */

static bool is_one_of(const struct lua *l, const char *set)
{
    return *l->span.p != '\0' && strchr(set, *l->span.p) != NULL;
}

static int nesting(const struct lua *l)
{
    static const char *const up[] = {"function", "if", "do", "repeat"};
    static const char *const down[] = {"end", "until"};
    if (l->token == SYMBOL)
        return is_one_of(l, "({[") ? 1 : is_one_of(l, ")}]") ? -1 : 0;
    for (size_t i = 0; i < sizeof up / sizeof up[0]; i++)
        if (is_name(l, up[i]))
            return 1;
    for (size_t i = 0; i < sizeof down / sizeof down[0]; i++)
        if (is_name(l, down[i]))
            return -1;
    return 0;
}

static bool is_operator(const struct lua *l)
{
    return is_name(l, "and") || is_name(l, "or") || is_name(l, "not") || is_name(l, "then") ||
           is_name(l, "else") || is_name(l, "elseif");
}

/* To the next name that begins a line outside all brackets and blocks. */
static void pass_statement(struct lua *l)
{
    long depth = 0;
    do {
        depth += nesting(l);
        depth = depth < 0 ? 0 : depth;
        advance(l);
    } while (l->token != END &&
             (depth > 0 || !l->first || l->token != NAME || is_operator(l) || is_name(l, "end")));
}

/* In a table: to the separator, or to its end. */
static void pass_entry(struct lua *l)
{
    long depth = 0;
    while (l->token != END &&
           (depth > 0 || !(is_symbol(l, ",") || is_symbol(l, ";") || is_symbol(l, "}")))) {
        depth += nesting(l);
        depth = depth < 0 ? 0 : depth;
        advance(l);
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool read_table(struct lua *l, uint32_t node, unsigned depth);

static bool is_end_of_value(const struct lua *l, bool table)
{
    if (table)
        return is_symbol(l, ",") || is_symbol(l, ";") || is_symbol(l, "}");
    return l->token == END || is_symbol(l, ";") || (l->token == NAME && !is_operator(l));
}

static bool read_plain(struct lua *l, uint32_t parent, struct str key)
{
    bool minus = is_symbol(l, "-");
    const char *begin = l->span.p;
    unsigned line = l->at;
    if (minus)
        advance(l);
    struct str text = l->token == TEXT ? buf_view(&l->text) : l->span;
    if (minus && l->token == NUMBER)
        text = (struct str){begin, (size_t)(l->p - begin)};
    bool ok = l->token == NUMBER || (!minus && (l->token == TEXT || is_name(l, "true") ||
                                                is_name(l, "false") || is_name(l, "nil")));
    if (ok) {
        tree_add(l->t, parent, key, is_name(l, "nil") ? STR("") : text, l->s->name, line);
        advance(l);
    }
    return ok;
}

/* False: nothing was added, and the present token is somewhere in the value. */
static bool read_value(struct lua *l, uint32_t parent, struct str key, unsigned depth, bool table)
{
    uint32_t node = l->t->n, before = l->t->v[parent].last;
    bool ok;
    if (is_symbol(l, "{") && depth < TREE_DEPTH_MAX) {
        ok = tree_add(l->t, parent, key, STR(""), l->s->name, l->at) != 0 &&
             read_table(l, node, depth + 1);
    } else {
        ok = read_plain(l, parent, key);
    }
    if (l->t->failed || (ok && is_end_of_value(l, table)))
        return !l->t->failed;
    if (l->t->n > node)
        tree_cut(l->t, parent, node, before);
    return false;
}

/* ["name"] = or [1] =, behind which *key lies in `copy`. */
static bool read_bracket_key(struct lua *l, struct buf *copy)
{
    advance(l);
    buf_str(copy, l->token == TEXT ? buf_view(&l->text) : l->span);
    bool ok = l->token == TEXT || l->token == NUMBER;
    advance(l);
    ok = ok && is_symbol(l, "]");
    if (ok)
        advance(l);
    ok = ok && is_symbol(l, "=");
    if (ok)
        advance(l);
    return ok;
}

/* A name is a key when '=' follows, else the begin of an expression. */
static bool is_key(const struct lua *l)
{
    struct lua ahead = *l;
    pass_blanks(&ahead);
    return l->token == NAME && ahead.p < ahead.end && *ahead.p == '=' &&
           !(ahead.end - ahead.p >= 2 && ahead.p[1] == '=');
}

static void read_entry(struct lua *l, uint32_t node, unsigned depth)
{
    struct buf key = BUF_INIT(TREE_TEXT_MAX);
    unsigned line = l->at;
    bool ok = true;
    if (is_symbol(l, "[")) {
        ok = read_bracket_key(l, &key);
    } else if (is_key(l)) {
        buf_str(&key, l->span);
        advance(l);
        advance(l);
    }
    l->t->failed = l->t->failed || key.failed;
    if (!ok || !read_value(l, node, buf_view(&key), depth, true)) {
        note(l, line, "an entry of this table is computed: left out");
        pass_entry(l);
    }
    buf_free(&key);
}

static bool read_table(struct lua *l, uint32_t node, unsigned depth)
{
    advance(l);
    while (l->token != END && !is_symbol(l, "}") && !l->t->failed) {
        read_entry(l, node, depth);
        if (is_symbol(l, ",") || is_symbol(l, ";"))
            advance(l);
    }
    bool closed = is_symbol(l, "}");
    if (closed)
        advance(l);
    return closed;
}

/* ---- statements ------------------------------------------------------------------------------ */

static void read_assignment(struct lua *l, uint32_t node, struct str name, unsigned line)
{
    char what[160];
    advance(l);
    if (read_value(l, node, name, 0, false))
        return;
    snprintf(what, sizeof what, "%.*s is computed: left out", name.n < 60 ? (int)name.n : 60,
             name.p);
    note(l, line, what);
    pass_statement(l);
}

/* VirtualHost "x", Component "x" "module", with or without parentheses; the new section. */
static uint32_t read_section(struct lua *l, struct str name, unsigned line, uint32_t present)
{
    bool parenthesis = is_symbol(l, "(");
    if (parenthesis)
        advance(l);
    if (l->token != TEXT) {
        note(l, line, "the name of this host is computed: left out");
        pass_statement(l);
        return present;
    }
    uint32_t node = tree_add(l->t, 0, str_is(name, "Host") ? STR("VirtualHost") : name,
                             buf_view(&l->text), l->s->name, line);
    advance(l);
    if (parenthesis && is_symbol(l, ")"))
        advance(l);
    if (str_is(name, "Component") && l->token == TEXT && node != 0) {
        tree_add(l->t, node, STR("component_module"), buf_view(&l->text), l->s->name, line);
        advance(l);
    }
    return node;
}

static bool is_section(struct str name)
{
    return str_is(name, "VirtualHost") || str_is(name, "Host") || str_is(name, "Component");
}

/* The section that the next statement belongs to. */
static uint32_t read_statement(struct lua *l, uint32_t section)
{
    struct str name = l->span;
    unsigned line = l->at;
    char what[200];
    if (is_symbol(l, ";")) {
        advance(l);
        return section;
    }
    if (l->token == NAME && nesting(l) == 0 && !is_name(l, "local")) {
        advance(l);
        if (is_symbol(l, "=")) {
            read_assignment(l, section, name, line);
            return section;
        }
        if (is_section(name))
            return read_section(l, name, line, section);
        if (str_is(name, "Include") && l->token == TEXT) {
            snprintf(what, sizeof what, "Include \"%.100s\" is not followed: give these files, too",
                     l->text.p != NULL ? l->text.p : "");
            note(l, line, what);
            advance(l);
            return section;
        }
        note(l, line, "not understood: left out");
        if (!l->first || l->token != NAME)
            pass_statement(l);
        return section;
    }
    note(l, line, "not understood: left out");
    pass_statement(l);
    return section;
}

bool import_read_lua(struct tree *t, const struct import_source *s, const struct import_sink *to,
                     struct buf *why)
{
    struct lua l = {.t = t,
                    .s = s,
                    .to = to,
                    .p = s->text.p ? s->text.p : "",
                    .line = 1,
                    .text = BUF_INIT(TREE_TEXT_MAX)};
    uint32_t section = 0;
    if (s->text.n > IMPORT_FILE_MAX) {
        buf_printf(why, "%s: too long", s->name);
        return false;
    }
    l.end = l.p + s->text.n;
    advance(&l);
    while (l.token != END && !t->failed)
        section = read_statement(&l, section);
    buf_free(&l.text);
    if (t->failed)
        buf_printf(why, "%s: too long", s->name);
    return !t->failed;
}
