#include "config/index.h"

#include "core/base/mem.h"

/* uthash's own blocks come through the same door as ours, so that a test can make them fail. */
#define uthash_malloc(n)  mem_alloc(n)
#define uthash_free(p, n) mem_free(p)
#include "core/base/table.h"

struct name_node {
    const char *name;
    size_t pos;
    UT_hash_handle hh;
};

enum name_added name_index_add(struct name_index *ix, const char *name, size_t pos, size_t *old)
{
    if (name_index_find(ix, str_c(name), old))
        return NAME_EXISTS;
    struct name_node *n = mem_zalloc(sizeof *n);
    if (n == NULL)
        return NAME_NO_MEMORY;
    n->name = name;
    n->pos = pos;
    HASH_ADD_KEYPTR(hh, ix->head, n->name, strlen(n->name), n);
    if (n->hh.tbl == NULL) {
        mem_free(n);
        return NAME_NO_MEMORY;
    }
    return NAME_ADDED;
}

bool name_index_find(const struct name_index *ix, struct str name, size_t *pos)
{
    struct name_node *n = NULL;
    HASH_FIND(hh, ix->head, name.p, name.n, n);
    if (n == NULL)
        return false;
    *pos = n->pos;
    return true;
}

void name_index_free(struct name_index *ix)
{
    struct name_node *n = ix->head, *next;
    HASH_CLEAR(hh, ix->head);
    for (; n != NULL; n = next) {
        next = n->hh.next;
        mem_free(n);
    }
}
