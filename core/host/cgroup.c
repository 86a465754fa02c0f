#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"

#define REMOVE_LIMIT_MS 2000
#define DEPTH_MAX	32 /* of groups that a program may have made below its own */

static const struct {
	unsigned bit;
	const char *name;
} controllers[] = {{CGROUP_MEMORY, "memory"}, {CGROUP_CPU, "cpu"}, {CGROUP_PIDS, "pids"}};

#define N_CONTROLLERS (sizeof controllers / sizeof *controllers)

/* --- files of a group --- */

static char *path_join(const char *dir, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static int file_open(const char *group, const char *name, int flags)
{
	AP_CLEANUP_FREE char *path = path_join(group, name);
	return path ? open(path, flags | O_CLOEXEC) : -1;
}

/* The first part of a file; "" where there is none. */
static bool file_read(const char *group, const char *name, char *ret, size_t size)
{
	AP_CLEANUP_CLOSE int fd = file_open(group, name, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
	ret[n > 0 ? n : 0] = '\0';
	return n >= 0;
}

/* One write: the kernel takes it as a whole or not at all. */
static bool file_put(const char *group, const char *name, const char *text)
{
	AP_CLEANUP_CLOSE int fd = file_open(group, name, O_WRONLY | O_TRUNC);
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static bool file_is_there(const char *group, const char *name, int mode)
{
	AP_CLEANUP_FREE char *path = path_join(group, name);
	return path && access(path, mode) == 0;
}

/* The number behind a key at the beginning of a line. */
static bool find_number(const char *text, const char *key, uint64_t *ret)
{
	size_t len = strlen(key);
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, len) == 0 && line[len] == ' ')
			return sscanf(line + len, "%" SCNu64, ret) == 1;
	}
	return false;
}

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);
	for (const char *at = text; (at = strstr(at, word)); at += len) {
		if ((at == text || at[-1] == ' ') && strchr(" \n", at[len]))
			return true;
	}
	return false;
}

/* --- where groups may be made --- */

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* The kernel writes blanks and backslashes in paths as \ooo. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) &&
		    is_octal(from[3])) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Root and place of the first mount of version 2, both owned by the caller: "ID PARENT DEV ROOT
 * PLACE OPTIONS [FIELD…] - cgroup2 …". */
static bool find_mount(const char *mountinfo, char **ret_root, char **ret_place)
{
	for (const char *line = mountinfo; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		size_t len = strcspn(line, "\n");
		const char *type = strstr(line, " - cgroup2 ");
		if (!type || type > line + len)
			continue;
		int root = 0, root_end = 0, place = 0, place_end = 0;
		(void)sscanf(line, "%*d %*d %*s %n%*s%n %n%*s%n", &root, &root_end, &place,
			     &place_end);
		if (place_end == 0)
			return false;
		*ret_root = strndup(line + root, (size_t)(root_end - root));
		*ret_place = strndup(line + place, (size_t)(place_end - place));
		if (!*ret_root || !*ret_place)
			return false;
		unescape(*ret_root);
		unescape(*ret_place);
		return true;
	}
	return false;
}

/* The PATH of "0::PATH", owned by the caller. */
static char *find_membership(const char *membership)
{
	const char *line = membership;
	while (line && strncmp(line, "0::", 3) != 0) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return line ? strndup(line + 3, strcspn(line + 3, "\n")) : NULL;
}

/* Whether the manager of the groups has delegated this one. */
static bool is_delegated(const char *path)
{
	char value[4] = "";
	return (getxattr(path, "user.delegate", value, sizeof value - 1) > 0 ||
		getxattr(path, "trusted.delegate", value, sizeof value - 1) > 0) &&
	       value[0] == '1';
}

/* Whether a group is a domain; the root of all groups is one, and has no type. */
static bool is_domain(const char *path)
{
	char type[32];
	return !file_read(path, "cgroup.type", type, sizeof type) || strcmp(type, "domain\n") == 0;
}

/* Whether controllers can be enabled for the groups below. A group with processes can enable none,
 * or only such that would leave the groups below without the right to have processes. The root is
 * exempt. */
static bool may_enable(const char *path)
{
	char procs[16];
	return !file_is_there(path, "cgroup.type", F_OK) ||
	       (file_read(path, "cgroup.procs", procs, sizeof procs) && !*procs);
}

char *cgroup_home(const char *mountinfo, const char *membership)
{
	AP_CLEANUP_FREE char *root = NULL;
	AP_CLEANUP_FREE char *place = NULL;
	AP_CLEANUP_FREE char *own = find_membership(membership);
	if (!own || !find_mount(mountinfo, &root, &place))
		return NULL;
	/* the mount may show a part of the hierarchy; a group outside of that has no path */
	size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);
	if (strncmp(own, root, len) != 0 || !strchr("/", own[len]) || strstr(own, "/.."))
		return NULL;
	const char *below = strcmp(own + len, "/") == 0 ? "" : own + len;
	char *home;
	if (asprintf(&home, "%s%s", place, below) < 0)
		return NULL;
	char *slash = strrchr(home, '/');
	if (*below && slash > home) {
		*slash = '\0';
		if (is_delegated(home) && may_enable(home))
			return home;
		*slash = '/';
	}
	return home;
}

/* --- the subtree --- */

/* Enables the available controllers for the groups below. Returns those that are enabled. */
static unsigned enable(const char *path)
{
	char there[256], enabled[256], text[16];
	unsigned bits = 0;
	bool may = may_enable(path);
	(void)file_read(path, "cgroup.controllers", there, sizeof there);
	(void)file_read(path, "cgroup.subtree_control", enabled, sizeof enabled);
	for (size_t i = 0; i < N_CONTROLLERS; i++) {
		const char *name = controllers[i].name;
		snprintf(text, sizeof text, "+%s", name);
		if (has_word(enabled, name) || (may && has_word(there, name) &&
						file_put(path, "cgroup.subtree_control", text)))
			bits |= controllers[i].bit;
	}
	return bits;
}

/* Calls `handle` for every group directly below one. */
static void for_each_group(const char *path, void (*handle)(const char *path, void *data),
			   void *data)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	while (dir && (entry = readdir(dir))) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		AP_CLEANUP_FREE char *below = path_join(path, entry->d_name);
		if (below)
			handle(below, data);
	}
	if (dir)
		closedir(dir);
}

static void remove_dirs(const char *path, void *data)
{
	const unsigned *depth = data;
	unsigned below = *depth + 1;
	if (below < DEPTH_MAX)
		for_each_group(path, remove_dirs, &below);
	(void)rmdir(path); /* fails where there are processes */
}

static void remove_empty(const char *path)
{
	unsigned depth = 0;
	remove_dirs(path, &depth);
}

static void remove_group(const char *path, void *data)
{
	(void)data;
	(void)cgroup_remove(path); /* what does not end is left */
}

bool cgroup_subtree_open(struct cgroup_subtree *ret, const char *path)
{
	AP_CLEANUP_FREE char *home = strdup(path);
	AP_CLEANUP_FREE char *own = strdup(path);
	char *slash = home ? strrchr(home, '/') : NULL;
	if (!own || !slash)
		return false;
	*slash = '\0';
	/* a process that moves in comes from somewhere below here: the kernel wants this file
	 * writable */
	if (!is_domain(home) || !file_is_there(home, "cgroup.procs", W_OK))
		return false;
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return false;
	remove_empty(path);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return false;
	unsigned above = enable(home);
	if (!is_domain(path) || !file_is_there(path, "cgroup.kill", W_OK) ||
	    !file_is_there(path, "cgroup.procs", W_OK)) {
		(void)rmdir(path);
		return false;
	}
	ret->controllers = above & enable(path);
	ret->path = ap_steal(own);
	return true;
}

bool cgroup_subtree_close(struct cgroup_subtree *subtree, bool keep)
{
	if (!subtree->path)
		return true;
	if (!keep)
		for_each_group(subtree->path, remove_group, NULL);
	remove_empty(subtree->path);
	bool gone = access(subtree->path, F_OK) < 0;
	free(ap_steal(subtree->path));
	return gone;
}

void cgroup_subtree_describe(const struct cgroup_subtree *subtree, char *ret, size_t size)
{
	snprintf(ret, size, "%s", subtree->path ? "v2" : "none");
	for (size_t i = 0; subtree->path && i < N_CONTROLLERS; i++) {
		size_t len = strlen(ret);
		if (subtree->controllers & controllers[i].bit)
			snprintf(ret + len, size - len, " %s", controllers[i].name);
	}
}

/* --- bounds --- */

/* The bound is a quarter over the quota. An agent over its quota is recycled when its lease ends;
 * at the bound the kernel kills what goes on growing, before it harms the others. There is no
 * memory.high: it would slow the agent down under its holder and keep it from ever being seen over
 * its quota. There is no cpu.max: the quota of CPU is an average, and the controller alone makes
 * the groups share the CPU alike. */
static void bound_text(uint64_t max_memory, char *ret, size_t size)
{
	if (max_memory == 0 || max_memory > UINT64_MAX / 2)
		snprintf(ret, size, "max");
	else
		snprintf(ret, size, "%" PRIu64, max_memory + max_memory / 4);
}

static bool memory_of(const char *path, uint64_t *ret)
{
	char current[32], stat[4096];
	uint64_t dropped = 0;
	if (!file_read(path, "memory.current", current, sizeof current) ||
	    sscanf(current, "%" SCNu64, ret) != 1)
		return false;
	(void)file_read(path, "memory.stat", stat, sizeof stat);
	(void)find_number(stat, "inactive_file", &dropped);
	*ret -= dropped < *ret ? dropped : *ret;
	return true;
}

static void bound_again(const char *path, void *data)
{
	const uint64_t *max_memory = data;
	char text[32];
	uint64_t used;
	if (*max_memory && memory_of(path, &used) && used > *max_memory)
		return;
	bound_text(*max_memory, text, sizeof text);
	(void)file_put(path, "memory.max", text); /* fails for one that has gone meanwhile */
}

void cgroup_subtree_bound(const struct cgroup_subtree *subtree, uint64_t max_memory)
{
	if (subtree->path && subtree->controllers & CGROUP_MEMORY)
		for_each_group(subtree->path, bound_again, &max_memory);
}

/* --- one group --- */

char *cgroup_make(const struct cgroup_subtree *subtree, const char *name, uint64_t max_memory)
{
	AP_CLEANUP_FREE char *path = subtree->path ? path_join(subtree->path, name) : NULL;
	char text[32];
	if (!path)
		return NULL;
	(void)cgroup_remove(path); /* if it fails, so does mkdir() */
	if (mkdir(path, 0755) < 0)
		return NULL;
	bound_text(max_memory, text, sizeof text);
	if (subtree->controllers & CGROUP_MEMORY)
		(void)file_put(path, "memory.max", text); /* no bound if that fails */
	snprintf(text, sizeof text, "%d", CGROUP_TASKS_MAX);
	if (subtree->controllers & CGROUP_PIDS)
		(void)file_put(path, "pids.max", text); /* likewise */
	return ap_steal(path);
}

bool cgroup_enter(const char *path)
{
	return file_put(path, "cgroup.procs", "0");
}

bool cgroup_kill(const char *path)
{
	return file_put(path, "cgroup.kill", "1");
}

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool is_populated(int events_fd)
{
	char text[256];
	uint64_t populated = 0;
	ssize_t n = pread(events_fd, text, sizeof text - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	return find_number(text, "populated", &populated) && populated != 0;
}

/* Waits until a group has no processes any more, or the time is over. */
static void await_empty(const char *path, int64_t deadline)
{
	AP_CLEANUP_CLOSE int fd = file_open(path, "cgroup.events", O_RDONLY);
	while (fd >= 0 && is_populated(fd)) {
		struct pollfd changed = {.fd = fd, .events = POLLPRI};
		int64_t left = deadline - now_ms();
		if (left <= 0)
			return;
		(void)poll(&changed, 1, (int)left); /* the loop checks again in any case */
	}
}

bool cgroup_remove(const char *path)
{
	if (rmdir(path) == 0 || errno == ENOENT)
		return true;
	if (cgroup_kill(path))
		await_empty(path, now_ms() + REMOVE_LIMIT_MS);
	remove_empty(path);
	return access(path, F_OK) < 0;
}

uint64_t cgroup_oom_kills(const char *path)
{
	char text[512];
	uint64_t n = 0;
	(void)file_read(path, "memory.events", text, sizeof text);
	(void)find_number(text, "oom_kill", &n);
	return n;
}

struct counting {
	unsigned n, depth;
};

static void count_processes(const char *path, void *data)
{
	struct counting *counting = data;
	AP_CLEANUP_CLOSE int fd = file_open(path, "cgroup.procs", O_RDONLY);
	char block[1024];
	ssize_t len;
	while (fd >= 0 && (len = read(fd, block, sizeof block)) > 0) {
		for (ssize_t i = 0; i < len; i++)
			counting->n += block[i] == '\n';
	}
	if (++counting->depth < DEPTH_MAX)
		for_each_group(path, count_processes, counting);
	counting->depth--;
}

/* Processes are counted one by one: pids.current counts threads. */
bool cgroup_usage(const char *path, struct cgroup_usage *ret)
{
	AP_CLEANUP_CLOSE int events = file_open(path, "cgroup.events", O_RDONLY);
	char stat[1024];
	uint64_t usec = 0;
	if (events < 0 || !is_populated(events) || !file_read(path, "cpu.stat", stat, sizeof stat))
		return false;
	*ret = (struct cgroup_usage){.memory = 0};
	if (!find_number(stat, "usage_usec", &usec))
		return false;
	ret->cpu_ns = usec < INT64_MAX / 1000 ? (int64_t)usec * 1000 : INT64_MAX;
	ret->has_memory = memory_of(path, &ret->memory);
	struct counting counting = {.depth = 0};
	count_processes(path, &counting);
	ret->n_processes = counting.n;
	return true;
}
