#include "agent_git.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "process.h"
#include "remove.h"
#include "refs_files.h"
#include "text.h"

/* What the pool records of a seed, inside it; no agent gets these files. SOURCES: the files that it
 * was made from and their stamp. REFS: the refs of the repository and the stamp of their
 * directories. MADE: the configuration as the pool made it, as a hook may add to `config`. */
#define NOTES	"agentpoolfs"
#define SOURCES NOTES "/sources"
#define REFS	NOTES "/refs"
#define MADE	NOTES "/config"

#define CONFIG_OUT_MAX (16 << 20)
#define HOOK_DEPTH     8	       /* levels of directories below hooks/ */
#define HOOKS_MAX      1000	       /* files and directories below hooks/ */
#define QUIET_NS       (2 * AP_SECOND) /* times of files are coarser than changes of them */

/* --- how files are --- */

/* A hash over everything that was added: it differs when any of that has changed. */
struct stamp {
	uint64_t hash;
	int64_t newest_ns; /* change time of the latest of it */
};

static void stamp_bytes(struct stamp *stamp, const void *data, size_t len)
{
	const unsigned char *at = data;
	for (size_t i = 0; i < len; i++)
		stamp->hash = (stamp->hash ^ at[i]) * 0x100000001b3;
}

static int64_t ns_of(struct timespec at)
{
	return (int64_t)at.tv_sec * AP_SECOND + at.tv_nsec;
}

static void stamp_stat(struct stamp *stamp, const char *name, const struct stat *st)
{
	const int64_t facts[] = {(int64_t)st->st_ino, (int64_t)st->st_size, ns_of(st->st_mtim),
				 ns_of(st->st_ctim)};
	stamp_bytes(stamp, name, strlen(name) + 1);
	stamp_bytes(stamp, facts, sizeof facts);
	if (facts[3] > stamp->newest_ns)
		stamp->newest_ns = facts[3];
}

static void stamp_path(struct stamp *stamp, const char *path)
{
	struct stat st;
	if (stat(path, &st) == 0)
		stamp_stat(stamp, path, &st);
	else
		stamp_bytes(stamp, path, strlen(path) + 1);
}

static int64_t wall_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return ns_of(now);
}

/* --- refs of the repository --- */

/* Every change of a ref makes a lock file in its directory and renames it: so the times of the
 * directories and of packed-refs show it. */
static void stamp_ref_dirs(struct stamp *stamp, int git_fd, struct ap_buf *name, unsigned depth)
{
	struct stat st;
	int fd = depth > REF_DEPTH ? -1 : data_open_dir(git_fd, ap_buf_text(name), DATA_OURS);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (fstat(fd, &st) == 0)
		stamp_stat(stamp, ap_buf_text(name), &st);
	struct dirent *entry;
	size_t before = name->len;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || entry->d_type == DT_REG)
			continue;
		ap_buf_printf(name, "/%s", entry->d_name);
		stamp_ref_dirs(stamp, git_fd, name, depth + 1);
		name->len = before;
		name->data[before] = '\0';
	}
	closedir(dir);
}

static struct stamp stamp_refs(int git_fd)
{
	struct stamp stamp = {.hash = 1};
	struct stat st;
	AP_CLEANUP_BUF struct ap_buf name = {0};
	ap_buf_adds(&name, "refs");
	if (fstatat(git_fd, "packed-refs", &st, 0) == 0)
		stamp_stat(&stamp, "packed-refs", &st);
	stamp_ref_dirs(&stamp, git_fd, &name, 0);
	return stamp;
}

/* Agents get no refs of the pool, none of a single worktree, and not the user's own stash. */
static bool is_shared_ref(const char *name, size_t len)
{
	static const char *const own[] = {"refs/agentpool/", "refs/bisect/", "refs/worktree/",
					  "refs/rewritten/"};
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
		if (len >= strlen(own[i]) && memcmp(name, own[i], strlen(own[i])) == 0)
			return false;
	}
	return len != strlen("refs/stash") || memcmp(name, "refs/stash", len) != 0;
}

static int compare_name(const char *name, size_t len, const struct packed_ref *packed)
{
	size_t common = len < packed->name_len ? len : packed->name_len;
	int r = memcmp(name, packed->name, common);
	return r ? r : len < packed->name_len ? -1 : len > packed->name_len;
}

/* The words of packed-refs that tell git what a ref without a peeled line means. Loose refs are not
 * peeled; branches are never tags. */
static const char *peeled_words(const char *packed, const struct ref_list *loose)
{
	const char *first = strncmp(packed, "# pack-refs with:", 17) == 0 ? packed : "";
	bool fully = !*packed || memmem(first, strcspn(first, "\n"), " fully-peeled ", 14);
	bool tags = fully || memmem(first, strcspn(first, "\n"), " peeled ", 8);
	for (size_t i = 0; i < loose->n; i++) {
		const char *name = loose->at[i].name;
		if (loose->at[i].target || !is_shared_ref(name, strlen(name)))
			continue;
		fully = fully && strncmp(name, "refs/heads/", 11) == 0;
		tags = tags && strncmp(name, "refs/tags/", 10) != 0;
	}
	return fully ? "peeled fully-peeled " : tags ? "peeled " : "";
}

/* Appends packed-refs, with the loose refs in place of packed ones of the same name. */
static void merge_refs(const struct ap_buf *packed, const struct ref_list *loose,
		       struct ap_buf *ret)
{
	const char *at = ap_buf_text(packed);
	struct packed_ref ref;
	size_t i = 0;
	bool more = refs_next_packed(&at, &ref);
	ap_buf_printf(ret, "# pack-refs with: %ssorted \n",
		      peeled_words(ap_buf_text(packed), loose));
	while (more || i < loose->n) {
		const struct ref *first = i < loose->n ? &loose->at[i] : NULL;
		size_t len = first ? strlen(first->name) : 0;
		int order = !first ? 1 : !more ? -1 : compare_name(first->name, len, &ref);
		if (order <= 0) {
			if (!first->target && is_shared_ref(first->name, len))
				ap_buf_printf(ret, "%s %s\n", first->oid, first->name);
			i++;
		} else if (is_shared_ref(ref.name, ref.name_len)) {
			ap_buf_add(ret, ref.line, ref.len);
		}
		if (order >= 0)
			more = refs_next_packed(&at, &ref);
	}
}

/* Appends a line "NAME TARGET" for each symbolic ref: packed-refs cannot hold these. */
static void list_symbolic(const struct ref_list *loose, struct ap_buf *ret)
{
	for (size_t i = 0; i < loose->n; i++) {
		if (loose->at[i].target &&
		    is_shared_ref(loose->at[i].name, strlen(loose->at[i].name)))
			ap_buf_printf(ret, "%s %s\n", loose->at[i].name, loose->at[i].target);
	}
}

struct repo_refs {
	struct ap_buf packed, symbolic;
};

#define CLEANUP_REPO_REFS __attribute__((cleanup(repo_refs_fini)))

static void repo_refs_fini(struct repo_refs *refs)
{
	ap_buf_fini(&refs->packed);
	ap_buf_fini(&refs->symbolic);
}

/* Old versions of git wrote packed-refs in no order; git itself sorts such a file. */
static bool is_sorted(const struct ap_buf *packed)
{
	const char *text = ap_buf_text(packed);
	return !*text || (*text == '#' && memmem(text, strcspn(text, "\n"), " sorted ", 8));
}

/* Asks the git program, where refs are no files, or are in no order. */
static int ask_refs(const struct repo *repo, struct repo_refs *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	const struct git_place place = {.git_dir = repo->common_dir};
	int r = git_must(&place, &out, err,
			 GIT_ARGS("for-each-ref", "--format=%(objectname) %(refname) %(symref)"));
	ap_buf_adds(&ret->packed, "# pack-refs with: sorted \n");
	for (const char *at = ap_buf_text(&out); r == 0 && *at; at += strcspn(at, "\n") + 1) {
		char oid[GIT_OID_MAX + 1], name[1025], target[1025] = "";
		if (sscanf(at, "%64s %1024s%1024[^\n]", oid, name, target) < 2 ||
		    !is_shared_ref(name, strlen(name)))
			continue;
		if (target[0] == ' ' && target[1])
			ap_buf_printf(&ret->symbolic, "%s%s\n", name, target);
		else
			ap_buf_printf(&ret->packed, "%s %s\n", oid, name);
	}
	return r;
}

/* Reads the refs of the repository as an agent's git directory begins with them. */
static int read_refs(const struct repo *repo, int git_fd, struct repo_refs *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf packed = {0};
	CLEANUP_REFS struct ref_list loose = {0};
	if (faccessat(git_fd, "reftable", F_OK, 0) == 0)
		return ask_refs(repo, ret, err);
	/* before packed-refs: a git that packs refs writes that first */
	int r = refs_read_loose(git_fd, DATA_OURS, &loose);
	if (r == 0)
		r = data_read(git_fd, "packed-refs", PACKED_MAX, DATA_OURS, &packed);
	if (r == -EFBIG || (r >= 0 && (loose.is_cut || !is_sorted(&packed))))
		return ask_refs(repo, ret, err);
	if (r < 0 && r != -ENOENT)
		return ap_err_errno(err, r, "refs of %s", repo->path);
	merge_refs(&packed, &loose, &ret->packed);
	list_symbolic(&loose, &ret->symbolic);
	return ret->packed.failed || ret->symbolic.failed
		       ? ap_err_errno(err, -ENOMEM, "refs of %s", repo->path)
		       : 0;
}

/* Replaces a file by a rename: a daemon that dies here leaves the old file or the new one. */
static int write_whole(const char *dir, const char *name, const void *data, size_t len,
		       struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf temporary = {0};
	ap_buf_printf(&path, "%s/%s", dir, name);
	ap_buf_printf(&temporary, "%s/%s-XXXXXX", dir, name);
	int fd = temporary.failed ? -1 : mkostemp(temporary.data, O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	bool written = fwrite(data, 1, len, file) == len;
	if (fclose(file) != 0 || !written ||
	    rename(ap_buf_text(&temporary), ap_buf_text(&path)) < 0) {
		int r = ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
		unlink(ap_buf_text(&temporary));
		return r;
	}
	return 0;
}

/* Writes REFS: "STAMP LENGTH\n", symbolic refs of that length, packed-refs. */
static int note_refs(const char *seed, const struct stamp *stamp, const struct repo_refs *refs,
		     struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&text, "%016jx %zu\n", (uintmax_t)stamp->hash, refs->symbolic.len);
	ap_buf_add(&text, ap_buf_text(&refs->symbolic), refs->symbolic.len);
	ap_buf_add(&text, ap_buf_text(&refs->packed), refs->packed.len);
	return text.failed ? ap_err_errno(err, -ENOMEM, "%s", seed)
			   : write_whole(seed, REFS, text.data, text.len, err);
}

/* Reads REFS, if the repository's refs still have the same stamp. */
static bool recall_refs(int seed_fd, const struct stamp *stamp, struct repo_refs *ret)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	uintmax_t hash;
	size_t len;
	if (data_read(seed_fd, REFS, 2 * PACKED_MAX, DATA_AGENTS, &text) < 0 ||
	    sscanf(ap_buf_text(&text), "%jx %zu", &hash, &len) != 2 || hash != stamp->hash)
		return false;
	const char *at = text.data + strcspn(text.data, "\n") + 1;
	const size_t left = (size_t)(text.data + text.len - at);
	if (at > text.data + text.len || len > left)
		return false;
	ap_buf_add(&ret->symbolic, at, len);
	ap_buf_add(&ret->packed, at + len, left - len);
	return !ret->symbolic.failed && !ret->packed.failed;
}

/* Reads the current refs, and records them in the seed, unless they changed so lately that the next
 * change might not show in the stamp. */
static int refs_now(const struct repo *repo, const char *seed, int seed_fd, struct repo_refs *ret,
		    struct ap_err *err)
{
	AP_CLEANUP_CLOSE int git_fd = open(repo->common_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (git_fd < 0)
		return ap_err_errno(err, -errno, "%s", repo->common_dir);
	const bool is_files = faccessat(git_fd, "reftable", F_OK, 0) < 0;
	const struct stamp stamp = stamp_refs(git_fd);
	if (is_files && recall_refs(seed_fd, &stamp, ret))
		return 0;
	ret->symbolic.len = ret->packed.len = 0;
	int r = read_refs(repo, git_fd, ret, err);
	if (r == 0 && is_files && stamp.newest_ns + QUIET_NS < wall_ns())
		(void)note_refs(seed, &stamp, ret, NULL); /* on failure they are read again */
	return r;
}

/* Makes the directories above a name in `dir_fd`, and follows no link. */
static int make_parents(int dir_fd, const char *name)
{
	char part[PATH_MAX];
	for (const char *slash = name; (slash = strchr(slash, '/')); slash++) {
		snprintf(part, sizeof part, "%.*s", (int)(slash - name), name);
		if (mkdirat(dir_fd, part, 0777) < 0 && errno != EEXIST)
			return -errno;
		AP_CLEANUP_CLOSE int fd = data_open_dir(dir_fd, part, DATA_AGENTS);
		if (fd < 0)
			return fd;
	}
	return 0;
}

/* Writes a small file of a git directory, whole, in place of whatever is there. */
static int put_file(int git_fd, const char *name, const char *text)
{
	static const char temporary[] = "agentpoolfs.new";
	int r = make_parents(git_fd, name);
	const char *slash = strrchr(name, '/');
	char parent[PATH_MAX] = ".";
	if (slash)
		snprintf(parent, sizeof parent, "%.*s", (int)(slash - name), name);
	AP_CLEANUP_CLOSE int dir_fd = r < 0 ? r : data_open_dir(git_fd, parent, DATA_AGENTS);
	if (dir_fd < 0)
		return dir_fd;
	if (unlinkat(dir_fd, temporary, 0) < 0 && errno != ENOENT)
		return -errno;
	AP_CLEANUP_CLOSE int fd = openat(
		dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ||
	    renameat(dir_fd, temporary, dir_fd, slash ? slash + 1 : name) < 0)
		return -errno;
	return 0;
}

/* Writes refs into a directory that no agent has had yet. */
static int write_refs(const char *dir, int dir_fd, const struct repo_refs *refs, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/packed-refs", dir);
	int r = file_write(ap_buf_text(&path), ap_buf_text(&refs->packed), refs->packed.len, err);
	for (const char *at = ap_buf_text(&refs->symbolic); r == 0 && *at;
	     at += strcspn(at, "\n") + 1) {
		char name[1025], target[1025], text[1100];
		if (sscanf(at, "%1024s %1024s", name, target) != 2 || !refs_is_name(name))
			continue;
		snprintf(text, sizeof text, "ref: %s\n", target);
		r = put_file(dir_fd, name, text);
		if (r < 0)
			r = ap_err_errno(err, r, "%s/%s", dir, name);
	}
	return r;
}

/* --- configuration --- */

/* One value that `git config --list` prints: where it counts, its file, name and value. */
struct setting {
	const char *scope, *origin, *key, *value; /* NULL: a name without a value */
};

/* Splits the fields in place; false at the end. */
static bool next_setting(char **at, const char *end, struct setting *ret)
{
	const char *fields[3];
	for (size_t i = 0; i < 3; i++) {
		fields[i] = *at;
		if (*at >= end)
			return false;
		*at += strlen(*at) + 1;
	}
	char *value = strchr(fields[2], '\n');
	if (value)
		*value++ = '\0';
	*ret = (struct setting){fields[0], fields[1], fields[2], value};
	return true;
}

static int list_settings(const char *git_dir, struct ap_buf *ret, struct ap_err *err)
{
	const struct git_place place = {.git_dir = git_dir, .out_max = CONFIG_OUT_MAX};
	return git_must(
		&place, ret, err,
		GIT_ARGS("config", "--list", "-z", "--includes", "--show-scope", "--show-origin"));
}

/* Whether a setting depends on the repository's place, or only its own git directory needs it. */
static bool is_of_the_place(const char *key)
{
	static const char *const names[] = {
		"core.worktree", "core.bare", "core.repositoryformatversion",
		/* of the file system, which differs */
		"core.ignorecase", "core.precomposeunicode", "core.logallrefupdates"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (strcmp(key, names[i]) == 0)
			return true;
	}
	if (strncmp(key, "include.", 8) == 0 || strncmp(key, "includeif.", 10) == 0)
		return true;
	return strncmp(key, "extensions.", 11) == 0 &&
	       strcmp(key, "extensions.objectformat") != 0 &&
	       strcmp(key, "extensions.partialclone") != 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), n = strlen(end);
	return len >= n && strcmp(text + len - n, end) == 0;
}

/* Appends a value for git to read: gitconfig(5). */
static void add_value(struct ap_buf *ret, const char *value)
{
	ap_buf_adds(ret, "\"");
	for (; *value; value++) {
		if (*value == '\n')
			ap_buf_adds(ret, "\\n");
		else if (*value == '"' || *value == '\\')
			ap_buf_printf(ret, "\\%c", *value);
		else
			ap_buf_add(ret, value, 1);
	}
	ap_buf_adds(ret, "\"");
}

static void add_setting(struct ap_buf *ret, const char *key, const char *value)
{
	const char *dot = strchr(key, '.'), *last = strrchr(key, '.');
	if (!dot)
		return;
	ap_buf_printf(ret, "[%.*s", (int)(dot - key), key);
	if (last > dot) {
		ap_buf_adds(ret, " \"");
		for (const char *at = dot + 1; at < last; at++)
			ap_buf_printf(ret, *at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
		ap_buf_adds(ret, "\"");
	}
	ap_buf_printf(ret, "]\n\t%s", last + 1);
	if (value) {
		ap_buf_adds(ret, " = ");
		add_value(ret, value);
	}
	ap_buf_adds(ret, "\n");
}

/* The directory that relative paths of remotes start from. */
static const char *place_of_remotes(const struct repo *repo)
{
	return repo->work_tree ? repo->work_tree : repo->git_dir;
}

/* Appends the value that has the same meaning in an agent's git directory. */
static void add_translated(struct ap_buf *ret, const struct repo *repo, const char *key,
			   const char *value)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	bool is_remote = strncmp(key, "remote.", 7) == 0 &&
			 (ends_with(key, ".url") || ends_with(key, ".pushurl"));
	if (!value || value[0] == '/' || value[0] == '~') {
		add_setting(ret, key, value);
		return;
	}
	if (is_remote) {
		ap_buf_printf(&path, "%s/%s", place_of_remotes(repo), value);
		if (value[0] != '.' && access(ap_buf_text(&path), F_OK) < 0)
			path.len = 0; /* HOST:PATH and the like */
	} else if (strcmp(key, "lfs.storage") == 0) {
		ap_buf_printf(&path, "%s/%s", repo->common_dir, value);
	}
	add_setting(ret, key, path.len > 0 ? ap_buf_text(&path) : value);
}

/* Whether `settings`, all that count in a place, have any from this file. */
static bool is_read(const struct ap_buf *settings, const char *origin)
{
	AP_CLEANUP_BUF struct ap_buf copy = {0};
	struct setting setting;
	ap_buf_add(&copy, ap_buf_text(settings), settings->len);
	char *at = copy.data;
	while (at && next_setting(&at, copy.data + copy.len, &setting)) {
		if (strcmp(setting.origin, origin) == 0)
			return true;
	}
	return false;
}

/* Appends the repository's configuration for another git directory: the settings that count because
 * of where the repository lies (its own files, the worktree's, and what the user's configuration
 * includes for that place alone). `elsewhere` has the settings that count anywhere. */
static void flatten_config(const struct repo *repo, struct ap_buf *settings,
			   const struct ap_buf *elsewhere, struct ap_buf *ret)
{
	AP_CLEANUP_BUF struct ap_buf body = {0};
	AP_CLEANUP_BUF struct ap_buf storage = {0};
	struct setting setting;
	bool needs_version = false, logs_all = false, has_storage = false;
	char *at = settings->data;
	ap_buf_printf(&storage, "%s/lfs", repo->common_dir);
	while (at && next_setting(&at, settings->data + settings->len, &setting)) {
		bool is_own = strcmp(setting.scope, "local") == 0 ||
			      strcmp(setting.scope, "worktree") == 0;
		if (strcmp(setting.key, "lfs.storage") == 0)
			has_storage = true;
		if (strcmp(setting.key, "core.logallrefupdates") == 0)
			logs_all = setting.value && strcasecmp(setting.value, "always") == 0;
		if (strcmp(setting.scope, "command") == 0 || is_of_the_place(setting.key) ||
		    (!is_own && is_read(elsewhere, setting.origin)))
			continue;
		needs_version = needs_version || strncmp(setting.key, "extensions.", 11) == 0;
		add_translated(&body, repo, setting.key, setting.value);
	}
	ap_buf_printf(ret, "[core]\n\trepositoryformatversion = %d\n\tbare = false\n",
		      needs_version);
	/* a save finds by the logs what an agent leaves on no branch */
	ap_buf_printf(ret, "\tlogallrefupdates = %s\n", logs_all ? "always" : "true");
	ap_buf_adds(ret, ap_buf_text(&body));
	if (!has_storage) /* a save cannot copy objects of git-lfs, which are in no pack */
		add_setting(ret, "lfs.storage", ap_buf_text(&storage));
}

/* --- what a seed was made from --- */

/* Appends a path with its NUL. */
static void add_path(struct ap_buf *ret, const char *dir, const char *name)
{
	ap_buf_printf(ret, "%s/%s", dir, name);
	ap_buf_add(ret, "", 1);
}

static void add_hook_sources(const struct repo *repo, struct ap_buf *ret)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/hooks", repo->common_dir);
	DIR *dir = opendir(ap_buf_text(&path));
	struct dirent *entry;
	while (dir && (entry = readdir(dir))) {
		if (!ends_with(entry->d_name, ".sample") && strcmp(entry->d_name, "..") != 0)
			add_path(ret, ap_buf_text(&path), entry->d_name);
	}
	if (dir)
		closedir(dir);
}

static void add_sources(const struct repo *repo, const struct ap_buf *settings, struct ap_buf *ret)
{
	static const char *const names[] = {"config",
					    "shallow",
					    "hooks",
					    "info/exclude",
					    "info/attributes",
					    "info/grafts",
					    "objects/info/alternates"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		add_path(ret, repo->common_dir, names[i]);
	add_path(ret, repo->git_dir, "config.worktree");
	add_path(ret, repo->git_dir, "info/sparse-checkout");
	add_hook_sources(repo, ret);
	AP_CLEANUP_BUF struct ap_buf copy = {0};
	struct setting setting;
	const char *last = "";
	ap_buf_add(&copy, ap_buf_text(settings), settings->len);
	char *at = copy.data;
	while (at && next_setting(&at, copy.data + copy.len, &setting)) {
		if (strncmp(setting.origin, "file:", 5) == 0 && strcmp(setting.origin, last) != 0) {
			const char *file = setting.origin + 5;
			if (*file == '/')
				ap_buf_add(ret, file, strlen(file) + 1);
			else
				add_path(ret, repo->git_dir, file);
			last = setting.origin;
		}
	}
}

/* The stamp of the files at these paths, each with its NUL. */
static struct stamp stamp_sources(const char *paths, size_t len)
{
	struct stamp stamp = {.hash = 2};
	for (const char *at = paths; at < paths + len; at += strlen(at) + 1)
		stamp_path(&stamp, at);
	return stamp;
}

/* Writes SOURCES: "STAMP\n", paths. A file that changed after `since_ns` may have been read before
 * or after its change: such a seed is stale from the start. */
static int note_sources(const char *seed, const struct ap_buf *paths, int64_t since_ns,
			struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct stamp stamp = stamp_sources(ap_buf_text(paths), paths->len);
	if (stamp.newest_ns > since_ns)
		stamp.hash = 0;
	ap_buf_printf(&text, "%016jx\n", (uintmax_t)stamp.hash);
	ap_buf_add(&text, ap_buf_text(paths), paths->len);
	return text.failed || paths->failed ? ap_err_errno(err, -ENOMEM, "%s", seed)
					    : write_whole(seed, SOURCES, text.data, text.len, err);
}

bool agent_git_is_stale(const struct repo *repo, const char *seed)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	AP_CLEANUP_CLOSE int seed_fd = data_open_top(seed);
	uintmax_t hash;
	if (seed_fd < 0 || data_read(seed_fd, SOURCES, CONFIG_OUT_MAX, DATA_AGENTS, &text) < 0 ||
	    sscanf(ap_buf_text(&text), "%jx", &hash) != 1)
		return true;
	const char *paths = text.data + strcspn(text.data, "\n") + 1;
	const struct stamp stamp = stamp_sources(paths, (size_t)(text.data + text.len - paths));
	return stamp.hash != hash;
}

/* --- the seed --- */

static int make_dir(const char *dir, const char *name, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, *name ? "%s/%s" : "%s%s", dir, name);
	if (mkdir(ap_buf_text(&path), 0777) < 0 && errno != EEXIST)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	return 0;
}

/* Copies a file of the user's, if there is one. */
static int copy_if_there(const char *from_dir, const char *name, const char *to_dir,
			 struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf to = {0};
	AP_CLEANUP_FREE char *real = NULL;
	struct stat st;
	ap_buf_printf(&from, "%s/%s", from_dir, name);
	ap_buf_printf(&to, "%s/%s", to_dir, name);
	real = realpath(ap_buf_text(&from), NULL); /* it may be a link */
	if (!real || stat(real, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	return file_copy(real, ap_buf_text(&to), false, err);
}

/* Copies all of hooks/ but git's samples, as a hook may read what lies beside it. */
static int copy_hooks(const char *from, const char *to, unsigned depth, unsigned *n,
		      struct ap_err *err)
{
	DIR *dir = opendir(from);
	struct dirent *entry;
	int r = dir ? make_dir(to, "", err) : 0;
	while (r == 0 && dir && (entry = readdir(dir))) {
		AP_CLEANUP_BUF struct ap_buf source = {0};
		AP_CLEANUP_BUF struct ap_buf target = {0};
		struct stat st;
		const char *name = entry->d_name;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || ends_with(name, ".sample"))
			continue;
		ap_buf_printf(&source, "%s/%s", from, name);
		ap_buf_printf(&target, "%s/%s", to, name);
		if (stat(ap_buf_text(&source), &st) < 0)
			continue; /* a link to nothing */
		if (++*n > HOOKS_MAX || depth > HOOK_DEPTH)
			r = ap_err_set(err, -EFBIG, "%s: more than %d files in %d directories",
				       from, HOOKS_MAX, HOOK_DEPTH);
		else if (S_ISDIR(st.st_mode))
			r = copy_hooks(ap_buf_text(&source), ap_buf_text(&target), depth + 1, n,
				       err);
		else if (S_ISREG(st.st_mode))
			r = copy_if_there(from, name, to, err);
	}
	if (dir)
		closedir(dir);
	return r;
}

/* Appends a path as alternates have it: quoted if it has a newline, which would end it. */
static void add_alternate(struct ap_buf *ret, const char *path)
{
	bool quoted = strchr(path, '\n') || path[0] == '"';
	if (!quoted) {
		ap_buf_adds(ret, path);
		return;
	}
	ap_buf_adds(ret, "\"");
	for (; *path; path++) {
		if (*path == '\n')
			ap_buf_adds(ret, "\\n");
		else if (*path == '"' || *path == '\\')
			ap_buf_printf(ret, "\\%c", *path);
		else
			ap_buf_add(ret, path, 1);
	}
	ap_buf_adds(ret, "\"");
}

/* Makes the object directory, with the repository's as its alternate. */
static int write_objects(const char *seed, const char *objects, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf alternates = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	add_alternate(&alternates, objects);
	ap_buf_adds(&alternates, "\n");
	ap_buf_printf(&path, "%s/objects/info/alternates", seed);
	int r = make_dir(seed, "objects", err);
	if (r == 0)
		r = make_dir(seed, "objects/info", err);
	if (r == 0)
		r = make_dir(seed, "objects/pack", err);
	if (r == 0)
		r = file_write(ap_buf_text(&path), ap_buf_text(&alternates), alternates.len, err);
	return r;
}

int agent_git_borrow(const char *objects, const char *store, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&path, "%s/info", objects);
	int r = file_make_dirs(ap_buf_text(&path), err);
	ap_buf_adds(&path, "/alternates");
	if (r == 0 &&
	    (r = file_read(ap_buf_text(&path), O_NOFOLLOW, 1 << 20, &text, NULL)) == -ENOENT)
		r = 0;
	add_alternate(&text, store);
	ap_buf_adds(&text, "\n");
	return r < 0 ? r : file_write(ap_buf_text(&path), ap_buf_text(&text), text.len, err);
}

int agent_git_stores(const char *objects, struct ap_buf *ret)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	AP_CLEANUP_BUF struct ap_buf text = {0};
	ap_buf_printf(&path, "%s/info/alternates", objects);
	int r = file_read(ap_buf_text(&path), O_NOFOLLOW, 1 << 20, &text, NULL);
	for (const char *at = ap_buf_text(&text); r == 0 && *at; at += strcspn(at, "\n") + 1) {
		size_t len = strcspn(at, "\n");
		if (*at == '/') { /* leaves out a quoted one, with a newline in it */
			ap_buf_add(ret, at, len);
			ap_buf_add(ret, "", 1);
		}
		if (!at[len])
			break;
	}
	return r;
}

/* Writes the configuration, with the settings that count because of the repository's place. */
static int write_config(const struct repo *repo, const char *seed, struct ap_buf *settings,
			struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf elsewhere = {0};
	AP_CLEANUP_BUF struct ap_buf config = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	int r = list_settings(seed, &elsewhere, err);
	if (r < 0)
		return r;
	flatten_config(repo, settings, &elsewhere, &config);
	ap_buf_printf(&path, "%s/config", seed);
	if (config.failed)
		return ap_err_errno(err, -ENOMEM, "%s", seed);
	r = file_write(ap_buf_text(&path), config.data, config.len, err);
	return r < 0 ? r : write_whole(seed, MADE, config.data, config.len, err);
}

/* Appends the settings of one file, "KEY\nVALUE" each, with its NUL. */
static int list_file(const char *seed, const char *name, struct ap_buf *ret, struct ap_err *err)
{
	const struct git_place place = {.git_dir = seed, .out_max = CONFIG_OUT_MAX};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%s", seed, name);
	return git_must(&place, ret, err,
			GIT_ARGS("config", "--file", ap_buf_text(&path), "--list", "-z"));
}

static bool has_text(const struct ap_buf *texts, const char *text)
{
	const char *at = ap_buf_text(texts), *end = at + texts->len;
	for (; at < end; at += strlen(at) + 1) {
		if (strcmp(at, text) == 0)
			return true;
	}
	return false;
}

int agent_git_keep_settings(const char *from, const char *to, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf made = {0};
	AP_CLEANUP_BUF struct ap_buf now = {0};
	AP_CLEANUP_BUF struct ap_buf added = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/" MADE, from);
	if (access(ap_buf_text(&path), F_OK) < 0)
		return 0; /* an earlier version made it */
	int r = list_file(from, MADE, &made, err);
	if (r == 0)
		r = list_file(from, "config", &now, err);
	char *at = now.data, *end = at + now.len;
	for (; r == 0 && at && at < end; at = strchr(at, '\0') + 1) {
		if (has_text(&made, at))
			continue;
		char *value = strchr(at, '\n');
		if (value)
			*value++ = '\0';
		add_setting(&added, at, value);
		if (value)
			at = value;
	}
	if (r < 0 || added.len == 0)
		return r;
	path.len = 0;
	ap_buf_printf(&path, "%s/config", to);
	FILE *file = fopen(ap_buf_text(&path), "ae");
	bool written = file && fwrite(added.data, 1, added.len, file) == added.len;
	if (!file || fclose(file) != 0 || !written)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&path));
	return 0;
}

static int write_hooks(const struct repo *repo, const char *seed, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf from = {0};
	AP_CLEANUP_BUF struct ap_buf to = {0};
	unsigned n = 0;
	ap_buf_printf(&from, "%s/hooks", repo->common_dir);
	ap_buf_printf(&to, "%s/hooks", seed);
	return copy_hooks(ap_buf_text(&from), ap_buf_text(&to), 0, &n, err);
}

static int write_skeleton(const struct repo *repo, const char *commit, const char *seed,
			  struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf objects = {0};
	AP_CLEANUP_BUF struct ap_buf head = {0};
	static const char *const dirs[] = {"", "refs", "refs/heads", "refs/tags", "info", NOTES};
	int r = 0;
	for (size_t i = 0; r == 0 && i < sizeof dirs / sizeof *dirs; i++)
		r = make_dir(seed, dirs[i], err);
	ap_buf_printf(&objects, "%s/objects", repo->common_dir);
	if (r == 0)
		r = write_objects(seed, ap_buf_text(&objects), err);
	ap_buf_printf(&head, "%s/HEAD", seed);
	return r < 0 ? r : file_printf(ap_buf_text(&head), err, "%s\n", commit);
}

static int fill_seed(const struct repo *repo, const char *commit, const char *seed,
		     struct ap_err *err)
{
	static const char *const files[] = {"info/exclude", "info/attributes", "info/grafts",
					    "shallow"};
	AP_CLEANUP_BUF struct ap_buf settings = {0};
	AP_CLEANUP_BUF struct ap_buf sources = {0};
	CLEANUP_REPO_REFS struct repo_refs refs = {0};
	int64_t since_ns = wall_ns();
	int r = write_skeleton(repo, commit, seed, err);
	if (r == 0)
		r = list_settings(repo->git_dir, &settings, err);
	add_sources(repo, &settings, &sources);
	if (r == 0)
		r = write_config(repo, seed, &settings, err);
	if (r == 0)
		r = write_hooks(repo, seed, err);
	for (size_t i = 0; r == 0 && i < sizeof files / sizeof *files; i++)
		r = copy_if_there(repo->common_dir, files[i], seed, err);
	if (r == 0)
		r = copy_if_there(repo->git_dir, "info/sparse-checkout", seed, err);
	AP_CLEANUP_CLOSE int seed_fd = r < 0 ? -1 : data_open_top(seed);
	if (r == 0 && seed_fd < 0)
		r = ap_err_errno(err, seed_fd, "%s", seed);
	if (r == 0)
		r = refs_now(repo, seed, seed_fd, &refs, err);
	if (r == 0)
		r = write_refs(seed, seed_fd, &refs, err);
	return r < 0 ? r : note_sources(seed, &sources, since_ns, err);
}

int agent_git_seed(const struct repo *repo, const char *commit, const char *seed,
		   struct ap_err *err)
{
	int r = fill_seed(repo, commit, seed, err);
	return r < 0 ? ap_err_wrap(err, r, "a git directory for %s", repo->path) : 0;
}

/* --- its copies --- */

static int copy_link(const char *from, const char *to, struct ap_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlink(from, target, sizeof target - 1);
	target[n > 0 ? n : 0] = '\0';
	return n > 0 && symlink(target, to) == 0 ? 0 : ap_err_errno(err, -errno, "%s", from);
}

/* Copies the directory of a seed without its refs, which write_refs() writes. */
static int copy_dir(const char *from, const char *to, bool is_top, struct ap_err *err)
{
	DIR *dir = opendir(from);
	if (!dir)
		return ap_err_errno(err, -errno, "%s", from);
	struct dirent *entry;
	struct stat st;
	int r = mkdir(to, 0777) < 0 ? ap_err_errno(err, -errno, "%s", to) : 0;
	while (r == 0 && (entry = readdir(dir))) {
		AP_CLEANUP_BUF struct ap_buf source = {0};
		AP_CLEANUP_BUF struct ap_buf target = {0};
		const char *name = entry->d_name;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, NOTES) == 0 ||
		    (is_top && (strcmp(name, "refs") == 0 || strcmp(name, "packed-refs") == 0)))
			continue;
		ap_buf_printf(&source, "%s/%s", from, name);
		ap_buf_printf(&target, "%s/%s", to, name);
		if (fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = ap_err_errno(err, -errno, "%s", ap_buf_text(&source));
		else if (S_ISDIR(st.st_mode))
			r = copy_dir(ap_buf_text(&source), ap_buf_text(&target), false, err);
		else if (S_ISLNK(st.st_mode)) /* the user's hook made it */
			r = copy_link(ap_buf_text(&source), ap_buf_text(&target), err);
		else if (S_ISREG(st.st_mode))
			r = file_copy(ap_buf_text(&source), ap_buf_text(&target), false, err);
	}
	closedir(dir);
	return r;
}

int agent_git_renew_refs(const struct repo *repo, const char *seed, const char *dir,
			 struct ap_err *err)
{
	CLEANUP_REPO_REFS struct repo_refs refs = {0};
	AP_CLEANUP_BUF struct ap_buf old = {0};
	AP_CLEANUP_CLOSE int seed_fd = data_open_top(seed);
	AP_CLEANUP_CLOSE int dir_fd = data_open_top(dir);
	if (seed_fd < 0 || dir_fd < 0)
		return ap_err_errno(err, seed_fd < 0 ? seed_fd : dir_fd, "%s", dir);
	ap_buf_printf(&old, "%s/refs", dir);
	int r = remove_tree(ap_buf_text(&old), NULL, err);
	if (r == 0)
		r = make_dir(dir, "refs", err);
	if (r == 0)
		r = make_dir(dir, "refs/heads", err);
	if (r == 0)
		r = make_dir(dir, "refs/tags", err);
	if (r == 0)
		r = refs_now(repo, seed, seed_fd, &refs, err);
	return r < 0 ? r : write_refs(dir, dir_fd, &refs, err);
}

int agent_git_copy(const struct repo *repo, const char *seed, const char *dir, struct ap_err *err)
{
	int r = copy_dir(seed, dir, true, err);
	return r < 0 ? r : agent_git_renew_refs(repo, seed, dir, err);
}

int agent_git_start(const char *dir, const char *branch, const char *commit, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	AP_CLEANUP_BUF struct ap_buf head = {0};
	AP_CLEANUP_BUF struct ap_buf tip = {0};
	AP_CLEANUP_CLOSE int dir_fd = data_open_top(dir);
	ap_buf_printf(&ref, "refs/heads/%s", branch);
	ap_buf_printf(&head, "ref: %s\n", ap_buf_text(&ref));
	ap_buf_printf(&tip, "%s\n", commit);
	int r = dir_fd < 0 ? dir_fd : ref.failed || head.failed || tip.failed ? -ENOMEM : 0;
	if (r == 0)
		r = put_file(dir_fd, ap_buf_text(&ref), ap_buf_text(&tip));
	if (r == 0)
		r = put_file(dir_fd, "HEAD", ap_buf_text(&head));
	return r < 0 ? ap_err_errno(err, r, "%s: putting HEAD on %s", dir, branch) : 0;
}

int agent_git_detach(const char *dir, const char *commit, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf head = {0};
	AP_CLEANUP_CLOSE int dir_fd = data_open_top(dir);
	ap_buf_printf(&head, "%s\n", commit);
	int r = dir_fd < 0 ? dir_fd : head.failed ? -ENOMEM : 0;
	if (r == 0)
		r = put_file(dir_fd, "HEAD", ap_buf_text(&head));
	return r < 0 ? ap_err_errno(err, r, "%s: putting HEAD at %.12s", dir, commit) : 0;
}
