#include "tests/fake/import_check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/gateway.h"

static const char *const secrets[] = {IMPORT_LINK_SECRET, IMPORT_DIALBACK_SECRET};
static char folder[64];

static void path_of(const char *name, char out[160])
{
    snprintf(out, 160, "%s/%s", folder, name);
}

static void clean(void)
{
    char path[160];
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        path_of(secrets[i], path);
        unlink(path);
    }
    rmdir(folder);
}

/* The files that a written configuration may name. */
static void prepare(void)
{
    char path[160];
    snprintf(folder, sizeof folder, "/tmp/sallyport-import-XXXXXX");
    if (mkdtemp(folder) == NULL)
        abort();
    atexit(clean);
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        path_of(secrets[i], path);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0 || write(fd, "0123456789abcdef0123456789abcdef\n", 33) != 33)
            abort();
        close(fd);
    }
}

struct gateway_config *import_check(const char *dialect, struct str in, struct buf *text,
                                    struct buf *why)
{
    struct import_source source = {"in", in};
    struct buf errors = BUF_INIT(1 << 20);
    char path[160];
    if (*folder == '\0')
        prepare();
    path_of("sallyport.conf", path);
    if (!import_convert(dialect, &source, 1, text, why)) {
        if (why->len == 0 || text->len > 0)
            abort();
        return NULL;
    }
    struct gateway_config *c = gateway_config_parse(path, buf_view(text), &errors);
    if (c == NULL) {
        fprintf(stderr, "%.*s\n%.*s", STR_ARG(buf_view(text)), STR_ARG(buf_view(&errors)));
        abort();
    }
    buf_free(&errors);
    return c;
}
