/* A length-counted view of bytes that somebody else owns.
 *
 * A `struct str` never owns memory: it is valid as long as the memory it points into. It may hold
 * NUL bytes and is not NUL-terminated. A view with p == NULL means "absent" (an attribute that was
 * not there), which is different from an empty one. */
#ifndef CORE_BASE_STR_H
#define CORE_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){(lit), sizeof(lit) - 1})
#define STR_NONE ((struct str){NULL, 0})
/* For printf: printf("%.*s", STR_ARG(s)). */
#define STR_ARG(s) (int)(s).n, (s).p ? (s).p : ""

static inline struct str str_c(const char *s)
{
    return (struct str){s, s ? strlen(s) : 0};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_is(struct str a, const char *s)
{
    return str_eq(a, str_c(s));
}

static inline bool str_starts(struct str a, const char *s)
{
    size_t n = strlen(s);
    return a.n >= n && memcmp(a.p, s, n) == 0;
}

/* The view without leading and trailing XML white space (space, TAB, CR, LF). */
struct str str_trim(struct str s);

/* Copies into a C string of `cap` bytes, always terminated; false when it had to be cut or when it
 * contains a NUL. */
bool str_copy(char *dst, size_t cap, struct str s);

/* Edit distance for "did you mean"; both strings are expected to be short (at most 63 bytes are
 * compared). */
unsigned str_distance(const char *a, const char *b);

/* True when the bytes are well-formed UTF-8: no overlong form, no surrogate, none above U+10FFFF.
 */
bool str_utf8(struct str s);

#endif
