#include "activity.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

/* A shell that waits for input is ready after so much silence, which keeps a burst of output whole.
 */
#define SHELL_SETTLE (30 * AP_MS)
/* How long a hook counts against the screen: it runs 30 to 60 ms before the screen shows the
 * change, and not at all when the user interrupts a turn. */
#define HOOK_TRUST AP_SECOND
/* Without rules about the screen, a hook that said busy counts until so much silence. */
#define HOOK_SILENCE (600 * AP_SECOND)
/* A program whose screen no rule matches counts as waiting for a human after so much silence; the
 * longer one before it has been ready for the first time, as it may be loading. */
#define UNKNOWN_SILENCE	 (3 * AP_SECOND)
#define UNKNOWN_STARTING (15 * AP_SECOND)
/* Likewise a shell that has not reached its first prompt: its start-up files may take long. */
#define SHELL_STARTING (60 * AP_SECOND)
/* A program that has been seen to wait for its terminal alone, and does not, is at work; but the
 * evidence may be wrong, and after so much silence it is not believed. */
#define READER_SILENCE (60 * AP_SECOND)
/* A shell's process may wait for input before its output, with the markers, has arrived: the
 * absence of a marker counts only after so much silence. */
#define UNMARKED_SETTLE AP_SECOND

/* --- the state of processes --- */

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

/* The system call that a process sleeps in: its number and first arguments. */
struct call {
	long number;
	unsigned long args[5];
};

static bool call_of(pid_t pid, struct call *ret)
{
	char text[256];
	return read_proc(pid, "syscall", text, sizeof text) &&
	       sscanf(text, "%ld 0x%lx 0x%lx 0x%lx 0x%lx 0x%lx", &ret->number, &ret->args[0],
		      &ret->args[1], &ret->args[2], &ret->args[3], &ret->args[4]) == 6;
}

static bool is_terminal(pid_t pid, unsigned long fd)
{
	char path[64], link[32];
	snprintf(path, sizeof path, "/proc/%d/fd/%lu", (int)pid, fd);
	ssize_t n = readlink(path, link, sizeof link - 1);
	link[n > 0 ? n : 0] = '\0';
	/* bwrap has the terminal of a sandbox at /dev/console, where ttyname(3) finds it */
	return strncmp(link, "/dev/pts/", 9) == 0 || strcmp(link, "/dev/tty") == 0 ||
	       strcmp(link, "/dev/console") == 0;
}

/* Whether a process waits for its terminal and for nothing else, in a read or, as readline does, in
 * select without a timeout: only what somebody types wakes it. */
static bool waits_for_terminal(pid_t pid, const struct call *call)
{
	if (call->number == SYS_pselect6)
		return call->args[0] == 1 && call->args[4] == 0 && is_terminal(pid, 0);
	return call->number == SYS_read && is_terminal(pid, call->args[0]);
}

/* Whether the call waits for one of several descriptors. */
static bool waits_for_some(long call)
{
	switch (call) {
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

/* For a process whose system call the daemon may not read: judges by its wchan; if it may not read
 * that either, any sleep counts as READS_PROMPT. */
static enum activity_read reads_by_place(pid_t shell, bool edits)
{
	char place[64];
	if (!read_proc(shell, "wchan", place, sizeof place) || strcmp(place, "0") == 0 ||
	    strncmp(place, "wait_woken", 10) == 0 || strncmp(place, "n_tty_read", 10) == 0)
		return READS_PROMPT;
	bool some = strncmp(place, "poll_", 5) == 0 || strncmp(place, "do_select", 9) == 0 ||
		    strncmp(place, "do_sys_poll", 11) == 0 || strncmp(place, "ep_poll", 7) == 0;
	return some && edits ? READS_PROMPT : READS_NOTHING;
}

/* What a sleeping shell waits for: not always its terminal, as a substitution such as x=$(sleep 4)
 * makes it read a pipe. While the terminal is in canonical mode, the size of the read tells `read`
 * from the prompt: the `read` of most shells reads one byte, as it must not read beyond its line,
 * that of bash 4096; at the prompt bash reads 1024, dash 8192. */
static enum activity_read reads_of(pid_t shell, const struct call *call, bool edits)
{
	if (call->number == SYS_read) {
		bool input = !edits && (call->args[2] == 1 || call->args[2] == 4096);
		return !is_terminal(shell, call->args[0]) ? READS_NOTHING
		       : input				  ? READS_INPUT
							  : READS_PROMPT;
	}
	if (!waits_for_some(call->number))
		return READS_NOTHING;
	if (edits) /* a shell that edits its line leaves canonical mode only while it does */
		return READS_PROMPT;
	return waits_for_terminal(shell, call) ? READS_INPUT : READS_NOTHING;
}

/* Parses state and foreground process group from the text of /proc/PID/stat. */
static bool stat_parse(const char *text, char *ret_state, int *ret_foreground)
{
	const char *name_end = strrchr(text, ')'); /* the name may hold anything */
	return name_end &&
	       sscanf(name_end + 1, " %c %*d %*d %*d %*d %d", ret_state, ret_foreground) == 2;
}

struct activity_look activity_look(pid_t program, bool edits)
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
	look.edits = edits;
	struct call call;
	bool seen = call_of(foreground, &call);
	look.reader = seen && waits_for_terminal(foreground, &call);
	if (foreground == program && state == 'S')
		look.reads =
			seen ? reads_of(program, &call, edits) : reads_by_place(program, edits);
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

/* Whether a rule says that the screen waits for an answer, and nothing was printed since. */
static bool screen_asks(const struct activity_input *in)
{
	return in->screen.found && in->screen.activity == AP_ACTIVITY_WAITING &&
	       in->screen.at_ns >= in->output_ns;
}

/* Whether the shell asks for the rest of a command, such as one with an open quote. By its OSC 133
 * markers: neither a start nor an end of a command has come since Enter, and the line is not its
 * primary prompt. By the line: a rule matches, and the line is not its primary prompt. */
static bool goes_on(const struct activity_input *in, const char **ret_why, int64_t *ret_since_ns)
{
	bool is_first = *in->prompt && strcmp(in->line, in->prompt) == 0;
	*ret_since_ns = 0;
	if (!is_first && in->line_goes_on && (in->started_ready || in->entered_ns)) {
		*ret_why = "line: the shell waits for the rest of a command";
		return true;
	}
	if (is_first || !in->marks || in->entered_ns <= in->marked_ns)
		return false;
	*ret_why = "marks: the shell waits for the rest of a command";
	*ret_since_ns = in->output_ns + UNMARKED_SETTLE;
	return true;
}

/* Concludes for a shell that sleeps in a read of its terminal, with no job in the foreground. */
static void conclude_prompt(const struct activity_rules *rules, const struct activity_input *in,
			    int64_t now, struct activity *ret)
{
	int64_t settled = in->output_ns + SHELL_SETTLE, since;
	int64_t silent = in->output_ns + rules->debounce_ns;
	const char *why;
	bool looked = !rules->looks || in->screen.at_ns >= in->output_ns;
	if (now < settled) {
		because(ret, AP_ACTIVITY_BUSY, settled, "foreground: the shell has just printed");
	} else if (goes_on(in, &why, &since)) {
		since = since > silent ? since : silent;
		bool waits = now >= since;
		because(ret, waits ? AP_ACTIVITY_WAITING : AP_ACTIVITY_BUSY,
			waits ? AP_FOREVER : since, why);
	} else if (!in->started_ready && !in->marks && !(now >= silent && looked)) {
		because(ret, AP_ACTIVITY_BUSY, now < silent ? silent : AP_FOREVER,
			"foreground: the shell waits for input; whether it asks is to be seen");
	} else {
		because(ret, AP_ACTIVITY_READY, rules->looks && now < silent ? silent : AP_FOREVER,
			"foreground: the shell waits for input");
	}
}

/* When to look at the processes again, which may go on without printing: less often the longer it
 * takes, after that part of the time so far. */
static int64_t next_look(const struct activity_input *in, int64_t now, int64_t part)
{
	int64_t pause = (now - silent_since(in)) / part;
	return now + (pause > SHELL_SETTLE ? pause : SHELL_SETTLE);
}

static bool conclude_shell(const struct activity_rules *rules, const struct activity_input *in,
			   int64_t now, struct activity *ret)
{
	const struct activity_look *look = &in->look;
	if (!look->known)
		return false;
	bool job = look->foreground != look->program;
	/* a shell that edits its input at a prompt runs no command; the output of the last one,
	 * with the marker of its end, may be on its way */
	bool at_prompt = !job && look->edits && look->reads == READS_PROMPT;
	bool command = (in->runs_command && !at_prompt) || look->reads == READS_INPUT;
	int64_t arrived = in->output_ns + UNMARKED_SETTLE;
	int64_t silent = in->output_ns + rules->debounce_ns;
	if (!job && look->reads == READS_NOTHING) {
		because(ret, AP_ACTIVITY_BUSY, next_look(in, now, 8),
			"foreground: the shell is at work");
	} else if (now >= silent && screen_asks(in)) {
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER, in->screen.why);
	} else if (now >= silent && (job ? look->reader : command)) {
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER,
			job ? "foreground: a program reads the terminal"
			: in->runs_command
				? "marks: a command of the shell reads the terminal"
				: "foreground: a command of the shell reads the terminal");
	} else if (job && in->hook.found && in->hook.at_ns > in->entered_ns) {
		because(ret, in->hook.activity, AP_FOREVER, in->hook.why); /* the job's hook */
	} else if (job) {
		because(ret, AP_ACTIVITY_BUSY, now < silent ? silent : AP_FOREVER, "");
		snprintf(ret->why, sizeof ret->why, "foreground: process group %d has the terminal",
			 (int)look->foreground);
	} else if (command) {
		because(ret, AP_ACTIVITY_BUSY, silent, "marks: a command has begun");
	} else if (in->runs_command && now < arrived) {
		because(ret, AP_ACTIVITY_BUSY, arrived, "marks: a command has not ended yet");
	} else {
		conclude_prompt(rules, in, now, ret);
	}
	return true;
}

/* For a start of which no sign says that it is over: counts as waiting for a human after
 * `patience`. */
static void conclude_start(int64_t patience, const struct activity_input *in, int64_t now,
			   const char *why, struct activity *ret)
{
	int64_t last = silent_since(in);
	if (now < last + patience) {
		if (ret->recheck_ns > last + patience)
			ret->recheck_ns = last + patience;
		return;
	}
	because(ret, AP_ACTIVITY_WAITING, ret->recheck_ns, "");
	snprintf(ret->why, sizeof ret->why, "start: %.100s", why);
}

/* Why a program reads what is typed next, by what its terminal tells; NULL: that is not known.
 * `ret_pause_ns`: how long the terminal must have been silent for it. */
static const char *terminal_reads(const struct activity_rules *rules,
				  const struct activity_input *in, int64_t *ret_pause_ns)
{
	const struct activity_look *look = &in->look;
	*ret_pause_ns = SHELL_SETTLE;
	if (!rules->terminal)
		return NULL;
	if (in->prompt_mark_ns > in->entered_ns && in->prompt_mark_ns > in->keys_ns)
		return "marks: the program shows its prompt";
	if (look->known && look->reader)
		return "foreground: the program reads its terminal";
	*ret_pause_ns = rules->debounce_ns;
	bool may_read = look->known && look->foreground == look->program &&
			look->reads != READS_NOTHING && look->edits;
	return may_read && in->cursor_waits ? "cursor: it stands where a line is typed" : NULL;
}

/* Concludes from what the terminal tells. False: not enough. */
static bool conclude_terminal(const struct activity_rules *rules, const struct activity_input *in,
			      struct activity_memory *memory, int64_t now, struct activity *ret)
{
	int64_t pause, again = next_look(in, now, 8), working = silent_since(in) + READER_SILENCE;
	const char *why = terminal_reads(rules, in, &pause);
	bool reader = in->look.known && in->look.reader;
	bool looked = !rules->looks || in->screen.at_ns >= in->output_ns;
	if (!rules->terminal)
		return false;
	memory->reader |= reader;
	if (in->runs_command && reader && now >= in->output_ns + rules->debounce_ns)
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER,
			"marks: a command reads the terminal");
	else if (in->runs_command)
		because(ret, AP_ACTIVITY_BUSY, again, "marks: a command has begun");
	else if (why && now < in->output_ns + pause)
		because(ret, AP_ACTIVITY_BUSY, in->output_ns + pause,
			"terminal: it has just printed");
	else if (why && !looked) /* it may show a question */
		because(ret, AP_ACTIVITY_BUSY, AP_FOREVER, "terminal: the screen is looked at");
	else if (why)
		because(ret, AP_ACTIVITY_READY, AP_FOREVER, why);
	else if (memory->reader && now < working)
		because(ret, AP_ACTIVITY_BUSY, again < working ? again : working,
			"foreground: the program does not read its terminal");
	else
		return false;
	return true;
}

static void conclude_silence(const struct activity_rules *rules, const struct activity_input *in,
			     struct activity_memory *memory, int64_t now, struct activity *ret)
{
	int64_t last = silent_since(in);
	bool unsaid = !in->started_ready && rules->says_ready;
	if (now >= in->output_ns + rules->debounce_ns && screen_asks(in))
		because(ret, AP_ACTIVITY_WAITING, AP_FOREVER, in->screen.why);
	else if (screen_asks(in))
		because(ret, AP_ACTIVITY_BUSY, in->output_ns + rules->debounce_ns,
			"screen: it may ask");
	else if (conclude_terminal(rules, in, memory, now, ret))
		;
	else if (unsaid)
		because(ret, AP_ACTIVITY_BUSY, AP_FOREVER,
			"start: it has not said yet that it is ready");
	else if (now < last + rules->silence_ns)
		because(ret, AP_ACTIVITY_BUSY, last + rules->silence_ns,
			"silence: not long enough yet");
	else
		because(ret, AP_ACTIVITY_READY, AP_FOREVER, "silence: nothing printed for long");
	if (unsaid && ret->activity == AP_ACTIVITY_BUSY)
		conclude_start(UNKNOWN_STARTING, in, now, "it has not said that it is ready", ret);
	int64_t look = in->output_ns + rules->debounce_ns;
	if (rules->looks && now < look && look < ret->recheck_ns)
		ret->recheck_ns = look;
}

/* --- conclusions from signals --- */

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

/* Whether the hook's word counts: not from before the last prompt, unless it is busy, and against
 * the screen only for HOOK_TRUST. */
static bool hook_holds(const struct activity_rules *rules, const struct activity_input *in,
		       int64_t now)
{
	const struct activity_signal *hook = &in->hook;
	if (!hook->found || (hook->activity != AP_ACTIVITY_BUSY && hook->at_ns < in->entered_ns))
		return false;
	if (rules->tells_ready)
		return now < hook->at_ns + HOOK_TRUST;
	/* after a long silence the user may have interrupted the turn: no hook runs then */
	return hook->activity != AP_ACTIVITY_BUSY || now < silent_since(in) + HOOK_SILENCE;
}

static const struct activity_signal *strongest(const struct activity_rules *rules,
					       const struct activity_input *in, int64_t now)
{
	const struct activity_signal *picked = NULL;
	const struct activity_signal *signals[] = {
		(rules->tells_ready || in->told.found) && in->screen.found ? &in->screen : NULL,
		in->told.found ? &in->told : NULL,
		hook_holds(rules, in, now) ? &in->hook : NULL,
	};
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
		/* with rules about ready, the screen has to confirm it: it may show a question */
		bool unseen = signals[i] && signals[i]->activity == AP_ACTIVITY_READY &&
			      rules->tells_ready && !in->screen.found;
		if (signals[i] && !unseen &&
		    (!picked || strength(signals[i]->activity) > strength(picked->activity)))
			picked = signals[i];
	}
	return picked;
}

/* For a screen that no rule matches: counts as busy, as a prompt must not be typed into it, and
 * after a while as waiting for a human. */
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

/* Concludes from the strongest signal. False: there is none, and silence has to decide. */
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
		if (memory->since_ns == 0 || memory->candidate != picked->activity) {
			memory->candidate = picked->activity;
			memory->since_ns = now;
		}
		/* ready from before the last prompt does not count */
		if (picked->activity == AP_ACTIVITY_READY && memory->since_ns < in->entered_ns)
			memory->since_ns = now;
		int64_t settled = memory->since_ns + rules->debounce_ns;
		bool stale = rules->tells_ready && in->screen.at_ns < in->output_ns;
		/* a program reads a large prompt before it shows busy, and looks ready until then
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
		if (stale && now < settled) /* output since the capture: start over */
			memory->since_ns = now;
	}
	int64_t doubt = in->hook.at_ns + HOOK_TRUST;
	if (!rules->tells_ready && picked == &in->hook && picked->activity == AP_ACTIVITY_BUSY)
		doubt = silent_since(in) + HOOK_SILENCE;
	if (in->hook.found && now < doubt && doubt < ret->recheck_ns)
		ret->recheck_ns = doubt;
	return true;
}

static void conclude_reports(const struct activity_input *in, struct activity *ret)
{
	if (in->entered_ns > 0 && (!in->told.found || in->told.at_ns < in->entered_ns))
		because(ret, AP_ACTIVITY_BUSY, AP_FOREVER, "prompt: given to the program");
	else if (in->told.found)
		because(ret, in->told.activity, AP_FOREVER, in->told.why);
	else
		because(ret, AP_ACTIVITY_READY, AP_FOREVER, "stream: nothing was asked yet");
}

/* Whether the program said before the last keys that it waits for a human: the keys may be his
 * answer. */
static bool asked_before_keys(const struct activity_input *in)
{
	const struct activity_signal *signals[] = {&in->hook, &in->told};
	for (size_t i = 0; i < 2; i++) {
		if (signals[i]->found && signals[i]->activity == AP_ACTIVITY_WAITING &&
		    signals[i]->at_ns < in->keys_ns)
			return true;
	}
	return false;
}

/* Keys typed by hand void the conclusion from before them: the program counts as busy until they
 * show an effect, or have not for silence_ns. */
static bool conclude_keys(const struct activity_rules *rules, const struct activity_input *in,
			  int64_t now, struct activity *ret)
{
	int64_t settled = in->keys_ns + rules->silence_ns;
	bool shown = in->output_ns >= in->keys_from_ns;
	bool told = in->hook.at_ns > in->keys_ns || in->told.at_ns > in->keys_ns;
	if (in->keys_ns == 0 || told)
		return false;
	if (now < settled && (!shown || asked_before_keys(in)))
		because(ret, AP_ACTIVITY_BUSY, settled, "keys: nothing has come of them yet");
	else if (rules->tells_ready && shown && in->screen.at_ns < in->keys_ns)
		because(ret, AP_ACTIVITY_BUSY, AP_FOREVER, "keys: the screen is looked at");
	else
		return false;
	return true;
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
	/* the terminal shows what was typed before the program acts on it; where it does not echo,
	 * the program reads on */
	bool unseen = in->entered_ns > 0 && in->output_ns < in->entered_ns;
	int64_t pause, news_by = silent_since(in) + rules->silence_ns, again = news_by;
	bool reads = terminal_reads(rules, in, &pause) != NULL;
	if (reads)
		news_by = again = silent_since(in) + rules->debounce_ns;
	else if (rules->terminal && next_look(in, now, 1) < again)
		again = next_look(in, now, 1);
	if (rules->reports)
		conclude_reports(in, &result);
	else if (conclude_keys(rules, in, now, &result))
		memory->since_ns = 0;
	else if (unseen && now < news_by)
		because(&result, AP_ACTIVITY_BUSY, again, "prompt: submitted, nothing printed yet");
	else if (in->output_ns == 0 && now < news_by)
		because(&result, AP_ACTIVITY_STARTING, again, "start: nothing printed yet");
	else if (rules->shell && !in->look.known && !in->started_ready)
		because(&result, AP_ACTIVITY_STARTING, now + SHELL_SETTLE,
			"start: the shell is not there yet");
	else if ((!rules->shell || !conclude_shell(rules, in, now, &result)) &&
		 !conclude_signals(rules, in, memory, now, &result))
		conclude_silence(rules, in, memory, now, &result);
	if (rules->shell && !in->started_ready &&
	    (result.activity == AP_ACTIVITY_BUSY || result.activity == AP_ACTIVITY_STARTING))
		conclude_start(SHELL_STARTING, in, now, "the shell has not shown a prompt",
			       &result);
	/* the last capture may have been before the last of the keys */
	int64_t news = in->output_ns > in->keys_ns ? in->output_ns : in->keys_ns;
	if (!reads)
		pause = rules->tells_ready ? 0 : rules->debounce_ns;
	result.wants_look = rules->looks && in->screen.at_ns < news && now >= in->output_ns + pause;
	if (!in->started_ready && result.activity == AP_ACTIVITY_BUSY)
		result.activity = AP_ACTIVITY_STARTING;
	return result;
}

bool activity_is_interactive(const char *const *argv)
{
	for (size_t i = 1; argv[i]; i++) { /* a script or -c makes it non-interactive */
		if (argv[i][0] != '-' || strcmp(argv[i], "-c") == 0)
			return false;
	}
	return true;
}
