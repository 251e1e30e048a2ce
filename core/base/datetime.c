#include "core/base/datetime.h"

#include <time.h>

/* What is left of the text; `bad` sticks. */
struct reader {
    struct str s;
    bool bad;
};

static void skip(struct reader *r, size_t n)
{
    r->s.p += n;
    r->s.n -= n;
}

static bool at_digit(const struct reader *r)
{
    return r->s.n > 0 && r->s.p[0] >= '0' && r->s.p[0] <= '9';
}

/* Exactly `digits` digits, and a value from `min` to `max`. */
static int number(struct reader *r, int digits, int min, int max)
{
    int v = 0;
    for (int i = 0; i < digits; i++) {
        if (!at_digit(r)) {
            r->bad = true;
            return min;
        }
        v = v * 10 + (r->s.p[0] - '0');
        skip(r, 1);
    }
    r->bad = r->bad || v < min || v > max;
    return v;
}

static bool taken(struct reader *r, char c)
{
    if (r->s.n == 0 || r->s.p[0] != c)
        return false;
    skip(r, 1);
    return true;
}

static void expect(struct reader *r, char c)
{
    r->bad = !taken(r, c) || r->bad;
}

static bool leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_of(int month, int year)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && leap(year));
}

/* Days from 1970-01-01, of any year of four digits. */
static int64_t day_number(int year, int month, int day)
{
    int64_t before = year - 1;
    int64_t n = before * 365 + before / 4 - before / 100 + before / 400 - 719162;
    if (year == 0)
        n = -719528;
    for (int m = 1; m < month; m++)
        n += days_of(m, year);
    return n + day - 1;
}

static int64_t date(struct reader *r)
{
    int year = number(r, 4, 0, 9999);
    expect(r, '-');
    int month = number(r, 2, 1, 12);
    expect(r, '-');
    int day = number(r, 2, 1, 31);
    if (r->bad || day > days_of(month, year)) {
        r->bad = true;
        return 0;
    }
    return day_number(year, month, day);
}

static int64_t fraction_ms(struct reader *r)
{
    int64_t ms = 0, weight = 100;
    if (!taken(r, '.'))
        return 0;
    r->bad = r->bad || !at_digit(r);
    for (; at_digit(r); skip(r, 1), weight /= 10)
        ms += weight * (r->s.p[0] - '0');
    return ms;
}

static int64_t time_of_day(struct reader *r)
{
    int64_t seconds = (int64_t)number(r, 2, 0, 23) * 3600;
    expect(r, ':');
    seconds += (int64_t)number(r, 2, 0, 59) * 60;
    expect(r, ':');
    seconds += number(r, 2, 0, 60);
    return seconds * 1000 + fraction_ms(r);
}

static int64_t zone_ms(struct reader *r)
{
    if (taken(r, 'Z'))
        return 0;
    int sign = taken(r, '-') ? -1 : 1;
    if (sign > 0)
        expect(r, '+');
    int64_t minutes = (int64_t)number(r, 2, 0, 23) * 60;
    expect(r, ':');
    minutes += number(r, 2, 0, 59);
    return sign * minutes * 60000;
}

bool datetime_parse(struct str s, int64_t *ms)
{
    struct reader r = {str_trim(s), false};
    int64_t days = date(&r);
    expect(&r, 'T');
    int64_t clock = time_of_day(&r);
    int64_t zone = zone_ms(&r);
    *ms = days * 86400000 + clock - zone;
    return !r.bad && r.s.n == 0;
}

const char *datetime_text(int64_t ms, char out[DATETIME_TEXT])
{
    const time_t t = (time_t)(ms / 1000 - (ms % 1000 < 0));
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || tm.tm_year < -900 || tm.tm_year > 8099 ||
        strftime(out, DATETIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
    return out;
}
