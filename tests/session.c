/* session PROGRAM [PROFILE] [ARGUMENT...]: one program in a terminal, without pool and mount, and
 * what is concluded of it. PROFILE is a file or a name in share/programs; "-" is what holds for
 * any. Each line of the standard input is a prompt; at its end the program is ended. Prints what it
 * is found to do, and what becomes of the prompts. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "remove.h"
#include "session.h"

static char dir[] = "/tmp/agentpool-session-XXXXXX";
static struct session_host host;
static struct profile *loaded;
static struct loop_source backend_says;
static int64_t began;

static void say(const char *what, const char *text)
{
	printf("%8.3f %s %s\n", (double)(ap_clock_ns() - began) / AP_SECOND, what, text);
	fflush(stdout);
}

static void on_freed(void *owner)
{
	(void)owner;
}

static void on_changed(void *owner)
{
	(void)owner; /* follow() looks all the time */
}

static void on_ended(void *owner, unsigned start, const char *how, bool killed)
{
	(void)owner, (void)start;
	say(killed ? "killed" : "ended", how);
}

static void on_activity(void *owner, enum ap_activity from, enum ap_activity to, const char *why)
{
	(void)owner, (void)to, (void)why; /* follow() says it */
	if (from == AP_ACTIVITY_BUSY)
		say("turn", "ended");
}

static int on_taken(void *owner, uint64_t seq, bool is_command, struct ap_err *err)
{
	(void)owner, (void)seq, (void)is_command, (void)err;
	say("prompt", "taken");
	return 0;
}

static void on_used(void *owner, const struct ap_usage_report *report)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	(void)owner;
	ap_usage_format(&report->usage, "", " ", " ", &text);
	say(report->is_turn ? "turn used" : "used by now", ap_buf_text(&text));
}

static void on_done(void *owner, uint64_t seq, enum session_outcome outcome, size_t len,
		    const struct ap_err *why)
{
	static const char *const names[] = {"submitted", "not submitted", "no evidence",
					    "put back"};
	char text[AP_ERR_MAX + 64];
	(void)owner, (void)len;
	snprintf(text, sizeof text, "%llu %s %s", (unsigned long long)seq, names[outcome],
		 why->text);
	say("prompt", text);
}

static void on_dropped(void *owner, uint64_t seq)
{
	(void)owner, (void)seq;
	say("prompts", "dropped");
}

static void on_note(void *owner, enum session_note what, const char *text)
{
	(void)owner;
	say(what == SESSION_AUTO_ANSWER ? "answered" : "no setting", text);
}

static void on_conversation(void *owner, const char *conversation)
{
	(void)owner;
	say("conversation", *conversation ? conversation : "none");
}

static void on_resume_failed(void *owner, const char *conversation)
{
	(void)owner;
	say("not gone on with", conversation);
}

static void on_limit(void *owner, const struct limit *limit, bool lifted)
{
	(void)owner;
	say("limit", limit->on ? limit->text : lifted ? "lifted" : "over");
}

static bool on_limit_over(void *owner, const struct limit *limit)
{
	(void)owner, (void)limit;
	return false;
}

static const struct session_callbacks callbacks = {
	.freed = on_freed,
	.changed = on_changed,
	.ended = on_ended,
	.activity = on_activity,
	.prompt_taken = on_taken,
	.used = on_used,
	.prompt_done = on_done,
	.prompts_dropped = on_dropped,
	.note = on_note,
	.conversation = on_conversation,
	.resume_failed = on_resume_failed,
	.limit = on_limit,
	.goes_on = on_limit_over,
};

static void on_backend(struct loop_source *source)
{
	if (host.backend->ops->ready(host.backend))
		return;
	(void)loop_watch_fd(host.loop, source, -1);
	host.backend->ops->hang_up(host.backend);
}

static int open_host(const char *profile, struct ap_err *err)
{
	static const char *const dirs[] = {AP_SOURCE_DIR "/share/programs", NULL};
	int r = profile_load(&loaded, profile, dirs, err);
	if (r == 0)
		r = loop_new(&host.loop, err);
	if (r == 0)
		r = backend_new(&host.backend, session_needs_terminal(loaded), dir, SHIM, err);
	if (r == 0 && !(host.workers = worker_pool_new(3)))
		r = ap_err_errno(err, -EAGAIN, "threads");
	if (r == 0)
		r = loop_add(host.loop, &backend_says, on_backend);
	if (r == 0 && host.backend->ops->fd)
		r = loop_watch_fd(host.loop, &backend_says, host.backend->ops->fd(host.backend));
	if (r == 0)
		r = loop_start(host.loop, err);
	if (r == 0)
		r = backend_configure(host.backend, err);
	host.profile = loaded;
	host.driver = loaded ? session_driver(loaded) : NULL;
	host.repo = host.worktrees = host.mountpoint = dir;
	atomic_store(&host.max_prompt, 1 << 20);
	atomic_store(&host.output_limit, 64 << 20);
	atomic_store(&host.terminal_size, ((struct terminal_size){200, 50}));
	pthread_mutex_init(&host.seeding, NULL);
	return r;
}

static void close_host(void)
{
	worker_pool_end(host.workers);
	if (host.loop)
		loop_stop(host.loop);
	worker_pool_free(host.workers);
	if (host.backend)
		host.backend->ops->free(host.backend, false);
	loop_free(host.loop);
	profile_free(loaded);
	remove_tree(dir, NULL, NULL);
}

/* Reads a line of the standard input, if there is one already. 0: it has ended. */
static int next_line(char *line, size_t size)
{
	static char text[64 << 10];
	static size_t n;
	struct pollfd in = {.fd = 0, .events = POLLIN};
	char *newline = memchr(text, '\n', n);
	if (!newline && poll(&in, 1, 20) == 1) {
		ssize_t more = read(0, text + n, sizeof text - n);
		if (more <= 0)
			return 0;
		n += (size_t)more;
		newline = memchr(text, '\n', n);
	}
	if (!newline)
		return -EAGAIN;
	size_t len = (size_t)(newline - text);
	snprintf(line, size, "%.*s", (int)len, text);
	n -= len + 1;
	memmove(text, newline + 1, n);
	return 1;
}

/* Says what it does whenever that is another, until nothing more comes in and it is at rest. */
static void follow(struct session *session)
{
	char line[4096], said[160] = "";
	uint64_t seq = 0;
	struct ap_err err;
	for (bool more = true;;) {
		char now[160];
		struct session_info info;
		session_info(session, &info);
		snprintf(now, sizeof now, "%s %s", ap_activity_name(info.activity), info.why);
		if (strcmp(now, said) != 0)
			say("is", now);
		memcpy(said, now, sizeof said);
		if (info.ended || (!more && session_has_settled(session)))
			return;
		int r = more ? next_line(line, sizeof line) : (poll(NULL, 0, 20), -EAGAIN);
		more = r != 0;
		if (r != 1)
			continue;
		if (session_prompt_check(session, strlen(line), &err) < 0)
			say("refused", err.text);
		else
			session_prompt(session, ++seq,
				       session_prompt_new(line, strlen(line), false));
	}
}

int main(int argc, char **argv)
{
	struct ap_err err = {""};
	char place[sizeof dir + 16];
	const char *words[64] = {NULL};
	if (argc < 2 || argc > 60) {
		fprintf(stderr, "usage: session PROGRAM [PROFILE] [ARGUMENT...]\n");
		return 2;
	}
	words[0] = argv[1];
	for (int i = 3; i < argc; i++)
		words[i - 2] = argv[i];
	host.argv = words;
	began = ap_clock_ns();
	if (!mkdtemp(dir))
		return 1;
	snprintf(place, sizeof place, "%s/records", dir);
	const char *profile = argc < 3 ? argv[1] : strcmp(argv[2], "-") == 0 ? "default" : argv[2];
	int r = mkdir(place, 0700) < 0 ? -errno : open_host(profile, &err);
	struct session *session = NULL;
	if (r == 0)
		session = session_new(
			&host, &(struct session_place){.name = "session", .dir = place, .cwd = dir},
			&callbacks, NULL);
	if (session)
		r = session_begin_output(session, &err);
	if (session && r == 0)
		r = session_start(session, true, &err);
	if (session && r == 0)
		follow(session);
	if (session) {
		(void)session_end(session, NULL);
		session_close(session);
		session_unref(session);
	}
	close_host();
	if (r < 0)
		fprintf(stderr, "session: %s\n", err.text);
	return r < 0;
}
