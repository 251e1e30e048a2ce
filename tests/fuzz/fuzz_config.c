/* Any bytes as a configuration file: no crash, and errors are whole lines of printable text. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/diff.h"
#include "config/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libconfig 1.5 loses the text that it holds when it meets a syntax error. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so";
}

static void ignore(void *arg, const struct config_change *c)
{
    (void)arg;
    (void)c;
}

/* A valid file needs a secret: the corpus names this descriptor. */
static void open_secret(void)
{
    enum { SECRET_FD = 200 }; /* "/proc/self/fd/200" */
    static bool opened;
    if (opened)
        return;
    FILE *f = tmpfile();
    if (f == NULL || fputs("secret", f) < 0 || fflush(f) != 0 || fchmod(fileno(f), 0600) != 0 ||
        dup2(fileno(f), SECRET_FD) != SECRET_FD)
        abort();
    fclose(f);
    opened = true;
}

static void check_errors(const struct buf *errors)
{
    if (errors->failed || (errors->len && errors->p[errors->len - 1] != '\n'))
        abort();
    for (size_t i = 0; i < errors->len; i++)
        if ((unsigned char)errors->p[i] < 0x20 && errors->p[i] != '\n')
            abort();
    if (!str_utf8(buf_view(errors)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf errors = BUF_INIT(1 << 16), shown = BUF_INIT(1 << 22);
    open_secret();
    struct str text = {size ? (const char *)data : "", size};
    struct gateway_config *c = gateway_config_parse("fuzz.conf", text, &errors);
    check_errors(&errors);
    if (c != NULL) {
        schema_show(&gateway_schema, c, &shown);
        if (gateway_config_diff(c, c, ignore, NULL) != 0)
            abort();
        gateway_config_peer(c, text, NULL);
        gateway_config_domain(c, text);
    }
    gateway_config_unref(c);
    buf_clear(&errors);
    struct router_config *r = router_config_parse("fuzz.conf", text, &errors);
    check_errors(&errors);
    if (r != NULL && router_config_diff(r, r, ignore, NULL) != 0)
        abort();
    router_config_unref(r);
    buf_free(&errors);
    buf_free(&shown);
    return 0;
}
