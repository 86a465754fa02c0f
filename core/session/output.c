/* The output of a program: its raw bytes, the same as plain text, and the signs in it: title, OSC
 * 133 markers round commands, state, events. output_limit bounds bytes and text. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "driver.h"
#include "file.h"
#include "session_internal.h"

/* Bytes that one call reads at most; the next review reads on. */
#define READ_MAX (1 << 20)
/* The record of where the raw output was when the last prompt was given. */
#define PROMPTED "prompted"
/* The screen of a program without a terminal: its last lines. */
#define LAST_LINES 50
#define LAST_MAX   (64 << 10) /* bytes */
/* Longest response; of a longer one the end. */
#define RESPONSE_MAX (16 << 20)

/* --- signs --- */

static void on_mark(struct session *session, char mark, int64_t at)
{
	struct output_signs *signs = &session->signs;
	int64_t now = ap_clock_ns();
	if (mark == 'C' || mark == 'D')
		signs->marked_ns = now;
	if (mark >= 'A' && mark <= 'D')
		signs->prompt_mark_ns = mark == 'C' ? 0 : now;
	if (mark == 'C') {
		if (signs->command_start < 0)
			signs->command_start = at;
		signs->runs_command = signs->ends_commands;
	} else if (mark == 'D') {
		if (signs->command_start >= 0)
			signs->command_end = at;
		signs->ends_commands = true;
		signs->runs_command = false;
	}
}

/* Records when a title last said busy: it may pass too fast for a capture of the screen. */
static void on_title(struct session *session, const char *title)
{
	struct activity_signal signal;
	snprintf(session->signs.title, sizeof session->signs.title, "%s", title);
	if (profile_judge(session->host->profile, PROFILE_TITLE, title, NULL, &signal) &&
	    signal.activity == AP_ACTIVITY_BUSY)
		session->signs.title_busy_ns = ap_clock_ns();
}

static void on_osc(void *data, const char *osc, const struct ap_buf *out)
{
	struct session *session = data;
	struct output_signs *signs = &session->signs;
	struct activity_signal told;
	if ((osc[0] == '0' || osc[0] == '2') && osc[1] == ';')
		on_title(session, osc + 2);
	else if (strncmp(osc, "133;", 4) == 0)
		on_mark(session, osc[4], atomic_load(&session->plain.size) + (int64_t)out->len);
	if (!profile_judge(session->host->profile, PROFILE_OSC, osc, NULL, &told))
		return;
	told.at_ns = ap_clock_ns();
	signs->told = told;
}

/* --- its life --- */

void output_init(struct session *session)
{
	session->raw = session->plain = session->calls = session->errors = KEPT_NONE;
	session->read_fd = session->errors_fd = -1;
	pthread_mutex_init(&session->output_lock, NULL);
}

void output_fini(struct session *session)
{
	const int fds[] = {session->read_fd, session->errors_fd};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	kept_close(&session->raw);
	kept_close(&session->plain);
	kept_close(&session->calls);
	kept_close(&session->errors);
	ap_buf_fini(&session->line);
	ap_buf_fini(&session->response);
	pthread_mutex_destroy(&session->output_lock);
}

ssize_t session_read_output(struct session *session, enum session_output what, bool at_once,
			    void *ret, size_t size, int64_t offset, int64_t *ret_offset)
{
	const struct kept *const kept[] = {
		[SESSION_PLAIN] = &session->plain,
		[SESSION_RAW] = &session->raw,
		[SESSION_CALLS] = &session->calls,
	};
	if (!kept_lock(&session->output_lock, at_once))
		return -EAGAIN;
	ssize_t n = kept_read(kept[what], at_once, ret, size, offset, ret_offset);
	pthread_mutex_unlock(&session->output_lock);
	return n;
}

void output_raw_path(const struct session *session, struct ap_buf *out)
{
	ap_buf_printf(out, "%s/output-%u.raw", session->dir, session->n_starts);
}

void output_errors_path(const struct session *session, struct ap_buf *out)
{
	ap_buf_printf(out, "%s/output-%u.errors", session->dir, session->n_starts);
}

static void signs_reset(struct session *session)
{
	session->signs = (struct output_signs){.prompted = atomic_load(&session->plain.size),
					       .command_start = -1,
					       .command_end = -1,
					       .n_turns = session->signs.n_turns,
					       .limit = session->signs.limit};
	session->filter = (struct ap_plain){.on_osc = on_osc, .data = session};
	ap_buf_fini(&session->line);
	ap_buf_fini(&session->response);
}

/* Opens new output files; with `adopt` keeps the raw output, to be read again from its first kept
 * byte on. */
static int open_files(struct session *session, const char *raw_path, const char *plain_path,
		      bool adopt)
{
	struct kept raw = KEPT_NONE, plain = KEPT_NONE;
	int r = adopt ? kept_adopt(&raw, raw_path) : kept_open(&raw, raw_path);
	if (r == 0 && adopt) /* without a daemon it may have grown over the limit */
		kept_bound(&raw, atomic_load(&session->host->output_limit));
	if (r == 0)
		r = kept_open(&plain, plain_path);
	int read_fd = r == 0 ? file_open(raw_path, O_RDONLY | O_NOFOLLOW, 0) : -1;
	if (r == 0 && read_fd < 0)
		r = read_fd;
	if (r == 0 && lseek(read_fd, atomic_load(&raw.first), SEEK_SET) < 0) {
		r = -errno;
		close(read_fd);
	}
	atomic_store(&raw.size, atomic_load(&raw.first)); /* counts up as read_on() reads */
	if (r < 0) {
		kept_close(&raw);
		kept_close(&plain);
		return r;
	}
	pthread_mutex_lock(&session->output_lock);
	if (session->read_fd >= 0)
		close(session->read_fd);
	kept_close(&session->raw);
	kept_close(&session->plain);
	session->read_fd = read_fd;
	kept_move(&session->raw, &raw);
	kept_move(&session->plain, &plain);
	signs_reset(session);
	pthread_mutex_unlock(&session->output_lock);
	return 0;
}

/* Opens the file of the standard error, and begins at its first byte; watches it. */
static int open_errors(struct session *session, bool adopt)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct kept errors = KEPT_NONE;
	output_errors_path(session, &path);
	int r = adopt ? kept_adopt(&errors, ap_buf_text(&path))
		      : kept_open(&errors, ap_buf_text(&path));
	int read_fd = r == 0 ? file_open(ap_buf_text(&path), O_RDONLY | O_NOFOLLOW, 0) : r;
	if (read_fd < 0) {
		kept_close(&errors);
		return read_fd;
	}
	(void)lseek(read_fd, atomic_load(&errors.first), SEEK_SET);
	atomic_store(&errors.size, atomic_load(&errors.first)); /* counts up as it is read */
	pthread_mutex_lock(&session->output_lock);
	if (session->errors_fd >= 0)
		close(session->errors_fd);
	kept_close(&session->errors);
	session->errors_fd = read_fd;
	kept_move(&session->errors, &errors);
	pthread_mutex_unlock(&session->output_lock);
	return loop_watch_file(session->host->loop, &session->errors_grow, ap_buf_text(&path));
}

static int watch_file(struct session *session, const char *raw_path, struct ap_err *err)
{
	int r = loop_watch_file(session->host->loop, &session->output_grows, raw_path);
	return r < 0 ? ap_err_errno(err, r, "%s", raw_path) : 0;
}

/* What the driver needs beside the output. */
static int open_beside(struct session *session, bool adopt, struct ap_err *err)
{
	const struct session_driver *driver = session->driver;
	int r = driver->errors_apart ? open_errors(session, adopt) : 0;
	if (r == 0 && driver->opens)
		r = driver->opens(session, adopt);
	return r < 0 ? ap_err_errno(err, r, "the files beside the output of %s", session->name) : 0;
}

/* Begins a new raw file and unlinks the last one: what the terminal still writes to that is lost.
 */
int session_begin_output(struct session *session, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	AP_CLEANUP_BUF struct ap_buf errors = {0};
	AP_CLEANUP_BUF struct ap_buf plain = {0};
	output_raw_path(session, &raw);
	unlink(ap_buf_text(&raw));
	remove_record(session, PROMPTED);
	output_errors_path(session, &errors);
	unlink(ap_buf_text(&errors));
	raw.len = 0;
	session->n_starts++;
	output_raw_path(session, &raw);
	ap_buf_printf(&plain, "%s/output", session->dir);
	unlink(ap_buf_text(&plain)); /* whatever an agent has made of it */
	int r = open_files(session, ap_buf_text(&raw), ap_buf_text(&plain), false);
	if (r < 0)
		return ap_err_errno(err, r, "%s", ap_buf_text(&raw));
	r = open_beside(session, false, err);
	return r < 0 ? r : watch_file(session, ap_buf_text(&raw), err);
}

void output_restarts(struct session *session)
{
	char conversation[SESSION_CONVERSATION_MAX];
	(void)session_conversation(session, conversation);
	pthread_mutex_lock(&session->output_lock);
	signs_reset(session);
	if (session->driver->starts)
		session->driver->starts(session, conversation);
	pthread_mutex_unlock(&session->output_lock);
}

void output_forget(struct session *session)
{
	pthread_mutex_lock(&session->output_lock);
	kept_forget(&session->raw);
	kept_forget(&session->plain);
	if (session->read_fd >= 0)
		(void)lseek(session->read_fd, 0, SEEK_SET);
	struct output_signs signs = session->signs;
	signs_reset(session);
	/* the program is the same and so is its state */
	memcpy(session->signs.title, signs.title, sizeof signs.title);
	session->signs.told = signs.told;
	session->signs.ends_commands = signs.ends_commands;
	session->signs.marked_ns = signs.marked_ns; /* with 0, Enter would look newer */
	session->signs.prompt_mark_ns = signs.prompt_mark_ns;
	if (session->driver->forgets)
		session->driver->forgets(session);
	pthread_mutex_unlock(&session->output_lock);
	if (session->driver->heard)
		session->driver->heard(session);
}

void remove_record(const struct session *session, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%s", session->dir, name);
	unlink(ap_buf_text(&path));
}

/* --- reading --- */

/* Reads up to `max` bytes of the raw output; returns how many it has read. output_lock held. */
static size_t read_on(struct session *session, size_t max)
{
	AP_CLEANUP_BUF struct ap_buf plain = {0};
	char block[64 << 10];
	size_t done = 0;
	ssize_t n;
	while (session->read_fd >= 0 && done < max &&
	       (n = read(session->read_fd, block,
			 max - done < sizeof block ? max - done : sizeof block)) > 0) {
		plain.len = 0;
		if (session->driver->printed)
			session->driver->printed(session, block, (size_t)n,
						 atomic_load(&session->raw.size) + (int64_t)done,
						 &plain);
		else
			ap_plain_add(&session->filter, block, (size_t)n, &plain);
		done += (size_t)n;
		kept_append(&session->plain, ap_buf_text(&plain), plain.len);
	}
	return done;
}

/* The same of the standard error, if that is apart. */
static size_t read_errors_on(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf plain = {0};
	char block[4 << 10];
	size_t done = 0;
	ssize_t n;
	while (session->errors_fd >= 0 && done < READ_MAX &&
	       (n = read(session->errors_fd, block, sizeof block)) > 0) {
		plain.len = 0;
		session->driver->complained(session, block, (size_t)n, &plain);
		done += (size_t)n;
		kept_append(&session->plain, ap_buf_text(&plain), plain.len);
	}
	kept_grown(&session->errors, (int64_t)done);
	return done;
}

bool session_read_on(struct session *session)
{
	int64_t limit = atomic_load(&session->host->output_limit);
	pthread_mutex_lock(&session->output_lock);
	size_t n = read_on(session, READ_MAX);
	kept_grown(&session->raw, (int64_t)n);
	count_adopted_locked(session);
	size_t n_errors = read_errors_on(session);
	kept_bound(&session->raw, limit);
	kept_bound(&session->errors, limit);
	kept_bound(&session->plain, limit);
	pthread_mutex_unlock(&session->output_lock);
	if (n + n_errors == 0)
		return false;
	if (session->driver->heard)
		session->driver->heard(session);
	pthread_mutex_lock(&session->lock);
	session->output_ns = ap_clock_ns();
	/* the review reads on */
	session->reads_on = session->reads_on || n >= READ_MAX || n_errors >= READ_MAX;
	session_review_now(session);
	pthread_mutex_unlock(&session->lock);
	return true;
}

/* The unfinished last line, or the end of it if it is long. */
static void read_line(const struct session *session, char ret[OUTPUT_LINE_MAX])
{
	int64_t size = atomic_load(&session->plain.size),
		first = atomic_load(&session->plain.first);
	int64_t from = size - first < OUTPUT_LINE_MAX ? first : size - OUTPUT_LINE_MAX + 1;
	ssize_t n = session->plain.fd >= 0 && size > from
			    ? pread(session->plain.fd, ret, (size_t)(size - from), from)
			    : 0;
	ret[n > 0 ? n : 0] = '\0';
	char *newline = strrchr(ret, '\n');
	if (newline)
		memmove(ret, newline + 1, strlen(newline));
}

void output_look(struct session *session, struct output_signs *ret)
{
	pthread_mutex_lock(&session->output_lock);
	if (profile_values(session->host->profile)->rules.shell)
		read_line(session, session->signs.line);
	*ret = session->signs;
	pthread_mutex_unlock(&session->output_lock);
}

static void mark_prompted(struct session *session)
{
	session->signs.prompted = atomic_load(&session->plain.size);
	session->signs.command_start = session->signs.command_end = -1;
	session->response.len = 0;
}

void output_prompted(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	session_read_on(session); /* the output so far does not answer this prompt */
	pthread_mutex_lock(&session->output_lock);
	mark_prompted(session);
	int64_t at = atomic_load(&session->raw.size);
	pthread_mutex_unlock(&session->output_lock);
	ap_buf_printf(&path, "%s/" PROMPTED, session->dir);
	/* for the next daemon, which without it takes all kept output for the response */
	ap_buf_printf(&text, "%" PRId64 "\n", at);
	(void)file_write(ap_buf_text(&path), ap_buf_text(&text), text.len, NULL);
}

int64_t output_entered(struct session *session)
{
	pthread_mutex_lock(&session->lock);
	int64_t before = session->entered_ns;
	session->entered_ns = ap_clock_ns();
	pthread_mutex_unlock(&session->lock);
	return before;
}

void output_not_entered(struct session *session, int64_t before)
{
	pthread_mutex_lock(&session->lock);
	session->entered_ns = before;
	pthread_mutex_unlock(&session->lock);
}

int output_adopt(struct session *session, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	AP_CLEANUP_BUF struct ap_buf plain = {0};
	char prompted[32];
	int64_t at = -1;
	output_raw_path(session, &raw);
	ap_buf_printf(&plain, "%s/output", session->dir);
	if (file_read_line(session->dir, PROMPTED, prompted, sizeof prompted) == 0)
		(void)ap_number_parse(prompted, &at);
	int r = open_files(session, ap_buf_text(&raw), ap_buf_text(&plain), true);
	if (r < 0)
		return ap_err_errno(err, r, "%s", ap_buf_text(&raw));
	r = open_beside(session, true, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&session->output_lock);
	int64_t from = atomic_load(&session->raw.first);
	count_adopt_locked(session);
	if (at > from)
		kept_grown(&session->raw, (int64_t)read_on(session, (size_t)(at - from)));
	if (at >= from) {
		mark_prompted(session);
		session->signs.told = (struct activity_signal){.at_ns = 0}; /* from before it */
	}
	pthread_mutex_unlock(&session->output_lock);
	pthread_mutex_lock(&session->lock);
	session->entered_ns = at >= 0 ? ap_clock_ns() : 0;
	pthread_mutex_unlock(&session->lock);
	(void)session_read_on(session);
	r = watch_file(session, ap_buf_text(&raw), err);
	(void)session_read_on(session); /* output from before the watch; the loop reads on */
	return r;
}

/* The range of the response in the plain text: with OSC 133 markers the output of the commands;
 * otherwise all since the prompt was submitted, of which output_response() drops the newline that
 * ends the prompt's own line. */
static void response_range(const struct session *session, int64_t *ret_from, int64_t *ret_to)
{
	const struct output_signs *signs = &session->signs;
	int64_t size = atomic_load(&session->plain.size),
		first = atomic_load(&session->plain.first);
	*ret_from = signs->command_start >= 0 ? signs->command_start : signs->prompted;
	*ret_to = signs->command_end >= 0 ? signs->command_end : size;
	if (*ret_from < first)
		*ret_from = first;
	if (*ret_to - *ret_from > RESPONSE_MAX)
		*ret_from = *ret_to - RESPONSE_MAX;
}

int output_response(struct session *session, struct ap_buf *ret)
{
	int64_t from = 0, to = 0;
	int r = 0;
	pthread_mutex_lock(&session->output_lock);
	if (session->driver->response)
		session->driver->response(session, ret);
	else
		response_range(session, &from, &to);
	bool marked = session->signs.command_start >= 0;
	if (to > from) {
		size_t size = (size_t)(to - from), start = ret->len;
		ssize_t n = ap_buf_reserve(ret, size)
				    ? pread(session->plain.fd, ret->data + start, size, from)
				    : -1;
		if (n < 0)
			r = ret->failed ? -ENOMEM : -errno;
		else
			ret->len += (size_t)n;
		if (n > 0 && !marked && ret->data[start] == '\n')
			ap_buf_drop(ret, 1);
	}
	pthread_mutex_unlock(&session->output_lock);
	return r;
}

/* The screen of a program without a terminal: the last LAST_LINES lines that it printed. */
int output_last_lines(struct session *session, struct ap_buf *ret)
{
	pthread_mutex_lock(&session->output_lock);
	int64_t size = atomic_load(&session->plain.size), from = atomic_load(&session->plain.first);
	if (size - from > LAST_MAX)
		from = size - LAST_MAX;
	size_t start = ret->len;
	ssize_t n =
		size <= from ? 0
		: ap_buf_reserve(ret, (size_t)(size - from))
			? pread(session->plain.fd, ret->data + start, (size_t)(size - from), from)
			: -1;
	int r = n >= 0 ? 0 : ret->failed ? -ENOMEM : -errno;
	pthread_mutex_unlock(&session->output_lock);
	if (n <= 0)
		return r;
	ret->len += (size_t)n;
	ret->data[ret->len] = '\0';
	size_t at = ret->len;
	for (unsigned lines = 0; at > start; at--) {
		lines += at < ret->len && ret->data[at - 1] == '\n';
		if (lines == LAST_LINES)
			break;
	}
	memmove(ret->data + start, ret->data + at, ret->len - at + 1);
	ret->len -= at - start;
	return 0;
}

void look_at_screen(struct session *session, struct ap_buf *ret_screen, struct activity_signal *ret)
{
	struct backend *backend = session->host->backend;
	struct output_signs signs;
	session_read_on(session);
	*ret = (struct activity_signal){.at_ns = ap_clock_ns()};
	ret_screen->len = 0;
	if (!backend_has_terminals(backend) ||
	    backend->ops->capture(backend, &session->terminal, false, 0, ret_screen, NULL) < 0)
		return;
	output_look(session, &signs);
	profile_judge(session->host->profile, PROFILE_SCREEN, ap_buf_text(ret_screen), signs.title,
		      ret);
}
