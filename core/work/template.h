/* Templates: the files of one commit, checked out once by git with all its filters, hooks and
 * sparse patterns, and never changed. Worktrees are made from them; each counts its users, and one
 * that no worktree uses goes, unless it is of the commit that new worktrees start from.
 *
 * They lie in the state directory: templates/COMMIT/files, and templates/COMMIT/git, the seed of
 * the git directories of their worktrees (agent_git.h), with the index. One whose making was cut
 * off is named otherwise and removed at the next start. In the repository each is known by a ref
 * alone, which holds its commit. Functions that block say so; all may run in several threads. */
#pragma once

#include <limits.h>

#include "repo.h"
#include "spawn_backend.h"

struct templates; /* of one state directory */
struct template;

/* Takes the templates of `state_dir` up that are whole. NULL on ENOMEM. `backend` may be NULL:
 * there are no templates then. All that is given lives longer. */
struct templates *templates_new(const struct repo *repo, const char *state_dir,
				const struct spawn_backend *backend);

/* None is in use any more; they stay for the next start. */
void templates_free(struct templates *templates);

const struct repo *templates_repo(const struct templates *templates);
const char *templates_state_dir(const struct templates *templates);
const struct spawn_backend *templates_backend(const struct templates *templates);

/* A template to make a worktree from that is to stand at `commit`: of that commit, else the newest
 * that there is, else one is made. Blocks, long if one is made. Put it back. */
int template_get(struct templates *templates, const char *commit, int64_t limit_ns,
		 struct template **ret, struct ap_err *err);

/* The template of that very commit, made where there is none. Blocks, long if it is made. */
int template_make(struct templates *templates, const char *commit, int64_t limit_ns,
		  struct template **ret, struct ap_err *err);

/* The template of that commit with a reference, or NULL. Does not block. */
struct template *template_find(struct templates *templates, const char *commit);

/* The last one to put it back removes it, if it is not current. */
void template_put(struct template *template);

/* What stands in `slot`, with a reference, for who looks at it while its owner may replace it;
 * NULL: nothing. */
struct template *template_pin(struct templates *templates, struct template *const *slot);

/* Has another one, with its reference, stand there, and puts back what did; `by` may be NULL. */
void template_replace(struct templates *templates, struct template **slot, struct template *by);

/* New worktrees start from `commit` now: its template is made, if there is none, and those go that
 * nothing uses. Blocks, long if one is made; returns at once when another thread is at it. */
int templates_follow(struct templates *templates, const char *commit, int64_t limit_ns,
		     struct ap_err *err);

/* A git directory in the making. It lies on the file system that it goes to. */
struct staged {
	char dir[PATH_MAX];   /* STATE_DIR/git/.staged-… */
	char admin[PATH_MAX]; /* the git directory, in it */
};

/* Makes one from the template's, with its index, which may be large, and the refs that the
 * repository has now. On failure `dir` may be left, for the caller to remove; "" if not. */
int template_stage(struct templates *templates, struct template *template, struct staged *ret,
		   struct ap_err *err);

/* Makes one in advance for the next worktree, if there is none; and the template's anew, if the
 * repository's configuration or hooks have changed. Blocks. */
void templates_prepare(struct templates *templates);

/* Removes those that a dead daemon of this state directory left. */
void templates_forget_staged(struct templates *templates);

/* Notes what went wrong in the making of a template or worktree though it was made, such as in the
 * user's hook; "": nothing. */
void templates_warn(struct templates *templates, const struct ap_err *why);

/* Takes the last sentence of those. False: there is none that was not taken yet. */
bool templates_take_warning(struct templates *templates, struct ap_err *ret);

/* Appends the name of a ref that holds a commit for this state directory: `name` is the template's
 * commit, or an agent. */
void templates_held_ref(const struct templates *templates, const char *name, struct ap_buf *ret);

/* Appends where the seed is, nothing for NULL. */
void template_seed(const struct template *template, struct ap_buf *ret);

const char *template_commit(const struct template *template);
const char *template_files(const struct template *template);

/* Moves a path out of the way, to be removed behind the caller: all that lies there is garbage. No
 * failure where it is not there. When the end has begun it is removed at once: there is nobody any
 * more whom that could hold up, and the callers are many. */
int templates_discard(struct templates *templates, const char *path, struct ap_err *err);

/* Takes a descriptor whose closing takes long, or -1, to be closed with the removal. */
void templates_let_go(struct templates *templates, int fd);

/* Removes what was moved there. `each` is told of what cannot be removed, once of each thing; NULL:
 * nobody is. Blocks, long for many files. */
void templates_empty_trash(struct templates *templates,
			   void (*each)(void *data, const struct ap_err *why), void *data);

/* From now on no template is used by a worktree that is not there yet: what worktrees leave behind
 * in the repository is looked for once, by repo_forget_worktrees() at the end, and not with each of
 * them. Any thread. */
void templates_begin_end(struct templates *templates);
bool templates_are_ending(const struct templates *templates);

/* No worktree is made any more: removes the templates that none uses, and the garbage. Blocks. */
void templates_end(struct templates *templates);

/* How many there are, and how often one was made or removed since the start. */
struct templates_stats {
	unsigned n, n_users;
	uint64_t n_made, n_removed;
	unsigned n_stuck; /* what the last emptying of the trash could not remove */
};
void templates_look(struct templates *templates, struct templates_stats *ret);

/* Places what the submodules of a worktree need, that its files and its git directory are there
 * for: in each a `.git` file that names the submodule's own git directory, in the agent's. */
int template_place_modules(struct template *template, const char *path, const char *git_dir,
			   struct ap_err *err);
