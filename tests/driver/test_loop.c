/* Turns of the loop: tasks, timers, the end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/driver/loopback.h"

enum { CHAIN = 100 };

struct job {
    struct loop_task task;
    struct timer timer;
    struct world *w;
    unsigned runs, again, order;
    unsigned *clock;
    bool later;
};

static void job_task(struct loop_task *t)
{
    struct job *j = CONTAINER_OF(t, struct job, task);
    j->runs++;
    j->order = ++*j->clock;
    if (j->again == 0)
        return;
    j->again--;
    if (j->later)
        loop_post_later(&j->w->loop, t);
    else
        loop_post(&j->w->loop, t);
}

static void job_timer(struct timer *t)
{
    struct job *j = CONTAINER_OF(t, struct job, timer);
    j->runs++;
    j->order = ++*j->clock;
}

static struct job job(struct world *w, unsigned *clock)
{
    return (struct job){.task.run = job_task, .timer.fire = job_timer, .w = w, .clock = clock};
}

static void test_tasks(void **state)
{
    (void)state;
    struct world w;
    unsigned clock = 0;
    world_open(&w);
    struct job a = job(&w, &clock), b = job(&w, &clock), flush = job(&w, &clock);
    loop_mark_dirty(&w.loop, &flush.task);
    loop_post(&w.loop, &a.task);
    loop_post(&w.loop, &b.task);
    loop_post(&w.loop, &a.task);
    b.again = 2;
    loop_turn(&w.loop);
    assert_int_equal(a.runs, 1);
    assert_int_equal(b.runs, 3);
    assert_int_equal(a.order, 1);
    assert_int_equal(flush.order, 5); /* after all tasks */

    loop_post(&w.loop, &a.task);
    loop_unpost(&w.loop, &a.task);
    loop_turn(&w.loop);
    assert_int_equal(a.runs, 1);

    a.later = true;
    a.again = 3;
    loop_post(&w.loop, &a.task);
    for (unsigned turns = 2; turns <= 5; turns++) {
        loop_turn(&w.loop);
        assert_int_equal(a.runs, turns);
    }

    /* A task that always comes back starves neither the sockets nor the flush. */
    a.later = false;
    a.again = CHAIN * CHAIN;
    flush.runs = 0;
    loop_post(&w.loop, &a.task);
    loop_mark_dirty(&w.loop, &flush.task);
    loop_turn(&w.loop);
    assert_int_equal(flush.runs, 1);
    assert_true(a.again > 0);
    a.again = 0;

    /* Work that is left when no handle is: done before loop_run returns. */
    a.again = CHAIN;
    loop_post(&w.loop, &a.task);
    loop_run(&w.loop);
    assert_int_equal(a.again, 0);
    world_close(&w);
}

static void test_timers(void **state)
{
    (void)state;
    struct world w;
    unsigned clock = 0;
    world_open(&w);
    struct job a = job(&w, &clock), b = job(&w, &clock), never = job(&w, &clock);
    assert_true(loop_timer_set(&w.loop, &a.timer, 2000));
    assert_true(loop_timer_set(&w.loop, &b.timer, 1000));
    assert_true(loop_timer_set(&w.loop, &never.timer, UINT64_MAX));
    loop_turn(&w.loop);
    assert_int_equal(clock, 0);
    w.skew += 3000;
    loop_turn(&w.loop);
    assert_int_equal(b.order, 1);
    assert_int_equal(a.order, 2);
    assert_true(loop_timer_set(&w.loop, &a.timer, 1));
    loop_timer_clear(&w.loop, &a.timer);
    w.skew += 10;
    loop_turn(&w.loop);
    assert_int_equal(a.runs, 1);
    assert_int_equal(never.runs, 0);
    loop_run(&w.loop); /* timers alone do not keep it running */
    loop_timer_clear(&w.loop, &never.timer);
    world_close(&w);
}

static void stop_timer(struct timer *t)
{
    struct job *j = CONTAINER_OF(t, struct job, timer);
    j->runs++;
    loop_stop(&j->w->loop);
}

/* The real wait: a handle keeps the loop running and the clock wakes it for the timer. */
static void test_clock_wakes(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    w.loop.handles++;
    struct job a = {.timer.fire = stop_timer, .w = &w};
    uint64_t before = world_now(&w);
    assert_true(loop_timer_set(&w.loop, &a.timer, 30));
    loop_run(&w.loop);
    assert_int_equal(a.runs, 1);
    assert_true(world_now(&w) >= before + 30);
    loop_stop(&w.loop); /* before the run: returns at once */
    loop_run(&w.loop);
    w.loop.handles--;
    world_close(&w);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n <= 2; n++) {
        struct loop l;
        mem_fail_after(n);
        assert_false(loop_init(&l, &env_system, NULL));
        mem_fail_after(0);
        loop_close(&l); /* harmless */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_clock_wakes),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
