/* The state store: what must outlive the daemon, in one SQLite database of the state directory. The
 * only user of SQLite. Knows the records of agents and leases, and names of counters and settings;
 * not what they mean.
 *
 * Changes are made in transactions that one thread carries out: it takes all that have queued,
 * commits them as one, and answers them then. So a commit costs those who wait for it together what
 * it costs one. Times in it are ns of the wall clock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "text.h"

struct store;

/* Opens or makes the database. A newer schema is refused with -EPROTO, and not a byte is changed; a
 * database that is none, or is damaged, with -EUCLEAN. Blocks. */
int store_open(struct store **ret, const char *path, struct ap_err *err);

/* Starts the thread. Without `full` the last commits may be lost with the machine's power, never
 * with the process. -EAGAIN. */
int store_start(struct store *store, bool full, struct ap_err *err);

/* Commits what has queued, and closes. */
void store_close(struct store *store);

/* --- records --- */

struct store_agent {
	unsigned number;
	unsigned generation, n_recycles, n_requests, n_served, n_starts;
	int64_t created, started; /* of the agent; of its generation */
	unsigned port;
	bool clean;	     /* its worktree is as new: it may serve */
	pid_t shim;	     /* of its program */
	uint64_t shim_start; /* the shim's start, as the kernel counts it */
	char admin_dir[512]; /* of its worktree */
};

struct store_lease {
	uint64_t token;
	char label[AP_LABEL_MAX + 1];
	unsigned agent;
	uid_t uid;
	pid_t pid; /* who asked for it */
	uint64_t
		holder_start; /* the start of `pid` that it ends with; 0: it ends with no process */
	bool by_handle;
	bool created; /* its branch did not exist before */
	char base[GIT_OID_MAX + 1];
	int64_t ttl_ns;
	uint64_t affinity;
	int64_t granted; /* 0: not yet */
	uint64_t n_prompts;
	char ending[16]; /* why it ends; "": it does not */
};

struct store_prompt {
	uint64_t seq; /* among those of its agent */
	const char *text;
	size_t len;
	bool is_command; /* of the program's own */
	bool taken;	 /* it was being given to the program */
};

/* --- transactions --- */

struct store_txn; /* one in the making; a failure in it is reported by its commit */

/* NULL on ENOMEM, which all that take one report then. */
struct store_txn *store_txn_new(void);
void store_txn_free(struct store_txn *txn);

/* Makes the counter at least `value`; exactly that; larger by `n`. */
void txn_raise(struct store_txn *txn, const char *name, int64_t value);
void txn_set(struct store_txn *txn, const char *name, int64_t value);
void txn_count(struct store_txn *txn, const char *name, int64_t n);

/* Sets a setting, or removes it: NULL. */
void txn_setting(struct store_txn *txn, const char *name, const char *value);

/* Writes the record of an agent, whatever was there; removes it; adds a lease to its requests and
 * says that its worktree is not as new. */
void txn_agent(struct store_txn *txn, const struct store_agent *agent);
void txn_agent_gone(struct store_txn *txn, unsigned number);
void txn_agent_used(struct store_txn *txn, unsigned number);

/* Writes the record of a lease; that it is granted; that it ends, and why; that it is over: then it
 * is history, if it ever was granted. */
void txn_lease(struct store_txn *txn, const struct store_lease *lease);
void txn_lease_granted(struct store_txn *txn, uint64_t token, int64_t now);
void txn_lease_ends(struct store_txn *txn, uint64_t token, const char *reason);
void txn_lease_over(struct store_txn *txn, uint64_t token, int64_t now, const char *reason);

/* Writes down a prompt that is to be given to an agent, and counts it for its lease; whether it is
 * being given; that it is not to be given any more; that none up to that
 * one is, or STORE_ALL_PROMPTS; none of those that were being given. */
#define STORE_ALL_PROMPTS INT64_MAX
void txn_prompt(struct store_txn *txn, unsigned agent, const struct store_prompt *prompt);
void txn_prompt_taken(struct store_txn *txn, unsigned agent, uint64_t seq, bool taken);
void txn_prompt_gone(struct store_txn *txn, unsigned agent, uint64_t seq);
void txn_prompts_gone(struct store_txn *txn, unsigned agent, uint64_t up_to_seq);
void txn_prompts_taken_gone(struct store_txn *txn, unsigned agent);

/* Has the thread commit it, and frees it. With `durable` also the machine's power may fail then.
 * Any thread; does not block. `done` is called by the thread, may be NULL. */
typedef void store_done(void *data, int result, const struct ap_err *err);
void store_submit(struct store *store, struct store_txn *txn, bool durable, store_done *done,
		  void *data);

/* The same, and tries again until it is taken, or the store is closed. Nobody is answered. */
void store_insist(struct store *store, struct store_txn *txn);

/* The same, and waits. -ENOSPC, -EROFS, -EIO, -EBUSY, -ENOMEM: nothing of it was taken. */
int store_commit(struct store *store, struct store_txn *txn, bool durable, struct ap_err *err);

/* --- reading: any thread, blocks --- */

/* The counter's value, or `initial` if it was never raised. */
int64_t store_counter(struct store *store, const char *name, int64_t initial);

/* Calls `take` with every record, until it says that it failed; its error is returned. `take` must
 * not use the store. */
int store_settings_read(struct store *store,
			int (*take)(void *data, const char *name, const char *value), void *data,
			struct ap_err *err);
int store_agents_read(struct store *store, int (*take)(void *data, const struct store_agent *),
		      void *data, struct ap_err *err);
int store_leases_read(struct store *store, int (*take)(void *data, const struct store_lease *),
		      void *data, struct ap_err *err);

/* Those of one agent, in their order. */
int store_prompts_read(struct store *store, unsigned agent,
		       int (*take)(void *data, const struct store_prompt *), void *data,
		       struct ap_err *err);
