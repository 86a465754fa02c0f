/* The state directory: where it is and may be, the lock on it, the store in it, and the settings
 * and counters in the store. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "kept_work.h"
#include "mounts.h"
#include "pool_internal.h"
#include "process.h"

#define AWAIT_LIMIT                                                                                \
	(60 * AP_SECOND)      /* how long the pool waits for an earlier daemon's processes to end */
#define TELL_AFTER  AP_SECOND /* when the pool tells the user that it waits */
#define NAME_MAX_FS 255	      /* bytes of a file name */

#define REF_NOTES "ref-notes" /* what core/work/ref_notes.h keeps */

/* The bytes of the file `lock` that a daemon locks. */
enum lock_byte {
	LOCK_OWNS,   /* from its start to its end */
	LOCK_SERVES, /* until it begins to end */
	N_LOCK_BYTES,
};

/* --- where it is --- */

/* The longest path of a state directory, in bytes: the socket in it has to fit into sun_path. */
static size_t path_max(void)
{
	return sizeof((struct sockaddr_un *)0)->sun_path - sizeof "/tmux.sock";
}

int state_dir_parent(char **ret, struct ap_err *err)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	AP_CLEANUP_BUF struct ap_buf path = {0};
	if (state && state[0] == '/')
		ap_buf_printf(&path, "%s/agentpoolfs", state);
	else if (home && home[0] == '/')
		ap_buf_printf(&path, "%s/.local/state/agentpoolfs", home);
	else
		return ap_err_set(err, -ENOENT,
				  "there is no home directory to have a state directory in: say "
				  "where, -o state_dir=DIR");
	return file_resolve(ap_buf_text(&path), ret, err);
}

/* The length of a name cut to `most` bytes, but not inside a UTF-8 character. */
static size_t shortened(const char *name, size_t most)
{
	size_t len = strlen(name);
	if (len <= most)
		return len;
	while (most > 0 && ((unsigned char)name[most] & 0xc0) == 0x80)
		most--;
	return most;
}

/* The name of the repository's state directory. Derived from the place of its git directory: the
 * same by whichever path the user names the repository. */
static void default_name(const struct repo *repo, const char *parent, struct ap_buf *ret)
{
	char hash[2 + 16];
	size_t used = strlen(parent) + 1 + sizeof hash - 1, most = path_max();
	const char *base = strrchr(repo->main_path, '/') + 1;
	snprintf(hash, sizeof hash, "-%016" PRIx64, ap_hash(repo->common_dir));
	most = most > used ? most - used : 0;
	if (most > NAME_MAX_FS - (sizeof hash - 1))
		most = NAME_MAX_FS - (sizeof hash - 1);
	size_t len = shortened(base, most);
	ap_buf_add(ret, base, len);
	ap_buf_adds(ret, len > 0 ? hash : hash + 1);
	for (size_t i = 0; i < ret->len; i++) { /* tmux and people cannot handle these */
		if ((unsigned char)ret->data[i] < ' ' || ret->data[i] == 0x7f)
			ret->data[i] = '_';
	}
}

static int64_t last_used(const char *parent, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf lock = {0};
	struct stat st;
	ap_buf_printf(&lock, "%s/%s/lock", parent, name);
	return stat(ap_buf_text(&lock), &st) < 0 ? -1 : (int64_t)st.st_mtime;
}

/* Finds a state directory of the repository under another name than default_name() gives now: an
 * earlier daemon named it after a worktree or a link. Of several, the last used. */
static void find_older(const struct ap_pool *pool, const char *parent, struct ap_buf *ret)
{
	char hash[2 + 16];
	int64_t newest = -1;
	snprintf(hash, sizeof hash, "-%016" PRIx64, ap_hash(pool->repo.common_dir));
	DIR *entries = opendir(parent);
	struct dirent *entry;
	while (entries && (entry = readdir(entries))) {
		size_t len = strlen(entry->d_name);
		int64_t used = last_used(parent, entry->d_name);
		if (len < sizeof hash - 1 || used <= newest ||
		    strcmp(entry->d_name + len - (sizeof hash - 1), hash) != 0)
			continue;
		newest = used;
		ret->len = 0;
		ap_buf_adds(ret, entry->d_name);
	}
	if (entries)
		closedir(entries);
}

static int default_state_dir(struct ap_pool *pool, char **ret, struct ap_err *err)
{
	AP_CLEANUP_FREE char *parent = NULL;
	AP_CLEANUP_BUF struct ap_buf name = {0}, path = {0};
	int r = state_dir_parent(&parent, err);
	if (r < 0)
		return r;
	default_name(&pool->repo, parent, &name);
	if (last_used(parent, ap_buf_text(&name)) < 0) {
		AP_CLEANUP_BUF struct ap_buf older = {0};
		find_older(pool, parent, &older);
		if (older.len > 0) {
			name.len = 0;
			ap_buf_adds(&name, older.data);
		}
	}
	ap_buf_printf(&path, "%s/%s", parent, ap_buf_text(&name));
	return file_resolve(ap_buf_text(&path), ret, err);
}

/* --- where it may be --- */

static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);
	return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* The state directory must not be in the mount point, nor round it: the daemon would wait for
 * itself. Compares by path alone where something is mounted now, which may be dead. */
static int check_mountpoint(const struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	char type[MOUNTS_TYPE_MAX];
	const char *dir = pool->state_dir, *mountpoint = pool->mountpoint;
	bool mounted =
		mounts_read(0, &table) < 0 || mounts_type_at(ap_buf_text(&table), mountpoint, type);
	bool (*within)(const char *, const char *) = mounted ? is_below : file_is_within;
	if (within(dir, mountpoint))
		return ap_err_set(err, -EINVAL,
				  "the state directory %s is in the mount point %s: choose another "
				  "-o state_dir",
				  dir, mountpoint);
	if (within(mountpoint, dir))
		return ap_err_set(err, -EINVAL,
				  "the mount point %s is in the state directory %s: choose another "
				  "-o state_dir",
				  mountpoint, dir);
	return 0;
}

/* The state directory must not be in a checkout of the repository: git would find the agents'
 * worktrees there. */
static int check_checkouts(const struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *place = repo_place_of(&pool->repo, pool->state_dir);
	if (!place)
		return 0;
	return ap_err_set(err, -EINVAL,
			  "the state directory %s is in %s, of the repository itself: choose "
			  "another -o state_dir",
			  pool->state_dir, place);
}

/* Whether a state directory may contain an entry of that name. */
static bool is_our_name(const char *name)
{
	static const char *const names[] = {
		"agents",	  "cgroup",    "git",	   "helpers",	"kept",	    POOL_INSIDE,
		"layers",	  "scratch",   "lock",	   STATE_MOUNT, "programs", REF_NOTES,
		STATE_REPOSITORY, "templates", "tmux.pid", "tmux.sock", "trash",    "worktrees",
		"lost+found",	  ".",	       ".."};
	static const char *const beginnings[] = {"events", "probe-", "state.db"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
		if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
			return true;
	}
	return false;
}

/* The state directory must not have other files in it: mode 0700 would close them to their users.
 */
static int check_contents(const struct ap_pool *pool, struct ap_err *err)
{
	DIR *entries = opendir(pool->state_dir);
	struct dirent *entry;
	unsigned n_files = 0; /* of the two that every used state directory has */
	AP_CLEANUP_BUF struct ap_buf other = {0};
	if (!entries && errno != ENOENT)
		return ap_err_errno(err, -errno, "the state directory %s", pool->state_dir);
	while (entries && (entry = readdir(entries))) {
		n_files += strcmp(entry->d_name, "lock") == 0 ||
			   strcmp(entry->d_name, "state.db") == 0;
		if (other.len == 0 && !is_our_name(entry->d_name))
			ap_buf_adds(&other, entry->d_name);
	}
	if (entries)
		closedir(entries);
	if (other.len == 0 || n_files == 2)
		return 0;
	return ap_err_set(err, -ENOTEMPTY,
			  "%s is neither empty nor a state directory (%s is in it): choose another "
			  "-o state_dir",
			  pool->state_dir, other.data);
}

int state_dir_choose(struct ap_pool *pool, struct ap_err *err)
{
	const char *option = pool->config.text[AP_OPT_STATE_DIR];
	int r = *option ? file_resolve(option, &pool->state_dir, err)
			: default_state_dir(pool, &pool->state_dir, err);
	if (r < 0)
		return r;
	r = ap_config_set(&pool->config, AP_OPT_STATE_DIR, pool->state_dir, true, err);
	if (r < 0) /* config/ names the one that it is */
		return r;
	if (strchr(pool->state_dir, '\n'))
		return ap_err_set(err, -EINVAL,
				  "the state directory %s has a newline in its path, with which "
				  "tmux cannot do: choose another -o state_dir",
				  pool->state_dir);
	if (strlen(pool->state_dir) > path_max())
		return ap_err_set(err, -ENAMETOOLONG,
				  "the state directory %s is too long for a socket in it, it has "
				  "%zu bytes of at most %zu: choose a shorter -o state_dir",
				  pool->state_dir, strlen(pool->state_dir), path_max());
	r = check_mountpoint(pool, err);
	if (r == 0)
		r = check_checkouts(pool, err);
	return r < 0 ? r : check_contents(pool, err);
}

static int make_state_dir(struct ap_pool *pool, struct ap_err *err)
{
	int r = file_make_dirs(pool->state_dir, err);
	if (r < 0)
		return r;
	/* a user who reaches the socket in it controls all agents */
	if (chmod(pool->state_dir, 0700) < 0)
		return ap_err_errno(err, -errno, "%s", pool->state_dir);
	return 0;
}

/* Makes the directories in it. Needs the lock: a daemon that ends removes them. */
static int make_dirs_in(const struct ap_pool *pool, struct ap_err *err)
{
	static const char *const dirs[] = {POOL_WORKTREES, POOL_AGENTS, POOL_LAYERS};
	int r = 0;
	for (size_t i = 0; r == 0 && i < sizeof dirs / sizeof *dirs; i++) {
		AP_CLEANUP_BUF struct ap_buf dir = {0};
		ap_buf_printf(&dir, "%s/%s", pool->state_dir, dirs[i]);
		r = file_make_dirs(ap_buf_text(&dir), err);
	}
	return r;
}

static int state_file(const struct ap_pool *pool, const char *name, char **ret, struct ap_err *err)
{
	if (asprintf(ret, "%s/%s", pool->state_dir, name) < 0) {
		*ret = NULL;
		return ap_err_errno(err, -ENOMEM, "state directory");
	}
	return 0;
}

/* --- the lock, and who has it --- */

/* A lock on a file that other processes may hold. */
struct awaited {
	int fd;
	struct flock lock; /* the wanted one */
	const char *what;  /* what the holder is, in words for the user */
	bool look;	   /* only test the lock, do not take it */
	/* whether waiting for that holder is futile; NULL: it never is */
	bool (*lasts)(struct ap_pool *, int fd, pid_t);
};

/* Takes or tests the lock. 0: taken, or free. Else the pid of the holder; -1: unknown here, such as
 * of another pid namespace. */
static pid_t in_the_way(const struct awaited *awaited)
{
	struct flock lock = awaited->lock;
	if (!awaited->look && fcntl(awaited->fd, F_SETLK, &lock) == 0)
		return 0;
	lock = awaited->lock;
	if (fcntl(awaited->fd, F_GETLK, &lock) < 0)
		return -1;
	if (lock.l_type != F_UNLCK)
		return lock.l_pid > 0 ? lock.l_pid : -1;
	return awaited->look ? 0 : in_the_way(awaited); /* released between the two calls */
}

/* Waits until a process has ended, or until_ns; 20 ms if its pid is unknown. */
static void await_process(pid_t pid, int64_t until_ns)
{
	AP_CLEANUP_CLOSE int pid_fd = pid > 0 ? pidfd_open(pid, 0) : -1;
	int64_t left = until_ns - ap_clock_ns();
	struct pollfd over = {.fd = pid_fd, .events = POLLIN};
	if (left <= 0 || (pid > 0 && pid_fd < 0 && errno == ESRCH))
		return;
	if (pid_fd >= 0)
		poll(&over, 1, (int)(left / AP_MS) + 1);
	else /* of another pid namespace */
		poll(NULL, 0, 20);
}

/* Takes or tests the lock once all its holders have ended, and tells the user if that takes long.
 * 0, or -EBUSY: *ret_pid holds it, after AWAIT_LIMIT or because awaited->lasts() says so. */
static int await_lock(struct ap_pool *pool, const struct awaited *awaited, pid_t *ret_pid)
{
	int64_t begin = ap_clock_ns(), deadline = begin + AWAIT_LIMIT;
	bool told = false;
	while ((*ret_pid = in_the_way(awaited)) != 0) {
		int64_t now = ap_clock_ns();
		if (now >= deadline ||
		    (awaited->lasts && awaited->lasts(pool, awaited->fd, *ret_pid)))
			return -EBUSY;
		if (!told && now >= begin + TELL_AFTER) {
			struct ap_err told_err;
			char process[32] = "";
			if (*ret_pid > 0)
				snprintf(process, sizeof process, ", process %d,", (int)*ret_pid);
			ap_err_set(&told_err, 0, "waiting for %s of %s%s to end", awaited->what,
				   pool->state_dir, process);
			pool_tell(pool, told_err.text);
			told = true;
		}
		await_process(*ret_pid, told ? deadline : begin + TELL_AFTER);
	}
	return 0;
}

/* Whether the daemon that has the lock is mounted, or is about to be. A daemon that is ending has
 * unmounted, or has given up LOCK_SERVES. */
static bool serves(struct ap_pool *pool, int fd, pid_t pid)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_SERVES, .l_len = 1};
	AP_CLEANUP_BUF struct ap_buf table = {0};
	char mountpoint[PATH_MAX], type[MOUNTS_TYPE_MAX];
	if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK)
		return false;
	if (pid < 0 || mounts_read(pid, &table) < 0 ||
	    file_read_path(pool->state_dir, STATE_MOUNT, mountpoint, sizeof mountpoint) < 0)
		return true;
	return mounts_type_at(ap_buf_text(&table), mountpoint, type) &&
	       strcmp(type, "fuse.agentpoolfs") == 0;
}

static const struct flock own_lock = {
	.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_OWNS, .l_len = N_LOCK_BYTES};

bool state_dir_await_end(struct ap_pool *pool)
{
	AP_CLEANUP_FREE char *path = NULL;
	pid_t pid;
	if (state_file(pool, "lock", &path, NULL) < 0)
		return false;
	AP_CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	struct awaited before = {
		.fd = fd, .lock = own_lock, .what = "the pool", .look = true, .lasts = serves};
	return fd >= 0 && in_the_way(&before) != 0 && await_lock(pool, &before, &pid) == 0;
}

/* Locks the state directory: one daemon each. An fcntl(2) lock belongs to the process alone and
 * dies with it: one by flock(2) would live on in a helper that was forked and has not exec'd yet.
 */
static int lock_state_dir(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *path = NULL;
	pid_t pid;
	int r = state_file(pool, "lock", &path, err);
	if (r < 0)
		return r;
	pool->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (pool->lock_fd < 0)
		return ap_err_errno(err, -errno, "%s", path);
	struct awaited before = {
		.fd = pool->lock_fd, .lock = own_lock, .what = "the pool", .lasts = serves};
	if (await_lock(pool, &before, &pid) == 0) {
		struct stat here, there;
		if (fstat(pool->lock_fd, &here) < 0 || stat(path, &there) < 0 ||
		    here.st_ino != there.st_ino || here.st_dev != there.st_dev)
			return ap_err_set(err, -EBUSY, "%s has just been removed: try again",
					  pool->state_dir);
		pool->locked = true;
		if (ftruncate(pool->lock_fd, 0) < 0 || dprintf(pool->lock_fd, "%d\n", getpid()) < 0)
			return ap_err_errno(err, -errno, "%s", path);
		AP_CLEANUP_FREE char *mount = NULL;
		if (state_file(pool, STATE_MOUNT, &mount, NULL) == 0)
			(void)unlink(mount);
		return 0;
	}
	if (pid < 0) { /* in another pid namespace: the pid that it has there */
		char holder[32];
		(void)file_read_line(pool->state_dir, "lock", holder, sizeof holder);
		pid = (pid_t)atoi(holder);
	}
	return ap_err_set(
		err, -EBUSY,
		"%s is in use by process %d: unmount that pool or choose another -o state_dir",
		pool->state_dir, (int)pid);
}

void state_dir_mounted(struct ap_pool *pool)
{
	AP_CLEANUP_FREE char *path = NULL;
	/* on failure serves() assumes a mount: the next daemon is refused instead of waiting */
	if (state_file(pool, STATE_MOUNT, &path, NULL) == 0)
		(void)file_write(path, pool->mountpoint, strlen(pool->mountpoint), NULL);
}

void state_dir_leave(struct ap_pool *pool)
{
	struct flock lock = {
		.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = LOCK_SERVES, .l_len = 1};
	/* on failure the next daemon may be refused instead of waiting */
	(void)fcntl(pool->lock_fd, F_SETLK, &lock);
}

/* Renames a damaged database and its log, as *.corrupt-TIME. */
static int set_store_aside(const char *database, struct ap_err *err)
{
	static const char *const parts[] = {"", "-wal", "-shm"};
	char when[32];
	ap_clock_rfc3339(ap_clock_ns(), when, sizeof when);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		AP_CLEANUP_BUF struct ap_buf from = {0};
		AP_CLEANUP_BUF struct ap_buf to = {0};
		ap_buf_printf(&from, "%s%s", database, parts[i]);
		ap_buf_printf(&to, "%s.corrupt-%s%s", database, when, parts[i]);
		if (rename(ap_buf_text(&from), ap_buf_text(&to)) < 0 && errno != ENOENT)
			return ap_err_errno(err, -errno, "%s", ap_buf_text(&from));
	}
	return 0;
}

static int open_store(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *database = NULL;
	int r = state_file(pool, "state.db", &database, err);
	if (r < 0)
		return r;
	(void)chmod(database, 0600); /* an older version may have made it with another mode */
	r = store_open(&pool->store, database, err);
	if (r != -EUCLEAN)
		return r;
	pool->store_lost = true;
	r = set_store_aside(database, err);
	return r < 0 ? r : store_open(&pool->store, database, err);
}

/* --- for those who are no daemon: see pools.h --- */

pid_t state_dir_holder(const char *dir)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/lock", dir);
	AP_CLEANUP_CLOSE int fd = open(ap_buf_text(&path), O_RDWR | O_CLOEXEC);
	return fd < 0 ? 0 : in_the_way(&(struct awaited){.fd = fd, .lock = own_lock, .look = true});
}

int state_dir_seize(const char *dir, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/lock", dir);
	int fd = open(ap_buf_text(&path), O_RDWR | O_CLOEXEC); /* open until the process ends */
	if (fd < 0)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	pid_t pid = in_the_way(&(struct awaited){.fd = fd, .lock = own_lock});
	return pid == 0 ? 0
			: ap_err_set(err, -EBUSY,
				     "%s is in use by process %d: unmount that pool first", dir,
				     (int)pid);
}

/* In the parent there is a link to each state directory that is elsewhere; those that lead nowhere
 * are removed. */
void state_dir_forget_links(void)
{
	AP_CLEANUP_FREE char *parent = NULL;
	struct dirent *entry;
	DIR *entries = state_dir_parent(&parent, NULL) == 0 ? opendir(parent) : NULL;
	while (entries && (entry = readdir(entries))) {
		if (entry->d_type == DT_LNK &&
		    faccessat(dirfd(entries), entry->d_name, F_OK, 0) < 0 && errno == ENOENT)
			(void)unlinkat(dirfd(entries), entry->d_name, 0);
	}
	if (entries)
		closedir(entries);
}

/* Has agentpoolfs --list find the pool. Without a home it does not. */
static void note_repository(const struct ap_pool *pool)
{
	AP_CLEANUP_FREE char *parent = NULL, *record = NULL;
	AP_CLEANUP_BUF struct ap_buf link = {0};
	const char *repo = pool->repo.main_path;
	if (state_file(pool, STATE_REPOSITORY, &record, NULL) == 0)
		(void)file_write(record, repo, strlen(repo), NULL);
	if (state_dir_parent(&parent, NULL) < 0 || is_below(pool->state_dir, parent))
		return;
	state_dir_forget_links();
	ap_buf_printf(&link, "%s/elsewhere-%016" PRIx64, parent, ap_hash(pool->state_dir));
	if (file_make_dirs(parent, NULL) == 0)
		(void)symlink(pool->state_dir, ap_buf_text(&link)); /* or it is there */
}

int state_dir_open(struct ap_pool *pool, struct ap_err *err)
{
	/* SQLite's files get their mode from the umask; there are no other threads yet */
	mode_t umask_was = umask(077);
	int r = make_state_dir(pool, err);
	if (r == 0)
		r = lock_state_dir(pool, err);
	if (r == 0)
		r = make_dirs_in(pool, err);
	if (r == 0)
		r = open_store(pool, err);
	if (r == 0)
		note_repository(pool);
	umask(umask_was);
	return r;
}

/* --- helpers of a dead daemon --- */

int state_dir_await_helpers(struct ap_pool *pool, struct ap_err *err)
{
	AP_CLEANUP_FREE char *path = NULL;
	int r = state_file(pool, "helpers", &path, err);
	if (r < 0)
		return r;
	pool->helpers_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (pool->helpers_fd < 0)
		return ap_err_errno(err, -errno, "%s", path);
	struct awaited helpers = {
		.fd = pool->helpers_fd,
		.lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1},
		.what = "what the last daemon has started",
		.look = true, /* only helpers take this lock */
	};
	pid_t pid;
	pool->helpers_gone = await_lock(pool, &helpers, &pid) == 0;
	process_mark(pool->helpers_fd);
	AP_CLEANUP_FREE char *notes = NULL;
	r = state_file(pool, REF_NOTES, &notes, err);
	return r < 0 ? r : repo_note_refs(&pool->repo, notes, pool->helpers_gone, err);
}

/* --- settings and counters --- */

#define SETTING_SCALE "scale" /* the manual size */

void state_dir_load_counters(struct ap_pool *pool)
{
	struct store *store = pool->store;
	pool_restore(pool,
		     &(struct machine_restored){
			     .next_number = (uint32_t)store_counter(store, "next_agent", 1),
			     .next_lease = (uint64_t)store_counter(store, "next_lease", 1),
			     .next_token = (uint64_t)store_counter(store, "next_token", 1),
			     .n_grants = (uint64_t)store_counter(store, "total_requests", 0),
			     .n_recycled = (uint64_t)store_counter(store, "total_recycles", 0),
			     .n_spawned = (uint64_t)store_counter(store, "spawned_agents", 0),
		     });
}

int state_dir_save_next_agent(struct ap_pool *pool, struct ap_err *err)
{
	struct store_txn *txn = store_txn_new();
	txn_set(txn, "next_agent", pool->view->next_number);
	return store_commit(pool->store, txn, true, err);
}

int state_dir_save(struct ap_pool *pool, struct ap_err *err)
{
	struct store_txn *txn = store_txn_new();
	txn_set(txn, "saved",
		ap_clock_to_wall(ap_clock_ns())); /* an empty transaction would sync nothing */
	return store_commit(pool->store, txn, true, err);
}

void state_dir_keep_option(struct ap_pool *pool, enum ap_option option, store_done *done,
			   void *data)
{
	AP_CLEANUP_BUF struct ap_buf value = {0};
	pthread_mutex_lock(&pool->lock);
	ap_config_show(&pool->config, option, &value);
	pthread_mutex_unlock(&pool->lock);
	struct store_txn *txn = value.failed ? NULL : store_txn_new();
	txn_setting(txn, ap_options[option].name, ap_buf_text(&value));
	store_submit(pool->store, txn, true, done, data);
}

void state_dir_keep_scale(struct ap_pool *pool, store_done *done, void *data)
{
	char value[16];
	pthread_mutex_lock(&pool->lock);
	int target = pool->view->target;
	pthread_mutex_unlock(&pool->lock);
	snprintf(value, sizeof value, "%d", target);
	struct store_txn *txn = store_txn_new();
	txn_setting(txn, SETTING_SCALE, target >= 0 ? value : NULL);
	store_submit(pool->store, txn, true, done, data);
}

struct loading {
	struct ap_pool *pool;
	struct ap_config config;
	bool at_start;
	bool one_by_one; /* leave out a setting that does not fit the others */
	bool tells;	 /* log the settings left out */
	int target;
	struct ap_err *err;
};

/* Applies one stored setting. At start the command line's value wins. */
static int take_setting(void *data, const char *name, const char *value)
{
	struct loading *loading = data;
	int option = ap_option_find(name);
	if (strcmp(name, SETTING_SCALE) == 0)
		loading->target = atoi(value);
	if (option < 0 || ap_options[option].when != AP_WHEN_ANYTIME ||
	    (loading->at_start && loading->config.origin[option] == AP_ORIGIN_MOUNT))
		return 0;
	struct ap_err err = {""};
	int r = ap_config_set(&loading->config, (enum ap_option)option, value, !loading->one_by_one,
			      &err);
	if (r == 0)
		loading->config.origin[option] = AP_ORIGIN_SET;
	if (r < 0 && loading->tells)
		events_add(loading->pool->events, "setting_left_out",
			   EVENT_FIELDS({"setting", name, 0}, {"value", value, 0},
					{"reason", err.text, 0}));
	if (loading->one_by_one)
		return 0;
	if (r < 0 && loading->err)
		*loading->err = err;
	return r;
}

/* Applies all settings that fit the command line. In two passes: one setting may fit only once a
 * later one is applied. */
static int load_one_by_one(struct loading *loading)
{
	int r = 0;
	loading->one_by_one = true;
	for (int pass = 0; r == 0 && pass < 2; pass++) {
		loading->tells = pass == 1;
		r = store_settings_read(loading->pool->store, take_setting, loading, loading->err);
	}
	return r;
}

static int copy_mounted(struct ap_pool *pool, struct ap_config *ret)
{
	pthread_mutex_lock(&pool->lock);
	int r = ap_config_copy(ret, &pool->mounted); /* holds where the store has no setting */
	pthread_mutex_unlock(&pool->lock);
	return r;
}

/* Logs the settings that have changed. */
static void note_changes_locked(struct ap_pool *pool, const struct ap_config *before)
{
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		AP_CLEANUP_BUF struct ap_buf was = {0}, is = {0};
		ap_config_show(before, (enum ap_option)i, &was);
		ap_config_show(&pool->config, (enum ap_option)i, &is);
		if (strcmp(ap_buf_text(&was), ap_buf_text(&is)) != 0)
			pool_note_config_locked(pool, (enum ap_option)i);
	}
}

int state_dir_load(struct ap_pool *pool, bool at_start, struct ap_err *err)
{
	struct loading loading = {.pool = pool, .at_start = at_start, .target = -1, .err = err};
	int r = copy_mounted(pool, &loading.config);
	if (r < 0)
		return ap_err_errno(err, r, "settings");
	r = store_settings_read(pool->store, take_setting, &loading, err);
	if (r == 0)
		r = ap_config_check(&loading.config, err);
	if (r < 0 && at_start) {
		ap_config_fini(&loading.config);
		r = copy_mounted(pool, &loading.config);
		if (r == 0)
			r = load_one_by_one(&loading);
	}
	if (r == 0) {
		pthread_mutex_lock(&pool->lock);
		struct ap_config old = pool->config;
		pool->config = loading.config;
		loading.config = old;
		pool_set_target_locked(pool, loading.target);
		note_changes_locked(pool, &loading.config);
		if (!at_start)
			pool_obey_config_locked(pool);
		pool_unlock(pool);
	}
	ap_config_fini(&loading.config);
	return r;
}

void state_dir_close(struct ap_pool *pool)
{
	static const char *const dirs[] = {POOL_AGENTS, POOL_WORKTREES, POOL_LAYERS, REF_NOTES,
					   "kept",	"templates",	"trash"};
	if (pool->templates && !pool->kept) /* such as of agents that ended while REPO was away */
		repo_forget_worktrees(&pool->repo, pool->state_dir);
	AP_CLEANUP_FREE char *mount = NULL;
	if (pool->locked && state_file(pool, STATE_MOUNT, &mount, NULL) == 0)
		(void)unlink(mount);
	for (size_t i = 0; pool->locked && i < sizeof dirs / sizeof *dirs; i++) {
		AP_CLEANUP_FREE char *path = NULL;
		if (state_file(pool, dirs[i], &path, NULL) == 0)
			(void)rmdir(path); /* stays if it has unsaved or kept work in it */
	}
	store_close(pool->store);
	process_mark(-1);
	if (pool->helpers_fd >= 0)
		close(pool->helpers_fd);
	/* lock_fd stays open: the lock ends with the process, after the unmount */
	templates_free(pool->templates);
	kept_work_free(pool->kept_work);
	free(pool->state_dir);
}
