/* Errors and warnings of one load, collected and then printed in the order of files and lines. */
#ifndef CONFIG_REPORT_H
#define CONFIG_REPORT_H

#include "config/schema.h"

struct report {
    struct report_line *v;
    size_t n, errors;
    bool no_memory;
    struct buf sink; /* swallows lines beyond the maximum */
};

enum { REPORT_LINES_MAX = 1000, REPORT_LINE_MAX = 4096 };

/* Starts a line and returns where to write its text (never NULL). */
struct buf *report_open(struct report *r, struct schema_origin at, bool warning);
/* Writes "file:line: text" lines and, with errors, a last line "N errors". */
void report_print(struct report *r, char *const *files, struct buf *out);
void report_free(struct report *r);

/* Text from a file on one line: control characters and bytes outside ASCII escaped unless they are
 * UTF-8, cut after 80 bytes. */
void report_quote(struct buf *out, struct str s);
/* ` (did you mean "x"?)` when `best` is near enough to `given`. */
void report_suggest(struct buf *out, const char *given, const char *best);

#endif
