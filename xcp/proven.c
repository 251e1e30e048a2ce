#include "xcp/proven.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/domain.h"

enum { PATH_BYTES = 4096, FILE_BYTES = 1024 };

enum proven proven_read(const char *file, const char *name)
{
    char text[FILE_BYTES], domain[DOMAIN_MAX + 1];
    FILE *f = fopen(file, "re");
    if (f == NULL)
        return errno == ENOENT ? PROVEN_ABSENT : PROVEN_BROKEN;
    errno = 0;
    size_t n = fread(text, 1, sizeof text, f);
    int err = errno;
    fclose(f);
    errno = err;
    if (err != 0 || n == sizeof text || !domain_ascii(str_trim((struct str){text, n}), domain))
        return PROVEN_BROKEN;
    return strcmp(domain, name) == 0 ? PROVEN_NAME : PROVEN_OTHER;
}

static bool write_all(const char *path, const char *name)
{
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return false;
    bool ok = fprintf(f, "%s\n", name) > 0 && fflush(f) == 0 && fsync(fileno(f)) == 0;
    return fclose(f) == 0 && ok;
}

bool proven_write(const char *file, const char *name)
{
    char temporary[PATH_BYTES];
    if (snprintf(temporary, sizeof temporary, "%s.new", file) >= (int)sizeof temporary) {
        errno = ENAMETOOLONG;
        return false;
    }
    if (write_all(temporary, name) && rename(temporary, file) == 0)
        return true;
    int err = errno;
    remove(temporary);
    errno = err;
    return false;
}

static void tell_ignored(enum proven why, const char *file, const char *link,
                         const struct log_ctx *log)
{
    const char *msg = why == PROVEN_OTHER ? "it holds another name than peer_name"
                      : errno != 0        ? strerror(errno)
                                          : "it does not hold the name of a peer";
    log_ev(log, LOG_WARN, "link.proven.ignored", KV_C("link", link), KV_C("file", file),
           KV_C("reason", why == PROVEN_OTHER ? "other-name" : "broken"), KV_C("msg", msg));
}

bool proven_recall(const char *file, const char *name, const char *link, const struct log_ctx *log)
{
    if (file == NULL || name == NULL)
        return false;
    enum proven found = proven_read(file, name);
    if (found == PROVEN_OTHER || found == PROVEN_BROKEN)
        tell_ignored(found, file, link, log);
    return found == PROVEN_NAME;
}

void proven_remember(const char *file, const char *name, bool known, const struct log_ctx *log)
{
    bool there = file == NULL || proven_read(file, name) == PROVEN_NAME;
    if (known && there)
        return;
    bool kept = there || proven_write(file, name);
    log_ev(log, kept ? LOG_INFO : LOG_WARN, "link.proven", KV_C("name", name), KV_C("file", file),
           KV_C("msg", kept ? NULL : strerror(errno)));
}
