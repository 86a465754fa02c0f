/* Takes objects out of a git directory that an agent has had: links them into a view, from which
 * the repository's own git copies them into the repository. The view has only the agent's object
 * files, which git checks, and no refs, alternates, grafts or configuration. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_git.h"
#include "cleanup.h"
#include "file.h"
#include "process.h"
#include "remove.h"
#include "refs_files.h"

#define OBJECTS_MAX    1000000		    /* files of loose objects and packs */
#define COPIED_MAX     ((uint64_t)8 << 30)  /* bytes to copy where no link can be made */
#define TAKEN_MAX      ((uint64_t)64 << 30) /* bytes of the pack of what is taken out */
#define UNPACKED_MAX   100		    /* objects; more stay a pack, as with a fetch */
#define UNPACKED_BYTES (32 << 20)
#define SCANS_MAX      10 /* of a pack directory that is repacked meanwhile */

/* --- the view --- */

struct view {
	int fd;
	unsigned n_left; /* files that it may still get */
	uint64_t bytes_left;
};

static bool is_hex(const char *text, size_t len)
{
	return strspn(text, "0123456789abcdef") == len && text[len] == '\0';
}

static int copy_across(struct view *view, int from_fd, const char *name, const char *to)
{
	AP_CLEANUP_CLOSE int in = data_open(from_fd, name, DATA_AGENTS);
	struct stat st;
	if (in < 0 || fstat(in, &st) < 0)
		return in < 0 ? in : -errno;
	if ((uint64_t)st.st_size > view->bytes_left)
		return -EFBIG;
	AP_CLEANUP_CLOSE int out =
		openat(view->fd, to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
	if (out < 0)
		return errno == EEXIST ? 0 : -errno;
	int r = 0;
	for (uint64_t left = (uint64_t)st.st_size; r == 0 && left > 0;) {
		char block[64 << 10];
		ssize_t n = read(in, block, left < sizeof block ? (size_t)left : sizeof block);
		if (n <= 0 || write(out, block, (size_t)n) != n)
			r = n == 0 ? -EIO : -errno;
		else
			left -= (uint64_t)n;
	}
	if (r < 0)
		(void)unlinkat(view->fd, to, 0);
	else
		view->bytes_left -= (uint64_t)st.st_size;
	return r;
}

/* Links a file into the view. -EINVAL: it is no regular file. */
static int link_file(struct view *view, int from_fd, const char *name, const char *to)
{
	struct stat st;
	if (fstatat(view->fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (view->n_left == 0)
		return -EMFILE;
	view->n_left--;
	if (linkat(from_fd, name, view->fd, to, 0) == 0) { /* links a symbolic link itself */
		if (fstatat(view->fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			return 0;
		(void)unlinkat(view->fd, to, 0);
		return -EINVAL;
	}
	if (errno == EEXIST)
		return 0;
	/* another file system, one without links, or too many of them */
	return errno == EXDEV || errno == EPERM || errno == EMLINK
		       ? copy_across(view, from_fd, name, to)
		       : -errno;
}

static DIR *open_entries(int dir_fd, const char *name, int *ret_error)
{
	int fd = data_open_dir(dir_fd, name, DATA_AGENTS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	*ret_error = dir ? 0 : fd < 0 ? fd : -errno;
	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

/* Whether an error means that the file is no object. If that object is needed, git says so. */
static bool is_absent(int r)
{
	return r == -ENOENT || r == -ENOTDIR || r == -EINVAL || r == -ELOOP || r == -EXDEV;
}

static int link_loose(struct view *view, int objects_fd, const char *fan)
{
	int r;
	DIR *dir = open_entries(objects_fd, fan, &r);
	struct dirent *entry;
	if (dir && mkdirat(view->fd, fan, 0700) < 0 && errno != EEXIST)
		r = -errno;
	while (dir && r == 0 && (entry = readdir(dir))) {
		char to[8 + GIT_OID_MAX];
		if (!is_hex(entry->d_name, 38) && !is_hex(entry->d_name, 62))
			continue;
		snprintf(to, sizeof to, "%s/%.62s", fan, entry->d_name);
		r = link_file(view, dirfd(dir), entry->d_name, to);
		r = is_absent(r) ? 0 : r;
	}
	if (dir)
		closedir(dir);
	return is_absent(r) ? 0 : r;
}

/* pack-….pack and what git has beside it. */
static bool is_pack(const char *name)
{
	static const char *const ends[] = {".pack", ".idx", ".rev", ".promisor"};
	size_t len = strlen(name), hex;
	if (strncmp(name, "pack-", 5) != 0 || len > 100)
		return false;
	hex = strspn(name + 5, "0123456789abcdef");
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		if ((hex == 40 || hex == 64) && strcmp(name + 5 + hex, ends[i]) == 0)
			return true;
	}
	return false;
}

/* Links the packs once; 1: a file disappeared meanwhile. */
static int link_packs_once(struct view *view, int objects_fd)
{
	int r;
	bool again = false;
	DIR *dir = open_entries(objects_fd, "pack", &r);
	struct dirent *entry;
	if (dir && mkdirat(view->fd, "pack", 0700) < 0 && errno != EEXIST)
		r = -errno;
	while (dir && r == 0 && (entry = readdir(dir))) {
		char to[128];
		if (!is_pack(entry->d_name))
			continue;
		snprintf(to, sizeof to, "pack/%.100s", entry->d_name);
		r = link_file(view, dirfd(dir), entry->d_name, to);
		again = again || r == -ENOENT;
		r = is_absent(r) ? 0 : r;
	}
	if (dir)
		closedir(dir);
	return is_absent(r) ? 0 : r < 0 ? r : again;
}

/* The agent may repack just then: git makes new packs, and then removes what they replace. So this
 * links packs last, and again if one has disappeared. */
static int link_objects(struct view *view, int git_fd)
{
	static const char digits[] = "0123456789abcdef";
	AP_CLEANUP_CLOSE int objects_fd = data_open_dir(git_fd, "objects", DATA_AGENTS);
	if (objects_fd < 0)
		return is_absent(objects_fd) ? 0 : objects_fd;
	int r = 0;
	for (unsigned i = 0; r == 0 && i < 256; i++) {
		const char fan[] = {digits[i >> 4], digits[i & 15], '\0'};
		r = link_loose(view, objects_fd, fan);
	}
	if (r == 0)
		r = 1;
	for (unsigned scans = 0; r == 1 && scans < SCANS_MAX; scans++)
		r = link_packs_once(view, objects_fd);
	return r > 0 ? 0 : r;
}

static int view_module(void *data, const char *dir, const char *name)
{
	AP_CLEANUP_CLOSE int git_fd = data_open_top(dir);
	int r = git_fd < 0 ? (is_absent(git_fd) ? 0 : git_fd) : link_objects(data, git_fd);
	return r == -EFBIG ? -ENOSPC : r; /* not the bound on directories */
}

int agent_git_view(const char *dir, const char *view, struct ap_err *err)
{
	struct view into = {.fd = -1, .n_left = OBJECTS_MAX, .bytes_left = COPIED_MAX};
	AP_CLEANUP_CLOSE int git_fd = data_open_top(dir);
	int r = git_fd < 0 ? ap_err_errno(err, git_fd, "%s", dir) : file_make_dirs(view, err);
	if (r < 0)
		return r;
	AP_CLEANUP_CLOSE int view_fd = into.fd = data_open_top(view);
	r = view_fd < 0 ? view_fd : link_objects(&into, git_fd);
	if (r == 0) {
		r = agent_git_each_module(dir, view_module, &into, NULL);
		if (r == -EFBIG) /* whoever saves them keeps modules/ whole then */
			return 0;
	}
	if (r == -EMFILE && into.n_left == 0)
		return ap_err_set(err, -EFBIG, "%s has more than %d files of objects", dir,
				  OBJECTS_MAX);
	return r < 0 ? ap_err_errno(err, r, "objects of %s", dir) : 0;
}

/* --- into the repository --- */

/* Appends a directory to a list, quoted as git reads it from its environment. */
static void add_object_dir(struct ap_buf *list, const char *dir)
{
	ap_buf_adds(list, list->len > 0 && list->data[list->len - 1] != '=' ? ":\"" : "\"");
	for (; *dir; dir++) {
		if (*dir == '"' || *dir == '\\')
			ap_buf_printf(list, "\\%c", *dir);
		else if (*dir == '\n')
			ap_buf_adds(list, "\\n");
		else
			ap_buf_add(list, dir, 1);
	}
	ap_buf_adds(list, "\"");
}

static int add_module_objects(void *data, const char *dir, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf objects = {0};
	ap_buf_printf(&objects, "%s/objects", dir);
	add_object_dir(data, ap_buf_text(&objects));
	return 0;
}

/* Whether it has a promisor pack, whose objects git can fetch again. */
static bool is_promised(const char *objects)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/pack", objects);
	DIR *dir = opendir(ap_buf_text(&path));
	struct dirent *entry;
	bool found = false;
	while (dir && !found && (entry = readdir(dir)))
		found = is_pack(entry->d_name) && strstr(entry->d_name, ".promisor");
	if (dir)
		closedir(dir);
	return found;
}

/* fsck messages to ignore: what git itself commits, or fetches without a check, is no reason to
 * lose work. What would do harm, or what git cannot have made, stays an error. */
#define TOLERATED                                                                                  \
	"=zeroPaddedFilemode=ignore,missingSpaceBeforeDate=ignore,missingSpaceBeforeEmail=ignore," \
	"missingNameBeforeEmail=ignore,missingEmail=ignore,badEmail=ignore,badName=ignore,"        \
	"badTimezone=ignore,badDate=ignore,badDateOverflow=ignore,zeroPaddedDate=ignore,"          \
	"multipleAuthors=ignore,nulInCommit=ignore,gitmodulesName=ignore,gitmodulesPath=ignore,"   \
	"gitmodulesUrl=ignore,gitmodulesUpdate=ignore,gitmodulesParse=ignore,"                     \
	"gitmodulesBlob=ignore,gitmodulesMissing=ignore,gitmodulesLarge=ignore"

/* Further messages to ignore, if git knows them. */
#define TOLERATED_TOO                                                                              \
	",gitattributesBlob=ignore,gitattributesLarge=ignore,gitattributesLineLength=ignore,"      \
	"gitattributesMissing=ignore"

struct taking {
	const struct repo *repo;
	char objects[PATH_MAX];	   /* the repository's */
	char quarantine[PATH_MAX]; /* git makes the objects in it; they move when all is well */
	bool is_partial;	   /* not all of the repository's objects are there */
	bool is_promised;	   /* nor all of the agent's */
	int64_t limit_ns;
};

/* Packs the objects that are wanted into a file. Returns its descriptor. */
static int pack(const struct taking *taking, const char *view, const char *const *oids,
		const char *const *known, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dirs = {0};
	AP_CLEANUP_BUF struct ap_buf revisions = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_adds(&dirs, "GIT_ALTERNATE_OBJECT_DIRECTORIES=");
	add_object_dir(&dirs, view);
	(void)agent_git_each_module(taking->repo->common_dir, add_module_objects, &dirs, NULL);
	for (size_t i = 0; oids[i]; i++)
		ap_buf_printf(&revisions, "%s\n", oids[i]);
	for (size_t i = 0; known[i]; i++)
		ap_buf_printf(&revisions, "^%s\n", known[i]);
	ap_buf_printf(&path, "%s/taken", taking->quarantine);
	AP_CLEANUP_CLOSE int fd =
		open(ap_buf_text(&path), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || dirs.failed || revisions.failed)
		return ap_err_errno(err, fd < 0 ? -errno : -ENOMEM, "%s", ap_buf_text(&path));
	const struct git_place place = {
		.git_dir = taking->repo->common_dir,
		.in = &revisions,
		.env = GIT_ARGS(ap_buf_text(&dirs), "GIT_NO_REPLACE_OBJECTS=1",
				"GIT_GRAFT_FILE=/dev/null", "GIT_NO_LAZY_FETCH=1"),
		.out_fd = fd,
		.file_max = TAKEN_MAX,
		.limit_ns = taking->limit_ns,
	};
	int r = git_must(&place, NULL, err,
			 GIT_ARGS("pack-objects", "--revs", "--thin", "--stdout", "--quiet",
				  "--delta-base-offset",
				  taking->is_partial ? "--missing=allow-promisor" : NULL));
	return r < 0 ? r : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* The number of objects in the header of a pack. */
static uint32_t count_objects(int fd)
{
	unsigned char head[12];
	if (pread(fd, head, sizeof head, 0) != sizeof head)
		return 0;
	return (uint32_t)head[8] << 24 | (uint32_t)head[9] << 16 | (uint32_t)head[10] << 8 |
	       head[11];
}

static int unpack_with(const struct git_place *place, bool is_small, const char *strict,
		       struct ap_err *err)
{
	return git_must(place, NULL, err,
			is_small ? GIT_ARGS("unpack-objects", "-q", strict)
				 : GIT_ARGS("index-pack", "--stdin", "--fix-thin", strict));
}

static int unpack(const struct taking *taking, int fd, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dirs = {0};
	AP_CLEANUP_BUF struct ap_buf into = {0};
	uint32_t n = count_objects(fd);
	struct stat st;
	if (n == 0)
		return 0;
	if (fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return ap_err_errno(err, -errno, "%s", taking->quarantine);
	ap_buf_adds(&dirs, "GIT_ALTERNATE_OBJECT_DIRECTORIES=");
	add_object_dir(&dirs, taking->objects);
	ap_buf_printf(&into, "GIT_OBJECT_DIRECTORY=%s", taking->quarantine);
	const struct git_place place = {
		.git_dir = taking->repo->common_dir,
		.env = GIT_ARGS(ap_buf_text(&dirs), ap_buf_text(&into), "GIT_NO_REPLACE_OBJECTS=1",
				"GIT_GRAFT_FILE=/dev/null", "GIT_NO_LAZY_FETCH=1"),
		.in_fd = fd,
		.limit_ns = taking->limit_ns,
	};
	if (dirs.failed || into.failed)
		return ap_err_errno(err, -ENOMEM, "%s", taking->quarantine);
	if (taking->is_partial) /* objects may be missing: do not check links to them */
		return git_must(&place, NULL, err,
				GIT_ARGS("index-pack", "--stdin", "--fix-thin", "--fsck-objects",
					 taking->is_promised ? "--promisor=agentpoolfs" : NULL));
	bool is_small = n < UNPACKED_MAX && st.st_size < UNPACKED_BYTES;
	int r = unpack_with(&place, is_small, "--strict" TOLERATED TOLERATED_TOO, err);
	if (r == -EIO && err && strstr(err->text, "Unhandled message id") && /* an older git */
	    lseek(fd, 0, SEEK_SET) == 0)
		r = unpack_with(&place, is_small, "--strict" TOLERATED, err);
	return r;
}

/* Moves the files of a directory of the quarantine whose names end with `end` to the repository's.
 */
static int move_files(const struct taking *taking, const char *sub, const char *end,
		      struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf to = {0};
	struct stat st;
	ap_buf_printf(&from, "%s/%s", taking->quarantine, sub);
	ap_buf_printf(&to, "%s/%s", taking->objects, sub);
	if (stat(ap_buf_text(&from), &st) < 0)
		return 0;
	/* git made the directory with the modes that the repository wants */
	if (mkdir(ap_buf_text(&to), st.st_mode & 07777) == 0)
		(void)chmod(ap_buf_text(&to), st.st_mode & 07777);
	DIR *dir = opendir(ap_buf_text(&from));
	struct dirent *entry;
	int r = dir ? 0 : ap_err_errno(err, -errno, "%s", ap_buf_text(&from));
	while (r == 0 && (entry = readdir(dir))) {
		AP_CLEANUP_BUF struct ap_buf source = {0};
		AP_CLEANUP_BUF struct ap_buf target = {0};
		size_t len = strlen(entry->d_name), n = strlen(end);
		if (entry->d_name[0] == '.' || len < n || strcmp(entry->d_name + len - n, end) != 0)
			continue;
		ap_buf_printf(&source, "%s/%s", ap_buf_text(&from), entry->d_name);
		ap_buf_printf(&target, "%s/%s", ap_buf_text(&to), entry->d_name);
		/* a file that is there already is the same */
		if (link(ap_buf_text(&source), ap_buf_text(&target)) < 0 && errno != EEXIST &&
		    rename(ap_buf_text(&source), ap_buf_text(&target)) < 0)
			r = ap_err_errno(err, -errno, "%s", ap_buf_text(&target));
	}
	if (dir)
		closedir(dir);
	return r;
}

/* Moves the index of a pack last: git uses a pack once its index is there. */
static int migrate(const struct taking *taking, struct ap_err *err)
{
	static const char *const ends[] = {".pack", ".rev", ".promisor", ".idx"};
	static const char digits[] = "0123456789abcdef";
	int r = 0;
	for (unsigned i = 0; r == 0 && i < 256; i++) {
		const char fan[] = {digits[i >> 4], digits[i & 15], '\0'};
		r = move_files(taking, fan, "", err);
	}
	for (size_t i = 0; r == 0 && i < sizeof ends / sizeof *ends; i++)
		r = move_files(taking, "pack", ends[i], err);
	return r;
}

int agent_git_take(const struct repo *repo, const char *view, const char *const *oids,
		   const char *const *known, int64_t limit_ns, struct ap_err *err)
{
	struct taking taking = {.repo = repo, .limit_ns = limit_ns};
	int n = snprintf(taking.objects, sizeof taking.objects, "%s/objects", repo->common_dir);
	/* the repository's next gc removes one that a dead daemon left, as git's own */
	int m = snprintf(taking.quarantine, sizeof taking.quarantine,
			 "%s/objects/tmp_objdir-agentpoolfs-XXXXXX", repo->common_dir);
	if (!oids[0])
		return 0;
	if (n >= PATH_MAX || m >= PATH_MAX)
		return ap_err_errno(err, -ENAMETOOLONG, "%s", repo->common_dir);
	if (!mkdtemp(taking.quarantine))
		return ap_err_errno(err, -errno, "%s", taking.quarantine);
	taking.is_partial = is_promised(taking.objects);
	taking.is_promised = is_promised(view);
	AP_CLEANUP_CLOSE int fd = pack(&taking, view, oids, known, err);
	int r = fd < 0 ? fd : unpack(&taking, fd, err);
	if (r == 0)
		r = migrate(&taking, err);
	(void)remove_tree(taking.quarantine, NULL, NULL); /* on failure the next gc does it */
	return r < 0 ? ap_err_wrap(err, r, "taking commits over into %s", repo->path) : 0;
}
