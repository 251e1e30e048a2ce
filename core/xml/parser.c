#include "core/xml/parser_priv.h"

#include <stddef.h>
#include <stdint.h>

#include "core/base/mem.h"

/* In every patched expat, also those that call themselves 2.5.0; weak, so that an older library
 * (which never defers) links as well. */
extern XML_Bool XML_SetReparseDeferralEnabled(XML_Parser parser, XML_Bool enabled)
    __attribute__((weak));

union block {
    size_t n;
    max_align_t align;
};

static _Thread_local struct xml_heap *charged;

static bool charge(size_t n)
{
    if (n > charged->max || charged->used > charged->max - n) {
        charged->full = true;
        return false;
    }
    return true;
}

static void *heap_alloc(size_t n)
{
    if (!charge(n))
        return NULL;
    union block *b = mem_alloc(sizeof *b + n);
    if (b == NULL)
        return NULL;
    b->n = n;
    charged->used += n;
    return b + 1;
}

static void heap_free(void *p)
{
    if (p == NULL)
        return;
    union block *b = (union block *)p - 1;
    charged->used -= b->n;
    mem_free(b);
}

static void *heap_realloc(void *p, size_t n)
{
    if (p == NULL)
        return heap_alloc(n);
    union block *b = (union block *)p - 1;
    size_t old = b->n;
    if (n > old && !charge(n - old))
        return NULL;
    b = n <= SIZE_MAX - sizeof *b ? mem_realloc(b, sizeof *b + n) : NULL;
    if (b == NULL)
        return NULL;
    b->n = n;
    charged->used = charged->used - old + n;
    return b + 1;
}

XML_Parser xml_parser_new(struct xml_heap *heap)
{
    static const XML_Memory_Handling_Suite suite = {heap_alloc, heap_realloc, heap_free};
    static const char separator[] = {XML_SEP, '\0'};
    charged = heap;
    XML_Parser p = XML_ParserCreate_MM("UTF-8", &suite, separator);
    charged = NULL;
    if (p == NULL)
        return NULL;
    XML_SetReturnNSTriplet(p, XML_TRUE);
    if (XML_SetReparseDeferralEnabled)
        XML_SetReparseDeferralEnabled(p, XML_FALSE);
    return p;
}

void xml_parser_free(struct xml_heap *heap, XML_Parser p)
{
    charged = heap;
    XML_ParserFree(p);
    charged = NULL;
}

enum XML_Status xml_parser_feed(struct xml_heap *heap, XML_Parser p, struct str bytes)
{
    charged = heap;
    enum XML_Status status = XML_Parse(p, bytes.p, (int)bytes.n, XML_FALSE);
    charged = NULL;
    return status;
}

enum XML_Status xml_parser_resume(struct xml_heap *heap, XML_Parser p)
{
    charged = heap;
    enum XML_Status status = XML_ResumeParser(p);
    charged = NULL;
    return status;
}

struct xml_name xml_name_split(const char *name)
{
    const char *sep = strchr(name, XML_SEP);
    if (sep == NULL)
        return (struct xml_name){STR_NONE, str_c(name), STR_NONE};
    struct xml_name n = {{name, (size_t)(sep - name)}, str_c(sep + 1), STR_NONE};
    sep = memchr(n.local.p, XML_SEP, n.local.n);
    if (sep != NULL) {
        n.prefix = (struct str){sep + 1, n.local.n - (size_t)(sep + 1 - n.local.p)};
        n.local.n = (size_t)(sep - n.local.p);
    }
    return n;
}
