/* The client's end of the Agent Client Protocol: lines in, messages and what is known out. The test
 * is the program. */
#include "unit.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "acp.h"
#include "activity.h"
#include "cleanup.h"
#include "permission.h"

/* As IT(), of one that has a connection. */
#define WITH(sentence, function)                                                                   \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = setup,                  \
		.teardown_func = teardown                                                          \
	}

#define SESSION "\"s-1\""

static struct acp *acp;
static int64_t at; /* where the program's output ends */
static struct ap_buf output, records;
static json_t *said; /* our last message */
static char why[ACTIVITY_WHY_MAX];
static const struct profile_pairs none;

static int setup(void **state)
{
	acp = acp_new();
	at = 0;
	return acp ? 0 : -1;
}

static int teardown(void **state)
{
	acp_free(acp);
	ap_buf_fini(&output);
	ap_buf_fini(&records);
	json_decref(said);
	said = NULL;
	return 0;
}

/* The program prints a line. */
static void prints(const char *line)
{
	at += (int64_t)strlen(line) + 1;
	acp_line(acp, line, strlen(line), at);
	ap_buf_printf(&output, "%s\n", line);
}

/* Takes the next message, and keeps what the next owner is to know of it. False: there is none. */
static bool hears(void)
{
	struct acp_message *message = acp_next(acp);
	json_decref(said);
	said = message ? json_loadb(message->line, message->len, 0, NULL) : NULL;
	assert_true(!message || json_is_object(said));
	if (message && message->record)
		ap_buf_adds(&records, message->record);
	acp_message_free(message);
	return message != NULL;
}

static const char *method(void)
{
	return json_string_value(json_object_get(said, "method"));
}

/* The program answers our last message. */
static void answers(const char *result)
{
	char line[512];
	json_int_t id = json_integer_value(json_object_get(said, "id"));
	snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":%lld,%s}", (long long)id, result);
	prints(line);
}

static void greets(const char *capabilities)
{
	char result[256];
	assert_true(hears());
	assert_string_equal(method(), "initialize");
	snprintf(result, sizeof result,
		 "\"result\":{\"protocolVersion\":1,\"agentCapabilities\":{%s},"
		 "\"authMethods\":[{\"id\":\"key\",\"name\":\"API key\"},{\"id\":\"web\"}]}",
		 capabilities);
	answers(result);
}

static void opens(void)
{
	acp_begin(acp, 0, "/w", "", &none);
	greets("\"loadSession\":true,\"sessionCapabilities\":{\"close\":{}}");
	assert_true(hears());
	assert_string_equal(method(), "session/new");
	answers("\"result\":{\"sessionId\":" SESSION "}");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_READY);
}

static void begins_turn(void)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	assert_int_equal(acp_prompt(acp, "do", 2, &line), 0);
	json_decref(said);
	said = json_loadb(line.data, line.len, 0, NULL);
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_BUSY);
}

static void updates(const char *update)
{
	char line[1024];
	snprintf(line, sizeof line,
		 "{\"method\":\"session/update\",\"params\":{\"sessionId\":" SESSION
		 ",\"update\":%s}}",
		 update);
	prints(line);
}

static void asks(const char *id, const char *call, const char *kind)
{
	char line[1024];
	snprintf(line, sizeof line,
		 "{\"id\":%s,\"method\":\"session/"
		 "request_permission\",\"params\":{\"sessionId\":" SESSION
		 ",\"toolCall\":{\"toolCallId\":\"%s\",\"title\":\"do %s\",\"kind\":\"%s\"},"
		 "\"options\":[{\"optionId\":\"no\",\"name\":\"No\",\"kind\":\"reject_once\"},"
		 "{\"optionId\":\"yes\",\"name\":\"Yes\",\"kind\":\"allow_once\"}]}}",
		 id, call, call, kind);
	prints(line);
}

static int gives(const char *id, const char *word)
{
	struct question asked;
	const struct question_option *option;
	return acp_answer(acp, id, word, &(struct acp_giver){.uid = 7}, &asked, &option);
}

static const char *chosen(void)
{
	json_t *outcome = json_object_get(json_object_get(said, "result"), "outcome");
	const char *option = json_string_value(json_object_get(outcome, "optionId"));
	return option ? option : json_string_value(json_object_get(outcome, "outcome"));
}

/* Another owner takes over: it reads the same output again. */
static void owner_dies(void)
{
	AP_CLEANUP_BUF struct ap_buf record = {0};
	(void)acp_record(acp, &record);
	acp_free(acp);
	acp = acp_new();
	acp_adopt(acp, ap_buf_text(&record), at, "/w", &none);
	for (char *line = records.data, *end; line && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		acp_was_sent(acp, line);
		*end = '\n';
	}
	int64_t from = 0;
	for (char *line = output.data, *end; line && (end = strchr(line, '\n')); line = end + 1) {
		from += end - line + 1;
		acp_line(acp, line, (size_t)(end - line), from);
	}
	acp_go_on(acp);
}

/* --- tests --- */

static void a_session_is_opened(void **state)
{
	acp_begin(acp, 0, "/w", "", &none);
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_STARTING);
	assert_string_equal(acp_session(acp), "");
	acp_free(acp);
	acp = acp_new();
	opens();
	assert_string_equal(acp_session(acp), "s-1");
	assert_false(hears());
}

static void login(void **state)
{
	acp_begin(acp, 0, "/w", "", &none);
	greets("");
	assert_true(hears());
	answers("\"error\":{\"code\":-32000,\"message\":\"who are you\"}");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_WAITING);
	assert_string_equal(why, "needs a login: API key, web");
}

static void other_version(void **state)
{
	acp_begin(acp, 0, "/w", "", &none);
	assert_true(hears());
	answers("\"result\":{\"protocolVersion\":2}");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_WAITING);
	assert_non_null(strstr(why, "version 2"));
	assert_false(hears());
}

static void a_turn(void **state)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	opens();
	begins_turn();
	assert_int_equal(acp_prompt(acp, "more", 4, &line), -EAGAIN);
	updates("{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\","
		"\"text\":\"first\"}}");
	updates("{\"sessionUpdate\":\"tool_call\",\"toolCallId\":\"c\",\"title\":\"look\","
		"\"kind\":\"read\",\"status\":\"completed\"}");
	updates("{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\","
		"\"text\":\"last\\u001b[31m\"}}");
	answers("\"result\":{\"stopReason\":\"end_turn\"}");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_READY);
	assert_string_equal(acp_response(acp), "last"); /* a tool came between */
	assert_string_equal(acp_stop_reason(acp), "end_turn");
	assert_string_equal(ap_buf_text(acp_text(acp)), "first\n[read] look: completed\nlast\n");
	assert_non_null(strstr(ap_buf_text(acp_calls(acp)), "\"kind\":\"read\""));
}

static void an_error(void **state)
{
	opens();
	begins_turn();
	answers("\"error\":{\"code\":-32603,\"message\":\"no\",\"data\":{\"details\":\"none "
		"left\"}}");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_READY);
	assert_string_equal(why, "error: no: none left");
	assert_string_equal(acp_stop_reason(acp), "error");
}

static void no_text(void **state)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	opens();
	assert_int_equal(acp_prompt(acp, "\xff", 1, &line), -EILSEQ);
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_READY);
}

static void answered(void **state)
{
	struct question asked;
	opens();
	begins_turn();
	asks("0", "one", "execute");
	asks("\"x\"", "two", "edit");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_WAITING);
	assert_string_equal(why, "asks: do one, and 1 more");
	acp_question(acp, 1, &asked);
	assert_string_equal(asked.title, "do two");
	assert_int_equal(gives("nobody", "allow"), -ENODATA);
	assert_int_equal(gives("", "perhaps"), -EINVAL);
	assert_int_equal(gives(asked.id, "reject"), 0);
	assert_true(hears());
	assert_string_equal(chosen(), "no");
	assert_string_equal(json_string_value(json_object_get(said, "id")), "x");
	assert_int_equal(gives("", "yes"), 0);
	assert_true(hears());
	assert_string_equal(chosen(), "yes");
	assert_int_equal(gives("", "allow"), -ENODATA);
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_BUSY);
}

static void by_rule(void **state)
{
	uint32_t policy;
	opens();
	assert_int_equal(ap_permission_parse("allow:read", &policy, NULL), 0);
	acp_permit(acp, policy);
	begins_turn();
	asks("1", "one", "read");
	asks("2", "two", "execute");
	assert_true(hears());
	assert_string_equal(chosen(), "yes");
	assert_false(hears());
	acp_permit(acp, AP_PERMISSION_REJECT);
	assert_true(hears());
	assert_string_equal(chosen(), "no");
}

static void cancelled(void **state)
{
	opens();
	begins_turn();
	json_t *prompt = json_incref(said);
	asks("1", "one", "read");
	acp_cancel(acp);
	assert_true(hears());
	assert_string_equal(method(), "session/cancel");
	assert_true(hears());
	assert_string_equal(chosen(), "cancelled");
	asks("2", "two", "read"); /* it did not know yet */
	json_decref(said);
	said = prompt;
	answers("\"result\":{\"stopReason\":\"cancelled\"}");
	assert_true(hears());
	assert_string_equal(chosen(), "cancelled");
}

static void unknown_method(void **state)
{
	opens();
	prints("{\"id\":3,\"method\":\"fs/read_text_file\",\"params\":{}}");
	assert_true(hears());
	json_t *error = json_object_get(said, "error");
	assert_int_equal(json_integer_value(json_object_get(error, "code")), -32601);
}

static void garbage(void **state)
{
	opens();
	prints("{\"id\":3,");
	prints("npm warn");
	prints("[]");
	prints("{\"id\":77,\"result\":{}}"); /* of what we never asked */
	assert_false(hears());
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_READY);
}

static void reset(void **state)
{
	opens();
	assert_int_equal(acp_reopen(acp, ""), 0);
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_BUSY);
	assert_true(hears());
	assert_string_equal(method(), "session/close");
	assert_true(hears());
	assert_string_equal(method(), "session/new");
	answers("\"result\":{\"sessionId\":\"s-2\"}");
	assert_string_equal(acp_session(acp), "s-2");
}

static void goes_on(void **state)
{
	acp_begin(acp, 0, "/w", "old", &none);
	greets("\"loadSession\":true");
	assert_true(hears());
	assert_string_equal(method(), "session/load");
	updates("{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\","
		"\"text\":\"said before\"}}");
	answers("\"result\":null");
	assert_string_equal(acp_session(acp), "old");
	assert_string_equal(ap_buf_text(acp_text(acp)), "");
	assert_string_equal(acp_gone(acp), "");
}

static void goes_on_in_vain(void **state)
{
	acp_begin(acp, 0, "/w", "old", &none);
	greets("\"sessionCapabilities\":{\"resume\":{}}");
	assert_true(hears());
	assert_string_equal(method(), "session/resume");
	answers("\"error\":{\"code\":-32002,\"message\":\"there is none\"}");
	assert_true(hears());
	assert_string_equal(method(), "session/new");
	assert_string_equal(acp_gone(acp), "old");
	assert_string_equal(acp_gone(acp), "");
}

static void next_owner(void **state)
{
	struct question before, after;
	opens();
	begins_turn();
	json_t *prompt = json_incref(said);
	asks("1", "one", "execute");
	asks("2", "two", "execute");
	prints("{\"id\":3,\"method\":\"terminal/create\"}");
	assert_int_equal(gives("", "allow"), 0);
	while (hears())
		;
	acp_question(acp, 0, &before);
	owner_dies();
	assert_false(hears()); /* all was said */
	acp_question(acp, 0, &after);
	assert_string_equal(before.id, after.id);
	assert_string_equal(after.title, "do two");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_WAITING);
	assert_int_equal(gives("", "allow"), 0);
	json_decref(said);
	said = prompt;
	answers("\"result\":{\"stopReason\":\"end_turn\"}");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_READY);
	assert_non_null(strstr(ap_buf_text(acp_calls(acp)), "\"uid\":7"));
}

static void owner_dies_early(void **state)
{
	acp_begin(acp, 0, "/w", "", &none);
	assert_true(hears());
	owner_dies();
	greets(""); /* it is said again: nobody knows whether it was */
	owner_dies();
	assert_true(hears());
	assert_string_equal(method(), "session/new");
	answers("\"result\":{\"sessionId\":" SESSION "}");
	assert_int_equal(acp_activity(acp, why), AP_ACTIVITY_READY);
}

/* --- what it uses --- */

/* All reports since this was last called, counted in an account. */
static void assert_used(struct ap_account *account, const char *expected)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	struct ap_buf *reports = acp_usage(acp);
	for (size_t from = 0; from < reports->len; from += sizeof(struct ap_usage_report)) {
		struct ap_usage_report report;
		struct ap_usage added;
		memcpy(&report, reports->data + from, sizeof report);
		(void)ap_account_count(account, &report, &added);
	}
	reports->len = 0;
	ap_usage_format(&account->lease, "", " ", " ", &text);
	assert_string_equal(ap_buf_text(&text), expected);
}

static void tokens_of_turns(void **state)
{
	static const struct {
		const char *usage, *counted;
	} rows[] = {
		/* apart: what is cached, and thoughts */
		{"\"usage\":{\"totalTokens\":133,\"inputTokens\":100,\"outputTokens\":10,"
		 "\"cachedReadTokens\":20,"
		 "\"cachedWriteTokens\":3}",
		 "input_tokens 103 output_tokens 10 cached_tokens 20 "},
		{"\"usage\":{\"totalTokens\":135,\"inputTokens\":100,\"outputTokens\":10,"
		 "\"cachedReadTokens\":20,"
		 "\"thoughtTokens\":5}",
		 "input_tokens 100 output_tokens 15 cached_tokens 20 "},
		/* thoughts in the output */
		{"\"usage\":{\"totalTokens\":130,\"inputTokens\":100,\"outputTokens\":10,"
		 "\"cachedReadTokens\":20,"
		 "\"thoughtTokens\":5}",
		 "input_tokens 100 output_tokens 10 cached_tokens 20 "},
		/* what is cached in the input */
		{"\"usage\":{\"totalTokens\":110,\"inputTokens\":100,\"outputTokens\":10,"
		 "\"cachedReadTokens\":20}",
		 "input_tokens 80 output_tokens 10 cached_tokens 20 "},
		{"\"usage\":{\"totalTokens\":110,\"inputTokens\":100,\"outputTokens\":10}",
		 "input_tokens 100 output_tokens 10 "},
		{"\"_meta\":{\"quota\":{\"token_count\":{\"input_tokens\":7,\"output_tokens\":3}}}",
		 "input_tokens 7 output_tokens 3 "},
		{"\"usage\":{\"inputTokens\":-5,\"outputTokens\":\"many\",\"totalTokens\":1e300}",
		 ""},
		{"\"usage\":null", ""},
	};
	opens();
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char result[400];
		struct ap_account account;
		ap_account_init(&account);
		begins_turn();
		snprintf(result, sizeof result, "\"result\":{\"stopReason\":\"end_turn\",%s}",
			 rows[i].usage);
		answers(result);
		assert_used(&account, rows[i].counted);
		answers(result); /* whatever it says again */
		assert_used(&account, rows[i].counted);
	}
}

static void costs(const char *amount)
{
	char update[256];
	snprintf(update, sizeof update,
		 "{\"sessionUpdate\":\"usage_update\",\"used\":9,\"size\":99,"
		 "\"cost\":{\"amount\":%s,\"currency\":\"USD\"}}",
		 amount);
	updates(update);
}

static void money_of_a_session(void **state)
{
	struct ap_account account;
	ap_account_init(&account);
	opens();
	costs("1.5"); /* where the session begins */
	assert_used(&account, "cost_usd 0 context_used 9 context_size 99 ");
	begins_turn();
	costs("1.6");
	costs("1.75");
	assert_used(&account, "cost_usd 0.25 context_used 9 context_size 99 ");
	updates("{\"sessionUpdate\":\"usage_update\",\"used\":1,\"size\":99,"
		"\"cost\":{\"amount\":5,\"currency\":\"EUR\"}}");
	assert_used(&account, "cost_usd 0.25 context_used 1 context_size 99 ");
}

static void usage_is_read_again(void **state)
{
	struct ap_account account;
	ap_account_init(&account);
	opens();
	begins_turn();
	costs("1");
	answers("\"result\":{\"stopReason\":\"end_turn\",\"usage\":{\"totalTokens\":3,"
		"\"inputTokens\":2,"
		"\"outputTokens\":1}}");
	begins_turn();
	costs("2");
	assert_used(&account,
		    "input_tokens 2 output_tokens 1 cost_usd 2 context_used 9 context_size 99 ");
	owner_dies();
	assert_used(&account,
		    "input_tokens 2 output_tokens 1 cost_usd 2 context_used 9 context_size 99 ");
	struct ap_account fresh; /* of an owner that has lost the reports of the first turn */
	ap_account_init(&fresh);
	owner_dies();
	assert_used(&fresh,
		    "input_tokens 2 output_tokens 1 cost_usd 2 context_used 9 context_size 99 ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH("a program is greeted, and a session opened", a_session_is_opened),
		WITH("a program that wants a login is waiting, with its ways", login),
		WITH("a program that speaks another version is waiting", other_version),
		WITH("a turn is busy, its last message the response", a_turn),
		WITH("a turn that fails leaves the program ready, with why", an_error),
		WITH("a prompt that is no UTF-8 is refused", no_text),
		WITH("each request gets its own answer, by its id as it came", answered),
		WITH("what a policy answers is not asked, and what waits is judged anew", by_rule),
		WITH("what is asked is cancelled with its turn", cancelled),
		WITH("a method that we do not have is an error", unknown_method),
		WITH("what is no message is skipped", garbage),
		WITH("a reset closes the session and opens another", reset),
		WITH("a session is loaded, and what it repeats is not shown", goes_on),
		WITH("a session that is gone is told, and another opened", goes_on_in_vain),
		WITH("the next owner asks and answers nothing twice", next_owner),
		WITH("an owner that dies in the handshake leaves it to the next", owner_dies_early),
		WITH("tokens are those of turns, however a program counts what is cached and "
		     "thought",
		     tokens_of_turns),
		WITH("money is what a session has cost since its first prompt", money_of_a_session),
		WITH("what was used is reported again to the next owner, and counts once",
		     usage_is_read_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
