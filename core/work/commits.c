/* What git directories hold that an agent has had: reads them as data, has the repository's own git
 * copy their objects, and names these by refs below refs/agentpool/LABEL/. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "git_command.h"
#include "remove.h"
#include "restore.h"
#include "worktree_internal.h"

/* Bytes of one part of a ref's name: a file system's names have 255, git's locks take 5 of them. */
#define REF_PART_MAX 200

#define KNOWN_MAX 4 /* commits of REPO that a git directory stands on */

void commits_fini(struct commits *commits)
{
	agent_head_fini(&commits->head);
	agent_tips_fini(&commits->tips);
	*commits = (struct commits){0};
}

/* --- which tips are new --- */

static int compare_tips(const void *a, const void *b)
{
	const struct agent_tip *one = a, *other = b;
	int order = strcmp(one->name, other->name);
	return order ? order : strcmp(one->oid, other->oid);
}

static bool is_known(const char *oid, const char *const *known)
{
	for (; *known; known++) {
		if (strcmp(oid, *known) == 0)
			return true;
	}
	return false;
}

/* Whether a remote ref of the directory is at it: what came from a remote is no work of the
 * agent's. */
static bool is_from_remote(const struct agent_tips *tips, const char *oid)
{
	for (size_t i = 0; i < tips->n; i++) {
		if (strncmp(tips->at[i].name, "refs/remotes/", strlen("refs/remotes/")) == 0 &&
		    strcmp(tips->at[i].oid, oid) == 0)
			return true;
	}
	return false;
}

/* Leaves out what the directory began with, what REPO has, and what came from remotes. */
static void leave_known_out(struct agent_tips *tips, struct agent_tips *before,
			    const char *const *known)
{
	size_t n = 0;
	if (before->n > 0)
		qsort(before->at, before->n, sizeof *before->at, compare_tips);
	for (size_t i = 0; i < tips->n; i++) {
		struct agent_tip *tip = &tips->at[i];
		bool remote = strncmp(tip->name, "refs/remotes/", strlen("refs/remotes/")) == 0;
		tip->is_known = remote || is_known(tip->oid, known) ||
				is_from_remote(tips, tip->oid) ||
				(before->n > 0 &&
				 bsearch(tip, before->at, before->n, sizeof *tip, compare_tips));
	}
	for (size_t i = 0; i < tips->n; i++) {
		if (tips->at[i].is_known)
			free(tips->at[i].name);
		else
			tips->at[n++] = tips->at[i];
	}
	tips->n = n;
}

const char *commits_find(const struct commits *commits, const char *name)
{
	for (size_t i = 0; i < commits->tips.n; i++) {
		if (strcmp(commits->tips.at[i].name, name) == 0)
			return commits->tips.at[i].oid;
	}
	return "";
}

/* Drops tips whose objects have another format than the repository's, which cannot hold them. */
static void leave_others_out(struct saving *saving, struct commits *commits)
{
	const size_t len = strlen(worktree_origin(saving->worktree));
	struct agent_tips *tips = &commits->tips;
	size_t n = 0;
	if (strlen(commits->head.oid) != len)
		commits->head.oid[0] = '\0';
	for (size_t i = 0; i < tips->n; i++) {
		if (strlen(tips->at[i].oid) == len)
			tips->at[n++] = tips->at[i];
		else
			free(tips->at[i].name);
	}
	if (n < tips->n)
		saving_note_kept(saving, *saving->path ? saving->path : "the refs",
				 "its objects are of another format than the repository's");
	tips->n = n;
}

/* --- taking them --- */

/* Copies the objects of all tips; if that fails, of each tip alone. Drops the tips that could not
 * be copied. */
static int take_tips(struct saving *saving, const char *view, struct agent_tips *tips,
		     const char *const *known, struct ap_err *err)
{
	const struct repo *repo = saving->worktree->repo;
	AP_CLEANUP_FREE const char **oids = calloc(tips->n + 1, sizeof *oids);
	const char *there[KNOWN_MAX + 1] = {NULL};
	struct ap_err why = {""};
	size_t n = 0;
	/* REPO may not have a submodule's commit */
	for (size_t i = 0; *known; known++) {
		if (i < KNOWN_MAX && repo_has_commit(saving->worktree->repo, *known))
			there[i++] = *known;
	}
	if (!oids)
		return ap_err_errno(err, -ENOMEM, "%s", saving->label);
	for (size_t i = 0; i < tips->n; i++)
		oids[i] = tips->at[i].oid;
	int r = agent_git_take(repo, view, oids, there, 0, &why);
	if (r == 0)
		return 0;
	if (r != -EIO)
		return *err = why, r;
	for (size_t i = 0; i < tips->n; i++) {
		struct agent_tip *tip = &tips->at[i];
		const char *one[] = {tip->oid, NULL};
		r = agent_git_take(repo, view, one, there, 0, &why);
		if (r < 0 && r != -EIO) {
			*err = why;
			break;
		}
		if (r < 0) {
			AP_CLEANUP_BUF struct ap_buf what = {0};
			ap_buf_printf(&what, *saving->path ? "%s in %s" : "%s%s", tip->name,
				      saving->path);
			saving_note_kept(saving, ap_buf_text(&what), why.text);
			free(tip->name);
			continue;
		}
		tips->at[n++] = *tip;
	}
	if (r == -EIO)
		r = 0;
	if (r == 0)
		tips->n = n;
	return r;
}

int commits_view(const struct saving *saving, const char *dir, struct ap_buf *ret,
		 struct ap_err *err)
{
	worktree_scratch(saving->worktree, ret);
	ap_buf_adds(ret, "/view-XXXXXX");
	if (ret->failed || !mkdtemp(ret->data)) {
		int error = ret->failed ? -ENOMEM : -errno;
		ret->len = 0;
		return ap_err_errno(err, error, "a view of %s", dir);
	}
	int r = agent_git_view(dir, ret->data, err);
	for (size_t i = 0; r == 0 && saving->stores && saving->stores[i]; i++)
		r = agent_git_borrow(ret->data, saving->stores[i], err);
	return r;
}

int commits_take(struct saving *saving, const char *dir, const char *began,
		 const char *const *known, struct commits *ret, struct ap_err *err)
{
	struct commits commits = {0};
	struct agent_tips before = {0};
	AP_CLEANUP_BUF struct ap_buf view = {0};
	struct ap_err why = {""};
	if (access(dir, F_OK) < 0 && errno == ENOENT) { /* removed, or moved to kept/ already */
		*ret = commits;
		return 0;
	}
	bool is_registered =
		dir == saving->worktree->git_dir && worktree_is_registered(saving->worktree);
	int r = is_registered ? worktree_agent_head(saving->worktree, &commits.head, &why)
			      : agent_git_head(dir, &commits.head, &why);
	if (r < 0 && r != -ENOMEM) /* a broken HEAD names nothing; its log is read all the same */
		r = 0;
	if (r == 0)
		r = agent_git_tips(dir, &commits.tips, &why);
	if (r < 0 && r != -ENOMEM) {
		saving_note_kept(saving, *saving->path ? saving->path : "the refs", why.text);
		r = 0;
	}
	if (r == 0)
		leave_others_out(saving, &commits);
	if (r == 0 && began)
		(void)agent_git_tips(began, &before, NULL); /* on failure all is new */
	if (r == 0) {
		if (commits.tips.is_cut)
			saving_note_kept(saving, *saving->path ? saving->path : "the refs",
					 "they are more than are read");
		leave_known_out(&commits.tips, &before, known);
	}
	agent_tips_fini(&before);
	if (r == 0 && commits.tips.n > 0 && !is_registered) { /* else REPO has them */
		r = commits_view(saving, dir, &view, &why);
		if (r == 0)
			r = take_tips(saving, ap_buf_text(&view), &commits.tips, known, &why);
		if (view.len > 0)
			(void)remove_tree(view.data, NULL, NULL); /* else at the next start */
	}
	if (r < 0) {
		if (err)
			*err = why;
		commits_fini(&commits);
		return r;
	}
	/* HEAD may name an object that could not be taken */
	if (*commits.head.oid && repo_has_commit(saving->worktree->repo, commits.head.oid))
		strcpy(commits.head_oid, commits.head.oid);
	*ret = commits;
	return 0;
}

/* --- naming them --- */

static bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Appends a part of a ref's name, with %XX for a byte that no ref can hold there or that would mean
 * something in it; UTF-8 stays. Cuts a long part and adds a hash of it. */
static void add_part(struct ap_buf *ref, const char *part, size_t len)
{
	size_t begin = ref->len;
	for (size_t i = 0; i < len; i++) {
		char c = part[i];
		bool in_word =
			i > 0 && i + 1 < len && is_plain(part[i - 1]) && is_plain(part[i + 1]);
		if (is_plain(c) || c == '-' || c == '_' || (c & 0x80) ||
		    (c == '.' && in_word && strncmp(part + i, ".lock", 5) != 0))
			ap_buf_add(ref, &c, 1);
		else
			ap_buf_printf(ref, "%%%02X", (unsigned char)c);
	}
	if (ref->len - begin <= REF_PART_MAX || ref->failed)
		return;
	AP_CLEANUP_FREE char *whole = strndup(part, len);
	ref->len = begin + REF_PART_MAX; /* cut; the hash tells it from others */
	while (ref->len > begin && (ref->data[ref->len] & 0xc0) == 0x80)
		ref->len--;
	ap_buf_printf(ref, "-%016llx", (unsigned long long)ap_hash(whole ? whole : ""));
}

void commits_add_ref_path(struct ap_buf *ref, const char *path)
{
	for (;;) {
		size_t len = strcspn(path, "/");
		add_part(ref, path, len);
		if (!path[len])
			return;
		ap_buf_add(ref, "/", 1);
		path += len + 1;
	}
}

/* Keeps the old commit of a ref: if `oid` does not lead to it, it gets a ref of its own. */
static int keep_before(struct saving *saving, const char *ref, const char *oid, struct ap_err *err)
{
	char old[GIT_OID_MAX + 1], other[GIT_OID_MAX + 1];
	int r = ap_git_resolve(saving->git, ref, old, err);
	if (r != 0 || strcmp(old, oid) == 0 || ap_git_is_ancestor(saving->git, old, oid, NULL) == 1)
		return r < 0 ? r : 0;
	for (unsigned n = 1;; n++) {
		AP_CLEANUP_BUF struct ap_buf beside = {0};
		ap_buf_printf(&beside, "%s-%u", ref, n);
		r = ap_git_resolve(saving->git, ap_buf_text(&beside), other, err);
		if (r < 0 || (r == 0 && strcmp(other, old) == 0))
			return r;
		if (r > 0)
			return ap_git_set_ref(saving->git, ap_buf_text(&beside), old, "",
					      "agentpoolfs: kept of a lease before", err);
	}
}

int commits_keep(struct saving *saving, const char *name, const char *end, const char *oid,
		 struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	AP_CLEANUP_BUF struct ap_buf flat = {0};
	ap_buf_printf(&ref, WORKTREE_KEPT_PREFIX "%s/%s/", saving->label, name);
	ap_buf_adds(&flat, ap_buf_text(&ref));
	commits_add_ref_path(&ref, end);
	if (strncmp(end, "heads/", 6) == 0 || strncmp(end, "tags/", 5) == 0) {
		size_t len = strcspn(end, "/") + 1;
		ap_buf_add(&flat, end, len);
		end += len;
	}
	add_part(&flat, end, strlen(end)); /* with its slashes as %2F */
	if (ref.failed || flat.failed)
		return ap_err_errno(err, -ENOMEM, "%s", saving->label);
	int r = 0;
	for (int is_flat = 0; is_flat <= 1; is_flat++) {
		const char *to = ap_buf_text(is_flat ? &flat : &ref);
		r = keep_before(saving, to, oid, err);
		if (r == 0)
			r = ap_git_set_ref(saving->git, to, oid, NULL,
					   "agentpoolfs: kept of a lease", err);
		if (r != -EEXIST)
			break;
	}
	return r;
}

static bool leads_to(struct saving *saving, const char *saved, const char *oid)
{
	return *saved &&
	       (strcmp(saved, oid) == 0 || ap_git_is_ancestor(saving->git, oid, saved, NULL) == 1);
}

/* Whether a tip is a branch or tag itself, not an entry of its log. */
static bool is_branch_or_tag(const char *name)
{
	return !strstr(name, "@{") &&
	       (strncmp(name, "refs/heads/", 11) == 0 || strncmp(name, "refs/tags/", 10) == 0);
}

int commits_keep_refs(struct saving *saving, const struct commits *commits, const char *name,
		      const char *saved, const char *except, struct ap_err *err)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < commits->tips.n; i++) {
		const struct agent_tip *tip = &commits->tips.at[i];
		unsigned number;
		char end[64];
		if ((except && strcmp(tip->name, except) == 0) || leads_to(saving, saved, tip->oid))
			continue;
		if (strncmp(tip->name, "refs/heads/", 11) == 0 ||
		    strncmp(tip->name, "refs/tags/", 10) == 0)
			r = commits_keep(saving, name, tip->name + 5, tip->oid, err);
		else if (strcmp(tip->name, "refs/stash") == 0)
			r = commits_keep(saving, name, "stash", tip->oid, err);
		else if (sscanf(tip->name, "stash@{%u}", &number) == 1 && number > 0) {
			snprintf(end, sizeof end, "stash-%u", number);
			r = commits_keep(saving, name, end, tip->oid, err);
		}
	}
	return r;
}

/* Whether the commit at the beginning of `line` is a parent in any line of `git rev-list
 * --parents`. */
static bool is_parent(const struct ap_buf *lines, const char *line, size_t oid_len)
{
	char word[GIT_OID_MAX + 2] = " ";
	memcpy(word + 1, line, oid_len);
	word[oid_len + 1] = '\0';
	return strstr(ap_buf_text(lines), word) != NULL;
}

int commits_keep_left_behind(struct saving *saving, const struct commits *commits,
			     const char *saved, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf oids = {0};
	AP_CLEANUP_BUF struct ap_buf left = {0};
	const struct git_place place = {.git_dir = saving->worktree->repo->common_dir, .in = &oids};
	for (size_t i = 0; i < commits->tips.n; i++) {
		const struct agent_tip *tip = &commits->tips.at[i];
		if (is_branch_or_tag(tip->name) || strcmp(tip->name, "refs/stash") == 0 ||
		    strncmp(tip->name, "stash@", 6) == 0 || leads_to(saving, saved, tip->oid))
			continue;
		ap_buf_printf(&oids, "%s\n", tip->oid);
	}
	if (oids.len == 0 && !oids.failed)
		return 0;
	if (*saved)
		ap_buf_printf(&oids, "^%s\n", saved);
	int r = oids.failed ? ap_err_errno(err, -ENOMEM, "%s", saving->label)
			    : git_must(&place, &left, err,
				       GIT_ARGS("rev-list", "--parents", "--ignore-missing",
						"--stdin", "--not", "--branches", "--tags",
						"--remotes", "--glob=" WORKTREE_KEPT_PREFIX "*"));
	const char *at = ap_buf_text(&left);
	for (; r == 0 && *at; at += strcspn(at, "\n") + 1) {
		char oid[GIT_OID_MAX + 1] = "", end[32];
		size_t len = strspn(at, "0123456789abcdef");
		if (len == 0 || len > GIT_OID_MAX || is_parent(&left, at, len))
			continue;
		memcpy(oid, at, len);
		snprintf(end, sizeof end, "%.12s", oid);
		r = commits_keep(saving, "left-behind", end, oid, err);
	}
	return r;
}
