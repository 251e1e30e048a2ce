/* Clients of the control socket and their requests. A client waits in `waiting` while a whole line
 * of it has not been served; one task serves one request per turn. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* struct ucred */
#endif
#include "core/net/control_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/mem.h"

enum {
    OUT_MAX = CONTROL_REPLY_MAX + 4096,
    PAGE = CONTROL_REPLY_MAX - 64 * 1024, /* no row is added above it */
    REST_FACTOR = 3,
};

static void on_poll(uv_poll_t *p, int status, int events);
static void serve_next(struct control *c);

/* ---- life of a client ------------------------------------------------------------------------ */

static void on_closed(uv_handle_t *h)
{
    struct control_client *cl = h->data;
    close(cl->fd);
    buf_free(&cl->out);
    buf_free(&cl->reply);
    mem_free(cl);
}

/* Tells a command that waits or follows that nobody is there any more. */
static void forget_call(struct control_client *cl)
{
    struct control_call *call = &cl->call;
    bool tell = call->waiting || call->following;
    call->waiting = call->following = false;
    if (tell && call->gone != NULL)
        call->gone(call);
}

void control_client_close(struct control_client *cl)
{
    if (cl->closing)
        return;
    cl->closing = true;
    forget_call(cl);
    loop_timer_clear(cl->control->loop, &cl->idle);
    list_remove(&cl->node);
    list_remove(&cl->wait);
    uv_poll_stop(&cl->poll);
    uv_close((uv_handle_t *)&cl->poll, on_closed);
}

static void on_idle(struct timer *t)
{
    struct control_client *cl = CONTAINER_OF(t, struct control_client, idle);
    log_ev(&cl->log, LOG_DEBUG, "control.closed", KV_C("reason", "idle"));
    control_client_close(cl);
}

static bool busy(const struct control_client *cl)
{
    return cl->call.waiting || cl->call.following || cl->out.len > 0;
}

/* A client has so long for a request, and as long for reading what it asked for; we may take
 * longer. */
static void set_deadline(struct control_client *cl)
{
    bool ours = (cl->call.waiting || cl->call.following) && cl->out.len == 0;
    if (ours || cl->wait.in != NULL)
        loop_timer_clear(cl->control->loop, &cl->idle);
    else if (!loop_timer_set(cl->control->loop, &cl->idle, CONTROL_IDLE_MS))
        control_client_close(cl);
}

static void watch(struct control_client *cl)
{
    int events = cl->out.len > 0 ? UV_WRITABLE : 0;
    if (cl->closing)
        return;
    if (!cl->eof && cl->nin < sizeof cl->in)
        events |= UV_READABLE;
    if (events != 0)
        uv_poll_start(&cl->poll, events, on_poll);
    else
        uv_poll_stop(&cl->poll);
}

/* ---- replies --------------------------------------------------------------------------------- */

static void flush(struct control_client *cl)
{
    while (cl->sent < cl->out.len) {
        ssize_t n =
            send(cl->fd, cl->out.p + cl->sent, cl->out.len - cl->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            control_client_close(cl);
            return;
        }
        cl->sent += (size_t)n;
        set_deadline(cl);
    }
    buf_free(&cl->out); /* a megabyte is not kept for the next "status" */
    cl->sent = 0;
}

/* What it has to send is on its way: the next request, or the end. */
static void go_on(struct control_client *cl)
{
    if (cl->closing)
        return;
    if (cl->out.len == 0 && cl->last) {
        control_client_close(cl);
        return;
    }
    if (!busy(cl) && memchr(cl->in, '\n', cl->nin) != NULL) {
        if (cl->wait.in == NULL)
            list_append(&cl->control->waiting, &cl->wait);
        serve_next(cl->control);
    } else if (!busy(cl) && cl->eof) {
        control_client_close(cl);
        return;
    } else if (cl->call.following && cl->eof) {
        control_client_close(cl);
        return;
    }
    set_deadline(cl);
    watch(cl);
}

static void put_error(struct buf *out, enum control_error e, const char *why)
{
    struct json j;
    buf_clear(out);
    json_begin(&j, out);
    json_object(&j, NULL);
    json_object(&j, "error");
    json_c(&j, "code", control_error_name(e));
    json_c(&j, "text", why);
    json_end(&j);
    json_end(&j);
}

static void reply(struct control_client *cl)
{
    struct control_call *call = &cl->call;
    struct buf *out = &cl->reply;
    if (call->error == CONTROL_NONE) {
        while (call->json.depth > 0)
            json_end(&call->json);
        if (out->failed)
            control_fail(call, CONTROL_FAILED, "the reply is too large, or memory is out");
    }
    if (call->error != CONTROL_NONE)
        put_error(out, call->error, call->why);
    if (call->error != CONTROL_NONE)
        call->following = false;
    buf_putc(out, '\n');
    buf_str(&cl->out, buf_view(out));
    bool lost = out->failed || cl->out.failed;
    buf_free(out);
    if (lost)
        control_client_close(cl);
    else
        flush(cl);
    go_on(cl);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void note(const struct control_client *cl, enum privilege needed)
{
    const struct command_request *r = &cl->request;
    struct buf words = BUF_INIT(LOG_VALUE_MAX * 2);
    for (size_t i = 0; i < r->nwords; i++)
        command_quote(&words, str_c(r->word[i]));
    bool refused = cl->call.error == CONTROL_PERMISSION;
    enum log_level level = refused ? LOG_WARN : needed == PRIVILEGE_READ ? LOG_DEBUG : LOG_NOTICE;
    log_ev(
        &cl->log, level, refused ? "control.denied" : "control.request",
        KV_S("command", buf_view(&words)),
        KV_C("result", cl->call.error == CONTROL_NONE ? "ok" : control_error_name(cl->call.error)),
        KV_S("msg", cl->call.error == CONTROL_NONE ? STR_NONE : str_c(cl->call.why)));
    buf_free(&words);
}

static void begin_call(struct control_client *cl)
{
    struct control_call *call = &cl->call;
    *call = (struct control_call){
        .arg = cl->control->arg, .request = &cl->request, .uid = cl->uid, .pid = cl->pid};
    cl->reply = BUF_INIT(CONTROL_REPLY_MAX);
    cl->out.max = OUT_MAX;
    json_begin(&call->json, &cl->reply);
    json_object(&call->json, NULL);
    json_object(&call->json, "ok");
}

static void run(struct control_client *cl, struct str line)
{
    struct control *c = cl->control;
    struct control_call *call = &cl->call;
    enum privilege has = control_privilege(c, cl->uid), needed = PRIVILEGE_READ;
    begin_call(cl);
    cl->served = true;
    list_remove(&cl->node); /* now it is the least idle one */
    list_append(&c->clients, &cl->node);
    if (command_read(c->commands, line, has, &cl->request)) {
        needed = c->commands->v[cl->request.command].privilege;
        c->run[cl->request.command](call);
    } else {
        call->error = cl->request.error;
        str_copy(call->why, sizeof call->why, str_c(cl->request.why));
    }
    if (cl->closing)
        return;
    note(cl, needed);
    if (call->waiting)
        go_on(cl);
    else
        reply(cl);
}

/* Serves the first whole line of its input. */
static void serve(struct control_client *cl)
{
    char *end = memchr(cl->in, '\n', cl->nin);
    if (end == NULL)
        return;
    char text[CONTROL_IN_MAX];
    size_t n = (size_t)(end - cl->in);
    memcpy(text, cl->in, n);
    cl->nin -= n + 1;
    memmove(cl->in, end + 1, cl->nin);
    if (n > 0 && text[n - 1] == '\r')
        n--;
    run(cl, (struct str){text, n});
}

static void on_rested(struct timer *t)
{
    struct control *c = CONTAINER_OF(t, struct control, rest);
    serve_next(c);
}

static void serve_one(struct loop_task *t)
{
    struct control *c = CONTAINER_OF(t, struct control, serve);
    struct list_node *n = list_pop(&c->waiting);
    if (n == NULL)
        return;
    uint64_t began = loop_now(c->loop);
    serve(CONTAINER_OF(n, struct control_client, wait));
    uint64_t took = loop_now(c->loop) - began;
    if (took == 0 || !loop_timer_set(c->loop, &c->rest, REST_FACTOR * took))
        serve_next(c);
}

static void serve_next(struct control *c)
{
    c->serve.run = serve_one;
    c->rest.fire = on_rested;
    if (c->waiting.count > 0 && !timer_armed(&c->rest))
        loop_post_later(c->loop, &c->serve);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A line that does not end is answered, and then that client is not listened to any more. */
static void too_long(struct control_client *cl)
{
    begin_call(cl);
    control_fail(&cl->call, CONTROL_SYNTAX, "the line is longer than %d bytes", COMMAND_LINE_MAX);
    cl->last = true;
    cl->eof = true;
    cl->nin = 0;
    reply(cl);
}

static void take_in(struct control_client *cl)
{
    ssize_t n = recv(cl->fd, cl->in + cl->nin, sizeof cl->in - cl->nin, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n < 0) {
        control_client_close(cl);
        return;
    }
    cl->eof = n == 0;
    cl->nin += (size_t)n;
    if (!busy(cl) && cl->nin == sizeof cl->in && memchr(cl->in, '\n', cl->nin) == NULL)
        too_long(cl);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
    struct control_client *cl = p->data;
    if (status < 0) {
        control_client_close(cl);
        return;
    }
    if (events & UV_WRITABLE)
        flush(cl);
    if (!cl->closing && events & UV_READABLE)
        take_in(cl);
    go_on(cl);
}

/* ---- a new client ---------------------------------------------------------------------------- */

/* How willingly a client's place is given to another: one that asks nothing before one that does
 * not read what it asked for, that before one that only follows, and that before one that has had
 * its answer and asks on and on. */
enum { STAYS, ASKS_ON, FOLLOWS, DOES_NOT_READ, IDLE };

static int spare(const struct control_client *cl)
{
    if (cl->out.len > 0)
        return DOES_NOT_READ;
    if (cl->call.following)
        return FOLLOWS;
    if (cl->call.waiting || cl->wait.in != NULL)
        return cl->served && !cl->call.waiting ? ASKS_ON : STAYS;
    return IDLE;
}

/* Of those that may do no more than the newcomer the one to spare, the one with the oldest request
 * among equals (which is the order of the list); NULL: all have something under way. */
static struct control_client *victim(struct control *c, enum privilege newcomer)
{
    struct control_client *best = NULL;
    int most = STAYS;
    LIST_FOREACH (&c->clients, n, following) {
        struct control_client *cl = CONTAINER_OF(n, struct control_client, node);
        if (spare(cl) > most && control_privilege(c, cl->uid) <= newcomer) {
            best = cl;
            most = spare(cl);
        }
    }
    return best;
}

static void turn_away(int fd)
{
    static const char text[] = "{\"error\":{\"code\":\"busy\",\"text\":\"too many clients\"}}\n";
    if (send(fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        /* then it learns it from the close */
    }
    close(fd);
}

static bool make_room(struct control *c, uid_t uid)
{
    if (c->clients.count < CONTROL_CLIENTS_MAX)
        return true;
    struct control_client *cl = victim(c, control_privilege(c, uid));
    if (cl == NULL)
        return false;
    log_ev(&cl->log, LOG_DEBUG, "control.closed", KV_C("reason", "makes-room"));
    control_client_close(cl);
    return true;
}

void control_accept(struct control *c, int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t n = sizeof peer;
    struct control_client *cl = NULL;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && make_room(c, peer.uid))
        cl = mem_zalloc(sizeof *cl);
    if (cl == NULL || uv_poll_init(c->loop->uv, &cl->poll, fd) != 0) {
        mem_free(cl);
        turn_away(fd);
        return;
    }
    cl->control = c;
    cl->fd = fd;
    cl->poll.data = cl;
    cl->uid = peer.uid;
    cl->pid = peer.pid;
    cl->idle.fire = on_idle;
    cl->out.max = OUT_MAX;
    cl->log.sink = c->loop->log;
    cl->log.kv[0] = KV_I("uid", peer.uid);
    cl->log.kv[1] = KV_I("pid", peer.pid);
    list_append(&c->clients, &cl->node);
    log_ev(&cl->log, LOG_DEBUG, "control.connected",
           KV_C("privilege", privilege_name(control_privilege(c, cl->uid))));
    take_in(cl); /* who has asked already is not among the idle ones */
    go_on(cl);
}

/* ---- for the functions of commands ----------------------------------------------------------- */

static struct control_client *client_of(struct control_call *call)
{
    return CONTAINER_OF(call, struct control_client, call);
}

void control_fail(struct control_call *call, enum control_error e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(call->why, sizeof call->why, fmt, ap);
    va_end(ap);
    call->error = e;
}

void control_rows(struct control_call *call, const char *key)
{
    call->row = call->more = 0;
    json_array(&call->json, key);
}

void control_row(struct control_call *call, const struct kv *kv, size_t n)
{
    size_t row = call->row++;
    if (row < call->request->from || call->more != 0)
        return;
    if (call->json.out->len > PAGE) {
        call->more = row;
        return;
    }
    json_object(&call->json, NULL);
    json_fields(&call->json, kv, n);
    json_end(&call->json);
}

void control_rows_end(struct control_call *call)
{
    json_end(&call->json);
    if (call->more != 0)
        json_int(&call->json, "more", (int64_t)call->more);
}

void control_later(struct control_call *call, void (*gone)(struct control_call *call))
{
    call->waiting = true;
    call->gone = gone;
}

void control_done(struct control_call *call)
{
    call->waiting = false;
    reply(client_of(call));
}

void control_follow(struct control_call *call, void (*gone)(struct control_call *call))
{
    call->following = true;
    call->gone = gone;
}

void control_say(struct control_call *call, struct str line)
{
    struct control_client *cl = client_of(call);
    if (cl->closing)
        return;
    buf_drop(&cl->out, cl->sent);
    cl->sent = 0;
    buf_str(&cl->out, line);
    buf_putc(&cl->out, '\n');
    if (cl->out.failed) {
        log_ev(&cl->log, LOG_NOTICE, "control.closed", KV_C("reason", "does-not-read"));
        control_client_close(cl);
        return;
    }
    watch(cl);
    set_deadline(cl);
}
