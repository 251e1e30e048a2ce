#include <expat.h>
#include <stdio.h>

#include "ctl/import_read.h"

struct xml {
    XML_Parser parser;
    struct tree *t;
    const char *file;
    uint32_t stack[TREE_DEPTH_MAX + 1];
    unsigned depth;
    struct buf text; /* of the innermost element */
    const char *fault;
};

static void stop(struct xml *x, const char *fault)
{
    x->fault = x->fault != NULL ? x->fault : fault;
    XML_StopParser(x->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const char *name, const char **attributes)
{
    struct xml *x = arg;
    unsigned line = (unsigned)XML_GetCurrentLineNumber(x->parser);
    char key[128];
    if (x->depth == TREE_DEPTH_MAX) {
        stop(x, "nested too deeply");
        return;
    }
    uint32_t node = tree_add(x->t, x->stack[x->depth], str_c(name), STR(""), x->file, line);
    x->stack[++x->depth] = node;
    for (size_t i = 0; node != 0 && attributes[i] != NULL; i += 2) {
        snprintf(key, sizeof key, "@%s", attributes[i]);
        tree_add(x->t, node, str_c(key), str_c(attributes[i + 1]), x->file, line);
    }
    buf_clear(&x->text);
    if (x->t->failed)
        stop(x, "too long");
}

static void XMLCALL on_text(void *arg, const char *p, int n)
{
    struct xml *x = arg;
    buf_put(&x->text, p, (size_t)n);
    if (x->text.failed)
        stop(x, "a text is too long");
}

static void XMLCALL on_end(void *arg, const char *name)
{
    struct xml *x = arg;
    struct str text = str_trim(buf_view(&x->text));
    (void)name;
    if (text.n > 0)
        tree_set_text(x->t, x->stack[x->depth], text);
    buf_clear(&x->text);
    x->depth--;
}

static void XMLCALL on_doctype(void *arg, const char *name, const char *system, const char *public,
                               int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    stop(arg, "a document type is not read");
}

bool import_read_xml(struct tree *t, const struct import_source *s, struct buf *why)
{
    struct xml x = {.t = t, .file = s->name, .text = BUF_INIT(64 << 10)};
    x.parser = XML_ParserCreate(NULL);
    if (x.parser == NULL) {
        buf_puts(why, "out of memory");
        return false;
    }
    XML_SetUserData(x.parser, &x);
    XML_SetElementHandler(x.parser, on_start, on_end);
    XML_SetCharacterDataHandler(x.parser, on_text);
    XML_SetStartDoctypeDeclHandler(x.parser, on_doctype);
    bool ok = s->text.n <= IMPORT_FILE_MAX &&
              XML_Parse(x.parser, s->text.p ? s->text.p : "", (int)s->text.n, 1) == XML_STATUS_OK;
    if (!ok)
        buf_printf(why, "%s:%lu: %s", s->name, (unsigned long)XML_GetCurrentLineNumber(x.parser),
                   x.fault != NULL               ? x.fault
                   : s->text.n > IMPORT_FILE_MAX ? "too long"
                                                 : XML_ErrorString(XML_GetErrorCode(x.parser)));
    XML_ParserFree(x.parser);
    buf_free(&x.text);
    return ok;
}
