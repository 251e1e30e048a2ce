/* Both machines of a component link against every input in every state, random walks from a fixed
 * seed, and memory that runs out. What must hold is in tests/fake/link_bench.c (check). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "core/base/mem.h"
#include "tests/fake/link_bench.h"

enum { WALK = 400000 };

static void ok(const struct bench *b, const char *where)
{
    if (b->wrong != NULL)
        fail_msg("%s: %s", where, b->wrong);
}

/* ---- totality -------------------------------------------------------------------------------- */

/* How to get to each state: so many orderly steps, then these. */
static const struct {
    unsigned lead;
    enum bench_input then;
} places[] = {{0, IN_COUNT}, {1, IN_COUNT}, {2, IN_COUNT},    {3, IN_COUNT}, {4, IN_COUNT},
              {4, IN_DRAIN}, {3, IN_DRAIN}, {4, IN_CONFLICT}, {4, IN_LOST},  {2, IN_TLS_SELF}};

static void go(struct bench *b, unsigned lead, enum bench_input then)
{
    for (unsigned i = 0; i < lead; i++)
        bench_give(b, bench_lead(b));
    bench_give(b, then);
}

static void every_input(bool client, enum bench_profile profile, size_t place)
{
    for (int in = 0; in < IN_COUNT; in++) {
        struct bench b;
        bench_init(&b, client, profile, place % 2);
        go(&b, places[place].lead, places[place].then);
        bool rested = b.closes > 0;
        bench_give(&b, (enum bench_input)in);
        ok(&b, bench_input_name((enum bench_input)in));
        if (rested && b.out.n > 0)
            fail_msg("%s after the end", bench_input_name((enum bench_input)in));
        bench_give(&b, IN_LOST);
        ok(&b, "LOST");
        assert_string_equal(bench_state(&b), "RESTING");
        bench_free(&b);
    }
}

static void test_every_input_in_every_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        for (int p = 0; p < BENCH_PROFILE_COUNT; p++) {
            every_input(true, (enum bench_profile)p, i);
            every_input(false, (enum bench_profile)p, i);
        }
}

/* Two of them in a row, in every state: what the first one changed must not surprise the second. */
static void test_every_pair_of_inputs(void **state)
{
    (void)state;
    for (int first = 0; first < IN_COUNT; first++)
        for (int second = 0; second < IN_COUNT; second++)
            for (int way = 0; way < 2 * BENCH_PROFILE_COUNT; way++) {
                struct bench b;
                bench_init(&b, way % 2, (enum bench_profile)(way / 2), true);
                go(&b, (unsigned)(first + second) % 5, (enum bench_input)first);
                bench_give(&b, (enum bench_input)second);
                ok(&b, bench_input_name((enum bench_input)second));
                bench_free(&b);
            }
}

/* ---- walking --------------------------------------------------------------------------------- */

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

static void start_anew(struct bench *b, uint32_t dice)
{
    bench_init(b, dice & 1, (enum bench_profile)(dice / 2 % BENCH_PROFILE_COUNT), dice & 64);
    b->no_random = dice % 61 == 0;
}

static void walk_on(struct bench *b, uint32_t *seed)
{
    uint64_t ms = next_random(seed) % 20000;
    b->now += ms;
    b->wall += (int64_t)ms;
    /* Half of the steps lead on, or the walk would end at once most of the time. */
    bool lead = next_random(seed) % 2 && !bench_end(b)->was_up;
    bench_give(b, lead ? bench_lead(b) : (enum bench_input)(next_random(seed) % IN_COUNT));
    if (b->client && next_random(seed) % 8 == 0)
        link_client_pause(&b->c, next_random(seed) % 2, b->now);
}

static void test_random_walk(void **state)
{
    (void)state;
    uint32_t seed = 7;
    unsigned ends = 0, ups = 0;
    struct bench b;
    start_anew(&b, 1);
    for (unsigned i = 0; i < WALK; i++) {
        walk_on(&b, &seed);
        if (b.wrong != NULL)
            fail_msg("step %u: %s", i, b.wrong);
        if (b.closes == 0 || next_random(&seed) % 4)
            continue;
        ends++;
        ups += bench_end(&b)->was_up;
        bench_free(&b);
        start_anew(&b, next_random(&seed));
    }
    bench_free(&b);
    printf("# %u ends, %u of them had been up\n", ends, ups);
    assert_true(ends > 10000);
    assert_true(ups > 1000);
    assert_int_equal(bench_untaken(true) + bench_untaken(false), 0);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* A life of a link with memory running out at its n-th allocation. True: it did run out. */
static bool starve(bool client, enum bench_profile profile, unsigned long n)
{
    static const enum bench_input life[] = {IN_STANZA,      IN_TIME,  IN_STANZA_BAD_TO, IN_PONG,
                                            IN_T_KEEPALIVE, IN_DRAIN, IN_STREAM_CLOSE};
    struct bench b;
    bool out = false;
    bench_init(&b, client, profile, true);
    b.starved = true;
    for (size_t i = 0; i < 5 + sizeof life / sizeof life[0]; i++) {
        enum bench_input in = i < 5 && !bench_end(&b)->was_up ? bench_lead(&b)
                              : i < 5                         ? IN_T_KEEPALIVE
                                                              : life[i - 5];
        if (in == IN_T_KEEPALIVE)
            b.now += LINK_PING_MS;
        mem_fail_after(n);
        bench_give(&b, in);
        mem_fail_after(0);
        ok(&b, bench_input_name(in));
        out = out || (b.closes > 0 && b.reason == END_NO_MEMORY);
    }
    if (!out)
        assert_string_equal(bench_state(&b), "RESTING");
    bench_free(&b);
    return out;
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    for (int p = 0; p < BENCH_PROFILE_COUNT; p++)
        for (int client = 0; client < 2; client++) {
            assert_true(starve(client, (enum bench_profile)p, 1));
            for (unsigned long n = 2; n < 40; n++)
                starve(client, (enum bench_profile)p, n);
            assert_false(starve(client, (enum bench_profile)p, 1000));
        }
}

static void test_random_walk_without_memory(void **state)
{
    (void)state;
    uint32_t seed = 11;
    unsigned ends = 0, starved = 0;
    struct bench b;
    start_anew(&b, 1);
    for (unsigned i = 0; i < WALK / 4; i++) {
        b.starved = true;
        mem_fail_after(next_random(&seed) % 3 ? 0 : 1 + next_random(&seed) % 12);
        walk_on(&b, &seed);
        mem_fail_after(0);
        if (b.wrong != NULL)
            fail_msg("step %u: %s", i, b.wrong);
        if (b.closes == 0)
            continue;
        ends++;
        starved += b.reason == END_NO_MEMORY;
        bench_free(&b);
        start_anew(&b, next_random(&seed));
    }
    bench_free(&b);
    printf("# %u ends, %u for want of memory\n", ends, starved);
    assert_true(starved > 1000 && ends > 2 * starved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_input_in_every_state),
        cmocka_unit_test(test_every_pair_of_inputs),
        cmocka_unit_test(test_random_walk),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_random_walk_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
