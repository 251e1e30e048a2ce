/* The file of the control socket: making it, taking the place of one that nobody answers on any
 * more, accepting, and who may do what. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4 */
#endif
#include "core/net/control_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/mem.h"

enum { BACKLOG = 64, TURN_ACCEPTS = 16, PAUSE_MS = 1000, FOLDER_MODE = 0750 };

/* ---- the file -------------------------------------------------------------------------------- */

static bool refuse(char *why, const char *path, const char *what)
{
    snprintf(why, CONTROL_WHY_MAX, "control socket %s: %s", path, what);
    return false;
}

static bool refuse_errno(char *why, const char *path)
{
    return refuse(why, path, strerror(errno));
}

static bool answers(const struct sockaddr_un *sa)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool yes = fd >= 0 && (connect(fd, (const struct sockaddr *)sa, sizeof *sa) == 0 ||
                           (errno != ECONNREFUSED && errno != ENOENT));
    if (fd >= 0)
        close(fd);
    return yes;
}

static bool clear_place(const struct sockaddr_un *sa, char *why)
{
    struct stat st;
    if (lstat(sa->sun_path, &st) != 0)
        return errno == ENOENT || refuse_errno(why, sa->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return refuse(why, sa->sun_path, "there is a file that is no socket");
    if (answers(sa))
        return refuse(why, sa->sun_path, "in use: another process answers there");
    return unlink(sa->sun_path) == 0 || refuse_errno(why, sa->sun_path);
}

struct owner {
    uid_t uid;
    gid_t gid;
};

/* -1: stays as it is. */
static bool find_owner(const struct control_options *o, struct owner *out, char *why)
{
    *out = (struct owner){(uid_t)-1, (gid_t)-1};
    if (geteuid() == 0 && o->owner != NULL && *o->owner != '\0') {
        const struct passwd *pw = getpwnam(o->owner);
        if (pw == NULL)
            return refuse(why, o->path, "there is no such user to give it to");
        *out = (struct owner){pw->pw_uid, pw->pw_gid};
    }
    if (o->group == NULL || *o->group == '\0')
        return true;
    const struct group *gr = getgrnam(o->group);
    if (gr == NULL)
        return refuse(why, o->path, "control.group: there is no such group");
    out->gid = gr->gr_gid;
    return true;
}

/* The last folder of the path, when it is missing: below /run nothing outlives a boot. */
static void make_folder(const char *path, const struct owner *owner)
{
    char folder[sizeof((struct sockaddr_un *)0)->sun_path];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path)
        return;
    str_copy(folder, sizeof folder, (struct str){path, (size_t)(slash - path)});
    if (mkdir(folder, FOLDER_MODE) == 0 && lchown(folder, owner->uid, owner->gid) != 0)
        return; /* the socket's own owner is what is looked at */
}

static int bind_closed(const struct sockaddr_un *sa)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    mode_t before = umask(0177);
    int r = bind(fd, (const struct sockaddr *)sa, sizeof *sa);
    int e = errno;
    umask(before);
    if (r == 0)
        return fd;
    close(fd);
    errno = e;
    return -1;
}

/* Nobody can connect before owner and mode are right: it does not listen until then. */
static bool open_file(struct control *c, const struct control_options *o, char *why)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct owner owner;
    struct stat st;
    if (!str_copy(sa.sun_path, sizeof sa.sun_path, str_c(o->path)) || *o->path == '\0')
        return refuse(why, o->path, "the path is too long for a socket (107 bytes)");
    if (!find_owner(o, &owner, why))
        return false;
    make_folder(o->path, &owner);
    if (!clear_place(&sa, why))
        return false;
    c->fd = bind_closed(&sa);
    if (c->fd < 0)
        return refuse_errno(why, o->path);
    bool ok = (owner.uid == (uid_t)-1 && owner.gid == (gid_t)-1) ||
              lchown(o->path, owner.uid, owner.gid) == 0;
    ok = ok && chmod(o->path, o->mode) == 0 && listen(c->fd, BACKLOG) == 0 &&
         stat(o->path, &st) == 0;
    if (!ok) {
        refuse_errno(why, o->path);
        unlink(o->path);
        close(c->fd);
        return false;
    }
    c->device = st.st_dev;
    c->inode = st.st_ino;
    return true;
}

/* Unless another process has put its own there meanwhile. */
static void remove_file(const struct control *c)
{
    struct stat st;
    if (lstat(c->path, &st) == 0 && st.st_dev == c->device && st.st_ino == c->inode)
        unlink(c->path); /* a folder that is root's keeps it: the next start replaces it */
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void on_listen(uv_poll_t *p, int status, int events);

static void on_paused(struct timer *t)
{
    struct control *c = CONTAINER_OF(t, struct control, pause);
    uv_poll_start(&c->poll, UV_READABLE, on_listen);
}

static void on_listen(uv_poll_t *p, int status, int events)
{
    struct control *c = p->data;
    (void)status, (void)events;
    for (int i = 0; i < TURN_ACCEPTS && !c->closing; i++) {
        int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            control_accept(c, fd);
            continue;
        }
        /* Out of descriptors: the socket stays readable, so it is not looked at for a while. */
        if ((errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) &&
            loop_timer_set(c->loop, &c->pause, PAUSE_MS))
            uv_poll_stop(&c->poll);
        return;
    }
}

/* ---- who may do what ------------------------------------------------------------------------- */

enum privilege control_privilege(const struct control *c, uid_t uid)
{
    enum privilege best = PRIVILEGE_READ;
    if (uid == 0 || uid == geteuid())
        return PRIVILEGE_ADMIN;
    for (size_t i = 0; i < c->nusers; i++)
        if (c->users[i].uid == uid && c->users[i].privilege > best)
            best = c->users[i].privilege;
    return best;
}

static bool find_user(const char *name, uid_t *out)
{
    char *end;
    unsigned long n = strtoul(name, &end, 10);
    if (*name >= '0' && *name <= '9' && *end == '\0' && n < (uid_t)-1) {
        *out = (uid_t)n;
        return true;
    }
    const struct passwd *pw = getpwnam(name);
    if (pw != NULL)
        *out = pw->pw_uid;
    return pw != NULL;
}

static void add_users(struct control *c, char *const *names, size_t n, enum privilege p,
                      struct buf *problems)
{
    for (size_t i = 0; i < n; i++) {
        uid_t uid;
        if (c->nusers == CONTROL_USERS_MAX)
            buf_printf(problems, "control.%s: more users than %d\n", privilege_name(p),
                       CONTROL_USERS_MAX);
        else if (find_user(names[i], &uid))
            c->users[c->nusers++] = (struct control_user){uid, p};
        else
            buf_printf(problems, "control.%s: there is no user '%s'\n", privilege_name(p),
                       names[i]);
    }
}

void control_set_users(struct control *c, char *const *operate, size_t noperate, char *const *admin,
                       size_t nadmin, struct buf *problems)
{
    c->nusers = 0;
    add_users(c, operate, noperate, PRIVILEGE_OPERATE, problems);
    add_users(c, admin, nadmin, PRIVILEGE_ADMIN, problems);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct control *control_new(struct loop *l, const struct control_options *o,
                            char why[CONTROL_WHY_MAX])
{
    struct control *c = mem_zalloc(sizeof *c);
    char *path = mem_strdup(o->path);
    bool ok = c != NULL && path != NULL;
    if (!ok)
        refuse(why, o->path, "out of memory");
    else
        ok = open_file(c, o, why);
    if (!ok || uv_poll_init(l->uv, &c->poll, c->fd) != 0) {
        if (ok)
            close(c->fd);
        mem_free(path);
        mem_free(c);
        return NULL;
    }
    c->loop = l;
    c->log = (struct log_ctx){.sink = l->log};
    c->path = path;
    c->commands = o->commands;
    c->run = o->run;
    c->arg = o->arg;
    c->poll.data = c;
    c->pause.fire = on_paused;
    uv_poll_start(&c->poll, UV_READABLE, on_listen);
    log_ev(&c->log, LOG_NOTICE, "control.listen", KV_C("path", c->path));
    return c;
}

static void on_closed(uv_handle_t *h)
{
    struct control *c = h->data;
    close(c->fd);
    mem_free(c->path);
    mem_free(c);
}

void control_close(struct control *c)
{
    if (c == NULL || c->closing)
        return;
    c->closing = true;
    remove_file(c);
    LIST_FOREACH (&c->clients, n, following)
        control_client_close(CONTAINER_OF(n, struct control_client, node));
    loop_unpost(c->loop, &c->serve);
    loop_timer_clear(c->loop, &c->rest);
    loop_timer_clear(c->loop, &c->pause);
    uv_poll_stop(&c->poll);
    uv_close((uv_handle_t *)&c->poll, on_closed);
}
