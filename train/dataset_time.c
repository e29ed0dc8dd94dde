/*
 * Numbers are the common case and are read digit by digit into an integer, exactly; only those with an exponent take
 * the way through a double. Rejected: strptime (locale, no fractions, needs a terminated string) and guessing
 * milliseconds from the size of a number (only the order of events counts, so 10^12 "seconds" do no harm).
 */
#include "train/dataset_time.h"

#include <math.h>
#include <stdbool.h>

#include "core/features.h"

static const char not_a_time[] = "neither a number of seconds nor an ISO 8601 date or time";
static const char too_large[] = "the number of seconds is too large (microseconds? divide them by 1000000)";

struct cursor {
    const char *at, *end;
};

static bool is_digit(const struct cursor *c)
{
    return c->at < c->end && *c->at >= '0' && *c->at <= '9';
}

static bool take(struct cursor *c, char wanted)
{
    bool is = c->at < c->end && *c->at == wanted;
    c->at += is;
    return is;
}

/* Exactly `digits` digits as a number, or -1. */
static int take_number(struct cursor *c, int digits)
{
    int n = 0;
    for (int i = 0; i < digits; i++) {
        if (!is_digit(c)) {
            return -1;
        }
        n = n * 10 + (*c->at++ - '0');
    }
    return n;
}

/* Digits behind a decimal point as microseconds; -1 when there is none. */
static int take_fraction(struct cursor *c)
{
    int micro = 0, scale = 100000;
    if (!is_digit(c)) {
        return -1;
    }
    for (; is_digit(c); c->at++) {
        micro += (*c->at - '0') * scale;
        scale /= 10;
    }
    return micro;
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar: years start in March, 400 years have 146,097 days. */
static int64_t days_from_date(int year, int month, int day)
{
    int y = month <= 2 ? year - 1 : year;
    int era = (y >= 0 ? y : y - 399) / 400;
    int year_of_era = y - era * 400;
    int day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return (int64_t)era * 146097 + day_of_era - 719468;
}

static bool date_exists(int year, int month, int day)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (year < 0 || month < 1 || month > 12 || day < 1) {
        return false;
    }
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= days[month - 1] + (month == 2 && leap ? 1 : 0);
}

/* "Z", "+02:00", "+0200", "+02" or nothing, to seconds east of UTC; false when it is none of these. */
static bool take_offset(struct cursor *c, int *seconds)
{
    *seconds = 0;
    if (c->at == c->end || take(c, 'Z') || take(c, 'z')) {
        return true;
    }
    int sign = take(c, '+') ? 1 : take(c, '-') ? -1 : 0;
    int hours = take_number(c, 2), minutes = 0;
    if (take(c, ':') || is_digit(c)) {
        minutes = take_number(c, 2);
    }
    *seconds = sign * (hours * 3600 + minutes * 60);
    return sign != 0 && hours >= 0 && hours <= 23 && minutes >= 0 && minutes <= 59;
}

static const char *parse_iso(struct cursor c, int64_t *microseconds)
{
    int year = take_number(&c, 4);
    bool good = take(&c, '-');
    int month = take_number(&c, 2);
    good = take(&c, '-') && good;
    int day = take_number(&c, 2);
    if (!good || !date_exists(year, month, day)) {
        return not_a_time;
    }
    int hour = 0, minute = 0, second = 0, micro = 0, offset = 0;
    if (c.at < c.end) {
        good = take(&c, 'T') || take(&c, ' ') || take(&c, 't');
        hour = take_number(&c, 2);
        good = take(&c, ':') && good;
        minute = take_number(&c, 2);
        second = take(&c, ':') ? take_number(&c, 2) : 0;
        micro = take(&c, '.') ? take_fraction(&c) : 0;
        good = take_offset(&c, &offset) && good;
    }
    bool ranges = hour >= 0 && hour <= 23 && minute >= 0 && minute <= 59 && second >= 0 && second <= 60 && micro >= 0;
    if (!good || !ranges || c.at != c.end) {
        return not_a_time;
    }
    int64_t seconds = days_from_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    *microseconds = seconds * 1000000 + micro;
    return NULL;
}

const char *time_parse(const char *text, size_t length, int64_t *microseconds)
{
    struct cursor c = {text, text + length};
    if (length >= 10 && text[4] == '-' && text[7] == '-') {
        return parse_iso(c, microseconds);
    }
    bool negative = take(&c, '-');
    int64_t n = 0;
    bool digits = is_digit(&c);
    for (; is_digit(&c); c.at++) {
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *c.at - '0', &n)) {
            return too_large;
        }
    }
    int micro = digits && take(&c, '.') && is_digit(&c) ? take_fraction(&c) : 0;
    if (digits && c.at == c.end) {
        if (__builtin_mul_overflow(n, 1000000, &n) || __builtin_add_overflow(n, micro, &n)) {
            return too_large;
        }
        *microseconds = negative ? -n : n;
        return NULL;
    }
    double x;
    if (number_parse(text, length, &x) < 0) {
        return not_a_time;
    }
    if (fabs(x) > 9e12) {
        return too_large;
    }
    *microseconds = (int64_t)(x * 1e6);
    return NULL;
}
