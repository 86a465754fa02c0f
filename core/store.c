#include "store.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>

#define SCHEMA_VERSION 1

struct store {
	pthread_mutex_t lock; /* round every use of the connection */
	sqlite3 *db;
	sqlite3_stmt *get, *raise, *set;
};

static int store_error(struct store *store, int error, struct ap_err *err, const char *doing)
{
	return ap_err_set(err, error, "state store: %s: %s", doing,
			  store->db ? sqlite3_errmsg(store->db) : "out of memory");
}

static int schema_version(struct store *store)
{
	sqlite3_stmt *query;
	int version = -1;
	if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &query, NULL) == SQLITE_OK &&
	    sqlite3_step(query) == SQLITE_ROW)
		version = sqlite3_column_int(query, 0);
	sqlite3_finalize(query);
	return version;
}

static int store_prepare(struct store *store, const char *path, struct ap_err *err)
{
	if (sqlite3_open_v2(path, &store->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return store_error(store, -EIO, err, path);
	sqlite3_busy_timeout(store->db, 10000);
	int version = schema_version(store);
	if (version < 0)
		return store_error(store, -EIO, err, path);
	if (version > SCHEMA_VERSION)
		return ap_err_set(err, -EPROTO, "%s is from a newer version of agentpoolfs", path);
	static const char schema[] =
		"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
		"CREATE TABLE IF NOT EXISTS counter"
		" (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
		"CREATE TABLE IF NOT EXISTS setting"
		" (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
		"PRAGMA user_version = 1;";
	if (sqlite3_exec(store->db, schema, NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(store->db, "SELECT value FROM counter WHERE name = ?1", -1,
			       &store->get, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(
		    store->db,
		    "INSERT INTO counter (name, value) VALUES (?1, ?2) ON CONFLICT (name) "
		    "DO UPDATE SET value = max(value, ?2)",
		    -1, &store->raise, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(store->db,
			       "INSERT OR REPLACE INTO counter (name, value) VALUES (?1, ?2)", -1,
			       &store->set, NULL) != SQLITE_OK)
		return store_error(store, -EIO, err, path);
	return 0;
}

int store_open(struct store **ret, const char *path, struct ap_err *err)
{
	struct store *store = calloc(1, sizeof *store);
	if (!store)
		return ap_err_errno(err, -ENOMEM, "state store");
	pthread_mutex_init(&store->lock, NULL);
	int r = store_prepare(store, path, err);
	if (r < 0) {
		store_close(store);
		return r;
	}
	*ret = store;
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	sqlite3_finalize(store->get);
	sqlite3_finalize(store->raise);
	sqlite3_finalize(store->set);
	sqlite3_close(store->db);
	pthread_mutex_destroy(&store->lock);
	free(store);
}

int64_t store_counter(struct store *store, const char *name, int64_t initial)
{
	pthread_mutex_lock(&store->lock);
	sqlite3_bind_text(store->get, 1, name, -1, SQLITE_STATIC);
	int64_t value = sqlite3_step(store->get) == SQLITE_ROW ? sqlite3_column_int64(store->get, 0)
							       : initial;
	sqlite3_reset(store->get);
	pthread_mutex_unlock(&store->lock);
	return value;
}

static int write_counter(struct store *store, sqlite3_stmt *write, const char *name, int64_t value,
			 struct ap_err *err)
{
	pthread_mutex_lock(&store->lock);
	sqlite3_bind_text(write, 1, name, -1, SQLITE_STATIC);
	sqlite3_bind_int64(write, 2, value);
	int r = sqlite3_step(write) == SQLITE_DONE ? 0 : store_error(store, -EIO, err, "writing");
	sqlite3_reset(write);
	pthread_mutex_unlock(&store->lock);
	return r;
}

int store_raise(struct store *store, const char *name, int64_t value, struct ap_err *err)
{
	return write_counter(store, store->raise, name, value, err);
}

int store_set(struct store *store, const char *name, int64_t value, struct ap_err *err)
{
	return write_counter(store, store->set, name, value, err);
}

static int settings_replace(struct store *store, const struct store_setting *settings, unsigned n)
{
	sqlite3_stmt *insert = NULL;
	int r = sqlite3_exec(store->db, "BEGIN IMMEDIATE; DELETE FROM setting;", NULL, NULL, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_prepare_v2(store->db,
				       "INSERT INTO setting (name, value) VALUES (?1, ?2)", -1,
				       &insert, NULL);
	for (unsigned i = 0; r == SQLITE_OK && i < n; i++) {
		sqlite3_bind_text(insert, 1, settings[i].name, -1, SQLITE_STATIC);
		sqlite3_bind_text(insert, 2, settings[i].value, -1, SQLITE_STATIC);
		r = sqlite3_step(insert) == SQLITE_DONE ? SQLITE_OK : SQLITE_ERROR;
		sqlite3_reset(insert);
	}
	sqlite3_finalize(insert);
	return r == SQLITE_OK ? sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL) : r;
}

int store_settings_write(struct store *store, const struct store_setting *settings, unsigned n,
			 struct ap_err *err)
{
	pthread_mutex_lock(&store->lock);
	int r = settings_replace(store, settings, n) == SQLITE_OK
			? 0
			: store_error(store, -EIO, err, "writing");
	if (r < 0) /* fails where the transaction has been given up already */
		(void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
	pthread_mutex_unlock(&store->lock);
	return r;
}

int store_settings_read(struct store *store,
			int (*take)(void *data, const char *name, const char *value), void *data,
			struct ap_err *err)
{
	sqlite3_stmt *query = NULL;
	int r = 0, step = SQLITE_DONE;
	pthread_mutex_lock(&store->lock);
	if (sqlite3_prepare_v2(store->db, "SELECT name, value FROM setting", -1, &query, NULL) !=
	    SQLITE_OK)
		r = store_error(store, -EIO, err, "reading");
	while (r == 0 && (step = sqlite3_step(query)) == SQLITE_ROW)
		r = take(data, (const char *)sqlite3_column_text(query, 0),
			 (const char *)sqlite3_column_text(query, 1));
	if (r == 0 && step != SQLITE_DONE)
		r = store_error(store, -EIO, err, "reading");
	sqlite3_finalize(query);
	pthread_mutex_unlock(&store->lock);
	return r;
}
