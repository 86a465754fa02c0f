#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "profile.h"

static const char *const installed[] = {AP_SOURCE_DIR "/share/programs", NULL};

static struct profile *load(const char *name)
{
	struct ap_err err = {""};
	struct profile *profile = NULL;
	int r = profile_load(&profile, name, installed, &err);
	if (r < 0)
		fail_msg("%s: %s", name, err.text);
	return profile;
}

/* The whole file; "" when there is none. */
static char *slurp(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = calloc(1, 256 << 10);
	assert_non_null(text);
	if (file) {
		(void)!fread(text, 1, (256 << 10) - 1, file);
		fclose(file);
	}
	return text;
}

/* --- screens --- */

/* What the first word of a screen's file name says. */
static const struct expected {
	const char *word;
	enum ap_activity activity;
	bool composes; /* with text in the composer */
} expectations[] = {
	{"ready", AP_ACTIVITY_READY, false},	   {"busy", AP_ACTIVITY_BUSY, false},
	{"waiting", AP_ACTIVITY_WAITING, false},   {"dialog", AP_ACTIVITY_WAITING, false},
	{"starting", AP_ACTIVITY_STARTING, false}, {"composer", AP_ACTIVITY_READY, true},
	{"exited", AP_ACTIVITY_EXITED, false},
};

static const struct expected *expected_of(const char *file)
{
	for (size_t i = 0; i < sizeof expectations / sizeof *expectations; i++) {
		const char *word = expectations[i].word;
		if (strncmp(file, word, strlen(word)) == 0 && file[strlen(word)] == '-')
			return &expectations[i];
	}
	fail_msg("%s says no activity", file);
	return NULL;
}

/* Looked at long after the last output, as the pool would. */
static enum ap_activity conclude(const struct profile *profile, const char *screen,
				 const char *title, enum ap_activity expected,
				 char why[ACTIVITY_WHY_MAX])
{
	int64_t now = 1000 * AP_SECOND;
	struct activity_input input = {
		.ended = expected == AP_ACTIVITY_EXITED,
		.ended_how = "code 0",
		.started_ready = expected != AP_ACTIVITY_STARTING,
		.output_ns = now - 2 * AP_SECOND,
		.started_ns = now - 10 * AP_SECOND,
		.screen = {.at_ns = now - AP_SECOND},
	};
	struct activity_memory memory = {.since_ns = 0};
	const struct activity_rules *rules = &profile_values(profile)->rules;
	profile_judge(profile, PROFILE_SCREEN, screen, title, &input.screen);
	activity_conclude(rules, &input, &memory, now - AP_SECOND);
	struct activity result = activity_conclude(rules, &input, &memory, now);
	strcpy(why, result.why);
	return result.activity;
}

static unsigned check_screens(const char *program)
{
	char dir_path[512], path[1024], why[ACTIVITY_WHY_MAX];
	struct profile *profile = load(program);
	unsigned n = 0, n_wrong = 0;
	snprintf(dir_path, sizeof dir_path, AP_SOURCE_DIR "/tests/screens/%s", program);
	DIR *dir = opendir(dir_path);
	assert_non_null(dir);
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);
		if (len < 4 || strcmp(entry->d_name + len - 4, ".txt") != 0)
			continue;
		const struct expected *expected = expected_of(entry->d_name);
		snprintf(path, sizeof path, "%s/%s", dir_path, entry->d_name);
		char *screen = slurp(path);
		strcpy(path + strlen(path) - 3, "title");
		char *title = slurp(path);
		title[strcspn(title, "\n")] = '\0';
		enum ap_activity got = conclude(profile, screen, title, expected->activity, why);
		bool composes = profile_composer(profile, screen) == COMPOSER_FILLED;
		bool right = got == expected->activity &&
			     (got != AP_ACTIVITY_READY || composes == expected->composes);
		if (!right)
			print_message("%s/%s is %s%s: %s\n", program, entry->d_name,
				      ap_activity_name(got), composes ? ", composing" : "", why);
		n_wrong += !right;
		n++;
		free(screen);
		free(title);
	}
	closedir(dir);
	profile_free(profile);
	assert_int_equal(n_wrong, 0);
	return n;
}

static void screens_are_told(void **state)
{
	DIR *dir = opendir(AP_SOURCE_DIR "/tests/screens");
	unsigned n = 0;
	assert_non_null(dir);
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] != '.')
			n += check_screens(entry->d_name);
	}
	closedir(dir);
	print_message("# %u screens\n", n);
	assert_true(n >= 160);
}

/* --- files --- */

struct place {
	char dir[64], other[64];
	const char *dirs[3];
};

static struct place place_new(void)
{
	struct place place = {.dir = "/tmp/agentpool-profile-XXXXXX"};
	assert_non_null(mkdtemp(place.dir));
	snprintf(place.other, sizeof place.other, "%s/other", place.dir);
	assert_int_equal(mkdir(place.other, 0700), 0);
	return place;
}

static void place_write(const char *dir, const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s.conf", dir, name);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void place_free(struct place *place)
{
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", place->dir);
	assert_int_equal(system(command), 0);
}

static void assert_refused(const char *text, const char *expected)
{
	struct place place = place_new();
	struct profile *profile = NULL;
	struct ap_err err = {""};
	const char *const dirs[] = {place.dir, NULL};
	place_write(place.dir, "bad", text);
	int r = profile_load(&profile, "bad", dirs, &err);
	place_free(&place);
	if (r != -EINVAL)
		fail_msg("'%s' is taken: %d", text, r);
	if (!strstr(err.text, expected))
		fail_msg("'%s' says '%s', not '%s'", text, err.text, expected);
}

static void bad_ones_are_refused(void **state)
{
	assert_refused("# fine\n\nnonsense\n", "/bad.conf:3: 'nonsense' is not KEY = VALUE");
	assert_refused("submit = Enter\nspeed = 3\n", "/bad.conf:2: there is no key 'speed'");
	assert_refused("ready = screen (\n", "/bad.conf:1: the pattern is wrong at character 2");
	assert_refused("set = A=1\n  2\nready = nose x\n", "/bad.conf:3: 'nose' is none of");
	assert_refused("ready = screen:0 x\n", "lines of the screen");
	assert_refused("ready = title:2 x\n", "lines of the screen");
	assert_refused("ready = screen\n", "a pattern is missing");
	assert_refused("debounce = soon\n", "'soon' is not a duration");
	assert_refused("set = A\n", "set takes NAME=VALUE");
	assert_refused("unset = A=1\n", "unset takes a NAME");
	assert_refused("seed = path [1]\n", "no object of JSON");
	assert_refused("file = a/b text\n", "no plain name");
	assert_refused("mode = fast\n", "'fast' is none of");
	assert_refused("mode = stream\n", "mode = stream needs input");
	assert_refused("ready = event {\"a\": 1}\n", "rules about events need mode = stream");
	assert_refused("like = nowhere\n", "/bad.conf:1: there is no profile 'nowhere'");
	assert_refused("like = /\n", "/bad.conf:1: /: ");
	assert_refused("like = bad\n", "there is no profile 'bad'");
	assert_refused("auto_answer = yes\n", "auto_answer takes PATTERN => KEYS");
	assert_refused("holds_conversation = 1\n", "holds_conversation is yes or no");
	assert_refused("conversation_log = /log (?<id>.*) (?<cwd>.*)\n",
		       "the pattern needs a group (?<time>...)");
	assert_refused("conversation = /told/*\n", "conversation takes PATHS PATTERN");
	assert_refused("conversation = /told/* (?<id>.*)\n", "the pattern needs groups");
	assert_refused("conversation = /told/* (\n", "the pattern is wrong");
	assert_refused("forget = submit\n", "forget takes");
	assert_refused("ready = line ^> $\n", "a line says nothing but waiting");
	assert_refused("limited = title x\n", "'title' is none of: screen answer");
	assert_refused("limited = answer:3 x\n", "lines of the screen");
	assert_refused("limited = screen:3\n", "a pattern is missing");
	assert_refused("limited = answer x\n", "limited = answer needs mode = stream or acp");
	assert_refused("mode = acp\nlimited = screen x\n", "limited = screen needs a terminal");
	assert_refused("limit_zone = Berlin\n", "'Berlin' is none of: local UTC +HH:MM");
	assert_refused("limit = all\n", "'all' is none of: agent account");
}

static void limits_are_read_with_their_end(void **state)
{
	static const struct {
		const char *screen;
		bool found, is_overload;
		int64_t until;
	} rows[] = {
		{"stop until 15:00\n", true, false, 1000 + 4 * 3600 + 2600},
		{"stop until noon\n", true, false, 0},
		{"stop in 3h\n", true, false, 1001 + 3 * 3600},
		{"stop at 2000\n", true, false, 2000},
		{"stop: overloaded\n", true, true, 0},
		{"stop\n", true, false, 0},
		{"stop in 3h\n>\n>\n", false, false, 0}, /* not in the last two lines */
		{"", false, false, 0},
	};
	struct place place = place_new();
	const char *const dirs[] = {place.dir, NULL};
	struct profile *profile = NULL;
	place_write(place.dir, "p",
		    "limit_zone = +10:00\nlimit = account\ncontinue = go on\nforget = limited\n"
		    "limited = screen:2 ^stop(?: until (?<until>.*)| in (?<in>.*)| at "
		    "(?<epoch>.*)|: (?<overload>.*))?$\n");
	assert_int_equal(profile_load(&profile, "p", dirs, NULL), 0);
	assert_true(profile_values(profile)->limit_is_shared);
	assert_string_equal(profile_values(profile)->go_on, "go on");
	assert_true(profile_values(profile)->rules.looks);
	uint64_t hashes[sizeof rows / sizeof *rows];
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct profile_limit limit;
		bool found = profile_limited(profile, false, rows[i].screen, 1000, &limit);
		assert_int_equal(found, rows[i].found);
		if (limit.is_overload != rows[i].is_overload || limit.until_s != rows[i].until)
			fail_msg("'%s': %d, %lld", rows[i].screen, limit.is_overload,
				 (long long)limit.until_s);
		hashes[i] = limit.hash;
		assert_false(profile_limited(profile, true, rows[i].screen, 1000, &limit));
	}
	assert_true(hashes[0] != hashes[1]);
	profile_free(profile);
	place_free(&place);
}

#define RULE20	     "────────────────────"
#define CLAUDE_FIELD "\n" RULE20 "\n❯ \n" RULE20 "\n  ? for shortcuts\n"
#define CODEX_FIELD  "\n\n› Ask Codex to do anything\n\n  gpt-5 · ~/work\n"

/* As the programs say it, or are remembered to; `now` is 2026-11-28T12:00:00 of this machine's
 * zone. */
static void limits_of_the_programs_are_known(void **state)
{
	static const struct {
		const char *profile;
		bool is_answer, found, is_overload;
		int64_t after; /* now; 0: no end is named */
		const char *text;
	} rows[] = {
		{"claude", false, true, false, 10800,
		 "❯ hello\n  ⎿ \u00a0You've hit your session limit · resets 3pm (Europe/Berlin)\n"
		 "     /upgrade to increase your usage limit.\n" CLAUDE_FIELD},
		{"claude", false, true, false, 3 * 86400 + 4560,
		 "  ⎿ \u00a0You've hit your weekly limit · resets Dec 1, 1:16pm "
		 "(UTC)\n" CLAUDE_FIELD},
		{"claude", false, true, false, 10800,
		 "  ⎿  5-hour limit reached ∙ resets 3pm\n" CLAUDE_FIELD},
		{"claude", false, true, false, -1,
		 "● Claude AI usage limit reached|1795878000\n" CLAUDE_FIELD},
		{"claude", false, false, false, 0,
		 "  ⎿ \u00a0You've hit your session limit · resets 3pm (UTC)\n\n❯ go on\n\n● "
		 "Done.\n" CLAUDE_FIELD},
		{"claude", false, false, false, 0,
		 "● The text is: You've hit your session limit · resets 3pm\n" CLAUDE_FIELD},
		{"claude-stream", true, true, false, 10800,
		 "You've hit your session limit · resets 3pm (Europe/Berlin)\n"},
		{"claude-stream", true, false, false, 0,
		 "I wrote: you've hit your limit · resets 3pm\nDone.\n"},
		{"claude-acp", true, true, false, 10800,
		 "Internal error: You've hit your 5-hour limit · resets 3pm\n{\"a\":1}"},
		{"claude-acp", true, true, true, 0,
		 "Internal error: API Error: 529 Overloaded. Try "
		 "again.\n{\"errorKind\":\"server_error\"}"},
		{"codex", false, true, false, 3 * 3600 + 240,
		 "■ You’ve hit your usage limit. Upgrade to Pro, or try again at 3:04\n"
		 "PM." CODEX_FIELD},
		{"codex", false, true, false, 266700 + 1,
		 "■ You’ve hit your usage limit. To get more access now, try again in 3 days 2 "
		 "hours 5 minutes." CODEX_FIELD},
		{"codex", false, true, false, 0,
		 "■ You’ve hit your usage limit. Try again later." CODEX_FIELD},
		{"codex", false, false, false, 0,
		 "■ You’ve hit your usage limit. Try again later.\n\n› go on\n\n• "
		 "Done." CODEX_FIELD},
		{"codex-acp", true, true, false, 0,
		 "Internal error\n{\"codexErrorInfo\":\"usageLimitExceeded\"}"},
		{"codex-acp", true, true, false, 3 * 3600 + 240,
		 "Internal error\n{\"message\":\"You’ve hit your usage limit. Visit https://x.y/z "
		 "or try again at 3:04 PM.\","
		 "\"codexErrorInfo\":\"usageLimitExceeded\"}"},
		{"gemini-acp", true, true, false, 0,
		 "You have exhausted your daily quota on this model.\n{\"code\":429}"},
		{"gemini-acp", true, true, false, 77710 + 1,
		 "Your quota will reset after 21h35m10s."},
		{"opencode-acp", true, true, false, 31,
		 "Rate limit exceeded, please retry after 30 seconds"},
		{"opencode-acp", true, true, false, 0, "Error: Too Many Requests"},
		{"opencode-acp", true, false, false, 0, "It counts what the rate limits are."},
	};
	struct tm noon = {
		.tm_year = 126, .tm_mon = 10, .tm_mday = 28, .tm_hour = 12, .tm_isdst = -1};
	int64_t now = (int64_t)mktime(&noon);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct profile_limit limit;
		struct profile *profile = load(rows[i].profile);
		bool found = profile_limited(profile, rows[i].is_answer, rows[i].text, now, &limit);
		int64_t until = rows[i].after == -1  ? 1795878000
				: rows[i].after != 0 ? now + rows[i].after
						     : 0;
		if (found != rows[i].found || limit.is_overload != rows[i].is_overload ||
		    limit.until_s != until)
			fail_msg("%s: '%s': %d, %d, %lld s after now", rows[i].profile,
				 rows[i].text, found, limit.is_overload,
				 (long long)(limit.until_s - now));
		profile_free(profile);
	}
}

/* Screens of programs whose model has refused for a limit; `now` is before all ends that they name.
 */
static void screens_of_limits_are_known(void **state)
{
	static const struct {
		const char *name;
		bool found, is_overload, ends;
	} rows[] = {
		{"claude-limit-key", true, false, false},
		{"claude-limit-menu", true, false, true},
		{"claude-limit-opus", true, false, true},
		{"claude-limit-over", false, false, false},  /* and has gone on */
		{"claude-limit-retry", false, false, false}, /* tries again by itself */
		{"claude-limit-server", true, false, false},
		{"claude-limit-session", true, false, true},
		{"claude-limit-week", true, false, true},
		{"claude-limit-zone", true, false, true},
		{"claude-overload", true, true, false},
		{"codex-limit-over", false, false, false},
		{"codex-limit-rate", true, false, false},
		{"codex-limit-retry", false, false, false},
		{"codex-limit-usage", true, false, true},
		{"codex-limit-usage-week", true, false, true},
		{"codex-overload", true, true, false},
		{"gemini-limit-dialog", true, false, false},
		{"gemini-limit-dialog-resets", true, false, true},
		{"gemini-limit-over", false, false, false},
		{"gemini-limit-retry", false, false, false},
		{"gemini-limit-stopped", true, false, false},
		{"gemini-limit-stopped-resets", true, false, false},
		{"opencode-limit-long", true, false, true},
		{"opencode-limit-over", false, false, false},
		{"opencode-limit-rate", true, false, true},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char path[512], program[16];
		struct profile_limit limit = {.found = false};
		snprintf(path, sizeof path, AP_SOURCE_DIR "/tests/limits/%s.txt", rows[i].name);
		snprintf(program, sizeof program, "%.*s", (int)strcspn(rows[i].name, "-"),
			 rows[i].name);
		struct profile *profile = load(program);
		char *screen = slurp(path);
		bool found = profile_limited(profile, false, screen, 1795824000, &limit);
		if (found != rows[i].found || (found && limit.is_overload != rows[i].is_overload) ||
		    (found && (limit.until_s != 0) != rows[i].ends))
			fail_msg("%s: %d, %d, %lld", rows[i].name, found, limit.is_overload,
				 (long long)limit.until_s);
		free(screen);
		profile_free(profile);
	}
}

static void a_conversation_is_found_by_its_id_and_directory(void **state)
{
	struct place place = place_new();
	struct profile_found found = {.id = {0}};
	static const char text[] = "/told/x\n{\"id\": \"a-1\", \"cwd\": \"/work\"}";
	place_write(place.dir, "p",
		    "conversation = /told/* \"id\": \"(?<id>[^\"]*)\", \"cwd\": \"(?<cwd>.*)\"\n");
	const char *const dirs[] = {place.dir, NULL};
	struct ap_err err = {""};
	struct profile *profile = NULL;
	assert_int_equal(profile_load(&profile, "p", dirs, &err), 0);
	assert_string_equal(profile_values(profile)->conversations, "/told/*");
	assert_true(profile_conversation(profile, false, text, strlen(text), &found));
	assert_string_equal(ap_buf_text(&found.id), "a-1");
	assert_string_equal(ap_buf_text(&found.cwd), "/work");
	assert_false(profile_conversation(profile, true, text, strlen(text), &found));
	assert_false(profile_conversation(profile, false, "{\"id\": 1}", 9, &found));
	profile_found_fini(&found);
	profile_free(profile);
	place_free(&place);
}

static void like_goes_on_from_the_next_of_that_name(void **state)
{
	struct place place = place_new();
	struct profile *profile = NULL;
	struct ap_err err = {""};
	const char *const dirs[] = {place.dir, place.other, NULL};
	place_write(place.other, "prog", "arg = a\nclear = /clear\nready = screen:1 ^> $\n");
	place_write(place.dir, "prog",
		    "like = prog\narg = b\nforget = ready\nready = screen:1 ^% $\n");
	assert_int_equal(profile_load(&profile, "prog", dirs, &err), 0);
	const struct profile_values *values = profile_values(profile);
	assert_int_equal(values->args.n, 2);
	assert_string_equal(values->args.at[1], "b");
	assert_string_equal(values->clear, "/clear");
	struct activity_signal signal;
	assert_false(profile_judge(profile, PROFILE_SCREEN, "> ", NULL, &signal));
	assert_true(profile_judge(profile, PROFILE_SCREEN, "old\n% \n\n", NULL, &signal));
	assert_int_equal(signal.activity, AP_ACTIVITY_READY);
	assert_non_null(strstr(signal.why, "screen: %"));
	profile_free(profile);
	place_free(&place);
}

static void a_missing_one_is_told_from_a_bad_one(void **state)
{
	struct profile *profile = NULL;
	struct ap_err err = {""};
	assert_int_equal(profile_load(&profile, "no-such-program", installed, &err), -ENOENT);
	assert_int_equal(profile_load(&profile, "/no/such.conf", installed, &err), -ENOENT);
}

static void all_installed_ones_are_good(void **state)
{
	DIR *dir = opendir(installed[0]);
	unsigned n = 0;
	assert_non_null(dir);
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		char name[64];
		int len = 0;
		if (sscanf(entry->d_name, "%63[^.].conf%n", name, &len) != 1 || len == 0)
			continue;
		struct profile *profile = load(name);
		assert_string_equal(profile_values(profile)->name, name);
		profile_free(profile);
		n++;
	}
	closedir(dir);
	assert_true(n >= 10);
}

/* --- rules --- */

static void waiting_goes_before_busy_before_ready(void **state)
{
	struct place place = place_new();
	struct profile *profile = NULL;
	struct ap_err err = {""};
	const char *const dirs[] = {place.dir, NULL};
	struct activity_signal signal;
	place_write(place.dir, "p",
		    "ready = screen r\nbusy = title b\nwaiting = screen w\nready = osc ^7;r\n");
	assert_int_equal(profile_load(&profile, "p", dirs, &err), 0);
	assert_true(profile_judge(profile, PROFILE_SCREEN, "r w", "b", &signal));
	assert_int_equal(signal.activity, AP_ACTIVITY_WAITING);
	assert_true(profile_judge(profile, PROFILE_SCREEN, "r", "b", &signal));
	assert_int_equal(signal.activity, AP_ACTIVITY_BUSY);
	assert_true(profile_judge(profile, PROFILE_SCREEN, "r", NULL, &signal));
	assert_int_equal(signal.activity, AP_ACTIVITY_READY);
	assert_false(profile_judge(profile, PROFILE_OSC, "8;r", NULL, &signal));
	assert_true(profile_judge(profile, PROFILE_OSC, "7;r", NULL, &signal));
	profile_free(profile);
	place_free(&place);
}

static void prompts_for_the_rest_are_known(void **state)
{
	static const char *const rest[] = {"> ",    ">",	 "quote> ",
					   "for> ", "heredoc> ", "cmdsubst dquote> "};
	static const char *const others[] = {"$ ", "# ",   "app> ",  "user@host ~> ",
					     "",   "a > ", "> typed"};
	struct profile *profile = load("zsh");
	struct activity_signal signal;
	for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
		assert_true(profile_judge(profile, PROFILE_LINE, rest[i], NULL, &signal));
		assert_int_equal(signal.activity, AP_ACTIVITY_WAITING);
	}
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		assert_false(profile_judge(profile, PROFILE_LINE, others[i], NULL, &signal));
	profile_free(profile);
}

static void questions_are_known_without_a_profile(void **state)
{
	static const char *const asks[] = {"Sure? [y/N] ",
					   "a\nDo you want to continue? [Y/n]",
					   "Delete it (yes/no)? ",
					   ("Are you sure you want to continue connecting "
					    "(yes/no/[fingerprint])? "),
					   "[sudo] password for me: ",
					   "Press any key to continue . . .",
					   "Enter passphrase for key '/a/b': "};
	static const char *const tells[] = {
		"done", "$ ", "the password is wrong", "use [y/n] to choose\nworking", "> ", ""};
	struct profile *profile = load("default");
	struct activity_signal signal;
	for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
		if (!profile_judge(profile, PROFILE_SCREEN, asks[i], NULL, &signal))
			fail_msg("'%s' asks nothing", asks[i]);
	}
	for (size_t i = 0; i < sizeof tells / sizeof *tells; i++) {
		if (profile_judge(profile, PROFILE_SCREEN, tells[i], NULL, &signal))
			fail_msg("'%s' asks: %s", tells[i], signal.why);
	}
	profile_free(profile);
}

static void events_match_in_part(void **state)
{
	struct profile *profile = load("claude-stream");
	struct activity_signal signal;
	assert_true(profile_judge(profile, PROFILE_EVENT,
				  "{\"type\":\"system\",\"subtype\":\"init\",\"x\":1}", NULL,
				  &signal));
	assert_int_equal(signal.activity, AP_ACTIVITY_BUSY);
	assert_true(profile_judge(profile, PROFILE_EVENT,
				  "{\"type\":\"result\",\"result\":\"text\"}", NULL, &signal));
	assert_int_equal(signal.activity, AP_ACTIVITY_READY);
	assert_false(profile_judge(profile, PROFILE_EVENT, "{\"type\":\"user\"}", NULL, &signal));
	assert_false(profile_judge(profile, PROFILE_EVENT, "no JSON", NULL, &signal));
	profile_free(profile);
}

static void prompts_are_dressed(void **state)
{
	static const char *const cases[][2] = {
		{"plain", "plain"},	      {"!ls", " !ls"},
		{"/clear", " /clear"},	      {"ends with \\", "ends with \\ "},
		{"a line\n!b", "a line\n!b"}, {"see @READ", "see @READ "},
		{"@READ me", "@READ me"},     {"a\\\nb", "a\\\nb"}};
	struct profile *profile = load("claude");
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct ap_buf out = {0};
		assert_int_equal(profile_dress(profile, cases[i][0], strlen(cases[i][0]), &out), 0);
		assert_string_equal(ap_buf_text(&out), cases[i][1]);
		ap_buf_fini(&out);
	}
	profile_free(profile);
}

/* What the screens of dialogs ask, in the words of the file request, as tests/screens have it
 * beside them. */
static void a_rule_takes_an_option_by_its_meaning_alone(void **state)
{
	struct question question = {
		.options = {{.id = "allow", .kind = "allow_always"},
			    {.id = "2", .kind = "reject_always"},
			    {.id = "3", .kind = "reject_once"},
			    {.id = "4", .kind = "allow_once"},
			    {.id = "5", .kind = "allow_once"}},
		.n_options = 5,
	};
	assert_null(question_option_by(&question, AP_VERDICT_ASK));
	assert_string_equal(question_option_by(&question, AP_VERDICT_ALLOW)->id, "4");
	assert_string_equal(question_option_by(&question, AP_VERDICT_REJECT)->id, "3");
	question.n_options = 2;
	assert_null(question_option_by(&question, AP_VERDICT_ALLOW));
	assert_string_equal(question_option_by(&question, AP_VERDICT_REJECT)->id, "2");
	question.n_options = 1;
	assert_null(question_option_by(&question, AP_VERDICT_REJECT));
}

static void check_questions(const char *program, unsigned *n)
{
	char dir_path[512], path[1024];
	struct profile *profile = load(program);
	snprintf(dir_path, sizeof dir_path, AP_SOURCE_DIR "/tests/screens/%s", program);
	DIR *dir = opendir(dir_path);
	assert_non_null(dir);
	struct dirent *entry;
	while ((entry = readdir(dir))) {
		char *dot = strrchr(entry->d_name, '.');
		if (!dot || strcmp(dot, ".request") != 0)
			continue;
		struct question asked;
		AP_CLEANUP_BUF struct ap_buf found = {0};
		snprintf(path, sizeof path, "%s/%s", dir_path, entry->d_name);
		char *expected = slurp(path);
		strcpy(path + strlen(path) - strlen("request"), "txt");
		char *screen = slurp(path);
		assert_true(profile_question(profile, screen, &asked));
		assert_int_equal(strlen(asked.id), 8);
		ap_buf_printf(&found, "title %s\nkind %s\ndetail %s\n", asked.title, asked.kind,
			      asked.detail);
		for (unsigned i = 0; i < asked.n_options; i++)
			ap_buf_printf(&found, "%s %s %s => %s\n", asked.options[i].id,
				      asked.options[i].kind, asked.options[i].name,
				      asked.options[i].keys);
		assert_string_equal(ap_buf_text(&found), expected);
		free(expected);
		free(screen);
		(*n)++;
	}
	closedir(dir);
	profile_free(profile);
}

static void dialogs_are_read(void **state)
{
	unsigned n = 0;
	check_questions("claude", &n);
	check_questions("codex", &n);
	check_questions("gemini", &n);
	check_questions("opencode", &n);
	assert_int_equal(n, 12);
}

static void answers_are_off_by_default(void **state)
{
	static const char *const names[] = {AP_PROFILES};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct profile *profile = load(names[i]);
		assert_null(profile_auto_answer(profile, "Do you want to continue? [Y/n]"));
		profile_free(profile);
	}
	struct place place = place_new();
	struct profile *profile = NULL;
	struct ap_err err = {""};
	const char *const dirs[] = {place.dir, NULL};
	place_write(place.dir, "p", "auto_answer = trust this\\? => y Enter\n");
	assert_int_equal(profile_load(&profile, "p", dirs, &err), 0);
	assert_string_equal(profile_auto_answer(profile, "do you trust this?"), "y Enter");
	assert_null(profile_auto_answer(profile, "trust"));
	profile_free(profile);
	place_free(&place);
}

/* Of two ways to match, the one with the group was not taken; and \K moved the start of the match
 * behind its end, where the library lets it. */
static void a_group_without_a_part_is_empty(void **state)
{
	struct place place = place_new();
	struct profile *profile = NULL;
	struct ap_err err = {""};
	struct ap_buf answer = {0};
	const char *const dirs[] = {place.dir, NULL};
	struct activity_signal signal;
	place_write(place.dir, "p",
		    "composer = ^> (.*)$|^(working)$\nanswer = ^say (.*)$|^(none)$\n"
		    "ready = screen (?(DEFINE)(?<k>\\K))(?=rea(?&k)dy)\n");
	assert_int_equal(profile_load(&profile, "p", dirs, &err), 0);
	assert_int_equal(profile_composer(profile, "> text"), COMPOSER_FILLED);
	assert_int_equal(profile_composer(profile, "working"), COMPOSER_EMPTY);
	assert_true(profile_answer(profile, "none", &answer));
	assert_int_equal(answer.len, 0);
	(void)profile_judge(profile, PROFILE_SCREEN, "ready", NULL, &signal); /* as it likes */
	ap_buf_fini(&answer);
	profile_free(profile);
	place_free(&place);
}

static void a_hostile_screen_costs_little(void **state)
{
	struct place place = place_new();
	struct profile *profile = NULL;
	struct ap_err err = {""};
	const char *const dirs[] = {place.dir, NULL};
	struct activity_signal signal;
	char screen[4096];
	place_write(place.dir, "p", "ready = screen (a+)+$\n");
	assert_int_equal(profile_load(&profile, "p", dirs, &err), 0);
	memset(screen, 'a', sizeof screen - 2);
	strcpy(screen + sizeof screen - 2, "b");
	int64_t start = ap_clock_ns();
	assert_false(profile_judge(profile, PROFILE_SCREEN, screen, NULL, &signal));
	assert_true(ap_clock_ns() - start < 5 * AP_SECOND); /* without a bound: for ever */
	profile_free(profile);
	place_free(&place);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("what a program asks is read from its dialogs, with what it offers",
		   dialogs_are_read),
		IT("every recorded screen is what its file name says", screens_are_told),
		IT("all installed profiles are good", all_installed_ones_are_good),
		IT("a bad profile is refused with file and line", bad_ones_are_refused),
		IT("limits are read with their end", limits_are_read_with_their_end),
		IT("limits of the programs are known", limits_of_the_programs_are_known),
		IT("screens of programs at a limit are known, and where they have gone on they are "
		   "not",
		   screens_of_limits_are_known),
		IT("a profile like its own name goes on from the next of that name",
		   like_goes_on_from_the_next_of_that_name),
		IT("a conversation is found by its id and directory",
		   a_conversation_is_found_by_its_id_and_directory),
		IT("a missing profile is told from a bad one",
		   a_missing_one_is_told_from_a_bad_one),
		IT("waiting goes before busy, busy before ready",
		   waiting_goes_before_busy_before_ready),
		IT("a shell's prompts for the rest of a command are known, and no others",
		   prompts_for_the_rest_are_known),
		IT("questions are known without a profile", questions_are_known_without_a_profile),
		IT("a rule takes an option by its meaning alone",
		   a_rule_takes_an_option_by_its_meaning_alone),
		IT("an event matches when all of the pattern is in it", events_match_in_part),
		IT("a prompt that would be a command is dressed as text", prompts_are_dressed),
		IT("nothing is answered by itself unless a profile says so",
		   answers_are_off_by_default),
		IT("a group that had no part in a match is empty", a_group_without_a_part_is_empty),
		IT("a screen that a pattern chokes on costs little", a_hostile_screen_costs_little),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
