#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "text.h"

static void labels_are_checked(void **state)
{
	static const char *const good[] = {"a", "fix-auth", "A.b_c-9", "0", "a.locked"};
	static const char *const bad[] = {"",	".a",	  "-a",	 "a/b", "a..b",
					  "a.", "a.lock", "a b", "a\n", "ä"};
	char longest[AP_LABEL_MAX + 2];
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(ap_label_valid(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(ap_label_valid(bad[i]));
	memset(longest, 'a', sizeof longest);
	longest[AP_LABEL_MAX] = '\0';
	assert_true(ap_label_valid(longest));
	longest[AP_LABEL_MAX] = 'a';
	longest[AP_LABEL_MAX + 1] = '\0';
	assert_false(ap_label_valid(longest));
}

static void durations_are_read(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
	} rows[] = {{"0", 0},
		    {"30", 30 * AP_SECOND},
		    {"250ms", 250 * AP_MS},
		    {"1.5s", 1500 * AP_MS},
		    {"5m", 300 * AP_SECOND},
		    {"2h", 7200 * AP_SECOND},
		    {"1d", 86400 * AP_SECOND}};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int64_t ns = -1;
		assert_int_equal(ap_duration_parse(rows[i].text, &ns), 0);
		assert_int_equal(ns, rows[i].ns);
	}
}

static void bad_durations_are_refused(void **state)
{
	static const char *const bad[] = {"",	 "s",  "1x", "1 s",   "0x10",
					  "1e9", ".5", "5.", "1..2s", "nan"};
	int64_t ns = 7;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(ap_duration_parse(bad[i], &ns), -EINVAL);
	assert_int_equal(ap_duration_parse("-1", &ns), -ERANGE);
	assert_int_equal(ap_duration_parse("99999999d", &ns), -ERANGE);
	assert_int_equal(ns, 7);
}

static void durations_are_written_as_they_are_read(void **state)
{
	static const char *const same[] = {"0", "30s", "5m", "2h", "1d", "250ms", "90s"};
	for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
		char text[32];
		int64_t ns;
		assert_int_equal(ap_duration_parse(same[i], &ns), 0);
		ap_duration_format(ns, text, sizeof text);
		assert_string_equal(text, same[i]);
	}
}

/* Which a double would not do: 0.29 * 1e9 is less than 290000000. */
static void durations_are_exact(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
		const char *shown;
	} rows[] = {{"0.29s", 290 * AP_MS, "290ms"},
		    {"0.25ms", AP_MS / 4, "0.25ms"},
		    {"1.000000005h", 3600 * AP_SECOND + 18000, "3600000.018ms"},
		    {"0.000000001", 1, "0.000001ms"},
		    {"0.0000000019", 1, "0.000001ms"},
		    {"36599.999999999999d", INT64_C(36600) * 86400 * AP_SECOND - 87,
		     "3162239999999.999913ms"},
		    {"00000000000000000000000000000000000001.50s", 1500 * AP_MS, "1500ms"}};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[32];
		int64_t ns;
		assert_int_equal(ap_duration_parse(rows[i].text, &ns), 0);
		assert_int_equal(ns, rows[i].ns);
		ap_duration_format(ns, text, sizeof text);
		assert_string_equal(text, rows[i].shown);
		assert_int_equal(ap_duration_parse(text, &ns), 0);
		assert_int_equal(ns, rows[i].ns);
	}
}

static void sizes_are_read(void **state)
{
	int64_t size;
	assert_int_equal(ap_size_parse("4096", &size), 0);
	assert_int_equal(size, 4096);
	assert_int_equal(ap_size_parse("1M", &size), 0);
	assert_int_equal(size, 1 << 20);
	assert_int_equal(ap_size_parse("-1", &size), -ERANGE);
	assert_int_equal(ap_size_parse("9999999999G", &size), -ERANGE);
	assert_int_equal(ap_size_parse("M", &size), -EINVAL);
}

static void a_buffer_refuses_what_cannot_be(void **state)
{
	struct ap_buf buf = {0};
	ap_buf_adds(&buf, "text");
	assert_false(ap_buf_reserve(&buf, SIZE_MAX - 2));
	assert_true(buf.failed);
	assert_string_equal(ap_buf_text(&buf), "text");
	ap_buf_fini(&buf);
}

static void a_quoted_word_is_one_word_of_sh(void **state)
{
	static const char *const words[] = {"", "it's", "'", "''a'", "a b", "$(x) `y` \\", "-n"};
	struct ap_buf line = {0}, said = {0};
	char text[256];
	ap_buf_adds(&line, "printf '[%s]'");
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		ap_buf_adds(&line, " ");
		ap_buf_add_quoted(&line, words[i]);
		ap_buf_printf(&said, "[%s]", words[i]);
	}
	FILE *shell = popen(ap_buf_text(&line), "r");
	assert_non_null(shell);
	text[fread(text, 1, sizeof text - 1, shell)] = '\0';
	assert_int_equal(pclose(shell), 0);
	assert_string_equal(text, ap_buf_text(&said));
	ap_buf_fini(&line);
	ap_buf_fini(&said);
}

static void words_are_cut(void **state)
{
	char line[] = "  a\tbc  d ";
	char *cursor = line;
	assert_string_equal(ap_word_next(&cursor), "a");
	assert_string_equal(ap_word_next(&cursor), "bc");
	assert_string_equal(ap_word_next(&cursor), "d");
	assert_null(ap_word_next(&cursor));
}

static void assert_plain(const char *raw, const char *expected)
{
	/* whole, and one byte at a time */
	for (size_t step = strlen(raw); step > 0; step = step > 1 ? 1 : 0) {
		struct ap_plain plain = {0};
		struct ap_buf out = {0};
		for (size_t i = 0; i < strlen(raw); i += step)
			ap_plain_add(&plain, raw + i, step, &out);
		assert_string_equal(ap_buf_text(&out), expected);
		ap_buf_fini(&out);
	}
}

static void control_sequences_are_left_out(void **state)
{
	assert_plain("a\033[31mred\033[0mb\r\n", "aredb\n");
	assert_plain("\033]0;title\007x", "x");
	assert_plain("\033]8;;http://x\033\\link\033]8;;\033\\", "link");
	assert_plain("\033Pq#1\033\\y\033(Bz", "yz");
	assert_plain("\033[?2004h$ ls", "$ ls");
	assert_plain("ab\bc\a\001", "ac");
	assert_plain("10%\r20%\r\n", "10%\n20%\n");
	assert_plain("\xc3\xa4\b\xc3\xb6", "\xc3\xb6");
	assert_plain("a\xc2\x9b"
		     "31mb\xc2\x9d"
		     "0;t\007c\xc2\x85"
		     "d",
		     "abcd"); /* C1 */
	assert_plain("a\xff"
		     "b\x80\xc3"
		     "c\xe6\x97\xa5\xc0\x80",
		     "abc\xe6\x97\xa5"); /* no UTF-8 */
}

static void what_is_cut_short_takes_no_text_with_it(void **state)
{
	assert_plain("a\033[3\033[31mb", "ab");
	assert_plain("a\033\033[31mb", "ab");
	assert_plain("a\033(\033[31mb", "ab");
	assert_plain("a\033]0;t\033\033[31mb", "ab");
	assert_plain("a\033[3\030bc\033[3\032d", "abcd");
}

/* Overlong forms, surrogates, and what is beyond the last character: a strict reader of the output
 * would refuse all of it. */
static void only_strict_utf8_is_let_through(void **state)
{
	static const char *const none[] = {
		"\xe0\x80\x80",	    "\xe0\x9f\xbf",	"\xed\xa0\x80",	    "\xed\xbf\xbf",
		"\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc1\xbf"};
	static const char *const some[] = {"\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
					   "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
	for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
		char text[8];
		assert_plain(none[i], "");
		strcpy(text, none[i]);
		ap_text_tame(text);
		assert_string_equal(text, &"????"[4 - strlen(none[i])]);
	}
	for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
		char text[8];
		assert_plain(some[i], some[i]);
		strcpy(text, some[i]);
		ap_text_tame(text);
		assert_string_equal(text, some[i]);
	}
}

static void taming(void **state)
{
	char text[] = "a\tb\033[31m \x7f \xc3\xb6 \xff\xfe \xe2\x82 \xc2\x9b"
		      "c";
	ap_text_tame(text);
	assert_string_equal(text, "a?b?[31m ? \xc3\xb6 ?? ?? ??c");
}

static void collect_osc(void *data, const char *osc, const struct ap_buf *out)
{
	ap_buf_printf(data, "%s@%zu ", osc, out->len);
}

static void commands_are_told(void **state)
{
	static const char raw[] = "ab\033]0;title\007c\033]133;D;0\033\\\033]7;cut\033[mend";
	for (size_t step = 1; step < sizeof raw; step++) {
		struct ap_buf out = {0}, told = {0};
		struct ap_plain plain = {.on_osc = collect_osc, .data = &told};
		for (size_t i = 0; i < sizeof raw - 1; i += step)
			ap_plain_add(&plain, raw + i,
				     i + step < sizeof raw ? step : sizeof raw - 1 - i, &out);
		assert_string_equal(ap_buf_text(&told), "0;title@2 133;D;0@3 7;cut@3 ");
		assert_string_equal(ap_buf_text(&out), "abcend");
		ap_buf_fini(&told);
		ap_buf_fini(&out);
	}
	char long_one[AP_OSC_MAX * 2 + 8];
	struct ap_buf out = {0}, told = {0};
	struct ap_plain plain = {.on_osc = collect_osc, .data = &told};
	memset(long_one, 'x', sizeof long_one);
	memcpy(long_one, "\033]", 2);
	long_one[sizeof long_one - 1] = '\007';
	ap_plain_add(&plain, long_one, sizeof long_one, &out);
	assert_int_equal(told.len, AP_OSC_MAX - 1 + strlen("@0 "));
	ap_buf_fini(&told);
	ap_buf_fini(&out);
}

static void escapes(void **state)
{
	static const struct {
		const char *text, *escaped;
	} cases[] = {
		{"plain, ünï, \\", "plain, ünï, \\"},
		{"a\nb\tc\rd", "a\\nb\\tc\\rd"},
		{"\033[31m\177", "\\033[31m\\177"},
		{"\xc2\x9b", "\\302\\233"},
		{"caf\xe9", "caf\\351"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[64];
		snprintf(text, sizeof text, "%s", cases[i].text);
		ap_text_escape(text, sizeof text);
		assert_string_equal(text, cases[i].escaped);
		ap_text_escape(text, sizeof text); /* once more changes nothing */
		assert_string_equal(text, cases[i].escaped);
	}
	for (size_t size = 3; size < 16; size++) { /* cut where there is no room */
		char text[16] = "";
		memset(text, '\n', size - 1);
		ap_text_escape(text, size);
		assert_true(strlen(text) < size);
		assert_int_equal(strlen(text) % 2, 0);
	}
}

static void assert_gist(const char *text, const char *gist)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	ap_text_gist(text, strlen(text), &out);
	assert_string_equal(ap_buf_text(&out), gist);
}

static void gists(void **state)
{
	assert_gist("", "");
	assert_gist("\n\n", "");
	assert_gist("x: not found\nfatal: hung up\n", "x: not found; fatal: hung up");
	assert_gist(
		"Updating files:  10% (1/10)\rUpdating files: 100% (10/10)\nhint: do\nfatal: no",
		"fatal: no");
	assert_gist("\033[1merror:\033[m  no\n  no\n  no\n", "error:  no; no");
	AP_CLEANUP_BUF struct ap_buf noise = {0};
	AP_CLEANUP_BUF struct ap_buf out = {0};
	ap_buf_adds(&noise, "first\nfatal: the cause\n");
	for (unsigned i = 0; i < 10000; i++)
		ap_buf_printf(&noise, "noise %u\n", i);
	ap_text_gist(noise.data, noise.len, &out);
	assert_true(out.len < 2048);
	assert_int_equal(strncmp(out.data, "… fatal: the cause; … noise ", 30), 0);
	assert_non_null(strstr(out.data, "; noise 9999"));
	/* a path of any length is whole */
	noise.len = out.len = 0;
	ap_buf_adds(&noise, "fatal: cannot open ");
	for (unsigned i = 0; i < 1000; i++)
		ap_buf_adds(&noise, "/ab");
	ap_text_gist(noise.data, noise.len, &out);
	assert_string_equal(out.data, noise.data);
}

static void distances(void **state)
{
	assert_int_equal(ap_text_distance("", ""), 0);
	assert_int_equal(ap_text_distance("", "abc"), 3);
	assert_int_equal(ap_text_distance("min_pol_size", "min_pool_size"), 1);
	assert_int_equal(ap_text_distance("kitten", "sitting"), 3);
	assert_int_equal(ap_text_distance("sitting", "kitten"), 3);
}

static void finds_last_lines(void **state)
{
	static const struct {
		const char *text, *line;
	} all[] = {{"", ""},
		   {"\n \n", ""},
		   {"one", "one"},
		   {"one\ntwo\n", "two"},
		   {"one\n  two  \n\n ", "two"},
		   {" x\n", "x"}};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		size_t len;
		const char *line = ap_text_last_line(all[i].text, &len);
		assert_int_equal(len, strlen(all[i].line));
		assert_memory_equal(line, all[i].line, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("the last line that says something is found, without its blanks",
		   finds_last_lines),
		IT("labels are what can be a file name and a branch", labels_are_checked),
		IT("durations have units, a bare number is seconds", durations_are_read),
		IT("bad durations are refused and change nothing", bad_durations_are_refused),
		IT("durations are written as they are read",
		   durations_are_written_as_they_are_read),
		IT("durations are exact to the nanosecond, in both directions",
		   durations_are_exact),
		IT("sizes have suffixes", sizes_are_read),
		IT("a quoted word is one word of sh", a_quoted_word_is_one_word_of_sh),
		IT("a buffer refuses more than there can be", a_buffer_refuses_what_cannot_be),
		IT("words are cut at blanks and tabs", words_are_cut),
		IT("what a terminal would obey is tamed, what it can show is kept", taming),
		IT("what a terminal would obey is written as an escape", escapes),
		IT("the gist of what a helper said holds the cause, and is bounded", gists),
		IT("words are as far apart as one has to change characters", distances),
		IT("a sequence that was cut short takes no text with it",
		   what_is_cut_short_takes_no_text_with_it),
		IT("what is no strict UTF-8 is let through nowhere",
		   only_strict_utf8_is_let_through),
		IT("operating system commands are told where they stand, also across pieces",
		   commands_are_told),
		IT("control sequences are left out of plain text, also across pieces",
		   control_sequences_are_left_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
