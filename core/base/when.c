#include "when.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MINUTE	INT64_C(60)
#define HOUR	(60 * MINUTE)
#define DAY	(24 * HOUR)
#define CENTURY (INT64_C(100) * 366 * DAY)
#define DIGITS	18 /* of a number that int64 holds */

/* Numbers from here on are milliseconds: in seconds they are in the year 5138. */
#define MILLISECONDS INT64_C(100000000000)

/* --- words --- */

/* A text, with capitals made small. */
struct reader {
	char text[WHEN_TEXT_MAX + 1];
	const char *at;
};

static bool reader_init(struct reader *reader, const char *text, size_t len)
{
	if (len > WHEN_TEXT_MAX)
		return false;
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		/* the no-break spaces that programs put before pm: C2 A0, E2 80 AF */
		if (len - i >= 2 && memcmp(text + i, "\xc2\xa0", 2) == 0) {
			c = ' ';
			i += 1;
		} else if (len - i >= 3 && memcmp(text + i, "\xe2\x80\xaf", 3) == 0) {
			c = ' ';
			i += 2;
		}
		reader->text[n++] = (char)(c < 0x80 ? tolower(c) : c);
	}
	reader->text[n] = '\0';
	reader->at = reader->text;
	return strlen(reader->text) == n;
}

static void skip_blanks(struct reader *reader)
{
	reader->at += strspn(reader->at, " \t\n,");
}

static bool take(struct reader *reader, const char *word)
{
	size_t len = strlen(word);
	if (strncmp(reader->at, word, len) != 0)
		return false;
	reader->at += len;
	return true;
}

/* Takes a number of `least` to `most` digits. */
static bool take_number(struct reader *reader, size_t least, size_t most, int64_t *ret)
{
	size_t n = strspn(reader->at, "0123456789");
	if (n < least || n > most)
		return false;
	*ret = 0;
	for (size_t i = 0; i < n; i++)
		*ret = *ret * 10 + (*reader->at++ - '0');
	return true;
}

/* Takes a word as long as its letters go. */
static bool take_word(struct reader *reader, const char *word)
{
	size_t n = strspn(reader->at, "abcdefghijklmnopqrstuvwxyz");
	if (n != strlen(word) || strncmp(reader->at, word, n) != 0)
		return false;
	reader->at += n;
	return true;
}

/* --- zones --- */

/* Takes +HH:MM, or +HHMM. */
static bool take_offset(struct reader *reader, int32_t *ret)
{
	int64_t hours, minutes;
	bool west = *reader->at == '-';
	if (*reader->at != '+' && *reader->at != '-')
		return false;
	reader->at++;
	size_t digits = strspn(reader->at, "0123456789");
	if (digits == 4) {
		if (!take_number(reader, 4, 4, &hours))
			return false;
		minutes = hours % 100;
		hours /= 100;
	} else if (!take_number(reader, 2, 2, &hours) || !take(reader, ":") ||
		   !take_number(reader, 2, 2, &minutes)) {
		return false;
	}
	if (hours > 14 || minutes > 59)
		return false;
	*ret = (int32_t)((hours * HOUR + minutes * MINUTE) * (west ? -1 : 1));
	return true;
}

static bool take_zone(struct reader *reader, struct when_zone *ret)
{
	struct when_zone zone = {.local = false};
	if (!take_word(reader, "utc") && !take_word(reader, "gmt") && !take_word(reader, "z") &&
	    !take_offset(reader, &zone.offset_s))
		return false;
	*ret = zone;
	return true;
}

int when_zone_parse(const char *text, struct when_zone *ret)
{
	struct reader reader;
	struct when_zone zone = {.local = true};
	if (!reader_init(&reader, text, strlen(text)))
		return -EINVAL;
	if (!take_word(&reader, "local") && !take_zone(&reader, &zone))
		return -EINVAL;
	if (*reader.at)
		return -EINVAL;
	*ret = zone;
	return 0;
}

/* --- a clock time --- */

struct when {
	int64_t year, month, day; /* month and day from 1; 0: none was named */
	int64_t hour, minute, second;
};

static bool take_month(struct reader *reader, int64_t *ret)
{
	static const char *const names[] = {"january",	 "february", "march",	 "april",
					    "may",	 "june",     "july",	 "august",
					    "september", "october",  "november", "december"};
	size_t n = strspn(reader->at, "abcdefghijklmnopqrstuvwxyz");
	for (int i = 0; i < 12; i++) {
		bool is_whole = n == strlen(names[i]);
		bool is_short = n == 3 || (n == 4 && i == 8);
		if ((!is_whole && !is_short) || strncmp(names[i], reader->at, n) != 0)
			continue;
		reader->at += n;
		reader->at += *reader->at == '.';
		*ret = i + 1;
		return true;
	}
	return false;
}

static bool days_fit(const struct when *when)
{
	static const unsigned char days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leaps = (when->year % 4 == 0 && when->year % 100 != 0) || when->year % 400 == 0;
	int64_t most = days[when->month - 1];
	if (when->month == 2 && when->year && !leaps)
		most = 28;
	return when->day >= 1 && when->day <= most;
}

/* Takes "2026-11-28", or "Nov 28th, 2026", without or with the year. False: there is no such day.
 * Without a date it takes nothing. */
static bool take_date(struct reader *reader, struct when *ret)
{
	const char *begin = reader->at;
	if (take_number(reader, 4, 4, &ret->year) && take(reader, "-")) {
		if (!take_number(reader, 2, 2, &ret->month) || !take(reader, "-") ||
		    !take_number(reader, 2, 2, &ret->day) || ret->month < 1 || ret->month > 12)
			return false;
		(void)(take(reader, "t") || take(reader, " "));
		return ret->year >= 1970 && days_fit(ret);
	}
	ret->year = 0;
	reader->at = begin;
	if (!take_month(reader, &ret->month))
		return true;
	skip_blanks(reader);
	if (!take_number(reader, 1, 2, &ret->day))
		return false;
	(void)(take(reader, "st") || take(reader, "nd") || take(reader, "rd") ||
	       take(reader, "th"));
	skip_blanks(reader);
	begin = reader->at;
	if (!take_number(reader, 4, 4, &ret->year) || *reader->at == ':') {
		ret->year = 0;
		reader->at = begin;
	}
	skip_blanks(reader);
	if (take_word(reader, "at"))
		skip_blanks(reader);
	return (ret->year == 0 || ret->year >= 1970) && days_fit(ret);
}

static bool take_clock(struct reader *reader, struct when *ret)
{
	if (!take_number(reader, 1, 2, &ret->hour))
		return false;
	bool has_minute = take(reader, ":");
	if (has_minute && !take_number(reader, 2, 2, &ret->minute))
		return false;
	if (has_minute && take(reader, ":")) {
		if (!take_number(reader, 2, 2, &ret->second))
			return false;
		if (take(reader, ".")) /* parts of a second */
			reader->at += strspn(reader->at, "0123456789");
	}
	skip_blanks(reader);
	bool pm = take_word(reader, "pm") || take(reader, "p.m.");
	bool am = !pm && (take_word(reader, "am") || take(reader, "a.m."));
	if (!has_minute && !am && !pm)
		return false;
	if ((am || pm) && (ret->hour < 1 || ret->hour > 12))
		return false;
	if (am || pm)
		ret->hour = ret->hour % 12 + (pm ? 12 : 0);
	return ret->hour < 24 && ret->minute < 60 && ret->second < 60;
}

static bool to_tm(int64_t at_s, struct when_zone zone, struct tm *ret)
{
	time_t at = (time_t)(zone.local ? at_s : at_s + zone.offset_s);
	return zone.local ? localtime_r(&at, ret) != NULL : gmtime_r(&at, ret) != NULL;
}

static int64_t from_tm(struct tm tm, struct when_zone zone)
{
	tm.tm_isdst = -1; /* of an hour that there is twice, or not at all: as the library has it */
	return zone.local ? (int64_t)mktime(&tm) : (int64_t)timegm(&tm) - zone.offset_s;
}

/* The first such time that is not over; `step` days or years on, where no date or no year is
 * named. */
static int64_t next_time(struct tm tm, bool by_year, int64_t now_s, struct when_zone zone)
{
	int64_t at = from_tm(tm, zone);
	if (at <= now_s && at > now_s - MINUTE && tm.tm_sec == 0)
		return at + MINUTE;
	/* the 29th of February may be eight years off */
	for (int i = 0; i < 9 && at <= now_s; i++) {
		struct tm next = tm;
		if (by_year)
			next.tm_year += i;
		else
			next.tm_mday += i;
		int day = next.tm_mday;
		struct tm there = next;
		at = from_tm(next, zone);
		if (by_year && (!to_tm(at, zone, &there) || there.tm_mday != day))
			at = now_s;
	}
	return at;
}

int when_parse(const char *text, size_t len, int64_t now_s, struct when_zone zone, int64_t *ret)
{
	struct reader reader;
	struct when when = {0};
	struct tm tm;
	if (!reader_init(&reader, text, len))
		return -EINVAL;
	skip_blanks(&reader);
	if (!take_date(&reader, &when) || !take_clock(&reader, &when))
		return -EINVAL;
	skip_blanks(&reader);
	if (*reader.at && !take_zone(&reader, &zone))
		return -EINVAL;
	skip_blanks(&reader);
	if (*reader.at || !to_tm(now_s, zone, &tm))
		return -EINVAL;
	tm.tm_hour = (int)when.hour;
	tm.tm_min = (int)when.minute;
	tm.tm_sec = (int)when.second;
	if (when.month) {
		tm.tm_mon = (int)when.month - 1;
		tm.tm_mday = (int)when.day;
	}
	if (when.year)
		tm.tm_year = (int)when.year - 1900;
	*ret = when.year ? from_tm(tm, zone) : next_time(tm, when.month != 0, now_s, zone);
	return 0;
}

/* --- a span --- */

/* Takes the unit of a number, and returns its seconds; 0: there is none. */
static int64_t take_unit(struct reader *reader)
{
	static const struct {
		const char *name;
		int64_t seconds;
	} units[] = {
		{"s", 1},	    {"sec", 1},		 {"secs", 1},	  {"second", 1},
		{"seconds", 1},	    {"m", MINUTE},	 {"min", MINUTE}, {"mins", MINUTE},
		{"minute", MINUTE}, {"minutes", MINUTE}, {"h", HOUR},	  {"hr", HOUR},
		{"hrs", HOUR},	    {"hour", HOUR},	 {"hours", HOUR}, {"d", DAY},
		{"day", DAY},	    {"days", DAY},	 {"w", 7 * DAY},  {"week", 7 * DAY},
		{"weeks", 7 * DAY},
	};
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (take_word(reader, units[i].name))
			return units[i].seconds;
	}
	return 0;
}

int when_span_parse(const char *text, size_t len, int64_t *ret)
{
	struct reader reader;
	int64_t sum = 0, number;
	unsigned n = 0;
	if (!reader_init(&reader, text, len))
		return -EINVAL;
	for (skip_blanks(&reader); *reader.at; skip_blanks(&reader)) {
		if (n > 0 && take_word(&reader, "and"))
			skip_blanks(&reader);
		if (!take_number(&reader, 1, DIGITS, &number))
			return -EINVAL;
		bool has_part = take(&reader, "."); /* 30.5s */
		if (has_part && strspn(reader.at, "0123456789") == 0)
			return -EINVAL;
		if (has_part)
			reader.at += strspn(reader.at, "0123456789");
		skip_blanks(&reader);
		int64_t unit = take_unit(&reader);
		if (unit == 0 && (n > 0 || *reader.at))
			return -EINVAL;
		if (has_part && unit > 1) /* 1.5h is not said */
			return -EINVAL;
		unit = unit ? unit : 1;
		if (number > CENTURY / unit)
			return -ERANGE;
		sum += number * unit + has_part;
		if (sum > CENTURY)
			return -ERANGE;
		n++;
	}
	if (n == 0)
		return -EINVAL;
	*ret = sum;
	return 0;
}

int when_epoch_parse(const char *text, size_t len, int64_t *ret)
{
	struct reader reader;
	int64_t number;
	if (!reader_init(&reader, text, len) || !take_number(&reader, 1, DIGITS, &number) ||
	    *reader.at)
		return -EINVAL;
	if (number >= MILLISECONDS)
		number = (number + 999) / 1000;
	if (number >= MILLISECONDS)
		return -ERANGE;
	*ret = number;
	return 0;
}

void when_format(int64_t at_s, char *ret_text, size_t size)
{
	time_t at = (time_t)at_s;
	struct tm tm;
	if (!gmtime_r(&at, &tm) || strftime(ret_text, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(ret_text, size, "%s", "");
}
