/* Submodules that are checked out in the repository are ready in its worktrees, without a network:
 * their files are in the template, their git directories, which borrow the objects that the
 * repository has of them, in the seed. A tree without .gitmodules costs nothing. All functions
 * block.
 *
 * What a template has of them is listed in DIR/modules beside its files. */
#pragma once

#include <stdint.h>

#include "err.h"
#include "repo.h"

/* Checks them out in a template in the making: `dir` has its files and its seed, `git`. Those that
 * the repository has not, or not at the commit that the tree names, are left as git leaves them:
 * empty directories. `ret_warning` is as with checkout_hook(). */
int submodules_check_out(const struct repo *repo, const char *commit, const char *dir,
			 int64_t limit_ns, struct ap_err *ret_warning, struct ap_err *err);

/* Has the submodules of a worktree's files name their git directories, in a copy of the seed that
 * no agent has had yet. If the worktree stands at another commit than the template's, `origin`,
 * they are checked out as that has them, or emptied. */
int submodules_place(const char *origin, const char *dir, const char *git_dir, const char *path,
		     struct ap_err *err);
