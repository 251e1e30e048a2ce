#include "core/daemon/supervisor.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* ---- command line ---------------------------------------------------------------------------- */

enum { OPT_ALLOW_ROOT = 256, OPT_AUTH_INFO };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"check", no_argument, NULL, 't'},
    {"check-show", no_argument, NULL, 'T'},
    {"foreground", no_argument, NULL, 'f'},
    {"log-level", required_argument, NULL, 'l'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"allow-root", no_argument, NULL, OPT_ALLOW_ROOT},
    {"auth-info", no_argument, NULL, OPT_AUTH_INFO},
    {NULL, 0, NULL, 0},
};

static void print_help(const struct supervisor_program *p)
{
    printf("Usage: %s [OPTION]...\n%s\n\n", p->name, p->summary);
    printf("  -c, --config FILE      configuration (default %s)\n", p->default_config);
    fputs("  -t, --check            check the configuration and exit\n"
          "  -T, --check-show       check it and print the effective values\n"
          "  -f, --foreground       stay in the foreground (always so)\n"
          "  -l, --log-level LEVEL  error, warn, notice, info, debug or trace\n"
          "  -v, --verbose          log debug lines; twice: trace lines\n"
          "      --auth-info        print what the other sides of the links have to know of us\n"
          "      --allow-root       run as root although no user is configured\n"
          "  -h, --help             print this and exit\n"
          "  -V, --version          print versions and exit\n",
          stdout);
    fputs("\nSignals: TERM, INT end in good order (twice: at once), HUP reloads the\n"
          "configuration, USR2 writes the state to the log.\n",
          stdout);
}

static void print_version(const struct supervisor_program *p)
{
    struct supervisor_library libs[8] = {{NULL, NULL}};
    printf("%s %s\n", p->name, p->version);
    if (p->libraries != NULL)
        p->libraries(libs);
    for (size_t i = 0; i < 8 && libs[i].name != NULL; i++)
        printf("  %s %s\n", libs[i].name, libs[i].version);
}

static bool usage_error(const struct supervisor_program *p, const char *what, const char *value,
                        int *code)
{
    fprintf(stderr, "%s: %s '%s'\nTry '%s --help'.\n", p->name, what, value, p->name);
    *code = SUPERVISOR_USAGE;
    return false;
}

/* What getopt_long calls '?': the option as the user wrote it. */
static bool option_error(const struct supervisor_program *p, char **argv, bool argument, int *code)
{
    char letter[3] = {'-', (char)optopt, '\0'};
    bool is_letter = optopt > 0 && optopt < 128 && argv[optind - 1][1] != '-';
    return usage_error(p, argument ? "missing argument of option" : "unknown option",
                       is_letter ? letter : argv[optind - 1], code);
}

static int more_verbose(int level)
{
    return level == LOG_DEBUG ? LOG_TRACE : LOG_DEBUG;
}

bool supervisor_parse(const struct supervisor_program *p, int argc, char **argv,
                      struct supervisor_options *out, int *code)
{
    *out = (struct supervisor_options){.config = p->default_config, .log_level = -1};
    *code = SUPERVISOR_OK;
    enum log_level level;
    int c;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":c:tTfl:vhV", long_options, NULL)) != -1) {
        switch (c) {
        case 'c':
            out->config = optarg;
            break;
        case 'T':
            out->show = true;
            out->check = true;
            break;
        case 't':
            out->check = true;
            break;
        case 'f':
            break;
        case 'l':
            if (!log_level_parse(str_c(optarg), &level))
                return usage_error(p, "unknown log level", optarg, code);
            out->log_level = (int)level;
            break;
        case 'v':
            out->log_level = more_verbose(out->log_level);
            break;
        case OPT_AUTH_INFO:
            out->auth_info = true;
            break;
        case OPT_ALLOW_ROOT:
            out->allow_root = true;
            break;
        case 'h':
            print_help(p);
            return false;
        case 'V':
            print_version(p);
            return false;
        default:
            return option_error(p, argv, c == ':', code);
        }
    }
    return optind == argc || usage_error(p, "unexpected argument", argv[optind], code);
}

int supervisor_config_exit(const char *file)
{
    if (access(file, R_OK) == 0)
        return SUPERVISOR_BAD_CONFIG;
    return errno == ENOENT || errno == ENOTDIR ? SUPERVISOR_NO_CONFIG
           : errno == EACCES                   ? SUPERVISOR_NO_PERMISSION
                                               : SUPERVISOR_BAD_CONFIG;
}

/* ---- privileges ------------------------------------------------------------------------------ */

static bool has_user(const char *user)
{
    return user != NULL && *user != '\0';
}

int supervisor_check_root(const struct supervisor_program *p, const struct supervisor_options *o,
                          const char *user)
{
    if (geteuid() != 0 || o->allow_root || has_user(user))
        return SUPERVISOR_OK;
    fprintf(stderr,
            "%s: will not run as root: set user = \"sallyport\" in the configuration, or start it "
            "as another user, or give --allow-root\n",
            p->name);
    return SUPERVISOR_NO_PERMISSION;
}

/* A soft limit only: a sandbox that forbids more than that is fine. */
static void raise_descriptors(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

void supervisor_prepare(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    raise_descriptors();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
}

static int drop_failed(const struct supervisor_program *p, const char *user, const char *what)
{
    fprintf(stderr, "%s: cannot become user '%s': %s: %s\n", p->name, user, what, strerror(errno));
    return SUPERVISOR_NO_PERMISSION;
}

static int become(const struct supervisor_program *p, const char *user)
{
    errno = 0;
    const struct passwd *pw = getpwnam(user);
    if (pw == NULL || pw->pw_uid == 0) {
        fprintf(stderr, "%s: cannot become user '%s': %s\n", p->name, user,
                pw      ? "that is root"
                : errno ? strerror(errno)
                        : "no such user");
        return SUPERVISOR_BAD_CONFIG;
    }
    uid_t uid = pw->pw_uid;
    gid_t gid = pw->pw_gid;
    if (setgroups(1, &gid) != 0)
        return drop_failed(p, user, "setgroups");
    if (setgid(gid) != 0)
        return drop_failed(p, user, "setgid");
    if (setuid(uid) != 0)
        return drop_failed(p, user, "setuid");
    if (setuid(0) == 0) {
        errno = EPERM;
        return drop_failed(p, user, "the way back is open");
    }
    return SUPERVISOR_OK;
}

int supervisor_drop(const struct supervisor_program *p, const char *user)
{
    int code = geteuid() == 0 && has_user(user) ? become(p, user) : SUPERVISOR_OK;
    if (code != SUPERVISOR_OK)
        return code;
    /* setuid makes the process dumpable again. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        fprintf(stderr, "%s: cannot give up privileges: %s\n", p->name, strerror(errno));
        return SUPERVISOR_SYSTEM;
    }
    return SUPERVISOR_OK;
}

/* ---- service manager ------------------------------------------------------------------------- */

bool supervisor_notify(const char *message)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof sa.sun_path || (path[0] != '/' && path[0] != '@'))
        return false;
    memcpy(sa.sun_path, path, n);
    if (path[0] == '@')
        sa.sun_path[0] = '\0'; /* an abstract name, as long as it is written */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    ssize_t sent = sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&sa,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
    return sent >= 0;
}

static void notify_reloading(void)
{
    struct timespec t;
    char text[64];
    clock_gettime(CLOCK_MONOTONIC, &t);
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_nsec / 1000);
    supervisor_notify(text);
}

static void on_watchdog(struct timer *t)
{
    struct supervisor *s = CONTAINER_OF(t, struct supervisor, watchdog);
    supervisor_notify("WATCHDOG=1");
    loop_timer_set(s->loop, &s->watchdog, s->watchdog_ms);
}

/* Half of what the manager waits; a time for another process is none of ours. */
static uint64_t watchdog_interval(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (usec == NULL || (pid != NULL && strtoll(pid, NULL, 10) != (long long)getpid()))
        return 0;
    char *end;
    unsigned long long v = strtoull(usec, &end, 10);
    return *end == '\0' && end != usec ? v / 2000 : 0;
}

/* ---- signals --------------------------------------------------------------------------------- */

bool supervisor_reload(struct supervisor *s)
{
    if (s->draining)
        return false;
    notify_reloading();
    bool ok = s->ops->reload(s->arg);
    supervisor_notify(ok ? "READY=1\nSTATUS=running" : "READY=1\nSTATUS=the last reload failed");
    return ok;
}

void supervisor_drain(struct supervisor *s)
{
    if (s->draining) {
        s->ops->stop(s->arg);
        return;
    }
    s->draining = true;
    supervisor_notify("STOPPING=1\nSTATUS=draining");
    s->ops->drain(s->arg);
}

void supervisor_end(struct supervisor *s)
{
    s->draining = true;
    supervisor_notify("STOPPING=1\nSTATUS=stopping");
    s->ops->stop(s->arg);
}

static void on_signal(uv_signal_t *h, int number)
{
    struct supervisor *s = h->data;
    if (!s->running)
        return;
    switch (number) {
    case SIGTERM:
    case SIGINT:
        supervisor_drain(s);
        break;
    case SIGHUP:
        supervisor_reload(s);
        break;
    case SIGUSR2:
        if (s->ops->dump != NULL)
            s->ops->dump(s->arg);
        break;
    default:
        break;
    }
}

static bool start_signal(struct supervisor *s, int number)
{
    uv_signal_t *h = &s->signals[s->nsignals];
    if (uv_signal_init(s->loop->uv, h) != 0)
        return false;
    s->nsignals++; /* from here on it has to be closed */
    h->data = s;
    return uv_signal_start(h, on_signal, number) == 0;
}

bool supervisor_start(struct supervisor *s, struct loop *l, const struct supervisor_ops *ops,
                      void *arg)
{
    static const int numbers[SUPERVISOR_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};
    *s = (struct supervisor){.loop = l, .ops = ops, .arg = arg, .running = true};
    s->watchdog.fire = on_watchdog;
    s->watchdog_ms = watchdog_interval();
    bool ok = s->watchdog_ms == 0 || loop_timer_set(l, &s->watchdog, s->watchdog_ms);
    for (size_t i = 0; ok && i < SUPERVISOR_SIGNALS; i++)
        ok = start_signal(s, numbers[i]);
    if (!ok)
        supervisor_stop(s);
    return ok;
}

void supervisor_ready(struct supervisor *s)
{
    (void)s;
    supervisor_notify("READY=1\nSTATUS=running");
}

void supervisor_stop(struct supervisor *s)
{
    if (!s->running)
        return;
    s->running = false;
    loop_timer_clear(s->loop, &s->watchdog);
    for (size_t i = 0; i < s->nsignals; i++)
        uv_close((uv_handle_t *)&s->signals[i], NULL);
}
