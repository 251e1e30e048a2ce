#include "core/control/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *privilege_name(enum privilege p)
{
    static const char *const names[] = {"read", "operate", "admin"};
    return names[p];
}

static const struct {
    const char *name;
    int code;
} errors[] = {
#define X(id, name, code) {name, code},
    CONTROL_ERRORS(X)
#undef X
};

const char *control_error_name(enum control_error e)
{
    return errors[e].name;
}

int control_error_exit(const char *name)
{
    for (size_t i = 1; i < sizeof errors / sizeof errors[0]; i++)
        if (strcmp(errors[i].name, name) == 0)
            return errors[i].code;
    return 1;
}

static bool fail(struct command_request *r, enum control_error e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool fail(struct command_request *r, enum control_error e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, ap);
    va_end(ap);
    r->error = e;
    return false;
}

/* ---- words ----------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool readable(struct str line)
{
    for (size_t i = 0; i < line.n; i++)
        if ((unsigned char)line.p[i] < 0x20 && line.p[i] != '\t')
            return false;
    return str_utf8(line);
}

/* Copies one word to *to; returns what follows it, NULL when its quotes have no end. */
static const char *take_word(const char *p, const char *end, char **to)
{
    bool quoted = false;
    for (; p < end && (quoted || !is_blank(*p)); p++) {
        if (*p == '"') {
            quoted = !quoted;
            continue;
        }
        if (quoted && *p == '\\' && p + 1 < end && (p[1] == '"' || p[1] == '\\'))
            p++;
        *(*to)++ = *p;
    }
    *(*to)++ = '\0';
    return quoted ? NULL : p;
}

/* Each word is no longer than what it was written with, and its NUL takes the place of the blank
 * behind it (or of the line's end): r->text has room for all. */
static bool split(struct command_request *r, struct str line)
{
    const char *p = line.p, *end = line.p + line.n;
    char *to = r->text;
    if (line.n > COMMAND_LINE_MAX)
        return fail(r, CONTROL_SYNTAX, "the line is longer than %d bytes", COMMAND_LINE_MAX);
    if (!readable(line))
        return fail(r, CONTROL_SYNTAX, "the line is no text");
    for (;;) {
        while (p < end && is_blank(*p))
            p++;
        if (p == end)
            return true;
        if (r->nwords == COMMAND_WORDS_MAX)
            return fail(r, CONTROL_SYNTAX, "more than %d words", COMMAND_WORDS_MAX);
        r->word[r->nwords++] = to;
        p = take_word(p, end, &to);
        if (p == NULL)
            return fail(r, CONTROL_SYNTAX, "a quotation mark has no end");
    }
}

void command_quote(struct buf *line, struct str word)
{
    bool plain = word.n > 0;
    for (size_t i = 0; i < word.n; i++)
        plain = plain && !is_blank(word.p[i]) && word.p[i] != '"' && word.p[i] != '\\';
    if (line->len > 0)
        buf_putc(line, ' ');
    if (plain) {
        buf_str(line, word);
        return;
    }
    buf_putc(line, '"');
    for (size_t i = 0; i < word.n; i++) {
        if (word.p[i] == '"' || word.p[i] == '\\')
            buf_putc(line, '\\');
        buf_putc(line, word.p[i]);
    }
    buf_putc(line, '"');
}

/* ---- patterns -------------------------------------------------------------------------------- */

static bool is_value(struct str item)
{
    return item.n > 0 && item.p[0] >= 'A' && item.p[0] <= 'Z';
}

static bool item_fits(struct str item, const char *word)
{
    if (is_value(item))
        return *word != '\0';
    for (;;) {
        const char *bar = memchr(item.p, '|', item.n);
        size_t n = bar ? (size_t)(bar - item.p) : item.n;
        if (str_is((struct str){item.p, n}, word))
            return true;
        if (bar == NULL)
            return false;
        item = (struct str){bar + 1, item.n - n - 1};
    }
}

static bool fits(struct str pattern, const char *const *words, size_t n);

/* Without the brackets; the rest of the pattern takes what is left. */
static bool group_fits(struct str group, struct str rest, const char *const *words, size_t n)
{
    for (size_t k = 1; k <= n; k++)
        if (fits(group, words, k) && fits(rest, words + k, n - k))
            return true;
    return fits(rest, words, n);
}

static bool fits(struct str pattern, const char *const *words, size_t n)
{
    pattern = str_trim(pattern);
    if (pattern.n == 0)
        return n == 0;
    const char *end = memchr(pattern.p, *pattern.p == '[' ? ']' : ' ', pattern.n);
    size_t len = end ? (size_t)(end - pattern.p) : pattern.n;
    struct str rest = {pattern.p + len, pattern.n - len};
    if (*pattern.p == '[' && end != NULL) {
        rest = (struct str){end + 1, rest.n - 1};
        return group_fits((struct str){pattern.p + 1, len - 1}, rest, words, n);
    }
    return n > 0 && item_fits((struct str){pattern.p, len}, words[0]) &&
           fits(rest, words + 1, n - 1);
}

bool command_fits(const char *pattern, const char *const *words, size_t n)
{
    return fits(str_c(pattern), words, n);
}

/* ---- which command --------------------------------------------------------------------------- */

static size_t words_of(const char *name)
{
    return strchr(name, ' ') != NULL ? 2 : 1;
}

/* As many words of the request as the name has, or fewer. */
static void typed(const struct command_request *r, const char *name, char *out, size_t cap)
{
    bool two = words_of(name) == 2 && r->nwords > 1;
    snprintf(out, cap, "%s%s%s", r->word[0], two ? " " : "", two ? r->word[1] : "");
}

static bool is_command(const struct command_request *r, const struct command *c)
{
    char words[COMMAND_LINE_MAX + 2];
    typed(r, c->name, words, sizeof words);
    return strcmp(words, c->name) == 0;
}

/* A word of the command's name was typed, or the beginning of one. */
static bool begins_like(const char *words, const char *name)
{
    const char *second = strchr(name, ' ');
    size_t n = strlen(words);
    return n >= 2 &&
           (strncmp(name, words, n) == 0 || (second != NULL && strncmp(second + 1, words, n) == 0));
}

static const struct command *nearest(const struct command_set *set, const struct command_request *r)
{
    const struct command *best = NULL;
    unsigned least = 4;
    for (size_t i = 0; i < set->n; i++) {
        char words[COMMAND_LINE_MAX + 2];
        typed(r, set->v[i].name, words, sizeof words);
        unsigned d = begins_like(words, set->v[i].name) ? 1 : str_distance(words, set->v[i].name);
        if (d < least && 2 * d <= strlen(set->v[i].name)) {
            least = d;
            best = &set->v[i];
        }
    }
    return best;
}

static bool find(const struct command_set *set, struct command_request *r)
{
    bool found = false;
    for (size_t i = 0; i < set->n; i++) {
        const struct command *c = &set->v[i];
        /* "dns flush" goes before "dns". */
        if (is_command(r, c) && (!found || words_of(c->name) > words_of(set->v[r->command].name))) {
            r->command = i;
            found = true;
        }
    }
    if (found)
        return true;
    const struct command *near = nearest(set, r);
    return fail(r, CONTROL_UNKNOWN, "unknown command '%.60s'%s%s%s", r->word[0],
                near ? "; did you mean '" : "", near ? near->name : "", near ? "'?" : "");
}

/* A last "--from N" is nobody's argument. */
static void take_from(struct command_request *r)
{
    char *end;
    if (r->nwords < 3 || strcmp(r->word[r->nwords - 2], "--from") != 0)
        return;
    unsigned long n = strtoul(r->word[r->nwords - 1], &end, 10);
    if (*end != '\0' || *r->word[r->nwords - 1] == '-')
        return; /* then it does not fit any pattern */
    r->from = n;
    r->nwords -= 2;
}

bool command_read(const struct command_set *set, struct str line, enum privilege has,
                  struct command_request *r)
{
    r->nwords = r->argc = r->from = 0;
    r->error = CONTROL_NONE;
    r->why[0] = '\0';
    if (!split(r, line))
        return false;
    if (r->nwords == 0)
        return fail(r, CONTROL_USAGE, "no command");
    take_from(r);
    if (!find(set, r))
        return false;
    const struct command *c = &set->v[r->command];
    if (has < c->privilege)
        return fail(r, CONTROL_PERMISSION, "'%s' needs the privilege '%s', and yours is '%s'",
                    c->name, privilege_name(c->privilege), privilege_name(has));
    r->argv = r->word + words_of(c->name);
    r->argc = r->nwords - words_of(c->name);
    if (!command_fits(c->args, r->argv, r->argc))
        return fail(r, CONTROL_USAGE, "usage: %s%s%s", c->name, *c->args ? " " : "", c->args);
    return true;
}
