/* Allocation with one door, so that a test can make the n-th allocation fail.
 *
 * Every function may return NULL and every caller handles it: running out of memory is an ordinary
 * outcome of a daemon under attack, never a reason to abort. */
#ifndef CORE_BASE_MEM_H
#define CORE_BASE_MEM_H

#include <stddef.h>

#include "core/base/str.h"

void *mem_alloc(size_t n);            /* uninitialised */
void *mem_zalloc(size_t n);           /* zeroed */
void *mem_realloc(void *p, size_t n); /* on failure the old block stays valid */
void mem_free(void *p);               /* NULL is fine */
char *mem_strdup(const char *s);
char *mem_strndup(struct str s); /* a C string; cut at an embedded NUL */

/* Tests only: on the calling thread the n-th allocation from now (1 = the next) and all later ones
 * fail; 0 switches it off. */
void mem_fail_after(unsigned long n);

#endif
