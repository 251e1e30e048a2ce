/* Growable bytes with a mandatory maximum.
 *
 * Errors stick: once an append does not fit or memory runs out, `failed` is set, later appends do
 * nothing, and the caller checks once at the end. The contents stay NUL-terminated for printing
 * (the terminator is not counted). Not thread-safe; owned by whoever declared it. */
#ifndef CORE_BASE_BUF_H
#define CORE_BASE_BUF_H

#include <stdarg.h>

#include "core/base/str.h"

struct buf {
    char *p;
    size_t len, cap;
    size_t max; /* bytes of contents allowed */
    bool failed;
};

#define BUF_INIT(maximum) ((struct buf){NULL, 0, 0, (maximum), false})

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);                 /* keeps max; usable again */
void buf_clear(struct buf *b);                /* forgets contents and failure, keeps memory */
bool buf_reserve(struct buf *b, size_t more); /* room for `more` further bytes */
void buf_put(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, struct str s);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_drop(struct buf *b, size_t n); /* removes the first n bytes */

static inline struct str buf_view(const struct buf *b)
{
    return (struct str){b->p ? b->p : "", b->len};
}

#endif
