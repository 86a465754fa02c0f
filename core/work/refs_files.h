/* What git keeps in files of a git directory: HEAD, loose and packed refs, read without git, as
 * data. An agent may have made anything of them: every read is of a regular file and has a bound,
 * and what is no ref is left out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "git.h"

#define HEAD_MAX   4096	      /* bytes of HEAD and of a loose ref */
#define PACKED_MAX (64 << 20) /* bytes of packed-refs */
#define REFS_MAX   100000     /* entries of directories that are looked at */
#define REF_DEPTH  128	      /* levels of directories below refs/ */

/* Whose files they are. */
enum data_owner {
	DATA_AGENTS, /* follow no link, stay on the mount, open nothing but regular files */
	DATA_OURS,   /* the user's: links are followed */
};

/* Opens what is at `name` below a directory, for reading. A descriptor, or a negative errno:
 * -EINVAL: it is no regular file; -ELOOP: it is a link, with DATA_AGENTS. */
int data_open(int dir_fd, const char *name, enum data_owner owner);

/* Likewise opens a directory; -ENOTDIR. */
int data_open_dir(int dir_fd, const char *name, enum data_owner owner);

/* Appends what a regular file holds. 0, -EFBIG: more than `max` bytes; another errno. */
int data_read(int dir_fd, const char *name, size_t max, enum data_owner owner, struct ap_buf *ret);

/* Opens a directory by its path, which is not a link, or by /proc/self/fd/N. */
int data_open_top(const char *path);

/* Whether git would accept it as the name of a ref: refs/… */
bool refs_is_name(const char *name);

/* Copies the object name that a text begins with, if white space or the NUL follows it. Returns its
 * length; 0: there is none, or it is all zeros. */
size_t refs_parse_oid(const char *text, char ret[GIT_OID_MAX + 1]);

struct ref {
	char *name;
	char *target;		   /* of a symbolic ref, else NULL */
	char oid[GIT_OID_MAX + 1]; /* of any other ref */
};

struct ref_list {
	struct ref *at; /* sorted by name, byte by byte */
	size_t n;
	bool is_cut; /* not all was read: over a bound, or unreadable */
};

void refs_fini(struct ref_list *list);
#define CLEANUP_REFS __attribute__((cleanup(refs_fini)))

/* The loose refs of a git directory. -ENOMEM, … */
int refs_read_loose(int git_fd, enum data_owner owner, struct ref_list *ret);

/* One line of packed-refs. */
struct packed_ref {
	const char *line; /* in the file, with the next line if that says what a tag leads to */
	size_t len;
	const char *name; /* not ended by a NUL */
	size_t name_len;
	char oid[GIT_OID_MAX + 1];
};

/* Finds the next ref in the text of packed-refs; false at its end. Skips lines that are no ref. */
bool refs_next_packed(const char **at, struct packed_ref *ret);

/* What a ref or HEAD names, through symbolic refs. `ret_ref` is the ref at their end, owned by the
 * caller; NULL: `name` is not symbolic. `ret_oid` is "" if that ref is not there yet. `packed` is
 * the text of packed-refs if the caller has read it, else NULL. -EIO: `name` is no valid ref, or
 * cannot be read. */
int refs_resolve(int git_fd, const char *name, const struct ap_buf *packed, char **ret_ref,
		 char ret_oid[GIT_OID_MAX + 1]);
