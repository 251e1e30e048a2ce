#include "ctl/import_tree.h"

#include "core/base/mem.h"

void tree_init(struct tree *t)
{
    *t = (struct tree){.texts = BUF_INIT(TREE_TEXT_MAX)};
    buf_putc(&t->texts, '\0'); /* offset 0: "" */
    tree_add(t, 0, STR(""), STR(""), "", 0);
    t->failed = t->n != 1 || t->texts.failed;
}

void tree_free(struct tree *t)
{
    mem_free(t->v);
    buf_free(&t->texts);
}

static bool grow(struct tree *t)
{
    if (t->n < t->cap)
        return true;
    uint32_t cap = t->cap ? 2 * t->cap : 64;
    struct tree_node *v = cap <= TREE_NODES_MAX ? mem_realloc(t->v, cap * sizeof *v) : NULL;
    if (v == NULL)
        return false;
    t->v = v;
    t->cap = cap;
    return true;
}

/* A C string: what stands behind a NUL is not seen. */
static uint32_t keep(struct tree *t, struct str s)
{
    uint32_t at = (uint32_t)t->texts.len;
    if (s.n == 0)
        return 0;
    buf_str(&t->texts, s);
    buf_putc(&t->texts, '\0');
    t->failed = t->failed || t->texts.failed;
    return t->texts.failed ? 0 : at;
}

uint32_t tree_add(struct tree *t, uint32_t parent, struct str key, struct str text,
                  const char *file, unsigned line)
{
    if (t->failed || !grow(t)) {
        t->failed = true;
        return 0;
    }
    uint32_t k = keep(t, key), x = keep(t, text), i = t->n;
    if (t->failed)
        return 0;
    t->v[t->n++] = (struct tree_node){k, x, 0, 0, 0, line, file};
    if (i == 0)
        return 0;
    struct tree_node *p = &t->v[parent];
    if (p->last != 0)
        t->v[p->last].next = i;
    else
        p->first = i;
    p->last = i;
    return i;
}

void tree_set_text(struct tree *t, uint32_t node, struct str text)
{
    t->v[node].text = keep(t, text);
}

void tree_cut(struct tree *t, uint32_t parent, uint32_t node, uint32_t before)
{
    struct tree_node *p = &t->v[parent];
    if (node == 0 || p->last != node)
        return;
    p->last = before;
    if (before != 0)
        t->v[before].next = 0;
    else
        p->first = 0;
    t->n = node;
}

static uint32_t get(const struct tree *t, uint32_t node, struct str key)
{
    uint32_t found = 0;
    for (uint32_t i = tree_first(t, node); i != 0; i = tree_next(t, i))
        if (str_is(key, tree_key(t, i)))
            found = i;
    return found;
}

uint32_t tree_get(const struct tree *t, uint32_t node, const char *key)
{
    return get(t, node, str_c(key));
}

uint32_t tree_path(const struct tree *t, uint32_t node, const char *path)
{
    do {
        size_t n = strcspn(path, "/");
        node = get(t, node, (struct str){path, n});
        path += n + (path[n] == '/');
    } while (node != 0 && *path != '\0');
    return node;
}

const char *tree_key(const struct tree *t, uint32_t node)
{
    return t->texts.p + t->v[node].key;
}

const char *tree_text(const struct tree *t, uint32_t node)
{
    return node != 0 ? t->texts.p + t->v[node].text : "";
}
