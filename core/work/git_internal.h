/* What the two implementations of git.h and what they share know of one another. All that needs no
 * store is done once, in git.c, git_tree.c and git_write.c: an implementation reads and writes
 * objects as bytes, moves refs, and answers what attributes and settings say. */
#pragma once

#include "git.h"

enum git_type { GIT_TYPE_NONE, GIT_TYPE_COMMIT, GIT_TYPE_TREE, GIT_TYPE_BLOB, GIT_TYPE_TAG };

/* Bytes of a tree or a commit that is read. */
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
	/* Appends OID, a blank, the name, a newline for each; it may be of any prefix. */
	int (*list_refs)(struct ap_git *git, const char *prefix, struct ap_buf *ret,
			 struct ap_err *err);
	/* What an object is, and its size. -ENOENT. */
	int (*look)(struct ap_git *git, const char *oid, enum git_type *ret_type, size_t *ret_size,
		    struct ap_err *err);
	/* Appends what it holds, and tells what it is. -ENOENT; -EFBIG: more than `max` bytes. */
	int (*read)(struct ap_git *git, const char *oid, size_t max, enum git_type *ret_type,
		    struct ap_buf *ret, struct ap_err *err);
	int (*write)(struct ap_git *git, enum git_type type, const void *data, size_t len,
		     char ret[GIT_OID_MAX + 1], struct ap_err *err);
	/* Writes what a regular file holds, as it is, without having it in memory as a whole. */
	int (*write_fd)(struct ap_git *git, int fd, char ret[GIT_OID_MAX + 1], struct ap_err *err);
	int (*is_ancestor)(struct ap_git *git, const char *old, const char *commit,
			   struct ap_err *err);
	int (*is_ignored)(struct ap_git *git, const char *path, bool is_dir, struct ap_err *err);
	int (*attributes)(struct ap_git *git, const char *path, struct git_attrs *ret,
			  struct ap_err *err);
	int (*diffstat)(struct ap_git *git, const char *old_tree, const char *new_tree,
			struct ap_buf *ret, struct ap_err *err);
	/* Whether a filter is set that files are checked out through: smudge or process. */
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

/* Each takes over nothing of `git`, whose first fields are filled. 1: libgit2 cannot open it. */
int git_libgit2_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err);
int git_program_open(struct ap_git **ret, const struct ap_git_place *place, struct ap_err *err);

/* Fills the fields that both have; and frees them. */
int git_init(struct ap_git *git, const struct git_ops *ops, const struct ap_git_place *place,
	     struct ap_err *err);
void git_fini(struct ap_git *git);

/* Whether a text is an object name of the repository. */
bool git_is_oid(const struct ap_git *git, const char *text);

/* The commit of a revision, by a process of git. 0, 1 (there is none) or negative errno. */
int git_ask_revision(const struct ap_git *git, const char *revision, char ret[GIT_OID_MAX + 1],
		     struct ap_err *err);

/* Writes bytes as hex digits, and a NUL. */
void git_hex(const unsigned char *bytes, size_t n, char *ret);

/* Whether a setting, of which the name ends with the text or a newline, is a filter that files are
 * checked out through. */
bool git_is_smudge(const char *setting);

/* Whether a setting that is a boolean is on, as git reads them. */
bool git_setting_is(struct ap_git *git, const char *name, bool otherwise);

/* Who commits, for commits and logs: NAME <EMAIL>; owned by the handle. NULL on ENOMEM. */
const char *git_ident(struct ap_git *git, bool is_author);

/* Takes the entries out of a tree's bytes. -EIO: it is none. */
int git_tree_parse(const void *data, size_t len, size_t oid_len, struct ap_git_tree *ret);

/* The paths of an index file, and their objects. -EIO. */
int git_index_parse(const struct ap_buf *text, size_t oid_bytes,
		    int (*each)(void *data, const char *path, const char *oid), void *data);

/* Whether git takes a name into a tree. */
bool git_name_is_valid(const char *name, unsigned mode, bool protect_ntfs);

/* Writes through git itself what filters and encodings make of a file. -EIO: one that is required
 * fails, with its own words. */
int git_write_filtered(struct ap_git *git, int fd, const char *path, char ret[GIT_OID_MAX + 1],
		       struct ap_err *err);

struct git_filter;
void git_filter_free(struct git_filter *filter); /* NULL is ignored */
