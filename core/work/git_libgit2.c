/* git.h by libgit2: in the process, on the repository's own files. Reads objects from the
 * repository's stores, with their alternates, and from the borrowed ones; writes them to one store
 * alone. As its work tree libgit2 gets the directory of rules, as its index an empty one. */
#include <git2.h>
#include <git2/sys/config.h>
#include <git2/sys/odb_backend.h>
#include <git2/sys/repository.h>

#include "git_rules.h"
#include "git_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

struct libgit2 {
	struct ap_git git;
	git_repository *repo;
	git_odb *odb;		 /* the object stores, to read and to write */
	git_config *config;	 /* all of the configuration; a snapshot */
	struct git_rules *rules; /* NULL: not needed yet */
	int settings_fd;	 /* a file of settings that override the configuration; -1 */
	bool logs;		 /* whether those settings make libgit2 write logs of refs */
	/* which refs get a log when they have none yet, by the repository's configuration */
	enum { LOG_NONE, LOG_NORMAL, LOG_ALL } log_refs;
};

static struct libgit2 *libgit2_of(struct ap_git *git)
{
	return (struct libgit2 *)git;
}

/* --- errors --- */

static int errno_of(int error)
{
	switch (error) {
	case GIT_ENOTFOUND:
		return -ENOENT;
	case GIT_EEXISTS:
		return -EEXIST;
	case GIT_EMODIFIED:
		return -ESTALE;
	case GIT_ELOCKED:
		return -EBUSY;
	case GIT_EINVALIDSPEC:
	case GIT_EINVALID:
		return -EINVAL;
	default: {
		const git_error *last = git_error_last();
		return last && last->klass == GIT_ERROR_NOMEMORY ? -ENOMEM : -EIO;
	}
	}
}

/* The errno for an error of libgit2, with libgit2's own sentence. */
static int failed(struct ap_err *err, int error, const char *what)
{
	const git_error *last = git_error_last();
	return ap_err_set(err, errno_of(error), "%s: %s", what,
			  last && last->message ? last->message : "git failed without a word");
}

/* --- opening --- */

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Held while libgit2 writes a log. The time in a log is local: libgit2 asks the C library for the
 * zone, whose own lock is not visible from outside. */
static pthread_mutex_t logging = PTHREAD_MUTEX_INITIALIZER;
static bool is_usable;

static void begin(void)
{
	/* these extensions change only how git finds its files, which is not left to libgit2 */
	static const char *const extensions[] = {"worktreeconfig", "preciousobjects"};
	is_usable = git_libgit2_init() > 0 &&
		    git_libgit2_opts(GIT_OPT_SET_EXTENSIONS, extensions,
				     sizeof extensions / sizeof *extensions) == 0 &&
		    git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0) == 0 &&
		    /* git does not check named objects either; and they may lie behind a store that
		     * is only borrowed */
		    git_libgit2_opts(GIT_OPT_ENABLE_STRICT_OBJECT_CREATION, 0) == 0;
}

static void close_libgit2(struct ap_git *git)
{
	struct libgit2 *libgit2 = libgit2_of(git);
	git_rules_free(libgit2->rules);
	git_config_free(libgit2->config);
	git_odb_free(libgit2->odb);
	git_repository_free(libgit2->repo);
	if (libgit2->settings_fd >= 0)
		close(libgit2->settings_fd);
	git_fini(git);
	free(libgit2);
}

/* --- the configuration --- */

/* Adds a file of the configuration, if it is there. */
static int add_config(const struct libgit2 *libgit2, git_config *config, const char *path,
		      int level)
{
	if (access(path, R_OK) < 0)
		return 0;
	return git_config_add_file_ondisk(config, path, (git_config_level_t)level, libgit2->repo,
					  0);
}

static int add_config_in(const struct libgit2 *libgit2, git_config *config, const char *dir,
			 const char *name, int level)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	if (!dir || !*dir)
		return 0;
	ap_buf_printf(&path, "%s/%s", dir, name);
	return path.failed ? -1 : add_config(libgit2, config, ap_buf_text(&path), level);
}

static bool is_on(const char *variable)
{
	const char *value = getenv(variable);
	int on = 0;
	return value && git_config_parse_bool(&on, value) == 0 && on;
}

/* Appends the directory of the user's own git files: $XDG_CONFIG_HOME/git or ~/.config/git. */
static void add_xdg_dir(struct ap_buf *path)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	if (xdg && *xdg)
		ap_buf_printf(path, "%s/git", xdg);
	else if (home && *home)
		ap_buf_printf(path, "%s/.config/git", home);
}

/* The levels of configuration in git; libgit2 does not know all of them. */
enum { LEVEL_SYSTEM = 1, LEVEL_XDG, LEVEL_GLOBAL, LEVEL_LOCAL, LEVEL_WORKTREE, LEVEL_OVER };

/* Adds the files that git reads, as its environment variables select them. */
static int add_files(struct libgit2 *libgit2, git_config *config)
{
	AP_CLEANUP_BUF struct ap_buf xdg = {0};
	const char *system = getenv("GIT_CONFIG_SYSTEM"), *global = getenv("GIT_CONFIG_GLOBAL");
	int on = 0, r = 0;
	if (!is_on("GIT_CONFIG_NOSYSTEM"))
		r = add_config(libgit2, config, system ? system : "/etc/gitconfig", LEVEL_SYSTEM);
	add_xdg_dir(&xdg);
	if (r == 0 && !global)
		r = add_config_in(libgit2, config, xdg.data, "config", LEVEL_XDG);
	if (r == 0 && global)
		r = add_config(libgit2, config, global, LEVEL_GLOBAL);
	else if (r == 0)
		r = add_config_in(libgit2, config, getenv("HOME"), ".gitconfig", LEVEL_GLOBAL);
	if (r == 0)
		r = add_config_in(libgit2, config, libgit2->git.common_dir, "config", LEVEL_LOCAL);
	if (r == 0 && git_config_get_bool(&on, config, "extensions.worktreeconfig") == 0 && on)
		r = add_config_in(libgit2, config, libgit2->git.git_dir, "config.worktree",
				  LEVEL_WORKTREE);
	return r;
}

/* Appends a value, quoted for a file of the configuration. */
static void add_quoted(struct ap_buf *text, const char *value)
{
	ap_buf_adds(text, "\"");
	for (; *value; value++) {
		if (*value == '\n')
			ap_buf_adds(text, "\\n");
		else if (*value == '\t')
			ap_buf_adds(text, "\\t");
		else if (*value == '\b')
			ap_buf_adds(text, "\\b");
		else {
			if (strchr("\"\\", *value))
				ap_buf_adds(text, "\\");
			ap_buf_add(text, value, 1);
		}
	}
	ap_buf_adds(text, "\"\n");
}

/* Appends a setting SECTION[.SUBSECTION].KEY with its value. */
static void add_setting(struct ap_buf *text, const char *name, const char *value)
{
	const char *dot = strchr(name, '.'), *last = strrchr(name, '.');
	if (!dot)
		return;
	ap_buf_printf(text, "[%.*s", (int)(dot - name), name);
	if (last > dot) {
		ap_buf_adds(text, " \"");
		for (const char *at = dot + 1; at < last; at++) {
			if (strchr("\"\\", *at))
				ap_buf_adds(text, "\\");
			ap_buf_add(text, at, 1);
		}
		ap_buf_adds(text, "\"");
	}
	ap_buf_printf(text, "]\n%s = ", last + 1);
	add_quoted(text, value);
}

/* Appends the settings of the environment: GIT_CONFIG_COUNT with its keys and values. */
static void add_environment(struct ap_buf *text)
{
	const char *count = getenv("GIT_CONFIG_COUNT");
	long n = count ? strtol(count, NULL, 10) : 0;
	for (long i = 0; i < n && i < 1000; i++) {
		char key[40], value[40];
		snprintf(key, sizeof key, "GIT_CONFIG_KEY_%ld", i);
		snprintf(value, sizeof value, "GIT_CONFIG_VALUE_%ld", i);
		if (getenv(key) && getenv(value))
			add_setting(text, getenv(key), getenv(value));
	}
}

/* Appends a setting that is a path, which may begin with ~/; if it is not set, the file of the
 * user's that git reads then. */
static void add_path_setting(struct ap_buf *text, git_config *config, const char *name,
			     const char *otherwise)
{
	git_buf found = {0};
	AP_CLEANUP_BUF struct ap_buf path = {0};
	if (git_config_get_path(&found, config, name) == 0) {
		ap_buf_adds(&path, found.ptr);
	} else {
		add_xdg_dir(&path);
		if (path.len > 0)
			ap_buf_printf(&path, "/%s", otherwise);
	}
	/* a relative path would be in the work tree, where nothing counts */
	add_setting(text, name, path.len > 0 && *path.data == '/' ? path.data : "/dev/null");
	git_buf_dispose(&found);
}

/* Which refs get a log, as git decides it. */
static int log_refs_of(git_config *config)
{
	git_buf value = {0};
	int bare = 0, on = 0;
	(void)git_config_get_bool(&bare, config, "core.bare"); /* not set: not bare */
	if (git_config_get_string_buf(&value, config, "core.logallrefupdates") != 0)
		return bare ? LOG_NONE : LOG_NORMAL;
	bool all = strcasecmp(value.ptr, "always") == 0;
	bool is_bool = git_config_parse_bool(&on, value.ptr) == 0;
	git_buf_dispose(&value);
	return all ? LOG_ALL : !is_bool || on ? LOG_NORMAL : LOG_NONE;
}

/* Appends the settings that override all others: those of the file system that the files lie on,
 * whatever the repository's own is like. */
static void add_own(struct ap_buf *text, git_config *config, bool logs)
{
	add_setting(text, "core.ignorecase", "false");
	add_setting(text, "core.filemode", "true");
	add_setting(text, "core.symlinks", "true");
	add_setting(text, "core.precomposeunicode", "false");
	add_setting(text, "core.safecrlf", "false");
	add_setting(text, "core.logallrefupdates", logs ? "always" : "false");
	add_path_setting(text, config, "core.excludesfile", "ignore");
	add_path_setting(text, config, "core.attributesfile", "attributes");
}

/* Writes the settings to a file without a name, as libgit2 reads settings from files only. */
static int write_settings(struct libgit2 *libgit2, git_config *config, bool logs)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	add_environment(&text);
	add_own(&text, config, logs);
	if (libgit2->settings_fd >= 0)
		close(libgit2->settings_fd);
	libgit2->settings_fd = memfd_create("settings", MFD_CLOEXEC);
	return text.failed || libgit2->settings_fd < 0 ||
			       write(libgit2->settings_fd, text.data, text.len) != (ssize_t)text.len
		       ? -1
		       : 0;
}

/* Gives the repository handle all of the configuration, as it is now. */
static int configure(struct libgit2 *libgit2, bool logs)
{
	char path[40];
	git_config *config = NULL, *snapshot = NULL;
	int r = git_config_new(&config);
	if (r == 0)
		r = add_files(libgit2, config);
	if (r == 0) {
		libgit2->log_refs = log_refs_of(config);
		libgit2->logs = logs;
		r = write_settings(libgit2, config, logs);
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", libgit2->settings_fd);
	if (r == 0)
		r = git_config_add_file_ondisk(config, path, (git_config_level_t)LEVEL_OVER,
					       libgit2->repo, 0);
	if (r == 0)
		r = git_repository_set_config(libgit2->repo, config);
	if (r == 0)
		r = git_config_snapshot(&snapshot, config);
	if (r == 0) {
		git_config_free(libgit2->config);
		libgit2->config = snapshot;
	}
	git_config_free(config);
	return r;
}

/* --- the objects --- */

/* Makes a store read-only: libgit2 writes nothing there, and does not touch the times of its files.
 */
static void make_read_only(git_odb_backend *backend)
{
	backend->write = NULL;
	backend->writestream = NULL;
	backend->writepack = NULL;
	backend->freshen = NULL;
}

/* Adds a store without its alternates. */
static int add_store(git_odb *odb, const char *dir)
{
	git_odb_backend *loose = NULL, *pack = NULL;
	int r = git_odb_backend_loose(&loose, dir, 0, 0, 0, 0);
	if (r == 0) {
		make_read_only(loose);
		r = git_odb_add_backend(odb, loose, 1);
	}
	if (r == 0 && (r = git_odb_backend_pack(&pack, dir)) == 0) {
		make_read_only(pack);
		r = git_odb_add_backend(odb, pack, 2);
	}
	return r;
}

/* Adds the store for new objects, which goes again soon: compressing them well is not worth it. But
 * libgit2 cannot read the header of an object that is not compressed at all. */
static int add_writer(git_odb *odb, const char *dir)
{
	git_odb_backend *loose = NULL, *pack = NULL;
	for (size_t i = 0; i < git_odb_num_backends(odb); i++) {
		git_odb_backend *backend;
		if (git_odb_get_backend(&backend, odb, i) == 0)
			make_read_only(backend);
	}
	int r = git_odb_backend_loose(&loose, dir, 1, 0, 0, 0);
	if (r == 0)
		r = git_odb_add_backend(odb, loose, 100);
	if (r == 0 && (r = git_odb_backend_pack(&pack, dir)) == 0) {
		make_read_only(pack);
		r = git_odb_add_backend(odb, pack, 99);
	}
	return r;
}

static int open_objects(struct libgit2 *libgit2)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	const struct ap_git *git = &libgit2->git;
	ap_buf_printf(&dir, "%s/objects", git->common_dir);
	int r = dir.failed ? -1 : git_odb_open(&libgit2->odb, ap_buf_text(&dir));
	if (r == 0 && git->objects)
		r = add_writer(libgit2->odb, git->objects);
	for (size_t i = 0; r == 0 && git->borrowed[i]; i++)
		r = add_store(libgit2->odb, git->borrowed[i]);
	if (r == 0)
		r = git_repository_set_odb(libgit2->repo, libgit2->odb);
	return r;
}

/* Sets the directory of rules as the work tree, and an empty index: libgit2 finds nothing else
 * there. */
static int set_work_tree(struct libgit2 *libgit2)
{
	git_index *index = NULL;
	int r = git_index_new(&index);
	if (r == 0)
		r = git_repository_set_index(libgit2->repo, index);
	if (r == 0 && libgit2->git.rules)
		r = git_repository_set_workdir(libgit2->repo, libgit2->git.rules, 0);
	git_index_free(index);
	return r;
}

/* Whether several users write to the repository: it has modes and groups then that libgit2 does not
 * keep. */
static bool is_shared(const struct libgit2 *libgit2)
{
	git_buf value = {0};
	bool found =
		git_config_get_string_buf(&value, libgit2->config, "core.sharedrepository") == 0;
	static const char *const no[] = {"", "umask", "false", "no", "off", "0"};
	for (size_t i = 0; i < sizeof no / sizeof *no && found; i++)
		found = strcasecmp(value.ptr ? value.ptr : "", no[i]) != 0;
	git_buf_dispose(&value);
	return found;
}

/* Whether the repository says that it needs extensions. libgit2 1.5 knows none that is in use, and
 * its own check leaks 20 KB for each setting that is no extension (git_regexp_match does not free a
 * failed match). */
static bool has_extensions(const char *git_dir)
{
	char *path = NULL;
	git_config *config = NULL;
	int32_t version = 0;
	if (asprintf(&path, "%s/config", git_dir) < 0)
		return false;
	if (git_config_open_ondisk(&config, path) == 0)
		git_config_get_int32(&version, config, "core.repositoryformatversion");
	git_config_free(config);
	free(path);
	return version > 0;
}

static const struct git_ops libgit2_ops;

int git_libgit2_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err)
{
	pthread_once(&once, begin);
	struct libgit2 *libgit2 = is_usable ? calloc(1, sizeof *libgit2) : NULL;
	if (!libgit2)
		return is_usable ? ap_err_errno(err, -ENOMEM, "git") : 1;
	libgit2->settings_fd = -1;
	libgit2->git.oid_len = GIT_OID_HEXSZ;
	int r = git_init(&libgit2->git, &libgit2_ops, place, err);
	if (r < 0) {
		close_libgit2(&libgit2->git);
		return r;
	}
	r = has_extensions(place->git_dir);
	if (r == 0)
		r = git_repository_open_ext(
			&libgit2->repo, place->git_dir,
			GIT_REPOSITORY_OPEN_NO_SEARCH | GIT_REPOSITORY_OPEN_NO_DOTGIT, NULL);
	if (r == 0)
		r = configure(libgit2, true);
	if (r == 0)
		r = open_objects(libgit2);
	if (r == 0)
		r = set_work_tree(libgit2);
	if (r == 0 && is_shared(libgit2))
		r = 1;
	if (r != 0) {
		close_libgit2(&libgit2->git);
		return 1;
	}
	*ret = &libgit2->git;
	return 0;
}

/* --- settings --- */

static int setting(struct ap_git *git, const char *name, char **ret, struct ap_err *err)
{
	git_config_entry *entry = NULL;
	int r = git_config_get_entry(&entry, libgit2_of(git)->config, name);
	*ret = NULL;
	if (r == GIT_ENOTFOUND || r == GIT_EINVALIDSPEC)
		return 0;
	if (r < 0)
		return failed(err, r, name);
	*ret = strdup(entry->value ? entry->value : "true");
	git_config_entry_free(entry);
	return *ret ? 0 : ap_err_errno(err, -ENOMEM, "%s", name);
}

static int has_smudge(struct ap_git *git, struct ap_err *err)
{
	git_config_iterator *all = NULL;
	git_config_entry *entry;
	bool found = false;
	int r = git_config_iterator_new(&all, libgit2_of(git)->config);
	while (r == 0 && !found && (r = git_config_next(&entry, all)) == 0)
		found = git_is_smudge(entry->name);
	git_config_iterator_free(all);
	return r == 0 || r == GIT_ITEROVER ? found : failed(err, r, "settings");
}

/* --- revisions and refs --- */

static int copy_commit(git_object *object, char ret[GIT_OID_MAX + 1])
{
	git_object *commit = NULL;
	int r = git_object_peel(&commit, object, GIT_OBJECT_COMMIT);
	if (r == 0)
		git_oid_tostr(ret, GIT_OID_MAX + 1, git_object_id(commit));
	git_object_free(commit);
	return r;
}

/* Whether a revision is the full name of a ref. */
static bool is_full_name(const char *revision)
{
	return strcmp(revision, "HEAD") == 0 ||
	       (strncmp(revision, "refs/", 5) == 0 && !strpbrk(revision, "^~:@{"));
}

static int resolve_ref(struct libgit2 *libgit2, const char *ref, char ret[GIT_OID_MAX + 1])
{
	git_object *object = NULL;
	git_oid oid;
	int r = git_reference_name_to_id(&oid, libgit2->repo, ref);
	if (r == 0)
		r = git_object_lookup(&object, libgit2->repo, &oid, GIT_OBJECT_ANY);
	if (r == 0)
		r = copy_commit(object, ret);
	git_object_free(object);
	return r;
}

/* Whether libgit2 would match patterns for a revision: libgit2 1.5 leaks 20 KB at each that does
 * not match, of messages, of reflogs, and of the output of `git describe`, which any name with "-g"
 * may be. */
static bool asks_for_patterns(const char *revision)
{
	return strpbrk(revision, "{:") || strstr(revision, "-g");
}

/* Revisions have many other forms: git may understand what libgit2 does not. */
static int resolve(struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err)
{
	struct libgit2 *libgit2 = libgit2_of(git);
	if (is_full_name(revision)) {
		int r = resolve_ref(libgit2, revision, ret);
		return r == 0 ? 0
		       : r == GIT_ENOTFOUND || r == GIT_EINVALIDSPEC || r == GIT_EPEEL
			       ? 1
			       : failed(err, r, revision);
	}
	git_object *object = NULL;
	git_reference *branch = NULL;
	int r;
	if (!asks_for_patterns(revision))
		r = git_revparse_single(&object, libgit2->repo, revision);
	else if ((r = git_reference_dwim(&branch, libgit2->repo, revision)) == 0)
		r = git_reference_peel(&object, branch, GIT_OBJECT_COMMIT);
	if (r == 0)
		r = copy_commit(object, ret);
	git_object_free(object);
	git_reference_free(branch);
	return r == 0 ? 0 : git_ask_revision(git, revision, ret, err);
}

/* Sets the name that logs of refs get. */
static int set_ident(struct ap_git *git)
{
	const char *ident = git_ident(git, false);
	const char *mail = ident ? strrchr(ident, '<') : NULL;
	if (!mail)
		return -1;
	AP_CLEANUP_FREE char *name = strndup(ident, (size_t)(mail - 1 - ident));
	AP_CLEANUP_FREE char *email = strndup(mail + 1, strlen(mail) - 2);
	return name && email ? git_repository_set_ident(libgit2_of(git)->repo, name, email) : -1;
}

static int list_refs(struct ap_git *git, const char *prefix, struct ap_buf *ret,
		     struct ap_err *err);

/* The object that a ref names now; GIT_ENOTFOUND: there is none. */
static int current(struct libgit2 *libgit2, const char *ref, git_oid *ret)
{
	return git_reference_name_to_id(ret, libgit2->repo, ref);
}

/* Whether there is a ref whose name is a directory of this one's, or the other way round. */
static bool is_in_the_way(struct libgit2 *libgit2, const char *ref)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	AP_CLEANUP_BUF struct ap_buf below = {0};
	git_oid oid;
	for (const char *slash = ref; (slash = strchr(slash, '/')); slash++) {
		name.len = 0;
		ap_buf_add(&name, ref, (size_t)(slash - ref));
		if (!name.failed && current(libgit2, name.data, &oid) == 0)
			return true;
	}
	name.len = 0;
	ap_buf_printf(&name, "%s/", ref);
	return !name.failed && list_refs(&libgit2->git, name.data, &below, NULL) == 0 &&
	       below.len > 0;
}

/* The errno of a failed change of a ref. libgit2 returns the same error for a ref that is not at
 * `old` and for a name that is in the way of another ref's. */
static int ref_failed(struct libgit2 *libgit2, int error, const char *ref, const char *old,
		      struct ap_err *err)
{
	git_oid oid;
	int r = failed(err, error, ref);
	if (r == -EBUSY || r == -ENOMEM || r == -EINVAL)
		return r;
	int now = current(libgit2, ref, &oid);
	if (old && *old ? now == GIT_ENOTFOUND || (now == 0 && git_oid_streq(&oid, old) != 0)
			: old && now == 0)
		return -ESTALE;
	return is_in_the_way(libgit2, ref) ? -EEXIST : r == -EEXIST ? -EIO : r;
}

/* Whether a ref gets a log entry: git always writes to a log that is there. */
static bool wants_log(struct libgit2 *libgit2, const char *ref)
{
	static const char *const normal[] = {"refs/heads/", "refs/remotes/", "refs/notes/"};
	if (strncmp(ref, "refs/agentpool/", 15) == 0 || libgit2->log_refs == LOG_ALL ||
	    git_reference_has_log(libgit2->repo, ref) == 1)
		return true;
	bool is_normal = false;
	for (size_t i = 0; i < sizeof normal / sizeof *normal; i++)
		is_normal |= strncmp(ref, normal[i], strlen(normal[i])) == 0;
	return is_normal && libgit2->log_refs == LOG_NORMAL;
}

static int set_ref(struct ap_git *git, const char *ref, const char *oid, const char *old,
		   const char *why, struct ap_err *err)
{
	struct libgit2 *libgit2 = libgit2_of(git);
	git_reference *made = NULL;
	git_oid new_oid, old_oid;
	bool logs = wants_log(libgit2, ref);
	int r = git_oid_fromstr(&new_oid, oid);
	if (r == 0 && old && *old)
		r = git_oid_fromstr(&old_oid, old);
	if (r == 0 && logs != libgit2->logs)
		r = configure(libgit2, logs);
	if (r == 0)
		r = set_ident(git);
	pthread_mutex_lock(&logging);
	if (r == 0)
		r = git_reference_create_matching(&made, libgit2->repo, ref, &new_oid,
						  !old || *old != '\0',
						  old && *old ? &old_oid : NULL, why);
	pthread_mutex_unlock(&logging);
	git_reference_free(made);
	return r == 0 ? 0 : ref_failed(libgit2, r, ref, old, err);
}

static int remove_ref(struct ap_git *git, const char *ref, const char *old, struct ap_err *err)
{
	struct libgit2 *libgit2 = libgit2_of(git);
	git_reference *found = NULL;
	int r = git_reference_lookup(&found, libgit2->repo, ref);
	if (r == GIT_ENOTFOUND && !old)
		return 0;
	if (r == 0 && old) {
		git_oid oid;
		r = current(libgit2, ref, &oid);
		if (r == 0 && git_oid_streq(&oid, old) != 0)
			r = GIT_EMODIFIED;
	}
	/* fails if the ref has changed since it was found */
	if (r == 0)
		r = git_reference_delete(found);
	git_reference_free(found);
	return r == 0 ? 0 : ref_failed(libgit2, r, ref, old, err);
}

static void list_ref(git_repository *repo, git_reference *ref, struct ap_buf *ret)
{
	char oid[GIT_OID_HEXSZ + 1];
	git_oid target;
	const char *name = git_reference_name(ref);
	if (git_reference_name_to_id(&target, repo, name) < 0)
		return; /* broken */
	ap_buf_printf(ret, "%s %s\n", git_oid_tostr(oid, sizeof oid, &target), name);
}

static int list_refs(struct ap_git *git, const char *prefix, struct ap_buf *ret, struct ap_err *err)
{
	struct libgit2 *libgit2 = libgit2_of(git);
	AP_CLEANUP_BUF struct ap_buf glob = {0};
	git_reference_iterator *iterator = NULL;
	git_reference *ref;
	bool is_plain = !strpbrk(prefix, "*?[\\");
	ap_buf_printf(&glob, "%s*", is_plain ? prefix : "");
	int r = git_reference_iterator_glob_new(&iterator, libgit2->repo, ap_buf_text(&glob));
	while (r == 0 && (r = git_reference_next(&ref, iterator)) == 0) {
		if (strncmp(git_reference_name(ref), prefix, strlen(prefix)) == 0)
			list_ref(libgit2->repo, ref, ret);
		git_reference_free(ref);
	}
	git_reference_iterator_free(iterator);
	return r == GIT_ITEROVER ? 0 : failed(err, r, "refs");
}

/* --- objects --- */

static enum git_type type_of(git_object_t type)
{
	switch (type) {
	case GIT_OBJECT_COMMIT:
		return GIT_TYPE_COMMIT;
	case GIT_OBJECT_TREE:
		return GIT_TYPE_TREE;
	case GIT_OBJECT_BLOB:
		return GIT_TYPE_BLOB;
	case GIT_OBJECT_TAG:
		return GIT_TYPE_TAG;
	default:
		return GIT_TYPE_NONE;
	}
}

static git_object_t type_for(enum git_type type)
{
	return type == GIT_TYPE_COMMIT ? GIT_OBJECT_COMMIT
	       : type == GIT_TYPE_TREE ? GIT_OBJECT_TREE
				       : GIT_OBJECT_BLOB;
}

int git_libgit2_header(git_odb *odb, const git_oid *oid, size_t *ret_size, git_object_t *ret_type)
{
	git_odb_object *object = NULL;
	int r = git_odb_read_header(ret_size, ret_type, odb, oid);
	if (r == 0 || r == GIT_ENOTFOUND)
		return r;
	r = git_odb_read(&object, odb, oid);
	if (r == 0) {
		*ret_size = git_odb_object_size(object);
		*ret_type = git_odb_object_type(object);
	}
	git_odb_object_free(object);
	return r;
}

static int look(struct ap_git *git, const char *name, enum git_type *ret_type, size_t *ret_size,
		struct ap_err *err)
{
	git_object_t type;
	git_oid oid;
	int r = git_oid_fromstr(&oid, name);
	if (r == 0)
		r = git_libgit2_header(libgit2_of(git)->odb, &oid, ret_size, &type);
	if (r < 0)
		return failed(err, r, name);
	*ret_type = type_of(type);
	return 0;
}

static int read_object(struct ap_git *git, const char *name, size_t max, enum git_type *ret_type,
		       struct ap_buf *ret, struct ap_err *err)
{
	git_odb_object *object = NULL;
	git_oid oid;
	size_t size;
	int r = look(git, name, ret_type, &size, err);
	if (r < 0)
		return r;
	if (size > max)
		return ap_err_set(err, -EFBIG, "%s has more than %zu bytes", name, max);
	r = git_oid_fromstr(&oid, name);
	if (r == 0)
		r = git_odb_read(&object, libgit2_of(git)->odb, &oid);
	if (r < 0)
		return failed(err, r, name);
	ap_buf_add(ret, git_odb_object_data(object), git_odb_object_size(object));
	git_odb_object_free(object);
	return ret->failed ? ap_err_errno(err, -ENOMEM, "%s", name) : 0;
}

static int write_object(struct ap_git *git, enum git_type type, const void *data, size_t len,
			char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	git_oid oid;
	int r = git_odb_write(&oid, libgit2_of(git)->odb, data, len, type_for(type));
	if (r < 0)
		return failed(err, r, "cannot write an object");
	git_oid_tostr(ret, GIT_OID_MAX + 1, &oid);
	return 0;
}

/* Copies `size` bytes of a file into a stream. -EAGAIN: the file is shorter now. */
static int pour(int fd, off_t size, git_odb_stream *stream)
{
	static const size_t block_size = 64 << 10;
	AP_CLEANUP_FREE char *block = malloc(block_size);
	int r = block ? 0 : -ENOMEM;
	for (off_t at = 0; r == 0 && at < size;) {
		size_t want = size - at < (off_t)block_size ? (size_t)(size - at) : block_size;
		ssize_t n = pread(fd, block, want, at);
		if (n < 0 && errno != EINTR)
			r = -errno;
		else if (n == 0)
			r = -EAGAIN;
		else if (n > 0 && git_odb_stream_write(stream, block, (size_t)n) < 0)
			r = -EIO;
		at += n > 0 ? n : 0;
	}
	return r;
}

/* How often write_fd() tries to write a file that somebody may make shorter meanwhile. */
#define TRIES 8

static int write_fd(struct ap_git *git, int fd, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	git_oid oid;
	struct stat st;
	int r = -EAGAIN;
	for (unsigned i = 0; r == -EAGAIN && i < TRIES; i++) {
		git_odb_stream *stream = NULL;
		if (fstat(fd, &st) < 0)
			return ap_err_errno(err, -errno, "file");
		int error = git_odb_open_wstream(&stream, libgit2_of(git)->odb,
						 (git_object_size_t)st.st_size, GIT_OBJECT_BLOB);
		r = error < 0 ? -EIO : pour(fd, st.st_size, stream);
		if (r == 0 && (error = git_odb_stream_finalize_write(&oid, stream)) < 0)
			r = -EIO;
		if (r == -EIO)
			r = failed(err, error, "cannot write an object");
		else if (r < 0)
			r = ap_err_errno(err, r, "file");
		git_odb_stream_free(stream);
	}
	if (r == 0)
		git_oid_tostr(ret, GIT_OID_MAX + 1, &oid);
	return r;
}

/* libgit2 does not know where the history of a shallow repository ends. */
static int is_ancestor(struct ap_git *git, const char *old, const char *commit, struct ap_err *err)
{
	struct libgit2 *libgit2 = libgit2_of(git);
	git_oid old_oid, commit_oid;
	int r = git_oid_fromstr(&old_oid, old);
	if (r == 0)
		r = git_oid_fromstr(&commit_oid, commit);
	if (r == 0)
		r = git_graph_descendant_of(libgit2->repo, &commit_oid, &old_oid);
	return r >= 0 ? r : failed(err, r, commit);
}

/* --- rules --- */

/* A setting that is a path, which add_path_setting() has made absolute. */
static char *path_setting(struct libgit2 *libgit2, const char *name)
{
	char *path = NULL;
	return setting(&libgit2->git, name, &path, NULL) == 0 ? path : NULL;
}

static struct git_rules *rules_of(struct libgit2 *libgit2, struct ap_err *err)
{
	AP_CLEANUP_FREE char *excludes = path_setting(libgit2, "core.excludesfile");
	AP_CLEANUP_FREE char *attributes = path_setting(libgit2, "core.attributesfile");
	AP_CLEANUP_BUF struct ap_buf info = {0};
	if (libgit2->rules)
		return libgit2->rules;
	ap_buf_printf(&info, "%s/info", libgit2->git.common_dir);
	if (!info.failed)
		libgit2->rules = git_rules_new(&(struct git_rules_place){
			.dir = libgit2->git.rules,
			.info = info.data,
			.excludes = excludes,
			.attributes = attributes,
			.system = is_on("GIT_ATTR_NOSYSTEM") ? NULL : "/etc/gitattributes",
		});
	if (!libgit2->rules)
		ap_err_errno(err, -ENOMEM, "rules");
	return libgit2->rules;
}

static int is_ignored(struct ap_git *git, const char *path, bool is_dir, struct ap_err *err)
{
	struct git_rules *rules = rules_of(libgit2_of(git), err);
	int r = rules ? git_rules_ignore(rules, path, is_dir) : -ENOMEM;
	return r < 0 ? ap_err_errno(err, r, "%s", path) : r;
}

static int attributes(struct ap_git *git, const char *path, struct git_attrs *ret,
		      struct ap_err *err)
{
	if (!git->rules)
		return 0;
	struct git_rules *rules = rules_of(libgit2_of(git), err);
	int r = rules ? git_rules_attributes(rules, path, ret->value) : -ENOMEM;
	return r < 0 ? ap_err_errno(err, r, "%s", path) : 0;
}

static int diffstat(struct ap_git *git, const char *old_tree, const char *new_tree,
		    struct ap_buf *ret, struct ap_err *err)
{
	return git_libgit2_diffstat(git, libgit2_of(git)->repo, old_tree, new_tree, ret, err);
}

static const struct git_ops libgit2_ops = {
	.kind = "libgit2",
	.close = close_libgit2,
	.resolve = resolve,
	.set_ref = set_ref,
	.remove_ref = remove_ref,
	.list_refs = list_refs,
	.look = look,
	.read = read_object,
	.write = write_object,
	.write_fd = write_fd,
	.is_ancestor = is_ancestor,
	.is_ignored = is_ignored,
	.attributes = attributes,
	.diffstat = diffstat,
	.has_smudge = has_smudge,
	.setting = setting,
};
