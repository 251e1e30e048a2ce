/* Alarms: what is wrong now, raised and cleared by the code that sees it.
 *
 * An alarm is identified by its kind (a stable word, "link.password") and its subject (whom or what
 * it concerns: a link's name, a domain). Raising it again counts and renews its text; the first
 * time is a log line alarm.raised, further ones are counted without a line of their own. The next
 * success clears it: a log line alarm.cleared with how often and how long. What nobody clears stays
 * until the end. At most ALARMS_MAX are kept; what does not fit is logged all the same.
 *
 * Pure but for the log. One thread. */
#ifndef CORE_DAEMON_ALARM_H
#define CORE_DAEMON_ALARM_H

#include "core/base/list.h"
#include "core/base/log.h"
#include "core/daemon/story.h"

enum { ALARMS_MAX = 256, ALARM_SUBJECT_MAX = 256, ALARM_TEXT_MAX = 200 };

struct alarm {
    struct list_node node;
    const char *kind; /* static */
    char subject[ALARM_SUBJECT_MAX];
    char text[ALARM_TEXT_MAX]; /* of the last time, for people */
    uint64_t count;
    uint64_t first_ms, last_ms; /* of the caller's monotonic clock */
    int64_t first_at, last_at;  /* seconds since 1970, for people */
};

struct alarms {
    struct list list; /* struct alarm, oldest first */
    struct log_ctx log;
    struct story *story; /* hears of what is raised and cleared; NULL: none. Set by the owner. */
};

void alarms_init(struct alarms *a, const struct log_ctx *log);
void alarms_free(struct alarms *a);
void alarm_raise(struct alarms *a, const char *kind, const char *subject, const char *text,
                 uint64_t now_ms);
/* False: there was none. */
bool alarm_clear(struct alarms *a, const char *kind, const char *subject, uint64_t now_ms);
/* Clears all kinds that begin with `prefix` for this subject ("link." after a success). */
void alarm_clear_all(struct alarms *a, const char *prefix, const char *subject, uint64_t now_ms);
/* Clears this kind for all subjects. */
void alarm_clear_kind(struct alarms *a, const char *kind, uint64_t now_ms);
/* One log line per alarm that stands: alarm.standing kind= subject= count= first= last= msg=. */
void alarms_dump(const struct alarms *a);

#endif
