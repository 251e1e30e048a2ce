/* Why not xmpp_stanza_to_text: libstrophe's writer leaves raw TAB and LF in attribute values, where
 * the next parser turns them into spaces. So the tree is walked here and each string goes through
 * the writer. The walk is as deep as the trees that are built below, at most four levels. */
#include "core/stream/bounce.h"

#include <strophe.h>

#include "core/base/mem.h"
#include "core/stream/payload.h"
#include "core/xml/ns.h"
#include "core/xml/writer.h"

enum { BOUNCE_MAX = 65536 };

/* ---- libstrophe as a builder ----------------------------------------------------------------- */

static void *tree_alloc(size_t n, void *arg)
{
    (void)arg;
    return mem_alloc(n);
}

static void *tree_realloc(void *p, size_t n, void *arg)
{
    (void)arg;
    return mem_realloc(p, n);
}

static void tree_free(void *p, void *arg)
{
    (void)arg;
    mem_free(p);
}

/* A tree under construction. A failure sticks: it is asked for once, at the end. */
struct tree {
    xmpp_mem_t mem;
    xmpp_ctx_t *ctx;
    xmpp_stanza_t *root;
    bool failed;
};

static void set(struct tree *t, xmpp_stanza_t *el, const char *name, struct str value)
{
    if (el == NULL || value.p == NULL)
        return;
    char *copy = mem_strndup(value);
    if (copy == NULL || xmpp_stanza_set_attribute(el, name, copy) != XMPP_EOK)
        t->failed = true;
    mem_free(copy);
}

/* A new last child of `parent`, which keeps it; the root when parent is NULL. */
static xmpp_stanza_t *add(struct tree *t, xmpp_stanza_t *parent, const char *name, const char *ns)
{
    xmpp_stanza_t *el = t->failed ? NULL : xmpp_stanza_new(t->ctx);
    if (el == NULL || xmpp_stanza_set_name(el, name) != XMPP_EOK ||
        (parent != NULL && xmpp_stanza_add_child_ex(parent, el, 0) != XMPP_EOK)) {
        if (el != NULL)
            xmpp_stanza_release(el);
        t->failed = true;
        return NULL;
    }
    if (parent == NULL)
        t->root = el;
    if (ns != NULL)
        set(t, el, "xmlns", str_c(ns));
    return el;
}

static void add_text(struct tree *t, xmpp_stanza_t *parent, const char *text)
{
    xmpp_stanza_t *el = t->failed ? NULL : xmpp_stanza_new(t->ctx);
    if (el == NULL || xmpp_stanza_set_text(el, text) != XMPP_EOK ||
        xmpp_stanza_add_child_ex(parent, el, 0) != XMPP_EOK) {
        if (el != NULL)
            xmpp_stanza_release(el);
        t->failed = true;
    }
}

static bool tree_init(struct tree *t)
{
    *t = (struct tree){.mem = {tree_alloc, tree_free, tree_realloc, NULL}};
    t->ctx = xmpp_ctx_new(&t->mem, NULL);
    return t->ctx != NULL;
}

static void tree_end(struct tree *t)
{
    if (t->root != NULL)
        xmpp_stanza_release(t->root);
    if (t->ctx != NULL)
        xmpp_ctx_free(t->ctx);
}

/* ---- writing a tree -------------------------------------------------------------------------- */

/* All attributes that are ever set here, in the order in which they are written: libstrophe keeps
 * them in a hash table. */
static const char *const attribute_order[] = {"xmlns",    "type",     "id",   "from", "to",
                                              "xml:lang", "category", "name", "var"};

static void write_element(struct buf *b, xmpp_stanza_t *el)
{
    if (xmpp_stanza_is_text(el)) {
        writer_text(b, str_c(xmpp_stanza_get_text_ptr(el)));
        return;
    }
    const char *name = xmpp_stanza_get_name(el);
    buf_putc(b, '<');
    buf_puts(b, name);
    for (size_t i = 0; i < sizeof attribute_order / sizeof attribute_order[0]; i++) {
        const char *key = attribute_order[i];
        writer_attr(b, key, str_c(xmpp_stanza_get_attribute(el, key)));
    }
    xmpp_stanza_t *child = xmpp_stanza_get_children(el);
    if (child == NULL) {
        buf_puts(b, "/>");
        return;
    }
    buf_putc(b, '>');
    for (; child != NULL; child = xmpp_stanza_get_next(child))
        write_element(b, child);
    buf_puts(b, "</");
    buf_puts(b, name);
    buf_putc(b, '>');
}

static struct span tree_span(struct tree *t)
{
    struct span out = {NULL, STR_NONE};
    struct buf b = BUF_INIT(BOUNCE_MAX);
    if (!t->failed && t->root != NULL)
        write_element(&b, t->root);
    if (!t->failed && !b.failed && b.len > 0)
        out = span_copy(buf_view(&b));
    buf_free(&b);
    return out;
}

/* ---- answers --------------------------------------------------------------------------------- */

static const char *kind_name(enum stanza_kind kind)
{
    switch (kind) {
    case STANZA_MESSAGE:
        return "message";
    case STANZA_PRESENCE:
        return "presence";
    case STANZA_IQ:
        break;
    }
    return "iq";
}

/* The element of an answer: addresses swapped, same id. */
static xmpp_stanza_t *add_reply(struct tree *t, const struct stanza *st, const char *type)
{
    xmpp_stanza_t *el = add(t, NULL, kind_name(st->kind), NULL);
    set(t, el, "type", str_c(type));
    set(t, el, "id", st->id);
    set(t, el, "from", st->to);
    set(t, el, "to", st->from);
    return el;
}

bool bounce_allowed(const struct stanza *st)
{
    if (st->from.n == 0 || str_is(st->type, "error"))
        return false;
    switch (st->kind) {
    case STANZA_MESSAGE:
        return true;
    case STANZA_PRESENCE:
        return !str_is(st->type, "unavailable");
    case STANZA_IQ:
        break;
    }
    return !str_is(st->type, "result");
}

bool bounce_bad_type(const struct stanza *st)
{
    return st->kind == STANZA_IQ && !str_is(st->type, "get") && !str_is(st->type, "set") &&
           !str_is(st->type, "result") && !str_is(st->type, "error");
}

struct span bounce_stanza(const struct stanza *st, enum content_ns target, const char *type,
                          const char *condition, const char *text)
{
    (void)target;
    struct tree t;
    struct span out = {NULL, STR_NONE};
    if (tree_init(&t)) {
        xmpp_stanza_t *error = add(&t, add_reply(&t, st, "error"), "error", NULL);
        set(&t, error, "type", str_c(type));
        add(&t, error, condition, NS_STANZA_ERROR);
        if (text != NULL) {
            xmpp_stanza_t *el = add(&t, error, "text", NS_STANZA_ERROR);
            set(&t, el, "xml:lang", STR("en"));
            add_text(&t, el, text);
        }
        out = tree_span(&t);
    }
    tree_end(&t);
    return out;
}

enum own_query { OWN_OTHER, OWN_BAD, OWN_PING, OWN_DISCO, OWN_DISCO_NODE };

/* The iq is node 1; it has to have exactly one child. */
static bool one_child(const struct nonza *z)
{
    unsigned children = 0;
    for (unsigned i = 2; i < z->nnodes; i++)
        children += z->node[i].depth == 2;
    return children == 1;
}

static enum own_query payload_query(const struct stanza *st, const struct nonza *z)
{
    if (!one_child(z))
        return OWN_BAD;
    if (!str_is(st->type, "get"))
        return OWN_OTHER;
    const struct nonza_node *payload = &z->node[2];
    if (str_is(payload->ns, NS_PING) && str_is(payload->name, "ping"))
        return OWN_PING;
    if (!str_is(payload->ns, NS_DISCO_INFO) || !str_is(payload->name, "query"))
        return OWN_OTHER;
    for (unsigned i = 0; i < payload->nattrs; i++)
        if (str_is(z->attrs[payload->attr + i].name, "node"))
            return OWN_DISCO_NODE;
    return OWN_DISCO;
}

static enum own_query classify(const struct stanza *st)
{
    const struct nonza *z;
    if (st->kind != STANZA_IQ)
        return OWN_OTHER;
    if (bounce_bad_type(st) || st->id.n == 0)
        return OWN_BAD;
    struct framer *f = payload_read(st, &z);
    enum own_query query = f != NULL ? payload_query(st, z) : OWN_OTHER;
    framer_free(f);
    return query;
}

static void add_disco(struct tree *t, xmpp_stanza_t *iq)
{
    xmpp_stanza_t *query = add(t, iq, "query", NS_DISCO_INFO);
    xmpp_stanza_t *identity = add(t, query, "identity", NULL);
    set(t, identity, "category", STR("component"));
    set(t, identity, "type", STR("s2s"));
    set(t, identity, "name", STR("Sallyport"));
    set(t, add(t, query, "feature", NULL), "var", STR(NS_DISCO_INFO));
    set(t, add(t, query, "feature", NULL), "var", STR(NS_PING));
}

struct span bounce_answer(const struct stanza *st, enum content_ns target)
{
    struct span out = {NULL, STR_NONE};
    struct tree t;
    if (!bounce_allowed(st))
        return out;
    enum own_query query = classify(st);
    if ((query == OWN_PING || query == OWN_DISCO) && tree_init(&t)) {
        xmpp_stanza_t *iq = add_reply(&t, st, "result");
        if (query == OWN_DISCO)
            add_disco(&t, iq);
        out = tree_span(&t);
        tree_end(&t);
    }
    if (query == OWN_BAD)
        return bounce_stanza(st, target, "modify", "bad-request", "not an iq of RFC 6120 8.2.3");
    if (query == OWN_DISCO_NODE) /* XEP-0030 7 */
        return bounce_stanza(st, target, "cancel", "item-not-found", "no such node");
    if (query == OWN_OTHER)
        return bounce_stanza(st, target, "cancel", "service-unavailable", NULL);
    return out;
}
