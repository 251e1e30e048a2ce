#include "gateway/policy/shadow.h"

#include <stdio.h>

#include "core/base/datetime.h"
#include "core/base/mem.h"
#include "core/xml/jid.h"

/* uthash's own blocks come through the same door as ours, so that a test can make them fail. */
#define uthash_malloc(n)  mem_alloc(n)
#define uthash_free(p, n) mem_free(p)
#include "core/base/table.h"

enum { KEY_MAX = 2 * DOMAIN_MAX + 2 };

struct shadow_pair {
    struct list_node node;
    UT_hash_handle hh;
    char key[KEY_MAX]; /* "remote local" */
    char local[DOMAIN_MAX + 1], remote[DOMAIN_MAX + 1];
    uint64_t in, out;
    int64_t first, last;
    bool proposed; /* while a proposal is being written */
};

static struct shadow_pair *add(struct shadow *s, const char *key, struct str local,
                               struct str remote, int64_t now)
{
    struct shadow_pair *p = s->list.count < SHADOW_MAX ? mem_zalloc(sizeof *p) : NULL;
    if (p == NULL)
        return NULL;
    str_copy(p->key, sizeof p->key, str_c(key));
    str_copy(p->local, sizeof p->local, local);
    str_copy(p->remote, sizeof p->remote, remote);
    p->first = now;
    HASH_ADD_STR(s->table, key, p);
    if (p->hh.tbl == NULL) {
        mem_free(p);
        return NULL;
    }
    list_append(&s->list, &p->node);
    return p;
}

bool shadow_see(struct shadow *s, struct str local, struct str remote, enum policy_way way,
                int64_t now)
{
    char key[KEY_MAX];
    struct shadow_pair *p;
    snprintf(key, sizeof key, "%.*s %.*s", STR_ARG(remote), STR_ARG(local));
    HASH_FIND_STR(s->table, key, p);
    bool first = p == NULL;
    if (first)
        p = add(s, key, local, remote, now);
    if (p == NULL) {
        s->lost++;
        return false;
    }
    p->in += way == WAY_IN;
    p->out += way == WAY_OUT;
    p->last = now;
    return first;
}

void shadow_each(const struct shadow *s, void (*each)(void *arg, const struct shadow_seen *p),
                 void *arg)
{
    LIST_FOREACH (&s->list, n, following) {
        const struct shadow_pair *p = CONTAINER_OF(n, const struct shadow_pair, node);
        each(arg, &(struct shadow_seen){p->local, p->remote, p->in, p->out, p->first, p->last});
    }
}

void shadow_free(struct shadow *s)
{
    struct list_node *n;
    HASH_CLEAR(hh, s->table);
    while ((n = list_pop(&s->list)) != NULL)
        mem_free(CONTAINER_OF(n, struct shadow_pair, node));
    s->lost = 0;
}

/* ---- the proposal ---------------------------------------------------------------------------- */

/* A way is missing when it was used and no entry says anything about it. */
static bool missing(const struct gateway_config *c, const struct shadow_pair *p,
                    enum policy_way way)
{
    bool denied;
    return (way == WAY_IN ? p->in : p->out) > 0 &&
           !policy_listed(c, str_c(p->local), str_c(p->remote), way, &denied) && !denied;
}

struct proposal {
    const struct gateway_config *c;
    const char *remote;
    bool in, out;
    size_t nlocal;
    uint64_t stanzas;
    int64_t last;
};

static void gather(struct proposal *all, struct shadow_pair *p, struct buf *locals)
{
    bool in = missing(all->c, p, WAY_IN), out = missing(all->c, p, WAY_OUT);
    if (!in && !out)
        return;
    all->in = all->in || in;
    all->out = all->out || out;
    all->stanzas += p->in + p->out;
    all->last = p->last > all->last ? p->last : all->last;
    buf_printf(locals, "%s\"%s\"", all->nlocal++ ? ", " : "", p->local);
}

static void put_entry(const struct proposal *all, const struct buf *locals, struct buf *out)
{
    char at[DATETIME_TEXT];
    buf_printf(out, "  { domain = \"%s\"; policy = \"allow\"; local = [%.*s];", all->remote,
               STR_ARG(buf_view(locals)));
    if (!all->in || !all->out)
        buf_printf(out, " direction = \"%s\";", all->in ? "in" : "out");
    buf_printf(out, "\n    comment = \"%llu stanza%s, the last %s\"; }",
               (unsigned long long)all->stanzas, all->stanzas == 1 ? "" : "s",
               datetime_text(all->last, at));
}

/* All pairs of one remote domain; false: nothing of them is missing. */
static bool propose(struct shadow *s, const struct gateway_config *c, const char *remote, bool more,
                    struct buf *out)
{
    struct proposal all = {.c = c, .remote = remote};
    struct buf locals = BUF_INIT(SHADOW_MAX * (DOMAIN_MAX + 4));
    LIST_FOREACH (&s->list, n, following) {
        struct shadow_pair *p = CONTAINER_OF(n, struct shadow_pair, node);
        if (strcmp(p->remote, remote) != 0)
            continue;
        p->proposed = true;
        gather(&all, p, &locals);
    }
    if (all.nlocal > 0) {
        buf_puts(out, more ? ",\n" : "peers = (\n");
        put_entry(&all, &locals, out);
    }
    buf_free(&locals);
    return all.nlocal > 0;
}

void shadow_propose(struct shadow *s, const struct gateway_config *c, struct buf *out)
{
    size_t n = 0;
    LIST_FOREACH (&s->list, a, following)
        CONTAINER_OF(a, struct shadow_pair, node)->proposed = false;
    LIST_FOREACH (&s->list, b, next) {
        struct shadow_pair *p = CONTAINER_OF(b, struct shadow_pair, node);
        if (!p->proposed)
            n += propose(s, c, p->remote, n > 0, out);
    }
    buf_puts(out, n > 0 ? "\n);\n" : "# Nothing was seen that an allow list would refuse.\n");
    if (s->lost > 0)
        buf_printf(out, "# %llu stanzas of further pairs found no room here.\n",
                   (unsigned long long)s->lost);
}
