/* The text that `git diff --stat` prints, and how libgit2 finds its numbers. */
#pragma once

#include <git2/oid.h>
#include <git2/types.h>

#include "git_internal.h"

/* How one file changed. */
struct git_stat {
	const char *path, *old_path; /* old_path: its old name; NULL: the same */
	bool is_binary;		     /* `added` and `deleted` are bytes then */
	uint64_t added, deleted;     /* lines */
};

/* Appends the whole text; nothing if nothing differs. */
void git_stat_format(const struct git_stat *stats, size_t n, struct ap_buf *ret);

/* ap_git_diffstat() by libgit2. */
int git_libgit2_diffstat(struct ap_git *git, git_repository *repo, const char *old_tree,
			 const char *new_tree, struct ap_buf *ret, struct ap_err *err);

/* The type of an object, and its size, even if libgit2 cannot read its header alone, as of objects
 * that are stored without compression (core.compression=0). 0 or an error of libgit2. */
int git_libgit2_header(git_odb *odb, const git_oid *oid, size_t *ret_size, git_object_t *ret_type);

/* Files of more bytes count as binary. */
#define GIT_STAT_MAX (8 << 20)
