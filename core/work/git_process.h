/* How git_program.c and git_filter.c run the git program for a handle of git.h. */
#pragma once

#include "git_command.h"
#include "git_internal.h"

/* Where it works, with the texts that this points to. It must not be moved. */
struct git_process {
	struct git_place place;
	const char *env[8];
	struct ap_buf objects, alternates, own, index;
};

/* -ENOMEM. What there is of it must be freed then too. */
int git_process_init(struct git_process *process, struct ap_git *git);
void git_process_fini(struct git_process *process);

/* Files are as the file system has them that they lie on, whatever the repository's own is like. */
#define GIT_AS_THEY_ARE                                                                            \
	"-c", "core.ignoreCase=false", "-c", "core.fileMode=true", "-c", "core.symlinks=true",     \
		"-c", "core.precomposeUnicode=false"

/* What was made in the directory of rules for git to find a path there. */
struct git_placed {
	int rules_fd;
	char *path;
	size_t made; /* bytes of the path up to the end of the first part that was made; 0: none */
	bool has_link;
};

/* Makes a path there, with the directories above it: a directory, a link to an open file of ours,
 * or with neither the directories alone. What is there already stays. A negative errno: it cannot
 * be, such as -EEXIST: something is where the link is to be; nothing is left then. */
int git_place(struct ap_git *git, const char *path, bool is_dir, int fd, struct git_placed *ret);

/* Takes away what was made. */
void git_unplace(struct git_placed *placed);

/* What two parsers of what git says, and a writer of what it reads, are tried by. */
bool git_parse_header(const char *line, size_t oid_len, char ret[GIT_OID_MAX + 1],
		      enum git_type *ret_type, size_t *ret_size);
void git_quote_path(const char *path, struct ap_buf *ret);
