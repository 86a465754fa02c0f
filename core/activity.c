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
/* A hook is believed against the screen for so long: it speaks 30 to 60 ms before the screen shows
 * it, and not at all when a turn is interrupted. */
#define HOOK_TRUST AP_SECOND
/* Where there is no screen to go by, a hook that said busy is believed through so much silence. */
#define HOOK_SILENCE (600 * AP_SECOND)
/* A program whose screen no rule knows is shown to a human after so much silence, the longer one
 * until it has been ready for the first time: it may be loading. */
#define UNKNOWN_SILENCE	 (3 * AP_SECOND)
#define UNKNOWN_STARTING (15 * AP_SECOND)

/* --- looks at processes --- */

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

/* Whether a process sleeps in a read of a terminal: it waits for somebody to type. */
static bool reads_a_terminal(pid_t pid)
{
	char text[128], path[64], link[32];
	long call;
	unsigned fd;
	if (!read_proc(pid, "syscall", text, sizeof text) ||
	    sscanf(text, "%ld 0x%x", &call, &fd) != 2 || call != SYS_read)
		return false;
	snprintf(path, sizeof path, "/proc/%d/fd/%u", (int)pid, fd);
	ssize_t n = readlink(path, link, sizeof link - 1);
	link[n > 0 ? n : 0] = '\0';
	return strncmp(link, "/dev/pts/", 9) == 0 || strcmp(link, "/dev/tty") == 0;
}

/* State and foreground process group, from what /proc/PID/stat says. */
static bool stat_parse(const char *text, char *ret_state, int *ret_foreground)
{
	const char *name_end = strrchr(text, ')'); /* the name may hold anything */
	return name_end &&
	       sscanf(name_end + 1, " %c %*d %*d %*d %*d %d", ret_state, ret_foreground) == 2;
}

struct activity_look activity_look(pid_t program)
{
	struct activity_look look = {.program = program};
	char text[512];
	if (program <= 0 || !read_proc(program, "stat", text, sizeof text))
		return look;
	char state;
	int foreground;
	if (!stat_parse(text, &state, &foreground))
		return look;
	look.known = true;
	look.foreground = foreground;
	if (foreground != program)
		look.job_reads = reads_a_terminal(foreground);
	long call = -1;
	if (state != 'S')
		return look;
	if (read_proc(program, "syscall", text, sizeof text))
		look.reads_terminal = sscanf(text, "%ld", &call) == 1 && waits_for_input(call);
	else
		look.reads_terminal = true; /* not ours to see: sleeping must do */
	return look;
}

/* --- conclusions --- */

static void because(struct activity *result, enum ap_activity activity, int64_t recheck_ns,
		    const char *why)
{
	result->activity = activity;
	result->recheck_ns = recheck_ns;
	snprintf(result->why, sizeof result->why, "%s", why);
}

static int64_t silent_since(const struct activity_input *in)
{
	int64_t since = in->output_ns;
	if (in->entered_ns > since)
		since = in->entered_ns;
	return in->started_ns > since ? in->started_ns : since;
}

/* What has the screen wait for an answer, and nothing was printed since. */
static bool screen_asks(const struct activity_input *in)
{
	return in->screen.found && in->screen.activity == AP_ACTIVITY_WAITING &&
	       in->screen.at_ns >= in->output_ns;
}

static bool conclude_shell(const struct activity_rules *rules, const struct activity_input *in,
			   int64_t now, struct activity *ret)
{
	const struct activity_look *look = &in->look;
	if (!look->known)
		return false;
	bool job = look->foreground != look->program;
	int64_t settled = in->output_ns + SHELL_SETTLE;
	int64_t silent = in->output_ns + rules->debounce_ns;
	if (!job && !look->reads_terminal) {
		/* it is looked at again, the more seldom the longer it takes */
		int64_t pause = (now - in->output_ns) / 8;
		because(ret, AP_ACTIVITY_BUSY, now + (pause > SHELL_SETTLE ? pause : SHELL_SETTLE),
			"foreground: the shell is at work");
	} else if (now >= silent && screen_asks(in)) {
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER, in->screen.why);
	} else if (now >= silent && (job ? look->job_reads : in->runs_command)) {
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER,
			job ? "foreground: a program reads the terminal"
			    : "marks: a command of the shell reads the terminal");
	} else if (job && in->hook.found && in->hook.at_ns > in->entered_ns) {
		because(ret, in->hook.activity, AP_FOREVER, in->hook.why); /* what runs in it */
	} else if (job) {
		because(ret, AP_ACTIVITY_BUSY, now < silent ? silent : AP_FOREVER, "");
		snprintf(ret->why, sizeof ret->why, "foreground: process group %d has the terminal",
			 (int)look->foreground);
	} else if (in->runs_command) {
		because(ret, AP_ACTIVITY_BUSY, silent, "marks: a command has begun");
	} else if (now < settled) {
		because(ret, AP_ACTIVITY_BUSY, settled, "foreground: the shell has just printed");
	} else {
		because(ret, AP_ACTIVITY_READY, rules->looks && now < silent ? silent : AP_FOREVER,
			"foreground: the shell waits for input");
	}
	return true;
}

static void conclude_silence(const struct activity_rules *rules, const struct activity_input *in,
			     int64_t now, struct activity *ret)
{
	int64_t last = silent_since(in);
	if (now >= in->output_ns + rules->debounce_ns && screen_asks(in))
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER, in->screen.why);
	else if (now < last + rules->silence_ns)
		because(ret, AP_ACTIVITY_BUSY, last + rules->silence_ns,
			"silence: not long enough yet");
	else
		because(ret, AP_ACTIVITY_READY, AP_FOREVER, "silence: nothing printed for long");
	if (rules->looks && now < in->output_ns + rules->debounce_ns)
		ret->recheck_ns = in->output_ns + rules->debounce_ns;
}

/* --- what signals say --- */

/* Waiting goes before busy, busy before starting, starting before ready. */
static unsigned strength(enum ap_activity activity)
{
	static const unsigned char strengths[] = {
		[AP_ACTIVITY_READY] = 1,
		[AP_ACTIVITY_STARTING] = 2,
		[AP_ACTIVITY_BUSY] = 3,
		[AP_ACTIVITY_WAITING] = 4,
	};
	return strengths[activity];
}

/* Whether the hook is to be believed: not about what was before the last prompt, nor for long
 * against the screen. */
static bool hook_holds(const struct activity_rules *rules, const struct activity_input *in,
		       int64_t now)
{
	const struct activity_signal *hook = &in->hook;
	if (!hook->found || (hook->activity != AP_ACTIVITY_BUSY && hook->at_ns < in->entered_ns))
		return false;
	if (rules->tells_ready)
		return now < hook->at_ns + HOOK_TRUST;
	/* one that has long been silent was interrupted, perhaps */
	return hook->activity != AP_ACTIVITY_BUSY || now < silent_since(in) + HOOK_SILENCE;
}

static const struct activity_signal *strongest(const struct activity_rules *rules,
					       const struct activity_input *in, int64_t now)
{
	const struct activity_signal *picked = NULL;
	const struct activity_signal *signals[] = {
		rules->tells_ready && in->screen.found ? &in->screen : NULL,
		in->told.found ? &in->told : NULL,
		hook_holds(rules, in, now) ? &in->hook : NULL,
	};
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
		/* ready is for the screen to say, where it can: it may show a question */
		bool unseen = signals[i] && signals[i]->activity == AP_ACTIVITY_READY &&
			      rules->tells_ready && !in->screen.found;
		if (signals[i] && !unseen &&
		    (!picked || strength(signals[i]->activity) > strength(picked->activity)))
			picked = signals[i];
	}
	return picked;
}

/* A screen that no rule knows: it is not typed into, and after a while a human is to look. */
static void conclude_unknown(const struct activity_input *in, int64_t now, struct activity *ret)
{
	int64_t patience = in->started_ready ? UNKNOWN_SILENCE : UNKNOWN_STARTING;
	int64_t last = silent_since(in);
	if (now < last + patience)
		because(ret, AP_ACTIVITY_BUSY, last + patience, "screen: no rule matches yet");
	else
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER,
			"screen: no rule matches, and nothing more is printed");
}

/* False when there is none. */
static bool conclude_signals(const struct activity_rules *rules, const struct activity_input *in,
			     struct activity_memory *memory, int64_t now, struct activity *ret)
{
	const struct activity_signal *picked = strongest(rules, in, now);
	if (!picked) {
		memory->since_ns = 0;
		if (!rules->tells_ready)
			return false;
		conclude_unknown(in, now, ret);
		return true;
	}
	if (in->title_busy_ns > memory->busy_ns)
		memory->busy_ns = in->title_busy_ns;
	if (picked->activity == AP_ACTIVITY_BUSY || picked->activity == AP_ACTIVITY_STARTING) {
		memory->since_ns = 0;
		if (picked->at_ns > memory->busy_ns)
			memory->busy_ns = picked->at_ns;
		because(ret, picked->activity, AP_FOREVER, picked->why);
	} else {
		if (memory->since_ns == 0 || memory->candidate != picked->activity)
			memory->candidate = picked->activity, memory->since_ns = now;
		/* that it was so before the last prompt says nothing */
		if (picked->activity == AP_ACTIVITY_READY && memory->since_ns < in->entered_ns)
			memory->since_ns = now;
		int64_t settled = memory->since_ns + rules->debounce_ns;
		bool stale = rules->tells_ready && in->screen.at_ns < in->output_ns;
		/* a large prompt is taken before it is worked on, and until then all is as before
		 */
		if (picked->activity == AP_ACTIVITY_READY && in->entered_ns > memory->busy_ns &&
		    settled < in->entered_ns + rules->hold_ns)
			settled = in->entered_ns + rules->hold_ns;
		if (now >= settled) {
			because(ret, picked->activity, AP_FOREVER, picked->why);
		} else {
			because(ret, AP_ACTIVITY_BUSY, settled, "");
			snprintf(ret->why, sizeof ret->why, "settling: %.110s", picked->why);
		}
		if (stale && now < settled) /* what was printed since has the say */
			memory->since_ns = now;
	}
	int64_t doubt = in->hook.at_ns + HOOK_TRUST;
	if (!rules->tells_ready && picked == &in->hook && picked->activity == AP_ACTIVITY_BUSY)
		doubt = silent_since(in) + HOOK_SILENCE;
	if (in->hook.found && now < doubt && doubt < ret->recheck_ns)
		ret->recheck_ns = doubt;
	return true;
}

static void conclude_stream(const struct activity_input *in, struct activity *ret)
{
	if (in->entered_ns > 0 && (!in->told.found || in->told.at_ns < in->entered_ns))
		because(ret, AP_ACTIVITY_BUSY, AP_FOREVER, "prompt: given to the program");
	else if (in->told.found)
		because(ret, in->told.activity, AP_FOREVER, in->told.why);
	else
		because(ret, AP_ACTIVITY_READY, AP_FOREVER, "stream: nothing was asked yet");
}

struct activity activity_conclude(const struct activity_rules *rules,
				  const struct activity_input *in, struct activity_memory *memory,
				  int64_t now)
{
	struct activity result = {.why = ""};
	if (in->ended) {
		because(&result, AP_ACTIVITY_EXITED, AP_FOREVER, "");
		snprintf(result.why, sizeof result.why, "exit: %s",
			 *in->ended_how ? in->ended_how : "without a record");
		return result;
	}
	/* what was typed shows on the terminal before it is worked on */
	bool unseen = in->entered_ns > 0 && in->output_ns < in->entered_ns;
	if (rules->stream)
		conclude_stream(in, &result);
	else if (unseen && now < in->entered_ns + rules->silence_ns)
		because(&result, AP_ACTIVITY_BUSY, in->entered_ns + rules->silence_ns,
			"prompt: submitted, nothing printed yet");
	else if (in->output_ns == 0 && now < in->started_ns + rules->silence_ns)
		because(&result, AP_ACTIVITY_STARTING, in->started_ns + rules->silence_ns,
			"start: nothing printed yet");
	else if (rules->shell && !in->look.known && now < in->started_ns + rules->silence_ns)
		because(&result, AP_ACTIVITY_STARTING, now + SHELL_SETTLE,
			"start: the shell is not there yet");
	else if ((!rules->shell || !conclude_shell(rules, in, now, &result)) &&
		 !conclude_signals(rules, in, memory, now, &result))
		conclude_silence(rules, in, now, &result);
	result.wants_look = rules->looks && in->screen.at_ns < in->output_ns &&
			    (rules->tells_ready || now >= in->output_ns + rules->debounce_ns);
	if (!in->started_ready && result.activity == AP_ACTIVITY_BUSY)
		result.activity = AP_ACTIVITY_STARTING;
	return result;
}

bool activity_is_interactive(const char *const *argv)
{
	for (size_t i = 1; argv[i]; i++) { /* a script or -c: no interactive shell */
		if (argv[i][0] != '-' || strcmp(argv[i], "-c") == 0)
			return false;
	}
	return true;
}
