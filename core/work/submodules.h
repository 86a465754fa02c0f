/* Makes the submodules that are checked out in the repository ready in its worktrees, without a
 * network: their files are in the template, their git directories, which borrow the objects that
 * the repository has of them, in the seed. A tree without .gitmodules costs nothing. All functions
 * block.
 *
 * DIR/modules, beside a template's files, lists what the template has of them. */
#pragma once

#include <stdint.h>

#include "err.h"
#include "repo.h"

/* Checks the submodules out in a template in the making: `dir` has its `files` and its seed, `git`.
 * Leaves a submodule that the repository does not have, or not at the commit that the tree names,
 * as git leaves it: an empty directory. `ret_warning` is as with checkout_hook(). */
int submodules_check_out(const struct repo *repo, const char *commit, const char *dir,
			 int64_t limit_ns, struct ap_err *ret_warning, struct ap_err *err);

/* Writes into the submodules among a worktree's files, `path`, the `.git` files that name their git
 * directories in `git_dir`, a copy of the seed that no agent has had yet. `dir` is the template's
 * directory. If the worktree stands at another commit than the template's, `origin`, checks the
 * submodules out as that commit has them, or empties them. */
int submodules_place(const char *origin, const char *dir, const char *git_dir, const char *path,
		     struct ap_err *err);
