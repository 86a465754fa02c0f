#include "git_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cleanup.h"
#include "git_command.h"
#include "ref_notes.h"

/* --- handles --- */

static int copy(char **ret, const char *text)
{
	if (!text)
		return 0;
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

int git_init(struct ap_git *git, const struct git_ops *ops, const struct ap_git_place *place,
	     struct ap_err *err)
{
	size_t n = 0;
	while (place->borrowed && place->borrowed[n])
		n++;
	git->ops = ops;
	git->limit_ns = place->limit_ns ? place->limit_ns : GIT_LIMIT;
	git->borrowed = calloc(n + 1, sizeof *git->borrowed);
	bool failed = !git->borrowed || copy(&git->git_dir, place->git_dir) < 0 ||
		      copy(&git->common_dir, place->common_dir) < 0 ||
		      copy(&git->objects, place->objects) < 0 ||
		      copy(&git->rules, place->rules) < 0 ||
		      copy(&git->ref_notes, place->ref_notes) < 0;
	for (size_t i = 0; i < n && !failed; i++)
		failed = copy(&git->borrowed[i], place->borrowed[i]) < 0;
	return failed ? ap_err_errno(err, -ENOMEM, "%s", place->git_dir) : 0;
}

void git_fini(struct ap_git *git)
{
	for (size_t i = 0; git->borrowed && git->borrowed[i]; i++)
		free(git->borrowed[i]);
	free(git->borrowed);
	free(git->git_dir);
	free(git->common_dir);
	free(git->objects);
	free(git->rules);
	free(git->ref_notes);
	free(git->author);
	free(git->committer);
	git_filter_free(git->filter);
	ap_buf_fini(&git->clear);
}

void ap_git_close(struct ap_git *git)
{
	if (git)
		git->ops->close(git);
}

const char *ap_git_kind(const struct ap_git *git)
{
	return git->ops->kind;
}

bool git_is_oid(const struct ap_git *git, const char *text)
{
	return strspn(text, "0123456789abcdef") == git->oid_len && text[git->oid_len] == '\0';
}

void git_hex(const unsigned char *bytes, size_t n, char *ret)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < n; i++) {
		ret[2 * i] = digits[bytes[i] >> 4];
		ret[2 * i + 1] = digits[bytes[i] & 15];
	}
	ret[2 * n] = '\0';
}

static int check_oid(const struct ap_git *git, const char *oid, struct ap_err *err)
{
	return git_is_oid(git, oid) ? 0 : ap_err_set(err, -ENOENT, "'%.80s' is no object", oid);
}

bool git_setting_is(struct ap_git *git, const char *name, bool otherwise)
{
	AP_CLEANUP_FREE char *value = NULL;
	if (git->ops->setting(git, name, &value, NULL) < 0 || !value)
		return otherwise;
	static const char *const no[] = {"", "false", "no", "off", "0"};
	for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
		if (strcasecmp(value, no[i]) == 0)
			return false;
	}
	return true;
}

/* --- revisions and refs --- */

int ap_git_resolve(struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err)
{
	return git->ops->resolve(git, revision, ret, err);
}

int git_ask_revision(const struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		     struct ap_err *err)
{
	return git_rev_parse(&(struct git_place){.git_dir = git->git_dir}, revision, ret, err);
}

int ap_git_set_ref(struct ap_git *git, const char *ref, const char *oid, const char *old,
		   const char *why, struct ap_err *err)
{
	int r = check_oid(git, oid, err);
	if (r == 0 && old && *old)
		r = check_oid(git, old, err) < 0 ? -ESTALE : 0;
	if (r < 0)
		return r;
	char note[REF_NOTE_SIZE];
	ref_note_take(git->ref_notes, ref, note);
	r = git->ops->set_ref(git, ref, oid, old, why, err);
	ref_note_drop(git->ref_notes, note);
	return r;
}

int ap_git_remove_ref(struct ap_git *git, const char *ref, const char *old, struct ap_err *err)
{
	if (old && !git_is_oid(git, old))
		return ap_err_set(err, -ESTALE, "'%.80s' is no object", old);
	char note[REF_NOTE_SIZE];
	ref_note_take(git->ref_notes, ref, note);
	int r = git->ops->remove_ref(git, ref, old, err);
	ref_note_drop(git->ref_notes, note);
	return r;
}

struct ref {
	char *name, *oid;
};

static int compare_refs(const void *a, const void *b)
{
	return strcmp(((const struct ref *)a)->name, ((const struct ref *)b)->name);
}

/* Parses the list in place. */
static size_t parse_refs(const struct ap_git *git, char *list, const char *prefix,
			 struct ref *ret_refs)
{
	size_t n = 0;
	for (char *at = list, *end; at && (end = strchr(at, '\n')); at = end + 1) {
		char *name = memchr(at, ' ', (size_t)(end - at));
		*end = '\0';
		if (!name)
			continue;
		*name++ = '\0';
		if (git_is_oid(git, at) && strncmp(name, prefix, strlen(prefix)) == 0)
			ret_refs[n++] = (struct ref){name, at};
	}
	return n;
}

int ap_git_each_ref(struct ap_git *git, const char *prefix,
		    int (*each)(void *data, const char *ref, const char *oid), void *data,
		    struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf list = {0};
	size_t n = 0;
	int r = git->ops->list_refs(git, prefix, &list, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < list.len; i++)
		n += list.data[i] == '\n';
	AP_CLEANUP_FREE struct ref *refs = calloc(n + 1, sizeof *refs);
	if (list.failed || !refs)
		return ap_err_errno(err, -ENOMEM, "refs");
	/* lists all refs before the first call: `each` may change them */
	n = parse_refs(git, list.data, prefix, refs);
	qsort(refs, n, sizeof *refs, compare_refs);
	for (size_t i = 0; i < n && r == 0; i++)
		r = each(data, refs[i].name, refs[i].oid);
	return r;
}

/* --- objects --- */

/* The object name behind `key` at the beginning of an object's content. */
static int name_in(const struct ap_git *git, const struct ap_buf *text, const char *key,
		   char ret[GIT_OID_MAX + 1])
{
	size_t len = strlen(key);
	if (text->len < len + git->oid_len || memcmp(text->data, key, len) != 0)
		return -EIO;
	memcpy(ret, text->data + len, git->oid_len);
	ret[git->oid_len] = '\0';
	return git_is_oid(git, ret) ? 0 : -EIO;
}

/* Length of a chain of tags that is followed. */
#define MAX_TAGS 16

int ap_git_read_tree(struct ap_git *git, const char *oid, struct ap_git_tree *ret,
		     struct ap_err *err)
{
	char at[GIT_OID_MAX + 1];
	int r = check_oid(git, oid, err);
	if (r == 0)
		strcpy(at, oid);
	for (unsigned i = 0; r == 0 && i < MAX_TAGS; i++) {
		AP_CLEANUP_BUF struct ap_buf text = {0};
		enum git_type type = GIT_TYPE_NONE;
		r = git->ops->read(git, at, GIT_OBJECT_MAX, &type, &text, err);
		if (r < 0)
			return r;
		if (type == GIT_TYPE_TREE) {
			r = git_tree_parse(text.data, text.len, git->oid_len, ret);
			return r < 0 ? ap_err_errno(err, r, "tree %s", at) : 0;
		}
		r = type == GIT_TYPE_COMMIT ? name_in(git, &text, "tree ", at)
		    : type == GIT_TYPE_TAG  ? name_in(git, &text, "object ", at)
					    : -EINVAL;
	}
	return r == 0	      ? ap_err_set(err, -ELOOP, "%s: too many tags", oid)
	       : r == -ENOENT ? r
			      : ap_err_set(err, r, "%s is no tree", oid);
}

int ap_git_entry_at(struct ap_git *git, const char *tree, const char *path, unsigned *ret_mode,
		    char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	snprintf(ret, GIT_OID_MAX + 1, "%s", tree);
	*ret_mode = *tree ? S_IFDIR : 0;
	while (*path && *ret) {
		AP_CLEANUP_GIT_TREE struct ap_git_tree above = {NULL, 0};
		size_t len = strcspn(path, "/");
		AP_CLEANUP_FREE char *name = strndup(path, len);
		if (!name)
			return ap_err_errno(err, -ENOMEM, "%s", path);
		int r = ap_git_read_tree(git, ret, &above, err);
		if (r < 0)
			return r;
		path += len + (path[len] == '/');
		const struct ap_git_entry *entry = ap_git_tree_find(&above, name);
		bool leads_on = entry && (!*path || S_ISDIR(entry->mode));
		*ret_mode = leads_on ? entry->mode : 0;
		snprintf(ret, GIT_OID_MAX + 1, "%s", leads_on ? entry->oid : "");
	}
	return 0;
}

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

int ap_git_write_tree(struct ap_git *git, const struct ap_git_tree *tree, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int protect_ntfs = -1; /* not looked up yet: names that it matters for are rare */
	for (size_t i = 0; i < tree->n; i++) {
		const struct ap_git_entry *entry = &tree->entries[i];
		unsigned char bytes[GIT_OID_MAX / 2];
		if (!git_name_is_valid(entry->name, entry->mode, true)) {
			if (protect_ntfs < 0)
				protect_ntfs = git_setting_is(git, "core.protectntfs", true);
			if (!git_name_is_valid(entry->name, entry->mode, protect_ntfs))
				return ap_err_set(err, -EINVAL, "git takes no '%s' into a tree",
						  entry->name);
		}
		if (!git_is_oid(git, entry->oid))
			return ap_err_set(err, -EINVAL, "'%.80s' is no object", entry->oid);
		for (size_t k = 0; k < git->oid_len / 2; k++)
			bytes[k] = (unsigned char)(digit(entry->oid[2 * k]) << 4 |
						   digit(entry->oid[2 * k + 1]));
		ap_buf_printf(&text, "%o %s", entry->mode, entry->name);
		ap_buf_add(&text, "", 1);
		ap_buf_add(&text, bytes, git->oid_len / 2);
	}
	if (text.failed)
		return ap_err_errno(err, -ENOMEM, "tree");
	return git->ops->write(git, GIT_TYPE_TREE, ap_buf_text(&text), text.len, ret, err);
}

int ap_git_tree_of(struct ap_git *git, const char *commit, char ret[GIT_OID_MAX + 1],
		   struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	enum git_type type = GIT_TYPE_NONE;
	int r = check_oid(git, commit, err);
	if (r == 0)
		r = git->ops->read(git, commit, GIT_OBJECT_MAX, &type, &text, err);
	if (r == 0 && (type != GIT_TYPE_COMMIT || name_in(git, &text, "tree ", ret) < 0))
		r = ap_err_set(err, -EINVAL, "%s is no commit", commit);
	return r;
}

int ap_git_write_blob(struct ap_git *git, const void *data, size_t len, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err)
{
	return git->ops->write(git, GIT_TYPE_BLOB, data, len, ret, err);
}

int ap_git_read_blob(struct ap_git *git, const char *oid, size_t max, struct ap_buf *ret,
		     struct ap_err *err)
{
	enum git_type type = GIT_TYPE_NONE;
	size_t size, before = ret->len;
	int r = check_oid(git, oid, err);
	if (r == 0)
		r = git->ops->look(git, oid, &type, &size, err);
	if (r == 0 && type != GIT_TYPE_BLOB)
		r = ap_err_set(err, -EINVAL, "%s is no file", oid);
	if (r == 0 && size > max)
		r = ap_err_set(err, -EFBIG, "%s has more than %zu bytes", oid, max);
	if (r == 0)
		r = git->ops->read(git, oid, max, &type, ret, err);
	return r == 0 && (ret->failed || ret->len - before > max)
		       ? ap_err_errno(err, -ENOMEM, "%s", oid)
		       : r;
}

bool ap_git_has_commit(struct ap_git *git, const char *oid)
{
	enum git_type type;
	size_t size;
	return git_is_oid(git, oid) && git->ops->look(git, oid, &type, &size, NULL) == 0 &&
	       type == GIT_TYPE_COMMIT;
}

int ap_git_is_ancestor(struct ap_git *git, const char *old, const char *commit, struct ap_err *err)
{
	if (!ap_git_has_commit(git, old) || !ap_git_has_commit(git, commit))
		return ap_err_set(err, -ENOENT, "no such commit: %.80s or %.80s", old, commit);
	return strcmp(old, commit) == 0 ? 1 : git->ops->is_ancestor(git, old, commit, err);
}

/* --- commits --- */

/* Appends a name as git writes it: without newlines and angle brackets, and without punctuation at
 * its ends. */
static void add_plain(struct ap_buf *buf, const char *name)
{
	static const char marks[] = ".,:;<>\"\\'";
	size_t len = strlen(name);
	while (len > 0 && ((unsigned char)*name <= ' ' || strchr(marks, *name))) {
		name++;
		len--;
	}
	while (len > 0 && ((unsigned char)name[len - 1] <= ' ' || strchr(marks, name[len - 1])))
		len--;
	for (size_t i = 0; i < len; i++) {
		if (!strchr("\n<>", name[i]))
			ap_buf_add(buf, name + i, 1);
	}
}

/* Appends the value of the environment variable, else of the settings in their order, else
 * `otherwise`, the pool's. */
static void add_named(struct ap_git *git, const char *variable, const char *setting,
		      const char *general, const char *otherwise, struct ap_buf *ret)
{
	const char *const settings[] = {setting, general};
	const char *value = getenv(variable);
	size_t before = ret->len;
	if (value)
		add_plain(ret, value);
	for (size_t i = 0; i < 2 && ret->len == before; i++) {
		AP_CLEANUP_FREE char *set = NULL;
		if (git->ops->setting(git, settings[i], &set, NULL) == 0 && set)
			add_plain(ret, set);
	}
	if (ret->len == before)
		ap_buf_adds(ret, otherwise);
}

const char *git_ident(struct ap_git *git, bool is_author)
{
	char **ident = is_author ? &git->author : &git->committer;
	AP_CLEANUP_BUF struct ap_buf text = {0};
	if (*ident)
		return *ident;
	add_named(git, is_author ? "GIT_AUTHOR_NAME" : "GIT_COMMITTER_NAME",
		  is_author ? "author.name" : "committer.name", "user.name", "agentpoolfs", &text);
	ap_buf_adds(&text, " <");
	add_named(git, is_author ? "GIT_AUTHOR_EMAIL" : "GIT_COMMITTER_EMAIL",
		  is_author ? "author.email" : "committer.email", "user.email",
		  "agentpoolfs@localhost", &text);
	ap_buf_adds(&text, ">");
	if (!text.failed)
		*ident = ap_steal(text.data);
	return *ident;
}

int ap_git_write_commit(struct ap_git *git, const char *tree, const char *const *parents,
			const char *message, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	const char *author = git_ident(git, true), *committer = git_ident(git, false);
	char zone[16];
	struct tm local;
	time_t now = time(NULL);
	localtime_r(&now, &local);
	strftime(zone, sizeof zone, "%z", &local);
	int r = check_oid(git, tree, err);
	ap_buf_printf(&text, "tree %s\n", tree);
	for (; r == 0 && *parents; parents++) {
		r = check_oid(git, *parents, err);
		ap_buf_printf(&text, "parent %s\n", *parents);
	}
	if (r < 0)
		return r;
	ap_buf_printf(&text, "author %s %lld %s\n", author ? author : "", (long long)now, zone);
	ap_buf_printf(&text, "committer %s %lld %s\n\n", committer ? committer : "", (long long)now,
		      zone);
	ap_buf_adds(&text, message);
	if (text.len > 0 && text.data[text.len - 1] != '\n')
		ap_buf_adds(&text, "\n");
	if (text.failed || !author || !committer)
		return ap_err_errno(err, -ENOMEM, "commit");
	return git->ops->write(git, GIT_TYPE_COMMIT, text.data, text.len, ret, err);
}

/* --- rules --- */

/* Everything below an ignored directory is ignored, whatever rules further down say: so this checks
 * one directory after the other, from the top. It remembers the last directory that is not ignored,
 * as callers ask for the names of one directory in a row. */
int ap_git_is_ignored(struct ap_git *git, const char *path, bool is_dir, struct ap_err *err)
{
	size_t len = strlen(path), done = 0;
	if (!git->rules || len == 0)
		return 0;
	while (done < git->clear.len && done < len && git->clear.data[done] == path[done])
		done++;
	while (done > 0 && path[done - 1] != '/')
		done--;
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	for (const char *slash; (slash = strchr(path + done, '/'));
	     done = (size_t)(slash - path) + 1) {
		dir.len = 0;
		ap_buf_add(&dir, path, (size_t)(slash - path));
		if (dir.failed)
			return ap_err_errno(err, -ENOMEM, "%s", path);
		int r = git->ops->is_ignored(git, dir.data, true, err);
		if (r != 0)
			return r;
		git->clear.len = 0;
		ap_buf_add(&git->clear, path, (size_t)(slash - path) + 1);
	}
	return git->ops->is_ignored(git, path, is_dir, err);
}

/* --- looking --- */

int ap_git_diffstat(struct ap_git *git, const char *old_tree, const char *new_tree,
		    struct ap_buf *ret, struct ap_err *err)
{
	return git->ops->diffstat(git, old_tree, new_tree, ret, err);
}
