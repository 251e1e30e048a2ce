#include "core/daemon/alarm.h"

#include <time.h>

#include "core/base/datetime.h"
#include "core/base/mem.h"

void alarms_init(struct alarms *a, const struct log_ctx *log)
{
    *a = (struct alarms){.log = *log};
}

static void forget(struct alarm *al)
{
    list_remove(&al->node);
    mem_free(al);
}

void alarms_free(struct alarms *a)
{
    while (a->list.first != NULL)
        forget(CONTAINER_OF(a->list.first, struct alarm, node));
}

/* A subject that was cut when it was kept is cut when it is looked for. */
static struct alarm *find(const struct alarms *a, const char *kind, const char *subject)
{
    char cut[ALARM_SUBJECT_MAX];
    str_copy(cut, sizeof cut, str_c(subject));
    LIST_FOREACH (&a->list, n, following) {
        struct alarm *al = CONTAINER_OF(n, struct alarm, node);
        if (strcmp(al->kind, kind) == 0 && strcmp(al->subject, cut) == 0)
            return al;
    }
    return NULL;
}

static struct alarm *add(struct alarms *a, const char *kind, const char *subject, uint64_t now_ms)
{
    struct alarm *al = a->list.count < ALARMS_MAX ? mem_zalloc(sizeof *al) : NULL;
    if (al == NULL)
        return NULL;
    al->kind = kind;
    str_copy(al->subject, sizeof al->subject, str_c(subject));
    al->first_ms = now_ms;
    al->first_at = time(NULL);
    list_append(&a->list, &al->node);
    return al;
}

void alarm_raise(struct alarms *a, const char *kind, const char *subject, const char *text,
                 uint64_t now_ms)
{
    struct alarm *al = find(a, kind, subject);
    if (al == NULL) {
        log_ev(&a->log, LOG_WARN, "alarm.raised", KV_C("kind", kind), KV_C("subject", subject),
               KV_C("msg", text));
        if (a->story != NULL)
            story_tell(a->story, "alarm.raised", subject, "%s: %s", kind, text);
        al = add(a, kind, subject, now_ms);
    }
    if (al == NULL)
        return;
    str_copy(al->text, sizeof al->text, str_c(text));
    al->count++;
    al->last_ms = now_ms;
    al->last_at = time(NULL);
}

static void clear(struct alarms *a, struct alarm *al, uint64_t now_ms)
{
    log_ev(&a->log, LOG_NOTICE, "alarm.cleared", KV_C("kind", al->kind),
           KV_C("subject", al->subject), KV_I("count", al->count),
           KV_SEC("after", now_ms - al->first_ms));
    if (a->story != NULL)
        story_tell(a->story, "alarm.cleared", al->subject, "%s: it works again", al->kind);
    forget(al);
}

bool alarm_clear(struct alarms *a, const char *kind, const char *subject, uint64_t now_ms)
{
    struct alarm *al = find(a, kind, subject);
    if (al != NULL)
        clear(a, al, now_ms);
    return al != NULL;
}

void alarm_clear_all(struct alarms *a, const char *prefix, const char *subject, uint64_t now_ms)
{
    char cut[ALARM_SUBJECT_MAX];
    str_copy(cut, sizeof cut, str_c(subject));
    LIST_FOREACH (&a->list, n, following) {
        struct alarm *al = CONTAINER_OF(n, struct alarm, node);
        if (str_starts(str_c(al->kind), prefix) && strcmp(al->subject, cut) == 0)
            clear(a, al, now_ms);
    }
}

void alarm_clear_kind(struct alarms *a, const char *kind, uint64_t now_ms)
{
    LIST_FOREACH (&a->list, n, following) {
        struct alarm *al = CONTAINER_OF(n, struct alarm, node);
        if (strcmp(al->kind, kind) == 0)
            clear(a, al, now_ms);
    }
}

void alarms_dump(const struct alarms *a)
{
    LIST_FOREACH (&a->list, n, following) {
        const struct alarm *al = CONTAINER_OF(n, struct alarm, node);
        char first[DATETIME_TEXT], last[DATETIME_TEXT];
        log_ev(&a->log, LOG_NOTICE, "alarm.standing", KV_C("kind", al->kind),
               KV_C("subject", al->subject), KV_I("count", al->count),
               KV_C("first", datetime_text(al->first_at * 1000, first)),
               KV_C("last", datetime_text(al->last_at * 1000, last)), KV_C("msg", al->text));
    }
}
