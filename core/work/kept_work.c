/* What leases left. The directories are the truth, `at` is what the daemon knows of them. A kept
 * work is made in its place, and goes as a whole, by one rename to the trash. What an agent has
 * made lies below `files` and `git` alone: nothing there is opened by its path, and no link is
 * followed. */
#include "kept_work.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "text.h"

#define INFO_MAX (8 << 10) /* bytes */

/* Levels of directories that are counted: each has an open descriptor. */
#define DEPTH_MAX 1000

struct entry {
	struct kept_info info;
	unsigned n_holds;
	bool listed; /* false: only begun */
};

struct kept_work {
	char *state_dir;

	pthread_mutex_t lock;	  /* of what follows */
	struct entry **at;	  /* `n` of them, by number */
	size_t n, room, n_listed; /* n <= room */
	int64_t bytes;		  /* of those that are counted and listed */
};

/* --- names and texts --- */

void kept_work_name(const char *label, uint64_t token, char ret[KEPT_NAME_MAX])
{
	snprintf(ret, KEPT_NAME_MAX, "%.*s@%" PRIu64, AP_LABEL_MAX, label, token);
}

/* Parses a name. False: it is no name of kept work. */
static bool name_parse(const char *name, struct kept_info *ret)
{
	const char *at = strrchr(name, '@');
	size_t len = at ? (size_t)(at - name) : 0;
	int64_t token;
	if (len == 0 || len > AP_LABEL_MAX || ap_number_parse(at + 1, &token) < 0 || token < 1)
		return false;
	*ret = (struct kept_info){.token = (uint64_t)token, .size = -1};
	memcpy(ret->label, name, len);
	kept_work_name(ret->label, ret->token, ret->name);
	ret->number = (unsigned)(ret->token & KEPT_NUMBER_MAX);
	return ret->number && ap_label_valid(ret->label) && strcmp(ret->name, name) == 0;
}

struct field {
	const char *key;
	size_t at, size;
};

#define FIELD(key, field)                                                                          \
	{                                                                                          \
		(key), offsetof(struct kept_info, field), sizeof((struct kept_info *)0)->field     \
	}

static const struct field fields[] = {
	FIELD("agent", agent),	   FIELD("base", base),
	FIELD("commit", commit),   FIELD("branch", branch),
	FIELD("backend", backend), FIELD("reason", reason),
	FIELD("usage", usage),	   FIELD("template", template_commit),
};

void kept_work_show(const struct kept_info *info, struct ap_buf *ret)
{
	char when[32];
	time_t seconds = (time_t)(info->ended_ns / AP_SECOND);
	struct tm tm;
	ap_buf_printf(ret, "label %s\ntoken %" PRIu64 "\n", info->label, info->token);
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		const char *text = (const char *)info + fields[i].at;
		if (*text)
			ap_buf_printf(ret, "%s %s\n", fields[i].key, text);
	}
	if (info->ended_ns && gmtime_r(&seconds, &tm) &&
	    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0)
		ap_buf_printf(ret, "ended %s\n", when);
}

static void field_parse(struct kept_info *info, const char *key, const char *value)
{
	struct tm tm = {0};
	const char *end;
	if (strcmp(key, "ended") == 0 && (end = strptime(value, "%Y-%m-%dT%H:%M:%SZ", &tm)) &&
	    !*end)
		info->ended_ns = (int64_t)timegm(&tm) * AP_SECOND;
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		if (strcmp(key, fields[i].key) == 0 && strlen(value) < fields[i].size)
			strcpy((char *)info + fields[i].at, value);
	}
}

/* Fills in the fields of the text; label and token come from the name. */
static void info_parse(struct kept_info *info, char *text)
{
	char *rest = NULL;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *blank = strchr(line, ' ');
		if (!blank)
			continue;
		*blank = '\0';
		field_parse(info, line, blank + 1);
	}
}

void kept_work_dir(const struct kept_work *kept, const char *name, struct ap_buf *ret)
{
	ap_buf_printf(ret, "%s/kept/%s", kept->state_dir, name);
}

/* Replaces a file by a rename: a daemon that dies here leaves the old file or the new one. */
static int write_in(const char *dir, const char *name, const struct ap_buf *text,
		    struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf temporary = {0};
	ap_buf_printf(&path, "%s/%s", dir, name);
	ap_buf_printf(&temporary, "%s/%s.new", dir, name);
	if (path.failed || temporary.failed || text->failed)
		return ap_err_errno(err, -ENOMEM, "%s", dir);
	int r = file_write(temporary.data, text->data, text->len, err);
	if (r == 0 && rename(temporary.data, path.data) < 0)
		r = ap_err_errno(err, -errno, "%s", path.data);
	return r;
}

static bool has(const char *dir, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	struct stat st;
	ap_buf_printf(&path, "%s/%s", dir, name);
	return lstat(ap_buf_text(&path), &st) == 0;
}

/* Removes a directory to which nothing was moved. False: there is something in it. */
static bool remove_empty(const char *dir)
{
	static const char *const own[] = {"info", "info.new", "size", "size.new"};
	if (has(dir, "files") || has(dir, "git"))
		return false;
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", dir, own[i]);
		(void)unlink(ap_buf_text(&path)); /* if it stays, the directory is not empty */
	}
	return rmdir(dir) == 0;
}

/* --- what is known --- */

/* The index of the first entry whose number is not below `number`. */
static size_t place_locked(const struct kept_work *kept, unsigned number)
{
	size_t from = 0, to = kept->n;
	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (kept->at[middle]->info.number < number)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

static struct entry *entry_locked(const struct kept_work *kept, unsigned number)
{
	size_t i = place_locked(kept, number);
	return i < kept->n && kept->at[i]->info.number == number ? kept->at[i] : NULL;
}

static struct entry *find_locked(const struct kept_work *kept, const char *name)
{
	struct kept_info named;
	struct entry *entry = name_parse(name, &named) ? entry_locked(kept, named.number) : NULL;
	return entry && strcmp(entry->info.name, name) == 0 ? entry : NULL;
}

static void list_locked(struct kept_work *kept, struct entry *entry, bool listed)
{
	if (entry->listed == listed)
		return;
	entry->listed = listed;
	kept->n_listed += listed ? 1 : (size_t)-1;
	if (entry->info.size > 0)
		kept->bytes += listed ? entry->info.size : -entry->info.size;
}

static struct entry *add_locked(struct kept_work *kept, const struct kept_info *info)
{
	if (kept->n == kept->room) {
		size_t room = kept->room ? 2 * kept->room : 64;
		struct entry **at = realloc(kept->at, room * sizeof *at);
		if (!at)
			return NULL;
		kept->at = at;
		kept->room = room;
	}
	struct entry *entry = calloc(1, sizeof *entry);
	if (!entry)
		return NULL;
	entry->info = *info;
	size_t i = place_locked(kept, info->number);
	memmove(kept->at + i + 1, kept->at + i, (kept->n - i) * sizeof *kept->at);
	kept->at[i] = entry;
	kept->n++;
	return entry;
}

static void drop_locked(struct kept_work *kept, struct entry *entry)
{
	size_t i = place_locked(kept, entry->info.number);
	list_locked(kept, entry, false);
	kept->n--;
	memmove(kept->at + i, kept->at + i + 1, (kept->n - i) * sizeof *kept->at);
	free(entry);
}

/* Adds the kept work of that name to the list, even if it may not be whole. -ENOMEM. */
static int take_up(struct kept_work *kept, const char *name)
{
	struct kept_info info;
	struct stat st;
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char size[32];
	if (!name_parse(name, &info) || entry_locked(kept, info.number))
		return 0;
	kept_work_dir(kept, name, &dir);
	ap_buf_printf(&path, "%s/info", ap_buf_text(&dir));
	if (path.failed)
		return -ENOMEM;
	if (lstat(dir.data, &st) < 0 || !S_ISDIR(st.st_mode) || remove_empty(dir.data))
		return 0;
	info.ended_ns = (int64_t)st.st_mtim.tv_sec * AP_SECOND; /* unless `info` says it */
	if (file_read(path.data, O_NOFOLLOW, INFO_MAX, &text, NULL) == 0 && text.data)
		info_parse(&info, text.data);
	if (file_read_line(dir.data, "size", size, sizeof size) < 0 ||
	    ap_number_parse(size, &info.size) < 0 || info.size < 0)
		info.size = -1;
	struct entry *entry = add_locked(kept, &info);
	if (entry)
		list_locked(kept, entry, true);
	return entry ? 0 : -ENOMEM;
}

struct kept_work *kept_work_new(const char *state_dir)
{
	struct kept_work *kept = calloc(1, sizeof *kept);
	AP_CLEANUP_BUF struct ap_buf all = {0};
	if (!kept)
		return NULL;
	pthread_mutex_init(&kept->lock, NULL);
	kept->state_dir = strdup(state_dir);
	ap_buf_printf(&all, "%s/kept", state_dir);
	int r = kept->state_dir && !all.failed ? 0 : -ENOMEM;
	DIR *entries = r == 0 ? opendir(all.data) : NULL;
	struct dirent *entry;
	while (r == 0 && entries && (entry = readdir(entries)))
		r = take_up(kept, entry->d_name);
	if (entries)
		closedir(entries);
	if (r == 0)
		return kept;
	kept_work_free(kept);
	return NULL;
}

void kept_work_free(struct kept_work *kept)
{
	if (!kept)
		return;
	for (size_t i = 0; i < kept->n; i++)
		free(kept->at[i]);
	free(kept->at);
	free(kept->state_dir);
	pthread_mutex_destroy(&kept->lock);
	free(kept);
}

/* --- coming --- */

static int begin_locked(struct kept_work *kept, const struct kept_info *info, const char *dir,
			struct ap_err *err)
{
	struct entry *entry = entry_locked(kept, info->number);
	if (entry && (entry->listed || strcmp(entry->info.name, info->name) != 0))
		return ap_err_set(err, -EEXIST, "%s is there already",
				  entry->listed ? dir : entry->info.name);
	if (entry)
		entry->info = *info;
	else if (!add_locked(kept, info))
		return ap_err_errno(err, -ENOMEM, "%s", dir);
	return 0;
}

int kept_work_begin(struct kept_work *kept, const struct kept_info *given, struct ap_buf *ret_dir,
		    struct ap_err *err)
{
	struct kept_info info = *given, named;
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	kept_work_name(info.label, info.token, info.name);
	if (!name_parse(info.name, &named))
		return ap_err_set(err, -EINVAL, "'%s' is no name of what a lease left", info.name);
	info.number = named.number;
	info.size = -1;
	kept_work_dir(kept, info.name, &dir);
	kept_work_show(&info, &text);
	if (dir.failed)
		return ap_err_errno(err, -ENOMEM, "%s", info.name);
	pthread_mutex_lock(&kept->lock);
	int r = begin_locked(kept, &info, dir.data, err);
	pthread_mutex_unlock(&kept->lock);
	if (r == 0)
		r = file_make_dirs(dir.data, err);
	if (r == 0)
		r = write_in(dir.data, "info", &text, err);
	if (r == 0)
		ap_buf_add(ret_dir, dir.data, dir.len);
	if (r == 0 && ret_dir->failed)
		r = ap_err_errno(err, -ENOMEM, "%s", dir.data);
	if (r < 0 && r != -EEXIST)
		kept_work_end(kept, info.name);
	return r;
}

void kept_work_end(struct kept_work *kept, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	kept_work_dir(kept, name, &dir);
	bool whole = !dir.failed && !remove_empty(dir.data) && has(dir.data, "info");
	pthread_mutex_lock(&kept->lock);
	struct entry *entry = find_locked(kept, name);
	if (entry && whole)
		list_locked(kept, entry, true);
	else if (entry && !entry->listed)
		drop_locked(kept, entry);
	pthread_mutex_unlock(&kept->lock);
}

/* --- going --- */

/* Bytes of blocks; for a file with several names its share, so that all names together count once.
 */
static int64_t bytes_of(const struct stat *st)
{
	int64_t bytes = (int64_t)st->st_blocks * 512;
	return !S_ISDIR(st->st_mode) && st->st_nlink > 1 ? bytes / (int64_t)st->st_nlink : bytes;
}

static int64_t count_dir(int dir_fd, dev_t dev, unsigned depth);

/* Counts one directory; `st` is of it. Makes a directory of ours that we may not read readable
 * until it is open. */
static int64_t count_below(int dir_fd, const char *name, const struct stat *st, unsigned depth)
{
	const mode_t may_read = S_IRUSR | S_IXUSR;
	bool shut = (st->st_mode & may_read) != may_read && geteuid() != 0;
	if (depth == DEPTH_MAX)
		return 0;
	/* it is no link: only we have put anything there since the lstat */
	if (shut && fchmodat(dir_fd, name, (st->st_mode & 07777) | may_read, 0) < 0)
		return 0;
	AP_CLEANUP_CLOSE int fd =
		openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (shut)
		(void)fchmodat(dir_fd, name, st->st_mode & 07777, 0); /* as it was */
	return fd >= 0 ? count_dir(fd, st->st_dev, depth + 1) : 0;
}

/* Counts all that is in a directory. */
static int64_t count_dir(int dir_fd, dev_t dev, unsigned depth)
{
	AP_CLEANUP_BUF struct ap_buf names = {0};
	int64_t bytes = 0;
	(void)file_names(dir_fd, &names); /* what cannot be read counts for nothing */
	const char *name = ap_buf_text(&names), *end = name + names.len;
	for (struct stat st; name < end; name += strlen(name) + 1) {
		if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 ||
		    st.st_dev != dev)
			continue;
		bytes += bytes_of(&st);
		if (S_ISDIR(st.st_mode))
			bytes += count_below(dir_fd, name, &st, depth);
	}
	return bytes;
}

/* Counts one kept work, and writes the number down for the next daemon. */
static int64_t count(const char *dir)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	AP_CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	int64_t bytes = bytes_of(&st) + count_dir(fd, st.st_dev, 0);
	ap_buf_printf(&text, "%" PRId64 "\n", bytes);
	(void)write_in(dir, "size", &text, NULL); /* on failure it is counted again */
	return bytes;
}

static void count_new(struct kept_work *kept)
{
	for (unsigned after = 0;;) {
		char name[KEPT_NAME_MAX];
		struct entry *entry = NULL;
		pthread_mutex_lock(&kept->lock);
		size_t i = place_locked(kept, after + 1);
		for (; i < kept->n && !entry; i++)
			entry = kept->at[i]->listed && kept->at[i]->info.size < 0 ? kept->at[i]
										  : NULL;
		if (entry) {
			entry->n_holds++;
			after = entry->info.number;
			strcpy(name, entry->info.name);
		}
		pthread_mutex_unlock(&kept->lock);
		if (!entry)
			return;
		AP_CLEANUP_BUF struct ap_buf dir = {0};
		kept_work_dir(kept, name, &dir);
		int64_t bytes = dir.failed ? 0 : count(dir.data);
		pthread_mutex_lock(&kept->lock);
		entry->n_holds--;
		entry->info.size = bytes;
		kept->bytes += bytes;
		pthread_mutex_unlock(&kept->lock);
	}
}

/* Moves a kept work to the trash as a whole, which is emptied later. */
static int discard(struct kept_work *kept, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	AP_CLEANUP_BUF struct ap_buf trash = {0};
	AP_CLEANUP_BUF struct ap_buf moved = {0};
	kept_work_dir(kept, name, &dir);
	ap_buf_printf(&trash, "%s/trash", kept->state_dir);
	if (dir.failed || trash.failed)
		return ap_err_errno(err, -ENOMEM, "%s", name);
	int r = file_make_dirs(trash.data, err);
	if (r == 0)
		r = file_move_into(dir.data, trash.data, &moved, err);
	return r == -ENOENT ? 0 : r; /* somebody else has removed it */
}

struct candidate {
	int64_t ended_ns;
	unsigned number;
};

static int by_end(const void *one, const void *other)
{
	const struct candidate *a = one, *b = other;
	if (a->ended_ns != b->ended_ns)
		return a->ended_ns < b->ended_ns ? -1 : 1;
	return a->number < b->number ? -1 : a->number > b->number;
}

/* All that are listed and not held, the oldest first; none if nothing has to go. -ENOMEM. */
static int candidates(struct kept_work *kept, int64_t oldest_ns, int64_t max_size,
		      struct candidate **ret, size_t *ret_n)
{
	struct candidate *all = NULL;
	size_t n = 0;
	pthread_mutex_lock(&kept->lock);
	bool any = max_size && kept->bytes > max_size;
	for (size_t i = 0; i < kept->n && !any; i++)
		any = kept->at[i]->listed && kept->at[i]->info.ended_ns <= oldest_ns;
	if (any)
		all = calloc(kept->n, sizeof *all);
	for (size_t i = 0; all && i < kept->n; i++) {
		const struct entry *entry = kept->at[i];
		if (entry->listed && entry->n_holds == 0)
			all[n++] = (struct candidate){entry->info.ended_ns, entry->info.number};
	}
	pthread_mutex_unlock(&kept->lock);
	if (n > 1)
		qsort(all, n, sizeof *all, by_end);
	*ret = all;
	*ret_n = n;
	return any && !all ? -ENOMEM : 0;
}

/* Takes a kept work out of the list if it has to go, and returns why; NULL: it stays. */
static const char *take_out(struct kept_work *kept, unsigned number, int64_t oldest_ns,
			    int64_t max_size, struct kept_info *ret)
{
	const char *why = NULL;
	pthread_mutex_lock(&kept->lock);
	struct entry *entry = entry_locked(kept, number);
	if (entry && entry->listed && entry->n_holds == 0) {
		if (entry->info.ended_ns <= oldest_ns)
			why = "age";
		else if (max_size && kept->bytes > max_size)
			why = "size";
		*ret = entry->info;
	}
	if (why) /* its number stays taken until it has gone */
		list_locked(kept, entry, false);
	pthread_mutex_unlock(&kept->lock);
	return why;
}

int kept_work_tidy(struct kept_work *kept, int64_t max_age_ns, int64_t max_size,
		   void (*each)(void *data, const struct kept_info *info, const char *why),
		   void *data, struct ap_err *err)
{
	int64_t now_ns = ap_clock_to_wall(ap_clock_ns());
	int64_t oldest_ns = max_age_ns ? now_ns - max_age_ns : INT64_MAX;
	struct candidate *all;
	size_t n;
	if (max_age_ns) /* else all go, whatever their size */
		count_new(kept);
	int r = candidates(kept, oldest_ns, max_size, &all, &n);
	if (r < 0)
		ap_err_errno(err, r, "%s/kept", kept->state_dir);
	for (size_t i = 0; i < n; i++) {
		struct kept_info info;
		const char *why = take_out(kept, all[i].number, oldest_ns, max_size, &info);
		if (!why)
			continue;
		int gone = discard(kept, info.name, err);
		pthread_mutex_lock(&kept->lock);
		if (gone == 0)
			drop_locked(kept, entry_locked(kept, info.number));
		else
			list_locked(kept, entry_locked(kept, info.number), true);
		pthread_mutex_unlock(&kept->lock);
		if (gone == 0)
			each(data, &info, why);
		else
			r = gone;
	}
	free(all);
	return r;
}

/* --- looks --- */

void kept_work_stats(struct kept_work *kept, struct kept_stats *ret)
{
	*ret = (struct kept_stats){0};
	pthread_mutex_lock(&kept->lock);
	ret->n = (unsigned)kept->n_listed;
	ret->bytes = kept->bytes;
	if (kept->n > 0)
		ret->max_token = kept->at[kept->n - 1]->info.token;
	pthread_mutex_unlock(&kept->lock);
}

static int info_of(const struct entry *entry, struct kept_info *ret)
{
	if (!entry || !entry->listed)
		return -ENOENT;
	*ret = entry->info;
	return 0;
}

int kept_work_next(struct kept_work *kept, unsigned after, struct kept_info *ret)
{
	pthread_mutex_lock(&kept->lock);
	size_t i = place_locked(kept, after + 1);
	while (i < kept->n && !kept->at[i]->listed)
		i++;
	int r = info_of(i < kept->n ? kept->at[i] : NULL, ret);
	pthread_mutex_unlock(&kept->lock);
	return r;
}

int kept_work_look(struct kept_work *kept, unsigned number, struct kept_info *ret)
{
	pthread_mutex_lock(&kept->lock);
	int r = info_of(entry_locked(kept, number), ret);
	pthread_mutex_unlock(&kept->lock);
	return r;
}

int kept_work_find(struct kept_work *kept, const char *name, struct kept_info *ret)
{
	pthread_mutex_lock(&kept->lock);
	int r = info_of(find_locked(kept, name), ret);
	pthread_mutex_unlock(&kept->lock);
	return r;
}

int kept_work_hold(struct kept_work *kept, const char *name, struct ap_buf *ret_dir)
{
	pthread_mutex_lock(&kept->lock);
	struct entry *entry = find_locked(kept, name);
	bool there = entry && entry->listed;
	if (there)
		entry->n_holds++;
	pthread_mutex_unlock(&kept->lock);
	if (there)
		kept_work_dir(kept, name, ret_dir);
	return there ? 0 : -ENOENT;
}

void kept_work_release(struct kept_work *kept, const char *name)
{
	pthread_mutex_lock(&kept->lock);
	find_locked(kept, name)->n_holds--; /* it is there as long as it is held */
	pthread_mutex_unlock(&kept->lock);
}
