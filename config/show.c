/* The table as text: the commented example, and a snapshot with the origin of each value. */
#include "config/schema.h"

#include <stdio.h>

#include "config/value.h"

enum { WRAP_AT = 84 };

/* ---- example --------------------------------------------------------------------------------- */

/* Writes `text`, each line after the first behind `indent`, broken after a comma when long. */
static void put_wrapped(struct buf *out, const char *indent, const char *text, size_t column)
{
    for (const char *p = text; *p != '\0'; p++, column++) {
        bool wrap = *p == ' ' && p > text && p[-1] == ',' && column > WRAP_AT;
        if (*p != '\n' && !wrap) {
            buf_putc(out, *p);
            continue;
        }
        buf_printf(out, "\n%s%s", indent, wrap ? "  " : "");
        column = strlen(indent);
    }
}

/* What exists but not in this version is not offered. */
static uint64_t available(const struct schema_entry *e, uint64_t most)
{
    return e->flags & SCHEMA_LIMITED && e->available < most ? e->available : most;
}

static void put_choices(struct buf *out, const struct schema_entry *e)
{
    uint64_t most = available(e, UINT64_MAX);
    for (uint64_t i = 0; e->names[i].name != NULL && i <= most; i++)
        buf_printf(out, "%s%s", i ? " | " : "", e->names[i].name);
}

static void put_range(struct buf *out, const struct schema_entry *e)
{
    for (int i = 0; i < 2; i++) {
        uint64_t v = i ? available(e, e->max) : e->min;
        buf_puts(out, i ? " to " : "");
        if (e->type == SCHEMA_DURATION)
            duration_put(out, v);
        else if (e->type == SCHEMA_SIZE)
            size_put(out, v);
        else
            buf_printf(out, "%llu", (unsigned long long)v);
    }
}

static bool has_range(const struct schema_entry *e)
{
    return e->type == SCHEMA_INT || e->type == SCHEMA_DURATION || e->type == SCHEMA_SIZE;
}

static bool is_text(const struct schema_entry *e)
{
    return e->type == SCHEMA_STRING || e->type == SCHEMA_SECRET || e->type == SCHEMA_DOMAINS;
}

/* What a line's end can tell: choices or bounds, and the default when the line shows another. */
static void put_remark(struct buf *out, const struct schema_entry *e)
{
    if (e->type == SCHEMA_ENUM || e->type == SCHEMA_SET) {
        buf_puts(out, "  # ");
        put_choices(out, e);
    } else if (has_range(e)) {
        buf_puts(out, "  # ");
        put_range(out, e);
    } else if (e->example != NULL && e->standard != NULL) {
        buf_printf(out, "  # default: %s", e->standard);
    } else if (is_text(e) && e->example != NULL) {
        buf_puts(out, "  # default: none");
    }
}

static void put_sub_table(struct buf *out, const struct schema *sub)
{
    for (size_t i = 0; i < sub->n; i++) {
        const struct schema_entry *e = &sub->entries[i];
        buf_printf(out, "#   %-14s ", e->path);
        put_wrapped(out, "#                  ", e->help, 0);
        if (e->type == SCHEMA_ENUM || e->type == SCHEMA_SET) {
            buf_puts(out, e->type == SCHEMA_SET ? " (list of " : " (");
            put_choices(out, e);
            buf_putc(out, ')');
        }
        if (e->flags & SCHEMA_REQUIRED)
            buf_puts(out, "; required");
        else if (e->standard != NULL)
            buf_printf(out, "; default %s", e->standard);
        buf_putc(out, '\n');
    }
}

static void put_example(struct buf *out, const struct schema_entry *e, const char *name,
                        const char *indent)
{
    char prefix[16], lead[16];
    const char *comment = e->flags & SCHEMA_REQUIRED ? "" : "//";
    snprintf(prefix, sizeof prefix, "%s# ", indent);
    snprintf(lead, sizeof lead, "%s%s", indent, comment);
    buf_puts(out, prefix);
    put_wrapped(out, prefix, e->help, 0);
    if (e->flags & SCHEMA_RESTART)
        buf_printf(out, "\n%sA change needs a restart.", prefix);
    buf_putc(out, '\n');
    if (e->sub != NULL)
        put_sub_table(out, e->sub);
    buf_printf(out, "%s%s = ", lead, name);
    put_wrapped(out, lead, e->example ? e->example : e->standard, strlen(lead) + strlen(name) + 3);
    buf_putc(out, ';');
    put_remark(out, e);
    buf_putc(out, '\n');
}

void schema_example(const struct schema *s, struct buf *out)
{
    buf_printf(out, "# %s\n# Keys behind // show their default or an example.\n", s->title);
    struct str group = STR_NONE;
    for (size_t i = 0; i < s->n; i++) {
        const struct schema_entry *e = &s->entries[i];
        const char *dot = strchr(e->path, '.');
        struct str in = {e->path, dot ? (size_t)(dot - e->path) : 0};
        if (group.n && !str_eq(in, group))
            buf_puts(out, "};\n");
        if (!in.n || !str_eq(in, group))
            buf_putc(out, '\n');
        if (in.n && !str_eq(in, group))
            buf_printf(out, "%.*s = {\n", STR_ARG(in));
        put_example(out, e, dot ? dot + 1 : e->path, in.n ? "  " : "");
        group = in;
    }
    if (group.n)
        buf_puts(out, "};\n");
}

/* ---- effective values ------------------------------------------------------------------------ */

static void show_table(const struct schema *s, const struct schema_meta *m, const char *label,
                       const void *base, const struct schema_origin *origins, struct buf *out);

static void show_list(const struct schema_entry *e, const struct schema_meta *m, const void *base,
                      struct buf *out)
{
    char label[SCHEMA_PATH_MAX + 320];
    const char *v = value_array(base, e->at);
    size_t n = *VALUE_CONST(size_t, base, e->count_at);
    for (size_t i = 0; i < n; i++) {
        const char *element = v + i * e->sub->size;
        snprintf(label, sizeof label, "%s[%.253s].", e->path, schema_element_name(e, element));
        show_table(e->sub, m, label, element, m->lists[e->slot].origins + i * e->sub->n, out);
    }
}

static void show_table(const struct schema *s, const struct schema_meta *m, const char *label,
                       const void *base, const struct schema_origin *origins, struct buf *out)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct schema_entry *e = &s->entries[i];
        if (e->type == SCHEMA_GROUPS) {
            show_list(e, m, base, out);
            continue;
        }
        if (!value_is_set(e, base) && (e->standard == NULL || e->at == SCHEMA_NOWHERE))
            continue;
        buf_printf(out, "%s%s = ", label, e->path);
        value_put(out, e, base, VALUE_SYNTAX);
        if (origins[i].source)
            buf_printf(out, ";  # %s:%u\n", m->files[origins[i].source - 1], origins[i].line);
        else
            buf_puts(out, ";  # default\n");
    }
}

void schema_show(const struct schema *s, const void *config, struct buf *out)
{
    const struct schema_meta *m = *VALUE_CONST(struct schema_meta *, config, s->meta_at);
    show_table(s, m, "", config, m->origins, out);
}

bool schema_is_default(const struct schema *s, const void *config, const char *path)
{
    const struct schema_meta *m = *VALUE_CONST(struct schema_meta *, config, s->meta_at);
    return m == NULL || m->origins[schema_entry(s, path) - s->entries].source == 0;
}

void schema_where(const struct schema *s, const void *config, const char *list, size_t i,
                  struct buf *out)
{
    const struct schema_meta *m = *VALUE_CONST(struct schema_meta *, config, s->meta_at);
    const struct schema_entry *e = schema_entry(s, list);
    if (m == NULL || i >= *VALUE_CONST(size_t, config, e->count_at))
        return;
    const struct schema_origin *o = m->lists[e->slot].origins + i * e->sub->n;
    for (size_t k = 0; k < e->sub->n; k++)
        if (e->sub->entries[k].flags & SCHEMA_KEY && o[k].source != 0)
            buf_printf(out, "%s:%u", m->files[o[k].source - 1], o[k].line);
}
