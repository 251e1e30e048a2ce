/* How the rules between keys report: at the place where the offending key was set. */
#include "config/load_priv.h"

#include <stdio.h>

#include "config/value.h"

/* A key, or with `e` NULL the element `i` of `list` itself. */
struct place {
    const struct schema_entry *list, *e;
    const char *base;
    struct schema_origin at;
};

static struct place find_place(const struct schema_load *l, const char *list, size_t i,
                               const char *path)
{
    struct place p = {.base = l->root};
    if (list == NULL) {
        p.e = schema_entry(l->schema, path);
        p.at = l->meta->origins[p.e - l->schema->entries];
        return p;
    }
    p.list = schema_entry(l->schema, list);
    const struct schema *sub = p.list->sub;
    const struct schema_origin *o = l->meta->lists[p.list->slot].origins + i * sub->n;
    p.base = (const char *)value_array(l->root, p.list->at) + i * sub->size;
    p.e = path ? schema_entry(sub, path) : NULL;
    if (p.e != NULL)
        p.at = o[p.e - sub->entries];
    if (p.at.source == 0) /* not set: the line of its name */
        p.at = o[schema_key(sub) - sub->entries];
    return p;
}

static void report(struct schema_load *l, bool warning, const struct place *p, size_t i,
                   const char *fmt, va_list ap)
{
    char text[1024];
    vsnprintf(text, sizeof text, fmt, ap);
    struct buf *b = report_open(&l->report, p->at, warning);
    if (p->list != NULL && *schema_element_name(p->list, p->base))
        buf_printf(b, "%s[%s]", p->list->path, schema_element_name(p->list, p->base));
    else if (p->list != NULL)
        buf_printf(b, "%s[#%zu]", p->list->path, i + 1);
    if (p->e != NULL)
        buf_printf(b, "%s%s", p->list ? "." : "", p->e->path);
    if (p->e != NULL && value_is_set(p->e, p->base) && p->e->type != SCHEMA_GROUPS) {
        buf_puts(b, " = ");
        value_put(b, p->e, p->base, VALUE_SYNTAX);
    }
    buf_printf(b, ": %s", text);
}

void schema_error(struct schema_load *l, const char *list, size_t i, const char *path,
                  const char *fmt, ...)
{
    struct place p = find_place(l, list, i, path);
    va_list ap;
    va_start(ap, fmt);
    report(l, false, &p, i, fmt, ap);
    va_end(ap);
}

void schema_warn(struct schema_load *l, const char *list, size_t i, const char *path,
                 const char *fmt, ...)
{
    struct place p = find_place(l, list, i, path);
    va_list ap;
    va_start(ap, fmt);
    report(l, true, &p, i, fmt, ap);
    va_end(ap);
}

void schema_element_error(struct schema_load *l, const char *list, size_t i, const char *fmt, ...)
{
    struct place p = find_place(l, list, i, NULL);
    va_list ap;
    va_start(ap, fmt);
    report(l, false, &p, i, fmt, ap);
    va_end(ap);
}

bool schema_is_set(const struct schema_load *l, const char *list, size_t i, const char *path)
{
    struct place p = find_place(l, list, i, NULL == list ? path : NULL);
    if (list == NULL)
        return p.at.source != 0;
    const struct schema *sub = p.list->sub;
    const struct schema_origin *o = l->meta->lists[p.list->slot].origins + i * sub->n;
    return o[schema_entry(sub, path) - sub->entries].source != 0;
}
