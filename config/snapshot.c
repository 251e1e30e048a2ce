/* What a loaded snapshot offers whatever its table: lookup, origins, release. */
#include "config/domains.h"
#include "config/value.h"

#include "core/base/mem.h"

const struct schema_entry *schema_entry(const struct schema *s, const char *path)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->entries[i].path, path) == 0)
            return &s->entries[i];
    return NULL;
}

const struct schema_entry *schema_key(const struct schema *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->entries[i].flags & SCHEMA_KEY)
            return &s->entries[i];
    return NULL;
}

static struct str bare(const char *name)
{
    return str_c(*name == '*' ? name + 1 : name);
}

const char *schema_element_name(const struct schema_entry *list, const void *element)
{
    const struct schema_entry *key = schema_key(list->sub);
    const char *name = key ? *VALUE_CONST(char *, element, key->at) : NULL;
    return name ? name : "";
}

static void free_texts(char **v, size_t n, void (*free_one)(char *))
{
    for (size_t i = 0; v != NULL && i < n; i++)
        free_one(v[i]);
    mem_free(v);
}

static void free_text(char *s)
{
    mem_free(s);
}

static void free_entry(const struct schema_entry *e, void *base);

static void free_groups(const struct schema_entry *e, void *base)
{
    char *v = value_array(base, e->at);
    size_t n = *VALUE_CONST(size_t, base, e->count_at);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < e->sub->n; k++)
            free_entry(&e->sub->entries[k], v + i * e->sub->size);
    mem_free(v);
}

static void free_entry(const struct schema_entry *e, void *base)
{
    if (e->at == SCHEMA_NOWHERE)
        return;
    switch (e->type) {
    case SCHEMA_BOOL:
    case SCHEMA_TRISTATE:
    case SCHEMA_ENUM:
    case SCHEMA_SET:
    case SCHEMA_INT:
    case SCHEMA_DURATION:
    case SCHEMA_SIZE:
    case SCHEMA_UNTIL:
        break;
    case SCHEMA_DOMAINS:
        domain_list_free(*VALUE_FIELD(struct domain_list *, base, e->secret_at));
        mem_free(*VALUE_FIELD(char *, base, e->at));
        break;
    case SCHEMA_SECRET:
        value_wipe(*VALUE_FIELD(char *, base, e->secret_at));
        /* fall through */
    case SCHEMA_STRING:
        mem_free(*VALUE_FIELD(char *, base, e->at));
        break;
    case SCHEMA_SECRETS:
        free_texts(*VALUE_FIELD(char **, base, e->secret_at),
                   *VALUE_CONST(size_t, base, e->count_at), value_wipe);
        /* fall through */
    case SCHEMA_STRINGS:
        free_texts(*VALUE_FIELD(char **, base, e->at), *VALUE_CONST(size_t, base, e->count_at),
                   free_text);
        break;
    case SCHEMA_CIDRS:
        mem_free(*VALUE_FIELD(struct cidr *, base, e->at));
        break;
    case SCHEMA_GROUPS:
        free_groups(e, base);
        break;
    }
}

static void meta_free(struct schema_meta *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < SCHEMA_LISTS_MAX; i++) {
        name_index_free(&m->lists[i].index);
        mem_free(m->lists[i].origins);
    }
    free_texts(m->files, m->nfiles, free_text);
    mem_free(m->origins);
    mem_free(m);
}

void schema_free(const struct schema *s, void *config)
{
    if (config == NULL)
        return;
    meta_free(*VALUE_FIELD(struct schema_meta *, config, s->meta_at)); /* borrows the names */
    for (size_t i = 0; i < s->n; i++)
        free_entry(&s->entries[i], config);
    mem_free(config);
}

bool schema_find(const struct schema *s, const void *config, const struct schema_entry *list,
                 struct str name, size_t *pos)
{
    const struct schema_meta *m = *VALUE_CONST(struct schema_meta *, config, s->meta_at);
    if (name.n && *name.p == '*')
        name.p++, name.n--;
    if (m != NULL)
        return name_index_find(&m->lists[list->slot].index, name, pos);
    const char *v = value_array(config, list->at);
    size_t n = *VALUE_CONST(size_t, config, list->count_at);
    for (*pos = 0; *pos < n; ++*pos)
        if (str_eq(bare(schema_element_name(list, v + *pos * list->sub->size)), name))
            return true;
    return false;
}
