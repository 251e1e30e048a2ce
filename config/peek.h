/* One text setting of a configuration file, without loading and checking the rest: what a tool
 * needs that may not read the secrets. Files of include_dir are not looked at. */
#ifndef CONFIG_PEEK_H
#define CONFIG_PEEK_H

#include "core/base/buf.h"

/* `out` keeps its contents when the file does not set the key. A relative path is made relative to
 * the file's folder. False: `why` holds a line. */
bool config_peek(const char *file, const char *key, char *out, size_t cap, struct buf *why);

#endif
