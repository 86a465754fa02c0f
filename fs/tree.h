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
	unsigned number;	/* in kept/LABEL@TOKEN: of that kept work; else 0 */
	uint64_t token;	    /* of the lease that the agent had when the file was opened; 0: none */
	uid_t opener;	    /* who opened the file */
	uid_t uid;	    /* who reads or writes: a descriptor may have been passed on */
	pid_t tid;	    /* thread of the caller; for display, never to authorise */
	bool nonblock;	    /* a fetch that would have to wait fails with -EAGAIN */
	bool by_handle;	    /* acquire: the lease is to live on this open file */
	struct ap_err *err; /* where a refusal puts its sentence; never NULL in a handler */
};

/* Whose writes a file accepts, of those that the modes let through. Owners of the mount and root
 * may write to all files. */
enum tree_writer {
	TREE_WRITER_OWNER,  /* nobody else */
	TREE_WRITER_HOLDER, /* the holder of the agent's lease */
	TREE_WRITER_ANYONE, /* everybody; the command itself may be refused all the same */
};

/* The outcome of a command that is not refused. */
enum tree_submitted {
	TREE_PENDING, /* the pool answers the request later: 0, as its functions return */
	TREE_DONE,    /* the command took effect, and did not need the request */
};

struct stat_value; /* tree_stats.c */

struct tree_row {
	const char *name;
	const char *doc; /* one line for people */

	/* reading: at most one of these, except where a comment says otherwise; beside `fetch`,
	 * `show` makes the text, on the thread that answers the request */
	int (*show)(const struct tree_call *, struct ap_buf *out);   /* text made at lookup */
	int (*fetch)(const struct tree_call *, struct ap_request *); /* text made by the pool */
	int (*link)(const struct tree_call *, struct ap_buf *out);   /* target of a symbolic link */
	/* of kept text; of a text that always has that size; or, with `parks`, until the text is
	 * there */
	int64_t (*size)(const struct tree_call *);
	/* kept text, read piece by piece; with `fetch` an open waits until the text is as long as
	 * it ought to be, and the fetch itself brings no text */
	int (*read)(const struct tree_call *, int64_t offset, size_t size, struct ap_request *);

	/* writing: at most one of these */
	int (*line)(const struct tree_call *, char *line); /* one command, done at once */
	/* one command; enum tree_submitted, or negative errno */
	int (*submit)(const struct tree_call *, char *line, struct ap_request *);
	/* one value, written in one piece; without a request it only checks whether the value would
	 * be accepted */
	int (*set)(const struct tree_call *, char *value, struct ap_request *);
	int (*take)(const struct tree_call *, const char *text,
		    size_t len); /* all of it, at close */
	enum tree_writer writer;

	/* tells a `show` that several rows share what to print: of stats/, of an agent */
	union {
		const struct stat_value *stat_value;
		void (*agent_value)(const struct ap_agent_info *, struct ap_buf *out);
	};
	bool wakes;    /* of `show`: poll reports when it differs from what was read */
	bool follow;   /* a read gets the stream of the events, and may wait for long */
	bool parks;    /* of `fetch`: the read and not the open fetches, and may wait for long */
	bool unlisted; /* it can be opened, but readdir does not list it */
	bool fresh;    /* every lookup gets a node of its own: a parked write is alone on it */
	bool holds;    /* an open for reading and writing is a lease by handle */
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

/* Appends the value of the i-th file of stats/ in those metrics: a number, a word, or nothing. */
void tree_stats_value(const struct ap_metrics *metrics, unsigned i, struct ap_buf *out);

/* How a row is read. */
enum tree_reading {
	TREE_READ_NONE,	  /* not at all, or it is no file */
	TREE_READ_SHOW,	  /* a text made at lookup */
	TREE_READ_FETCH,  /* a text made while the getattr or the open waits */
	TREE_READ_PARK,	  /* a text that a read waits for */
	TREE_READ_KEPT,	  /* pieces of a text that grows */
	TREE_READ_FOLLOW, /* the stream of the events */
};
enum tree_reading tree_reading(const struct tree_row *row);

/* The row of a node, or NULL for a directory. */
const struct tree_row *tree_row(struct node node);

/* Fills in the call for a node and pins its agent. False: the node's agent, lease or kept work is
 * gone. Balance with tree_call_fini(). */
bool tree_call_init(struct tree_call *call, struct ap_pool *pool, struct node node,
		    struct ap_err *err);
void tree_call_fini(struct tree_call *call);

/* Whether call->opener and the writer `uid` may both write to the row's file: neither lends the
 * other a right. -EPERM, -ENODEV. */
int tree_may_write(const struct tree_row *row, const struct tree_call *call, uid_t uid);

/* The node of a name in a directory: the file itself, without a serial. -ENOENT, -ENOTDIR. */
int tree_lookup(struct ap_pool *pool, struct node dir, const char *name, struct node *ret);

/* Permission bits and type. */
mode_t tree_mode(struct node node);

/* Fills in mode, links, number, and size where the row has one; the caller fills in the rest.
 * -ENOENT: the node's agent, lease or kept work is gone. */
int tree_stat(struct ap_pool *pool, struct node node, struct stat *ret);

/* Calls `add` for the listed entries of a directory until `add` returns false. Cookies ascend, and
 * an entry has the same cookie in every call: a reader continues behind `after`, the cookie of the
 * last entry that it has; 0: none. `add` skips entries up to `after`: it may get them again. */
typedef bool tree_add(void *data, const char *name, struct node node, uint64_t cookie);
int tree_list(struct ap_pool *pool, struct node dir, uint64_t after, tree_add *add, void *data);

/* Prints one line a file: path, mode and doc. */
void tree_print(void);
