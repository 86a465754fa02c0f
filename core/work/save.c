/* The end of a lease, and commits during it: afterwards all that an agent did in its worktree is on
 * the branch of its lease, or in a ref below refs/agentpool/LABEL/, or recorded as held by kept/
 * only; or the save fails and the agent's work stays where it is. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "git_command.h"
#include "remove.h"
#include "restore.h"
#include "worktree_internal.h"

#define SAVE_TRIES 10 /* while somebody else moves the branch */

/* --- one saving --- */

int saving_init(struct saving *saving, const struct worktree *worktree, const char *path,
		const struct saving *outer, const char *const *stores, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf scratch = {0};
	struct saving new = {.worktree = worktree, .path = path, .git_is_placed = true};
	int r = 0;
	if (outer) {
		new = *outer;
		new.path = path;
		new.depth++;
		new.git_is_placed = false;
		new.git = new.staged = NULL;
		new.staged_view = (struct ap_buf){0};
		new.rules = (struct rules){0};
		new.stores = stores;
	} else {
		r = worktree_layer(worktree, &new.layer, err);
	}
	worktree_scratch(worktree, &scratch);
	if (r == 0)
		r = rules_init(&new.rules, ap_buf_text(&scratch), new.layer, path, err);
	if (r == 0)
		r = worktree_git(worktree, new.rules.dir, stores, &new.git, err);
	if (r == 0 && !outer)
		r = worktree_rules(worktree, &new.rules, new.git, err);
	if (r < 0) {
		ap_git_close(new.git);
		rules_fini(&new.rules);
		if (!outer)
			layer_close(new.layer);
		return r;
	}
	*saving = new;
	return 0;
}

void saving_fini(struct saving *saving)
{
	ap_git_close(saving->git);
	rules_fini(&saving->rules);
	if (saving->depth == 0)
		layer_close(saving->layer);
}

void saving_unplaced(void *saving, const char *path, const char *why)
{
	saving_note_kept(saving, path, why);
}

void saving_note_kept(struct saving *saving, const char *path, const char *why)
{
	int shown = file_path_shown(path);
	if (saving->saved->only_kept.len == 0)
		ap_buf_printf(&saving->saved->only_kept, "%.*s%s: %s", shown, path,
			      path[shown] ? "/…" : "", why);
}

static void note_progress(void *data, uint64_t n_files, uint64_t bytes)
{
	const struct saving *saving = data;
	if (saving->progress)
		saving->progress(saving->data, n_files, bytes);
}

/* Reads what the agent has staged from a view of the objects that are beside its index. */
static int read_staged(void *data, const char *oid, size_t max, struct ap_buf *ret)
{
	struct saving *saving = data;
	struct ap_buf *view = &saving->staged_view;
	if (!saving->index)
		return -ENOENT;
	if (view->len == 0) {
		const char *slash = strrchr(saving->index, '/');
		AP_CLEANUP_FREE char *dir = strndup(saving->index, (size_t)(slash - saving->index));
		int r = dir ? commits_view(saving, dir, view, NULL) : -ENOMEM;
		if (r == 0)
			r = worktree_git(saving->worktree, NULL, GIT_ARGS(view->data),
					 &saving->staged, NULL);
		if (r < 0)
			return r;
	}
	return saving->staged ? ap_git_read_blob(saving->staged, oid, max, ret, NULL) : -ENOENT;
}

static void forget_staged(struct saving *saving)
{
	ap_git_close(saving->staged);
	saving->staged = NULL;
	if (saving->staged_view.len > 0)
		(void)remove_tree(saving->staged_view.data, NULL,
				  NULL); /* else at the next start */
	ap_buf_fini(&saving->staged_view);
}

int saving_tree(struct saving *saving, const struct layer_dir *dir, const char *base_tree,
		const char *head_tree, const char *index, char ret[GIT_OID_MAX + 1],
		struct ap_err *err)
{
	struct saved_tree tree = {
		.git = saving->git,
		.layer = saving->layer,
		.rules = &saving->rules,
		.top = saving->path,
		.sparse_files = worktree_sparse_files(saving->worktree),
		.git_is_placed = saving->git_is_placed,
		.make_readable = saving->is_over,
		.index = index,
		.nested = nested_save,
		.staged = read_staged,
		.unplaced = saving_unplaced,
		.progress = note_progress,
		.data = saving,
	};
	saving->index = index;
	int r = saved_tree_build(&tree, dir, base_tree, head_tree, ret, err);
	forget_staged(saving);
	saving->index = NULL;
	saving->any = saving->any || tree.any;
	saved_tree_fini(&tree);
	return r;
}

int saving_commit(struct saving *saving, const char *tree, const char *tip, const char *head,
		  const char *const *more, char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	struct ap_git *git = saving->git;
	const char *parents[2 + COMMIT_MORE_MAX + 1] = {NULL};
	char parent_tree[GIT_OID_MAX + 1];
	size_t n = 0;
	bool tip_counts = *tip && (!*head || ap_git_is_ancestor(git, tip, head, NULL) != 1);
	bool head_counts = *head && (!tip_counts || ap_git_is_ancestor(git, head, tip, NULL) != 1);
	if (tip_counts)
		parents[n++] = tip;
	if (head_counts)
		parents[n++] = head;
	if (n == 1 && (!more || !*more)) {
		int r = ap_git_tree_of(git, parents[0], parent_tree, err);
		if (r < 0)
			return r;
		if (strcmp(parent_tree, tree) == 0) {
			memmove(ret, parents[0], strlen(parents[0]) + 1);
			return 0;
		}
	}
	for (size_t i = 0; more && more[i] && i < COMMIT_MORE_MAX; i++)
		parents[n++] = more[i];
	return ap_git_write_commit(git, tree, parents, saving->message, ret, err);
}

/* --- the end of a lease --- */

/* The tree of a commit; "": it cannot be read. */
static void tree_of(struct saving *saving, const char *commit, char ret[GIT_OID_MAX + 1])
{
	if (!*commit || ap_git_tree_of(saving->git, commit, ret, NULL) < 0)
		*ret = '\0';
}

/* Builds the tree of all files, and sets saving->any if the layer has anything that is not setup's.
 */
static int save_files(struct saving *saving, const char *head, char ret[GIT_OID_MAX + 1],
		      struct ap_err *err)
{
	const struct worktree *worktree = saving->worktree;
	char base_tree[GIT_OID_MAX + 1], head_tree[GIT_OID_MAX + 1];
	AP_CLEANUP_BUF struct ap_buf index = {0};
	struct layer_dir top;
	ap_buf_printf(&index, "%s/index", worktree->git_dir ? worktree->git_dir : "");
	int r = ap_git_tree_of(saving->git, worktree_origin(worktree), base_tree, err);
	tree_of(saving, head, head_tree);
	if (r == 0)
		r = layer_top(saving->layer, &top, err);
	if (r < 0)
		return r;
	saving->any = false;
	r = saving_tree(saving, &top, base_tree, head_tree, ap_buf_text(&index), ret, err);
	layer_dir_fini(&top);
	return r;
}

/* Puts the branch at `commit`, or removes it if the lease created it and made no commit. -ESTALE:
 * somebody else has moved it. */
static int update_branch(struct saving *saving, const struct worktree_lease *lease, const char *tip,
			 const char *commit, struct ap_err *err)
{
	char ref[AP_LABEL_MAX + 32];
	branch_ref(ref, lease->label);
	if (lease->created && strcmp(commit, lease->base) == 0)
		return *tip ? ap_git_remove_ref(saving->git, ref, tip, err) : 0;
	if (strcmp(commit, tip) == 0)
		return 0;
	return ap_git_set_ref(saving->git, ref, commit, tip, "agentpoolfs: work of the lease", err);
}

/* Puts the branch at a commit with the tree and all three histories: that of the branch in the
 * repository (tip), that of the branch in the agent's git (own), and that of HEAD (head). If
 * somebody else moves the branch meanwhile, tries again on top of that. */
static int save_on_branch(struct saving *saving, const struct worktree_lease *lease,
			  const char *tree, const char *own, const char *head,
			  char ret[GIT_OID_MAX + 1], struct ap_err *err)
{
	char ref[AP_LABEL_MAX + 32], tip[GIT_OID_MAX + 1];
	branch_ref(ref, lease->label);
	for (unsigned tries = 0;; tries++) {
		tip[0] = '\0';
		int r = ap_git_resolve(saving->git, ref, tip, err);
		if (r < 0)
			return r;
		if (r > 0)
			tip[0] = '\0';
		/* HEAD may be on a branch without a commit: then the lease's base counts */
		const char *from = *head ? head : *own ? own : *tip ? tip : lease->base;
		/* the branch as the agent has it */
		bool own_counts = *own && ap_git_is_ancestor(saving->git, own, from, NULL) != 1 &&
				  (!*tip || ap_git_is_ancestor(saving->git, own, tip, NULL) != 1);
		bool tip_in_own =
			own_counts && *tip && ap_git_is_ancestor(saving->git, tip, own, NULL) == 1;
		const char *more[] = {own_counts && *tip && !tip_in_own ? own : NULL, NULL};
		r = saving_commit(saving, tree, own_counts && !*more ? own : tip, from, more, ret,
				  err);
		if (r == 0)
			r = update_branch(saving, lease, tip, ret, err);
		if ((r != -ESTALE && r != -EBUSY) || tries == SAVE_TRIES)
			return r == -ESTALE ? -EBUSY : r;
	}
}

/* Saves a repository that an agent has put in place of the worktree's own `.git`. */
static int save_in_place(struct saving *saving, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	struct commits commits = {0};
	AP_CLEANUP_CLOSE int top = layer_merged_dir(saving->layer, "", NULL);
	AP_CLEANUP_CLOSE int fd =
		top < 0 ? -1 : openat(top, ".git", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const char *const known[] = {NULL};
	if (fd < 0)
		return 0;
	saving->any = true;
	if (!agent_git_is_one(fd, "."))
		return 0;
	ap_buf_printf(&dir, "/proc/self/fd/%d/.", fd);
	int r = commits_take(saving, ap_buf_text(&dir), NULL, known, &commits, err);
	if (r == 0 && *commits.head_oid)
		r = commits_keep(saving, "%2Egit", "HEAD", commits.head_oid, err);
	if (r == 0)
		r = commits_keep_refs(saving, &commits, "%2Egit", "", NULL, err);
	if (r == 0)
		r = commits_keep_left_behind(saving, &commits, "", err);
	commits_fini(&commits);
	return r;
}

static int save_own(struct saving *saving, const struct worktree_lease *lease, struct ap_err *err)
{
	const struct worktree *worktree = saving->worktree;
	struct commits commits = {0};
	char ref[AP_LABEL_MAX + 32], tip[GIT_OID_MAX + 1] = "", tree[GIT_OID_MAX + 1];
	char *saved = saving->saved->commit;
	AP_CLEANUP_BUF struct ap_buf began = {0};
	branch_ref(ref, lease->label);
	ap_buf_printf(&began, "%s/began", worktree->layers);
	int r = ap_git_resolve(saving->git, ref, tip, err);
	const char *const known[] = {lease->base, r == 0 ? tip : NULL, NULL};
	if (r >= 0)
		r = worktree->git_dir ? commits_take(saving, worktree->git_dir, ap_buf_text(&began),
						     known, &commits, err)
				      : 0;
	saving->own = &commits;
	if (r == 0)
		r = save_files(saving, commits.head_oid, tree, err);
	if (r == 0)
		r = nested_save_modules(saving, err);
	if (r == 0)
		r = save_in_place(saving, err);
	if (r == 0)
		r = save_on_branch(saving, lease, tree, commits_find(&commits, ref),
				   commits.head_oid, saved, err);
	if (r == 0)
		r = commits_keep_refs(saving, &commits, "%2Egit", saved, ref, err);
	if (r == 0)
		r = commits_keep_left_behind(saving, &commits, saved, err);
	/* another worktree may use the label at once; a git directory that an agent removed is no
	 * failure */
	if (r == 0 && worktree_is_registered(worktree))
		(void)agent_git_detach(worktree->git_dir, saved, NULL);
	if (r == 0) {
		saving->saved->is_untouched =
			!saving->any && commits.tips.n == 0 && saving->saved->only_kept.len == 0;
		if (lease->created && strcmp(saved, lease->base) == 0)
			*saved = '\0';
	}
	commits_fini(&commits);
	return r;
}

int worktree_save(struct worktree *worktree, const struct worktree_lease *lease,
		  const char *message, worktree_progress *progress, void *data,
		  struct worktree_saved *ret, struct ap_err *err)
{
	struct saving saving;
	*ret = (struct worktree_saved){.is_untouched = false};
	int r = worktree_attach(worktree, err); /* to read its rules through the mount */
	if (r == 0 && worktree_is_kept(worktree)) {
		ret->is_untouched = true; /* a daemon saved it, then moved its layer away */
		return 0;
	}
	if (r == 0)
		r = saving_init(&saving, worktree, "", NULL, NULL, err);
	if (r == 0) {
		saving.label = lease->label;
		saving.message = message;
		saving.is_over = true;
		saving.progress = progress;
		saving.data = data;
		saving.saved = ret;
		r = save_own(&saving, lease, err);
		saving_fini(&saving);
	}
	return r < 0 ? ap_err_wrap(err, r, "saving the work of lease %s", lease->label) : 0;
}

/* --- during the lease --- */

/* Records where the pool has put the branch: worktree_discard() moves it back only from there. */
static int note_followed(const struct saving *saving, const char *commit, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf ref = {0};
	worktree_held_ref(saving->worktree, &ref);
	return ap_git_set_ref(saving->git, ap_buf_text(&ref), commit, NULL,
			      "agentpoolfs: where the lease is", err);
}

int worktree_follow(struct worktree *worktree, const struct worktree_lease *lease,
		    struct ap_err *err)
{
	struct worktree_saved saved = {.is_untouched = false};
	struct agent_head head = {NULL, ""};
	struct commits commits = {0};
	struct saving saving;
	char ref[AP_LABEL_MAX + 32], tip[GIT_OID_MAX + 1] = "";
	branch_ref(ref, lease->label);
	int r = worktree_agent_head(worktree, &head, err);
	bool is_new = r == 0 && !worktree_is_registered(worktree) && head.ref &&
		      strcmp(head.ref, ref) == 0 && *head.oid &&
		      strcmp(head.oid, lease->base) != 0 &&
		      strcmp(head.oid, worktree->followed) != 0;
	agent_head_fini(&head);
	if (r < 0 || !is_new)
		return r;
	r = saving_init(&saving, worktree, "", NULL, NULL, err);
	if (r < 0)
		return r;
	saving.label = lease->label;
	saving.saved = &saved;
	r = ap_git_resolve(saving.git, ref, tip, err);
	if (r > 0)
		tip[0] = '\0';
	const char *const known[] = {lease->base, *tip ? tip : NULL, NULL};
	if (r >= 0)
		r = commits_take(&saving, worktree->git_dir, NULL, known, &commits, err);
	/* the save at the end joins these commits with a branch that somebody else has moved */
	if (r == 0 && *commits.head_oid &&
	    (!*tip || ap_git_is_ancestor(saving.git, tip, commits.head_oid, NULL) == 1))
		r = ap_git_set_ref(saving.git, ref, commits.head_oid, tip,
				   "agentpoolfs: the agent's own commits", err);
	if (r == 0 && *commits.head_oid)
		r = note_followed(&saving, commits.head_oid, err);
	if (r == 0 && *commits.head_oid)
		strcpy(worktree->followed, commits.head_oid);
	commits_fini(&commits);
	ap_buf_fini(&saved.only_kept);
	saving_fini(&saving);
	return r;
}

/* HEAD must be on the lease's branch, or detached: other branches are not the lease's. */
static int check_head(const struct agent_head *head, const char *label, struct ap_err *err)
{
	char own[AP_LABEL_MAX + 32];
	branch_ref(own, label);
	if (!head->ref || strcmp(head->ref, own) == 0)
		return 0;
	return ap_err_set(err, -EBUSY, "the worktree is on %.256s, not on %s", head->ref, own);
}

/* The agent's index while a commit replaces it: locked as git locks it. The new one is made from a
 * copy. */
struct own_index {
	int dir_fd; /* of the git directory, whatever becomes of its path */
	struct ap_buf dir, lock, path;
	bool is_locked;
};

static int lock_index(const struct worktree *worktree, struct own_index *ret, struct ap_err *err)
{
	*ret = (struct own_index){
		.dir_fd = open(worktree->git_dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
	if (ret->dir_fd < 0)
		return ap_err_errno(err, -errno, "%s", worktree->git_dir);
	ap_buf_printf(&ret->dir, "/proc/self/fd/%d", ret->dir_fd);
	ap_buf_printf(&ret->path, "%s/index", ap_buf_text(&ret->dir));
	ap_buf_printf(&ret->lock, "%s/index.lock", ap_buf_text(&ret->dir));
	AP_CLEANUP_CLOSE int fd = open(ap_buf_text(&ret->lock),
				       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (fd < 0 && errno == EEXIST)
		return ap_err_set(
			err, -EIO,
			"a git of the agent's has its index locked, or has left the lock: "
			"remove %s/index.lock if none runs",
			worktree->git_dir);
	if (fd < 0)
		return ap_err_errno(err, -errno, "%s", ap_buf_text(&ret->lock));
	ret->is_locked = true;
	return 0;
}

static void unlock_index(struct own_index *index)
{
	if (index->is_locked)
		(void)unlink(ap_buf_text(&index->lock));
	ap_buf_fini(&index->dir);
	ap_buf_fini(&index->lock);
	ap_buf_fini(&index->path);
	if (index->dir_fd >= 0)
		close(index->dir_fd);
}

/* Reads the tree into a copy of the index, which keeps its stat data of unchanged files, and puts
 * the copy in place. The git program does it, in REPO, on the copy alone. */
static int commit_index(const struct worktree *worktree, struct own_index *index, const char *tree,
			struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf scratch = {0};
	AP_CLEANUP_BUF struct ap_buf bytes = {0};
	worktree_scratch(worktree, &scratch);
	ap_buf_printf(&scratch, "/index-%s", worktree->name);
	const struct git_place place = {.git_dir = worktree->repo->common_dir,
					.index = ap_buf_text(&scratch)};
	int r = file_read(ap_buf_text(&index->path), O_NOFOLLOW, 256 << 20, &bytes, NULL);
	if (r == 0)
		r = file_write(ap_buf_text(&scratch), bytes.data, bytes.len, err);
	else
		(void)unlink(ap_buf_text(&scratch)), r = 0; /* no index: git makes one */
	if (r == 0 && git_must(&place, NULL, err, GIT_ARGS("read-tree", "-m", tree)) < 0) {
		(void)unlink(ap_buf_text(&scratch)); /* such as an index with conflicts */
		r = git_must(&place, NULL, err, GIT_ARGS("read-tree", tree));
	}
	bytes.len = 0;
	if (r == 0)
		r = file_read(ap_buf_text(&scratch), O_NOFOLLOW, 512 << 20, &bytes, err);
	if (r == 0)
		r = file_write(ap_buf_text(&index->lock), bytes.data, bytes.len, err);
	if (r == 0 && rename(ap_buf_text(&index->lock), ap_buf_text(&index->path)) < 0)
		r = ap_err_errno(err, -errno, "%s", ap_buf_text(&index->path));
	index->is_locked = index->is_locked && r < 0;
	(void)unlink(ap_buf_text(&scratch));
	return r;
}

/* Removes the files of a merge, cherry-pick or revert that was not concluded. */
static void forget_merge(const struct own_index *index)
{
	static const char *const names[] = {"MERGE_HEAD", "MERGE_MODE", "MERGE_MSG",
					    "CHERRY_PICK_HEAD", "REVERT_HEAD"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		ap_buf_printf(&path, "%s/%s", ap_buf_text(&index->dir), names[i]);
		(void)unlink(ap_buf_text(&path));
	}
}

/* Commits the tree of the files in REPO, and sets the lease's branch there. */
static int commit_own(struct saving *saving, const struct worktree_lease *lease,
		      const struct commits *commits, const char *tip, struct ap_err *err)
{
	struct worktree *worktree = (struct worktree *)saving->worktree;
	char ref[AP_LABEL_MAX + 32], tree[GIT_OID_MAX + 1], head_tree[GIT_OID_MAX + 1];
	char *saved = saving->saved->commit;
	const char *head = *commits->head_oid ? commits->head_oid : lease->base;
	const char *more[COMMIT_MORE_MAX + 1] = {NULL};
	size_t n = 0;
	branch_ref(ref, lease->label);
	for (size_t i = 0; i < commits->tips.n && n < COMMIT_MORE_MAX; i++) {
		if (strncmp(commits->tips.at[i].name, "MERGE_HEAD", 10) == 0)
			more[n++] = commits->tips.at[i].oid;
	}
	saving->own = commits;
	int r = save_files(saving, commits->head_oid, tree, err);
	if (r == 0)
		r = ap_git_tree_of(saving->git, head, head_tree, err);
	if (r == 0 && strcmp(tree, head_tree) == 0 && n == 0)
		r = ap_err_set(err, -ENODATA, "nothing has changed since the last commit");
	if (r == 0)
		r = saving_commit(saving, tree, tip, head, more, saved, err);
	if (r == 0)
		r = ap_git_set_ref(saving->git, ref, saved, tip, "agentpoolfs: commit", err);
	if (r == 0)
		r = note_followed(saving, saved, err);
	if (r == 0)
		strcpy(worktree->followed, saved);
	return r;
}

int worktree_commit(struct worktree *worktree, const struct worktree_lease *lease,
		    const char *message, struct ap_err *err)
{
	struct worktree_saved saved = {.is_untouched = false};
	struct commits commits = {0};
	struct own_index index = {.dir_fd = -1};
	struct saving saving;
	char ref[AP_LABEL_MAX + 32], tip[GIT_OID_MAX + 1] = "";
	branch_ref(ref, lease->label);
	int r = worktree_attach(worktree, err);
	if (r == 0)
		r = saving_init(&saving, worktree, "", NULL, NULL, err);
	if (r < 0)
		return r;
	saving.label = lease->label;
	saving.message = message;
	saving.saved = &saved;
	r = worktree_check_git(worktree, err);
	if (r == 0)
		r = lock_index(worktree, &index, err);
	if (r == 0)
		r = ap_git_resolve(saving.git, ref, tip, err);
	if (r > 0)
		tip[0] = '\0';
	const char *const known[] = {lease->base, *tip ? tip : NULL, NULL};
	if (r >= 0)
		r = commits_take(&saving, worktree->git_dir, NULL, known, &commits, err);
	if (r == 0)
		r = check_head(&commits.head, lease->label, err);
	if (r == 0)
		r = commit_own(&saving, lease, &commits, tip, err);
	if (r == 0)
		r = commit_index(worktree, &index, saved.commit, err);
	if (r == 0)
		r = commits.head.ref
			    ? agent_git_start(worktree->git_dir, ref + strlen("refs/heads/"),
					      saved.commit, err)
			    : agent_git_detach(worktree->git_dir, saved.commit, err);
	if (r == 0)
		forget_merge(&index);
	unlock_index(&index);
	commits_fini(&commits);
	ap_buf_fini(&saved.only_kept);
	saving_fini(&saving);
	return r;
}

int worktree_discard(const struct worktree *worktree, const struct worktree_lease *lease,
		     struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf held = {0};
	char ref[AP_LABEL_MAX + 32], tip[GIT_OID_MAX + 1], ours[GIT_OID_MAX + 1];
	struct ap_git *git;
	int r = worktree_git(worktree, NULL, NULL, &git, err);
	if (r < 0)
		return r;
	branch_ref(ref, lease->label);
	worktree_held_ref(worktree, &held);
	/* moves back what the pool has put there in this lease; leaves what somebody else has put
	 * there */
	r = ap_git_resolve(git, ref, tip, err);
	if (r == 0 && worktree_is_registered(worktree))
		strcpy(ours, tip);
	else if (r == 0)
		r = ap_git_resolve(git, ap_buf_text(&held), ours, err);
	if (r == 0 && strcmp(tip, ours) == 0 && (lease->created || strcmp(tip, lease->base) != 0))
		r = lease->created ? ap_git_remove_ref(git, ref, tip, err)
				   : ap_git_set_ref(git, ref, lease->base, tip,
						    "agentpoolfs: the lease is discarded", err);
	ap_git_close(git);
	/* as worktree_save() does at its end */
	if (worktree_is_registered(worktree))
		(void)agent_git_detach(worktree->git_dir, lease->base, NULL);
	return r < 0 && r != -ESTALE ? r : 0;
}
