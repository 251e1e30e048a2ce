#include "core/base/mem.h"

#include <stdlib.h>

static _Thread_local unsigned long fail_after;

static int must_fail(void)
{
    if (fail_after == 0)
        return 0;
    if (fail_after > 1) {
        fail_after--;
        return 0;
    }
    return 1;
}

void mem_fail_after(unsigned long n)
{
    fail_after = n;
}

void *mem_alloc(size_t n)
{
    return must_fail() ? NULL : malloc(n ? n : 1);
}

void *mem_zalloc(size_t n)
{
    return must_fail() ? NULL : calloc(1, n ? n : 1);
}

void *mem_realloc(void *p, size_t n)
{
    return must_fail() ? NULL : realloc(p, n ? n : 1);
}

void mem_free(void *p)
{
    free(p);
}

char *mem_strdup(const char *s)
{
    return mem_strndup(str_c(s));
}

char *mem_strndup(struct str s)
{
    size_t n = s.n ? strnlen(s.p, s.n) : 0;
    char *d = mem_alloc(n + 1);
    if (d == NULL)
        return NULL;
    if (n)
        memcpy(d, s.p, n);
    d[n] = '\0';
    return d;
}
