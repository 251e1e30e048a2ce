#include "gateway/proto/authz.h"

#include "core/base/mem.h"

static void free_pair(struct authz_pair *p)
{
    mem_free(p->local);
    mem_free(p->remote);
    mem_free(p->from);
    mem_free(p->to);
    mem_free(p->key);
}

void authz_init(struct authz *a, size_t max)
{
    *a = (struct authz){NULL, 0, 0, max};
}

void authz_free(struct authz *a)
{
    for (size_t i = 0; i < a->n; i++)
        free_pair(&a->v[i]);
    mem_free(a->v);
    authz_init(a, a->max);
}

struct authz_pair *authz_find(const struct authz *a, struct str local, struct str remote)
{
    for (size_t i = 0; i < a->n; i++)
        if (str_is(remote, a->v[i].remote) && str_is(local, a->v[i].local))
            return &a->v[i];
    return NULL;
}

struct authz_pair *authz_by_ticket(const struct authz *a, uint32_t ticket)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].state == AUTHZ_ASKED && a->v[i].ticket == ticket)
            return &a->v[i];
    return NULL;
}

struct authz_pair *authz_first(const struct authz *a, enum authz_state state)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].state == state)
            return &a->v[i];
    return NULL;
}

size_t authz_count(const struct authz *a, enum authz_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++)
        n += a->v[i].state == state;
    return n;
}

static bool grow(struct authz *a)
{
    if (a->n < a->cap)
        return true;
    size_t cap = a->cap ? a->cap * 2 : 1;
    struct authz_pair *v = mem_realloc(a->v, cap * sizeof *v);
    if (v == NULL)
        return false;
    a->v = v;
    a->cap = cap;
    return true;
}

struct authz_pair *authz_add(struct authz *a, struct str local, struct str remote)
{
    if (a->n >= a->max || !grow(a))
        return NULL;
    struct authz_pair *p = &a->v[a->n];
    *p = (struct authz_pair){.local = mem_strndup(local), .remote = mem_strndup(remote)};
    if (p->local == NULL || p->remote == NULL) {
        free_pair(p);
        return NULL;
    }
    a->n++;
    return p;
}

void authz_remove(struct authz *a, struct authz_pair *p)
{
    free_pair(p);
    *p = a->v[--a->n];
}

bool authz_keep(char **field, struct str s)
{
    mem_free(*field);
    *field = NULL;
    if (s.p == NULL)
        return true;
    *field = mem_strndup(s);
    return *field != NULL;
}
