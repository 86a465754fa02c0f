/* The state store, on a database of its own. */
#include "unit.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store.h"

static char dir[] = "/tmp/agentpool-store-XXXXXX", path[128];
static struct store *store;
static struct ap_err err;

static int begin(void **state)
{
	strcpy(dir, "/tmp/agentpool-store-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/state.db", dir);
	return 0;
}

static int end(void **state)
{
	char command[160];
	store_close(store);
	store = NULL;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static void open_it(void)
{
	assert_int_equal(store_open(&store, path, &err), 0);
	assert_int_equal(store_start(store, true, &err), 0);
}

static void open_again(void)
{
	store_close(store);
	open_it();
}

/* By hand, as another process would. */
static void by_hand(const char *sql)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static int is_it(void *expected, int n, char **values, char **names)
{
	assert_int_equal(n, 1);
	assert_string_equal(values[0] ? values[0] : "", expected);
	return 0;
}

/* A query gives that one value. */
static void assert_by_hand(const char *sql, const char *expected)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, is_it, (char *)expected, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void counters_hold(void **state)
{
	open_it();
	struct store_txn *txn = store_txn_new();
	txn_raise(txn, "a", 5);
	txn_raise(txn, "a", 3);
	txn_count(txn, "b", 2);
	txn_count(txn, "b", 2);
	txn_set(txn, "c", 9);
	txn_set(txn, "c", 1);
	assert_int_equal(store_commit(store, txn, true, &err), 0);
	open_again();
	assert_int_equal(store_counter(store, "a", 0), 5);
	assert_int_equal(store_counter(store, "b", 0), 4);
	assert_int_equal(store_counter(store, "c", 0), 1);
	assert_int_equal(store_counter(store, "d", 7), 7);
}

static struct store_agent agent_read;
static struct store_lease lease_read;
static unsigned n_read;

static int take_agent(void *data, const struct store_agent *agent)
{
	agent_read = *agent;
	n_read++;
	return 0;
}

static int take_lease(void *data, const struct store_lease *lease)
{
	lease_read = *lease;
	n_read++;
	return 0;
}

static const struct store_lease lease = {
	.token = 7,
	.label = "job",
	.agent = 3,
	.uid = 1000,
	.pid = 42,
	.holder_start = 99,
	.by_handle = true,
	.created = true,
	.base = "0123456789012345678901234567890123456789",
	.ttl_ns = 5,
	.affinity = UINT64_MAX,
	.permission = "allow:read,search",
	.budget = "2.5usd",
};

static void records_are_read_as_they_were_written(void **state)
{
	const struct store_agent agent = {.number = 3,
					  .generation = 2,
					  .n_recycles = 1,
					  .n_requests = 5,
					  .n_served = 4,
					  .n_starts = 6,
					  .created = 10,
					  .started = 11,
					  .port = 20000,
					  .n_ports = 1,
					  .clean = true,
					  .shim = 77,
					  .shim_start = 78,
					  .admin_dir = "/somewhere/with 'quotes' and ü"};
	open_it();
	struct store_txn *txn = store_txn_new();
	txn_agent(txn, &agent);
	txn_lease(txn, &lease);
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	open_again();
	n_read = 0;
	assert_int_equal(store_agents_read(store, take_agent, NULL, &err), 0);
	assert_int_equal(store_leases_read(store, take_lease, NULL, &err), 0);
	assert_int_equal(n_read, 2);
	assert_memory_equal(&agent_read, &agent, sizeof agent);
	assert_memory_equal(&lease_read, &lease, sizeof lease);
}

#define BEFORE_USAGE                                                                               \
	"ALTER TABLE lease DROP COLUMN budget; ALTER TABLE history DROP COLUMN usage;"             \
	"DROP TABLE usage;"

static void a_store_of_the_version_before_is_read_and_is_of_this_one_then(void **state)
{
	open_it();
	struct store_txn *txn = store_txn_new();
	txn_agent(txn, &(struct store_agent){.number = 3, .shim = 77, .shim_start = 78});
	txn_lease(txn, &lease);
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	store_close(store);
	by_hand("ALTER TABLE agent DROP COLUMN ports;"
		"ALTER TABLE agent RENAME COLUMN shim TO keeper;"
		"ALTER TABLE agent RENAME COLUMN shim_start TO keeper_start;"
		"ALTER TABLE lease DROP COLUMN permission;" BEFORE_USAGE
		"PRAGMA user_version = 2;");
	open_it();
	for (int i = 0; i < 2; i++, open_again()) {
		n_read = 0;
		assert_int_equal(store_agents_read(store, take_agent, NULL, &err), 0);
		assert_int_equal(store_leases_read(store, take_lease, NULL, &err), 0);
		assert_int_equal(n_read, 2);
		assert_int_equal(agent_read.shim, 77);
		assert_int_equal(agent_read.shim_start, 78);
		assert_int_equal(lease_read.affinity, UINT64_MAX);
		assert_string_equal(lease_read.permission, "");
		assert_string_equal(lease_read.budget, "");
	}
}

static void what_an_agent_has_used_goes_to_the_history_of_its_lease(void **state)
{
	struct store_usage found = {.token = 0};
	open_it();
	struct store_txn *txn = store_txn_new();
	txn_lease(txn, &lease);
	txn_lease_granted(txn, lease.token, 5);
	txn_usage(txn, lease.agent, &(struct store_usage){lease.token, "1 2 3", "input_tokens 7"});
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	assert_true(store_usage(store, lease.agent, &found));
	assert_true(found.token == lease.token);
	assert_string_equal(found.account, "1 2 3");
	assert_string_equal(found.line, "input_tokens 7");
	assert_false(store_usage(store, lease.agent + 1, &found));
	txn = store_txn_new();
	txn_lease_over(txn, lease.token, 9, "release");
	txn_agent_gone(txn, lease.agent);
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	assert_false(store_usage(store, lease.agent, &found));
	store_close(store);
	assert_by_hand("SELECT usage FROM history", "input_tokens 7");
	open_it();
}

static void a_label_has_the_last_conversation_of_each_profile(void **state)
{
	struct store_conversation found = {.id = ""};
	open_it();
	struct store_txn *txn = store_txn_new();
	txn_conversation(txn, "job", "claude", &(struct store_conversation){"first", "/place"}, 1);
	txn_conversation(txn, "job", "claude", &(struct store_conversation){"second", "/place"}, 2);
	txn_conversation(txn, "job", "codex", &(struct store_conversation){"other", "/place"}, 3);
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	store_close(store);
	by_hand("DROP INDEX conversation_time; ALTER TABLE lease DROP COLUMN "
		"permission;" BEFORE_USAGE "PRAGMA user_version = 4;");
	open_it();
	assert_true(store_conversation(store, "job", "claude", &found));
	assert_string_equal(found.id, "second");
	assert_string_equal(found.place, "/place");
	assert_false(store_conversation(store, "elsewhere", "claude", &found));
	txn = store_txn_new();
	txn_conversation_gone(txn, "job", "claude");
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	assert_false(store_conversation(store, "job", "claude", &found));
	assert_true(store_conversation(store, "job", "codex", &found));
	assert_string_equal(found.id, "other");
}

static void the_oldest_conversations_are_forgotten(void **state)
{
	struct store_conversation found = {.id = ""};
	char label[32];
	open_it();
	struct store_txn *txn = store_txn_new();
	for (int i = 0; i < 10002; i++) {
		snprintf(label, sizeof label, "job-%d", i);
		txn_conversation(txn, label, "claude", &(struct store_conversation){"id", "/place"},
				 1000 + i);
	}
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	assert_false(store_conversation(store, "job-0", "claude", &found));
	assert_false(store_conversation(store, "job-1", "claude", &found));
	assert_true(store_conversation(store, "job-2", "claude", &found));
	assert_true(store_conversation(store, "job-10001", "claude", &found));
}

static void a_lease_that_is_over_is_history_if_it_was_one(void **state)
{
	struct store_lease other = lease;
	other.token = 8;
	open_it();
	struct store_txn *txn = store_txn_new();
	txn_lease(txn, &lease);
	txn_lease(txn, &other);
	txn_lease_granted(txn, 7, 100);
	txn_lease_over(txn, 7, 200, "release");
	txn_lease_over(txn, 8, 200, "cancelled");
	txn_setting(txn, "kept", "it's \n so");
	assert_int_equal(store_commit(store, txn, true, &err), 0);
	n_read = 0;
	assert_int_equal(store_leases_read(store, take_lease, NULL, &err), 0);
	assert_int_equal(n_read, 0);
	store_close(store);
	store = NULL;
	sqlite3 *db;
	sqlite3_stmt *query;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT token, ended, reason FROM history", -1,
					    &query, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_step(query), SQLITE_ROW);
	assert_int_equal(sqlite3_column_int(query, 0), 7);
	assert_int_equal(sqlite3_column_int(query, 1), 200);
	assert_string_equal((const char *)sqlite3_column_text(query, 2), "release");
	assert_int_equal(sqlite3_step(query), SQLITE_DONE);
	sqlite3_finalize(query);
	sqlite3_close(db);
}

static int n_prompts;
static char prompts[256];

static int take_prompt(void *data, const struct store_prompt *prompt)
{
	snprintf(prompts + strlen(prompts), sizeof prompts - strlen(prompts), "%lu:%s%s ",
		 (unsigned long)prompt->seq, prompt->text, prompt->taken ? "!" : "");
	assert_int_equal(prompt->len, strlen(prompt->text));
	n_prompts++;
	return 0;
}

static void prompts_keep_their_order(void **state)
{
	open_it();
	struct store_txn *txn = store_txn_new();
	for (unsigned i = 1; i <= 4; i++) {
		char text[16];
		snprintf(text, sizeof text, "p%u", i);
		txn_prompt(txn, 3, &(struct store_prompt){i, text, strlen(text), false, false});
	}
	txn_prompt(txn, 4, &(struct store_prompt){1, "other", 5, false, false});
	txn_prompt_gone(txn, 3, 1);
	txn_prompt_taken(txn, 3, 2, true);
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	prompts[0] = '\0';
	assert_int_equal(store_prompts_read(store, 3, take_prompt, NULL, &err), 0);
	assert_string_equal(prompts, "2:p2! 3:p3 4:p4 ");
	txn = store_txn_new();
	txn_prompts_taken_gone(txn, 3);
	assert_int_equal(store_commit(store, txn, false, &err), 0);
	prompts[0] = '\0';
	assert_int_equal(store_prompts_read(store, 3, take_prompt, NULL, &err), 0);
	assert_string_equal(prompts, "3:p3 4:p4 ");
}

static int n_answered, order[64];

static void answered(void *data, int result, const struct ap_err *why)
{
	assert_int_equal(result, 0);
	order[n_answered++] = *(const int *)data;
}

static void transactions_are_answered_in_their_order(void **state)
{
	static int numbers[50];
	open_it();
	n_answered = 0;
	for (int i = 0; i < 50; i++) {
		struct store_txn *txn = store_txn_new();
		numbers[i] = i;
		txn_count(txn, "n", 1);
		store_submit(store, txn, i % 2, answered, &numbers[i]);
	}
	store_close(store); /* commits what has queued */
	store = NULL;
	assert_int_equal(n_answered, 50);
	for (int i = 0; i < 50; i++)
		assert_int_equal(order[i], i);
	open_it();
	assert_int_equal(store_counter(store, "n", 0), 50);
}

static void one_that_fails_costs_no_other(void **state)
{
	open_it();
	by_hand("CREATE TRIGGER t BEFORE INSERT ON counter WHEN NEW.name = 'bad'"
		" BEGIN SELECT RAISE(ABORT, 'no'); END");
	open_again();
	struct store_txn *good = store_txn_new(), *bad = store_txn_new();
	txn_set(good, "good", 1);
	txn_set(bad, "also", 1);
	txn_set(bad, "bad", 1);
	store_submit(store, good, true, NULL, NULL);
	assert_int_not_equal(store_commit(store, bad, true, &err), 0);
	assert_int_not_equal(err.text[0], 0);
	assert_int_equal(store_counter(store, "good", 0), 1);
	assert_int_equal(store_counter(store, "also", 0), 0); /* all of it or nothing */
}

static void what_insists_is_taken_when_it_can_be(void **state)
{
	open_it();
	by_hand("CREATE TRIGGER t BEFORE INSERT ON counter WHEN NEW.name = 'stubborn'"
		" BEGIN SELECT RAISE(ABORT, 'not yet'); END");
	struct store_txn *txn = store_txn_new();
	txn_set(txn, "stubborn", 1);
	store_insist(store, txn);
	txn = store_txn_new();
	txn_set(txn, "other", 1);
	assert_int_equal(store_commit(store, txn, true, &err), 0);
	assert_int_equal(store_counter(store, "stubborn", 0), 0);
	by_hand("DROP TRIGGER t");
	for (int i = 0; i < 1000 && store_counter(store, "stubborn", 0) == 0; i++)
		usleep(20000);
	assert_int_equal(store_counter(store, "stubborn", 0), 1);
}

static void a_newer_schema_is_refused_untouched(void **state)
{
	char before[160], command[400];
	open_it();
	store_close(store);
	store = NULL;
	by_hand("PRAGMA user_version = 99");
	snprintf(before, sizeof before, "%s.before", path);
	snprintf(command, sizeof command, "cp %s %s", path, before);
	assert_int_equal(system(command), 0);
	assert_int_equal(store_open(&store, path, &err), -EPROTO);
	snprintf(command, sizeof command, "cmp %s %s", path, before);
	assert_int_equal(system(command), 0);
}

static void what_is_no_database_is_said_to_be_damaged(void **state)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	for (int i = 0; i < 2000; i++)
		fputs("no database", file);
	fclose(file);
	assert_int_equal(store_open(&store, path, &err), -EUCLEAN);
}

/* Each has a directory of its own. */
#define WITH_DIR(sentence, function)                                                               \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = begin,                  \
		.teardown_func = end                                                               \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DIR("counters are raised, set and counted", counters_hold),
		WITH_DIR("records are read as they were written",
			 records_are_read_as_they_were_written),
		WITH_DIR("a store of the version before is read, and is of this one then",
			 a_store_of_the_version_before_is_read_and_is_of_this_one_then),
		WITH_DIR("a label has the last conversation of each profile",
			 a_label_has_the_last_conversation_of_each_profile),
		WITH_DIR("the oldest conversations are forgotten",
			 the_oldest_conversations_are_forgotten),
		WITH_DIR("a lease that is over is history, if it ever was one",
			 a_lease_that_is_over_is_history_if_it_was_one),
		WITH_DIR("prompts are read in their order, without those that are gone",
			 prompts_keep_their_order),
		WITH_DIR("transactions are answered in their order, and all before it closes",
			 transactions_are_answered_in_their_order),
		WITH_DIR("a transaction that fails takes none of it, and costs no other",
			 one_that_fails_costs_no_other),
		WITH_DIR("what has to be taken is tried again until it is",
			 what_insists_is_taken_when_it_can_be),
		WITH_DIR("what an agent has used goes to the history of its lease",
			 what_an_agent_has_used_goes_to_the_history_of_its_lease),
		WITH_DIR("a newer schema is refused, and not a byte is changed",
			 a_newer_schema_is_refused_untouched),
		WITH_DIR("what is no database is said to be damaged",
			 what_is_no_database_is_said_to_be_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
