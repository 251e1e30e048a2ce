#include "gateway/policy/refusals.h"

#include "core/base/mem.h"

static struct refusal *find(const struct refusals *r, const char *rule, struct str pattern)
{
    LIST_FOREACH (&r->list, n, following) {
        struct refusal *k = CONTAINER_OF(n, struct refusal, node);
        if (strcmp(k->rule, rule) == 0 && str_is(pattern, k->pattern))
            return k;
    }
    return NULL;
}

static struct refusal *get(struct refusals *r, const char *rule, struct str pattern, size_t most)
{
    struct refusal *k = find(r, rule, pattern);
    if (k == NULL && r->list.count < most && (k = mem_zalloc(sizeof *k)) != NULL) {
        k->rule = rule;
        str_copy(k->pattern, sizeof k->pattern, pattern);
        list_append(&r->list, &k->node);
    }
    return k;
}

void refusals_add(struct refusals *r, const struct policy_decision *d, struct str local,
                  struct str remote, enum policy_way way, int64_t now)
{
    struct str pattern = d->pattern.p != NULL ? d->pattern : str_c("");
    struct refusal *k = get(r, d->rule, pattern, REFUSALS_MAX);
    if (k == NULL)
        k = get(r, "(others)", str_c(""), REFUSALS_MAX + 1);
    if (k == NULL)
        return;
    k->count++;
    k->in += way == WAY_IN;
    k->last = now;
    str_copy(k->local, sizeof k->local, local);
    str_copy(k->remote, sizeof k->remote, remote);
}

void refusals_free(struct refusals *r)
{
    struct list_node *n;
    while ((n = list_pop(&r->list)) != NULL)
        mem_free(CONTAINER_OF(n, struct refusal, node));
}
