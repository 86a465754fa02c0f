/* How git_program.c and git_filter.c run the git program for a handle of git.h. */
#pragma once

#include "git_command.h"
#include "git_internal.h"

/* Where git works, with the strings that `place` points to: the struct must not move. */
struct git_process {
	struct git_place place;
	const char *env[8];
	struct ap_buf objects, alternates, own, index;
};

/* -ENOMEM: the caller calls git_process_fini() then too. */
int git_process_init(struct git_process *process, struct ap_git *git);
void git_process_fini(struct git_process *process);

/* Settings for the file system that the files lie on, whatever the repository's own is like. */
#define GIT_AS_THEY_ARE                                                                            \
	"-c", "core.ignoreCase=false", "-c", "core.fileMode=true", "-c", "core.symlinks=true",     \
		"-c", "core.precomposeUnicode=false"

/* What git_place() made in the directory of rules so that git finds a path there. */
struct git_placed {
	int rules_fd;
	char *path;
	size_t made; /* bytes of the path up to the end of the first part that was made; 0: none */
	bool has_link;
};

/* Makes a path in the directory of rules, with the directories above it: a directory (`is_dir`), a
 * link to the open file `fd`, or with neither (`fd` -1) the directories above alone. Leaves what is
 * there already. On failure nothing is left; -EEXIST: something else has the name of the link. */
int git_place(struct ap_git *git, const char *path, bool is_dir, int fd, struct git_placed *ret);

/* Removes what git_place() made. */
void git_unplace(struct git_placed *placed);

/* Shared with the tests: the parser of an answer of cat-file, and the writer of a path that git
 * reads. */
bool git_parse_header(const char *line, size_t oid_len, char ret[GIT_OID_MAX + 1],
		      enum git_type *ret_type, size_t *ret_size);
void git_quote_path(const char *path, struct ap_buf *ret);
