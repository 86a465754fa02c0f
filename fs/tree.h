/* The tree as data: a row is a file, a table is a directory. Mode, listing, --list-files and the
 * man page come from the rows; tree.c is the only walker of the tables. A row decides nothing: its
 * handlers ask the pool and write text. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "agentpool.h"
#include "metrics.h"
#include "node.h"

/* Who asks, and about what. */
struct tree_call {
	struct ap_pool *pool;
	struct ap_agent *agent; /* in agents/NAME: pinned; else NULL */
	uint64_t id;		/* of the node */
	unsigned index;		/* of the row in its table */
	unsigned number;	/* in kept/LABEL@TOKEN: of that; else 0 */
	uint64_t token;	    /* of the lease that the agent had when the file was opened; 0: none */
	uid_t opener;	    /* of the open file */
	uid_t uid;	    /* who reads or writes: a descriptor may have been passed on */
	pid_t tid;	    /* thread of the caller; for display, never to authorise */
	bool nonblock;	    /* a fetch that would wait is -EAGAIN */
	bool by_handle;	    /* acquire: the lease is to live on this open file */
	struct ap_err *err; /* where a refusal puts its sentence; never NULL in a handler */
};

/* Whose writes a file takes, of those that the modes let through. Owners of the mount and root may
 * write to all. */
enum tree_writer {
	TREE_WRITER_OWNER,  /* nobody else */
	TREE_WRITER_HOLDER, /* the holder of the agent's lease */
	TREE_WRITER_ANYONE, /* everybody; what is written may be refused all the same */
};

/* What has become of a command that is not refused. */
enum tree_submitted {
	TREE_PENDING, /* its request is answered later: the 0 of the pool's calls that take one */
	TREE_DONE,    /* it has had its effect, and did not need the request */
};

struct stat_value; /* tree_stats.c */

struct tree_row {
	const char *name;
	const char *doc; /* one line for people */

	/* reading: at most one of these, but where it is said, and that `show` makes the text of
	 * what was fetched, on whatever thread answers the request */
	int (*show)(const struct tree_call *, struct ap_buf *out);   /* text made at look-up */
	int (*fetch)(const struct tree_call *, struct ap_request *); /* text made by the pool */
	int (*link)(const struct tree_call *, struct ap_buf *out);   /* target of a symbolic link */
	/* of kept text; or the one that it always has, or with `parks` until its text is there */
	int64_t (*size)(const struct tree_call *);
	/* kept text, read piece by piece; with `fetch` an open waits for that, which brings nothing
	 * but has the text be as long as it ought to be */
	int (*read)(const struct tree_call *, int64_t offset, size_t size, struct ap_request *);

	/* writing: at most one of these */
	int (*line)(const struct tree_call *, char *line); /* one command, done at once */
	/* one command; enum tree_submitted, or negative errno */
	int (*submit)(const struct tree_call *, char *line, struct ap_request *);
	/* one value, written in one piece; without a request: say only whether it would be taken */
	int (*set)(const struct tree_call *, char *value, struct ap_request *);
	int (*take)(const struct tree_call *, const char *text,
		    size_t len); /* all of it, at close */
	enum tree_writer writer;

	/* what a `show` that several rows share tells them apart by: of stats/, of an agent */
	union {
		const struct stat_value *stat_value;
		void (*agent_value)(const struct ap_agent_info *, struct ap_buf *out);
	};
	bool wakes;    /* of `show`: poll says when it is another than what was read */
	bool follow;   /* read, it is the stream of the events; a read may wait for long */
	bool parks;    /* of `fetch`: a read may wait for long, and only once it is asked */
	bool unlisted; /* it can be opened, but no walk over the tree meets it */
	bool fresh; /* every lookup is another node, so that a parked writer is alone on its own */
	bool holds; /* opened for reading and writing, the open file is the lease */
	enum node_dir subdir; /* with is_dir: a directory */
	bool is_dir;
};

struct tree_table {
	const char *path;	     /* as --list-files shows it */
	const struct tree_row *rows; /* ends with a row without a name */
};

extern const struct tree_row tree_root[], tree_stats[], tree_agent[], tree_lease[], tree_kept[];
extern struct tree_row tree_config[]; /* filled by tree_config_init(), before anything else here */
void tree_config_init(void);

/* Appends what the i-th file of stats/ says of that look: a number, a word, or nothing. */
void tree_stats_value(const struct ap_metrics *metrics, unsigned i, struct ap_buf *out);

/* How a row is read. */
enum tree_reading {
	TREE_READ_NONE,	  /* it is not, or is no file */
	TREE_READ_SHOW,	  /* a text made at look-up */
	TREE_READ_FETCH,  /* a text made while who asks for its size waits, or the open */
	TREE_READ_PARK,	  /* a text that a read waits for */
	TREE_READ_KEPT,	  /* pieces of a text that grows */
	TREE_READ_FOLLOW, /* the stream of the events */
};
enum tree_reading tree_reading(const struct tree_row *row);

/* The row of a node, or NULL for a directory. */
const struct tree_row *tree_row(struct node node);

/* A node's pinned agent; false when the node is about an agent or lease that is gone. Balance with
 * tree_call_fini. */
bool tree_call_init(struct tree_call *call, struct ap_pool *pool, struct node node,
		    struct ap_err *err);
void tree_call_fini(struct tree_call *call);

/* Whether call->opener may write to the row's file, and `uid`, who does: neither lends the other a
 * right that he has not. -EPERM, -ENODEV. */
int tree_may_write(const struct tree_row *row, const struct tree_call *call, uid_t uid);

/* The node of a name in a directory: the file itself, without a serial. -ENOENT, -ENOTDIR. */
int tree_lookup(struct ap_pool *pool, struct node dir, const char *name, struct node *ret);

/* Permission bits and type. */
mode_t tree_mode(struct node node);

/* Fills mode, links, number, and size where the row has one; the rest is the caller's. -ENOENT when
 * it is gone. */
int tree_stat(struct ap_pool *pool, struct node node, struct stat *ret);

/* Calls `add` for everything in a directory that is listed, with cookies that ascend and stay the
 * same for the same thing over calls: a reader goes on behind the last that it has seen, `after`;
 * 0: none. Ends when `add` says false. */
typedef bool tree_add(void *data, const char *name, struct node node, uint64_t cookie);
int tree_list(struct ap_pool *pool, struct node dir, uint64_t after, tree_add *add, void *data);

/* Prints one line a file: path, mode and doc. */
void tree_print(void);
