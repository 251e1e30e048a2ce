/* Readers of other servers' files. Each appends what it understands of `text` below `root` of the
 * tree; what it does not is a note with its line. Pure, total, bounded. False: the text is none of
 * this kind, or beyond the limits, and `why` holds a line. */
#ifndef CTL_IMPORT_READ_H
#define CTL_IMPORT_READ_H

#include "ctl/import_tree.h"

enum { IMPORT_FILE_MAX = 1 << 20 };

/* Takes what a reader left out; `what` is a phrase behind "FILE:LINE: ". */
struct import_sink {
    void (*note)(void *arg, const char *file, unsigned line, const char *what);
    void *arg;
};

struct import_source {
    const char *name; /* for remarks; must outlive the tree */
    struct str text;
};

/* The assignments and tables of a Lua file that is only a configuration. VirtualHost "x" and
 * Component "x" "module" open nodes with that key, whose children are the settings behind them (a
 * component's module is "component_module"). Code is not run: it is left out. */
bool import_read_lua(struct tree *t, const struct import_source *s, const struct import_sink *to,
                     struct buf *why);
/* By libyaml, which is what ejabberd reads its file with. The first document; anchors are left
 * out. */
bool import_read_yaml(struct tree *t, const struct import_source *s, const struct import_sink *to,
                      struct buf *why);
/* By expat; no document type. The root element is a child of the root. */
bool import_read_xml(struct tree *t, const struct import_source *s, struct buf *why);
/* "name: value" lines. */
bool import_read_listing(struct tree *t, const struct import_source *s, struct buf *why);

#endif
