/* What a configuration file of another server says, whatever it is written in: a tree of nodes with
 * a key, a text, and children in the order of the file. The readers of import_read.h make it, the
 * importers only look.
 *
 *     Lua      name = "x"           key "name", text "x"        { "a", b = 1 }   children "", "b"
 *     YAML     name: x              the same                    a list           children ""
 *     XML      <name at="y">x</name>                            attribute        child "@at"
 *
 * Bounded in depth, number and bytes: what is beyond sets `failed`. Pure; owns its memory. */
#ifndef CTL_IMPORT_TREE_H
#define CTL_IMPORT_TREE_H

#include <stdint.h>

#include "core/base/buf.h"

enum { TREE_DEPTH_MAX = 24, TREE_NODES_MAX = 1 << 17, TREE_TEXT_MAX = 4 << 20 };

struct tree_node {
    uint32_t key, text; /* offsets in tree.texts */
    uint32_t first, last, next;
    unsigned line;
    const char *file; /* borrowed from whoever read it */
};

struct tree {
    struct tree_node *v; /* v[0] is the root */
    uint32_t n, cap;
    struct buf texts;
    bool failed;
};

void tree_init(struct tree *t);
void tree_free(struct tree *t);

/* Appends a child; the node's index, 0 when it failed. */
uint32_t tree_add(struct tree *t, uint32_t parent, struct str key, struct str text,
                  const char *file, unsigned line);
void tree_set_text(struct tree *t, uint32_t node, struct str text);
/* Takes back the last child of `parent` with all nodes behind it; `before` was the last one then.
 */
void tree_cut(struct tree *t, uint32_t parent, uint32_t node, uint32_t before);

/* Indexes; 0: none. Of several children with this key tree_get gives the last: what is set later
 * counts. A path goes down: "local/id". */
uint32_t tree_get(const struct tree *t, uint32_t node, const char *key);
uint32_t tree_path(const struct tree *t, uint32_t node, const char *path);
const char *tree_key(const struct tree *t, uint32_t node);
/* "" for 0. */
const char *tree_text(const struct tree *t, uint32_t node);

static inline uint32_t tree_first(const struct tree *t, uint32_t node)
{
    return t->n > node ? t->v[node].first : 0;
}

static inline uint32_t tree_next(const struct tree *t, uint32_t node)
{
    return t->v[node].next;
}

#endif
