/* What every program of ours offers on its control socket in the same way: alarms, events, the
 * configuration, log level, identities, the end. Each program adds its own commands and hands over
 * what these need.
 *
 * Embedded in the program; one thread. Order of life: operate_open after what it borrows is there,
 * operate_close before any of that goes. */
#ifndef CORE_DAEMON_OPERATE_H
#define CORE_DAEMON_OPERATE_H

#include "config/control.h"
#include "config/diff.h"
#include "config/schema.h"
#include "core/daemon/alarm.h"
#include "core/daemon/supervisor.h"
#include "core/net/control.h"
#include "core/tls/tls_ctx.h"

/* The configuration of the program; `arg` is the operate's. */
struct operate_config {
    const struct schema *schema;
    const void *(*current)(void *arg);
    void *(*load)(const char *file, struct buf *errors); /* NULL: `errors` */
    void (*unref)(void *config);
    /* From what runs to `b`, with the effects of each change. */
    size_t (*diff)(void *arg, const void *b,
                   void (*each)(void *each_arg, const struct config_change *), void *each_arg);
};

enum { OPERATE_PENDING_MAX = 64 };

struct operate {
    struct control *socket; /* NULL: none */
    struct loop *loop;
    struct log *log;
    struct log_ctx ctx;
    struct story *story;
    struct alarms *alarms;
    struct supervisor *supervisor;
    const struct operate_config *config;
    const char *file; /* the configuration's */
    void *arg;
    uint64_t started_ms;
    struct control_call *reloading; /* hears of the changes; NULL: nobody asked here */
    struct list followers;
    struct list pending; /* settings that wait for a restart, with what runs now */
};

/* Opens the socket that `c` wants, if any. False: it has to be there and cannot; `why` says why. A
 * default path that cannot be had is only logged. */
bool operate_open(struct operate *o, const struct cfg_control *c, const char *owner,
                  const struct command_set *commands, void (*const *run)(struct control_call *call),
                  void *run_arg, char why[CONTROL_WHY_MAX]);
void operate_close(struct operate *o);
/* At start and after each reload: who may do what, and the file of events. */
void operate_adopt(struct operate *o, const struct cfg_control *c, const char *events_file);

/* For the program's reload, whoever asked for it: each change, and why it was refused. */
void operate_changed(struct operate *o, const struct config_change *c);
void operate_rejected(struct operate *o, const struct buf *errors);

/* ---- commands -------------------------------------------------------------------------------- */

/* Members of the "ok" object that every status begins with. */
void operate_status(struct operate *o, struct control_call *call, const char *program);
void operate_alarms(struct operate *o, struct control_call *call);
void operate_events(struct operate *o, struct control_call *call);
void operate_config_show(struct operate *o, struct control_call *call);
void operate_config_check(struct operate *o, struct control_call *call);
void operate_config_reload(struct operate *o, struct control_call *call);
void operate_log_level(struct operate *o, struct control_call *call);
void operate_drain(struct operate *o, struct control_call *call);
void operate_stop(struct operate *o, struct control_call *call);
/* A row of "identities": what others have to know of one of ours. */
void operate_identity(struct control_call *call, const char *what, const char *name,
                      const struct tls_identity *id);
/* An event of kind "operator": who did it, and what. */
void operate_tell(struct operate *o, const struct control_call *call, const char *subject,
                  const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
