#include "gateway/policy/effect.h"

#include <stdio.h>

#include "core/base/mem.h"

enum { CAUSES_MAX = 8, CAUSE_MAX = DOMAIN_MAX + 16 };

struct group {
    struct list_node node;
    char remote[DOMAIN_MAX + 1]; /* "": several */
    bool renewed, told;
    size_t n;
    char cause[CAUSES_MAX][CAUSE_MAX]; /* keys of the diff, or of the element in it; "" : none */
    size_t ncauses;
};

/* ---- reasons --------------------------------------------------------------------------------- */

static void blame(struct group *g, const char *list, const char *name)
{
    if (g->ncauses == CAUSES_MAX)
        return;
    if (name != NULL)
        snprintf(g->cause[g->ncauses++], CAUSE_MAX, "%s[%s]", list, name);
    else
        snprintf(g->cause[g->ncauses++], CAUSE_MAX, "%s", list);
}

static void blame_decision(struct group *g, const struct side *s, const struct effect_stream *t)
{
    struct policy_decision d = side_pair(s, t->local, t->remote, t->way);
    switch (d.by) {
    case POLICY_BY_PEER:
        blame(g, "peers", d.pattern.p);
        break;
    case POLICY_BY_ALLOW_FILE:
        blame(g, "allow_file", NULL);
        break;
    case POLICY_BY_DENY_FILE:
        blame(g, "deny_file", NULL);
        break;
    case POLICY_BY_MODE:
        blame(g, d.verdict == POLICY_OFF ? "federation" : "privacy_mode", NULL);
        break;
    case POLICY_BY_BLOCK:
        break;
    }
}

static bool has_mode(const struct cfg_peer *p)
{
    return p->security_mode != CONFIG_UNSET;
}

static void blame_mode(struct group *g, const struct side *s, struct str remote)
{
    const struct cfg_peer *p = gateway_config_peer(s->cfg, remote, has_mode);
    blame(g, p != NULL ? "peers" : "security_mode", p != NULL ? p->pattern : NULL);
}

static bool has_proof(const struct cfg_peer *p)
{
    return p->auth != 0 || p->npins > 0 || p->ca_file != NULL || p->minimum_tls != CONFIG_UNSET ||
           p->bidi != CONFIG_UNSET;
}

/* What a stream is proven by, and how it is used. */
static void blame_proof(struct group *g, const struct side *s, struct str remote)
{
    const struct cfg_peer *p = gateway_config_peer(s->cfg, remote, has_proof);
    if (p != NULL)
        blame(g, "peers", p->pattern);
}

static void blame_global(struct group *g, const struct gateway_config *a,
                         const struct gateway_config *b)
{
    if (a->auth != b->auth)
        blame(g, "auth", NULL);
    if (a->tls.minimum != b->tls.minimum)
        blame(g, "tls.minimum", NULL);
    if (a->bidi != b->bidi)
        blame(g, "bidi", NULL);
}

static void find_causes(struct group *g, const struct effect_stream *s, const struct side *old,
                        const struct side *new_)
{
    const struct cfg_domain *owner = gateway_config_domain(old->cfg, s->local);
    if (s->renewed) {
        blame_mode(g, new_, s->remote);
        blame_mode(g, old, s->remote);
        blame_proof(g, new_, s->remote);
        blame_proof(g, old, s->remote);
        blame_global(g, old->cfg, new_->cfg);
        return;
    }
    if (owner != NULL && !side_serves(new_, s->local)) {
        blame(g, "domains", owner->name);
        return;
    }
    blame_decision(g, new_, s);
    blame_decision(g, old, s);
    if (old->cfg->use_static_routes != new_->cfg->use_static_routes)
        blame(g, "use_static_routes", NULL);
    if (old->cfg->privacy_shadow != new_->cfg->privacy_shadow)
        blame(g, "privacy_shadow", NULL);
}

/* "peers[beta.lab].comment" is no reason for anything. */
static bool matters(const struct group *g, const char *field)
{
    static const char *const denied[] = {"policy",    "route", "local",
                                         "direction", "until", "subdomains"};
    static const char *const renewed[] = {"security_mode", "until",       "auth", "pins",
                                          "ca_file",       "minimum_tls", "bidi"};
    const char *const *list = g->renewed ? renewed : denied;
    size_t n = g->renewed ? sizeof renewed / sizeof renewed[0] : sizeof denied / sizeof denied[0];
    for (size_t i = 0; i < n; i++)
        if (strcmp(field, list[i]) == 0)
            return true;
    return false;
}

static bool is_cause(const struct group *g, const char *key)
{
    for (size_t i = 0; i < g->ncauses; i++) {
        size_t n = strlen(g->cause[i]);
        if (strncmp(key, g->cause[i], n) == 0 &&
            (key[n] == '\0' || (key[n] == '.' && matters(g, key + n + 1))))
            return true;
    }
    return false;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static struct group *same(const struct effects *e, const struct group *like)
{
    LIST_FOREACH (&e->groups, n, following) {
        struct group *g = CONTAINER_OF(n, struct group, node);
        if (g->renewed == like->renewed && strcmp(g->remote, like->remote) == 0 &&
            memcmp(g->cause, like->cause, sizeof g->cause) == 0)
            return g;
    }
    return NULL;
}

static struct group *add(struct effects *e, const struct group *like, size_t most)
{
    struct group *g = e->groups.count < most ? mem_zalloc(sizeof *g) : NULL;
    if (g == NULL)
        return NULL;
    *g = *like;
    list_append(&e->groups, &g->node);
    return g;
}

void effects_add(struct effects *e, const struct effect_stream *s, const struct side *old,
                 const struct side *new_)
{
    struct group like = {.renewed = s->renewed};
    str_copy(like.remote, sizeof like.remote, s->remote);
    find_causes(&like, s, old, new_);
    struct group *g = same(e, &like);
    if (g == NULL)
        g = add(e, &like, EFFECT_GROUPS_MAX);
    if (g == NULL) {
        like = (struct group){.renewed = s->renewed};
        g = same(e, &like);
    }
    if (g == NULL)
        g = add(e, &like, EFFECT_GROUPS_MAX + 2);
    if (g != NULL)
        g->n++;
}

static void put(struct group *g, size_t before, struct buf *out)
{
    g->told = true;
    buf_printf(out, "%s%zu stream%s with %s %s", out->len > before ? ", " : "", g->n,
               g->n == 1 ? "" : "s", *g->remote ? g->remote : "others",
               g->renewed ? "renewed" : "ended");
}

void effects_put(struct effects *e, const char *key, struct buf *out)
{
    size_t before = out->len;
    LIST_FOREACH (&e->groups, n, following) {
        struct group *g = CONTAINER_OF(n, struct group, node);
        if (!g->told && is_cause(g, key))
            put(g, before, out);
    }
}

void effects_put_rest(struct effects *e, struct buf *out)
{
    size_t before = out->len;
    LIST_FOREACH (&e->groups, n, following) {
        struct group *g = CONTAINER_OF(n, struct group, node);
        if (!g->told)
            put(g, before, out);
    }
}

void effects_free(struct effects *e)
{
    struct list_node *n;
    while ((n = list_pop(&e->groups)) != NULL)
        mem_free(CONTAINER_OF(n, struct group, node));
}
