/* Names to positions, for lists that may be long. Names are borrowed: they belong to the snapshot
 * that holds the index. Seed the tables first (core/base/table.h). */
#ifndef CONFIG_INDEX_H
#define CONFIG_INDEX_H

#include "core/base/str.h"

struct name_index {
    struct name_node *head;
};

enum name_added { NAME_ADDED, NAME_EXISTS, NAME_NO_MEMORY };

/* On NAME_EXISTS `old` receives the position given before. */
enum name_added name_index_add(struct name_index *ix, const char *name, size_t pos, size_t *old);
bool name_index_find(const struct name_index *ix, struct str name, size_t *pos);
void name_index_free(struct name_index *ix);

#endif
