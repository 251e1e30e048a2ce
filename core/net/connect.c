/* Attempts run beside each other, each with its own handle. The job is freed when it is over and
 * the last handle has been closed; a won socket leaves the job before that. */
#include "core/net/connect.h"

#include <errno.h>
#include <stdio.h>

#include "core/base/mem.h"
#include "core/net/addr.h"

enum { STAGGER_MS = 250 };

struct attempt {
    struct connect *job;
    uv_tcp_t *tcp; /* NULL: not begun, or given away */
    uv_connect_t req;
    bool running;
};

struct connect {
    struct loop *loop;
    struct loop_task begin;
    struct timer deadline, stagger;
    connect_done *done;
    void *arg;
    bool (*refused)(void *arg, const struct endpoint *to, const char **why);
    struct ip source4, source6;
    struct endpoint target[CONNECT_TARGETS_MAX];
    struct attempt attempt[CONNECT_TARGETS_MAX];
    size_t n, next;
    size_t running, open; /* attempts under way; handles not closed yet */
    bool over;
    char why[CONNECT_WHY_MAX];
};

static void release(struct connect *k)
{
    if (k->over && k->open == 0)
        mem_free(k);
}

static void on_closed(uv_handle_t *h)
{
    struct connect *k = h->data;
    mem_free(h);
    k->loop->handles--;
    k->open--;
    release(k);
}

static void close_attempt(struct attempt *a)
{
    if (a->running)
        a->job->running--;
    a->running = false;
    if (a->tcp != NULL)
        uv_close((uv_handle_t *)a->tcp, on_closed);
    a->tcp = NULL;
}

/* Ends the job; the caller makes the callback and then calls release. */
static void finish(struct connect *k)
{
    k->over = true;
    loop_timer_clear(k->loop, &k->deadline);
    loop_timer_clear(k->loop, &k->stagger);
    loop_unpost(k->loop, &k->begin);
    for (size_t i = 0; i < k->next; i++)
        close_attempt(&k->attempt[i]);
}

static void give_up(struct connect *k)
{
    finish(k);
    k->done(k->arg, NULL, NULL, k->why);
    release(k);
}

static void explain(struct connect *k, const struct endpoint *to, int err)
{
    char at[ENDPOINT_TEXT];
    endpoint_text(to, at);
    if (err == UV_ECONNREFUSED)
        snprintf(k->why, sizeof k->why, "connection refused by %s", at);
    else if (err == UV_ETIMEDOUT)
        snprintf(k->why, sizeof k->why, "no answer from %s", at);
    else
        snprintf(k->why, sizeof k->why, "cannot connect to %s: %s", at, uv_strerror(err));
}

static void win(struct connect *k, struct attempt *a)
{
    uv_tcp_t *tcp = a->tcp;
    struct endpoint to = k->target[a - k->attempt];
    a->tcp = NULL;
    tcp->data = NULL;
    k->open--;
    k->loop->handles--;
    finish(k);
    k->done(k->arg, tcp, &to, NULL);
    release(k);
}

static void try_next(struct connect *k);

static void on_connect(uv_connect_t *req, int status)
{
    struct attempt *a = req->data;
    struct connect *k = a->job;
    if (k->over || !a->running)
        return;
    if (status == 0) {
        win(k, a);
        return;
    }
    explain(k, &k->target[a - k->attempt], status);
    close_attempt(a);
    try_next(k);
}

static int bind_source(const struct connect *k, uv_tcp_t *tcp, bool v6)
{
    struct endpoint source = {v6 ? k->source6 : k->source4, 0};
    struct sockaddr_storage sa;
    if (!addr_from_endpoint(&source, &sa))
        return 0;
    return uv_tcp_bind(tcp, (struct sockaddr *)&sa, 0);
}

/* 0, or why this address cannot be tried. */
static int attempt_begin(struct connect *k, struct attempt *a, const struct endpoint *to)
{
    struct sockaddr_storage sa;
    if (!addr_from_endpoint(to, &sa))
        return UV_EINVAL;
    uv_tcp_t *tcp = mem_zalloc(sizeof *tcp);
    if (tcp == NULL)
        return UV_ENOMEM;
    int err = uv_tcp_init_ex(k->loop->uv, tcp, sa.ss_family);
    if (err != 0) {
        mem_free(tcp);
        return err;
    }
    tcp->data = k;
    k->loop->handles++;
    k->open++;
    a->job = k;
    a->tcp = tcp;
    a->req.data = a;
    err = bind_source(k, tcp, sa.ss_family == AF_INET6);
    if (err == 0)
        err = uv_tcp_connect(&a->req, tcp, (struct sockaddr *)&sa, on_connect);
    a->running = err == 0;
    if (err == 0)
        k->running++;
    else
        close_attempt(a);
    return err;
}

static bool refuse(struct connect *k, const struct endpoint *to)
{
    const char *why = "refused";
    if (k->refused == NULL || !k->refused(k->arg, to, &why))
        return false;
    char at[ENDPOINT_TEXT];
    endpoint_text(to, at);
    snprintf(k->why, sizeof k->why, "not connecting to %s: %s", at, why);
    return true;
}

/* Begins the next attempt that can be begun; without one, the job fails when the last one has. */
static void try_next(struct connect *k)
{
    while (k->next < k->n) {
        size_t i = k->next++;
        if (refuse(k, &k->target[i]))
            continue;
        int err = attempt_begin(k, &k->attempt[i], &k->target[i]);
        if (err == 0) {
            if (!loop_timer_set(k->loop, &k->stagger, STAGGER_MS))
                loop_timer_clear(k->loop, &k->stagger);
            return;
        }
        explain(k, &k->target[i], err);
    }
    loop_timer_clear(k->loop, &k->stagger);
    if (k->running == 0)
        give_up(k);
}

static void on_stagger(struct timer *t)
{
    try_next(CONTAINER_OF(t, struct connect, stagger));
}

static void on_deadline(struct timer *t)
{
    struct connect *k = CONTAINER_OF(t, struct connect, deadline);
    for (size_t i = 0; i < k->next; i++)
        if (k->attempt[i].running)
            explain(k, &k->target[i], UV_ETIMEDOUT);
    give_up(k);
}

static void begin(struct loop_task *t)
{
    try_next(CONTAINER_OF(t, struct connect, begin));
}

struct connect *connect_start(struct loop *l, const struct connect_options *opt, connect_done *done,
                              void *arg)
{
    struct connect *k = mem_zalloc(sizeof *k);
    if (k == NULL)
        return NULL;
    k->loop = l;
    k->done = done;
    k->arg = arg;
    k->refused = opt->refused;
    k->source4 = opt->source4;
    k->source6 = opt->source6;
    k->n = opt->ntargets < CONNECT_TARGETS_MAX ? opt->ntargets : CONNECT_TARGETS_MAX;
    if (k->n > 0)
        memcpy(k->target, opt->targets, k->n * sizeof k->target[0]);
    str_copy(k->why, sizeof k->why, STR("no address to connect to"));
    k->begin.run = begin;
    k->stagger.fire = on_stagger;
    k->deadline.fire = on_deadline;
    if (!loop_timer_set(l, &k->deadline, opt->deadline_ms)) {
        mem_free(k);
        return NULL;
    }
    loop_post(l, &k->begin);
    return k;
}

void connect_cancel(struct connect *k)
{
    if (k == NULL || k->over)
        return;
    finish(k);
    release(k);
}
