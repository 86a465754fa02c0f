/* Worktrees as copies of a template, made by two threads. Copies keep the modification times; the
 * other stat data by which git's index knows files is written into the index again: else the first
 * `git status` would read every file.
 *
 * The threads take directories of the template one by one: a thread copies the files of its
 * directory and queues the directories in it. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "file.h"
#include "git_command.h"
#include "list.h"
#include "process.h"
#include "spawn_backend.h"

#define N_COPIERS 2

struct dir_task {
	struct ap_list link;
	char path[]; /* below the template, "" or "/…" */
};

struct copying {
	const char *from, *to;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	struct ap_list tasks;
	unsigned n_busy;
	int result;
	struct ap_err err;
};

static int add_task(struct copying *copying, const char *dir, const char *name)
{
	size_t size = strlen(dir) + strlen(name) + 2;
	struct dir_task *task = malloc(sizeof *task + size);
	if (!task)
		return -ENOMEM;
	ap_list_init(&task->link);
	snprintf(task->path, size, *name ? "%s/%s" : "%s%s", dir, name);
	pthread_mutex_lock(&copying->lock);
	ap_list_append(&copying->tasks, &task->link);
	pthread_cond_signal(&copying->changed);
	pthread_mutex_unlock(&copying->lock);
	return 0;
}

static int copy_link(const char *from, const char *to, struct ap_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlink(from, target, sizeof target - 1);
	if (n >= 0)
		target[n] = '\0';
	if (n < 0 || symlink(target, to) < 0)
		return ap_err_errno(err, -errno, "copying the link %s", from);
	return 0;
}

static int copy_entry(struct copying *copying, const char *dir, const struct dirent *entry,
		      struct ap_err *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	int n = snprintf(from, sizeof from, "%s%s/%s", copying->from, dir, entry->d_name);
	int m = snprintf(to, sizeof to, "%s%s/%s", copying->to, dir, entry->d_name);
	if (n >= PATH_MAX || m >= PATH_MAX)
		return ap_err_errno(err, -ENAMETOOLONG, "%s/%s", dir, entry->d_name);
	switch (entry->d_type) {
	case DT_DIR:
		if (mkdir(to, 0777) < 0)
			return ap_err_errno(err, -errno, "%s", to);
		return add_task(copying, dir, entry->d_name);
	case DT_LNK:
		return copy_link(from, to, err);
	case DT_REG:
		return file_copy(from, to, true, err);
	}
	return 0; /* git tracks nothing else */
}

static int copy_dir(struct copying *copying, const char *dir, struct ap_err *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s%s", copying->from, dir) >= PATH_MAX)
		return ap_err_errno(err, -ENAMETOOLONG, "%s", dir);
	DIR *entries = opendir(path);
	if (!entries)
		return ap_err_errno(err, -errno, "%s", path);
	struct dirent *entry;
	int r = 0;
	while (r == 0 && (entry = readdir(entries))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			r = copy_entry(copying, dir, entry, err);
	}
	closedir(entries);
	return r;
}

/* Waits for the next directory; NULL: all is copied, or something failed. */
static struct dir_task *take_task(struct copying *copying)
{
	struct dir_task *task = NULL;
	pthread_mutex_lock(&copying->lock);
	while (ap_list_empty(&copying->tasks) && copying->n_busy > 0 && copying->result == 0)
		pthread_cond_wait(&copying->changed, &copying->lock);
	if (!ap_list_empty(&copying->tasks) && copying->result == 0) {
		task = ap_container_of(copying->tasks.next, struct dir_task, link);
		ap_list_remove(&task->link);
		copying->n_busy++;
	}
	pthread_mutex_unlock(&copying->lock);
	return task;
}

static void *copier_main(void *data)
{
	struct copying *copying = data;
	struct dir_task *task;
	while ((task = take_task(copying))) {
		struct ap_err err = {""};
		int r = copy_dir(copying, task->path, &err);
		free(task);
		pthread_mutex_lock(&copying->lock);
		copying->n_busy--;
		if (r < 0 && copying->result == 0) {
			copying->result = r;
			copying->err = err;
		}
		if (copying->n_busy == 0 || r < 0)
			pthread_cond_broadcast(&copying->changed);
		pthread_mutex_unlock(&copying->lock);
	}
	return NULL;
}

static int copy_tree(const char *from, const char *to, struct ap_err *err)
{
	struct copying copying = {.from = from, .to = to};
	pthread_t copiers[N_COPIERS - 1];
	unsigned n = 0;
	pthread_mutex_init(&copying.lock, NULL);
	pthread_cond_init(&copying.changed, NULL);
	ap_list_init(&copying.tasks);
	copying.result = add_task(&copying, "", "");
	while (n < N_COPIERS - 1 && pthread_create(&copiers[n], NULL, copier_main, &copying) == 0)
		n++;
	copier_main(&copying); /* this thread is the last of them */
	while (n > 0)
		pthread_join(copiers[--n], NULL);
	while (!ap_list_empty(&copying.tasks)) {
		struct dir_task *task = ap_container_of(copying.tasks.next, struct dir_task, link);
		ap_list_remove(&task->link);
		free(task);
	}
	pthread_cond_destroy(&copying.changed);
	pthread_mutex_destroy(&copying.lock);
	if (copying.result < 0)
		return ap_err_set(err, copying.result, "%s",
				  copying.err.text[0] ? copying.err.text : "out of memory");
	return 0;
}

/* --- git's index --- */

/* An entry of the index as it lies in the file, all numbers big endian: gitformat-index(5). The
 * object name and the flags follow, then the path. */
struct index_stat {
	uint32_t ctime_s, ctime_ns, mtime_s, mtime_ns, dev, ino, mode, uid, gid, size;
};

struct index_header {
	char signature[4];
	uint32_t version, n_entries;
};

#define FLAG_EXTENDED 0x4000
#define MODE_GITLINK  0160000

static void write_stat(uint8_t *at, const char *root, const char *path, size_t len)
{
	struct index_stat entry;
	struct stat st;
	char file[PATH_MAX];
	memcpy(&entry, at, sizeof entry);
	if ((be32toh(entry.mode) & MODE_GITLINK) == MODE_GITLINK ||
	    snprintf(file, sizeof file, "%s/%.*s", root, (int)len, path) >= PATH_MAX ||
	    lstat(file, &st) < 0 || S_ISDIR(st.st_mode)) /* left out by a sparse checkout */
		return;
	entry.ctime_s = htobe32((uint32_t)st.st_ctim.tv_sec);
	entry.ctime_ns = htobe32((uint32_t)st.st_ctim.tv_nsec);
	entry.mtime_s = htobe32((uint32_t)st.st_mtim.tv_sec);
	entry.mtime_ns = htobe32((uint32_t)st.st_mtim.tv_nsec);
	entry.dev = htobe32((uint32_t)st.st_dev);
	entry.ino = htobe32((uint32_t)st.st_ino);
	entry.uid = htobe32(st.st_uid);
	entry.gid = htobe32(st.st_gid);
	entry.size = htobe32((uint32_t)st.st_size);
	memcpy(at, &entry, sizeof entry);
}

/* Reads the number of bytes that a version 4 index cuts off the path before, 7 bits a byte. */
static size_t read_offset(const uint8_t **at, const uint8_t *end)
{
	size_t value = 0;
	while (*at < end) {
		uint8_t byte = *(*at)++;
		value += byte & 0x7f;
		if (!(byte & 0x80))
			break;
		value = (value + 1) << 7;
	}
	return value;
}

/* Writes the stat data of all files into an index. False: its form is unknown, and git reads the
 * files later. */
static bool write_stats(uint8_t *data, size_t size, size_t oid_size, const char *root)
{
	struct index_header header;
	char path[PATH_MAX] = "";
	if (size < sizeof header)
		return false;
	memcpy(&header, data, sizeof header);
	uint32_t version = be32toh(header.version);
	if (memcmp(header.signature, "DIRC", 4) != 0 || version < 2 || version > 4)
		return false;
	uint8_t *at = data + sizeof header;
	const uint8_t *end = data + size;
	for (uint32_t i = be32toh(header.n_entries); i > 0; i--) {
		uint8_t *entry = at;
		const uint8_t *name = at + sizeof(struct index_stat) + oid_size + 2;
		if (name > end)
			return false;
		bool extended = (name[-2] << 8 | name[-1]) & FLAG_EXTENDED;
		name += extended ? 2 : 0;
		size_t kept = 0;
		if (version == 4) {
			size_t cut = read_offset(&name, end), before = strlen(path);
			kept = cut <= before ? before - cut : 0;
		}
		const uint8_t *nul = name < end ? memchr(name, 0, (size_t)(end - name)) : NULL;
		if (!nul || kept + (size_t)(nul - name) >= sizeof path)
			return false;
		memcpy(path + kept, name, (size_t)(nul - name) + 1);
		write_stat(entry, root, path, kept + (size_t)(nul - name));
		size_t used = (size_t)(nul - entry);
		at = entry + (version == 4 ? used + 1 : (used + 8) & ~(size_t)7);
	}
	return true;
}

/* Makes the index know the copies; git then corrects the checksum at its end. */
static int refresh_index(const struct spawn_place *place, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf format = {0};
	const struct git_place git = {.git_dir = place->admin_dir, .work_tree = place->path};
	int r = git_must(&git, &format, err, GIT_ARGS("rev-parse", "--show-object-format"));
	if (r < 0)
		return r;
	ap_buf_printf(&path, "%s/index", place->admin_dir);
	AP_CLEANUP_CLOSE int fd = open(ap_buf_text(&path), O_RDWR | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	void *data = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	bool known =
		write_stats(data, (size_t)st.st_size,
			    strncmp(ap_buf_text(&format), "sha256", 6) == 0 ? 32 : 20, place->path);
	munmap(data, (size_t)st.st_size);
	return known ? git_must(&git, NULL, err, GIT_ARGS("update-index", "--force-write-index"))
		     : 0;
}

static int copy_populate(const struct spawn_place *place, struct ap_err *err)
{
	if (mkdir(place->path, 0777) < 0 && errno != EEXIST)
		return ap_err_errno(err, -errno, "%s", place->path);
	int r = copy_tree(place->template_files, place->path, err);
	return r < 0 ? r : refresh_index(place, err);
}

const struct spawn_backend spawn_copy = {
	.name = "copy",
	.populate = copy_populate,
};
