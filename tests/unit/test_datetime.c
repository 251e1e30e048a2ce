/* Dates and times of XEP-0082, against the C library's calendar and by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <time.h>

#include "core/base/datetime.h"

static void test_good(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1969-07-21T02:56:15Z", -14159025000}, /* the example of XEP-0082 */
        {"1969-07-20T21:56:15-05:00", -14159025000},
        {"2006-12-19T17:58:35Z", 1166551115000}, /* of XEP-0202 */
        {"2006-12-19T17:58:35.5Z", 1166551115500},
        {"2006-12-19T17:58:35.123456789Z", 1166551115123},
        {"2006-12-19T23:28:35+05:30", 1166551115000},
        {"2000-02-29T23:59:59.999Z", 951868799999},
        {"2016-12-31T23:59:60Z", 1483228800000},
        {"0000-01-01T00:00:00Z", -62167219200000},
        {"0000-12-31T00:00:00Z", -62135683200000},
        {"0001-01-01T00:00:00Z", -62135596800000},
        {"9999-12-31T23:59:59Z", 253402300799000},
        {" \n1970-01-01T00:00:01Z\t", 1000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t ms = -1;
        if (!datetime_parse(str_c(cases[i].text), &ms) || ms != cases[i].ms)
            fail_msg("%s: %lld", cases[i].text, (long long)ms);
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const cases[] = {"",
                                        " ",
                                        "now",
                                        "2006",
                                        "2006-12-19",
                                        "2006-12-19T17:58:35",
                                        "20061219T17:58:35Z",
                                        "2006-12-19 17:58:35Z",
                                        "2006-12-19t17:58:35Z",
                                        "2006-12-19T17:58:35z",
                                        "2006-00-19T17:58:35Z",
                                        "2006-13-19T17:58:35Z",
                                        "2006-12-00T17:58:35Z",
                                        "2006-12-32T17:58:35Z",
                                        "2006-02-29T17:58:35Z",
                                        "1900-02-29T17:58:35Z",
                                        "2006-04-31T17:58:35Z",
                                        "2006-12-19T24:00:00Z",
                                        "2006-12-19T17:60:35Z",
                                        "2006-12-19T17:58:61Z",
                                        "2006-12-19T17:58:35.Z",
                                        "2006-12-19T17:58:35,5Z",
                                        "2006-12-19T17:58Z",
                                        "2006-12-19T17:58:35+24:00",
                                        "2006-12-19T17:58:35+05:60",
                                        "2006-12-19T17:58:35+0530",
                                        "2006-12-19T17:58:35+05",
                                        "2006-12-19T17:58:35Z ago",
                                        "-2006-12-19T17:58:35Z",
                                        "12006-12-19T17:58:35Z",
                                        "2006-12-19T17:58:3",
                                        "2006-1\xc2\xb2-19T17:58:35Z"};
    int64_t ms;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (datetime_parse(str_c(cases[i]), &ms))
            fail_msg("'%s' was taken", cases[i]);
    assert_false(datetime_parse(STR_NONE, &ms));
    assert_false(datetime_parse((struct str){"1970-01-01T00:00:00\0Z", 21}, &ms));
}

/* Every day of 900 years, leap years and centuries among them. */
static void test_calendar(void **state)
{
    (void)state;
    for (int64_t day = -250000; day < 80000; day++) {
        time_t t = (time_t)(day * 86400);
        struct tm tm;
        char text[64];
        int64_t ms;
        assert_non_null(gmtime_r(&t, &tm));
        snprintf(text, sizeof text, "%04d-%02d-%02dT00:00:00Z", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday);
        if (!datetime_parse(str_c(text), &ms) || ms != day * 86400000)
            fail_msg("%s: %lld", text, (long long)ms);
    }
}

/* Cut anywhere, it is never taken. */
static void test_cut(void **state)
{
    (void)state;
    static const char whole[] = "2006-12-19T17:58:35.25+05:30";
    int64_t ms;
    for (size_t n = 0; n < sizeof whole - 1; n++)
        assert_false(datetime_parse((struct str){whole, n}, &ms));
    assert_true(datetime_parse(STR(whole), &ms));
}

static void test_text(void **state)
{
    (void)state;
    static const struct {
        int64_t at;
        const char *want; /* "": a year that has not four digits */
    } rows[] = {{0, "1970-01-01T00:00:00Z"},
                {-1, "1969-12-31T23:59:59Z"},
                {INT64_C(1166551115000), "2006-12-19T17:58:35Z"},
                {INT64_C(1166551115999), "2006-12-19T17:58:35Z"},
                {INT64_C(253402300799999), "9999-12-31T23:59:59Z"},
                {INT64_C(253402300800000), ""},
                {INT64_C(-30610224000000), "1000-01-01T00:00:00Z"},
                {INT64_C(-30610224000001), ""},
                {INT64_MAX, ""},
                {INT64_MIN, ""}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[DATETIME_TEXT];
        assert_ptr_equal(datetime_text(rows[i].at, text), text);
        assert_string_equal(text, rows[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good), cmocka_unit_test(test_bad),  cmocka_unit_test(test_calendar),
        cmocka_unit_test(test_cut),  cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
