/* Where the daemon and its agents live: in the machine's namespaces, or, without the right to mount
 * overlays there, inside others of their own (core/base/namespace.h). They stay together: a daemon
 * goes where agents are that an earlier one has left. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "cleanup.h"
#include "file.h"
#include "mounts.h"
#include "namespace.h"
#include "pool_internal.h"
#include "process_tree.h"
#include "spawn_backend.h"
#include "template.h"

/* In POOL_INSIDE: pid and start of the process that keeps what is mounted. */
#define KEEPER "keeper"

/* Somebody whom an earlier daemon has left, as long as `pidfd` says that he lives. */
struct left {
	pid_t pid;
	int pidfd; /* -1: nobody */
};

/* Takes a process of that start time, if it lives and there is nobody yet. */
static void take(struct left *left, pid_t pid, uint64_t start)
{
	if (left->pidfd >= 0 || pid <= 0 || start == 0)
		return;
	left->pid = pid;
	left->pidfd = pidfd_open(pid, 0);
	if (left->pidfd >= 0 && process_start_time(pid) != start) {
		close(left->pidfd); /* another process has its pid */
		left->pidfd = -1;
	}
}

/* Takes the shim of an agent, as the store has it. */
static int take_shim(void *data, const struct store_agent *record)
{
	take(data, record->shim, record->shim_start);
	return 0;
}

/* Takes the process that an earlier daemon has left for that, whatever else the file names. */
static void take_keeper(const char *state_dir, struct left *left)
{
	char line[64], proc[32], name[32];
	pid_t pid;
	uint64_t start;
	if (file_read_line(state_dir, POOL_INSIDE "/" KEEPER, line, sizeof line) < 0 ||
	    sscanf(line, "%d %" SCNu64, &pid, &start) != 2)
		return;
	snprintf(proc, sizeof proc, "/proc/%d", (int)pid);
	if (file_read_line(proc, "comm", name, sizeof name) == 0 &&
	    strcmp(name, NAMESPACE_KEEPER) == 0)
		take(left, pid, start);
}

void inside_end_left(const char *state_dir)
{
	struct left keeper = {.pidfd = -1};
	take_keeper(state_dir, &keeper);
	if (keeper.pidfd < 0)
		return;
	(void)pidfd_send_signal(keeper.pidfd, SIGKILL, NULL, 0);
	close(keeper.pidfd);
}

static struct left find_left(struct ap_pool *pool)
{
	struct left left = {.pid = backend_left(pool->state_dir, &left.pidfd)};
	if (left.pidfd < 0)
		(void)store_agents_read(pool->store, take_shim, &left, NULL);
	take_keeper(pool->state_dir, &left);
	return left;
}

/* Whether, and where, the daemon may go inside. Sets `why_not` where it may not. */
static struct spawn_inside look_inside(struct ap_pool *pool, struct ap_err *why_not)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	struct left left = find_left(pool);
	struct spawn_inside inside = {.pidfd = -1};
	if (left.pidfd >= 0 && namespace_is_other(left.pid)) {
		inside.may = inside.must = true;
		inside.pidfd = left.pidfd;
		return inside;
	}
	if (left.pidfd >= 0) {
		close(left.pidfd);
		ap_err_set(why_not, -EBUSY, "agents of before live where overlays cannot be had");
	} else if (mounts_read(0, &table) < 0 ||
		   !mounts_is_shared(ap_buf_text(&table), pool->mountpoint)) {
		/* agents would not see the pool any more that a later daemon mounts */
		ap_err_set(why_not, -EPERM,
			   "mounts at %s are private, and would not appear in a namespace of the "
			   "agents' own",
			   pool->mountpoint);
	} else {
		inside.may = true;
	}
	return inside;
}

/* --- worktrees, shown outside --- */

/* Inside, the directory inside/worktrees is bound over `worktrees`, which outside has links to the
 * same paths inside. So a path of a worktree is good for everybody, and so is what getcwd(3) finds
 * there: it goes up from where it is, and looks for the names by which it came; thus what is bound
 * has no name of its own beside `worktrees`. */
static char *inside_path(const struct ap_pool *pool)
{
	char *path;
	return asprintf(&path, "%s/" POOL_INSIDE "/" POOL_WORKTREES, pool->state_dir) < 0 ? NULL
											  : path;
}

/* Removes the directory inside/worktrees, if nothing is left in it. */
static void remove_inside(const struct ap_pool *pool)
{
	AP_CLEANUP_FREE char *above = state_dir_path(pool, POOL_INSIDE, "");
	AP_CLEANUP_FREE char *inside = inside_path(pool);
	AP_CLEANUP_FREE char *keeper = state_dir_path(pool, POOL_INSIDE, KEEPER);
	if (!inside || rmdir(inside) < 0 || !above || !keeper)
		return;
	(void)unlink(keeper);
	(void)rmdir(above);
}

/* Calls `each` for every name in a directory but what begins with a dot. */
static void for_each_name(int dir_fd, void (*each)(struct ap_pool *, const char *name),
			  struct ap_pool *pool)
{
	AP_CLEANUP_BUF struct ap_buf names = {0};
	if (dir_fd < 0 || file_names(dir_fd, &names) < 0)
		return;
	for (const char *name = names.data; name && name < names.data + names.len;
	     name += strlen(name) + 1) {
		if (name[0] != '.')
			each(pool, name);
	}
}

static bool is_link(int dir_fd, const char *name)
{
	struct stat st;
	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

/* A worktree of before the daemon went inside. */
static void take_inside(struct ap_pool *pool, const char *name)
{
	if (!is_link(pool->outside_fd, name))
		(void)renameat(pool->outside_fd, name, pool->inside_fd, name);
}

/* A worktree of before the daemon stayed outside; its link outside is in its way. */
static void take_outside(struct ap_pool *pool, const char *name)
{
	if (is_link(pool->outside_fd, name))
		(void)unlinkat(pool->outside_fd, name, 0);
	(void)renameat(pool->inside_fd, name, pool->outside_fd, name);
}

static void remove_link(struct ap_pool *pool, const char *name)
{
	if (is_link(pool->outside_fd, name))
		(void)unlinkat(pool->outside_fd, name, 0);
}

int inside_show(struct ap_pool *pool, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf to = {0};
	AP_CLEANUP_BUF struct ap_buf fresh = {0};
	char is[PATH_MAX];
	if (!pool->shown_by)
		return 0;
	ap_buf_printf(&to, "/proc/%d/root%s/%s", (int)pool->shown_by, pool->worktrees, name);
	ap_buf_printf(&fresh, ".%s", name);
	if (to.failed || fresh.failed)
		return ap_err_errno(err, -ENOMEM, "%s", name);
	ssize_t len = readlinkat(pool->outside_fd, name, is, sizeof is);
	if (len == (ssize_t)to.len && memcmp(is, to.data, to.len) == 0)
		return 0;
	(void)unlinkat(pool->outside_fd, ap_buf_text(&fresh), 0);
	if (symlinkat(ap_buf_text(&to), pool->outside_fd, ap_buf_text(&fresh)) < 0 ||
	    renameat(pool->outside_fd, ap_buf_text(&fresh), pool->outside_fd, name) < 0)
		return ap_err_errno(err, -errno, "a link to the worktree of %s", name);
	return 0;
}

void inside_hide(struct ap_pool *pool, const char *name)
{
	if (pool->shown_by)
		remove_link(pool, name);
}

static void show(struct ap_pool *pool, const char *name)
{
	(void)inside_show(pool, name, NULL); /* a full disk: the agent is there all the same */
}

static int open_places(struct ap_pool *pool, bool make, struct ap_err *err)
{
	AP_CLEANUP_FREE char *inside = inside_path(pool);
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	if (!inside)
		return ap_err_errno(err, -ENOMEM, "pool");
	int r = make ? file_make_dirs(inside, err) : 0;
	if (r < 0)
		return r;
	pool->inside_fd = open(inside, flags);
	pool->outside_fd = open(pool->worktrees, flags);
	return pool->outside_fd < 0 ? ap_err_errno(err, -errno, "%s", pool->worktrees) : 0;
}

static void close_places(struct ap_pool *pool)
{
	if (pool->inside_fd >= 0)
		close(pool->inside_fd);
	if (pool->outside_fd >= 0)
		close(pool->outside_fd);
	pool->inside_fd = pool->outside_fd = -1;
}

static int stay_outside(struct ap_pool *pool, struct ap_err *err)
{
	int r = open_places(pool, false, err);
	if (r == 0 && pool->inside_fd >= 0) {
		for_each_name(pool->inside_fd, take_outside, pool);
		for_each_name(pool->outside_fd, remove_link, pool);
		remove_inside(pool);
	}
	close_places(pool);
	return r;
}

/* --- which it is --- */

int inside_choose(struct ap_pool *pool, struct ap_err *err)
{
	const struct spawn_backend *backend;
	struct ap_err may_not = {""}, why_not;
	pool->inside = look_inside(pool, &may_not);
	const char *name = pool->config.text[AP_OPT_SPAWN_BACKEND];
	int r = spawn_backend_choose(&backend, name, pool->state_dir, &pool->inside, &why_not, err);
	if (r == -EPERM && !pool->inside.may && strcmp(name, "overlay") == 0)
		return ap_err_set(err, r, "spawn_backend=overlay: %s", may_not.text);
	if (r < 0)
		return r;
	if (why_not.text[0])
		events_add(pool->events, "no_overlay",
			   EVENT_FIELDS({"instead", spawn_backend_name(backend), 0},
					{"reason", why_not.text, 0}, {"inside", may_not.text, 0}));
	pool->templates = templates_new(&pool->repo, pool->state_dir, backend);
	if (!pool->templates)
		return ap_err_errno(err, -ENOMEM, "pool");
	return pool->inside.enters ? 0 : stay_outside(pool, err);
}

bool ap_pool_goes_inside(const struct ap_pool *pool)
{
	return pool->inside.enters;
}

/* Has a process keep what is mounted inside, over the death of the daemon too: that of an earlier
 * daemon, or a new one. */
static int have_keeper(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *file = state_dir_path(pool, POOL_INSIDE, KEEPER);
	char line[64];
	struct left keeper = {.pidfd = -1};
	take_keeper(pool->state_dir, &keeper);
	pool->keeper_fd = keeper.pidfd;
	pool->shown_by = keeper.pid;
	if (keeper.pidfd >= 0)
		return 0;
	pid_t pid = namespace_keep(err);
	if (pid < 0)
		return pid;
	pool->shown_by = pid;
	pool->keeper_fd = pidfd_open(pid, 0);
	snprintf(line, sizeof line, "%d %" PRIu64 "\n", (int)pid, process_start_time(pid));
	return file ? file_replace(file, line, strlen(line), err)
		    : ap_err_errno(err, -ENOMEM, "pool");
}

int ap_pool_go_inside(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *inside = inside_path(pool);
	int r = open_places(pool, true, err);
	if (r == 0)
		for_each_name(pool->outside_fd, take_inside, pool);
	if (r == 0)
		r = namespace_enter(pool->inside.pidfd, err);
	if (r == 0 && pool->inside.pidfd < 0 && /* else it is bound there already */
	    mount(inside, pool->worktrees, NULL, MS_BIND, NULL) < 0)
		r = ap_err_errno(err, -errno, "%s", pool->worktrees);
	if (r == 0)
		r = have_keeper(pool, err);
	if (r < 0)
		return r;
	for_each_name(pool->outside_fd, remove_link, pool);
	for_each_name(pool->inside_fd, show, pool);
	return 0;
}

pid_t ap_pool_inside(const struct ap_pool *pool)
{
	return pool->shown_by;
}

void ap_pool_show_inside(struct ap_pool *pool)
{
	if (pool->shown_by)
		namespace_drop();
}

void inside_leave(struct ap_pool *pool)
{
	AP_CLEANUP_BUF struct ap_buf left = {0};
	bool stays = pool->kept || (file_names(pool->inside_fd, &left) == 0 && left.len > 0);
	if (pool->shown_by && !stays) {
		for_each_name(pool->outside_fd, remove_link, pool);
		(void)umount2(pool->worktrees, MNT_DETACH | UMOUNT_NOFOLLOW);
		remove_inside(pool);
	}
	if (pool->keeper_fd >= 0 && !stays)
		(void)pidfd_send_signal(pool->keeper_fd, SIGKILL, NULL, 0);
	if (pool->keeper_fd >= 0)
		close(pool->keeper_fd);
	if (pool->inside.pidfd >= 0)
		close(pool->inside.pidfd);
	close_places(pool);
}
