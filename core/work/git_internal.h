/* The interface between the two implementations of git.h and the code that they share. git.c,
 * git_tree.c and git_write.c do once what needs no object store: an implementation reads and writes
 * objects as bytes, moves refs, and looks up attributes and settings. */
#pragma once

#include "git.h"

enum git_type { GIT_TYPE_NONE, GIT_TYPE_COMMIT, GIT_TYPE_TREE, GIT_TYPE_BLOB, GIT_TYPE_TAG };

/* Bytes of the largest tree or commit that is read. */
#define GIT_OBJECT_MAX ((size_t)256 << 20)

/* The attributes that decide how a file is written, in the order of their values. */
enum git_attr {
	GIT_ATTR_CRLF,
	GIT_ATTR_IDENT,
	GIT_ATTR_FILTER,
	GIT_ATTR_EOL,
	GIT_ATTR_TEXT,
	GIT_ATTR_ENCODING,
	N_GIT_ATTRS
};
extern const char *const git_attr_names[N_GIT_ATTRS];

/* A value is GIT_ATTR_TRUE, GIT_ATTR_FALSE, NULL (unspecified) or a text. */
extern const char git_attr_true[], git_attr_false[];

struct git_attrs {
	const char *value[N_GIT_ATTRS];
	struct ap_buf text; /* what values point to */
};

struct git_ops {
	const char *kind;
	void (*close)(struct ap_git *git);
	int (*resolve)(struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		       struct ap_err *err);
	int (*set_ref)(struct ap_git *git, const char *ref, const char *oid, const char *old,
		       const char *why, struct ap_err *err);
	int (*remove_ref)(struct ap_git *git, const char *ref, const char *old, struct ap_err *err);
	/* Appends a line "OID NAME" for each ref; may append refs with another prefix too. */
	int (*list_refs)(struct ap_git *git, const char *prefix, struct ap_buf *ret,
			 struct ap_err *err);
	/* The type of an object, and its size. -ENOENT. */
	int (*look)(struct ap_git *git, const char *oid, enum git_type *ret_type, size_t *ret_size,
		    struct ap_err *err);
	/* Appends what an object holds, and returns its type. -ENOENT; -EFBIG: more than `max`
	 * bytes. */
	int (*read)(struct ap_git *git, const char *oid, size_t max, enum git_type *ret_type,
		    struct ap_buf *ret, struct ap_err *err);
	int (*write)(struct ap_git *git, enum git_type type, const void *data, size_t len,
		     char ret[GIT_OID_MAX + 1], struct ap_err *err);
	/* Writes the content of a regular file as a blob, unchanged, without holding all of it in
	 * memory. */
	int (*write_fd)(struct ap_git *git, int fd, char ret[GIT_OID_MAX + 1], struct ap_err *err);
	int (*is_ancestor)(struct ap_git *git, const char *old, const char *commit,
			   struct ap_err *err);
	int (*is_ignored)(struct ap_git *git, const char *path, bool is_dir, struct ap_err *err);
	int (*attributes)(struct ap_git *git, const char *path, struct git_attrs *ret,
			  struct ap_err *err);
	int (*diffstat)(struct ap_git *git, const char *old_tree, const char *new_tree,
			struct ap_buf *ret, struct ap_err *err);
	/* Whether the settings define a filter that works at checkout: smudge or process. */
	int (*has_smudge)(struct ap_git *git, struct ap_err *err);
	/* The last value of a setting, owned by the caller; NULL: it has none. */
	int (*setting)(struct ap_git *git, const char *name, char **ret, struct ap_err *err);
};

struct ap_git {
	const struct git_ops *ops;
	size_t oid_len; /* hex digits */
	/* copies of what it was opened with; those of the second line may be NULL */
	char *git_dir, *common_dir;
	char *objects, *rules, *ref_notes;
	char **borrowed; /* NULL at the end; never NULL itself */
	int64_t limit_ns;
	char *author, *committer;   /* NAME <EMAIL>; NULL: not asked yet */
	struct ap_buf clear;	    /* a directory that is known not to be ignored, with a slash */
	struct git_filter *filter;  /* NULL: not needed yet */
	bool smudge_known, smudges; /* whether ops->has_smudge() was asked, and what it said */
};

/* Open a handle of either kind, and copy the strings of `place`. 1: libgit2 cannot open the
 * repository. */
int git_libgit2_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err);
int git_program_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err);

/* git_init() fills the fields that both kinds have, git_fini() frees them. */
int git_init(struct ap_git *git, const struct git_ops *ops, const struct ap_git_place *place,
	     struct ap_err *err);
void git_fini(struct ap_git *git);

/* Whether a text has the form of an object name of the repository. */
bool git_is_oid(const struct ap_git *git, const char *text);

/* The commit of a revision, by a process of git. 0, 1 (there is none) or negative errno. */
int git_ask_revision(const struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		     struct ap_err *err);

/* Writes bytes as hex digits, and a NUL. */
void git_hex(const unsigned char *bytes, size_t n, char *ret);

/* Whether a setting, whose name ends at a newline or at the end of the text, is a filter that works
 * at checkout. */
bool git_is_smudge(const char *setting);

/* Whether a boolean setting is on, as git reads it; `otherwise` if it is not set. */
bool git_setting_is(struct ap_git *git, const char *name, bool otherwise);

/* The author or committer of commits, and of logs of refs: NAME <EMAIL>; owned by the handle. NULL
 * on ENOMEM. */
const char *git_ident(struct ap_git *git, bool is_author);

/* Parses the bytes of a tree. -EIO: they are no tree; -ENOMEM. */
int git_tree_parse(const void *data, size_t len, size_t oid_len, struct ap_git_tree *ret);

/* Calls `each` with the paths of an index file and their objects. Stops when `each` returns
 * non-zero, and returns that. -EIO, -ENOMEM. */
int git_index_parse(const struct ap_buf *text, size_t oid_bytes,
		    int (*each)(void *data, const char *path, const char *oid), void *data);

/* Whether git accepts a name in a tree; `protect_ntfs` as core.protectNTFS. */
bool git_name_is_valid(const char *name, unsigned mode, bool protect_ntfs);

/* Has git itself write what filters and encodings make of a file. -EIO: a required filter, or an
 * encoding, fails, with git's own words. */
int git_write_filtered(struct ap_git *git, int fd, const char *path, char ret[GIT_OID_MAX + 1],
		       struct ap_err *err);

struct git_filter;
void git_filter_free(struct git_filter *filter); /* NULL is ignored */
