/* What the program of a session uses, where no protocol says it: by its hook, by its screen, by the
 * file of its conversation, by its events. Knows where its counters count; who counts is the owner.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "driver.h"
#include "file.h"

#define TAIL_MAX  (256 << 10) /* bytes that are read of a conversation's file, its last ones */
/* The record of the program's hook: lines, as session_count() takes them. */
#define USAGE	  SESSION_LEFT "/usage"
#define USAGE_MAX 4096 /* bytes of it */

/* The process that the program is, as a number that no other has. 0: it has ended, or is not known
 * yet. `ret_is_fresh`: no prompt has reached it. */
static int64_t process_of(struct session *session, bool *ret_is_fresh)
{
	pthread_mutex_lock(&session->lock);
	unsigned start = session->start;
	pid_t pid = session->program;
	*ret_is_fresh = session->entered_ns == 0;
	pthread_mutex_unlock(&session->lock);
	if (pid == 0)
		know_program(session, start);
	pthread_mutex_lock(&session->lock);
	pid = session->program;
	pthread_mutex_unlock(&session->lock);
	return pid ? (int64_t)(process_start_time(pid) << 23 | (uint64_t)pid) : 0;
}

/* Reports counters; of the program's process, if the report says of nothing. */
static void report(struct session *session, struct ap_usage_report *report)
{
	bool is_fresh;
	int64_t process = process_of(session, &is_fresh);
	report->is_base = is_fresh;
	if (report->number == 0)
		report->number = process;
	pthread_mutex_lock(&session->output_lock);
	if (session->driver->counts)
		session->driver->counts(session, report);
	session->callbacks->used(session->owner, report);
	pthread_mutex_unlock(&session->output_lock);
}

int session_count(struct session *session, const struct ap_usage *now, struct ap_err *err)
{
	pthread_mutex_lock(&session->lock);
	int r = running_locked(session, true, err);
	pthread_mutex_unlock(&session->lock);
	if (r == 0)
		report(session, &(struct ap_usage_report){.usage = *now});
	return r;
}

void count_left(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct ap_usage now;
	ap_buf_printf(&path, "%s/" USAGE, session->dir);
	if (file_read(ap_buf_text(&path), O_NOFOLLOW, USAGE_MAX, &text, NULL) == 0 &&
	    ap_usage_parse(ap_buf_text(&text), &now, NULL) == 0)
		report(session, &(struct ap_usage_report){.usage = now});
}

void count_anew(const struct session *session)
{
	remove_record(session, USAGE);
}

void count_by_screen(struct session *session, const struct ap_buf *screen)
{
	struct ap_usage_report found;
	if (profile_usage(session->host->profile, PROFILE_SCREEN, ap_buf_text(screen), screen->len,
			  &found))
		report(session, &found);
}

/* Reads the last part of a file that the program has made. */
static void read_tail(const char *path, struct ap_buf *ret)
{
	struct stat stat;
	AP_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode) ||
	    !ap_buf_reserve(ret, TAIL_MAX + 1))
		return;
	ssize_t n = pread(fd, ret->data, TAIL_MAX,
			  stat.st_size > TAIL_MAX ? stat.st_size - TAIL_MAX : 0);
	ret->len = n > 0 ? (size_t)n : 0;
	ret->data[ret->len] = '\0';
}

void count_by_conversation(struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf tail = {0};
	char conversation[SESSION_CONVERSATION_MAX];
	struct ap_usage_report found;
	if (!profile_says_usage(session->host->profile, PROFILE_CONVERSATION) ||
	    !session_conversation(session, conversation) ||
	    !conversation_file(session, conversation, &path))
		return;
	read_tail(ap_buf_text(&path), &tail);
	if (!profile_usage(session->host->profile, PROFILE_CONVERSATION, ap_buf_text(&tail),
			   tail.len, &found))
		return;
	found.number = (int64_t)(ap_hash(conversation) >> 1);
	report(session, &found);
}

void count_by_event_locked(struct session *session, const char *event)
{
	struct ap_usage_report found;
	if (!profile_usage(session->host->profile, PROFILE_EVENT, event, strlen(event), &found))
		return;
	if (session->adopted_to > 0)
		session->held = found;
	else
		session->callbacks->used(session->owner, &found);
}

void count_adopt_locked(struct session *session)
{
	struct stat stat;
	session->held.usage = AP_USAGE_UNKNOWN;
	session->adopted_to = fstat(session->read_fd, &stat) == 0 ? (int64_t)stat.st_size : 0;
}

void count_adopted_locked(struct session *session)
{
	if (session->adopted_to == 0 || atomic_load(&session->raw.size) < session->adopted_to)
		return;
	session->adopted_to = 0;
	if (ap_usage_is_known(&session->held.usage))
		session->callbacks->used(session->owner, &session->held);
}
