#include "config/peek.h"

#include <libconfig.h>
#include <stdio.h>

static void put_path(const char *file, const char *value, char *out, size_t cap)
{
    const char *slash = strrchr(file, '/');
    if (*value == '/' || *value == '\0' || slash == NULL)
        snprintf(out, cap, "%s", value);
    else
        snprintf(out, cap, "%.*s/%s", (int)(slash - file), file, value);
}

bool config_peek(const char *file, const char *key, char *out, size_t cap, struct buf *why)
{
    config_t c;
    const char *value;
    config_init(&c);
    bool ok = config_read_file(&c, file) == CONFIG_TRUE;
    if (!ok)
        buf_printf(why, "%s:%d: %s", file, config_error_line(&c), config_error_text(&c));
    else if (config_lookup_string(&c, key, &value) == CONFIG_TRUE)
        put_path(file, value, out, cap);
    config_destroy(&c);
    return ok;
}
