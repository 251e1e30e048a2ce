/* Replies for people: an object's members as "name: value" lines, an array of objects as a table.
 * Which columns a wide table shows, and in which order, is said once, in table.c; every other one
 * shows all that its rows have. Pure. */
#ifndef CTL_TABLE_H
#define CTL_TABLE_H

#include "core/base/buf.h"
#include "ctl/reader.h"

/* Appends the value of an "ok", or of an "event". Times are in words ("3 m 20 s"), control
 * characters of terminals are taken out. */
void table_print(const struct document *d, const struct value *ok, struct buf *out);
/* One event of a stream of them, as a line. */
void table_event(const struct document *d, const struct value *event, struct buf *out);

#endif
