/* The state store: what must outlive the daemon, in one SQLite database of the state directory. The
 * only user of SQLite. Knows the records of agents and leases, and names of counters and settings;
 * not what they mean.
 *
 * One thread commits transactions: it commits all that are queued as one, and answers them then
 * (group commit), so that one sync serves all who wait. Times are ns of the wall clock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"
#include "permission.h"
#include "text.h"
#include "usage.h"

struct store;

/* Opens or creates the database, and upgrades one of an older schema. -EPROTO: the schema is newer,
 * and not a byte is changed; -EUCLEAN: the file is damaged, or no database. Blocks. */
int store_open(struct store **ret, const char *path, struct ap_err *err);

/* Counts the leases of a store that are not over, also of one that another process has open; writes
 * nothing. -EIO. Blocks. */
int store_count_leases(const char *path, unsigned *ret);

/* Starts the thread. Without `full` a power cut may lose the last commits; the death of the process
 * never does. -EAGAIN. */
int store_start(struct store *store, bool full, struct ap_err *err);

/* Commits what is queued, and closes. */
void store_close(struct store *store);

/* --- records --- */

struct store_agent {
	unsigned number;
	unsigned generation, n_recycles, n_requests, n_served, n_starts;
	int64_t created, started; /* of the agent; of its generation */
	unsigned port, n_ports;	  /* the first of its ports, and how many they are */
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
		holder_start; /* start time of `pid`, if the lease ends with that process; else 0 */
	bool by_handle;
	bool created; /* its branch did not exist before */
	char base[GIT_OID_MAX + 1];
	int64_t ttl_ns;
	uint64_t affinity;
	int64_t granted; /* 0: not yet */
	uint64_t n_prompts;
	char ending[16]; /* why it ends; "": it does not */
	char permission[AP_PERMISSION_MAX]; /* its word; "": that of the configuration */
	char budget[AP_BUDGET_MAX];	    /* likewise */
};

struct store_prompt {
	uint64_t seq; /* among those of its agent */
	const char *text;
	size_t len;
	bool is_command; /* a command of the program's own */
	bool taken;	 /* the program was about to get it */
};

struct store_conversation {
	char id[128];
	char place[4096]; /* the directory where the program was in it last */
};

/* What an agent has used. */
struct store_usage {
	uint64_t token;			   /* of its lease; 0: none */
	char account[AP_ACCOUNT_TEXT_MAX]; /* as ap_account_format() */
	char line[192];			   /* that of the lease, for the history */
};

/* --- transactions --- */

struct store_txn; /* a transaction in the making; its commit reports a failure in it */

/* NULL on ENOMEM. The txn_ functions ignore NULL, and its commit reports -ENOMEM. */
struct store_txn *store_txn_new(void);
void store_txn_free(struct store_txn *txn);

/* Whether it is neither NULL nor short of memory: then store_submit() answers later, from another
 * thread. */
bool store_txn_is_whole(const struct store_txn *txn);

/* Raises a counter to at least `value`. */
void txn_raise(struct store_txn *txn, const char *name, int64_t value);

/* Sets a counter. */
void txn_set(struct store_txn *txn, const char *name, int64_t value);

/* Adds `n` to a counter. */
void txn_count(struct store_txn *txn, const char *name, int64_t n);

/* Sets a setting; NULL removes it. */
void txn_setting(struct store_txn *txn, const char *name, const char *value);

/* Writes the record of an agent, in place of the one before. */
void txn_agent(struct store_txn *txn, const struct store_agent *agent);

/* Writes what an agent has used, in place of what stood before. */
void txn_usage(struct store_txn *txn, unsigned agent, const struct store_usage *usage);

/* Removes the record of an agent, its usage and its prompts. */
void txn_agent_gone(struct store_txn *txn, unsigned number);

/* Counts a lease in the agent's record, and records that its worktree is in use. */
void txn_agent_used(struct store_txn *txn, unsigned number);

/* Writes the record of a lease. */
void txn_lease(struct store_txn *txn, const struct store_lease *lease);

/* Records that the lease is granted. */
void txn_lease_granted(struct store_txn *txn, uint64_t token, int64_t now);

/* Records that the lease ends, and why. */
void txn_lease_ends(struct store_txn *txn, uint64_t token, const char *reason);

/* Removes the record of a lease that is over, and adds it to the history if it was granted, with
 * what it has used by its agent's record. */
void txn_lease_over(struct store_txn *txn, uint64_t token, int64_t now, const char *reason);

/* Records a prompt for an agent, and counts it for the lease unless it is a command. */
void txn_prompt(struct store_txn *txn, unsigned agent, const struct store_prompt *prompt);

/* Records whether the prompt is being given to the program. */
void txn_prompt_taken(struct store_txn *txn, unsigned agent, uint64_t seq, bool taken);

/* Removes a prompt. */
void txn_prompt_gone(struct store_txn *txn, unsigned agent, uint64_t seq);

/* Removes the prompts of an agent up to and including that one; STORE_ALL_PROMPTS: all. */
#define STORE_ALL_PROMPTS INT64_MAX
void txn_prompts_gone(struct store_txn *txn, unsigned agent, uint64_t up_to_seq);

/* Removes the prompts of an agent that its program was about to get. */
void txn_prompts_taken_gone(struct store_txn *txn, unsigned agent);

/* Records the conversation with which a program of that profile goes on for a label, in place of
 * the one before; keeps the newest 10,000. */
void txn_conversation(struct store_txn *txn, const char *label, const char *profile,
		      const struct store_conversation *conversation, int64_t now);

/* Removes it: the program has forgotten it. */
void txn_conversation_gone(struct store_txn *txn, const char *label, const char *profile);

/* Queues a transaction for the thread, which commits it, calls `done` unless that is NULL, and
 * frees it. Answers one that is NULL or has failed at once: -ENOMEM. `durable`: the commit survives
 * a power cut too, if the store was started with `full`. Any thread; does not block. */
typedef void store_done(void *data, int result, const struct ap_err *err);
void store_submit(struct store *store, struct store_txn *txn, bool durable, store_done *done,
		  void *data);

/* The same, but the thread tries until the commit succeeds or the store is closed. Answers nobody.
 */
void store_insist(struct store *store, struct store_txn *txn);

/* The same, and waits. -ENOSPC, -EROFS, -EIO, -EBUSY, -ENOMEM: nothing of it is committed. */
int store_commit(struct store *store, struct store_txn *txn, bool durable, struct ap_err *err);

/* --- reading: any thread, blocks --- */

/* The counter's value, or `initial` if it was never raised. */
int64_t store_counter(struct store *store, const char *name, int64_t initial);

/* The conversation of a label. False: none is recorded. */
bool store_conversation(struct store *store, const char *label, const char *profile,
			struct store_conversation *ret);

/* What an agent has used. False: nothing is recorded. */
bool store_usage(struct store *store, unsigned agent, struct store_usage *ret);

/* Call `take` with every record until it fails, and return its error. `take` must not use the
 * store.
 */
int store_settings_read(struct store *store,
			int (*take)(void *data, const char *name, const char *value), void *data,
			struct ap_err *err);
int store_agents_read(struct store *store, int (*take)(void *data, const struct store_agent *),
		      void *data, struct ap_err *err);
int store_leases_read(struct store *store, int (*take)(void *data, const struct store_lease *),
		      void *data, struct ap_err *err);

/* The same for the prompts of one agent, in their order. */
int store_prompts_read(struct store *store, unsigned agent,
		       int (*take)(void *data, const struct store_prompt *), void *data,
		       struct ap_err *err);
