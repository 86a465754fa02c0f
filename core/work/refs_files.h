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
#define REF_DEPTH  128	      /* directories in one another below refs/ */

/* Whose files they are. */
enum data_owner {
	DATA_AGENTS, /* no link is followed, no file system left, nothing but regular files opened
		      */
	DATA_OURS,   /* the user's, where links are well */
};

/* Opens what is at `name` below a directory, for reading. A descriptor, or a negative errno:
 * -EINVAL: it is no regular file. */
int data_open(int dir_fd, const char *name, enum data_owner owner);

/* The same of a directory; -ENOTDIR. */
int data_open_dir(int dir_fd, const char *name, enum data_owner owner);

/* Appends what a regular file holds. 0, -EFBIG: more than `max` bytes; another errno. */
int data_read(int dir_fd, const char *name, size_t max, enum data_owner owner, struct ap_buf *ret);

/* Opens a directory by its path, which is not a link, or by /proc/self/fd/N. */
int data_open_top(const char *path);

/* Whether git would take it for the name of a ref: refs/… */
bool refs_is_name(const char *name);

/* The object name that a text begins with, with `end` or its NUL behind it. 0: there is none. */
size_t refs_parse_oid(const char *text, char ret[GIT_OID_MAX + 1]);

struct ref {
	char *name;
	char *target;		   /* of a symbolic one, else NULL */
	char oid[GIT_OID_MAX + 1]; /* else */
};

struct ref_list {
	struct ref *at; /* by name, in the order of its bytes */
	size_t n;
	bool is_cut; /* there were more than the bounds */
};

void refs_fini(struct ref_list *list);
#define CLEANUP_REFS __attribute__((cleanup(refs_fini)))

/* The loose refs of a git directory. -ENOMEM, … */
int refs_read_loose(int git_fd, enum data_owner owner, struct ref_list *ret);

/* One line of packed-refs. */
struct packed_ref {
	const char *line; /* of the file, with what it says of the object a tag leads to */
	size_t len;
	const char *name; /* not ended by a NUL */
	size_t name_len;
	char oid[GIT_OID_MAX + 1];
};

/* Goes through the text of packed-refs; false at its end. Lines that are none are left out. */
bool refs_next_packed(const char **at, struct packed_ref *ret);

/* What a ref or HEAD names, by symbolic refs: `ret_ref` is the ref at the end of them, owned by the
 * caller, NULL: none; `ret_oid` "": it is not there yet. -EIO: that is none; `packed` is the text
 * of packed-refs if it has been read, else NULL. */
int refs_resolve(int git_fd, const char *name, const struct ap_buf *packed, char **ret_ref,
		 char ret_oid[GIT_OID_MAX + 1]);
