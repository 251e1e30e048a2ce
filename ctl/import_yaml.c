#include <yaml.h>

#include "ctl/import_read.h"

struct yaml {
    struct tree *t;
    const struct import_source *s;
    const struct import_sink *to;
    struct level {
        uint32_t node;
        bool map;
    } stack[TREE_DEPTH_MAX + 1];
    unsigned depth;
    struct buf key; /* of the value that comes next */
    bool has_key;
    const char *fault;
};

static unsigned line_of(const yaml_event_t *e)
{
    return (unsigned)e->start_mark.line + 1;
}

static uint32_t add(struct yaml *y, struct str text, unsigned line)
{
    uint32_t node = tree_add(y->t, y->stack[y->depth].node,
                             y->has_key ? buf_view(&y->key) : STR(""), text, y->s->name, line);
    y->has_key = false;
    if (node == 0)
        y->fault = "too long";
    return node;
}

static void on_scalar(struct yaml *y, const yaml_event_t *e)
{
    struct str s = {(const char *)e->data.scalar.value, e->data.scalar.length};
    bool null = e->data.scalar.plain_implicit && (str_is(s, "~") || str_is(s, "null"));
    if (y->stack[y->depth].map && !y->has_key) {
        buf_clear(&y->key);
        buf_str(&y->key, s);
        y->has_key = true;
        if (y->key.failed)
            y->fault = "a key is too long";
        return;
    }
    add(y, null ? STR("") : s, line_of(e));
}

static void on_group(struct yaml *y, const yaml_event_t *e, bool map)
{
    if (y->stack[y->depth].map && !y->has_key)
        y->fault = "a key that is no text";
    else if (y->depth == TREE_DEPTH_MAX)
        y->fault = "nested too deeply";
    if (y->fault != NULL)
        return;
    uint32_t node = y->depth > 0 ? add(y, STR(""), line_of(e)) : 0; /* the first one is the root */
    y->stack[++y->depth] = (struct level){node, map};
}

static void on_alias(struct yaml *y, const yaml_event_t *e)
{
    if (y->stack[y->depth].map && !y->has_key)
        y->fault = "a key that is no text";
    else
        y->to->note(y->to->arg, y->s->name, line_of(e), "an alias (*name) is not followed");
    y->has_key = false;
}

/* False: the end. */
static bool on_event(struct yaml *y, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        on_scalar(y, e);
        break;
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        on_group(y, e, e->type == YAML_MAPPING_START_EVENT);
        break;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        y->depth--;
        break;
    case YAML_ALIAS_EVENT:
        on_alias(y, e);
        break;
    default:
        break;
    }
    return e->type != YAML_DOCUMENT_END_EVENT && e->type != YAML_STREAM_END_EVENT &&
           y->fault == NULL;
}

static void put_fault(const struct yaml *y, const yaml_parser_t *p, unsigned line, struct buf *why)
{
    if (y->fault != NULL)
        buf_printf(why, "%s:%u: %s", y->s->name, line, y->fault);
    else
        buf_printf(why, "%s:%zu: %s", y->s->name, p->problem_mark.line + 1,
                   p->problem != NULL ? p->problem : "no YAML");
}

bool import_read_yaml(struct tree *t, const struct import_source *s, const struct import_sink *to,
                      struct buf *why)
{
    struct yaml y = {.t = t, .s = s, .to = to, .key = BUF_INIT(4096)};
    yaml_parser_t p;
    yaml_event_t e;
    bool more = s->text.n <= IMPORT_FILE_MAX, ok = more;
    unsigned line = 1;
    if (!ok || !yaml_parser_initialize(&p)) {
        buf_printf(why, "%s: %s", s->name, ok ? "out of memory" : "too long");
        return false;
    }
    yaml_parser_set_input_string(&p, (const unsigned char *)(s->text.p ? s->text.p : ""),
                                 s->text.n);
    while (ok && more) {
        ok = yaml_parser_parse(&p, &e) != 0;
        if (!ok)
            break;
        line = line_of(&e);
        more = on_event(&y, &e);
        yaml_event_delete(&e);
    }
    ok = ok && y.fault == NULL;
    if (!ok)
        put_fault(&y, &p, line, why);
    yaml_parser_delete(&p);
    buf_free(&y.key);
    return ok;
}
