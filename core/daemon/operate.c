#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include "core/daemon/operate.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/datetime.h"
#include "core/base/mem.h"

enum { TEXT_MAX = 512 * 1024, KEY_MAX = 320 };

/* ---- life ------------------------------------------------------------------------------------ */

bool operate_open(struct operate *o, const struct cfg_control *c, const char *owner,
                  const struct command_set *commands, void (*const *run)(struct control_call *call),
                  void *run_arg, char why[CONTROL_WHY_MAX])
{
    struct control_options opt = {.path = c->socket,
                                  .mode = (unsigned)c->mode,
                                  .group = c->group,
                                  .owner = owner,
                                  .commands = commands,
                                  .run = run,
                                  .arg = run_arg};
    o->started_ms = loop_now(o->loop);
    if (c->socket == NULL)
        return true;
    o->socket = control_new(o->loop, &opt, why);
    if (o->socket != NULL)
        return true;
    if (!schema_is_default(o->config->schema, o->config->current(o->arg), "control.socket"))
        return false;
    log_ev(&o->ctx, LOG_WARN, "control.none", KV_C("msg", why));
    return true;
}

struct follower {
    struct list_node node;
    struct control_call *call;
};

struct pending {
    struct list_node node;
    char key[KEY_MAX];
    char *running;
};

static void forget_pending(struct pending *p)
{
    list_remove(&p->node);
    mem_free(p->running);
    mem_free(p);
}

void operate_close(struct operate *o)
{
    control_close(o->socket);
    o->socket = NULL;
    if (o->story != NULL)
        o->story->listen = NULL;
    while (o->pending.first != NULL)
        forget_pending(CONTAINER_OF(o->pending.first, struct pending, node));
}

/* Lines, each to the log as a warning. */
static void warn_lines(const struct operate *o, const struct buf *lines)
{
    struct str rest = buf_view(lines);
    while (rest.n > 0) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end != NULL ? (size_t)(end - rest.p) : rest.n;
        log_ev(&o->ctx, LOG_WARN, "config.warning", KV_S("msg", ((struct str){rest.p, n})));
        n += end != NULL;
        rest = (struct str){rest.p + n, rest.n - n};
    }
}

void operate_adopt(struct operate *o, const struct cfg_control *c, const char *events_file)
{
    struct buf problems = BUF_INIT(65536);
    if (o->socket != NULL)
        control_set_users(o->socket, c->operate, c->noperate, c->admin, c->nadmin, &problems);
    if (!story_file(o->story, events_file))
        buf_printf(&problems, "events.file: %s: %s\n", events_file, strerror(errno));
    warn_lines(o, &problems);
    buf_free(&problems);
}

void operate_tell(struct operate *o, const struct control_call *call, const char *subject,
                  const char *fmt, ...)
{
    char text[STORY_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    story_tell(o->story, "operator", subject, "%s (uid %u)", text, (unsigned)call->uid);
}

/* ---- status, alarms -------------------------------------------------------------------------- */

void operate_status(struct operate *o, struct control_call *call, const char *program)
{
    struct json *j = &call->json;
    json_c(j, "program", program);
    json_c(j, "version", SALLYPORT_VERSION);
    json_int(j, "pid", getpid());
    json_seconds(j, "uptime", (int64_t)(loop_now(o->loop) - o->started_ms));
    json_c(j, "state", o->supervisor->draining ? "draining" : "running");
    json_c(j, "config", o->file);
    json_int(j, "alarms", (int64_t)o->alarms->list.count);
    json_c(j, "log_level", log_level_name(log_level_of(o->log)));
    json_int(j, "log_lines_dropped", (int64_t)log_lines_dropped(o->log));
}

void operate_alarms(struct operate *o, struct control_call *call)
{
    control_rows(call, "alarms");
    LIST_FOREACH (&o->alarms->list, n, following) {
        const struct alarm *al = CONTAINER_OF(n, const struct alarm, node);
        char first[DATETIME_TEXT], last[DATETIME_TEXT];
        const struct kv kv[] = {KV_C("kind", al->kind),
                                KV_C("subject", al->subject),
                                KV_I("count", al->count),
                                KV_C("first", datetime_text(al->first_at * 1000, first)),
                                KV_C("last", datetime_text(al->last_at * 1000, last)),
                                KV_C("text", al->text)};
        control_row(call, kv, sizeof kv / sizeof kv[0]);
    }
    control_rows_end(call);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void put_event(struct control_call *call, const struct story_event *e)
{
    char at[DATETIME_TEXT];
    const struct kv kv[] = {KV_I("id", e->id),       KV_C("time", datetime_text(e->at, at)),
                            KV_C("kind", e->kind),   KV_C("subject", e->subject),
                            KV_I("count", e->count), KV_C("text", e->text)};
    control_row(call, kv, sizeof kv / sizeof kv[0]);
}

static void on_told(void *arg, const struct story_event *e)
{
    struct operate *o = arg;
    struct buf line = BUF_INIT(8192);
    story_json(e, &line);
    LIST_FOREACH (&o->followers, n, following)
        if (!line.failed)
            control_say(CONTAINER_OF(n, struct follower, node)->call, buf_view(&line));
    buf_free(&line);
}

static void unfollow(struct control_call *call)
{
    struct follower *f = call->data;
    list_remove(&f->node);
    mem_free(f);
}

static void follow(struct operate *o, struct control_call *call)
{
    struct follower *f = mem_zalloc(sizeof *f);
    if (f == NULL) {
        control_fail(call, CONTROL_FAILED, "out of memory");
        return;
    }
    f->call = call;
    call->data = f;
    list_append(&o->followers, &f->node);
    o->story->listen = on_told;
    o->story->arg = o;
    control_follow(call, unfollow);
}

void operate_events(struct operate *o, struct control_call *call)
{
    control_rows(call, "events");
    for (uint64_t id = story_first(o->story); id != 0 && id <= o->story->told; id++) {
        const struct story_event *e = story_event(o->story, id);
        if (e != NULL)
            put_event(call, e);
    }
    control_rows_end(call);
    if (call->request->argc > 0)
        follow(o, call);
}

/* ---- configuration --------------------------------------------------------------------------- */

/* "key = value;  # origin" */
static void put_setting(struct control_call *call, struct str line, const char *prefix)
{
    const char *equals = memmem(line.p, line.n, " = ", 3);
    if (equals == NULL || !str_starts(line, prefix))
        return;
    struct str key = {line.p, (size_t)(equals - line.p)};
    struct str value = {equals + 3, line.n - key.n - 3}, origin = STR_NONE;
    for (size_t i = value.n; i-- > 0 && origin.p == NULL;) {
        struct str tail = {value.p + i, value.n - i};
        if (str_starts(tail, ";  # ")) {
            origin = (struct str){tail.p + 5, tail.n - 5};
            value.n = i;
        }
    }
    const struct kv kv[] = {KV_S("key", key), KV_S("value", value), KV_S("origin", origin)};
    control_row(call, kv, sizeof kv / sizeof kv[0]);
}

/* Calls `each` for every line of a text. */
static void for_lines(struct control_call *call, struct str text, const char *arg,
                      void (*each)(struct control_call *call, struct str line, const char *arg))
{
    while (text.n > 0) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t n = end != NULL ? (size_t)(end - text.p) : text.n;
        each(call, (struct str){text.p, n}, arg);
        n += end != NULL;
        text = (struct str){text.p + n, text.n - n};
    }
}

void operate_config_show(struct operate *o, struct control_call *call)
{
    struct buf text = BUF_INIT(16 * TEXT_MAX);
    const char *prefix = call->request->argc > 0 ? call->request->argv[0] : "";
    schema_show(o->config->schema, o->config->current(o->arg), &text);
    control_rows(call, "settings");
    for_lines(call, buf_view(&text), prefix, put_setting);
    control_rows_end(call);
    buf_free(&text);
}

static void put_change(void *arg, const struct config_change *c)
{
    const struct kv kv[] = {KV_C("key", c->key), KV_S("old", c->old), KV_S("new", c->new_),
                            KV_C("restart", c->restart ? "needed" : "no"),
                            KV_S("effect", c->effect)};
    control_row(arg, kv, sizeof kv / sizeof kv[0]);
}

/* All of it, for people; the first line is what an error shows when there is no room for more. */
static void refuse_config(struct control_call *call, const struct buf *errors)
{
    size_t n = errors->len;
    while (n > 0 && errors->p[n - 1] == '\n')
        n--;
    control_fail(call, CONTROL_CONFIG, "%.*s", (int)(n < COMMAND_TEXT_MAX ? n : COMMAND_TEXT_MAX),
                 n ? errors->p : "the configuration cannot be used; the log says why");
}

static void put_line(struct control_call *call, struct str line, const char *arg)
{
    (void)arg;
    json_str(&call->json, NULL, line);
}

/* At start a configuration may come through a pipe; here one that nobody writes to would hold up
 * everything. */
static void *load_regular(const struct operate *o, const char *file, struct buf *errors)
{
    struct stat st;
    if (stat(file, &st) == 0 && !S_ISREG(st.st_mode)) {
        buf_printf(errors, "%s: not a regular file\n", file);
        return NULL;
    }
    return o->config->load(file, errors);
}

/* What a file would change. Errors are a list, all of them, in a reply that is no error: the
 * command has done what it was asked to. */
void operate_config_check(struct operate *o, struct control_call *call)
{
    const char *file = call->request->argv[0];
    struct buf errors = BUF_INIT(TEXT_MAX);
    void *config = load_regular(o, file, &errors);
    json_c(&call->json, "file", file);
    json_bool(&call->json, "fine", config != NULL);
    if (config != NULL) {
        control_rows(call, "changes");
        o->config->diff(o->arg, config, put_change, call);
        control_rows_end(call);
        o->config->unref(config);
    }
    json_array(&call->json, "problems");
    for_lines(call, buf_view(&errors), NULL, put_line);
    json_end(&call->json);
    buf_free(&errors);
}

static struct pending *find_pending(const struct operate *o, const char *key)
{
    LIST_FOREACH (&o->pending, n, following) {
        struct pending *p = CONTAINER_OF(n, struct pending, node);
        if (strcmp(p->key, key) == 0)
            return p;
    }
    return NULL;
}

/* An alarm stands from the change until the restart, or until the setting is what runs again. */
static void note_restart(struct operate *o, const struct config_change *c)
{
    struct pending *p = find_pending(o, c->key);
    uint64_t now = loop_now(o->loop);
    if (p != NULL && str_is(c->new_, p->running)) {
        alarm_clear(o->alarms, "config.restart", c->key, now);
        forget_pending(p);
        return;
    }
    alarm_raise(o->alarms, "config.restart", c->key, "the new value takes effect after a restart",
                now);
    p = p == NULL && o->pending.count < OPERATE_PENDING_MAX ? mem_zalloc(sizeof *p) : NULL;
    if (p == NULL)
        return;
    str_copy(p->key, sizeof p->key, str_c(c->key));
    p->running = mem_strndup(c->old);
    if (p->running == NULL)
        mem_free(p);
    else
        list_append(&o->pending, &p->node);
}

void operate_changed(struct operate *o, const struct config_change *c)
{
    if (c->restart)
        note_restart(o, c);
    if (o->reloading != NULL)
        put_change(o->reloading, c);
}

void operate_rejected(struct operate *o, const struct buf *errors)
{
    story_tell(o->story, "config.rejected", "", "%s was refused: the old configuration stays",
               o->file);
    if (o->reloading != NULL)
        refuse_config(o->reloading, errors);
}

void operate_config_reload(struct operate *o, struct control_call *call)
{
    if (o->supervisor->draining) {
        control_fail(call, CONTROL_FAILED, "it is about to end");
        return;
    }
    json_c(&call->json, "file", o->file);
    control_rows(call, "changes");
    o->reloading = call;
    bool ok = supervisor_reload(o->supervisor);
    o->reloading = NULL;
    control_rows_end(call);
    if (!ok && call->error == CONTROL_NONE)
        control_fail(call, CONTROL_CONFIG, "the reload failed; the log says why");
}

/* ---- the rest -------------------------------------------------------------------------------- */

void operate_log_level(struct operate *o, struct control_call *call)
{
    const struct command_request *r = call->request;
    const char *module = r->argc > 1 ? r->argv[0] : NULL;
    enum log_level level;
    if (!log_level_parse(str_c(r->argv[r->argc - 1]), &level)) {
        control_fail(call, CONTROL_USAGE,
                     "no such level: error, warn, notice, info, debug or trace");
        return;
    }
    if (module == NULL)
        log_set_level(o->log, level);
    else if (!log_set_module(o->log, module, level)) {
        control_fail(call, CONTROL_FAILED, "no module's name, or too many of them");
        return;
    }
    json_c(&call->json, "module", module != NULL ? module : "(all)");
    json_c(&call->json, "level", log_level_name(level));
}

void operate_drain(struct operate *o, struct control_call *call)
{
    json_c(&call->json, "state", "draining");
    if (o->supervisor->draining)
        return;
    operate_tell(o, call, "", "it ends in good order");
    supervisor_drain(o->supervisor);
}

void operate_stop(struct operate *o, struct control_call *call)
{
    json_c(&call->json, "state", "stopping");
    operate_tell(o, call, "", "it ends now");
    supervisor_end(o->supervisor);
}

/* ---- identities ------------------------------------------------------------------------------ */

/* "key: value" */
static void put_fact(struct control_call *call, struct str line, const char *arg)
{
    (void)arg;
    const char *colon = memmem(line.p, line.n, ": ", 2);
    if (colon == NULL)
        return;
    struct str key = {line.p, (size_t)(colon - line.p)};
    char name[64];
    if (str_copy(name, sizeof name, str_trim(key)))
        json_str(&call->json, name, str_trim((struct str){colon + 2, line.n - key.n - 2}));
}

void operate_identity(struct control_call *call, const char *what, const char *name,
                      const struct tls_identity *id)
{
    struct buf text = BUF_INIT(65536), errors = BUF_INIT(65536);
    json_object(&call->json, NULL);
    json_c(&call->json, "of", what);
    json_c(&call->json, "id", name);
    if (id->certificate == NULL)
        json_c(&call->json, "proof",
               strcmp(what, "domain") == 0 ? "a self-signed certificate, made at start"
                                           : "no certificate: by password only");
    else
        json_c(&call->json, "file", id->certificate);
    if (id->certificate != NULL && !tls_identity_describe(id, &text, &errors))
        json_str(&call->json, "problem", str_trim(buf_view(&errors)));
    for_lines(call, buf_view(&text), NULL, put_fact);
    json_end(&call->json);
    buf_free(&text);
    buf_free(&errors);
}
