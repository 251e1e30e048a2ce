/* Hash tables: uthash with a seeded SipHash-2-4, because peers choose the keys, and without its
 * exit() on out-of-memory.
 *
 * Include this instead of <uthash.h>. After HASH_ADD_* check with HASH_FIND or uthash's
 * `elt->hh.tbl == NULL`: a failed insert leaves the element out of the table. */
#ifndef CORE_BASE_TABLE_H
#define CORE_BASE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/env.h"

uint32_t table_hash(const void *key, size_t n);

/* Sets the process's seed. Call once, before the first table exists; tests use a fixed one. */
void table_seed(const unsigned char seed[16]);
/* The same from the system's randomness; false: there is none. Programs call it before anything
 * else, the configuration's own tables included. */
bool table_seed_random(const struct env *env);

#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = table_hash((keyptr), (keylen)))
#define HASH_NONFATAL_OOM                    1
#define uthash_nonfatal_oom(elt)             ((elt)->hh.tbl = NULL)
#include <uthash.h>

#endif
