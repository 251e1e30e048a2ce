/* Alarms: raised once, counted, cleared by success; bounded; never lost without a log line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/daemon/alarm.h"

struct bench {
    struct alarms a;
    struct log *log;
    struct buf out;
};

static void begin(struct bench *b)
{
    b->out = BUF_INIT(1 << 20);
    b->log = log_new(-1, LOG_INFO, LOG_LOGFMT, 0);
    assert_non_null(b->log);
    log_capture(b->log, &b->out);
    alarms_init(&b->a, &(struct log_ctx){.sink = b->log});
}

static void finish(struct bench *b)
{
    alarms_free(&b->a);
    assert_int_equal(b->a.list.count, 0);
    log_free(b->log);
    buf_free(&b->out);
}

/* What was logged since the last look. */
static void expect(struct bench *b, const char *lines)
{
    buf_putc(&b->out, '\0');
    assert_string_equal(b->out.p, lines);
    buf_free(&b->out);
    b->out = BUF_INIT(1 << 20);
}

static const struct alarm *nth(const struct bench *b, unsigned n)
{
    const struct list_node *node = b->a.list.first;
    while (n-- > 0)
        node = node->next;
    return CONTAINER_OF(node, const struct alarm, node);
}

static void test_counts_and_clears(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    int64_t before = time(NULL);
    alarm_raise(&b.a, "link.password", "core", "wrong secret", 1000);
    expect(&b, "warn alarm.raised kind=link.password subject=core msg=\"wrong secret\"\n");
    alarm_raise(&b.a, "link.password", "core", "still wrong", 4000);
    expect(&b, "");
    const struct alarm *al = nth(&b, 0);
    assert_int_equal(b.a.list.count, 1);
    assert_int_equal(al->count, 2);
    assert_int_equal(al->first_ms, 1000);
    assert_int_equal(al->last_ms, 4000);
    assert_string_equal(al->text, "still wrong");
    assert_in_range(al->first_at, before, time(NULL));
    assert_in_range(al->last_at, al->first_at, time(NULL));
    assert_true(alarm_clear(&b.a, "link.password", "core", 6500));
    expect(&b, "notice alarm.cleared kind=link.password subject=core count=2 after=5.500\n");
    assert_false(alarm_clear(&b.a, "link.password", "core", 7000));
    expect(&b, "");
    alarm_raise(&b.a, "link.password", "core", "again", 8000); /* it starts anew */
    assert_int_equal(nth(&b, 0)->count, 1);
    finish(&b);
}

static void test_kind_and_subject(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    alarm_raise(&b.a, "link.connect", "a", "x", 0);
    alarm_raise(&b.a, "link.expired", "a", "x", 0);
    alarm_raise(&b.a, "link.connect", "b", "x", 0);
    alarm_raise(&b.a, "dns.silent", "a", "x", 0);
    assert_int_equal(b.a.list.count, 4);
    assert_false(alarm_clear(&b.a, "link.expired", "b", 1));
    assert_false(alarm_clear(&b.a, "link", "a", 1)); /* the whole kind, no prefix */
    alarm_clear_all(&b.a, "link.", "a", 1);
    assert_int_equal(b.a.list.count, 2);
    assert_string_equal(nth(&b, 0)->subject, "b"); /* the oldest one first */
    assert_string_equal(nth(&b, 1)->kind, "dns.silent");
    alarm_clear_all(&b.a, "link.", "nobody", 1);
    alarm_clear_all(&b.a, "", "a", 1);
    assert_int_equal(b.a.list.count, 1);
    alarm_raise(&b.a, "link.connect", "c", "x", 0);
    alarm_raise(&b.a, "link.connected", "c", "x", 0);
    alarm_clear_kind(&b.a, "link.connect", 1); /* whomever it concerns */
    assert_int_equal(b.a.list.count, 1);
    assert_string_equal(nth(&b, 0)->kind, "link.connected");
    finish(&b);
}

static void test_long_names(void **state)
{
    (void)state;
    struct bench b;
    char subject[2 * ALARM_SUBJECT_MAX], text[2 * ALARM_TEXT_MAX];
    memset(subject, 's', sizeof subject - 1);
    memset(text, 't', sizeof text - 1);
    subject[sizeof subject - 1] = text[sizeof text - 1] = '\0';
    begin(&b);
    alarm_raise(&b.a, "k", subject, text, 0);
    alarm_raise(&b.a, "k", subject, text, 0);
    assert_int_equal(b.a.list.count, 1);
    assert_int_equal(strlen(nth(&b, 0)->subject), ALARM_SUBJECT_MAX - 1);
    assert_int_equal(strlen(nth(&b, 0)->text), ALARM_TEXT_MAX - 1);
    assert_true(alarm_clear(&b.a, "k", subject, 1));
    alarm_raise(&b.a, "k", subject, text, 0);
    alarm_clear_all(&b.a, "k", subject, 1);
    assert_int_equal(b.a.list.count, 0);
    finish(&b);
}

/* What is not kept is said all the same, each time, and does no harm. */
static void test_bounded(void **state)
{
    (void)state;
    struct bench b;
    char subject[16];
    begin(&b);
    for (int i = 0; i < ALARMS_MAX; i++) {
        snprintf(subject, sizeof subject, "s%d", i);
        alarm_raise(&b.a, "k", subject, "", 0);
    }
    buf_free(&b.out);
    b.out = BUF_INIT(1 << 20);
    alarm_raise(&b.a, "k", "late", "no room", 0);
    expect(&b, "warn alarm.raised kind=k subject=late msg=\"no room\"\n");
    alarm_raise(&b.a, "k", "s7", "known", 0);
    expect(&b, "");
    assert_int_equal(b.a.list.count, ALARMS_MAX);
    assert_false(alarm_clear(&b.a, "k", "late", 0));
    alarm_clear(&b.a, "k", "s0", 0);
    mem_fail_after(1);
    alarm_raise(&b.a, "k", "late", "no memory", 0);
    mem_fail_after(0);
    assert_int_equal(b.a.list.count, ALARMS_MAX - 1);
    alarm_raise(&b.a, "k", "late", "room again", 0);
    assert_int_equal(b.a.list.count, ALARMS_MAX);
    finish(&b);
}

static void test_dump(void **state)
{
    (void)state;
    struct bench b;
    begin(&b);
    alarms_dump(&b.a);
    expect(&b, "");
    alarm_raise(&b.a, "k", "one", "first", 0);
    alarm_raise(&b.a, "k", "two", "second", 0);
    struct alarm *al = CONTAINER_OF(b.a.list.first, struct alarm, node);
    al->first_at = 1800000000;
    al->last_at = 1800000061;
    alarm_clear(&b.a, "k", "two", 0);
    buf_free(&b.out);
    b.out = BUF_INIT(1 << 20);
    alarms_dump(&b.a);
    expect(&b, "notice alarm.standing kind=k subject=one count=1 first=2027-01-15T08:00:00Z "
               "last=2027-01-15T08:01:01Z msg=first\n");
    finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_and_clears),
        cmocka_unit_test(test_kind_and_subject),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_dump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
