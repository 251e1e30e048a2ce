/* The commands about policy: what the rules have done, lists for others, entries for ourselves. */
#include <stdio.h>

#include "config/domains.h"
#include "config/value.h"
#include "core/base/datetime.h"
#include "gateway/control.h"
#include "gateway/policy/policy.h"

enum { TEXT_MAX = 900 * 1024 };

static struct gateway_control *of(const struct control_call *call)
{
    return call->arg;
}

/* ---- what they have done --------------------------------------------------------------------- */

static void put_refusals(struct control_call *call, const struct refusals *r)
{
    control_rows(call, "refusals");
    LIST_FOREACH (&r->list, n, following) {
        const struct refusal *k = CONTAINER_OF(n, const struct refusal, node);
        char at[DATETIME_TEXT];
        const struct kv kv[] = {KV_C("rule", k->rule),
                                KV_C("entry", *k->pattern ? k->pattern : NULL),
                                KV_I("count", k->count),
                                KV_I("from_outside", k->in),
                                KV_C("last", datetime_text(k->last, at)),
                                KV_C("local", k->local),
                                KV_C("peer", k->remote)};
        control_row(call, kv, sizeof kv / sizeof kv[0]);
    }
    control_rows_end(call);
}

static void put_seen(void *arg, const struct shadow_seen *s)
{
    char first[DATETIME_TEXT], last[DATETIME_TEXT];
    const struct kv kv[] = {KV_C("local", s->local),
                            KV_C("peer", s->remote),
                            KV_I("in", s->in),
                            KV_I("out", s->out),
                            KV_C("first", datetime_text(s->first, first)),
                            KV_C("last", datetime_text(s->last, last))};
    control_row(arg, kv, sizeof kv / sizeof kv[0]);
}

static void put_dated(struct control_call *call, const struct gateway_config *c)
{
    control_rows(call, "dated");
    for (size_t i = 0; i < c->npeers; i++) {
        const struct cfg_peer *p = &c->peers[i];
        struct buf until = BUF_INIT(64);
        if (p->until == 0)
            continue;
        until_put(&until, p->until);
        const struct kv kv[] = {KV_C("peer", p->pattern), KV_S("until", buf_view(&until)),
                                KV_C("over", p->expired ? "yes" : "no"),
                                KV_C("comment", p->comment)};
        control_row(call, kv, sizeof kv / sizeof kv[0]);
        buf_free(&until);
    }
    control_rows_end(call);
}

void gateway_do_POLICY(struct control_call *call)
{
    static const char *const modes[] = {"off", "allow-list", "deny-list"};
    const struct worker *w = of(call)->w;
    const struct gateway_config *c = w->cfg;
    json_bool(&call->json, "federation", c->federation);
    json_c(&call->json, "privacy_mode", modes[c->privacy_mode]);
    json_bool(&call->json, "shadow", c->privacy_shadow);
    json_int(&call->json, "peers", (int64_t)c->npeers);
    json_int(&call->json, "in_allow_file", c->allow != NULL ? (int64_t)c->allow->n : 0);
    json_int(&call->json, "in_deny_file", c->deny != NULL ? (int64_t)c->deny->n : 0);
    json_int(&call->json, "blocked", (int64_t)w->blocks.list.count);
    put_refusals(call, &w->refusals);
    control_rows(call, "would_be_refused");
    shadow_each(&w->shadow, put_seen, call);
    control_rows_end(call);
    put_dated(call, c);
}

/* ---- lists ----------------------------------------------------------------------------------- */

/* Rows of one member, `line`, which sallyportctl prints as they are. */
static void put_line(struct control_call *call, struct str line)
{
    const struct kv kv[] = {KV_S("line", line)};
    control_row(call, kv, 1);
}

static bool is_meant(const struct gateway_config *c, const struct cfg_peer *p, bool allow)
{
    if (p->expired)
        return false;
    if (p->policy == PEER_UNSET)
        return allow && p->nroute > 0 && c->use_static_routes;
    return (p->policy == PEER_ALLOW) == allow;
}

static void put_texts(struct buf *out, const char *before, char *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "%s%s", i ? ", " : before, v[i]);
}

/* What the form has no words for stands behind '#': the whole entry then, because without it the
 * name would mean more than was meant. */
static void put_peer(struct control_call *call, const struct cfg_peer *p)
{
    static const char *const ways[] = {"", ", they to us only", ", we to them only"};
    struct buf line = BUF_INIT(65536);
    bool narrow = p->nlocal > 0 || p->direction > DIRECTION_BOTH;
    buf_printf(&line, "%s%s", narrow ? "# not in this form: " : "", p->pattern);
    put_texts(&line, " with ", p->local, p->nlocal);
    buf_puts(&line, ways[p->direction > DIRECTION_BOTH ? p->direction : DIRECTION_BOTH]);
    if (p->until != 0) {
        buf_puts(&line, narrow ? ", until " : "  # until ");
        until_put(&line, p->until);
    }
    if (p->comment != NULL)
        buf_printf(&line, "%s%s", narrow || p->until != 0 ? ": " : "  # ", p->comment);
    for (size_t i = 0; i < line.len; i++)
        line.p[i] = (char)((unsigned char)line.p[i] < ' ' ? ' ' : line.p[i]);
    put_line(call, buf_view(&line));
    buf_free(&line);
}

static bool has_entry(const struct gateway_config *c, const char *pattern)
{
    size_t pos;
    return schema_find(&gateway_schema, c, c->peers_entry, str_c(pattern), &pos) &&
           !c->peers[pos].expired &&
           (c->peers[pos].policy != PEER_UNSET || c->peers[pos].nroute > 0);
}

void gateway_do_POLICY_EXPORT(struct control_call *call)
{
    const struct gateway_config *c = of(call)->w->cfg;
    bool allow = strcmp(call->request->argv[0], "allow") == 0;
    const struct domain_list *l = allow ? c->allow : c->deny;
    control_rows(call, "lines");
    for (size_t i = 0; i < c->npeers; i++)
        if (is_meant(c, &c->peers[i], allow))
            put_peer(call, &c->peers[i]);
    for (size_t i = 0; l != NULL && i < l->n; i++)
        if (!has_entry(c, l->v[i])) /* that one decides, and has been told */
            put_line(call, str_c(l->v[i]));
    control_rows_end(call);
}

void gateway_do_POLICY_PROPOSE(struct control_call *call)
{
    struct worker *w = of(call)->w;
    struct buf text = BUF_INIT(TEXT_MAX);
    shadow_propose(&w->shadow, w->cfg, &text);
    control_rows(call, "lines");
    for (struct str rest = buf_view(&text); rest.n > 0;) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
        put_line(call, (struct str){rest.p, n});
        n += end != NULL;
        rest = (struct str){rest.p + n, rest.n - n};
    }
    control_rows_end(call);
    buf_free(&text);
}
