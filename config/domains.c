#include "config/domains.h"

#include <errno.h>
#include <stdio.h>

#include "config/report.h"
#include "config/source.h"
#include "config/value.h"
#include "core/base/mem.h"

struct reading {
    struct domain_list *list;
    domain_list_bad *bad;
    void *arg;
    unsigned line;
    bool no_memory;
};

static void complain(struct reading *r, bool warning, const char *text)
{
    r->bad(r->arg, r->line, warning, text);
}

/* Both arrays grow when their length reaches a power of two. */
static bool grow(struct domain_list *l)
{
    if ((l->n & (l->n - 1)) != 0)
        return true;
    size_t cap = l->n ? 2 * l->n : 1;
    char **v = mem_realloc(l->v, cap * sizeof *v);
    l->v = v != NULL ? v : l->v;
    unsigned *line = v != NULL ? mem_realloc(l->line, cap * sizeof *line) : NULL;
    l->line = line != NULL ? line : l->line;
    return line != NULL;
}

static void add(struct reading *r, struct str pattern)
{
    struct domain_list *l = r->list;
    size_t old;
    char text[64];
    char *copy = l->n < DOMAINS_MAX && grow(l) ? mem_strndup(pattern) : NULL;
    if (copy == NULL) {
        r->no_memory = true;
        return;
    }
    switch (name_index_add(&l->index, copy + (*copy == '*'), l->n, &old)) {
    case NAME_ADDED:
        l->line[l->n] = r->line;
        l->v[l->n++] = copy;
        return;
    case NAME_EXISTS:
        snprintf(text, sizeof text, "already listed at line %u", l->line[old]);
        complain(r, true, text);
        break;
    case NAME_NO_MEMORY:
        r->no_memory = true;
        break;
    }
    mem_free(copy);
}

static void take_line(struct reading *r, struct str line)
{
    struct buf canonical = BUF_INIT(VALUE_TEXT_MAX * 2), text = BUF_INIT(1024);
    const char *hash = line.n ? memchr(line.p, '#', line.n) : NULL;
    if (hash != NULL)
        line.n = (size_t)(hash - line.p);
    line = str_trim(line);
    char *word = line.n ? mem_strndup(line) : NULL;
    r->no_memory = r->no_memory || (line.n > 0 && word == NULL);
    bool nul = word != NULL && strlen(word) != line.n;
    const char *problem = word != NULL ? value_check(CHECK_PATTERN, "", word, &canonical) : NULL;
    if (nul)
        complain(r, false, "this is no text");
    else if (problem != NULL) {
        buf_putc(&text, '"');
        report_quote(&text, line);
        buf_printf(&text, "\": %s", problem);
        complain(r, false, text.p != NULL ? text.p : problem);
    } else if (word != NULL && !canonical.failed)
        add(r, buf_view(&canonical));
    r->no_memory = r->no_memory || canonical.failed;
    mem_free(word);
    buf_free(&canonical);
    buf_free(&text);
}

static void take_all(struct reading *r, struct str rest)
{
    while (rest.n > 0 && !r->no_memory) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
        r->line++;
        if (r->list->n >= DOMAINS_MAX) {
            complain(r, false, "there are too many domains in this file");
            return;
        }
        take_line(r, (struct str){rest.p, n});
        n += end != NULL;
        rest = (struct str){rest.p + n, rest.n - n};
    }
}

struct domain_list *domain_list_read(const char *path, domain_list_bad *bad, void *arg)
{
    struct reading r = {.list = mem_zalloc(sizeof *r.list), .bad = bad, .arg = arg};
    struct buf text = BUF_INIT(SOURCE_SIZE_MAX);
    if (r.list == NULL)
        return NULL;
    int e = source_read(path, SOURCE_SIZE_MAX, true, &text);
    r.no_memory = e == ENOMEM;
    if (e == 0)
        take_all(&r, buf_view(&text));
    else if (!r.no_memory)
        complain(&r, false, e == EINVAL ? "not a regular file" : strerror(e));
    buf_free(&text);
    if (!r.no_memory)
        return r.list;
    domain_list_free(r.list);
    return NULL;
}

void domain_list_free(struct domain_list *l)
{
    if (l == NULL)
        return;
    name_index_free(&l->index); /* borrows the names */
    for (size_t i = 0; i < l->n; i++)
        mem_free(l->v[i]);
    mem_free(l->v);
    mem_free(l->line);
    mem_free(l);
}

bool domain_list_find(const struct domain_list *l, struct str name, size_t *pos)
{
    return l != NULL && name_index_find(&l->index, name, pos);
}

bool domain_list_has(const struct domain_list *l, const char *pattern, size_t *pos)
{
    return domain_list_find(l, str_c(pattern + (*pattern == '*')), pos);
}
