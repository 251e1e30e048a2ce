#include "config/diff.h"

#include <stdio.h>

#include "config/domains.h"
#include "config/schema.h"
#include "config/value.h"

enum { DIFF_KEY_MAX = SCHEMA_PATH_MAX * 2 + 256, DIFF_TEXT_MAX = 65536 };

/* One comparison. The texts are cut, not lost, when memory runs out. */
struct diff {
    const struct schema *schema;
    const void *a, *b; /* the roots */
    struct buf old, new_;
    size_t n;
    void (*each)(void *arg, const struct config_change *);
    void *arg;
};

static void emit(struct diff *d, const char *key, bool restart)
{
    d->n++;
    d->each(d->arg, &(struct config_change){.key = key,
                                            .old = buf_view(&d->old),
                                            .new_ = buf_view(&d->new_),
                                            .restart = restart});
    buf_clear(&d->old);
    buf_clear(&d->new_);
}

/* The file names when those changed, else only that the contents did. */
static void put_secret(struct diff *d, const struct schema_entry *e, const void *a, const void *b)
{
    struct schema_entry names = *e;
    names.type = e->type == SCHEMA_SECRET ? SCHEMA_STRING : SCHEMA_STRINGS;
    if (value_equal(&names, a, b)) {
        buf_puts(&d->old, "(hidden)");
        buf_puts(&d->new_, "(hidden)");
        return;
    }
    value_put(&d->old, &names, a, VALUE_BARE);
    value_put(&d->new_, &names, b, VALUE_BARE);
}

/* Of the lists, what came and went; a few by name. */
static void put_domains(struct buf *out, const struct domain_list *l,
                        const struct domain_list *other, const char *sign)
{
    enum { NAMED_MAX = 10 };
    size_t pos, n = 0;
    for (size_t i = 0; l != NULL && i < l->n; i++) {
        if (domain_list_has(other, l->v[i], &pos))
            continue;
        if (n++ < NAMED_MAX)
            buf_printf(out, " %s%s", sign, l->v[i]);
    }
    if (n > NAMED_MAX)
        buf_printf(out, " %s%zu more", sign, n - NAMED_MAX);
}

static void put_lists(struct diff *d, const struct schema_entry *e, const void *a, const void *b)
{
    const struct domain_list *x = *VALUE_CONST(struct domain_list *, a, e->secret_at);
    const struct domain_list *y = *VALUE_CONST(struct domain_list *, b, e->secret_at);
    value_put(&d->old, e, a, VALUE_BARE);
    value_put(&d->new_, e, b, VALUE_BARE);
    buf_printf(&d->old, " (%zu)", x != NULL ? x->n : 0);
    buf_printf(&d->new_, " (%zu:", y != NULL ? y->n : 0);
    put_domains(&d->new_, y, x, "+");
    put_domains(&d->new_, x, y, "-");
    buf_putc(&d->new_, ')');
}

static void diff_list(struct diff *d, const struct schema_entry *list);

static void diff_table(struct diff *d, const struct schema *s, const char *label, const void *a,
                       const void *b)
{
    char key[DIFF_KEY_MAX];
    for (size_t i = 0; i < s->n; i++) {
        const struct schema_entry *e = &s->entries[i];
        if (e->type == SCHEMA_GROUPS)
            diff_list(d, e);
        if (e->at == SCHEMA_NOWHERE || value_equal(e, a, b))
            continue;
        snprintf(key, sizeof key, "%s%s", label, e->path);
        if (e->type == SCHEMA_SECRET || e->type == SCHEMA_SECRETS) {
            put_secret(d, e, a, b);
        } else if (e->type == SCHEMA_DOMAINS) {
            put_lists(d, e, a, b);
        } else {
            value_put(&d->old, e, a, VALUE_BARE);
            value_put(&d->new_, e, b, VALUE_BARE);
        }
        emit(d, key, e->flags & SCHEMA_RESTART);
    }
}

static bool worth_telling(const struct schema_entry *e, const void *element)
{
    if (e->type == SCHEMA_STRINGS && e->standard == NULL)
        return *VALUE_CONST(size_t, element, e->count_at) > 0;
    if (e->type == SCHEMA_BOOL && e->at != SCHEMA_NOWHERE && e->standard != NULL)
        return *VALUE_CONST(bool, element, e->at) != (strcmp(e->standard, "true") == 0);
    return value_is_set(e, element);
}

/* An element that came or went, with what it sets. */
static void put_element(struct buf *out, const struct schema *sub, const void *element)
{
    buf_puts(out, "{");
    for (size_t i = 0; i < sub->n; i++) {
        if (!worth_telling(&sub->entries[i], element))
            continue;
        buf_printf(out, " %s = ", sub->entries[i].path);
        value_put(out, &sub->entries[i], element, VALUE_SYNTAX);
        buf_putc(out, ';');
    }
    buf_puts(out, " }");
}

/* Goes over the list of one side; `other` is the other root. Pairs are compared from the old side
 * only, so that each is told once. */
static void diff_side(struct diff *d, const struct schema_entry *list, const void *side,
                      const void *other)
{
    const char *v = value_array(side, list->at), *w = value_array(other, list->at);
    size_t n = *VALUE_CONST(size_t, side, list->count_at), pos;
    char key[DIFF_KEY_MAX];
    for (size_t i = 0; i < n; i++) {
        const char *element = v + i * list->sub->size;
        const char *name = schema_element_name(list, element);
        bool both = schema_find(d->schema, other, list, str_c(name), &pos);
        snprintf(key, sizeof key, "%s[%.253s]%s", list->path, name, both ? "." : "");
        if (both && side == d->a)
            diff_table(d, list->sub, key, element, w + pos * list->sub->size);
        if (both)
            continue;
        put_element(side == d->a ? &d->old : &d->new_, list->sub, element);
        buf_puts(side == d->a ? &d->new_ : &d->old, "(absent)");
        emit(d, key, list->flags & SCHEMA_RESTART);
    }
}

static void diff_list(struct diff *d, const struct schema_entry *list)
{
    diff_side(d, list, d->a, d->b);
    if (d->a != d->b)
        diff_side(d, list, d->b, d->a);
}

static size_t diff(const struct schema *s, const void *a, const void *b,
                   void (*each)(void *arg, const struct config_change *), void *arg)
{
    struct diff d = {.schema = s, .a = a, .b = b, .each = each, .arg = arg};
    buf_init(&d.old, DIFF_TEXT_MAX);
    buf_init(&d.new_, DIFF_TEXT_MAX);
    diff_table(&d, s, "", a, b);
    buf_free(&d.old);
    buf_free(&d.new_);
    return d.n;
}

size_t gateway_config_diff(const struct gateway_config *a, const struct gateway_config *b,
                           void (*each)(void *arg, const struct config_change *), void *arg)
{
    return diff(&gateway_schema, a, b, each, arg);
}

size_t router_config_diff(const struct router_config *a, const struct router_config *b,
                          void (*each)(void *arg, const struct config_change *), void *arg)
{
    return diff(&router_schema, a, b, each, arg);
}
