/* Writes a commit's files: git does it, in a git directory that no agent has had yet (agent_git.h),
 * as `git worktree add` would, with the filters, sparse patterns and hooks of the repository. All
 * functions block. */
#pragma once

#include <stdint.h>

#include "err.h"
#include "git_command.h"
#include "repo.h"

/* Writes the files of the commit that HEAD of `git` is at over what is in `files`. In a partial
 * clone git fetches what is missing into the repository. `progress`, which may be NULL, counts the
 * files. */
int checkout_files(const struct repo *repo, const char *git, const char *files, int64_t limit_ns,
		   struct git_progress *progress, struct ap_err *err);

/* Runs the post-checkout hook as for a new checkout. The hook finds the git directory by the file
 * `.git` in `files`: the function makes that for the run and removes it, unless `is_linked` says
 * that it is there already. A hook that fails is no failure, as it is none for git: `ret_warning`
 * says so then; else it is "". */
int checkout_hook(const struct repo *repo, const char *git, const char *files, bool is_linked,
		  const char *commit, int64_t limit_ns, struct ap_err *ret_warning,
		  struct ap_err *err);
