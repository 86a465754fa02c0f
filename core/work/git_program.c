/* git.h by the git program, for repositories that libgit2 cannot open. Frequent questions go to
 * processes that stay as long as the handle; the first question starts each, and the next one
 * starts it again if it has ended. Files go to them as /proc/PID/fd/N: git finds no file by its
 * name. */
#include "git_process.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

struct program {
	struct ap_git git;
	struct git_process git_process; /* how git runs */
	struct git_coprocess names, contents, attributes, ignores;
	struct git_coprocess writers[GIT_TYPE_TAG]; /* by the type that they write */
	struct ap_buf settings;			    /* as `git config --list -z` prints them */
	bool has_settings;
};

static struct program *program_of(struct ap_git *git)
{
	return (struct program *)git;
}

/* --- how git is run --- */

static int start(struct program *program, struct git_coprocess *process, struct ap_err *err,
		 const char *const *args)
{
	return process->pid ? 0
			    : git_coprocess_start(process, &program->git_process.place, err, args);
}

/* The result of a question. On failure ends the process; the next question starts it again. */
static int asked(struct git_coprocess *process, int r, const char *what, struct ap_err *err)
{
	if (r >= 0)
		return r;
	git_coprocess_end(process);
	if (r == -EPIPE)
		return ap_err_set(err, -EIO, "git ended while it was asked for %s", what);
	return ap_err_errno(err, r, "git, asked for %s", what);
}

static void close_program(struct ap_git *git)
{
	struct program *program = program_of(git);
	git_coprocess_end(&program->names);
	git_coprocess_end(&program->contents);
	git_coprocess_end(&program->attributes);
	git_coprocess_end(&program->ignores);
	for (size_t i = 0; i < GIT_TYPE_TAG; i++)
		git_coprocess_end(&program->writers[i]);
	git_process_fini(&program->git_process);
	ap_buf_fini(&program->settings);
	git_fini(git);
	free(program);
}

/* Finds out how long object names are. */
static int ask_format(struct program *program, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf out = {0};
	int r = git_must(&program->git_process.place, &out, err,
			 GIT_ARGS("rev-parse", "--show-object-format"));
	if (r < 0)
		return r;
	git_trim(&out);
	if (strcmp(ap_buf_text(&out), "sha1") == 0)
		program->git.oid_len = 40;
	else if (strcmp(ap_buf_text(&out), "sha256") == 0)
		program->git.oid_len = 64;
	else
		return ap_err_set(err, -EINVAL, "%s has objects of an unknown kind: %s",
				  program->git.git_dir, ap_buf_text(&out));
	return 0;
}

static const struct git_ops program_ops;

int git_program_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err)
{
	struct program *program = calloc(1, sizeof *program);
	if (!program)
		return ap_err_errno(err, -ENOMEM, "git");
	int r = git_init(&program->git, &program_ops, place, err);
	if (r == 0 && git_process_init(&program->git_process, &program->git) < 0)
		r = ap_err_errno(err, -ENOMEM, "git");
	if (r == 0)
		r = ask_format(program, err);
	if (r < 0)
		close_program(&program->git);
	else
		*ret = &program->git;
	return r;
}

/* --- settings --- */

static int read_settings(struct program *program, struct ap_err *err)
{
	if (program->has_settings)
		return 0;
	int r = git_must(&program->git_process.place, &program->settings, err,
			 GIT_ARGS("config", "--list", "-z"));
	program->has_settings = r == 0;
	return r;
}

/* The value of the last setting of that name; NULL: there is none. Each setting is a name, a
 * newline and a value, or a name alone, with a NUL at its end. */
static const char *find_setting(const struct ap_buf *settings, const char *name)
{
	size_t len = strlen(name);
	const char *found = NULL, *end = settings->data + settings->len;
	for (const char *at = settings->data; at && at < end; at += strlen(at) + 1) {
		if (strncmp(at, name, len) == 0 && at[len] == '\n')
			found = at + len + 1;
		else if (strcmp(at, name) == 0)
			found = "true";
	}
	return found;
}

static int setting(struct ap_git *git, const char *name, char **ret, struct ap_err *err)
{
	struct program *program = program_of(git);
	int r = read_settings(program, err);
	const char *found = r == 0 ? find_setting(&program->settings, name) : NULL;
	*ret = found ? strdup(found) : NULL;
	return r < 0 || !found || *ret ? r : ap_err_errno(err, -ENOMEM, "%s", name);
}

static int has_smudge(struct ap_git *git, struct ap_err *err)
{
	struct program *program = program_of(git);
	int r = read_settings(program, err);
	const char *end = program->settings.data + program->settings.len;
	for (const char *at = program->settings.data; r == 0 && at && at < end;
	     at += strlen(at) + 1) {
		if (git_is_smudge(at))
			return 1;
	}
	return r;
}

/* --- what names mean --- */

static const struct {
	const char *word;
	enum git_type type;
} types[] = {{"commit", GIT_TYPE_COMMIT},
	     {"tree", GIT_TYPE_TREE},
	     {"blob", GIT_TYPE_BLOB},
	     {"tag", GIT_TYPE_TAG}};

/* Parses an answer of cat-file: OID TYPE SIZE. False: it has another form, such as "NAME missing",
 * whatever NAME is. */
bool git_parse_header(const char *line, size_t oid_len, char ret[GIT_OID_MAX + 1],
		      enum git_type *ret_type, size_t *ret_size)
{
	char *end;
	if (strspn(line, "0123456789abcdef") != oid_len || line[oid_len] != ' ')
		return false;
	const char *word = line + oid_len + 1;
	size_t len = strcspn(word, " ");
	*ret_type = GIT_TYPE_NONE;
	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		if (strlen(types[i].word) == len && strncmp(word, types[i].word, len) == 0)
			*ret_type = types[i].type;
	}
	if (*ret_type == GIT_TYPE_NONE || word[len] != ' ' || word[len + 1] < '0' ||
	    word[len + 1] > '9')
		return false;
	errno = 0;
	*ret_size = strtoul(word + len + 1, &end, 10);
	if (*end || errno)
		return false;
	memcpy(ret, line, oid_len);
	ret[oid_len] = '\0';
	return true;
}

/* Asks cat-file about a name, and reads the first line of its answer. 1: there is no such object.
 */
static int ask_name(struct program *program, struct git_coprocess *process, const char *option,
		    const char *name, char ret[GIT_OID_MAX + 1], enum git_type *ret_type,
		    size_t *ret_size, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	if (strchr(name, '\n'))
		return 1;
	ap_buf_printf(&line, "%s\n", name);
	int r = line.failed ? -ENOMEM : start(program, process, err, GIT_ARGS("cat-file", option));
	if (r < 0)
		return r;
	r = git_coprocess_ask(process, line.data, line.len);
	line.len = 0;
	if (r == 0)
		r = git_coprocess_line(process, '\n', &line);
	if (r < 0)
		return asked(process, r, "an object", err);
	return git_parse_header(line.data, program->git.oid_len, ret, ret_type, ret_size) ? 0 : 1;
}

static int resolve(struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	struct program *program = program_of(git);
	enum git_type type;
	size_t size;
	ap_buf_printf(&name, "%s%s", revision, strncmp(revision, ":/", 2) == 0 ? "" : "^{commit}");
	if (name.failed)
		return ap_err_errno(err, -ENOMEM, "%s", revision);
	return ask_name(program, &program->names, "--batch-check", name.data, ret, &type, &size,
			err);
}

static int look(struct ap_git *git, const char *oid, enum git_type *ret_type, size_t *ret_size,
		struct ap_err *err)
{
	char found[GIT_OID_MAX + 1];
	struct program *program = program_of(git);
	int r = ask_name(program, &program->names, "--batch-check", oid, found, ret_type, ret_size,
			 err);
	return r > 0 ? ap_err_set(err, -ENOENT, "%s: there is no such object", oid) : r;
}

/* --- refs --- */

/* What a ref names now. 1: it is not there. */
static int current(struct program *program, const char *ref, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err)
{
	enum git_type type;
	size_t size;
	return ask_name(program, &program->names, "--batch-check", ref, ret, &type, &size, err);
}

static int list_refs(struct ap_git *git, const char *prefix, struct ap_buf *ret, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	const char *slash = strrchr(prefix, '/');
	ap_buf_add(&dir, prefix, slash ? (size_t)(slash - prefix) + 1 : 0);
	if (dir.failed)
		return ap_err_errno(err, -ENOMEM, "refs");
	/* asks for a directory: wildcards cannot be in the name of one */
	return git_must(
		&program_of(git)->git_process.place, ret, err,
		slash ? GIT_ARGS("for-each-ref", "--format=%(objectname) %(refname)", dir.data)
		      : GIT_ARGS("for-each-ref", "--format=%(objectname) %(refname)"));
}

/* Whether there is a ref whose name is a directory of this one's, or the other way round. */
static bool is_in_the_way(struct program *program, const char *ref)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	AP_CLEANUP_BUF struct ap_buf below = {0};
	char oid[GIT_OID_MAX + 1];
	for (const char *slash = strchr(ref, '/'); slash && (slash = strchr(slash + 1, '/'));) {
		name.len = 0;
		ap_buf_add(&name, ref, (size_t)(slash - ref));
		if (!name.failed && current(program, name.data, oid, NULL) == 0)
			return true;
	}
	name.len = 0;
	ap_buf_printf(&name, "%s/", ref);
	return !name.failed && list_refs(&program->git, name.data, &below, NULL) == 0 &&
	       below.len > 0;
}

/* The errno of a failed change of a ref. */
static int ref_failed(struct program *program, int r, const char *ref, const char *old,
		      struct ap_err *err)
{
	char now[GIT_OID_MAX + 1];
	if (r != -EIO)
		return r;
	int found = current(program, ref, now, NULL);
	if (old && (*old ? found > 0 || (found == 0 && strcmp(now, old) != 0) : found == 0))
		return -ESTALE;
	if (is_in_the_way(program, ref))
		return -EEXIST;
	/* git's own words, untranslated */
	return err && strstr(err->text, ".lock") && strstr(err->text, "File exists") ? -EBUSY : r;
}

/* Changes a ref by git update-ref with these arguments. */
static int update_ref(struct program *program, const char *ref, const char *old, struct ap_err *err,
		      const char *const *args)
{
	AP_CLEANUP_BUF struct ap_buf name = {0};
	AP_CLEANUP_BUF struct ap_buf mail = {0};
	struct ap_err own;
	struct git_place place = program->git_process.place;
	const char *ident = git_ident(&program->git, false);
	const char *bracket = ident ? strrchr(ident, '<') : NULL;
	if (!bracket)
		return ap_err_errno(err, -ENOMEM, "%s", ref);
	ap_buf_printf(&name, "GIT_COMMITTER_NAME=%.*s", (int)(bracket - 1 - ident), ident);
	ap_buf_printf(&mail, "GIT_COMMITTER_EMAIL=%.*s", (int)strcspn(bracket + 1, ">"),
		      bracket + 1);
	place.env = GIT_ARGS(ap_buf_text(&name), ap_buf_text(&mail));
	place.work_tree = NULL; /* git decides by bare or not whether it makes logs */
	if (!err)
		err = &own;
	int r = name.failed || mail.failed ? -ENOMEM : git_must(&place, NULL, err, args);
	return r < 0 ? ref_failed(program, r, ref, old, err) : 0;
}

static int set_ref(struct ap_git *git, const char *ref, const char *oid, const char *old,
		   const char *why, struct ap_err *err)
{
	static const char zeros[GIT_OID_MAX + 1] =
		"0000000000000000000000000000000000000000000000000000000000000000";
	const char *none = zeros + GIT_OID_MAX - git->oid_len;
	const char *args[12] = {"update-ref", "--no-deref", "-m", why};
	size_t n = 4;
	if (strncmp(ref, "refs/agentpool/", 15) == 0)
		args[n++] = "--create-reflog";
	args[n++] = "--";
	args[n++] = ref;
	args[n++] = oid;
	if (old)
		args[n++] = *old ? old : none;
	return update_ref(program_of(git), ref, old, err, args);
}

static int remove_ref(struct ap_git *git, const char *ref, const char *old, struct ap_err *err)
{
	char now[GIT_OID_MAX + 1];
	int r = current(program_of(git), ref, now, err);
	if (r > 0)
		return old ? ap_err_set(err, -ESTALE, "%s is not there", ref) : 0;
	/* without `old` removes the ref only as it is now, not what others set meanwhile */
	if (r == 0)
		r = update_ref(
			program_of(git), ref, old, err,
			GIT_ARGS("update-ref", "--no-deref", "-d", "--", ref, old ? old : now));
	return r;
}

/* --- objects --- */

static int read_object(struct ap_git *git, const char *name, size_t max, enum git_type *ret_type,
		       struct ap_buf *ret, struct ap_err *err)
{
	struct program *program = program_of(git);
	AP_CLEANUP_BUF struct ap_buf end = {0};
	char oid[GIT_OID_MAX + 1];
	size_t size;
	int r = look(git, name, ret_type, &size, err);
	if (r < 0)
		return r;
	if (size > max)
		return ap_err_set(err, -EFBIG, "%s has more than %zu bytes", name, max);
	r = ask_name(program, &program->contents, "--batch", name, oid, ret_type, &size, err);
	if (r > 0)
		return ap_err_set(err, -ENOENT, "%s: there is no such object", name);
	if (r < 0)
		return r;
	r = git_coprocess_bytes(&program->contents, size, ret);
	if (r == 0)
		r = git_coprocess_bytes(&program->contents, 1, &end);
	return asked(&program->contents, r, "an object", err);
}

/* Copies the object name that git has printed. */
static int copy_oid(const struct ap_git *git, const struct ap_buf *line, char ret[GIT_OID_MAX + 1],
		    struct ap_err *err)
{
	if (!git_is_oid(git, ap_buf_text(line)))
		return ap_err_set(err, -EIO, "git: '%.80s' is no object name", ap_buf_text(line));
	memcpy(ret, line->data, line->len + 1);
	return 0;
}

/* Has git write the file that a descriptor of ours is open on. */
static int write_by_path(struct program *program, enum git_type type, int fd,
			 char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	struct git_coprocess *writer = &program->writers[type];
	const char *word = type == GIT_TYPE_COMMIT ? "commit"
			   : type == GIT_TYPE_TREE ? "tree"
						   : "blob";
	char path[40];
	int r = start(program, writer, err,
		      GIT_ARGS("hash-object", "-w", "--no-filters", "--stdin-paths", "-t", word));
	if (r < 0)
		return r;
	int n = snprintf(path, sizeof path, "/proc/%d/fd/%d\n", (int)getpid(), fd);
	r = git_coprocess_ask(writer, path, (size_t)n);
	if (r == 0)
		r = git_coprocess_line(writer, '\n', &line);
	if (r == -EPIPE) { /* runs git once more, for its sentence */
		AP_CLEANUP_BUF struct ap_buf out = {0};
		git_coprocess_end(writer);
		path[n - 1] = '\0';
		return git_must(&program->git_process.place, &out, err,
				GIT_ARGS("hash-object", "-w", "--no-filters", "-t", word, "--",
					 path)) < 0
			       ? -EIO
			       : (git_trim(&out), copy_oid(&program->git, &out, ret, err));
	}
	r = asked(writer, r, "an object", err);
	return r < 0 ? r : copy_oid(&program->git, &line, ret, err);
}

static int write_object(struct ap_git *git, enum git_type type, const void *data, size_t len,
			char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_CLOSE int fd = memfd_create("object", MFD_CLOEXEC);
	if (fd < 0)
		return ap_err_errno(err, -errno, "object");
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)data + done, len - done);
		if (n < 0 && errno != EINTR)
			return ap_err_errno(err, -errno, "object");
		done += n > 0 ? (size_t)n : 0;
	}
	return write_by_path(program_of(git), type, fd, ret, err);
}

static int write_fd(struct ap_git *git, int fd, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	return write_by_path(program_of(git), GIT_TYPE_BLOB, fd, ret, err);
}

static int is_ancestor(struct ap_git *git, const char *old, const char *commit, struct ap_err *err)
{
	int r = git_run(&program_of(git)->git_process.place, NULL, err,
			GIT_ARGS("merge-base", "--is-ancestor", old, commit));
	return r == 0 ? 1 : r == 1 ? 0 : r > 0 ? -EIO : r;
}

/* --- rules --- */

/* Sends a path with its NUL, and reads an answer of `n` fields. */
static int ask_fields(struct git_coprocess *process, const char *path, struct ap_buf *fields,
		      size_t n)
{
	int r = git_coprocess_ask(process, path, strlen(path) + 1);
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = git_coprocess_line(process, '\0', fields);
		ap_buf_add(fields, "", 1);
	}
	return r == 0 && fields->failed ? -ENOMEM : r;
}

/* A pattern with a slash at its end matches directories only: git checks what is at the path. */
static int is_ignored(struct ap_git *git, const char *path, bool is_dir, struct ap_err *err)
{
	struct program *program = program_of(git);
	struct git_placed placed = {0};
	AP_CLEANUP_BUF struct ap_buf fields = {0};
	AP_CLEANUP_BUF struct ap_buf name = {0};
	if (strlen(path) >= PATH_MAX)
		return 0;
	int r = start(program, &program->ignores, err,
		      GIT_ARGS(GIT_AS_THEY_ARE, "check-ignore", "-z", "--verbose", "--non-matching",
			       "--stdin", "--no-index"));
	if (r == 0)
		r = git_place(git, path, is_dir, -1, &placed);
	if (r < 0)
		return ap_err_errno(err, r, "%s", path);
	ap_buf_printf(&name, "./%s", path); /* else a colon at its beginning would have a meaning */
	r = name.failed ? -ENOMEM : ask_fields(&program->ignores, name.data, &fields, 4);
	git_unplace(&placed);
	if (r < 0)
		return asked(&program->ignores, r, "what is ignored", err);
	/* file, line, pattern, path */
	const char *line = fields.data + strlen(fields.data) + 1,
		   *pattern = line + strlen(line) + 1;
	return *pattern && *pattern != '!';
}

static int attributes(struct ap_git *git, const char *path, struct git_attrs *ret,
		      struct ap_err *err)
{
	struct program *program = program_of(git);
	if (!git->rules)
		return 0;
	int r = start(program, &program->attributes, err,
		      GIT_ARGS(GIT_AS_THEY_ARE, "check-attr", "-z", "--stdin", git_attr_names[0],
			       git_attr_names[1], git_attr_names[2], git_attr_names[3],
			       git_attr_names[4], git_attr_names[5]));
	if (r == 0)
		r = ask_fields(&program->attributes, path, &ret->text, 3ul * N_GIT_ATTRS);
	if (r < 0)
		return asked(&program->attributes, r, "attributes", err);
	const char *at = ret->text.data;
	for (size_t i = 0; i < N_GIT_ATTRS; i++) { /* path, name, value */
		for (unsigned k = 0; k < 2; k++)
			at += strlen(at) + 1;
		ret->value[i] = strcmp(at, "set") == 0		 ? git_attr_true
				: strcmp(at, "unset") == 0	 ? git_attr_false
				: strcmp(at, "unspecified") == 0 ? NULL
								 : at;
		at += strlen(at) + 1;
	}
	return 0;
}

static int diffstat(struct ap_git *git, const char *old_tree, const char *new_tree,
		    struct ap_buf *ret, struct ap_err *err)
{
	return git_must(&program_of(git)->git_process.place, ret, err,
			GIT_ARGS(GIT_AS_THEY_ARE, "-c", "core.bigFileThreshold=8m", "diff-tree",
				 "-r", "-M", "--no-ext-diff", "--no-textconv", "--no-color",
				 "--stat=80", old_tree, new_tree));
}

static const struct git_ops program_ops = {
	.kind = "program",
	.close = close_program,
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
