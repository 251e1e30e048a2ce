/* The turn of a worker's loop.
 *
 * libuv calls the prepare handle right before it waits for the sockets. There everything that the
 * callbacks of this turn have left behind is done: posted tasks, due timers, then the gathered
 * writes, then the release of closed connections. Each of these may cause more of the others, so
 * this goes round until nothing is left or a bound is reached; with work left over the loop only
 * looks at its sockets and comes back at once. The clock does not keep the loop alive: it ends when
 * the last socket is gone. */
#include "core/net/loop.h"

#include <signal.h>

#include "core/base/mem.h"

enum { ROUNDS = 16 };

static void run_list(struct list *from)
{
    for (size_t n = from->count; n > 0; n--) {
        struct list_node *node = list_pop(from);
        if (node == NULL)
            return; /* a task took back the others */
        struct loop_task *t = CONTAINER_OF(node, struct loop_task, node);
        t->run(t);
    }
}

static bool has_work(const struct loop *l)
{
    return l->tasks.count > 0 || l->later.count > 0 || l->dirty.count > 0 || l->dying.count > 0;
}

static void on_clock(uv_timer_t *h)
{
    (void)h; /* it only ends the wait; on_prepare fires what is due */
}

static void arm_clock(struct loop *l)
{
    uint64_t due = 0;
    bool armed = timers_next(&l->timers, &due);
    if (has_work(l)) {
        armed = true;
        due = 0;
    }
    if (!armed) {
        uv_timer_stop(&l->clock);
        return;
    }
    uint64_t now = loop_now(l);
    uint64_t at = due > now ? due : now;
    if (l->clock_due == at && uv_is_active((uv_handle_t *)&l->clock))
        return;
    l->clock_due = at;
    uv_update_time(l->uv);
    uv_timer_start(&l->clock, on_clock, at - now, 0);
}

static bool more_tasks(const struct loop *l, int round)
{
    return l->tasks.count > 0 && round < ROUNDS;
}

static void turn(struct loop *l)
{
    while (l->later.count > 0)
        list_append(&l->tasks, list_pop(&l->later));
    for (int round = 1; round <= ROUNDS; round++) {
        run_list(&l->tasks);
        if (round == 1)
            timers_run(&l->timers, loop_now(l));
        if (more_tasks(l, round))
            continue;
        run_list(&l->dirty);
        if (more_tasks(l, round))
            continue;
        run_list(&l->dying);
        if (l->tasks.count == 0 && l->dirty.count == 0 && l->dying.count == 0)
            break;
    }
    l->turn++;
    arm_clock(l);
}

/* libuv counts only handles that are active: a conn that does not read at present would not keep
 * the loop running. The prepare handle stands in for ours. */
static bool alive(struct loop *l)
{
    if (l->handles > 0)
        uv_ref((uv_handle_t *)&l->prepare);
    else
        uv_unref((uv_handle_t *)&l->prepare);
    return uv_loop_alive(l->uv) != 0;
}

static void on_prepare(uv_prepare_t *h)
{
    struct loop *l = h->data;
    turn(l);
    alive(l);
}

bool loop_init(struct loop *l, const struct env *env, struct log *log)
{
    *l = (struct loop){.env = env, .log = log};
    l->uv = mem_zalloc(sizeof *l->uv);
    l->scratch = mem_alloc(LOOP_SCRATCH);
    if (l->uv == NULL || l->scratch == NULL || uv_loop_init(l->uv) != 0) {
        mem_free(l->uv);
        mem_free(l->scratch);
        l->uv = NULL;
        return false;
    }
    signal(SIGPIPE, SIG_IGN);
    uv_timer_init(l->uv, &l->clock);
    uv_prepare_init(l->uv, &l->prepare);
    l->prepare.data = l;
    uv_prepare_start(&l->prepare, on_prepare);
    uv_unref((uv_handle_t *)&l->prepare);
    uv_unref((uv_handle_t *)&l->clock);
    return true;
}

void loop_run(struct loop *l)
{
    do {
        if (alive(l))
            uv_run(l->uv, UV_RUN_DEFAULT);
        /* The last close callbacks come after the last prepare. */
        if (!l->stopping)
            turn(l);
    } while (!l->stopping && (alive(l) || has_work(l)));
    l->stopping = false;
}

void loop_turn(struct loop *l)
{
    if (alive(l))
        uv_run(l->uv, UV_RUN_NOWAIT);
    else
        turn(l);
}

void loop_stop(struct loop *l)
{
    l->stopping = true;
    uv_stop(l->uv);
}

void loop_close(struct loop *l)
{
    if (l->uv == NULL)
        return;
    do {
        l->stopping = false;
        loop_run(l);
    } while (alive(l));
    uv_close((uv_handle_t *)&l->prepare, NULL);
    uv_close((uv_handle_t *)&l->clock, NULL);
    while (uv_run(l->uv, UV_RUN_DEFAULT) != 0)
        ;
    if (uv_loop_close(l->uv) == 0)
        mem_free(l->uv);
    l->uv = NULL;
    mem_free(l->scratch);
    timers_free(&l->timers);
}

static void post(struct list *to, struct loop_task *t)
{
    if (t->node.in == NULL)
        list_append(to, &t->node);
}

void loop_post(struct loop *l, struct loop_task *t)
{
    post(&l->tasks, t);
}

void loop_post_later(struct loop *l, struct loop_task *t)
{
    post(&l->later, t);
}

void loop_unpost(struct loop *l, struct loop_task *t)
{
    (void)l;
    list_remove(&t->node);
}

void loop_mark_dirty(struct loop *l, struct loop_task *flush)
{
    post(&l->dirty, flush);
}

void loop_mark_dying(struct loop *l, struct loop_task *release)
{
    post(&l->dying, release);
}

bool loop_timer_set(struct loop *l, struct timer *t, uint64_t ms)
{
    uint64_t now = loop_now(l);
    return timers_set(&l->timers, t, ms > UINT64_MAX - now ? UINT64_MAX : now + ms);
}

void loop_timer_clear(struct loop *l, struct timer *t)
{
    timers_clear(&l->timers, t);
}
