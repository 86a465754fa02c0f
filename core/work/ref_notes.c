#include "ref_notes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "crash_point.h"
#include "file.h"
#include "refs_files.h"

void ref_note_take(const char *dir, const char *ref, char ret[REF_NOTE_SIZE])
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	if (!dir)
		return;
	snprintf(ret, REF_NOTE_SIZE, "%d", (int)gettid());
	ap_buf_printf(&path, "%s/%s", dir, ret);
	if (!path.failed)
		(void)file_write(path.data, ref, strlen(ref), NULL);
	crash_point("ref-noted");
}

void ref_note_drop(const char *dir, const char *note)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	if (!dir)
		return;
	ap_buf_printf(&path, "%s/%s", dir, note);
	if (!path.failed)
		(void)unlink(path.data);
}

static bool is_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

static void remove_lock(const char *git_dir, const char *name, const struct stat *note)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct stat st;
	ap_buf_printf(&path, "%s/%s.lock", git_dir, name);
	if (!path.failed && lstat(path.data, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_uid == geteuid() && !is_before(&st.st_mtim, &note->st_mtim))
		(void)unlink(path.data);
}

static void settle(const char *path, const char *git_dir)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	struct stat st;
	if (lstat(path, &st) == 0 && file_read(path, O_NOFOLLOW, HEAD_MAX, &ref, NULL) == 0 &&
	    refs_is_name(ap_buf_text(&ref))) {
		remove_lock(git_dir, ap_buf_text(&ref), &st);
		remove_lock(git_dir, "packed-refs", &st); /* to remove a ref that is packed */
	}
	(void)unlink(path);
}

int ref_notes_settle(const char *dir, const char *git_dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf names = {0};
	AP_CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = fd < 0 ? -errno : file_names(fd, &names);
	if (r < 0)
		return ap_err_errno(err, r, "%s", dir);
	const char *at = ap_buf_text(&names), *end = at + names.len;
	for (; at < end; at += strlen(at) + 1) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", dir, at);
		if (!path.failed)
			settle(path.data, git_dir);
	}
	return 0;
}
