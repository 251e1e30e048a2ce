/* What every program of ours does the same way around its own work: command line, exit codes,
 * privileges, signals, service manager.
 *
 * Story of a main file:
 *
 *     struct supervisor_options o;
 *     int code;
 *     if (!supervisor_parse(&program, argc, argv, &o, &code))
 *         return code;                            // --help, --version, a wrong option
 *     cfg = load(o.config);                       // NULL: supervisor_config_exit(o.config)
 *     if (o.check) { ...; return SUPERVISOR_OK; }
 *     if ((code = supervisor_check_root(&program, &o, cfg->user)) != SUPERVISOR_OK) return code;
 *     supervisor_prepare();
 *     loop_init(...); bind the listeners;
 *     if ((code = supervisor_drop(&program, cfg->user)) != SUPERVISOR_OK) return code;
 *     supervisor_start(&s, &loop, &ops, arg);     // from here on signals arrive as calls
 *     supervisor_ready(&s);
 *     loop_run(&loop);                            // the program ends it by loop_stop
 *     supervisor_stop(&s);
 *     loop_close(&loop);
 *
 * Signals: TERM and INT first ask for an orderly end (ops->drain), the second time for an end now
 * (ops->stop); HUP reloads; USR2 dumps the state to the log; USR1 and PIPE are ignored. All calls
 * come on the loop's thread. The service manager is told READY, RELOADING, STOPPING and, when it
 * asks for that, WATCHDOG through $NOTIFY_SOCKET (sd_notify(3)), without its library. */
#ifndef CORE_DAEMON_SUPERVISOR_H
#define CORE_DAEMON_SUPERVISOR_H

#include "core/net/loop.h"

/* Exit codes; those from 64 on are those of sysexits.h. */
#define SUPERVISOR_EXITS(X)                                                                        \
    X(OK, 0)                                                                                       \
    X(FAILED, 1) /* at run time */                                                                 \
    X(USAGE, 64)                                                                                   \
    X(NO_CONFIG, 66)   /* the configuration file does not exist */                                 \
    X(UNAVAILABLE, 69) /* cannot listen */                                                         \
    X(SYSTEM, 71)      /* a limit of the system */                                                 \
    X(NO_PERMISSION, 77)                                                                           \
    X(BAD_CONFIG, 78)

enum supervisor_exit {
#define X(id, code) SUPERVISOR_##id = (code),
    SUPERVISOR_EXITS(X)
#undef X
};

struct supervisor_library {
    const char *name, *version;
};

/* Describes a program; static data. */
struct supervisor_program {
    const char *name;           /* "sallyport" */
    const char *summary;        /* one line for --help */
    const char *default_config; /* "/etc/sallyport/sallyport.conf" */
    const char *version;
    /* For --version; ends with a NULL name. Called only then. */
    void (*libraries)(struct supervisor_library out[8]);
};

struct supervisor_options {
    const char *config; /* of argv, or the default */
    bool check;         /* -t, -T: check the configuration and end */
    bool show;          /* -T: print it, too */
    bool auth_info;     /* print the identities of the links and end */
    bool allow_root;
    int log_level; /* enum log_level; -1: that of the configuration */
};

/* Reads the command line. False: the program ends with *code; everything has been printed. */
bool supervisor_parse(const struct supervisor_program *p, int argc, char **argv,
                      struct supervisor_options *out, int *code);

/* The exit code for a configuration that could not be loaded: missing, not readable, or wrong. */
int supervisor_config_exit(const char *file);

/* As root only with --allow-root or with a user to become. Prints why not. */
int supervisor_check_root(const struct supervisor_program *p, const struct supervisor_options *o,
                          const char *user);

/* Before anything is opened: no core dumps and no tracing (secrets), as many descriptors as the
 * hard limit allows, SIGPIPE and SIGUSR1 ignored. */
void supervisor_prepare(void);

/* After binding: becomes `user` when started as root (NULL or "": stays), gives up all other groups
 * and every way back to privileges. Prints what failed. */
int supervisor_drop(const struct supervisor_program *p, const char *user);

struct supervisor_ops {
    bool (*reload)(void *arg); /* false: failed, the old configuration stays */
    void (*drain)(void *arg);  /* end in good order, then loop_stop */
    void (*stop)(void *arg);   /* end now */
    void (*dump)(void *arg);   /* state to the log; NULL: not offered */
};

enum { SUPERVISOR_SIGNALS = 4 };

/* Embedded in the program; owned by it; one thread. It must live until loop_close. */
struct supervisor {
    struct loop *loop;
    const struct supervisor_ops *ops;
    void *arg;
    uv_signal_t signals[SUPERVISOR_SIGNALS]; /* they keep the loop alive */
    size_t nsignals;
    struct timer watchdog;
    uint64_t watchdog_ms; /* 0: none asked for */
    bool draining, running;
};

/* False: no descriptors left for the signals; nothing has been started then. */
bool supervisor_start(struct supervisor *s, struct loop *l, const struct supervisor_ops *ops,
                      void *arg);
void supervisor_ready(struct supervisor *s);
/* What a signal does, for a control socket that offers the same. */
bool supervisor_reload(struct supervisor *s);
void supervisor_drain(struct supervisor *s);
void supervisor_end(struct supervisor *s); /* now: what TERM does the second time */
/* Closes its handles; loop_close waits for them. */
void supervisor_stop(struct supervisor *s);

/* One datagram for the service manager, "READY=1"; false: there is none, or it does not listen. */
bool supervisor_notify(const char *message);

#endif
