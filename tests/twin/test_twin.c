/* Twin test: see twin.h. TWIN_SEEDS=n runs n seeds, TWIN_SEED=x only that one, TWIN_TRACE=1 shows
 * the log of the gateways, TWIN_FOLLOW=n the way of stanza n, TWIN_ALLOCS=n tries every n-th
 * allocation. A failure prints the seed that brings it back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/twin/twin.h"

enum { SEEDS = 150, ROUNDS = 700 };

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *v = getenv(name);
    return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

struct sums {
    size_t stanzas, arrived, bounced, dropped, lost, late, back, shared;
};

static bool run_seed(uint64_t seed, struct sums *sums)
{
    static struct twin t;
    char failure[sizeof t.ledger.failure];
    twin_open(&t, seed);
    twin_run(&t, ROUNDS);
    const struct ledger l = t.ledger;
    twin_close(&t);
    memcpy(failure, t.ledger.failure, sizeof failure);
    sums->stanzas += l.n - 1;
    sums->arrived += l.arrived;
    sums->bounced += l.bounced;
    sums->dropped += l.dropped;
    sums->lost += l.lost;
    sums->late += l.late;
    sums->back += t.back;
    sums->shared += t.shared;
    if (failure[0] != '\0')
        fprintf(stderr, "TWIN_SEED=%llu: %s\n", (unsigned long long)seed, failure);
    return failure[0] == '\0';
}

static void test_seeds(void **state)
{
    (void)state;
    struct sums sums = {0};
    uint64_t one = setting("TWIN_SEED", 0), n = setting("TWIN_SEEDS", SEEDS);
    unsigned failed = 0;
    for (uint64_t seed = one ? one : 1; seed <= (one ? one : n); seed++)
        failed += !run_seed(seed, &sums);
    fprintf(stderr,
            "%zu stanzas: %zu arrived, %zu bounced, %zu dropped, %zu lost with their"
            " connection, %zu late; %zu went by a stream that came in;"
            " %zu streams were shared\n",
            sums.stanzas, sums.arrived, sums.bounced, sums.dropped, sums.lost, sums.late, sums.back,
            sums.shared);
    assert_int_equal(failed, 0);
    assert_true(one != 0 || (sums.back > 0 && sums.shared > 0));
}

/* ---- what the seeds have found ----------------------------------------------------------------
 */

static void rounds(struct twin *t, unsigned n)
{
    for (unsigned k = 0; k < n && t->ledger.failure[0] == '\0'; k++)
        twin_round(t);
}

static void open_calm(struct twin *t)
{
    twin_open(t, 4242);
    t->weather = (struct weather){.latency = 5};
    t->net.latency = 5;
    t->net.slow = 0;
    for (int i = 0; i < 2; i++) {
        t->site[i].mode = SECURITY_TLS_OPTIONAL;
        t->site[i].tight = false;
        t->site[i].bidi = false;
    }
}

static void until_rest(struct twin *t)
{
    for (int k = 0; k < 2000 && !twin_at_rest(t); k++)
        twin_round(t);
    assert_true(twin_at_rest(t));
}

static void close_well(struct twin *t)
{
    twin_settle(t);
    twin_close(t);
    assert_string_equal(t->ledger.failure, "");
}

/* Stanzas that were held for an inside which is down were forgotten at the end. */
static void test_drain_while_link_is_down(void **state)
{
    (void)state;
    static struct twin t;
    open_calm(&t);
    assert_true(twin_start(&t, 0) && twin_start(&t, 1));
    twin_put(&t, 0, 2, ITEM_CHAT, 10, false);
    twin_put(&t, 2, 0, ITEM_CHAT, 10, false); /* the stream that the answer goes on */
    until_rest(&t);
    inside_listen(&t.site[1].in, false);
    inside_end(&t.site[1].in, false);
    t.weather.traffic = 1; /* no large jumps: the hold time must not pass */
    for (int k = 0; k < 500 && t.site[1].w.links[0]->lines[0].up; k++)
        twin_round(&t);
    twin_put(&t, 0, 2, ITEM_CHAT, 10, false);
    for (int k = 0; k < 500 && t.site[1].w.hold.items.count == 0; k++)
        twin_round(&t);
    assert_int_equal(t.site[1].w.hold.items.count, 1);
    twin_drain(&t, 1);
    for (int k = 0; k < 500 && !twin_finish_drain(&t, 1); k++)
        twin_round(&t);
    rounds(&t, 100);
    assert_int_equal(t.ledger.v[3].error.at, ARRIVED);
    t.ledger.stopped = true;
    close_well(&t);
}

/* What the inside still said while the streams were closing was queued for a stream that nobody
 * would open any more. */
static void test_stanzas_while_draining(void **state)
{
    (void)state;
    static struct twin t;
    open_calm(&t);
    assert_true(twin_start(&t, 0) && twin_start(&t, 1));
    twin_put(&t, 0, 2, ITEM_CHAT, 10, false);
    until_rest(&t);
    twin_drain(&t, 0);
    for (int k = 0; k < 30; k++)
        twin_put(&t, k % 2, 2 + k / 2 % 2, ITEM_CHAT, 10, false);
    for (int k = 0; k < 1000 && !twin_finish_drain(&t, 0); k++)
        twin_round(&t);
    assert_false(t.site[0].running);
    rounds(&t, 100);
    assert_true(t.ledger.v[2].error.at == ARRIVED || t.ledger.v[2].self.at == IN_OUTBOX);
    t.ledger.stopped = true;
    close_well(&t);
}

/* ---- failing allocations --------------------------------------------------------------------- */

static void some_traffic(struct twin *t, size_t size)
{
    for (int k = 0; k < 4; k++) {
        twin_put(t, k, (k + 2) % 4, ITEM_CHAT, size, k % 2);
        twin_put(t, k, (k + 2) % 4, ITEM_QUERY, 50, false);
    }
}

/* Start, traffic, a reload, a broken connection, the end: with the n-th allocation of alpha (and
 * `more` after it) failing. False: there were fewer. */
static bool run_short_of_memory(unsigned long n, unsigned long more)
{
    static struct twin t;
    struct wire *w;
    open_calm(&t);
    t.site[0].bidi = t.site[1].bidi = n % 2;
    t.net.slow = 50;
    t.ledger.no_memory = true;
    watch_fail_allocations(0, n, more);
    twin_start(&t, 0);
    twin_start(&t, 1);
    some_traffic(&t, 3000);
    rounds(&t, 120);
    t.site[0].mode = SECURITY_TLS_REQUIRED;
    if (t.site[0].running)
        twin_reload(&t, 0);
    some_traffic(&t, 20);
    rounds(&t, 80);
    if ((w = twin_some_wire(&t)) != NULL)
        net_cut(&t.net, w);
    some_traffic(&t, 20);
    rounds(&t, 60);
    bool failed = watch_failed_one();
    watch_fail_allocations(0, 0, 0);
    if (t.ledger.failure[0] == '\0')
        twin_end(&t);
    twin_close(&t);
    if (t.ledger.failure[0] != '\0')
        fail_msg("allocation %lu and %lu more: %s", n, more, t.ledger.failure);
    return failed;
}

static void test_memory(void **state)
{
    (void)state;
    unsigned long step = setting("TWIN_ALLOCS", 7), n = 1;
    while (run_short_of_memory(n, 0))
        n += step;
    assert_true(n > 100);
    fprintf(stderr, "%lu allocations\n", n);
    for (n = 1; run_short_of_memory(n, 5); n += 5 * step)
        ;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_drain_while_link_is_down),
        cmocka_unit_test(test_stanzas_while_draining),
        cmocka_unit_test(test_memory),
    };
    if (!twin_prepare())
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    twin_clean_up();
    return failed;
}
