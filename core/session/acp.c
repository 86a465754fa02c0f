#include "acp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "acp_internal.h"
#include "cleanup.h"

#define VERSION 1

/* Codes of errors, of JSON-RPC and of the protocol. */
#define NO_METHOD    -32601
#define INTERNAL     -32603
#define LOGIN_NEEDED -32000
#define KINDS_OF_IDS 16 /* an id is a number of this many, and an enum acp_request */

#define REQUEST_ID_MAX 256 /* bytes of the id of a request of the program's */

/* --- its life --- */

struct acp *acp_new(void)
{
	struct acp *acp = calloc(1, sizeof *acp);
	if (!acp)
		return NULL;
	ap_list_init(&acp->pending);
	ap_list_init(&acp->outbox);
	return acp;
}

static void pending_fini(struct acp_pending *pending)
{
	json_decref(pending->id);
	free(pending->question);
	for (unsigned i = 0; i < QUESTION_OPTIONS_MAX; i++)
		free(pending->options[i]);
}

void acp_message_free(struct acp_message *message)
{
	if (!message)
		return;
	free(message->line);
	free(message->record);
	free(message->asked);
	free(message);
}

static void pending_forget(struct acp *acp, struct acp_pending *pending)
{
	ap_list_remove(&pending->link);
	acp->n_pending--;
	pending_fini(pending);
	free(pending);
}

static void sent_forget(struct acp *acp)
{
	for (unsigned i = 0; i < acp->n_sent; i++)
		json_decref(acp->sent[i].record);
	free(acp->sent);
	acp->sent = NULL;
	acp->n_sent = 0;
}

/* Forgets the program, but not what is for people: the text so far, and the calls. */
static void program_forget(struct acp *acp)
{
	while (!ap_list_empty(&acp->pending))
		pending_forget(acp, ap_container_of(acp->pending.next, struct acp_pending, link));
	struct acp_message *message;
	while ((message = acp_next(acp)))
		acp_message_free(message);
	acp_end_calls(acp);
	json_decref(acp->opened);
	acp->opened = NULL;
	acp->phase = ACP_NOTHING;
	acp->awaited = acp->prompt = acp->last_prompt = acp->opening = 0;
	acp->asked = false;
	acp_pass_opening(acp, 0);
	acp->unsure = acp->heard = false;
	acp->n_configured = 0;
	acp->is_over = false;
	acp->anew = acp->can_load = acp->can_resume = acp->can_close = false;
	acp->session[0] = acp->resume[0] = acp->logins[0] = acp->trouble[0] = '\0';
	acp->quiet[0] = acp->quiet[1] = 0;
}

void acp_free(struct acp *acp)
{
	if (!acp)
		return;
	program_forget(acp);
	sent_forget(acp);
	free(acp->cwd);
	ap_buf_fini(&acp->text);
	ap_buf_fini(&acp->response);
	ap_buf_fini(&acp->plan);
	ap_buf_fini(&acp->ended);
	ap_buf_fini(&acp->usage);
	ap_buf_fini(&acp->over);
	ap_buf_fini(&acp->recorded);
	free(acp);
}

void acp_forget_output(struct acp *acp)
{
	acp_end_calls(acp);
	sent_forget(acp);
	buf_empty(&acp->ended);
	buf_empty(&acp->response);
	buf_empty(&acp->plan);
	acp->stop_reason[0] = acp->message[0] = '\0';
	acp->at = acp->started = acp->prompted = acp->calls_known = 0;
	acp->quiet[0] = acp->quiet[1] = 0;
	acp->line_open = false;
	acp->said = SAID_NOTHING;
}

/* --- messages of ours --- */

static char *line_of(const json_t *message, size_t *ret_len)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	char *line = text ? realloc(text, len + 2) : NULL;
	if (!line) {
		free(text);
		return NULL;
	}
	strcpy(line + len, "\n");
	*ret_len = len + 1;
	return line;
}

/* Queues a message, and takes the reference. An owner that reads old output again has said it. */
static struct acp_message *queue(struct acp *acp, json_t *json)
{
	struct acp_message *message = json && !acp->adopting ? calloc(1, sizeof *message) : NULL;
	if (message)
		message->line = line_of(json, &message->len);
	json_decref(json);
	if (!message || !message->line) {
		free(message);
		return NULL;
	}
	message->start = acp->start;
	ap_list_append(&acp->outbox, &message->link);
	acp->n_outbox++;
	return message;
}

/* Queues an answer to the program; one that asks on and reads nothing gets no more of them. */
static struct acp_message *queue_answer(struct acp *acp, json_t *json)
{
	if (acp->n_outbox < ACP_OUTBOX_MAX)
		return queue(acp, json);
	json_decref(json);
	return NULL;
}

struct acp_message *acp_next(struct acp *acp)
{
	if (ap_list_empty(&acp->outbox))
		return NULL;
	struct acp_message *message = ap_container_of(acp->outbox.next, struct acp_message, link);
	ap_list_remove(&message->link);
	acp->n_outbox--;
	return message;
}

unsigned acp_start(const struct acp *acp)
{
	return acp->start;
}

/* A new id. Ids go up with the wall clock, so that another owner's are others. */
static int64_t new_id(struct acp *acp, enum acp_request about)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t least = ((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000) * KINDS_OF_IDS;
	acp->last_id = acp->last_id + KINDS_OF_IDS > least ? acp->last_id + KINDS_OF_IDS : least;
	return acp->last_id + about;
}

/* Makes a request. Takes the reference to its parameters. */
static json_t *request(int64_t id, const char *method, json_t *params)
{
	return json_pack("{s:s,s:I,s:s,s:o}", "jsonrpc", "2.0", "id", (json_int_t)id, "method",
			 method, "params", params);
}

static void fail(struct acp *acp, const char *what, const char *why)
{
	acp->phase = ACP_FAILED;
	acp->awaited = 0;
	snprintf(acp->trouble, sizeof acp->trouble, "%s: %.*s", what, (int)sizeof acp->trouble - 48,
		 why);
	acp_say(acp, "failed", acp->trouble);
}

/* Sends a request, and has what follows wait for its answer. Takes the reference. */
static void ask(struct acp *acp, enum acp_request about, const char *method, json_t *params)
{
	acp->awaited = new_id(acp, about);
	if (!queue(acp, request(acp->awaited, method, params)) && !acp->adopting)
		fail(acp, method, "it cannot be said: the path is no UTF-8, or no memory is left");
}

static void greet(struct acp *acp)
{
	acp->phase = ACP_GREETING;
	ask(acp, ACP_INITIALIZE, "initialize",
	    json_pack("{s:i,s:{s:{s:b,s:b},s:b},s:{s:s,s:s,s:s}}", "protocolVersion", VERSION,
		      "clientCapabilities", "fs", "readTextFile", 0, "writeTextFile", 0, "terminal",
		      0, "clientInfo", "name", "agentpoolfs", "title", "agentpoolfs", "version",
		      AP_VERSION));
}

static void open_session(struct acp *acp)
{
	bool goes_on = acp->resume[0] && (acp->can_resume || acp->can_load);
	if (acp->resume[0] && !goes_on)
		strcpy(acp->gone, acp->resume);
	json_t *params = json_pack("{s:s,s:[]}", "cwd", acp->cwd, "mcpServers");
	acp->phase = ACP_OPENING;
	acp->asked = false;
	acp->n_configured = 0;
	if (goes_on)
		json_object_set_new(params, "sessionId", json_string(acp->resume));
	if (goes_on && acp->can_resume) {
		ask(acp, ACP_RESUME, "session/resume", params);
	} else if (goes_on) {
		acp->quiet[0] = acp->at; /* it repeats the conversation before it answers */
		acp->quiet[1] = INT64_MAX;
		ask(acp, ACP_LOAD, "session/load", params);
	} else {
		ask(acp, ACP_NEW, "session/new", params);
	}
}

/* The entry of an array whose member `name` is `value`. */
static json_t *entry_of(json_t *array, const char *name, const char *value)
{
	size_t i;
	json_t *entry;
	json_array_foreach(array, i, entry)
	{
		const char *has = json_string_value(json_object_get(entry, name));
		if (has && strcmp(has, value) == 0)
			return entry;
	}
	return NULL;
}

/* Sends what sets an option of the session. False: it has no such option. */
static bool set_option(struct acp *acp, const struct profile_pair *pair)
{
	json_t *option = entry_of(json_object_get(acp->opened, "configOptions"), "id", pair->name);
	const char *type = json_string_value(json_object_get(option, "type"));
	bool is_boolean = type && strcmp(type, "boolean") == 0;
	if (option && is_boolean)
		ask(acp, ACP_CONFIGURE, "session/set_config_option",
		    json_pack("{s:s,s:s,s:s,s:b}", "sessionId", acp->session, "configId",
			      pair->name, "type", "boolean", "value",
			      strcmp(pair->value, "true") == 0));
	else if (option)
		ask(acp, ACP_CONFIGURE, "session/set_config_option",
		    json_pack("{s:s,s:s,s:s}", "sessionId", acp->session, "configId", pair->name,
			      "value", pair->value));
	else if (strcmp(pair->name, "mode") == 0 && json_object_get(acp->opened, "modes"))
		ask(acp, ACP_CONFIGURE, "session/set_mode",
		    json_pack("{s:s,s:s}", "sessionId", acp->session, "modeId", pair->value));
	else if (strcmp(pair->name, "model") == 0 && json_object_get(acp->opened, "models"))
		ask(acp, ACP_CONFIGURE, "session/set_model",
		    json_pack("{s:s,s:s}", "sessionId", acp->session, "modelId", pair->value));
	else
		return false;
	return true;
}

/* Sets the next option that the profile wants; without one, the session is open. */
static void configure(struct acp *acp)
{
	acp->phase = ACP_CONFIGURING;
	while (acp->configure && acp->n_configured < acp->configure->n) {
		const struct profile_pair *pair = &acp->configure->at[acp->n_configured++];
		if (set_option(acp, pair))
			return;
		AP_CLEANUP_BUF struct ap_buf line = {0};
		ap_buf_printf(&line, "%s: the program has no such option", pair->name);
		acp_say(acp, "configure", ap_buf_text(&line));
	}
	acp->phase = ACP_OPEN;
	acp->awaited = 0;
	acp->anew = false;
}

/* --- answers to what we asked --- */

static bool offers(const json_t *capability)
{
	return capability && !json_is_null(capability) && !json_is_false(capability);
}

static void keep_logins(struct acp *acp, json_t *methods)
{
	size_t i, n = 0;
	json_t *method;
	acp->logins[0] = '\0';
	json_array_foreach(methods, i, method)
	{
		char name[64];
		acp_one_line(json_object_get(method, "name"), name, sizeof name);
		if (!*name)
			acp_one_line(json_object_get(method, "id"), name, sizeof name);
		if (*name && n + strlen(name) + 3 < sizeof acp->logins)
			n += (size_t)snprintf(acp->logins + n, sizeof acp->logins - n, "%s%s",
					      n ? ", " : "", name);
	}
}

static void on_greeted(struct acp *acp, json_t *result)
{
	json_t *capabilities = json_object_get(result, "agentCapabilities");
	json_t *sessions = json_object_get(capabilities, "sessionCapabilities");
	json_int_t version = json_integer_value(json_object_get(result, "protocolVersion"));
	char text[64];
	if (version != VERSION) {
		snprintf(text, sizeof text, "it speaks version %lld of the protocol, not %d",
			 (long long)version, VERSION);
		fail(acp, "initialize", text);
		return;
	}
	acp->can_load = offers(json_object_get(capabilities, "loadSession"));
	acp->can_resume = offers(json_object_get(sessions, "resume"));
	acp->can_close = offers(json_object_get(sessions, "close"));
	keep_logins(acp, json_object_get(result, "authMethods"));
	open_session(acp);
}

/* Whether an id is fit to be kept, and to be sent again. */
static bool id_is_fit(const char *id)
{
	size_t len = id ? strlen(id) : 0;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)id[i] < 0x21 || (unsigned char)id[i] > 0x7e)
			return false;
	}
	return len > 0 && len < ACP_ID_MAX;
}

static void on_opened(struct acp *acp, enum acp_request about, json_t *result)
{
	const char *id = about == ACP_NEW ? json_string_value(json_object_get(result, "sessionId"))
					  : acp->resume;
	if (!id_is_fit(id)) {
		fail(acp, "session/new", "its answer has no session id");
		return;
	}
	if (about == ACP_LOAD)
		acp->quiet[1] = acp->at;
	memmove(acp->session, id, strlen(id) + 1);
	json_decref(acp->opened);
	acp->opened = json_incref(result);
	configure(acp);
}

static void on_turn_over(struct acp *acp, json_t *result)
{
	acp_one_line(json_object_get(result, "stopReason"), acp->stop_reason,
		     sizeof acp->stop_reason);
	acp_end_line(acp);
	if (strcmp(acp->stop_reason, "end_turn") != 0)
		acp_say(acp, "stopped", acp->stop_reason);
}

static void on_turn_failed(struct acp *acp, const char *why)
{
	snprintf(acp->stop_reason, sizeof acp->stop_reason, "error");
	snprintf(acp->trouble, sizeof acp->trouble, "%.*s", (int)sizeof acp->trouble - 24, why);
	acp_say(acp, "error", why);
}

static void login_needed(struct acp *acp)
{
	acp->phase = ACP_LOGIN;
	acp->awaited = 0;
	snprintf(acp->trouble, sizeof acp->trouble, "needs a login: %.*s",
		 (int)sizeof acp->trouble - 32, *acp->logins ? acp->logins : "it names no way to");
	acp_say(acp, "login", acp->trouble);
}

static void cancel(struct acp *acp, struct acp_pending *pending)
{
	acp_reply(acp, pending, -1, &(struct acp_giver){.rule = "its turn has ended"});
}

/* Answers all that the program asks: it ends with its turn. While output is read again, later. */
static void cancel_pending(struct acp *acp)
{
	struct ap_list *at, *next;
	ap_list_for_each_safe (at, next, &acp->pending) {
		struct acp_pending *pending = ap_container_of(at, struct acp_pending, link);
		pending->over = true;
		if (!acp->adopting)
			cancel(acp, pending);
	}
}

/* Keeps the text with which a turn ends. That of a turn that has used tokens is the model's own,
 * whatever it says of limits. */
static void keep_over(struct acp *acp, const json_t *result, const char *error, const json_t *data)
{
	const char *text = error ? error : acp_turn_has_used(result) ? "" : acp_response(acp);
	size_t len = strlen(text), over = len > PROFILE_LIMIT_TEXT ? len - PROFILE_LIMIT_TEXT : 0;
	char *details = json_is_object(data) ? json_dumps(data, JSON_COMPACT) : NULL;
	buf_empty(&acp->over);
	ap_buf_add(&acp->over, text + over, len - over);
	if (details)
		ap_buf_printf(&acp->over, "\n%.*s", PROFILE_LIMIT_TEXT, details);
	free(details);
	acp->over_at = acp->at;
	acp->is_over = true;
}

/* The turn has been answered. */
static void end_turn(struct acp *acp, json_t *result, const char *error, json_int_t code,
		     const json_t *data)
{
	acp->prompt = 0;
	acp->unsure = false;
	cancel_pending(acp);
	if (!error)
		on_turn_over(acp, result);
	else if (code == LOGIN_NEEDED)
		login_needed(acp);
	else
		on_turn_failed(acp, error);
	acp_end_calls(acp);
	if (strcmp(acp->stop_reason, "cancelled") != 0 && acp->phase != ACP_LOGIN)
		keep_over(acp, result, error, data);
}

static void on_refused(struct acp *acp, enum acp_request about, const char *error, json_int_t code)
{
	static const char *const names[] = {
		[ACP_INITIALIZE] = "initialize", [ACP_NEW] = "session/new",
		[ACP_RESUME] = "resume",	 [ACP_LOAD] = "load",
		[ACP_CONFIGURE] = "configure",
	};
	if (code == LOGIN_NEEDED && about != ACP_CONFIGURE) {
		login_needed(acp);
	} else if (about == ACP_RESUME || about == ACP_LOAD) {
		if (about == ACP_LOAD)
			acp->quiet[1] = acp->at;
		acp_say(acp, names[about], error);
		strcpy(acp->gone, acp->resume);
		acp->resume[0] = '\0';
		open_session(acp);
	} else if (about == ACP_CONFIGURE) {
		acp_say(acp, names[about], error);
		configure(acp);
	} else {
		fail(acp, names[about], error);
	}
}

static void take_answer(struct acp *acp, json_int_t id, json_t *result, const char *error,
			json_int_t code, const json_t *data)
{
	enum acp_request about = (unsigned)(id % KINDS_OF_IDS);
	bool opens = about >= ACP_NEW && about <= ACP_LOAD && result;
	if (about == ACP_PROMPT && id <= acp->issued)
		acp_take_turn_usage(acp, id, result);
	if (acp->adopting && opens)
		acp_pass_opening(acp, id);
	/* of a turn that an earlier owner has seen end only how it ended is to be known again */
	if (id != 0 && (id == acp->prompt || (acp->adopting && id == acp->last_prompt))) {
		end_turn(acp, result, error, code, data);
		return;
	}
	if (acp->adopting && acp->phase == ACP_CONFIGURING && opens) {
		json_decref(acp->opened);
		acp->opened = json_incref(result);
	}
	if (id != acp->awaited || id == 0)
		return; /* of a request that is void by now */
	acp->awaited = 0;
	if (opens)
		acp->opening = id;
	if (error)
		on_refused(acp, about, error, code);
	else if (about == ACP_INITIALIZE)
		on_greeted(acp, result);
	else if (about == ACP_CONFIGURE)
		configure(acp);
	else
		on_opened(acp, about, result);
}

/* --- what the program asks --- */

static int by_place(const void *a, const void *b)
{
	const struct acp_sent *left = a, *right = b;
	return (left->at > right->at) - (left->at < right->at);
}

static const struct acp_sent *sent_find(struct acp *acp, int64_t at)
{
	const struct acp_sent key = {.at = at};
	if (acp->n_sent == 0)
		return NULL;
	if (!acp->sent_sorted)
		qsort(acp->sent, acp->n_sent, sizeof *acp->sent, by_place);
	acp->sent_sorted = true;
	return bsearch(&key, acp->sent, acp->n_sent, sizeof *acp->sent, by_place);
}

/* The answer to a permission request, as JSON of the protocol and as our own record of it. */
static json_t *permission_of(const struct acp_pending *pending, int option,
			     const struct acp_giver *giver, json_t **ret_record)
{
	const struct question_option *chosen =
		option >= 0 ? &pending->question->options[option] : NULL;
	*ret_record = json_pack("{s:s,s:s}", "option", chosen ? chosen->id : "cancel", "kind",
				chosen ? chosen->kind : "cancel");
	if (giver->rule)
		json_object_set_new(*ret_record, "rule", json_string(giver->rule));
	else
		json_object_set_new(*ret_record, "uid", json_integer((json_int_t)giver->uid));
	return chosen ? json_pack("{s:{s:s,s:s}}", "outcome", "outcome", "selected", "optionId",
				  pending->options[option])
		      : json_pack("{s:{s:s}}", "outcome", "outcome", "cancelled");
}

/* The record of an answer, for acp_was_sent(). */
static char *sent_record(const struct acp_pending *pending, json_t *permission)
{
	json_t *record = json_pack("{s:I,s:s,s:O?}", "at", (json_int_t)pending->at, "call",
				   pending->call, "permission", permission);
	size_t len;
	char *line = line_of(record, &len);
	json_decref(record);
	return line;
}

/* Shows what was answered. */
static void say_answer(struct acp *acp, const struct question *asked,
		       const struct question_option *option)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	ap_buf_printf(&line, "%s: %s", asked->title, option ? option->name : "cancelled");
	acp_say(acp, "answer", ap_buf_text(&line));
}

void acp_reply(struct acp *acp, struct acp_pending *pending, int option,
	       const struct acp_giver *giver)
{
	json_t *permission = NULL, *answer;
	if (pending->unknown || pending->refused)
		answer = json_pack("{s:s,s:O,s:{s:i,s:s}}", "jsonrpc", "2.0", "id", pending->id,
				   "error", "code", pending->unknown ? NO_METHOD : INTERNAL,
				   "message",
				   pending->unknown ? "Method not found" : pending->refused);
	else
		answer = json_pack("{s:s,s:O,s:o}", "jsonrpc", "2.0", "id", pending->id, "result",
				   permission_of(pending, option, giver, &permission));
	struct acp_message *message = queue_answer(acp, answer);
	if (message)
		message->record = sent_record(pending, permission);
	if (permission) {
		say_answer(acp, pending->question,
			   option >= 0 ? &pending->question->options[option] : NULL);
		acp_note_permission(acp, pending->call, permission);
	}
	if (message && giver && giver->rule && option >= 0) {
		message->asked = ap_steal(pending->question);
		message->option = option;
		snprintf(message->rule, sizeof message->rule, "%s", giver->rule);
	}
	pending_forget(acp, pending);
}

/* Answers what needs nobody: a method that we do not have, and what a rule answers. */
static void settle(struct acp *acp, struct acp_pending *pending)
{
	char word[AP_PERMISSION_MAX], rule[AP_PERMISSION_MAX + sizeof "permission="];
	if (pending->unknown || pending->refused) {
		acp_reply(acp, pending, -1, NULL);
		return;
	}
	if (pending->over) {
		cancel(acp, pending);
		return;
	}
	const struct question *asked = pending->question;
	const struct question_option *option =
		question_option_by(asked, ap_permission_judge(acp->policy, asked->kind));
	if (!option)
		return;
	ap_permission_format(acp->policy, word, sizeof word);
	snprintf(rule, sizeof rule, "permission=%s", word);
	acp_reply(acp, pending, (int)(option - asked->options), &(struct acp_giver){.rule = rule});
}

static struct acp_pending *pending_new(struct acp *acp, json_t *id)
{
	struct acp_pending *pending = calloc(1, sizeof *pending);
	if (!pending)
		return NULL;
	pending->id = json_incref(id);
	pending->at = acp->at;
	ap_list_append(&acp->pending, &pending->link);
	acp->n_pending++;
	return pending;
}

/* Notes what an earlier owner has answered. */
static void take_sent(struct acp *acp, json_t *params, const struct acp_sent *sent)
{
	struct acp_pending asked = {.id = NULL};
	const char *call = json_string_value(json_object_get(sent->record, "call"));
	json_t *permission = json_object_get(sent->record, "permission");
	if (!json_is_object(permission))
		return;
	const char *option = json_string_value(json_object_get(permission, "option"));
	if (acp_fill_question(acp, params, &asked)) {
		acp_say(acp, "asks", asked.question->title);
		say_answer(acp, asked.question,
			   question_option(asked.question, option ? option : ""));
	}
	acp_note_permission(acp, call ? call : "", json_incref(permission));
	pending_fini(&asked);
}

static void take_request(struct acp *acp, json_t *id, const char *method, json_t *params)
{
	const struct acp_sent *sent = acp->adopting ? sent_find(acp, acp->at) : NULL;
	if (sent) {
		take_sent(acp, params, sent);
		return;
	}
	struct acp_pending *pending = pending_new(acp, id);
	if (!pending)
		return;
	pending->unknown = strcmp(method, "session/request_permission") != 0;
	if (!pending->unknown && acp->n_pending > ACP_PENDING_MAX)
		pending->refused = "too many requests wait";
	else if (!pending->unknown && !acp_fill_question(acp, params, pending))
		pending->refused = "it offers nothing to choose from";
	if (!pending->unknown && !pending->refused)
		acp_say(acp, "asks", pending->question->title);
	if (!acp->adopting)
		settle(acp, pending);
}

/* --- lines --- */

/* What is no message: before the program started it was setup's, and is shown. */
static void skip(struct acp *acp, const char *line, size_t len)
{
	char text[96];
	if (acp->at <= acp->started) {
		acp_show_line(acp, line, len);
		return;
	}
	snprintf(text, sizeof text, "a line of %zu bytes that is no message: %u by now", len,
		 ++acp->n_skipped);
	acp_say(acp, "skipped", text);
}

/* Whether the program repeats what was said before: of that nothing is shown. */
static bool is_quiet(const struct acp *acp)
{
	return acp->at > acp->quiet[0] && acp->at <= acp->quiet[1];
}

/* Whether an update is about another session than the one that is open. */
static bool is_of_another(const struct acp *acp, const json_t *params)
{
	const char *id = json_string_value(json_object_get(params, "sessionId"));
	return !acp->adopting && acp->phase == ACP_OPEN && id && strcmp(id, acp->session) != 0;
}

/* What an error says: its message, and the details where the program has any. */
static void error_text(const json_t *error, char *ret, size_t size)
{
	char message[ACTIVITY_WHY_MAX * 2], details[ACTIVITY_WHY_MAX * 2];
	const json_t *data = json_object_get(error, "data");
	acp_one_line(json_object_get(error, "message"), message, sizeof message);
	acp_one_line(json_is_object(data) ? json_object_get(data, "details") : data, details,
		     sizeof details);
	if (!*message && !*details)
		snprintf(message, sizeof message, "it does not say why");
	snprintf(ret, size, "%s%s%s", message, *message && *details ? ": " : "", details);
}

static void take_update(struct acp *acp, json_t *update, bool is_history)
{
	const char *kind = json_string_value(json_object_get(update, "sessionUpdate"));
	if (kind && strcmp(kind, "usage_update") == 0 && !is_history)
		acp_take_usage_update(acp, update);
	else if (!is_quiet(acp))
		acp_take_update(acp, update);
}

static void take_message(struct acp *acp, json_t *message)
{
	const char *method = json_string_value(json_object_get(message, "method"));
	json_t *id = json_object_get(message, "id"), *params = json_object_get(message, "params");
	json_t *error = json_object_get(message, "error");
	bool is_history = acp->at <= acp->started;
	if (method && acp->at > acp->prompted)
		acp->heard = true;
	char why[ACTIVITY_WHY_MAX * 4 + 2];
	if (method && id && !json_is_null(id)) {
		if (!is_history && json_dumpb(id, NULL, 0, JSON_ENCODE_ANY) <= REQUEST_ID_MAX)
			take_request(acp, id, method, params);
	} else if (method) {
		if (strcmp(method, "session/update") == 0 && !is_of_another(acp, params))
			take_update(acp, json_object_get(params, "update"), is_history);
	} else if (json_is_integer(id)) {
		error_text(error, why, sizeof why);
		take_answer(acp, json_integer_value(id), json_object_get(message, "result"),
			    error ? why : NULL, json_integer_value(json_object_get(error, "code")),
			    json_object_get(error, "data"));
	}
}

/* While output is read again: behind the last prompt begins what answers it. */
static void pass_prompt(struct acp *acp)
{
	if (acp->past_prompt)
		return;
	acp->past_prompt = true;
	buf_empty(&acp->response);
	acp->stop_reason[0] = acp->message[0] = '\0';
	acp->heard = false;
	if (acp->phase == ACP_OPEN)
		acp->trouble[0] = '\0';
}

/* While output is read again: calls of the last program were told of when it ended. */
static void pass_start(struct acp *acp)
{
	if (acp->past_start)
		return;
	acp->past_start = true;
	acp_forget_calls(acp);
}

/* Whether a line is worth parsing: how many values it has at most is seen without that. */
static bool values_are_few(const char *line, size_t len)
{
	size_t n = 0;
	bool in_string = false;
	for (size_t i = 0; i < len && (len > ACP_VALUES_MAX) && n <= ACP_VALUES_MAX; i++) {
		if (line[i] == '\\' && in_string)
			i++;
		else if (line[i] == '"')
			in_string = !in_string;
		else if (!in_string)
			n += line[i] == ',' || line[i] == '[' || line[i] == '{';
	}
	return n <= ACP_VALUES_MAX;
}

void acp_line(struct acp *acp, const char *line, size_t len, int64_t at)
{
	acp->at = at;
	if (acp->adopting && at > acp->started)
		pass_start(acp);
	if (acp->adopting && at > acp->prompted)
		pass_prompt(acp);
	json_t *message = len > 0 && values_are_few(line, len)
				  ? json_loadb(line, len, JSON_ALLOW_NUL, NULL)
				  : NULL;
	if (json_is_object(message))
		take_message(acp, message);
	else if (len > 0)
		skip(acp, line, len);
	json_decref(message);
}

void acp_line_dropped(struct acp *acp)
{
	char text[64];
	snprintf(text, sizeof text, "a line over %d bytes: %u by now", ACP_LINE_MAX,
		 ++acp->n_skipped);
	acp_say(acp, "skipped", text);
}

void acp_error_line(struct acp *acp, const char *line, size_t len)
{
	acp_show_line(acp, line, len);
}

/* --- a connection --- */

static void set_cwd(struct acp *acp, const char *cwd)
{
	free(acp->cwd);
	acp->cwd = strdup(cwd);
}

void acp_begin(struct acp *acp, int64_t at, const char *cwd, const char *resume,
	       const struct profile_pairs *configure)
{
	acp->adopting = false; /* of one that had ended */
	acp->start++;
	acp->n_skipped = 0;
	program_forget(acp);
	set_cwd(acp, cwd);
	acp->configure = configure;
	acp->at = acp->started = at;
	acp->stop_reason[0] = '\0';
	buf_empty(&acp->plan);
	if (id_is_fit(resume))
		strcpy(acp->resume, resume);
	greet(acp);
}

/* The record as a line, which the caller frees; NULL on ENOMEM. */
static char *record_line(const struct acp *acp, size_t *ret_len)
{
	json_t *record = json_pack(
		"{s:i,s:I,s:I,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:s,s:s,s:b,s:b,s:b,s:b,s:s,s:s}",
		"phase", (int)acp->phase, "issued", (json_int_t)acp->issued, "opening",
		(json_int_t)acp->opening, "asked", acp->asked, "awaited", (json_int_t)acp->awaited,
		"prompt", (json_int_t)acp->prompt, "last_prompt", (json_int_t)acp->last_prompt,
		"prompted", (json_int_t)acp->prompted, "started", (json_int_t)acp->started,
		"quiet_from", (json_int_t)acp->quiet[0], "quiet_to", (json_int_t)acp->quiet[1],
		"configured", (int)acp->n_configured, "session", acp->session, "resume",
		acp->resume, "unsure", acp->unsure, "can_load", acp->can_load, "can_resume",
		acp->can_resume, "can_close", acp->can_close, "logins", acp->logins, "trouble",
		acp->trouble);
	char *line = line_of(record, ret_len);
	json_decref(record);
	return line;
}

bool acp_record(struct acp *acp, struct ap_buf *ret)
{
	size_t len;
	AP_CLEANUP_FREE char *line = record_line(acp, &len);
	if (!line || strcmp(line, ap_buf_text(&acp->recorded)) == 0)
		return false;
	buf_empty(&acp->recorded);
	ap_buf_add(&acp->recorded, line, len);
	ap_buf_add(ret, line, len);
	return true;
}

bool acp_has_news(struct acp *acp)
{
	size_t len;
	AP_CLEANUP_FREE char *line = record_line(acp, &len);
	return !ap_list_empty(&acp->outbox) ||
	       (line && strcmp(line, ap_buf_text(&acp->recorded)) != 0);
}

int64_t acp_begins_at(const struct acp *acp)
{
	return acp->started;
}

static int64_t number(const json_t *record, const char *name)
{
	return json_integer_value(json_object_get(record, name));
}

static void text_of(const json_t *record, const char *name, char *ret, size_t size)
{
	const char *text = json_string_value(json_object_get(record, name));
	snprintf(ret, size, "%s", text ? text : "");
	ap_text_tame(ret);
}

/* An offset in output of that size. */
static int64_t offset(const json_t *record, const char *name, int64_t size)
{
	int64_t at = number(record, name);
	return at >= 0 && at <= size ? at : 0;
}

void acp_adopt(struct acp *acp, const char *record, int64_t size, const char *cwd,
	       const struct profile_pairs *configure)
{
	json_t *json = json_loads(record, 0, NULL);
	program_forget(acp);
	set_cwd(acp, cwd);
	acp->configure = configure;
	acp->adopting = true;
	acp->past_start = acp->past_prompt = false;
	int64_t phase = number(json, "phase");
	acp->phase =
		phase > ACP_NOTHING && phase <= ACP_FAILED ? (enum acp_phase)phase : ACP_NOTHING;
	acp->awaited = number(json, "awaited");
	acp->prompt = number(json, "prompt");
	acp->issued = number(json, "issued");
	acp->opening = number(json, "opening");
	acp->asked = json_is_true(json_object_get(json, "asked"));
	acp->last_prompt = number(json, "last_prompt");
	acp->prompted = offset(json, "prompted", size);
	acp->started = offset(json, "started", size);
	acp->quiet[0] = offset(json, "quiet_from", size);
	acp->quiet[1] = number(json, "quiet_to");
	acp->n_configured = (unsigned)number(json, "configured");
	acp->unsure = json_is_true(json_object_get(json, "unsure"));
	acp->can_load = json_is_true(json_object_get(json, "can_load"));
	acp->can_resume = json_is_true(json_object_get(json, "can_resume"));
	acp->can_close = json_is_true(json_object_get(json, "can_close"));
	text_of(json, "session", acp->session, sizeof acp->session);
	text_of(json, "resume", acp->resume, sizeof acp->resume);
	text_of(json, "logins", acp->logins, sizeof acp->logins);
	text_of(json, "trouble", acp->trouble, sizeof acp->trouble);
	json_decref(json);
	if (acp->phase == ACP_OPEN && !id_is_fit(acp->session))
		acp->phase = ACP_NOTHING; /* somebody has changed the record */
}

void acp_was_sent(struct acp *acp, const char *line)
{
	json_t *record = json_loads(line, 0, NULL);
	bool full = (acp->n_sent & (acp->n_sent - 1)) == 0; /* it doubles */
	size_t room = acp->n_sent ? 2 * (size_t)acp->n_sent : 1;
	struct acp_sent *grown = !record ? NULL
				 : full	 ? realloc(acp->sent, room * sizeof *grown)
					 : acp->sent;
	if (!grown) {
		json_decref(record);
		return;
	}
	acp->sent = grown;
	acp->sent_sorted = false;
	acp->sent[acp->n_sent++] = (struct acp_sent){.at = number(record, "at"), .record = record};
}

void acp_go_on(struct acp *acp)
{
	struct ap_list *at, *next;
	acp->adopting = false;
	pass_prompt(acp);
	acp_report_held(acp);
	sent_forget(acp);
	/* what was awaited may have been sent or not */
	if (acp->phase == ACP_CONFIGURING && acp->n_configured > 0)
		acp->n_configured--;
	if (acp->phase == ACP_NOTHING || acp->phase == ACP_GREETING)
		greet(acp);
	else if (acp->phase == ACP_OPENING)
		open_session(acp);
	else if (acp->phase == ACP_CONFIGURING)
		configure(acp);
	ap_list_for_each_safe (at, next, &acp->pending)
		settle(acp, ap_container_of(at, struct acp_pending, link));
}

void acp_calls_known(struct acp *acp, int64_t at)
{
	acp->calls_known = at;
}

/* --- what is known --- */

/* Whether nobody is asked by it. */
static bool is_silent(const struct acp_pending *pending)
{
	return pending->unknown || pending->refused;
}

static const struct acp_pending *first_asked(const struct acp *acp, unsigned *ret_n)
{
	const struct acp_pending *first = NULL;
	struct ap_list *at;
	*ret_n = 0;
	ap_list_for_each (at, &acp->pending) {
		const struct acp_pending *pending = ap_container_of(at, struct acp_pending, link);
		if (is_silent(pending))
			continue;
		first = first ? first : pending;
		++*ret_n;
	}
	return first;
}

enum ap_activity acp_activity(const struct acp *acp, char *ret_why)
{
	static const char *const opening[] = {
		[ACP_NOTHING] = "start: being made",
		[ACP_GREETING] = "start: initialize is not answered yet",
		[ACP_OPENING] = "session: being opened",
		[ACP_CONFIGURING] = "session: its options are being set",
	};
	unsigned n;
	const struct acp_pending *asked = first_asked(acp, &n);
	const char *running = acp->n_calls > 0
				      ? json_string_value(json_object_get(
						acp->calls[acp->n_calls - 1].told, "title"))
				      : NULL;
	if (acp->phase < ACP_OPEN) {
		snprintf(ret_why, ACTIVITY_WHY_MAX, "%s", opening[acp->phase]);
		return acp->anew ? AP_ACTIVITY_BUSY : AP_ACTIVITY_STARTING;
	}
	if (acp->phase == ACP_LOGIN || acp->phase == ACP_FAILED) {
		snprintf(ret_why, ACTIVITY_WHY_MAX, "%s", acp->trouble);
		return AP_ACTIVITY_WAITING;
	}
	if (asked) {
		snprintf(ret_why, ACTIVITY_WHY_MAX,
			 n > 1 ? "asks: %.80s, and %u more" : "asks: %.80s", asked->question->title,
			 n - 1);
		return AP_ACTIVITY_WAITING;
	}
	if (acp->prompt && acp->unsure && !acp->heard) {
		snprintf(
			ret_why, ACTIVITY_WHY_MAX,
			"prompt: the daemon died as it gave it: cancel it, or restart the program");
		return AP_ACTIVITY_WAITING;
	}
	if (acp->prompt) {
		snprintf(ret_why, ACTIVITY_WHY_MAX, "turn: %.100s",
			 running ? running : "under way");
		return AP_ACTIVITY_BUSY;
	}
	if (*acp->trouble)
		snprintf(ret_why, ACTIVITY_WHY_MAX, "error: %.100s", acp->trouble);
	else
		snprintf(ret_why, ACTIVITY_WHY_MAX, "turn: %.32s",
			 *acp->stop_reason ? acp->stop_reason : "none yet");
	return AP_ACTIVITY_READY;
}

/* A name for a request that lasts as long as it waits. */
static void request_id(const struct acp_pending *pending, char ret[20])
{
	snprintf(ret, 20, "%08x", (unsigned)ap_hash_bytes(&pending->at, sizeof pending->at));
}

static void fill(const struct acp_pending *pending, struct question *ret)
{
	*ret = *pending->question;
	request_id(pending, ret->id);
}

void acp_question(const struct acp *acp, unsigned nth, struct question *ret)
{
	struct ap_list *at;
	*ret = (struct question){.kind = "other"};
	ap_list_for_each (at, &acp->pending) {
		const struct acp_pending *pending = ap_container_of(at, struct acp_pending, link);
		if (is_silent(pending) || nth-- > 0)
			continue;
		fill(pending, ret);
		return;
	}
}

const char *acp_response(const struct acp *acp)
{
	size_t over =
		acp->response.len > ACP_RESPONSE_MAX ? acp->response.len - ACP_RESPONSE_MAX : 0;
	return ap_buf_text(&acp->response) + over;
}

const char *acp_turn_over(struct acp *acp, int64_t *ret_at)
{
	bool is_over = acp->is_over;
	acp->is_over = false;
	*ret_at = acp->over_at;
	return is_over ? ap_buf_text(&acp->over) : NULL;
}

const char *acp_plan(const struct acp *acp)
{
	return ap_buf_text(&acp->plan);
}

const char *acp_stop_reason(const struct acp *acp)
{
	return acp->stop_reason;
}

const char *acp_gone(struct acp *acp)
{
	memcpy(acp->gone_told, acp->gone, sizeof acp->gone_told);
	acp->gone[0] = '\0';
	return acp->gone_told;
}

const char *acp_session(const struct acp *acp)
{
	return acp->phase == ACP_OPEN ? acp->session : "";
}

struct ap_buf *acp_text(struct acp *acp)
{
	return &acp->text;
}

struct ap_buf *acp_calls(struct acp *acp)
{
	return &acp->ended;
}

struct ap_buf *acp_usage(struct acp *acp)
{
	return &acp->usage;
}

/* --- what we say --- */

int acp_prompt(struct acp *acp, const char *text, size_t len, struct ap_buf *ret_line)
{
	if (acp->phase != ACP_OPEN || acp->prompt)
		return -EAGAIN;
	json_t *prompt = json_stringn(text, len);
	if (!prompt)
		return -EILSEQ;
	int64_t id = new_id(acp, ACP_PROMPT);
	json_t *message = request(id, "session/prompt",
				  json_pack("{s:s,s:[{s:s,s:o}]}", "sessionId", acp->session,
					    "prompt", "type", "text", "text", prompt));
	size_t size;
	AP_CLEANUP_FREE char *line = line_of(message, &size);
	json_decref(message);
	if (!line)
		return -ENOMEM;
	ap_buf_add(ret_line, line, size);
	acp->prompt = acp->last_prompt = acp->issued = id;
	acp->asked = true;
	acp->unsure = acp->heard = false;
	acp->prompted = acp->at;
	buf_empty(&acp->response);
	acp->stop_reason[0] = acp->trouble[0] = acp->message[0] = '\0';
	return ret_line->failed ? -ENOMEM : 0;
}

void acp_prompt_failed(struct acp *acp)
{
	acp->prompt = 0;
}

void acp_prompt_unsure(struct acp *acp)
{
	acp->unsure = acp->prompt != 0;
}

void acp_cancel(struct acp *acp)
{
	if (acp->phase != ACP_OPEN)
		return;
	bool is_unsure = acp->unsure && !acp->heard;
	if (acp->prompt)
		queue(acp, json_pack("{s:s,s:s,s:{s:s}}", "jsonrpc", "2.0", "method",
				     "session/cancel", "params", "sessionId", acp->session));
	cancel_pending(acp);
	if (is_unsure && acp->prompt) { /* a program that never got it answers nothing */
		acp->prompt = acp->last_prompt = 0;
		acp->unsure = false;
		snprintf(acp->stop_reason, sizeof acp->stop_reason, "cancelled");
		acp_say(acp, "stopped", acp->stop_reason);
	}
}

int acp_reopen(struct acp *acp, const char *resume)
{
	if (acp->phase != ACP_OPEN || acp->prompt)
		return -EAGAIN;
	if (*resume && (!id_is_fit(resume) || (!acp->can_resume && !acp->can_load)))
		return -EOPNOTSUPP;
	if (acp->can_close)
		queue(acp, request(new_id(acp, ACP_CLOSE), "session/close",
				   json_pack("{s:s}", "sessionId", acp->session)));
	cancel_pending(acp);
	acp->session[0] = acp->resume[0] = acp->stop_reason[0] = acp->trouble[0] = '\0';
	acp->last_prompt = 0;
	buf_empty(&acp->plan);
	acp->anew = true;
	strcpy(acp->resume, resume);
	open_session(acp);
	return 0;
}

static struct acp_pending *asked_find(const struct acp *acp, const char *id)
{
	struct ap_list *at;
	ap_list_for_each (at, &acp->pending) {
		struct acp_pending *pending = ap_container_of(at, struct acp_pending, link);
		char own[20];
		request_id(pending, own);
		if (!is_silent(pending) && (!*id || strcmp(id, own) == 0))
			return pending;
	}
	return NULL;
}

int acp_answer(struct acp *acp, const char *id, const char *word, const struct acp_giver *giver,
	       struct question *ret_asked, const struct question_option **ret_option)
{
	struct acp_pending *pending = asked_find(acp, id);
	if (!pending)
		return -ENODATA;
	fill(pending, ret_asked);
	bool cancel = strcmp(word, "cancel") == 0;
	*ret_option = cancel ? NULL : question_option(ret_asked, word);
	if (!cancel && !*ret_option)
		return -EINVAL;
	acp_reply(acp, pending, cancel ? -1 : (int)(*ret_option - ret_asked->options), giver);
	return 0;
}

void acp_permit(struct acp *acp, uint32_t policy)
{
	struct ap_list *at, *next;
	acp->policy = policy;
	if (acp->adopting)
		return;
	ap_list_for_each_safe (at, next, &acp->pending)
		settle(acp, ap_container_of(at, struct acp_pending, link));
}
