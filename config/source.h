/* Configuration files: reading, and parsing by libconfig 1.5 behind a scanner of our own.
 *
 * What the scanner (source_scan) is for, each measured in libconfig 1.5:
 *  - an integer beyond 32 bits is truncated without a word: the scanner marks it as 64 bits wide,
 *    so that the bounds check sees the real value;
 *  - the line of a text in a list is that of the token behind it: line ends there are moved;
 *  - @include knows no pattern and resolves against the working directory: refused (include_dir);
 *  - a comma before ')' or ']' is only a "syntax error", an unterminated comment none at all;
 *  - nesting has no limit of its own.
 * Left as it is: on a syntax error libconfig loses (leaks) the text token that it holds. */
#ifndef CONFIG_SOURCE_H
#define CONFIG_SOURCE_H

#include <libconfig.h>

#include "config/report.h"

enum {
    SOURCE_SIZE_MAX = 16 << 20, /* bytes of one file */
    SOURCES_MAX = 1001,         /* the main file and its drop-ins */
    SOURCE_DEPTH_MAX = 16,
};

struct source {
    config_t config; /* must not move: its settings point back to it */
    bool parsed;     /* config holds the tree */
};

struct sources {
    struct source **v;
    size_t n;
    bool broken; /* one of them did not parse or could not be read */
};

struct scan_fault {
    unsigned line;
    const char *text; /* NULL: none */
};

/* Rewrites `text` for libconfig. `fault` is what must not reach libconfig at all, `hint` what it
 * will refuse as "syntax error". False when out of memory. */
bool source_scan(struct str text, struct buf *out, struct scan_fault *fault,
                 struct scan_fault *hint);

/* Reads at most `max` bytes; 0 or an errno (EFBIG: longer, EINVAL: not a regular file although
 * `regular` asks for one). Never blocks on a FIFO when `regular`. */
int source_read(const char *path, size_t max, bool regular, struct buf *out);

/* Adds the file with its contents as a source and its name to meta->files. Syntax errors go to the
 * report. False when out of memory. */
bool sources_add(struct sources *ss, struct schema_meta *meta, const char *file, struct str text,
                 struct report *r);
/* Adds the regular files *.conf of `dir` in name order; faults are reported at `at`. */
bool sources_add_dir(struct sources *ss, struct schema_meta *meta, const char *dir,
                     struct schema_origin at, struct report *r);
void sources_free(struct sources *ss);

/* `name` as seen from the folder of `file`; NULL when out of memory. */
char *source_path(const char *file, const char *name);

#endif
