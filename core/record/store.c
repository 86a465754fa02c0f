#include "store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "list.h"

#define SCHEMA_VERSION 6
#define HISTORY_MAX    "10000"	 /* leases that are over and remembered */
#define CONVERSED_MAX  "10000"	 /* labels whose conversations are remembered */
#define BUSY_MS	       10000	 /* somebody is at the database by hand */
#define RETRY_PAUSE    AP_SECOND /* between two attempts to commit what insists */

static const char schema[] =
	"BEGIN IMMEDIATE;"
	"CREATE TABLE IF NOT EXISTS counter"
	" (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS setting"
	" (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS agent"
	" (number INTEGER PRIMARY KEY, generation INTEGER, recycles INTEGER, requests INTEGER,"
	"  served INTEGER, starts INTEGER, created INTEGER, started INTEGER, port INTEGER,"
	"  clean INTEGER, shim INTEGER, shim_start INTEGER, admin_dir TEXT, ports INTEGER);"
	"CREATE TABLE IF NOT EXISTS lease"
	" (token INTEGER PRIMARY KEY, label TEXT, agent INTEGER, uid INTEGER, pid INTEGER,"
	"  holder_start INTEGER, by_handle INTEGER, created INTEGER, base TEXT, ttl INTEGER,"
	"  affinity INTEGER, granted INTEGER, ending TEXT, prompts INTEGER, permission TEXT,"
	"  budget TEXT);"
	"CREATE TABLE IF NOT EXISTS prompt"
	" (agent INTEGER, seq INTEGER, text BLOB, command INTEGER, taken INTEGER,"
	"  PRIMARY KEY (agent, seq));"
	"CREATE TABLE IF NOT EXISTS history"
	" (token INTEGER PRIMARY KEY, label TEXT, agent INTEGER, uid INTEGER, base TEXT,"
	"  granted INTEGER, ended INTEGER, reason TEXT, usage TEXT);"
	"CREATE TABLE IF NOT EXISTS usage"
	" (agent INTEGER PRIMARY KEY, token INTEGER, account TEXT, line TEXT);"
	"CREATE TABLE IF NOT EXISTS conversation"
	" (label TEXT, profile TEXT, id TEXT NOT NULL, place TEXT, time INTEGER,"
	"  PRIMARY KEY (label, profile));"
	"CREATE INDEX IF NOT EXISTS conversation_time ON conversation (time);"
	"PRAGMA user_version = 6;"
	"COMMIT;";

/* SQL that makes a store of a version one of the next. */
static const char *const upgrades[SCHEMA_VERSION] = {
	[2] = "BEGIN IMMEDIATE;"
	      "ALTER TABLE agent RENAME COLUMN keeper TO shim;"
	      "ALTER TABLE agent RENAME COLUMN keeper_start TO shim_start;"
	      "PRAGMA user_version = 3;"
	      "COMMIT;",
	[3] = "BEGIN IMMEDIATE;"
	      "ALTER TABLE agent ADD COLUMN ports INTEGER;"
	      "UPDATE agent SET ports = port > 0;"
	      "PRAGMA user_version = 4;"
	      "COMMIT;",
	[4] = "BEGIN IMMEDIATE;"
	      "ALTER TABLE lease ADD COLUMN permission TEXT;"
	      "PRAGMA user_version = 5;"
	      "COMMIT;",
	[5] = "BEGIN IMMEDIATE;"
	      "ALTER TABLE lease ADD COLUMN budget TEXT;"
	      "ALTER TABLE history ADD COLUMN usage TEXT;"
	      "PRAGMA user_version = 6;"
	      "COMMIT;",
};

enum statement {
	COUNTER_GET,
	COUNTER_RAISE,
	COUNTER_SET,
	COUNTER_ADD,
	SETTING_PUT,
	SETTING_DROP,
	AGENT_PUT,
	AGENT_DROP,
	AGENT_USED,
	LEASE_PUT,
	LEASE_GRANTED,
	LEASE_ENDS,
	LEASE_DROP,
	LEASE_PROMPTED,
	HISTORY_ADD,
	HISTORY_TRIM,
	PROMPT_PUT,
	PROMPT_TAKEN,
	PROMPT_DROP,
	PROMPTS_DROP,
	PROMPT_DROP_TAKEN,
	CONVERSATION_PUT,
	CONVERSATION_DROP,
	CONVERSATIONS_TRIM,
	CONVERSATION_GET,
	USAGE_PUT,
	USAGE_DROP,
	USAGE_GET,
	N_STATEMENTS,
};

static const char *const statements[N_STATEMENTS] = {
	[COUNTER_GET] = "SELECT value FROM counter WHERE name = ?1",
	[COUNTER_RAISE] = "INSERT INTO counter VALUES (?1, ?2)"
			  " ON CONFLICT (name) DO UPDATE SET value = max(value, ?2)",
	[COUNTER_SET] = "INSERT OR REPLACE INTO counter VALUES (?1, ?2)",
	[COUNTER_ADD] = "INSERT INTO counter VALUES (?1, ?2)"
			" ON CONFLICT (name) DO UPDATE SET value = value + ?2",
	[SETTING_PUT] = "INSERT OR REPLACE INTO setting VALUES (?1, ?2)",
	[SETTING_DROP] = "DELETE FROM setting WHERE name = ?1",
	[AGENT_PUT] = "INSERT OR REPLACE INTO agent VALUES"
		      " (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
	[AGENT_DROP] = "DELETE FROM agent WHERE number = ?1",
	[AGENT_USED] = "UPDATE agent SET clean = 0, requests = requests + 1, served = served + 1"
		       " WHERE number = ?1",
	[LEASE_PUT] = "INSERT OR REPLACE INTO lease VALUES"
		      " (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
	[LEASE_GRANTED] = "UPDATE lease SET granted = ?2 WHERE token = ?1",
	[LEASE_ENDS] = "UPDATE lease SET ending = ?2 WHERE token = ?1",
	[LEASE_DROP] = "DELETE FROM lease WHERE token = ?1",
	[LEASE_PROMPTED] = "UPDATE lease SET prompts = prompts + 1 WHERE agent = ?1",
	[PROMPT_PUT] = "INSERT OR REPLACE INTO prompt VALUES (?1, ?2, ?3, ?4, ?5)",
	[PROMPT_TAKEN] = "UPDATE prompt SET taken = ?3 WHERE agent = ?1 AND seq = ?2",
	[PROMPT_DROP] = "DELETE FROM prompt WHERE agent = ?1 AND seq = ?2",
	[PROMPTS_DROP] = "DELETE FROM prompt WHERE agent = ?1 AND seq <= ?2",
	[PROMPT_DROP_TAKEN] = "DELETE FROM prompt WHERE agent = ?1 AND taken",
	[CONVERSATION_PUT] = "INSERT OR REPLACE INTO conversation VALUES (?1, ?2, ?3, ?4, ?5)",
	[CONVERSATION_DROP] = "DELETE FROM conversation WHERE label = ?1 AND profile = ?2",
	[CONVERSATIONS_TRIM] =
		"DELETE FROM conversation WHERE time <= (SELECT time FROM conversation"
		" ORDER BY time DESC LIMIT 1 OFFSET " CONVERSED_MAX ")",
	[CONVERSATION_GET] = "SELECT id, place FROM conversation WHERE label = ?1 AND profile = ?2",
	[HISTORY_ADD] = "INSERT OR REPLACE INTO history"
			" SELECT token, label, agent, uid, base, granted, ?2, ?3,"
			" (SELECT line FROM usage"
			"  WHERE usage.agent = lease.agent AND usage.token = lease.token)"
			" FROM lease WHERE token = ?1 AND granted > 0",
	[USAGE_PUT] = "INSERT OR REPLACE INTO usage VALUES (?1, ?2, ?3, ?4)",
	[USAGE_DROP] = "DELETE FROM usage WHERE agent = ?1",
	[USAGE_GET] = "SELECT token, account, line FROM usage WHERE agent = ?1",
	[HISTORY_TRIM] = "DELETE FROM history WHERE token <= ?1 - " HISTORY_MAX,
};

#define VALUES_MAX 16

struct value {
	char *text;	/* owned; NULL: it is the number */
	int64_t number; /* with a text: its length */
};

struct step {
	enum statement statement;
	unsigned n;
	struct value values[VALUES_MAX];
};

struct store_txn {
	struct ap_list link; /* store->queue; store->lock */
	struct step *steps;
	unsigned n, room;
	bool failed; /* ENOMEM */
	bool durable;
	bool insists; /* tried again until it is committed */
	store_done *done;
	void *data;
	int result; /* of its own commit, where the whole batch failed */
	struct ap_err err;
};

struct store {
	char *path;
	bool full;

	pthread_mutex_t db_lock; /* held around every use of the connection */
	sqlite3 *db;		 /* NULL: closed after an error that leaves it in doubt */
	sqlite3_stmt *prepared[N_STATEMENTS];
	bool syncs; /* as the connection is set now */

	pthread_mutex_t lock;  /* of what follows; a leaf */
	pthread_cond_t queued; /* for the thread */
	struct ap_list queue;
	atomic_bool ending;
	bool runs;
	pthread_t thread;
	/* the thread's: what is tried again, and when */
	struct ap_list untaken;
	int64_t retry_ns;
};

/* --- the connection --- */

static int error_of(const struct store *store)
{
	int code = store->db ? sqlite3_errcode(store->db) : SQLITE_NOMEM;
	int system = store->db ? sqlite3_system_errno(store->db) : 0;
	switch (code) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
		return -EBUSY;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		return system > 0 ? -system : -EIO;
	default:
		return -EIO;
	}
}

static int store_error(const struct store *store, struct ap_err *err)
{
	return ap_err_set(err, error_of(store), "the state store %s: %s", store->path,
			  store->db ? sqlite3_errmsg(store->db) : "out of memory");
}

static void disconnect(struct store *store)
{
	for (int i = 0; i < N_STATEMENTS; i++) {
		sqlite3_finalize(store->prepared[i]);
		store->prepared[i] = NULL;
	}
	sqlite3_close(store->db);
	store->db = NULL;
}

/* Gets the one value that a statement gives, as a number; `ret_is_ok`: its text is "ok". */
static int look_up(struct store *store, const char *sql, int64_t *ret_number, bool *ret_is_ok)
{
	sqlite3_stmt *query = NULL;
	int r = -EIO;
	if (sqlite3_prepare_v2(store->db, sql, -1, &query, NULL) == SQLITE_OK &&
	    sqlite3_step(query) == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(query, 0);
		*ret_number = sqlite3_column_int64(query, 0);
		*ret_is_ok = text && strcmp(text, "ok") == 0;
		r = 0;
	}
	sqlite3_finalize(query);
	return r;
}

/* Checks the version and the file before anything is written. */
static int check(struct store *store, struct ap_err *err)
{
	int64_t version;
	bool ok;
	if (look_up(store, "PRAGMA user_version", &version, &ok) < 0)
		return store_error(store, err);
	if (version > SCHEMA_VERSION) {
		/* else the last connection to close writes the log into the database */
		(void)sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		return ap_err_set(
			err, -EPROTO,
			"%s is from a newer version of agentpoolfs: use that one, or another "
			"-o state_dir",
			store->path);
	}
	if (look_up(store, "PRAGMA quick_check(1)", &version, &ok) < 0)
		return store_error(store, err);
	return ok ? 0 : ap_err_set(err, -EUCLEAN, "the state store %s is damaged", store->path);
}

/* Upgrades a store of an older version to this one; a new store has no version yet. */
static int upgrade(struct store *store, struct ap_err *err)
{
	int64_t version;
	bool ok;
	int r = look_up(store, "PRAGMA user_version", &version, &ok);
	for (; r == 0 && version > 0 && version < SCHEMA_VERSION; version++) {
		if (upgrades[version] &&
		    sqlite3_exec(store->db, upgrades[version], NULL, NULL, NULL))
			r = -EIO;
	}
	return r < 0 ? store_error(store, err) : 0;
}

int store_count_leases(const char *path, unsigned *ret)
{
	struct store store = {.db = NULL};
	int64_t n = 0;
	bool ok;
	int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX;
	int r = sqlite3_open_v2(path, &store.db, flags, NULL) == SQLITE_OK ? 0 : -EIO;
	if (r == 0) {
		sqlite3_busy_timeout(store.db, BUSY_MS);
		r = look_up(&store, "SELECT count(*) FROM lease", &n, &ok);
	}
	(void)sqlite3_close(store.db);
	*ret = (unsigned)n;
	return r;
}

static int connect(struct store *store, struct ap_err *err)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
	int r = sqlite3_open_v2(store->path, &store->db, flags, NULL) == SQLITE_OK
			? 0
			: store_error(store, err);
	if (r == 0) {
		sqlite3_busy_timeout(store->db, BUSY_MS);
		r = check(store, err);
	}
	if (r == 0)
		r = upgrade(store, err);
	if (r == 0 && (sqlite3_exec(store->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) ||
		       sqlite3_exec(store->db, "PRAGMA synchronous = FULL", NULL, NULL, NULL) ||
		       sqlite3_exec(store->db, schema, NULL, NULL, NULL)))
		r = store_error(store, err);
	store->syncs = true;
	for (int i = 0; r == 0 && i < N_STATEMENTS; i++) {
		if (sqlite3_prepare_v2(store->db, statements[i], -1, &store->prepared[i], NULL))
			r = store_error(store, err);
	}
	if (r < 0)
		disconnect(store);
	return r;
}

int store_open(struct store **ret, const char *path, struct ap_err *err)
{
	struct store *store = calloc(1, sizeof *store);
	if (!store || !(store->path = strdup(path))) {
		free(store);
		return ap_err_errno(err, -ENOMEM, "state store");
	}
	pthread_mutex_init(&store->db_lock, NULL);
	pthread_mutex_init(&store->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&store->queued, &attr);
	pthread_condattr_destroy(&attr);
	ap_list_init(&store->queue);
	ap_list_init(&store->untaken);
	int r = connect(store, err);
	if (r < 0) {
		store_close(store);
		return r;
	}
	*ret = store;
	return 0;
}

/* --- transactions in the making --- */

struct store_txn *store_txn_new(void)
{
	struct store_txn *txn = calloc(1, sizeof *txn);
	if (txn)
		ap_list_init(&txn->link);
	return txn;
}

bool store_txn_is_whole(const struct store_txn *txn)
{
	return txn && !txn->failed;
}

void store_txn_free(struct store_txn *txn)
{
	if (!txn)
		return;
	for (unsigned i = 0; i < txn->n; i++) {
		for (unsigned j = 0; j < txn->steps[i].n; j++)
			free(txn->steps[i].values[j].text);
	}
	free(txn->steps);
	free(txn);
}

/* Copies the texts: they need to live for the call only. */
static void add(struct store_txn *txn, enum statement statement, unsigned n,
		const struct value *values)
{
	if (!txn)
		return;
	if (txn->n == txn->room) {
		unsigned room = txn->room ? 2 * txn->room : 4;
		struct step *steps = realloc(txn->steps, room * sizeof *steps);
		if (!steps) {
			txn->failed = true;
			return;
		}
		txn->steps = steps;
		txn->room = room;
	}
	struct step *step = &txn->steps[txn->n++];
	*step = (struct step){.statement = statement, .n = n};
	for (unsigned i = 0; i < n; i++) {
		step->values[i].number = values[i].number;
		if (!values[i].text)
			continue;
		size_t len = (size_t)values[i].number;
		step->values[i].text = malloc(len + 1);
		if (step->values[i].text)
			memcpy(step->values[i].text, values[i].text, len + 1);
		else
			txn->failed = true;
	}
}

static struct value number_of(int64_t number)
{
	return (struct value){NULL, number};
}

static struct value text_of(const char *text)
{
	return (struct value){(char *)text, (int64_t)strlen(text)};
}

#define ADD(txn, statement, ...)                                                                   \
	do {                                                                                       \
		const struct value values_[] = {__VA_ARGS__};                                      \
		add(txn, statement, sizeof values_ / sizeof *values_, values_);                    \
	} while (0)

void txn_raise(struct store_txn *txn, const char *name, int64_t value)
{
	ADD(txn, COUNTER_RAISE, text_of(name), number_of(value));
}

void txn_set(struct store_txn *txn, const char *name, int64_t value)
{
	ADD(txn, COUNTER_SET, text_of(name), number_of(value));
}

void txn_count(struct store_txn *txn, const char *name, int64_t n)
{
	ADD(txn, COUNTER_ADD, text_of(name), number_of(n));
}

void txn_setting(struct store_txn *txn, const char *name, const char *value)
{
	if (value)
		ADD(txn, SETTING_PUT, text_of(name), text_of(value));
	else
		ADD(txn, SETTING_DROP, text_of(name));
}

void txn_agent(struct store_txn *txn, const struct store_agent *agent)
{
	ADD(txn, AGENT_PUT, number_of(agent->number), number_of(agent->generation),
	    number_of(agent->n_recycles), number_of(agent->n_requests), number_of(agent->n_served),
	    number_of(agent->n_starts), number_of(agent->created), number_of(agent->started),
	    number_of(agent->port), number_of(agent->clean), number_of(agent->shim),
	    number_of((int64_t)agent->shim_start), text_of(agent->admin_dir),
	    number_of(agent->n_ports));
}

void txn_agent_gone(struct store_txn *txn, unsigned number)
{
	ADD(txn, AGENT_DROP, number_of(number));
	ADD(txn, USAGE_DROP, number_of(number));
	txn_prompts_gone(txn, number, STORE_ALL_PROMPTS);
}

void txn_usage(struct store_txn *txn, unsigned agent, const struct store_usage *usage)
{
	ADD(txn, USAGE_PUT, number_of(agent), number_of((int64_t)usage->token),
	    text_of(usage->account), text_of(usage->line));
}

void txn_agent_used(struct store_txn *txn, unsigned number)
{
	ADD(txn, AGENT_USED, number_of(number));
}

void txn_lease(struct store_txn *txn, const struct store_lease *lease)
{
	ADD(txn, LEASE_PUT, number_of((int64_t)lease->token), text_of(lease->label),
	    number_of(lease->agent), number_of(lease->uid), number_of(lease->pid),
	    number_of(lease->holder_start), number_of(lease->by_handle), number_of(lease->created),
	    text_of(lease->base), number_of(lease->ttl_ns), number_of(lease->affinity),
	    number_of(lease->granted), text_of(lease->ending), number_of(lease->n_prompts),
	    text_of(lease->permission), text_of(lease->budget));
}

void txn_lease_granted(struct store_txn *txn, uint64_t token, int64_t now)
{
	ADD(txn, LEASE_GRANTED, number_of(token), number_of(now));
}

void txn_lease_ends(struct store_txn *txn, uint64_t token, const char *reason)
{
	ADD(txn, LEASE_ENDS, number_of(token), text_of(reason));
}

void txn_lease_over(struct store_txn *txn, uint64_t token, int64_t now, const char *reason)
{
	ADD(txn, HISTORY_ADD, number_of(token), number_of(now), text_of(reason));
	ADD(txn, HISTORY_TRIM, number_of(token));
	ADD(txn, LEASE_DROP, number_of(token));
}

void txn_prompt(struct store_txn *txn, unsigned agent, const struct store_prompt *prompt)
{
	ADD(txn, PROMPT_PUT, number_of(agent), number_of(prompt->seq),
	    (struct value){(char *)prompt->text, (int64_t)prompt->len},
	    number_of(prompt->is_command), number_of(prompt->taken));
	if (!prompt->is_command)
		ADD(txn, LEASE_PROMPTED, number_of(agent));
}

void txn_prompt_taken(struct store_txn *txn, unsigned agent, uint64_t seq, bool taken)
{
	ADD(txn, PROMPT_TAKEN, number_of(agent), number_of(seq), number_of(taken));
}

void txn_prompt_gone(struct store_txn *txn, unsigned agent, uint64_t seq)
{
	ADD(txn, PROMPT_DROP, number_of(agent), number_of(seq));
}

void txn_prompts_gone(struct store_txn *txn, unsigned agent, uint64_t up_to_seq)
{
	ADD(txn, PROMPTS_DROP, number_of(agent), number_of(up_to_seq));
}

void txn_prompts_taken_gone(struct store_txn *txn, unsigned agent)
{
	ADD(txn, PROMPT_DROP_TAKEN, number_of(agent));
}

void txn_conversation(struct store_txn *txn, const char *label, const char *profile,
		      const struct store_conversation *conversation, int64_t now)
{
	ADD(txn, CONVERSATION_PUT, text_of(label), text_of(profile), text_of(conversation->id),
	    text_of(conversation->place), number_of(now));
	add(txn, CONVERSATIONS_TRIM, 0, NULL);
}

void txn_conversation_gone(struct store_txn *txn, const char *label, const char *profile)
{
	ADD(txn, CONVERSATION_DROP, text_of(label), text_of(profile));
}

/* --- the thread --- */

static int exec(struct store *store, const char *sql, struct ap_err *err)
{
	return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK
		       ? 0
		       : store_error(store, err);
}

static int run_step(struct store *store, const struct step *step, struct ap_err *err)
{
	sqlite3_stmt *prepared = store->prepared[step->statement];
	for (unsigned i = 0; i < step->n; i++) {
		const struct value *value = &step->values[i];
		if (value->text)
			sqlite3_bind_text(prepared, (int)i + 1, value->text, (int)value->number,
					  SQLITE_STATIC);
		else
			sqlite3_bind_int64(prepared, (int)i + 1, value->number);
	}
	int r = sqlite3_step(prepared) == SQLITE_DONE ? 0 : store_error(store, err);
	sqlite3_reset(prepared);
	sqlite3_clear_bindings(prepared);
	return r;
}

/* Commits the transactions from `first` up to `end`, without that one, as one. */
static int run_some(struct store *store, struct ap_list *first, const struct ap_list *end,
		    struct ap_err *err)
{
	bool durable = false;
	int r = store->db ? 0 : connect(store, err);
	for (struct ap_list *at = first; at != end; at = at->next)
		durable = durable || ap_container_of(at, struct store_txn, link)->durable;
	bool syncs = durable && store->full;
	if (r == 0 && syncs != store->syncs)
		r = exec(store, syncs ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
			 err);
	if (r < 0)
		return r;
	store->syncs = syncs;
	r = exec(store, "BEGIN IMMEDIATE", err);
	for (struct ap_list *at = first; r == 0 && at != end; at = at->next) {
		const struct store_txn *txn = ap_container_of(at, struct store_txn, link);
		for (unsigned i = 0; r == 0 && i < txn->n; i++)
			r = run_step(store, &txn->steps[i], err);
	}
	if (r == 0)
		r = exec(store, "COMMIT", err);
	if (r < 0 && !sqlite3_get_autocommit(store->db))
		(void)exec(store, "ROLLBACK", NULL); /* if it fails, closing ends it */
	/* nobody knows what a failed write left on the disk: only a new connection tells */
	if (r < 0 && r != -ENOSPC && r != -EROFS && r != -EBUSY)
		disconnect(store);
	return r;
}

static void run_batch(struct store *store, struct ap_list *batch)
{
	struct ap_err err = {""};
	struct ap_list *at;
	pthread_mutex_lock(&store->db_lock);
	int r = run_some(store, batch->next, batch, &err);
	ap_list_for_each (at, batch) { /* one alone may be to blame */
		struct store_txn *txn = ap_container_of(at, struct store_txn, link);
		txn->err = err;
		txn->result = r == 0 || r == -EBUSY ? r : run_some(store, at, at->next, &txn->err);
	}
	pthread_mutex_unlock(&store->db_lock);
}

static void answer_all(struct store *store, struct ap_list *batch)
{
	while (!ap_list_empty(batch)) {
		struct store_txn *txn = ap_container_of(batch->next, struct store_txn, link);
		ap_list_remove(&txn->link);
		if (txn->insists && txn->result < 0) {
			ap_list_append(&store->untaken, &txn->link);
			continue;
		}
		if (txn->done)
			txn->done(txn->data, txn->result, &txn->err);
		store_txn_free(txn);
	}
}

/* Waits for what to commit next: what is queued, and once a second what has failed before. False:
 * there is nothing left, and the thread is to end. */
static bool next_batch(struct store *store, struct ap_list *ret)
{
	const struct timespec retry = {.tv_sec = store->retry_ns / AP_SECOND,
				       .tv_nsec = store->retry_ns % AP_SECOND};
	int r = 0;
	ap_list_init(ret);
	pthread_mutex_lock(&store->lock);
	while (ap_list_empty(&store->queue) && !store->ending && r == 0)
		r = ap_list_empty(&store->untaken)
			    ? pthread_cond_wait(&store->queued, &store->lock)
			    : pthread_cond_timedwait(&store->queued, &store->lock, &retry);
	bool ending = store->ending;
	ap_list_splice(&store->queue, ret);
	pthread_mutex_unlock(&store->lock);
	if (ap_clock_ns() >= store->retry_ns || ending) {
		while (!ap_list_empty(&store->untaken)) {
			struct ap_list *at = store->untaken.next;
			ap_list_remove(at);
			ap_list_append(ret, at);
		}
		store->retry_ns = ap_clock_after(ap_clock_ns(), RETRY_PAUSE);
	}
	return !ap_list_empty(ret) || !ending;
}

static void *store_main(void *data)
{
	struct store *store = data;
	struct ap_list batch;
	unsigned n_last = 0; /* attempts after the end was asked for */
	while (next_batch(store, &batch) && n_last < 3) {
		if (!ap_list_empty(&batch))
			run_batch(store, &batch);
		answer_all(store, &batch);
		n_last += store->ending && !ap_list_empty(&store->untaken);
	}
	return NULL;
}

int store_start(struct store *store, bool full, struct ap_err *err)
{
	sigset_t all, before;
	store->full = full;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&store->thread, NULL, store_main, store);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	store->runs = r == 0;
	return r < 0 ? ap_err_errno(err, r, "state store") : 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	pthread_mutex_lock(&store->lock);
	store->ending = true;
	pthread_cond_signal(&store->queued);
	pthread_mutex_unlock(&store->lock);
	if (store->runs)
		pthread_join(store->thread, NULL);
	while (!ap_list_empty(&store->untaken)) {
		struct store_txn *txn =
			ap_container_of(store->untaken.next, struct store_txn, link);
		ap_list_remove(&txn->link);
		store_txn_free(txn);
	}
	disconnect(store);
	pthread_cond_destroy(&store->queued);
	pthread_mutex_destroy(&store->lock);
	pthread_mutex_destroy(&store->db_lock);
	free(store->path);
	free(store);
}

void store_submit(struct store *store, struct store_txn *txn, bool durable, store_done *done,
		  void *data)
{
	struct ap_err err;
	if (!txn || txn->failed) {
		if (done)
			done(data, ap_err_errno(&err, -ENOMEM, "state store"), &err);
		store_txn_free(txn);
		return;
	}
	txn->durable = durable;
	txn->done = done;
	txn->data = data;
	pthread_mutex_lock(&store->lock);
	ap_list_append(&store->queue, &txn->link);
	pthread_cond_signal(&store->queued);
	pthread_mutex_unlock(&store->lock);
}

void store_insist(struct store *store, struct store_txn *txn)
{
	if (txn)
		txn->insists = true;
	store_submit(store, txn, true, NULL, NULL);
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t woken;
	bool over;
	int result;
	struct ap_err *err;
};

static void wake(void *data, int result, const struct ap_err *err)
{
	struct waiter *waiter = data;
	pthread_mutex_lock(&waiter->lock);
	waiter->over = true;
	waiter->result = result;
	if (result < 0 && waiter->err)
		*waiter->err = *err;
	pthread_cond_signal(&waiter->woken);
	pthread_mutex_unlock(&waiter->lock);
}

int store_commit(struct store *store, struct store_txn *txn, bool durable, struct ap_err *err)
{
	struct waiter waiter = {
		.lock = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER, .err = err};
	store_submit(store, txn, durable, wake, &waiter);
	pthread_mutex_lock(&waiter.lock);
	while (!waiter.over)
		pthread_cond_wait(&waiter.woken, &waiter.lock);
	pthread_mutex_unlock(&waiter.lock);
	pthread_cond_destroy(&waiter.woken);
	pthread_mutex_destroy(&waiter.lock);
	return waiter.result;
}

/* --- reading --- */

/* Begins to use a statement that gives one row at most; NULL: it cannot be. get_end() ends that,
 * and must come in any case. */
static sqlite3_stmt *get_begin(struct store *store, enum statement statement)
{
	pthread_mutex_lock(&store->db_lock);
	if (!store->db)
		(void)connect(store, NULL); /* what fails here fails again at the next write */
	return store->prepared[statement];
}

static void get_end(struct store *store, sqlite3_stmt *get)
{
	if (get) {
		sqlite3_reset(get);
		sqlite3_clear_bindings(get);
	}
	pthread_mutex_unlock(&store->db_lock);
}

int64_t store_counter(struct store *store, const char *name, int64_t initial)
{
	int64_t value = initial;
	sqlite3_stmt *get = get_begin(store, COUNTER_GET);
	if (get) {
		sqlite3_bind_text(get, 1, name, -1, SQLITE_STATIC);
		if (sqlite3_step(get) == SQLITE_ROW)
			value = sqlite3_column_int64(get, 0);
	}
	get_end(store, get);
	return value;
}

/* Calls `row` for every row of a query, until it fails. */
static int read_rows(struct store *store, const char *sql,
		     int (*row)(sqlite3_stmt *query, void *data), void *data, struct ap_err *err)
{
	sqlite3_stmt *query = NULL;
	int step = SQLITE_DONE;
	pthread_mutex_lock(&store->db_lock);
	int r = store->db ? 0 : connect(store, err);
	if (r == 0 && sqlite3_prepare_v2(store->db, sql, -1, &query, NULL))
		r = store_error(store, err);
	while (r == 0 && (step = sqlite3_step(query)) == SQLITE_ROW)
		r = row(query, data);
	if (r == 0 && step != SQLITE_DONE)
		r = store_error(store, err);
	sqlite3_finalize(query);
	pthread_mutex_unlock(&store->db_lock);
	return r;
}

/* A cursor over the columns of a row, in the order of the schema. */
struct columns {
	sqlite3_stmt *query;
	int at;
};

static int64_t number(struct columns *columns)
{
	return sqlite3_column_int64(columns->query, columns->at++);
}

static void text(struct columns *columns, char *ret, size_t size)
{
	const char *found = (const char *)sqlite3_column_text(columns->query, columns->at++);
	snprintf(ret, size, "%s", found ? found : "");
}

bool store_conversation(struct store *store, const char *label, const char *profile,
			struct store_conversation *ret)
{
	bool found = false;
	sqlite3_stmt *get = get_begin(store, CONVERSATION_GET);
	if (get) {
		sqlite3_bind_text(get, 1, label, -1, SQLITE_STATIC);
		sqlite3_bind_text(get, 2, profile, -1, SQLITE_STATIC);
		found = sqlite3_step(get) == SQLITE_ROW;
	}
	if (found) {
		struct columns row = {get, 0};
		text(&row, ret->id, sizeof ret->id);
		text(&row, ret->place, sizeof ret->place);
	}
	get_end(store, get);
	return found;
}

bool store_usage(struct store *store, unsigned agent, struct store_usage *ret)
{
	bool found = false;
	sqlite3_stmt *get = get_begin(store, USAGE_GET);
	if (get) {
		sqlite3_bind_int64(get, 1, agent);
		found = sqlite3_step(get) == SQLITE_ROW;
	}
	if (found) {
		struct columns row = {get, 0};
		ret->token = (uint64_t)number(&row);
		text(&row, ret->account, sizeof ret->account);
		text(&row, ret->line, sizeof ret->line);
	}
	get_end(store, get);
	return found;
}

struct setting_reader {
	int (*take)(void *data, const char *name, const char *value);
	void *data;
};

static int setting_row(sqlite3_stmt *query, void *data)
{
	const struct setting_reader *reader = data;
	return reader->take(reader->data, (const char *)sqlite3_column_text(query, 0),
			    (const char *)sqlite3_column_text(query, 1));
}

int store_settings_read(struct store *store,
			int (*take)(void *data, const char *name, const char *value), void *data,
			struct ap_err *err)
{
	struct setting_reader reader = {take, data};
	return read_rows(store, "SELECT name, value FROM setting", setting_row, &reader, err);
}

struct agent_reader {
	int (*take)(void *data, const struct store_agent *);
	void *data;
};

static int agent_row(sqlite3_stmt *query, void *data)
{
	const struct agent_reader *reader = data;
	struct columns row = {query, 0};
	struct store_agent agent = {.number = (unsigned)number(&row)};
	agent.generation = (unsigned)number(&row);
	agent.n_recycles = (unsigned)number(&row);
	agent.n_requests = (unsigned)number(&row);
	agent.n_served = (unsigned)number(&row);
	agent.n_starts = (unsigned)number(&row);
	agent.created = number(&row);
	agent.started = number(&row);
	agent.port = (unsigned)number(&row);
	agent.clean = number(&row);
	agent.shim = (pid_t)number(&row);
	agent.shim_start = (uint64_t)number(&row);
	text(&row, agent.admin_dir, sizeof agent.admin_dir);
	agent.n_ports = (unsigned)number(&row);
	return reader->take(reader->data, &agent);
}

int store_agents_read(struct store *store, int (*take)(void *data, const struct store_agent *),
		      void *data, struct ap_err *err)
{
	struct agent_reader reader = {take, data};
	return read_rows(store, "SELECT * FROM agent ORDER BY number", agent_row, &reader, err);
}

struct lease_reader {
	int (*take)(void *data, const struct store_lease *);
	void *data;
};

static int lease_row(sqlite3_stmt *query, void *data)
{
	const struct lease_reader *reader = data;
	struct columns row = {query, 0};
	struct store_lease lease = {.token = (uint64_t)number(&row)};
	text(&row, lease.label, sizeof lease.label);
	lease.agent = (unsigned)number(&row);
	lease.uid = (uid_t)number(&row);
	lease.pid = (pid_t)number(&row);
	lease.holder_start = (uint64_t)number(&row);
	lease.by_handle = number(&row);
	lease.created = number(&row);
	text(&row, lease.base, sizeof lease.base);
	lease.ttl_ns = number(&row);
	lease.affinity = (uint64_t)number(&row);
	lease.granted = number(&row);
	text(&row, lease.ending, sizeof lease.ending);
	lease.n_prompts = (uint64_t)number(&row);
	text(&row, lease.permission, sizeof lease.permission);
	text(&row, lease.budget, sizeof lease.budget);
	return reader->take(reader->data, &lease);
}

int store_leases_read(struct store *store, int (*take)(void *data, const struct store_lease *),
		      void *data, struct ap_err *err)
{
	struct lease_reader reader = {take, data};
	return read_rows(store, "SELECT * FROM lease ORDER BY token", lease_row, &reader, err);
}

struct prompt_reader {
	int (*take)(void *data, const struct store_prompt *);
	void *data;
};

static int prompt_row(sqlite3_stmt *query, void *data)
{
	const struct prompt_reader *reader = data;
	const struct store_prompt prompt = {
		.seq = (uint64_t)sqlite3_column_int64(query, 0),
		.text = (const char *)sqlite3_column_text(query, 1),
		.len = (size_t)sqlite3_column_bytes(query, 1),
		.is_command = sqlite3_column_int64(query, 2),
		.taken = sqlite3_column_int64(query, 3),
	};
	return prompt.text ? reader->take(reader->data, &prompt) : 0;
}

int store_prompts_read(struct store *store, unsigned agent,
		       int (*take)(void *data, const struct store_prompt *), void *data,
		       struct ap_err *err)
{
	struct prompt_reader reader = {take, data};
	char sql[128];
	snprintf(sql, sizeof sql,
		 "SELECT seq, text, command, taken FROM prompt WHERE agent = %u ORDER BY seq",
		 agent);
	return read_rows(store, sql, prompt_row, &reader, err);
}
