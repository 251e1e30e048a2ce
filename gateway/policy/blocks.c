#include "gateway/policy/blocks.h"

#include <stdio.h>

#include "core/base/mem.h"

bool block_pattern(struct str typed, char out[BLOCK_PATTERN_MAX])
{
    char ascii[DOMAIN_MAX + 1];
    bool below = str_starts(typed, "*.");
    if (below)
        typed = (struct str){typed.p + 2, typed.n - 2};
    if (!domain_ascii(typed, ascii))
        return false;
    snprintf(out, BLOCK_PATTERN_MAX, "%s%s", below ? "*." : "", ascii);
    return true;
}

static struct block *find(const struct blocks *b, const char *pattern)
{
    LIST_FOREACH (&b->list, n, following) {
        struct block *k = CONTAINER_OF(n, struct block, node);
        if (strcmp(k->pattern, pattern) == 0)
            return k;
    }
    return NULL;
}

static struct block *add(struct blocks *b, const char *pattern)
{
    struct block *k = b->list.count < BLOCKS_MAX ? mem_zalloc(sizeof *k) : NULL;
    if (k == NULL)
        return NULL;
    str_copy(k->pattern, sizeof k->pattern, str_c(pattern));
    list_append(&b->list, &k->node);
    return k;
}

bool blocks_add(struct blocks *b, const char *pattern, uint64_t now, uint64_t until, unsigned by)
{
    struct block *k = find(b, pattern);
    if (k == NULL)
        k = add(b, pattern);
    if (k == NULL)
        return false;
    k->since = now;
    k->until = until;
    k->by = by;
    return true;
}

static void forget(struct block *k)
{
    list_remove(&k->node);
    mem_free(k);
}

bool blocks_remove(struct blocks *b, const char *pattern)
{
    struct block *k = find(b, pattern);
    if (k != NULL)
        forget(k);
    return k != NULL;
}

void blocks_free(struct blocks *b)
{
    while (b->list.first != NULL)
        forget(CONTAINER_OF(b->list.first, struct block, node));
}

/* "*.suffix" means whole labels below it, never the suffix itself. */
static bool is_below(struct str domain, const char *pattern)
{
    struct str tail = str_c(pattern + 1); /* ".suffix" */
    return strncmp(pattern, "*.", 2) == 0 && domain.n > tail.n &&
           str_eq((struct str){domain.p + domain.n - tail.n, tail.n}, tail);
}

const struct block *blocks_find(const struct blocks *b, struct str domain)
{
    const struct block *found = NULL;
    LIST_FOREACH (&b->list, n, following) {
        const struct block *k = CONTAINER_OF(n, const struct block, node);
        if (str_is(domain, k->pattern))
            return k;
        if (is_below(domain, k->pattern))
            found = k;
    }
    return found;
}

bool blocks_expire(struct blocks *b, uint64_t now, struct block *out)
{
    LIST_FOREACH (&b->list, n, following) {
        struct block *k = CONTAINER_OF(n, struct block, node);
        if (k->until == 0 || k->until > now)
            continue;
        *out = *k;
        forget(k);
        return true;
    }
    return false;
}

bool blocks_due(const struct blocks *b, uint64_t *due)
{
    bool any = false;
    LIST_FOREACH (&b->list, n, following) {
        const struct block *k = CONTAINER_OF(n, const struct block, node);
        if (k->until != 0 && (!any || k->until < *due)) {
            *due = k->until;
            any = true;
        }
    }
    return any;
}
