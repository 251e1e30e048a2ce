/* A JSON reader (RFC 8259) for replies: the whole text becomes a flat array of values, in the order
 * in which they stand, linked by index. Bounded in depth and number; total: any bytes give a
 * document or an error. Numbers are kept as they are written. Strings are decoded; NUL and what is
 * no character become U+FFFD. Pure. */
#ifndef CTL_READER_H
#define CTL_READER_H

#include <stdint.h>

#include "core/base/str.h"

enum { READER_DEPTH_MAX = 32, READER_VALUES_MAX = 1 << 20 };

enum value_type { VALUE_NULL, VALUE_BOOL, VALUE_NUMBER, VALUE_STRING, VALUE_ARRAY, VALUE_OBJECT };

struct value {
    enum value_type type;
    const char *key;  /* in an object; else NULL */
    const char *text; /* of a string, number or word; "" for others */
    uint32_t next;    /* the next one of the same array or object; 0: none */
    uint32_t first;   /* of an array or object; 0: it is empty */
};

struct document {
    struct value *v; /* v[0] is the root */
    size_t n, cap;
    char *memory; /* of all texts */
};

/* False: it is no JSON, beyond the limits, or memory is out. Free it all the same. */
bool document_read(struct document *d, struct str text);
void document_free(struct document *d);

/* The member of an object; NULL: none, or `of` is no object (NULL is fine). */
const struct value *document_get(const struct document *d, const struct value *of, const char *key);
const struct value *document_first(const struct document *d, const struct value *of);
const struct value *document_next(const struct document *d, const struct value *v);

#endif
