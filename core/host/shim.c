/* Shims as the daemon sees them: their command line, their control groups, and the pidfd by which
 * they are watched and ended. Knows nothing of tmux. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "process.h"
#include "text.h"

#define PROC_MAX (16 << 20) /* bytes of a file of /proc */

static struct shim_backend *shims_of(struct backend *backend)
{
	return (struct shim_backend *)backend;
}

/* --- control groups --- */

static void read_proc(const char *name, struct ap_buf *ret)
{
	AP_CLEANUP_CLOSE int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : 1;
	while (n > 0 && ret->len < PROC_MAX && ap_buf_reserve(ret, 4096)) {
		n = read(fd, ret->data + ret->len, 4095);
		ret->len += n > 0 ? (size_t)n : 0;
		ret->data[ret->len] = '\0';
	}
}

/* A name for this state directory and no other, even if another mount namespace has one of that
 * path. */
static void groups_name(const char *state_dir, char *ret, size_t size)
{
	struct stat st = {0};
	char text[64];
	(void)stat(state_dir, &st); /* on failure the path alone counts */
	snprintf(text, sizeof text, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	snprintf(ret, size, "agentpoolfs-%016jx", (uintmax_t)(ap_hash(state_dir) ^ ap_hash(text)));
}

/* The path of an earlier daemon's groups, which may still hold agents: that daemon may have been
 * started elsewhere. Owned by the caller; NULL: there is none. */
static char *groups_before(const struct shim_backend *shims, const char *state_dir,
			   const char *name)
{
	char path[1024];
	if (file_read_line(state_dir, "cgroup", path, sizeof path) < 0)
		return NULL;
	const char *slash = strrchr(path, '/');
	if (path[0] != '/' || strcmp(slash + 1, name) != 0 || access(path, F_OK) < 0) {
		unlink(shims->groups_record);
		return NULL;
	}
	return strdup(path);
}

static char *groups_here(const char *name)
{
	AP_CLEANUP_BUF struct ap_buf mounts = {0};
	AP_CLEANUP_BUF struct ap_buf membership = {0};
	char *path;
	read_proc("/proc/self/mountinfo", &mounts);
	read_proc("/proc/self/cgroup", &membership);
	AP_CLEANUP_FREE char *home = cgroup_home(ap_buf_text(&mounts), ap_buf_text(&membership));
	return !home || asprintf(&path, "%s/%s", home, name) < 0 ? NULL : path;
}

/* Opens the agents' groups, if there can be any. */
static void groups_open(struct shim_backend *shims, const char *state_dir)
{
	char name[64];
	groups_name(state_dir, name, sizeof name);
	AP_CLEANUP_FREE char *path = groups_before(shims, state_dir, name);
	if (!path)
		path = groups_here(name);
	/* recorded before it exists: a half-made one can be removed */
	if (path && file_write(shims->groups_record, path, strlen(path), NULL) == 0 &&
	    !cgroup_subtree_open(&shims->groups, path))
		unlink(shims->groups_record);
	cgroup_subtree_describe(&shims->groups, shims->groups_described,
				sizeof shims->groups_described);
}

int shims_open(struct shim_backend *shims, const char *state_dir, const char *path,
	       struct ap_err *err)
{
	shims->path = strdup(path);
	if (asprintf(&shims->groups_record, "%s/cgroup", state_dir) < 0)
		shims->groups_record = NULL;
	if (!shims->path || !shims->groups_record)
		return ap_err_errno(err, -ENOMEM, "%s", path);
	groups_open(shims, state_dir);
	return 0;
}

void shims_close(struct shim_backend *shims, bool keep)
{
	if (shims->groups.path && cgroup_subtree_close(&shims->groups, keep))
		unlink(shims->groups_record);
	free(shims->groups_record);
	free(shims->path);
}

/* The control group of an agent; owned by the caller, NULL: there are no groups. */
static char *group_of(const struct shim_backend *shims, const char *name)
{
	char *path;
	if (!shims->groups.path || !*name)
		return NULL;
	return asprintf(&path, "%s/%s", shims->groups.path, name) < 0 ? NULL : path;
}

/* --- starting one --- */

void shim_words(struct shim_backend *shims, const struct backend_spawn *spawn, const char *output,
		struct ap_words *ret)
{
	/* a group of its own, whose counters begin with the program */
	AP_CLEANUP_FREE char *group =
		cgroup_make(&shims->groups, spawn->name, atomic_load(&shims->max_memory));
	ap_words_add(ret, shims->path);
	for (const char *const *env = spawn->env; env && *env; env++) {
		if (!strchr(*env, '=')) {
			ap_words_add(ret, "-u");
			ap_words_add(ret, *env);
		}
	}
	if (spawn->input_fifo)
		ap_words_add(ret, "-i");
	if (process_files() > 0) { /* the shim starts with the daemon's own limit */
		char files[32];
		snprintf(files, sizeof files, "%" PRIu64, process_files());
		ap_words_add(ret, "-n");
		ap_words_add(ret, files);
	}
	if (group) {
		ap_words_add(ret, "-c");
		ap_words_add(ret, group);
	}
	if (output) {
		ap_words_add(ret, "-o");
		ap_words_add(ret, output);
	}
	if (output && spawn->errors_file) {
		ap_words_add(ret, "-e");
		ap_words_add(ret, spawn->errors_file);
	}
	if (spawn->wall)
		backend_wall_words(spawn->wall, ret);
	ap_words_add(ret, "--");
	ap_words_add(ret, spawn->record_dir);
	for (const char *const *arg = spawn->argv; *arg; arg++)
		ap_words_add(ret, *arg);
}

void shim_set(struct backend_terminal *terminal, pid_t shim)
{
	terminal->shim = shim;
	terminal->shim_start = process_start_time(shim);
}

bool shim_lives(const struct backend_terminal *terminal)
{
	return terminal->shim > 0 && terminal->shim_start > 0 &&
	       process_start_time(terminal->shim) == terminal->shim_start;
}

/* --- one that runs --- */

int shim_over_fd(struct backend *backend, const struct backend_terminal *terminal,
		 struct ap_err *err)
{
	(void)backend;
	int fd = pidfd_open(terminal->shim, 0);
	if (fd >= 0 && !shim_lives(terminal)) { /* another process has its pid */
		close(fd);
		fd = -1;
		errno = ESRCH;
	}
	if (fd < 0 && errno == ESRCH) /* a program that ends at once is over, as any other */
		fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	return fd >= 0 ? fd : ap_err_errno(err, -errno, "the shim of %s", terminal->session);
}

void shim_end(struct backend *backend, const struct backend_terminal *terminal, int over_fd)
{
	(void)backend;
	(void)terminal;
	(void)pidfd_send_signal(over_fd, SIGTERM, NULL, 0); /* fails when it has ended */
	(void)pidfd_send_signal(over_fd, SIGCONT, NULL, 0); /* it may have been stopped */
}

bool shim_canonical(struct backend *backend, const struct backend_terminal *terminal)
{
	char path[64];
	struct termios modes;
	(void)backend;
	snprintf(path, sizeof path, "/proc/%d/fd/0", (int)terminal->shim);
	AP_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 && tcgetattr(fd, &modes) == 0 && (modes.c_lflag & ICANON);
}

int shim_usage(struct backend *backend, const struct backend_terminal *terminal,
	       struct process_table *table, struct process_usage *ret)
{
	AP_CLEANUP_FREE char *path = group_of(shims_of(backend), terminal->session);
	struct cgroup_usage group;
	bool grouped = path && cgroup_usage(path, &group);
	int r = 0;
	if (!grouped || !group.has_memory)
		r = table ? process_table_usage(table, terminal->shim, ret)
			  : process_tree_usage(terminal->shim, ret);
	if (r == 0 && grouped) {
		ret->cpu_ns = group.cpu_ns;
		ret->n_processes = group.n_processes;
		if (group.has_memory)
			ret->memory = group.memory;
	}
	return r;
}

void shim_sweep(struct backend *backend, const char *name)
{
	AP_CLEANUP_FREE char *path = group_of(shims_of(backend), name);
	if (path)
		(void)cgroup_remove(path); /* what does not end is left for the next start */
}

void shim_bound(struct backend *backend, uint64_t max_memory)
{
	struct shim_backend *shims = shims_of(backend);
	atomic_store(&shims->max_memory, max_memory);
	cgroup_subtree_bound(&shims->groups, max_memory);
}

const char *shim_groups(struct backend *backend)
{
	return shims_of(backend)->groups_described;
}

int shim_pause(struct backend *backend, const struct backend_terminal *terminal, bool stop)
{
	(void)backend;
	return stop ? process_tree_stop(terminal->shim) : process_tree_continue(terminal->shim);
}
