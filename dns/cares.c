/* c-ares on libuv.
 *
 * c-ares tells by a callback which of its sockets wait for what; each gets a uv_poll. After every
 * call into c-ares its next deadline goes into a timer of the loop. A socket that c-ares closes is
 * taken off the poll at once (the descriptor may be another's a moment later), the handle's memory
 * returns in its close callback; it knows nothing of the channel, so the channel need not wait.
 *
 * c-ares must not be cancelled or destroyed from inside one of its callbacks: `reply` only takes
 * notes, and the holder calls cares_close from a task of the loop. */
#include "dns/cares.h"

#include <ares.h>
#include <pthread.h>

#include "core/base/mem.h"

enum { TRIES = 3, EDNS_SIZE = 1232, CLASS_IN = 1, FLAGS_AT = 3, FLAG_AD = 0x20 };

struct cares {
    struct loop *loop;
    ares_channel channel;
    cares_reply *reply; /* NULL: has been called, or is not wanted any more */
    void *arg;
    struct timer due;
    struct list socks;
    bool broken; /* a socket could not be watched */
};

struct sock {
    struct list_node node; /* in cares.socks until c-ares closes the socket */
    struct cares *owner;
    struct loop *loop;
    ares_socket_t fd;
    uv_poll_t poll;
};

static void report(struct cares *c, enum dns_reply reply, struct str message)
{
    cares_reply *f = c->reply;
    c->reply = NULL;
    if (f != NULL)
        f(c->arg, reply, message);
}

/* What every call into c-ares is followed by. */
static void settle(struct cares *c)
{
    struct timeval tv;
    if (c->broken) {
        report(c, DNS_REPLY_UNUSABLE, STR_NONE);
        return;
    }
    if (ares_timeout(c->channel, NULL, &tv) == NULL) {
        loop_timer_clear(c->loop, &c->due);
        return;
    }
    uint64_t ms = (uint64_t)tv.tv_sec * 1000 + ((uint64_t)tv.tv_usec + 999) / 1000;
    if (!loop_timer_set(c->loop, &c->due, ms))
        report(c, DNS_REPLY_UNUSABLE, STR_NONE);
}

static void on_due(struct timer *t)
{
    struct cares *c = CONTAINER_OF(t, struct cares, due);
    ares_process_fd(c->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    settle(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct sock *s = poll->data;
    struct cares *c = s->owner;
    ares_socket_t fd = s->fd; /* `s` may be on its way out after this call */
    bool in = status < 0 || (events & UV_READABLE), out = status < 0 || (events & UV_WRITABLE);
    ares_process_fd(c->channel, in ? fd : ARES_SOCKET_BAD, out ? fd : ARES_SOCKET_BAD);
    settle(c);
}

static void on_sock_closed(uv_handle_t *h)
{
    struct sock *s = h->data;
    s->loop->handles--;
    mem_free(s);
}

static void sock_close(struct sock *s)
{
    list_remove(&s->node);
    uv_poll_stop(&s->poll);
    uv_close((uv_handle_t *)&s->poll, on_sock_closed);
}

static struct sock *sock_find(struct cares *c, ares_socket_t fd)
{
    LIST_FOREACH (&c->socks, n, next) {
        struct sock *s = CONTAINER_OF(n, struct sock, node);
        if (s->fd == fd)
            return s;
    }
    return NULL;
}

static struct sock *sock_open(struct cares *c, ares_socket_t fd)
{
    struct sock *s = mem_zalloc(sizeof *s);
    if (s == NULL)
        return NULL;
    if (uv_poll_init(c->loop->uv, &s->poll, fd) != 0) {
        mem_free(s);
        return NULL;
    }
    s->owner = c;
    s->loop = c->loop;
    s->fd = fd;
    s->poll.data = s;
    s->loop->handles++;
    list_append(&c->socks, &s->node);
    return s;
}

static void on_sock_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct cares *c = arg;
    struct sock *s = sock_find(c, fd);
    if (!readable && !writable) {
        if (s != NULL)
            sock_close(s);
        return;
    }
    if (s == NULL)
        s = sock_open(c, fd);
    int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (s == NULL || uv_poll_start(&s->poll, events, on_poll) != 0)
        c->broken = true;
}

static enum dns_reply reply_of(int status)
{
    switch (status) {
    case ARES_ETIMEOUT:
        return DNS_REPLY_TIMEOUT;
    case ARES_ECONNREFUSED:
    case ARES_ESERVFAIL:
    case ARES_EREFUSED:
    case ARES_ENOTIMP:
        return DNS_REPLY_UNREACHABLE;
    default:
        return DNS_REPLY_UNUSABLE;
    }
}

static void on_answer(void *arg, int status, int timeouts, unsigned char *message, int n)
{
    struct cares *c = arg;
    (void)timeouts;
    /* With a message the status is only c-ares's reading of it. */
    if (message != NULL && n > 0)
        report(c, DNS_REPLY_MESSAGE, (struct str){(const char *)message, (size_t)n});
    else
        report(c, reply_of(status), STR_NONE);
}

static void library_init(void)
{
    ares_library_init(ARES_LIB_INIT_ALL);
}

static bool open_channel(struct cares *c, const struct cares_options *opt, bool raw)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, library_init);
    struct ares_options o = {
        .flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES |
                 (raw ? ARES_FLAG_NOCHECKRESP : 0),
        .timeout = (int)opt->try_ms,
        .tries = TRIES,
        .ednspsz = EDNS_SIZE,
        .sock_state_cb = on_sock_state,
        .sock_state_cb_data = c,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_STATE_CB;
    if (ares_init_options(&c->channel, &o, mask) != ARES_SUCCESS)
        return false;
    if (opt->servers == NULL ||
        ares_set_servers_ports_csv(c->channel, opt->servers) == ARES_SUCCESS)
        return true;
    ares_destroy(c->channel);
    return false;
}

bool cares_check(const char *servers)
{
    struct cares c = {.due.fire = on_due};
    struct cares_options opt = {.servers = servers, .try_ms = 1000};
    if (!open_channel(&c, &opt, false))
        return false;
    ares_destroy(c.channel);
    return true;
}

/* As ares_query does it, but for the AD bit, which c-ares never sets. False: there will be no
 * answer. */
static bool put_question(struct cares *c, const char *name, enum dns_rr type, bool ad)
{
    const struct env *env = c->loop->env;
    unsigned char id[2], *query;
    unsigned short number;
    int n;
    if (!env->random(env->ctx, id, sizeof id))
        return false;
    memcpy(&number, id, sizeof number);
    if (ares_create_query(name, CLASS_IN, (int)type, number, 1, &query, &n, EDNS_SIZE) !=
        ARES_SUCCESS)
        return false;
    if (ad)
        query[FLAGS_AT] |= FLAG_AD;
    ares_send(c->channel, query, n, on_answer, c);
    ares_free_string(query);
    return true;
}

struct cares *cares_ask(struct loop *loop, const struct cares_options *opt, const char *name,
                        enum dns_rr type, bool raw, cares_reply *reply, void *arg)
{
    struct cares *c = mem_zalloc(sizeof *c);
    if (c == NULL)
        return NULL;
    c->loop = loop;
    c->reply = reply;
    c->arg = arg;
    c->due.fire = on_due;
    if (!open_channel(c, opt, raw)) {
        mem_free(c);
        return NULL;
    }
    if (put_question(c, name, type, opt->ask_ad))
        settle(c);
    else
        report(c, DNS_REPLY_UNUSABLE, STR_NONE);
    return c;
}

void cares_close(struct cares *c)
{
    if (c == NULL)
        return;
    c->reply = NULL;
    loop_timer_clear(c->loop, &c->due);
    ares_destroy(c->channel);
    /* Any that c-ares has not reported as closed. */
    while (c->socks.first != NULL)
        sock_close(CONTAINER_OF(c->socks.first, struct sock, node));
    mem_free(c);
}
