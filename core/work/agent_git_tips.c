/* Reads what names objects in a git directory that an agent has had: refs, HEAD and the like, and
 * logs, as data. Concludes nothing from what is missing. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_git.h"
#include "cleanup.h"
#include "refs_files.h"

#define LOG_MAX	      (16 << 20) /* bytes of one log */
#define LOGS_MAX      (64 << 20) /* of all of them */
#define PSEUDO_MAX    (64 << 10) /* of MERGE_HEAD and the like */
#define WORKTREES_MAX 256	 /* linked worktrees that an agent added */
#define MODULES_MAX   1000
#define MODULE_DEPTH  16

void agent_head_fini(struct agent_head *head)
{
	free(head->ref);
	*head = (struct agent_head){0};
}

int agent_git_head(const char *dir, struct agent_head *ret, struct ap_err *err)
{
	struct agent_head head = {0};
	AP_CLEANUP_CLOSE int git_fd = data_open_top(dir);
	int r = git_fd < 0 ? git_fd : refs_resolve(git_fd, "HEAD", NULL, &head.ref, head.oid);
	if (r < 0)
		return ap_err_errno(err, r == -ENOMEM ? r : -EIO, "%s: HEAD names nothing", dir);
	*ret = head;
	return 0;
}

void agent_tips_fini(struct agent_tips *tips)
{
	for (size_t i = 0; i < tips->n; i++)
		free(tips->at[i].name);
	free(tips->at);
	*tips = (struct agent_tips){0};
}

struct finding {
	struct agent_tips *tips;
	size_t room;	  /* of tips->at */
	size_t log_bytes; /* of logs that may still be read */
};

static int add_tip(struct finding *finding, const char *oid, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int add_tip(struct finding *finding, const char *oid, const char *fmt, ...)
{
	struct agent_tips *tips = finding->tips;
	if (tips->n >= AGENT_TIPS_MAX) {
		tips->is_cut = true;
		return 0;
	}
	if (tips->n == finding->room) {
		size_t room = finding->room ? 2 * finding->room : 64;
		struct agent_tip *at = realloc(tips->at, room * sizeof *at);
		if (!at)
			return -ENOMEM;
		tips->at = at;
		finding->room = room;
	}
	struct agent_tip *tip = &tips->at[tips->n];
	va_list args;
	va_start(args, fmt);
	int n = vasprintf(&tip->name, fmt, args);
	va_end(args);
	if (n < 0)
		return -ENOMEM;
	snprintf(tip->oid, sizeof tip->oid, "%s", oid);
	tips->n++;
	return 0;
}

/* Records that not all was read. */
static int cut(struct finding *finding, int r)
{
	if (r == -ENOMEM)
		return r;
	/* missing, or no regular file: git does not read it either */
	if (r < 0 && r != -ENOENT && r != -ENOTDIR && r != -EINVAL && r != -ELOOP)
		finding->tips->is_cut = true;
	return 0;
}

/* Adds every line of MERGE_HEAD and the like that begins with an object. `where` comes before the
 * name. */
static int find_in_file(struct finding *finding, int git_fd, const char *where, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char oid[GIT_OID_MAX + 1];
	int r = cut(finding, data_read(git_fd, name, PSEUDO_MAX, DATA_AGENTS, &text));
	for (const char *at = ap_buf_text(&text); r == 0 && *at; at += strcspn(at, "\n")) {
		at += *at == '\n';
		if (refs_parse_oid(at, oid))
			r = add_tip(finding, oid, "%s%s", where, name);
	}
	return r;
}

/* Whether it is named as a pseudo ref: ORIG_HEAD, MERGE_HEAD, BISECT_HEAD. Not FETCH_HEAD, which
 * names what others have, nor HEAD, which is read as a ref. */
static bool is_pseudo_ref(const char *name)
{
	return name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_")] == '\0' &&
	       strcmp(name, "HEAD") != 0 && strcmp(name, "FETCH_HEAD") != 0;
}

static int find_pseudo(struct finding *finding, int git_fd, const char *where)
{
	static const char *const unfinished[] = {"rebase-merge/autostash",
						 "rebase-merge/orig-head",
						 "rebase-merge/onto",
						 "rebase-merge/amend",
						 "rebase-merge/stopped-sha",
						 "rebase-apply/autostash",
						 "rebase-apply/orig-head",
						 "rebase-apply/abort-safety",
						 "rebase-apply/original-commit",
						 "sequencer/head",
						 "sequencer/abort-safety"};
	int fd = data_open_dir(git_fd, ".", DATA_AGENTS), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		close(fd);
	if (!dir)
		return -errno;
	struct dirent *entry;
	for (unsigned n = 0; r == 0 && (entry = readdir(dir)); n++) {
		if (n == REFS_MAX)
			finding->tips->is_cut = true;
		if (n >= REFS_MAX)
			break;
		if (is_pseudo_ref(entry->d_name))
			r = find_in_file(finding, git_fd, where, entry->d_name);
	}
	closedir(dir);
	for (size_t i = 0; r == 0 && i < sizeof unfinished / sizeof *unfinished; i++)
		r = find_in_file(finding, git_fd, where, unfinished[i]);
	return r;
}

/* Adds the NEW of every "OLD NEW who\twhat" line, the newest last: NAME@{0} is that one. */
static int find_in_log(struct finding *finding, int git_fd, const char *where, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	char oid[GIT_OID_MAX + 1];
	size_t n = 0, max = finding->log_bytes < LOG_MAX ? finding->log_bytes : LOG_MAX;
	ap_buf_printf(&path, "logs/%s", name);
	if (path.failed)
		return -ENOMEM;
	int r = cut(finding, data_read(git_fd, path.data, max, DATA_AGENTS, &text));
	finding->log_bytes -= text.len < finding->log_bytes ? text.len : finding->log_bytes;
	for (size_t i = 0; i < text.len; i++)
		n += text.data[i] == '\n';
	for (const char *at = ap_buf_text(&text); r == 0 && *at; at += strcspn(at, "\n")) {
		at += *at == '\n';
		size_t len = strspn(at, "0123456789abcdef");
		size_t left = n > 0 ? --n : 0;
		if (at[len] == ' ' && refs_parse_oid(at + len + 1, oid))
			r = add_tip(finding, oid, "%s%s@{%zu}", where,
				    name + (strncmp(name, "refs/", 5) == 0 ? 5 : 0), left);
	}
	return r;
}

/* Reads the logs of all refs but remotes, which name what others have. */
static int find_in_logs(struct finding *finding, int git_fd, const char *where, struct ap_buf *name,
			unsigned depth, unsigned *n_left)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "logs/%s", ap_buf_text(name));
	int fd = data_open_dir(git_fd, ap_buf_text(&path), DATA_AGENTS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		int r = fd < 0 ? fd : -errno;
		if (fd >= 0)
			close(fd);
		return cut(finding, r);
	}
	struct dirent *entry;
	int r = 0;
	size_t before = name->len;
	while (r == 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (*n_left == 0 || depth > REF_DEPTH) {
			finding->tips->is_cut = true;
			break;
		}
		--*n_left;
		ap_buf_printf(name, "/%s", entry->d_name);
		if (name->failed)
			r = -ENOMEM;
		else if (strcmp(name->data, "refs/remotes") == 0 || !refs_is_name(name->data))
			;
		else if (entry->d_type == DT_DIR)
			r = find_in_logs(finding, git_fd, where, name, depth + 1, n_left);
		else
			r = find_in_log(finding, git_fd, where, name->data);
		name->len = before;
		name->data[before] = '\0';
	}
	closedir(dir);
	return r;
}

static int find_loose(struct finding *finding, int git_fd, const char *where,
		      const struct ap_buf *packed, struct ref_list *loose)
{
	int r = cut(finding, refs_read_loose(git_fd, DATA_AGENTS, loose));
	finding->tips->is_cut = finding->tips->is_cut || loose->is_cut;
	for (size_t i = 0; r == 0 && i < loose->n; i++) {
		const struct ref *ref = &loose->at[i];
		char oid[GIT_OID_MAX + 1];
		AP_CLEANUP_FREE char *end = NULL;
		strcpy(oid, ref->oid);
		if (ref->target && refs_resolve(git_fd, ref->name, packed, &end, oid) < 0)
			oid[0] = '\0';
		if (oid[0])
			r = add_tip(finding, oid, "%s%s", where, ref->name);
	}
	return r;
}

static int compare_key(const void *name, const void *ref)
{
	return strcmp(name, ((const struct ref *)ref)->name);
}

/* Adds the packed refs that no loose ref replaces. */
static int find_packed(struct finding *finding, const struct ap_buf *packed,
		       const struct ref_list *loose)
{
	const char *at = ap_buf_text(packed);
	struct packed_ref ref;
	int r = 0;
	while (r == 0 && refs_next_packed(&at, &ref)) {
		char name[1025];
		if (ref.name_len >= sizeof name)
			continue;
		memcpy(name, ref.name, ref.name_len);
		name[ref.name_len] = '\0';
		bool is_loose = loose->n > 0 &&
				bsearch(name, loose->at, loose->n, sizeof *loose->at, compare_key);
		if (!is_loose && refs_is_name(name))
			r = add_tip(finding, ref.oid, "%s", name);
	}
	return r;
}

/* Reads HEAD, refs, logs and the like of one directory: the git directory itself (`is_top`), or the
 * one that it has for a linked worktree. */
static int find_in_dir(struct finding *finding, int git_fd, const char *where,
		       const struct ap_buf *packed, bool is_top)
{
	CLEANUP_REFS struct ref_list loose = {0};
	AP_CLEANUP_BUF struct ap_buf name = {0};
	AP_CLEANUP_FREE char *on = NULL;
	char oid[GIT_OID_MAX + 1] = "";
	unsigned n_left = REFS_MAX;
	int r = refs_resolve(git_fd, "HEAD", packed, &on, oid);
	r = r == -ENOMEM ? r : 0;
	/* the branch of a linked worktree is a ref of the git directory itself */
	if (r == 0 && oid[0] && (is_top || !on))
		r = add_tip(finding, oid, "%sHEAD", where);
	if (r == 0)
		r = find_loose(finding, git_fd, where, packed, &loose);
	if (r == 0 && is_top)
		r = find_packed(finding, packed, &loose);
	if (r == 0)
		r = find_pseudo(finding, git_fd, where);
	if (r == 0)
		r = find_in_log(finding, git_fd, where, "HEAD");
	ap_buf_adds(&name, "refs");
	return r < 0 ? r : find_in_logs(finding, git_fd, where, &name, 0, &n_left);
}

/* Each linked worktree that the agent added has a HEAD. */
static int find_in_worktrees(struct finding *finding, int git_fd, const struct ap_buf *packed)
{
	int fd = data_open_dir(git_fd, "worktrees", DATA_AGENTS), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		close(fd);
	if (!dir)
		return fd < 0 ? cut(finding, fd) : -errno;
	struct dirent *entry;
	for (unsigned n = 0; r == 0 && (entry = readdir(dir)); n++) {
		AP_CLEANUP_BUF struct ap_buf where = {0};
		if (entry->d_name[0] == '.')
			continue;
		finding->tips->is_cut = finding->tips->is_cut || n > WORKTREES_MAX;
		AP_CLEANUP_CLOSE int sub_fd =
			n > WORKTREES_MAX ? -1 : data_open_dir(fd, entry->d_name, DATA_AGENTS);
		ap_buf_printf(&where, "worktrees/%s/", entry->d_name);
		if (sub_fd >= 0)
			r = find_in_dir(finding, sub_fd, ap_buf_text(&where), packed, false);
	}
	closedir(dir);
	return r;
}

int agent_git_tips(const char *dir, struct agent_tips *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf packed = {0};
	struct agent_tips tips = {0};
	struct finding finding = {.tips = &tips, .log_bytes = LOGS_MAX};
	AP_CLEANUP_CLOSE int git_fd = data_open_top(dir);
	struct stat st;
	int r = git_fd;
	if (git_fd >= 0)
		r = cut(&finding,
			data_read(git_fd, "packed-refs", PACKED_MAX, DATA_AGENTS, &packed));
	/* a reftable: its refs are in no files that this code can read */
	if (git_fd >= 0 && fstatat(git_fd, "reftable", &st, AT_SYMLINK_NOFOLLOW) == 0)
		tips.is_cut = true;
	if (r >= 0)
		r = find_in_dir(&finding, git_fd, "", &packed, true);
	if (r >= 0)
		r = find_in_worktrees(&finding, git_fd, &packed);
	if (r < 0) {
		agent_tips_fini(&tips);
		return ap_err_errno(err, r, "%s", dir);
	}
	*ret = tips;
	return 0;
}

/* --- what a git directory is --- */

static bool is_dir(int dir_fd, const char *name)
{
	struct stat st;
	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* With a reftable HEAD names a branch that cannot exist. */
static bool has_head(int git_fd)
{
	AP_CLEANUP_FREE char *ref = NULL;
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char oid[GIT_OID_MAX + 1];
	const struct ap_buf none = {0};
	return refs_resolve(git_fd, "HEAD", &none, &ref, oid) == 0 ||
	       (data_read(git_fd, "HEAD", HEAD_MAX, DATA_AGENTS, &text) == 0 &&
		strncmp(ap_buf_text(&text), "ref: refs/heads/.invalid", 24) == 0);
}

bool agent_git_is_one(int dir_fd, const char *name)
{
	AP_CLEANUP_CLOSE int git_fd = data_open_dir(dir_fd, name, DATA_AGENTS);
	struct stat st;
	if (git_fd < 0 || !has_head(git_fd))
		return false;
	return (is_dir(git_fd, "objects") && is_dir(git_fd, "refs")) ||
	       (fstatat(git_fd, "commondir", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode));
}

/* --- submodules --- */

struct modules {
	const char *dir;
	int (*each)(void *data, const char *dir, const char *name);
	void *data;
	unsigned n_left;
};

/* A directory below modules/ is the git directory of a submodule, or has such below it: a
 * submodule's name may have slashes. */
static int find_modules(struct modules *modules, int git_fd, struct ap_buf *name, unsigned depth)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	int fd = data_open_dir(git_fd, ap_buf_text(name), DATA_AGENTS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		close(fd);
	if (!dir)
		return 0;
	struct dirent *entry;
	size_t before = name->len;
	int r = 0;
	while (r == 0 && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    !is_dir(fd, entry->d_name))
			continue;
		if (modules->n_left == 0 || depth > MODULE_DEPTH) {
			r = -EFBIG;
			break;
		}
		modules->n_left--;
		ap_buf_printf(name, "/%s", entry->d_name);
		if (name->failed) {
			r = -ENOMEM;
			break;
		}
		if (agent_git_is_one(fd, entry->d_name)) {
			path.len = 0;
			ap_buf_printf(&path, "%s/%s", modules->dir, name->data);
			r = path.failed ? -ENOMEM
					: modules->each(modules->data, path.data, name->data);
			if (r == 0) /* and those nested in it */
				ap_buf_adds(name, "/modules");
		}
		if (r == 0)
			r = find_modules(modules, git_fd, name, depth + 1);
		name->len = before;
		name->data[before] = '\0';
	}
	closedir(dir);
	return r;
}

int agent_git_each_module(const char *dir,
			  int (*each)(void *data, const char *dir, const char *name), void *data,
			  struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	AP_CLEANUP_CLOSE int git_fd = data_open_top(dir);
	struct modules modules = {.dir = dir, .each = each, .data = data, .n_left = MODULES_MAX};
	if (git_fd < 0)
		return ap_err_errno(err, git_fd, "%s", dir);
	ap_buf_adds(&name, "modules");
	int r = find_modules(&modules, git_fd, &name, 0);
	if (r == -EFBIG)
		return ap_err_set(err, r,
				  "%s/modules has more than %d directories, or more than "
				  "%d in one another",
				  dir, MODULES_MAX, MODULE_DEPTH);
	return r < 0 ? ap_err_errno(err, r, "%s/modules", dir) : r;
}
