/* For tests and fuzzers of core/xml: framer events and XML trees as text that can be compared. */
#ifndef TESTS_UNIT_XML_DUMP_H
#define TESTS_UNIT_XML_DUMP_H

#include <expat.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/base/buf.h"
#include "core/xml/framer.h"
#include "core/xml/ns.h"

/* ---- events ---- */

static inline void dump_str(struct buf *b, const char *key, struct str s)
{
    if (s.p == NULL)
        return;
    buf_printf(b, " %s=[", key);
    buf_str(b, s);
    buf_putc(b, ']');
}

static inline void dump_nonza(struct buf *b, const struct nonza *z)
{
    for (unsigned i = 0; i < z->nnodes; i++) {
        const struct nonza_node *n = &z->node[i];
        buf_printf(b, " (%u {%.*s}%.*s", n->depth, STR_ARG(n->ns), STR_ARG(n->name));
        for (unsigned k = n->attr; k < n->attr + (unsigned)n->nattrs; k++) {
            buf_printf(b, " {%.*s}%.*s", STR_ARG(z->attrs[k].ns), STR_ARG(z->attrs[k].name));
            dump_str(b, "v", z->attrs[k].value);
        }
        if (n->text.n)
            dump_str(b, "text", n->text);
        buf_putc(b, ')');
    }
}

static inline void dump_stanza(struct buf *b, const struct stanza *st)
{
    static const char *const kinds[] = {"message", "presence", "iq"};
    buf_printf(b, "stanza %s odd=%u", kinds[st->kind], st->odd);
    dump_str(b, "from", st->from);
    dump_str(b, "to", st->to);
    dump_str(b, "id", st->id);
    dump_str(b, "type", st->type);
    dump_str(b, "lang", st->lang);
    dump_str(b, "inherited", st->inherited_lang);
    dump_str(b, "span", st->span.s);
}

static inline void dump_route(struct buf *b, const struct stanza *st)
{
    buf_puts(b, "route");
    dump_str(b, "from", st->route->from);
    dump_str(b, "to", st->route->to);
    dump_str(b, "type", st->route->type);
    dump_str(b, "error", st->route->error);
    if (st->route->fault != NULL) {
        buf_printf(b, " fault=[%s]", st->route->fault);
        dump_str(b, "span", st->span.s);
        return;
    }
    dump_str(b, "around", st->content_ns);
    dump_str(b, "outer", st->outer);
    buf_putc(b, ' ');
    dump_stanza(b, st);
}

static inline void dump_event(struct buf *b, const struct framer_event *ev)
{
    switch (ev->kind) {
    case FRAMER_STREAM_OPEN:
        buf_printf(b, "open dialback=%d", ev->header->declares_dialback);
        dump_str(b, "from", ev->header->from);
        dump_str(b, "to", ev->header->to);
        dump_str(b, "id", ev->header->id);
        dump_str(b, "version", ev->header->version);
        dump_str(b, "lang", ev->header->lang);
        dump_str(b, "content", ev->header->content_ns);
        break;
    case FRAMER_NONZA:
        buf_puts(b, "nonza");
        dump_nonza(b, ev->nonza);
        break;
    case FRAMER_STANZA:
        if (ev->stanza.route != NULL)
            dump_route(b, &ev->stanza);
        else
            dump_stanza(b, &ev->stanza);
        break;
    case FRAMER_STREAM_CLOSE:
        buf_puts(b, "close");
        break;
    }
    buf_printf(b, " bytes=%zu\n", ev->bytes);
}

/* Takes all events that are there. */
static inline enum framer_result dump_events(struct buf *b, struct framer *f)
{
    struct framer_event ev;
    enum framer_result r;
    while ((r = framer_next(f, &ev)) == FRAMER_EVENT)
        dump_event(b, &ev);
    return r;
}

/* Feeds everything in pieces of `first` bytes, then `rest` bytes each (0: all at once). */
static inline void dump_feed(struct buf *b, struct framer *f, struct str in, size_t first,
                             size_t rest)
{
    enum framer_result r = FRAMER_NEED_MORE;
    size_t n = first;
    while (in.n && r == FRAMER_NEED_MORE) {
        if (n == 0 || n > in.n)
            n = in.n;
        if (!framer_feed(f, (struct str){in.p, n})) {
            buf_puts(b, "no room\n");
            return;
        }
        r = dump_events(b, f);
        in.p += n;
        in.n -= n;
        n = rest;
    }
    if (r == FRAMER_ERROR)
        buf_printf(b, "error %s\n", framer_error(f).condition);
}

/* ---- trees ---- */

/* The stanza as a tree in canonical text: namespaces spelt out, prefixes gone, attributes sorted.
 * With `swap`, jabber:server and jabber:component:accept are exchanged, and a jabber:client root
 * and what follows it without interruption becomes `client`. */
struct tree {
    struct buf *out;
    const char *swap[2]; /* NULL: names stay */
    const char *client;
    unsigned depth, chain;
};

static inline void tree_name(struct tree *t, const char *name, bool chained)
{
    const char *sep = strchr(name, '\n');
    struct str ns = sep ? (struct str){name, (size_t)(sep - name)} : STR("");
    if (chained)
        ns = str_c(t->client);
    else if (t->swap[0] && str_is(ns, t->swap[0]))
        ns = str_c(t->swap[1]);
    else if (t->swap[0] && str_is(ns, t->swap[1]))
        ns = str_c(t->swap[0]);
    buf_printf(t->out, "{%.*s}%s", STR_ARG(ns), sep ? sep + 1 : name);
}

static inline int tree_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static inline void tree_start(void *arg, const XML_Char *name, const XML_Char **atts)
{
    struct tree *t = arg;
    unsigned level = t->depth++;
    if (level == 0)
        return;
    if (t->client && t->chain == level - 1 && strncmp(name, NS_CLIENT "\n", 14) == 0)
        t->chain = level;
    size_t n = 0;
    while (atts[n])
        n += 2;
    qsort(atts, n / 2, 2 * sizeof *atts, tree_order);
    buf_puts(t->out, "<");
    tree_name(t, name, t->client && t->chain == level);
    for (size_t i = 0; i < n; i += 2) {
        buf_putc(t->out, ' ');
        tree_name(t, atts[i], false);
        buf_printf(t->out, "=[%s]", atts[i + 1]);
    }
    buf_puts(t->out, "|");
}

static inline void tree_end(void *arg, const XML_Char *name)
{
    struct tree *t = arg;
    unsigned level = --t->depth;
    (void)name;
    if (t->chain == level && level)
        t->chain = level - 1;
    if (level)
        buf_puts(t->out, ">");
}

static inline void tree_text(void *arg, const XML_Char *s, int n)
{
    struct tree *t = arg;
    for (int i = 0; t->depth > 1 && i < n; i++) {
        if (strchr("<>|\\", s[i]))
            buf_putc(t->out, '\\');
        buf_putc(t->out, s[i]);
    }
}

/* False: not well-formed. */
static inline bool dump_tree(struct tree *t, const char *content, struct str outer,
                             struct str stanza)
{
    XML_Parser p = XML_ParserCreateNS("UTF-8", '\n');
    struct buf head = BUF_INIT(1 << 20);
    buf_printf(&head, "<s xmlns='%s'%.*s>", content, STR_ARG(outer));
    t->depth = t->chain = 0;
    XML_SetUserData(p, t);
    XML_SetElementHandler(p, tree_start, tree_end);
    XML_SetCharacterDataHandler(p, tree_text);
    bool ok = XML_Parse(p, head.p, (int)head.len, XML_FALSE) == XML_STATUS_OK &&
              XML_Parse(p, stanza.p, (int)stanza.n, XML_FALSE) == XML_STATUS_OK &&
              XML_Parse(p, "</s>", 4, XML_TRUE) == XML_STATUS_OK;
    XML_ParserFree(p);
    buf_free(&head);
    return ok;
}

#endif
