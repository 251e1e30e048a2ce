#include "core/base/chunk.h"

#include "core/base/mem.h"

struct chunk *chunk_new(size_t cap)
{
    if (cap > UINT32_MAX - sizeof(struct chunk))
        return NULL;
    struct chunk *c = mem_alloc(sizeof *c + cap);
    if (c == NULL)
        return NULL;
    c->refs = 1;
    c->cap = (uint32_t)cap;
    c->len = 0;
    return c;
}

struct chunk *chunk_ref(struct chunk *c)
{
    c->refs++;
    return c;
}

void chunk_unref(struct chunk *c)
{
    if (c != NULL && --c->refs == 0)
        mem_free(c);
}

struct span span_retain(struct span s)
{
    if (s.chunk != NULL)
        chunk_ref(s.chunk);
    return s;
}

void span_release(struct span *s)
{
    chunk_unref(s->chunk);
    *s = (struct span){NULL, STR_NONE};
}

struct span span_copy(struct str s)
{
    struct chunk *c = chunk_new(s.n);
    if (c == NULL)
        return (struct span){NULL, STR_NONE};
    if (s.n)
        memcpy(c->data, s.p, s.n);
    c->len = (uint32_t)s.n;
    return (struct span){c, {c->data, s.n}};
}
