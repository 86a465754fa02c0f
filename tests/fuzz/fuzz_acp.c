/* What a program that speaks the Agent Client Protocol prints, in two pieces, and what the next
 * daemon makes of it: text, requests, calls, a plan. Byte 0 says where it is cut. */
#include "fuzz.h"
#include "rules.h"

#include "../../core/session/acp.c"

static const struct profile_pairs none;

static void feed(struct acp *acp, const char *text, size_t len, int64_t *at)
{
	for (const char *end = text + len, *newline; text < end; text = newline + 1) {
		newline = memchr(text, '\n', (size_t)(end - text));
		if (!newline)
			break;
		*at += newline + 1 - text;
		acp_line(acp, text, (size_t)(newline - text), *at);
	}
}

/* What people read holds nothing that a terminal would obey. */
static void is_tame(const char *text)
{
	for (; *text; text++)
		HOLDS(*text == '\n' || *text == '\t' || (unsigned char)*text >= 0x20);
}

static void questions_hold(const struct acp *acp)
{
	struct question asked;
	for (unsigned nth = 0;; nth++) {
		acp_question(acp, nth, &asked);
		if (!asked.id[0])
			break;
		HOLDS(nth < ACP_PENDING_MAX && asked.n_options > 0);
		is_tame(asked.title);
		HOLDS(!strchr(asked.title, '\n') && !strchr(asked.detail, '\n'));
		for (unsigned i = 0; i < asked.n_options; i++) {
			HOLDS(*asked.options[i].id && !strpbrk(asked.options[i].id, " \t\n"));
			HOLDS(!strchr(asked.options[i].name, '\n'));
		}
	}
}

static void holds(struct acp *acp)
{
	char why[ACTIVITY_WHY_MAX];
	acp_activity(acp, why);
	is_tame(why);
	is_tame(ap_buf_text(acp_text(acp)));
	is_tame(acp_response(acp));
	is_tame(acp_plan(acp));
	is_tame(acp_stop_reason(acp));
	questions_hold(acp);
	for (const char *line = ap_buf_text(acp_calls(acp)), *end; (end = strchr(line, '\n'));
	     line = end + 1) {
		json_t *json = json_loadb(line, (size_t)(end - line), 0, NULL);
		HOLDS(json_is_object(json));
		json_decref(json);
	}
}

/* All that is to be said is a line each, of JSON. Keeps the records of answers. */
static void say_all(struct acp *acp, struct ap_buf *records)
{
	struct acp_message *message;
	while ((message = acp_next(acp))) {
		json_t *json = json_loadb(message->line, message->len, 0, NULL);
		HOLDS(json_is_object(json));
		HOLDS(memchr(message->line, '\n', message->len) ==
		      message->line + message->len - 1);
		json_decref(json);
		ap_buf_adds(records, message->record ? message->record : "");
		acp_message_free(message);
	}
}

/* Answers what it expects of us, so that there is a turn. */
static void reply(struct acp *acp, const char *result, int64_t *at)
{
	char line[512];
	int n = snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":%s}\n",
			 (long long)acp->awaited, result);
	feed(acp, line, (size_t)n, at);
}

/* The next owner asks nobody twice, and knows as much. */
static void adopts(const struct acp *acp, const char *record, const char *records, const char *text,
		   size_t len, const char *answer, int64_t size)
{
	AP_CLEANUP_BUF struct ap_buf ignored = {0};
	AP_CLEANUP_FREE char *lines = strdup(records);
	struct acp *next = acp_new();
	struct question before, after;
	int64_t at = 0;
	acp_adopt(next, record, size, "/", &none);
	for (char *line = lines, *end; line && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		acp_was_sent(next, line);
	}
	feed(next, answer, strlen(answer), &at);
	feed(next, text, len, &at);
	HOLDS(ap_list_empty(&next->outbox));
	acp_go_on(next);
	holds(next);
	acp_question(acp, 0, &before);
	acp_question(next, 0, &after);
	HOLDS(acp->phase != ACP_OPEN || strcmp(before.id, after.id) == 0);
	say_all(next, &ignored);
	acp_free(next);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char opened[] = "{\"sessionId\":\"s\"}";
	static const char greeted[] =
		"{\"protocolVersion\":1,\"agentCapabilities\":{\"loadSession\":true}}";
	AP_CLEANUP_BUF struct ap_buf line = {0};
	AP_CLEANUP_BUF struct ap_buf record = {0};
	AP_CLEANUP_BUF struct ap_buf records = {0};
	AP_CLEANUP_BUF struct ap_buf first = {0};
	struct fuzz_input input = {data, size};
	int64_t at = 0;
	size_t cut = fuzz_byte(&input);
	char *text = fuzz_copy(input.at, input.left);
	struct acp *acp = acp_new();
	cut = input.left ? cut % (input.left + 1) : 0;
	acp_begin(acp, 0, "/", "", &none);
	ap_buf_printf(&first, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":%s}\n",
		      (long long)acp->awaited, greeted);
	reply(acp, greeted, &at);
	ap_buf_printf(&first, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":%s}\n",
		      (long long)acp->awaited, opened);
	reply(acp, opened, &at);
	HOLDS(acp->phase == ACP_OPEN && at == (int64_t)first.len);
	HOLDS(acp_prompt(acp, "x", 1, &line) == 0);
	say_all(acp, &records);
	acp_record(acp, &record);
	feed(acp, text, cut, &at);
	holds(acp);
	/* a line that is cut goes on in the next piece: the owner sees to that */
	const char *rest = memrchr(text, '\n', cut);
	feed(acp, rest ? rest + 1 : text, input.left - (size_t)((rest ? rest + 1 : text) - text),
	     &at);
	say_all(acp, &records);
	holds(acp);
	adopts(acp, ap_buf_text(&record), ap_buf_text(&records), text, input.left,
	       ap_buf_text(&first), (int64_t)first.len + (int64_t)input.left);
	acp_free(acp);
	free(text);
	return 0;
}
