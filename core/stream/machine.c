#include "core/stream/machine.h"

#include "core/stream/stream.h"

const char *end_reason_name(enum end_reason r)
{
    static const char *const names[] = {
#define X(id, name) name,
        END_REASONS(X)
#undef X
    };
    return names[r];
}

const char *gw_event_name(enum gw_ev ev)
{
    static const char *const names[] = {
#define X(id) #id,
        GW_EVENTS(X)
#undef X
    };
    return names[ev];
}

const char *gw_action_name(enum gw_act act)
{
    static const char *const names[] = {
#define X(id) #id,
        GW_ACTIONS(X)
#undef X
    };
    return names[act];
}

const char *gw_timer_name(enum gw_timer t)
{
    static const char *const names[] = {
#define X(id) #id,
        GW_TIMERS(X)
#undef X
    };
    return names[t];
}

const char *verdict_name(enum verdict v)
{
    switch (v) {
    case VERDICT_VALID:
        return "valid";
    case VERDICT_INVALID:
        return "invalid";
    case VERDICT_NOT_FOUND:
        return "remote-server-not-found";
    case VERDICT_TIMEOUT:
        return "remote-server-timeout";
    case VERDICT_BUSY:
        return "resource-constraint";
    }
    return "?";
}

void gw_actions_init(struct gw_actions *a)
{
    a->n = 0;
    a->overflow = false;
    buf_init(&a->text, GW_TEXT_MAX);
    a->local.ascii[0] = a->local.wire[0] = a->remote.ascii[0] = a->remote.wire[0] = '\0';
}

void gw_actions_free(struct gw_actions *a)
{
    buf_free(&a->text);
}

struct gw_action *gw_act(struct gw_actions *a, enum gw_act kind)
{
    if (a->n == GW_ACTIONS_MAX) {
        a->overflow = true;
        a->n--; /* the last one is overwritten; the session ends anyway */
    }
    struct gw_action *act = &a->v[a->n++];
    memset(act, 0, sizeof *act);
    act->kind = kind;
    return act;
}

size_t gw_send_begin(struct gw_actions *a)
{
    return a->text.len;
}

void gw_send_end(struct gw_actions *a, size_t begin)
{
    if (a->text.failed)
        a->overflow = true;
    struct gw_action *act = gw_act(a, ACT_SEND);
    act->u.text.off = begin;
    act->u.text.len = a->text.len - begin;
}

void gw_send(struct gw_actions *a, const char *text)
{
    size_t begin = gw_send_begin(a);
    buf_puts(&a->text, text);
    gw_send_end(a, begin);
}

struct str gw_text(const struct gw_actions *a, const struct gw_action *act)
{
    return (struct str){a->text.p ? a->text.p + act->u.text.off : "", act->u.text.len};
}

void gw_timer_set(struct gw_actions *a, enum gw_timer id, uint64_t ms)
{
    struct gw_action *act = gw_act(a, ACT_TIMER_SET);
    act->u.timer.id = id;
    act->u.timer.ms = ms;
}

void gw_timer_clear(struct gw_actions *a, enum gw_timer id)
{
    gw_act(a, ACT_TIMER_CLEAR)->u.timer.id = id;
}

void gw_close(struct gw_actions *a, enum end_reason reason, bool abort)
{
    struct gw_action *act = gw_act(a, ACT_CLOSE);
    act->u.close.reason = reason;
    act->u.close.abort = abort;
}

void gw_send_error(struct gw_actions *a, const char *condition, const char *text,
                   enum log_level level, const char *event)
{
    size_t begin = gw_send_begin(a);
    stream_write_error(&a->text, condition, text);
    gw_send_end(a, begin);
    gw_log(a, level, event, KV_C("reason", condition), KV_C("msg", text));
}

void gw_log_kv(struct gw_actions *a, enum log_level level, const char *event, const struct kv *kv,
               size_t n)
{
    struct gw_action *act = gw_act(a, ACT_LOG);
    act->u.log.level = level;
    act->u.log.event = event;
    act->u.log.n = n < GW_ACTION_KV ? (unsigned)n : GW_ACTION_KV;
    memcpy(act->u.log.kv, kv, act->u.log.n * sizeof *kv);
}
