/* A commit's files, written by git in a git directory that no agent has had yet (agent_git.h): as
 * `git worktree add` would, with the filters, sparse patterns and hooks of the repository. All
 * functions block. */
#pragma once

#include <stdint.h>

#include "err.h"
#include "repo.h"

/* Writes the files of what HEAD of `git` is at, in place of all that is in `files`. What is missing
 * in a partial clone is fetched into the repository. */
int checkout_files(const struct repo *repo, const char *git, const char *files, int64_t limit_ns,
		   struct ap_err *err);

/* Runs the post-checkout hook, as for a new checkout; it finds the git directory from the files, in
 * which there is a link to it while it runs, or always if it `is_linked`. That it fails is no
 * failure, for git neither: `ret_warning` says so then, "" otherwise. */
int checkout_hook(const struct repo *repo, const char *git, const char *files, bool is_linked,
		  const char *commit, int64_t limit_ns, struct ap_err *ret_warning,
		  struct ap_err *err);
