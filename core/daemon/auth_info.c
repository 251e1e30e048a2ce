#include "core/daemon/auth_info.h"

#include <stdio.h>

enum { TEXT_MAX = 65536 };

bool auth_info_print(const char *what, const char *name, const struct tls_identity *id)
{
    printf("%s %s\n", what, name);
    if (id->certificate == NULL) {
        printf("  no certificate: it proves itself by password only\n");
        return true;
    }
    struct buf text = BUF_INIT(TEXT_MAX), errors = BUF_INIT(TEXT_MAX);
    bool ok = tls_identity_describe(id, &text, &errors);
    struct str rest = buf_view(&text);
    while (ok && rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
        printf("  %.*s\n", (int)n, rest.p);
        size_t skip = n + (end != NULL);
        rest = (struct str){rest.p + skip, rest.n - skip};
    }
    if (errors.len > 0)
        fprintf(stderr, "%.*s", STR_ARG(buf_view(&errors)));
    buf_free(&text);
    buf_free(&errors);
    return ok;
}
