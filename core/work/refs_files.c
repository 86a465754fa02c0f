#include "refs_files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"

#define SYMBOLIC_MAX 5 /* longest chain of symbolic refs, as git follows it */
#define BLOCK	     (64 << 10)

/* --- files --- */

/* Opens a regular file. Checks it before it opens it for reading, as opening a device may have
 * effects. */
static int open_regular(int dir_fd, const char *name)
{
	char link[32];
	struct stat st;
	AP_CLEANUP_CLOSE int at = file_open_below(dir_fd, name, O_PATH);
	if (at < 0)
		return at;
	if (fstat(at, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISLNK(st.st_mode) ? -ELOOP : -EINVAL;
	snprintf(link, sizeof link, "/proc/self/fd/%d", at);
	int fd = open(link, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int data_open(int dir_fd, const char *name, enum data_owner owner)
{
	if (owner == DATA_AGENTS)
		return open_regular(dir_fd, name);
	struct stat st;
	int fd = openat(dir_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return -EINVAL;
}

int data_open_dir(int dir_fd, const char *name, enum data_owner owner)
{
	const int flags = O_RDONLY | O_DIRECTORY;
	if (owner == DATA_AGENTS)
		return file_open_below(dir_fd, name, flags);
	int fd = openat(dir_fd, name, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int data_open_top(const char *path)
{
	int held;
	char end;
	bool is_held = sscanf(path, "/proc/self/fd/%d%c", &held, &end) == 1;
	int fd = openat(is_held ? held : AT_FDCWD, is_held ? "." : path,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int data_read(int dir_fd, const char *name, size_t max, enum data_owner owner, struct ap_buf *ret)
{
	AP_CLEANUP_CLOSE int fd = data_open(dir_fd, name, owner);
	const size_t before = ret->len;
	struct stat st;
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	size_t block = (size_t)st.st_size < BLOCK ? (size_t)st.st_size + 1 : BLOCK;
	for (;;) {
		if (!ap_buf_reserve(ret, block))
			return -ENOMEM;
		ssize_t n = read(fd, ret->data + ret->len, block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		ret->len += (size_t)n;
		ret->data[ret->len] = '\0';
		if (n == 0)
			return 0;
		if (ret->len - before > max)
			return -EFBIG;
		block = BLOCK;
	}
}

/* --- names --- */

bool refs_is_name(const char *name)
{
	if (strncmp(name, "refs/", 5) != 0 || strlen(name) > 1024)
		return false;
	for (const char *at = name; *at; at++) {
		const char next = at[1];
		if ((unsigned char)*at <= ' ' || *at == 0x7f || strchr("~^:?*[\\", *at))
			return false;
		if ((*at == '/' && (next == '.' || next == '/' || next == '\0')) ||
		    (*at == '.' && (next == '.' || next == '\0')) || (*at == '@' && next == '{'))
			return false;
		if (strncmp(at, ".lock", 5) == 0 && (at[5] == '/' || at[5] == '\0'))
			return false;
	}
	return true;
}

size_t refs_parse_oid(const char *text, char ret[GIT_OID_MAX + 1])
{
	size_t len = strspn(text, "0123456789abcdef");
	if ((len != 40 && len != 64) || (text[len] != '\0' && !isspace((unsigned char)text[len])) ||
	    strspn(text, "0") >= len)
		return 0;
	memcpy(ret, text, len);
	ret[len] = '\0';
	return len;
}

/* --- loose --- */

void refs_fini(struct ref_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->at[i].name);
		free(list->at[i].target);
	}
	free(list->at);
	*list = (struct ref_list){0};
}

/* Parses the text of a ref or HEAD: an object, or the name of a ref in `ret_target`. 0, 1 (a ref),
 * -EIO. */
static int parse_ref(char *text, char ret_oid[GIT_OID_MAX + 1], char **ret_target)
{
	if (strncmp(text, "ref:", 4) != 0)
		return refs_parse_oid(text, ret_oid) ? 0 : -EIO;
	char *target = text + 4 + strspn(text + 4, " \t\n\r");
	size_t len = strlen(target);
	while (len > 0 && isspace((unsigned char)target[len - 1]))
		target[--len] = '\0';
	*ret_target = target;
	return refs_is_name(target) ? 1 : -EIO;
}

/* Reads a ref from a file, or HEAD from a symbolic link, which old versions of git made. Returns as
 * parse_ref(); `text` holds the target. */
static int read_ref(int git_fd, const char *name, enum data_owner owner, struct ap_buf *text,
		    char ret_oid[GIT_OID_MAX + 1], char **ret_target)
{
	char link[HEAD_MAX];
	text->len = 0;
	int r = data_read(git_fd, name, HEAD_MAX, owner, text);
	if (r == -ELOOP && strchr(name, '/') == NULL) {
		ssize_t n = readlinkat(git_fd, name, link, sizeof link - 1);
		link[n > 0 ? n : 0] = '\0';
		text->len = 0;
		ap_buf_printf(text, "ref: %s", link);
		r = text->failed ? -ENOMEM : 0;
	}
	if (r < 0)
		return r;
	return text->data ? parse_ref(text->data, ret_oid, ret_target) : -EIO;
}

struct reading {
	int git_fd;
	enum data_owner owner;
	struct ref_list *list;
	size_t room; /* of list->at */
	unsigned n_left;
	struct ap_buf name, text;
};

static int add_loose(struct reading *reading)
{
	struct ref_list *list = reading->list;
	struct ref ref = {.name = NULL};
	char *target = NULL;
	if (!refs_is_name(ap_buf_text(&reading->name)))
		return 0;
	int r = read_ref(reading->git_fd, reading->name.data, reading->owner, &reading->text,
			 ref.oid, &target);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	if (list->n == reading->room) {
		size_t room = reading->room ? 2 * reading->room : 64;
		struct ref *at = realloc(list->at, room * sizeof *at);
		if (!at)
			return -ENOMEM;
		list->at = at;
		reading->room = room;
	}
	ref.name = strdup(reading->name.data);
	ref.target = r == 1 ? strdup(target) : NULL;
	list->at[list->n++] = ref;
	return ref.name && (r == 0 || ref.target) ? 0 : -ENOMEM;
}

static int read_dir(struct reading *reading, unsigned depth);

static int read_entry(struct reading *reading, const struct dirent *entry, unsigned depth)
{
	size_t before = reading->name.len;
	bool is_dir = entry->d_type == DT_DIR;
	int r = 0;
	if (entry->d_name[0] == '.') /* git has no such name */
		return 0;
	if (reading->n_left == 0) {
		reading->list->is_cut = true;
		return 0;
	}
	reading->n_left--;
	ap_buf_printf(&reading->name, "/%s", entry->d_name);
	if (reading->name.failed)
		return -ENOMEM;
	if (entry->d_type == DT_UNKNOWN ||
	    (entry->d_type == DT_LNK && reading->owner == DATA_OURS)) {
		struct stat st;
		is_dir = fstatat(reading->git_fd, reading->name.data, &st,
				 reading->owner == DATA_OURS ? 0 : AT_SYMLINK_NOFOLLOW) == 0 &&
			 S_ISDIR(st.st_mode);
	}
	if (is_dir)
		r = read_dir(reading, depth + 1);
	else
		r = add_loose(reading);
	reading->name.len = before;
	reading->name.data[before] = '\0';
	return r;
}

static int read_dir(struct reading *reading, unsigned depth)
{
	if (depth > REF_DEPTH || reading->name.len > 1024) {
		reading->list->is_cut = true;
		return 0;
	}
	int fd = data_open_dir(reading->git_fd, ap_buf_text(&reading->name), reading->owner);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int r = fd < 0 ? fd : -errno;
		if (fd >= 0)
			close(fd);
		if (r == -ENOMEM || (r == -EMFILE || r == -ENFILE))
			return r;
		reading->list->is_cut = reading->list->is_cut || (r != -ENOENT && r != -ENOTDIR);
		return 0;
	}
	struct dirent *entry;
	int r = 0;
	while (r == 0 && !reading->list->is_cut && (entry = readdir(dir)))
		r = read_entry(reading, entry, depth);
	closedir(dir);
	return r;
}

static int compare_refs(const void *a, const void *b)
{
	return strcmp(((const struct ref *)a)->name, ((const struct ref *)b)->name);
}

int refs_read_loose(int git_fd, enum data_owner owner, struct ref_list *ret)
{
	struct reading reading = {
		.git_fd = git_fd, .owner = owner, .list = ret, .n_left = REFS_MAX};
	*ret = (struct ref_list){0};
	ap_buf_adds(&reading.name, "refs");
	int r = reading.name.failed ? -ENOMEM : read_dir(&reading, 0);
	if (r == 0 && ret->n > 0)
		qsort(ret->at, ret->n, sizeof *ret->at, compare_refs);
	if (r < 0)
		refs_fini(ret);
	ap_buf_fini(&reading.name);
	ap_buf_fini(&reading.text);
	return r;
}

/* --- packed --- */

bool refs_next_packed(const char **at, struct packed_ref *ret)
{
	while (**at) {
		const char *line = *at, *end = line + strcspn(line, "\n");
		*at = *end ? end + 1 : end;
		size_t len = refs_parse_oid(line, ret->oid);
		if (len == 0 || line[len] != ' ' || *end == '\0')
			continue;
		ret->line = line;
		ret->name = line + len + 1;
		ret->name_len = (size_t)(end - ret->name);
		if (**at == '^') { /* the peeled tag */
			end = *at + strcspn(*at, "\n");
			*at = *end ? end + 1 : end;
		}
		ret->len = (size_t)(*at - line);
		return true;
	}
	return false;
}

static bool find_packed(const struct ap_buf *packed, const char *name, char ret[GIT_OID_MAX + 1])
{
	struct packed_ref ref;
	const char *at = ap_buf_text(packed);
	size_t len = strlen(name);
	while (refs_next_packed(&at, &ref)) {
		if (ref.name_len == len && memcmp(ref.name, name, len) == 0) {
			strcpy(ret, ref.oid);
			return true;
		}
	}
	return false;
}

int refs_resolve(int git_fd, const char *name, const struct ap_buf *packed, char **ret_ref,
		 char ret_oid[GIT_OID_MAX + 1])
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	AP_CLEANUP_BUF struct ap_buf own = {0};
	AP_CLEANUP_FREE char *ref = NULL;
	char oid[GIT_OID_MAX + 1] = "";
	int r = 1;
	for (unsigned steps = 0; r == 1; steps++) {
		char *target = NULL;
		r = steps <= SYMBOLIC_MAX
			    ? read_ref(git_fd, ref ? ref : name, DATA_AGENTS, &text, oid, &target)
			    : -EIO;
		if (r == 1) {
			free(ref);
			ref = strdup(target);
			r = ref ? 1 : -ENOMEM;
		} else if (ref && (r == -ENOENT || r == -ENOTDIR || r == -EINVAL)) {
			r = packed ? 0
				   : data_read(git_fd, "packed-refs", PACKED_MAX, DATA_AGENTS,
					       &own);
			r = r == -ENOENT ? 0 : r;
			if (r == 0 && !find_packed(packed ? packed : &own, ref, oid))
				oid[0] = '\0';
		}
	}
	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	strcpy(ret_oid, oid);
	*ret_ref = ap_steal(ref);
	return 0;
}
