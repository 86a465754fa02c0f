/* What a program shows, looked at by all installed profiles: the first line is its title, the rest
 * its screen. */
#include "rules.h"

#include "../../core/session/profile_rules.c"

static const char *const names[] = {AP_PROFILES};

#define N_NAMES (sizeof names / sizeof *names)

static struct profile *profile_of(size_t i)
{
	static const char *const dirs[] = {AP_SOURCE_DIR "/share/programs", NULL};
	static struct profile *loaded[N_NAMES];
	struct ap_err err = {""};
	HOLDS(loaded[i] || profile_load(&loaded[i], names[i], dirs, &err) == 0);
	return loaded[i];
}

/* The last `n` lines that show something, found from the front. */
static void naive_last_lines(const char *screen, unsigned n, struct ap_buf *ret)
{
	unsigned n_shown = 0;
	for (const char *at = screen; *at; at += strcspn(at, "\n"), at += *at == '\n')
		n_shown += shows(at, strcspn(at, "\n"));
	for (const char *at = screen; *at; at += strcspn(at, "\n"), at += *at == '\n') {
		if (!shows(at, strcspn(at, "\n")) || n_shown-- > n)
			continue;
		ap_buf_add(ret, at, strcspn(at, "\n"));
		ap_buf_adds(ret, "\n");
	}
}

static void last_lines_hold(const char *screen)
{
	for (unsigned n = 1; n <= 20; n += 3) {
		AP_CLEANUP_BUF struct ap_buf lines = {0}, naive = {0};
		last_lines(screen, n, &lines);
		naive_last_lines(screen, n, &naive);
		HOLDS(lines.len == naive.len);
		HOLDS(strcmp(ap_buf_text(&lines), ap_buf_text(&naive)) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	char *title = fuzz_line(&input), *screen = fuzz_text(&input);
	for (size_t i = 0; i < N_NAMES; i++)
		rules_hold(profile_of(i), screen, title, title);
	last_lines_hold(screen);
	free(title);
	free(screen);
	return 0;
}
