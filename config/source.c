#include "config/source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/digest.h"
#include "core/base/mem.h"

enum { READ_SIZE = 16384 };

static int read_all(int fd, size_t max, struct buf *out)
{
    char piece[READ_SIZE];
    int e = 0;
    ssize_t n;
    do {
        n = read(fd, piece, sizeof piece);
        if (n < 0 && errno != EINTR)
            e = errno;
        else if (n > 0 && (size_t)n > max - out->len)
            e = EFBIG;
        else if (n > 0)
            buf_put(out, piece, (size_t)n);
        if (out->failed)
            e = ENOMEM;
    } while (e == 0 && n != 0);
    digest_wipe(piece, sizeof piece); /* it may have been a secret */
    return e;
}

int source_read(const char *path, size_t max, bool regular, struct buf *out)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | (regular ? O_NONBLOCK : 0));
    if (fd < 0)
        return errno;
    int e = 0;
    if (regular && fstat(fd, &st) != 0)
        e = errno;
    else if (regular && !S_ISREG(st.st_mode))
        e = EINVAL;
    else
        e = read_all(fd, max, out);
    close(fd);
    return e;
}

char *source_path(const char *file, const char *name)
{
    const char *slash = strrchr(file, '/');
    if (*name == '/' || slash == NULL)
        return mem_strdup(name);
    size_t dir = (size_t)(slash - file) + 1, n = strlen(name);
    char *path = mem_alloc(dir + n + 1);
    if (path == NULL)
        return NULL;
    memcpy(path, file, dir);
    memcpy(path + dir, name, n + 1);
    return path;
}

static void report_syntax(struct report *r, const struct source *src, struct schema_origin at,
                          const struct scan_fault *fault, const struct scan_fault *hint)
{
    if (fault->text != NULL) {
        at.line = fault->line;
        buf_puts(report_open(r, at, false), fault->text);
        return;
    }
    at.line = (unsigned)config_error_line(&src->config);
    const char *text = config_error_text(&src->config);
    if (hint->text != NULL && hint->line <= at.line)
        at.line = hint->line, text = hint->text;
    else if (text != NULL && strcmp(text, "duplicate setting name") == 0)
        text = "a key of this line is set twice";
    buf_puts(report_open(r, at, false), text ? text : "syntax error");
}

/* Both arrays grow when their length reaches a power of two. */
static bool sources_grow(struct sources *ss, struct schema_meta *meta)
{
    if ((ss->n & (ss->n - 1)) != 0)
        return true;
    size_t cap = ss->n ? ss->n * 2 : 1;
    struct source **v = mem_realloc(ss->v, cap * sizeof *v);
    if (v == NULL)
        return false;
    ss->v = v;
    char **files = mem_realloc(meta->files, cap * sizeof *files);
    if (files == NULL)
        return false;
    meta->files = files;
    return true;
}

bool sources_add(struct sources *ss, struct schema_meta *meta, const char *file, struct str text,
                 struct report *r)
{
    struct scan_fault fault, hint;
    struct buf rewritten = BUF_INIT((size_t)SOURCE_SIZE_MAX * 4);
    if (!sources_grow(ss, meta) || (meta->files[ss->n] = mem_strdup(file)) == NULL)
        return false;
    meta->nfiles = ss->n + 1;
    struct source *src = ss->v[ss->n] = mem_zalloc(sizeof *src);
    if (src == NULL)
        return false;
    ss->n++;
    config_init(&src->config);
    bool ok = source_scan(text, &rewritten, &fault, &hint);
    if (ok && fault.text == NULL)
        src->parsed =
            config_read_string(&src->config, rewritten.p ? rewritten.p : "") == CONFIG_TRUE;
    if (ok && !src->parsed) {
        report_syntax(r, src, (struct schema_origin){(uint32_t)ss->n, 0}, &fault, &hint);
        ss->broken = true;
    }
    buf_free(&rewritten);
    return ok;
}

/* The names *.conf of a folder, sorted by byte value. */
struct names {
    char **v;
    size_t n;
};

static void names_free(struct names *ns)
{
    for (size_t i = 0; i < ns->n; i++)
        mem_free(ns->v[i]);
    mem_free(ns->v);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_drop_in(const char *name)
{
    size_t n = strlen(name);
    return *name != '.' && n > 5 && strcmp(name + n - 5, ".conf") == 0;
}

static int names_read(const char *dir, struct names *ns)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return errno;
    int e = 0;
    if ((ns->v = mem_alloc(SOURCES_MAX * sizeof *ns->v)) == NULL)
        e = ENOMEM;
    for (struct dirent *de; e == 0 && (de = readdir(d)) != NULL;) {
        if (!is_drop_in(de->d_name))
            continue;
        if (ns->n == SOURCES_MAX - 1)
            e = E2BIG;
        else if ((ns->v[ns->n] = mem_strdup(de->d_name)) == NULL)
            e = ENOMEM;
        else
            ns->n++;
    }
    closedir(d);
    if (e == 0 && ns->n)
        qsort(ns->v, ns->n, sizeof *ns->v, by_name);
    return e;
}

static void report_unreadable(struct sources *ss, struct report *r, struct schema_origin at,
                              const char *path, int e)
{
    struct buf *b = report_open(r, at, false);
    buf_puts(b, "include_dir: \"");
    report_quote(b, str_c(path));
    buf_printf(b, "\": %s", e == EINVAL ? "not a regular file" : strerror(e));
    ss->broken = true;
}

/* Adds one file of the folder. */
static bool add_drop_in(struct sources *ss, struct schema_meta *meta, const char *path,
                        struct schema_origin at, struct report *r)
{
    struct buf text = BUF_INIT(SOURCE_SIZE_MAX);
    int e = source_read(path, SOURCE_SIZE_MAX, true, &text);
    bool ok = e != ENOMEM;
    if (e == 0)
        ok = sources_add(ss, meta, path, buf_view(&text), r);
    else if (ok)
        report_unreadable(ss, r, at, path, e);
    buf_free(&text);
    return ok;
}

bool sources_add_dir(struct sources *ss, struct schema_meta *meta, const char *dir,
                     struct schema_origin at, struct report *r)
{
    struct names ns = {NULL, 0};
    int e = names_read(dir, &ns);
    bool ok = e != ENOMEM;
    if (ok && e != 0)
        report_unreadable(ss, r, at, dir, e);
    for (size_t i = 0; ok && e == 0 && i < ns.n; i++) {
        struct buf path = BUF_INIT(8192);
        buf_printf(&path, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", ns.v[i]);
        ok = !path.failed && add_drop_in(ss, meta, path.p, at, r);
        buf_free(&path);
    }
    names_free(&ns);
    return ok;
}

void sources_free(struct sources *ss)
{
    for (size_t i = 0; i < ss->n; i++) {
        config_destroy(&ss->v[i]->config);
        mem_free(ss->v[i]);
    }
    mem_free(ss->v);
    *ss = (struct sources){0};
}
