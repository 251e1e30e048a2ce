#include "core/xml/nonza.h"

#include "core/xml/nonza_priv.h"

/* Copies into z->bytes; an absent string stays absent. */
static bool keep(struct nonza *z, struct str s, struct str *out)
{
    if (s.n > NONZA_BYTES - z->nbytes)
        return false;
    *out = (struct str){s.p ? z->bytes + z->nbytes : NULL, s.n};
    if (s.n)
        memcpy(z->bytes + z->nbytes, s.p, s.n);
    z->nbytes += s.n;
    return true;
}

void nonza_begin(struct nonza *z)
{
    z->nnodes = z->nattrs = 0;
    z->nbytes = 0;
}

bool nonza_open(struct nonza *z, struct str ns, struct str name, unsigned depth)
{
    if (z->nnodes == NONZA_NODES)
        return false;
    struct nonza_node *n = &z->node[z->nnodes++];
    *n = (struct nonza_node){.text = STR(""), .depth = (uint16_t)depth, .attr = z->nattrs};
    return keep(z, ns, &n->ns) && keep(z, name, &n->name);
}

bool nonza_put_attr(struct nonza *z, struct str ns, struct str name, struct str value)
{
    if (z->nattrs == NONZA_ATTRS)
        return false;
    struct nonza_attr *a = &z->attrs[z->nattrs++];
    z->node[z->nnodes - 1].nattrs++;
    return keep(z, ns, &a->ns) && keep(z, name, &a->name) && keep(z, value, &a->value);
}

bool nonza_put_text(struct nonza *z, unsigned depth, struct str text)
{
    size_t i = z->nnodes - 1u;
    while (z->node[i].depth != depth)
        i--;
    struct str *whole = &z->node[i].text, more;
    if (whole->n && whole->p + whole->n != z->bytes + z->nbytes) {
        /* A child came in between: the text so far moves to the end to stay in one piece. */
        if (!keep(z, *whole, whole))
            return false;
    }
    if (!keep(z, text, &more))
        return false;
    if (whole->n == 0)
        whole->p = more.p;
    whole->n += more.n;
    return true;
}

bool nonza_is(const struct nonza *z, const char *ns, const char *name)
{
    return z->nnodes && str_is(z->node[0].ns, ns) && str_is(z->node[0].name, name);
}

struct str nonza_attr(const struct nonza *z, const char *name)
{
    if (z->nnodes == 0)
        return STR_NONE;
    const struct nonza_attr *a = &z->attrs[z->node[0].attr];
    for (unsigned i = 0; i < z->node[0].nattrs; i++)
        if (a[i].ns.p == NULL && str_is(a[i].name, name))
            return a[i].value;
    return STR_NONE;
}

struct str nonza_text(const struct nonza *z)
{
    return z->nnodes ? z->node[0].text : STR_NONE;
}

int nonza_child(const struct nonza *z, int of, const char *ns, const char *name)
{
    if (of < 0 || of >= z->nnodes)
        return -1;
    unsigned depth = z->node[of].depth;
    for (int i = of + 1; i < z->nnodes && z->node[i].depth > depth; i++)
        if (z->node[i].depth == depth + 1 && str_is(z->node[i].ns, ns) &&
            (name == NULL || str_is(z->node[i].name, name)))
            return i;
    return -1;
}
