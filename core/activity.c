#include "activity.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

/* A shell that waits for input is ready at once; so much silence keeps a burst from being split. */
#define SHELL_SETTLE (30 * AP_MS)
/* A program that prints nothing for so long has nothing to do: the longest gap of a working one
 * that was measured is 0.9 s. */
#define SILENCE (2 * AP_SECOND)

static bool read_proc(pid_t pid, const char *name, char *ret, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	AP_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
	if (n <= 0)
		return false;
	ret[n] = '\0';
	return true;
}

/* Calls in which a program sleeps until there is input. */
static bool waits_for_input(long call)
{
	switch (call) {
	case SYS_read:
	case SYS_pselect6:
	case SYS_ppoll:
	case SYS_epoll_pwait:
#ifdef SYS_select
	case SYS_select:
#endif
#ifdef SYS_poll
	case SYS_poll:
#endif
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
#endif
		return true;
	}
	return false;
}

struct activity_look activity_look(pid_t program)
{
	struct activity_look look = {.program = program};
	char text[512];
	if (program <= 0 || !read_proc(program, "stat", text, sizeof text))
		return look;
	const char *name_end = strrchr(text, ')'); /* the name may hold anything */
	char state;
	int foreground;
	if (!name_end || sscanf(name_end + 1, " %c %*d %*d %*d %*d %d", &state, &foreground) != 2)
		return look;
	look.known = true;
	look.foreground = foreground;
	long call = -1;
	if (state != 'S')
		return look;
	if (read_proc(program, "syscall", text, sizeof text))
		look.reads_terminal = sscanf(text, "%ld", &call) == 1 && waits_for_input(call);
	else
		look.reads_terminal = true; /* not ours to see: sleeping must do */
	return look;
}

static void because(struct activity *result, enum ap_activity activity, int64_t recheck_ns,
		    const char *why)
{
	result->activity = activity;
	result->recheck_ns = recheck_ns;
	snprintf(result->why, sizeof result->why, "%s", why);
}

static bool conclude_shell(const struct activity_input *in, int64_t now, struct activity *ret)
{
	if (!in->look.known)
		return false;
	int64_t settled = in->output_ns + SHELL_SETTLE;
	if (in->look.foreground != in->look.program) {
		because(ret, AP_ACTIVITY_BUSY, AP_FOREVER, "");
		snprintf(ret->why, sizeof ret->why, "foreground: process group %d has the terminal",
			 (int)in->look.foreground);
	} else if (!in->look.reads_terminal) {
		because(ret, AP_ACTIVITY_BUSY, now + SHELL_SETTLE,
			"foreground: the shell is at work");
	} else if (now < settled) {
		because(ret, AP_ACTIVITY_BUSY, settled, "foreground: the shell has just printed");
	} else {
		because(ret, AP_ACTIVITY_READY, AP_FOREVER,
			"foreground: the shell waits for input");
	}
	return true;
}

static void conclude_silence(const struct activity_input *in, int64_t now, struct activity *ret)
{
	int64_t last = in->output_ns;
	if (in->entered_ns > last)
		last = in->entered_ns;
	if (in->started_ns > last)
		last = in->started_ns;
	if (now < last + SILENCE)
		because(ret, AP_ACTIVITY_BUSY, last + SILENCE, "silence: not long enough yet");
	else
		because(ret, AP_ACTIVITY_READY, AP_FOREVER, "silence: nothing printed for 2 s");
}

struct activity activity_conclude(const struct activity_input *in, int64_t now)
{
	struct activity result;
	if (in->ended) {
		because(&result, AP_ACTIVITY_EXITED, AP_FOREVER, "");
		snprintf(result.why, sizeof result.why, "exit: %s",
			 *in->ended_how ? in->ended_how : "without a record");
		return result;
	}
	/* what was typed shows on the terminal before it is worked on */
	bool unseen = in->entered_ns > 0 && in->output_ns < in->entered_ns;
	if (unseen && now < in->entered_ns + SILENCE)
		because(&result, AP_ACTIVITY_BUSY, in->entered_ns + SILENCE,
			"prompt: submitted, nothing printed yet");
	else if (in->output_ns == 0 && now < in->started_ns + SILENCE)
		because(&result, AP_ACTIVITY_STARTING, in->started_ns + SILENCE,
			"start: nothing printed yet");
	else if (in->is_shell && !in->look.known && now < in->started_ns + SILENCE)
		because(&result, AP_ACTIVITY_STARTING, now + SHELL_SETTLE,
			"start: the shell is not there yet");
	else if (!in->is_shell || !conclude_shell(in, now, &result))
		conclude_silence(in, now, &result);
	if (!in->started_ready && result.activity == AP_ACTIVITY_BUSY)
		result.activity = AP_ACTIVITY_STARTING;
	return result;
}

bool activity_is_shell(const char *const *argv)
{
	static const char *const shells[] = {"bash", "sh", "dash", "zsh", "ksh", "fish"};
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	bool shell = false;
	for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
		shell = shell || strcmp(name, shells[i]) == 0;
	for (size_t i = 1; shell && argv[i]; i++) /* a script or -c: no interactive shell */
		shell = argv[i][0] == '-' && strcmp(argv[i], "-c") != 0;
	return shell;
}
