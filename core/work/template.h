/* Templates: the files of one commit, checked out once by git with all its filters, hooks and
 * sparse patterns, and never changed. The pool makes worktrees from them. Each counts its users; a
 * template that no worktree uses goes, unless it is of the commit that new worktrees start from.
 *
 * They lie in the state directory: templates/COMMIT/files, and templates/COMMIT/git, the seed of
 * the git directories of their worktrees (agent_git.h), with the index. A half-made template has
 * another name, and the next start removes it. In the repository each template has only a ref,
 * which holds its commit. Functions that block say so; all may run in several threads. */
#pragma once

#include <limits.h>

#include "repo.h"
#include "spawn_backend.h"

struct templates; /* of one state directory */
struct template;

/* Finds the whole templates in `state_dir` and removes what is half-made. NULL on ENOMEM. `backend`
 * may be NULL: there are no templates then. `repo` and `backend` must outlive the result. Blocks.
 */
struct templates *templates_new(const struct repo *repo, const char *state_dir,
				const struct spawn_backend *backend);

/* Frees the descriptions, none of which may be in use; the files stay for the next start. */
void templates_free(struct templates *templates);

const struct repo *templates_repo(const struct templates *templates);
const char *templates_state_dir(const struct templates *templates);
const struct spawn_backend *templates_backend(const struct templates *templates);

/* Gets a template for a worktree that is to stand at `commit`: the one of that commit, else the
 * newest made since the start, else any, else makes one. Blocks, long if it makes one. The caller
 * puts it back. */
int template_get(struct templates *templates, const char *commit, int64_t limit_ns,
		 struct template **ret, struct ap_err *err);

/* Gets the template of exactly that commit, and makes it if there is none. Blocks, long if it makes
 * one. The caller puts it back. */
int template_make(struct templates *templates, const char *commit, int64_t limit_ns,
		  struct template **ret, struct ap_err *err);

/* The template of that commit with a reference, or NULL. Does not block. */
struct template *template_find(struct templates *templates, const char *commit);

/* Puts a reference back. The last one to do so removes the template if it is not current, which
 * blocks. */
void template_put(struct template *template);

/* The template in `slot`, with a reference, for a reader while the owner of `slot` may replace it;
 * NULL: the slot is empty. Does not block. */
struct template *template_pin(struct templates *templates, struct template *const *slot);

/* Puts `by`, with its reference, into `slot`, and puts the previous template back as
 * template_put(); `by` may be NULL. */
void template_replace(struct templates *templates, struct template **slot, struct template *by);

/* New worktrees start from `commit` now: makes its template if there is none, and removes templates
 * that nothing uses. Blocks, long if it makes one; returns 0 at once if another thread is making
 * one. */
int templates_follow(struct templates *templates, const char *commit, int64_t limit_ns,
		     struct ap_err *err);

/* A git directory in the making. It lies on the same file system as its final place. */
struct staged {
	char dir[PATH_MAX];   /* STATE_DIR/git/.staged-… */
	char admin[PATH_MAX]; /* the git directory, in it */
};

/* Makes a git directory from the template's seed, with the index, which may be large, and the refs
 * that the repository has now. After a failure the caller removes ret->dir unless it is "". Blocks.
 */
int template_stage(struct templates *templates, struct template *template, struct staged *ret,
		   struct ap_err *err);

/* Stages a git directory in advance for the next worktree, if there is none, and makes the
 * template's seed again if the repository's configuration or hooks have changed. Blocks. */
void templates_prepare(struct templates *templates);

/* Removes the staged git directories that a dead daemon of this state directory left. Blocks. */
void templates_forget_staged(struct templates *templates);

/* Records what went wrong while a template or worktree was made all the same, such as in the user's
 * hook. Does nothing if the sentence is "". */
void templates_warn(struct templates *templates, const struct ap_err *why);

/* Takes the last sentence that templates_warn() recorded. False: there is none, or it was taken
 * already. */
bool templates_take_warning(struct templates *templates, struct ap_err *ret);

/* Appends the name of a ref that holds a commit for this state directory: `name` is the template's
 * commit, or an agent's name. */
void templates_held_ref(const struct templates *templates, const char *name, struct ap_buf *ret);

/* Appends the path of the template's seed; nothing for NULL. */
void template_seed(const struct template *template, struct ap_buf *ret);

const char *template_commit(const struct template *template);
const char *template_files(const struct template *template);

/* Moves `path`, with all that lies there, to the trash, which templates_empty_trash() removes
 * later. A missing path is no failure. Once the end has begun it removes the path at once, as that
 * holds nobody up any more and the callers are many. Blocks. */
int templates_discard(struct templates *templates, const char *path, struct ap_err *err);

/* Takes over a descriptor whose closing takes long, or -1. templates_empty_trash() closes it. */
void templates_let_go(struct templates *templates, int fd);

/* Removes what is in the trash. Calls `each`, which may be NULL, once for each thing that cannot be
 * removed. Blocks, long for many files. One thread at a time. */
void templates_empty_trash(struct templates *templates,
			   void (*each)(void *data, const struct ap_err *why), void *data);

/* Begins the end: from now on no new worktree uses a template. worktree_remove() no longer calls
 * repo_forget_worktrees(); the caller calls that once, at the end. Any thread. */
void templates_begin_end(struct templates *templates);
bool templates_are_ending(const struct templates *templates);

/* Ends: no worktree is made any more. Removes the templates that no worktree uses, and the trash.
 * Blocks. */
void templates_end(struct templates *templates);

/* How many there are, and how often one was made or removed since the start. */
struct templates_stats {
	unsigned n, n_users;
	uint64_t n_made, n_removed;
	unsigned n_stuck; /* what the last emptying of the trash could not remove */
	unsigned n_files_done, n_files; /* written of the template that is being made, of how many;
					 * 0 of 0: none is, or git has not counted them yet */
};
void templates_look(struct templates *templates, struct templates_stats *ret);

/* Makes the submodules of a worktree ready, whose files and git directory are in place: writes into
 * each a `.git` file that names the submodule's own git directory, inside the agent's. Blocks. */
int template_place_modules(struct template *template, const char *path, const char *git_dir,
			   struct ap_err *err);
